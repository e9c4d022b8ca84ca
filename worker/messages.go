package worker

import (
	"container/list"
	"context"
	"errors"
	"fmt"
	"sync"

	"github.com/nats-io/nats.go/jetstream"
	"golang.org/x/sync/singleflight"

	"bulkmail/envelope"
)

const (
	// messageBytes is the largest message a worker takes from the object store.
	messageBytes = 64 << 20
	// cacheBytes bounds the prepared messages kept for the next batches.
	cacheBytes = 64 << 20
)

// messages prepares messages for the wire, and keeps those that come from the
// object store by digest: an object may be put anew under its name.
type messages struct {
	store  jetstream.ObjectStore
	flight singleflight.Group

	mu     sync.Mutex // guards what follows
	byHash map[string]*list.Element
	recent *list.List // of *cached, the last used first
	bytes  int
}

type cached struct {
	digest  string
	message *envelope.Message
}

func newMessages(ctx context.Context, js jetstream.JetStream, bucket string) (*messages, error) {
	store, err := js.ObjectStore(ctx, bucket)
	if err != nil {
		return nil, fmt.Errorf("object store %s: %w", bucket, err)
	}
	return &messages{store: store, byHash: make(map[string]*list.Element), recent: list.New()}, nil
}

// of returns the message of a batch. An *envelope.FieldError says that it will
// never be had.
func (m *messages) of(ctx context.Context, b *envelope.Batch) (*envelope.Message, error) {
	if b.MessageRef == "" {
		return prepare("message", b.Message)
	}
	info, err := m.store.GetInfo(ctx, b.MessageRef)
	if errors.Is(err, jetstream.ErrObjectNotFound) || errors.Is(err, jetstream.ErrNameRequired) {
		return nil, &envelope.FieldError{Field: "message_ref", Reason: fmt.Sprintf("there is no object %q in the object store", b.MessageRef)}
	}
	if err != nil {
		return nil, fmt.Errorf("message %q: %w", b.MessageRef, err)
	}
	if info.Size > messageBytes {
		return nil, &envelope.FieldError{Field: "message_ref", Reason: fmt.Sprintf("object %q has %d bytes, the largest message has %d", b.MessageRef, info.Size, messageBytes)}
	}
	if message := m.cached(info.Digest); message != nil {
		return message, nil
	}
	// The batches of one campaign start together: fetch once for all of them.
	message, err, _ := m.flight.Do(info.Digest, func() (any, error) {
		raw, err := m.store.GetString(ctx, b.MessageRef)
		if err != nil {
			return nil, fmt.Errorf("message %q: %w", b.MessageRef, err)
		}
		message, err := prepare("message_ref", raw)
		if err == nil {
			m.keep(info.Digest, message)
		}
		return message, err
	})
	if err != nil {
		return nil, err
	}
	return message.(*envelope.Message), nil
}

func prepare(field, raw string) (*envelope.Message, error) {
	message, err := envelope.NewMessage(raw)
	if err != nil {
		return nil, &envelope.FieldError{Field: field, Reason: err.Error()}
	}
	return message, nil
}

func (m *messages) cached(digest string) *envelope.Message {
	m.mu.Lock()
	defer m.mu.Unlock()
	e := m.byHash[digest]
	if e == nil {
		return nil
	}
	m.recent.MoveToFront(e)
	return e.Value.(*cached).message
}

func (m *messages) keep(digest string, message *envelope.Message) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.byHash[digest] != nil {
		return
	}
	m.byHash[digest] = m.recent.PushFront(&cached{digest, message})
	m.bytes += len(message.Wire())
	for m.bytes > cacheBytes && m.recent.Len() > 1 {
		oldest := m.recent.Remove(m.recent.Back()).(*cached)
		delete(m.byHash, oldest.digest)
		m.bytes -= len(oldest.message.Wire())
	}
}
