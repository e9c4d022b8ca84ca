package main

import (
	"fmt"
	"io"
	"strconv"
	"strings"
	"text/tabwriter"

	"bulkmail/envelope/escape"
)

// table prints rows under a header, aligned; columns whose name begins with a
// number sign are figures and stand to the right. What a terminal would obey, in
// a relay's last error or an address, is shown and not done.
type table struct {
	header []string
	rows   [][]string
}

func newTable(header ...string) *table { return &table{header: header} }

func (t *table) row(cells ...any) {
	row := make([]string, len(cells))
	for i, c := range cells {
		switch c := c.(type) {
		case int:
			row[i] = number(c)
		default:
			row[i] = escape.Terminal(fmt.Sprint(c))
		}
	}
	t.rows = append(t.rows, row)
}

func (t *table) print(w io.Writer) error {
	out := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	width := make([]int, len(t.header))
	for i, h := range t.header {
		width[i] = len(strings.TrimPrefix(h, "#"))
		for _, r := range t.rows {
			width[i] = max(width[i], len(r[i]))
		}
	}
	for _, r := range append([][]string{t.header}, t.rows...) {
		for i, cell := range r {
			if strings.HasPrefix(t.header[i], "#") {
				cell = fmt.Sprintf("%*s", width[i], strings.TrimPrefix(cell, "#"))
			}
			if i < len(r)-1 {
				cell += "\t"
			}
			fmt.Fprint(out, cell)
		}
		fmt.Fprintln(out)
	}
	return out.Flush()
}

// number writes 1234567 as 1,234,567.
func number(n int) string {
	s := strconv.Itoa(n)
	for i := len(s) - 3; i > 0 && s[i-1] != '-'; i -= 3 {
		s = s[:i] + "," + s[i:]
	}
	return s
}

// count is a number and what it counts: "1 batch", "2,000 batches".
func count[N int | uint64](n N, one, many string) string {
	if n == 1 {
		return "1 " + one
	}
	return number(int(n)) + " " + many
}
