package worker

import (
	"context"
	"sync"
	"time"

	"bulkmail/envelope"
	"bulkmail/relay"
	"bulkmail/relay/smtp"
	"bulkmail/subjects"
	"bulkmail/worker/journal"
)

const (
	// patience is how long a batch is kept in hand while no relay can take
	// anything; it goes back to the queue for longer than that.
	patience = 10 * time.Second
	// longestRest is for how long such a batch goes back at most.
	longestRest = time.Minute
	// What is recorded of a recipient in doubt. 4.4.2 is "bad connection".
	doubtCode     = 451
	doubtEnhanced = "4.4.2"
	// textBytes is how much of a reply's text is journalled.
	textBytes = 500
)

// An attempt offers the recipients of one batch to the relay pool, which cuts
// envelopes off it, and passes the results to the journal.
type attempt struct {
	*delivery
	message   *envelope.Message
	beforeEnd func(context.Context) error // of every envelope, unless recipients must be announced
	dsn       smtp.DSN

	mu        sync.Mutex               // guards what follows
	queue     []waiting                // groups with recipients left, in order
	flying    int                      // envelopes that are cut and not settled
	announced map[*relay.Envelope]bool // of these, those whose recipients are on record as sending
	calm      chan struct{}            // not nil: nothing may be cut or ended until it is closed
	stopped   bool                     // nothing more may be cut
	lost      bool                     // the batch may have a new holder
	until     time.Time                // when what waits may be tried again; zero: at once
	finished  chan struct{}
	over      bool // finished is closed

	counts   map[subjects.Status]int // of this attempt
	deferred map[string]reply        // by recipient; also those that rest
	due      time.Time               // of the first that rests; zero: none does
}

// waiting is the rest of a group, and what its recipients have been through.
type waiting struct {
	envelope.Group
	trail *relay.Trail
}

// reply is what makes results alike.
type reply struct {
	relay    string
	code     int
	enhanced string
	text     string
}

func (r reply) results(status subjects.Status, recipients []string) subjects.Results {
	return subjects.Results{Status: status, Relay: r.relay, Code: r.code, Enhanced: r.enhanced, Text: r.text, Recipients: recipients}
}

func newAttempt(d *delivery, groups []envelope.Group, message *envelope.Message, r rest) *attempt {
	a := &attempt{
		delivery:  d,
		message:   message,
		due:       r.due,
		queue:     make([]waiting, len(groups)),
		finished:  make(chan struct{}),
		announced: make(map[*relay.Envelope]bool),
		counts:    make(map[subjects.Status]int),
		deferred:  r.deferred,
	}
	a.beforeEnd = a.guard
	if asked := d.batch.DSN; asked != (envelope.DSN{}) {
		a.dsn = smtp.DSN{EnvelopeID: asked.EnvelopeID, Return: asked.Return, Notify: asked.Notify, OriginalRecipient: true}
	}
	for i, g := range groups {
		a.queue[i].Group = g
	}
	return a
}

// run offers the recipients to the pool until each has had its envelope, the
// worker drains (intake ends), the batch is no longer surely ours, its campaign
// stops, or no relay can take anything for long. Envelopes in flight always
// finish.
func (a *attempt) run(ctx, intake context.Context) Tally {
	if len(a.queue) > 0 {
		a.campaigns.begin(a) // first: a campaign that does not run sends nothing more
		a.pool.Add(a)
		select {
		case <-a.finished:
		case <-intake.Done():
			a.stop(time.Time{})
		case <-a.hold.Lost():
			a.lose()
		case <-a.lease.expired:
			a.log.WarnContext(ctx, "broker silent for an ack wait, no new envelopes", "campaign", a.campaign, "batch", a.id)
			a.lose()
		}
		a.campaigns.end(a)
		a.pool.Remove(a)
		<-a.finished
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	t := Tally{Deferred: len(a.deferred), Due: a.due, Until: a.until}
	if a.counts[subjects.Deferred] > 0 {
		due := time.Now().Add(a.o.RetryDelays.Jittered(a.hold.Attempt()))
		if t.Due.IsZero() || due.Before(t.Due) {
			t.Due = due
		}
	}
	for _, g := range a.queue {
		t.Waiting += g.Len()
	}
	return t
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
	a.journalTrouble(why)
	a.mu.Lock()
	switch {
	case why == nil && a.calm != nil:
		close(a.calm)
		a.calm = nil
	case why != nil && a.calm == nil:
		a.calm = make(chan struct{})
	}
	a.mu.Unlock()
	if why == nil {
		a.pool.Ready(a)
	}
}

// cancel gives what is left of the batch the outcome cancelled.
func (a *attempt) cancel() {
	left := make(map[reply][]string)
	a.mu.Lock()
	for recipient, r := range a.deferred {
		left[r] = append(left[r], recipient)
	}
	for _, g := range a.queue {
		left[reply{}] = append(left[reply{}], g.Addresses...)
	}
	a.mu.Unlock()
	for r, recipients := range left {
		a.record(r.results(subjects.Cancelled, recipients))
	}
}

// guard lets a message be ended only while the batch is surely ours and the
// journal can be written. It keeps an envelope that was cut before this process
// was stopped, or cut off from the broker, from being sent after somebody else
// took over.
func (a *attempt) guard(ctx context.Context) error {
	a.mu.Lock()
	calm := a.calm
	a.mu.Unlock()
	if calm != nil {
		select {
		case <-calm:
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
	if !a.lease.held() {
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
		a.announced[e] = true
		a.mu.Unlock()
		// Who was refused at RCPT has a verdict, and cannot be in doubt.
		taken := make([]string, 0, len(e.Addresses))
		for i, address := range e.Addresses {
			if e.Results[i].Reply == nil {
				taken = append(taken, address)
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
	if a.stopped || a.calm != nil {
		return 0
	}
	return len(a.queue)
}

// Cut implements [relay.Source].
func (a *attempt) Cut(g relay.Grant) *relay.Envelope {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.stopped || a.calm != nil || !a.lease.held() || !a.next(g) {
		return nil
	}
	trail := a.queue[0].trail
	cut := a.take(g)
	e := &relay.Envelope{
		Envelope: smtp.Envelope{
			From:       a.batch.From,
			Recipients: cut.Mailboxes,
			Message:    smtp.Guarded(a.message, a.beforeEnd),
			DSN:        a.dsn,
			Results:    make([]smtp.Result, cut.Len()),
		},
		Domain:    cut.Domain,
		Addresses: cut.Addresses,
		Trail:     trail,
	}
	if a.o.InDoubt == Skip {
		e.Message = smtp.Guarded(a.message, a.announce(g.Relay, e))
	}
	a.flying++
	return e
}

// Settle implements [relay.Source].
func (a *attempt) Settle(e *relay.Envelope, relayName string, _ error) {
	a.mu.Lock()
	announced := a.announced[e]
	delete(a.announced, e)
	a.mu.Unlock()
	var again []waiting
	groups := make([]subjects.Results, 0, 1)
	for i := 0; i < len(e.Results); {
		end := i + 1
		for end < len(e.Results) && e.Results[end] == e.Results[i] {
			end++
		}
		addresses := e.Addresses[i:end:end]
		status, r := a.outcome(e.Results[i], relayName, announced)
		if status == "" {
			again = leave(again, e.Recipients[i:end:end], addresses, e.TrailOf(i))
		} else {
			groups = append(groups, r.results(status, addresses))
		}
		i = end
	}
	for _, r := range groups {
		a.record(r)
	}

	a.mu.Lock()
	ready := len(again) > 0
	for _, w := range again {
		a.putBack(w.Group, w.trail)
	}
	a.flying--
	a.finish()
	ready = ready && !a.stopped && a.calm == nil
	a.mu.Unlock()
	if ready {
		a.pool.Ready(a)
	}
}

// record passes results to the journal and counts them.
func (a *attempt) record(r subjects.Results) {
	a.hold.Record(r)
	a.mu.Lock()
	defer a.mu.Unlock()
	a.counts[r.Status] += len(r.Recipients)
	if r.Status == subjects.Deferred {
		for _, address := range r.Recipients {
			a.deferred[address] = reply{r.Relay, r.Code, r.Enhanced, r.Text}
		}
	}
}

// outcome is what one result means to the journal; an empty status: nothing,
// the recipient is sent to again in this attempt, unless that was the last time.
// Recipients on record as sending are not put back: a worker that died now would
// leave them in doubt for good.
func (a *attempt) outcome(r smtp.Result, relayName string, last bool) (subjects.Status, reply) {
	said := reply{relay: relayName}
	if r.Reply != nil {
		said.code, said.enhanced, said.text = r.Reply.Code, r.Reply.Enhanced, r.Reply.Text
		if len(said.text) > textBytes {
			said.text = said.text[:textBytes]
		}
	}
	switch r.Status {
	case smtp.Accepted:
		return subjects.Accepted, said
	case smtp.Rejected:
		return subjects.Rejected, said
	case smtp.Deferred:
		return subjects.Deferred, said
	case smtp.InDoubt:
		if said.text == "" {
			said.code, said.enhanced, said.text = doubtCode, doubtEnhanced, "connection lost after the end of the data: it may have been accepted"
		}
		if a.o.InDoubt == Skip {
			return subjects.InDoubt, said
		}
		return subjects.Deferred, said
	case smtp.NotAttempted:
		if last {
			if said.text == "" {
				said.code, said.enhanced, said.text = doubtCode, doubtEnhanced, "not sent: the connection was lost"
			}
			return subjects.Deferred, said
		}
	}
	return "", said
}

// Stalled implements [relay.Source].
func (a *attempt) Stalled(until time.Time, why error) {
	now := time.Now()
	if until.IsZero() {
		until = now.Add(time.Minute) // somebody must act; look again in a while
	}
	if until.Sub(now) <= patience {
		return
	}
	if a.gate.shut(until) {
		a.log.Warn("no relay can take anything, pausing", "until", until.Round(time.Second), "reason", why)
	}
	// The gate keeps batches away for as long as it takes; one that lies about
	// for that long would not be there when it opens before its time.
	a.stop(earlier(until, now.Add(longestRest)))
}

func earlier(a, b time.Time) time.Time {
	if b.Before(a) {
		return b
	}
	return a
}
