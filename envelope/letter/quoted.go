package letter

import (
	"bytes"
	"encoding/base64"
	"strings"
)

// maxLine is RFC 5322 2.1.1 without the CRLF.
const maxLine = 998

// quotedWidth is RFC 2045 6.7: a line with its soft break has 76 octets.
const quotedWidth = 76

// A literal is the constant between two values, ready for the wire as if it
// stood at the beginning of a line.
type literal struct {
	wire        []byte
	first       int  // octets up to the first line break, with a soft break's =
	last        int  // octets after the last line break
	breaks      bool // there is a line break in it
	startsBreak bool // it begins with one
	blank       byte // the blank at its end, which is not in wire (quoted-printable)
	eightBit    bool
	long        bool // a line within it is over 998
	stuffed     int
	firstDot    bool // a dot to be stuffed if it stands at the beginning of a line
}

// measure finds what the seams need to know.
func (l *literal) measure() {
	at := bytes.Index(l.wire, []byte("\r\n"))
	l.breaks = at >= 0
	if !l.breaks {
		l.first, l.last = len(l.wire), len(l.wire)
		return
	}
	l.first = at
	l.last = len(l.wire) - bytes.LastIndex(l.wire, []byte("\r\n")) - 2
}

// plainLiteral is a literal of a text in 7bit or 8bit. Its lines end with LF.
func plainLiteral(octets []byte) literal {
	l := literal{eightBit: !isASCII(octets)}
	for i, line := range bytes.Split(octets, []byte("\n")) {
		if i > 0 {
			l.wire = append(l.wire, '\r', '\n')
			if len(line) > 0 && line[0] == '.' {
				l.wire = append(l.wire, '.')
				l.stuffed++
			}
		}
		l.long = l.long || len(line) > maxLine
		l.wire = append(l.wire, line...)
	}
	l.firstDot = len(octets) > 0 && octets[0] == '.'
	l.startsBreak = len(octets) > 0 && octets[0] == '\n'
	l.measure()
	return l
}

// quotedLiteral is a literal of a text in quoted-printable.
func quotedLiteral(octets []byte) literal {
	var q quotedWriter
	q.octets(octets)
	l := literal{wire: q.dst, blank: q.blank, startsBreak: len(octets) > 0 && octets[0] == '\n'}
	l.measure()
	if !l.breaks {
		l.first++ // room for a soft break after it
	}
	return l
}

// A quotedWriter writes quoted-printable. No line begins with a dot, so that
// there is nothing to stuff.
type quotedWriter struct {
	dst   []byte
	col   int
	blank byte // a blank that may turn out to be at the end of a line
}

// plainOctets are those that stand for themselves.
var plainOctets = func() (t [256]bool) {
	for c := '!'; c <= '~'; c++ {
		t[c] = c != '='
	}
	return t
}()

func (q *quotedWriter) octets(s []byte) {
	for _, c := range s {
		switch {
		case c == '\n':
			q.end()
			q.dst = append(q.dst, '\r', '\n')
			q.col = 0
			continue
		case q.blank != 0:
			q.one(q.blank)
			q.blank = 0
		}
		switch {
		case c == ' ' || c == '\t':
			q.blank = c
		case !plainOctets[c]:
			q.hex(c)
		case c == '.' && (q.col == 0 || q.col+1 > quotedWidth-1):
			q.hex(c)
		default:
			q.one(c)
		}
	}
}

func (q *quotedWriter) room(n int) {
	if q.col+n > quotedWidth-1 {
		q.dst = append(q.dst, "=\r\n"...)
		q.col = 0
	}
}

func (q *quotedWriter) one(c byte) {
	q.room(1)
	q.dst = append(q.dst, c)
	q.col++
}

func (q *quotedWriter) hex(c byte) {
	const hex = "0123456789ABCDEF"
	q.room(3)
	q.dst = append(q.dst, '=', hex[c>>4], hex[c&15])
	q.col += 3
}

// end writes a blank that is at the end of a line (RFC 2045 6.7, rule 3).
func (q *quotedWriter) end() {
	if q.blank != 0 {
		q.hex(q.blank)
		q.blank = 0
	}
}

// literal copies a literal, with a soft break before it where its first line
// does not fit.
func (q *quotedWriter) literal(l *literal) {
	if q.blank != 0 && l.startsBreak {
		q.end()
	} else if q.blank != 0 {
		q.one(q.blank)
		q.blank = 0
	}
	if q.col+l.first > quotedWidth && q.col > 0 {
		q.dst = append(q.dst, "=\r\n"...)
		q.col = 0
	}
	q.dst = append(q.dst, l.wire...)
	if l.breaks {
		q.col = l.last
	} else {
		q.col += l.last
	}
	q.blank = l.blank
}

// decodeQuoted reads quoted-printable, and leaves what is none as it is. After
// stop octets it ends and tells where that is.
func decodeQuoted(lines []string, stop int) (octets []byte, line, column int) {
	for i, l := range lines {
		l = strings.TrimRight(l, " \t")
		soft := false
		for j := 0; j < len(l); j++ {
			if len(octets) >= stop {
				return octets, i, j
			}
			if l[j] != '=' {
				octets = append(octets, l[j])
				continue
			}
			if j == len(l)-1 {
				soft = true
				break
			}
			if high, low := unhex(l, j+1), unhex(l, j+2); high >= 0 && low >= 0 {
				octets = append(octets, byte(high<<4|low))
				j += 2
			} else {
				octets = append(octets, '=')
			}
		}
		if !soft && i < len(lines)-1 {
			if len(octets) >= stop {
				return octets, i, len(l)
			}
			octets = append(octets, '\n')
		}
	}
	return octets, max(0, len(lines)-1), 0
}

func unhex(s string, i int) int {
	if i >= len(s) {
		return -1
	}
	switch c := s[i]; {
	case '0' <= c && c <= '9':
		return int(c - '0')
	case 'A' <= c && c <= 'F':
		return int(c-'A') + 10
	case 'a' <= c && c <= 'f':
		return int(c-'a') + 10
	}
	return -1
}

// decodeBase64 reads base64. After stop octets it ends and tells where that is.
func decodeBase64(lines []string, stop int) (octets []byte, line, column int, ok bool) {
	chars := make([]byte, 0, 1024)
	at := stop/3*4 + stop%3
	line = -1
	for i, l := range lines {
		for j := range len(l) {
			if c := l[j]; c != ' ' && c != '\t' && c != '=' {
				if len(chars) == at && line < 0 {
					line, column = i, j
				}
				chars = append(chars, c)
			}
		}
	}
	octets, err := base64.RawStdEncoding.DecodeString(string(chars))
	return octets, max(line, 0), column, err == nil
}

const base64Width = 76

// appendBase64 appends octets as base64 in lines of 76, without a line break at
// the end.
func appendBase64(dst, octets []byte) []byte {
	for len(octets) > 0 {
		n := min(len(octets), base64Width/4*3)
		dst = base64.StdEncoding.AppendEncode(dst, octets[:n])
		if octets = octets[n:]; len(octets) > 0 {
			dst = append(dst, '\r', '\n')
		}
	}
	return dst
}
