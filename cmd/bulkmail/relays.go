package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/spf13/cobra"

	"bulkmail/relay"
	relayconfig "bulkmail/relay/config"
	"bulkmail/subjects"
	"bulkmail/worker/fleet"
)

func newRelays(s *streams) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "relays",
		Short: "Look at the configured relays, and reset their counters",
		Long: `Look at the relays in BULKMAIL_RELAYS and BULKMAIL_RELAYS_FILE: their limits,
what the workers have used of them, and whether they can be used.

Keys of a relay, in a URL, in YAML or in a Mail::Bulkmail server file:
` + relayKeys(),
		Example: `  bulkmail relays list
  bulkmail relays check`,
		Args: noArguments,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return cmd.Help()
		},
	}
	var asJSON bool
	list := &cobra.Command{
		Use:   "list",
		Short: "Print the relays, their limits, and how they are",
		Long: `Print the relays and their limits; what all workers together have used of
max_messages, max_rate and max_messages_while_awake, what they have leased and
what is left; and how each worker finds each relay. Workers that are configured
with different caps, and counters that a relay has left behind under a former
name, are told of. Without a broker, the limits alone.`,
		Example: `  BULKMAIL_RELAYS_FILE=relays.yaml bulkmail relays list`,
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return listRelays(cmd.Context(), s, asJSON)
		},
	}
	list.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	check := &cobra.Command{
		Use:     "check",
		Short:   "Connect to each relay, log in where that is configured, print what it offers",
		Example: `  BULKMAIL_RELAYS='smtp://127.0.0.1:2525 smtp://127.0.0.1:2526' bulkmail relays check`,
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return checkRelays(cmd.Context(), s, asJSON)
		},
	}
	check.Flags().BoolVar(&asJSON, "json", false, "print JSON, one object a line")
	cmd.AddCommand(list, check, &cobra.Command{
		Use:   "reset NAME",
		Short: "Set the counters of a relay to zero, for all workers",
		Long: `Set what was counted towards max_messages, max_messages_per_robin and
max_messages_while_awake of a relay to zero, wake it up, and give it another
chance if it is parked or worthless. Workers go on meanwhile. What is on its way
still counts, and so do the messages of the last period of max_rate.`,
		Example:           `  bulkmail relays reset primary`,
		Args:              cobra.ExactArgs(1),
		ValidArgsFunction: completeRelay(),
		RunE: func(cmd *cobra.Command, args []string) error {
			return resetRelay(cmd.Context(), s, args[0])
		},
	})
	return cmd
}

// loadAll reads the environment and the relays, and reports every problem of
// both.
func loadAll() (config, subjects.Names, []relay.Config, error) {
	c, names, err := loadConfig()
	relays, relaysErr := relayconfig.Load(c.RelayURLs, c.RelaysFile, relayconfig.Options{})
	if err := errors.Join(err, relaysErr); err != nil {
		return c, names, nil, &usageError{err}
	}
	return c, names, relays, nil
}

// relayKeys describes the keys of a relay.
func relayKeys() string {
	var b strings.Builder
	for _, k := range relayconfig.Keys() {
		fmt.Fprintf(&b, "  %-27s %s", k.Name, k.Doc)
		if k.Default != "" {
			fmt.Fprintf(&b, " (%s)", k.Default)
		}
		b.WriteString("\n")
	}
	return b.String()
}

// A listing is what `relays list --json` prints.
type listing struct {
	Relays  []listedRelay           `json:"relays"`
	Workers []subjects.WorkerRelays `json:"workers"`
	Notes   []string                `json:"notes,omitempty"` // of caps that are not kept as they seem
}

type listedRelay struct {
	relay.Config
	Fleet *fleet.Counters // nil: not known
}

// MarshalJSON writes what is configured under the names that it is configured
// by, and what the fleet has used of it.
func (l listedRelay) MarshalJSON() ([]byte, error) {
	object := relayconfig.Values(l.Config)
	object["url"] = l.URL()
	if l.Fleet != nil {
		object["fleet"] = l.Fleet
	}
	return json.Marshal(object)
}

func listRelays(ctx context.Context, s *streams, asJSON bool) error {
	c, names, relays, err := loadAll()
	if err != nil {
		return err
	}
	l := listing{Workers: []subjects.WorkerRelays{}}
	counters, workers, notes, err := c.lookAtFleet(ctx, names, relays)
	if err != nil {
		fmt.Fprintf(s.err, "bulkmail: how the relays are is not known: %v\n", err)
	}
	l.Workers, l.Notes = append(l.Workers, workers...), notes
	for _, r := range relays {
		one := listedRelay{Config: r}
		if n, ok := counters[r.Name]; ok {
			one.Fleet = &n
		}
		l.Relays = append(l.Relays, one)
	}
	if asJSON {
		enc := encoder(s.out, isTerminal(s.out))
		enc.SetIndent("", "  ")
		return enc.Encode(l)
	}
	for _, note := range l.Notes {
		fmt.Fprintf(s.err, "bulkmail: %s\n", note)
	}
	if err := limitsTable(relays).print(s.out); err != nil {
		return err
	}
	for _, t := range []*table{fleetTable(l), workersTable(l)} {
		if len(t.rows) == 0 {
			continue
		}
		fmt.Fprintln(s.out)
		if err := t.print(s.out); err != nil {
			return err
		}
	}
	return nil
}

// lookAtFleet reads what the workers have left on the broker.
func (c config) lookAtFleet(ctx context.Context, names subjects.Names, relays []relay.Config) (map[string]fleet.Counters, []subjects.WorkerRelays, []string, error) {
	if c.NATSURL == "" {
		c.NATSURL = defaultURL
	}
	nc, err := nats.Connect(c.NATSURL, append(c.natsOptions("relays", slog.New(slog.DiscardHandler)), nats.MaxReconnects(0))...)
	if err != nil {
		return nil, nil, nil, unreachable(c.NATSURL, err)
	}
	defer nc.Close()
	js, err := jetstream.New(nc)
	if err != nil {
		return nil, nil, nil, err
	}
	kv, err := js.KeyValue(ctx, names.RelayBucket())
	if errors.Is(err, jetstream.ErrBucketNotFound) {
		return nil, nil, nil, nil // no worker has ever run
	}
	if err != nil {
		return nil, nil, nil, err
	}
	counters, workers, err := fleet.Look(ctx, kv, relays)
	if err != nil {
		return nil, nil, nil, err
	}
	notes, err := fleet.Notes(ctx, kv, workers)
	return counters, workers, notes, err
}

func limitsTable(relays []relay.Config) *table {
	t := newTable("relay", "url", "#connections", "#envelope_limit", "#domains", "#per_robin", "#per_connection", "max_messages", "max_rate", "awake")
	for _, r := range relays {
		most := limit(r.MaxMessages)
		if r.MaxMessages > 0 && r.MaxMessagesWindow > 0 {
			most += " per " + r.MaxMessagesWindow.String()
			if r.MaxMessagesSpread {
				most += ", spread"
			}
		}
		awake := limit(r.MaxMessagesWhileAwake)
		if r.MaxMessagesWhileAwake > 0 {
			awake += ", then asleep " + r.SleepLength.String()
		}
		domains := "any"
		if r.EnvelopeDomains > 0 {
			domains = number(r.EnvelopeDomains)
		}
		rate := r.MaxRate.String()
		if rate == "0" {
			rate = limit(0)
		}
		t.row(r.Name, r.URL(), r.Connections, limit(r.EnvelopeLimit), domains, limit(r.MaxMessagesPerRobin), limit(r.MaxMessagesPerConnection), most, rate, awake)
	}
	return t
}

// fleetTable is what all workers together have used of the caps.
func fleetTable(l listing) *table {
	t := newTable("relay", "#used", "#leased", "#left", "window ends", "#while awake", "asleep until")
	for _, r := range l.Relays {
		n := r.Fleet
		if n == nil || n.Left < 0 {
			continue
		}
		t.row(r.Name, n.Used, n.Held, n.Left, clock(n.WindowEnds), n.Awake, clock(n.Asleep))
	}
	return t
}

// workersTable is how each worker finds each relay.
func workersTable(l listing) *table {
	t := newTable("worker", "relay", "state", "until", "#sessions", "#accepted", "last message", "last error")
	for _, w := range l.Workers {
		for _, r := range w.Relays {
			why := "-"
			if r.LastError != "" {
				why = clock(r.LastErrorTime) + " " + r.LastError
				if r.LastErrorMBS != "" && !strings.Contains(r.LastError, r.LastErrorMBS) {
					why += " (" + r.LastErrorMBS + ")"
				}
			}
			t.row(w.Worker, r.Relay, r.State, clock(r.Until), r.Sessions, int(r.Messages), clock(r.LastMessage), why)
		}
	}
	return t
}

// clock writes a time to the second, in UTC, with the date if it is not
// today's; a dash for none.
func clock(t time.Time) string {
	switch {
	case t.IsZero():
		return "-"
	case t.UTC().Format(time.DateOnly) == time.Now().UTC().Format(time.DateOnly):
		return t.UTC().Format("15:04:05Z")
	default:
		return t.UTC().Format("2006-01-02T15:04:05Z")
	}
}

func resetRelay(ctx context.Context, s *streams, name string) error {
	_, _, relays, err := loadAll()
	if err != nil {
		return err
	}
	unknown := &usageError{fmt.Errorf("no relay is called %s: see bulkmail relays list", name)}
	configured := slices.ContainsFunc(relays, func(r relay.Config) bool { return r.Name == name })
	cl, err := connect(ctx, s, "relays")
	if err != nil {
		if !configured {
			return unknown
		}
		return err
	}
	defer cl.nc.Close()
	kv, err := cl.js.KeyValue(ctx, cl.names.RelayBucket())
	if err != nil {
		if !configured {
			return unknown
		}
		return err
	}
	// A relay that was renamed has left counters behind.
	if _, err := kv.Get(ctx, subjects.RelayKey(name)); !configured && err != nil {
		return unknown
	}
	if err := fleet.Reset(ctx, kv, name); err != nil {
		return err
	}
	_, err = fmt.Fprintf(s.out, "counters of %s are reset\n", name)
	return err
}

// limit writes a limit of 0, which is none, as a dash.
func limit(n int) string {
	if n <= 0 {
		return "-"
	}
	return number(n)
}
