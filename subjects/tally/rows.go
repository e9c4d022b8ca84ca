package tally

import (
	"cmp"
	"encoding/json"
	"slices"
	"strings"
	"unicode"

	"bulkmail/subjects"
)

// keptRows is how many relays, domains or replies are told apart. Tables show the
// 20 largest; what is kept beyond them is for those that grow.
const keptRows = 200

// A Row is a relay, a domain or a reply, and how many recipients it has to do with.
type Row struct {
	Name     string                  `json:"name,omitempty"` // of the relay or the domain
	Code     int                     `json:"code,omitempty"` // of the reply, 0 if there was none
	Enhanced string                  `json:"enhanced,omitempty"`
	Text     string                  `json:"text,omitempty"`    // what the texts of such replies have in common
	Example  string                  `json:"example,omitempty"` // the first of them
	By       map[subjects.Status]int `json:"by"`
}

// Sum is how many recipients it has.
func (r *Row) Sum() int {
	n := 0
	for _, of := range r.By {
		n += of
	}
	return n
}

func (r *Row) count(status subjects.Status, n int) {
	if r.By == nil {
		r.By = make(map[subjects.Status]int)
	}
	if r.By[status] += n; r.By[status] == 0 {
		delete(r.By, status)
	}
}

// rowKey tells rows apart.
type rowKey struct {
	name     string
	code     int
	enhanced string
	text     string
}

func (r *Row) key() rowKey { return rowKey{r.Name, r.Code, r.Enhanced, r.Text} }

// Rows are some rows, and the sum of those that are not told apart.
type Rows struct {
	of   map[rowKey]*Row
	Rest Row
}

// count adds to a row. Row says which, and is not kept.
func (r *Rows) count(key rowKey, example string, status subjects.Status, n int) {
	row := r.of[key]
	switch {
	case row == nil && n < 0, row != nil && row.By[status]+n < 0:
		r.Rest.count(status, n) // it was counted before it made room
		return
	case row == nil:
		if r.of == nil {
			r.of = make(map[rowKey]*Row)
		}
		if len(r.of) >= keptRows {
			r.makeRoom()
		}
		row = &Row{Name: strings.Clone(key.name), Code: key.code, Enhanced: strings.Clone(key.enhanced), Text: strings.Clone(key.text), Example: strings.Clone(example)}
		r.of[row.key()] = row
	}
	if row.count(status, n); len(row.By) == 0 {
		delete(r.of, row.key())
	}
}

// makeRoom takes the smallest row away.
func (r *Rows) makeRoom() {
	var smallest *Row
	for _, row := range r.of {
		if smallest == nil || row.compare(smallest) > 0 {
			smallest = row
		}
	}
	delete(r.of, smallest.key())
	for status, n := range smallest.By {
		r.Rest.count(status, n)
	}
}

// compare puts the largest first, and is never in doubt: whoever folds the same
// entries has to come to the same rows.
func (r *Row) compare(other *Row) int {
	return cmp.Or(cmp.Compare(other.Sum(), r.Sum()), cmp.Compare(r.Name, other.Name), cmp.Compare(r.Code, other.Code),
		cmp.Compare(r.Enhanced, other.Enhanced), cmp.Compare(r.Text, other.Text))
}

// Largest are the n largest rows, the largest first.
func (r *Rows) Largest(n int) []*Row {
	rows := make([]*Row, 0, len(r.of))
	for _, row := range r.of {
		rows = append(rows, row)
	}
	slices.SortFunc(rows, (*Row).compare)
	return rows[:min(n, len(rows))]
}

// rowsJSON is how rows are stored.
type rowsJSON struct {
	Rows []*Row `json:"rows"`
	Rest Row    `json:"rest"`
}

// MarshalJSON writes all rows.
func (r Rows) MarshalJSON() ([]byte, error) {
	return json.Marshal(rowsJSON{r.Largest(len(r.of)), r.Rest})
}

// UnmarshalJSON reads what MarshalJSON wrote.
func (r *Rows) UnmarshalJSON(data []byte) error {
	var stored rowsJSON
	if err := json.Unmarshal(data, &stored); err != nil {
		return err
	}
	r.of, r.Rest = make(map[rowKey]*Row, len(stored.Rows)), stored.Rest
	for _, row := range stored.Rows {
		r.of[row.key()] = row
	}
	return nil
}

// textBytes is how much of a reply's text is kept.
const textBytes = 200

// common is what the texts of replies of one kind have in common: words with a
// digit or an @ in them, such as queue ids, addresses and times, are one dot each.
func common(text string) string {
	var b strings.Builder
	for word := range strings.FieldsSeq(text) {
		if b.Len() > 0 {
			b.WriteByte(' ')
		}
		if strings.ContainsFunc(word, func(r rune) bool { return unicode.IsDigit(r) || r == '@' }) {
			word = "…"
		}
		b.WriteString(word)
		if b.Len() > textBytes {
			break
		}
	}
	return cut(b.String())
}

func cut(text string) string {
	if len(text) <= textBytes {
		return text
	}
	return strings.ToValidUTF8(text[:textBytes], "") + "…"
}

// domainOf is the receiving domain of a recipient as published; "" if there is
// none.
func domainOf(recipient string) string {
	at := strings.LastIndexByte(recipient, '@')
	if at < 0 {
		return ""
	}
	return strings.ToLower(strings.TrimRight(recipient[at+1:], "> \t"))
}
