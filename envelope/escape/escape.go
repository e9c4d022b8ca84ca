// Package escape makes text from outside harmless where people read it:
// [Cell] in a spreadsheet, [Terminal] on a terminal, [JSON] on a terminal too. Replies of servers,
// addresses and names are written by strangers.
//
// All leave ordinary text as it is, and cost nothing then.
package escape

import (
	"bytes"
	"fmt"
	"strings"
	"unicode"
	"unicode/utf16"
	"unicode/utf8"
)

// Cell is s as the content of a CSV cell. A spreadsheet takes a cell for a
// formula when it begins with =, +, -, @, a tab or a line end, and a formula
// can start programs and fetch pages. An apostrophe before it makes it text.
// So that [CellText] can take the apostrophe off again, a text that begins with
// one before such a character gets one more.
//
// Quotes and separators are the CSV writer's business.
func Cell(s string) string {
	if formula(strings.TrimLeft(s, "'")) {
		return "'" + s
	}
	return s
}

// CellText is the text of which [Cell] made s.
func CellText(s string) string {
	if strings.HasPrefix(s, "'") && formula(strings.TrimLeft(s, "'")) {
		return s[1:]
	}
	return s
}

// formula tells whether a spreadsheet may take s for a formula. The wide signs
// are read as the narrow ones where Japanese and Chinese are written.
func formula(s string) bool {
	r, _ := utf8.DecodeRuneInString(s)
	return s != "" && strings.ContainsRune("=+-@\t\r\n＝＋－＠", r)
}

// Terminal is s as one piece of a line on a terminal. What is not seen is
// written as Go would in a string, like \x1b or \u202e: control characters,
// which move the cursor, change colours and titles, or end the line; those that
// turn the direction of writing; other invisible ones; and what is not UTF-8.
// The joiners stay: they are letters' company in Persian and the scripts of
// India.
func Terminal(s string) string {
	clean := 0
	for clean < len(s) {
		r, n := utf8.DecodeRuneInString(s[clean:])
		if !seen(r, n) {
			break
		}
		clean += n
	}
	if clean == len(s) {
		return s
	}
	var b strings.Builder
	b.WriteString(s[:clean])
	for i := clean; i < len(s); {
		r, n := utf8.DecodeRuneInString(s[i:])
		switch {
		case seen(r, n):
			b.WriteString(s[i : i+n])
		case r == '\n':
			b.WriteString(`\n`)
		case r == '\r':
			b.WriteString(`\r`)
		case r == '\t':
			b.WriteString(`\t`)
		case n == 1:
			fmt.Fprintf(&b, `\x%02x`, s[i])
		case r > 0xffff:
			fmt.Fprintf(&b, `\U%08x`, r)
		default:
			fmt.Fprintf(&b, `\u%04x`, r)
		}
		i += n
	}
	return b.String()
}

// JSON is a JSON text that means the same and does nothing to a terminal: what is
// not seen is written as \u escapes. JSON itself asks that of control characters
// below U+0020 alone. Line ends and tabs stay.
func JSON(text []byte) []byte {
	hidden := func(r rune) bool { return r != '\n' && r != '\t' && !seen(r, 3) }
	if bytes.IndexFunc(text, hidden) < 0 {
		return text
	}
	out := make([]byte, 0, len(text)+16)
	for _, r := range string(text) {
		switch {
		case !hidden(r):
			out = utf8.AppendRune(out, r)
		case r > 0xffff:
			high, low := utf16.EncodeRune(r)
			out = fmt.Appendf(out, `\u%04x\u%04x`, high, low)
		default:
			out = fmt.Appendf(out, `\u%04x`, r)
		}
	}
	return out
}

// seen tells whether a terminal shows r, n octets long in UTF-8, and does
// nothing else.
func seen(r rune, n int) bool {
	if r == utf8.RuneError && n == 1 {
		return false
	}
	return unicode.IsPrint(r) || r == '\u200c' || r == '\u200d'
}
