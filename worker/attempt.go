package worker

import (
	"context"
	"sync"
	"sync/atomic"
	"time"

	"bulkmail/envelope"
	"bulkmail/relay"
	"bulkmail/relay/smtp"
	"bulkmail/subjects"
	"bulkmail/worker/journal"
)

const (
	// stallDelay is the longest that such a batch stays there. No worker pulls
	// before relays can take something, but that may change at any time, and the
	// batch has to be there then.
	stallDelay = time.Minute
	// textBytes is how much of a reply's text is journalled.
	textBytes = 500
)

// An attempt offers the recipients of one batch to the relay pool, which cuts
// envelopes off it, and passes the results to the journal.
type attempt struct {
	campaign string
	batch    string // its id
	hold     *journal.Hold
	lease    *lease
	pool     Pool
	policy   policy
	worker   *Worker // whose gate is shut while no relay can take anything

	published   *envelope.Batch
	letters     bool // each recipient gets one
	message     *mailing
	returnPaths *returnPaths                // guarded by mu
	beforeEnd   func(context.Context) error // of every envelope, unless recipients must be announced
	dsn         smtp.DSN
	deadline    time.Time // when what is deferred is given up
	gone        error     // not nil: why the message will never be had

	screened atomic.Uint64 // the version of the suppressions that the queue was compared with

	expiredBefore time.Time      // when somebody was given up in an earlier attempt; zero: nobody was
	doubts        map[string]int // by address: how many copies of earlier attempts they may have

	mu        sync.Mutex               // guards what follows
	queue     []waiting                // groups with recipients left, in order
	left      int                      // recipients in it
	flying    int                      // envelopes that are cut and not settled
	announced map[*relay.Envelope]bool // of these, those whose recipients are on record as sending
	writable  chan struct{}            // not nil: nothing may be cut or ended until it is closed, as the journal cannot be written
	stopped   bool                     // nothing more may be cut
	lost      bool                     // the batch may have a new holder
	until     time.Time                // when what waits may be tried again; zero: at once
	finished  chan struct{}
	over      bool // finished is closed

	counts   map[subjects.Status]int // of this attempt
	deferred map[string]deferred     // by address as published; also those that rest
	expired  []deferred              // given up, and not in a dead letter for sure
	due      time.Time               // of the first that rests; zero: none does
}

// waiting is the rest of a group, and what its recipients have been through.
type waiting struct {
	envelope.Group
	trail *relay.Trail
}

func (w *Worker) newAttempt(d *delivery, b *envelope.Batch, p plan, message *mailing) *attempt {
	a := &attempt{
		campaign: d.campaign, batch: d.batch, lease: d.lease, pool: w.pool, policy: w.policy, worker: w,
		published: b, letters: b.Letters(), message: message, deadline: p.deadline,
		due:     p.due,
		expired: p.expired, expiredBefore: p.expiredAt, doubts: p.doubts,
		queue:     make([]waiting, len(p.send)),
		finished:  make(chan struct{}),
		announced: make(map[*relay.Envelope]bool),
		counts:    make(map[subjects.Status]int),
		deferred:  make(map[string]deferred, len(p.rest)),
	}
	for _, r := range p.rest {
		a.deferred[r.recipient.Address] = r
	}
	a.beforeEnd = a.guard
	if asked := b.DSN; asked != (envelope.DSN{}) {
		a.dsn = smtp.DSN{EnvelopeID: asked.EnvelopeID, Return: asked.Return, Notify: asked.Notify, OriginalRecipient: true}
	}
	for i, g := range p.send {
		a.queue[i].Group = g
		a.left += g.Len()
	}
	return a
}

// recordPlanned records what was decided without sending.
func (a *attempt) recordPlanned(p plan) {
	for _, invalid := range p.reject {
		a.record(rejection(invalid.Err), []envelope.Recipient{invalid.Recipient})
	}
	for _, d := range p.suppress {
		a.record(d.Outcome, []envelope.Recipient{d.recipient})
	}
	for _, d := range p.doubtful {
		a.record(d.Outcome, []envelope.Recipient{d.recipient})
	}
}

// send offers the recipients to the pool until each has had its envelope, the
// worker drains (intake ends), the batch is no longer surely ours, its campaign
// stops, or no relay can take anything for long. Envelopes in flight always
// finish, unless a drain takes too long. It returns what is left.
func (a *attempt) send(ctx, intake context.Context) Tally {
	if len(a.queue) > 0 && intake.Err() == nil {
		a.worker.campaigns.begin(a) // first: a campaign that does not run sends nothing more
		a.pool.Add(a)
		select {
		case <-a.finished:
		case <-intake.Done():
			a.stop(time.Time{})
		case <-a.hold.Lost():
			a.lose()
		case <-a.lease.expired:
			a.worker.log.WarnContext(ctx, "broker silent for an ack wait, no new envelopes", "campaign", a.campaign, "batch", a.batch)
			a.lose()
		}
		a.worker.campaigns.end(a)
		a.pool.Remove(a)
		a.land()
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	t := Tally{Deferred: len(a.deferred), Due: a.due, Until: a.until}
	if a.counts[subjects.Deferred] > 0 {
		due := time.Now().Add(a.policy.RetryDelays.Jittered(a.hold.Attempt()))
		if t.Due.IsZero() || due.Before(t.Due) {
			t.Due = due
		}
	}
	for _, g := range a.queue {
		t.Waiting += g.Len()
	}
	return t
}

// land waits until every envelope in flight is settled.
func (a *attempt) land() {
	select {
	case <-a.finished:
		return
	default:
	}
	select {
	case <-a.finished:
	case <-a.worker.overdue:
		a.worker.aborted.Add(1)
		a.pool.Abort(a)
		<-a.finished
	}
}

// stop keeps anything more from being cut. What waits may be tried again at
// until.
func (a *attempt) stop(until time.Time) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.stopped, a.until = true, until
	a.finish()
}

// lose stops an attempt whose batch may have a new holder.
func (a *attempt) lose() {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.stopped, a.lost = true, true
	a.finish()
}

func (a *attempt) isLost() bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.lost
}

// pause keeps anything more from being cut, and messages from being ended,
// while the journal cannot be written: what cannot be recorded must not pile up.
// why is nil when it can again.
func (a *attempt) pause(why error) {
	a.worker.journalTrouble(why)
	a.mu.Lock()
	switch {
	case why == nil && a.writable != nil:
		close(a.writable)
		a.writable = nil
	case why != nil && a.writable == nil:
		a.writable = make(chan struct{})
	}
	a.mu.Unlock()
	if why == nil {
		a.pool.Ready(a)
	}
}

// giveUp defers for good who is not final, for the message will never be had.
func (a *attempt) giveUp(why error) {
	never := rejection(why)
	never.Status = subjects.Deferred
	for _, g := range a.queue {
		for _, r := range g.Recipients {
			a.deferred[r.Address] = deferred{r, never}
		}
	}
	a.queue, a.due, a.gone = nil, time.Time{}, why
	a.deadline = time.Time{} // all is over
}

// expire gives what is deferred the outcome expired, or in doubt.
func (a *attempt) expire() {
	left := make(map[subjects.Outcome][]envelope.Recipient)
	for _, d := range a.deferred {
		d.Outcome = a.finally(d, subjects.Expired)
		left[d.Outcome] = append(left[d.Outcome], d.recipient)
		if d.Status == subjects.Expired {
			a.expired = append(a.expired, d)
		}
	}
	for o, recipients := range left {
		a.record(o, recipients)
	}
}

// cancel gives what is left of the batch the outcome cancelled, or in doubt.
func (a *attempt) cancel() {
	left := make(map[subjects.Outcome][]envelope.Recipient)
	a.mu.Lock()
	for _, d := range a.deferred {
		o := a.finally(d, subjects.Cancelled)
		left[o] = append(left[o], d.recipient)
	}
	unsent := subjects.Outcome{Status: subjects.Cancelled}
	for _, g := range a.queue {
		left[unsent] = append(left[unsent], g.Recipients...)
	}
	a.mu.Unlock()
	for o, recipients := range left {
		a.record(o, recipients)
	}
}

// guard lets a message be ended only while the batch is surely ours and the
// journal can be written. It keeps an envelope that was cut before this process
// was stopped, or cut off from the broker, from being sent after somebody else
// took over.
func (a *attempt) guard(ctx context.Context) error {
	a.mu.Lock()
	writable := a.writable
	a.mu.Unlock()
	if writable != nil {
		select {
		case <-writable:
		case <-a.hold.Lost():
		case <-a.lease.expired:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	select {
	case <-a.hold.Lost():
		return journal.ErrFenced
	default:
	}
	if !a.lease.held() || !a.hold.Held() {
		return journal.ErrFenced
	}
	return nil
}

// announce is guard for IN_DOUBT=skip: the recipients are on record before
// anybody could have accepted them.
func (a *attempt) announce(relayName string, e *relay.Envelope) func(context.Context) error {
	return func(ctx context.Context) error {
		if err := a.guard(ctx); err != nil {
			return err
		}
		a.mu.Lock()
		again := a.announced[e]
		a.announced[e] = true
		a.mu.Unlock()
		if again {
			return nil // the message takes long to leave: asked before its end
		}
		// Who was refused at RCPT has a verdict, and cannot be in doubt.
		taken := make([]envelope.Recipient, 0, len(e.Recipients))
		for i, r := range e.Recipients {
			if e.Results[i].Reply == nil {
				taken = append(taken, r)
			}
		}
		if err := a.hold.Sending(ctx, relayName, taken); err != nil {
			return err
		}
		return a.guard(ctx) // that may have taken long
	}
}

// finish closes finished if nothing can happen any more. The caller holds mu.
func (a *attempt) finish() {
	if !a.over && a.flying == 0 && (a.stopped || len(a.queue) == 0) {
		a.over = true
		close(a.finished)
	}
}

// Pending implements [relay.Source].
func (a *attempt) Pending() int {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.stopped || a.writable != nil {
		return 0
	}
	if a.letters {
		return a.left
	}
	return len(a.queue)
}

// Cut implements [relay.Source].
func (a *attempt) Cut(g relay.Grant) *relay.Envelope {
	a.screen()
	if a.letters {
		g.Messages = 1
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.stopped || a.writable != nil || !a.lease.held() || !a.next(g) {
		return nil
	}
	trail := a.queue[0].trail
	cut := a.take(g)
	a.left -= cut.Len()
	guard := a.beforeEnd
	e := &relay.Envelope{
		Envelope: smtp.Envelope{
			From:       a.sender(g, cut.Recipients),
			Recipients: cut.Recipients,
			DSN:        a.dsn,
			Results:    make([]smtp.Result, cut.Len()),
		},
		Domain: cut.Domain,
		Trail:  trail,
	}
	if a.policy.InDoubt == Skip {
		guard = a.announce(g.Relay, e)
	}
	e.Message = smtp.Made(a.message.source(g, cut.Recipients), guard)
	a.flying++
	return e
}

// Settle implements [relay.Source].
func (a *attempt) Settle(e *relay.Envelope, relayName string, _ error) {
	release(e)
	a.mu.Lock()
	announced := a.announced[e]
	delete(a.announced, e)
	a.mu.Unlock()
	var again []waiting
	for i := 0; i < len(e.Results); {
		end := i + 1
		for end < len(e.Results) && e.Results[end] == e.Results[i] {
			end++
		}
		alike := e.Recipients[i:end:end]
		switch o := a.outcome(e.Results[i], relayName, announced); {
		case o.Status == "":
			again = leave(again, alike, e.TrailOf(i))
		case o.InDoubt:
			a.recordDoubtful(o, alike)
		default:
			a.record(o, alike)
		}
		i = end
	}

	a.mu.Lock()
	ready := len(again) > 0
	for _, w := range again {
		a.putBack(w.Group, w.trail)
	}
	a.flying--
	a.finish()
	ready = ready && !a.stopped && a.writable == nil
	a.mu.Unlock()
	if ready {
		a.pool.Ready(a)
	}
}

// record passes results to the journal and counts them.
func (a *attempt) record(o subjects.Outcome, recipients []envelope.Recipient) {
	a.hold.Record(o, recipients)
	a.mu.Lock()
	defer a.mu.Unlock()
	a.counts[o.Status] += len(recipients)
	if o.Status == subjects.Deferred {
		for _, r := range recipients {
			a.deferred[r.Address] = deferred{r, o}
		}
	}
}

// outcome is what one result means to the journal; an empty status: nothing,
// the recipient is sent to again in this attempt, unless that was the last time.
// Recipients on record as sending are not put back: a worker that died now would
// leave them in doubt for good.
func (a *attempt) outcome(r smtp.Result, relayName string, last bool) subjects.Outcome {
	o := subjects.Outcome{Relay: relayName}
	if r.Reply != nil {
		if r.Reply.Command == madeHere {
			o.Relay = "" // it has heard nothing of it
		}
		o.Code, o.Enhanced, o.Text = r.Reply.Code, r.Reply.Enhanced, r.Reply.Text
		if len(o.Text) > textBytes {
			o.Text = o.Text[:textBytes]
		}
	}
	switch r.Status {
	case smtp.Accepted:
		o.Status = subjects.Accepted
	case smtp.Rejected:
		o.Status = subjects.Rejected
	case smtp.Deferred:
		o.Status = subjects.Deferred
	case smtp.InDoubt:
		if o.Text == "" {
			o.Code, o.Enhanced, o.Text = doubtCode, doubtEnhanced, "connection lost after the end of the data: it may have been accepted"
		}
		o.Status, o.InDoubt = subjects.Deferred, true
		if a.policy.InDoubt == Skip {
			o.Status, o.InDoubt = subjects.InDoubt, false
		}
	case smtp.NotAttempted:
		if last {
			if o.Text == "" {
				o.Code, o.Enhanced, o.Text = doubtCode, doubtEnhanced, "not sent: the connection was lost"
			}
			o.Status = subjects.Deferred
		}
	}
	return o
}

// Stalled implements [relay.Source].
func (a *attempt) Stalled(until time.Time, why error) {
	now := time.Now()
	if until.IsZero() {
		until = now.Add(time.Minute) // somebody must act; look again in a while
	}
	if until.Sub(now) <= a.worker.waits.stall {
		return
	}
	if a.worker.gate.shut(until) {
		a.worker.log.Warn("no relay can take anything, pausing", "until", until.Round(time.Second), "reason", why)
	}
	if latest := now.Add(stallDelay); latest.Before(until) {
		until = latest
	}
	a.deferStumbled()
	a.stop(until)
}
