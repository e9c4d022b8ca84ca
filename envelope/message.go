package envelope

import (
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

// NewMessage makes raw fit for the wire as it stands. CRLF, LF and CR each end a
// line and become CRLF: a bare CR or LF that one server takes for a line end and
// the next does not is how mail is smuggled (RFC 5321 2.3.8).
//
// It judges nothing. A message that others have written may lack header fields, or
// have lines and octets that arrive broken; package letter puts that right.
func NewMessage(raw string) *Message {
	crlf := strings.Count(raw, "\r\n")
	breaks := strings.Count(raw, "\n") + strings.Count(raw, "\r") - crlf
	dots := strings.Count(raw, "\n.") + strings.Count(raw, "\r.")
	m := &Message{wire: make([]byte, 0, len(raw)+breaks-crlf+dots+len(".\r\n"))}
	stuffed := 0
	header := true
	for raw != "" {
		var line string
		line, raw = cutLine(raw)
		switch {
		case line == "":
			header = false
		case line[0] == '.':
			m.wire = append(m.wire, '.')
			stuffed++
		}
		if !isASCII(line) {
			m.utf8 = m.utf8 || header
			m.eightBit = m.eightBit || !header
		}
		m.wire = append(append(m.wire, line...), '\r', '\n')
	}
	m.size = int64(len(m.wire) - stuffed)
	return m
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

func isASCII(s string) bool {
	for _, c := range []byte(s) {
		if c >= utf8.RuneSelf {
			return false
		}
	}
	return true
}
