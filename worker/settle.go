package worker

import (
	"context"
	"errors"
	"time"

	"bulkmail/subjects"
	"bulkmail/worker/journal"
)

// settle ends an attempt: verdict, journal, then the broker. The order matters:
// the batch leaves the queue only when its journal says why. While the broker
// is away it waits, with the replies it has, until the worker must end.
func (d *delivery) settle(work context.Context, a *attempt, t Tally, began time.Time) {
	ctx, cancel := d.lastWords(work)
	defer cancel()
	now := time.Now()
	v := Decide(t, d.deadline, now)
	switch {
	case a.isLost():
		v = Verdict{Action: Nak} // if the journal is ours still, the rest is anybody's
	case v.Action != Ack && d.campaigns.of(d.campaign) == subjects.CampaignCancelled:
		a.cancel()
		v = Verdict{Action: Ack}
	case v.Action == Expire:
		if err := d.expire(ctx, a); err != nil {
			d.log.ErrorContext(ctx, "dead letter not stored, the rest is tried again", "campaign", d.campaign, "batch", d.id, "error", err)
			v = Verdict{Nak, troubleDelay}
		}
	}
	if err := d.hold.Close(ctx, v.Action != Nak); err != nil {
		if errors.Is(err, journal.ErrFenced) {
			d.letGo(ctx, err)
		} else {
			d.log.ErrorContext(ctx, "journal not written, the batch comes back after the ack wait", "campaign", d.campaign, "batch", d.id, "error", err)
		}
		d.o.Observer.Attempted(Lost)
		return
	}
	d.o.Observer.Attempted(v.Action)
	d.log.InfoContext(ctx, "attempt over", "campaign", d.campaign, "batch", d.id, "attempt", d.hold.Attempt(),
		"accepted", a.counts[subjects.Accepted], "rejected", a.counts[subjects.Rejected],
		"deferred", t.Deferred, "waiting", t.Waiting, "verdict", v.Action, "again_in", v.Delay.Round(time.Millisecond),
		"took", now.Sub(began).Round(time.Millisecond))
	if v.Action == Nak {
		d.nak(ctx, v.Delay)
		return
	}
	d.tell(ctx, d.msg.DoubleAck)
}

// nak returns the batch to the queue. Once the lease is over the broker does
// that by itself, and may have done it: it would take our word for that of the
// new holder, and give the batch to a third.
func (d *delivery) nak(ctx context.Context, delay time.Duration) {
	if !d.lease.held() {
		return
	}
	d.tell(ctx, func(context.Context) error {
		if delay <= 0 {
			return d.msg.Nak()
		}
		return d.msg.NakWithDelay(delay)
	})
}

// tell says one word about the batch to the broker. When it does not arrive,
// the batch comes back after its ack wait, and its journal tells what is left
// to do.
func (d *delivery) tell(work context.Context, word func(context.Context) error) {
	ctx, cancel := d.lastWords(work)
	defer cancel()
	ctx, cancel = context.WithTimeout(ctx, d.ackWait)
	defer cancel()
	if err := word(ctx); err != nil {
		d.log.WarnContext(ctx, "broker not told, the batch comes back after the ack wait", "campaign", d.campaign, "batch", d.id, "error", err)
	}
}
