package health

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"bulkmail/subjects"
)

const (
	fresh   = 5 * time.Second // how long an answer of the broker holds
	failed  = time.Second     // and how long a failure
	timeout = 2 * time.Second // of a question
)

// A Broker is asked for what is on it, at most once in five seconds however
// many ask.
type Broker struct {
	streams answer[struct{}]
	backlog answer[Backlog]
}

// A Backlog is the batches of all workers together, by what they wait for.
type Backlog struct {
	Waiting        int // not delivered yet
	Unacknowledged int // in a worker's hand, or in the queue until a delay is over
}

// NewBroker is the broker that js is connected to.
func NewBroker(js jetstream.JetStream, names subjects.Names) *Broker {
	b := new(Broker)
	b.streams.ask = func(ctx context.Context) (struct{}, error) {
		for _, name := range []string{names.BatchesStream(), names.OutcomesStream(), names.DeadStream()} {
			if _, err := js.Stream(ctx, name); err != nil {
				return struct{}{}, fmt.Errorf("%s: %w", name, said(err))
			}
		}
		_, err := b.backlog.get(ctx)
		return struct{}{}, err
	}
	b.backlog.ask = func(ctx context.Context) (Backlog, error) {
		c, err := js.Consumer(ctx, names.BatchesStream(), subjects.Consumer)
		if err != nil {
			return Backlog{}, fmt.Errorf("consumer %s of %s: %w", subjects.Consumer, names.BatchesStream(), said(err))
		}
		info := c.CachedInfo()
		return Backlog{int(info.NumPending), info.NumAckPending}, nil
	}
	return b
}

// Streams tells whether the streams and the workers' consumer are there and
// answer.
func (b *Broker) Streams(ctx context.Context) error {
	_, err := b.streams.get(ctx)
	return err
}

// Backlog is how many batches there are. It costs the broker one question.
func (b *Broker) Backlog(ctx context.Context) (Backlog, error) { return b.backlog.get(ctx) }

// said is an error in the words of people who look at a probe.
func said(err error) error {
	switch {
	case errors.Is(err, context.DeadlineExceeded):
		return errors.New("no answer in time")
	case errors.Is(err, jetstream.ErrStreamNotFound), errors.Is(err, jetstream.ErrConsumerNotFound):
		return errors.New("not there")
	}
	return err
}

// An answer is kept for a while. One question is asked at a time.
type answer[T any] struct {
	ask func(context.Context) (T, error)

	mu    sync.Mutex // guards what follows; held while asking, which is bounded
	value T
	err   error
	until time.Time
}

func (a *answer[T]) get(ctx context.Context) (T, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if time.Now().Before(a.until) {
		return a.value, a.err
	}
	// Who asks may go away; the answer is for the others as well.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), timeout)
	defer cancel()
	a.value, a.err = a.ask(ctx)
	a.until = time.Now().Add(fresh)
	if a.err != nil {
		a.until = time.Now().Add(failed)
	}
	return a.value, a.err
}
