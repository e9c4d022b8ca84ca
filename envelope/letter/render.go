package letter

import (
	"bytes"
	"errors"
	"fmt"

	"bulkmail/envelope/keys"
	"bulkmail/envelope/mustache"
)

// A Renderer makes letters, one after the other. It keeps its memory for the
// next one, and so serves one goroutine. The zero value is ready.
type Renderer struct {
	template *Template
	batch    *Batch
	to       *Recipient
	sevenBit bool // the relay takes no 8-bit octets

	batchData     mustache.Data
	batchValue    mustache.Value
	recipientData mustache.Data
	ownJSON       []byte
	context       mustache.Context
	maker         *keys.Maker

	messageID      []byte // without < >
	unsubscribeURL []byte

	chosen  []int // of each part: its variant
	writer  addressWriter
	out     []byte // the letter
	scratch []byte // the text of a field, or a text that becomes base64
	value   []byte
	coded   []byte

	// Of the text that is being written.
	part    *part
	field   *field
	variant *variant
	quoted  quotedWriter
	col     int

	stuffed  int
	eightBit bool
	utf8     bool
	domain   string
}

// Why a part is written in another way.
var (
	errCharset = errors.New("a character that the charset lacks")
	errEncode  = errors.New("8-bit octets or a line over 998")
)

// Render makes the letter of a recipient. sevenBit makes it for a relay without
// 8BITMIME. The error is a *[RejectError] if it is the recipient's; anything else
// is wrong with the batch.
func (r *Renderer) Render(t *Template, b *Batch, to *Recipient, sevenBit bool) (Letter, error) {
	if err := r.begin(t, b, to, sevenBit); err != nil {
		return Letter{}, err
	}
	// Few letters take a second round: those whose values do not go into the
	// text as the message has it.
	for {
		err := r.write()
		if err == nil {
			break
		}
		if next := r.otherwise(err); next >= 0 {
			r.chosen[r.part.index] = next
			continue
		}
		return Letter{}, r.reject(err)
	}
	return Letter{
		Wire: r.out, Size: int64(len(r.out) - r.stuffed), EightBit: r.eightBit, UTF8: r.utf8, Domain: r.domain,
	}, nil
}

// otherwise is the variant of the part that copes with what is wrong, or -1.
func (r *Renderer) otherwise(err error) int {
	if r.part == nil {
		return -1
	}
	v := r.part.variants[r.chosen[r.part.index]]
	switch {
	case errors.Is(err, errCharset):
		return v.onCharset
	case errors.Is(err, errEncode):
		return v.onEncode
	}
	return -1
}

func (r *Renderer) reject(err error) error {
	if errors.Is(err, errCharset) {
		return &RejectError{"a value is not ASCII, and the charset of the text it goes into is unknown: say charset=utf-8"}
	}
	if _, ok := errors.AsType[*RejectError](err); ok {
		return err
	}
	return &RejectError{err.Error()}
}

func (r *Renderer) begin(t *Template, b *Batch, to *Recipient, sevenBit bool) error {
	var err error
	if r.batch != b {
		if r.batchValue, err = r.batchData.Read([]byte(b.Data)); err != nil {
			return fmt.Errorf("data of the batch: %w", err)
		}
		if b.Key != nil && (r.maker == nil || r.maker.Key() != b.Key) {
			r.maker = b.Key.Maker()
		}
		r.batch = b
	}
	if len(to.Data) > MaxData {
		return &RejectError{fmt.Sprintf("the data have %d octets, %d is the most", len(to.Data), MaxData)}
	}
	r.ownJSON = append(r.ownJSON[:0], to.Data...)
	own, err := r.recipientData.Read(r.ownJSON)
	if err != nil {
		return &RejectError{"the data are " + err.Error()}
	}
	r.template, r.to, r.sevenBit = t, to, sevenBit
	if r.context.Known == nil {
		r.context.Known = r.known
	}
	r.context.Begin(r.batchValue, own)
	r.identify()
	r.chosen = r.chosen[:0]
	for _, p := range t.parts {
		v := p.first
		if best := p.variants[v]; sevenBit && !p.templated && best.eightBit && best.onEncode >= 0 {
			v = best.onEncode
		}
		r.chosen = append(r.chosen, v)
	}
	return nil
}

// identify makes the Message-ID and the unsubscribe URL.
func (r *Renderer) identify() {
	b := r.batch
	r.messageID, r.unsubscribeURL = r.messageID[:0], r.unsubscribeURL[:0]
	if b.Key == nil {
		return
	}
	domain := r.template.domain
	if domain == "" {
		sender := r.template.options.Sender
		if domain = sender[indexAfterAt(sender):]; domain == "" {
			domain = "localhost"
		}
	}
	r.messageID = r.maker.AppendMessageID(r.messageID, b.Campaign, b.ID, r.to.To)
	r.messageID = append(append(r.messageID, '@'), domain...)
	if b.UnsubscribeURL == "" || r.template.options.Constant {
		return
	}
	r.unsubscribeURL = append(r.unsubscribeURL, b.UnsubscribeURL...)
	if b.UnsubscribeURL[len(b.UnsubscribeURL)-1] != '/' {
		r.unsubscribeURL = append(r.unsubscribeURL, '/')
	}
	r.unsubscribeURL = r.maker.AppendToken(r.unsubscribeURL, keys.Subscription{Campaign: b.Campaign, List: b.List, Mailbox: r.to.To})
}

func indexAfterAt(s string) int {
	for i := len(s) - 1; i >= 0; i-- {
		if s[i] == '@' {
			return i + 1
		}
	}
	return len(s)
}

// known is what a letter knows without data.
func (r *Renderer) known(name string) ([]byte, bool) {
	text := r.coded[:0]
	switch name {
	case knownTo:
		text = append(text, r.to.To...)
	case knownName:
		text = append(text, r.to.Name...)
	case knownCampaign:
		text = append(text, r.batch.Campaign...)
	case knownMessageID:
		text = append(text, r.messageID...)
	case knownUnsubscribeURL:
		text = append(text, r.unsubscribeURL...)
	}
	r.coded = text
	return text, len(text) > 0
}

// write writes the whole letter.
func (r *Renderer) write() error {
	if r.out = r.out[:0]; cap(r.out) < r.template.common {
		r.out = make([]byte, 0, r.template.common+r.template.common/64+1<<10)
	}
	r.stuffed, r.eightBit, r.utf8 = 0, false, false
	r.domain = r.template.domain
	for i := range r.template.segments {
		s := &r.template.segments[i]
		var err error
		switch {
		case s.field != nil:
			err = r.writeField(s.field)
		case s.part != nil:
			err = r.writePiece(s)
		case s.added:
			r.writeAdded()
		default:
			r.out = append(r.out, s.wire...)
			r.stuffed += s.stuffed
			r.eightBit = r.eightBit || s.eightBit
			r.utf8 = r.utf8 || s.utf8
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func (r *Renderer) writeField(f *field) error {
	r.scratch = r.scratch[:0]
	r.field, r.part = f, nil
	if err := r.context.Execute(f.nodes, r); err != nil {
		return err
	}
	before := len(r.out)
	out, err := f.write(&r.writer, r.out, r.scratch)
	if err != nil {
		return err
	}
	r.out = out
	if f.syntax == addresses {
		r.utf8 = r.utf8 || r.writer.utf8
		if r.domain == "" && len(f.name) == len("From") && f.name[0]|0x20 == 'f' {
			r.domain = r.writer.domain
		}
	} else if !isASCII(r.out[before:]) {
		r.utf8 = true
	}
	return nil
}

func (r *Renderer) writePiece(s *segment) error {
	v := s.part.variants[r.chosen[s.part.index]]
	switch s.piece {
	case pieceType:
		r.out = append(r.out, v.typeField...)
		return nil
	case pieceEncoding:
		r.out = append(r.out, v.encodingField...)
		return nil
	}
	if !s.part.templated {
		r.out = append(r.out, v.wire...)
		r.stuffed += v.stuffed
		r.eightBit = r.eightBit || v.eightBit
		return nil
	}
	r.field, r.part, r.variant = nil, s.part, v
	switch v.encoding {
	case quotedPrintable:
		r.quoted = quotedWriter{dst: r.out}
		err := r.context.Execute(s.part.nodes, r)
		r.quoted.end()
		r.out = r.quoted.dst
		return err
	case base64Encoding:
		r.scratch = r.scratch[:0]
		err := r.context.Execute(s.part.nodes, r)
		r.out = appendBase64(r.out, r.scratch)
		return err
	}
	r.col = 0
	return r.context.Execute(s.part.nodes, r)
}

// Literal copies what is constant. It makes Renderer a [mustache.Sink].
func (r *Renderer) Literal(n *mustache.Node) error {
	if r.field != nil {
		r.scratch = append(r.scratch, n.Text...)
		return nil
	}
	l := &r.variant.literals[n.Index]
	switch r.variant.encoding {
	case quotedPrintable:
		r.quoted.literal(l)
		return nil
	case base64Encoding:
		r.scratch = append(r.scratch, l.wire...)
		return nil
	}
	if r.col+l.first > maxLine || l.eightBit && r.sevenBit {
		return errEncode
	}
	if l.firstDot && r.col == 0 {
		r.out = append(r.out, '.')
		r.stuffed++
	}
	r.out = append(r.out, l.wire...)
	r.stuffed += l.stuffed
	r.eightBit = r.eightBit || l.eightBit
	if l.breaks {
		r.col = l.last
	} else {
		r.col += l.last
	}
	return nil
}

// Value writes what the data say. It makes Renderer a [mustache.Sink].
func (r *Renderer) Value(n *mustache.Node, text []byte) error {
	if r.field != nil {
		var err error
		r.scratch, err = r.field.appendValue(r.scratch, n, text)
		return err
	}
	if bytes.IndexByte(text, 0) >= 0 {
		return &RejectError{"{{" + n.Name + "}} has a NUL"}
	}
	r.value = r.value[:0]
	switch {
	case r.part.html && n.Raw:
		r.value = append(r.value, text...)
	case r.part.places[n.Index] == inURL:
		r.value = appendPercent(r.value, text)
	case r.part.html:
		r.value = appendHTML(r.value, text)
	default:
		r.value = append(r.value, text...)
	}
	if bytes.IndexByte(r.value, '\r') >= 0 {
		r.value = unixLines(r.value)
	}
	text = r.value
	if c := r.variant.charset; c.table != nil || c.ascii {
		var ok bool
		if r.coded, ok = c.append(r.coded[:0], r.value); !ok {
			return errCharset
		}
		text = r.coded
	}
	switch r.variant.encoding {
	case quotedPrintable:
		r.quoted.octets(text)
		return nil
	case base64Encoding:
		r.appendLines(text)
		return nil
	}
	return r.plainValue(text)
}

// appendLines appends text to what becomes base64, with CRLF.
func (r *Renderer) appendLines(text []byte) {
	for {
		line, rest, ok := bytes.Cut(text, []byte("\n"))
		r.scratch = append(r.scratch, line...)
		if !ok {
			return
		}
		r.scratch = append(r.scratch, '\r', '\n')
		text = rest
	}
}

// plainValue writes a value in 7bit or 8bit.
func (r *Renderer) plainValue(text []byte) error {
	if !isASCII(text) {
		if r.sevenBit || !r.variant.eightBit {
			return errEncode
		}
		r.eightBit = true
	}
	for {
		line, rest, ok := bytes.Cut(text, []byte("\n"))
		if len(line) > 0 && r.col == 0 && line[0] == '.' {
			r.out = append(r.out, '.')
			r.stuffed++
		}
		r.out = append(r.out, line...)
		if r.col += len(line); r.col > maxLine {
			return errEncode
		}
		if !ok {
			return nil
		}
		r.out = append(r.out, '\r', '\n')
		r.col = 0
		text = rest
	}
}

// unixLines makes CRLF and CR to LF, in place.
func unixLines(text []byte) []byte {
	to := 0
	for i, c := range text {
		if c == '\r' {
			if i+1 < len(text) && text[i+1] == '\n' {
				continue
			}
			c = '\n'
		}
		text[to] = c
		to++
	}
	return text[:to]
}
