package envelope

import (
	"errors"
	"fmt"
	"math/bits"
	"strconv"
	"strings"
	"unicode/utf16"
	"unicode/utf8"
)

// Decode reads a batch from its JSON. It is strict, because a batch that is
// guessed at is sent to many people: one object and nothing after it, fields
// in any order, no unknown field, no field twice, no null. What is not UTF-8
// is refused as well, where encoding/json would put U+FFFD in its place and
// so write to another mailbox or change the message.
//
// The error is a *[FieldError]; or a *[VersionError] if the batch is of a version
// above [Version], where no more is certain than that it is a JSON object. The batch shares no memory with data; its
// strings share one copy of it.
func Decode(data []byte) (*Batch, error) {
	d := decoder{text: string(data)}
	b := new(Batch)
	err := d.batch(b)
	if err != nil {
		// What looks wrong may be right in the version that the batch is of.
		if version := versionOf(d.text); version > Version {
			err = &VersionError{version}
		}
		return nil, err
	}
	return b, nil
}

// The fields of a batch, as a set.
const (
	fieldID = 1 << iota
	fieldFrom
	fieldRecipients
	fieldMessage
	fieldMessageRef
	fieldDSNEnvelopeID
	fieldDSNReturn
	fieldDSNNotify
	fieldVersion
	fieldData
)

// decoder reads by hand, as every recipient of every batch comes through here:
// BenchmarkDecode compares it with encoding/json. Allocations do not grow with
// the recipients.
type decoder struct {
	text string
	pos  int
}

func (d *decoder) batch(b *Batch) error {
	if d.next() != '{' {
		if len(d.text) == d.pos {
			return &FieldError{"batch", "empty: a batch is a JSON object"}
		}
		return &FieldError{"batch", "not a JSON object"}
	}
	d.pos++
	seen := 0
	for more := d.next() != '}'; more; {
		if d.next() != '"' {
			return d.broken("batch", "a field name belongs here")
		}
		name, err := d.string("batch")
		if err != nil {
			return err
		}
		if d.next() != ':' {
			return d.broken("batch", "a colon belongs after a field name")
		}
		d.pos++
		field, err := d.field(b, name)
		if err != nil {
			return err
		}
		if seen&field != 0 {
			return &FieldError{name, "given twice"}
		}
		seen |= field
		switch d.next() {
		case ',':
			d.pos++
		case '}':
			more = false
		default:
			return d.broken("batch", "a comma or } belongs after a value")
		}
	}
	d.pos++
	if d.next(); d.pos < len(d.text) {
		return d.broken("batch", "a batch is one JSON object with nothing after it")
	}
	return b.check(seen)
}

// field reads the value of one field into b.
func (d *decoder) field(b *Batch, name string) (field int, err error) {
	switch name {
	case "id":
		b.ID, err = d.stringValue("id")
		return fieldID, err
	case "from":
		b.From, err = d.stringValue("from")
		return fieldFrom, err
	case "recipients":
		b.Recipients, err = d.recipients()
		return fieldRecipients, err
	case "message":
		b.Message, err = d.stringValue("message")
		return fieldMessage, err
	case "message_ref":
		b.MessageRef, err = d.stringValue("message_ref")
		return fieldMessageRef, err
	case "version":
		b.Version, err = d.version()
		return fieldVersion, err
	case "data":
		b.Data, err = d.object("data")
		return fieldData, err
	case "dsn_envid":
		b.DSN.EnvelopeID, err = d.stringValue(name)
		return fieldDSNEnvelopeID, err
	case "dsn_return":
		b.DSN.Return, err = d.stringValue(name)
		return fieldDSNReturn, err
	case "dsn_notify":
		b.DSN.Notify, err = d.stringValue(name)
		return fieldDSNNotify, err
	}
	return 0, &FieldError{quoted(name), "unknown field: a batch has id, from, recipients and message or message_ref"}
}

// check looks at what can only be judged when the whole batch is known, and
// brings the sender into the form of MAIL FROM.
func (b *Batch) check(seen int) error {
	switch {
	case seen&fieldVersion == 0:
		b.Version = 1
	case b.Version > Version:
		return &VersionError{b.Version}
	}
	if !validID(b.ID) {
		return &FieldError{"id", quoted(b.ID) + " is not 1 to 64 letters, digits, _ or -"}
	}
	if seen&fieldFrom == 0 {
		return &FieldError{"from", `missing: give the sender's address, or "" for the null sender`}
	}
	from, err := ParseSender(b.From)
	if err != nil {
		return &FieldError{"from", err.Error()}
	}
	b.From = from
	if seen&fieldRecipients == 0 {
		return &FieldError{"recipients", "missing"}
	}
	if len(b.Recipients) == 0 {
		return &FieldError{"recipients", "the list is empty"}
	}
	if (b.Message == "") == (b.MessageRef == "") {
		return &FieldError{"message, message_ref", "give exactly one of the two"}
	}
	if len(b.Data) > DataBytes {
		return tooMuchData(b.Data)
	}
	return b.DSN.check()
}

func validID(id string) bool {
	for _, c := range []byte(id) {
		if classes[c]&(lower|upper|digit|hyphen) == 0 && c != '_' {
			return false
		}
	}
	return len(id) <= 64
}

func (d *decoder) recipients() ([]Recipient, error) {
	if d.next() != '[' {
		return nil, d.mistyped("recipients", "a list of addresses")
	}
	d.pos++
	if d.next() == ']' {
		d.pos++
		return nil, nil
	}
	// Two quotes a recipient that is a string, and no ] before the end in all
	// but odd lists: one allocation, of the right size. Objects have more.
	rest := d.text[d.pos:]
	if i := strings.IndexByte(rest, ']'); i >= 0 {
		rest = rest[:i]
	}
	size := max(strings.Count(rest, `"`)/2, 1)
	if d.next() == '{' {
		size = 64
	}
	list := make([]Recipient, size) // filled in place: no recipient is copied
	var letters []Letter
	for n := 0; ; n++ {
		if n == len(list) {
			list = append(list, Recipient{})
			list = list[:cap(list)]
		}
		r := &list[n]
		var err error
		switch d.next() {
		case '"':
			r.Address, err = d.string("")
		case '{':
			if len(letters) == cap(letters) {
				letters = make([]Letter, 0, 64) // what was made before stays where it is
			}
			letters = append(letters, Letter{})
			r.Letter = &letters[len(letters)-1]
			r.Address, err = d.letter(r.Letter)
		default:
			err = d.mistyped("", "a string or an object")
		}
		if err != nil {
			if e, ok := errors.AsType[*FieldError](err); ok {
				e.Field = "recipients[" + strconv.Itoa(n) + "]" + e.Field
			}
			return nil, err
		}
		switch d.next() {
		case ',':
			d.pos++
		case ']':
			d.pos++
			return list[:n+1], nil
		default:
			return nil, d.broken("recipients", "a comma or ] belongs after a recipient")
		}
	}
}

// next skips white space and returns the octet there, 0 at the end.
func (d *decoder) next() byte {
	for ; d.pos < len(d.text); d.pos++ {
		switch c := d.text[d.pos]; c {
		case ' ', '\t', '\r', '\n':
		default:
			return c
		}
	}
	return 0
}

func (d *decoder) stringValue(field string) (string, error) {
	if d.next() != '"' {
		return "", d.mistyped(field, "a string")
	}
	return d.string(field)
}

// string reads the string whose opening quote is at pos.
func (d *decoder) string(field string) (string, error) {
	start := d.pos + 1
	ascii := true
	i := plainEnd(d.text, start)
	for i < len(d.text) && d.text[i] >= utf8.RuneSelf {
		ascii = false
		i = plainEnd(d.text, i+1)
	}
	if i < len(d.text) && d.text[i] == '\\' {
		return d.escaped(field, start, i)
	}
	d.pos = i
	if i == len(d.text) {
		return "", d.broken(field, "the string does not end")
	}
	if d.text[i] != '"' {
		return "", d.broken(field, "a control character in a string has to be escaped")
	}
	s := d.text[start:i]
	if !ascii && !utf8.ValidString(s) {
		return "", d.notUTF8(field, start)
	}
	d.pos++
	return s, nil
}

// escaped reads the rest of a string that begins at start and has its first
// escape at i.
func (d *decoder) escaped(field string, start, i int) (string, error) {
	var b strings.Builder
	b.Grow(closingQuote(d.text, i) - start) // an escape is longer than what it stands for
	from := start
	for {
		i = plainEnd(d.text, i)
		if i < len(d.text) && d.text[i] >= utf8.RuneSelf {
			i++
			continue
		}
		b.WriteString(d.text[from:i])
		d.pos = i
		switch {
		case i == len(d.text):
			return "", d.broken(field, "the string does not end")
		case d.text[i] == '"':
			s := b.String()
			if !utf8.ValidString(s) {
				return "", d.notUTF8(field, start)
			}
			d.pos++
			return s, nil
		case d.text[i] == '\\':
			r, n := unescape(d.text[i:])
			if n == 0 {
				return "", d.broken(field, notAnEscape)
			}
			b.WriteRune(r)
			i += n
			from = i
		default:
			return "", d.broken(field, "a control character in a string has to be escaped")
		}
	}
}

// unescape reads the escape at the beginning of s; n is its length, 0 if it
// is none.
func unescape(s string) (r rune, n int) {
	if len(s) < 2 {
		return 0, 0
	}
	switch s[1] {
	case '"', '\\', '/':
		return rune(s[1]), 2
	case 'b':
		return '\b', 2
	case 'f':
		return '\f', 2
	case 'n':
		return '\n', 2
	case 'r':
		return '\r', 2
	case 't':
		return '\t', 2
	case 'u':
		r, ok := hex4(s)
		if !ok {
			return 0, 0
		}
		if !utf16.IsSurrogate(r) {
			return r, 6
		}
		low, ok := hex4(s[6:])
		if r = utf16.DecodeRune(r, low); !ok || r == utf8.RuneError {
			return 0, 0
		}
		return r, 12
	}
	return 0, 0
}

// hex4 reads \uXXXX at the beginning of s.
func hex4(s string) (rune, bool) {
	if len(s) < 6 || s[:2] != `\u` {
		return 0, false
	}
	n, err := strconv.ParseUint(s[2:6], 16, 16)
	return rune(n), err == nil
}

// closingQuote finds the quote that ends the string around i, or the end.
func closingQuote(s string, i int) int {
	for ; i < len(s) && s[i] != '"'; i++ {
		if s[i] == '\\' {
			i++
		}
	}
	return min(i, len(s))
}

// plainEnd finds, from i on, the first octet of s that is a quote, a
// backslash, a control character or not ASCII; len(s) if there is none. It
// looks at eight octets at once.
func plainEnd(s string, i int) int {
	const (
		ones = 0x0101010101010101
		tops = 0x8080808080808080
	)
	for ; i+8 <= len(s); i += 8 {
		w := s[i : i+8] // the compiler makes one load of these eight
		v := uint64(w[0]) | uint64(w[1])<<8 | uint64(w[2])<<16 | uint64(w[3])<<24 |
			uint64(w[4])<<32 | uint64(w[5])<<40 | uint64(w[6])<<48 | uint64(w[7])<<56
		quote, slash := v^ones*'"', v^ones*'\\'
		// A borrow may mark an octet above a true one, never below: the
		// lowest mark is right.
		marks := ((v-ones*0x20)&^v | (quote-ones)&^quote | (slash-ones)&^slash | v) & tops
		if marks != 0 {
			return i + bits.TrailingZeros64(marks)/8
		}
	}
	for ; i < len(s); i++ {
		if c := s[i]; c < 0x20 || c >= utf8.RuneSelf || c == '"' || c == '\\' {
			break
		}
	}
	return i
}

// notAnEscape is what is wrong with a backslash.
const notAnEscape = "not an escape of JSON, or half of a surrogate pair"

func (d *decoder) broken(field, reason string) error {
	return &FieldError{field, fmt.Sprintf("broken JSON at offset %d: %s", d.pos, reason)}
}

func (d *decoder) notUTF8(field string, start int) error {
	i := start
	for i < len(d.text) {
		r, n := utf8.DecodeRuneInString(d.text[i:])
		if r == utf8.RuneError && n == 1 {
			break
		}
		i += n
	}
	return &FieldError{field, fmt.Sprintf("not UTF-8 at offset %d: encode it as MIME does, or send the message by message_ref", i)}
}

// mistyped tells a value of another type from no value at all.
func (d *decoder) mistyped(field, want string) error {
	switch c := d.next(); {
	case c == '"', c == '{', c == '[', c == '-', c == 't', c == 'f', c == 'n', '0' <= c && c <= '9':
		return &FieldError{field, "not " + want}
	}
	return d.broken(field, want+" belongs here")
}

// quoted makes what a stranger wrote safe to print, and short.
func quoted(s string) string {
	const most = 128
	if len(s) > most {
		return strconv.Quote(s[:most]) + "…"
	}
	return strconv.Quote(s)
}
