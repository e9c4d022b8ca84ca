package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/nats-io/nuid"
	"github.com/spf13/cobra"

	"bulkmail/relay"
	"bulkmail/subjects"
	"bulkmail/subjects/broker"
	"bulkmail/worker"
	"bulkmail/worker/fleet"
	"bulkmail/worker/health"
	"bulkmail/worker/metrics"
)

func newWorker(s *streams) *cobra.Command {
	return &cobra.Command{
		Use:   "worker",
		Short: "Run a worker: take batches, send them, record what became of everybody",
		Long: `Run a worker until SIGTERM or an interrupt, then drain: no new batch, envelopes
in flight finish, the rest goes back to the queue. A second signal cuts.

Without BULKMAIL_NATS_URL the worker runs a broker of its own on
127.0.0.1:4222, with its data in ./bulkmail-data.

It answers on BULKMAIL_HTTP: /healthz (alive), /readyz (can work; if not, 503 and
a line for each reason) and /metrics (for Prometheus; with the Bearer token of
BULKMAIL_HTTP_TOKEN_FILE, if there is one). See also: bulkmail health.

BULKMAIL_RELAYS_FILE is read again when it changes, and on SIGHUP: as a whole,
or, if it has a problem, not at all. Counters and sessions of relays that stay
the same stay.

The environment:
` + environment(),
		Example: `  BULKMAIL_RELAYS=smtp://127.0.0.1:2525 bulkmail worker
  BULKMAIL_NATS_URL=nats://nats.internal:4222 BULKMAIL_RELAYS_FILE=relays.yaml bulkmail worker`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return runWorker(cmd.Context(), s)
		},
	}
}

func runWorker(ctx context.Context, s *streams) (err error) {
	c, names, relays, err := loadAll()
	if err != nil {
		return err
	}
	log := newLogger(c, s.err)
	for _, name := range unknownVariables() {
		log.Warn("environment variable has no effect, is it misspelt?", "name", name)
	}

	m := newMetrics()
	web, err := c.openSite(m, log)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, web.close(ctx)) }()
	if c.NATSURL == "" {
		b, err := broker.Start(ctx, broker.Options{Listen: c.Listen, Dir: c.DataDir, SyncAlways: c.Sync == "always", Log: log})
		if err != nil {
			return c.explain(err)
		}
		defer func() { err = errors.Join(err, b.Close()) }()
		c.NATSURL = b.URL()
		log.Info("broker embedded", "url", c.NATSURL, "data", c.DataDir, "sync", c.Sync)
	}
	nc, err := c.connectInTime("worker", log)
	if err != nil {
		return err
	}
	defer nc.Close()
	w, err := c.newOutfit(nc, names, relays, workerName(), m, log)
	if err != nil {
		return err
	}
	web.serve(w.checks)
	var reloading sync.WaitGroup
	defer reloading.Wait()
	reading, stop := context.WithCancel(ctx)
	defer stop()
	reloading.Go(func() {
		(&reloader{config: c, configure: w.configure, outlets: outlets(m, log), log: log}).reload(reading)
	})
	return w.run(ctx)
}

// An outfit is a worker with its relays.
type outfit struct {
	worker *worker.Worker
	pool   *relay.Pool
	fleet  *fleet.Fleet
	checks *health.Checks
}

// newOutfit wires a worker to its broker and its relays, and both to m unless it
// is nil.
func (c config) newOutfit(nc *nats.Conn, names subjects.Names, relays []relay.Config, name string, m *metrics.Metrics, log *slog.Logger) (*outfit, error) {
	built, err := relay.FromConfig(relays, outlets(m, log))
	if err != nil {
		return nil, err
	}
	return c.outfitOf(nc, names, built, name, m, log)
}

// outlets is what relays tell of themselves.
func outlets(m *metrics.Metrics, log *slog.Logger) relay.Outlets {
	o := relay.Outlets{Log: log}
	if m != nil {
		o.Took = m.Took
	}
	return o
}

// outfitOf is newOutfit with relays that are built already.
func (c config) outfitOf(nc *nats.Conn, names subjects.Names, built []relay.Relay, name string, m *metrics.Metrics, log *slog.Logger) (*outfit, error) {
	js, err := jetstream.New(nc)
	if err != nil {
		return nil, err
	}
	f := fleet.New(js, names.RelayBucket(), fleet.Options{Worker: name, Silence: c.AckWait, Log: log})
	pool := relay.NewPool(built, relay.Options{Log: log, Allowance: f.Allowance})
	options := c.workerOptions(name, log)
	if m != nil {
		options.Observer = m
	}
	w := worker.New(js, names, pool, options)
	checks := &health.Checks{Conn: nc, Worker: w, Relays: pool, Broker: health.NewBroker(js, names)}
	if m != nil {
		m.Watch(metrics.Source{Worker: w, Relays: pool, Conn: nc, Broker: checks.Broker})
	}
	o := &outfit{worker: w, pool: pool, fleet: f, checks: checks}
	f.Serve(o)
	return o, nil
}

// Status implements [fleet.Pool].
func (o *outfit) Status() []relay.Status { return o.pool.Status() }

// Reset implements [fleet.Pool].
func (o *outfit) Reset(name string) bool {
	known := o.pool.Reset(name)
	o.worker.Resume()
	return known
}

// configure makes relays those of the worker.
func (o *outfit) configure(relays []relay.Relay) relay.Changes {
	changes := o.pool.Configure(relays)
	o.worker.Resume()
	return changes
}

// giveBackWithin bounds the return of allowance after a drain.
const giveBackWithin = 2 * time.Second

// run works until ctx ends. What the worker has leased of its relays' caps is
// given back at the end.
func (o *outfit) run(ctx context.Context) error {
	err := o.worker.Run(ctx)
	closing, cancel := context.WithTimeout(context.WithoutCancel(ctx), giveBackWithin)
	defer cancel()
	// If the worker never began to work, it did not close its pool.
	return errors.Join(err, o.pool.Close(closing), o.fleet.Close(closing))
}

func (c config) workerOptions(name string, log *slog.Logger) worker.Options {
	return worker.Options{
		Name:         name,
		Batches:      c.Batches,
		RetryDelays:  c.RetryDelays,
		RetryFor:     c.RetryFor,
		InDoubt:      worker.InDoubt(c.InDoubt),
		DrainTimeout: c.DrainTimeout,
		Provision:    c.provision(),
		Log:          log,
	}
}

// workerName tells this process from every other one, also from its own
// predecessor.
func workerName() string {
	host, err := os.Hostname()
	if err != nil {
		host = "unknown"
	}
	id := nuid.Next()
	return fmt.Sprintf("%s-%d-%s", host, os.Getpid(), id[len(id)-6:])
}

// explain says how to go on when another process has the broker's address or
// folder.
func (c config) explain(err error) error {
	folder, inUse := errors.AsType[*broker.FolderError](err)
	switch {
	case inUse:
		return fmt.Errorf("%w: another worker embeds the broker there; join it with BULKMAIL_NATS_URL=%s, or give this one its own BULKMAIL_DATA_DIR and BULKMAIL_LISTEN", err, cmp.Or(folder.URL, "nats://"+c.Listen))
	case errors.Is(err, broker.ErrAddressInUse):
		return fmt.Errorf("%w: if that is a broker, join it with BULKMAIL_NATS_URL=%s, else choose another BULKMAIL_LISTEN", err, "nats://"+c.Listen)
	}
	return err
}
