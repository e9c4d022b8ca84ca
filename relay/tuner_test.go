package relay

import (
	"math"
	"math/rand/v2"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"bulkmail/relay/smtp"

	"pgregory.net/rapid"
)

// serve has a server with these manners take envelopes from so many sessions as
// the tuner allows, for so long, and returns how many messages it took and how
// often it was throttled. After that nothing is sent for pause.
func serve(tune *tuner, now *time.Time, span time.Duration, latency func(sessions int) time.Duration, atMost int, pause time.Duration) (messages int, throttled []time.Time) {
	noise := rand.New(rand.NewPCG(1, 2))
	for end := now.Add(span); now.Before(end); {
		n := tune.at
		if n > atMost {
			tune.throttled(*now, n)
			throttled = append(throttled, *now)
			*now = now.Add(pause)
			continue
		}
		took := latency(n)
		*now = now.Add(took)
		for range n { // each of the sessions has sent one, and no two take the same time
			messages++
			tune.sent(*now, 1, time.Duration((0.7+0.6*noise.Float64())*float64(took)))
		}
	}
	return messages, throttled
}

// capacity is a server that does so many envelopes at once without slowing
// down, and loses by each more.
func capacity(k int, thrash float64) func(int) time.Duration {
	return func(n int) time.Duration {
		over := max(1, float64(n)/float64(k))
		return time.Duration(100 * float64(time.Millisecond) * over * math.Pow(over, thrash))
	}
}

func TestASessionIsAddedWhileThatPays(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		most := rapid.IntRange(1, 32).Draw(t, "connections")
		k := rapid.IntRange(1, 32).Draw(t, "capacity")
		thrash := rapid.Float64Range(0, 2).Draw(t, "thrash")
		tune, now := newTuner(most), noon
		latency := capacity(k, thrash)
		serve(tune, &now, 10*time.Minute, latency, most, 0)
		got, _ := serve(tune, &now, 10*time.Minute, latency, most, 0)
		best := float64(min(k, most)) * float64(10*time.Minute) / float64(latency(min(k, most)))
		if float64(got) < 0.9*best {
			t.Fatalf("%d sessions of %d with a server for %d: %d messages in ten minutes, %.0f are possible", tune.at, most, k, got, best)
		}
	})
}

func TestAServerThatThrottlesIsLeftInPeaceAndYetUsed(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		most := rapid.IntRange(2, 32).Draw(t, "connections")
		k := rapid.IntRange(1, most-1).Draw(t, "sessions it takes")
		tune, now := newTuner(most), noon
		const pause = 5 * time.Second
		slowly := func(int) time.Duration { return time.Second }
		_, early := serve(tune, &now, time.Hour, slowly, k, pause)
		got, late := serve(tune, &now, 4*time.Hour, slowly, k, pause)
		// The pause between them doubles up to an hour.
		if len(early) > 16 || len(late) > 6 {
			t.Fatalf("throttled %d times in the first hour and %d times in the next four", len(early), len(late))
		}
		best := float64(k) * float64(4*time.Hour) / float64(slowly(1))
		if float64(got) < 0.9*best {
			t.Fatalf("%d messages in four hours with %d sessions, %.0f are possible with %d", got, tune.at, best, k)
		}
	})
}

func TestMoreSessionsAreTriedAgainWhenAServerTakesMore(t *testing.T) {
	t.Parallel()
	tune, now := newTuner(16), noon
	serve(tune, &now, 10*time.Minute, capacity(16, 0), 3, 5*time.Second)
	if tune.at > 3 {
		t.Errorf("%d sessions, the server takes 3", tune.at)
	}
	serve(tune, &now, 2*time.Hour, capacity(16, 0), 16, 5*time.Second)
	if tune.at < 15 {
		t.Errorf("%d sessions, the server takes 16 by now", tune.at)
	}
}

func TestTheNumberOfSessionsStaysWithinOneAndConnections(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		most := rapid.IntRange(1, 20).Draw(t, "connections")
		tune, now := newTuner(most), noon
		for range 2000 {
			now = now.Add(time.Duration(rapid.IntRange(0, 1000).Draw(t, "wait")) * 10 * time.Millisecond)
			switch rapid.IntRange(0, 60).Draw(t, "step") {
			case 0:
				tune.throttled(now, rapid.IntRange(1, most).Draw(t, "sending"))
			case 1:
				tune.refused(now, rapid.IntRange(0, most).Draw(t, "open"))
			case 2:
				most = rapid.IntRange(1, 20).Draw(t, "connections")
				tune.change(most)
			default:
				took := time.Duration(rapid.IntRange(0, 1000).Draw(t, "took")) * time.Millisecond
				tune.sent(now, rapid.SampledFrom([]int{1, 10, 100, 1000}).Draw(t, "recipients"), took)
			}
			if tune.at < 1 || tune.at > most {
				t.Fatalf("%d sessions of %d", tune.at, most)
			}
		}
	})
}

// crowded is a recorder that knows how many envelopes are with it, and takes
// longer over each or throttles when there are many.
func crowded(latency func(n int) time.Duration, atMost int) *recorder {
	var with atomic.Int32
	return &recorder{
		survives: true,
		slow:     func(int) time.Duration { return latency(int(with.Add(1))) },
		reply: func(_ int, e *smtp.Envelope) error {
			if n := int(with.Add(-1)) + 1; n > atMost {
				return &smtp.Error{MBS: "MBS013", Unwell: true, Reply: &smtp.Reply{Code: 451, Enhanced: "4.7.0", Text: "too many", Command: "MAIL"}}
			}
			answer(e, smtp.Accepted)
			return nil
		},
	}
}

func adaptive(c *Config) { c.Adaptive, c.Connections, c.EnvelopeLimit = true, 16, 10 }

func TestAnAdaptiveRelayIsSentToByAsManySessionsAsServeItBest(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		took := make(map[bool]time.Duration)
		for _, on := range []bool{false, true} {
			p := NewPool([]Relay{named("a", crowded(capacity(4, 1), 16), adaptive, func(c *Config) { c.Adaptive = on })}, Options{})
			began := time.Now()
			<-add(p, "x", 50_000).finished
			took[on] = time.Since(began)
			if n := p.Status()[0].AtOnce; on && (n < 3 || n > 5) || !on && n != 16 {
				t.Errorf("adaptive %t: %d sessions at once with a server that does 4", on, n)
			}
			closePool(t, p)
		}
		if took[true] > took[false]/3 {
			t.Errorf("adaptive %v, all connections %v: the server takes four times as long over 16", took[true], took[false])
		}
	})
}

func TestAnAdaptiveRelayThatThrottlesIsSentToByFewerSessions(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		a := crowded(capacity(16, 0), 3)
		p := NewPool([]Relay{named("a", a, adaptive)}, Options{})
		began := time.Now()
		l := add(p, "x", 50_000)
		<-l.finished
		// 5,000 envelopes of 100 ms over three sessions.
		if took := time.Since(began); took > 220*time.Second {
			t.Errorf("it took %v, three sessions need 167 s", took)
		}
		if n := p.Status()[0].AtOnce; n > 3 {
			t.Errorf("%d sessions at once with a server that takes 3", n)
		}
		if len(l.settled) != 50_000 || l.status[smtp.Accepted] != 50_000 {
			t.Errorf("%d settled: %v", len(l.settled), l.status)
		}
		p.Configure([]Relay{named("a", a, func(c *Config) { c.Connections = 2 })})
		if n := p.Status()[0].AtOnce; n != 2 {
			t.Errorf("%d sessions at once without adaptive and 2 connections", n)
		}
		closePool(t, p)
	})
}
