package smtp

import (
	"bytes"
	"unicode/utf8"
)

const spoken = 50 // characters of a command that are logged, as in Mail::Bulkmail

// said logs the commands in b, the first 50 characters of each. Neither what
// belongs to AUTH nor a message ever comes here.
func (s *Session) said(b []byte) {
	if s.d.Conversation == nil {
		return
	}
	for len(b) > 0 {
		line, rest, _ := bytes.Cut(b, []byte("\r\n"))
		b = rest
		end := 0
		for n := 0; n < spoken && end < len(line); n++ {
			_, size := utf8.DecodeRune(line[end:])
			end += size
		}
		s.d.Conversation("C: " + printable(line[:end]))
	}
}

// hear logs a line of a reply in full, but the challenges of AUTH.
func (s *Session) hear(line []byte) {
	if s.secret && len(line) > 4 && line[0] == '3' {
		line = append(append([]byte{}, line[:4]...), "..."...)
	}
	s.d.Conversation("S: " + whole(line))
}
