package letter

import (
	"bytes"
	"math"
	"mime"
	"slices"
	"strings"

	"bulkmail/envelope/mustache"
)

// maxParts bounds how deep multiparts nest.
const maxParts = 50

// An entity is a message or a part of one: its header and its lines.
type entity struct {
	fields []headerField
	empty  int // index of the empty line after the header; end if there is none
	end    int
	top    bool

	kind     string            // of Content-Type, lower case
	params   map[string]string // likewise
	encoding string            // Content-Transfer-Encoding, lower case
	attached bool
}

func newEntity(fields []headerField, empty, end int, top bool) *entity {
	e := &entity{fields: fields, empty: empty, end: end, top: top, kind: "text/plain"}
	for i := range fields {
		switch f := &fields[i]; {
		case f.is("Content-Type"):
			kind, params, err := mime.ParseMediaType(f.text())
			if e.params = params; kind != "" {
				e.kind = kind
			}
			if err != nil && kind == "" {
				e.kind = "application/octet-stream" // RFC 2045 5.2 leaves it to us
			}
		case f.is("Content-Transfer-Encoding"):
			e.encoding = strings.ToLower(strings.TrimSpace(f.text()))
		case f.is("Content-Disposition"):
			e.attached = strings.HasPrefix(strings.ToLower(strings.TrimSpace(f.text())), "attachment")
		}
	}
	return e
}

// entity compiles a message or a part.
func (c *compiler) entity(fields []headerField, empty, end int, top bool) error {
	e := newEntity(fields, empty, end, top)
	if c.charset == "" && strings.HasPrefix(e.kind, "text/") {
		c.charset = e.params["charset"]
	}
	boundary := e.params["boundary"]
	if strings.HasPrefix(e.kind, "multipart/") && boundary != "" && empty < end && c.sealed < maxParts {
		if c.charset == "" {
			c.charset = c.firstCharset(empty, end)
		}
		return c.multipart(e, boundary)
	}
	p, err := c.part(e)
	if err != nil {
		return err
	}
	return c.write(e, p)
}

// firstCharset finds the charset of the first text in a multipart.
func (c *compiler) firstCharset(from, end int) string {
	for _, line := range c.lines[from:end] {
		if _, after, ok := strings.Cut(strings.ToLower(line), "charset="); ok {
			name, _, _ := strings.Cut(strings.Trim(after, `"`), `"`)
			name, _, _ = strings.Cut(name, ";")
			return strings.TrimSpace(name)
		}
	}
	return ""
}

// multipart compiles the header and the parts between the boundaries. What
// stands before the first and after the last is for nobody, and stays.
func (c *compiler) multipart(e *entity, boundary string) error {
	if err := c.write(&entity{fields: e.fields, empty: e.empty, end: e.empty, top: e.top}, nil); err != nil {
		return err
	}
	if e.kind == "multipart/signed" || e.kind == "multipart/encrypted" {
		// A signature over it would break.
		c.sealed++
		defer func() { c.sealed-- }()
	}
	start := -1
	rest := e.empty
	for i := e.empty + 1; i < e.end; i++ {
		after, ok := strings.CutPrefix(c.lines[i], "--"+boundary)
		if !ok {
			continue
		}
		last := strings.HasPrefix(after, "--")
		if after = strings.TrimPrefix(after, "--"); strings.TrimRight(after, " \t") != "" {
			continue
		}
		if start >= 0 {
			if err := c.child(start, i); err != nil {
				return err
			}
		} else {
			c.constant(c.lines[rest:i])
		}
		c.constant(c.lines[i : i+1])
		start, rest = i+1, i+1
		if last {
			start = -1
			break
		}
	}
	if start >= 0 {
		return c.child(start, e.end)
	}
	c.constant(c.lines[rest:e.end])
	return nil
}

// child compiles the part of these lines.
func (c *compiler) child(from, to int) error {
	var fields []headerField
	i := from
	for ; i < to && c.lines[i] != ""; i++ {
		line := c.lines[i]
		switch {
		case len(fields) > 0 && (line[0] == ' ' || line[0] == '\t'):
			last := &fields[len(fields)-1]
			last.lines = append(last.lines, line)
		case fieldName(line) != "":
			fields = append(fields, headerField{name: fieldName(line), lines: []string{line}, number: i + 1})
		default:
			// No part that anybody could read.
			c.constant(c.lines[from:to])
			return nil
		}
	}
	for j := range fields {
		c.inspectWords(&fields[j])
	}
	return c.entity(fields, i, to, false)
}

// write adds the header of an entity, and its body: that of the part if there is
// one, else the lines as they are.
func (c *compiler) write(e *entity, p *part) error {
	typed, encoded := false, false
	for i := range e.fields {
		f := &e.fields[i]
		switch {
		case p != nil && f.is("Content-Type"):
			if !typed {
				c.add(segment{part: p, piece: pieceType})
			}
			typed = true
		case p != nil && f.is("Content-Transfer-Encoding"):
			if !encoded {
				c.add(segment{part: p, piece: pieceEncoding})
			}
			encoded = true
		case c.sealed > 0:
			c.constant(f.lines)
		default:
			if err := c.compileField(f); err != nil {
				return err
			}
		}
	}
	if p != nil && !typed {
		c.add(segment{part: p, piece: pieceType})
	}
	if p != nil && !encoded {
		c.add(segment{part: p, piece: pieceEncoding})
	}
	if e.top {
		c.add(segment{added: true})
	}
	if p == nil {
		c.constant(c.lines[e.empty:e.end])
		return nil
	}
	c.add(segment{wire: []byte("\r\n")})
	c.add(segment{part: p, piece: pieceBody})
	if e.empty+1 < e.end {
		c.add(segment{wire: []byte("\r\n")})
	}
	return nil
}

// part makes a part of an entity that has values in it, or may have to be encoded
// anew; nil if it stays as it is.
func (c *compiler) part(e *entity) (*part, error) {
	if e.empty+1 >= e.end || c.sealed > 0 {
		return nil, nil
	}
	body := c.lines[e.empty+1 : e.end]
	octets, enc, ok := decodeBody(body, e.encoding)
	if !ok {
		return nil, nil
	}
	if c.merges() && strings.HasPrefix(e.kind, "text/") && !e.attached {
		if p, err := c.textPart(e, body, octets, enc); p != nil || err != nil {
			return p, err
		}
	}
	long := slices.ContainsFunc(body, func(l string) bool { return len(l) > maxLine })
	eightBit := slices.ContainsFunc(body, func(l string) bool { return !isASCII([]byte(l)) })
	if !long && !eightBit || enc == plain && strings.HasPrefix(e.kind, "message/") {
		return nil, nil
	}
	return c.constantPart(e, body, octets, enc, long), nil
}

// decodeBody is the octets of a body, lines with LF.
func decodeBody(body []string, name string) (octets []byte, enc encoding, ok bool) {
	switch name {
	case "quoted-printable":
		octets, _, _ = decodeQuoted(body, math.MaxInt)
		return octets, quotedPrintable, true
	case "base64":
		octets, _, _, ok = decodeBase64(body, math.MaxInt/4)
		return octets, base64Encoding, ok
	case "", "7bit", "8bit", "binary":
		return []byte(strings.Join(body, "\n")), plain, true
	}
	return nil, plain, false
}

// constantPart makes the variants of a body without values: as it is if the
// lines are short enough, and encoded.
func (c *compiler) constantPart(e *entity, body []string, octets []byte, enc encoding, long bool) *part {
	p := new(part)
	text := strings.HasPrefix(e.kind, "text/")
	label := ""
	if text {
		_, _, label = decodeText(octets, e.params["charset"])
	}
	typeField := e.typeField(label)
	if enc == plain && !long {
		wire, stuffed, eightBit := stuff(body)
		v := &variant{typeField: typeField, wire: wire[:len(wire)-2], stuffed: stuffed, eightBit: eightBit, onCharset: -1, onEncode: 1}
		v.encodingField = []byte("Content-Transfer-Encoding: 8bit\r\n")
		p.variants = append(p.variants, v)
	}
	v := &variant{typeField: typeField, encoding: base64Encoding, onCharset: -1, onEncode: -1}
	if enc == quotedPrintable || enc == plain && text {
		v.encoding = quotedPrintable
		var q quotedWriter
		q.octets(octets)
		q.end()
		v.wire = q.dst
	} else {
		if enc == plain {
			octets = []byte(strings.Join(body, "\r\n"))
		}
		v.wire = appendBase64(nil, octets)
	}
	v.encodingField = encodingField(v.encoding)
	p.variants = append(p.variants, v)
	c.register(p)
	return p
}

func (c *compiler) register(p *part) {
	p.index = len(c.t.parts)
	c.t.parts = append(c.t.parts, p)
}

func encodingField(e encoding) []byte {
	switch e {
	case quotedPrintable:
		return []byte("Content-Transfer-Encoding: quoted-printable\r\n")
	case base64Encoding:
		return []byte("Content-Transfer-Encoding: base64\r\n")
	}
	return nil
}

// typeField is the Content-Type as it is, or with the charset. It is nil where
// there is none and needs none.
func (e *entity) typeField(charset string) []byte {
	var lines []string
	for i := range e.fields {
		if e.fields[i].is("Content-Type") {
			lines = e.fields[i].lines
		}
	}
	if charset == "" {
		wire, _, _ := stuff(lines)
		return wire
	}
	params := map[string]string{"charset": charset}
	for name, value := range e.params {
		if name != "charset" {
			params[name] = value
		}
	}
	formatted := mime.FormatMediaType(e.kind, params)
	if formatted == "" {
		formatted = e.kind + "; charset=" + charset
	}
	var f folder
	f.begin(nil, "Content-Type")
	if err := f.structured([]byte(formatted)); err != nil {
		return []byte("Content-Type: " + e.kind + "; charset=" + charset + "\r\n")
	}
	return f.end()
}

// textPart makes a template of a text; nil if there are no values in it.
func (c *compiler) textPart(e *entity, body []string, octets []byte, enc encoding) (*part, error) {
	text, cs, label := decodeText(octets, e.params["charset"])
	text = strings.ReplaceAll(text, "\r\n", "\n")
	nodes, err := mustache.Parse(text)
	if s := asSyntaxError(err); s != nil {
		before, _ := cs.encode(nil, []byte(text[:min(s.Offset, len(text))]))
		line, column := c.position(body, e.empty+1, enc, len(before))
		return nil, &Error{line, column, s.Reason}
	}
	if !hasTags(nodes, text) {
		return nil, nil
	}
	p := &part{html: e.kind == "text/html", templated: true, nodes: nodes, places: placesOf(nodes)}
	c.names(nodes)
	p.textVariants(e, cs, label, enc)
	c.register(p)
	return p, nil
}

// textVariants are the ways of writing a template: as the message has it, encoded
// for relays and values that want it, and in UTF-8.
func (p *part) textVariants(e *entity, cs charset, label string, enc encoding) {
	own := &variant{typeField: e.typeField(label), encoding: enc, charset: cs, onCharset: -1, onEncode: -1}
	variants := []*variant{own}
	if enc == plain {
		own.onEncode = len(variants)
		own.encodingField = e.encodingField()
		encoded := *own
		encoded.encoding, encoded.encodingField, encoded.onEncode = quotedPrintable, encodingField(quotedPrintable), -1
		variants = append(variants, &encoded)
	} else {
		own.encodingField = encodingField(enc)
	}
	if (cs.table != nil || cs.ascii) && !cs.opaque {
		unicode := &variant{typeField: e.typeField("utf-8"), encoding: enc, onCharset: -1, onEncode: -1}
		if enc == plain {
			unicode.encoding = quotedPrintable
		}
		unicode.encodingField = encodingField(unicode.encoding)
		for _, v := range variants {
			v.onCharset = len(variants)
		}
		variants = append(variants, unicode)
	}
	for _, v := range variants {
		v.setLiterals(p.nodes)
	}
	if enc == plain && slices.ContainsFunc(own.literals, func(l literal) bool { return l.eightBit }) {
		own.eightBit = true
		own.encodingField = []byte("Content-Transfer-Encoding: 8bit\r\n")
	}
	own.eightBit = own.eightBit || e.encoding == "8bit" || e.encoding == "binary"
	p.variants = variants
	if slices.ContainsFunc(own.literals, func(l literal) bool { return l.long }) {
		p.first = own.onEncode
	}
}

// encodingField is the Content-Transfer-Encoding as it is.
func (e *entity) encodingField() []byte {
	for i := range e.fields {
		if f := &e.fields[i]; f.is("Content-Transfer-Encoding") {
			wire, _, _ := stuff(f.lines)
			return wire
		}
	}
	return nil
}

// setLiterals encodes what is constant.
func (v *variant) setLiterals(nodes []mustache.Node) {
	mustache.Walk(nodes, func(n *mustache.Node) {
		if n.Kind != mustache.Literal {
			return
		}
		octets, _ := v.charset.encode(nil, []byte(n.Text))
		for len(v.literals) <= n.Index {
			v.literals = append(v.literals, literal{})
		}
		l := &v.literals[n.Index]
		switch v.encoding {
		case quotedPrintable:
			*l = quotedLiteral(octets)
		case base64Encoding:
			l.wire = bytes.ReplaceAll(octets, []byte("\n"), []byte("\r\n"))
		default:
			*l = plainLiteral(octets)
		}
	})
}
