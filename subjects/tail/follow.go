package tail

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go/jetstream"
)

const (
	// look is how often a follower asks the broker how long the stream is.
	look = time.Second
	// again is after how long it tries anew what went wrong.
	again = time.Second
	// late is from when on it lags that it is not known to be up to date.
	late = 2 * time.Second
)

// A Follower hands on all messages of a stream on one subject, which may have
// wildcards, from the first on, and knows whether it has all that there are. What
// is stored in the stream is handed on some milliseconds later.
type Follower struct {
	js              jetstream.JetStream
	stream, subject string
	take            func(jetstream.Msg)
	log             *slog.Logger

	known   chan struct{} // closed by Run when all was handed on for the first time
	once    sync.Once
	after   atomic.Uint64 // sequence of the last message that was handed on
	upTo    atomic.Int64  // when all had been, in nanoseconds since made
	made    time.Time
	trouble atomic.Bool // it was said that the stream cannot be read

	replaced atomic.Bool // the stream is another one than before
	reread   atomic.Pointer[context.CancelFunc]
}

// NewFollower makes a follower. take is called by one goroutine at a time. A stream
// that was made anew, as from a backup, is handed on from its first message.
func NewFollower(js jetstream.JetStream, stream, subject string, take func(jetstream.Msg), log *slog.Logger) *Follower {
	return &Follower{js: js, stream: stream, subject: subject, take: take, log: log, known: make(chan struct{}), made: time.Now()}
}

// Known is closed when all has been handed on that there was when Run began.
func (f *Follower) Known() <-chan struct{} { return f.known }

// Behind is for how long it has not been known that all was handed on, if that is
// longer than it should be.
func (f *Follower) Behind() time.Duration {
	behind := time.Since(f.made) - time.Duration(f.upTo.Load())
	if behind < late {
		return 0
	}
	return behind
}

// Run follows the stream until ctx ends. While the broker is away it waits.
func (f *Follower) Run(ctx context.Context) {
	var all sync.WaitGroup
	defer all.Wait()
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	nothing := context.CancelFunc(func() {})
	f.reread.Store(&nothing)
	all.Go(func() { f.watch(ctx) })
	for ctx.Err() == nil {
		reading, cancel := context.WithCancel(ctx)
		f.reread.Store(&cancel)
		if f.replaced.Swap(false) {
			f.after.Store(0)
		}
		err := f.read(reading)
		cancelled := reading.Err() != nil
		cancel()
		if cancelled {
			continue
		}
		if f.trouble.CompareAndSwap(false, true) {
			f.log.ErrorContext(ctx, "stream cannot be read, what is known of it stays", "error", err)
		}
		sleep(ctx, again)
	}
}

// read hands on what stands behind the last message.
func (f *Follower) read(ctx context.Context) error {
	t, err := Open(ctx, f.js, f.stream, f.subject, f.after.Load())
	if err != nil {
		return err
	}
	defer t.Stop(ctx)
	for {
		m, err := t.Next(ctx)
		if err != nil {
			return err
		}
		f.take(m)
		f.after.Store(t.After())
	}
}

// watch notes when all was handed on.
func (f *Follower) watch(ctx context.Context) {
	wait := look / 20 // at first, somebody waits for it
	var made time.Time
	for {
		asked := time.Since(f.made)
		last, created, err := f.end(ctx)
		switch {
		case err != nil:
		case !made.IsZero() && !created.Equal(made):
			f.replaced.Store(true)
			(*f.reread.Load())()
			made = created
		case last <= f.after.Load(): // the last one of them may be deleted
			made = created
			f.upTo.Store(int64(asked))
			f.once.Do(func() { close(f.known) })
			wait = look
			if f.trouble.CompareAndSwap(true, false) {
				f.log.InfoContext(ctx, "stream is read again", "stream", f.stream)
			}
		default:
			made = created
		}
		if !sleep(ctx, wait) {
			return
		}
	}
}

func (f *Follower) end(ctx context.Context) (last uint64, created time.Time, err error) {
	ctx, cancel := context.WithTimeout(ctx, late)
	defer cancel()
	return End(ctx, f.js, f.stream, f.subject)
}

// End is the sequence of the last message of a stream on a subject, 0 for none, and
// when the stream was made. The stream holds no other subjects.
func End(ctx context.Context, js jetstream.JetStream, stream, subject string) (last uint64, created time.Time, err error) {
	s, err := js.Stream(ctx, stream)
	if err != nil {
		return 0, created, fmt.Errorf("stream %s: %w", stream, err)
	}
	info := s.CachedInfo()
	switch {
	case info.State.Msgs == 0:
		return 0, info.Created, nil
	case info.State.NumDeleted == 0:
		return info.State.LastSeq, info.Created, nil
	}
	m, err := s.GetLastMsgForSubject(ctx, subject) // the last one may be deleted
	if errors.Is(err, jetstream.ErrMsgNotFound) {
		return 0, info.Created, nil
	}
	if err != nil {
		return 0, info.Created, fmt.Errorf("stream %s: %w", stream, err)
	}
	return m.Sequence, info.Created, nil
}

// sleep waits for d; it reports false if ctx ended first.
func sleep(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}
