package queue

import (
	"context"
	"time"

	"github.com/nats-io/nats.go"

	"bulkmail/subjects"
)

// discover hears of campaigns that have batches, until ctx ends.
func (q *Queue[T]) discover(ctx context.Context) error {
	nc := q.js.Conn()
	// The broker tells of each batch as it stores it.
	stored := make(chan *nats.Msg, 1024)
	sub, err := nc.ChanSubscribe(q.names.Queued("*"), stored)
	if err != nil {
		return err
	}
	defer func() { _ = sub.Unsubscribe() }()
	look := time.NewTicker(q.o.Look)
	defer look.Stop()
	reconnected := nc.StatusChanged(nats.CONNECTED)
	defer nc.RemoveStatusListener(reconnected)
	q.lookAround(ctx)
	for {
		select {
		case msg := <-stored:
			campaign, _ := q.names.Campaign(msg.Subject)
			q.heard(ctx, campaign)
		case <-reconnected:
			q.lookAround(ctx)
		case <-look.C:
			q.lookAround(ctx)
		case <-ctx.Done():
			return nil
		}
	}
}

// lookAround asks the stream for its subjects: what was stored while this
// process did not listen.
func (q *Queue[T]) lookAround(ctx context.Context) {
	looking, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	campaigns, err := subjects.Queue(looking, q.js, q.names)
	if err != nil {
		if ctx.Err() == nil {
			q.o.Log.WarnContext(ctx, "campaigns not looked up, trying on", "error", err)
		}
		return
	}
	for campaign := range campaigns {
		q.heard(ctx, campaign)
	}
}

// heard has the campaign pulled for, if it is not.
func (q *Queue[T]) heard(ctx context.Context, campaign string) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if f := q.feeds[campaign]; f != nil {
		f.told = true
		return
	}
	f := &feed[T]{queue: q, campaign: campaign, changed: make(chan struct{})}
	q.feeds[campaign] = f
	q.wg.Go(func() { f.run(ctx) })
}
