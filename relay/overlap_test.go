package relay

import (
	"testing"
	"testing/synctest"
	"time"
)

func TestABrokenPromiseComesBackUntouched(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		r := &recorder{latency: time.Millisecond, overlap: true, reply: unwell(3, throttled)}
		p := NewPool([]Relay{named("a", r)}, Options{})
		l := add(p, "x", 2000)
		<-l.finished
		closePool(t, p)
		for who, n := range l.settled {
			if n != 1 {
				t.Errorf("%s was settled %d times", who, n)
			}
		}
		if at := began(r); at[1] < 5*time.Second || at[1] > 6*time.Second || at[2]-at[1] > 11*time.Second {
			t.Errorf("parkings at %v: the envelope that was promised counted too", at[:4])
		}
	})
}

func TestTheNextEnvelopeFollowsOnTheSameSessionWhileMoreWait(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		r := &recorder{latency: time.Millisecond, overlap: true}
		p := NewPool([]Relay{named("a", r)}, Options{})
		<-add(p, "x", 500).finished
		closePool(t, p)
		for i, s := range r.envelopes() {
			if s.followed != (i > 0) {
				t.Errorf("envelope %d followed: %v", i, s.followed)
			}
		}
	})
}

func TestNoEnvelopeFollowsWhileAnotherRelayIsFreeToTakeIt(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		a, b := &recorder{latency: time.Millisecond, overlap: true}, &recorder{latency: time.Millisecond, overlap: true}
		p := NewPool([]Relay{named("a", a, perRobin(100)), named("b", b, perRobin(100))}, Options{})
		for range 3 { // until both have a session
			<-add(p, "warm", 100).finished
			synctest.Wait()
		}
		l := add(p, "x", 200)
		<-l.finished
		closePool(t, p)
		for _, r := range []*recorder{a, b} {
			sent := r.envelopes()
			if last := sent[len(sent)-1]; last.followed {
				t.Error("an envelope waited for its predecessor while the other relay was free")
			}
		}
		if l.by["a"] != 100 || l.by["b"] != 100 {
			t.Errorf("%v", l.by)
		}
	})
}

func TestTheLastErrorIsThatOfTheServerNotThatOfTheBrokenPromise(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		r := &recorder{overlap: true, reply: unwell(1, throttled)}
		p := NewPool([]Relay{named("a", r)}, Options{})
		<-add(p, "x", 200).finished
		if e := p.Status()[0].LastError; e == nil || e.Code != 454 {
			t.Errorf("the last error is %v, want what the server said", e)
		}
		closePool(t, p)
	})
}

func TestNothingFollowsAProbe(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		r := &recorder{overlap: true, survives: true, reply: unwell(3, throttled)}
		p := NewPool([]Relay{named("a", r)}, Options{})
		<-add(p, "x", 1000).finished
		closePool(t, p)
		at := began(r)
		if at[0] != 0 || at[1] != 0 || at[2] != 5*time.Second || at[3] != 15*time.Second {
			t.Errorf("envelopes went out after %v", at[:4])
		}
	})
}
