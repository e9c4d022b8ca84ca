package worker

import (
	"math/rand/v2"
	"time"
)

// Action is what happens to a batch when an attempt ends.
type Action string

// The actions.
const (
	Ack    Action = "ack"    // every recipient is final: the batch leaves the queue
	Nak    Action = "nak"    // the batch comes back after a delay
	Expire Action = "expire" // what is left is given up: dead letter, then ack
	Lost   Action = "lost"   // none, and no verdict: the batch has another holder, or comes back after its ack wait
)

// A Verdict is an action, and for Nak the delay.
type Verdict struct {
	Action Action
	Delay  time.Duration
	GiveUp bool // with Nak: the deferred expire, only what waits comes back
}

// A Tally is what an attempt leaves of a batch that is not final.
type Tally struct {
	Deferred int       // 4xx, in this attempt or an earlier one
	Due      time.Time // when the first of the deferred may be tried again
	Waiting  int       // not attempted: the worker drains, or no relay can take them
	Until    time.Time // when a relay can take them; zero: at once
}

// Decide is the one place where the fate of a batch is chosen: 2xx and 5xx are
// final and need no more, 4xx come back, and past the deadline (RETRY_FOR from
// the first claim) what is deferred is given up. Recipients that wait for a
// relay are nobody's fault: they come back as soon as one can take them, and do
// not expire; nor do they keep those from expiring who have had their last try.
func Decide(t Tally, deadline, now time.Time) Verdict {
	switch {
	case t.Deferred == 0 && t.Waiting == 0:
		return Verdict{Action: Ack}
	case t.Waiting > 0:
		return Verdict{Action: Nak, Delay: max(0, t.Until.Sub(now)), GiveUp: t.Deferred > 0 && !now.Before(deadline)}
	case !now.Before(deadline):
		return Verdict{Action: Expire}
	}
	// One last try at the deadline rather than a delay beyond it.
	due := t.Due
	if deadline.Before(due) {
		due = deadline
	}
	return Verdict{Action: Nak, Delay: max(0, due.Sub(now))}
}

// A Schedule is the delays between attempts; the last one repeats.
type Schedule []time.Duration

// jitter is by how much a delay may differ from the schedule, so that batches
// deferred together do not come back together.
const jitter = 0.1

// After is the delay after the given attempt, from 1, without jitter.
func (s Schedule) After(attempt int) time.Duration {
	if len(s) == 0 {
		return 0
	}
	return s[min(max(attempt, 1), len(s))-1]
}

// Jittered is After within ±10 %.
func (s Schedule) Jittered(attempt int) time.Duration {
	d := float64(s.After(attempt))
	return time.Duration(d * (1 - jitter + 2*jitter*rand.Float64()))
}

// Due is when a recipient deferred in the given attempt may be tried again at
// the earliest. A batch that comes back before, because it was published again
// or its delay was lost with a consumer, leaves that recipient alone.
func (s Schedule) Due(attempt int, deferred time.Time) time.Time {
	return deferred.Add(time.Duration(float64(s.After(attempt)) * (1 - jitter)))
}
