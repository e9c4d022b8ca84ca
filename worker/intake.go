package worker

import (
	"context"
	"errors"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// slot sends for one batch at a time until intake ends. Each slot pulls for
// itself and pulls one: a batch that waited in this process for a slot would use
// up its ack wait unseen. work is the context of what is in hand.
func (w *Worker) slot(work, intake context.Context, consumer jetstream.Consumer) {
	var end ending
	defer end.steps.Wait()
	for intake.Err() == nil {
		if err := w.pull(work, intake, consumer, &end); err != nil && intake.Err() == nil {
			w.log.WarnContext(work, "pull ended, trying on", "error", err)
			sleep(intake, time.Second)
		}
	}
}

func (w *Worker) pull(work, intake context.Context, consumer jetstream.Consumer, end *ending) error {
	batches, err := consumer.Messages(jetstream.PullMaxMessages(1))
	if err != nil {
		return err
	}
	// After a reconnect, and after missed heartbeats, the client has pulled once
	// more. What that brings while a batch is in hand waits here unseen, and its
	// ack wait with it: it may be somebody else's by now.
	reconnects := w.js.Conn().Stats().Reconnects
	missed := false
	once := func() bool { return !missed && w.js.Conn().Stats().Reconnects == reconnects }
	defer func() { w.giveBack(work, batches, once()) }()
	for once() {
		if !w.gate.pass(intake) {
			return nil
		}
		msg, err := batches.Next(jetstream.NextContext(intake))
		switch {
		case err == nil && w.gate.isShut(time.Now()):
			w.release(work, msg, once()) // asked for before the gate was shut
		case err == nil:
			w.handle(work, intake, msg, end)
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
func (w *Worker) giveBack(work context.Context, batches jetstream.MessagesContext, ours bool) {
	batches.Drain()
	for {
		msg, err := batches.Next(jetstream.NextContext(work))
		if err != nil {
			return
		}
		w.release(work, msg, ours)
	}
}

func (w *Worker) release(work context.Context, msg jetstream.Msg, ours bool) {
	if !ours {
		return
	}
	if err := msg.Nak(); err != nil {
		w.log.WarnContext(work, "batch not given back, it returns after the ack wait", "error", err)
	}
}
