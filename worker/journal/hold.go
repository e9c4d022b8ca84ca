package journal

import (
	"context"
	"slices"
	"sync"
	"time"

	"bulkmail/subjects"
)

const (
	// linger is how long an append waits for more results. Without it,
	// envelopes of one recipient would cost an append each.
	linger = 5 * time.Millisecond
	// entryBytes is about how much one entry may hold. The broker's limit for a
	// message is 1 MiB by default; a batch near it must not make an entry
	// beyond it.
	entryBytes = 256 << 10
)

// A Hold is one attempt's hold on a batch.
type Hold struct {
	journal *Journal
	subject string
	attempt int

	ctx     context.Context //nolint:containedctx // of the writer, which outlives any one call
	cancel  context.CancelFunc
	writing sync.WaitGroup
	trouble func(error)   // told why appends begin to fail, and nil when they cease to; nil: nobody
	wake    chan struct{} // something is pending
	closing chan struct{} // Close was called
	lost    chan struct{} // closed by the writer

	last uint64 // sequence of the last entry; the writer's, before it starts Claim's
	buf  []byte // of an entry that is appended; the writer's too
	err  error  // why the writer stopped; set before lost is closed

	telling  sync.Mutex // guards what follows, and the order of what trouble is told
	awaiting bool       // an append is under way
	troubled error      // what trouble was told last

	mu       sync.Mutex // guards what follows
	pending  []results
	sendings []sending
	done     bool
}

// sending is an announcement that somebody waits for.
type sending struct {
	subjects.Results
	written chan struct{} // closed when it is in the journal
}

// results is pending results, and whether their slice of recipients is ours to
// append to rather than the caller's.
type results struct {
	subjects.Results
	own bool
}

// Attempt is the number of this attempt, from 1.
func (h *Hold) Attempt() int { return h.attempt }

// Lost is closed when the hold turns out to be lost: nothing may be sent for
// the batch any more.
func (h *Hold) Lost() <-chan struct{} { return h.lost }

// Record takes what became of some recipients. It does not wait. r.Recipients
// must not change until the hold is closed.
func (h *Hold) Record(r subjects.Results) {
	if len(r.Recipients) == 0 {
		return
	}
	h.mu.Lock()
	first := len(h.pending) == 0
	h.add(r)
	h.mu.Unlock()
	if first { // else the writer knows: it lingers, or is to be back for them
		h.nudge()
	}
}

// Sending announces that recipients are about to be sent to, and returns when
// that is in the journal. Unless a result follows it, they are in doubt. The
// error is [ErrFenced], or that of ctx.
func (h *Hold) Sending(ctx context.Context, relay string, recipients []string) error {
	s := sending{
		Results: subjects.Results{Status: subjects.InDoubt, Relay: relay, Recipients: recipients},
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

// add puts r to the pending result that says the same, if there is one. The
// caller holds mu.
func (h *Hold) add(r subjects.Results) {
	for i := range h.pending {
		p := &h.pending[i]
		if p.Status != r.Status || p.Code != r.Code || p.Relay != r.Relay || p.Enhanced != r.Enhanced || p.Text != r.Text {
			continue
		}
		if !p.own {
			p.Recipients, p.own = slices.Clip(p.Recipients), true // appending copies them
		}
		p.Recipients = append(p.Recipients, r.Recipients...)
		return
	}
	h.pending = append(h.pending, results{Results: r})
}

// Close writes what is still pending, and that the batch is done if it is, and
// ends the hold. The error is [ErrFenced], or that of ctx when the broker could
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

// write appends what is pending until the hold is closed or lost.
func (h *Hold) write() {
	for closing := false; ; {
		if !closing {
			select {
			case <-h.wake:
			case <-h.closing:
				closing = true
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
			if err := h.append(h.ctx, h.entry(event, taken), nil); err != nil {
				h.lose(err)
				return
			}
		}
		if more {
			h.nudge()
		} else if closing {
			return
		}
	}
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
		var announced []subjects.Results
		whole := 0 // of those that wait, whose recipients are all in this entry or one before
		for room := entryBytes; room > 0 && whole < len(waiting); {
			s := &waiting[whole]
			some, bytes := split(&s.Results, room)
			announced = append(announced, some)
			room -= bytes
			if len(s.Recipients) == 0 {
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

// split takes off r what fits into room, and at least one recipient.
func split(r *subjects.Results, room int) (some subjects.Results, bytes int) {
	n, bytes := 0, 100+len(r.Text)
	for n < len(r.Recipients) && (bytes < room || n == 0) {
		bytes += encodedLen(r.Recipients[n]) + 1
		n++
	}
	some = *r
	some.Recipients = r.Recipients[:n:n]
	r.Recipients = r.Recipients[n:]
	return some, bytes
}

// take takes one entry's worth of what is pending. event is empty when there is
// nothing to write.
func (h *Hold) take(closing bool) (event subjects.Event, taken []subjects.Results, more bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	room := entryBytes
	for len(h.pending) > 0 && room > 0 {
		p := &h.pending[0]
		some, bytes := split(&p.Results, room)
		taken = append(taken, some)
		room -= bytes
		if len(p.Recipients) == 0 {
			h.pending = h.pending[1:]
		}
	}
	more = len(h.pending)+len(h.sendings) > 0
	switch {
	case closing && h.done && !more:
		event = subjects.Done
	case len(taken) > 0:
		event = subjects.Recorded
	}
	return event, taken, more
}

// encodedLen is the most that s takes as JSON: a recipient that is no address
// can be full of what must be escaped.
func encodedLen(s string) int {
	n := len(s) + 2
	for i := range len(s) {
		if c := s[i]; c < ' ' || c == 0xe2 { // 0xe2 begins U+2028
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
