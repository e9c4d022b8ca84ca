package worker

import (
	"context"
	"errors"
	"time"

	"bulkmail/subjects"
	"bulkmail/worker/journal"
)

// settle ends an attempt: verdict, journal, then the broker. The order matters:
// the batch leaves the queue only when its journal says why.
func (d *delivery) settle(a *attempt, t Tally, began time.Time) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(d.base), settleTimeout)
	defer cancel()

	select {
	case <-d.hold.Lost():
		err := d.hold.Close(ctx, false)
		d.letGo(errors.Join(err, errors.New("replies that came after that are lost to the journal")))
		return
	default:
	}
	now := time.Now()
	v := Decide(t, d.deadline, now)
	if v.Action == Expire {
		if err := d.expire(ctx, a); err != nil {
			d.log.ErrorContext(ctx, "dead letter not stored, the rest is tried again", "campaign", d.campaign, "batch", d.id, "error", err)
			v = Verdict{Nak, troubleDelay}
		}
	}
	if err := d.hold.Close(ctx, v.Action != Nak); err != nil {
		if errors.Is(err, journal.ErrFenced) {
			d.letGo(err)
			return
		}
		d.log.ErrorContext(ctx, "journal not written, the batch comes back after the ack wait", "campaign", d.campaign, "batch", d.id, "error", err)
		return
	}
	d.log.InfoContext(ctx, "attempt over", "campaign", d.campaign, "batch", d.id, "attempt", d.hold.Attempt(),
		"accepted", a.counts[subjects.Accepted], "rejected", a.counts[subjects.Rejected],
		"deferred", t.Deferred, "waiting", t.Waiting, "verdict", v.Action, "again_in", v.Delay.Round(time.Millisecond),
		"took", now.Sub(began).Round(time.Millisecond))
	if v.Action == Nak {
		d.nak(v.Delay)
		return
	}
	d.tell(d.msg.DoubleAck)
}

// nak returns the batch to the queue.
func (d *delivery) nak(delay time.Duration) {
	d.tell(func(context.Context) error {
		if delay <= 0 {
			return d.msg.Nak()
		}
		return d.msg.NakWithDelay(delay)
	})
}

// tell says one word about the batch to the broker. When it does not arrive,
// the batch comes back after its ack wait, and its journal tells what is left
// to do.
func (d *delivery) tell(word func(context.Context) error) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(d.base), settleTimeout)
	defer cancel()
	if err := word(ctx); err != nil {
		d.log.WarnContext(ctx, "broker not told, the batch comes back after the ack wait", "campaign", d.campaign, "batch", d.id, "error", err)
	}
}
