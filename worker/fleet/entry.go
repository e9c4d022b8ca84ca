package fleet

import (
	"encoding/json"
	"time"

	"bulkmail/relay/caps"
	"bulkmail/subjects"
)

const (
	// A worker leases what lasts for about this, as fast as it sent of late.
	leaseLasts = 500 * time.Millisecond
	largest    = 1 << 16 // messages a lease, at most
	fastest    = 8       // times the last lease, at most: an entry costs more than a guess
	// What is not used for so long is given back, sooner if others want it;
	// and what was sent is reported after so long, if no lease takes it along.
	// Where there is a rate, both is sooner.
	idleAfter   = 2 * time.Second
	yieldAfter  = 20 * time.Millisecond
	reportAfter = time.Second
)

// An entry is what a share wants written over the ledger: the next part of the
// allowance leased, what is not needed returned, what was sent reported.
type entry struct {
	serial                     uint64
	expected                   uint64 // the revision that it replaces
	value                      []byte
	sent                       time.Time
	leased, returned, reported int
	wants                      bool
}

// moves tells whether the entry changes what is leased or used.
func (e *entry) moves() bool { return e.leased+e.returned+e.reported > 0 }

// next is the entry that is to be written now, or nil and the time after which
// to ask again; 0: when something has happened.
func (s *share) next(now time.Time) (*entry, time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.settled() {
		return s.first(now), 0
	}
	at := s.brokerTime(now)
	l := s.ledger.clone()
	wroteOff := l.writeOff(at, s.silence, s.worker)
	e, again := &entry{}, soonest{}
	wants := false
	switch {
	case s.credit > 0 && (s.closed || again.due(s.used.Add(s.idle(l)).Sub(now))):
		s.giveBack(e)
	case s.wanted && !s.closed:
		wants = s.lease(now, at, l, e, &again)
	}
	if s.counted > 0 && (e.leased+e.returned > 0 || s.closed || s.credit+s.sending == 0 || again.due(s.since.Add(s.report(l)).Sub(now))) {
		e.reported = s.counted
	}
	renew := s.credit+s.sending+s.counted > 0 && again.due(s.confirmed.Add(s.silence/3).Sub(now))
	news := wants && !l.workers[s.worker].Wants
	if e.moves() || renew || wroteOff && s.wanted || news {
		e.wants = wants
		return s.write(now, at, l, e), 0
	}
	return nil, again.d
}

// settled tells whether the share knows the ledger, the broker's time, and what
// became of what it wrote. Caller holds mu.
func (s *share) settled() bool {
	return s.known && s.revision >= s.awaited && s.unsettled == nil && !s.heard.IsZero()
}

// first is what is written before all else where the share is not settled; nil:
// nothing, it hears soon. Caller holds mu.
func (s *share) first(now time.Time) *entry {
	switch {
	case !s.known || s.revision < s.awaited:
		return nil
	case s.unsettled != nil:
		return s.unsettled // the same again: it replaces the same revision
	default:
		// Nobody knows the broker's time: write what changes nothing.
		return s.write(now, time.Time{}, s.ledger.clone(), &entry{})
	}
}

// giveBack has e return what was not used for long. Caller holds mu.
func (s *share) giveBack(e *entry) {
	e.returned = s.credit
	s.wanted = false // what is not used for so long is not needed;
	s.granted = true // if it is after all, let the pool ask again
	if !s.closed {
		s.size = max(s.size/2, s.limits.Envelope())
	}
}

// lease has e take what the pool wants, as far as there is any. It tells whether
// others are to know that this worker has nothing and wants some. Caller holds mu.
func (s *share) lease(now, at time.Time, l *ledger, e *entry, again *soonest) (wants bool) {
	e.leased = s.amount(now, at, l)
	if e.leased > 0 || !s.wanted {
		return false
	}
	w := l.Wait(at)
	switch {
	case w.Until.After(at):
		again.due(w.Until.Sub(at))
	case w.Until.IsZero() && !w.Never:
		again.due(s.silence / 3) // others hold it; perhaps they are gone
		return s.credit+s.sending == 0 && s.limits.MaxRate == (caps.Rate{})
	}
	return false
}

// amount is how many messages to lease: what lasts for a while, no more than a
// crash may waste, and not all that is left while others may want it. Caller holds
// mu.
func (s *share) amount(now, at time.Time, l *ledger) int {
	left := l.Left(at)
	if left <= 0 {
		return 0
	}
	room := s.limits.Lease() - s.credit
	if room <= 0 {
		s.wanted = false
		return 0
	}
	if s.size == 0 {
		s.size = s.limits.Envelope()
	} else if lasted := now.Sub(s.leased); lasted < leaseLasts {
		s.size = min(s.size*int(min(fastest, leaseLasts/max(lasted, time.Microsecond))), largest)
	} else if lasted > 4*leaseLasts {
		s.size = max(s.size/2, s.limits.Envelope())
	}
	fair := left / (2 * max(1, len(l.workers)))
	s.size = min(s.size, s.limits.Lease())
	return min(s.size, max(fair, s.limits.Envelope()), left, room)
}

// write makes e the entry that is to be written, over l. Caller holds mu.
func (s *share) write(now, at time.Time, l *ledger, e *entry) *entry {
	s.serial++
	e.serial, e.expected, e.sent = s.serial, s.revision, now
	s.credit -= e.returned
	s.counted -= e.reported
	if e.leased > 0 {
		s.wanted, s.leased = false, now
		l.Take(at, e.leased)
	}
	if e.returned > 0 {
		l.Settle(at, e.returned, 0)
	}
	l.fresh += e.reported
	held := s.credit + s.sending + s.counted + e.leased
	l.workers[s.worker] = subjects.RelayShare{Held: held, Serial: e.serial, Wants: e.wants}
	stored := l.entry()
	stored.Addr = s.addr
	value, err := json.Marshal(stored)
	if err != nil {
		panic(err) // numbers, names and times
	}
	e.value = value
	s.unsettled = e
	s.calls.written++
	return e
}

// idle is after what time credit is given back. Caller holds mu.
func (s *share) idle(l *ledger) time.Duration {
	if l.wants(s.worker) {
		return l.soon(yieldAfter, 100)
	}
	return l.soon(idleAfter, 100)
}

// report is after what time messages are reported. Caller holds mu.
func (s *share) report(l *ledger) time.Duration { return l.soon(reportAfter, 200) }

// soonest is the least of the times until something is due; 0: nothing is.
type soonest struct{ d time.Duration }

// due tells whether something that is due in d is due now, and remembers it if
// not.
func (s *soonest) due(d time.Duration) bool {
	if d <= 0 {
		return true
	}
	if s.d == 0 || d < s.d {
		s.d = d
	}
	return false
}
