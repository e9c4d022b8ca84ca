package letter

import (
	"bytes"
	"encoding/base64"
	"errors"
	"unicode/utf8"
)

// errLong is a word that cannot be folded below 998 octets.
var errLong = errors.New("has a word that cannot be folded below 998 octets")

const (
	foldWidth   = 78 // RFC 5322 2.1.1
	wordWidth   = 75 // an encoded word, RFC 2047 2
	encodedLine = 76 // a line with one
	minEncoded  = 26 // the shortest that is worth it; a character has up to 12 in Q
)

// A folder writes a header field and folds it at blanks.
type folder struct {
	dst   []byte
	col   int
	fresh bool // nothing after the name yet
}

func (f *folder) begin(dst []byte, name string) {
	f.dst = append(append(dst, name...), ':')
	f.col = len(name) + 1
	f.fresh = true
}

// word writes a blank, or what stands for it, and a word that cannot be folded.
func (f *folder) word(blank, word []byte) error {
	if len(blank)+len(word) > maxLine {
		return errLong
	}
	// The first word stays beside the name where it can: some cannot read an
	// empty first line.
	if col := f.col + len(blank) + len(word); col > foldWidth && (!f.fresh || col > maxLine) {
		f.dst = append(f.dst, '\r', '\n')
		f.col = 0
	}
	f.fresh = false
	f.dst = append(append(f.dst, blank...), word...)
	f.col += len(blank) + len(word)
	return nil
}

var oneBlank = []byte(" ")

// nextWord takes the blanks before a word, and the word, off the text.
func nextWord(text []byte) (blank, word, rest []byte) {
	i := 0
	for i < len(text) && (text[i] == ' ' || text[i] == '\t') {
		i++
	}
	j := i
	for j < len(text) && text[j] != ' ' && text[j] != '\t' {
		j++
	}
	return text[:i], text[i:j], text[j:]
}

// needsEncoding tells whether the word cannot stand in a header as it is.
func needsEncoding(word []byte) bool {
	for _, c := range word {
		if c < ' ' || c >= 0x7f {
			return true
		}
	}
	return bytes.Contains(word, []byte("=?"))
}

// unstructured writes text that is no syntax: folded, and encoded from the first
// word that has to be to the last. encodeLong encodes also words that are too
// long to be folded.
func (f *folder) unstructured(text []byte, encodeLong bool) error {
	text = bytes.Trim(text, " \t")
	from, to := encodedRegion(text, encodeLong)
	for at := 0; at < len(text); {
		if at == from {
			f.encode(text[from:to], false)
			at = to
			continue
		}
		blank, word, rest := nextWord(text[at:])
		begins := at + len(blank)
		if begins == from && to > from {
			f.encode(text[from:to], false)
			at = to
			continue
		}
		if at == 0 {
			blank = oneBlank
		}
		if err := f.word(blank, word); err != nil {
			return err
		}
		at = len(text) - len(rest)
	}
	return nil
}

// encodedRegion finds the words that are encoded together; from is -1 if none.
func encodedRegion(text []byte, encodeLong bool) (from, to int) {
	from = -1
	begin := 0 // of the word before, with all that is as far from the next
	for rest := text; len(rest) > 0; {
		blank, word, after := nextWord(rest)
		if len(blank) == 1 && blank[0] == ' ' {
			begin = len(text) - len(rest) + 1
		}
		if needsEncoding(word) || encodeLong && len(word) > maxLine-2 || len(word) > 0 && len(blank) > foldWidth {
			if from < 0 {
				from = len(text) - len(rest) + len(blank)
				if len(blank) > 1 || len(blank) == 1 && blank[0] != ' ' {
					from = begin // one blank is all that stays before an encoded word
				}
			}
			to = len(text) - len(after)
		}
		rest = after
	}
	return from, to
}

// encode writes text as encoded words of UTF-8: in Q, or in B where Q is much longer.
// In a phrase fewer characters stand for themselves (RFC 2047 5).
func (f *folder) encode(text []byte, phrase bool) {
	q := 0
	for _, c := range text {
		if q++; !plainInQ(c, phrase) && c != ' ' {
			q += 2
		}
	}
	useB := q > (len(text)+2)/3*6 // Q can be read, and is worth half as much again
	for len(text) > 0 {
		space := encodedLine - f.col - 1
		if space < 40 && !(f.fresh && space >= minEncoded) {
			f.dst = append(f.dst, '\r', '\n')
			f.col = 0
			space = encodedLine - 1
		}
		f.fresh = false
		payload := min(space, wordWidth) - len("=?utf-8?q??=")
		start := len(f.dst)
		if useB {
			n := wholeRunes(text, payload/4*3)
			f.dst = append(f.dst, " =?utf-8?b?"...)
			f.dst = base64.StdEncoding.AppendEncode(f.dst, text[:n])
			text = text[n:]
		} else {
			f.dst = append(f.dst, " =?utf-8?q?"...)
			text = text[f.appendQ(text, payload, phrase):]
		}
		f.dst = append(f.dst, "?="...)
		f.col += len(f.dst) - start
	}
}

// wholeRunes is how many octets of text are within n and no half character, one
// character at least.
func wholeRunes(text []byte, n int) int {
	if n >= len(text) {
		return len(text)
	}
	for n > 0 && !utf8.RuneStart(text[n]) {
		n--
	}
	if n == 0 {
		_, n = utf8.DecodeRune(text)
	}
	return n
}

func (f *folder) appendQ(text []byte, payload int, phrase bool) (taken int) {
	const hex = "0123456789ABCDEF"
	used := 0
	for taken < len(text) {
		_, n := utf8.DecodeRune(text[taken:])
		size := 3 * n
		if c := text[taken]; c == ' ' || plainInQ(c, phrase) {
			size = 1
		}
		if used+size > payload {
			break
		}
		used += size
		for _, c := range text[taken : taken+n] {
			switch {
			case c == ' ':
				f.dst = append(f.dst, '_')
			case plainInQ(c, phrase):
				f.dst = append(f.dst, c)
			default:
				f.dst = append(f.dst, '=', hex[c>>4], hex[c&15])
			}
		}
		taken += n
	}
	return taken
}

func plainInQ(c byte, phrase bool) bool {
	switch {
	case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9', c == '!', c == '*', c == '+', c == '-', c == '/':
		return true
	case phrase || c <= ' ' || c >= 0x7f || c == '=' || c == '?' || c == '_':
		return false
	}
	return true
}

// structured writes a field that has syntax, folded at its blanks.
func (f *folder) structured(text []byte) error {
	text = bytes.Trim(text, " \t")
	for first := true; len(text) > 0; first = false {
		blank, word, rest := nextWord(text)
		if first {
			blank = oneBlank
		}
		if err := f.word(blank, word); err != nil {
			return err
		}
		text = rest
	}
	return nil
}

func (f *folder) end() []byte { return append(f.dst, '\r', '\n') }
