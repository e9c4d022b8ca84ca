package list_test

import (
	"bytes"
	"compress/gzip"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"runtime"
	"strings"
	"testing"
	"testing/iotest"
	"unicode/utf16"

	"github.com/google/go-cmp/cmp"

	"bulkmail/envelope/list"
)

func Example() {
	recipients, err := list.Open(strings.NewReader("Vorname;Nachname;E-Mail\nAnn;Lee;ann@example.net\nBob;;bob\nCarl;;carl@example.org\n"), list.Options{Data: true})
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(recipients.Form())
	for e, err := range recipients.Entries() {
		switch {
		case err != nil:
			fmt.Println(err)
		case e.Err != nil:
			fmt.Printf("%s: %v\n", e.To, e.Err)
		default:
			fmt.Printf("%s, %s, %s\n", e.To, e.Name, e.Data)
		}
	}
	// Output:
	// CSV with semicolons, addresses in column 3 (E-Mail)
	// ann@example.net, Ann Lee, {"Vorname":"Ann","Nachname":"Lee","E-Mail":"ann@example.net"}
	// bob: line 3: no @
	// carl@example.org, Carl, {"Vorname":"Carl","Nachname":"","E-Mail":"carl@example.org"}
}

// said is an entry on one line: its line, address and name, or why it is
// unusable.
func said(e list.Entry) string {
	s := fmt.Sprintf("%d %s", e.Line, e.To)
	if e.Name != "" {
		s += " (" + e.Name + ")"
	}
	if e.Data != nil {
		s += " " + string(e.Data)
	}
	if bad, ok := errors.AsType[*list.Error](e.Err); ok {
		s += " ! " + bad.Reason
	}
	return s
}

func readAll(r io.Reader, o list.Options) (got []string, err error) {
	l, err := list.Open(r, o)
	if err != nil {
		return nil, err
	}
	for e, err := range l.Entries() {
		if err != nil {
			return got, err
		}
		got = append(got, said(e))
	}
	return got, nil
}

func entriesOf(t *testing.T, text string, o list.Options) []string {
	t.Helper()
	got, err := readAll(strings.NewReader(text), o)
	if err != nil {
		t.Fatal(err)
	}
	return got
}

func TestTextIsReadAsPeopleWriteIt(t *testing.T) {
	t.Parallel()
	const ann, bob = "1 ann@example.net", "2 bob@example.net"
	for name, tc := range map[string]struct {
		text string
		want []string
	}{
		"empty":                         {"", nil},
		"nothing but comments":          {"\n# nobody yet\n", nil},
		"one a line":                    {"ann@example.net\nbob@example.net\n", []string{ann, bob}},
		"no line end at the end":        {"ann@example.net\nbob@example.net", []string{ann, bob}},
		"CRLF":                          {"ann@example.net\r\nbob@example.net\r\n", []string{ann, bob}},
		"CR, as old Macs write it":      {"ann@example.net\rbob@example.net\r", []string{ann, bob}},
		"byte order mark":               {"\ufeffann@example.net\nbob@example.net\n", []string{ann, bob}},
		"put together of two, a mark":   {"ann@example.net\n\ufeffbob@example.net\n", []string{ann, bob}},
		"blanks, comments, empty lines": {"# who\n\n  ann@example.net\t\n  # not now: bob@example.net\n", []string{"3 ann@example.net"}},
		"names": {
			"Ann Lee <ann@example.net>\n\"B, O\" <bob@example.net>\n< carl@example.org >\nLee, Dora <dora@example.org>\n=?utf-8?q?J=C3=B6rg?= <jorg@example.org>\n",
			[]string{"1 ann@example.net (Ann Lee)", "2 bob@example.net (B, O)", "3 carl@example.org", "4 dora@example.org (Lee, Dora)", "5 jorg@example.org (Jörg)"},
		},
		"a name behind, links, quotes around": {
			"ann@example.net (Ann Lee)\nmailto:bob@example.net\n\"carl@example.org\"\n'dora@example.org'\n",
			[]string{"1 ann@example.net (Ann Lee)", bob, "3 carl@example.org", "4 dora@example.org"},
		},
		"several a line": {
			"ann@example.net; bob@example.net\ncarl@example.org, dora@example.org,\neve@example.org fay@example.org\n\"A; B\" <gil@example.org>;<hal@example.org>\n",
			[]string{
				ann, "1 bob@example.net", "2 carl@example.org", "2 dora@example.org", "3 eve@example.org", "3 fay@example.org",
				"4 gil@example.org (A; B)", "4 hal@example.org",
			},
		},
		"a separator is missing": {
			"ann@example.net Bob <bob@example.net>\nAnn <ann@example.net> <bob@example.net>\nann@example.net, Bob <bob@example.net>\nann@example.net <ann@example.net>\n",
			[]string{
				"1 ann@example.net Bob <bob@example.net> ! a space in the domain",
				"2 Ann <ann@example.net> <bob@example.net> ! a space outside quotes",
				"3 ann@example.net", "3 bob@example.net (Bob)", "4 ann@example.net (ann@example.net)",
			},
		},
		"blanks that are not seen":    {"\u200bann@example.net\u00a0\n\u00a0bob@example.net\n", []string{ann, bob}},
		"quoted local parts":          {"\"a<b\"@example.net\n\"a,b\"@example.net\n", []string{`1 "a<b"@example.net`, `2 "a,b"@example.net`}},
		"a header alone":              {"E-Mail\nann@example.net\nLee, Bob <bob@example.net>\n", []string{"2 ann@example.net", "3 bob@example.net (Lee, Bob)"}},
		"Windows-1252":                {"J\xf6rg \x96 <ann@example.net>\nbob@example.net\n", []string{ann + " (Jörg –)", bob}},
		"UTF-8 lines and others":      {"Jörg <ann@example.net>\nJ\xf6rg <bob@example.net>\n", []string{ann + " (Jörg)", bob + " (Jörg)"}},
		"marked UTF-8 is UTF-8":       {"\ufeffJ\xf6rg <ann@example.net>\n", []string{ann + " (J\ufffdrg)"}},
		"a mistyped one":              {"ann@example.net\nbob@@example.net\ncarl@example.org\n", []string{ann, "2 bob@@example.net ! more than one @", "3 carl@example.org"}},
		"a comma for a dot":           {"ann@example.net\nann,lee@example.net\nbob@example.org\n", []string{ann, "2 ann,lee@example.net ! \"ann\": no @", "3 bob@example.org"}},
		"half of a short list":        {"ann\nAnn <ann@example.net>\nbob@@example.net\nbob@example.net\n", []string{"1 ann ! no @", "2 ann@example.net (Ann)", "3 bob@@example.net ! more than one @", "4 bob@example.net"}},
		"one of several is mistyped":  {"ann@example.net\nann@example.net; bob\ncarl@example.org\n", []string{ann, "2 ann@example.net; bob ! \"bob\": no @", "3 carl@example.org"}},
		"a NUL further down is told":  {strings.Repeat("ann@example.net\n", 300) + "bob\x00@example.net\n", append(repeated("ann@example.net", 300), "301 bob\x00@example.net ! has the control character U+0000")},
		"one line that is very large": {strings.Repeat("ann@example.net,", 3), []string{ann, ann, ann}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			got := entriesOf(t, tc.text, list.Options{})
			if diff := cmp.Diff(tc.want, got); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func repeated(address string, n int) []string {
	var lines []string
	for i := range n {
		lines = append(lines, fmt.Sprintf("%d %s", i+1, address))
	}
	return lines
}

func TestJSONLinesAreAList(t *testing.T) {
	t.Parallel()
	const text = `{"to": "ann@example.net", "name": "Ann", "data": {"first": "A", "n": [1, 2]}}
# a comment

{"email": "Bob <bob@example.net>", "b": 1, "a": "x"}
{"to": "carl@example.org"}
{"name": "Dora", "E-Mail": "dora@example.org", "data": "x"}
{"email": ""}
{"email": "nobody"}
{"first": "Eve"}
{"email": 5}
{"email": "fay@example.org"} x
{"campaign":"news","batch":"1","recipient":"gil@example.org","status":"rejected"}
{"email": "hal@example.org", "name": null, "data": {"a": 1}, "b": 2}
`
	want := []string{
		`1 ann@example.net (Ann) {"first": "A", "n": [1, 2]}`,
		`4 bob@example.net (Bob) {"a":"x","b":1}`,
		`5 carl@example.org`,
		`6 dora@example.org (Dora) {"data":"x"}`,
		`8 nobody ! no @`,
		`9 {"first": "Eve"} ! no key "to" or "email"`,
		`10 {"email": 5} ! "email" is not a string`,
		`11 {"email": "fay@example.org"} x ! not JSON: invalid character 'x' after top-level value`,
		`12 gil@example.org {"batch":"1","campaign":"news","status":"rejected"}`,
		`13 hal@example.org {"b":2,"data":{"a": 1}}`,
	}
	if diff := cmp.Diff(want, entriesOf(t, text, list.Options{Data: true})); diff != "" {
		t.Error(diff)
	}
	work := entriesOf(t, `{"email": "ann@example.net", "Work": "bob@example.net"}`, list.Options{Column: "work", Data: true})
	if diff := cmp.Diff([]string{`1 bob@example.net {"email":"ann@example.net"}`}, work); diff != "" {
		t.Error(diff)
	}
}

func TestWhatIsNoListIsRefusedWithAHint(t *testing.T) {
	t.Parallel()
	many := strings.Repeat("ann@example.net\nnobody\n", 50)
	for name, tc := range map[string]struct {
		text   string
		column string
		want   string
	}{
		"Excel":               {text: "PK\x03\x04\x14\x00\x06\x00[Content_Types].xml", want: "it is an Excel workbook (.xlsx) or another Office document: save the list as CSV"},
		"LibreOffice":         {text: "PK\x03\x04mimetypeapplication/vnd.oasis.opendocument.spreadsheet", want: "(.ods): save the list as CSV"},
		"zip":                 {text: "PK\x03\x04list.csv", want: "zip archive: unpack it first"},
		"old Excel":           {text: "\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", want: "(.xls)"},
		"PDF":                 {text: "%PDF-1.7\n", want: "it is a PDF"},
		"a web page":          {text: "\n<!DOCTYPE html><html>", want: "it is a web page"},
		"XML":                 {text: "\ufeff<?xml version=\"1.0\"?>", want: "it is XML"},
		"bzip2":               {text: "BZh91AY", want: "unpack it first"},
		"vCards":              {text: "BEGIN:VCARD\r\n", want: "export it as CSV"},
		"twice compressed":    {text: zip(zip("ann@example.net\n")), want: "compressed twice"},
		"gzip in name alone":  {text: "\x1f\x8bnone", want: "begins like a gzip file"},
		"UTF-32":              {text: "\xff\xfe\x00\x00a\x00\x00\x00", want: "save it as UTF-8"},
		"a program":           {text: "\x7fELF\x02\x01\x01\x00\x00", want: "no text"},
		"a JSON array":        {text: "[\n  {\"email\": \"ann@example.net\"}\n]\n", want: "line 1: a JSON array cannot be read line by line: write one object a line, as jq -c '.[]' does"},
		"an array of strings": {text: `["ann@example.net"]`, want: "a JSON array"},
		"JSON over lines":     {text: "{\n  \"email\": \"ann@example.net\"\n}\n", want: "line 1: \"{\": the JSON object does not end in its line; 3 of the first 3 lines"},
		"prose":               {text: "Dear all,\nthis is a letter.\n", want: `line 1: "Dear all,": a space outside quotes; 2 of the first 2 lines hold no address that can be used: write one address a line`},
		"one word":            {text: "nobody\n", want: `line 1: "nobody": no @; the only line holds no address`},
		"half of the first":   {text: many, want: "line 2: \"nobody\": no @; 50 of the first 100 lines"},
		"most of a short one": {text: "ann@example.net\nbob\ncarl\n", want: "line 2: \"bob\": no @; 2 of the first 3 lines"},
		"two columns would":   {text: "name,work,home\nAnn,ann@example.net,ann@example.org\n", want: "line 1: columns 2 (work) and 3 (home) both hold addresses: choose one with --column"},
		"two names would":     {text: "Email;Mail\nann@example.net;ann@example.org\n", want: "columns 1 (Email) and 2 (Mail) both hold addresses"},
		"no such column":      {text: "name,email\nAnn,ann@example.net\n", column: "work", want: `there is no column "work": choose one of name, email, by name or by number`},
		"no such number":      {text: "name,email\nAnn,ann@example.net\n", column: "3", want: `there is no column "3"`},
		"a wrong column":      {text: "name,email\nAnn,ann@example.net\n", column: "name", want: `"Ann": no @; the only line holds no address that can be used: it was read as CSV with commas, addresses in column 1 (name); choose another column with --column`},
		"a quote not closed":  {text: "name,email\n\"Ann,ann@example.net\nBob,bob@example.net\n", want: "line 2: a cell that begins with a quote here is never closed"},
		"a quote too many":    {text: "name,email\n\"Ann,ann@example.net\n\"Bob\",bob@example.net\n", want: "line 2: there is text after the closing quote"},
		"a line without end":  {text: "ann@example.net\n\n" + strings.Repeat("x", 300<<10), want: "line 3: the line is longer than 256 KB"},
		"a first such line":   {text: strings.Repeat("x", 300<<10), want: "line 1: the line is longer than 256 KB"},
		"a cell without end":  {text: "name,email\nAnn,ann@example.net\n\"" + strings.Repeat("\n", 300<<10), want: "line 3: a cell that begins with a quote here is never closed"},
		"gzip cut off":        {text: zip("ann@example.net\n")[:25], want: "cut off"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			got, err := readAll(strings.NewReader(tc.text), list.Options{Column: tc.column})
			refused, ok := errors.AsType[*list.Error](err)
			if !ok || !strings.Contains(refused.Error(), tc.want) {
				t.Errorf("error is %v, want %q in it", err, tc.want)
			}
			if len(got) > 0 {
				t.Errorf("%q were given out before", got)
			}
			if ok && strings.ContainsAny(refused.Error(), "\r\n") {
				t.Errorf("%q is more than one line", refused)
			}
		})
	}
}

func zip(text string) string {
	var b bytes.Buffer
	w := gzip.NewWriter(&b)
	_, _ = io.WriteString(w, text)
	_ = w.Close()
	return b.String()
}

func wide(text string, order binary.AppendByteOrder, mark bool) string {
	var b []byte
	if mark {
		text = "\ufeff" + text
	}
	for _, u := range utf16.Encode([]rune(text)) {
		b = order.AppendUint16(b, u)
	}
	return string(b)
}

func TestTheEncodingOfAListMakesNoDifference(t *testing.T) {
	t.Parallel()
	for form, text := range map[string]string{
		"text":       "Jörg 😀 <ann@example.net>\nbob@bücher.example\n",
		"CSV":        "name\temail\nJörg 😀\tann@example.net\n\"B\no\"\tbob@bücher.example\n",
		"JSON lines": "{\"to\":\"ann@example.net\",\"name\":\"Jörg 😀\"}\n{\"to\":\"bob@bücher.example\"}\n",
	} {
		want := entriesOf(t, text, list.Options{Data: true})
		if len(want) != 2 || !strings.Contains(want[0], "(Jörg 😀)") {
			t.Fatalf("read %q", want)
		}
		for encoding, encoded := range map[string]string{
			"marked UTF-8":    "\ufeff" + text,
			"little-endian":   wide(text, binary.LittleEndian, true),
			"big-endian":      wide(text, binary.BigEndian, true),
			"unmarked little": wide(text, binary.LittleEndian, false),
			"unmarked big":    wide(text, binary.BigEndian, false),
			"gzip":            zip(text),
			"gzip of UTF-16":  zip(wide(text, binary.LittleEndian, true)),
			"two gzip files":  zip(text[:12]) + zip(text[12:]),
			"CRLF":            strings.ReplaceAll(text, "\n", "\r\n"),
		} {
			t.Run(form+", "+encoding, func(t *testing.T) {
				t.Parallel()
				got, err := readAll(iotest.OneByteReader(strings.NewReader(encoded)), list.Options{Data: true})
				if diff := cmp.Diff(want, got); err != nil || diff != "" {
					t.Errorf("error %v, (-want +got):\n%s", err, diff)
				}
			})
		}
	}
}

// endless repeats a piece, and breaks in the end if it is to.
type endless struct {
	piece string
	read  int
	most  int
	err   error
}

func (e *endless) Read(p []byte) (int, error) {
	if e.read > e.most {
		return 0, e.err
	}
	n := 0
	for n < len(p) {
		n += copy(p[n:], e.piece[(e.read+n)%len(e.piece):])
	}
	e.read += n
	return n, nil
}

var errDisk = errors.New("disk on fire")

func TestAListThatCannotBeReadToItsEndIsAnErrorWithItsLine(t *testing.T) {
	t.Parallel()
	text := &endless{piece: "ann@example.net\n", most: 16 * 200_000, err: errDisk}
	got, err := readAll(text, list.Options{})
	broken, ok := errors.AsType[*list.Error](err)
	if !errors.Is(err, errDisk) || !ok || broken.Line != len(got)+1 || len(got) < 190_000 {
		t.Errorf("%d entries, error %v", len(got), err)
	}
}

func TestMemoryDoesNotFollowTheList(t *testing.T) {
	bomb := new(bytes.Buffer)
	w := gzip.NewWriter(bomb)
	for range 1 << 7 {
		_, _ = io.WriteString(w, strings.Repeat("ann@example.net\n", 4<<10))
	}
	_ = w.Close()
	for name, text := range map[string]io.Reader{
		"text":            &endless{piece: "ann@example.net\n", most: 8 << 20, err: io.EOF},
		"CSV":             io.MultiReader(strings.NewReader("email,name\n"), &endless{piece: "ann@example.net,\"A\nB\"\n", most: 8 << 20, err: io.EOF}),
		"JSON lines":      &endless{piece: "{\"to\":\"ann@example.net\"}\n", most: 8 << 20, err: io.EOF},
		"long lines":      &endless{piece: strings.Repeat("ann@example.net,", 16<<10-8) + "\n", most: 8 << 20, err: io.EOF},
		"a gzip bomb":     bomb,
		"nothing but LF":  &endless{piece: "\n", most: 8 << 20, err: io.EOF},
		"a cell that LF":  io.MultiReader(strings.NewReader("email,name\nann@example.net,\""), &endless{piece: "\n", most: 8 << 20, err: io.EOF}),
		"a line with NUL": io.MultiReader(strings.NewReader(strings.Repeat("ann@example.net\n", 1000)), &endless{piece: "\x00", most: 8 << 20, err: io.EOF}),
	} {
		t.Run(name, func(t *testing.T) {
			before := inUse()
			l, err := list.Open(text, list.Options{Data: true})
			n, most := 0, inUse()
			if err == nil {
				for _, err = range l.Entries() {
					if n++; err != nil || n%50_000 == 0 {
						most = max(most, inUse())
					}
				}
			}
			if refused, ok := errors.AsType[*list.Error](err); err != nil && !ok || strings.HasPrefix(name, "a cell") && refused == nil {
				t.Errorf("error is %v", err)
			}
			runtime.KeepAlive(l)
			if most > before+8<<20 {
				t.Errorf("%d MB held", (most-before)>>20)
			}
		})
	}
}

func inUse() uint64 {
	var m runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}

func TestAListIsReadNoFurtherThanNeeded(t *testing.T) {
	t.Parallel()
	text := &endless{piece: "ann@example.net\n", most: 1 << 40}
	l, err := list.Open(text, list.Options{})
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	for _, err := range l.Entries() {
		if n++; err != nil || n == 50_000 {
			break
		}
	}
	if most := 50_000*16 + 512<<10; text.read > most {
		t.Errorf("%d octets read, %d would do", text.read, most)
	}
}

func TestDataIsAJSONObjectWithinItsBound(t *testing.T) {
	t.Parallel()
	got := entriesOf(t, "email,the \"word\",,email,note\nann@example.net,A<b>,x,y\n", list.Options{Data: true})
	want := []string{`2 ann@example.net {"email":"ann@example.net","the \"word\"":"A<b>","note":""}`}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	if none := entriesOf(t, "email,note\nann@example.net,x\n", list.Options{}); none[0] != "2 ann@example.net" {
		t.Errorf("data that nobody asked for: %s", none)
	}
	for name, text := range map[string]string{
		"CSV":        "email,note\nann@example.net," + strings.Repeat("x", 33<<10) + "\n",
		"JSON lines": `{"to":"ann@example.net","data":{"note":"` + strings.Repeat("x", 33<<10) + `"}}`,
	} {
		_, err := readAll(strings.NewReader(text), list.Options{Data: true})
		if err == nil || !strings.Contains(err.Error(), "more than 32 KB") {
			t.Errorf("%s: error is %v", name, err)
		}
	}
	if e := entriesOf(t, `{"to":"ann@example.net","data":{"n":1e3}}`, list.Options{Data: true}); !json.Valid([]byte(e[0][len("1 ann@example.net "):])) {
		t.Errorf("%s", e)
	}
}

// A list may be written while it is published: what is there is given out before
// the rest comes.
func TestAListThatIsStillWrittenIsReadSoFar(t *testing.T) {
	t.Parallel()
	r, w := io.Pipe()
	more := make(chan struct{})
	go func() {
		for i := range 1000 { // more than is judged, and much less than is read at once
			fmt.Fprintf(w, "reader-%04d@example.net\n", i)
		}
		<-more
		fmt.Fprintln(w, "last@example.net")
		w.Close()
	}()
	l, err := list.Open(r, list.Options{})
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	for _, err := range l.Entries() {
		if err != nil {
			t.Fatal(err)
		}
		if n++; n == 500 {
			close(more)
		}
	}
	if n != 1001 {
		t.Errorf("%d entries, want 1,001", n)
	}
}
