package main

import (
	"bytes"
	"encoding/json"
	"io"
	"net/mail"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// What is missing, which the specification prints as nothing, rejects a letter.
var notShown = regexp.MustCompile(`not sent: \{\{.*\}\} is (missing and has no default|a list or an object, not a text)`)

// The files of the Mustache specification as a user has them: a message, a list of
// JSON lines, and what preview shows.
func TestPreviewHoldsTheMustacheSpecification(t *testing.T) {
	t.Parallel()
	files, err := filepath.Glob("../../envelope/mustache/testdata/spec/*.json")
	if err != nil || len(files) != 5 {
		t.Fatal(files, err)
	}
	shown := 0
	for _, file := range files {
		raw, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		var spec struct {
			Tests []struct {
				Name, Template, Expected string
				Data                     json.RawMessage
				Partials                 map[string]string
			}
		}
		if err := json.Unmarshal(raw, &spec); err != nil {
			t.Fatal(err)
		}
		for _, test := range spec.Tests {
			if test.Partials != nil || test.Data[0] != '{' {
				continue
			}
			got, said := previewOf(t, test.Template, test.Data)
			if notShown.MatchString(said) && regexp.MustCompile(`Null|Miss|Broken|Precedence|never single keys`).MatchString(test.Name) {
				continue
			}
			// A letter ends with a line end, and its lines with CRLF.
			want := strings.TrimRight(strings.ReplaceAll(test.Expected, "\r\n", "\n"), "\n")
			if got = strings.TrimRight(strings.ReplaceAll(got, "\r\n", "\n"), "\n"); got != want {
				t.Errorf("%s: %s: %q\n got %q\nwant %q\n%s", filepath.Base(file), test.Name, test.Template, got, want, said)
			}
			shown++
		}
	}
	if shown < 100 {
		t.Errorf("%d tests only", shown)
	}
}

// previewOf shows the only letter of a list: its text, and what was said beside it.
func previewOf(t *testing.T, template string, data json.RawMessage) (text, said string) {
	t.Helper()
	dir := t.TempDir()
	var line bytes.Buffer
	if err := json.Compact(&line, data); err != nil {
		t.Fatal(err)
	}
	for name, content := range map[string]string{
		"m.eml":  "From: a@example.com\nTo: {{to}}\nSubject: t\nContent-Type: text/html; charset=utf-8\nContent-Transfer-Encoding: 8bit\n\n" + template,
		"l.json": `{"to":"ann@example.net","data":` + line.String() + "}\n",
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	var out, errs strings.Builder
	s := discard()
	s.out, s.err = &out, &errs
	cmd := newPreview(s)
	cmd.SetArgs([]string{"--message", filepath.Join(dir, "m.eml"), filepath.Join(dir, "l.json")})
	cmd.SilenceUsage, cmd.SilenceErrors = true, true
	if err := cmd.ExecuteContext(t.Context()); err != nil {
		return "", errs.String() + err.Error()
	}
	letter, err := mail.ReadMessage(strings.NewReader(out.String()))
	if err != nil {
		t.Fatalf("%v in\n%s", err, out.String())
	}
	body, err := io.ReadAll(letter.Body)
	if err != nil {
		t.Fatal(err)
	}
	return string(body), errs.String()
}
