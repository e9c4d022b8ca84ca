package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// licences are those that a dependency may have, by words that stand in no other
// one. MPL-2.0 will do for what is used as it was published.
var licences = map[string][]string{
	"MIT":          {"permission is hereby granted, free of charge, to any person obtaining a copy of this software", "the above copyright notice and this permission notice shall be included"},
	"BSD-3-Clause": {"redistribution and use in source and binary forms, with or without modification, are permitted", "may be used to endorse or promote products derived from this software without specific prior written permission"},
	"BSD-2-Clause": {"redistribution and use in source and binary forms, with or without modification, are permitted", "redistributions in binary form must reproduce the above copyright notice"},
	"Apache-2.0":   {"apache license version 2.0, january 2004"},
	"ISC":          {"permission to use, copy, modify, and/or distribute this software for any purpose with or without fee is hereby granted"},
	"MPL-2.0":      {"mozilla public license version 2.0 ================================== 1. definitions"},
	"Unlicense":    {"this is free and unencumbered software released into the public domain"},
}

// foreign are words of licences that are none of those, which may stand in a
// file beside one that is.
var foreign = []string{
	"gnu general public", "gnu lesser", "gnu affero", "mozilla public", "eclipse public", "server side public", "business source",
	"elastic license", "commons clause", "creative commons", "common development and distribution",
}

// licencesIn are the licences that a text holds, and what is wrong with it.
func licencesIn(text string) ([]string, error) {
	text = strings.ToLower(text)
	text = strings.NewReplacer("(the \"software\")", "", "(http://www.apache.org/licenses/)", "").Replace(text)
	text = strings.Join(strings.Fields(regexp.MustCompile(`[*#/>]+ `).ReplaceAllString(text, " ")), " ")
	var found []string
	for _, name := range sortedKeys(licences) {
		if !slices.ContainsFunc(licences[name], func(words string) bool { return !strings.Contains(text, words) }) {
			found = append(found, name)
		}
	}
	for _, words := range foreign {
		// The MPL names those that its secondary licences may be.
		if strings.Contains(text, words) && !slices.Contains(found, "MPL-2.0") {
			return nil, fmt.Errorf("it says %q", words)
		}
	}
	if slices.Contains(found, "BSD-3-Clause") { // which says all that the other one says
		found = slices.DeleteFunc(found, func(name string) bool { return name == "BSD-2-Clause" })
	}
	if len(found) == 0 {
		return nil, errors.New("its text is that of no licence on the list")
	}
	return found, nil
}

// A dependency is a module of which we use packages.
type dependency struct {
	Path, Version, Dir string
	Replace            *struct{ Path string }
	tested             bool              // for tests alone
	files              map[string]string // licences, by path within the module
}

// dependencies are the modules that the program and its tests are made of.
func dependencies(t *testing.T, goos string) map[string]*dependency {
	t.Helper()
	all := make(map[string]*dependency)
	for _, tests := range []bool{false, true} {
		list := exec.CommandContext(t.Context(), "go", "list", fmt.Sprintf("-test=%t", tests), "-deps", "-json=Dir,Module", "bulkmail/...")
		list.Env = append(os.Environ(), "GOOS="+goos, "CGO_ENABLED=0")
		var problems strings.Builder
		list.Stderr = &problems
		out, err := list.Output()
		if err != nil {
			t.Fatalf("%v: %v\n%s", list.Args, err, &problems)
		}
		for packages := json.NewDecoder(strings.NewReader(string(out))); ; {
			var p struct {
				Dir    string
				Module *struct {
					dependency
					Main bool
				}
			}
			if err := packages.Decode(&p); errors.Is(err, io.EOF) {
				break
			} else if err != nil {
				t.Fatal(err)
			}
			if p.Module == nil || p.Module.Main {
				continue
			}
			d := all[p.Module.Path]
			if d == nil {
				d = &p.Module.dependency
				d.tested, d.files = tests, make(map[string]string)
				all[d.Path] = d
			}
			d.find(t, p.Dir)
		}
	}
	return all
}

var licenceFile = regexp.MustCompile(`(?i)^(un)?licen[cs]e|^copying`)

// find reads the licences that hold for a package: those in its folder and above.
func (d *dependency) find(t *testing.T, dir string) {
	t.Helper()
	for ; ; dir = filepath.Dir(dir) {
		entries, err := os.ReadDir(dir)
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range entries {
			if !e.Type().IsRegular() || !licenceFile.MatchString(e.Name()) || strings.HasSuffix(e.Name(), ".go") {
				continue
			}
			text, err := os.ReadFile(filepath.Join(dir, e.Name()))
			if err != nil {
				t.Fatal(err)
			}
			name, err := filepath.Rel(d.Dir, filepath.Join(dir, e.Name()))
			if err != nil {
				t.Fatal(err)
			}
			d.files[name] = string(text)
		}
		if dir == d.Dir || len(dir) <= len(d.Dir) {
			return
		}
	}
}

func TestEveryDependencyHasALicenceThatWeMayUse(t *testing.T) {
	t.Parallel()
	systems := []string{"linux"}
	if os.Getenv("BULKMAIL_REQUIRE_PEERS") != "" { // may have to fetch what only they need
		systems = append(systems, "darwin", "windows")
	}
	readme, err := os.ReadFile("../../README.md")
	if err != nil {
		t.Fatal(err)
	}
	all := make(map[string]*dependency)
	for _, goos := range systems {
		for path, d := range dependencies(t, goos) {
			if known := all[path]; known == nil || known.tested {
				all[path] = d
			}
		}
	}
	table := newTable("module", "version", "licences", "file", "for")
	for _, path := range sortedKeys(all) {
		d := all[path]
		if len(d.files) == 0 {
			t.Errorf("%s %s has no licence", d.Path, d.Version)
		}
		if d.Replace != nil {
			t.Errorf("%s is replaced by %s: is that unmodified?", d.Path, d.Replace.Path)
		}
		use := "the program"
		if d.tested {
			use = "tests"
		}
		for _, file := range sortedKeys(d.files) {
			found, err := licencesIn(d.files[file])
			if err != nil {
				t.Errorf("%s %s, %s: %v", d.Path, d.Version, file, err)
			}
			for _, name := range found {
				if !strings.Contains(string(readme), name) {
					t.Errorf("README.md does not name %s, which %s has", name, d.Path)
				}
			}
			table.row(d.Path, d.Version, strings.Join(found, ", "), file, use)
		}
	}
	var out strings.Builder
	if err := table.print(&out); err != nil {
		t.Fatal(err)
	}
	t.Logf("%d modules\n%s", len(all), &out)
}

func TestALicenceThatIsNotOnTheListIsFound(t *testing.T) {
	t.Parallel()
	mit, err := os.ReadFile("../../LICENSE")
	if err != nil {
		t.Fatal(err)
	}
	for text, want := range map[string]string{
		string(mit): "[MIT] <nil>",
		string(mit) + "\nGNU  General\nPublic License": `[] it says "gnu general public"`,
		"Mozilla Public License Version 2.0":           `[] it says "mozilla public"`,
		"All rights reserved.":                         "[] its text is that of no licence on the list",
		"":                                             "[] its text is that of no licence on the list",
		strings.Replace(string(mit), "free of charge", "for a fee", 1): "[] its text is that of no licence on the list",
	} {
		found, err := licencesIn(text)
		if got := fmt.Sprint(found, " ", err); got != want {
			t.Errorf("%.40q: %s, want %s", text, got, want)
		}
	}
}
