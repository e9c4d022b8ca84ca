package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math"
	"net/url"
	"os"
	"runtime"
	"runtime/pprof"
	"strings"
	"time"

	"github.com/nats-io/nuid"
	"github.com/spf13/cobra"

	"bulkmail/relay"
	relayconfig "bulkmail/relay/config"
	"bulkmail/relay/sink"
	"bulkmail/subjects"
	"bulkmail/subjects/broker"
	"bulkmail/worker/metrics"
)

const (
	benchBatch       = 1000 // recipients a batch, as publish makes them
	benchConnections = 16   // to the relay, unless its URL says otherwise
	benchMinSize     = len(benchHeader) + len("\r\n")
	benchMaxSize     = 64 << 20
)

// benchOptions are the flags of bench.
type benchOptions struct {
	relay                                    string
	recipients, domains, size, envelopeLimit int
	samples                                  int
	limitSet                                 bool
	letters, sign                            bool
	json                                     bool
	cpuProfile, memProfile                   string

	metrics *metrics.Metrics // are counted as in any worker
}

func newBench(s *streams) *cobra.Command {
	var o benchOptions
	cmd := &cobra.Command{
		Use:   "bench",
		Short: "Measure what broker, worker and relay take together",
		Long: `Publish made-up recipients in batches of 1,000, then start a worker that sends to
all of them over one relay, and print how long each took. Afterwards, with
nothing else to do, publish batches of one recipient and measure from the call
of publish to the relay's 250.

Each batch has its recipients spread evenly over the domains, all under .test:
use a relay that delivers to nobody, such as smtp-sink or bulkmail sink. Without
--relay, such a server runs in this process, and its CPU and memory count in.

With --letters everybody gets a letter of their own: a template of plain text and
HTML with five fields in each. --sign has what is sent signed with a key of
RSA-2048 that is made for it; with --letters the floor is printed then, which is
how many letters the processors could sign in a second if they did nothing else.

Without BULKMAIL_NATS_URL the broker runs in this process, with its data in a
temporary folder (TMPDIR says where), and BULKMAIL_SYNC counts. On a broker that
is given, everything is made under a prefix of its own. Either way nothing is
left behind. CPU seconds are those of this process while the worker sends,
memory is its peak (resident).`,
		Example: `  bulkmail bench
  BULKMAIL_SYNC=interval bulkmail bench --relay smtp://127.0.0.1:2525 --recipients 1000000
  bulkmail bench --letters --sign --recipients 20000
  BULKMAIL_NATS_URL=nats://127.0.0.1:4222 bulkmail bench --relay 'smtp://127.0.0.1:2525?connections=4' --json`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			o.limitSet = cmd.Flags().Changed("envelope-limit")
			if err := o.check(); err != nil {
				return usage(cmd, err)
			}
			return o.run(cmd.Context(), s)
		},
	}
	flags := cmd.Flags()
	flags.StringVar(&o.relay, "relay", "", "`URL` of the relay; 16 connections, unless it says otherwise (default: an SMTP server in this process)")
	flags.IntVar(&o.recipients, "recipients", 100_000, "how many")
	flags.IntVar(&o.domains, "domains", 10, "domains in each batch")
	flags.IntVar(&o.size, "size", 10<<10, "octets of the message")
	flags.IntVar(&o.envelopeLimit, "envelope-limit", 100, "recipients an envelope; 0: no limit")
	flags.BoolVar(&o.letters, "letters", false, "a letter of their own for everybody, from a template")
	flags.BoolVar(&o.sign, "sign", false, "sign with RSA-2048")
	flags.IntVar(&o.samples, "samples", 1000, "batches of one recipient, for the latency")
	flags.BoolVar(&o.json, "json", false, "print the result as JSON")
	flags.StringVar(&o.cpuProfile, "cpuprofile", "", "write a CPU profile of the worker's run to `FILE`")
	flags.StringVar(&o.memProfile, "memprofile", "", "write what the run allocated to `FILE`")
	return cmd
}

func (o *benchOptions) check() error {
	var problems []error
	for _, flag := range []struct {
		name            string
		have, from, end int
	}{
		{"recipients", o.recipients, 1, math.MaxInt32},
		{"domains", o.domains, 1, math.MaxInt32},
		{"size", o.size, o.minSize(), benchMaxSize},
		{"envelope-limit", o.envelopeLimit, 0, math.MaxInt32},
		{"samples", o.samples, 1, math.MaxInt32},
	} {
		switch {
		case flag.have < flag.from:
			problems = append(problems, fmt.Errorf("--%s %d: use %d or more", flag.name, flag.have, flag.from))
		case flag.have > flag.end:
			problems = append(problems, fmt.Errorf("--%s %d: use %d or less", flag.name, flag.have, flag.end))
		}
	}
	return errors.Join(problems...)
}

// benchResult is what `bench --json` prints.
type benchResult struct {
	Recipients          int     `json:"recipients"`
	Envelopes           int     `json:"envelopes"`
	PublishSeconds      float64 `json:"publish_seconds"`
	DrainSeconds        float64 `json:"drain_seconds"`
	RecipientsPerSecond float64 `json:"recipients_per_second"` // of the drain
	EnvelopesPerSecond  float64 `json:"envelopes_per_second"`
	CPUSeconds          float64 `json:"cpu_seconds"`   // of this process, of the drain
	MaxRSSBytes         int64   `json:"max_rss_bytes"` // of this process, until the end of the drain
	LatencyP50          float64 `json:"latency_p50_ms"`
	LatencyP99          float64 `json:"latency_p99_ms"`

	SignatureSeconds float64 `json:"signature_seconds,omitempty"` // of one processor
	FloorPerSecond   float64 `json:"floor_per_second,omitempty"`  // letters that all processors could sign
}

// run wires everything up, in the order in which it must end.
func (o *benchOptions) run(ctx context.Context, s *streams) (err error) {
	c, _, err := loadConfig()
	if err != nil {
		return err
	}
	if os.Getenv(prefix+"_LOG_LEVEL") == "" {
		c.LogLevel = slog.LevelWarn // a line for every batch would be in the way
	}
	log := newLogger(c, s.err)
	o.metrics = newMetrics()
	r, closeRelay, err := o.openRelay(ctx, log)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, closeRelay()) }()
	profiles, err := o.openProfiles()
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, profiles.close()) }()

	where := c.NATSURL
	if where == "" {
		where = "in this process, sync " + c.Sync
		dir, err := os.MkdirTemp("", "bulkmail-bench-")
		if err != nil {
			return err
		}
		defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
		b, err := broker.Start(ctx, broker.Options{Listen: "127.0.0.1:0", Dir: dir, SyncAlways: c.Sync == "always", Log: log})
		if err != nil {
			return err
		}
		defer func() { err = errors.Join(err, b.Close()) }()
		c.NATSURL = b.URL()
	}
	keys, err := o.makeKey()
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, keys.remove()) }()
	id := nuid.Next()
	names, err := subjects.New(c.Prefix + "-bench-" + id[len(id)-8:])
	if err != nil {
		return err
	}
	cl, err := c.connect(ctx, names, "bench", log)
	if err != nil {
		return err
	}
	defer cl.nc.Close()
	defer func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 30*time.Second)
		defer cancel()
		err = errors.Join(err, subjects.Remove(ctx, cl.js, names))
	}()

	h := &benchRun{benchOptions: o, client: cl, relay: r, profiles: profiles, key: keys}
	if err := h.measure(ctx); err != nil {
		if ctx.Err() != nil {
			return errors.New("interrupted")
		}
		return err
	}
	if o.json {
		return encoder(s.out, isTerminal(s.out)).Encode(h.result)
	}
	return h.print(s.out, where)
}

// openRelay finds the relay, or starts one, and sees that it answers.
func (o *benchOptions) openRelay(ctx context.Context, log *slog.Logger) (relay.Relay, func() error, error) {
	stop := func() error { return nil }
	target := o.relay
	if target == "" {
		server, err := sink.Start(sink.Options{Log: log})
		if err != nil {
			return relay.Relay{}, nil, err
		}
		stop = func() error {
			ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
			defer cancel()
			return server.Close(ctx)
		}
		target = fmt.Sprintf("smtp://%s?name=sink&tls=none", server.Addr())
	}
	fail := func(err error) (relay.Relay, func() error, error) {
		return relay.Relay{}, nil, errors.Join(err, stop())
	}
	configs, err := relayconfig.Load(target, "", relayconfig.Options{})
	if err == nil && len(configs) != 1 {
		err = fmt.Errorf("these are %d relays, give one", len(configs))
	}
	if err != nil {
		return fail(&usageError{fmt.Errorf("--relay: %w", err)})
	}
	config := &configs[0]
	if u, err := url.Parse(target); err == nil && !u.Query().Has("connections") {
		config.Connections = benchConnections
	}
	if o.limitSet {
		config.EnvelopeLimit = cmp.Or(o.envelopeLimit, relay.None)
	}
	built, err := relay.FromConfig(configs, relay.Outlets{Log: log, Took: o.metrics.Took})
	if err != nil {
		return fail(err)
	}
	session, err := built[0].Dialer.Dial(ctx)
	if err == nil {
		err = session.Close()
	}
	if err != nil {
		return fail(fmt.Errorf("relay %s: %w", config.URL(), err))
	}
	return built[0], stop, nil
}

// profiles are the files for profiles; nil: not asked for.
type profiles struct{ cpu, mem *os.File }

// openProfiles makes the files before anything is measured for nothing.
func (o *benchOptions) openProfiles() (*profiles, error) {
	var p profiles
	for _, f := range []struct {
		path string
		file **os.File
	}{{o.cpuProfile, &p.cpu}, {o.memProfile, &p.mem}} {
		if f.path == "" {
			continue
		}
		var err error
		if *f.file, err = os.Create(f.path); err != nil {
			return nil, errors.Join(err, p.close())
		}
	}
	return &p, nil
}

func (p *profiles) close() error {
	var err error
	for _, f := range []*os.File{p.cpu, p.mem} {
		if f != nil {
			err = errors.Join(err, f.Close())
		}
	}
	return err
}

// during profiles f.
func (p *profiles) during(f func() error) error {
	if p.cpu != nil {
		if err := pprof.StartCPUProfile(p.cpu); err != nil {
			return err
		}
	}
	err := f()
	if p.cpu != nil {
		pprof.StopCPUProfile()
	}
	if err == nil && p.mem != nil {
		runtime.GC() // the profile is as of the last collection
		err = pprof.Lookup("allocs").WriteTo(p.mem, 0)
	}
	return err
}

func (h *benchRun) print(w io.Writer, where string) error {
	r, config := &h.result, &h.relay.Config
	limit := "any number of recipients an envelope"
	if config.EnvelopeLimit > 0 {
		limit = "at most " + count(config.EnvelopeLimit, "recipient", "recipients") + " an envelope"
	}
	relayed := config.URL()
	if h.benchOptions.relay == "" {
		relayed = "in this process"
	}
	var b strings.Builder
	line := func(label, format string, args ...any) {
		fmt.Fprintf(&b, "%-10s %s\n", label, fmt.Sprintf(format, args...))
	}
	line("broker", "%s", where)
	line("relay", "%s, %s, %s", relayed, count(config.Connections, "connection", "connections"), limit)
	line("work", "%s in batches of %s, each in %s; %s of %s octets%s", count(r.Recipients, "recipient", "recipients"),
		number(benchBatch), count(h.domains, "domain", "domains"), h.what(), number(h.size), h.how())
	line("published", "in %.2f s", r.PublishSeconds)
	line("drained", "in %.2f s: %s recipients/s, %s envelopes/s", r.DrainSeconds, number(int(r.RecipientsPerSecond)), number(int(r.EnvelopesPerSecond)))
	if r.FloorPerSecond > 0 {
		line("floor", "%s letters/s: %s, %.2f ms a signature; reached %.2f of it", number(int(r.FloorPerSecond)),
			count(runtime.GOMAXPROCS(0), "processor", "processors"), r.SignatureSeconds*1e3, r.RecipientsPerSecond/r.FloorPerSecond)
	}
	line("cpu", "%.2f s of this process while it drained", r.CPUSeconds)
	line("memory", "%.1f MB of this process at most", float64(r.MaxRSSBytes)/1e6)
	line("latency", "p50 %.2f ms, p99 %.2f ms, from publish to 250, one recipient, idle", r.LatencyP50, r.LatencyP99)
	_, err := io.WriteString(w, b.String())
	return err
}
