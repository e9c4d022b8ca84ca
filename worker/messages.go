package worker

import (
	"container/list"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"strconv"
	"sync"
	"time"

	"github.com/nats-io/nats.go/jetstream"
	"golang.org/x/sync/singleflight"

	"bulkmail/envelope"
	"bulkmail/envelope/letter"
)

const (
	// messageBytes is the largest message a worker takes from the object store.
	messageBytes = 64 << 20
	// cacheBytes bounds the prepared messages kept for the next batches.
	cacheBytes = 64 << 20
)

// messages compiles messages, and keeps them by digest: an object may be put anew
// under its name, and batches may have their message with them.
type messages struct {
	store  jetstream.ObjectStore
	log    *slog.Logger
	flight singleflight.Group

	mu     sync.Mutex // guards what follows
	byHash map[string]*list.Element
	recent *list.List // of *cached, the last used first
	bytes  int
	infos  map[string]objectInfo // by object name
}

// objectInfo is what the store said of an object.
type objectInfo struct {
	*jetstream.ObjectInfo
	upTo uint64 // the sequence of the last batch that was in the queue when the store was asked
	at   time.Time
}

// infoAge is how long an objectInfo is used. An object may be put anew meanwhile,
// and the next batches should get that one soon.
const infoAge = time.Second

// A message is a message as it was published, compiled: of letters, or to many.
type message struct {
	template *letter.Template
	field    string // of the batch that it came by
	digest   string
	bytes    int    // of memory, about
	forms    *forms // of a message to many that lacks nothing
}

type cached struct {
	key     string
	message *message
}

func newMessages(ctx context.Context, js jetstream.JetStream, bucket string, log *slog.Logger) (*messages, error) {
	store, err := js.ObjectStore(ctx, bucket)
	if err != nil {
		return nil, fmt.Errorf("object store %s: %w", bucket, err)
	}
	return &messages{store: store, log: log, byHash: make(map[string]*list.Element), recent: list.New(), infos: make(map[string]objectInfo)}, nil
}

// position is where a batch was in the queue when it was delivered.
type position struct {
	sequence uint64 // in its stream
	last     uint64 // the sequence of a batch that was in the queue by then
}

// of returns the message of a batch. An *envelope.FieldError says that it will
// never be had.
func (m *messages) of(ctx context.Context, b *envelope.Batch, at position) (*message, error) {
	// What is compiled for letters, or for another sender, is something else.
	use := "|" + strconv.FormatBool(b.Letters()) + "|" + b.From
	if b.MessageRef == "" {
		sum := sha256.Sum256([]byte(b.Message))
		key := string(sum[:]) + use
		if message := m.cached(key); message != nil {
			return message, nil
		}
		return m.compile(ctx, "message", b.Message, key, b)
	}
	info, err := m.info(ctx, b.MessageRef, at)
	if errors.Is(err, jetstream.ErrObjectNotFound) || errors.Is(err, jetstream.ErrNameRequired) {
		return nil, &envelope.FieldError{Field: "message_ref", Reason: fmt.Sprintf("there is no object %q in the object store", b.MessageRef)}
	}
	if err != nil {
		return nil, fmt.Errorf("message %q: %w", b.MessageRef, err)
	}
	if info.Size > messageBytes {
		return nil, &envelope.FieldError{Field: "message_ref", Reason: fmt.Sprintf("object %q has %d bytes, the largest message has %d", b.MessageRef, info.Size, messageBytes)}
	}
	key := info.Digest + use
	if message := m.cached(key); message != nil {
		return message, nil
	}
	// The batches of one campaign start together: fetch once for all of them.
	compiled, err, _ := m.flight.Do(key, func() (any, error) {
		raw, err := m.store.GetString(ctx, b.MessageRef)
		if err != nil {
			return nil, fmt.Errorf("message %q: %w", b.MessageRef, err)
		}
		return m.compile(ctx, "message_ref", raw, key, b)
	})
	if err != nil {
		return nil, err
	}
	return compiled.(*message), nil
}

// put stores a message, under a name made of its content.
func (m *messages) put(ctx context.Context, message string) (name string, err error) {
	sum := sha256.Sum256([]byte(message))
	name = hex.EncodeToString(sum[:16])
	if _, err = m.store.GetInfo(ctx, name); errors.Is(err, jetstream.ErrObjectNotFound) {
		_, err = m.store.PutString(ctx, name, message)
	}
	return name, err
}

// info asks the store for an object, or takes its last answer. A batch must get
// the object as it was when the batch was published, or a later one. So an answer
// is good for the batches that were in the queue when the store was asked.
func (m *messages) info(ctx context.Context, name string, at position) (*jetstream.ObjectInfo, error) {
	now := time.Now()
	m.mu.Lock()
	known, ok := m.infos[name]
	m.mu.Unlock()
	if ok && at.sequence <= known.upTo && now.Sub(known.at) < infoAge {
		return known.ObjectInfo, nil
	}
	info, err := m.store.GetInfo(ctx, name)
	if err != nil {
		return nil, err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	maps.DeleteFunc(m.infos, func(_ string, o objectInfo) bool { return now.Sub(o.at) >= infoAge })
	m.infos[name] = objectInfo{info, at.last, now}
	return info, nil
}

// compile compiles a message and keeps it. What its publisher should have heard of
// it is logged here, once.
func (m *messages) compile(ctx context.Context, field, raw, key string, b *envelope.Batch) (*message, error) {
	template, err := letter.Compile(raw, letter.Options{Constant: !b.Letters(), Sender: b.From})
	if err != nil {
		return nil, &envelope.FieldError{Field: field, Reason: err.Error()}
	}
	sum := sha256.Sum256([]byte(raw))
	// Compiled, as it leaves, and signed.
	made := &message{template: template, field: field, digest: hex.EncodeToString(sum[:16]), bytes: 3 * len(raw), forms: new(forms)}
	for _, problem := range template.Problems() {
		m.log.WarnContext(ctx, "message sent as it is, publish would refuse it", "message", made.digest, "problem", problem.String())
	}
	if template.HasBcc() {
		m.log.WarnContext(ctx, "Bcc taken out of a message, everybody would have seen it", "message", made.digest)
	}
	m.keep(key, made)
	return made, nil
}

func (m *messages) cached(key string) *message {
	m.mu.Lock()
	defer m.mu.Unlock()
	e := m.byHash[key]
	if e == nil {
		return nil
	}
	m.recent.MoveToFront(e)
	return e.Value.(*cached).message
}

func (m *messages) keep(key string, message *message) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.byHash[key] != nil {
		return
	}
	m.byHash[key] = m.recent.PushFront(&cached{key, message})
	m.bytes += message.bytes
	for m.bytes > cacheBytes && m.recent.Len() > 1 {
		oldest := m.recent.Remove(m.recent.Back()).(*cached)
		delete(m.byHash, oldest.key)
		m.bytes -= oldest.message.bytes
	}
}
