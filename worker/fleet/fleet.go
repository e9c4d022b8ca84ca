// Package fleet keeps the caps of relays for all workers together: max_messages,
// max_rate, and max_messages_while_awake with sleep_length. What they mean and how
// they are reckoned is package caps; here is how workers share it.
//
// The way of an allowance:
//
//  1. ledger.go: the ledger of one relay, one value in the relays bucket, written by
//     compare-and-set.
//  2. share.go: what this worker has leased of it. The pool takes messages from
//     the share without waiting for anybody; what was sent is reported with the
//     next lease, what is not needed is given back.
//  3. fleet.go: the goroutines that write what a share wants written, and that
//     follow what others write.
//  4. status.go: what each worker says of its relays, for people. notes.go: what
//     people should know of it, such as workers that are configured differently.
//
// What a worker holds counts towards every cap, so that a crash wastes what was
// held, and exceeds nothing. A worker that has been silent for an ack wait has
// lost its batches and ends no message any more (see [bulkmail/worker]); what it
// held is counted as sent then.
//
// A worker leases what lasts it about half a second, as fast as it sent of late,
// and never more than a crash may waste ([caps.Limits.Lease]).
//
// Workers of release 691ad43 and of this one share a bucket safely: each counts all
// that the other holds. The older ones drop what they do not know of an entry (the
// server and the caps of the relay), which the next newer one writes again.
package fleet

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"bulkmail/relay"
	"bulkmail/relay/caps"
	"bulkmail/subjects"
)

// Options are the settings of a [Fleet].
type Options struct {
	Worker  string        // its name in the bucket; no two workers may share one
	Silence time.Duration // who has written nothing for so long has lost what it held: the ack wait; 30s
	Log     *slog.Logger  // nil: discarded
}

const (
	writeTimeout = 2 * time.Second // of one call of the broker
	retryAfter   = 250 * time.Millisecond
	echoTimeout  = 50 * time.Millisecond // our own entry is read back by then, or asked for
	lookEvery    = time.Second
	closingLook  = 5 * time.Millisecond
	// A worker whose entry was refused because another was faster waits for
	// up to this, doubling, lest all write at once again.
	yieldFirst, yieldLast = time.Millisecond, 8 * time.Millisecond
)

// A Fleet is this worker's part in the fleet's allowances.
type Fleet struct {
	js     jetstream.JetStream
	bucket string
	o      Options

	cancel context.CancelFunc
	ctx    context.Context // of all goroutines
	wg     sync.WaitGroup
	began  time.Time
	opened chan struct{} // closed when kv is set
	kv     jetstream.KeyValue

	mu     sync.Mutex // guards what follows
	shares map[string]*member
	resets map[string]int // by relay, as known last
	pool   Pool
	seen   sightings
	resume func()
}

// Pool is what a Fleet needs of a [relay.Pool].
type Pool interface {
	Status() []relay.Status
	Reset(name string) bool
}

// A member is a share with the goroutine that writes for it.
type member struct {
	*share
	fleet   *Fleet
	name    string
	key     string
	kicked  chan struct{}
	changed func()
}

// New makes this worker a part of the fleet that has its ledgers in that
// bucket. The bucket may be made later. It must be closed.
func New(js jetstream.JetStream, bucket string, o Options) *Fleet {
	if o.Silence <= 0 {
		o.Silence = 30 * time.Second
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	f := &Fleet{js: js, bucket: bucket, o: o, began: time.Now(), opened: make(chan struct{}), shares: make(map[string]*member), resets: make(map[string]int), seen: newSightings()}
	f.ctx, f.cancel = context.WithCancel(context.Background())
	f.wg.Go(f.follow)
	return f
}

// Allowance is the fleet's allowance of a relay, for [relay.Options].
func (f *Fleet) Allowance(name string, limits caps.Limits, changed func()) relay.Allowance {
	f.mu.Lock()
	defer f.mu.Unlock()
	if m := f.shares[name]; m != nil { // configured anew: what is held is held
		m.Change(limits)
		return m.share
	}
	m := &member{fleet: f, name: name, key: subjects.RelayKey(name), kicked: make(chan struct{}, 1), changed: changed}
	m.share = newShare(f.o.Worker, f.o.Silence, limits, m.kick)
	f.shares[name] = m
	f.wg.Go(func() { m.run(f.ctx) })
	return m.share
}

// Close gives back what is left and ends. The pool must be closed before, and
// the connection after it. When ctx ends first, what could not be given back is
// wasted.
func (f *Fleet) Close(ctx context.Context) error {
	f.mu.Lock()
	members := make([]*member, 0, len(f.shares))
	for _, m := range f.shares {
		members = append(members, m)
	}
	f.mu.Unlock()
	for _, m := range members {
		m.close()
	}
	var err error
	for _, m := range members {
		for err == nil && !m.done() {
			if !sleep(ctx, closingLook) {
				err = fmt.Errorf("allowance of relay %s not given back: %w", m.name, context.Cause(ctx))
			}
		}
	}
	f.leave(ctx)
	f.cancel()
	f.wg.Wait()
	return err
}

// follow reads what anybody writes, until the fleet ends.
func (f *Fleet) follow() {
	said := ""
	for opened := false; ; {
		updates, err := f.watch(&opened)
		switch {
		case err == nil:
			said = ""
			for e := range updates.Updates() {
				if e != nil {
					f.take(e)
				}
			}
		case f.ctx.Err() != nil:
			return
		case !errors.Is(err, jetstream.ErrBucketNotFound) && err.Error() != said:
			said = err.Error()
			f.o.Log.WarnContext(f.ctx, "relays not followed, trying on", "bucket", f.bucket, "error", err)
		}
		if !sleep(f.ctx, retryAfter) {
			return
		}
	}
}

func (f *Fleet) watch(opened *bool) (jetstream.KeyWatcher, error) {
	if !*opened {
		ctx, cancel := context.WithTimeout(f.ctx, writeTimeout)
		defer cancel()
		kv, err := f.js.KeyValue(ctx, f.bucket)
		if err != nil {
			return nil, err
		}
		f.kv, *opened = kv, true
		close(f.opened)
	}
	return f.kv.WatchAll(f.ctx)
}

// take takes in an entry: the ledger of a relay, or what a worker says of its relays.
func (f *Fleet) take(e jetstream.KeyValueEntry) {
	name, ok := subjects.RelayOfKey(e.Key())
	if !ok {
		f.mu.Lock()
		f.seen.worker(e)
		f.mu.Unlock()
		return
	}
	f.mu.Lock()
	m := f.shares[name]
	f.mu.Unlock()
	if m != nil {
		m.hear(e)
	}
	f.noteLedger(name, e) // who asks for allowance now shall have it
}

// hear takes in the ledger; one that was deleted has no value.
func (m *member) hear(e jetstream.KeyValueEntry) {
	if err := m.learn(time.Now(), e.Revision(), e.Value(), e.Created()); err != nil {
		m.fleet.o.Log.Error("allowance of relay not readable, nothing is sent over it: reset it", "relay", m.name, "error", err)
		return
	}
	m.kick()
}

// hearNothing is hear where there is no ledger yet.
func (m *member) hearNothing() {
	_ = m.learn(time.Now(), 0, nil, time.Time{}) // nothing to be misread
	m.kick()
}

// kick has the goroutine of m look again.
func (m *member) kick() {
	select {
	case m.kicked <- struct{}{}:
	default:
	}
}

// A writer writes what a share wants written.
type writer struct {
	*member
	trouble bool          // the broker does not take it
	yield   time.Duration // at most how long others go first when they were faster
}

// write writes until nothing more is wanted now, and returns when to ask again.
func (w *writer) write(ctx context.Context) time.Duration {
	for {
		e, again := w.next(time.Now())
		switch {
		case e == nil && w.waits():
			return echoTimeout
		case e == nil && again <= 0:
			return lookEvery
		case e == nil:
			return again
		}
		pause := time.Duration(0)
		switch w.put(ctx, e) {
		case putStored:
			w.trouble, w.yield = false, yieldFirst
		case putRefused:
			pause, w.yield = rand.N(w.yield), min(2*w.yield, yieldLast)
		case putUnknown:
			if !w.trouble && ctx.Err() == nil {
				w.fleet.o.Log.WarnContext(ctx, "broker does not take the allowance of a relay, trying on", "relay", w.name)
			}
			pause, w.trouble = retryAfter, true
		}
		if pause > 0 && !sleep(ctx, pause) {
			return 0
		}
	}
}

// run writes what the share wants written.
func (m *member) run(ctx context.Context) {
	select {
	case <-m.fleet.opened:
	case <-ctx.Done():
		return
	}
	m.read(ctx)
	timer := time.NewTimer(0)
	defer timer.Stop()
	looked := time.Now()
	for w := (writer{member: m, yield: yieldFirst}); ; {
		again := w.write(ctx)
		if ctx.Err() != nil {
			return
		}
		timer.Reset(again)
		// Not only when there is news: what the pool makes of it depends on more
		// than this share, and a look a second is cheap.
		if m.news(time.Now()) || time.Since(looked) >= lookEvery {
			m.changed()
			looked = time.Now()
		}
		select {
		case <-m.kicked:
		case <-timer.C:
			if m.waits() {
				m.read(ctx)
			}
		case <-ctx.Done():
			return
		}
	}
}

// What came of an entry.
const (
	putStored = iota
	putRefused
	putUnknown
)

// put writes an entry.
func (m *member) put(ctx context.Context, e *entry) int {
	call, cancel := context.WithTimeout(ctx, writeTimeout)
	defer cancel()
	revision, err := m.fleet.kv.Update(call, m.key, e.value, e.expected)
	if err == nil {
		m.wrote(e, revision)
		return putStored
	}
	// Refused, or perhaps stored without our knowing: what is there now tells. It is
	// on its way to us in any case if somebody was faster.
	if refused(err) && m.settledWithin(ctx, e, echoTimeout) {
		return putRefused
	}
	m.read(ctx)
	if m.pending(e) {
		return putUnknown
	}
	return putRefused
}

// settledWithin waits until it is known what became of an entry.
func (m *member) settledWithin(ctx context.Context, e *entry, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	for m.pending(e) {
		select {
		case <-m.kicked:
		case <-timer.C:
			return false
		case <-ctx.Done():
			return false
		}
	}
	m.kick() // what the kick was for
	return true
}

// read asks for the ledger. A broker that cannot be asked is asked again.
func (m *member) read(ctx context.Context) {
	call, cancel := context.WithTimeout(ctx, writeTimeout)
	defer cancel()
	e, err := m.fleet.kv.Get(call, m.key)
	switch {
	case err == nil:
		m.hear(e)
	case errors.Is(err, jetstream.ErrKeyNotFound):
		m.hearNothing()
	}
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
