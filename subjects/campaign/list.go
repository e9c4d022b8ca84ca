package campaign

import (
	"errors"
	"io"
	"iter"

	"bulkmail/envelope"
	"bulkmail/envelope/list"
)

// A Recipient is one recipient of a list.
type Recipient struct {
	Line    int    // in the list, from 1; 0 where there are no lines
	Address string // not checked
	Name    string // of the person; may be empty
	Data    string // a JSON object, the values of a letter; empty unless the list was read with them
	Err     error  // why the line holds no address that can be sent to, where the list knows
}

// Mailbox is the address as SMTP says it, or the address itself where it cannot be
// sent to: what it takes to find out whether two recipients are the same.
func (r Recipient) Mailbox() string {
	if a, err := envelope.ParseAddress(r.Address); err == nil {
		return a.Mailbox
	}
	return r.Address
}

// ReadList yields the recipients of a list in any form that package list reads:
// text, tables, JSON lines, whatever their encoding. Little of it is kept. A list
// that cannot be read, or not to its end, is a [*list.Error]; the first hundred
// lines are judged before anything is yielded.
//
// Later on a line that is no address is yielded with its Err set: whoever cannot
// be sent to gets an outcome like everybody else.
func ReadList(r io.Reader) iter.Seq2[Recipient, error] {
	return func(yield func(Recipient, error) bool) {
		l, err := list.Open(r, list.Options{})
		if err != nil {
			yield(Recipient{}, err)
			return
		}
		Recipients(l)(yield)
	}
}

// Recipients yields the recipients of a list that was opened, for who has
// something to say of how it is read. It can be done once.
func Recipients(l *list.List) iter.Seq2[Recipient, error] {
	return func(yield func(Recipient, error) bool) {
		for e, err := range l.Entries() {
			if !yield(Recipient{Line: e.Line, Address: e.To, Name: e.Name, Data: string(e.Data), Err: e.Err}, err) {
				return
			}
		}
	}
}

// An Unusable is a line of a list without an address that can be sent to.
type Unusable struct {
	Line   int    `json:"line"`
	Text   string `json:"text"` // what stands there, cut if it is long
	Reason string `json:"reason"`
}

// keptUnusable is how many of them are told: enough to put a list right, and no
// more than memory takes.
const keptUnusable = 10_000

// unusable says what is wrong with a recipient, and nothing of others.
func unusable(r Recipient) (Unusable, bool) {
	if r.Err == nil {
		return Unusable{}, false
	}
	reason := r.Err.Error()
	if e, ok := errors.AsType[*list.Error](r.Err); ok {
		reason = e.Reason // the line is told beside it
	}
	return Unusable{r.Line, r.Address, reason}, true
}
