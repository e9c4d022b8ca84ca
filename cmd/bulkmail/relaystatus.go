package main

import (
	"context"
	"fmt"
	"strings"
	"time"

	"bulkmail/subjects"
	"bulkmail/worker/fleet"
)

// relaysWithin bounds what is asked of the broker beside what a command is for, which
// its user may not be allowed to: how the relays are, for one.
const relaysWithin = 3 * time.Second

// relayStatus is what all workers say of a relay together.
type relayStatus struct {
	Relay     string         `json:"relay"`
	Workers   int            `json:"workers"`
	States    map[string]int `json:"states"` // how many workers find it so
	Sessions  int            `json:"sessions"`
	Accepted  int64          `json:"accepted"` // recipients, since these workers started
	LastError string         `json:"last_error,omitempty"`
	lastError time.Time
}

// relayStatuses adds up what the workers say, by relay.
func relayStatuses(workers []subjects.WorkerRelays) []relayStatus {
	byName := make(map[string]*relayStatus)
	for _, w := range workers {
		for _, r := range w.Relays {
			all := byName[r.Relay]
			if all == nil {
				all = &relayStatus{Relay: r.Relay, States: make(map[string]int)}
				byName[r.Relay] = all
			}
			all.Workers++
			all.States[r.State]++
			all.Sessions += r.Sessions
			all.Accepted += r.Messages
			if r.LastError != "" && !r.LastErrorTime.Before(all.lastError) {
				all.LastError, all.lastError = r.LastError, r.LastErrorTime
			}
		}
	}
	var list []relayStatus
	for _, name := range sortedKeys(byName) {
		list = append(list, *byName[name])
	}
	return list
}

// state is one word where the workers agree.
func (r relayStatus) state() string {
	var words []string
	for _, state := range sortedKeys(r.States) {
		if r.States[state] == r.Workers {
			return state
		}
		words = append(words, fmt.Sprintf("%s %d", state, r.States[state]))
	}
	return strings.Join(words, ", ")
}

// printRelays prints how the workers find their relays, if there are any.
func (c *client) printRelays(ctx context.Context, s *streams, asJSON bool) error {
	asking, cancel := context.WithTimeout(ctx, relaysWithin)
	defer cancel()
	kv, err := c.js.KeyValue(asking, c.names.RelayBucket())
	var workers []subjects.WorkerRelays
	if err == nil {
		_, workers, err = fleet.Look(asking, kv, nil)
	}
	if err != nil {
		if ctx.Err() == nil {
			fmt.Fprintf(s.err, "bulkmail: how the relays are is not known: %v\n", err)
		}
		return nil
	}
	list := relayStatuses(workers)
	if asJSON {
		enc := encoder(s.out, isTerminal(s.out))
		for _, r := range list {
			if err := enc.Encode(r); err != nil {
				return err
			}
		}
		return nil
	}
	if len(list) == 0 {
		return nil
	}
	t := newTable("relay", "#workers", "state", "#sessions", "#accepted", "last error")
	for _, r := range list {
		why := dash(r.LastError)
		if r.LastError != "" {
			why = clock(r.lastError) + " " + why
		}
		t.row(r.Relay, r.Workers, r.state(), r.Sessions, int(r.Accepted), why)
	}
	fmt.Fprintln(s.out)
	return t.print(s.out)
}
