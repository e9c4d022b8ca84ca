package worker

import (
	"context"
	"errors"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// slot holds one batch at a time until ctx ends. Each slot pulls for itself and
// pulls one: a batch that waited in this process for a slot would use up its
// ack wait unseen.
func (w *Worker) slot(ctx context.Context, consumer jetstream.Consumer) {
	for ctx.Err() == nil {
		if err := w.pull(ctx, consumer); err != nil && ctx.Err() == nil {
			w.log.WarnContext(ctx, "pull ended, trying on", "error", err)
			sleep(ctx, time.Second)
		}
	}
}

func (w *Worker) pull(ctx context.Context, consumer jetstream.Consumer) error {
	batches, err := consumer.Messages(jetstream.PullMaxMessages(1))
	if err != nil {
		return err
	}
	defer w.giveBack(batches)
	for {
		if until := time.Unix(0, w.stalledUntil.Load()); !sleep(ctx, time.Until(until)) {
			return nil
		}
		msg, err := batches.Next(jetstream.NextContext(ctx))
		switch {
		case err == nil:
			w.handle(ctx, msg)
		case ctx.Err() != nil:
			return nil
		case errors.Is(err, jetstream.ErrNoHeartbeat), errors.Is(err, nats.ErrTimeout):
			// The connection is away for a moment; it comes back by itself.
		default:
			return err
		}
	}
}

// giveBack ends a pull and returns to the queue what arrived meanwhile.
func (w *Worker) giveBack(batches jetstream.MessagesContext) {
	batches.Drain()
	for {
		msg, err := batches.Next()
		if err != nil {
			return
		}
		if err := msg.Nak(); err != nil {
			w.log.WarnContext(w.base, "batch not given back, it returns after the ack wait", "error", err)
		}
	}
}

// keep renews the ack wait of a batch until ctx ends. That it succeeds proves
// nothing, since nobody answers; the journal's sequence does.
func (w *Worker) keep(ctx context.Context, msg jetstream.Msg) {
	tick := time.NewTicker(w.heartbeat)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			if err := msg.InProgress(); err != nil {
				w.log.DebugContext(ctx, "ack wait not renewed", "error", err)
			}
		case <-ctx.Done():
			return
		}
	}
}
