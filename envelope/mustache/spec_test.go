package mustache

import (
	"encoding/json"
	"errors"
	"html"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// page writes a template as a page of HTML would be.
type page struct{ strings.Builder }

func (p *page) Literal(n *Node) error {
	p.WriteString(n.Text)
	return nil
}

func (p *page) Value(n *Node, text []byte) error {
	if n.Raw {
		p.Write(text)
		return nil
	}
	p.WriteString(strings.ReplaceAll(html.EscapeString(string(text)), "&#34;", "&quot;"))
	return nil
}

func merge(template, data string) (string, error) {
	nodes, err := Parse(template)
	if err != nil {
		return "", err
	}
	var d Data
	v, err := d.Read([]byte(data))
	if err != nil {
		return "", err
	}
	var c Context
	c.Begin(v)
	var p page
	err = c.Execute(nodes, &p)
	return p.String(), err
}

// printsNothing are the tests of what is missing.
var printsNothing = regexp.MustCompile(`Null|Miss|Broken|Precedence|never single keys`)

// The files of the specification, but for what is missing, which is an error
// here, and for partials, which we do not have.
func TestWhatTheSpecificationSaysHolds(t *testing.T) {
	t.Parallel()
	files, err := filepath.Glob("testdata/spec/*.json")
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
			t.Run(filepath.Base(file)+"/"+test.Name, func(t *testing.T) {
				got, err := merge(test.Template, string(test.Data))
				_, missing := errors.AsType[*MissingError](err)
				_, syntax := errors.AsType[*SyntaxError](err)
				switch {
				case test.Partials != nil:
					if !syntax {
						t.Errorf("%q with a partial: %q, %v", test.Template, got, err)
					}
				case missing && filepath.Base(file) == "interpolation.json" && printsNothing.MatchString(test.Name):
				case err != nil || got != test.Expected:
					t.Errorf("%q with %s: %v\n got %q\nwant %q", test.Template, test.Data, err, got, test.Expected)
				}
				tested++
			})
		}
	}
	if tested < 124 {
		t.Errorf("%d tests only", tested)
	}
}

func TestADefaultStandsForWhatIsMissingNullOrEmpty(t *testing.T) {
	t.Parallel()
	for _, test := range []struct{ template, data, want string }{
		{"{{first|friend}}", `{}`, "friend"},
		{"{{first|friend}}", `{"first":null}`, "friend"},
		{"{{first|friend}}", `{"first":""}`, "friend"},
		{"{{first|friend}}", `{"first":"Ann"}`, "Ann"},
		{"{{first|friend}}", `{"first":0}`, "0"},
		{"{{ first | dear <friend> }}", `{}`, "dear &lt;friend&gt;"},
		{"{{{first|<b>}}}", `{}`, "<b>"},
		{"{{first|}}", `{}`, ""},
		{"{{first}}", `{"first":""}`, ""},
		{"{{a.b|c}}", `{"a":1}`, "c"},
		{"{{First Name}}", `{"First Name":"Ann"}`, "Ann"},
		{"{{x}}", `{"x":true}`, "true"},
		{"{{x}}", `{"x":1e3,"x":-2.50}`, "-2.50"},
		{"{{#x}}yes{{/x}}{{^x}}no{{/x}}", `{"x":""}`, "no"},
		{"{{#x}}yes{{/x}}{{^x}}no{{/x}}", `{"x":0.0}`, "no"},
		{"{{#x}}yes{{/x}}{{^x}}no{{/x}}", `{"x":"0"}`, "yes"},
		{"{{x}}", `{"x":"a\u00fc\ud83d\ude00\n\"\/"}`, "aü😀\n&quot;/"},
	} {
		if got, err := merge(test.template, test.data); err != nil || got != test.want {
			t.Errorf("%s with %s: %q, %v; want %q", test.template, test.data, got, err, test.want)
		}
	}
}

func TestWhatCannotBeWrittenIsSaid(t *testing.T) {
	t.Parallel()
	for _, test := range []struct{ template, data, want string }{
		{"{{first}}", ``, "{{first}} is missing and has no default"},
		{"{{first}}", `{"first":null}`, "{{first}} is missing and has no default"},
		{"{{a.b}}", `{"a":{},"b":1}`, "{{a.b}} is missing and has no default"},
		{"{{a}}", `{"a":[]}`, "{{a}} is a list or an object, not a text"},
		{"{{.}}", `{}`, "{{.}} is a list or an object, not a text"},
		{"x{{#a}}", `{}`, "octet 1: the section a is not closed: write {{/a}}"},
		{"x{{/a}}", `{}`, "octet 1: no section a is open here"},
		{"{{#a}}{{/b}}", `{}`, "octet 6: closes the section b, but a is open"},
		{"hi {{first", `{}`, "octet 3: the tag is not closed: }} is missing"},
		{"hi {{{first}}", `{}`, "octet 3: the tag is not closed: }}} is missing"},
		{"{{}}", `{}`, "octet 0: the tag has no name"},
		{"{{ |x}}", `{}`, "octet 0: the tag has no name"},
		{"{{a..b}}", `{}`, "octet 0: not a name: a name is on one line, with dots between its parts alone"},
		{"{{=x=}}", `{}`, "octet 0: set delimiters as in {{=<% %>=}}"},
		{"{{>p}}", `{}`, "octet 0: partials and blocks are not supported: write the text here"},
		{"", `{`, "not JSON"},
		{"", `{"a":01}`, "not JSON"},
		{"", `{"a":"\ud83d"}`, "not JSON"},
		{"", `{"a":1} x`, "not JSON"},
		{"", "{\"a\":\"\xff\"}", "not UTF-8"},
		{"", strings.Repeat("[", 100), "lists and objects nest too deep"},
		{strings.Repeat("{{#a}}", 200), `{}`, "octet 600: sections are nested too deep"},
	} {
		if got, err := merge(test.template, test.data); err == nil || err.Error() != test.want {
			t.Errorf("%.40s with %.40s: %q, %v; want %s", test.template, test.data, got, err, test.want)
		}
	}
}

func TestReadingDataAgainAllocatesNothing(t *testing.T) {
	json := []byte(`{"first":"Ann","last":"L\u00fcttich","n":12,"list":[1,2,{"a":"b"}]}`)
	var d Data
	if n := testing.AllocsPerRun(100, func() {
		if _, err := d.Read(json); err != nil {
			t.Fatal(err)
		}
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func FuzzData(f *testing.F) {
	for _, s := range []string{`{"a":[1,"b",null,true,{"c":-1.5e3}]}`, `"\ud83d\ude00"`, `[]`, ` {"a":"\u0000"} `, `{"a":1,}`, `00`} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, in []byte) {
		var d Data
		_, err := d.Read(in)
		if valid := json.Valid(in); err == nil && !valid && len(strings.TrimSpace(string(in))) > 0 {
			t.Errorf("%q is read, but is not JSON", in)
		}
	})
}

func FuzzParse(f *testing.F) {
	for _, s := range []string{"Hi {{first|friend}}\n{{#a}}\n x{{/a}}", "{{=<% %>=}}<%a%>", "{{{x}}}{{!c}}", "{{#a}}{{^b}}{{/b}}{{/a}}"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, in string) {
		nodes, err := Parse(in)
		if err != nil {
			if e, ok := errors.AsType[*SyntaxError](err); !ok || e.Offset < 0 || e.Offset > len(in) {
				t.Fatal(err)
			}
			return
		}
		if !strings.Contains(in, "{{") && (len(nodes) > 1 || len(nodes) == 1 && nodes[0].Text != in) {
			t.Errorf("%q is no text of its own: %v", in, nodes)
		}
	})
}
