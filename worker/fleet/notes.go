package fleet

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"bulkmail/subjects"
)

// sightings is what this worker has read of others.
type sightings struct {
	ledgers map[string]subjects.RelayLedger // by relay
	workers map[string]sighting             // by key
	said    map[string]bool                 // notes that are in the log
}

// A sighting is what a worker said of its relays, and when.
type sighting struct {
	subjects.WorkerRelays
	at time.Time
}

func newSightings() sightings {
	return sightings{ledgers: make(map[string]subjects.RelayLedger), workers: make(map[string]sighting), said: make(map[string]bool)}
}

// worker takes in what a worker says.
func (s *sightings) worker(e jetstream.KeyValueEntry) {
	var w subjects.WorkerRelays
	if e.Operation() != jetstream.KeyValuePut || json.Unmarshal(e.Value(), &w) != nil {
		delete(s.workers, e.Key())
		return
	}
	s.workers[e.Key()] = sighting{w, e.Created()}
}

// logNotes says in the log what people should know, each note once.
func (f *Fleet) logNotes() {
	f.mu.Lock()
	var alive []subjects.WorkerRelays
	for key, w := range f.seen.workers {
		if time.Since(w.at) > subjects.WorkerSilence {
			delete(f.seen.workers, key)
			continue
		}
		alive = append(alive, w.WorkerRelays)
	}
	var fresh []string
	for _, note := range notes(alive, f.seen.ledgers, time.Now()) {
		if !f.seen.said[note] {
			f.seen.said[note] = true
			fresh = append(fresh, note)
		}
	}
	f.mu.Unlock()
	for _, note := range fresh {
		f.o.Log.Warn("caps of a relay are not kept as they seem", "note", note)
	}
}

// setAddr says where the server of a relay is.
func (f *Fleet) setAddr(name, addr string) {
	f.mu.Lock()
	m := f.shares[name]
	f.mu.Unlock()
	if m != nil {
		m.mu.Lock()
		m.addr = addr
		m.mu.Unlock()
	}
}

// Notes are what people should know of the caps of relays, one line each: workers
// that are configured differently, and counters that stay behind under the former
// name of a relay.
func Notes(ctx context.Context, kv jetstream.KeyValue, workers []subjects.WorkerRelays) ([]string, error) {
	keys, err := kv.ListKeysFiltered(ctx, subjects.RelayKeys)
	if err != nil {
		return nil, err
	}
	ledgers := make(map[string]subjects.RelayLedger)
	for key := range keys.Keys() {
		name, ok := subjects.RelayOfKey(key)
		e, err := kv.Get(ctx, key)
		if !ok || errors.Is(err, jetstream.ErrKeyNotFound) {
			continue
		}
		if err != nil {
			return nil, errors.Join(err, keys.Stop())
		}
		var l subjects.RelayLedger
		if json.Unmarshal(e.Value(), &l) == nil {
			ledgers[name] = l
		}
	}
	return notes(workers, ledgers, time.Now()), nil
}

func notes(workers []subjects.WorkerRelays, ledgers map[string]subjects.RelayLedger, now time.Time) []string {
	caps := make(map[string]map[string][]string) // by relay: caps, and workers that have them
	live := make(map[string]subjects.RelayStatus)
	for _, w := range workers {
		for _, r := range w.Relays {
			if live[r.Relay].Caps == "" {
				live[r.Relay] = r
			}
			if r.Caps == "" { // a worker of a release that does not say
				continue
			}
			if caps[r.Relay] == nil {
				caps[r.Relay] = make(map[string][]string)
			}
			caps[r.Relay][r.Caps] = append(caps[r.Relay][r.Caps], w.Worker)
		}
	}
	var lines []string
	for _, name := range slices.Sorted(maps.Keys(caps)) {
		if len(caps[name]) > 1 {
			lines = append(lines, differ(name, caps[name]))
		}
	}
	for _, former := range slices.Sorted(maps.Keys(ledgers)) {
		l := ledgers[former]
		_, used := live[former]
		if used || l.Addr == "" || !counts(l, now) {
			continue
		}
		for _, name := range slices.Sorted(maps.Keys(live)) {
			if r := live[name]; r.Addr == l.Addr && r.Caps == l.Caps {
				lines = append(lines, fmt.Sprintf("relay %s (%s, %s) counts from zero: what was sent to that server under the name %s is counted there; give it back its name %s to go on counting, or say bulkmail relays reset %s if it may start anew", name, r.Addr, r.Caps, former, former, former))
			}
		}
	}
	return lines
}

// differ says who has which caps, and what counts.
func differ(name string, caps map[string][]string) string {
	var have []string
	for c, workers := range caps {
		slices.Sort(workers)
		who := strings.Join(workers, ", ")
		if len(workers) > 3 {
			who = fmt.Sprintf("%s and %d more", workers[0], len(workers)-1)
		}
		have = append(have, c+" on "+who)
	}
	slices.SortFunc(have, func(a, b string) int { return cmp.Compare(a, b) })
	return fmt.Sprintf("workers differ in the caps of relay %s: %s; all count together and each stops at its own caps, so the loosest count: give all workers the same", name, strings.Join(have, "; "))
}

// counts tells whether anything is lost if a ledger is forgotten.
func counts(l subjects.RelayLedger, now time.Time) bool {
	inWindow := l.Used > 0 && strings.HasPrefix(l.Caps, "max_messages=") && (l.WindowEnds.IsZero() || now.Before(l.WindowEnds))
	return inWindow || l.Awake > 0 || now.Before(l.AsleepUntil)
}
