package fleet

import (
	"time"

	"bulkmail/relay"
)

// leases is into how many leases a pace is cut a second at most: more would
// cost a fast relay too many entries.
const leases = 64

// A pace is a token bucket whose level is part of the ledger: full is when it
// holds a quantum, dry that it ran out of tokens and waits for that.
type pace struct {
	relay.Rate
	envelope int
	full     *time.Time
	dry      *bool
}

// rate is the pace of max_rate.
func (l *ledger) rate() pace { return pace{l.limits.MaxRate, l.envelope(), &l.Paced, &l.Dry} }

// spread is the pace of max_messages over its window.
func (l *ledger) spread() pace {
	return pace{l.limits.Spread(), l.envelope(), &l.Spread, &l.SpreadDry}
}

// quantum is what goes in one go once the bucket is used up, so that 10000/h is
// not a burst and an hour of silence: about an envelope, or what costs a fast
// relay not too many leases.
func (p pace) quantum() int {
	in := func(d time.Duration) int { return int(float64(p.Messages) * (float64(min(d, p.Per)) / float64(p.Per))) }
	return max(1, min(p.envelope, in(max(time.Second, p.Per/60))), in(time.Second)/leases)
}

// worth is the time in which so many messages are due.
func (p pace) worth(messages int) time.Duration {
	return time.Duration(float64(p.Per) * (float64(messages) / float64(p.Messages)))
}

// tokens is what may go now: two quanta at most.
func (p pace) tokens(now time.Time) int {
	if *p.dry && now.Before(*p.full) {
		return 0
	}
	over := min(now.Sub(*p.full), p.worth(p.quantum()))
	return int(float64(p.quantum()) + float64(over)/float64(p.Per)*float64(p.Messages) + 1e-6)
}

func (p pace) spend(now time.Time, messages int) {
	if oldest := now.Add(-p.worth(p.quantum())); p.full.Before(oldest) {
		*p.full = oldest
	}
	*p.dry = false
	*p.full = p.full.Add(p.worth(messages))
	*p.dry = p.tokens(now) < 1
}

func (p pace) refund(messages int) { *p.full = p.full.Add(-p.worth(messages)) }
