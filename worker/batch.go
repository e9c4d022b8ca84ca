package worker

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"bulkmail/envelope"
	"bulkmail/subjects"
	"bulkmail/worker/journal"
)

// troubleDelay is how long a batch waits when the broker would not let us begin
// with it.
const troubleDelay = 5 * time.Second

// settleTimeout bounds what is said to the broker at the end of an attempt.
const settleTimeout = 10 * time.Second

// handle sees one delivery of a batch to its end. intake ends when the worker
// drains.
func (w *Worker) handle(intake context.Context, msg jetstream.Msg) {
	meta, err := msg.Metadata()
	if err != nil {
		w.log.ErrorContext(w.base, "not a JetStream delivery", "subject", msg.Subject(), "error", err)
		return
	}
	campaign, _ := w.names.Campaign(msg.Subject())
	d := &delivery{
		Worker:   w,
		msg:      msg,
		campaign: campaign,
		number:   journal.Delivery{Sequence: meta.Sequence.Stream, Count: meta.NumDelivered},
	}
	keeping, stop := context.WithCancel(w.base)
	var kept sync.WaitGroup
	kept.Go(func() { w.keep(keeping, msg) })
	defer kept.Wait()
	defer stop()

	batch, err := envelope.Decode(msg.Data())
	if err == nil && !subjects.ValidID(campaign) {
		err = &envelope.FieldError{Field: "subject", Reason: "the campaign is 1 to 64 letters, digits, - or _"}
	}
	if err != nil {
		d.id = subjects.BatchID("", msg.Headers().Get(jetstream.MsgIDHeader), meta.Sequence.Stream, meta.Timestamp)
		d.unreadable(err)
		return
	}
	d.batch = batch
	d.id = subjects.BatchID(batch.ID, msg.Headers().Get(jetstream.MsgIDHeader), meta.Sequence.Stream, meta.Timestamp)
	d.run(intake)
}

// A delivery is one delivery of one batch to this worker. It carries what the
// steps of its way share.
type delivery struct {
	*Worker
	msg      jetstream.Msg
	campaign string
	id       string
	number   journal.Delivery
	batch    *envelope.Batch

	state    *journal.State
	deadline time.Time // when what is deferred is given up
	hold     *journal.Hold
}

// run is the way of a batch that could be decoded.
func (d *delivery) run(intake context.Context) {
	began := time.Now()
	var err error
	if d.state, err = d.journal.Read(d.base, d.campaign, d.id); err != nil {
		d.comeBack(err)
		return
	}
	d.deadline = began.Add(d.o.RetryFor)
	if !d.state.New() {
		d.deadline = d.state.FirstClaim.Add(d.o.RetryFor)
	}
	plan, resting := d.plan(began)
	if len(plan.Groups) == 0 && len(plan.Invalid) == 0 {
		switch {
		case len(resting.replies) > 0:
			// Back before its time. Claiming it would only lengthen the journal.
			d.nak(time.Until(resting.due))
			return
		case d.state.Done:
			d.tell(d.msg.DoubleAck) // a repeated batch of which all is known
			return
		}
	}
	var message *envelope.Message
	if len(plan.Groups) > 0 {
		if message, err = d.messages.of(d.base, d.batch); err != nil {
			if fieldError, ok := errors.AsType[*envelope.FieldError](err); ok {
				d.unreadable(fieldError)
			} else {
				d.comeBack(err)
			}
			return
		}
	}
	if d.hold, err = d.journal.Claim(d.base, d.state, d.number); err != nil {
		d.letGo(err)
		return
	}
	a := newAttempt(d, plan.Groups, message, resting)
	for _, invalid := range plan.Invalid {
		a.record(rejectedLocally(invalid))
	}
	d.settle(a, a.run(intake), began)
}

// resting is what an earlier attempt deferred and is not due yet.
type resting struct {
	replies map[string]reply // by recipient, as published
	due     time.Time        // the first of them
}

// plan leaves out of the batch what earlier attempts settled, and what they
// deferred and is not due yet.
func (d *delivery) plan(now time.Time) (envelope.Plan, resting) {
	var rest resting
	if len(d.state.Results) == 0 {
		return d.batch.Plan(nil), rest
	}
	// By mailbox: the batch may have been published again in other spellings.
	known := make(map[string]string, len(d.state.Results))
	for published := range d.state.Results {
		mailbox := published
		if a, err := envelope.ParseAddress(published); err == nil {
			mailbox = a.Mailbox
		}
		known[mailbox] = published
	}
	late := !now.Before(d.deadline)
	plan := d.batch.Plan(func(mailbox string) bool {
		published, ok := known[mailbox]
		if !ok {
			return false
		}
		r := d.state.Results[published]
		due := d.o.RetryDelays.Due(r.Attempt, r.Time)
		switch {
		case r.Status.Final():
			return true
		case late || !now.Before(due):
			return false
		}
		if rest.replies == nil {
			rest.replies = make(map[string]reply)
		}
		if len(rest.replies) == 0 || due.Before(rest.due) {
			rest.due = due
		}
		rest.replies[published] = reply{r.Relay, r.Code, r.Enhanced, r.Text}
		return true
	})
	return plan, rest
}

// comeBack returns a batch that could not be begun through no fault of its own.
func (d *delivery) comeBack(err error) {
	d.log.WarnContext(d.base, "batch not begun, it comes back", "campaign", d.campaign, "batch", d.id, "error", err, "again_in", troubleDelay)
	d.nak(troubleDelay)
}

// letGo leaves the batch to whoever holds it. It must be neither acked nor
// naked: the broker would take that for the holder's word.
func (d *delivery) letGo(err error) {
	d.log.InfoContext(d.base, "batch let go", "campaign", d.campaign, "batch", d.id, "reason", err)
}

func rejectedLocally(invalid envelope.Invalid) subjects.Results {
	reason := invalid.Err.Error()
	if a, ok := errors.AsType[*envelope.AddressError](invalid.Err); ok {
		reason = a.Reason // the address itself stands beside it, and alike reasons share an entry
	}
	return subjects.Results{
		Status: subjects.Rejected, Code: 553, Enhanced: "5.1.3", Text: "not sent: " + reason,
		Recipients: []string{invalid.Address},
	}
}
