package worker

import (
	"context"
	"errors"
	"sync"
	"time"

	"bulkmail/envelope"
	"bulkmail/relay"
	"bulkmail/relay/smtp"
	"bulkmail/subjects"
)

const (
	// patience is how long a batch is kept in hand while no relay can take
	// anything; it goes back to the queue for longer than that.
	patience = 10 * time.Second
	// maxTries is how many times an envelope may be cut short by a lost
	// connection within one attempt. It might be what breaks the connection.
	maxTries = 3
	// textBytes is how much of a reply's text is journalled.
	textBytes = 500
)

// An attempt offers the recipients of one batch to the relay pool, which cuts
// envelopes off it, and passes the results to the journal.
type attempt struct {
	*delivery
	message *envelope.Message

	mu       sync.Mutex              // guards what follows
	queue    []waiting               // groups with recipients left, in order
	flying   int                     // envelopes that are cut and not settled
	tries    map[*relay.Envelope]int // of these, those with recipients that were cut before in vain
	stopped  bool                    // nothing more may be cut
	until    time.Time               // when a relay can take what waits; zero: not known to be stalled
	finished chan struct{}
	over     bool

	counts   map[subjects.Status]int // of this attempt
	deferred map[string]reply        // by recipient; also those that rest
	due      time.Time               // of the first that rests; zero: none does
}

// waiting is the rest of a group, and how often envelopes of it were cut short.
type waiting struct {
	envelope.Group
	tries int
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

func newAttempt(d *delivery, groups []envelope.Group, message *envelope.Message, rest resting) *attempt {
	a := &attempt{
		delivery: d,
		message:  message,
		due:      rest.due,
		queue:    make([]waiting, len(groups)),
		finished: make(chan struct{}),
		tries:    make(map[*relay.Envelope]int),
		counts:   make(map[subjects.Status]int),
		deferred: rest.replies,
	}
	if a.deferred == nil {
		a.deferred = make(map[string]reply)
	}
	for i, g := range groups {
		a.queue[i].Group = g
	}
	return a
}

// run offers the recipients to the pool until each has had its envelope, the
// worker drains (intake ends), the hold is lost, or no relay can take anything
// for long. Envelopes in flight always finish.
func (a *attempt) run(intake context.Context) Tally {
	if len(a.queue) > 0 {
		a.pool.Add(a)
		select {
		case <-a.finished:
		case <-intake.Done():
			a.stop()
		case <-a.hold.Lost():
			a.stop()
		}
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

// stop keeps anything more from being cut.
func (a *attempt) stop() {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.stopped = true
	a.finish()
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
	if a.stopped {
		return 0
	}
	return len(a.queue)
}

// Cut implements [relay.Source].
func (a *attempt) Cut(g relay.Grant) *relay.Envelope {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.stopped || len(a.queue) == 0 {
		return nil
	}
	head := &a.queue[0]
	cut := head.Cut(g.Messages)
	e := &relay.Envelope{
		Envelope: smtp.Envelope{
			From:       a.batch.From,
			Recipients: cut.Mailboxes,
			Message:    a.message,
			Results:    make([]smtp.Result, cut.Len()),
		},
		Domain:    cut.Domain,
		Addresses: cut.Addresses,
	}
	if head.tries > 0 {
		a.tries[e] = head.tries
	}
	if head.Len() == 0 {
		a.queue = a.queue[1:]
	}
	a.flying++
	return e
}

// Settle implements [relay.Source].
func (a *attempt) Settle(e *relay.Envelope, relayName string, err error) {
	a.mu.Lock()
	tries := a.tries[e]
	delete(a.tries, e)
	a.mu.Unlock()
	if broke, ok := errors.AsType[*smtp.Error](err); ok && !broke.Unwell {
		tries++
	}
	var again waiting
	groups := make([]subjects.Results, 0, 1)
	for i := 0; i < len(e.Results); {
		end := i + 1
		for end < len(e.Results) && e.Results[end] == e.Results[i] {
			end++
		}
		addresses := e.Addresses[i:end:end]
		status, r := a.outcome(e.Results[i], relayName, tries)
		if status == "" {
			again.Mailboxes = append(again.Mailboxes, e.Recipients[i:end]...)
			again.Addresses = append(again.Addresses, addresses...)
		} else {
			groups = append(groups, r.results(status, addresses))
		}
		i = end
	}
	for _, r := range groups {
		a.record(r)
	}

	a.mu.Lock()
	ready := again.Len() > 0
	if ready {
		again.Domain, again.tries = e.Domain, tries
		a.queue = append(a.queue, again)
	}
	a.flying--
	a.finish()
	ready = ready && !a.stopped
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
// the recipient is sent to again in this attempt.
func (a *attempt) outcome(r smtp.Result, relayName string, tries int) (subjects.Status, reply) {
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
			said.code, said.enhanced, said.text = 451, "4.4.2", "connection lost after the end of the data: it may have been accepted"
		}
		if a.o.InDoubt == Skip {
			return subjects.InDoubt, said
		}
		return subjects.Deferred, said
	case smtp.NotAttempted:
		if tries >= maxTries {
			if said.text == "" {
				said.code, said.enhanced, said.text = 451, "4.4.2", "not sent: the connection was lost each time"
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
	for {
		known := a.stalledUntil.Load()
		if until.UnixNano() <= known {
			break
		}
		if a.stalledUntil.CompareAndSwap(known, until.UnixNano()) {
			a.log.WarnContext(a.base, "no relay can take anything, pausing", "until", until.Round(time.Second), "reason", why)
			break
		}
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	a.until = until
	a.stopped = true
	a.finish()
}
