package worker

import (
	"errors"
	"time"

	"bulkmail/envelope"
	"bulkmail/subjects"
)

const (
	// What is recorded of a recipient in doubt. 4.4.2 is "bad connection".
	doubtCode     = 451
	doubtEnhanced = "4.4.2"
)

// policy is what a worker's options say about recipients.
type policy struct {
	RetryDelays Schedule
	RetryFor    time.Duration
	InDoubt     InDoubt
}

// A plan is what is to be done about a batch in one attempt.
type plan struct {
	send     []envelope.Group   // to be sent to
	reject   []envelope.Invalid // cannot be sent to
	suppress []deferred         // must not be sent to
	rest     []deferred         // deferred by an earlier attempt, and not due yet
	due      time.Time          // when the first of these is; zero: none rests
	doubtful []deferred         // announced by an attempt that died, and not to be sent to again
	deadline time.Time          // when what is deferred is given up

	doubts map[string]int // as [subjects.State] has them

	expired   []deferred // given up by an attempt that may have died before it had stored the dead letter
	expiredAt time.Time  // when the first of these was
}

// idle tells whether an attempt would have nothing to do or to record.
func (p *plan) idle() bool { return len(p.send)+len(p.reject)+len(p.suppress)+len(p.doubtful) == 0 }

// deferred is a recipient and what was said of it.
type deferred struct {
	recipient envelope.Recipient
	subjects.Outcome
}

// makePlan decides about every recipient of a batch by what its journal says.
// Of a campaign that was cancelled nobody is sent to, so all who were deferred
// rest. s may be nil.
func makePlan(batch *envelope.Batch, known *subjects.State, p policy, s *screen, cancelled bool, now time.Time) plan {
	out := plan{deadline: now.Add(p.RetryFor), doubts: known.Doubts}
	if !known.FirstClaim.IsZero() {
		out.deadline = known.FirstClaim.Add(p.RetryFor)
	}
	if len(known.Results) == 0 && len(known.Announced) == 0 {
		var left func(envelope.Recipient) bool
		if s != nil {
			left = func(r envelope.Recipient) bool { return out.leaveOut(r, s) }
		}
		checked := batch.Plan(left)
		out.send, out.reject = checked.Groups, checked.Invalid
		return out
	}
	late := !now.Before(out.deadline)
	journal := byMailbox(known)
	checked := batch.Plan(func(r envelope.Recipient) bool {
		k, ok := journal[r.Mailbox]
		if !ok {
			return out.leaveOut(r, s)
		}
		r.Address = k.recipient.Address // each mailbox has one outcome, under one name
		switch {
		case k.result.Final():
			if k.result.Status == subjects.Expired && !known.Done {
				out.expired = append(out.expired, deferred{r, k.result.Outcome})
				if since := k.result.Time; out.expiredAt.IsZero() || since.Before(out.expiredAt) {
					out.expiredAt = since
				}
			}
			return true
		case k.announced != nil && p.InDoubt == Skip:
			out.doubtful = append(out.doubtful, deferred{r, subjects.Outcome{
				Status: subjects.InDoubt, Relay: k.announced.Relay, Code: doubtCode, Enhanced: doubtEnhanced,
				Text: "the worker was lost between the end of the data and the reply",
			}})
			return true
		case out.leaveOut(r, s):
			return true
		case k.result == nil:
			return false
		}
		due := p.RetryDelays.Due(k.result.Attempt, k.result.Time)
		if !cancelled && (late || !now.Before(due)) {
			return false
		}
		if out.due.IsZero() || due.Before(out.due) {
			out.due = due
		}
		out.rest = append(out.rest, deferred{r, k.result.Outcome})
		return true
	})
	out.send, out.reject = checked.Groups, checked.Invalid
	out.respell(journal)
	return out
}

// recipients is how many different recipients the batch has, those of earlier
// publications under its id included.
func (p *plan) recipients(known *subjects.State) int {
	n := len(known.Results)
	count := func(r envelope.Recipient) {
		if known.Results[r.Address] == nil {
			n++
		}
	}
	for _, group := range p.send {
		for _, r := range group.Recipients {
			count(r)
		}
	}
	for _, invalid := range p.reject {
		count(invalid.Recipient)
	}
	for _, list := range [][]deferred{p.suppress, p.doubtful} {
		for _, d := range list {
			count(d.recipient)
		}
	}
	return n
}

// leaveOut tells whether a recipient is suppressed, and keeps that in the plan.
func (p *plan) leaveOut(r envelope.Recipient, s *screen) bool {
	if s == nil {
		return false
	}
	why, ok := s.has(r.Mailbox)
	if ok {
		p.suppress = append(p.suppress, deferred{r, suppression(why)})
	}
	return ok
}

// respell names those who are sent to again as the journal does, for the batch
// may have been published again in other spellings: each mailbox has one outcome.
func (p *plan) respell(journal map[string]record) {
	for _, group := range p.send {
		for i := range group.Recipients {
			if k, ok := journal[group.Recipients[i].Mailbox]; ok {
				group.Recipients[i].Address = k.recipient.Address
			}
		}
	}
}

// record is what a journal says of one mailbox.
type record struct {
	recipient envelope.Recipient // as the journal has it
	result    *subjects.Result
	announced *subjects.Result
}

// byMailbox is the journal by mailbox: an earlier release recorded each spelling
// by itself. If one spelling is final, the mailbox is; else the newest result counts.
func byMailbox(known *subjects.State) map[string]record {
	records := make(map[string]record, len(known.Results)+len(known.Announced))
	mailbox := func(published string) string {
		if a, err := envelope.ParseAddress(published); err == nil {
			return a.Mailbox
		}
		return published
	}
	for published, result := range known.Results {
		m := mailbox(published)
		r := records[m]
		if r.result == nil || newer(published, result, r) {
			records[m] = record{recipient: envelope.Recipient{Address: published, Mailbox: m}, result: result}
		}
	}
	for published, result := range known.Announced {
		m := mailbox(published)
		r := records[m]
		r.announced = result
		if r.result == nil {
			r.recipient = envelope.Recipient{Address: published, Mailbox: m}
		}
		records[m] = r
	}
	return records
}

// newer tells whether a result of a mailbox counts more than that in r.
func newer(published string, result *subjects.Result, r record) bool {
	switch {
	case result.Final() != r.result.Final():
		return result.Final()
	case !result.Time.Equal(r.result.Time):
		return result.Time.After(r.result.Time)
	}
	return published < r.recipient.Address
}

// rejection is what is recorded of a recipient that cannot be sent to.
func rejection(why error) subjects.Outcome {
	o := subjects.Outcome{Status: subjects.Rejected, Code: 554, Enhanced: "5.6.0", Text: "not sent: " + why.Error()}
	if a, ok := errors.AsType[*envelope.AddressError](why); ok {
		// The address itself stands beside it, and alike reasons share an entry.
		o.Code, o.Enhanced, o.Text = 553, "5.1.3", "not sent: "+a.Reason
	}
	return o
}
