package fleet

import (
	"sync"
	"time"

	"bulkmail/relay/caps"
)

// A share is what this worker has leased of one relay's allowance. It is the
// allowance that the pool asks (relay.Allowance), and says what is to be written to the
// broker; it writes nothing itself.
//
// It never looks at a wall clock. That of the broker stamps every entry, and an
// entry that has arrived tells the least that the broker's clock can show: its
// time, and what has passed here since it arrived. Nothing expires too early by
// that, whatever the clocks of the workers say; the price is the way of one
// entry from the broker.
type share struct {
	worker  string
	silence time.Duration
	kick    func() // something may have to be written

	mu     sync.Mutex // guards what follows
	limits caps.Limits
	closed bool

	known    bool      // the ledger was read
	revision uint64    // of the ledger
	ledger   *ledger   // as it was read last
	heard    time.Time // by this process's clock: when the broker's clock showed at least broker
	broker   time.Time
	awaited  uint64 // the revision that our last entry got: nothing is written before it was read

	serial    uint64 // of our last entry
	listed    bool   // the ledger lists us
	confirmed time.Time
	unsettled *entry // written, and nobody knows whether it was stored

	credit     int  // leased and not taken
	sending    int  // reserved or taken, and not settled
	reserved   int  // of that, for the envelope that is being cut
	writtenOff int  // the same, of what the fleet has counted as sent already
	unsure     bool // some of what is being sent was written off, nobody knows which: all is taken for sent
	counted    int  // settled as sent and not reported
	since      time.Time
	used       time.Time // when credit was last touched
	leased     time.Time // when the last lease was written
	size       int       // of the last lease
	tight      bool      // most of max_rate is used
	wanted     bool
	granted    bool // the pool is to look again
	lastWait   caps.Wait
	addr       string // of the relay's server

	calls calls
}

// calls counts what was said to the broker.
type calls struct{ written, refused int }

func newShare(worker string, silence time.Duration, limits caps.Limits, kick func()) *share {
	return &share{worker: worker, silence: silence, limits: limits, kick: kick}
}

// fenced tells whether the fleet may have given up what we hold. Caller holds
// mu.
func (s *share) fenced(now time.Time) bool { return now.Sub(s.confirmed) > s.silence*2/3 }

// Left implements relay.Allowance. That somebody asks means that there is
// something to send.
func (s *share) Left(now time.Time) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.credit > 0 && !s.fenced(now) {
		return s.credit
	}
	if !s.wanted {
		s.wanted = true
		s.kick()
	}
	return 0
}

// Reserve implements relay.Allowance. What is reserved counts as being sent, so
// that it is not given back while an envelope is cut.
func (s *share) Reserve(now time.Time, messages int) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.credit <= 0 || s.fenced(now) {
		return 0
	}
	s.reserved = min(messages, s.credit)
	s.credit -= s.reserved
	s.sending += s.reserved
	s.used = now
	return s.reserved
}

// Take implements relay.Allowance.
func (s *share) Take(now time.Time, messages int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if spare := s.reserved - messages; spare > 0 {
		s.free(spare)
	}
	s.reserved = 0
	s.used = now
	// The next lease is fetched ahead; but not where messages that are held are
	// a loss to the rate.
	if !s.wanted && s.credit < s.size/4 && !s.tight {
		s.wanted = true
		s.kick()
	}
}

// free gives back what was reserved and not taken. Caller holds mu.
func (s *share) free(spare int) {
	off := min(spare, s.writtenOff)
	s.writtenOff -= off
	spare -= off
	if s.credit == 0 && spare > 0 {
		s.kick() // it may be due to be given back
	}
	s.sending -= spare
	s.credit += spare
	s.unsure = s.unsure && s.writtenOff+s.sending > 0
}

// Settle implements relay.Allowance.
func (s *share) Settle(now time.Time, taken, counted int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.writtenOff > 0 || s.unsure {
		off := min(taken, s.writtenOff)
		s.writtenOff -= off
		taken -= off
		counted = taken
		s.unsure = s.writtenOff+s.sending-taken > 0
	}
	had := s.credit
	s.sending -= taken
	s.credit += taken - counted
	if s.counted == 0 {
		s.since = now
	}
	s.counted += counted
	if s.counted == counted || s.credit > had && had == 0 || s.credit+s.sending == 0 {
		s.kick()
	}
}

// Wait implements relay.Allowance.
func (s *share) Wait(now time.Time) caps.Wait {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.credit > 0 && !s.fenced(now) {
		return caps.Wait{}
	}
	return s.wait(now)
}

// wait is why there is nothing to lease, by this process's clock. Caller holds
// mu.
func (s *share) wait(now time.Time) caps.Wait {
	if !s.known || s.heard.IsZero() {
		return caps.Wait{Limit: caps.LimitLease}
	}
	at := s.brokerTime(now)
	w := s.ledger.Clone().Wait(at)
	if w.Limit == caps.NoLimit {
		return caps.Wait{Limit: caps.LimitLease}
	}
	if !w.Until.IsZero() {
		w.Until = now.Add(w.Until.Sub(at))
	}
	return w
}

// Reset implements relay.Allowance: the counters of the fleet are on the
// broker, and reset there.
func (s *share) Reset(time.Time) {}

// Remaining implements relay.Allowance.
func (s *share) Remaining(now time.Time) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.known || s.heard.IsZero() {
		return 0
	}
	return s.ledger.Clone().Left(s.brokerTime(now)) + s.credit
}

// Change implements relay.Allowance.
func (s *share) Change(limits caps.Limits) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.limits = limits
	if s.ledger != nil {
		s.ledger.Limits = limits // the entry is as it was; who reads it anew applies the rest
	}
	s.kick()
}

// brokerTime is the least that the broker's clock shows now. Caller holds mu.
func (s *share) brokerTime(now time.Time) time.Time { return s.broker.Add(now.Sub(s.heard)) }

// learn takes in the ledger as it was read: revision 0 is one that nobody has
// written yet.
func (s *share) learn(now time.Time, revision uint64, value []byte, stored time.Time) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.known && revision <= s.revision {
		return nil
	}
	l, err := readLedger(s.limits, value, stored)
	if err != nil {
		return err
	}
	if revision > 0 {
		if s.heard.IsZero() || stored.After(s.brokerTime(now)) {
			s.heard, s.broker = now, stored
		}
	}
	s.known, s.revision, s.ledger, s.tight = true, revision, l, l.Tight()
	share, listed := l.workers[s.worker]
	if e := s.unsettled; e != nil && revision > e.expected {
		// Of entries that replace the same revision one alone is stored.
		if listed && share.Serial == e.serial {
			s.stored(e, revision)
		} else {
			s.dropped(e)
		}
	}
	if s.listed && !listed {
		// We were silent for too long, and what we held is counted as sent.
		s.writtenOff += s.sending
		s.unsure = s.writtenOff > 0
		s.credit, s.sending, s.counted = 0, 0, 0
	}
	s.listed = listed
	return nil
}

// stored says that an entry was stored. Caller holds mu.
func (s *share) stored(e *entry, revision uint64) {
	s.unsettled = nil
	s.awaited = max(s.awaited, revision)
	s.listed = true
	s.granted = s.granted || e.leased > 0 || s.fenced(e.sent)
	s.confirmed = e.sent
	s.credit += e.leased
	if e.leased > 0 {
		s.used = e.sent
	}
}

// dropped says that an entry will never be stored. Caller holds mu.
func (s *share) dropped(e *entry) {
	s.unsettled = nil
	s.calls.refused++
	s.credit += e.returned
	s.counted += e.reported
	s.wanted = s.wanted || e.leased > 0
}

// wrote says that the broker confirmed an entry.
func (s *share) wrote(e *entry, revision uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.unsettled == e {
		s.stored(e, revision)
	}
}

// news tells whether the pool should look again: there is credit, or what it
// waits for has changed.
func (s *share) news(now time.Time) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.granted {
		s.granted = false
		return true
	}
	if !s.wanted {
		return false
	}
	w := s.wait(now)
	changed := w.Limit != s.lastWait.Limit || w.Never != s.lastWait.Never || w.Until.Sub(s.lastWait.Until).Abs() > 100*time.Millisecond
	s.lastWait = w
	return changed
}

// close has everything given back that is not in flight.
func (s *share) close() {
	s.mu.Lock()
	s.closed = true
	s.mu.Unlock()
	s.kick()
}

// pending tells whether nobody knows what became of an entry.
func (s *share) pending(e *entry) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.unsettled == e
}

// waits tells whether the ledger should have been read by now.
func (s *share) waits() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return !s.known || s.revision < s.awaited
}

// done tells whether nothing is left to be said to the broker.
func (s *share) done() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.unsettled == nil && s.credit+s.sending+s.counted == 0 || !s.known
}
