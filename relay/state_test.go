package relay

import (
	"testing"
	"testing/synctest"
	"time"

	"bulkmail/relay/smtp"
)

func TestStatusTellsWhatWasSent(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		refuse := &recorder{reply: func(_ int, e *smtp.Envelope) error {
			answer(e, smtp.Accepted)
			e.Results[0].Status = smtp.Rejected
			return nil
		}}
		p := NewPool([]Relay{named("a", refuse, func(c *Config) { c.MaxMessages = 1000 })}, Options{})
		<-add(p, "x", 250).finished
		at := time.Now()
		synctest.Wait()
		s := p.Status()[0]
		if s.Relay != "a" || s.State != Awake || s.Messages != 247 || s.Envelopes != 3 || !s.LastMessage.Equal(at) ||
			s.LastError != nil || s.Sessions != 1 || s.Busy != 0 || s.Left != 753 {
			t.Errorf("%+v", s)
		}
		closePool(t, p)
	})
}

func TestStatusCountsEnvelopesByWhatBecameOfThem(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		r := &recorder{reply: func(n int, e *smtp.Envelope) error {
			switch n {
			case 2:
				answer(e, smtp.Rejected)
			case 3:
				return &smtp.Error{MBS: "MBS009", Unwell: true}
			default:
				answer(e, smtp.Accepted)
			}
			return nil
		}}
		p := NewPool([]Relay{named("a", r, connections(1))}, Options{})
		<-add(p, "x", 450).finished
		synctest.Wait()
		// The third is sent once more.
		s := p.Status()[0]
		if s.Envelopes != 4 || s.Refused != 1 || s.Failed != 1 || s.Errors != 1 {
			t.Errorf("%+v", s)
		}
		closePool(t, p)
	})
}

// A port that drops what it is sent answers after half a minute or never. Whoever
// looks meanwhile, at any time, is not told that the relay is awake.
func TestARelayIsAwakeWhenItHasBeenReached(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		r := &recorder{dialTime: 20 * time.Second, dial: func(n int) error {
			if n <= 2 {
				return refused
			}
			return nil
		}}
		p := NewPool([]Relay{named("a", r)}, Options{})
		if st := p.Status()[0]; st.State != Untried {
			t.Errorf("before anything is sent: %+v", st)
		}
		l := add(p, "x", 10)
		time.Sleep(p.opts.DialPatience)
		for {
			synctest.Wait()
			if n := r.dialed(); n > 2 && len(p.Status()[0].State) > 0 && p.Status()[0].Sessions > 0 {
				break
			}
			if st := p.Status()[0]; st.State != Parked {
				t.Fatalf("dial %d: %+v", r.dialed(), st)
			}
			time.Sleep(100 * time.Millisecond)
		}
		<-l.finished
		if st := p.Status()[0]; st.State != Awake {
			t.Errorf("%+v", st)
		}
		closePool(t, p)
	})
}

// What was tried in vain stays so while nobody tries again.
func TestARelayThatWasNeverReachedIsParkedAlsoWhenItsPauseIsOver(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		p := NewPool([]Relay{named("a", &recorder{dial: never(refused)})}, Options{})
		l := add(p, "x", 10)
		time.Sleep(time.Millisecond)
		p.Remove(l)
		time.Sleep(time.Hour)
		if st := p.Status()[0]; st.State != Parked || !st.Until.IsZero() {
			t.Errorf("%+v", st)
		}
		closePool(t, p)
	})
}
