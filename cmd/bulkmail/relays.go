package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"bulkmail/relay"
	relayconfig "bulkmail/relay/config"
	"bulkmail/subjects"
)

func newRelays(s *streams) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "relays",
		Short: "Look at the configured relays",
		Long: `Look at the relays in BULKMAIL_RELAYS and BULKMAIL_RELAYS_FILE.

Keys of a relay, in a URL, in YAML or in a Mail::Bulkmail server file:
` + relayKeys(),
		Example: `  bulkmail relays list
  bulkmail relays check`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return cmd.Help()
		},
	}
	var asJSON bool
	list := &cobra.Command{
		Use:     "list",
		Short:   "Print the relays and their limits",
		Example: `  BULKMAIL_RELAYS_FILE=relays.yaml bulkmail relays list`,
		Args:    cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			return listRelays(s, asJSON)
		},
	}
	list.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	cmd.AddCommand(list, &cobra.Command{
		Use:     "check",
		Short:   "Connect to each relay, and log in where that is configured",
		Example: `  BULKMAIL_RELAYS='smtp://127.0.0.1:2525 smtp://127.0.0.1:2526' bulkmail relays check`,
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return checkRelays(cmd.Context(), s)
		},
	})
	return cmd
}

// loadAll reads the environment and the relays, and reports every problem of
// both.
func loadAll() (config, subjects.Names, []relay.Config, error) {
	c, names, err := loadConfig()
	relays, relaysErr := relayconfig.Load(c.Relays, c.RelaysFile, relayconfig.Options{})
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

func listRelays(s *streams, asJSON bool) error {
	_, _, relays, err := loadAll()
	if err != nil {
		return err
	}
	if asJSON {
		enc := json.NewEncoder(s.out)
		enc.SetIndent("", "  ")
		return enc.Encode(relays)
	}
	t := newTable("relay", "url", "#connections", "#envelope_limit", "#per_robin", "#per_connection", "max_messages", "max_rate", "awake")
	for _, r := range relays {
		most := limit(r.MaxMessages)
		if r.MaxMessages > 0 && r.MaxMessagesWindow > 0 {
			most += " per " + r.MaxMessagesWindow.String()
		}
		awake := limit(r.MaxMessagesWhileAwake)
		if r.MaxMessagesWhileAwake > 0 {
			awake += ", then asleep " + r.SleepLength.String()
		}
		rate := r.MaxRate.String()
		if rate == "0" {
			rate = limit(0)
		}
		t.row(r.Name, r.URL(), r.Connections, limit(r.EnvelopeLimit), limit(r.MaxMessagesPerRobin), limit(r.MaxMessagesPerConnection), most, rate, awake)
	}
	return t.print(s.out)
}

// limit writes a limit of 0, which is none, as a dash.
func limit(n int) string {
	if n == 0 {
		return "-"
	}
	return number(n)
}

func checkRelays(ctx context.Context, s *streams) error {
	c, _, configs, err := loadAll()
	if err != nil {
		return err
	}
	relays, err := relay.FromConfig(configs, relay.Outlets{Log: newLogger(c, s.err)})
	if err != nil {
		return err
	}
	t := newTable("relay", "url", "result", "took")
	bad := 0
	for _, r := range relays {
		began := time.Now()
		result := "ok"
		session, err := r.Dialer.Dial(ctx)
		if err == nil {
			err = session.Close()
		}
		if err != nil {
			bad++
			result = err.Error()
		}
		t.row(r.Config.Name, r.Config.URL(), result, time.Since(began).Round(time.Millisecond))
	}
	if err := t.print(s.out); err != nil {
		return err
	}
	if bad > 0 {
		return fmt.Errorf("%s of %d cannot be used", count(bad, "relay", "relays"), len(relays))
	}
	return nil
}
