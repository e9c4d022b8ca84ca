package main

import (
	"context"
	"errors"
	"time"

	"github.com/nats-io/nats.go/jetstream"
)

const (
	// followSilence is how long a follower hears nothing before it asks anew.
	followSilence = 10 * time.Second
	followAgain   = time.Second
)

// A follower reads the messages of a stream on one subject in order, from the
// first one on. An ordered consumer alone has stayed silent for good after the
// server that held it was killed, so one that tells nothing for a while is made
// anew behind the last message.
type follower struct {
	js              jetstream.JetStream
	stream, subject string
	after           uint64 // sequence of the last message
	messages        jetstream.MessagesContext
}

func follow(ctx context.Context, js jetstream.JetStream, stream, subject string) (*follower, error) {
	f := &follower{js: js, stream: stream, subject: subject}
	return f, f.open(ctx)
}

func (f *follower) open(ctx context.Context) error {
	o := jetstream.OrderedConsumerConfig{
		FilterSubjects: []string{f.subject},
		DeliverPolicy:  jetstream.DeliverByStartSequencePolicy,
		OptStartSeq:    f.after + 1,
	}
	consumer, err := f.js.OrderedConsumer(ctx, f.stream, o)
	if err != nil {
		return err
	}
	f.messages, err = consumer.Messages()
	return err
}

// next waits for the next message. While the broker is away it waits on; what
// waiting does not mend is an error.
func (f *follower) next(ctx context.Context) (jetstream.Msg, error) {
	for {
		patient, cancel := context.WithTimeout(ctx, followSilence)
		m, err := f.messages.Next(jetstream.NextContext(patient))
		cancel()
		if err == nil {
			meta, err := m.Metadata()
			if err != nil {
				return nil, err
			}
			f.after = meta.Sequence.Stream
			return m, nil
		}
		f.stop()
		for err != nil {
			if ctx.Err() != nil {
				return nil, ctx.Err()
			}
			opening, cancel := context.WithTimeout(ctx, followSilence)
			err = f.open(opening)
			cancel()
			if api, ok := errors.AsType[*jetstream.APIError](err); ok && api.Code < 500 {
				return nil, err
			}
			if err != nil && !wait(ctx, followAgain) {
				return nil, ctx.Err()
			}
		}
	}
}

func (f *follower) stop() { f.messages.Stop() }

// wait waits for d; it reports false if ctx ended first.
func wait(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}
