// Package tail reads the messages of a stream in order, from any point on,
// whatever happens to the servers that hold it.
//
// A jetstream.OrderedConsumer stays silent after the server that was to hold it
// was killed: it goes on asking, under one name and deaf to its context, for
// what the cluster has given to that server. A [Tail] makes a consumer of a new
// name, behind the last message, whenever one falls silent or skips something. A
// [Follower] reads all of a stream with one, and knows whether it has.
package tail

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/nats-io/nats.go/jetstream"
)

const (
	heartbeat = time.Second      // two that are missed are a silence
	expiry    = 15 * time.Second // of one pull
	forgotten = time.Minute      // the broker removes a consumer that nobody pulls from
	opening   = 3 * time.Second  // for one try to make a consumer
	removal   = 2 * time.Second  // for the one to remove it
	firstWait = 50 * time.Millisecond
	lastWait  = 2 * time.Second
)

// A Tail is one reader's place in a stream. One goroutine at a time may use it.
type Tail struct {
	js              jetstream.JetStream
	stream, subject string
	consumer        string                    // its name
	messages        jetstream.MessagesContext // nil: to be made
	after           uint64                    // sequence of the last message
	delivered       uint64                    // by this consumer
}

// Open begins to read the messages of a stream on a subject, which may have
// wildcards, behind a sequence. What waiting does not mend, such as a stream
// that does not exist, is an error.
func Open(ctx context.Context, js jetstream.JetStream, stream, subject string, after uint64) (*Tail, error) {
	t := &Tail{js: js, stream: stream, subject: subject, after: after}
	if err := t.insist(ctx); err != nil {
		return nil, err
	}
	return t, nil
}

// After is the sequence in the stream of the last message that was read.
func (t *Tail) After() uint64 { return t.after }

// Next waits for the next message, also while the broker is away. The error is
// that of ctx, or what waiting does not mend.
func (t *Tail) Next(ctx context.Context) (jetstream.Msg, error) {
	for {
		m, err := t.messages.Next(jetstream.NextContext(ctx))
		if err == nil {
			meta, err := m.Metadata()
			if err != nil {
				return nil, fmt.Errorf("stream %s: %w", t.stream, err)
			}
			if t.delivered++; meta.Sequence.Consumer == t.delivered {
				t.after = meta.Sequence.Stream
				return m, nil
			}
		}
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		t.messages.Stop()
		if err := t.insist(ctx); err != nil {
			return nil, err
		}
	}
}

// Stop ends the reading, also where ctx has ended, and takes away what was made
// on the broker: a stream has room for so many consumers and no more. Where that
// fails, the broker does it after a while.
func (t *Tail) Stop(ctx context.Context) {
	t.messages.Stop()
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), removal)
	defer cancel()
	_ = t.js.DeleteConsumer(ctx, t.stream, t.consumer) // see above
}

// insist makes a consumer, and tries until that works.
func (t *Tail) insist(ctx context.Context) error {
	for wait := firstWait; ; wait = min(2*wait, lastWait) {
		err := t.open(ctx)
		if err == nil {
			return nil
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if api, ok := errors.AsType[*jetstream.APIError](err); ok && api.Code < 500 {
			return fmt.Errorf("stream %s: %w", t.stream, err)
		}
		if !sleep(ctx, wait) {
			return ctx.Err()
		}
	}
}

func (t *Tail) open(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, opening)
	defer cancel()
	consumer, err := t.js.CreateConsumer(ctx, t.stream, jetstream.ConsumerConfig{
		FilterSubject:     t.subject,
		DeliverPolicy:     jetstream.DeliverByStartSequencePolicy,
		OptStartSeq:       t.after + 1,
		AckPolicy:         jetstream.AckNonePolicy,
		InactiveThreshold: forgotten,
		Replicas:          1,
		MemoryStorage:     true,
	})
	if err != nil {
		return err
	}
	t.consumer = consumer.CachedInfo().Name
	t.messages, err = consumer.Messages(jetstream.PullExpiry(expiry), jetstream.PullHeartbeat(heartbeat))
	t.delivered = 0
	return err
}
