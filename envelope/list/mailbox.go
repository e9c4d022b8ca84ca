package list

import (
	"errors"
	"mime"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"

	"bulkmail/envelope"
)

// A mailbox is an address as it is written in a list, checked.
type mailbox struct{ to, name string }

// mailboxes appends the mailboxes in s: an address, one with a name, or several
// of these. If s holds anything else, reason says what, and nothing is appended.
func mailboxes(dst []mailbox, s string) (_ []mailbox, reason string) {
	s = trim(s)
	if reason = check(s); reason == "" {
		return append(dst, mailbox{to: s}), ""
	}
	// Google's way to put several addresses into a cell.
	rest := strings.ReplaceAll(s, " ::: ", ";")
	had := len(dst)
	for start := 0; rest != ""; {
		end := start + separator(rest[start:])
		piece := trim(rest[:end])
		// What stands before a separator without an @ is the first half of a
		// name: Lee, Ann <ann@example.net>.
		if piece != "" && end < len(rest) && !strings.Contains(piece, "@") {
			start = end + 1
			continue
		}
		if piece != "" {
			var ok bool
			if dst, ok = single(dst, piece); !ok {
				return dst[:had], blame(s, piece, reason)
			}
		}
		rest, start = rest[min(end+1, len(rest)):], 0
	}
	if len(dst) == had {
		return dst, reason
	}
	return dst, ""
}

// blame says which of several pieces is no mailbox.
func blame(s, piece, reason string) string {
	piece = trim(piece[:separator(piece)])
	switch piece {
	case "", s:
		return reason
	case strings.Trim(s, ",; "):
		return check(piece)
	}
	return strconv.Quote(cut(piece)) + ": " + check(piece)
}

// separator is where the next separator of s stands outside quotes and angle
// brackets, or its end.
func separator(s string) int {
	quoted, angle := false, false
	for i := 0; i < len(s); i++ {
		switch c := s[i]; {
		case c == '\\' && quoted:
			i++
		case c == '"':
			quoted = !quoted
		case quoted:
		case c == '<':
			angle = true
		case c == '>':
			angle = false
		case angle:
		case c == ',' || c == ';' || c == '\n' || c == '\r':
			return i
		}
	}
	return len(s)
}

// single appends the one mailbox that s is, or the several that only blanks
// separate.
func single(dst []mailbox, s string) ([]mailbox, bool) {
	address, name := s, ""
	switch last := s[max(0, len(s)-1):]; last {
	case ">": // RFC 5322 3.4, name-addr
		if open := strings.LastIndexByte(s, '<'); open >= 0 {
			address, name = s[open+1:len(s)-1], trim(s[:open])
			if !isName(name, address) {
				return dst, false
			}
		}
	case ")": // the name as a comment, as it was before RFC 822
		if open := strings.IndexByte(s, '('); open > 0 {
			address, name = s[:open], s[open+1:len(s)-1]
		}
	case `"`, "'":
		if len(s) > 1 && s[:1] == last {
			return single(dst, trim(s[1:len(s)-1]))
		}
	}
	address = trim(address)
	if len(address) > len("mailto:") && strings.EqualFold(address[:len("mailto:")], "mailto:") {
		address = address[len("mailto:"):]
	}
	if check(address) == "" {
		return append(dst, mailbox{address, displayName(name)}), true
	}
	if name != "" {
		return dst, false
	}
	had, words := len(dst), strings.Fields(address)
	for _, word := range words {
		if len(words) == 1 || check(word) != "" {
			return dst[:had], false
		}
		dst = append(dst, mailbox{to: word})
	}
	return dst, len(words) > 0
}

// isName tells whether what stands before an address in brackets is its owner's
// name. Another address is somebody else: a separator is missing.
func isName(s, address string) bool {
	if len(s) > 1 && s[0] == '"' && s[len(s)-1] == '"' {
		return !strings.ContainsAny(s, "<>") || !strings.Contains(s, "@")
	}
	if strings.ContainsAny(s, "<>") {
		return false
	}
	for word := range strings.FieldsSeq(s) {
		if word = strings.Trim(word, `"'(),;`); strings.Contains(word, "@") && !strings.EqualFold(word, trim(address)) && check(word) == "" {
			return false
		}
	}
	return true
}

// check says why s is no address that can be sent to.
func check(s string) (reason string) {
	if _, err := envelope.ParseAddress(s); err != nil {
		if e, ok := errors.AsType[*envelope.AddressError](err); ok {
			return e.Reason
		}
		return err.Error()
	}
	return ""
}

// displayName is a name as it is said, without quotes and without the encoding
// of header fields (RFC 2047).
func displayName(s string) string {
	s = trim(s)
	if len(s) > 1 && s[0] == '"' && s[len(s)-1] == '"' {
		s = unquote(s[1 : len(s)-1])
	}
	if strings.Contains(s, "=?") {
		if decoded, err := new(mime.WordDecoder).DecodeHeader(s); err == nil && utf8.ValidString(decoded) {
			s = decoded
		}
	}
	return trim(s)
}

// unquote takes the backslashes off a quoted string (RFC 5322 3.2.4).
func unquote(s string) string {
	if !strings.Contains(s, `\`) {
		return s
	}
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] == '\\' && i+1 < len(s) {
			i++
		}
		b.WriteByte(s[i])
	}
	return b.String()
}

// trim takes off blanks of all kinds, and what is not seen: both come along
// when an address is copied from a page.
func trim(s string) string {
	return strings.TrimFunc(s, func(r rune) bool {
		switch r {
		case '\u200b', '\u200e', '\u200f', '\u2060', '\ufeff', '\u202a', '\u202c', '\u00ad':
			return true
		}
		return unicode.IsSpace(r)
	})
}

// unusable is the entry of a line that is no address.
func unusable(line int, text, reason string) Entry {
	return Entry{Line: line, To: cut(trim(text)), Err: &Error{Line: line, Reason: reason}}
}

// cut bounds a text that is no address, so that it stays none.
func cut(text string) string {
	if len(text) <= maxText {
		return text
	}
	n := maxText
	for !utf8.RuneStart(text[n]) {
		n--
	}
	return text[:n] + "…"
}
