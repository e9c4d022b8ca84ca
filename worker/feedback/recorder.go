package feedback

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"bulkmail/subjects"
	"bulkmail/subjects/tail"
	"bulkmail/worker/suppress"
)

// errAway says that nothing can be stored now. Whoever it is said to tries again.
var errAway = errors.New("the broker is away")

const (
	// storeTimeout bounds what somebody waits for until something is stored.
	storeTimeout = 5 * time.Second
	// provideAgain is how often streams that are missing are looked for.
	provideAgain = time.Second
)

// A recorder stores what came back, each event once however often it is heard of.
type recorder struct {
	js      jetstream.JetStream
	names   subjects.Names
	provide subjects.Options
	log     *slog.Logger

	suppressed *suppress.Follower
	events     *tail.Follower

	mu   sync.Mutex // guards what follows
	seen map[uint64]struct{}
	soft map[string]map[string]time.Time // by recipient and campaign: soft bounces, of the last two weeks when they were stored
}

func newRecorder(js jetstream.JetStream, n subjects.Names, provide subjects.Options, log *slog.Logger) *recorder {
	r := &recorder{js: js, names: n, provide: provide, log: log, seen: make(map[uint64]struct{}), soft: make(map[string]map[string]time.Time), suppressed: suppress.NewFollower(js, n, log)}
	r.events = tail.NewFollower(js, n.FeedbackStream(), n.AllFeedback(), r.learn, log)
	return r
}

// run follows what is on the broker until ctx ends.
func (r *recorder) run(ctx context.Context) {
	if !r.provideStreams(ctx) {
		return
	}
	var all sync.WaitGroup
	defer all.Wait()
	all.Go(func() { r.suppressed.Run(ctx) })
	all.Go(func() { r.events.Run(ctx) })
}

// provideStreams waits until the streams are there, and makes them if it may and no
// worker has. It reports false if ctx ended first.
func (r *recorder) provideStreams(ctx context.Context) bool {
	for said := false; ; {
		err := r.lookForStreams(ctx)
		if err == nil {
			return true
		}
		if ctx.Err() == nil && r.js.Conn().IsConnected() && !said {
			r.log.WarnContext(ctx, "broker not ready, trying on", "error", err)
			said = true
		}
		select {
		case <-time.After(provideAgain):
		case <-ctx.Done():
			return false
		}
	}
}

func (r *recorder) lookForStreams(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, storeTimeout)
	defer cancel()
	for _, name := range []string{r.names.FeedbackStream(), r.names.SuppressionStream()} {
		_, err := r.js.Stream(ctx, name)
		if errors.Is(err, jetstream.ErrStreamNotFound) {
			return subjects.Provision(ctx, r.js, r.names, r.provide, r.log)
		}
		if err != nil {
			return fmt.Errorf("stream %s: %w", name, err)
		}
	}
	return nil
}

// ready tells whether something can be stored now.
func (r *recorder) ready() error {
	if !r.js.Conn().IsConnected() {
		return errAway
	}
	for _, known := range []<-chan struct{}{r.suppressed.Known(), r.events.Known()} {
		select {
		case <-known:
		default:
			return fmt.Errorf("%w: what is stored there is not read yet", errAway)
		}
	}
	return nil
}

// ask asks the broker something, so that whoever tries tokens learns nothing.
func (r *recorder) ask(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, storeTimeout)
	defer cancel()
	if _, err := r.js.Stream(ctx, r.names.FeedbackStream()); err != nil {
		return fmt.Errorf("%w: %w", errAway, err)
	}
	return nil
}

// An occurrence is an event, and who is not sent to any more because of it.
type occurrence struct {
	subjects.FeedbackEvent
	scope string // of the suppression; "": none
	why   string
	until time.Time // when it ends; zero: never
	cause string    // its source
}

// store returns when all of it is on the broker: first what matters more. What
// is there already is left as it is.
func (r *recorder) store(ctx context.Context, o occurrence) error {
	ctx, cancel := context.WithTimeout(ctx, storeTimeout)
	defer cancel()
	if o.scope != "" && !r.suppressed.Set().Holds(o.Recipient, o.scope, o.until) {
		err := suppress.Append(ctx, r.js, r.names, subjects.SuppressionChange{
			Op: subjects.Suppress, Scope: o.scope, Until: o.until, Why: o.why, Source: o.cause, By: "campaign " + o.Campaign, Names: []string{o.Recipient},
		})
		if err != nil {
			return fmt.Errorf("%w: %w", errAway, err)
		}
	}
	if r.stored(o.ID) {
		return nil
	}
	data, err := json.Marshal(o.FeedbackEvent)
	if err != nil {
		return err
	}
	// The broker knows an id again for a while: long enough for another process to
	// have read the event.
	m := &nats.Msg{Subject: r.names.Feedback(o.Campaign, o.Kind), Data: data, Header: nats.Header{jetstream.MsgIDHeader: {o.ID}}}
	if _, err := r.js.PublishMsg(ctx, m); err != nil {
		return fmt.Errorf("%w: %w", errAway, err)
	}
	r.see(o.ID)
	r.note(&o.FeedbackEvent)
	return nil
}

// eventID is made of what happened.
func eventID(kind subjects.FeedbackKind, parts ...string) string {
	h := sha256.New()
	for _, part := range append([]string{string(kind)}, parts...) {
		_ = binary.Write(h, binary.BigEndian, uint32(len(part))) // never fails
		h.Write([]byte(part))
	}
	return hex.EncodeToString(h.Sum(nil)[:16])
}

// short is half of an id. Of a million events one in 10^13 others is taken for one of
// them.
func short(id string) (uint64, bool) {
	b, err := hex.DecodeString(id)
	if err != nil || len(b) < 8 {
		return 0, false
	}
	return binary.BigEndian.Uint64(b), true
}

func (r *recorder) see(id string) {
	if n, ok := short(id); ok {
		r.mu.Lock()
		r.seen[n] = struct{}{}
		r.mu.Unlock()
	}
}

func (r *recorder) stored(id string) bool {
	n, _ := short(id)
	r.mu.Lock()
	defer r.mu.Unlock()
	_, ok := r.seen[n]
	return ok
}
