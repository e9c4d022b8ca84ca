package envelope

import (
	"fmt"
	"strings"
	"unicode/utf8"
)

// A Message is a message prepared for the wire once, however many envelopes
// carry it. It does not change and may be shared.
type Message struct {
	wire     []byte
	size     int64
	eightBit bool
	utf8     bool
}

// WireMessage is a message that is fit for the wire already, as letters are
// rendered: CRLF line ends, dots stuffed, a final CRLF. Size is what [Message.Size]
// says. The message shares memory with wire.
func WireMessage(wire []byte, size int64, eightBit, utf8 bool) Message {
	return Message{wire: wire, size: size, eightBit: eightBit, utf8: utf8}
}

// Wire is the message as it follows DATA: CRLF line ends, dots stuffed, a
// final CRLF, without the lone dot. It must not be modified.
func (m *Message) Wire() []byte { return m.wire }

// Size is the message in octets before dot-stuffing, as RFC 1870 counts it.
func (m *Message) Size() int64 { return m.size }

// EightBit tells whether the body has octets above 127 (8BITMIME is wanted).
func (m *Message) EightBit() bool { return m.eightBit }

// UTF8 tells whether the header has octets above 127 (SMTPUTF8 is wanted).
func (m *Message) UTF8() bool { return m.utf8 }

// maxLine is RFC 5322 2.1.1 without the CRLF. Relays cut or break longer
// lines, and with them signatures and attachments.
const maxLine = 998

// NewMessage makes raw fit for the wire. CRLF, LF and CR each end a line and
// become CRLF: a bare CR or LF that one server takes for a line end and the
// next does not is how mail is smuggled (RFC 5321 2.3.8).
//
// A message begins with its header; a header alone is a message. What could
// only arrive broken is refused with a *[FieldError] that names the line: no
// header, text where the header should be, a NUL, a line over 998 octets, a
// header in an encoding other than UTF-8.
func NewMessage(raw string) (*Message, error) {
	if raw == "" {
		return nil, &FieldError{"message", "empty"}
	}
	crlf := strings.Count(raw, "\r\n")
	breaks := strings.Count(raw, "\n") + strings.Count(raw, "\r") - crlf
	dots := strings.Count(raw, "\n.") + strings.Count(raw, "\r.")
	m := &Message{wire: make([]byte, 0, len(raw)+breaks-crlf+dots+len(".\r\n"))}
	stuffed := 0
	header := true
	for number := 1; raw != ""; number++ {
		var line string
		line, raw = cutLine(raw)
		switch problem := m.inspect(line, number, header); {
		case problem != "":
			return nil, &FieldError{"message", fmt.Sprintf("line %d %s", number, problem)}
		case line == "":
			header = false
		case line[0] == '.':
			m.wire = append(m.wire, '.')
			stuffed++
		}
		m.wire = append(append(m.wire, line...), '\r', '\n')
	}
	m.size = int64(len(m.wire) - stuffed)
	return m, nil
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

// inspect notes what the line asks of a relay, and says what is wrong with it.
func (m *Message) inspect(line string, number int, header bool) (problem string) {
	if len(line) > maxLine {
		cure := "encode its part as quoted-printable or base64"
		if header {
			cure = "fold the header field"
		}
		return fmt.Sprintf("has %d octets, %d is the most: %s", len(line), maxLine, cure)
	}
	if strings.IndexByte(line, 0) >= 0 {
		return "has a NUL: encode its part as base64"
	}
	eightBit := !isASCII(line)
	if !header {
		m.eightBit = m.eightBit || eightBit
		return ""
	}
	m.utf8 = m.utf8 || eightBit
	switch {
	case eightBit && !utf8.ValidString(line):
		return "of the header is not UTF-8: encode it as RFC 2047 does (=?iso-8859-1?q?...?=)"
	case number == 1 && line == "":
		return "is empty: a message begins with its header"
	case line == "" || isField(line):
	case number > 1 && (line[0] == ' ' || line[0] == '\t'):
	case number == 1:
		return "is no header field: a message begins with its header, then an empty line, then the text"
	default:
		return "is neither a header field nor the empty line before the text"
	}
	return ""
}

// isField tells whether a header field begins on the line. White space before
// the colon is obsolete syntax (RFC 5322 4.5), but relays take it.
func isField(line string) bool {
	name, _, ok := strings.Cut(line, ":")
	name = strings.TrimRight(name, " \t")
	for _, c := range []byte(name) {
		if c <= ' ' || c >= 0x7f {
			return false
		}
	}
	return ok && name != ""
}

func isASCII(s string) bool {
	for _, c := range []byte(s) {
		if c >= utf8.RuneSelf {
			return false
		}
	}
	return true
}
