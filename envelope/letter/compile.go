package letter

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"unicode/utf8"

	"bulkmail/envelope/mustache"
)

// Compile reads a message. The error is an *[Error]: no header, text where the
// header should be, a NUL, a template that does not parse.
func Compile(raw string, o Options) (*Template, error) {
	c := compiler{t: &Template{options: o, has: make(map[string]bool)}}
	if raw == "" {
		return nil, &Error{Reason: "the message is empty"}
	}
	c.lines = make([]string, 0, strings.Count(raw, "\n")+1)
	for rest := raw; rest != ""; {
		var line string
		line, rest = cutLine(rest)
		if at := strings.IndexByte(line, 0); at >= 0 {
			return nil, &Error{len(c.lines) + 1, at + 1, "a NUL: encode its part as base64"}
		}
		c.lines = append(c.lines, line)
	}
	if err := c.message(); err != nil {
		return nil, err
	}
	c.t.weigh()
	return c.t, nil
}

// weigh adds up what the template has of the letters.
func (t *Template) weigh() {
	for i := range t.segments {
		t.octets += len(t.segments[i].wire)
	}
	t.common = t.octets
	for _, p := range t.parts {
		for i, v := range p.variants {
			t.octets += len(v.wire)
			if i == p.first {
				t.common += len(v.wire)
			}
		}
	}
}

// cutLine takes the first line off s, without its line end.
func cutLine(s string) (line, rest string) {
	end := strings.IndexAny(s, "\r\n")
	if end < 0 {
		return s, ""
	}
	line, rest = s[:end], s[end+1:]
	if s[end] == '\r' {
		rest = strings.TrimPrefix(rest, "\n")
	}
	return line, rest
}

type compiler struct {
	t       *Template
	lines   []string
	charset string // of the message's text, for raw octets in the header
	sealed  int    // within this many parts that must not change
}

// merges tells whether placeholders mean something here.
func (c *compiler) merges() bool { return !c.t.options.Constant && c.sealed == 0 }

// message compiles the whole.
func (c *compiler) message() error {
	fields, body, err := c.header()
	if err != nil {
		return err
	}
	c.inspect(fields)
	kept := fields[:0:0]
	for _, f := range fields {
		switch {
		case f.is("Bcc") || f.is("Resent-Bcc"):
			c.t.hasBcc = true
		case f.is("Message-ID") && !c.t.options.Constant && !strings.Contains(f.text(), "{{"):
			// Each letter has its own.
		default:
			kept = append(kept, f)
			c.t.has[strings.ToLower(f.name)] = true
			c.t.oneClick = c.t.oneClick || f.is("List-Unsubscribe") && strings.Contains(f.text(), knownUnsubscribeURL)
		}
	}
	return c.entity(kept, body, len(c.lines), true)
}

// header reads the message's header; body is the index of the first line after
// it, the empty one included.
func (c *compiler) header() (fields []headerField, body int, err error) {
	for i, line := range c.lines {
		switch {
		case line == "" && i == 0:
			return nil, 0, &Error{Line: 1, Reason: "the line is empty: a message begins with its header"}
		case line == "":
			return fields, i, nil
		case i > 0 && (line[0] == ' ' || line[0] == '\t'):
			last := &fields[len(fields)-1]
			last.lines = append(last.lines, line)
		case fieldName(line) != "":
			fields = append(fields, headerField{name: fieldName(line), lines: []string{line}, number: i + 1})
		case i == 0:
			return nil, 0, &Error{Line: 1, Reason: "no header field: a message begins with its header, then an empty line, then the text"}
		default:
			return nil, 0, &Error{Line: i + 1, Reason: "neither a header field nor the empty line before the text"}
		}
	}
	return fields, len(c.lines), nil
}

// fieldName is the name of the field that begins on the line, or "". White space
// before the colon is obsolete syntax (RFC 5322 4.5).
func fieldName(line string) string {
	name, _, ok := strings.Cut(line, ":")
	name = strings.TrimRight(name, " \t")
	for _, c := range []byte(name) {
		if c <= ' ' || c >= 0x7f {
			return ""
		}
	}
	if !ok {
		return ""
	}
	return name
}

// inspect finds what a publisher should not send.
func (c *compiler) inspect(fields []headerField) {
	seen := make(map[string]int)
	for i := range fields {
		f := &fields[i]
		name := strings.ToLower(f.name)
		switch name {
		case "from", "subject", "date", "to", "message-id":
			if first := seen[name]; first > 0 {
				c.problem(f.number, "a second %s field, the first is on line %d: leave one", f.name, first)
			}
		}
		if seen[name] == 0 {
			seen[name] = f.number
		}
		c.inspectWords(f)
		if name == "from" && c.t.domain == "" {
			c.t.domain = domainOf(f)
		}
	}
	if seen["from"] == 0 {
		c.problem(0, "there is no From field: add one, as From: News <news@example.com>")
	}
}

func (c *compiler) problem(line int, format string, args ...any) {
	c.t.problems = append(c.t.problems, Problem{line, fmt.Sprintf(format, args...)})
}

// inspectWords finds encoded words where RFC 2047 5 forbids them: readers show
// them as they are.
func (c *compiler) inspectWords(f *headerField) {
	text := f.text()
	if !strings.Contains(text, "=?") || syntaxOf(f.name) == unstructured {
		return
	}
	var in position
	for i := 0; i < len(text); i++ {
		i += in.pass(text[i])
		if i >= len(text) || encodedWordAt(text[i:]) == "" {
			continue
		}
		where := ""
		switch {
		case in.quoted:
			where = "in quotes: take the quotes off"
		case in.angle:
			where = "in an address: an address is not encoded"
		case syntaxOf(f.name) != addresses && in.comment == 0:
			where = "in " + f.name + ", which is no text: encode it as RFC 2231 does, or write ASCII"
		default:
			continue
		}
		c.problem(f.number, "%s has an encoded word (=?…?=) %s", f.name, where)
		return
	}
}

// position is where one is in a structured field (RFC 5322, 3.2).
type position struct {
	quoted, angle bool // in a quoted string, in an address in angle brackets
	comment       int  // in how many comments
}

// pass goes past a character, and says how many that follow belong to it.
func (in *position) pass(c byte) int {
	switch {
	case c == '\\' && (in.quoted || in.comment > 0):
		return 1
	case in.quoted:
		in.quoted = c != '"'
	case c == '"' && in.comment == 0:
		in.quoted = true
	case c == '(':
		in.comment++
	case c == ')' && in.comment > 0:
		in.comment--
	case (c == '<' || c == '>') && in.comment == 0:
		in.angle = c == '<'
	}
	return 0
}

// domainOf is the domain of From as written, "" if there is none or a
// placeholder in it.
func domainOf(f *headerField) string {
	text, _ := decodeField(f, addresses)
	var w addressWriter
	if _, _, err := w.read([]byte(text)); err != nil {
		return ""
	}
	address := w.bare
	if w.hasAngle {
		address = w.angle
	}
	domain := strings.TrimSpace(string(address[strings.LastIndexByte(string(address), '@')+1:]))
	if strings.Contains(domain, "{") || !strings.Contains(string(address), "@") || !isASCII([]byte(domain)) {
		return ""
	}
	return domain
}

// add adds a segment, to the last one where both are constant.
func (c *compiler) add(s segment) {
	if n := len(c.t.segments); s.wire != nil && n > 0 && c.t.segments[n-1].wire != nil {
		last := &c.t.segments[n-1]
		last.wire = append(last.wire, s.wire...)
		last.stuffed += s.stuffed
		last.eightBit = last.eightBit || s.eightBit
		last.utf8 = last.utf8 || s.utf8
		return
	}
	c.t.segments = append(c.t.segments, s)
}

// constant adds lines as they are.
func (c *compiler) constant(lines []string) {
	if len(lines) == 0 {
		return
	}
	if n := len(c.t.segments); n == 0 || c.t.segments[n-1].wire == nil {
		c.t.segments = append(c.t.segments, segment{})
	}
	last := &c.t.segments[len(c.t.segments)-1]
	wire, stuffed, eightBit := appendStuffed(last.wire, lines)
	last.wire, last.stuffed, last.eightBit = wire, last.stuffed+stuffed, last.eightBit || eightBit
}

func stuff(lines []string) (wire []byte, stuffed int, eightBit bool) {
	return appendStuffed(nil, lines)
}

// appendStuffed takes as much memory as it needs: a message may be large.
func appendStuffed(wire []byte, lines []string) (all []byte, stuffed int, eightBit bool) {
	n := 0
	for _, line := range lines {
		n += len(line) + len("\r\n")
		if strings.HasPrefix(line, ".") {
			stuffed++
		}
	}
	wire = slices.Grow(wire, n+stuffed)
	for _, line := range lines {
		if strings.HasPrefix(line, ".") {
			wire = append(wire, '.')
		}
		wire = append(append(wire, line...), '\r', '\n')
		eightBit = eightBit || !isASCII([]byte(line))
	}
	return wire, stuffed, eightBit
}

// names keeps what the message asks for.
func (c *compiler) names(nodes []mustache.Node) {
	mustache.Walk(nodes, func(n *mustache.Node) {
		if n.Kind != mustache.Literal && !slices.Contains(c.t.variables, n.Name) {
			c.t.variables = append(c.t.variables, n.Name)
		}
	})
}

func asSyntaxError(err error) *mustache.SyntaxError {
	if e, ok := errors.AsType[*mustache.SyntaxError](err); ok {
		return e
	}
	return nil
}

// position is where in the message an octet of a decoded text is, whose lines
// begin at the index.
func (c *compiler) position(body []string, first int, e encoding, octets int) (line, column int) {
	var at int
	switch e {
	case quotedPrintable:
		_, line, at = decodeQuoted(body, octets)
	case base64Encoding:
		_, line, at, _ = decodeBase64(body, octets)
	default:
		for at = octets; line < len(body)-1 && at > len(body[line]); line++ {
			at -= len(body[line]) + 1
		}
	}
	if line < len(body) {
		at = utf8.RuneCountInString(body[line][:min(at, len(body[line]))])
	}
	return first + line + 1, at + 1
}
