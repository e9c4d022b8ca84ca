package relay

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"bulkmail/envelope"
	"bulkmail/relay/smtp"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var kind = &smtp.Reply{Code: 250, Enhanced: "2.0.0", Text: "ok", Command: "END"}

// recorder is a relay in memory that accepts everything after a while, unless
// told otherwise, and writes down what it was given.
type recorder struct {
	latency   time.Duration // of one envelope
	dialTime  time.Duration
	dialSlow  func(n int) time.Duration           // instead of dialTime, of the nth dial, from 1
	slow      func(session int) time.Duration     // instead of latency
	dial      func(n int) error                   // of the nth dial, from 1; nil: fine
	reply     func(n int, e *smtp.Envelope) error // of the nth envelope, from 1: sets the results; nil: all accepted
	most      int                                 // MaxRecipients
	idleLimit time.Duration                       // the server closes sessions that were idle for so long
	survives  bool                                // a session goes on after an error
	overlap   bool                                // ask for the envelope to follow
	hold      chan struct{}                       // if not nil, envelopes wait until it is closed
	mu        sync.Mutex
	dials     int
	open      int
	mostOpen  int
	said      int // QUIT
	sent      []sending
}

// sending is one envelope as a recorder met it.
type sending struct {
	at         time.Time // when it was answered
	began      time.Time
	session    int
	recipients []string
	followed   bool // handed out by next
}

type recorderSession struct {
	r        *recorder
	no       int
	dead     bool
	used     time.Time
	promised *smtp.Envelope
}

func (r *recorder) Dial(ctx context.Context) (Session, error) {
	r.mu.Lock()
	r.dials++
	n := r.dials
	r.mu.Unlock()
	wait := r.dialTime
	if r.dialSlow != nil {
		wait = r.dialSlow(n)
	}
	if err := pause(ctx, wait); err != nil {
		return nil, err
	}
	if r.dial != nil {
		if err := r.dial(n); err != nil {
			return nil, err
		}
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.open++
	r.mostOpen = max(r.mostOpen, r.open)
	return &recorderSession{r: r, no: n, used: time.Now()}, nil
}

func pause(ctx context.Context, d time.Duration) error {
	if d <= 0 {
		return ctx.Err()
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (s *recorderSession) Send(ctx context.Context, e *smtp.Envelope, next func() *smtp.Envelope) error {
	began := time.Now()
	e.Results = make([]smtp.Result, len(e.Recipients))
	followed := s.promised != nil
	if followed && s.promised != e {
		panic("another envelope than the one promised to follow")
	}
	s.promised = nil
	if s.dead {
		return &smtp.Error{MBS: "MBS009"}
	}
	if limit := s.r.idleLimit; limit > 0 && began.Sub(s.used) >= limit {
		s.dead = true
		return &smtp.Error{MBS: "MBS009", Unwell: true}
	}
	defer func() { s.used = time.Now() }()
	if s.r.overlap && next != nil {
		s.promised = next()
	}
	if s.r.hold != nil {
		select {
		case <-s.r.hold:
		case <-ctx.Done():
			s.dead = true
			return &smtp.Error{MBS: "MBS009", Err: ctx.Err()}
		}
	}
	wait := s.r.latency
	if s.r.slow != nil {
		wait = s.r.slow(s.no)
	}
	if err := pause(ctx, wait); err != nil {
		s.dead = true
		return &smtp.Error{MBS: "MBS009", Err: err}
	}
	s.r.mu.Lock()
	defer s.r.mu.Unlock()
	s.r.sent = append(s.r.sent, sending{time.Now(), began, s.no, mailboxes(e.Recipients), followed})
	if s.r.reply != nil {
		err := s.r.reply(len(s.r.sent), e)
		s.dead = err != nil && !s.r.survives
		return err
	}
	answer(e, smtp.Accepted)
	return nil
}

func mailboxes(recipients []envelope.Recipient) []string {
	list := make([]string, len(recipients))
	for i, r := range recipients {
		list[i] = r.Mailbox
	}
	return list
}

func answer(e *smtp.Envelope, status smtp.Status) {
	for i := range e.Results {
		e.Results[i] = smtp.Result{Status: status, Reply: kind}
	}
}

func (s *recorderSession) Usable() bool       { return !s.dead }
func (s *recorderSession) MaxRecipients() int { return s.r.most }
func (s *recorderSession) Close() error {
	s.r.mu.Lock()
	defer s.r.mu.Unlock()
	s.r.open--
	if !s.dead {
		s.r.said++
	}
	return nil
}

func (r *recorder) messages() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	n := 0
	for _, s := range r.sent {
		n += len(s.recipients)
	}
	return n
}

func (r *recorder) dialed() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.dials
}

func (r *recorder) envelopes() []sending {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.sent)
}

// list is a source: one batch of made-up recipients, all of one domain.
type list struct {
	pool    *Pool
	id      string
	message *envelope.Message // nil for relays that do not look

	mu       sync.Mutex
	queue    []string
	settled  map[string]int
	by       map[string]int // accepted, by relay
	status   map[smtp.Status]int
	errs     []error
	stalls   []stalledAt
	left     int
	finished chan struct{}
	once     sync.Once
}

type stalledAt struct {
	at, until time.Time
	why       error
}

func newList(p *Pool, id string, n int) *list {
	l := &list{
		pool: p, id: id, left: n,
		settled: map[string]int{}, by: map[string]int{}, status: map[smtp.Status]int{},
		finished: make(chan struct{}),
	}
	for i := range n {
		l.queue = append(l.queue, fmt.Sprintf("%s-%d@example.net", id, i))
	}
	return l
}

func (l *list) Pending() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return (len(l.queue) + 99) / 100
}

func (l *list) Cut(g Grant) *Envelope {
	l.mu.Lock()
	defer l.mu.Unlock()
	n := min(g.Messages, len(l.queue))
	if n == 0 {
		return nil
	}
	cut := l.queue[:n:n]
	l.queue = l.queue[n:]
	return &Envelope{Envelope: smtp.Envelope{From: "news@example.com", Recipients: envelope.To(cut...), Message: smtp.Guarded(l.message, nil)}, Domain: "example.net"}
}

func (l *list) Settle(e *Envelope, relay string, err error) {
	l.mu.Lock()
	again := false
	if err != nil {
		l.errs = append(l.errs, err)
	}
	for i, r := range e.Results {
		if r.Status == smtp.NotAttempted {
			l.queue = append(l.queue, e.Recipients[i].Mailbox)
			again = true
			continue
		}
		l.settled[e.Recipients[i].Mailbox]++
		l.status[r.Status]++
		if r.Status == smtp.Accepted {
			l.by[relay]++
		}
		l.left--
	}
	done := l.left == 0
	l.mu.Unlock()
	if again {
		l.pool.Ready(l)
	}
	if done {
		l.once.Do(func() { close(l.finished) })
	}
}

func (l *list) Stalled(until time.Time, why error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.stalls = append(l.stalls, stalledAt{time.Now(), until, why})
}

// add makes a list of n recipients and adds it to the pool.
func add(p *Pool, id string, n int) *list {
	l := newList(p, id, n)
	p.Add(l)
	return l
}

// named is a relay of that name with one session.
func named(name string, d Dialer, with ...func(*Config)) Relay {
	c := Config{Name: name, Connections: 1, EnvelopeLimit: 100, MaxMessagesPerRobin: None, MaxConnectionAttempts: 5, WorthlessFor: time.Minute}
	for _, f := range with {
		f(&c)
	}
	return Relay{Config: c, Dialer: d}
}

func closePool(t testing.TB, p *Pool) {
	t.Helper()
	if err := p.Close(context.Background()); err != nil {
		t.Error(err)
	}
}
