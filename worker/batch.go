package worker

import (
	"context"
	"errors"
	"fmt"
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

// errLate says that the broker may have given a batch to somebody else before
// it could be claimed.
var errLate = errors.New("its ack wait was over before it could be claimed")

// A delivery is one delivery of one batch to this worker. It carries what the
// steps of its way share.
type delivery struct {
	*Worker
	msg      jetstream.Msg
	campaign string
	id       string
	number   journal.Delivery
	place    place
	lease    *lease
	batch    *envelope.Batch

	state    *journal.State
	deadline time.Time // when what is deferred is given up
	hold     *journal.Hold
}

// handle begins with one delivery of a batch and sends what can be sent. The
// rest of its way it leaves to end. intake ends when the worker drains, ctx when
// its time for that is over.
func (w *Worker) handle(ctx, intake context.Context, msg jetstream.Msg, end *ending) {
	d := &delivery{Worker: w, msg: msg, lease: newLease(w.ackWait)}
	d.campaign, _ = w.names.Campaign(msg.Subject())
	meta, err := msg.Metadata()
	if err != nil {
		w.log.ErrorContext(ctx, "not a JetStream delivery", "subject", msg.Subject(), "error", err)
		return
	}
	d.number = journal.Delivery{Sequence: meta.Sequence.Stream, Count: meta.NumDelivered}
	d.place = place{sequence: meta.Sequence.Stream, last: meta.Sequence.Stream + meta.NumPending}
	if w.campaigns.of(d.campaign) == subjects.CampaignPaused {
		d.nak(ctx, w.campaigns.rest(time.Now()))
		return
	}
	letGo := d.keep(ctx)
	settle := d.begin(ctx, intake, meta)
	if settle == nil {
		letGo()
		return
	}
	end.after(func() {
		settle()
		letGo()
	})
}

// keep holds on to the delivery until the function that it returns is called.
func (d *delivery) keep(ctx context.Context) (letGo func()) {
	d.inHand.Add(1)
	ctx, cancel := context.WithCancel(ctx)
	var kept sync.WaitGroup
	kept.Go(func() { d.lease.keep(ctx, d.js, d.msg) })
	return func() {
		cancel()
		kept.Wait()
		d.inHand.Add(-1)
	}
}

// begin reads the batch and goes its way up to where nothing more is sent. It
// returns what is left to do, if anything.
func (d *delivery) begin(ctx, intake context.Context, meta *jetstream.MsgMetadata) (settle func()) {
	batch, err := envelope.Decode(d.msg.Data())
	if err == nil && batch.Letters() {
		err = &envelope.VersionError{Version: max(batch.Version, 2)}
	}
	if later, ok := errors.AsType[*envelope.VersionError](err); ok {
		d.leaveToOthers(ctx, later)
		return nil
	}
	if err == nil && !subjects.ValidID(d.campaign) {
		err = &envelope.FieldError{Field: "subject", Reason: "the campaign is 1 to 64 letters, digits, - or _"}
	}
	if err == nil {
		err = recordable(batch.Recipients)
	}
	var id string
	if err == nil {
		id = batch.ID
	}
	d.id = subjects.BatchID(id, d.msg.Headers().Get(jetstream.MsgIDHeader), meta.Sequence.Stream, meta.Timestamp)
	if err != nil {
		d.unreadable(ctx, err)
		return nil
	}
	d.batch = batch
	return d.run(ctx, intake)
}

// An ending is the last steps of one batch, beside the first steps of the next:
// while the broker stores the end of a journal and confirms an ack, a slot need
// not stand idle. There is one at a time in a slot, so that a worker has hold of
// two batches a slot at most, and sends for one.
type ending struct{ steps sync.WaitGroup }

// after takes the last steps when those of the batch before are done.
func (e *ending) after(steps func()) {
	e.steps.Wait()
	e.steps.Go(steps)
}

// recipientBytes is the longest recipient that is rejected by itself. What is
// longer, escaped as JSON, might not fit in a journal entry, and is no address
// by mistake.
const recipientBytes = 64 << 10

func recordable(recipients []envelope.Recipient) error {
	for i := range recipients {
		if n := len(recipients[i].Address); n > recipientBytes {
			return &envelope.FieldError{Field: fmt.Sprintf("recipients[%d]", i), Reason: fmt.Sprintf("has %d octets, which no address has", n)}
		}
	}
	return nil
}

// run is begin for a batch that could be decoded.
func (d *delivery) run(ctx, intake context.Context) (settle func()) {
	began := time.Now()
	var err error
	if d.state, err = d.journal.Read(ctx, d.campaign, d.id); err != nil {
		if _, broker := errors.AsType[*journal.BrokerError](err); broker {
			d.gate.shut(time.Now().Add(troubleDelay)) // other batches would fare no better
			d.journalTrouble(err)
			d.nak(ctx, troubleDelay)
			return nil
		}
		d.comeBack(ctx, err)
		return nil
	}
	d.deadline = began.Add(d.o.RetryFor)
	if !d.state.New() {
		d.deadline = d.state.FirstClaim.Add(d.o.RetryFor)
	}
	cancelled := d.campaigns.of(d.campaign) == subjects.CampaignCancelled
	plan, rest := d.plan(began, cancelled)
	if len(plan.Groups) == 0 && len(plan.Invalid) == 0 && len(rest.doubtful) == 0 {
		switch {
		case len(rest.deferred) > 0 && !cancelled:
			// Back before its time. Claiming it would only lengthen the journal.
			d.nak(ctx, time.Until(rest.due))
			return nil
		case len(rest.deferred) == 0 && d.state.Done:
			d.tell(ctx, d.msg.DoubleAck) // a repeated batch of which all is known
			return nil
		}
	}
	var message *envelope.Message
	if len(plan.Groups) > 0 && !cancelled {
		if message, err = d.messages.of(ctx, d.batch, d.place); err != nil {
			if fieldError, ok := errors.AsType[*envelope.FieldError](err); ok {
				d.unreadable(ctx, fieldError)
			} else {
				d.comeBack(ctx, err)
			}
			return nil
		}
	}
	a := newAttempt(d, plan.Groups, message, rest)
	if cancelled {
		a.stop(time.Time{}) // there is no message to send
	}
	if !d.lease.held() {
		d.letGo(ctx, errLate)
		return nil
	}
	if d.hold, err = d.journal.Claim(ctx, d.state, d.number, a.pause); err != nil {
		d.letGo(ctx, err)
		return nil
	}
	d.journalTrouble(nil)
	for _, invalid := range plan.Invalid {
		a.record(rejectedLocally(invalid.Err), []envelope.Recipient{invalid.Recipient})
	}
	for _, d := range rest.doubtful {
		a.record(d.Outcome, []envelope.Recipient{d.recipient})
	}
	tally := a.run(ctx, intake)
	return func() { d.settle(ctx, a, tally, began) }
}

// rest is the recipients of a batch that are not to be sent to in this attempt
// although they are not final, as published.
type rest struct {
	deferred map[string]deferred // by an earlier attempt, and not due yet
	due      time.Time           // the first of these
	doubtful map[string]deferred // announced by an earlier attempt that died
}

// plan leaves out of the batch what earlier attempts settled, and what rests.
func (d *delivery) plan(now time.Time, cancelled bool) (envelope.Plan, rest) {
	r := rest{deferred: make(map[string]deferred), doubtful: make(map[string]deferred)}
	if len(d.state.Results) == 0 && len(d.state.Announced) == 0 {
		return d.batch.Plan(nil), r
	}
	// By mailbox: the batch may have been published again in other spellings.
	known := make(map[string]string, len(d.state.Results)+len(d.state.Announced))
	for _, results := range []map[string]*subjects.Result{d.state.Announced, d.state.Results} {
		for published := range results {
			mailbox := published
			if a, err := envelope.ParseAddress(published); err == nil {
				mailbox = a.Mailbox
			}
			known[mailbox] = published
		}
	}
	late := !now.Before(d.deadline)
	plan := d.batch.Plan(func(mailbox string) bool {
		published, ok := known[mailbox]
		if !ok {
			return false
		}
		last, ok := d.state.Results[published]
		if last.Final() {
			return true
		}
		if announced, doubt := d.state.Announced[published]; doubt && d.o.InDoubt == Skip {
			r.doubtful[published] = deferred{envelope.Recipient{Address: published, Mailbox: mailbox}, subjects.Outcome{
				Status: subjects.InDoubt, Relay: announced.Relay, Code: doubtCode, Enhanced: doubtEnhanced,
				Text: "the worker was lost between the end of the data and the reply",
			}}
			return true
		}
		if !ok {
			return false
		}
		due := d.o.RetryDelays.Due(last.Attempt, last.Time)
		if !cancelled && (late || !now.Before(due)) {
			return false
		}
		if len(r.deferred) == 0 || due.Before(r.due) {
			r.due = due
		}
		r.deferred[published] = deferred{envelope.Recipient{Address: published, Mailbox: mailbox}, last.Outcome}
		return true
	})
	return plan, r
}

// laterDelay is how long a batch rests that only a later release can send.
const laterDelay = time.Minute

// leaveToOthers returns a batch to the queue for a worker of a release that
// knows its version.
func (d *delivery) leaveToOthers(ctx context.Context, why *envelope.VersionError) {
	if _, said := d.saidVersions.LoadOrStore(fmt.Sprint(d.campaign, " ", why.Version), true); !said {
		d.log.WarnContext(ctx, "batches of a later version stay in the queue for a worker that knows it", "campaign", d.campaign, "version", why.Version, "looked_at_again_in", laterDelay)
	}
	d.nak(ctx, laterDelay)
}

// comeBack returns a batch that could not be begun through no fault of its own.
func (d *delivery) comeBack(ctx context.Context, err error) {
	d.log.WarnContext(ctx, "batch not begun, it comes back", "campaign", d.campaign, "batch", d.id, "error", err, "again_in", troubleDelay)
	d.nak(ctx, troubleDelay)
}

// letGo leaves the batch to whoever holds it. It must be neither acked nor
// naked: the broker would take that for the holder's word.
func (d *delivery) letGo(ctx context.Context, err error) {
	d.log.WarnContext(ctx, "batch let go", "campaign", d.campaign, "batch", d.id, "reason", err)
}

func rejectedLocally(why error) subjects.Outcome {
	o := subjects.Outcome{Status: subjects.Rejected, Code: 554, Enhanced: "5.6.0", Text: "not sent: " + why.Error()}
	if a, ok := errors.AsType[*envelope.AddressError](why); ok {
		// The address itself stands beside it, and alike reasons share an entry.
		o.Code, o.Enhanced, o.Text = 553, "5.1.3", "not sent: "+a.Reason
	}
	return o
}
