package caps_test

import (
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"

	"bulkmail/relay/caps"
	"bulkmail/relay/caps/capstest"
	"bulkmail/testdata/testrun"
)

func TestALonePoolNeverExceedsACap(t *testing.T) {
	t.Parallel()
	capstest.Check(t, func(t *rapid.T, draw *rapid.Generator[caps.Limits]) {
		limits := draw.Draw(t, "limits")
		l, now := caps.New(limits, caps.State{}), capstest.Noon
		var flying, settled capstest.Sendings
		awake, asleepUntil := 0, time.Time{}
		settle := func(k int) {
			f := flying[k]
			flying = slices.Delete(flying, k, k+1)
			f.Counted, f.Settled = rapid.IntRange(0, f.Taken).Draw(t, "counted"), now
			l.Settle(now, f.Taken, f.Counted)
			settled = append(settled, f)
			if awake += f.Counted; limits.SleepLength > 0 && awake >= limits.MaxMessagesWhileAwake {
				if awake > limits.MaxMessagesWhileAwake {
					t.Fatalf("%d messages while awake, at most %d", awake, limits.MaxMessagesWhileAwake)
				}
				awake, asleepUntil = 0, now.Add(limits.SleepLength)
			}
		}
		for range testrun.InFull(400, 250) {
			switch rapid.IntRange(0, 4).Draw(t, "step") {
			case 0, 1:
				n := min(l.Left(now), rapid.IntRange(1, 40).Draw(t, "cut"))
				if (n > 0) != (l.Wait(now).Limit == caps.NoLimit) {
					t.Fatalf("%d left, and yet waits %+v", n, l.Wait(now))
				}
				if n <= 0 {
					continue
				}
				if now.Before(asleepUntil) {
					t.Fatalf("%d left in its sleep", n)
				}
				l.Take(now, n)
				flying = append(flying, &capstest.Sending{Granted: now, Taken: n})
			case 2, 3:
				if len(flying) > 0 {
					settle(rapid.IntRange(0, len(flying)-1).Draw(t, "which"))
				}
			case 4:
				unit := rapid.SampledFrom([]time.Duration{time.Nanosecond, time.Millisecond, 20 * time.Millisecond, time.Second}).Draw(t, "unit")
				now = now.Add(time.Duration(rapid.IntRange(1, 20).Draw(t, "wait")) * unit)
			}
		}
		for len(flying) > 0 {
			settle(0)
		}
		settled.Check(t, limits)
		settled.CheckSpreadFromAnyMoment(t, limits)
		nothingHeldMeansAWaitThatEnds(t, l, now)
	})
}

func nothingHeldMeansAWaitThatEnds(t *rapid.T, l *caps.Ledger, now time.Time) {
	for range 5 { // one wait for each of the caps, and the end
		w := l.Wait(now)
		switch {
		case w.Never:
			return
		case w.Limit == caps.NoLimit:
			if l.Left(now) <= 0 {
				t.Fatalf("waits for nothing and yet can take nothing: %+v", l)
			}
			return
		case !w.Until.After(now):
			t.Fatalf("waits %+v at %v with nothing held", w, now)
		}
		now = w.Until
	}
	t.Fatalf("can take nothing whatever it waits for: %+v", l)
}

func TestALonePoolSendsAsMuchAsTheTableAllows(t *testing.T) {
	t.Parallel()
	for _, c := range capstest.Cases() {
		t.Run(c.Name, func(t *testing.T) {
			t.Parallel()
			l := caps.New(c.Limits, caps.State{})
			var sent capstest.Sendings
			for now := capstest.Noon; now.Before(capstest.Noon.Add(c.For)); now = now.Add(10 * time.Millisecond) {
				for {
					n := min(l.Left(now), c.Limits.Envelope())
					if n == 0 {
						break
					}
					l.Take(now, n)
					l.Settle(now, n, n)
					sent = append(sent, &capstest.Sending{Granted: now, Settled: now, Taken: n, Counted: n})
				}
			}
			sent.Check(t, c.Limits)
			if n := sent.Sent(); n > c.AtMost || n < c.AtLeast {
				t.Errorf("%d messages, want %d to %d", n, c.AtLeast, c.AtMost)
			}
		})
	}
}

func TestALeaseIsOnePercentOfACapOrAnEnvelope(t *testing.T) {
	t.Parallel()
	for want, l := range map[int]caps.Limits{
		caps.Unlimited: {},
		200:            {MaxMessages: 20_000},
		100:            {MaxMessages: 300},
		10:             {MaxMessages: 300, EnvelopeLimit: 10},
		1000:           {MaxMessages: 1_000_000, MaxMessagesWhileAwake: 100_000, SleepLength: time.Minute},
		156:            {MaxRate: caps.Rate{Messages: 10_000, Per: time.Second}},
	} {
		if got := l.Lease(); got != want {
			t.Errorf("%s: %d, want %d", l, got, want)
		}
	}
}

func TestLimitsAreWrittenByTheNamesOfTheSettings(t *testing.T) {
	t.Parallel()
	l := caps.Limits{MaxMessages: 5, MaxMessagesWindow: 24 * time.Hour, MaxMessagesSpread: true, MaxRate: caps.Rate{Messages: 14, Per: time.Second}, MaxMessagesWhileAwake: 7, SleepLength: time.Minute}
	want := "max_messages=5 max_messages_window=24h0m0s max_messages_spread=true max_rate=14/s max_messages_while_awake=7 sleep_length=1m0s"
	if got := l.String(); got != want {
		t.Errorf("%s, want %s", got, want)
	}
	if got := (caps.Limits{MaxMessagesWhileAwake: 7, EnvelopeLimit: 3}).String(); got != "none" {
		t.Errorf("%s, want none", got)
	}
}

func TestAWindowThatIsMadeShorterTurnsAtItsOwnTime(t *testing.T) {
	t.Parallel()
	l := caps.New(caps.Limits{MaxMessages: 10, MaxMessagesWindow: 24 * time.Hour}, caps.State{})
	l.Take(capstest.Noon, 10)
	l.Settle(capstest.Noon, 10, 10)
	l.Change(caps.Limits{MaxMessages: 10, MaxMessagesWindow: time.Hour})
	if w := l.Wait(capstest.Noon); !w.Until.Equal(capstest.Noon.Add(time.Hour)) {
		t.Errorf("waits %+v, want an hour", w)
	}
}
