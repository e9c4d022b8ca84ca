package relay

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
)

func maxMessages(n int) func(*Config) { return func(c *Config) { c.MaxMessages = n } }

func TestRelaysChangeUnderLoadAndNobodyIsLostOrSentToTwice(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		stays, goes, comes := &recorder{latency: 10 * time.Millisecond}, &recorder{latency: 10 * time.Millisecond}, &recorder{latency: 10 * time.Millisecond}
		small := func(c *Config) { c.EnvelopeLimit, c.MaxMessagesPerRobin = 10, 10 }
		p := NewPool([]Relay{named("stays", stays, connections(2), small, maxMessages(700)), named("goes", goes, connections(2), small)}, Options{})
		l := add(p, "x", 3000)
		time.Sleep(105 * time.Millisecond)
		changes := p.Configure([]Relay{
			named("comes", comes, connections(2), small),
			named("stays", stays, connections(2), small, maxMessages(900)),
		})
		atChange := goes.messages()
		if diff := cmp.Diff(Changes{Added: []string{"comes"}, Removed: []string{"goes"}, Changed: []string{"stays"}}, changes); diff != "" {
			t.Errorf("-want +got\n%s", diff)
		}
		<-l.finished
		for recipient, n := range l.settled {
			if n != 1 {
				t.Errorf("%s was settled %d times", recipient, n)
			}
		}
		if stays.messages() != 900 || stays.dialed() != 2 {
			t.Errorf("the relay that stays took %d messages, max_messages 900, over %d sessions, want the 2 that it had", stays.messages(), stays.dialed())
		}
		if n := goes.messages(); n == 0 || n > atChange+20 {
			t.Errorf("the relay that goes took %d messages, %d before it went and at most 20 were on their way", n, atChange)
		}
		if total := stays.messages() + goes.messages() + comes.messages(); len(l.settled) != 3000 || total != 3000 {
			t.Errorf("%d recipients settled, %d messages sent, want 3000", len(l.settled), total)
		}
		synctest.Wait()
		if goes.open != 0 || goes.said != 2 {
			t.Errorf("%d sessions with the relay that went are open, %d said QUIT", goes.open, goes.said)
		}
		if s := p.Status(); len(s) != 2 || s[0].Relay != "comes" || s[1].Messages != 900 {
			t.Errorf("status %+v", s)
		}
		closePool(t, p)
	})
}

func TestARelayReachedOtherwiseGetsFreshSessionsAndKeepsItsCounters(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		before, after := &recorder{}, &recorder{}
		p := NewPool([]Relay{named("a", before, maxMessages(150))}, Options{})
		<-add(p, "x", 100).finished
		changes := p.Configure([]Relay{named("a", after, maxMessages(150), func(c *Config) { c.Host = "elsewhere" })})
		if len(changes.Changed) != 1 {
			t.Errorf("changes %+v", changes)
		}
		synctest.Wait()
		if before.open != 0 || before.said != 1 {
			t.Errorf("%d old sessions are open, %d said QUIT", before.open, before.said)
		}
		l := add(p, "y", 100)
		synctest.Wait()
		if after.messages() != 50 {
			t.Errorf("%d messages of the 50 that were left", after.messages())
		}
		p.Remove(l)
		closePool(t, p)
	})
}

func TestTheSameRelaysAgainAreNoChange(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		a := &recorder{}
		p := NewPool([]Relay{named("a", a)}, Options{})
		<-add(p, "x", 100).finished
		again := named("a", &recorder{}, func(c *Config) { c.Where = "relays.yaml:7" })
		if c := p.Configure([]Relay{again}); c.Any() {
			t.Errorf("changes %+v", c)
		}
		<-add(p, "y", 100).finished
		if a.dialed() != 1 || a.messages() != 200 {
			t.Errorf("%d sessions, %d messages; want the one session to go on", a.dialed(), a.messages())
		}
		closePool(t, p)
	})
}

func TestFewerConnectionsCloseTheSurplus(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		a := &recorder{latency: time.Millisecond}
		p := NewPool([]Relay{named("a", a, connections(4))}, Options{})
		<-add(p, "x", 4000).finished
		p.Configure([]Relay{named("a", a, connections(1))})
		<-add(p, "y", 1000).finished
		if s := p.Status()[0]; s.Sessions != 1 || a.open != 1 {
			t.Errorf("%d sessions, %d open, want 1", s.Sessions, a.open)
		}
		closePool(t, p)
	})
}

func TestCapsThatComeAndGoCountWhatIsOnItsWay(t *testing.T) {
	t.Parallel()
	for _, change := range []struct {
		name  string
		after func(*Config)
		most  int
	}{
		{"a rate", func(c *Config) { c.MaxRate = Rate{Messages: 100, Per: time.Hour} }, 200},
		{"a cap", maxMessages(200), 200},
		{"a sleep", func(c *Config) { c.MaxMessagesWhileAwake, c.SleepLength = 100, time.Hour }, 200},
	} {
		t.Run(change.name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				a := &recorder{latency: 10 * time.Millisecond}
				p := NewPool([]Relay{named("a", a)}, Options{})
				l := add(p, "x", 2000)
				time.Sleep(15 * time.Millisecond) // the second envelope is on its way
				p.Configure([]Relay{named("a", a, change.after)})
				time.Sleep(time.Minute)
				if n := a.messages(); n > change.most {
					t.Errorf("%d messages, want at most %d", n, change.most)
				}
				p.Configure([]Relay{named("a", a)})
				<-l.finished
				if len(l.settled) != 2000 {
					t.Errorf("%d settled", len(l.settled))
				}
				closePool(t, p)
			})
		})
	}
}
