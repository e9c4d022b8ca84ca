package campaign

import (
	"bufio"
	"encoding/csv"
	"errors"
	"fmt"
	"io"
	"iter"
	"strings"

	"bulkmail/envelope"
)

// A Recipient is one recipient of a list.
type Recipient struct {
	Line    int    // in the list, from 1; 0 where there are no lines
	Address string // not checked
}

// Mailbox is the address as SMTP says it, or the address itself where it cannot be
// sent to: what it takes to find out whether two recipients are the same.
func (r Recipient) Mailbox() string {
	if a, err := envelope.ParseAddress(r.Address); err == nil {
		return a.Mailbox
	}
	return r.Address
}

// A LineError is a list that cannot be read on.
type LineError struct {
	Line int // from 1
	Err  error
}

func (e *LineError) Error() string { return fmt.Sprintf("line %d: %v", e.Line, e.Err) }

// Unwrap returns what is wrong with the line.
func (e *LineError) Unwrap() error { return e.Err }

// listBuffer bounds a line of a list.
const listBuffer = 64 << 10

// errLongLine is a line beyond listBuffer.
var errLongLine = fmt.Errorf("longer than %d octets: is it a list of addresses?", listBuffer)

// ReadList yields the recipients of a list: one a line, with or without a name
// ("Ann <ann@example.net>"), empty lines and lines that begin with # left out;
// or CSV whose first line has a column "email". Nothing is kept. What cannot be
// read on is a [*LineError].
//
// Addresses are not checked here: whoever cannot be sent to gets an outcome
// like everybody else.
func ReadList(r io.Reader) iter.Seq2[Recipient, error] {
	b := bufio.NewReaderSize(r, listBuffer)
	// A byte order mark, as spreadsheets write it.
	if mark, err := b.Peek(3); err == nil && string(mark) == "\xef\xbb\xbf" {
		_, _ = b.Discard(3)
	}
	first, err := b.Peek(listBuffer)
	if err != nil && !errors.Is(err, io.EOF) {
		return func(yield func(Recipient, error) bool) { yield(Recipient{}, err) }
	}
	line, _, _ := strings.Cut(string(first), "\n")
	if comma, column := emailColumn(line); column >= 0 {
		return readCSV(b, comma, column)
	}
	return readLines(b)
}

// emailColumn finds the column "email" in a CSV header, and what separates the
// columns.
func emailColumn(header string) (comma rune, column int) {
	for _, comma := range ",;\t" {
		for i, name := range strings.Split(strings.TrimRight(header, "\r"), string(comma)) {
			if strings.EqualFold(strings.Trim(name, ` "`), "email") {
				return comma, i
			}
		}
	}
	return 0, -1
}

func readCSV(r io.Reader, comma rune, column int) iter.Seq2[Recipient, error] {
	return func(yield func(Recipient, error) bool) {
		rows := csv.NewReader(r)
		rows.Comma = comma
		rows.FieldsPerRecord = -1
		rows.ReuseRecord = true
		for header := true; ; header = false {
			row, err := rows.Read()
			if errors.Is(err, io.EOF) {
				return
			}
			if wrong, ok := errors.AsType[*csv.ParseError](err); ok {
				err = &LineError{wrong.StartLine, wrong.Err}
			}
			if err != nil {
				yield(Recipient{}, err)
				return
			}
			if header || column >= len(row) || row[column] == "" {
				continue
			}
			line, _ := rows.FieldPos(column)
			if !yield(Recipient{line, validText(row[column])}, nil) {
				return
			}
		}
	}
}

func readLines(r io.Reader) iter.Seq2[Recipient, error] {
	return func(yield func(Recipient, error) bool) {
		lines := bufio.NewScanner(r)
		lines.Buffer(nil, listBuffer)
		n := 0
		for lines.Scan() {
			n++
			line := strings.TrimSpace(lines.Text())
			if line == "" || line[0] == '#' {
				continue
			}
			if !yield(Recipient{n, validText(bareAddress(line))}, nil) {
				return
			}
		}
		err := lines.Err()
		if errors.Is(err, bufio.ErrTooLong) {
			err = errLongLine
		}
		if err != nil {
			yield(Recipient{}, &LineError{n + 1, err})
		}
	}
}

// validText makes s fit for a batch. An address that is not UTF-8 becomes one
// that cannot be sent to, and gets that as its outcome.
func validText(s string) string { return strings.ToValidUTF8(strings.TrimSpace(s), "\ufffd") }

// bareAddress takes the address out of "Name <address>".
func bareAddress(s string) string {
	if open := strings.LastIndexByte(s, '<'); open >= 0 && strings.HasSuffix(s, ">") {
		return strings.TrimSpace(s[open+1 : len(s)-1])
	}
	return s
}
