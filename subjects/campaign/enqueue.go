package campaign

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

const (
	// enqueueFor is how long a batch is tried to be stored while the queue does
	// not answer, as when a cluster has lost its leader. It is within the time
	// for which the broker knows a message id again, so that what was stored
	// without our hearing of it is not stored twice.
	enqueueFor   = 45 * time.Second
	enqueueTry   = 5 * time.Second
	enqueueAgain = 250 * time.Millisecond
)

// enqueue stores a batch in the queue.
func (c *Client) enqueue(ctx context.Context, msg *nats.Msg, id string) error {
	said := c.o.Trouble == nil
	for deadline := time.Now().Add(enqueueFor); ; {
		try, cancel := context.WithTimeout(ctx, enqueueTry)
		_, err := c.js.PublishMsg(try, msg, jetstream.WithMsgID(id), jetstream.WithExpectStream(c.names.BatchesStream()))
		cancel()
		if err == nil || !passing(err) || ctx.Err() != nil || time.Now().After(deadline) {
			return err
		}
		if !said {
			said = true
			c.o.Trouble(fmt.Errorf("the queue does not answer, trying on for %v: %w", enqueueFor, err))
		}
		timer := time.NewTimer(enqueueAgain)
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return ctx.Err()
		}
	}
}

// storeFailed is what the broker says of a stream that is full.
const storeFailed jetstream.ErrorCode = 10077

// passing tells whether waiting may mend what the broker said, or did not say.
func passing(err error) bool {
	if api, ok := errors.AsType[*jetstream.APIError](err); ok {
		return api.Code == 503 && api.ErrorCode != storeFailed
	}
	for _, lost := range []error{
		context.DeadlineExceeded, nats.ErrTimeout, nats.ErrNoResponders, jetstream.ErrNoStreamResponse,
		nats.ErrDisconnected, nats.ErrConnectionReconnecting, nats.ErrReconnectBufExceeded,
	} {
		if errors.Is(err, lost) {
			return true
		}
	}
	return false
}
