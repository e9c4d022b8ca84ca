package queue

import (
	"context"
	"errors"
	"strconv"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"bulkmail/subjects"
)

// A feed pulls the batches of one campaign, one at a time.
type feed[T any] struct {
	queue    *Queue[T]
	campaign string

	// Guarded by the queue's mu.
	changed chan struct{}    // closed when the terms change
	terms   Terms            // as last asked
	told    bool             // a batch was stored since the feed last looked
	waiting *waitingBatch[T] // ready to be taken; nil: none
}

type waitingBatch[T any] struct {
	item       T
	bytes      int
	recipients int
	taken      chan struct{} // closed when it is
}

// run pulls while the campaign has something, as its terms allow, until ctx
// ends.
func (f *feed[T]) run(ctx context.Context) {
	q := f.queue
	for again := time.Duration(0); ctx.Err() == nil; {
		opened, end := f.open(ctx)
		if opened == nil {
			return // ctx ended
		}
		err := f.pull(opened)
		end()
		switch {
		case errors.Is(err, errNothingLeft):
			if f.leave() {
				return
			}
			again = 0
		case err != nil && ctx.Err() == nil:
			again = min(max(2*again, 100*time.Millisecond), 5*time.Second)
			if again > time.Second {
				q.o.Log.WarnContext(ctx, "batches not pulled, trying on", "campaign", f.campaign, "error", err)
			}
			sleep(ctx, again)
		default:
			again = 0
		}
	}
}

// open waits until the campaign may be sent. The context that it returns ends
// when it may no longer be, or when its terms change.
func (f *feed[T]) open(ctx context.Context) (opened context.Context, end context.CancelFunc) {
	q := f.queue
	for ctx.Err() == nil {
		q.mu.Lock()
		changed := f.changed
		q.mu.Unlock()
		now := time.Now()
		terms := q.o.Terms(f.campaign, now)
		if terms.Open(now) {
			q.mu.Lock()
			f.terms = terms
			q.mu.Unlock()
			opened, cancel := context.WithCancel(ctx)
			if !terms.Closes.IsZero() {
				opened, cancel = context.WithDeadline(ctx, terms.Closes)
			}
			var watching sync.WaitGroup
			watching.Go(func() {
				select {
				case <-changed:
					cancel()
				case <-opened.Done():
				}
			})
			return opened, func() { cancel(); watching.Wait() }
		}
		wait := time.Hour
		if !terms.Held && terms.Opens.After(now) {
			wait = terms.Opens.Sub(now)
		}
		timer := time.NewTimer(wait)
		select {
		case <-timer.C:
		case <-changed:
		case <-ctx.Done():
		}
		timer.Stop()
	}
	return nil, nil
}

// errNothingLeft says that a campaign has no batch on the queue.
var errNothingLeft = errors.New("no batch is left")

// pull pulls one batch after the other and offers it, until ctx ends.
func (f *feed[T]) pull(ctx context.Context) error {
	q := f.queue
	opening, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	consumer, err := subjects.OpenConsumer(opening, q.js, q.names, f.campaign, q.o.AckWait, time.Time{})
	if err != nil {
		return err
	}
	p, err := openPull(q.js, q.names.BatchesStream(), subjects.CampaignConsumer(f.campaign))
	if err != nil {
		return err
	}
	defer p.close()
	for {
		idle, cancel := context.WithTimeout(ctx, q.o.Idle)
		msg, err := p.next(idle)
		cancel()
		switch {
		case err == nil:
			item := q.o.Arrived(msg)
			if !f.offer(ctx, item, msg) {
				q.o.Release(item)
			}
		case ctx.Err() != nil:
			return nil
		case errors.Is(err, context.DeadlineExceeded):
			err = f.look(ctx, consumer)
		}
		if err != nil {
			return err
		}
	}
}

// look finds out whether anything is left of the campaign.
func (f *feed[T]) look(ctx context.Context, consumer jetstream.Consumer) error {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	info, err := consumer.Info(ctx)
	if err == nil && info.NumPending == 0 && info.NumAckPending == 0 {
		return errNothingLeft
	}
	return err
}

// leave ends the feed, unless a batch was stored meanwhile.
func (f *feed[T]) leave() bool {
	q := f.queue
	q.mu.Lock()
	defer q.mu.Unlock()
	if f.told {
		f.told = false
		return false
	}
	delete(q.feeds, f.campaign)
	return true
}

// offer holds a batch ready until it is taken. It reports false if ctx ended
// first.
func (f *feed[T]) offer(ctx context.Context, item T, msg *nats.Msg) bool {
	q := f.queue
	w := &waitingBatch[T]{item: item, bytes: len(msg.Data), recipients: recipientsOf(msg), taken: make(chan struct{})}
	q.mu.Lock()
	for q.bytes > 0 && q.bytes+w.bytes > q.o.MaxBytes {
		room := q.arrived
		q.mu.Unlock()
		select {
		case <-room:
		case <-ctx.Done():
			return false
		}
		q.mu.Lock()
	}
	f.told = false
	f.waiting = w
	q.bytes += w.bytes
	flow := q.turns.Flow(f.campaign)
	flow.Value = f
	q.turns.Set(flow, f.terms.Weight, f.terms.Urgent)
	q.turns.Begin(flow)
	q.wake()
	q.mu.Unlock()
	select {
	case <-w.taken:
		return true
	case <-ctx.Done():
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	if f.waiting != w {
		return true // somebody was quicker
	}
	f.waiting = nil
	q.bytes -= w.bytes
	q.turns.End(flow)
	q.wake()
	return false
}

// recipientBytes is about what a recipient takes of a batch that does not say
// how many it has.
const recipientBytes = 32

// recipientsOf is how many recipients a batch has, or about as many.
func recipientsOf(msg *nats.Msg) int {
	if n, err := strconv.Atoi(msg.Header.Get(subjects.HeaderRecipients)); err == nil && n > 0 {
		return n
	}
	return max(1, len(msg.Data)/recipientBytes)
}

func sleep(ctx context.Context, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	}
}
