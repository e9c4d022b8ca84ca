package letter

import (
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// The files of the Mustache specification again, each template as the HTML of a
// letter, in every encoding. What is not an object, and partials, no letter has.
func TestTheMustacheSpecificationHoldsInALetter(t *testing.T) {
	t.Parallel()
	files, err := filepath.Glob("../mustache/testdata/spec/*.json")
	if err != nil || len(files) != 5 {
		t.Fatal(files, err)
	}
	tested := 0
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
			for _, encoding := range []string{"8bit", "quoted-printable"} {
				template := strings.ReplaceAll(test.Template, "\r\n", "\n")
				if encoding == "quoted-printable" {
					template = strings.ReplaceAll(strings.ReplaceAll(template, "=", "=3D"), " \n", "=20\n")
				}
				message := head + "Content-Type: text/html; charset=utf-8\nContent-Transfer-Encoding: " + encoding + "\n\n" + template
				l, err := letterOf(t, message, string(test.Data), false)
				if _, rejected := errors.AsType[*RejectError](err); rejected && filepath.Base(file) == "interpolation.json" && test.Expected != strings.ReplaceAll(test.Expected, "()", "") || rejected && (strings.Contains(test.Name, "Dotted") || strings.Contains(test.Name, "Precedence")) {
					continue // what is missing rejects the letter
				}
				if err != nil {
					t.Errorf("%s: %v", test.Name, err)
					continue
				}
				// A letter ends with a line end.
				got, want := strings.TrimRight(textOf(t, string(l.Wire)), "\n"), strings.TrimRight(strings.ReplaceAll(test.Expected, "\r\n", "\n"), "\n")
				if got != want {
					t.Errorf("%s, %s: %q\n got %q\nwant %q", test.Name, encoding, test.Template, got, want)
				}
				tested++
			}
		}
	}
	if tested < 200 {
		t.Errorf("%d tests only", tested)
	}
}
