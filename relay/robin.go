package relay

import (
	"time"

	"bulkmail/relay/caps"
)

// Limits are the limits of one relay that the [Robin] keeps, by the names of
// the settings. Zero is no limit.
type Limits struct {
	EnvelopeLimit         int
	MaxMessages           int
	MaxMessagesWindow     time.Duration
	MaxMessagesSpread     bool
	MaxRate               Rate
	MaxMessagesPerRobin   int
	MaxMessagesWhileAwake int
	SleepLength           time.Duration
}

// Limits are those of c that the robin keeps.
func (c *Config) Limits() Limits {
	return Limits{
		EnvelopeLimit:         max(c.EnvelopeLimit, 0),
		MaxMessages:           c.MaxMessages,
		MaxMessagesWindow:     c.MaxMessagesWindow,
		MaxMessagesSpread:     c.MaxMessagesSpread,
		MaxRate:               c.MaxRate,
		MaxMessagesPerRobin:   max(c.MaxMessagesPerRobin, 0),
		MaxMessagesWhileAwake: c.MaxMessagesWhileAwake,
		SleepLength:           c.SleepLength,
	}
}

// caps are those that an [Allowance] keeps.
func (l Limits) caps() caps.Limits {
	return caps.Limits{
		MaxMessages:           l.MaxMessages,
		MaxMessagesWindow:     l.MaxMessagesWindow,
		MaxMessagesSpread:     l.MaxMessagesSpread,
		MaxRate:               l.MaxRate,
		MaxMessagesWhileAwake: l.MaxMessagesWhileAwake,
		SleepLength:           l.SleepLength,
		EnvelopeLimit:         l.EnvelopeLimit,
	}
}

// Caps are those that all pools with the relay share.
func (c *Config) Caps() caps.Limits { return c.Limits().caps() }

// A Robin says which relay is next and how many messages it may be granted.
//
// In a round each relay has one turn of max_messages_per_robin messages, in
// the order of the configuration. A relay that cannot take anything at the
// moment is passed over, never waited for; it does not lose its turn by that.
// When none that can take has any of its turn left, the next round begins.
// Where max_messages_per_robin is 0 a turn has no end, so that relays after
// this one are spares.
//
// A Robin has no lock, no goroutine and no clock: it is told the time.
type Robin struct {
	lanes []*lane
}

type lane struct {
	envelopeLimit int
	perRobin      int
	turn          int // messages of this round
	allowance     Allowance
}

// NewRobin makes a robin of relays with these limits. Its counters are its
// own.
func NewRobin(relays []Limits) *Robin {
	r := &Robin{lanes: make([]*lane, len(relays))}
	for i, l := range relays {
		r.lanes[i] = newLane(l, caps.New(l.caps(), caps.State{}))
	}
	return r
}

func newLane(l Limits, a Allowance) *lane {
	return &lane{envelopeLimit: l.EnvelopeLimit, perRobin: l.MaxMessagesPerRobin, allowance: a}
}

// Next says which relay should take the next envelope, and how many messages
// it is granted; i is -1 when none can take any. It changes nothing: what is
// cut must be told to [Robin.Take].
//
// room(i) is how many messages relay i could take now: 0 when it has no free
// session or is unwell, otherwise what is left of max_messages_per_connection
// and what the server takes in one envelope, or [Unlimited]. It is asked at
// most once a relay, in the order of preference.
func (r *Robin) Next(now time.Time, room func(i int) int) (i, n int) {
	for _, renewed := range [...]bool{false, true} {
		for i := range r.lanes {
			l := r.lanes[i]
			turn := l.turnLeft()
			if renewed == (turn > 0) {
				continue // asked in the first round already, or not in turn
			}
			if renewed {
				turn = l.perRobin
			}
			n := min(turn, room(i))
			if n <= 0 {
				continue
			}
			if n = min(n, l.allowance.Left(now)); n <= 0 {
				continue
			}
			if l.envelopeLimit > 0 {
				n = min(n, l.envelopeLimit)
			}
			return i, n
		}
	}
	return -1, 0
}

func (l *lane) turnLeft() int {
	if l.perRobin <= 0 {
		return Unlimited
	}
	return l.perRobin - l.turn
}

// Reserve sets messages of relay i aside, at most what Next granted, for the
// envelope that is about to be cut, and tells how many there still are. Take
// must follow.
func (r *Robin) Reserve(now time.Time, i, messages int) int {
	return r.lanes[i].allowance.Reserve(now, messages)
}

// Free says that nothing was cut of what was reserved.
func (r *Robin) Free(now time.Time, i int) { r.lanes[i].allowance.Take(now, 0) }

// Take says that an envelope with so many recipients, at most what Next
// granted, was cut for relay i.
func (r *Robin) Take(now time.Time, i, messages int) {
	l := r.lanes[i]
	if l.turnLeft() <= 0 {
		for j := range r.lanes {
			r.lanes[j].turn = 0
		}
	}
	l.turn += messages
	l.allowance.Take(now, messages)
}

// Settle says that of so many messages taken for one envelope so many count
// towards the caps of relay i: those it accepted or may have accepted. The
// rest is given back.
func (r *Robin) Settle(now time.Time, i, taken, counted int) {
	r.lanes[i].allowance.Settle(now, taken, counted)
}

// Wait says which cap keeps relay i from taking messages, and for how long.
func (r *Robin) Wait(now time.Time, i int) caps.Wait {
	return r.lanes[i].allowance.Wait(now)
}

// Left is how many messages the caps of relay i leave now.
func (r *Robin) Left(now time.Time, i int) int {
	return r.lanes[i].allowance.Left(now)
}

// Remaining is how many messages the caps of relay i leave now, without asking
// for any.
func (r *Robin) Remaining(now time.Time, i int) int {
	return r.lanes[i].allowance.Remaining(now)
}

// ReachedLimit is the reached_limit of Mail::Bulkmail::Server of relay i: 1 when max_messages is
// reached, 3 when max_messages_per_robin is, otherwise 0. 2, for
// max_messages_per_connection, is a matter of sessions. As there, sleep
// is no limit reached.
func (r *Robin) ReachedLimit(now time.Time, i int) caps.Limit {
	if r.Wait(now, i).Limit == caps.LimitMaxMessages {
		return caps.LimitMaxMessages
	}
	if r.lanes[i].turnLeft() <= 0 {
		return caps.LimitPerRobin
	}
	return caps.NoLimit
}

// Reset sets all counters of relay i to zero.
func (r *Robin) Reset(now time.Time, i int) {
	r.lanes[i].turn = 0
	r.lanes[i].allowance.Reset(now)
}
