package letter

import (
	"bytes"
	"mime"
	"strings"
	"unicode/utf8"

	"bulkmail/envelope/mustache"
)

// A headerField is a field as the message has it.
type headerField struct {
	name   string
	lines  []string // with the name, without line ends
	number int      // of the first line
}

func (h *headerField) is(name string) bool { return strings.EqualFold(h.name, name) }

// text is what stands after the colon, unfolded.
func (h *headerField) text() string {
	_, text, _ := strings.Cut(strings.Join(h.lines, ""), ":")
	return text
}

// syntax is what a field consists of.
type syntax uint8

const (
	unstructured syntax = iota
	addresses
	parameters // Content-Type and Content-Disposition
	structured // anything else that has syntax
)

// syntaxOf: a field that nobody has defined is unstructured (RFC 5322 3.6.8).
func syntaxOf(name string) syntax {
	switch name = strings.ToLower(strings.TrimPrefix(strings.ToLower(name), "resent-")); name {
	case "from", "sender", "reply-to", "to", "cc", "bcc", "errors-to", "disposition-notification-to":
		return addresses
	case "content-type", "content-disposition":
		return parameters
	case "date", "message-id", "in-reply-to", "references", "received", "return-path", "mime-version",
		"content-transfer-encoding", "content-id", "content-location", "auto-submitted", "dkim-signature",
		"list-id", "list-help", "list-unsubscribe", "list-unsubscribe-post", "list-subscribe", "list-post", "list-owner", "list-archive":
		return structured
	}
	return unstructured
}

// A field is a header field with values in it.
type field struct {
	name   string
	syntax syntax
	nodes  []mustache.Node
	places []place
}

// decodeField is the text of a field as a template: what is encoded in it is
// decoded.
func decodeField(h *headerField, s syntax) (text string, decoded bool) {
	text = h.text()
	if s == addresses {
		// What marks values must stand for nothing else.
		defer func() { text = strings.NewReplacer("\x01", " ", "\x02", " ").Replace(text) }()
	}
	if !strings.Contains(text, "=?") {
		return text, false
	}
	switch s {
	case unstructured:
		if d, err := words.DecodeHeader(text); err == nil && utf8.ValidString(d) {
			return d, true
		}
	case addresses:
		return decodePhrases(text), true
	}
	return text, false
}

// decodePhrases puts what encoded words say into quotes, in which nothing is
// taken for syntax.
func decodePhrases(text string) string {
	var b strings.Builder
	for {
		start := strings.Index(text, "=?")
		end, length := start, 0
		var decoded strings.Builder
		for end >= 0 {
			word := encodedWordAt(text[end:])
			if word == "" {
				break
			}
			d, err := words.Decode(word)
			if err != nil || !utf8.ValidString(d) {
				break
			}
			decoded.WriteString(d)
			length = end + len(word)
			// Blanks between two encoded words are nothing (RFC 2047 6.2).
			next := strings.TrimLeft(text[length:], " \t")
			if !strings.HasPrefix(next, "=?") {
				break
			}
			end = len(text) - len(next)
		}
		if length == 0 {
			if start < 0 {
				b.WriteString(text)
				return b.String()
			}
			b.WriteString(text[:start+2])
			text = text[start+2:]
			continue
		}
		b.WriteString(text[:start])
		b.WriteString(`"` + strings.NewReplacer(`"`, `\"`, `\`, `\\`).Replace(decoded.String()) + `"`)
		text = text[length:]
	}
}

// encodedWordAt is the encoded word with which s begins, or "".
func encodedWordAt(s string) string {
	if !strings.HasPrefix(s, "=?") {
		return ""
	}
	at := 2
	for range 2 {
		n := strings.IndexByte(s[at:], '?')
		if n <= 0 {
			return ""
		}
		at += n + 1
	}
	n := strings.Index(s[at:], "?=")
	if n < 0 || strings.ContainsAny(s[:at+n], " \t\r\n\"<>") {
		return ""
	}
	return s[:at+n+2]
}

// compileField makes a segment of a field: constant, or a template.
func (c *compiler) compileField(h *headerField) error {
	s := syntaxOf(h.name)
	text, decoded := decodeField(h, s)
	if c.merges() && strings.Contains(text, "{{") {
		nodes, err := mustache.Parse(text)
		if e := asSyntaxError(err); e != nil {
			line, column := h.number, 0
			if !decoded {
				line, column = h.position(e.Offset)
			}
			return &Error{line, column, e.Reason}
		}
		if hasTags(nodes, text) {
			f := &field{name: h.name, syntax: s, nodes: nodes, places: placesOf(nodes)}
			c.names(nodes)
			c.t.segments = append(c.t.segments, segment{field: f})
			return nil
		}
	}
	return c.constantField(h, s)
}

// position is where an octet of the field's text is in the message.
func (h *headerField) position(offset int) (line, column int) {
	offset += len(h.name) + strings.IndexByte(h.lines[0][len(h.name):], ':') + 1
	for i, l := range h.lines {
		if offset < len(l) || i == len(h.lines)-1 {
			return h.number + i, utf8.RuneCountInString(l[:min(offset, len(l))]) + 1
		}
		offset -= len(l)
	}
	return h.number, 0
}

// constantField leaves a field as it is but for raw 8-bit octets and lines over
// 998.
func (c *compiler) constantField(h *headerField, s syntax) error {
	long, eightBit := false, false
	for _, line := range h.lines {
		long = long || len(line) > maxLine
		eightBit = eightBit || !isASCII([]byte(line))
	}
	if !long && !eightBit {
		c.constant(h.lines)
		return nil
	}
	text, _ := decodeField(h, s)
	if !utf8.ValidString(text) {
		text = c.headerText(text)
	}
	dst, utf8, err := appendConstantField(nil, h.name, s, []byte(text))
	if err != nil {
		if s == addresses && !long {
			// Not as it should be, and yet somebody may read it.
			wire, stuffed, _ := stuff(h.lines)
			c.add(segment{wire: wire, stuffed: stuffed, utf8: true})
			return nil
		}
		return &Error{Line: h.number, Reason: "the field " + h.name + " " + err.Error()}
	}
	c.add(segment{wire: dst, utf8: utf8})
	return nil
}

func appendConstantField(dst []byte, name string, s syntax, text []byte) (out []byte, utf8 bool, err error) {
	var w addressWriter
	w.begin(dst, name)
	switch s {
	case addresses:
		err = w.list(text)
		utf8 = w.utf8
	case parameters:
		if encoded, ok := encodeParameters(text); ok {
			text = encoded
		}
		err = w.structured(text)
	case structured:
		err = w.structured(text)
	default:
		err = w.unstructured(text, true)
	}
	out = w.end()
	return out, utf8 || !isASCII(out[len(dst):]), err
}

// encodeParameters encodes what is not ASCII as RFC 2231 does.
func encodeParameters(text []byte) ([]byte, bool) {
	if isASCII(text) {
		return text, true
	}
	kind, params, err := mime.ParseMediaType(string(text))
	if err != nil {
		return nil, false
	}
	formatted := mime.FormatMediaType(kind, params)
	return []byte(formatted), formatted != "" && isASCII([]byte(formatted))
}

// headerText guesses what raw octets in a header are that are not UTF-8: in the
// charset of the message's text, or else what most mail programs took them for.
func (c *compiler) headerText(text string) string {
	if decoded, cs, _ := decodeText([]byte(text), c.charset); !cs.opaque && cs.table != nil {
		return decoded
	}
	decoded, _, _ := decodeText([]byte(text), "windows-1252")
	return decoded
}

// hasTags tells whether the nodes are anything but the text itself.
func hasTags(nodes []mustache.Node, text string) bool {
	return text != "" && (len(nodes) != 1 || nodes[0].Text != text)
}

// appendFieldValue appends a value as it is marked in the text of a field.
func (f *field) appendValue(dst []byte, n *mustache.Node, text []byte) ([]byte, error) {
	for _, c := range text {
		switch c {
		case 0:
			return dst, &RejectError{"{{" + n.Name + "}} in " + f.name + " has a NUL"}
		case '\r', '\n':
			return dst, &RejectError{"{{" + n.Name + "}} in " + f.name + " has a line break"}
		}
	}
	if f.places[n.Index] == inURL {
		return appendPercent(dst, text), nil
	}
	if f.syntax == addresses {
		dst = append(dst, valueStart)
	}
	start := len(dst)
	for _, c := range text {
		switch {
		case c == '\t':
			c = ' '
		case c >= ' ' && c != 0x7f:
		case f.syntax != unstructured:
			return dst, &RejectError{"{{" + n.Name + "}} in " + f.name + " has a control character"}
		}
		if f.syntax == parameters && (c == '"' || c == '\\') {
			dst = append(dst, '\\')
		}
		dst = append(dst, c)
	}
	switch f.syntax {
	case addresses:
		dst = append(dst, valueEnd)
	case structured:
		if !isASCII(dst[start:]) {
			return dst, &RejectError{"{{" + n.Name + "}} is not ASCII, which " + f.name + " has to be"}
		}
	}
	return dst, nil
}

// write writes the field from its merged text.
func (f *field) write(w *addressWriter, dst, text []byte) (out []byte, err error) {
	w.begin(dst, f.name)
	switch f.syntax {
	case addresses:
		err = w.list(text)
	case parameters:
		encoded, ok := encodeParameters(text)
		if !ok {
			return dst, &RejectError{f.name + " would not have the form that it must have"}
		}
		err = w.structured(encoded)
	case structured:
		err = w.structured(text)
	default:
		err = w.unstructured(bytes.TrimRight(text, " \t"), false)
	}
	if err != nil {
		return dst, &RejectError{f.name + " " + err.Error()}
	}
	return w.end(), nil
}
