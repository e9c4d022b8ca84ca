package list

import (
	"bufio"
	"fmt"
	"strconv"
	"strings"
)

// A layout is where the addresses of a list stand.
type layout struct {
	comma  byte     // what separates columns; 0 if there is one column of text
	header []string // nil if there is none
	after  int      // the line of the header: up to it all is skipped
	column int      // of addresses, from 0
}

// columnName is such as "2 (E-Mail)".
func (l layout) columnName(i int) string {
	if i < len(l.header) && l.header[i] != "" {
		return fmt.Sprintf("%d (%s)", i+1, l.header[i])
	}
	return strconv.Itoa(i + 1)
}

// titles is how many rows may stand above a header.
const titles = 10

// A row is a row of the sample.
type row struct {
	line  int
	cells []string
	found []int // how many mailboxes each cell holds; -1 for one that holds anything else
}

// A candidate is a layout and how much speaks for it.
type candidate struct {
	layout
	named bool // the header says so
	found int  // mailboxes in its column
	err   error
}

// better prefers what finds addresses, then what the header says, then what
// finds more of them.
func (c candidate) better(than candidate) bool {
	switch {
	case (c.found > 0) != (than.found > 0):
		return c.found > 0
	case c.named != than.named:
		return c.named
	}
	return c.found > than.found
}

// detect finds the layout by the first lines of a list.
func detect(sample []string, o Options) (layout, error) {
	commas, after := ";\t,|", 0
	if comma, line := separatorLine(sample); line > 0 {
		commas, after = string(comma), line
	} else if o.Column == "" && onlyMailboxes(sample) {
		return layout{}, nil
	}
	var best candidate
	some := false
	var columns []string
	for _, comma := range []byte(commas) {
		rows := sampleRows(sample, comma, after)
		if len(rows) == 0 {
			continue
		}
		if len(rows[0].cells) > len(columns) {
			columns = rows[0].cells
		}
		c, ok := candidateOf(rows, o)
		if !ok || some && !c.better(best) {
			continue
		}
		best, some = c, true
		if best.comma = comma; width(rows) == 1 {
			best.comma = 0
		}
	}
	switch {
	case some && best.err != nil:
		return layout{}, best.err
	case some:
		best.after = max(best.after, after)
		return best.layout, nil
	case o.Column != "" && len(columns) > 0:
		return layout{}, &Error{Reason: fmt.Sprintf("there is no column %q: choose one of %s, by name or by number", o.Column, strings.Join(columns, ", "))}
	}
	return layout{after: after}, nil
}

// firstOf is the first line that says something.
func firstOf(sample []string) string {
	for _, line := range sample {
		if line = trim(line); line != "" && line[0] != '#' {
			return line
		}
	}
	return ""
}

// separatorLine finds the line by which Excel is told what separates columns.
func separatorLine(sample []string) (comma byte, line int) {
	for i, text := range sample {
		text = strings.Trim(strings.Trim(text, "\r "), `"`)
		if text == "" {
			continue
		}
		if len(text) == len("sep=;") && strings.EqualFold(text[:4], "sep=") {
			return text[4], i + 1
		}
		break
	}
	return 0, 0
}

// onlyMailboxes tells whether every line is made of addresses and nothing else.
func onlyMailboxes(sample []string) bool {
	var found []mailbox
	some := false
	for _, line := range sample {
		if line = trim(line); line == "" || line[0] == '#' {
			continue
		}
		some = true
		if _, reason := mailboxes(found[:0], line); reason != "" {
			return false
		}
	}
	return some
}

// sampleRows are the rows of the sample, if comma separates their columns.
func sampleRows(sample []string, comma byte, after int) []row {
	text := strings.NewReader(strings.Join(sample, "\n"))
	from := tableRows{lines: &lines{r: bufio.NewReader(text), marked: true}}
	from.comma = comma
	var rows []row
	for len(rows) < judged {
		line, err := from.read()
		if err != nil {
			return rows
		}
		cells, err := split(nil, from.text, comma, line)
		if err != nil {
			return rows
		}
		r := row{line: line}
		empty := true
		for _, cell := range cells {
			cell := trim(string(cell))
			empty = empty && cell == ""
			r.cells = append(r.cells, cell)
		}
		// A first column of numbers may be called #.
		comment := strings.HasPrefix(r.cells[0], "#") && (r.cells[0] != "#" || len(cells) == 1)
		if line <= after || empty || comment {
			continue
		}
		var found []mailbox
		for _, cell := range r.cells {
			n := -1
			if m, reason := mailboxes(found[:0], cell); reason == "" {
				n = len(m)
			}
			r.found = append(r.found, n)
		}
		rows = append(rows, r)
	}
	return rows
}

func width(rows []row) int {
	n := 0
	for _, r := range rows {
		n = max(n, len(r.cells))
	}
	return n
}

// candidateOf finds the column of addresses, if the rows are those of a table.
func candidateOf(rows []row, o Options) (candidate, bool) {
	first := 0 // row with an address
	for first < len(rows) && !rows[first].usable() {
		first++
	}
	if o.Column != "" {
		return chosen(rows, first, o.Column)
	}
	header := headerRow(rows[:min(first, titles)])
	if header < 0 {
		return byContent(rows, first)
	}
	c, ok := byName(rows, header)
	if ok && (c.found > 0 || c.err != nil) {
		return c, true
	}
	if other, found := byContent(rows[header:], first-header); found {
		return other, true
	}
	return c, ok
}

func (r row) usable() bool {
	for _, n := range r.found {
		if n > 0 {
			return true
		}
	}
	return false
}

// filled is how many cells are not empty.
func (r row) filled() int {
	n := 0
	for _, cell := range r.cells {
		if cell != "" {
			n++
		}
	}
	return n
}

// headerRow is the row with the name that speaks best for a column of addresses,
// -1 if there is none.
func headerRow(rows []row) int {
	header, best := -1, unnamed
	for i, r := range rows {
		for _, cell := range r.cells {
			if rank := rankOf(cell); rank < best {
				header, best = i, rank
			}
		}
	}
	return header
}

// byName takes the column whose name speaks for it best, of those that hold
// addresses if there are any.
func byName(rows []row, header int) (candidate, bool) {
	names, below := rows[header].cells, rows[header+1:]
	best, rank, found := -1, unnamed+1, 0
	var rivals []int
	for i, name := range names {
		r, n := rankOf(name), total(below, i)
		if r == unnamed || found > 0 && n == 0 {
			continue
		}
		switch {
		case n > 0 && found == 0, r < rank:
			best, rank, found, rivals = i, r, n, nil
		case r == rank && n > 0:
			rivals = append(rivals, i)
		}
	}
	if best < 0 || rank == mentioned && found == 0 && len(below) > 0 {
		return candidate{}, false
	}
	c := candidate{layout: layout{header: names, after: rows[header].line, column: best}, named: true, found: found}
	if len(rivals) > 0 {
		c.err = ambiguous(c.layout, best, rivals[0])
	}
	return c, true
}

// byContent takes the column that holds addresses where another one does not:
// without one, the rows are lines of text.
func byContent(rows []row, first int) (candidate, bool) {
	below := rows[min(first, len(rows)):]
	var columns []int
	table := false
	for i := range width(below) {
		filled, good := 0, 0
		for _, r := range below {
			if i < len(r.cells) && r.cells[i] != "" {
				filled++
				if r.found[i] > 0 {
					good++
				}
			}
		}
		switch {
		case good > 0 && 2*good > filled:
			columns = append(columns, i)
		case 2*filled >= len(below):
			table = true
		}
	}
	if len(columns) == 0 || !table {
		return candidate{}, false
	}
	c := candidate{layout: layout{column: columns[0]}, found: total(below, columns[0])}
	c.unknownHeader(rows, first)
	if len(columns) > 1 {
		c.err = ambiguous(c.layout, columns[0], columns[1])
	}
	return c, true
}

// unknownHeader takes the row before the first address for the header, if it
// looks like one and nothing but titles stands above it.
func (c *candidate) unknownHeader(rows []row, first int) {
	if first == 0 || first > titles || first == len(rows) {
		return
	}
	r := rows[first-1]
	for _, above := range rows[:first-1] {
		if above.filled() > 1 {
			return
		}
	}
	if r.filled() < 2 || c.column >= len(r.cells) || r.cells[c.column] == "" || strings.Contains(r.cells[c.column], "@") {
		return
	}
	c.header, c.after = r.cells, r.line
}

// chosen takes the column that was asked for.
func chosen(rows []row, first int, column string) (candidate, bool) {
	for i, r := range rows[:min(first, titles)] {
		for _, same := range []func(string) bool{
			func(cell string) bool { return strings.EqualFold(cell, trim(column)) },
			func(cell string) bool { return plain(cell) != "" && plain(cell) == plain(column) },
		} {
			for j, cell := range r.cells {
				if same(cell) {
					at := layout{header: r.cells, after: r.line, column: j}
					return candidate{layout: at, named: true, found: total(rows[i+1:], j)}, true
				}
			}
		}
	}
	n, err := strconv.Atoi(column)
	if err != nil || n < 1 || n > width(rows) {
		return candidate{}, false
	}
	c := candidate{layout: layout{column: n - 1}, found: total(rows, n-1)}
	if header := headerRow(rows[:min(first, titles)]); header >= 0 && n <= len(rows[header].cells) {
		c.header, c.after = rows[header].cells, rows[header].line
	} else {
		c.unknownHeader(rows, first)
	}
	return c, true
}

// total is how many mailboxes a column holds.
func total(rows []row, column int) int {
	n := 0
	for _, r := range rows {
		if column < len(r.found) {
			n += max(r.found[column], 0)
		}
	}
	return n
}

func ambiguous(at layout, one, other int) error {
	return &Error{Line: at.after, Reason: fmt.Sprintf("columns %s and %s both hold addresses: choose one with --column", at.columnName(one), at.columnName(other))}
}
