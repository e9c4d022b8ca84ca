package runner

import (
	"context"
	"errors"
	"net"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"bulkmail/relay"
	"bulkmail/subjects/broker"
	"bulkmail/worker"
	"bulkmail/worker/fleet"
	"bulkmail/worker/health"
	"bulkmail/worker/metrics"
)

// A step opens one part, and closes it again.
type step struct {
	name  string
	open  func(context.Context) error
	close func(context.Context) error // nil: there is nothing to close
	// bound is how long close may take before it cuts; 0: as long as it takes.
	bound time.Duration
}

// steps are what a runner takes to work, in their order, and undoes in reverse
// order afterwards: each needs only those before it.
func (r *Runner) steps() []step {
	return []step{
		// First, so that /healthz answers while a broker reads a large store.
		{"http", r.openSite, r.closeSite, time.Second},
		// Its data must be on disk, however long that takes.
		{"broker", r.startBroker, r.stopBroker, 0},
		{"connection", r.connect, r.disconnect, 0},
		{"caps", r.joinFleet, r.leaveFleet, 2 * time.Second},
		// What was in flight has ended in the drain: what is left is to say QUIT.
		{"relays", r.openPool, r.closePool, max(2*time.Second, r.o.DrainTimeout/10)},
		{"worker", r.makeWorker, nil, 0},
		{"health", r.watchHealth, nil, 0},
		{"reload", r.startFollowing, r.stopFollowing, 0},
		// It answers during the drain, too, and counts what came of that.
		{"service", r.startService, r.stopService, 4 * time.Second},
	}
}

// StopsWithin is how long [Runner.Run] takes at most once its context has ended:
// the drain, and the end of every step. An embedded broker that has much to write
// to a slow disk may take longer. Whoever ends the process from outside should
// wait for so long.
func (o Options) StopsWithin() time.Duration {
	r := &Runner{o: o.WithDefaults()}
	total := r.o.DrainTimeout
	for _, s := range r.steps() {
		total += s.bound
	}
	return total
}

// parts are what the steps open.
type parts struct {
	site     *site // nil: off
	embedded *broker.Server
	broker   string // its URLs
	conn     *nats.Conn
	js       jetstream.JetStream
	fleet    *fleet.Fleet
	worker   *worker.Worker
	checks   *health.Checks

	serving     *serving
	stopReading context.CancelFunc
	stopped     chan struct{} // closed when the relays file is no longer followed
}

// open takes the steps up to the first that fails, and returns those taken.
func (r *Runner) open(ctx context.Context) ([]step, error) {
	steps := r.steps()
	for i, s := range steps {
		if err := s.open(ctx); err != nil {
			return steps[:i], &Error{s.name, err}
		}
	}
	return steps, nil
}

// undo closes what the step opened, also when ctx has ended.
func (s *step) undo(ctx context.Context) error {
	if s.close == nil {
		return nil
	}
	ctx = context.WithoutCancel(ctx)
	if s.bound > 0 {
		bounded, cancel := context.WithTimeout(ctx, s.bound)
		defer cancel()
		ctx = bounded
	}
	if err := s.close(ctx); err != nil {
		return &Error{s.name, err}
	}
	return nil
}

func (r *Runner) openSite(context.Context) (err error) {
	if r.o.HTTP != HTTPOff {
		r.site, err = newSite(r.o)
	}
	return err
}

func (r *Runner) closeSite(ctx context.Context) error {
	if r.site == nil {
		return nil
	}
	return r.site.close(ctx)
}

func (r *Runner) startBroker(ctx context.Context) (err error) {
	if r.o.Conn != nil || r.o.NATSURL != "" {
		return nil
	}
	r.embedded, err = broker.Start(ctx, broker.Options{Listen: r.o.Listen, Dir: r.o.DataDir, SyncAlways: r.o.Sync == SyncAlways, Log: r.o.Log})
	if err != nil {
		return err
	}
	r.o.Log.InfoContext(ctx, "broker embedded", "url", r.embedded.URL(), "data", r.o.DataDir, "sync", r.o.Sync)
	if host, _, _ := net.SplitHostPort(r.o.Listen); !loopback(host) {
		r.o.Log.WarnContext(ctx, "the embedded broker can be reached from elsewhere and asks nobody for a password: whoever reaches it may read and change everything", "listen", r.o.Listen)
	}
	return nil
}

func (r *Runner) stopBroker(context.Context) error {
	if r.embedded == nil {
		return nil
	}
	return r.embedded.Close()
}

func (r *Runner) connect(ctx context.Context) (err error) {
	switch {
	case r.o.Conn != nil:
		r.conn, r.broker = r.o.Conn, r.o.Conn.ConnectedUrl()
	case r.embedded != nil:
		r.broker = r.embedded.URL()
	default:
		r.broker = r.o.NATSURL
	}
	if r.conn == nil {
		if r.conn, err = r.o.Dial(r.broker, connectionName); err != nil {
			return err
		}
	}
	if r.js, err = jetstream.New(r.conn); err != nil {
		return errors.Join(err, r.disconnect(ctx))
	}
	return nil
}

func (r *Runner) disconnect(context.Context) error {
	if r.o.Conn == nil {
		r.conn.Close()
	}
	return nil
}

func (r *Runner) joinFleet(context.Context) error {
	r.fleet = fleet.New(r.js, r.names.RelayBucket(), fleet.Options{Worker: r.o.Name, Silence: r.o.AckWait, Log: r.o.Log})
	return nil
}

// leaveFleet gives back what was leased of the relays' caps.
func (r *Runner) leaveFleet(ctx context.Context) error { return r.fleet.Close(ctx) }

func (r *Runner) openPool(context.Context) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.pool = relay.NewPool(r.relays, relay.Options{Log: r.o.Log, Allowance: r.fleet.Allowance})
	return nil
}

func (r *Runner) closePool(ctx context.Context) error {
	r.mu.Lock()
	pool := r.pool
	r.pool = nil // nothing is configured any more
	r.mu.Unlock()
	if err := pool.Close(ctx); err != nil {
		// Every envelope has ended in the drain, whose error would be that of Run.
		r.o.Log.WarnContext(ctx, "relays took too long to answer QUIT", "error", err)
	}
	return nil
}

func (r *Runner) makeWorker(context.Context) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.worker = worker.New(r.js, r.names, r.pool, r.o.worker(r.letters))
	r.fleet.Serve(r.pool, r.worker.Resume)
	return nil
}

// watchHealth has the site and the metrics tell how the worker does.
func (r *Runner) watchHealth(ctx context.Context) error {
	r.mu.Lock()
	pool := r.pool
	r.mu.Unlock()
	r.checks = &health.Checks{Conn: r.conn, Worker: r.worker, Relays: pool, Broker: health.NewBroker(r.js, r.names)}
	r.o.Metrics.Watch(metrics.Source{Worker: r.worker, Relays: pool, Conn: r.conn, Broker: r.checks.Broker})
	if r.site != nil {
		r.site.checks.Store(r.checks) // before the line that has somebody ask
		r.o.Log.InfoContext(ctx, "http listening", "addr", r.site.addr)
	}
	return nil
}

func (r *Runner) startFollowing(ctx context.Context) error {
	reading, stop := context.WithCancel(ctx)
	r.stopReading, r.stopped = stop, make(chan struct{})
	go func() {
		defer close(r.stopped)
		r.follow(reading)
	}()
	return nil
}

func (r *Runner) stopFollowing(context.Context) error {
	r.stopReading()
	<-r.stopped
	return nil
}
