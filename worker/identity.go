package worker

import (
	"crypto/sha256"
	"encoding/hex"
	"time"

	"bulkmail/envelope"
	"bulkmail/worker/journal"
)

var (
	errOtherContent = &envelope.FieldError{Field: "id", Reason: "used before in this campaign, with another message, sender or DSN: give it an id of its own"}
	errForgotten    = &envelope.FieldError{Field: "batch", Reason: "what became of its recipients is no longer known, " +
		"for its outcomes are older than BULKMAIL_OUTCOMES_MAX_AGE: these may have been sent to"}
)

// contentOf tells batches apart that say different things to their recipients.
// Whoever publishes a batch again, with more recipients or in other spellings,
// says the same.
func contentOf(b *envelope.Batch) string {
	sum := sha256.New()
	var buf [4 << 10]byte
	for _, field := range []string{b.From, b.Message, b.MessageRef, b.Data, b.DSN.EnvelopeID, b.DSN.Return, b.DSN.Notify} {
		for len(field) > 0 {
			n := copy(buf[:], field)
			sum.Write(buf[:n])
			field = field[n:]
		}
		sum.Write([]byte{0}) // no message, name or address has one
	}
	return hex.EncodeToString(sum.Sum(nil)[:16])
}

// forgotten tells whether a batch was begun and its journal, or the beginning of
// that, is gone: it rested or was paused for longer than outcomes are kept.
func (w *Worker) forgotten(d *delivery, known *journal.State) bool {
	if known.Cut {
		return true
	}
	kept := w.journal.Kept()
	return known.New() && d.number.Count > 1 && kept > 0 && time.Since(d.meta.Timestamp) > kept
}

// unsettled is the batch without those who are final.
func (p *plan) unsettled(batch *envelope.Batch) envelope.Batch {
	rest := *batch
	rest.Recipients = nil
	for _, group := range p.send {
		rest.Recipients = append(rest.Recipients, group.Recipients...)
	}
	for _, invalid := range p.reject {
		rest.Recipients = append(rest.Recipients, invalid.Recipient)
	}
	for _, list := range [][]deferred{p.rest, p.doubtful} {
		for _, d := range list {
			rest.Recipients = append(rest.Recipients, d.recipient)
		}
	}
	return rest
}
