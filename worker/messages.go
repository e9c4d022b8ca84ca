package worker

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"bulkmail/envelope"
	"bulkmail/envelope/letter"
)

// messageBytes is the largest message a worker takes from the object store.
const messageBytes = 64 << 20

// messages compiles messages, and keeps them by digest: an object may be put anew
// under its name, and batches may have their message with them.
type messages struct {
	store jetstream.ObjectStore
	log   *slog.Logger
	room  *room

	mu    sync.Mutex            // guards what follows
	infos map[string]objectInfo // by object name
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
	forms    *forms // of a message to many that lacks nothing; nil: each batch makes its own
	letters  bool
}

// shared tells whether batches take no memory for a message that is there.
func (m *message) shared() bool { return m.letters || m.forms != nil }

// A loan is a message that a batch in hand uses, until end.
type loan struct {
	*message
	room  *room
	guest *guest
}

func (l *loan) end() { l.room.leave(l.guest) }

func newMessages(ctx context.Context, js jetstream.JetStream, bucket string, bound Octets, log *slog.Logger) (*messages, error) {
	store, err := js.ObjectStore(ctx, bucket)
	if err != nil {
		return nil, fmt.Errorf("object store %s: %w", bucket, err)
	}
	return &messages{store: store, log: log, room: newRoom(bound), infos: make(map[string]objectInfo)}, nil
}

// position is where a batch was in the queue when it was delivered.
type position struct {
	sequence uint64 // in its stream
	last     uint64 // the sequence of a batch that was in the queue by then
}

// lend returns the message of a batch, when there is room for it. An
// *envelope.FieldError says that it will never be had.
func (m *messages) lend(ctx context.Context, b *envelope.Batch, d *delivery) (*loan, error) {
	// What is compiled for letters, or for another sender, is something else.
	use := "|" + strconv.FormatBool(b.Letters()) + "|" + b.From
	if b.MessageRef == "" {
		sum := sha256.Sum256([]byte(b.Message))
		return m.enter(ctx, d, string(sum[:])+use, len(b.Message), func() (*message, error) {
			return m.compile(ctx, "message", b.Message, b)
		})
	}
	info, err := m.info(ctx, b.MessageRef, d.position)
	if errors.Is(err, jetstream.ErrObjectNotFound) || errors.Is(err, jetstream.ErrNameRequired) {
		return nil, &envelope.FieldError{Field: "message_ref", Reason: fmt.Sprintf("there is no object %q in the object store", b.MessageRef)}
	}
	if err != nil {
		return nil, fmt.Errorf("message %q: %w", b.MessageRef, err)
	}
	if info.Size > messageBytes {
		return nil, &envelope.FieldError{Field: "message_ref", Reason: fmt.Sprintf("object %q has %d bytes, the largest message has %d", b.MessageRef, info.Size, messageBytes)}
	}
	return m.enter(ctx, d, info.Digest+use, int(info.Size), func() (*message, error) {
		raw, err := m.fetch(ctx, b.MessageRef, int(info.Size))
		if err != nil {
			return nil, fmt.Errorf("message %q: %w", b.MessageRef, err)
		}
		return m.compile(ctx, "message_ref", raw, b)
	})
}

// enter waits for the room of a message. The batches of one campaign start
// together: it is made once for all of them.
func (m *messages) enter(ctx context.Context, d *delivery, key string, size int, compile func() (*message, error)) (*loan, error) {
	g, err := m.room.enter(ctx, key, size, func(used Octets) {
		m.log.InfoContext(ctx, "batch waits for memory, messages in hand take it", "campaign", d.campaign, "batch", d.batch,
			"message", Octets(size), "in_use", used, "bound", m.room.bound, "change", "BULKMAIL_MESSAGE_MEMORY")
	})
	if err != nil {
		return nil, err
	}
	if g.first {
		made, err := compile()
		m.room.made(g, made, err)
	}
	made, err := g.await(ctx)
	if err != nil {
		m.room.leave(g)
		return nil, err
	}
	return &loan{made, m.room, g}, nil
}

// fetch reads an object into as much memory as it takes.
func (m *messages) fetch(ctx context.Context, name string, size int) (string, error) {
	object, err := m.store.Get(ctx, name)
	if err != nil {
		return "", err
	}
	defer func() { _ = object.Close() }()
	var raw strings.Builder
	raw.Grow(size)
	if _, err := io.Copy(&raw, object); err != nil {
		return "", err
	}
	return raw.String(), object.Error()
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

// compile compiles a message. What its publisher should have heard of it is logged
// here, once.
func (m *messages) compile(ctx context.Context, field, raw string, b *envelope.Batch) (*message, error) {
	template, err := letter.Compile(raw, letter.Options{Constant: !b.Letters(), Sender: b.From})
	if err != nil {
		return nil, &envelope.FieldError{Field: field, Reason: err.Error()}
	}
	sum := sha256.Sum256([]byte(raw))
	made := &message{template: template, field: field, digest: hex.EncodeToString(sum[:16]), letters: b.Letters()}
	if template.Has("date") && template.Has("message-id") {
		made.forms = new(forms)
	}
	for _, problem := range template.Problems() {
		m.log.WarnContext(ctx, "message sent as it is, publish would refuse it", "message", made.digest, "problem", problem.String())
	}
	if template.HasBcc() {
		m.log.WarnContext(ctx, "Bcc taken out of a message, everybody would have seen it", "message", made.digest)
	}
	return made, nil
}
