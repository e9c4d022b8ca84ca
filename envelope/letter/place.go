package letter

import (
	"strings"

	"bulkmail/envelope/mustache"
)

// place is where in a text or field a value stands.
type place uint8

const (
	inText place = iota
	inURL
)

// placesOf finds for each variable whether it stands in a URL: the literal
// before it, back to a blank, a quote, < or >, begins with http:// or https://.
// A placeholder that is the whole URL does not, and unsubscribe_url never.
func placesOf(nodes []mustache.Node) []place {
	var places []place
	var u urlScanner
	mustache.Walk(nodes, func(n *mustache.Node) {
		switch n.Kind {
		case mustache.Literal:
			u.literal(n.Text)
		case mustache.Variable:
			for len(places) <= n.Index {
				places = append(places, inText)
			}
			if u.inURL && n.Name != knownUnsubscribeURL {
				places[n.Index] = inURL
			}
			u.value()
		}
	})
	return places
}

type urlScanner struct {
	word  []byte // the literal so far, while it may become a URL
	inURL bool
	other bool // the word is something else
}

func (u *urlScanner) literal(s string) {
	for _, c := range []byte(s) {
		switch {
		case c == ' ' || c == '\t' || c == '\r' || c == '\n' || c == '"' || c == '\'' || c == '<' || c == '>':
			*u = urlScanner{word: u.word[:0]}
		case u.inURL || u.other:
		default:
			u.word = append(u.word, c|0x20)
			word := string(u.word)
			u.inURL = word == "http://" || word == "https://"
			u.other = !strings.HasPrefix("http://", word) && !strings.HasPrefix("https://", word)
		}
	}
}

func (u *urlScanner) value() { u.other = u.other || !u.inURL }

// appendPercent appends the text percent-encoded, all but what RFC 3986 2.3
// calls unreserved, which is right in a path and in a query.
func appendPercent(dst, text []byte) []byte {
	const hex = "0123456789ABCDEF"
	for _, c := range text {
		if 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' || c == '-' || c == '.' || c == '_' || c == '~' {
			dst = append(dst, c)
		} else {
			dst = append(dst, '%', hex[c>>4], hex[c&15])
		}
	}
	return dst
}

// appendHTML appends the text with entities in place of what means something in
// HTML, inside and outside of quoted attributes.
func appendHTML(dst, text []byte) []byte {
	start := 0
	for i, c := range text {
		entity := ""
		switch c {
		case '&':
			entity = "&amp;"
		case '<':
			entity = "&lt;"
		case '>':
			entity = "&gt;"
		case '"':
			entity = "&quot;"
		case '\'':
			entity = "&#39;"
		default:
			continue
		}
		dst = append(append(dst, text[start:i]...), entity...)
		start = i + 1
	}
	return append(dst, text[start:]...)
}
