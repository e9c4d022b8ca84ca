package fleet

import (
	"encoding/json"
	"sync"
	"time"

	"bulkmail/relay"
	"bulkmail/subjects"
)

const (
	// Chunks grow while they last for less than this.
	shortLived = 250 * time.Millisecond
	longest    = 1 << 16 // messages a chunk, at most
	// What is not used for so long is given back, sooner if others want it;
	// and what was sent is reported after so long at the latest. Where there is
	// a rate, both is sooner.
	idleAfter   = 2 * time.Second
	yieldAfter  = 20 * time.Millisecond
	reportAfter = 100 * time.Millisecond
)

// A share is what this worker has leased of one relay's allowance. It is the
// [relay.Allowance] that the pool asks, and says what is to be written to the
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
	limits relay.Limits
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

	credit   int  // leased and not taken
	flying   int  // taken and not settled
	orphans  int  // the same, of what the fleet has given up: counted as sent already
	mixed    bool // while there may be orphans in flight, nobody knows which are; all is taken for sent
	counted  int  // settled as sent and not reported
	since    time.Time
	used     time.Time // when credit was last touched
	leased   time.Time
	chunk    int
	wanted   bool
	granted  bool // the pool is to look again
	lastWait relay.Wait

	calls calls
}

// calls counts what was said to the broker.
type calls struct{ written, refused int }

// An entry is one that is to be written.
type entry struct {
	serial                     uint64
	expected                   uint64 // the revision that it replaces
	value                      []byte
	sent                       time.Time
	leased, returned, reported int
	wants                      bool
}

func newShare(worker string, silence time.Duration, limits relay.Limits, kick func()) *share {
	return &share{worker: worker, silence: silence, limits: limits, kick: kick}
}

// fenced tells whether the fleet may have given up what we hold. Caller holds
// mu.
func (s *share) fenced(now time.Time) bool { return now.Sub(s.confirmed) > s.silence*2/3 }

// Left implements [relay.Allowance]. That somebody asks means that there is
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

// Take implements [relay.Allowance].
func (s *share) Take(now time.Time, messages int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.credit -= messages
	s.flying += messages
	s.used = now
	// The next chunk is fetched ahead; but not where a rate makes messages
	// that lie about a loss.
	if !s.wanted && s.credit < s.chunk/4 && !s.ledger.rateOn() {
		s.wanted = true
		s.kick()
	}
}

// Settle implements [relay.Allowance].
func (s *share) Settle(now time.Time, taken, counted int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.orphans > 0 || s.mixed {
		orphans := min(taken, s.orphans)
		s.orphans -= orphans
		taken -= orphans
		counted = taken
		s.mixed = s.orphans+s.flying-taken > 0
	}
	s.flying -= taken
	s.credit += taken - counted
	if s.counted == 0 {
		s.since = now
	}
	s.counted += counted
	if s.counted == counted || taken > counted || s.credit+s.flying == 0 {
		s.kick()
	}
}

// Wait implements [relay.Allowance].
func (s *share) Wait(now time.Time) relay.Wait {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.credit > 0 && !s.fenced(now) {
		return relay.Wait{}
	}
	return s.wait(now)
}

// wait is why there is nothing to lease, by this process's clock. Caller holds
// mu.
func (s *share) wait(now time.Time) relay.Wait {
	if !s.known || s.heard.IsZero() {
		return relay.Wait{Limit: relay.LimitLease}
	}
	at := s.brokerTime(now)
	l := s.ledger.clone()
	l.roll(at)
	w := l.wait(at)
	if w.Limit == relay.NoLimit {
		return relay.Wait{Limit: relay.LimitLease}
	}
	if !w.Until.IsZero() {
		w.Until = now.Add(w.Until.Sub(at))
	}
	return w
}

// Reset implements [relay.Allowance]: the counters of the fleet are on the
// broker, and reset there.
func (s *share) Reset(time.Time) {}

// Remaining implements [relay.Allowance].
func (s *share) Remaining(now time.Time) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.known || s.heard.IsZero() {
		return 0
	}
	l := s.ledger.clone()
	l.roll(s.brokerTime(now))
	return l.left(s.brokerTime(now)) + s.credit
}

// Change implements [relay.Allowance].
func (s *share) Change(limits relay.Limits) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.limits = limits
	if s.ledger != nil {
		s.ledger.limits = limits
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
	l := &ledger{limits: s.limits}
	if revision > 0 {
		if len(value) > 0 {
			if err := json.Unmarshal(value, &l.RelayLedger); err != nil {
				return err
			}
		}
		l.stored(stored)
		if s.heard.IsZero() || stored.After(s.brokerTime(now)) {
			s.heard, s.broker = now, stored
		}
	}
	s.known, s.revision, s.ledger = true, revision, l
	share, listed := l.Workers[s.worker]
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
		s.orphans += s.flying
		s.mixed = s.orphans > 0
		s.credit, s.flying, s.counted = 0, 0, 0
	}
	s.listed = listed
	return nil
}

// stored says that an entry was stored. Caller holds mu.
func (s *share) stored(e *entry, revision uint64) {
	s.unsettled = nil
	s.awaited = max(s.awaited, revision)
	s.listed = true
	s.confirmed = e.sent
	s.credit += e.leased
	if e.leased > 0 {
		s.leased, s.used, s.granted = e.sent, e.sent, true
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

// next is the entry that is to be written now, or nil and the time after which
// to ask again; 0: when something has happened.
func (s *share) next(now time.Time) (*entry, time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case !s.known || s.revision < s.awaited:
		return nil, 0
	case s.unsettled != nil:
		return s.unsettled, 0 // the same again: it replaces the same revision
	case s.heard.IsZero():
		// Nobody knows the broker's time: write what changes nothing.
		return s.write(now, time.Time{}, s.ledger.clone(), &entry{}), 0
	}
	at := s.brokerTime(now)
	l := s.ledger.clone()
	l.roll(at)
	folded := l.fold(at, s.silence, s.worker)
	e, again := &entry{}, soonest{}

	if s.credit > 0 && (s.closed || again.due(s.used.Add(s.idle(l)).Sub(now))) {
		e.returned = s.credit
		s.wanted = false // what is not used for so long is not needed;
		s.granted = true // if it is after all, let the pool ask again
		if !s.closed {
			s.chunk = max(s.chunk/2, l.envelope())
		}
	}
	wants := false
	if s.wanted && !s.closed && e.returned == 0 {
		e.leased = s.amount(now, at, l)
		if e.leased == 0 {
			if w := l.wait(at); w.Until.After(at) {
				again.due(w.Until.Sub(at))
			} else if w.Until.IsZero() && !w.Never {
				again.due(s.silence / 3) // others hold it; perhaps they are gone
				wants = s.credit+s.flying == 0 && !l.rateOn()
			}
		}
	}
	if s.counted > 0 && (e.leased+e.returned > 0 || s.closed || s.credit+s.flying == 0 || again.due(s.since.Add(s.report(l)).Sub(now))) {
		e.reported = s.counted
	}
	renew := s.credit+s.flying+s.counted > 0 && again.due(s.confirmed.Add(s.silence/3).Sub(now))
	news := wants && !l.Workers[s.worker].Wants
	if e.leased+e.returned+e.reported == 0 && !renew && !(folded && s.wanted) && !news {
		return nil, again.d
	}
	e.wants = wants
	return s.write(now, at, l, e), 0
}

// amount is how many messages to lease. Caller holds mu.
func (s *share) amount(now, at time.Time, l *ledger) int {
	left := l.left(at)
	if left <= 0 {
		return 0
	}
	if s.chunk == 0 {
		s.chunk = l.envelope()
	} else if now.Sub(s.leased) < shortLived {
		s.chunk = min(2*s.chunk, longest)
	}
	chunk := min(s.chunk, l.quantum())
	fair := left / (2 * max(1, len(l.Workers)))
	return min(chunk, max(fair, l.envelope()), left)
}

// write makes e the entry that is to be written, over l. Caller holds mu.
func (s *share) write(now, at time.Time, l *ledger, e *entry) *entry {
	s.serial++
	e.serial, e.expected, e.sent = s.serial, s.revision, now
	s.credit -= e.returned
	s.counted -= e.reported
	if e.leased > 0 {
		s.wanted = false
		l.lease(at, e.leased)
	}
	l.giveBack(e.returned)
	l.count(e.reported)
	held := s.credit + s.flying + s.counted + e.leased
	l.Workers[s.worker] = subjects.RelayShare{Held: held, Serial: e.serial, Wants: e.wants}
	value, err := json.Marshal(l.RelayLedger)
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
		return l.within(yieldAfter, 100)
	}
	return l.within(idleAfter, 100)
}

// report is after what time messages are reported. Caller holds mu.
func (s *share) report(l *ledger) time.Duration { return l.within(reportAfter, 200) }

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
	return s.unsettled == nil && s.credit+s.flying+s.counted == 0 || !s.known
}

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
