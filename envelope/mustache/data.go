package mustache

import (
	"bytes"
	"errors"
	"unicode/utf16"
	"unicode/utf8"
)

// Type is the type of a [Value].
type Type uint8

// The types of values.
const (
	Missing Type = iota
	Null
	False
	True
	Number
	String
	List
	Object
)

// Data is JSON, read by hand into memory that the next reading uses again: a
// letter costs no allocation for its data. The values share memory with what
// was read, which must not change while they are used.
type Data struct {
	nodes []dataNode
	text  []byte // strings that had escapes in them
}

type dataNode struct {
	typ       Type
	key, text []byte
	next      int32 // the next in the same list or object, or 0
	child     int32 // the first in it, or 0
}

// A Value is a value in [Data]. The zero Value is one that is missing.
type Value struct {
	data *Data
	at   int32
}

// What is wrong with JSON.
var (
	errSyntax = errors.New("not JSON")
	errDepth  = errors.New("lists and objects nest too deep")
	errUTF8   = errors.New("not UTF-8")
)

const maxDataDepth = 64

// Read reads one JSON value; nothing at all is an empty object. Values of an
// earlier reading are void. A name that stands twice in an object means the
// last, as everywhere.
func (d *Data) Read(json []byte) (Value, error) {
	d.nodes, d.text = d.nodes[:0], d.text[:0]
	if !utf8.Valid(json) {
		return Value{}, errUTF8
	}
	r := dataReader{d: d, src: json}
	if r.peek() == 0 && r.pos == len(json) {
		d.nodes = append(d.nodes, dataNode{typ: Object})
		return Value{d, 0}, nil
	}
	if _, err := r.value(nil, 0); err != nil {
		return Value{}, err
	}
	if r.peek(); r.pos != len(json) {
		return Value{}, errSyntax
	}
	return Value{d, 0}, nil
}

type dataReader struct {
	d   *Data
	src []byte
	pos int
}

// peek is the next octet that is no white space, 0 at the end.
func (r *dataReader) peek() byte {
	for r.pos < len(r.src) {
		switch c := r.src[r.pos]; c {
		case ' ', '\t', '\r', '\n':
			r.pos++
		default:
			return c
		}
	}
	return 0
}

func (r *dataReader) value(key []byte, depth int) (int32, error) {
	if depth > maxDataDepth {
		return 0, errDepth
	}
	at := int32(len(r.d.nodes))
	r.d.nodes = append(r.d.nodes, dataNode{key: key})
	var err error
	n := dataNode{key: key}
	switch c := r.peek(); c {
	case '{', '[':
		n.typ = List
		if c == '{' {
			n.typ = Object
		}
		r.pos++
		n.child, err = r.members(n.typ, depth+1)
	case '"':
		n.typ = String
		n.text, err = r.string()
	case 't':
		n.typ = True
		n.text, err = r.word("true")
	case 'f':
		n.typ = False
		n.text, err = r.word("false")
	case 'n':
		n.typ = Null
		_, err = r.word("null")
	default:
		n.typ = Number
		n.text, err = r.number()
	}
	r.d.nodes[at] = n
	return at, err
}

// members reads what is in a list or an object, up to its end.
func (r *dataReader) members(typ Type, depth int) (first int32, err error) {
	end := byte(']')
	if typ == Object {
		end = '}'
	}
	if r.peek() == end {
		r.pos++
		return 0, nil
	}
	var last int32
	for {
		var key []byte
		if typ == Object {
			if r.peek() != '"' {
				return 0, errSyntax
			}
			if key, err = r.string(); err != nil {
				return 0, err
			}
			if r.peek() != ':' {
				return 0, errSyntax
			}
			r.pos++
		}
		at, err := r.value(key, depth)
		if err != nil {
			return 0, err
		}
		if first == 0 {
			first = at
		} else {
			r.d.nodes[last].next = at
		}
		last = at
		switch r.peek() {
		case ',':
			r.pos++
		case end:
			r.pos++
			return first, nil
		default:
			return 0, errSyntax
		}
	}
}

func (r *dataReader) word(w string) ([]byte, error) {
	if len(r.src)-r.pos < len(w) || string(r.src[r.pos:r.pos+len(w)]) != w {
		return nil, errSyntax
	}
	r.pos += len(w)
	return r.src[r.pos-len(w) : r.pos], nil
}

// number keeps a number as it is written.
func (r *dataReader) number() ([]byte, error) {
	start := r.pos
	digits := func() bool {
		from := r.pos
		for r.pos < len(r.src) && '0' <= r.src[r.pos] && r.src[r.pos] <= '9' {
			r.pos++
		}
		return r.pos > from
	}
	is := func(set string) bool {
		for i := range len(set) {
			if r.pos < len(r.src) && r.src[r.pos] == set[i] {
				r.pos++
				return true
			}
		}
		return false
	}
	is("-")
	if from := r.pos; !digits() || r.src[from] == '0' && r.pos > from+1 {
		return nil, errSyntax
	}
	if is(".") && !digits() {
		return nil, errSyntax
	}
	if is("eE") {
		is("+-")
		if !digits() {
			return nil, errSyntax
		}
	}
	return r.src[start:r.pos], nil
}

// string reads a string; without escapes it is a part of what was read.
func (r *dataReader) string() ([]byte, error) {
	r.pos++
	start := r.pos
	for ; r.pos < len(r.src); r.pos++ {
		switch c := r.src[r.pos]; {
		case c == '"':
			r.pos++
			return r.src[start : r.pos-1], nil
		case c == '\\':
			return r.escaped(start)
		case c < ' ':
			return nil, errSyntax
		}
	}
	return nil, errSyntax
}

func (r *dataReader) escaped(start int) ([]byte, error) {
	from := len(r.d.text)
	r.d.text = append(r.d.text, r.src[start:r.pos]...)
	for r.pos < len(r.src) {
		c := r.src[r.pos]
		r.pos++
		switch {
		case c == '"':
			return r.d.text[from:len(r.d.text):len(r.d.text)], nil
		case c < ' ':
			return nil, errSyntax
		case c != '\\':
			r.d.text = append(r.d.text, c)
			continue
		}
		if r.pos == len(r.src) {
			break
		}
		c = r.src[r.pos]
		r.pos++
		switch c {
		case '"', '\\', '/':
			r.d.text = append(r.d.text, c)
		case 'b':
			r.d.text = append(r.d.text, '\b')
		case 'f':
			r.d.text = append(r.d.text, '\f')
		case 'n':
			r.d.text = append(r.d.text, '\n')
		case 'r':
			r.d.text = append(r.d.text, '\r')
		case 't':
			r.d.text = append(r.d.text, '\t')
		case 'u':
			char, ok := r.char()
			if !ok {
				return nil, errSyntax
			}
			r.d.text = utf8.AppendRune(r.d.text, char)
		default:
			return nil, errSyntax
		}
	}
	return nil, errSyntax
}

// char reads what stands behind \u: a code unit, or two that are one character.
func (r *dataReader) char() (rune, bool) {
	char, ok := r.codeUnit()
	if !ok || !utf16.IsSurrogate(char) {
		return char, ok
	}
	if !bytes.HasPrefix(r.src[r.pos:], []byte(`\u`)) {
		return 0, false
	}
	r.pos += 2
	low, ok := r.codeUnit()
	char = utf16.DecodeRune(char, low)
	return char, ok && char != utf8.RuneError
}

func (r *dataReader) codeUnit() (rune, bool) {
	if len(r.src)-r.pos < 4 {
		return 0, false
	}
	var v rune
	for _, c := range r.src[r.pos : r.pos+4] {
		switch {
		case '0' <= c && c <= '9':
			c -= '0'
		case 'a' <= c && c <= 'f':
			c -= 'a' - 10
		case 'A' <= c && c <= 'F':
			c -= 'A' - 10
		default:
			return 0, false
		}
		v = v<<4 | rune(c)
	}
	r.pos += 4
	return v, true
}

func (v Value) node() *dataNode { return &v.data.nodes[v.at] }

// Type is the value's type.
func (v Value) Type() Type {
	if v.data == nil {
		return Missing
	}
	return v.node().typ
}

// Text is a string, number or boolean as it is written in a letter.
func (v Value) Text() []byte { return v.node().text }

// Get is the member of an object with the name.
func (v Value) Get(name string) Value {
	if v.Type() != Object {
		return Value{}
	}
	found := Value{}
	for at := v.node().child; at != 0; at = v.data.nodes[at].next {
		if string(v.data.nodes[at].key) == name {
			found = Value{v.data, at}
		}
	}
	return found
}

func (v Value) first() Value {
	if at := v.node().child; at != 0 {
		return Value{v.data, at}
	}
	return Value{}
}

func (v Value) next() Value {
	if at := v.node().next; at != 0 {
		return Value{v.data, at}
	}
	return Value{}
}

// truthy tells whether a section of it is written.
func (v Value) truthy() bool {
	switch v.Type() {
	case Missing, Null, False:
		return false
	case String:
		return len(v.node().text) > 0
	case Number:
		// Zero has no digit but 0 before its exponent.
		for _, c := range v.node().text {
			if c == 'e' || c == 'E' {
				break
			}
			if '1' <= c && c <= '9' {
				return true
			}
		}
		return false
	case List:
		return v.node().child != 0
	}
	return true
}
