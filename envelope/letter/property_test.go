package letter

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"html"
	"io"
	"mime/quotedprintable"
	"net/mail"
	"regexp"
	"strings"
	"testing"

	"github.com/emersion/go-message"
	"golang.org/x/text/encoding/charmap"
	"pgregory.net/rapid"
)

// nasty are pieces of values as they should not be.
var nasty = []string{
	"Ann", "", " ", "  two  ", "\t", "\r\n", "\r", "\n.\n", ".", "..", "\"", "'", "\\", ",", ";", ":", "<", ">", "<script>alert(1)</script>", "&amp;",
	"{{to}}", "}}", "{{", "{{{x}}}", "=?utf-8?q?x?=", "=", "=3D", "?", "ü", "10 €", "Ł", "שלום", "مرحبا", "😀", "👩‍👩‍👧", "\u2028", "\u200b", "\u0301",
	"From me", "--letter", "%41", "/", "@", "()", "\x01", "\x7f", "\x00", "longwordlongwordlongwordlongword", strings.Repeat("x", 300), strings.Repeat("ü ", 300),
}

func value(t *rapid.T, name string) string {
	return strings.Join(rapid.SliceOfN(rapid.SampledFrom(nasty), 0, 5).Draw(t, name), rapid.SampledFrom([]string{"", " "}).Draw(t, name+" joined"))
}

// A sample is a template, and what its letter must say.
type sample struct {
	raw     string
	data    map[string]string
	subject string
	texts   [2]string // plain and HTML
	asked   string    // the templates of both
}

func (s *sample) json() []byte {
	data, err := json.Marshal(s.data)
	if err != nil {
		panic(err)
	}
	return data
}

var literals = []string{"Hello ", "für ", "10 € ", "\n", ".", "\n.", " ", "a  \n", "=", "https://x.example/a?b=", "\"", "<b>", strings.Repeat("word ", 30), strings.Repeat("y", 200), "\n\n"}

// text draws a template of a text and says what it becomes.
func (s *sample) text(t *rapid.T, name string, escape func(string) string) (template, want string) {
	for i := range rapid.IntRange(1, 8).Draw(t, name) {
		l := rapid.SampledFrom(literals).Draw(t, fmt.Sprint(name, " literal ", i))
		template += l
		want += l
		if rapid.Bool().Draw(t, "value") {
			v := rapid.SampledFrom([]string{"a", "b", "c"}).Draw(t, "which")
			template += "{{" + v + "}}"
			if inURLAtEnd(template[:len(template)-len(v)-4]) {
				want += string(appendPercent(nil, []byte(s.data[v])))
			} else {
				want += escape(strings.NewReplacer("\r\n", "\n", "\r", "\n").Replace(s.data[v]))
			}
		}
	}
	return template, want
}

var urlAtEnd = regexp.MustCompile(`(^|[\s"'<>])https?://[^\s"'<>]*$`)

func inURLAtEnd(s string) bool { return urlAtEnd.MatchString(s) }

func encoded(t *rapid.T, name, text string) (header, body string) {
	set := rapid.SampledFrom([]string{"utf-8", "iso-8859-15"}).Draw(t, name+" charset")
	if set != "utf-8" {
		octets, err := charmap.ISO8859_15.NewEncoder().String(text)
		if err != nil {
			set = "utf-8"
		} else {
			text = octets
		}
	}
	encoding := rapid.SampledFrom([]string{"quoted-printable", "base64", "8bit"}).Draw(t, name+" encoding")
	switch encoding {
	case "quoted-printable":
		var b strings.Builder
		w := quotedprintable.NewWriter(&b)
		_, _ = io.WriteString(w, text)
		_ = w.Close()
		text = b.String()
	case "base64":
		text = base64.StdEncoding.EncodeToString([]byte(text))
	}
	return "; charset=" + set + "\nContent-Transfer-Encoding: " + encoding + "\n", text
}

func drawSample(t *rapid.T) *sample {
	s := &sample{data: map[string]string{"a": value(t, "a"), "b": value(t, "b"), "c": value(t, "c"), "s": value(t, "s"), "n": value(t, "n")}}
	plain, want := s.text(t, "plain", func(v string) string { return v })
	s.texts[0] = want
	page, want := s.text(t, "html", func(v string) string { return strings.ReplaceAll(html.EscapeString(v), "&#34;", "&quot;") })
	s.texts[1] = want
	s.asked = plain + page
	s.subject = "An " + s.data["s"] + " end"
	plainHeader, plain := encoded(t, "plain", plain)
	pageHeader, page := encoded(t, "html", page)
	s.raw = "From: News <news@example.com>\nTo: {{n}} <{{to}}>\nSubject: An {{s}} end\nContent-Type: multipart/alternative; boundary=\"=_b\"\n\n" +
		"--=_b\nContent-Type: text/plain" + plainHeader + "\n" + plain + "\n--=_b\nContent-Type: text/html" + pageHeader + "\n" + page + "\n--=_b--\n"
	return s
}

// refuses tells whether the data cannot go into the letter.
func (s *sample) refuses() bool {
	for name, v := range s.data {
		header := name == "s" || name == "n"
		if strings.Contains(v, "\x00") && (header || strings.Contains(s.asked, "{{"+name+"}}")) || header && strings.ContainsAny(v, "\r\n") || name == "n" && strings.ContainsAny(v, "\x01\x7f") {
			return true
		}
	}
	return false
}

type failer interface {
	Helper()
	Fatalf(string, ...any)
}

// fit checks what every letter has to be.
func fit(t failer, wire []byte) {
	t.Helper()
	if !bytes.HasSuffix(wire, []byte("\r\n")) || bytes.IndexByte(wire, 0) >= 0 {
		t.Fatalf("no line end at the end, or a NUL:\n%q", wire)
	}
	for line := range bytes.SplitSeq(bytes.TrimSuffix(wire, []byte("\r\n")), []byte("\r\n")) {
		if len(line) > maxLine+1 || bytes.ContainsAny(line, "\r\n") || len(line) > 0 && line[0] == '.' && (len(line) == 1 || line[1] != '.' && len(line) > maxLine) {
			t.Fatalf("line %q", line)
		}
	}
	header, _, _ := bytes.Cut(wire, []byte("\r\n\r\n"))
	for _, word := range regexp.MustCompile(`=\?[^?\s]+\?[bqBQ]\?[^?\s]*\?=`).FindAll(header, -1) {
		if len(word) > 75 {
			t.Fatalf("encoded word %s", word)
		}
	}
	for line := range bytes.SplitSeq(header, []byte("\r\n")) {
		if len(bytes.TrimSpace(line)) == 0 {
			t.Fatalf("a line of blanks in the header:\n%s", header)
		}
	}
}

var squeezed = regexp.MustCompile(`[ \t]+`)

// squeeze is what is left of a header's text in readers that count no blanks.
func squeeze(s string) string { return strings.TrimSpace(squeezed.ReplaceAllString(s, " ")) }

func TestWhatIsReadBackIsWhatWasPutIn(t *testing.T) {
	t.Parallel()
	var r Renderer
	b := batch(t, "")
	rapid.Check(t, func(t *rapid.T) {
		s := drawSample(t)
		tp, err := Compile(s.raw, Options{})
		if err != nil {
			if strings.Contains(s.raw, "base64") {
				t.Fatal(err)
			}
			t.Fatalf("%v\n%s", err, s.raw)
		}
		sevenBit := rapid.Bool().Draw(t, "seven bit")
		l, err := r.Render(tp, b, &Recipient{To: "ann@example.net", Data: string(s.json())}, sevenBit)
		if _, rejected := errors.AsType[*RejectError](err); rejected != s.refuses() || err != nil && !rejected {
			t.Fatalf("%v with %q\n%s", err, s.data, s.raw)
		}
		if err != nil {
			return
		}
		fit(t, l.Wire)
		if eightBit := !isASCII(l.Wire); eightBit != l.EightBit || eightBit && sevenBit || l.Size != int64(len(unstuffed(l.Wire))) {
			t.Fatalf("8-bit %v, said %v; size %d of %d\n%s", eightBit, l.EightBit, l.Size, len(unstuffed(l.Wire)), l.Wire)
		}
		s.readBack(t, unstuffed(l.Wire))
	})
}

func (s *sample) readBack(t failer, raw []byte) {
	t.Helper()
	e, err := message.Read(bytes.NewReader(raw))
	if err != nil {
		t.Fatalf("%v\n%s", err, raw)
	}
	for f := e.Header.Fields(); f.Next(); {
		switch f.Key() {
		case "From", "To", "Subject", "Content-Type", "Date", "Message-Id", "Mime-Version":
		default:
			t.Fatalf("a field %s that the template has not\n%s", f.Key(), raw)
		}
	}
	if subject, err := e.Header.Text("Subject"); err != nil || squeeze(subject) != squeeze(strings.ReplaceAll(s.subject, "\t", " ")) {
		t.Fatalf("Subject %q, want %q, %v\n%s", subject, s.subject, err, raw)
	}
	to, err := (&mail.AddressParser{}).ParseList(e.Header.Get("To"))
	if err != nil || len(to) != 1 || to[0].Address != "ann@example.net" || squeeze(to[0].Name) != squeeze(s.data["n"]) {
		t.Fatalf("To %v, want %q, %v\n%s", to, s.data["n"], err, raw)
	}
	parts := e.MultipartReader()
	for i := range 2 {
		p, err := parts.NextPart()
		if err != nil {
			t.Fatalf("%v\n%s", err, raw)
		}
		text, err := io.ReadAll(p.Body)
		if err != nil {
			t.Fatalf("%v\n%s", err, raw)
		}
		if got := strings.ReplaceAll(string(text), "\r\n", "\n"); got != s.texts[i] {
			t.Fatalf("part %d\n got %q\nwant %q\nof %s\nin %s", i, got, s.texts[i], s.raw, raw)
		}
	}
}

func FuzzLetter(f *testing.F) {
	f.Add("From: a@example.com\nSubject: {{a}}\nTo: {{n}} <{{to}}>\n\nDear {{a}}\n", "Ann", true)
	f.Add("From: a@example.com\nContent-Type: text/html; charset=iso-8859-1\nContent-Transfer-Encoding: quoted-printable\n\n<a href=3D\"http://x/{{a}}\">{{{n}}}\n", "10 €\r\n.", false)
	f.Add("From: a@example.com\nContent-Type: multipart/mixed; boundary=b\n\n--b\n\n{{#a}}{{.}}{{/a}}\n--b--\n", "\"<>", false)
	f.Add("From: =?utf-8?q?{{a}}?= <a@example.com>\nX: {{a|none}}\nContent-Disposition: inline; filename=\"{{a}}\"\nContent-Transfer-Encoding: base64\n\ne3thfX0=\n", "ü", true)
	f.Add("A: \xff\nTo: \xfc <a@b>, \"(\" <{{a}}\nContent-Type: text/plain; charset=x\n\n\xff{{a}}", ",", true)
	f.Fuzz(func(t *testing.T, raw, value string, sevenBit bool) {
		for _, constant := range []bool{false, true} {
			tp, err := Compile(raw, Options{Constant: constant})
			if err != nil {
				if e, ok := errors.AsType[*Error](err); !ok || e.Line < 0 || e.Line > len(raw)+1 {
					t.Fatal(err)
				}
				continue
			}
			var r Renderer
			l, err := r.Render(tp, batch(t, ""), &Recipient{To: "ann@example.net", Data: fmt.Sprintf(`{"a":%s,"n":%[1]s}`, quoteJSON(value))}, sevenBit)
			if err != nil {
				if _, ok := errors.AsType[*RejectError](err); !ok {
					t.Fatal(err)
				}
				continue
			}
			if bytes.IndexByte(l.Wire, 0) >= 0 || !bytes.HasSuffix(l.Wire, []byte("\r\n")) {
				t.Fatalf("%q", l.Wire)
			}
			for line := range bytes.SplitSeq(bytes.TrimSuffix(l.Wire, []byte("\r\n")), []byte("\r\n")) {
				if bytes.ContainsAny(line, "\r\n") || string(line) == "." {
					t.Fatalf("line %q of %q", line, l.Wire)
				}
			}
		}
	})
}
