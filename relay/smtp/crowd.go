package smtp

import (
	"sync"
	"sync/atomic"
	"time"
)

const (
	firstProbe   = 10 * time.Minute // until more recipients are tried than a server took
	longestProbe = 24 * time.Hour   // that pause doubles up to this while the server stays with it
)

// A crowd is what a server taught us about how many recipients it takes in one
// envelope, for all sessions with it. Servers are reconfigured: after a while
// one session tries twice as many. That costs nobody a verdict, for whom the
// server has no room stays not attempted.
type crowd struct {
	most atomic.Int64 // 0: nothing learnt; written under mu

	mu      sync.Mutex // guards what follows
	probing bool       // a session is to try more, or does
	probeAt time.Time
	pause   time.Duration
}

// limit is what one envelope may hold; 0: unknown.
func (c *crowd) limit(probe bool) int {
	most := int(c.most.Load())
	if probe {
		return 2 * most
	}
	return most
}

// probe tells whether the session that asks is to try more. It must tell the
// outcome or give up.
func (c *crowd) probe(now time.Time) bool {
	if c.most.Load() == 0 {
		return false
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.probing || now.Before(c.probeAt) {
		return false
	}
	c.probing = true
	return true
}

// giveUp says that the session that was to try more will not.
func (c *crowd) giveUp() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.probing = false
}

// learn takes what became of the recipients of an envelope, and tells whether
// that was an answer to a probe.
//
// It believes a 452 that says what it is about (4.5.3), or two in a row up to
// the last recipient: a single bare one may as well be a full mailbox.
func (c *crowd) learn(t *transaction, probe bool, now time.Time) (answered bool) {
	most := int(c.most.Load())
	refused := t.tooMany > 0 && t.taken == t.roomFor && (t.told || t.tooMany > 1)
	if !refused && (!probe || t.tooMany == 0 && t.taken <= most) {
		return false
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	most = int(c.most.Load())
	c.probing = c.probing && !probe
	switch {
	case refused && (most == 0 || t.roomFor < most):
		c.most.Store(int64(t.roomFor))
		c.rest(now, firstProbe)
	case !probe:
	case t.tooMany == 0:
		c.most.Store(int64(max(most, t.taken)))
		c.rest(now, 0) // on to the next
	case refused && t.roomFor > most:
		c.most.Store(int64(t.roomFor))
		c.rest(now, firstProbe)
	default:
		c.rest(now, min(max(firstProbe, 2*c.pause), longestProbe))
	}
	return probe
}

// rest says how long nobody tries more. The caller holds mu.
func (c *crowd) rest(now time.Time, pause time.Duration) {
	c.pause, c.probeAt = pause, now.Add(pause)
}
