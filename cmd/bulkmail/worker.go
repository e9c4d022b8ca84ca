package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"sync"
	"syscall"

	"github.com/spf13/cobra"

	"bulkmail/subjects/broker"
	"bulkmail/worker/metrics"
	"bulkmail/worker/runner"
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

func runWorker(ctx context.Context, s *streams) error {
	c, problems := readEnvironment()
	log := newLogger(c, s.err)
	o := c.options(log)
	o.Metrics, o.Version = newMetrics(), thisBuild().Version
	r, err := runner.New(o)
	if problems = append(problems, inVariables(err)...); len(problems) > 0 {
		return &usageError{errors.Join(problems...)}
	}
	if err != nil {
		return err
	}
	for _, name := range unknownVariables() {
		log.Warn("environment variable has no effect, is it misspelt?", "name", name)
	}
	forget := onHangup(r.Reload)
	defer forget()
	return c.explain(r.Run(ctx))
}

// onHangup calls f at each SIGHUP until forget is called.
func onHangup(f func()) (forget func()) {
	hangup, done := make(chan os.Signal, 1), make(chan struct{})
	signal.Notify(hangup, syscall.SIGHUP)
	var waiting sync.WaitGroup
	waiting.Go(func() {
		for {
			select {
			case <-hangup:
				f()
			case <-done:
				return
			}
		}
	})
	return func() {
		signal.Stop(hangup)
		close(done)
		waiting.Wait()
	}
}

// newMetrics are the metrics of this program.
func newMetrics() *metrics.Metrics {
	b := thisBuild()
	return metrics.New(metrics.Build{Version: b.Version, Commit: b.Commit, Go: b.Go})
}

// explain says in the words of the environment what to change where a worker
// ended with an error.
func (c config) explain(err error) error {
	failed, ok := err.(*runner.Error) //nolint:errorlint // several that are joined are told as they are
	if !ok {
		return err
	}
	err = failed.Err
	folder, inUse := errors.AsType[*broker.FolderError](err)
	switch {
	case failed.Part == "http":
		return fmt.Errorf("%s: %w: choose another address, or set it to nothing to do without", httpVariable, err)
	case failed.Part == "connection":
		return unreachable(c.NATSURL, err)
	case inUse:
		return fmt.Errorf("%w: another worker embeds the broker there; join it with BULKMAIL_NATS_URL=%s, or give this one its own BULKMAIL_DATA_DIR and BULKMAIL_LISTEN", err, cmp.Or(folder.URL, "nats://"+c.Listen))
	case errors.Is(err, broker.ErrAddressInUse):
		return fmt.Errorf("%w: if that is a broker, join it with BULKMAIL_NATS_URL=%s, else choose another BULKMAIL_LISTEN", err, "nats://"+c.Listen)
	}
	return err
}
