package letter

import (
	"io"
	"mime"
	"strings"
	"unicode/utf8"

	"golang.org/x/text/encoding/charmap"
	"golang.org/x/text/encoding/ianaindex"
)

// A charset is what the octets of a text mean. The zero value is UTF-8.
type charset struct {
	table  *charmap.Charmap // one octet a character
	ascii  bool             // values have to be ASCII
	opaque bool             // nobody knows what the octets above 127 are
}

// latin1 carries octets through UTF-8 and back, whatever they mean.
var latin1 = charset{table: charmap.ISO8859_1, ascii: true, opaque: true}

// decodeText reads the octets of a text. The charset is the one in which it can
// be written again; label says how the octets must be labelled, "" as they are.
func decodeText(octets []byte, name string) (text string, c charset, label string) {
	name = strings.ToLower(name)
	switch name {
	case "utf-8", "utf8":
		if utf8.Valid(octets) {
			return string(octets), charset{}, ""
		}
		return latin1.decode(octets), latin1, ""
	case "", "us-ascii", "ascii":
		switch {
		case isASCII(octets):
			return string(octets), charset{ascii: true}, ""
		case utf8.Valid(octets):
			return string(octets), charset{}, "utf-8"
		}
		return latin1.decode(octets), latin1, ""
	}
	found, err := ianaindex.MIME.Encoding(name)
	if table, ok := found.(*charmap.Charmap); ok && err == nil {
		c := charset{table: table}
		return c.decode(octets), c, ""
	}
	if err == nil && found != nil {
		if decoded, err := found.NewDecoder().Bytes(octets); err == nil {
			return string(decoded), charset{}, "utf-8"
		}
	}
	if isASCII(octets) {
		return string(octets), charset{ascii: true}, ""
	}
	return latin1.decode(octets), latin1, ""
}

func (c charset) decode(octets []byte) string {
	var b strings.Builder
	for _, o := range octets {
		b.WriteRune(c.table.DecodeByte(o))
	}
	return b.String()
}

// append appends the text in the charset, and tells whether it can.
func (c charset) append(dst, text []byte) ([]byte, bool) {
	switch {
	case c.table == nil && !c.ascii:
		return append(dst, text...), true
	case isASCII(text):
		return append(dst, text...), true
	case c.ascii:
		return dst, false
	}
	return c.encode(dst, text)
}

// encode is append for what has been decoded.
func (c charset) encode(dst, text []byte) ([]byte, bool) {
	if c.table == nil {
		return append(dst, text...), true
	}
	for len(text) > 0 {
		r, n := utf8.DecodeRune(text)
		octet, ok := c.table.EncodeRune(r)
		if !ok {
			return dst, false
		}
		dst = append(dst, octet)
		text = text[n:]
	}
	return dst, true
}

func isASCII(s []byte) bool {
	for _, c := range s {
		if c >= utf8.RuneSelf {
			return false
		}
	}
	return true
}

// words decodes encoded words in whatever charset.
var words = mime.WordDecoder{CharsetReader: func(name string, r io.Reader) (io.Reader, error) {
	e, err := ianaindex.MIME.Encoding(name)
	if err != nil || e == nil {
		return nil, &Error{Reason: "unknown charset " + name}
	}
	return e.NewDecoder().Reader(r), nil
}}
