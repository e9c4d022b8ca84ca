package relay

import (
	"context"
	"errors"
	"slices"
	"time"

	"bulkmail/relay/smtp"
)

// session is a session in a pool: one goroutine, one connection.
type session struct {
	pool   *Pool
	member *member
	conn   Session
	work   chan *Envelope // of one; filled under the pool's lock when the session is taken off the free list; nil: hang up
	follow func() *smtp.Envelope
	ctx    context.Context //nolint:containedctx // of all that it sends
	cut    context.CancelFunc
	idle   *time.Timer

	generation int // of the member's settings

	// Guarded by the pool's mu.
	sending  *Envelope // nil: idle
	promised *Envelope // handed out by follow: the next to send
	aborted  bool      // cut off by Abort
	started  time.Time // of the envelope being sent, or that is to follow
	messages int       // sent on this session
	atMost   int       // recipients the server takes in one envelope; 0: unknown
	ofAtMost int       // of so many domains; 0: any
	proven   bool      // the server has given verdicts on this session
	dead     bool      // no longer usable
	opened   time.Time
	waited   time.Time // since when it had nothing to do, before started
}

// tally is what became of the recipients of one envelope.
type tally struct {
	counted  int // accepted, or perhaps accepted: what the relay's caps count
	accepted int
	verdicts int // something was said about so many
	ours     int // by us and not by the relay
	tried    int
	blamed   int // refusals that blame the envelope or the relay
}

// A session that breaks after it was idle for this long tells nothing about
// the relay.
const staleAfter = time.Second

var errNoVerdict = &smtp.Error{Unwell: true, Err: errors.New("the server took none of the recipients and refused none")}

// run is the life of a session.
func (p *Pool) run(m *member, dialer Dialer, generation int, began time.Time) {
	conn, err := dialer.Dial(p.dials)
	if err == nil && conn == nil {
		err = errors.New("the dialer gave no session")
	}
	if err != nil {
		p.dialFailed(m, generation, began, err)
		return
	}
	s := &session{pool: p, member: m, generation: generation, conn: conn, work: make(chan *Envelope, 1), idle: time.NewTimer(p.opts.Idle)}
	s.follow = s.following
	s.ctx, s.cut = context.WithCancel(p.sessions)
	defer s.cut()
	defer s.idle.Stop()
	for e := s.open(began); e != nil; {
		err := conn.Send(s.ctx, &e.Envelope, s.follow)
		e = s.sent(e, unmade(e, err))
	}
	_ = conn.Close() // whatever QUIT is answered changes nothing
	p.gone(s)
}

// unmade takes it for a verdict that there is no message for the recipients, where
// the session reports that as an error.
func unmade(e *Envelope, err error) error {
	refused, ok := errors.AsType[*smtp.RefusedError](err)
	if !ok {
		return err
	}
	result := smtp.Result{Status: smtp.Rejected, Blame: smtp.BlameRecipient, Reply: refused.Reply}
	if refused.Reply.Code < 500 {
		result.Status = smtp.Deferred
	}
	e.Results = make([]smtp.Result, len(e.Recipients))
	for i := range e.Results {
		e.Results[i] = result
	}
	return nil
}

// dialFailed accounts for a dial that came to nothing.
func (p *Pool) dialFailed(m *member, generation int, began time.Time, err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	now := time.Now() // under the lock, so that time never goes back for the robin
	m.dialed(began)
	if !p.closing {
		if generation == m.generation {
			_ = p.blame(m, now, mishap{began: began, dialing: true, others: m.open - m.dying}, err)
		}
		p.dispatch(now)
	}
}

// dialed takes a dial off the list of those under way.
func (m *member) dialed(began time.Time) {
	i := slices.IndexFunc(m.dials, began.Equal)
	m.dials = slices.Delete(m.dials, i, i+1)
}

// open makes the session one of the pool and waits for its first envelope.
func (s *session) open(began time.Time) *Envelope {
	p, m := s.pool, s.member
	atMost, ofAtMost := s.conn.MaxRecipients(), 0
	if limited, ok := s.conn.(interface{ MaxDomains() int }); ok {
		ofAtMost = limited.MaxDomains()
	}
	p.mu.Lock()
	now := time.Now()
	m.dialed(began)
	m.open++
	m.reached = m.reached || !s.outdated()
	if p.closing || s.outdated() {
		p.mu.Unlock()
		return nil
	}
	p.open[s] = struct{}{}
	s.atMost, s.ofAtMost, s.opened = atMost, ofAtMost, now
	if m.health.connected(began) {
		p.logBack(m)
	}
	s.offer(now)
	p.mu.Unlock()
	return s.wait()
}

// gone says that a session was closed: another may take its place.
func (p *Pool) gone(s *session) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.open, s)
	m := s.member
	m.open--
	if s.dead {
		m.dying--
	}
	p.dispatch(time.Now())
}

// offer puts the session on the free list and hands out what waits; most of
// the time that is the next envelope for this very session. Caller holds mu.
func (s *session) offer(now time.Time) {
	s.waited = now
	s.member.free = append(s.member.free, s)
	s.pool.idle++
	s.pool.dispatch(now)
}

// wait waits for an envelope; nil: the session has been idle for too long, or
// the pool ends.
func (s *session) wait() *Envelope {
	select {
	case e := <-s.work:
		return e
	default:
	}
	p, m := s.pool, s.member
	s.idle.Reset(p.opts.Idle)
	select {
	case e := <-s.work:
		return e
	case <-s.idle.C:
	case <-p.closed:
	}
	p.mu.Lock()
	i := slices.Index(m.free, s)
	if i >= 0 {
		m.free = slices.Delete(m.free, i, i+1)
		p.idle--
	}
	p.mu.Unlock()
	if i < 0 { // an envelope was quicker
		return <-s.work
	}
	return nil
}

// hangUpIdle ends the sessions of m that have been idle for as long as one
// that turned out to be dead. Caller holds mu.
func (p *Pool) hangUpIdle(m *member, now time.Time) {
	m.free = slices.DeleteFunc(m.free, func(s *session) bool {
		old := now.Sub(s.waited) >= staleAfter
		if old {
			p.idle--
			s.work <- nil
		}
		return old
	})
}

// outdated tells whether the relay is configured otherwise by now, or not at
// all. Caller holds mu.
func (s *session) outdated() bool { return s.generation != s.member.generation }

// begun says that an envelope was cut for this session. Caller holds mu.
func (s *session) begun(e *Envelope, now time.Time) {
	s.sending = e
	s.messages += len(e.Recipients)
	s.started = now
}

// room is how many messages the session can take in one more envelope. Caller
// holds mu.
func (s *session) room() int {
	n := Unlimited
	if most := s.member.perCon; most > 0 {
		n = most - s.messages
	}
	if s.atMost > 0 {
		n = min(n, s.atMost)
	}
	return n
}

// domains is of how many domains an envelope on this session may be; 0: of any.
// Caller holds mu.
func (s *session) domains() int {
	most := s.member.config.EnvelopeDomains
	if s.ofAtMost > 0 && (most <= 0 || s.ofAtMost < most) {
		return s.ofAtMost
	}
	return max(most, 0)
}

// following hands out the envelope that is to follow the one being sent, if
// this session would get the next one anyway.
func (s *session) following() *smtp.Envelope {
	p, m := s.pool, s.member
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closing || p.ready.head == nil || m.health.trouble != well || s.promised != nil || s.aborted || s.outdated() || m.busy > m.atOnce() {
		return nil
	}
	now := time.Now()
	i, n := p.next(now, s)
	if i != m.index {
		return nil
	}
	e := p.cutEnvelope(s, n, now)
	if e == nil {
		return nil
	}
	s.messages += len(e.Recipients)
	s.promised = e
	return &e.Envelope
}

// sent settles an envelope and returns the next one; nil: the session ends.
func (s *session) sent(e *Envelope, err error) *Envelope {
	p, m := s.pool, s.member
	t := count(e)
	atMost, usable := s.conn.MaxRecipients(), s.conn.Usable()

	p.mu.Lock()
	usable = usable && !s.aborted
	now := time.Now()
	next := s.promised
	s.sending, s.promised = next, nil
	s.atMost = atMost
	s.messages -= len(e.Recipients) - t.tried
	e.allowance.Settle(now, len(e.Recipients), t.counted)
	m.stats.count(t, now)
	var failure error
	well := true
	if err != nil || t.tried == 0 || t.blamed > 0 {
		if told := s.inquire(e, t, err, s.mishap(t, now), now); told != nil {
			failure = told
		}
		well = err == nil && t.tried > 0 && (t.blamed < t.verdicts || e.refusedAsWhole())
	}
	if well && t.ours < t.verdicts {
		s.wentWell(e, t, now)
	}
	if !usable && !s.dead {
		s.dead = true
		m.dying++
	}
	offered := next == nil && usable && s.mayStay()
	switch {
	case next != nil:
		s.started, s.waited = now, now
	case offered:
		m.busy--
		s.offer(now)
	default:
		m.busy--
		p.dispatch(now)
	}
	p.mu.Unlock()

	e.Source.Settle(e, m.name, failure)
	if offered {
		return s.wait()
	}
	return next
}

// wentWell draws the conclusions from an envelope that the relay took, or whose
// recipients it refused for what they are. Caller holds mu.
func (s *session) wentWell(e *Envelope, t tally, now time.Time) {
	m := s.member
	s.passed(e, t, now)
	s.proven = true
	if m.tuner != nil && m.busy >= m.tuner.at {
		m.tuner.sent(now, len(e.Recipients), now.Sub(s.started))
	}
	if m.health.succeeded(s.started) {
		s.pool.logBack(m)
	}
}

// mishap is what is known of an error of the envelope that was sent now. Caller
// holds mu.
func (s *session) mishap(t tally, now time.Time) mishap {
	m := s.member
	what := mishap{
		began:     s.started,
		fruitless: !s.proven && t.verdicts == 0 && now.Sub(s.opened) < s.pool.opts.DialBackoff,
		stale:     s.started.Sub(s.waited) >= staleAfter,
		opened:    s.opened,
		others:    m.open - m.dying,
		again:     s.dead || s.aborted || s.outdated(), // then it says nothing about the relay as it is now
	}
	if !s.dead {
		what.others--
	}
	return what
}

// mayStay tells whether the session may have one more envelope. Caller holds mu.
func (s *session) mayStay() bool {
	m := s.member
	return !s.pool.closing && !s.outdated() && m.open <= m.limit && (m.perCon <= 0 || s.messages < m.perCon)
}

// count looks at the results. A session that is not of package smtp may leave
// none; then nobody knows.
func count(e *Envelope) tally {
	if len(e.Results) != len(e.Recipients) {
		e.Results = make([]smtp.Result, len(e.Recipients))
		reply := &smtp.Reply{Code: 451, Enhanced: "4.3.0", Text: "the session gave no results", Command: "END", Local: true}
		for i := range e.Results {
			e.Results[i] = smtp.Result{Status: smtp.InDoubt, Reply: reply}
		}
	}
	var t tally
	for i := range e.Results {
		switch e.Results[i].Status {
		case smtp.NotAttempted:
			continue
		case smtp.Accepted:
			t.accepted++
			t.verdicts++
			t.counted++
		case smtp.InDoubt:
			t.counted++
		default:
			t.verdicts++
			if e.Results[i].Blame != smtp.BlameRecipient {
				t.blamed++
			}
			if r := e.Results[i].Reply; r != nil && r.Local {
				t.ours++
			}
		}
		t.tried++
	}
	return t
}
