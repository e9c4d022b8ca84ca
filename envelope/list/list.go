// Package list reads lists of recipients as people have them, one entry at a
// time, whatever their length.
//
// # What is read
//
// Text, one address a line, as written or as mail programs write it:
//
//	ann@example.net
//	Ann Lee <ann@example.net>
//	"Lee, Ann" <ann@example.net>; bob@example.org
//	# a comment, as is every line that begins with #
//
// A line with several addresses holds only addresses, else it is one unusable
// line: "ann,lee@example.net" is a slip of the finger, not a letter to Lee.
//
// Tables, as spreadsheets, address books and mailing programs export them:
// columns separated by commas, semicolons, tabs or |, cells in quotes where
// they need them. What separates the columns is found out, or said by a first
// line "sep=;". The column of addresses is found by its name in any of the usual
// languages and spellings ("Email Address", "E-Mail", "Adresse e-mail",
// "recipient"), and by what stands in it: a name whose column holds no address
// loses against one that does. A title above the header may be there, the header
// may be missing. Where two columns would do, nobody guesses: [Options.Column]
// says which. A row whose cell of addresses is empty is nobody's, and counted in
// [List.Blank].
//
// JSON lines, one object a line: a recipient as it stands in a batch,
//
//	{"to": "ann@example.net", "name": "Ann Lee", "data": {"first": "Ann"}}
//
// or flat, where "email" or "to" and "name" are what they say and the rest is
// data:
//
//	{"email": "ann@example.net", "name": "Ann Lee", "first": "Ann"}
//
// What `bulkmail outcomes` prints, as CSV or JSON, is a list as well.
//
// All of this may be compressed by gzip, be UTF-8 or UTF-16, with byte order mark
// or without, and have any line ends. A line that is not UTF-8 is read as
// Windows-1252, of which Latin-1 is a part: that is what spreadsheets in Western
// Europe and America write. Where a mark says that all is UTF-8, what is not
// becomes U+FFFD.
//
// # What is refused
//
// [Open] reads the first hundred lines, and refuses the list if it is something
// else (a workbook, a PDF, a web page, a JSON array, an archive), if none of
// these lines is usable, or if half of them are not. The error is an *[Error],
// names the line and says what to change. Nothing was given out by then, so
// nothing was sent.
//
// Later on, a line that is no address is an entry with [Entry.Err] set: whoever
// publishes it gets it rejected like any address that cannot be sent to, and
// can name it. What makes the rest of a list unreadable, a quote that is never
// closed, a line of over 256 KB, ends the reading with an *[Error].
//
// # Memory
//
// Held are the entries of the first hundred lines, or of the first 256 KB if
// that is less, and one row.
package list

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"iter"
	"strings"
)

const (
	maxRow    = 256 << 10 // octets of a line, or of a row over several lines
	maxData   = 32 << 10  // octets of a recipient's data
	maxText   = 300       // octets shown of a line that is no address
	judged    = 100       // lines after which a list is taken or refused
	judgedFor = 256 << 10 // octets after which it is at the latest
)

// Options say what a list does not say itself. The zero value finds out.
type Options struct {
	// Column is the column of addresses: its name in the header, in any case,
	// or its number from 1. In JSON lines, the name of the key. "" finds it.
	Column string
	// Data asks for the data of each entry, as letters want it.
	Data bool
}

// An Entry is one recipient of a list, or a line that is none.
type Entry struct {
	Line int    // where it begins, from 1
	To   string // the address as written, without name and brackets; UTF-8
	Name string // as written, "" if there is none

	// Data is a JSON object, nil if there is none or it was not asked for. From
	// a table it is every column by its header's name, of columns of the same
	// name the first; an empty cell is the empty string.
	Data json.RawMessage

	// Err is an *[Error] if the line is unusable. To is then what stands there,
	// cut if it is long: text that is no address.
	Err error
}

// An Error is what is wrong with a list, or with one line of it.
type Error struct {
	Line   int    // 0 if no line is to blame
	Reason string // what is wrong, and what to change where that helps
	Err    error  // what reading said, if it was that
}

// Error is one line.
func (e *Error) Error() string {
	if e.Line == 0 {
		return e.Reason
	}
	return fmt.Sprintf("line %d: %s", e.Line, e.Reason)
}

func (e *Error) Unwrap() error { return e.Err }

// A List is a list that was taken.
type List struct {
	rows  rows
	lines *lines
	form  form
	head  []Entry // of the lines that were judged
	end   error   // found while they were
	blank int
}

// rows reads a list row by row. The entries hold until the next call; no
// entries and no error is a row that says nothing. blank is a row of a table
// without an address.
type rows interface {
	row() (entries []Entry, blank bool, err error)
}

// Open finds out what r is and judges its first lines.
func Open(r io.Reader, o Options) (*List, error) {
	l := new(List)
	var err error
	if l.lines, err = openLines(r, &l.form); err != nil {
		return nil, err
	}
	if l.rows, err = l.rowsOf(l.lines.sample(), o); err != nil {
		return nil, err
	}
	if err := l.judge(); err != nil {
		return nil, err
	}
	return l, nil
}

// rowsOf finds the form of a list by its first lines.
func (l *List) rowsOf(sample []string, o Options) (rows, error) {
	switch first := firstOf(sample); {
	case jsonArray(first):
		return nil, &Error{Line: 1, Reason: "a JSON array cannot be read line by line: write one object a line, as jq -c '.[]' does"}
	case strings.HasPrefix(first, "{"):
		l.form.kind = "JSON lines"
		return &jsonRows{lines: l.lines, options: o}, nil
	}
	at, err := detect(sample, o)
	if err != nil {
		return nil, err
	}
	l.form.layout = at
	shape := newShape(at, o)
	if at.comma == 0 {
		l.form.kind = "text"
		return &textRows{lines: l.lines, shape: shape}, nil
	}
	l.form.kind = "CSV"
	return &tableRows{lines: l.lines, shape: shape}, nil
}

// judge reads the first lines, and refuses the list if too many are unusable.
func (l *List) judge() error {
	n, bad := 0, 0
	var first *Error
	for n < judged && l.lines.read < judgedFor {
		entries, err := l.next()
		if err != nil {
			if !errors.Is(err, io.EOF) {
				return err
			}
			l.end = err
			break
		}
		if len(entries) == 0 {
			continue
		}
		n++
		if e, unusable := errors.AsType[*Error](entries[0].Err); unusable {
			bad++
			if first == nil {
				first = &Error{Line: e.Line, Reason: fmt.Sprintf("%q: %s", entries[0].To, e.Reason)}
			}
		}
		l.head = append(l.head, entries...)
	}
	// Half of a short list may be slips.
	if bad == 0 || 2*bad < n || 2*bad == n && n < judged {
		return nil
	}
	first.Reason += fmt.Sprintf("; %d of the first %d lines hold no address that can be used: %s", bad, n, l.form.hint())
	if n == 1 {
		first.Reason = strings.Replace(first.Reason, "1 of the first 1 lines hold", "the only line holds", 1)
	}
	return first
}

func (l *List) next() ([]Entry, error) {
	entries, blank, err := l.rows.row()
	if blank {
		l.blank++
	}
	return entries, err
}

// Entries yields the list, in its order, once. After an error there is nothing
// more.
func (l *List) Entries() iter.Seq2[Entry, error] {
	return func(yield func(Entry, error) bool) {
		for len(l.head) > 0 {
			e := l.head[0]
			l.head = l.head[1:]
			if !yield(e, nil) {
				return
			}
		}
		l.head = nil
		for l.end == nil {
			entries, err := l.next()
			if err != nil {
				l.end = err
				break
			}
			for _, e := range entries {
				if !yield(e, nil) {
					return
				}
			}
		}
		if !errors.Is(l.end, io.EOF) {
			yield(Entry{}, l.end)
		}
	}
}

// Blank is how many rows of a table were read so far that have no address.
func (l *List) Blank() int { return l.blank }

// Columns are the names of a table's columns, nil if it has no header.
func (l *List) Columns() []string { return l.form.layout.header }

// Form says in a few words how the list was understood.
func (l *List) Form() string { return l.form.String() }

// A form is how a list was understood.
type form struct {
	kind    string // text, CSV or JSON lines
	gzip    bool
	charset string // "" is UTF-8
	layout  layout
}

// String is such as "CSV with semicolons, addresses in column 2 (E-Mail), UTF-16, gzip".
func (f form) String() string {
	var b strings.Builder
	b.WriteString(f.kind)
	if f.kind == "CSV" {
		fmt.Fprintf(&b, " with %s, addresses in column %s", commaNames[f.layout.comma], f.layout.columnName(f.layout.column))
	}
	if f.charset != "" {
		b.WriteString(", " + f.charset)
	}
	if f.gzip {
		b.WriteString(", gzip")
	}
	return b.String()
}

// hint says what to change in a list of which too much is unusable.
func (f form) hint() string {
	switch f.kind {
	case "JSON lines":
		return `write one object a line, like {"to": "ann@example.net", "name": "Ann"}`
	case "CSV":
		return fmt.Sprintf("it was read as %v; choose another column with --column, by its name or number", f)
	}
	return "write one address a line, or CSV with a header that names the column of addresses"
}

var commaNames = map[byte]string{',': "commas", ';': "semicolons", '\t': "tabs", '|': "bars"}
