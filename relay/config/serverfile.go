package config

import (
	"bytes"
	"errors"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"unicode"

	"bulkmail/relay"
)

// The packages of Mail::Bulkmail that matter here. A DummyServer is a Server,
// so it inherits what is said of one.
const (
	serverPackage = "Mail::Bulkmail::Server"
	dummyPackage  = "Mail::Bulkmail::DummyServer"
	mainPackage   = "Mail::Bulkmail"
)

var (
	defineLine  = regexp.MustCompile(`^define\s+package\b\s*(\S*)(.*)$`)
	packageName = regexp.MustCompile(`^[\w:]+$`)
	valueLine   = regexp.MustCompile(`^(?:([0-9]+)\s*:)?\s*(\w+)\s*(@?)=\s*(.*)$`)
)

// isServerFile tells a Mail::Bulkmail file from YAML by what is in it: it
// defines a package, or starts with an assignment.
func isServerFile(data []byte) bool {
	first := true
	for line := range strings.Lines(string(data)) {
		line = strings.TrimSpace(line)
		switch {
		case line == "" || line[0] == '#':
			continue
		case defineLine.MatchString(line), first && valueLine.MatchString(line):
			return true
		}
		first = false
	}
	return false
}

// A section is what a server file says of one package.
type section struct {
	at      place
	scalars map[string]setting   // key = value
	lists   map[string][]setting // key @= value
}

// A serverFile is a file of Mail::Bulkmail, taken apart.
type serverFile struct {
	name     string
	sections map[string]*section
	files    map[string]setting // server_file, by package
	class    setting            // server_class
}

// readServerFile reads a file of Mail::Bulkmail, and the server_file that it
// names.
func (l *loader) readServerFile(name string, data []byte) []*draft {
	f := l.parseServerFile(name, data)
	server, dummy := f.sections[serverPackage], f.sections[dummyPackage]

	// Mail::Bulkmail makes servers of one class, server_class. Without it, a
	// DummyServer that was only given its file for debugging days must not
	// swallow mail: it counts where there is no other server, or where it
	// lists some of its own.
	var packages []string
	switch class := strings.TrimSpace(f.class.value); class {
	case "":
		if f.hasServers(serverPackage) || dummy == nil {
			packages = append(packages, serverPackage)
		}
		if dummy != nil && (len(packages) == 0 || f.hasServers(dummyPackage)) {
			packages = append(packages, dummyPackage)
		}
	case serverPackage, dummyPackage:
		packages = []string{class}
	default:
		l.problems.add(f.class.at, f.class.label, "a Perl class cannot be used here: want "+serverPackage+" or "+dummyPackage)
		return nil
	}
	if server == nil && dummy == nil {
		found := slices.DeleteFunc(slices.Sorted(maps.Keys(f.sections)), func(pkg string) bool { return !packageName.MatchString(pkg) })
		reason := "no section defines package " + serverPackage
		if len(found) > 0 {
			reason += ", only " + strings.Join(found, ", ")
		}
		l.problems.add(place{source: name}, "", reason)
		return nil
	}
	var drafts []*draft
	for _, p := range packages {
		drafts = append(drafts, l.servers(f, p, len(packages) == 1)...)
	}
	return drafts
}

// hasServers tells whether the file names servers of a package.
func (f *serverFile) hasServers(pkg string) bool {
	s := f.sections[pkg]
	if s == nil {
		return false
	}
	_, one := s.scalars["host"]
	_, elsewhere := f.files[pkg]
	return one || elsewhere || len(s.lists["host"]) > 0
}

// servers makes drafts of all servers of a package. alone says that the file
// has no servers of another package.
func (l *loader) servers(f *serverFile, pkg string, alone bool) []*draft {
	s := f.inherited(pkg, alone)
	defaults := s.scalars
	file, elsewhere := f.files[pkg]
	if !elsewhere && alone {
		file, elsewhere = f.files[serverPackage]
	}
	if elsewhere {
		for _, list := range s.lists {
			l.problems.add(list[0].at, list[0].label, "a list has no servers to belong to here: move it to the server_file, or write = for a default")
		}
		delete(defaults, "host") // in Mail::Bulkmail, a default that no server ever falls back on
		name := besideFile(f.name, file.value)
		data, ok := l.read(file.at, file.label, name)
		if !ok {
			return nil
		}
		data = bytes.TrimPrefix(data, []byte(byteOrderMark))
		if !isServerFile(data) {
			l.problems.add(file.at, file.label, name+" is no Mail::Bulkmail file: want define package "+serverPackage)
			return nil
		}
		g := l.parseServerFile(name, data)
		for _, further := range g.files {
			l.problems.add(further.at, further.label, "a server_file cannot name another one")
		}
		s = g.inherited(pkg, alone)
		if s.at == (place{}) {
			l.problems.add(place{source: name}, "", "no section defines package "+pkg)
			return nil
		}
		maps.Copy(defaults, s.scalars)
	}
	return l.perServer(s, defaults, pkg)
}

// inherited is the section of a package, over that of Server for a
// DummyServer.
func (f *serverFile) inherited(pkg string, alone bool) *section {
	merged := &section{scalars: map[string]setting{}, lists: map[string][]setting{}}
	from := []string{pkg}
	if pkg == dummyPackage {
		from = []string{serverPackage, dummyPackage}
	}
	for _, p := range from {
		s := f.sections[p]
		if s == nil {
			continue
		}
		merged.at = s.at
		maps.Copy(merged.scalars, s.scalars)
		// Two classes in one file: the servers of the one are not those of the
		// other.
		if p == pkg || alone {
			maps.Copy(merged.lists, s.lists)
		}
	}
	return merged
}

// perServer deals the lists out: the n-th value belongs to the n-th server.
func (l *loader) perServer(s *section, defaults map[string]setting, pkg string) []*draft {
	kind, names := relay.KindSMTP, "host"
	if pkg == dummyPackage {
		// It connects to nobody: its Smtp is but a name.
		kind, names = relay.KindDummy, "name"
	}
	hosts, one := s.lists["host"], false
	if len(hosts) == 0 {
		host, ok := defaults["host"]
		switch {
		case ok:
			hosts, one = []setting{host}, true
		case kind == relay.KindDummy:
			hosts, one = []setting{{at: s.at}}, true
		default:
			l.problems.add(s.at, "Smtp", "no server is named: write Smtp @= mx.example.com for each")
			return nil
		}
	}
	shared := maps.Clone(defaults)
	delete(shared, "host")
	for name, list := range s.lists {
		if len(list) == len(hosts) {
			continue
		}
		servers := fmt.Sprintf("%d servers (Smtp, from line %d)", len(hosts), hosts[0].at.line)
		if one || len(hosts) == 1 {
			servers = "1 server"
		}
		l.problems.add(list[0].at, list[0].label, fmt.Sprintf(
			"%s for %s: write one for each (undef leaves a server to the default), or a single = for all", plural(len(list), "value"), servers))
		delete(s.lists, name)
		shared[name] = setting{key: keyNamed(name), at: list[0].at, broken: true}
	}
	drafts := make([]*draft, len(hosts))
	for i, host := range hosts {
		d := &draft{form: formServerFile, at: host.at, own: map[string]setting{}, defaults: shared}
		d.own["kind"] = setting{key: keyNamed("kind"), label: "define package", value: kind, at: s.at}
		for name, list := range s.lists {
			if list[i].value != undefined {
				d.own[name] = list[i]
			}
		}
		delete(d.own, "host")
		if host.key != nil && host.value != undefined {
			host.key = keyNamed(names)
			d.own[names] = host
		}
		drafts[i] = d
	}
	return drafts
}

// undefined is how a server file says that a value is not set.
const undefined = "undef"

// parseServerFile takes a file apart line by line, after the specification in
// the manual page Mail::Bulkmail::Object.
func (l *loader) parseServerFile(name string, data []byte) *serverFile {
	f := &serverFile{name: name, sections: map[string]*section{}, files: map[string]setting{}}
	pkg, n := "", 0
	for line := range strings.Lines(string(data)) {
		if l.problems.full() {
			break
		}
		n++
		at := place{source: name, line: n}
		line = strings.TrimSpace(line)
		if line == "" || line[0] == '#' {
			continue
		}
		if m := defineLine.FindStringSubmatch(line); m != nil {
			pkg = m[1]
			switch {
			case pkg == "":
				l.problems.add(at, "define package", "names no package: want define package "+serverPackage)
			case strings.TrimSpace(m[2]) != "":
				l.problems.add(at, "define package", "want nothing after the package; a comment stands on a line of its own")
			}
			if f.sections[pkg] == nil {
				f.sections[pkg] = newSection(at)
			}
			continue
		}
		m := valueLine.FindStringSubmatch(line)
		if m == nil {
			if pkg == "" || pkg == serverPackage || pkg == dummyPackage {
				l.problems.add(at, "", "not understood: want key = value, key @= value, define package NAME or # comment")
			}
			continue
		}
		if uid := m[1]; uid != "" && uid != strconv.Itoa(l.opt.UID()) {
			continue
		}
		l.assign(f, pkg, setting{label: m[2], value: m[4], at: at}, m[3] == "@")
	}
	return f
}

func newSection(at place) *section {
	return &section{at: at, scalars: map[string]setting{}, lists: map[string][]setting{}}
}

// assign takes one assignment into the section of its package.
func (l *loader) assign(f *serverFile, pkg string, s setting, list bool) {
	switch pkg {
	case "":
		// Before any definition Mail::Bulkmail assumes Mail::Bulkmail::Object, from
		// which Server inherits. Its own attribute is not ours.
		if s.label == "ERRFILE" {
			return
		}
		pkg = serverPackage
	case mainPackage:
		if strings.EqualFold(s.label, "server_class") && s.value != undefined {
			f.class = s
		}
		return
	case serverPackage, dummyPackage:
	default:
		return
	}
	if f.sections[pkg] == nil {
		f.sections[pkg] = newSection(s.at)
	}
	if err := plainValue(s.value); err != nil {
		l.problems.add(s.at, s.label, err.Error())
		s.broken = true
	}
	written := s.value != undefined && !s.broken
	if strings.EqualFold(s.label, "server_file") {
		if list {
			l.problems.add(s.at, s.label, "want one file: server_file = servers.txt")
		} else if written {
			f.files[pkg] = s
		}
		return
	}
	s.key = seedKey(s.label)
	if reason := notAssignable(s); reason != "" {
		l.problems.add(s.at, s.label, reason)
		return
	}
	if s.key.fromDir && written {
		s.value = besideFile(f.name, s.value)
	}
	sec, name := f.sections[pkg], s.key.Name
	switch {
	case list:
		sec.lists[name] = append(sec.lists[name], s)
	case s.value == undefined:
		delete(sec.scalars, name)
	default:
		sec.scalars[name] = s // the last one counts, as in Mail::Bulkmail
	}
}

// plainValue refuses what Mail::Bulkmail would hand to Perl, and what people expect
// who know other files.
func plainValue(value string) error {
	switch {
	case value == "":
		return errors.New("has no value: write undef to leave it to the default")
	case strings.ContainsFunc(value, unicode.IsControl):
		return errors.New("has a control character in it")
	case strings.HasPrefix(value, `\`):
		return errors.New(`starts with a backslash, which Mail::Bulkmail evaluates as Perl: write the value itself`)
	case strings.HasSuffix(value, `\`):
		return errors.New(`ends with a backslash: a value cannot go on in the next line`)
	}
	return nil
}

// notAssignable says why nothing can be assigned to an attribute; empty: it can.
func notAssignable(s setting) string {
	if reason := readOnly(s.label); reason != "" {
		return reason
	}
	switch {
	case s.key == nil:
		return "unknown attribute" + DidYouMean(s.label, seedNames())
	case s.key.Name == "kind":
		return "the package says it: define package " + serverPackage + " or " + dummyPackage
	}
	return ""
}

// readOnly says why an attribute of a Mail::Bulkmail server cannot be set in a file.
func readOnly(name string) string {
	switch {
	case strings.EqualFold(name, "connected"):
		return "is read-only: it says whether a session is open; see relays list"
	case strings.EqualFold(name, "time_of_last_message"):
		return "is read-only: it is set when a message is sent; see relays list"
	case strings.EqualFold(name, "socket"):
		return "means nothing in a file: it holds an open connection"
	case strings.HasPrefix(name, "_"):
		return "is internal to Mail::Bulkmail and cannot be set"
	}
	return ""
}

func seedNames() []string {
	names := []string{"server_file"}
	for i := range table {
		if table[i].Seed != "" {
			names = append(names, table[i].Seed)
		} else {
			names = append(names, table[i].Name)
		}
	}
	return names
}

func plural(n int, noun string) string {
	if n == 1 {
		return "1 " + noun
	}
	return strconv.Itoa(n) + " " + noun + "s"
}
