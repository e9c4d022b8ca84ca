// Package queue hands out batches: it says of which campaign the next one is,
// and has it ready.
//
// Each campaign has a durable pull consumer of its own on the stream of batches
// ([subjects.OpenConsumer]). The way of a batch through here:
//
//  1. discover.go hears of a campaign: the broker tells of each batch that is
//     stored, and is asked for the subjects of the stream at the start, after a
//     reconnect and now and then.
//  2. feed.go pulls one batch of the campaign and holds it ready, as long as the
//     campaign's [Terms] say that it may be sent. Paused campaigns, and those
//     that have nothing, cost nothing.
//  3. [Queue.Next] hands out the batch of the campaign whose turn it is
//     (package fair): urgent ones first, then by weight in recipients.
//
// So at most one batch of a campaign waits here for a slot of the worker, and all
// that wait are bounded in octets.
package queue

import (
	"cmp"
	"context"
	"log/slog"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"bulkmail/relay/fair"
	"bulkmail/subjects"
)

// Terms are what a campaign's record says about its turn. The zero Terms are
// those of a campaign without a record: it may be sent now, with the default
// weight.
type Terms struct {
	Weight int  // 0: the default
	Urgent bool // before all that are not
	Held   bool // paused: nothing is handed out until the record changes
	// Opens is when the campaign may be sent, if that is to come; Closes is when
	// it may no longer be sent. Zero: now, and without an end.
	Opens, Closes time.Time
}

// Open tells whether batches may be handed out at a time.
func (t Terms) Open(now time.Time) bool {
	return !t.Held && !now.Before(t.Opens) && (t.Closes.IsZero() || now.Before(t.Closes))
}

// Options are the settings of a [Queue]. Arrived, Release and Terms are needed.
type Options[T any] struct {
	// Arrived makes what Next returns of a delivery, as soon as it is here: from
	// then on its lease must be kept.
	Arrived func(msg *nats.Msg) T
	// Release gives back what nobody took.
	Release func(item T)
	// Terms are those of a campaign now. Call [Queue.Changed] when they change.
	Terms func(campaign string, now time.Time) Terms

	AckWait  time.Duration // of consumers that are made; 30s
	MaxBytes int           // of batches that wait here; 64 MiB
	Idle     time.Duration // a campaign that has had nothing for this long is no longer pulled for; 1m
	Look     time.Duration // between two looks for campaigns that were missed; 1m
	Log      *slog.Logger  // nil: discarded
}

// A Queue hands out the batches of all campaigns. It is safe for concurrent use.
type Queue[T any] struct {
	js    jetstream.JetStream
	names subjects.Names
	o     Options[T]

	wg sync.WaitGroup

	mu      sync.Mutex // guards what follows
	turns   fair.Queue[*feed[T]]
	feeds   map[string]*feed[T]
	bytes   int           // of batches that wait
	arrived chan struct{} // closed when a batch arrives or room is made
}

// New returns a queue. Nothing is pulled before [Queue.Run].
func New[T any](js jetstream.JetStream, names subjects.Names, o Options[T]) *Queue[T] {
	o.AckWait = cmp.Or(o.AckWait, 30*time.Second)
	o.MaxBytes = cmp.Or(o.MaxBytes, 64<<20)
	o.Idle = cmp.Or(o.Idle, time.Minute)
	o.Look = cmp.Or(o.Look, time.Minute)
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	return &Queue[T]{js: js, names: names, o: o, feeds: make(map[string]*feed[T]), arrived: make(chan struct{})}
}

// Run pulls until ctx ends. What waits then is given back.
func (q *Queue[T]) Run(ctx context.Context) error {
	defer q.wg.Wait()
	return q.discover(ctx)
}

// Next waits for the batch whose turn it is, and takes it; with urgent, for one
// of an urgent campaign. It reports false when ctx ended first.
func (q *Queue[T]) Next(ctx context.Context, urgent bool) (item T, ok bool) {
	can := func(f *fair.Flow[*feed[T]]) bool { return f.Urgent() || !urgent }
	for ctx.Err() == nil {
		q.mu.Lock()
		if flow := q.turns.Next(can); flow != nil {
			item := q.take(flow)
			q.mu.Unlock()
			return item, true
		}
		arrived := q.arrived
		q.mu.Unlock()
		select {
		case <-arrived:
		case <-ctx.Done():
		}
	}
	return item, false
}

// take takes what a feed holds ready. The caller holds mu.
func (q *Queue[T]) take(flow *fair.Flow[*feed[T]]) T {
	f := flow.Value
	w := f.waiting
	f.waiting = nil
	q.bytes -= w.bytes
	q.turns.Charge(flow, w.recipients)
	q.turns.End(flow)
	close(w.taken)
	q.wake()
	return w.item
}

// Changed says that the terms of a campaign are others now.
func (q *Queue[T]) Changed(campaign string) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if f := q.feeds[campaign]; f != nil {
		close(f.changed)
		f.changed = make(chan struct{})
	}
}

// wake has everybody look again who waits for a batch or for room. The caller
// holds mu.
func (q *Queue[T]) wake() {
	close(q.arrived)
	q.arrived = make(chan struct{})
}

// Waiting is how many batches wait to be taken.
func (q *Queue[T]) Waiting() int {
	q.mu.Lock()
	defer q.mu.Unlock()
	return len(q.turns.All())
}

// Campaigns is how many campaigns are pulled for.
func (q *Queue[T]) Campaigns() int {
	q.mu.Lock()
	defer q.mu.Unlock()
	return len(q.feeds)
}
