package worker

import (
	"context"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"bulkmail/subjects"
	"bulkmail/worker/journal"
)

// progress renews the ack wait of a delivery. Sent as a request it is answered,
// which [jetstream.Msg.InProgress] is not.
var progress = []byte("+WPI")

// A delivery is one delivery of one batch to this worker. Nobody else knows the
// broker's message.
type delivery struct {
	msg      jetstream.Msg
	meta     *jetstream.MsgMetadata
	campaign string
	batch    string // its id, as far as it is known
	number   journal.Delivery
	position position
	lease    *lease

	js    jetstream.JetStream
	grace time.Duration // for what has to be said after the worker's time is over
	log   *slog.Logger

	stop    context.CancelFunc // ends the renewing of the lease
	keeping sync.WaitGroup
}

// newDelivery takes a message that has just come.
func (w *Worker) newDelivery(msg jetstream.Msg) (*delivery, error) {
	meta, err := msg.Metadata()
	if err != nil {
		return nil, err
	}
	d := &delivery{
		msg: msg, meta: meta, js: w.js, log: w.log, grace: w.o.DrainTimeout / 10,
		number:   journal.Delivery{Sequence: meta.Sequence.Stream, Count: meta.NumDelivered, Consumer: meta.Consumer, AckWait: w.ackWait},
		position: position{sequence: meta.Sequence.Stream, last: meta.Sequence.Stream + meta.NumPending},
		lease:    newLease(w.ackWait),
	}
	d.campaign, _ = w.names.Campaign(msg.Subject())
	return d, nil
}

func (d *delivery) data() []byte { return d.msg.Data() }

// name gives the batch its id: the one it was published with, or one made of
// how it was published.
func (d *delivery) name(id string) {
	d.batch = subjects.BatchID(id, d.msg.Headers().Get(jetstream.MsgIDHeader), d.meta.Sequence.Stream, d.meta.Timestamp)
}

// publication tells the batch from others that were published under its id.
func (d *delivery) publication() string {
	return subjects.BatchID("", "", d.meta.Sequence.Stream, d.meta.Timestamp)
}

// held tells whether the delivery is surely ours still.
func (d *delivery) held() bool { return d.lease.held() }

// keep renews the lease until release.
func (d *delivery) keep(ctx context.Context) {
	ctx, d.stop = context.WithCancel(ctx)
	d.keeping.Go(func() { d.lease.keep(ctx, d.renew) })
}

func (d *delivery) release() {
	d.stop()
	d.keeping.Wait()
}

func (d *delivery) renew(ctx context.Context) error {
	_, err := d.js.Conn().RequestWithContext(ctx, d.msg.Reply(), progress)
	return err
}

// ack takes the batch off the queue, with confirmation.
func (d *delivery) ack(ctx context.Context) { d.tell(ctx, d.msg.DoubleAck) }

// term takes a batch off the queue that nobody can read.
func (d *delivery) term(ctx context.Context, reason string) {
	d.tell(ctx, func(context.Context) error { return d.msg.TermWithReason(reason) })
}

// nak returns the batch to the queue. Once the lease is over the broker does
// that by itself, and may have done it: it would take our word for that of the
// new holder, and give the batch to a third.
func (d *delivery) nak(ctx context.Context, delay time.Duration) {
	if !d.held() {
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
func (d *delivery) tell(ctx context.Context, word func(context.Context) error) {
	ctx, cancel := lastWords(ctx, d.grace)
	defer cancel()
	ctx, cancel = context.WithTimeout(ctx, d.lease.ackWait)
	defer cancel()
	if err := word(ctx); err != nil {
		d.log.WarnContext(ctx, "broker not told, the batch comes back after the ack wait", "campaign", d.campaign, "batch", d.batch, "error", err)
	}
}

// lastWords outlives ctx by grace, so that what came of envelopes that were cut
// can still be written down and said.
func lastWords(ctx context.Context, grace time.Duration) (context.Context, context.CancelFunc) {
	longer, cancel := context.WithCancel(context.WithoutCancel(ctx))
	stop := context.AfterFunc(ctx, func() { time.AfterFunc(grace, cancel) })
	return longer, func() { stop(); cancel() }
}

// A lease is the time for which a delivery is surely ours: the broker gives the
// batch to nobody else before its ack wait is over. It is renewed by answered
// requests only, and counted from when they were sent. Once it has run out it
// is not renewed: the batch may have a new holder, and only the journal knows.
type lease struct {
	ackWait time.Duration
	until   atomic.Int64 // nanoseconds since start
	start   time.Time
	expired chan struct{} // closed when keep saw the end
}

func newLease(ackWait time.Duration) *lease {
	l := &lease{ackWait: ackWait, start: time.Now(), expired: make(chan struct{})}
	l.until.Store(int64(ackWait))
	return l
}

// held tells whether the lease lasts still.
func (l *lease) held() bool { return int64(time.Since(l.start)) < l.until.Load() }

// renewed lengthens the lease by a request sent then, if it was answered in
// time.
func (l *lease) renewed(sent time.Time) {
	if l.held() {
		l.until.Store(int64(sent.Sub(l.start) + l.ackWait))
	}
}

// keep renews the lease three times in an ack wait, until ctx or the lease ends.
func (l *lease) keep(ctx context.Context, renew func(context.Context) error) {
	tick := time.NewTicker(l.ackWait / 3)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
		if !l.held() {
			close(l.expired)
			return
		}
		sent := time.Now()
		asking, cancel := context.WithTimeout(ctx, l.ackWait/3)
		if renew(asking) == nil {
			l.renewed(sent)
		}
		cancel()
	}
}
