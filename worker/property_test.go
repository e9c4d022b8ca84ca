package worker_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"
	"pgregory.net/rapid"

	"bulkmail/envelope"
	"bulkmail/subjects"
	"bulkmail/worker"
	"bulkmail/worker/journal"
)

// For any interleaving of two owners, replies, crashes and
// redeliveries each recipient ends in one final outcome, and none is begun after
// it is settled.
//
// The queue, the owners and the relay are the model's, the journal and the
// verdict are real, and so is the broker under the journal. An owner may begin
// an envelope only while its lease lasts, and the queue gives a batch to
// somebody else only after that; its appends and replies may come at any time
// after.
func TestAnyInterleavingEndsInOneOutcomeForEach(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	journals := [2]*journal.Journal{}
	for i := range journals {
		var err error
		if journals[i], err = journal.New(t.Context(), h.js, h.names, fmt.Sprint("w", i)); err != nil {
			t.Fatal(err)
		}
	}
	batches := 0
	rapid.Check(t, func(rt *rapid.T) {
		batches++
		m := &model{
			T: rt, ctx: t.Context(), js: h.js, names: h.names, journals: journals,
			batch: fmt.Sprint("b", batches), sequence: uint64(batches),
			inDoubt:  rapid.SampledFrom([]worker.InDoubt{worker.Resend, worker.Skip}).Draw(rt, "in doubt"),
			taken:    make(map[string]int),
			doubts:   make(map[string]int),
			patience: rapid.IntRange(1, 6).Draw(rt, "attempts until expiry"),
		}
		defer m.abandon() // a run may be broken off
		for i := range rapid.IntRange(1, 8).Draw(rt, "recipients") {
			m.recipients = append(m.recipients, fmt.Sprint("r", i))
		}
		rt.Repeat(map[string]func(*rapid.T){
			"deliver":    m.deliver,
			"begin":      m.begin,
			"reply":      m.reply,
			"lose reply": m.loseReply,
			"settle":     m.settle,
			"die":        m.die,
			"lose lease": m.loseLease,
			"republish":  m.republish,
		})
		m.calm()
		m.check()
	})
}

// An owner is a worker with a hold on the batch.
type owner struct {
	hold     *journal.Hold
	lease    bool
	delivery int // of the queue
	waiting  []string
	flying   []string // begun, no reply yet
	deferred []string
	begun    []string // all of this attempt
}

type model struct {
	*rapid.T
	ctx        context.Context
	js         jetstream.JetStream
	names      subjects.Names
	journals   [2]*journal.Journal
	batch      string
	sequence   uint64
	inDoubt    worker.InDoubt
	recipients []string
	patience   int // the batch expires in this attempt

	owners [2]*owner // the newest hold of each worker; nil: none
	old    []*owner  // holds whose lease was lost and whose worker lives on
	count  int       // deliveries
	held   bool      // the last delivery is somebody's
	acked  bool
	taken  map[string]int // by the relay
	doubts map[string]int // how often it could not be known whether it was
}

// settled reads the journal as it is on the broker, past all caches, and
// returns what is final. It fails if anything became final twice.
func (m *model) settled() map[string]subjects.Status {
	final := make(map[string]subjects.Status)
	stream, err := m.js.Stream(m.ctx, m.names.OutcomesStream())
	if err != nil {
		m.Fatal(err)
	}
	subject := m.names.Outcomes("c", m.batch)
	for next := uint64(1); ; {
		msg, err := stream.GetMsg(m.ctx, next, jetstream.WithGetMsgSubject(subject))
		if errors.Is(err, jetstream.ErrMsgNotFound) {
			return final
		}
		if err != nil {
			m.Fatal(err)
		}
		next = msg.Sequence + 1
		var e subjects.Entry
		if err := json.Unmarshal(msg.Data, &e); err != nil {
			m.Fatal(err)
		}
		if e.Event == subjects.Sending {
			continue
		}
		for _, r := range e.Results {
			for _, recipient := range r.Recipients {
				if was, ok := final[recipient]; ok {
					m.Fatalf("%s is %s after it was %s", recipient, r.Status, was)
				}
				if r.Status.Final() {
					final[recipient] = r.Status
				}
			}
		}
	}
}

// deliver gives the batch to one of the workers, which claims it.
func (m *model) deliver(t *rapid.T) {
	if m.acked || m.held {
		return
	}
	m.claim(rapid.IntRange(0, 1).Draw(t, "to"))
}

func (m *model) claim(to int) {
	m.count++
	m.held = true
	if was := m.owners[to]; was != nil {
		m.old = append(m.old, was)
	}
	m.owners[to] = nil
	s, err := m.journals[to].Read(m.ctx, "c", m.batch)
	if err != nil {
		m.Fatal(err)
	}
	o := &owner{lease: true, delivery: m.count}
	var doubtful []string
	for _, r := range m.recipients {
		known := s.Results[r]
		_, announced := s.Announced[r]
		switch {
		case known.Final():
		case announced && m.inDoubt == worker.Skip:
			doubtful = append(doubtful, r)
		default:
			o.waiting = append(o.waiting, r)
		}
	}
	if len(o.waiting)+len(doubtful) == 0 && s.Done {
		m.acked = true
		return
	}
	o.hold, err = m.journals[to].Claim(m.ctx, s, journal.Delivery{Sequence: m.sequence, Count: uint64(m.count)}, nil)
	if errors.Is(err, journal.ErrFenced) {
		m.held = false // let go; it comes back
		return
	}
	if err != nil {
		m.Fatal(err)
	}
	if len(doubtful) > 0 {
		o.hold.Record(subjects.Outcome{Status: subjects.InDoubt}, envelope.To(doubtful...))
	}
	m.owners[to] = o
}

// holder draws an owner that does, if one does.
func (m *model) holder(t *rapid.T, does func(*owner) bool) *owner {
	var all []*owner
	for _, o := range append(slices.Clone(m.old), m.owners[:]...) {
		if o != nil && does(o) {
			all = append(all, o)
		}
	}
	if len(all) == 0 {
		return nil
	}
	return rapid.SampledFrom(all).Draw(t, "owner")
}

// begin begins an envelope.
func (m *model) begin(t *rapid.T) {
	o := m.holder(t, func(o *owner) bool { return o.lease && len(o.waiting) > 0 })
	if o == nil {
		return
	}
	m.send(o, rapid.IntRange(1, len(o.waiting)).Draw(t, "recipients"))
}

func (m *model) send(o *owner, n int) {
	select {
	case <-o.hold.Lost():
		return // what a worker looks at before each envelope
	default:
	}
	sent := o.waiting[:n]
	if m.inDoubt == worker.Skip {
		if err := o.hold.Sending(m.ctx, "relay", envelope.To(sent...)); err != nil {
			return
		}
	}
	settled := m.settled()
	for _, r := range sent {
		if status, ok := settled[r]; ok {
			m.Fatalf("%s is sent to although it is %s", r, status)
		}
	}
	o.waiting = o.waiting[n:]
	o.flying = append(o.flying, sent...)
	o.begun = append(o.begun, sent...)
}

// reply has the relay answer one recipient, also to who lost the batch.
func (m *model) reply(t *rapid.T) {
	if o := m.holder(t, func(o *owner) bool { return len(o.flying) > 0 }); o != nil {
		m.answer(o, rapid.SampledFrom([]subjects.Status{subjects.Accepted, subjects.Rejected, subjects.Deferred}).Draw(t, "status"))
	}
}

func (m *model) answer(o *owner, status subjects.Status) {
	r := o.flying[0]
	o.flying = o.flying[1:]
	switch status {
	case subjects.Accepted:
		m.taken[r]++
	case subjects.Deferred:
		o.deferred = append(o.deferred, r)
	}
	o.hold.Record(subjects.Outcome{Status: status, Relay: "relay"}, envelope.To(r))
}

// loseReply is a connection that ends before the relay's answer arrives.
func (m *model) loseReply(t *rapid.T) {
	o := m.holder(t, func(o *owner) bool { return len(o.flying) > 0 })
	if o == nil {
		return
	}
	r := o.flying[0]
	o.flying = o.flying[1:]
	m.taken[r]++
	m.doubts[r]++
	status := subjects.Deferred
	if m.inDoubt == worker.Skip {
		status = subjects.InDoubt
	} else {
		o.deferred = append(o.deferred, r)
	}
	o.hold.Record(subjects.Outcome{Status: status, Relay: "relay"}, envelope.To(r))
}

// settle ends an attempt as the verdict says.
func (m *model) settle(t *rapid.T) {
	if o := m.holder(t, func(o *owner) bool { return len(o.flying) == 0 }); o != nil {
		m.end(o)
	}
}

func (m *model) end(o *owner) {
	now := time.Unix(0, 0)
	deadline := now.Add(time.Hour)
	if o.hold.Attempt() >= m.patience {
		deadline = now
	}
	v := worker.Decide(worker.Tally{Deferred: len(o.deferred), Waiting: len(o.waiting)}, deadline, now)
	if v.Action == worker.Expire {
		o.hold.Record(subjects.Outcome{Status: subjects.Expired}, envelope.To(o.deferred...))
	}
	err := o.hold.Close(m.ctx, v.Action != worker.Nak)
	m.forget(o)
	switch {
	case errors.Is(err, journal.ErrFenced):
		m.freed(o) // let go; it comes back
	case err != nil:
		m.Fatal(err)
	case v.Action == worker.Nak:
		m.freed(o)
	default:
		m.acked = true
	}
}

// die ends a worker without a word. What it had given to the journal may have
// been written or not.
func (m *model) die(t *rapid.T) {
	if o := m.holder(t, func(*owner) bool { return true }); o != nil {
		m.kill(o)
	}
}

func (m *model) kill(o *owner) {
	for _, r := range o.flying {
		m.taken[r]++ // for all that is known
	}
	m.doubt(o)
	dead, cancel := context.WithCancel(m.ctx)
	cancel()
	_ = o.hold.Close(dead, false)
	m.forget(o)
	m.freed(o)
}

// loseLease is an ack wait without a sign of life; the worker lives on.
func (m *model) loseLease(t *rapid.T) {
	if o := m.holder(t, func(o *owner) bool { return o.lease }); o != nil {
		o.lease = false
		m.doubt(o)
		m.freed(o)
	}
}

// doubt: what an owner began and what of that is not in the journal yet, only
// it knows.
func (m *model) doubt(o *owner) {
	settled := m.settled()
	for _, r := range o.begun {
		if _, ok := settled[r]; !ok {
			m.doubts[r]++
		}
	}
}

// republish puts the batch on the queue again when it has left it.
func (m *model) republish(*rapid.T) {
	if !m.acked || m.sequence > 1<<40 {
		return
	}
	m.sequence += 1 << 41
	m.acked, m.held = false, false
}

// freed puts the batch back on the queue, unless a later delivery is under way.
func (m *model) freed(o *owner) {
	if o.delivery == m.count {
		m.held = false
	}
}

func (m *model) forget(o *owner) {
	for i := range m.owners {
		if m.owners[i] == o {
			m.owners[i] = nil
		}
	}
	m.old = slices.DeleteFunc(m.old, func(p *owner) bool { return p == o })
}

// abandon closes the holds that are left, without a word to the broker.
func (m *model) abandon() {
	dead, cancel := context.WithCancel(m.ctx)
	cancel()
	for _, o := range append(slices.Clone(m.old), m.owners[:]...) {
		if o != nil {
			_ = o.hold.Close(dead, false)
		}
	}
}

// calm lets whoever lives die and a kind relay serve the rest.
func (m *model) calm() {
	for _, o := range append(slices.Clone(m.old), m.owners[:]...) {
		if o != nil {
			m.kill(o)
		}
	}
	for range 3 {
		if m.acked {
			return
		}
		m.held = false
		m.claim(0)
		o := m.owners[0]
		if o == nil {
			continue
		}
		m.send(o, len(o.waiting))
		for len(o.flying) > 0 {
			m.answer(o, subjects.Accepted)
		}
		m.end(o)
	}
	if !m.acked {
		m.Fatal("the batch does not leave the queue although its relay is kind")
	}
}

func (m *model) check() {
	settled := m.settled()
	for _, r := range m.recipients {
		status, ok := settled[r]
		if !ok {
			m.Errorf("%s has no final outcome", r)
		}
		if status == subjects.Accepted && m.taken[r] == 0 {
			m.Errorf("%s is accepted, and no relay took it", r)
		}
		if m.taken[r] > 1+m.doubts[r] {
			m.Errorf("%s was taken %d times, and in doubt %d times", r, m.taken[r], m.doubts[r])
		}
		if m.inDoubt == worker.Skip && m.taken[r] > 1 {
			m.Errorf("%s was taken %d times: not at most once", r, m.taken[r])
		}
	}
	if len(settled) != len(m.recipients) {
		m.Errorf("the journal knows %v of %v", settled, m.recipients)
	}
	s, err := m.journals[1].Read(m.ctx, "c", m.batch)
	if err != nil {
		m.Fatal(err)
	}
	if !s.Done {
		m.Error("the batch has left the queue and its journal is not done")
	}
}
