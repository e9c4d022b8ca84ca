package worker

import (
	"fmt"

	"bulkmail/envelope"
	"bulkmail/subjects"
)

// maxCopies is how many copies a recipient may have of a batch of which no relay
// ever said that it took one. RFC 1047 has the client send again, and where the
// reply to the end of the data always comes too late that never ends by itself:
// nearly always the message was accepted each time.
const maxCopies = 3

// recordDoubtful records recipients who may have been accepted. They are deferred,
// but for those who may have as many copies as anybody gets: these are in doubt for
// good.
func (a *attempt) recordDoubtful(o subjects.Outcome, recipients []envelope.Recipient) {
	if len(a.doubts) == 0 {
		a.record(o, recipients)
		return
	}
	var again, enough []envelope.Recipient
	for _, r := range recipients {
		if a.doubts[r.Address]+1 < maxCopies {
			again = append(again, r)
		} else {
			enough = append(enough, r)
		}
	}
	a.record(o, again)
	o.Status, o.InDoubt = subjects.InDoubt, false
	o.Text = fmt.Sprintf("%s; so it was %d times, not sent again", o.Text, maxCopies)
	a.record(o, enough)
}

// finally is the last outcome of a deferred recipient who is given up: that status,
// but in doubt if an earlier attempt may have been accepted.
func (a *attempt) finally(d deferred, status subjects.Status) subjects.Outcome {
	o := d.Outcome
	o.Status, o.InDoubt = status, false
	if a.doubts[d.recipient.Address] > 0 || d.InDoubt {
		o.Status = subjects.InDoubt
		if !d.InDoubt {
			o.Text = "an earlier attempt may have been accepted; the last one: " + o.Text
		}
	}
	return o
}
