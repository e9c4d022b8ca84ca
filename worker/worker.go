// Package worker is the life of a batch: from the queue to a journal in which
// every recipient has an outcome.
//
// The way of one batch, file by file:
//
//  1. intake.go: a slot is free, so a batch is pulled.
//  2. process.go: the whole way of the batch, top to bottom: decode, read its
//     journal, plan, fetch the message, claim, send, settle. delivery.go keeps
//     it ours meanwhile, and tells the broker what became of it. What cannot be
//     read goes to the dead letters (dead.go).
//  3. identity.go: whether this is the batch that the journal is about. plan.go: one pure function decides who is sent to, rejected, left to rest
//     or in doubt.
//  4. attempt.go: the recipients wait, grouped by domain, for the relay pool to
//     cut envelopes off them; each reply goes to the journal.
//  5. verdict.go: one pure function decides between ack, nak and giving up.
//
// campaigns.go watches whether a campaign runs, is paused or cancelled;
// suppression.go leaves out who must not be sent to, when a batch is planned and
// before each envelope; state.go says how far the worker is, observer.go what it does.
//
// A worker may die at any point: another one reads the journal and goes on
// where it ended.
//
// # When the broker is in trouble
//
//   - It cannot be reached: a lease runs out after an ack wait, and no message
//     is ended from then on; replies that came meanwhile are recorded when it is
//     back, unless the batch has a new holder.
//   - The journal cannot be written (its stream is full, missing, without a
//     leader): envelopes in flight end, nothing new is begun, replies are kept
//     and written as soon as that works. One line says so, another that it is
//     over. A stream that was deleted is not made anew under a running worker,
//     for what it knew of recipients is gone: restore it, or start a worker.
//   - The dead letters cannot be written: the batch stays in the queue.
//   - Clocks: leases are counted by the worker's own monotonic clock, retries and
//     expiry from when the broker stored an entry, caps by the broker's clock.
//     Workers whose clocks differ by a minute retry a minute earlier or later.
//
// # Where the next bottleneck is
//
// Measured on two cores with everything on loopback, 10 KB messages, batches of
// 1,000 (go test -tags scale -v -run Scale ./worker/...; testdata/bench/full).
// CPU, from work of three shapes:
//
//	            a batch   an envelope   a recipient
//	worker       140 µs         58 µs        0.8 µs
//	broker       140 µs         16 µs        0.45 µs
//
// What an envelope costs a worker is system calls for the most part. Worker
// processes at relays 20 ms away, four connections each, 100 recipients an
// envelope, two round trips for each:
//
//	workers              1        2        4        8
//	recipients/s     8,600   17,600   35,300   61,700
//	times one            1      2.0      4.1      7.2
//	cores             0.04     0.08     0.17     0.27
//
// So what gives way first, in this order:
//
//   - The relays. Sessions times envelopes a second of each is all they take; a
//     distant one wants more connections, or overlap=on, before more workers.
//   - The journal, where batches are small or many. A batch is a claim, an entry
//     each 5 ms, and the end, which its stream's leader stores one after the
//     other. One stream took (a claim and one entry a batch, 32 batches at once):
//     2,300 batches/s; 660 with synced writes; 900 to 1,500 with three replicas,
//     whose servers shared the two cores. In batches of 1,000 that is more than
//     relays take; in batches of one it is the limit. Fill batches.
//   - The consumer. All deliveries and acks go through one leader: 2,800 batches
//     of one recipient a second with one worker, journal included.
//   - Disk: 35 bytes a recipient in the queue until it is sent, 29 in the journal
//     for BULKMAIL_OUTCOMES_MAX_AGE, times the replicas.
//
// Beyond one stream, shard by BULKMAIL_PREFIX: campaigns of one prefix have
// streams, a consumer and workers of their own, and a cluster spreads the
// leaders over its servers. Caps of relays hold within a prefix: divide them.
//
// 100 million recipients an hour are 28 batches of 1,000 a second. In full
// envelopes that is 280 envelopes/s, 4 % of a core for the workers and 2 % for
// the broker, some 80 journal entries a second: one stream will do, and four
// workers with four connections each at relays 20 ms away. In a long tail, 300
// domains in 1,000, it is 8,400 envelopes/s: half a core, 84 MB/s of mail, and
// 340 connections at 20 ms; eight workers with connections=43. The journal grows
// by 3 GB an hour. What is hard to come by is relays that take it.
//
// # Scaling on Kubernetes
//
// Scale by the lag of the consumer. KEDA's trigger nats-jetstream reads it from
// the monitoring port of the NATS servers (/jsz) as num_pending +
// num_ack_pending: batches that wait, are in a worker's hand, or rest until
// their next attempt. With BULKMAIL_BATCHES=8:
//
//	minReplicaCount: 1
//	maxReplicaCount: 8
//	triggers:
//	  - type: nats-jetstream
//	    metadata:
//	      natsServerMonitoringEndpoint: nats.nats.svc.cluster.local:8222
//	      account: $G # or the name of the account
//	      stream: BULKMAIL_BATCHES
//	      consumer: workers
//	      lagThreshold: "16" # batches a worker: as many waiting as in hand
//
// Where much is deferred, what rests would keep workers that have nothing to do:
// scale by the trigger prometheus then, with the query
// max(bulkmail_backlog_batches{state="waiting"}), and keep one replica, who also
// takes what has rested. Caps of relays hold for all workers together, but
// connections are those of each: beyond what the relays take in sessions more
// workers gain nothing. terminationGracePeriodSeconds must exceed
// BULKMAIL_DRAIN_TIMEOUT. /readyz is for readiness alone: as a liveness probe it
// would restart every worker when the broker is away.
package worker

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"bulkmail/relay"
	"bulkmail/subjects"
	"bulkmail/worker/journal"
	"bulkmail/worker/keyring"
	"bulkmail/worker/suppress"
)

// Pool sends the envelopes that are cut from its sources. [relay.Pool] is one.
// Several workers may share a pool; whoever made it closes it when they have
// ended.
type Pool interface {
	Add(relay.Source)
	Remove(relay.Source)
	Ready(relay.Source)
	// Abort cuts off the envelopes of a source that was removed. Each is settled
	// soon.
	Abort(relay.Source)
}

// InDoubt says what happens to recipients of whom it cannot be known whether
// they were accepted (RFC 1047).
type InDoubt string

// The ways of going on.
const (
	Resend InDoubt = "resend" // deferred and tried again, as every MTA does: up to three copies, then in_doubt
	Skip   InDoubt = "skip"   // final outcome in_doubt: at most once
)

// Options are a worker's settings. The zero value of each field is its default,
// that of its environment variable.
type Options struct {
	Name         string        // in journal entries and logs
	Batches      int           // batches sent for at once; 8
	RetryDelays  Schedule      // 1m, 5m, 15m, 1h, 4h
	RetryFor     time.Duration // 72h
	InDoubt      InDoubt       // resend
	DrainTimeout time.Duration // 30s
	Letters      LetterOptions
	// MessageMemory bounds what messages take, those in hand and those kept for the
	// next batches. 256MB.
	MessageMemory Octets
	Provision     subjects.Options
	Observer      Observer     // nil: nobody
	Log           *slog.Logger // nil: discarded
}

func (o Options) withDefaults() Options {
	if o.Name == "" {
		o.Name = "worker"
	}
	if o.Batches <= 0 {
		o.Batches = 8
	}
	if len(o.RetryDelays) == 0 {
		o.RetryDelays = Schedule{time.Minute, 5 * time.Minute, 15 * time.Minute, time.Hour, 4 * time.Hour}
	}
	if o.RetryFor <= 0 {
		o.RetryFor = 72 * time.Hour
	}
	if o.MessageMemory <= 0 {
		o.MessageMemory = 256e6
	}
	if o.InDoubt == "" {
		o.InDoubt = Resend
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.Observer == nil {
		o.Observer = nobody{}
	}
	if o.DrainTimeout <= 0 {
		o.DrainTimeout = 30 * time.Second
	}
	if o.Provision.AckWait <= 0 {
		o.Provision.AckWait = 30 * time.Second
	}
	if o.Provision.OutcomesMaxAge <= 0 {
		o.Provision.OutcomesMaxAge = 30 * 24 * time.Hour
	}
	return o
}

// A Worker takes batches off the queue and sees each to its end.
type Worker struct {
	js    jetstream.JetStream
	names subjects.Names
	pool  Pool
	o     Options
	log   *slog.Logger

	policy     policy
	suppressed *suppress.Follower
	waits      waits

	// Set by Run before the first slot starts.
	journal   *journal.Journal
	messages  *messages
	campaigns *campaigns
	press     *press
	ackWait   time.Duration

	gate     gate        // shut while no relay can take anything, or no journal be read
	troubled atomic.Bool // the journal is in trouble, and it was said
	state    atomic.Uint32
	working  chan struct{} // closed when that is Working
	inHand   atomic.Int64  // batches

	overdue chan struct{} // closed when a drain takes too long: envelopes in flight are cut off
	aborted atomic.Int64  // batches whose envelopes were

	laterVersions sync.Map // campaignVersion: those that were logged
	garbage       sync.Map // campaign and batch of journals that cannot be read: those that were logged
}

// waits is how long a worker waits for what. Only tests want other waits than
// everybody's.
type waits struct {
	open    time.Duration // one try to find or make what it needs on the broker
	trouble time.Duration // a batch in the queue when the broker would not let us begin with it
	stall   time.Duration // a batch in hand while no relay can take anything; beyond that it goes back to the queue
}

// New returns a worker that sends through pool.
func New(js jetstream.JetStream, names subjects.Names, pool Pool, o Options) *Worker {
	o = o.withDefaults()
	return &Worker{
		js: js, names: names, pool: pool, o: o, log: o.Log.With("worker", o.Name), working: make(chan struct{}),
		policy:     policy{RetryDelays: o.RetryDelays, RetryFor: o.RetryFor, InDoubt: o.InDoubt},
		suppressed: suppress.NewFollower(js, names, o.Log),
		waits:      waits{open: 10 * time.Second, trouble: 5 * time.Second, stall: 10 * time.Second},
	}
}

// Run works until ctx ends, and then drains: no new batch is begun, envelopes
// in flight finish within DrainTimeout, and what is left goes back to the queue
// at once. A broker that cannot be reached is waited for.
func (w *Worker) Run(ctx context.Context) error {
	defer w.enter(Ended)
	consumer, err := w.connect(ctx)
	if err != nil {
		if ctx.Err() != nil {
			err = nil // asked to stop before there was a broker: nothing to drain
		}
		return err
	}
	w.overdue = make(chan struct{})
	// Work in hand outlives ctx, up to the end of the drain.
	work, cut := context.WithCancel(context.WithoutCancel(ctx))
	defer cut()
	watching, err := w.campaigns.watch(work, ctx)
	if err != nil {
		return err
	}
	following := w.followSuppressions(work, ctx)
	w.enter(Working)
	w.log.InfoContext(ctx, "working", "batches", w.o.Batches, "consumer", subjects.Consumer, "stream", w.names.BatchesStream())

	var slots sync.WaitGroup
	for range w.o.Batches {
		slots.Go(func() { w.slot(work, ctx, consumer) })
	}
	<-ctx.Done()
	w.enter(Draining)
	w.log.InfoContext(work, "draining", "at_most", w.o.DrainTimeout)
	err = w.drain(work, &slots, cut)
	cut()
	watching.Wait()
	following.Wait()
	w.log.InfoContext(work, "drained")
	return err
}

// followSuppressions follows them until work ends. It returns when they are known,
// or intake has ended and nobody needs them.
func (w *Worker) followSuppressions(work, intake context.Context) *sync.WaitGroup {
	var following sync.WaitGroup
	following.Go(func() { w.suppressed.Run(work) })
	select {
	case <-w.suppressed.Known():
	case <-intake.Done():
	}
	return &following
}

// Suppressed tells how many entries the worker knows of those who must not be sent
// to, and for how long that has not been compared with what the broker has, if it
// is too long.
func (w *Worker) Suppressed() (entries int, behind time.Duration) {
	return w.suppressed.Set().Len(), w.suppressed.Behind()
}

// Resume has a worker pull again that waits because no relay could take
// anything: they were configured anew, or their counters reset.
func (w *Worker) Resume() { w.gate.open() }

// drain ends the work within DrainTimeout: most of it for envelopes in flight,
// the rest for writing down what came of them.
func (w *Worker) drain(work context.Context, slots *sync.WaitGroup, cut context.CancelFunc) error {
	abort := time.AfterFunc(w.o.DrainTimeout*8/10, func() { close(w.overdue) })
	defer abort.Stop()
	timer := time.AfterFunc(w.o.DrainTimeout*9/10, cut)
	defer timer.Stop()
	slots.Wait()
	// A nak is not answered: see that it left before the connection closes.
	said, cancel := lastWords(work, w.o.DrainTimeout/10)
	defer cancel()
	said, cancel = context.WithTimeout(said, w.o.DrainTimeout/10)
	defer cancel()
	if flushErr := w.js.Conn().FlushWithContext(said); flushErr != nil {
		w.log.WarnContext(said, "broker not told of what was given back, it returns after the ack wait", "error", flushErr)
	}
	if n := w.aborted.Load(); n > 0 {
		return fmt.Errorf("the drain was to take %v at most: envelopes still being sent then were cut off (batches: %d)", w.o.DrainTimeout, n)
	}
	return nil
}

// journalTrouble says once, for all batches, that journals cannot be written or
// read, and once that they can again. An append that merely takes long is not
// worth a line.
func (w *Worker) journalTrouble(why error) {
	switch {
	case errors.Is(why, journal.ErrSlow):
	case why != nil && w.troubled.CompareAndSwap(false, true):
		w.log.Error("no journal: nothing is sent until the broker keeps it again", "error", why)
	case why == nil && w.troubled.Load() && w.troubled.CompareAndSwap(true, false):
		w.log.Info("journal is kept again")
	}
}

// connect makes what is missing on the broker. It tries until that works, ctx
// ends, or the broker says something that waiting does not mend.
func (w *Worker) connect(ctx context.Context) (jetstream.Consumer, error) {
	for wait := 250 * time.Millisecond; ; wait = min(2*wait, 10*time.Second) {
		consumer, err := w.open(ctx)
		if err == nil {
			return consumer, nil
		}
		if api, ok := errors.AsType[*jetstream.APIError](err); ok && api.Code < 500 {
			return nil, err
		}
		if errors.Is(err, nats.ErrNoResponders) {
			err = fmt.Errorf("it runs without JetStream (start it with -js), or its cluster has no leader yet: %w", err)
		}
		if ctx.Err() == nil {
			w.log.WarnContext(ctx, "broker not ready, trying on", "error", err, "again_in", wait)
		}
		if !sleep(ctx, wait) {
			return nil, ctx.Err()
		}
	}
}

func (w *Worker) open(ctx context.Context) (jetstream.Consumer, error) {
	ctx, cancel := context.WithTimeout(ctx, w.waits.open)
	defer cancel()
	if err := subjects.Provision(ctx, w.js, w.names, w.o.Provision, w.log); err != nil {
		return nil, err
	}
	var err error
	if w.journal, err = journal.New(ctx, w.js, w.names, w.o.Name); err != nil {
		return nil, err
	}
	w.journal.Appended = w.o.Observer.Appended
	if w.messages, err = newMessages(ctx, w.js, w.names.MessageStore(), w.o.MessageMemory, w.log); err != nil {
		return nil, err
	}
	if w.campaigns, err = newCampaigns(ctx, w.js, w.names.CampaignBucket(), w.log); err != nil {
		return nil, err
	}
	w.press = &press{o: w.o.Letters}
	if len(w.press.o.Keys) == 0 {
		if w.press.o.Keys, err = keyring.Shared(ctx, w.js, w.names); err != nil {
			return nil, err
		}
	}
	consumer, err := w.js.Consumer(ctx, w.names.BatchesStream(), subjects.Consumer)
	if err != nil {
		return nil, fmt.Errorf("consumer %s: %w", subjects.Consumer, err)
	}
	// What the broker has counts, not what we would have made.
	w.ackWait = consumer.CachedInfo().Config.AckWait
	return consumer, nil
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
