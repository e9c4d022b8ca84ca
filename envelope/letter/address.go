package letter

import (
	"bytes"
	"errors"
	"fmt"

	"bulkmail/envelope"
)

// What marks a value in the text of an address field, so that nothing in it is
// taken for syntax. Both are refused in values.
const (
	valueStart = 0x01
	valueEnd   = 0x02
)

var (
	errAddress = errors.New("would not be a list of addresses any more")
	errQuote   = errors.New("has a quote that is not closed")
)

// An addressWriter writes an address field: display names quoted or encoded,
// addresses checked.
type addressWriter struct {
	folder
	name, bare, angle []byte // what was read: display name, all of it, what is in < >
	quoted            []byte
	hasAngle          bool
	written           int
	domain            string // of the first address
	utf8              bool
}

// list reads mailboxes with commas between them, and writes them.
func (w *addressWriter) list(text []byte) error {
	w.written, w.domain, w.utf8 = 0, "", false
	for {
		rest, more, err := w.read(text)
		if err != nil {
			return err
		}
		if err := w.mailbox(); err != nil {
			return err
		}
		if !more {
			break
		}
		text = rest
	}
	if w.written == 0 {
		return errors.New("has no address")
	}
	return nil
}

// read reads one mailbox, up to a comma.
func (w *addressWriter) read(text []byte) (rest []byte, more bool, err error) {
	w.name, w.bare, w.angle, w.hasAngle = w.name[:0], w.bare[:0], w.angle[:0], false
	for i := 0; i < len(text); {
		switch c := text[i]; c {
		case ',':
			return text[i+1:], true, nil
		case valueStart:
			end := i + bytes.IndexByte(text[i:], valueEnd)
			w.name = append(w.name, text[i+1:end]...)
			w.bare = append(w.bare, text[i+1:end]...)
			i = end + 1
		case '"':
			end := quoteEnd(text, i)
			if end < 0 {
				return nil, false, errQuote
			}
			w.name = appendUnquoted(w.name, text[i+1:end])
			w.bare = append(w.bare, text[i:end+1]...)
			i = end + 1
		case '(':
			if i = commentEnd(text, i); i < 0 {
				return nil, false, errors.New("has a comment that is not closed")
			}
		case '<':
			if i, err = w.readAngle(text, i); err != nil {
				return nil, false, err
			}
		case ' ', '\t':
			w.name, w.bare = append(w.name, ' '), append(w.bare, ' ')
			i++
		case ':', ';', '>', ')':
			return nil, false, errAddress
		default:
			if w.hasAngle {
				return nil, false, errAddress
			}
			w.name, w.bare = append(w.name, c), append(w.bare, c)
			i++
		}
	}
	return nil, false, nil
}

// readAngle reads the address that begins with the < at i, and returns where its
// > ends.
func (w *addressWriter) readAngle(text []byte, i int) (int, error) {
	if w.hasAngle {
		return 0, errAddress
	}
	w.hasAngle = true
	for i++; i < len(text); i++ {
		switch text[i] {
		case '>':
			return i + 1, nil
		case valueStart:
			n := bytes.IndexByte(text[i:], valueEnd)
			w.angle = append(w.angle, text[i+1:i+n]...)
			i += n
		case '"':
			end := quoteEnd(text, i)
			if end < 0 {
				return 0, errQuote
			}
			w.angle = append(w.angle, text[i:end+1]...)
			i = end
		default:
			w.angle = append(w.angle, text[i])
		}
	}
	return 0, errAddress
}

func quoteEnd(text []byte, i int) int {
	for i++; i < len(text); i++ {
		switch text[i] {
		case '"':
			return i
		case '\\':
			i++
		case valueStart:
			i += bytes.IndexByte(text[i:], valueEnd)
		}
	}
	return -1
}

func commentEnd(text []byte, i int) int {
	for depth := 0; i < len(text); i++ {
		switch text[i] {
		case '(':
			depth++
		case ')':
			if depth--; depth == 0 {
				return i + 1
			}
		case '\\':
			i++
		case valueStart:
			i += bytes.IndexByte(text[i:], valueEnd)
		}
	}
	return -1
}

// appendUnquoted appends the content of a quoted string; values in it stand for
// themselves.
func appendUnquoted(dst, text []byte) []byte {
	for i := 0; i < len(text); i++ {
		switch c := text[i]; {
		case c == valueStart:
			n := bytes.IndexByte(text[i:], valueEnd)
			dst = append(dst, text[i+1:i+n]...)
			i += n
		case c == '\\' && i+1 < len(text):
			i++
			dst = append(dst, text[i])
		default:
			dst = append(dst, c)
		}
	}
	return dst
}

// mailbox writes what was read.
func (w *addressWriter) mailbox() error {
	address := bytes.Trim(w.bare, " \t")
	name := bytes.Trim(w.name, " \t")
	if w.hasAngle {
		address = bytes.Trim(w.angle, " \t")
	} else {
		name = nil
		if len(address) == 0 {
			return nil
		}
	}
	parsed, err := envelope.ParseAddress(string(address))
	if err != nil {
		return fmt.Errorf("would not be a list of addresses any more: %w", err)
	}
	if !isASCII(address) {
		address = []byte(parsed.Mailbox)
	}
	w.utf8 = w.utf8 || parsed.UTF8
	if w.written == 0 {
		w.domain = string(address[bytes.LastIndexByte(address, '@')+1:])
	} else {
		w.dst = append(w.dst, ',')
		w.col++
	}
	w.written++
	if len(name) == 0 {
		return w.word(oneBlank, address)
	}
	if err := w.phrase(name); err != nil {
		return err
	}
	w.bare = append(append(append(w.bare[:0], '<'), address...), '>')
	return w.word(oneBlank, w.bare)
}

// phrase writes a display name: as it is if it is atoms, quoted if it is ASCII,
// else encoded.
func (w *addressWriter) phrase(name []byte) error {
	atoms := true
	for i, c := range name {
		if c == ' ' && name[i-1] != ' ' {
			continue
		}
		atoms = atoms && isAtom(c)
	}
	switch {
	case needsEncoding(bytes.ReplaceAll(name, oneBlank, nil)):
		w.encode(name, true)
		return nil
	case atoms:
		return w.structured(name)
	}
	w.quoted = append(w.quoted[:0], '"')
	for _, c := range name {
		if c == '"' || c == '\\' {
			w.quoted = append(w.quoted, '\\')
		}
		w.quoted = append(w.quoted, c)
	}
	w.quoted = append(w.quoted, '"')
	return w.structured(w.quoted)
}

func isAtom(c byte) bool {
	return 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' || bytes.IndexByte([]byte("!#$%&'*+-/=?^_`{|}~"), c) >= 0
}
