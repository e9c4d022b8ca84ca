package worker

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// A slot sends for one batch at a time. Each slot pulls for itself and pulls
// one: a batch that waited in this process for a slot would use up its ack wait
// unseen.
//
// The last steps of a batch, when the broker stores the end of its journal and
// confirms the ack, go on beside the first steps of the next. There is one batch
// in its last steps at a time, so that a worker holds two batches a slot at most,
// and sends for one.
type slot struct {
	batches  sync.WaitGroup
	settling chan struct{} // holds one while a batch is in its last steps
}

// slot pulls batches until intake ends, and waits for them. ctx is the context
// of what is in hand.
func (w *Worker) slot(ctx, intake context.Context, consumer jetstream.Consumer) {
	s := &slot{settling: make(chan struct{}, 1)}
	defer s.batches.Wait()
	for intake.Err() == nil {
		if err := w.pull(ctx, intake, consumer, s); err != nil && intake.Err() == nil {
			w.log.WarnContext(ctx, "pull ended, trying on", "error", err)
			sleep(intake, time.Second)
		}
	}
}

// take processes a message, and returns when the slot may take another.
func (w *Worker) take(ctx, intake context.Context, msg jetstream.Msg, s *slot) {
	d, err := w.newDelivery(msg)
	if err != nil {
		w.log.ErrorContext(ctx, "not a JetStream delivery", "subject", msg.Subject(), "error", err)
		return
	}
	t := &turn{slot: s, sent: make(chan struct{})}
	s.batches.Go(func() { w.process(ctx, intake, d, t) })
	<-t.sent
}

// A turn is the use that one batch makes of a slot.
type turn struct {
	slot     *slot
	sent     chan struct{} // closed when the slot is free for the next batch
	settling bool
}

// next frees the slot, as soon as the batch before is settled.
func (t *turn) next() {
	t.slot.settling <- struct{}{}
	t.settling = true
	close(t.sent)
}

// end ends the turn, however far it came.
func (t *turn) end() {
	if t.settling {
		<-t.slot.settling
		return
	}
	close(t.sent)
}

func (w *Worker) pull(ctx, intake context.Context, consumer jetstream.Consumer, s *slot) error {
	batches, err := consumer.Messages(jetstream.PullMaxMessages(1))
	if err != nil {
		return err
	}
	// After a reconnect, and after missed heartbeats, the client has pulled once
	// more. What that brings while a batch is in hand waits here unseen, and its
	// ack wait with it: it may be somebody else's by now.
	reconnects := w.js.Conn().Stats().Reconnects
	missed := false
	pulledOnce := func() bool { return !missed && w.js.Conn().Stats().Reconnects == reconnects }
	defer func() { w.giveBack(ctx, batches, pulledOnce()) }()
	for pulledOnce() {
		if !w.gate.pass(intake) {
			return nil
		}
		msg, err := batches.Next(jetstream.NextContext(intake))
		switch {
		case err == nil && w.gate.isShut(time.Now()):
			w.release(ctx, msg, pulledOnce()) // asked for before the gate was shut
		case err == nil:
			w.take(ctx, intake, msg, s)
		case intake.Err() != nil:
			return nil
		case errors.Is(err, jetstream.ErrNoHeartbeat), errors.Is(err, nats.ErrTimeout):
			missed = true // the connection is away for a moment; it comes back by itself
		default:
			return err
		}
	}
	return nil
}

// giveBack ends a pull and returns to the queue what arrived meanwhile, if that
// is surely ours. Else the broker returns it.
func (w *Worker) giveBack(ctx context.Context, batches jetstream.MessagesContext, ours bool) {
	batches.Drain()
	for {
		msg, err := batches.Next(jetstream.NextContext(ctx))
		if err != nil {
			return
		}
		w.release(ctx, msg, ours)
	}
}

func (w *Worker) release(ctx context.Context, msg jetstream.Msg, ours bool) {
	if !ours {
		return
	}
	if err := msg.Nak(); err != nil {
		w.log.WarnContext(ctx, "batch not given back, it returns after the ack wait", "error", err)
	}
}
