package worker

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"bulkmail/envelope"
	"bulkmail/subjects"
	"bulkmail/worker/journal"
)

const (
	// laterDelay is how long a batch waits that only a later release can send.
	laterDelay = time.Minute
	// garbageDelay is how long a batch waits whose journal cannot be read.
	garbageDelay = time.Minute
	// heldLook is after how long a batch that another worker has in hand is
	// looked at again; it doubles with each look.
	heldLook = time.Second
)

// errLate says that the broker may have given a batch to somebody else before
// it could be claimed.
var errLate = errors.New("its ack wait was over before it could be claimed")

// process is the life of one delivery of a batch, from the queue until the
// broker has been told what became of it. ctx ends when the worker's time is
// over, intake when it drains.
//
//nolint:cyclop // one story, told in one place: most branches end it early
func (w *Worker) process(ctx, intake context.Context, d *delivery, t *turn) {
	defer t.end()
	if w.campaigns.of(d.campaign) == subjects.CampaignPaused {
		d.nak(ctx, w.campaigns.rest(time.Now()))
		return
	}
	end := w.hold(ctx, d)
	defer end()
	began := time.Now()

	// Decode.
	batch, err := w.decode(d)
	if err != nil {
		w.undecodable(ctx, d, err)
		return
	}

	// Read what earlier attempts left, and plan this one.
	known, err := w.journal.Read(ctx, d.campaign, d.batch)
	if err != nil {
		w.unread(ctx, d, err)
		return
	}
	cancelled := w.campaigns.of(d.campaign) == subjects.CampaignCancelled
	screened := w.suppressed.Set().Version()
	p := makePlan(batch, &known.State, w.policy, w.screenOf(d.campaign, began), cancelled, began)
	d.number.Content, d.number.Recipients = contentOf(batch), p.recipients(&known.State)
	switch {
	case known.Content != "" && known.Content != d.number.Content:
		w.bury(ctx, d, errOtherContent)
		return
	case p.idle() && len(p.rest) == 0 && known.Done:
		d.ack(ctx) // published again, and all of it is known
		return
	case p.idle() && len(p.rest) > 0 && !cancelled:
		d.nak(ctx, time.Until(p.due)) // back before its time; a claim would only lengthen the journal
		return
	case w.forgotten(d, known):
		w.buryRest(ctx, d, p.unsettled(batch), errForgotten)
		return
	}

	// Fetch the message, as soon as there is room for it.
	var message *mailing
	if len(p.send) > 0 && !cancelled {
		message, err = w.mailing(intake, d, batch, known)
		defer message.end()
		if err != nil && !(isFieldError(err) && known.Begun()) {
			w.unfetched(ctx, intake, d, err)
			return
		}
	}

	// Claim the batch.
	a := w.newAttempt(d, batch, p, message)
	a.screened.Store(screened)
	switch {
	case cancelled:
		a.stop(time.Time{}) // there is no message to send
	case err != nil:
		a.giveUp(err)
	}
	if !d.held() {
		w.leave(ctx, d, errLate)
		return
	}
	if a.hold, err = w.journal.Claim(ctx, known, d.number, a.pause); err != nil {
		w.refused(ctx, d, err)
		return
	}
	a.returnPaths = message.returnPaths(batch.From, a.hold.Claimed())
	w.journalTrouble(nil)
	a.recordPlanned(p)

	// Send, and settle while the slot goes on with the next batch.
	left := a.send(ctx, intake)
	t.next()
	w.settle(ctx, d, a, left, began)
}

// hold counts a batch as in hand and keeps it ours, until what it returns is called.
func (w *Worker) hold(ctx context.Context, d *delivery) (end func()) {
	w.inHand.Add(1)
	w.messages.room.carry(len(d.data()))
	d.keep(ctx)
	return func() {
		d.release()
		w.messages.room.drop(len(d.data()))
		w.inHand.Add(-1)
	}
}

// decode reads the batch, and names it.
func (w *Worker) decode(d *delivery) (*envelope.Batch, error) {
	batch, err := envelope.Decode(d.data())
	switch {
	case err != nil:
	case !subjects.ValidID(d.campaign):
		err = &envelope.FieldError{Field: "subject", Reason: "the campaign is 1 to 64 letters, digits, - or _"}
	default:
		err = recordable(batch.Recipients, journal.RecipientBytes(w.js.Conn().MaxPayload()))
	}
	if err != nil {
		d.name("")
		return nil, err
	}
	d.name(batch.ID)
	return batch, nil
}

// recordable tells whether every recipient fits in a journal entry. What does not
// is no address by mistake.
func recordable(recipients []envelope.Recipient, most int) error {
	for i := range recipients {
		if n := len(recipients[i].Address); n > most {
			return &envelope.FieldError{Field: fmt.Sprintf("recipients[%d]", i), Reason: fmt.Sprintf("has %d octets, which no address has", n)}
		}
	}
	return nil
}

// undecodable leaves a batch of a later version to a worker that knows it. Any
// other is a dead letter.
func (w *Worker) undecodable(ctx context.Context, d *delivery, err error) {
	later, ok := errors.AsType[*envelope.VersionError](err)
	if !ok {
		w.bury(ctx, d, err)
		return
	}
	if _, said := w.laterVersions.LoadOrStore(campaignVersion{d.campaign, later.Version}, true); !said {
		w.log.WarnContext(ctx, "batches of a later version stay in the queue for a worker that knows it",
			"campaign", d.campaign, "version", later.Version, "looked_at_again_in", laterDelay)
	}
	d.nak(ctx, laterDelay)
}

// campaignVersion is a version of batches that a campaign has.
type campaignVersion struct {
	campaign string
	version  int
}

// unread returns a batch whose journal could not be read.
func (w *Worker) unread(ctx context.Context, d *delivery, err error) {
	if _, broker := errors.AsType[*journal.BrokerError](err); broker {
		w.gate.shut(time.Now().Add(w.waits.trouble)) // other batches would fare no better
		w.journalTrouble(err)
		d.nak(ctx, w.waits.trouble)
		return
	}
	if _, said := w.garbage.LoadOrStore(d.campaign+"."+d.batch, true); !said {
		w.log.ErrorContext(ctx, "journal not readable, its batch waits until somebody has deleted that entry", "campaign", d.campaign,
			"batch", d.batch, "error", err, "looked_at_again_in", garbageDelay)
	}
	d.nak(ctx, garbageDelay)
}

// unfetched makes a batch a dead letter if its message will never be had.
func (w *Worker) unfetched(ctx, intake context.Context, d *delivery, err error) {
	switch {
	case isFieldError(err):
		w.bury(ctx, d, err)
	case intake.Err() != nil:
		d.nak(ctx, 0) // it was not waited for
	default:
		w.postpone(ctx, d, err)
	}
}

func isFieldError(err error) bool {
	_, ok := errors.AsType[*envelope.FieldError](err)
	return ok
}

// refused leaves a batch that another delivery has in hand, and looks at it again
// when that may be over.
func (w *Worker) refused(ctx context.Context, d *delivery, err error) {
	held, ok := errors.AsType[*journal.HeldError](err)
	if !ok {
		w.leave(ctx, d, err)
		return
	}
	again := min(max(held.For, heldLook/10), heldLook<<min(d.number.Count-1, 10))
	w.log.InfoContext(ctx, "batch is in hand already", "campaign", d.campaign, "batch", d.batch, "reason", err, "again_in", again)
	d.nak(ctx, again)
}

// postpone returns a batch that could not be begun through no fault of its own.
func (w *Worker) postpone(ctx context.Context, d *delivery, err error) {
	w.log.WarnContext(ctx, "batch not begun, it comes back", "campaign", d.campaign, "batch", d.batch, "error", err, "again_in", w.waits.trouble)
	d.nak(ctx, w.waits.trouble)
}

// leave leaves the batch to whoever holds it. It must be neither acked nor
// naked: the broker would take that for the holder's word.
func (w *Worker) leave(ctx context.Context, d *delivery, err error) {
	w.log.WarnContext(ctx, "batch let go", "campaign", d.campaign, "batch", d.batch, "reason", err)
}

// settle ends an attempt: verdict, journal, then the broker. The order matters:
// the batch leaves the queue only when its journal says why. While the broker
// is away it waits, with the replies it has, until the worker must end.
func (w *Worker) settle(ctx context.Context, d *delivery, a *attempt, left Tally, began time.Time) {
	ctx, cancel := lastWords(ctx, w.o.DrainTimeout/10)
	defer cancel()
	now := time.Now()
	v := Decide(left, a.deadline, now)
	switch {
	case a.isLost():
		v = Verdict{Action: Nak} // if the journal is ours still, the rest is anybody's
	case v.Action != Ack && w.campaigns.of(d.campaign) == subjects.CampaignCancelled:
		a.cancel()
		v = Verdict{Action: Ack}
	case v.Action == Expire, v.GiveUp:
		a.expire()
	}
	if v.Action != Nak && len(a.expired) > 0 && a.hold.Flush(ctx) == nil {
		if err := w.storeExpired(ctx, d, a); err != nil {
			w.log.ErrorContext(ctx, "dead letter not stored, the batch comes back for it", "campaign", d.campaign, "batch", d.batch, "error", err)
			v = Verdict{Action: Nak, Delay: w.waits.trouble}
		}
	}
	if err := a.hold.Close(ctx, v.Action != Nak); err != nil {
		if errors.Is(err, journal.ErrFenced) {
			w.leave(ctx, d, err)
			w.unrecorded(ctx, d, a)
		} else {
			w.log.ErrorContext(ctx, "journal not written, the batch comes back after the ack wait", "campaign", d.campaign, "batch", d.batch, "error", err)
		}
		w.o.Observer.Attempted(Lost)
		return
	}
	w.o.Observer.Attempted(v.Action)
	w.log.InfoContext(ctx, "attempt over", "campaign", d.campaign, "batch", d.batch, "attempt", a.hold.Attempt(),
		"accepted", a.counts[subjects.Accepted], "rejected", a.counts[subjects.Rejected],
		"deferred", left.Deferred, "waiting", left.Waiting, "verdict", v.Action, "again_in", v.Delay.Round(time.Millisecond),
		"took", now.Sub(began).Round(time.Millisecond))
	if v.Action == Nak {
		d.nak(ctx, v.Delay)
		return
	}
	d.ack(ctx)
}

// unrecorded says what relays said that a holder who lost its batch could not
// record: the new holder sends to these recipients again, unless they are on
// record as in doubt.
func (w *Worker) unrecorded(ctx context.Context, d *delivery, a *attempt) {
	counts := make(map[subjects.Status]int)
	var accepted []string
	for _, r := range a.hold.Unrecorded() {
		counts[r.Status] += len(r.Recipients)
		if r.Status == subjects.Accepted {
			accepted = append(accepted, r.Recipients...)
		}
	}
	if len(accepted) == 0 {
		return
	}
	const most = 20
	w.log.ErrorContext(ctx, "accepted by relays, and not recorded as another worker has the batch", "campaign", d.campaign, "batch", d.batch,
		"accepted", len(accepted), "rejected", counts[subjects.Rejected], "deferred", counts[subjects.Deferred],
		"recipients", strings.Join(accepted[:min(most, len(accepted))], " "))
}
