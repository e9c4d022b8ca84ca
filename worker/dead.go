package worker

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"bulkmail/envelope"
	"bulkmail/subjects"
)

// headerBytes is the room that a dead letter needs beside the batch. A batch
// may be as large as the broker takes, and its dead letter would be larger.
const headerBytes = 4 << 10

// letterBytes is how much of a batch a dead letter can hold.
func (w *Worker) letterBytes() int { return int(w.js.Conn().MaxPayload()) - headerBytes }

// A deadLetter is what is stored of a batch, or of a part of it.
type deadLetter struct {
	cause  string
	reason string
	key    string // tells it from the batch's other ones
	data   []byte
	header nats.Header

	// since is when it may have been stored already, by a worker that died
	// right after; zero: never.
	since time.Time
}

// bury sends a batch that nobody can read, as it was published, to the dead
// letters and takes it off the queue, in that order.
func (w *Worker) bury(ctx context.Context, d *delivery, why error) {
	data, reason := d.data(), why.Error()
	if most := w.letterBytes(); len(data) > most {
		reason = fmt.Sprintf("%s (only the first %d of %d octets fit in here)", reason, most, len(data))
		data = data[:most]
	}
	w.buryAs(ctx, d, why, deadLetter{reason: reason, data: data, key: d.publication()})
}

// buryRest does the same with a part of a batch, of which nothing more is known.
func (w *Worker) buryRest(ctx context.Context, d *delivery, rest envelope.Batch, why error) {
	parts, err := w.parts(ctx, rest)
	if err != nil {
		w.postpone(ctx, d, err)
		return
	}
	letters := make([]deadLetter, len(parts))
	for i, data := range parts {
		letters[i] = deadLetter{reason: why.Error(), data: data, key: d.publication() + "." + strconv.Itoa(i)}
	}
	w.buryAs(ctx, d, why, letters...)
}

func (w *Worker) buryAs(ctx context.Context, d *delivery, why error, letters ...deadLetter) {
	for _, l := range letters {
		l.cause = subjects.CauseUnreadable
		// Told apart by publication: the same batch may be published again.
		l.key = l.cause + "." + l.key
		if d.number.Count > 1 {
			l.since = d.meta.Timestamp
		}
		if err := w.storeLetter(ctx, d, l); err != nil {
			w.postpone(ctx, d, err)
			return
		}
	}
	w.log.WarnContext(ctx, "batch is a dead letter", "campaign", d.campaign, "batch", d.batch, "reason", why)
	d.term(ctx, why.Error())
}

// storeExpired sends what was given up of a batch to the dead letters. That it
// was is in the journal before, so that whoever is in a letter is never sent to
// again by this batch. A worker that dies in between leaves the letters to the
// next, which finds those in the journal who have expired, and no done.
func (w *Worker) storeExpired(ctx context.Context, d *delivery, a *attempt) error {
	rest := *a.published
	rest.ID = d.batch
	rest.Recipients = nil
	codes := make(map[string]bool)
	for _, r := range a.expired {
		rest.Recipients = append(rest.Recipients, r.recipient)
		if r.Code != 0 {
			codes[strconv.Itoa(r.Code)] = true
		}
	}
	slices.SortFunc(rest.Recipients, func(a, b envelope.Recipient) int { return strings.Compare(a.Address, b.Address) })
	parts, err := w.parts(ctx, rest)
	if err != nil {
		return err
	}
	l := deadLetter{
		cause: subjects.CauseExpired, reason: "deferred until " + w.o.RetryFor.String() + " after the first attempt were over",
		header: nats.Header{
			subjects.HeaderCodes:   {strings.Join(slices.Sorted(maps.Keys(codes)), " ")},
			subjects.HeaderAttempt: {strconv.Itoa(a.hold.Attempt())},
		},
		since: a.expiredBefore,
	}
	if a.gone != nil {
		l.reason = "the rest of the batch cannot be sent: " + a.gone.Error()
	}
	for _, l.data = range parts {
		sum := sha256.Sum256(l.data)
		l.key = l.cause + "." + hex.EncodeToString(sum[:8])
		if err := w.storeLetter(ctx, d, l); err != nil {
			return err
		}
	}
	return nil
}

// parts is a batch as JSON, in as many parts as it takes. A message that leaves
// no room for a recipient goes to the message store.
func (w *Worker) parts(ctx context.Context, b envelope.Batch) ([][]byte, error) {
	parts := w.halves(b)
	if b.MessageRef == "" && slices.ContainsFunc(parts, func(part []byte) bool { return len(part) > w.letterBytes() }) {
		name, err := w.messages.put(ctx, b.Message)
		if err != nil {
			return nil, err
		}
		b.Message, b.MessageRef = "", name
		parts = w.halves(b)
	}
	return parts, nil
}

func (w *Worker) halves(b envelope.Batch) [][]byte {
	data := b.AppendJSON(nil)
	half := len(b.Recipients) / 2
	if len(data) <= w.letterBytes() || half == 0 {
		return [][]byte{data}
	}
	first, second := b, b
	first.Recipients, second.Recipients = b.Recipients[:half], b.Recipients[half:]
	return append(w.halves(first), w.halves(second)...)
}

// storeLetter publishes a dead letter, once.
func (w *Worker) storeLetter(ctx context.Context, d *delivery, l deadLetter) error {
	id := d.campaign + "." + d.batch + "." + l.key
	if !l.since.IsZero() {
		if stored, err := w.letterStored(ctx, d.campaign, id, l.since); stored || err != nil {
			return err
		}
	}
	msg := &nats.Msg{Subject: w.names.Dead(d.campaign), Data: l.data, Header: nats.Header{
		subjects.HeaderReason: {strings.Map(printable, l.reason)},
		subjects.HeaderCause:  {l.cause},
		subjects.HeaderBatch:  {d.batch},
	}}
	maps.Copy(msg.Header, l.header)
	stored, err := w.js.PublishMsg(ctx, msg, jetstream.WithMsgID(id))
	if err == nil && !stored.Duplicate {
		w.o.Observer.Buried(l.cause)
	}
	return err
}

// letterStored looks for a dead letter among those since then. The broker knows
// it again by its id, but not for long.
func (w *Worker) letterStored(ctx context.Context, campaign, id string, since time.Time) (bool, error) {
	letters, err := w.js.OrderedConsumer(ctx, w.names.DeadStream(), jetstream.OrderedConsumerConfig{
		FilterSubjects: []string{w.names.Dead(campaign)},
		DeliverPolicy:  jetstream.DeliverByStartTimePolicy,
		OptStartTime:   &since,
		HeadersOnly:    true,

		InactiveThreshold: 10 * time.Second,
	})
	if err != nil {
		return false, err
	}
	for {
		some, err := letters.FetchNoWait(100)
		if err != nil {
			return false, err
		}
		n := 0
		for m := range some.Messages() {
			n++
			if m.Headers().Get(jetstream.MsgIDHeader) == id {
				return true, nil
			}
		}
		if err := some.Error(); n == 0 && (err == nil || errors.Is(err, nats.ErrTimeout)) {
			return false, nil
		} else if err != nil {
			return false, err
		}
	}
}

// printable keeps line ends out of a header.
func printable(r rune) rune {
	if r < ' ' {
		return ' '
	}
	return r
}
