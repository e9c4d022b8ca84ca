package journal

import (
	"context"
	"math"
	"slices"
	"sync"
	"sync/atomic"
	"time"
	"unicode/utf8"

	"github.com/nats-io/nats.go"

	"bulkmail/envelope"
	"bulkmail/subjects"
)

const (
	// linger is how long an append waits for more results. Without it,
	// envelopes of one recipient would cost an append each.
	linger = 5 * time.Millisecond
	// entryBytes is about how much one entry may hold, where the broker takes
	// messages of four times that: see [Hold.room].
	entryBytes = 256 << 10
)

// A Hold is one attempt's hold on a batch.
type Hold struct {
	journal *Journal
	subject string
	attempt int
	ackWait time.Duration
	start   time.Time
	alive   atomic.Int64 // nanoseconds since start: when the last entry was sent that is stored

	ctx     context.Context //nolint:containedctx // of the writer, which outlives any one call
	cancel  context.CancelFunc
	writing sync.WaitGroup
	trouble func(error)   // told why appends begin to fail, and nil when they cease to; nil: nobody
	wake    chan struct{} // something is pending
	closing chan struct{} // Close was called
	lost    chan struct{} // closed by the writer

	claim uint64 // sequence of the claim

	last uint64             // sequence of the last entry; the writer's, before it starts Claim's
	buf  []byte             // of an entry that is appended; the writer's too, as is
	list []string           // which its results' recipients are cut from
	err  error              // why the writer stopped; set before lost is closed
	torn []subjects.Results // of the entry that could not be written; set before lost is closed

	telling  sync.Mutex // guards what follows, and the order of what trouble is told
	awaiting bool       // an append is under way
	troubled error      // what trouble was told last

	mu       sync.Mutex // guards what follows
	pending  []pending
	sendings []sending
	flushes  []chan struct{} // each closed when all that was recorded before is written
	done     bool
}

// pending is recipients to be written with what became of them. It borrows them
// from whoever recorded them.
type pending struct {
	subjects.Outcome
	recipients []envelope.Recipient
	more       [][]envelope.Recipient // of those that were recorded later
}

// left tells whether there are recipients left.
func (p *pending) left() bool {
	for len(p.recipients) == 0 && len(p.more) > 0 {
		p.recipients, p.more = p.more[0], p.more[1:]
	}
	return len(p.recipients) > 0
}

// sending is an announcement that somebody waits for.
type sending struct {
	pending
	written chan struct{} // closed when it is in the journal
}

// Attempt is the number of this attempt, from 1.
func (h *Hold) Attempt() int { return h.attempt }

// Claimed is the sequence of the claim in the stream.
func (h *Hold) Claimed() uint64 { return h.claim }

// Held tells whether the journal keeps everybody else from claiming the batch
// still: the holder's last entry is younger than its ack wait.
func (h *Hold) Held() bool { return int64(time.Since(h.start)) < h.alive.Load()+int64(h.ackWait) }

// Unrecorded is what was recorded and did not come into the journal, of a hold
// that was lost. Ask after [Hold.Close].
func (h *Hold) Unrecorded() []subjects.Results {
	h.mu.Lock()
	defer h.mu.Unlock()
	all := h.torn
	for h.list = nil; len(h.pending) > 0; h.pending = h.pending[1:] {
		some, _ := h.split(&h.pending[0], math.MaxInt)
		all = append(all, some)
	}
	h.torn = all
	return all
}

// Lost is closed when the hold turns out to be lost: nothing may be sent for
// the batch any more.
func (h *Hold) Lost() <-chan struct{} { return h.lost }

// Record takes what became of some recipients. It does not wait. They must not
// change until the hold is closed.
func (h *Hold) Record(o subjects.Outcome, recipients []envelope.Recipient) {
	if len(recipients) == 0 {
		return
	}
	h.mu.Lock()
	first := len(h.pending) == 0
	h.add(o, recipients)
	h.mu.Unlock()
	if first { // else the writer knows: it lingers, or is to be back for them
		h.nudge()
	}
}

// Sending announces that recipients are about to be sent to, and returns when
// that is in the journal. Unless a result follows it, they are in doubt. The
// error is [ErrFenced], or that of ctx.
func (h *Hold) Sending(ctx context.Context, relay string, recipients []envelope.Recipient) error {
	s := sending{
		pending: pending{Outcome: subjects.Outcome{Status: subjects.InDoubt, Relay: relay}, recipients: recipients},
		written: make(chan struct{}),
	}
	h.mu.Lock()
	h.sendings = append(h.sendings, s)
	h.mu.Unlock()
	h.nudge()
	select {
	case <-s.written:
		return nil
	case <-h.lost:
		return h.err
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (h *Hold) nudge() {
	select {
	case h.wake <- struct{}{}:
	default:
	}
}

// add puts recipients to those of whom the same is to be written, if there are
// any. The caller holds mu.
func (h *Hold) add(o subjects.Outcome, recipients []envelope.Recipient) {
	for i := range h.pending {
		if p := &h.pending[i]; p.Outcome == o {
			p.more = append(p.more, recipients)
			return
		}
	}
	h.pending = append(h.pending, pending{Outcome: o, recipients: recipients})
}

// Flush returns when all that was recorded before is in the journal. The error is
// [ErrFenced], or that of ctx.
func (h *Hold) Flush(ctx context.Context) error {
	written := make(chan struct{})
	h.mu.Lock()
	h.flushes = append(h.flushes, written)
	h.mu.Unlock()
	h.nudge()
	select {
	case <-written:
		return nil
	case <-h.lost:
		return h.err
	case <-ctx.Done():
		return ctx.Err()
	}
}

// Close writes what is still pending, and that the batch is done or else that
// the hold is over. The error is [ErrFenced], or that of ctx when the broker could
// not be reached before it ended.
func (h *Hold) Close(ctx context.Context, done bool) error {
	h.mu.Lock()
	h.done = done
	h.mu.Unlock()
	close(h.closing)
	stop := context.AfterFunc(ctx, h.cancel)
	h.writing.Wait()
	stop()
	h.cancel()
	return h.err
}

// write appends what is pending until the hold is closed or lost. Where nothing
// is for long, it shows that the holder is alive.
func (h *Hold) write() {
	silence := time.NewTimer(h.ackWait / 3)
	defer silence.Stop()
	for closing := false; ; {
		if !closing {
			select {
			case <-h.wake:
			case <-h.closing:
				closing = true
			case <-silence.C:
				if err := h.renew(silence); err != nil {
					h.lose(err)
					return
				}
				continue
			}
		}
		if err := h.announce(); err != nil {
			h.lose(err)
			return
		}
		if !closing {
			var err error
			if closing, err = h.linger(); err != nil {
				h.lose(err)
				return
			}
		}
		event, taken, more := h.take(closing)
		if event != "" {
			var header nats.Header
			if closing && !more && event != subjects.Done {
				header = nats.Header{headerReleased: {"1"}}
			}
			if err := h.append(h.ctx, h.entry(event, taken), header); err != nil {
				h.torn = slices.Clone(taken)
				h.lose(err)
				return
			}
		}
		if more {
			h.nudge()
			continue
		}
		h.flushed()
		if closing {
			return
		}
	}
}

// flushed tells whoever waits for it that nothing is pending, unless something is.
func (h *Hold) flushed() {
	h.mu.Lock()
	defer h.mu.Unlock()
	if len(h.pending) > 0 {
		return // the writer was woken for it
	}
	for _, written := range h.flushes {
		close(written)
	}
	h.flushes = nil
}

// renew appends an entry without results if the last one is old, and sets the
// time of the next look.
func (h *Hold) renew(silence *time.Timer) error {
	age := func() time.Duration { return time.Since(h.start) - time.Duration(h.alive.Load()) }
	var err error
	if age() >= h.ackWait/3 {
		err = h.append(h.ctx, h.entry(subjects.Recorded, nil), nil)
	}
	silence.Reset(max(h.ackWait/3-age(), 0))
	return err
}

// linger lets results gather; announcements go out meanwhile.
func (h *Hold) linger() (closing bool, err error) {
	h.mu.Lock()
	nothing := len(h.pending) == 0
	h.mu.Unlock()
	if nothing {
		return false, nil
	}
	timer := time.NewTimer(linger)
	defer timer.Stop()
	for {
		select {
		case <-timer.C:
			return false, nil
		case <-h.closing:
			return true, nil
		case <-h.wake:
			if err := h.announce(); err != nil {
				return false, err
			}
		}
	}
}

func (h *Hold) lose(err error) {
	h.err = err
	close(h.lost)
}

// announce appends the announcements that wait. They do not linger: each keeps
// a session from ending its message.
func (h *Hold) announce() error {
	h.mu.Lock()
	waiting := h.sendings
	h.sendings = nil
	h.mu.Unlock()
	for len(waiting) > 0 {
		h.list = h.list[:0]
		var announced []subjects.Results
		whole := 0 // of those that wait, whose recipients are all in this entry or one before
		for room := h.room(); room > 0 && whole < len(waiting); {
			s := &waiting[whole]
			some, bytes := h.split(&s.pending, room)
			announced = append(announced, some)
			room -= bytes
			if !s.left() {
				whole++
			}
		}
		if err := h.append(h.ctx, h.entry(subjects.Sending, announced), nil); err != nil {
			return err
		}
		for _, s := range waiting[:whole] {
			close(s.written)
		}
		waiting = waiting[whole:]
	}
	return nil
}

// RecipientBytes is the longest recipient that fits in an entry where the broker
// takes messages of so many octets: as JSON it may be six times as long.
func RecipientBytes(maxPayload int64) int { return int(min(64<<10, maxPayload/16)) }

// room is about how much an entry may hold. Its last recipient may go beyond
// that, and must fit still.
func (h *Hold) room() int { return int(min(entryBytes, h.journal.js.Conn().MaxPayload()/4)) }

// split takes off p what fits into room, and at least one recipient. The names
// stand in h.list until the next entry.
func (h *Hold) split(p *pending, room int) (some subjects.Results, bytes int) {
	from, bytes := len(h.list), 100+encodedLen(p.Text)+len(p.Relay)
	for p.left() && (bytes < room || len(h.list) == from) {
		address := p.recipients[0].Address
		p.recipients = p.recipients[1:]
		h.list = append(h.list, address)
		bytes += encodedLen(address) + 1
	}
	to := len(h.list)
	return subjects.Results{Status: p.Status, Relay: p.Relay, Code: p.Code, Enhanced: p.Enhanced, Text: p.Text, InDoubt: p.InDoubt, Recipients: h.list[from:to:to]}, bytes
}

// take takes one entry's worth of what is pending. event is empty when there is
// nothing to write.
func (h *Hold) take(closing bool) (event subjects.Event, taken []subjects.Results, more bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.list = h.list[:0]
	for room := h.room(); len(h.pending) > 0 && room > 0; {
		p := &h.pending[0]
		some, bytes := h.split(p, room)
		taken = append(taken, some)
		room -= bytes
		if !p.left() {
			h.pending = h.pending[1:]
		}
	}
	more = len(h.pending)+len(h.sendings) > 0
	switch {
	case closing && h.done && !more:
		event = subjects.Done
	case len(taken) > 0 || closing && !more:
		event = subjects.Recorded
	}
	return event, taken, more
}

// encodedLen is the most that s takes as JSON: a recipient that is no address
// can be full of what must be escaped.
func encodedLen(s string) int {
	n := len(s) + 2
	for i := range len(s) {
		if c := s[i]; c < ' ' || c >= utf8.RuneSelf { // U+2028, and what is not UTF-8
			n += 5
		} else if c == '"' || c == '\\' {
			n++
		}
	}
	return n
}

func (h *Hold) entry(event subjects.Event, taken []subjects.Results) subjects.Entry {
	return subjects.Entry{
		Time:    time.Now().UTC().Truncate(time.Millisecond),
		Worker:  h.journal.worker,
		Attempt: h.attempt,
		Event:   event,
		Results: taken,
	}
}
