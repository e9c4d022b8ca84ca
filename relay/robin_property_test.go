package relay

import (
	"testing"
	"time"

	"pgregory.net/rapid"

	"bulkmail/relay/caps"
	"bulkmail/relay/caps/capstest"
)

// flight is an envelope on its way over a relay.
type flight struct {
	relay int
	capstest.Sending
}

// drawn is the limits of one relay: caps as drawn, and perhaps a turn.
func drawn(t *rapid.T, draw *rapid.Generator[caps.Limits]) Limits {
	c := draw.Draw(t, "caps")
	l := Limits{
		EnvelopeLimit: c.EnvelopeLimit, MaxMessages: c.MaxMessages, MaxMessagesWindow: c.MaxMessagesWindow, MaxMessagesSpread: c.MaxMessagesSpread,
		MaxRate: c.MaxRate, MaxMessagesWhileAwake: c.MaxMessagesWhileAwake, SleepLength: c.SleepLength,
	}
	if rapid.Bool().Draw(t, "max_messages_per_robin") {
		l.MaxMessagesPerRobin = rapid.IntRange(1, 50).Draw(t, "turn")
	}
	return l
}

func TestNoCapOfAnyRelayIsEverExceeded(t *testing.T) {
	t.Parallel()
	capstest.Check(t, noCapIsExceeded)
}

func noCapIsExceeded(t *rapid.T, draw *rapid.Generator[caps.Limits]) {
	limits := make([]Limits, rapid.IntRange(1, 4).Draw(t, "relays"))
	for i := range limits {
		limits[i] = drawn(t, draw)
	}
	r := NewRobin(limits)
	now := capstest.Noon
	var flying []*flight
	landed := make([]capstest.Sendings, len(limits))
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
		flying = append(flying, &flight{i, capstest.Sending{Granted: now, Taken: n}})
	}
	settle := func(t *rapid.T, k int) {
		f := flying[k]
		flying = append(flying[:k], flying[k+1:]...)
		f.Counted, f.Settled = rapid.IntRange(0, f.Taken).Draw(t, "counted"), now
		r.Settle(now, f.relay, f.Taken, f.Counted)
		landed[f.relay] = append(landed[f.relay], &f.Sending)
		l := limits[f.relay]
		awake[f.relay] += f.Counted
		if l.MaxMessagesWhileAwake > 0 && l.SleepLength > 0 && awake[f.relay] >= l.MaxMessagesWhileAwake {
			if awake[f.relay] > l.MaxMessagesWhileAwake {
				t.Fatalf("relay %d took %d messages while awake, max %d", f.relay, awake[f.relay], l.MaxMessagesWhileAwake)
			}
			awake[f.relay], sleeping[f.relay] = 0, now.Add(l.SleepLength)
		}
	}
	for range 200 {
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
		landed[i].Check(t, l.caps())
	}
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
