package relay

import (
	"errors"
	"fmt"
	"strings"
	"time"
)

// entry is a source in a pool.
type entry struct {
	source  Source
	queued  bool
	removed bool
	next    *entry // in the queue
	told    int    // the stall that it was told of last
}

// queue is the sources that may have something to cut, first in first out, so
// that each has its turn.
type queue struct{ head, tail *entry }

func (q *queue) push(e *entry) {
	e.queued, e.next = true, nil
	if q.tail == nil {
		q.head = e
	} else {
		q.tail.next = e
	}
	q.tail = e
}

func (q *queue) pop() *entry {
	e := q.head
	if q.head = e.next; q.head == nil {
		q.tail = nil
	}
	e.queued, e.next = false, nil
	return e
}

// dispatch hands out all the work that relays can take now, opens sessions for
// the rest, and plans when to look again. Caller holds mu.
func (p *Pool) dispatch(now time.Time) {
	if p.closing {
		return
	}
	p.round++
	for p.idle > 0 && p.ready.head != nil {
		i, n := p.next(now, nil)
		if i < 0 {
			break
		}
		m := p.members[i]
		s := m.free[len(m.free)-1]
		e := p.cutEnvelope(s, n, now)
		if e == nil {
			m.passedOver = p.round
			continue
		}
		m.free = m.free[:len(m.free)-1]
		p.idle--
		m.busy++
		s.begun(e, now)
		s.work <- e
		// Its turn, but no session: the next envelope should find one.
		if p.wanted >= 0 && len(p.members[p.wanted].dials) == 0 {
			p.dial(p.members[p.wanted], now)
		}
	}
	p.dialWhatIsMissing(now)
	p.plan(now)
}

// next asks the robin which relay with a free session is next. Caller holds
// mu.
func (p *Pool) next(now time.Time, claimant *session) (i, n int) {
	p.now, p.claimant, p.wanted = now, claimant, -1
	return p.robin.Next(now, p.room)
}

// roomOf is how many messages relay i can take on a free session. Caller holds
// mu.
func (p *Pool) roomOf(i int) int {
	m := p.members[i]
	if p.claimant != nil && p.claimant.member == m {
		return p.claimant.room()
	}
	if m.passedOver == p.round || !p.usable(m, p.now) {
		return 0
	}
	if len(m.free) == 0 {
		if p.wanted < 0 && p.dialableOf(i) > 0 && p.robin.Left(p.now, i) > 0 {
			p.wanted = i
		}
		return 0
	}
	if m.health.trouble != well && m.busy > 0 || m.busy >= m.atOnce() {
		return 0 // one probe at a time
	}
	return m.free[len(m.free)-1].room()
}

// usable tells whether the relay may be given something now, if only what has
// not met it yet. Caller holds mu.
func (p *Pool) usable(m *member, now time.Time) bool {
	blocked, _ := m.health.blocked(now)
	return !blocked || m.health.trial
}

// dialableOf is how many messages relay i could take on a session to be
// opened. Caller holds mu.
func (p *Pool) dialableOf(i int) int {
	m := p.members[i]
	sessions := m.open + len(m.dials)
	if sessions >= m.atOnce() || m.health.trouble != well && sessions > 0 {
		return 0
	}
	if m.passedOver == p.round || !p.usable(m, p.now) || p.now.Before(m.health.dialAt) {
		return 0
	}
	if len(m.dials) > 0 && (p.now.Sub(m.dials[0]) >= p.opts.DialPatience || !m.reached && m.config.HasPassword()) {
		return 0 // no news yet of the ones that hang, or whether the password is right
	}
	if m.perCon > 0 {
		return m.perCon
	}
	return Unlimited
}

// cutEnvelope takes the next envelope off the source whose turn it is, for
// session s. A relay in trouble is tried with recipients that it has not met
// yet: what happens to them says more about it. Caller holds mu.
func (p *Pool) cutEnvelope(s *session, n int, now time.Time) *Envelope {
	m := s.member
	if n = p.robin.Reserve(now, m.index, n); n <= 0 {
		return nil
	}
	g := Grant{Relay: m.name, Messages: n, Domains: s.domains(), pool: p, member: m, now: now, fresh: m.health.trouble != well}
	g.DKIM, g.DKIMUnsigned, g.ReturnPath = m.config.DKIM != Off, m.config.DKIMUnsigned, m.config.ReturnPath != Off
	src, e := p.ask(g)
	if blocked, _ := m.health.blocked(now); e == nil && g.fresh && !blocked {
		g.fresh = false
		src, e = p.ask(g)
	}
	if e == nil {
		p.robin.Free(now, m.index)
		return nil
	}
	if got := len(e.Recipients); got < 1 || got > n {
		panic(fmt.Sprintf("relay: Cut was granted %d messages and took %d", n, got))
	}
	e.Source = src.source
	p.robin.Take(now, m.index, len(e.Recipients))
	e.allowance = p.robin.lanes[m.index].allowance
	p.stall.on = false
	return e
}

// ask goes round the sources for an envelope. Caller holds mu.
func (p *Pool) ask(g Grant) (*entry, *Envelope) {
	var first *entry // that has something, but nothing for this grant
	for p.ready.head != nil && p.ready.head != first {
		src := p.ready.pop()
		if src.removed {
			continue
		}
		e := src.source.Cut(g)
		if e != nil || src.source.Pending() > 0 {
			p.ready.push(src)
		}
		if e != nil {
			return src, e
		}
		if first == nil && src.queued {
			first = src
		}
	}
	return nil, nil
}

// waiting is how many envelopes wait to be cut; counting stops above enough.
// Caller holds mu.
func (p *Pool) waiting(enough int) int {
	n := 0
	for e := p.ready.head; e != nil && n <= enough; e = e.next {
		if !e.removed {
			n += e.source.Pending()
		}
	}
	return n
}

// dialWhatIsMissing opens sessions, no more than envelopes wait. Caller holds
// mu.
func (p *Pool) dialWhatIsMissing(now time.Time) {
	for p.ready.head != nil {
		p.now = now
		i, _ := p.robin.Next(now, p.dialable)
		if i < 0 {
			return
		}
		coming := 0
		for _, m := range p.members {
			for _, began := range m.dials {
				if now.Sub(began) < p.opts.DialPatience {
					coming++
				}
			}
		}
		if p.waiting(coming) <= coming {
			return
		}
		p.dial(p.members[i], now)
	}
}

// dial opens a session. Caller holds mu.
func (p *Pool) dial(m *member, now time.Time) {
	m.dials = append(m.dials, now)
	dialer, generation := m.dialer, m.generation
	p.wg.Go(func() { p.run(m, dialer, generation, now) })
}

// stall is a time in which no relay can take anything.
type stall struct {
	on bool
	no int // counts them
}

// plan sets the keeper's timer to the next time at which more could be handed
// out, and tells the sources if no relay can take anything. Caller holds mu.
func (p *Pool) plan(now time.Time) {
	if p.waiting(0) == 0 {
		return
	}
	hope := false
	var wake, until time.Time
	for i, m := range p.members {
		at, never := p.nextAt(now, i, m)
		switch {
		case never:
		case at.After(now):
			until = earlier(until, at)
		default:
			hope = true
			if m.health.dialAt.After(now) {
				wake = earlier(wake, m.health.dialAt)
			}
			if m.health.trial && m.health.until.After(now) {
				wake = earlier(wake, m.health.until)
			}
			for _, began := range m.dials {
				if patient := began.Add(p.opts.DialPatience); patient.After(now) {
					wake = earlier(wake, patient)
				}
			}
		}
	}
	if wake = earlier(wake, until); !wake.IsZero() && !wake.Equal(p.wakeAt) {
		p.wakeAt = wake
		p.timer.Reset(wake.Sub(now))
	}
	if !hope && (until.IsZero() || until.Sub(now) >= p.opts.StallAfter) {
		p.stalled(now, until)
	} else {
		p.stall.on = false
	}
}

// nextAt is when relay i can take something again as far as caps and health
// go; a time that is not in the future says that it can, or will as soon as a
// session is free or an envelope in flight is settled. Caller holds mu.
func (p *Pool) nextAt(now time.Time, i int, m *member) (at time.Time, never bool) {
	blocked, at := m.health.blocked(now)
	switch {
	case blocked && at.IsZero():
		return at, true
	case blocked && m.health.trial && m.passedOver != p.round:
		at = now // for what has not met it yet
	}
	w := p.robin.Wait(now, i)
	if w.Never {
		return at, true
	}
	return later(at, w.Until), false
}

// stalled tells the sources that no relay can take anything, each once.
// Caller holds mu.
func (p *Pool) stalled(now, until time.Time) {
	if !p.stall.on {
		p.stall.on = true
		p.stall.no++
	}
	var why *Error
	for e := p.ready.head; e != nil; e = e.next {
		if e.removed || e.told == p.stall.no || e.source.Pending() == 0 {
			continue
		}
		e.told = p.stall.no
		if why == nil {
			why = p.whyStalled(now)
		}
		p.later(func() { e.source.Stalled(until, why) })
	}
}

// whyStalled says of each relay what keeps it. Caller holds mu.
func (p *Pool) whyStalled(now time.Time) *Error {
	why := make([]string, len(p.members))
	mbs := "MBS001"
	for i, m := range p.members {
		st := p.stateOf(now, i, m)
		why[i] = fmt.Sprintf("%s is %v", m.name, st)
		if st.State != Worthless {
			mbs = ""
		}
	}
	if len(why) == 0 {
		why = append(why, "none is configured")
	}
	return &Error{MBS: mbs, Err: errors.New("no relay can take anything: " + strings.Join(why, "; "))}
}

// earlier is the earlier of two times, where zero is no time.
func earlier(a, b time.Time) time.Time {
	if a.IsZero() || !b.IsZero() && b.Before(a) {
		return b
	}
	return a
}
