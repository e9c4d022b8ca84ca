package relay

import (
	"maps"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"
)

// flight is an envelope on its way: the relay counts its messages at some
// moment between granted and settled, and nobody knows which.
type flight struct {
	relay, taken     int
	granted, settled time.Time
	counted          int
}

func some(t *rapid.T, name string, most int) int { return rapid.IntRange(1, most).Draw(t, name) }

var drawn = map[string]func(t *rapid.T, l *Limits){
	"envelope_limit": func(t *rapid.T, l *Limits) { l.EnvelopeLimit = some(t, "envelope_limit", 20) },
	"max_messages":   func(t *rapid.T, l *Limits) { l.MaxMessages = some(t, "max_messages", 1000) },
	"max_messages_window": func(t *rapid.T, l *Limits) {
		l.MaxMessages = some(t, "max_messages", 100)
		l.MaxMessagesWindow = time.Duration(some(t, "max_messages_window", 20)) * time.Second
	},
	"max_messages_spread": func(t *rapid.T, l *Limits) {
		l.MaxMessages = some(t, "max_messages", 500)
		l.MaxMessagesWindow = time.Duration(some(t, "max_messages_window", 20)) * time.Second
		l.MaxMessagesSpread = true
	},
	"max_rate": func(t *rapid.T, l *Limits) {
		l.MaxRate = Rate{some(t, "max_rate", 60), time.Duration(some(t, "per", 5)) * time.Second}
	},
	"max_messages_per_robin": func(t *rapid.T, l *Limits) { l.MaxMessagesPerRobin = some(t, "max_messages_per_robin", 50) },
	"max_messages_while_awake": func(t *rapid.T, l *Limits) {
		l.MaxMessagesWhileAwake = some(t, "max_messages_while_awake", 80)
		l.SleepLength = time.Duration(some(t, "sleep_length", 10)) * time.Second
	},
}

func TestNoCapIsEverExceeded(t *testing.T) {
	t.Parallel()
	names := slices.Sorted(maps.Keys(drawn))
	anyOf := rapid.Custom(func(t *rapid.T) Limits {
		var l Limits
		for _, name := range names {
			if rapid.Bool().Draw(t, name) {
				drawn[name](t, &l)
			}
		}
		return l
	})
	t.Run("all together", func(t *testing.T) {
		t.Parallel()
		rapid.Check(t, noCapIsExceeded(anyOf))
	})
	for _, name := range names {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			rapid.Check(t, noCapIsExceeded(rapid.Custom(func(t *rapid.T) Limits {
				var l Limits
				drawn[name](t, &l)
				return l
			})))
		})
	}
}

func noCapIsExceeded(draw *rapid.Generator[Limits]) func(*rapid.T) {
	return func(t *rapid.T) {
		limits := rapid.SliceOfN(draw, 1, 4).Draw(t, "relays")
		r := NewRobin(limits)
		now := noon
		var flying, landed []flight
		sleeping := make([]time.Time, len(limits))
		awake := make([]int, len(limits))

		grant := func(t *rapid.T) {
			rooms := rapid.SliceOfN(rapid.IntRange(0, 40), len(limits), len(limits)).Draw(t, "rooms")
			able := false
			for i, room := range rooms {
				able = able || room > 0 && r.Left(now, i) > 0
			}
			i, n := r.Next(now, func(i int) int { return rooms[i] })
			if able != (i >= 0) {
				t.Fatalf("some relay can take: %v, but the robin says %d", able, i)
			}
			if i < 0 {
				return
			}
			l := limits[i]
			if n < 1 || n > rooms[i] || l.EnvelopeLimit > 0 && n > l.EnvelopeLimit || l.MaxMessagesPerRobin > 0 && n > l.MaxMessagesPerRobin {
				t.Fatalf("relay %d with %+v and room for %d is granted %d", i, l, rooms[i], n)
			}
			if now.Before(sleeping[i]) {
				t.Fatalf("relay %d is granted %d in its sleep", i, n)
			}
			n = rapid.IntRange(1, n).Draw(t, "cut")
			r.Take(now, i, n)
			flying = append(flying, flight{relay: i, taken: n, granted: now})
		}
		settle := func(t *rapid.T, k int) {
			f := flying[k]
			flying = append(flying[:k], flying[k+1:]...)
			f.counted, f.settled = rapid.IntRange(0, f.taken).Draw(t, "counted"), now
			r.Settle(now, f.relay, f.taken, f.counted)
			landed = append(landed, f)
			l := limits[f.relay]
			awake[f.relay] += f.counted
			if l.MaxMessagesWhileAwake > 0 && l.SleepLength > 0 && awake[f.relay] >= l.MaxMessagesWhileAwake {
				if awake[f.relay] > l.MaxMessagesWhileAwake {
					t.Fatalf("relay %d took %d messages while awake, max %d", f.relay, awake[f.relay], l.MaxMessagesWhileAwake)
				}
				awake[f.relay], sleeping[f.relay] = 0, now.Add(l.SleepLength)
			}
		}
		for range 400 {
			switch rapid.IntRange(0, 4).Draw(t, "step") {
			case 0, 1:
				grant(t)
			case 2, 3:
				if len(flying) > 0 {
					settle(t, rapid.IntRange(0, len(flying)-1).Draw(t, "which"))
				}
			case 4:
				unit := rapid.SampledFrom([]time.Duration{time.Nanosecond, time.Millisecond, 20 * time.Millisecond, time.Second}).Draw(t, "unit")
				now = now.Add(time.Duration(rapid.IntRange(1, 20).Draw(t, "wait")) * unit)
			}
		}
		for len(flying) > 0 {
			settle(t, 0)
		}
		for i, l := range limits {
			checkCaps(t, i, l, landed)
		}
		for i := range limits {
			checkNobodyStarves(t, r, i, now)
		}
	}
}

// checkCaps looks at the worst that could have been: every message counts
// wherever it may have been accepted.
func checkCaps(t *rapid.T, i int, l Limits, landed []flight) {
	most := func(from, to time.Time) int { // of messages that may have been accepted in [from, to)
		n := 0
		for _, f := range landed {
			if f.relay == i && f.granted.Before(to) && !f.settled.Before(from) {
				n += f.counted
			}
		}
		return n
	}
	if l.Spread() != (Rate{}) {
		checkSpread(t, i, l, landed)
	}
	total := 0
	for _, f := range landed {
		if f.relay != i {
			continue
		}
		total += f.counted
		if l.MaxRate.Messages > 0 {
			if n := most(f.settled, f.settled.Add(l.MaxRate.Per)); n > l.MaxRate.Messages {
				t.Fatalf("relay %d: %d messages in %v from %v on, max_rate %v", i, n, l.MaxRate.Per, f.settled, l.MaxRate)
			}
		}
		if l.MaxMessages > 0 && l.MaxMessagesWindow > 0 {
			for _, at := range []time.Time{f.granted, f.settled} {
				from := at.Truncate(l.MaxMessagesWindow)
				if n := most(from, from.Add(l.MaxMessagesWindow)); n > l.MaxMessages {
					t.Fatalf("relay %d: %d messages in the window from %v on, max_messages %d", i, n, from, l.MaxMessages)
				}
			}
		}
	}
	if l.MaxMessages > 0 && l.MaxMessagesWindow == 0 && total > l.MaxMessages {
		t.Fatalf("relay %d: %d messages, max_messages %d", i, total, l.MaxMessages)
	}
}

// checkSpread: from no moment on are more messages granted that count than two
// quanta and what is due, and what was given back of earlier grants.
func checkSpread(t *rapid.T, i int, l Limits, landed []flight) {
	landed = slices.DeleteFunc(slices.Clone(landed), func(f flight) bool { return f.relay != i })
	slices.SortStableFunc(landed, func(a, b flight) int { return a.granted.Compare(b.granted) })
	p := newPace(l.Spread(), l.EnvelopeLimit)
	for from, first := range landed {
		back := 0
		for _, f := range landed[:from] {
			if !f.settled.Before(first.granted) {
				back += f.taken - f.counted
			}
		}
		n := 0
		for _, f := range landed[from:] {
			n += f.counted
			due := float64(l.MaxMessages) * float64(f.granted.Sub(first.granted)) / float64(l.MaxMessagesWindow)
			if float64(n) > float64(2*p.quantum+back)+due+1 {
				t.Fatalf("relay %d: %d messages from %v to %v, %.1f are due", i, n, first.granted, f.granted, due)
			}
		}
	}
}

// checkNobodyStarves: with nothing in flight, a relay can take something again
// when the robin says so.
func checkNobodyStarves(t *rapid.T, r *Robin, i int, now time.Time) {
	for range 4 { // one wait for each of the caps, and the end
		w := r.Wait(now, i)
		switch {
		case w.Never:
			return
		case w.Limit == NoLimit:
			if r.Left(now, i) <= 0 {
				t.Fatalf("relay %d waits for nothing and yet can take nothing", i)
			}
			return
		case !w.Until.After(now):
			t.Fatalf("relay %d: waits %+v at %v with nothing in flight", i, w, now)
		}
		now = w.Until
	}
	t.Fatalf("relay %d can take nothing whatever it waits for", i)
}

func TestSharesStayWithinOneRoundOfTheWeights(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		weights := rapid.SliceOfN(rapid.IntRange(1, 200), 1, 5).Draw(t, "weights")
		limits := make([]Limits, len(weights))
		for i, w := range weights {
			limits[i] = Limits{EnvelopeLimit: 50, MaxMessagesPerRobin: w}
		}
		r := NewRobin(limits)
		sent := make([]int, len(weights))
		for range rapid.IntRange(1, 400).Draw(t, "envelopes") {
			i, n := r.Next(noon, all)
			n = rapid.IntRange(1, n).Draw(t, "cut")
			r.Take(noon, i, n)
			sent[i] += n
			for j := range sent {
				rounds, others := float64(sent[i])/float64(weights[i]), float64(sent[j])/float64(weights[j])
				if rounds-others > 1 {
					t.Fatalf("relay %d is %.2f rounds ahead of relay %d: %v of %v", i, rounds-others, j, sent, weights)
				}
			}
		}
	})
}
