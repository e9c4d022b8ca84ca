// Package caps reckons how many more messages a relay may be given.
//
// A message is one recipient of one envelope, as Mail::Bulkmail counts. The caps,
// by the names of the settings, with the attribute of Mail::Bulkmail::Server that
// each comes from:
//
//   - max_messages (the attribute max_messages): so many messages until somebody
//     resets the count; with max_messages_window so many in each window, which is
//     aligned to UTC; with max_messages_spread evenly over the window.
//   - max_rate (no attribute): so many messages in any period of that length,
//     wherever it begins, and evenly over it.
//   - max_messages_while_awake with sleep_length (the attributes of these names):
//     after so many messages the relay sleeps for that long.
//
// [Ledger] is the one place where they are reckoned. It is given the time, and has
// no clock, no lock and no broker. Each of its members takes messages before it
// sends them and settles them when the replies are in. What is taken and not
// settled is held, and counts towards every cap: no cap is exceeded whatever
// becomes of it.
//
// A pool with a relay of its own is the only member, and settles each envelope. Of
// a fleet each worker is a member: package fleet keeps the [State] in a key-value
// bucket, workers take many messages at once and say later how many they sent.
// When a worker crashes, all that it held is settled as sent: a crash wastes
// allowance and never exceeds a cap. How much it may waste is bounded by
// [Limits.Lease].
package caps

import (
	"fmt"
	"math"
	"strings"
	"time"
)

// Unlimited is what is left of no cap.
const Unlimited = math.MaxInt

// Limits are the caps of one relay, by the names of the settings. Zero is no
// limit.
type Limits struct {
	MaxMessages           int
	MaxMessagesWindow     time.Duration // 0: until reset
	MaxMessagesSpread     bool          // evenly over the window
	MaxRate               Rate
	MaxMessagesWhileAwake int // none without SleepLength
	SleepLength           time.Duration

	// EnvelopeLimit is no cap. What is let go evenly goes by the envelope, where
	// the rate allows for that.
	EnvelopeLimit int
}

// Any tells whether there is any cap.
func (l Limits) Any() bool { return l.quotaOn() || l.rateOn() || l.awakeOn() }

func (l Limits) quotaOn() bool  { return l.MaxMessages > 0 }
func (l Limits) windowOn() bool { return l.quotaOn() && l.MaxMessagesWindow > 0 }
func (l Limits) spreadOn() bool { return l.windowOn() && l.MaxMessagesSpread }
func (l Limits) rateOn() bool   { return l.MaxRate.Messages > 0 && l.MaxRate.Per > 0 }
func (l Limits) awakeOn() bool  { return l.MaxMessagesWhileAwake > 0 && l.SleepLength > 0 }

// String is the caps that are set, by the names of the settings, or "none".
func (l Limits) String() string {
	var set []string
	add := func(on bool, format string, a ...any) {
		if on {
			set = append(set, fmt.Sprintf(format, a...))
		}
	}
	add(l.quotaOn(), "max_messages=%d", l.MaxMessages)
	add(l.windowOn(), "max_messages_window=%s", l.MaxMessagesWindow)
	add(l.spreadOn(), "max_messages_spread=true")
	add(l.rateOn(), "max_rate=%s", l.MaxRate)
	add(l.awakeOn(), "max_messages_while_awake=%d", l.MaxMessagesWhileAwake)
	add(l.awakeOn(), "sleep_length=%s", l.SleepLength)
	if len(set) == 0 {
		return "none"
	}
	return strings.Join(set, " ")
}

// usualEnvelope is what an envelope is taken to hold where it has no limit.
const usualEnvelope = 100

// Envelope is the recipients of a full envelope: the least that is worth taking.
func (l Limits) Envelope() int {
	if l.EnvelopeLimit <= 0 {
		return usualEnvelope
	}
	return min(l.EnvelopeLimit, usualEnvelope)
}

// wastePart is the part of a cap that a member may hold without having begun to
// send it: with 1 % a crash wastes 1 %, and a cap takes a few hundred leases
// however many members share it.
const wastePart = 100

// Lease is the most that a member should hold of what it has not begun to send,
// and so the most that its crash wastes besides the envelopes in flight: 1 % of
// max_messages and of max_messages_while_awake, but an envelope at least; and of
// what is let go evenly no more than goes at once.
func (l Limits) Lease() int {
	n := Unlimited
	if l.quotaOn() {
		n = min(n, max(l.MaxMessages/wastePart, l.Envelope()))
	}
	if l.awakeOn() {
		n = min(n, max(l.MaxMessagesWhileAwake/wastePart, l.Envelope()))
	}
	if l.rateOn() {
		n = min(n, l.quantum(l.MaxRate))
	}
	if l.spreadOn() {
		n = min(n, l.quantum(l.spread()))
	}
	return n
}

// spread is the rate at which max_messages goes over its window.
func (l Limits) spread() Rate { return Rate{Messages: l.MaxMessages, Per: l.MaxMessagesWindow} }

// A Limit says what keeps a relay from taking messages. The first three have the
// numbers that reached_limit of Mail::Bulkmail::Server returns; two of them are
// kept by the pool, not by a [Ledger].
type Limit uint8

// The limits, by the names of the settings.
const (
	NoLimit            Limit = iota
	LimitMaxMessages         // 1: max_messages; done until the window turns or somebody resets it
	LimitPerConnection       // 2: max_messages_per_connection; a fresh session takes the next
	LimitPerRobin            // 3: max_messages_per_robin; the next relay's turn
	LimitWhileAwake          // max_messages_while_awake; the relay sleeps for sleep_length
	LimitRate                // max_rate
	LimitSpread              // max_messages_spread: max_messages is not reached, but no more are due yet
	LimitLease               // none is reached: the answer of the fleet is on its way
)

// String is the name of the setting.
func (l Limit) String() string {
	switch l {
	case LimitMaxMessages:
		return "max_messages"
	case LimitPerConnection:
		return "max_messages_per_connection"
	case LimitPerRobin:
		return "max_messages_per_robin"
	case LimitWhileAwake:
		return "max_messages_while_awake"
	case LimitRate:
		return "max_rate"
	case LimitSpread:
		return "max_messages_spread"
	case LimitLease:
		return "lease"
	default:
		return "none"
	}
}

// A Wait says which limit keeps a relay from taking messages, and for how
// long. The zero Wait: none does.
type Wait struct {
	Limit Limit
	Until time.Time // zero: until what is held is settled, or see Never
	Never bool      // not before a reset
}

// outlasts orders waits: for good, until something is settled (nobody knows when),
// by time.
func (w Wait) outlasts(other Wait) bool {
	if a, b := w.rank(), other.rank(); a != b {
		return a > b
	}
	return w.Until.After(other.Until)
}

func (w Wait) rank() int {
	switch {
	case w.Limit == NoLimit:
		return 0
	case w.Never:
		return 3
	case w.Until.IsZero():
		return 2
	default:
		return 1
	}
}
