// Package capstest says what the caps of a relay allow, for tests of whatever
// keeps them: a pool by itself and a fleet are held to the same model ([Sendings])
// and to the same table ([Cases]).
package capstest

import (
	"maps"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"

	"bulkmail/relay/caps"
)

// Noon is when tests begin.
var Noon = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

// Latest is the longest time that settings drawn here wait for: a window, a period
// or a sleep.
const Latest = 20 * time.Second

func upTo(t *rapid.T, name string, most int) int { return rapid.IntRange(1, most).Draw(t, name) }

func seconds(t *rapid.T, name string, most int) time.Duration {
	return time.Duration(upTo(t, name, most)) * time.Second
}

var settings = map[string]func(t *rapid.T, l *caps.Limits){
	"envelope_limit": func(t *rapid.T, l *caps.Limits) { l.EnvelopeLimit = upTo(t, "envelope_limit", 20) },
	"max_messages":   func(t *rapid.T, l *caps.Limits) { l.MaxMessages = upTo(t, "max_messages", 1000) },
	"max_messages_window": func(t *rapid.T, l *caps.Limits) {
		l.MaxMessages = upTo(t, "max_messages", 100)
		l.MaxMessagesWindow = seconds(t, "max_messages_window", 20)
	},
	"max_messages_spread": func(t *rapid.T, l *caps.Limits) {
		l.MaxMessages = upTo(t, "max_messages", 500)
		l.MaxMessagesWindow = seconds(t, "max_messages_window", 20)
		l.MaxMessagesSpread = true
	},
	"max_rate": func(t *rapid.T, l *caps.Limits) {
		l.MaxRate = caps.Rate{Messages: upTo(t, "max_rate", 60), Per: seconds(t, "per", 5)}
	},
	"max_messages_while_awake": func(t *rapid.T, l *caps.Limits) {
		l.MaxMessagesWhileAwake = upTo(t, "max_messages_while_awake", 80)
		l.SleepLength = seconds(t, "sleep_length", 10)
	},
}

// Check runs property with limits drawn at random: each setting by itself, and any
// of them together.
func Check(t *testing.T, property func(t *rapid.T, draw *rapid.Generator[caps.Limits])) {
	t.Helper()
	names := slices.Sorted(maps.Keys(settings))
	run := func(name string, draw func(t *rapid.T) caps.Limits) {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			rapid.Check(t, func(t *rapid.T) { property(t, rapid.Custom(draw)) })
		})
	}
	run("all together", func(t *rapid.T) caps.Limits {
		var l caps.Limits
		for _, name := range names {
			if rapid.Bool().Draw(t, name) {
				settings[name](t, &l)
			}
		}
		return l
	})
	for _, name := range names {
		run(name, func(t *rapid.T) caps.Limits {
			var l caps.Limits
			settings[name](t, &l)
			return l
		})
	}
}

// A Sending is one envelope: the relay accepts its messages at some moment between
// Granted and Settled, and nobody knows which.
type Sending struct {
	Granted, Settled time.Time
	Taken, Counted   int
}

// Sendings is all that was sent over one relay.
type Sendings []*Sending

// Sent is how many messages were accepted.
func (s Sendings) Sent() int {
	n := 0
	for _, f := range s {
		n += f.Counted
	}
	return n
}

// Check looks at the worst that could have been: every message counts wherever it
// may have been accepted.
func (s Sendings) Check(t rapid.TB, l caps.Limits) {
	t.Helper()
	if l.MaxMessages > 0 && l.MaxMessagesWindow == 0 && s.Sent() > l.MaxMessages {
		t.Fatalf("%d messages, max_messages %d", s.Sent(), l.MaxMessages)
	}
	for _, f := range s {
		if f.Counted == 0 {
			continue
		}
		if l.MaxRate.Messages > 0 {
			if n := s.most(f.Settled, f.Settled.Add(l.MaxRate.Per)); n > l.MaxRate.Messages {
				t.Fatalf("%d messages in %v from %v on, max_rate %v", n, l.MaxRate.Per, f.Settled, l.MaxRate)
			}
		}
		if l.MaxMessages > 0 && l.MaxMessagesWindow > 0 {
			for _, at := range []time.Time{f.Granted, f.Settled} {
				from := at.Truncate(l.MaxMessagesWindow)
				if n := s.most(from, from.Add(l.MaxMessagesWindow)); n > l.MaxMessages {
					t.Fatalf("%d messages in the window from %v on, max_messages %d", n, from, l.MaxMessages)
				}
			}
		}
	}
	if l.MaxMessages > 0 && l.MaxMessagesWindow > 0 && l.MaxMessagesSpread {
		s.checkSpread(t, l)
	}
}

// most is how many messages may have been accepted in [from, to).
func (s Sendings) most(from, to time.Time) int {
	n := 0
	for _, f := range s {
		if f.Granted.Before(to) && !f.Settled.Before(from) {
			n += f.Counted
		}
	}
	return n
}

// checkSpread: by no moment have more messages been granted that count than what
// may go at once, twice, and what was due.
func (s Sendings) checkSpread(t rapid.TB, l caps.Limits) {
	t.Helper()
	due := caps.Limits{MaxMessages: l.MaxMessages, MaxMessagesWindow: l.MaxMessagesWindow, MaxMessagesSpread: true, EnvelopeLimit: l.EnvelopeLimit}
	atOnce := caps.New(due, caps.State{}).Left(Noon) // a bucket that was never used holds two quanta
	n := 0
	for _, f := range s.byGrant() {
		n += f.Counted
		since := float64(l.MaxMessages) * float64(f.Granted.Sub(Noon)) / float64(l.MaxMessagesWindow)
		if float64(n) > float64(atOnce)+since+1 {
			t.Fatalf("%d messages by %v, %.1f are due", n, f.Granted.Sub(Noon), since)
		}
	}
}

// CheckSpreadFromAnyMoment sees that from no moment on are more messages granted that count
// than two quanta, what was due since, and what was given back of earlier grants. It holds for a pool by itself; of a fleet only the leases could tell.
func (s Sendings) CheckSpreadFromAnyMoment(t rapid.TB, l caps.Limits) {
	t.Helper()
	if l.MaxMessages == 0 || l.MaxMessagesWindow == 0 || !l.MaxMessagesSpread {
		return
	}
	due := func(d time.Duration) float64 {
		return float64(l.MaxMessages) * (float64(d) / float64(l.MaxMessagesWindow))
	}
	quantum := max(1, min(l.Envelope(), int(due(min(l.MaxMessagesWindow, max(time.Second, l.MaxMessagesWindow/60))))), int(due(time.Second))/64)
	byGrant := s.byGrant()
	for from, first := range byGrant {
		back, n := 0, 0
		for _, f := range byGrant[:from] {
			if !f.Settled.Before(first.Granted) {
				back += f.Taken - f.Counted
			}
		}
		for _, f := range byGrant[from:] {
			n += f.Counted
			since := due(f.Granted.Sub(first.Granted))
			if float64(n) > float64(2*quantum+back)+since+1 {
				t.Fatalf("%d messages from %v to %v, %.1f are due", n, first.Granted.Sub(Noon), f.Granted.Sub(Noon), since)
			}
		}
	}
}

func (s Sendings) byGrant() Sendings {
	return slices.SortedStableFunc(slices.Values(s), func(a, b *Sending) int { return a.Granted.Compare(b.Granted) })
}

// A Case is what may be sent over a relay, and must be where everybody has messages
// to send and none is refused.
type Case struct {
	Name            string
	Limits          caps.Limits
	For             time.Duration // from [Noon] on
	AtMost, AtLeast int           // messages
}

// Cases are the table that all who keep caps are held to.
func Cases() []Case {
	return []Case{
		{"max_messages", caps.Limits{MaxMessages: 1000, EnvelopeLimit: 10}, time.Minute, 1000, 1000},
		{"max_messages that is no multiple of an envelope", caps.Limits{MaxMessages: 777, EnvelopeLimit: 100}, time.Minute, 777, 777},
		{"a quota of two windows", caps.Limits{MaxMessages: 500, MaxMessagesWindow: 10 * time.Second, EnvelopeLimit: 10}, 20 * time.Second, 1000, 1000},
		{"a quota spread over its window", caps.Limits{MaxMessages: 600, MaxMessagesWindow: time.Minute, MaxMessagesSpread: true, EnvelopeLimit: 10}, 30 * time.Second, 320, 290},
		{"a slow rate", caps.Limits{MaxRate: caps.Rate{Messages: 10, Per: time.Second}, EnvelopeLimit: 5}, 20 * time.Second, 200, 180},
		{"a fast rate", caps.Limits{MaxRate: caps.Rate{Messages: 1000, Per: time.Second}, EnvelopeLimit: 100}, 10 * time.Second, 10_000, 9_000},
		{"an hourly rate", caps.Limits{MaxRate: caps.Rate{Messages: 3600, Per: time.Hour}, EnvelopeLimit: 10}, 5 * time.Minute, 320, 300},
		{"three naps", caps.Limits{MaxMessagesWhileAwake: 100, SleepLength: 10 * time.Second, EnvelopeLimit: 10}, 39 * time.Second, 400, 400},
		{"a rate within a quota", caps.Limits{MaxMessages: 50, MaxRate: caps.Rate{Messages: 10, Per: time.Second}, EnvelopeLimit: 5}, 20 * time.Second, 50, 50},
	}
}
