package list

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"bulkmail/envelope/escape"
)

// A shape is how the cells of a row become entries.
type shape struct {
	layout
	data     bool
	keys     []string // of the columns, as JSON; "" for one that is no variable
	names    []int
	outcomes bool // what `bulkmail outcomes` printed, with cells made safe

	found   []mailbox
	entries []Entry
}

func newShape(at layout, o Options) shape {
	s := shape{layout: at, data: o.Data, names: nameColumns(at.header)}
	s.outcomes = len(at.header) > 3 && slices.Equal(at.header[:4], []string{"campaign", "batch", "recipient", "status"})
	for i, h := range at.header {
		key := ""
		if h != "" && !slices.Contains(at.header[:i], h) {
			quoted, _ := json.Marshal(h)
			key = string(quoted)
		}
		s.keys = append(s.keys, key)
	}
	return s
}

// of is the entries of one cell of addresses, of which cells, if there are any,
// is the row.
func (s *shape) of(line int, cell string, cells [][]byte) ([]Entry, error) {
	s.entries = s.entries[:0]
	if s.outcomes {
		cell = escape.CellText(cell)
	}
	var reason string
	if s.found, reason = mailboxes(s.found[:0], cell); reason != "" {
		s.entries = append(s.entries, unusable(line, cell, reason))
		return s.entries, nil
	}
	for _, m := range s.found {
		e := Entry{Line: line, To: m.to, Name: m.name}
		if e.Name == "" {
			e.Name = s.name(cells)
		}
		if s.data && s.header != nil {
			if e.Data = s.object(m.to, cells); len(e.Data) > maxData {
				return nil, tooMuch(line)
			}
		}
		s.entries = append(s.entries, e)
	}
	return s.entries, nil
}

func (s *shape) name(cells [][]byte) string {
	name := ""
	for _, i := range s.names {
		if i < len(cells) && i != s.column {
			name = trim(name + " " + trim(string(cells[i])))
		}
	}
	return name
}

// object is a row as JSON. A cell that is not there is an empty one.
func (s *shape) object(address string, cells [][]byte) json.RawMessage {
	var b bytes.Buffer
	encode := json.NewEncoder(&b)
	encode.SetEscapeHTML(false)
	b.WriteByte('{')
	for i, key := range s.keys {
		if key == "" {
			continue
		}
		if b.Len() > 1 {
			b.WriteByte(',')
		}
		b.WriteString(key)
		b.WriteByte(':')
		value := address
		if i != s.column {
			value = ""
			if i < len(cells) {
				value = trim(string(cells[i]))
			}
		}
		_ = encode.Encode(value) // a string can be encoded
		b.Truncate(b.Len() - len("\n"))
	}
	b.WriteByte('}')
	return bytes.Clone(b.Bytes())
}

func tooMuch(line int) error {
	return &Error{Line: line, Reason: fmt.Sprintf("the data of one recipient is more than %d KB: leave out columns that the message does not use", maxData>>10)}
}

// textRows reads addresses in lines of text.
type textRows struct {
	lines *lines
	shape
}

func (t *textRows) row() ([]Entry, bool, error) {
	line, err := t.lines.next()
	if err != nil {
		return nil, false, err
	}
	text := trim(string(line))
	if t.lines.line <= t.after || text == "" || text[0] == '#' || t.repeated(text) {
		return nil, false, nil
	}
	entries, err := t.of(t.lines.line, text, nil)
	return entries, false, err
}

// tableRows reads CSV and its relatives.
type tableRows struct {
	lines *lines
	shape
	text  []byte
	cells [][]byte
}

func (t *tableRows) row() ([]Entry, bool, error) {
	line, err := t.read()
	if err != nil {
		return nil, false, err
	}
	if line <= t.after || len(bytes.TrimSpace(t.text)) == 0 {
		return nil, false, nil
	}
	comment := t.text[0] == '#'
	if t.cells, err = split(t.cells[:0], t.text, t.comma, line); err != nil {
		return nil, false, err
	}
	cell := ""
	if t.column < len(t.cells) {
		cell = trim(string(t.cells[t.column]))
	}
	switch {
	case comment && (t.column == 0 || !strings.Contains(cell, "@")), t.repeated(cell):
		return nil, false, nil
	case cell == "":
		return nil, true, nil
	}
	entries, err := t.of(line, cell, t.cells)
	return entries, false, err
}

// repeated tells whether a cell is that of the header, as where lists were put
// together.
func (s *shape) repeated(cell string) bool {
	return s.column < len(s.header) && cell == s.header[s.column]
}

// read brings the next row into t.text, and returns the line in which it
// begins.
func (t *tableRows) read() (int, error) {
	t.text = t.text[:0]
	begins, open := 0, false
	for {
		line, err := t.lines.next()
		if errors.Is(err, io.EOF) && open {
			return 0, neverClosed(begins)
		}
		if err != nil {
			return 0, err
		}
		if begins == 0 {
			begins = t.lines.line
		} else {
			t.text = append(t.text, '\n')
		}
		if len(t.text)+len(line) > maxRow {
			return 0, neverClosed(begins)
		}
		t.text = append(t.text, line...)
		if open = staysOpen(line, t.comma, open); !open {
			return begins, nil
		}
	}
}

func neverClosed(line int) error {
	return &Error{Line: line, Reason: `a cell that begins with a quote here is never closed: put " at its end, or take off the one at its beginning`}
}

// staysOpen tells whether a quoted cell goes on after the line. Only a quote at
// the beginning of a cell opens one.
func staysOpen(line []byte, comma byte, open bool) bool {
	for i := 0; ; {
		if !open {
			if i += blanks(line[i:], comma); i < len(line) && line[i] == '"' {
				open = true
				i++
			}
		}
		for open {
			quote := bytes.IndexByte(line[i:], '"')
			if quote < 0 {
				return true
			}
			if i += quote + 1; i < len(line) && line[i] == '"' {
				i++
				continue
			}
			open = false
		}
		next := bytes.IndexByte(line[i:], comma)
		if next < 0 {
			return false
		}
		i += next + 1
	}
}

// split appends the cells of a row. A cell that goes on after
// its closing quote is taken as it stands, quotes and all: an address may be
// "ann b"@example.net, and many programs write text as it comes. But not over
// several lines: there a quote too many has swallowed rows.
func split(dst [][]byte, row []byte, comma byte, line int) ([][]byte, error) {
	for {
		begin := blanks(row, comma)
		end := 0 // of what is behind us
		cell, quoted := []byte(nil), false
		if begin < len(row) && row[begin] == '"' {
			last, doubled := closing(row, begin+1)
			if last < 0 {
				return dst, neverClosed(line)
			}
			end = last + 1 + blanks(row[last+1:], comma)
			switch {
			case end == len(row) || row[end] == comma:
				quoted = true
				cell = row[begin+1 : last]
				if doubled {
					cell = bytes.ReplaceAll(cell, []byte(`""`), []byte(`"`))
				}
			case bytes.IndexByte(row[begin:last], '\n') >= 0:
				return dst, &Error{Line: line, Reason: "there is text after the closing quote of a cell that begins here and goes over several lines: a quote is missing or too many"}
			}
		}
		next := bytes.IndexByte(row[end:], comma)
		if next < 0 {
			next = len(row) - end
		}
		if next += end; !quoted {
			cell = row[:next]
		}
		dst = append(dst, cell)
		if next == len(row) {
			return dst, nil
		}
		row = row[next+1:]
	}
}

// closing is where the quoted cell that begins at i ends, and whether there are
// doubled quotes in it.
func closing(row []byte, i int) (end int, doubled bool) {
	for {
		quote := bytes.IndexByte(row[i:], '"')
		if quote < 0 {
			return -1, doubled
		}
		if i += quote; i+1 == len(row) || row[i+1] != '"' {
			return i, doubled
		}
		doubled = true
		i += 2
	}
}

// blanks is how many blanks row begins with.
func blanks(row []byte, comma byte) int {
	n := 0
	for n < len(row) && (row[n] == ' ' || row[n] == '\t' && comma != '\t') {
		n++
	}
	return n
}
