package relay

import (
	"math"
	"time"
)

// Unlimited is the grant of a relay without limits.
const Unlimited = math.MaxInt

// A Limit says what keeps a relay from taking messages. The first three are
// what the seed's reached_limit answers with, by its numbers.
type Limit uint8

// The limits, by the names of the settings.
const (
	NoLimit            Limit = iota
	LimitMaxMessages         // 1: max_messages; done until the window turns or somebody resets it
	LimitPerConnection       // 2: max_messages_per_connection; a fresh session takes the next
	LimitPerRobin            // 3: max_messages_per_robin; the next relay's turn
	LimitWhileAwake          // max_messages_while_awake; the relay sleeps for sleep_length
	LimitRate                // max_rate
	LimitSpread              // max_messages_spread: max_messages is not reached, but so many are not due yet
	LimitLease               // none is reached: the fleet's leave is on its way
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
	Until time.Time // zero: until envelopes in flight are settled, or see Never
	Never bool      // not before a reset
}

// An Allowance is how many more messages one relay may be granted:
// max_messages with its window, max_rate, and max_messages_while_awake with
// sleep_length.
//
// Messages are taken when an envelope is cut and settled when its replies are
// in, so that a cap is never exceeded whatever becomes of the envelopes in
// flight. The pool's lock is held during each call: an Allowance does no I/O,
// and needs no lock unless it is shared.
type Allowance interface {
	// Left is how many messages may be granted now. Who asks has messages to
	// send, so that an Allowance that gets its leave elsewhere asks for more.
	Left(now time.Time) int
	// Take reserves messages, at most what Left said.
	Take(now time.Time, messages int)
	// Settle says that of the messages taken for an envelope so many count:
	// those that the relay accepted or may have accepted. The rest is given
	// back.
	Settle(now time.Time, taken, counted int)
	// Wait tells why Left is 0.
	Wait(now time.Time) Wait
	// Reset is the seed's reset of the counters. What is in flight stays
	// reserved.
	Reset(now time.Time)
	// Remaining is what the caps leave now, for whoever wants to know.
	Remaining(now time.Time) int
	// Change sets other limits; what was counted stays.
	Change(Limits)
}

// Spread is the pace of max_messages over its window; the zero Rate: it may go
// in one burst.
func (l Limits) Spread() Rate {
	if !l.MaxMessagesSpread || l.MaxMessages <= 0 || l.MaxMessagesWindow <= 0 {
		return Rate{}
	}
	return Rate{Messages: l.MaxMessages, Per: l.MaxMessagesWindow}
}

// capped tells whether there is anything for an Allowance to keep.
func (l Limits) capped() bool {
	return l.MaxMessages > 0 || l.MaxRate.Messages > 0 || l.MaxMessagesWhileAwake > 0 && l.SleepLength > 0
}

// local is the Allowance of a pool that shares its relay with no other.
type local struct {
	quota quota
	awake awake
	rate  *rateLimit // nil: none
}

func newLocal(l Limits) *local {
	return &local{
		quota: quota{max: l.MaxMessages, window: l.MaxMessagesWindow, spread: newSpread(l)},
		awake: awake{max: l.MaxMessagesWhileAwake, length: l.SleepLength},
		rate:  newRateLimit(l.MaxRate, l.EnvelopeLimit),
	}
}

func (a *local) Left(now time.Time) int {
	left := min(a.quota.left(now), a.awake.left(now))
	if a.rate != nil && left > 0 {
		left = min(left, a.rate.left(now))
	}
	return max(left, 0)
}

func (a *local) Remaining(now time.Time) int { return a.Left(now) }

func (a *local) Change(l Limits) {
	a.quota.change(l)
	if a.awake.off() || a.awake.used >= l.MaxMessagesWhileAwake {
		a.awake.used = 0 // nothing in flight might end that
	}
	a.awake.max, a.awake.length = l.MaxMessagesWhileAwake, l.SleepLength
	had := a.rate != nil
	a.rate = a.rate.changed(newRateLimit(l.MaxRate, l.EnvelopeLimit))
	if !had && a.rate != nil {
		a.rate.held = a.quota.held // what is in flight will be settled with it
	}
}

func (a *local) Take(now time.Time, messages int) {
	a.quota.take(now, messages)
	a.awake.held += messages
	if a.rate != nil {
		a.rate.take(now, messages)
	}
}

func (a *local) Settle(now time.Time, taken, counted int) {
	a.quota.settle(now, taken, counted)
	a.awake.settle(now, taken, counted)
	if a.rate != nil {
		a.rate.settle(now, taken, counted)
	}
}

// Wait names the limit that holds longest.
func (a *local) Wait(now time.Time) Wait {
	waits := [...]Wait{a.quota.wait(now), a.awake.wait(now), {}}
	if a.rate != nil {
		waits[2] = a.rate.wait(now)
	}
	var longest Wait
	for _, w := range waits {
		if w.outlasts(longest) {
			longest = w
		}
	}
	return longest
}

// outlasts orders waits: for good, until a settlement (nobody knows when), by
// time.
func (w Wait) outlasts(other Wait) bool {
	rank := func(w Wait) int {
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
	if a, b := rank(w), rank(other); a != b {
		return a > b
	}
	return w.Until.After(other.Until)
}

func (a *local) Reset(now time.Time) {
	a.quota.reset()
	a.awake.used, a.awake.until = 0, time.Time{}
	if a.rate != nil {
		a.rate.reset()
	}
}

// quota is max_messages: within a window aligned to UTC, spread over it or not,
// or until reset.
type quota struct {
	max    int
	window time.Duration
	ends   time.Time // of the current window
	used   int       // counted in this window
	held   int       // taken, not settled
	spread *pace     // nil: may go in one burst
}

func newSpread(l Limits) *pace {
	r := l.Spread()
	if r == (Rate{}) {
		return nil
	}
	p := newPace(r, l.EnvelopeLimit)
	return &p
}

func (q *quota) change(l Limits) {
	was := q.spread
	q.max, q.window, q.spread = l.MaxMessages, l.MaxMessagesWindow, newSpread(l)
	if was != nil && q.spread != nil {
		q.spread.goOn(*was)
	}
}

func (q *quota) reset() {
	q.used = 0
	if q.spread != nil {
		q.spread.restart()
	}
}

// roll begins a new window when it is time. What is in flight then was counted
// in the window it was taken in and counts in the one it is settled in as
// well, for nobody knows on which side of the turn the relay counts it.
func (q *quota) roll(now time.Time) {
	if q.window > 0 && !now.Before(q.ends) {
		q.ends = now.Truncate(q.window).Add(q.window)
		q.used = 0
	}
}

func (q *quota) left(now time.Time) int {
	if q.max <= 0 {
		return Unlimited
	}
	q.roll(now)
	left := q.max - q.used - q.held
	if q.spread != nil && left > 0 {
		left = min(left, q.spread.tokens(now))
	}
	return left
}

func (q *quota) take(now time.Time, messages int) {
	q.held += messages
	if q.spread != nil {
		q.spread.spend(now, messages)
	}
}

func (q *quota) settle(now time.Time, taken, counted int) {
	q.roll(now)
	q.held -= taken
	q.used += counted
	if q.spread != nil {
		q.spread.refund(taken - counted)
	}
}

func (q *quota) wait(now time.Time) Wait {
	switch {
	case q.left(now) > 0:
		return Wait{}
	case q.used+q.held < q.max:
		return Wait{Limit: LimitSpread, Until: q.spread.full}
	case q.used < q.max:
		return Wait{Limit: LimitMaxMessages}
	case q.window > 0:
		return Wait{Limit: LimitMaxMessages, Until: q.ends}
	default:
		return Wait{Limit: LimitMaxMessages, Never: true}
	}
}

// awake is max_messages_while_awake with sleep_length. Sleep begins when the
// last message is settled, so that the relay has its pause in full.
type awake struct {
	max    int
	length time.Duration
	until  time.Time // asleep until then
	used   int       // counted since the relay woke up
	held   int       // taken, not settled
}

func (a *awake) off() bool { return a.max <= 0 || a.length <= 0 }

func (a *awake) left(now time.Time) int {
	switch {
	case a.off():
		return Unlimited
	case now.Before(a.until):
		return 0
	default:
		return a.max - a.used - a.held
	}
}

func (a *awake) settle(now time.Time, taken, counted int) {
	a.held -= taken
	a.used += counted
	if !a.off() && a.used >= a.max {
		a.used, a.until = 0, now.Add(a.length)
	}
}

func (a *awake) wait(now time.Time) Wait {
	switch {
	case a.left(now) > 0:
		return Wait{}
	case now.Before(a.until):
		return Wait{Limit: LimitWhileAwake, Until: a.until}
	default:
		return Wait{Limit: LimitWhileAwake}
	}
}
