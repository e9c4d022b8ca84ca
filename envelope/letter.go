package envelope

import (
	"fmt"
	"math"
	"strconv"
	"strings"
	"unicode/utf8"
)

// What belongs to batches of letters alone: see decode.go for the rest.

// deepest is how many lists and objects may be within one another in data.
const deepest = 64

// letter reads a recipient that is an object. Fields of errors begin with a dot.
func (d *decoder) letter(l *Letter) (to string, err error) {
	const fieldTo, fieldName, fieldData = 1, 2, 4
	d.pos++
	seen := 0
	for more := d.next() != '}'; more; {
		if d.next() != '"' {
			return "", d.broken("", "a field name belongs here")
		}
		name, err := d.string("")
		if err != nil {
			return "", err
		}
		if d.next() != ':' {
			return "", d.broken("", "a colon belongs after a field name")
		}
		d.pos++
		field := 0
		switch name {
		case "to":
			field = fieldTo
			to, err = d.stringValue(".to")
		case "name":
			field = fieldName
			l.Name, err = d.stringValue(".name")
		case "data":
			field = fieldData
			l.Data, err = d.object(".data")
		default:
			err = &FieldError{"", "unknown field " + quoted(name) + ": a recipient has to, name and data"}
		}
		if err != nil {
			return "", err
		}
		if seen&field != 0 {
			return "", &FieldError{"." + name, "given twice"}
		}
		seen |= field
		switch d.next() {
		case ',':
			d.pos++
		case '}':
			more = false
		default:
			return "", d.broken("", "a comma or } belongs after a value")
		}
	}
	d.pos++
	if seen&fieldTo == 0 {
		return "", &FieldError{".to", "missing"}
	}
	return to, nil
}

func tooMuchData(data string) error {
	return &FieldError{"data", fmt.Sprintf("has %d bytes, %d are the most", len(data), DataBytes)}
}

// version reads a version: a positive integer, of any size.
func (d *decoder) version() (int, error) {
	const want = "a positive integer"
	if c := d.next(); c < '0' || c > '9' {
		return 0, d.mistyped("version", want)
	}
	start := d.pos
	if err := d.number("version"); err != nil {
		return 0, err
	}
	digits := d.text[start:d.pos]
	if digits == "0" || strings.ContainsAny(digits, ".eE") {
		return 0, &FieldError{"version", "not " + want}
	}
	n, err := strconv.Atoi(digits)
	if err != nil {
		n = math.MaxInt // there is none like it, whatever it is
	}
	return n, nil
}

// versionOf finds the version of a batch of which nothing else need be known:
// 0 if it is no JSON object, or its version is none.
func versionOf(text string) int {
	d := decoder{text: text}
	if d.next() != '{' {
		return 0
	}
	d.pos++
	version, given := 1, false
	for more := d.next() != '}'; more; {
		if d.next() != '"' {
			return 0
		}
		name, err := d.string("")
		if err != nil || d.next() != ':' {
			return 0
		}
		d.pos++
		if name == "version" {
			if given {
				return 0
			}
			given = true
			version, err = d.version()
		} else {
			err = d.skip("", 0)
		}
		if err != nil {
			return 0
		}
		switch d.next() {
		case ',':
			d.pos++
		case '}':
			more = false
		default:
			return 0
		}
	}
	d.pos++
	if d.next(); d.pos < len(d.text) {
		return 0
	}
	return version
}

// object reads an object and returns it as it stands.
func (d *decoder) object(field string) (string, error) {
	if d.next() != '{' {
		return "", d.mistyped(field, "an object")
	}
	start := d.pos
	if err := d.skip(field, 0); err != nil {
		return "", err
	}
	return d.text[start:d.pos], nil
}

// skip reads any value that is within so many others.
func (d *decoder) skip(field string, depth int) error {
	switch c := d.next(); {
	case c == '"':
		return d.skipString(field)
	case c == '-' || '0' <= c && c <= '9':
		return d.number(field)
	case c == '{' || c == '[':
		if depth == deepest {
			return &FieldError{field, fmt.Sprintf("more than %d lists and objects within one another", deepest)}
		}
		return d.skipAll(field, depth+1, c == '{')
	}
	for _, word := range []string{"true", "false", "null"} {
		if strings.HasPrefix(d.text[d.pos:], word) {
			d.pos += len(word)
			return nil
		}
	}
	return d.broken(field, "a value belongs here")
}

// skipAll reads a list, or an object if its values are named.
func (d *decoder) skipAll(field string, depth int, named bool) error {
	end := byte(']')
	if named {
		end = '}'
	}
	d.pos++
	if d.next() == end {
		d.pos++
		return nil
	}
	for {
		if named {
			if d.next() != '"' {
				return d.broken(field, "a name belongs here")
			}
			if err := d.skipString(field); err != nil {
				return err
			}
			if d.next() != ':' {
				return d.broken(field, "a colon belongs after a name")
			}
			d.pos++
		}
		if err := d.skip(field, depth); err != nil {
			return err
		}
		switch d.next() {
		case ',':
			d.pos++
		case end:
			d.pos++
			return nil
		default:
			return d.broken(field, "a comma or "+string(end)+" belongs after a value")
		}
	}
}

// skipString is string without what it stands for: nothing is allocated.
func (d *decoder) skipString(field string) error {
	start := d.pos + 1
	for i := start; ; {
		i = plainEnd(d.text, i)
		d.pos = i
		switch {
		case i == len(d.text):
			return d.broken(field, "the string does not end")
		case d.text[i] >= utf8.RuneSelf:
			i++
		case d.text[i] == '"':
			if !utf8.ValidString(d.text[start:i]) {
				return d.notUTF8(field, start)
			}
			d.pos++
			return nil
		case d.text[i] == '\\':
			_, n := unescape(d.text[i:])
			if n == 0 {
				return d.broken(field, notAnEscape)
			}
			i += n
		default:
			return d.broken(field, "a control character in a string has to be escaped")
		}
	}
}

// number reads a number (RFC 8259 6).
func (d *decoder) number(field string) error {
	digits := func() bool {
		start := d.pos
		for d.pos < len(d.text) && '0' <= d.text[d.pos] && d.text[d.pos] <= '9' {
			d.pos++
		}
		return d.pos > start
	}
	at := func(octets string) bool {
		if d.pos < len(d.text) && strings.IndexByte(octets, d.text[d.pos]) >= 0 {
			d.pos++
			return true
		}
		return false
	}
	at("-")
	ok := at("0") || digits()
	if ok && at(".") {
		ok = digits()
	}
	if ok && at("eE") {
		at("+-")
		ok = digits()
	}
	if !ok {
		return d.broken(field, "not a number")
	}
	return nil
}
