package relay

import (
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"bulkmail/relay/smtp"
)

func TestASessionThatBreaksIsReplacedAndNobodyIsBlamed(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		lost := &smtp.Error{MBS: "MBS009", Err: errors.New("the server closed the connection")}
		r := &recorder{latency: time.Millisecond, reply: func(n int, e *smtp.Envelope) error {
			if n%5 == 0 {
				return lost
			}
			answer(e, smtp.Accepted)
			return nil
		}}
		p := NewPool([]Relay{named("a", r)}, Options{})
		began := time.Now()
		l := add(p, "x", 2000)
		<-l.finished
		if took := time.Since(began); took > 40*time.Millisecond {
			t.Errorf("took %v: somebody was parked", took)
		}
		if s := p.Status()[0]; s.State != Awake || s.LastError == nil || s.Messages != 2000 {
			t.Errorf("%+v", s)
		}
		closePool(t, p)
	})
}

func TestAServerThatDropsEveryFreshSessionIsNotDialedWithoutPause(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		r := &recorder{latency: time.Millisecond, reply: unwell(1<<30, &smtp.Error{MBS: "MBS009"})}
		p := NewPool([]Relay{named("a", r, connections(4), func(c *Config) { c.WorthlessFor = None })}, Options{})
		l := add(p, "x", 2000)
		time.Sleep(time.Hour)
		if n := r.dialed(); n > 20 {
			t.Errorf("%d dials", n)
		}
		if s := p.Status()[0]; s.State != Worthless {
			t.Errorf("%+v", s)
		}
		closePool(t, p)
		if len(l.queue) != 2000 {
			t.Errorf("%d of 2000 left", len(l.queue))
		}
	})
}

func TestAServerThatClosesIdleSessionsIsNotBlamed(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		r := &recorder{latency: time.Millisecond, idleLimit: 10 * time.Second}
		p := NewPool([]Relay{named("a", r, connections(3))}, Options{})
		<-add(p, "x", 300).finished
		time.Sleep(20 * time.Second)
		start := time.Now()
		l := add(p, "y", 1)
		<-l.finished
		if took := time.Since(start); took != time.Millisecond {
			t.Errorf("took %v", took)
		}
		if len(l.errs) != 1 {
			t.Errorf("%d of the three closed sessions were tried, want one", len(l.errs))
		}
		if s := p.Status()[0]; s.State != Awake {
			t.Errorf("%+v", s)
		}
		closePool(t, p)
	})
}

// A batch gives up on an envelope whose sending breaks a few connections; it
// must not give up on one that met a relay whose sessions all died.
func TestSessionsThatBreakTogetherAreNotTheEnvelopesFault(t *testing.T) {
	t.Parallel()
	lost := &smtp.Error{MBS: "MBS009", Err: errors.New("the server closed the connection")}
	suspects := func(l *list) (n int) {
		for _, err := range l.errs {
			if e, _ := errors.AsType[*Error](err); !e.Common {
				n++
			}
		}
		return n
	}
	synctest.Test(t, func(t *testing.T) {
		dying := &recorder{latency: time.Millisecond, reply: func(n int, e *smtp.Envelope) error {
			if n > 16 {
				return lost
			}
			answer(e, smtp.Accepted)
			return nil
		}, dial: func(n int) error {
			if n > 8 {
				return &smtp.Error{MBS: "MBS003", Unwell: true}
			}
			return nil
		}}
		healthy := &recorder{latency: 2 * time.Millisecond}
		p := NewPool([]Relay{named("dying", dying, connections(8)), named("healthy", healthy)}, Options{})
		l := add(p, "x", 10_000)
		<-l.finished
		closePool(t, p)
		if n := suspects(l); len(l.errs) < 8 || n != 1 {
			t.Errorf("%d connections broke, and in %d of these cases the envelope is suspected, want the first alone", len(l.errs), n)
		}
	})
	synctest.Test(t, func(t *testing.T) {
		tries := 0
		r := &recorder{latency: time.Millisecond, reply: func(_ int, e *smtp.Envelope) error {
			if tries++; tries <= 4 {
				return lost
			}
			answer(e, smtp.Accepted)
			return nil
		}}
		p := NewPool([]Relay{named("a", r)}, Options{})
		l := add(p, "poison", 1)
		<-l.finished
		closePool(t, p)
		if n := suspects(l); n != 4 {
			t.Errorf("one envelope broke 4 connections, and is suspected %d times", n)
		}
	})
}
