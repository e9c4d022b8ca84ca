package worker

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

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

// bury sends a batch that nobody can read, as it was published, to the dead
// letters and takes it off the queue, in that order.
func (w *Worker) bury(ctx context.Context, d *delivery, why error) {
	data, reason := d.data(), why.Error()
	if most := w.letterBytes(); len(data) > most {
		reason = fmt.Sprintf("%s (only the first %d of %d octets fit in here)", reason, most, len(data))
		data = data[:most]
	}
	// Told apart by delivery number: the same batch may be published again.
	err := w.storeLetter(ctx, d, "unreadable", reason, data, "unreadable."+d.number.String(), nil)
	if err != nil {
		w.postpone(ctx, d, err)
		return
	}
	w.log.WarnContext(ctx, "batch is a dead letter", "campaign", d.campaign, "batch", d.batch, "reason", why)
	d.term(ctx, why.Error())
}

// expire sends what is left of a batch to the dead letters and records it.
func (w *Worker) expire(ctx context.Context, d *delivery, a *attempt) error {
	rest := *a.published
	rest.ID = d.batch
	rest.Recipients = nil
	byReply := make(map[subjects.Outcome][]envelope.Recipient)
	codes := make(map[string]bool)
	for _, r := range a.deferred {
		rest.Recipients = append(rest.Recipients, r.recipient)
		if r.Code != 0 {
			codes[strconv.Itoa(r.Code)] = true
		}
		r.Status = subjects.Expired
		byReply[r.Outcome] = append(byReply[r.Outcome], r.recipient)
	}
	slices.SortFunc(rest.Recipients, func(a, b envelope.Recipient) int { return strings.Compare(a.Address, b.Address) })
	reason := "deferred until " + w.o.RetryFor.String() + " after the first attempt were over"
	list := make([]string, 0, len(codes))
	for code := range codes {
		list = append(list, code)
	}
	slices.Sort(list)
	header := nats.Header{subjects.HeaderCodes: {strings.Join(list, " ")}, subjects.HeaderAttempt: {strconv.Itoa(a.hold.Attempt())}}
	for i, letter := range w.letters(rest) {
		if err := w.storeLetter(ctx, d, "expired", reason, letter, fmt.Sprintf("expired.%v.%d", d.number, i), header); err != nil {
			return err
		}
	}
	for o, recipients := range byReply {
		a.record(o, recipients)
	}
	return nil
}

// letters is a batch as JSON, in as many parts as it takes.
func (w *Worker) letters(b envelope.Batch) [][]byte {
	data := b.AppendJSON(nil)
	half := len(b.Recipients) / 2
	if len(data) <= w.letterBytes() || half == 0 {
		return [][]byte{data}
	}
	first, second := b, b
	first.Recipients, second.Recipients = b.Recipients[:half], b.Recipients[half:]
	return append(w.letters(first), w.letters(second)...)
}

// storeLetter publishes a dead letter. key tells it from the batch's other ones, so
// that a repeated try stores it once.
func (w *Worker) storeLetter(ctx context.Context, d *delivery, cause, reason string, data []byte, key string, header nats.Header) error {
	msg := &nats.Msg{Subject: w.names.Dead(d.campaign), Data: data, Header: nats.Header{
		subjects.HeaderReason: {strings.Map(printable, reason)},
		subjects.HeaderCause:  {cause},
		subjects.HeaderBatch:  {d.batch},
	}}
	maps.Copy(msg.Header, header)
	stored, err := w.js.PublishMsg(ctx, msg, jetstream.WithMsgID(d.campaign+"."+d.batch+"."+key))
	if err == nil && !stored.Duplicate {
		w.o.Observer.Buried(cause)
	}
	return err
}

// printable keeps line ends out of a header.
func printable(r rune) rune {
	if r < ' ' {
		return ' '
	}
	return r
}
