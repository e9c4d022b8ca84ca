// Package forecast reckons how long relays need for so many messages, as far as
// their caps say. How fast a relay answers it does not know: what it says is the
// least.
package forecast

import (
	"errors"
	"math"
	"time"

	"bulkmail/relay/caps"
)

// Why there is no forecast.
var (
	ErrUncapped = errors.New("a relay has no caps, so that its speed alone decides")
	ErrNever    = errors.New("max_messages of the relays are used up before")
)

// longest is what is looked ahead. Beyond it nobody plans.
const longest = 100 * 365 * 24 * time.Hour

// A Relay is the caps of a relay and what was used of them. With the Limits alone
// nothing was.
type Relay struct {
	Limits      caps.Limits
	Used        int       // of max_messages, in this window
	Awake       int       // of max_messages_while_awake
	AsleepUntil time.Time // zero: it is awake
}

func (r Relay) capped() bool {
	l := r.Limits
	return l.MaxMessages > 0 || l.MaxRate.Messages > 0 && l.MaxRate.Per > 0 || l.MaxMessagesWhileAwake > 0 && l.SleepLength > 0
}

// Within is how many messages the relay may be given within d.
func (r Relay) Within(now time.Time, d time.Duration) int {
	most, l := math.MaxInt, r.Limits
	if l.MaxRate.Messages > 0 && l.MaxRate.Per > 0 {
		most = min(most, share(l.MaxRate, d))
	}
	if l.MaxMessages > 0 {
		n := max(0, l.MaxMessages-r.Used)
		if window := l.MaxMessagesWindow; window > 0 {
			// As the ledger has it, windows begin at whole multiples of their length.
			if first := now.Truncate(window).Add(window).Sub(now); d >= first {
				n = plus(n, times(l.MaxMessages, 1+int((d-first)/window)))
			}
			if l.MaxMessagesSpread {
				most = min(most, share(caps.Rate{Messages: l.MaxMessages, Per: window}, d))
			}
		}
		most = min(most, n)
	}
	if l.MaxMessagesWhileAwake > 0 && l.SleepLength > 0 {
		n := max(0, l.MaxMessagesWhileAwake-r.Awake)
		if asleep := r.AsleepUntil.Sub(now); !r.AsleepUntil.IsZero() && asleep > 0 {
			if d -= asleep; d < 0 {
				return 0
			}
			n = l.MaxMessagesWhileAwake
		}
		most = min(most, plus(n, times(l.MaxMessagesWhileAwake, int(d/l.SleepLength))))
	}
	return most
}

// share is what a rate lets out within d.
func share(r caps.Rate, d time.Duration) int {
	n := float64(r.Messages) * (float64(d) / float64(r.Per))
	return int(min(n, math.MaxInt32))
}

// times and plus stay below what overflows.
func times(a, b int) int {
	if a > 0 && b > math.MaxInt32/a {
		return math.MaxInt32
	}
	return a * b
}

func plus(a, b int) int { return min(a+b, math.MaxInt32) }

// Duration is how long the relays need together for n messages, to the second. The
// error is [ErrUncapped] or [ErrNever].
func Duration(now time.Time, n int, relays []Relay) (time.Duration, error) {
	for _, r := range relays {
		if !r.capped() {
			return 0, ErrUncapped
		}
	}
	enough := func(d time.Duration) bool {
		sum := 0
		for _, r := range relays {
			sum = plus(sum, r.Within(now, d))
		}
		return sum >= n
	}
	if !enough(longest) {
		return 0, ErrNever
	}
	low, high := time.Duration(-1), longest/time.Second // seconds: too few, and enough
	for high-low > 1 {
		if middle := (low + high) / 2; enough(middle * time.Second) {
			high = middle
		} else {
			low = middle
		}
	}
	return high * time.Second, nil
}
