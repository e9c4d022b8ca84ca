// Package health tells whether a worker can work, and how much waits for it.
//
// What it says is for probes, which anybody may ask: it names streams and counts
// relays, and tells neither hosts nor campaigns nor recipients.
package health

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/nats-io/nats.go"

	"bulkmail/relay"
	"bulkmail/worker"
)

// Checks is what a worker needs in order to work.
type Checks struct {
	Conn   *nats.Conn
	Worker interface {
		State() worker.State
		KeepsJournals() bool
		Suppressed() (entries int, behind time.Duration)
	}
	Relays interface{ Status() []relay.Status }
	Broker *Broker
}

// Ready looks at all of it and returns a line for each thing that is missing;
// none: the worker is ready. A relay that has reached a cap or a rate does as it
// was told, and counts as usable; so does one that nobody has tried yet.
func (c *Checks) Ready(ctx context.Context) []string {
	var missing []string
	if s := c.Worker.State(); s != worker.Working {
		missing = append(missing, "worker: "+s.String())
	}
	if !c.Conn.IsConnected() {
		missing = append(missing, "broker: not reached")
	} else if err := c.Broker.Streams(ctx); err != nil {
		missing = append(missing, "streams: "+err.Error())
	} else if _, behind := c.Worker.Suppressed(); behind > 0 {
		missing = append(missing, fmt.Sprintf("suppressions: not known to be those of the broker for %v", behind.Round(time.Second)))
	}
	if !c.Worker.KeepsJournals() {
		missing = append(missing, "journal: cannot be kept")
	}
	if why := unusable(c.Relays.Status()); why != "" {
		missing = append(missing, "relays: "+why)
	}
	return missing
}

// unusable says why no relay can be used; empty: one can.
func unusable(relays []relay.Status) string {
	if len(relays) == 0 {
		return "none is configured"
	}
	counts := make(map[relay.State]int)
	for _, r := range relays {
		if r.State != relay.Parked && r.State != relay.Worthless {
			return ""
		}
		counts[r.State]++
	}
	var list []string
	for state, n := range counts {
		list = append(list, fmt.Sprintf("%d %s", n, state))
	}
	slices.SortFunc(list, func(a, b string) int { return cmp.Compare(a, b) })
	return fmt.Sprintf("none of %d can be used: %s", len(relays), strings.Join(list, ", "))
}
