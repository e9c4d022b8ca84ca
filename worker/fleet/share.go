package fleet

import (
	"encoding/json"
	"sync"
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

// An entry is one that is to be written.
type entry struct {
	serial                     uint64
	expected                   uint64 // the revision that it replaces
	value                      []byte
	sent                       time.Time
	leased, returned, reported int
	wants                      bool
}

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
	wroteOff := l.writeOff(at, s.silence, s.worker)
	e, again := &entry{}, soonest{}

	if s.credit > 0 && (s.closed || again.due(s.used.Add(s.idle(l)).Sub(now))) {
		e.returned = s.credit
		s.wanted = false // what is not used for so long is not needed;
		s.granted = true // if it is after all, let the pool ask again
		if !s.closed {
			s.size = max(s.size/2, s.limits.Envelope())
		}
	}
	wants := false
	if s.wanted && !s.closed && e.returned == 0 {
		e.leased = s.amount(now, at, l)
		if e.leased == 0 && s.wanted {
			if w := l.Wait(at); w.Until.After(at) {
				again.due(w.Until.Sub(at))
			} else if w.Until.IsZero() && !w.Never {
				again.due(s.silence / 3) // others hold it; perhaps they are gone
				wants = s.credit+s.sending == 0 && s.limits.MaxRate == (caps.Rate{})
			}
		}
	}
	if s.counted > 0 && (e.leased+e.returned > 0 || s.closed || s.credit+s.sending == 0 || again.due(s.since.Add(s.report(l)).Sub(now))) {
		e.reported = s.counted
	}
	renew := s.credit+s.sending+s.counted > 0 && again.due(s.confirmed.Add(s.silence/3).Sub(now))
	news := wants && !l.workers[s.worker].Wants
	if e.leased+e.returned+e.reported == 0 && !renew && !(wroteOff && s.wanted) && !news {
		return nil, again.d
	}
	e.wants = wants
	return s.write(now, at, l, e), 0
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
