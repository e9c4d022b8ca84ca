package relay

import (
	"cmp"
	"context"
	"errors"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"bulkmail/relay/smtp"
)

func connections(n int) func(*Config) { return func(c *Config) { c.Connections = n } }
func perRobin(n int) func(*Config)    { return func(c *Config) { c.MaxMessagesPerRobin = n } }

func sizes(envelopes []sending) []int {
	var n []int
	for _, s := range envelopes {
		n = append(n, len(s.recipients))
	}
	return n
}

func TestAListGoesOutOverOneSessionInEnvelopesOfTheLimit(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		r := &recorder{latency: time.Millisecond}
		p := NewPool([]Relay{named("a", r)}, Options{})
		l := add(p, "x", 250)
		<-l.finished
		closePool(t, p)
		equal(t, "envelopes", sizes(r.envelopes()), []int{100, 100, 50})
		if r.dials != 1 || r.said != 1 || r.open != 0 {
			t.Errorf("%d dials, %d QUIT, %d open", r.dials, r.said, r.open)
		}
	})
}

func TestASessionIsOpenedForEachWaitingEnvelopeUpToTheLimitOfConnections(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct{ recipients, want int }{
		"one envelope":    {100, 1},
		"three envelopes": {300, 3},
		"many envelopes":  {5000, 4},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				r := &recorder{latency: time.Second, dialTime: time.Second}
				p := NewPool([]Relay{named("a", r, connections(4))}, Options{})
				l := add(p, "x", c.recipients)
				<-l.finished
				closePool(t, p)
				if r.dials != c.want || r.mostOpen != c.want {
					t.Errorf("%d dials, %d open at once, want %d", r.dials, r.mostOpen, c.want)
				}
			})
		})
	}
}

func TestASessionSaysQUITWhenItHasBeenIdle(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		r := &recorder{}
		p := NewPool([]Relay{named("a", r)}, Options{Idle: 30 * time.Second})
		l := add(p, "x", 1)
		<-l.finished
		time.Sleep(29 * time.Second)
		if open := p.Status()[0].Sessions; open != 1 {
			t.Errorf("%d sessions after 29 s", open)
		}
		time.Sleep(2 * time.Second)
		if s := p.Status()[0]; s.Sessions != 0 || r.said != 1 {
			t.Errorf("%d sessions after 31 s, %d QUIT", s.Sessions, r.said)
		}
		<-add(p, "y", 1).finished
		closePool(t, p)
		if r.dials != 2 {
			t.Errorf("%d dials", r.dials)
		}
	})
}

func TestAFreshSessionFollowsAfterMaxMessagesPerConnection(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		r := &recorder{latency: time.Millisecond}
		p := NewPool([]Relay{named("a", r, func(c *Config) { c.MaxMessagesPerConnection = 5; c.EnvelopeLimit = 2 })}, Options{})
		start := time.Now()
		l := add(p, "x", 12)
		<-l.finished
		if took := time.Since(start); took != 7*time.Millisecond {
			t.Errorf("7 envelopes took %v", took)
		}
		closePool(t, p)
		var got []int
		perSession := map[int]int{}
		for _, s := range r.envelopes() {
			got = append(got, len(s.recipients))
			perSession[s.session] += len(s.recipients)
		}
		equal(t, "envelopes", got, []int{2, 2, 1, 2, 2, 1, 2})
		if perSession[1] != 5 || perSession[2] != 5 || perSession[3] != 2 || r.mostOpen != 1 {
			t.Errorf("messages by session %v, %d open at once", perSession, r.mostOpen)
		}
	})
}

func TestWhatWasNotAttemptedDoesNotCountForTheConnection(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		r := &recorder{reply: func(_ int, e *smtp.Envelope) error {
			answer(e, smtp.Accepted)
			if len(e.Results) > 1 {
				e.Results[1] = smtp.Result{} // too many for it
			}
			return nil
		}}
		p := NewPool([]Relay{named("a", r, func(c *Config) { c.MaxMessagesPerConnection = 6; c.EnvelopeLimit = 2 })}, Options{})
		<-add(p, "x", 6).finished
		closePool(t, p)
		if r.dials != 1 {
			t.Errorf("%d sessions for 6 messages, max_messages_per_connection 6", r.dials)
		}
	})
}

func TestWhatAServerTakesInOneEnvelopeIsRespected(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		r := &recorder{most: 30}
		p := NewPool([]Relay{named("a", r)}, Options{})
		l := add(p, "x", 100)
		<-l.finished
		closePool(t, p)
		equal(t, "envelopes", sizes(r.envelopes()), []int{30, 30, 30, 10})
	})
}

func TestTheRelaysShareByWeightWhileTheyHaveFreeSessions(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		rs := []*recorder{{}, {}, {}}
		p := NewPool([]Relay{
			named("a", rs[0], perRobin(100)),
			named("b", rs[1], perRobin(300)),
			named("c", rs[2], perRobin(600)),
		}, Options{})
		for range 100 { // one envelope at a time, so that every relay has a free session
			for range 10 {
				<-add(p, "x", 100).finished
			}
			synctest.Wait()
		}
		closePool(t, p)
		total := rs[0].messages() + rs[1].messages() + rs[2].messages()
		for i, want := range []float64{0.1, 0.3, 0.6} {
			if share := float64(rs[i].messages()) / float64(total); share < want-0.01 || share > want+0.01 {
				t.Errorf("relay %d has a share of %.3f of %d, want %.1f", i, share, total, want)
			}
		}
	})
}

func TestARelayWhoseTurnItIsIsGivenASessionWhileAnotherTakesTheEnvelope(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		a, b := &recorder{dialTime: time.Second}, &recorder{}
		p := NewPool([]Relay{named("a", a, perRobin(500)), named("b", b, perRobin(1))}, Options{Idle: time.Hour, DialPatience: 100 * time.Millisecond})
		<-add(p, "x", 1).finished
		if b.messages() != 1 {
			t.Fatal("the envelope waited for the slow dial")
		}
		time.Sleep(2 * time.Second)
		<-add(p, "y", 1).finished
		<-add(p, "z", 1).finished
		closePool(t, p)
		if a.messages() != 2 {
			t.Errorf("the relay whose turn it is had %d messages, want 2", a.messages())
		}
	})
}

func TestADialThatHangsHoldsNobodyBack(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		a, b := &recorder{dialTime: time.Hour}, &recorder{}
		p := NewPool([]Relay{named("a", a, connections(4)), named("b", b)}, Options{DialPatience: 2 * time.Second})
		began := time.Now()
		l := add(p, "x", 100)
		<-l.finished
		if took := time.Since(began); took > 2*time.Second || b.messages() != 100 {
			t.Errorf("took %v, %d messages over the other relay", took, b.messages())
		}
		if n := a.dialed(); n != 1 {
			t.Errorf("%d dials to the relay that does not answer", n)
		}
		began = time.Now()
		closePool(t, p)
		if took := time.Since(began); took > 0 {
			t.Errorf("closing took %v", took)
		}
	})
}

func TestARelayWithAllItsSessionsBusyIsPassedOver(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		a, b := &recorder{hold: make(chan struct{})}, &recorder{latency: time.Millisecond}
		p := NewPool([]Relay{named("hangs", a), named("b", b)}, Options{})
		l := add(p, "x", 1000)
		time.Sleep(time.Second)
		if b.messages() != 900 {
			t.Errorf("the other relay had %d of 900 messages", b.messages())
		}
		close(a.hold)
		<-l.finished
		closePool(t, p)
	})
}

func TestSourcesAreServedInTurn(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		r := &recorder{latency: time.Millisecond, hold: make(chan struct{})}
		p := NewPool([]Relay{named("a", r)}, Options{})
		first := add(p, "x", 1)
		synctest.Wait()
		lists := []*list{add(p, "big", 5000), add(p, "small", 200), add(p, "other", 300)}
		close(r.hold)
		<-first.finished
		for _, l := range lists {
			<-l.finished
		}
		closePool(t, p)
		var order []byte
		for _, s := range r.envelopes()[1:] {
			order = append(order, s.recipients[0][0])
		}
		if got := string(order[:9]); got != "bsobsobob" {
			t.Errorf("sources were served in the order %s", got)
		}
	})
}

func TestNothingIsCutFromASourceThatWasRemoved(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		r := &recorder{latency: time.Second}
		p := NewPool([]Relay{named("a", r)}, Options{})
		l := add(p, "x", 1000)
		time.Sleep(1500 * time.Millisecond)
		p.Remove(l)
		time.Sleep(time.Minute)
		closePool(t, p)
		if r.messages() != 200 || len(l.settled) != 200 {
			t.Errorf("%d sent, %d settled, want the two envelopes that were cut before", r.messages(), len(l.settled))
		}
	})
}

func TestASourceThatIsReadyAgainIsServedThoughOthersAreBusy(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		a, b := &recorder{hold: make(chan struct{})}, &recorder{}
		p := NewPool([]Relay{named("a", a), named("b", b)}, Options{})
		l := newList(p, "x", 2)
		more := l.queue[1:]
		l.queue = l.queue[:1]
		p.Add(l)
		synctest.Wait() // one envelope hangs at the first relay, the source is empty
		l.mu.Lock()
		l.queue = more
		l.mu.Unlock()
		p.Ready(l)
		synctest.Wait()
		if b.messages() != 1 {
			t.Error("what came later was not sent by the relay that is free")
		}
		close(a.hold)
		<-l.finished
		closePool(t, p)
	})
}

func TestAnExhaustedRelayIsNotDialed(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		a, b := &recorder{latency: time.Millisecond}, &recorder{latency: time.Millisecond}
		p := NewPool([]Relay{named("a", a, func(c *Config) { c.MaxMessages = 100 }), named("b", b)}, Options{Idle: time.Second})
		<-add(p, "x", 500).finished
		time.Sleep(time.Minute)
		<-add(p, "y", 500).finished
		if a.messages() != 100 || a.dialed() != 1 {
			t.Errorf("%d messages and %d dials, want 100 and 1", a.messages(), a.dialed())
		}
		if s := p.Status()[0]; s.State != Exhausted || s.Left != 0 {
			t.Errorf("state %s, %d left", s.State, s.Left)
		}
		if !p.Reset("a") || p.Reset("nobody") {
			t.Error("Reset does not know its relays")
		}
		time.Sleep(time.Minute) // until the other has no idle session to take it over with
		<-add(p, "z", 100).finished
		if a.messages() != 200 {
			t.Errorf("%d messages after the reset", a.messages())
		}
		closePool(t, p)
	})
}

func TestASleepingRelayWakesUpAndGoesOnByItself(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		r := &recorder{latency: time.Millisecond}
		p := NewPool([]Relay{named("a", r, func(c *Config) { c.MaxMessagesWhileAwake = 150; c.SleepLength = 10 * time.Second })}, Options{})
		began := time.Now()
		<-add(p, "x", 450).finished
		if took := time.Since(began); took < 20*time.Second || took > 21*time.Second {
			t.Errorf("450 messages with two pauses took %v", took)
		}
		equal(t, "envelopes", sizes(r.envelopes()), []int{100, 50, 100, 50, 100, 50})
		closePool(t, p)
	})
}

func TestARateIsKeptInEverySecondAndUsed(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		r := &recorder{latency: time.Millisecond}
		p := NewPool([]Relay{named("a", r, connections(4), func(c *Config) { c.MaxRate = Rate{Messages: 14, Per: time.Second} })}, Options{})
		began := time.Now()
		l := add(p, "x", 14*60)
		<-l.finished
		took := time.Since(began)
		closePool(t, p)
		sent := r.envelopes()
		for _, from := range sent {
			n := 0
			for _, s := range sent {
				if !s.at.Before(from.at) && s.at.Before(from.at.Add(time.Second)) {
					n += len(s.recipients)
				}
			}
			if n > 14 {
				t.Fatalf("%d messages in the second from %v on", n, from.at)
			}
		}
		if took > 61*time.Second {
			t.Errorf("a minute's worth took %v", took)
		}
		if len(l.stalls) > 0 {
			t.Errorf("told of %d stalls", len(l.stalls))
		}
	})
}

func TestCloseFinishesWhatIsBeingSentAndNothingElse(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		r := &recorder{latency: time.Second, overlap: true}
		p := NewPool([]Relay{named("a", r, connections(2))}, Options{})
		l := add(p, "x", 10_000)
		time.Sleep(100 * time.Millisecond)
		closePool(t, p)
		// Two envelopes and the two that were promised to follow.
		if r.messages() != 400 || len(l.settled) != 400 || r.said != 2 || r.open != 0 {
			t.Errorf("%d sent, %d settled, %d QUIT, %d open", r.messages(), len(l.settled), r.said, r.open)
		}
		p.Ready(l)
		p.Add(newList(p, "y", 1))
		p.Remove(l)
		closePool(t, p)
		if r.messages() != 400 {
			t.Error("a closed pool sends")
		}
	})
}

func TestCloseCutsOffWhatDoesNotFinishAndSettlesIt(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		r := &recorder{hold: make(chan struct{}), overlap: true}
		slow := &recorder{dialTime: time.Hour}
		p := NewPool([]Relay{named("a", r, connections(3)), named("b", slow)}, Options{})
		l := add(p, "x", 10_000)
		time.Sleep(time.Second)
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
		defer cancel()
		began := time.Now()
		err := p.Close(ctx)
		if !errors.Is(err, context.DeadlineExceeded) || time.Since(began) != 5*time.Second {
			t.Errorf("%v after %v", err, time.Since(began))
		}
		if len(l.queue) != 10_000 || len(l.settled) != 0 {
			t.Errorf("%d of 10000 are back in the queue", len(l.queue))
		}
		if s := p.Status()[0]; s.LastError != nil || s.State != Awake {
			t.Errorf("the relay is blamed for our hurry: %+v", s)
		}
	})
}

func TestASessionThatLeavesNoResultsLeavesEverybodyInDoubt(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		r := &recorder{reply: func(_ int, e *smtp.Envelope) error {
			e.Results = nil
			return nil
		}}
		p := NewPool([]Relay{named("a", r)}, Options{})
		l := add(p, "x", 10)
		<-l.finished
		closePool(t, p)
		if l.status[smtp.InDoubt] != 10 {
			t.Errorf("%v", l.status)
		}
	})
}

// divided is a recorder whose server takes so many domains in one envelope.
type divided struct {
	*recorder
	domains int
}

type dividedSession struct {
	Session
	domains int
}

func (s dividedSession) MaxDomains() int { return s.domains }

func (r divided) Dial(ctx context.Context) (Session, error) {
	s, err := r.recorder.Dial(ctx)
	return dividedSession{s, r.domains}, err
}

// asked is a list that remembers of how many domains its envelopes may be.
type asked struct {
	*list
	domains []int
}

func (a *asked) Cut(g Grant) *Envelope {
	a.domains = append(a.domains, g.Domains)
	return a.list.Cut(g)
}

func TestAnEnvelopeHasNoMoreDomainsThanConfiguredAndThanTheServerTakes(t *testing.T) {
	t.Parallel()
	for _, test := range []struct{ configured, announced, want int }{{1, 0, 1}, {1, 5, 1}, {7, 5, 5}, {7, 9, 7}, {0, 5, 5}, {0, 0, 0}} {
		synctest.Test(t, func(t *testing.T) {
			r := divided{&recorder{overlap: true}, test.announced}
			p := NewPool([]Relay{named("a", r, func(c *Config) { c.EnvelopeDomains = cmp.Or(test.configured, None) })}, Options{})
			l := &asked{list: newList(p, "x", 300)}
			p.Add(l)
			synctest.Wait()
			closePool(t, p)
			if len(l.domains) < 3 || slices.ContainsFunc(l.domains, func(n int) bool { return n != test.want }) {
				t.Errorf("configured %d, announced %d: granted %v", test.configured, test.announced, l.domains)
			}
		})
	}
}

func TestWhatIsCutOffOfOneSourceLeavesTheOthersAndTheRelayAlone(t *testing.T) {
	t.Parallel()
	for name, order := range map[string][]int{"sent first": {0, 1}, "to follow on the session of the other": {1, 0}} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				r := &recorder{latency: time.Minute, overlap: true}
				p := NewPool([]Relay{named("a", r)}, Options{})
				lists := []*list{newList(p, "x", 1000), newList(p, "y", 1000)}
				for _, i := range order {
					p.Add(lists[i])
				}
				time.Sleep(time.Second)
				x, y := lists[0], lists[1]
				p.Remove(x)
				p.Abort(x)
				synctest.Wait()
				x.mu.Lock()
				if len(x.queue) != 1000 || len(x.settled) != 0 {
					t.Errorf("%d of 1000 are back in the queue", len(x.queue))
				}
				x.mu.Unlock()
				<-y.finished
				if s := p.Status()[0]; s.LastError != nil || s.State != Awake {
					t.Errorf("the relay is blamed for our hurry: %+v", s)
				}
				closePool(t, p)
			})
		})
	}
}
