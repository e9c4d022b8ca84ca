package campaign

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

// A Reason says why nothing of a campaign moves. The zero Reason is none.
type Reason struct {
	Code ReasonCode `json:"reason_code"`
	Text string     `json:"reason"` // for people, one line; may hold what a relay said
}

// A ReasonCode is the kind of a [Reason].
type ReasonCode string

// The codes of reasons.
const (
	ReasonNone     ReasonCode = ""          // it moves, or nothing of it waits
	ReasonPaused   ReasonCode = "paused"    // somebody paused it
	ReasonNoWorker ReasonCode = "no_worker" // nobody takes batches
	ReasonRelays   ReasonCode = "relays"    // no relay can be used
	ReasonCaps     ReasonCode = "caps"      // what the relays may take is used up
	ReasonResting  ReasonCode = "resting"   // what is left was deferred, and waits for its next attempt
	ReasonBroker   ReasonCode = "broker"    // the broker does not answer
)

// The states of a relay in which it sends nothing, as workers name them.
const (
	relayParked    = "parked"
	relayWorthless = "worthless"
	relayExhausted = "exhausted"
	relayAsleep    = "asleep"
	relayPaced     = "paced"
)

// pacedFor is how long a relay may wait for its rate until that is a reason: below
// it sends so and so many, again and again.
const pacedFor = 30 * time.Second

// Reason tells why a campaign that has batches in the queue does not move, from its
// record and from what workers say of their relays. That what is left waits for its
// next attempt it does not find out; [Summary.Resting] does.
func (c *Client) Reason(ctx context.Context, campaign string) (Reason, error) {
	if err := checkName(campaign); err != nil {
		return Reason{}, err
	}
	records, err := c.records(ctx)
	if err != nil {
		return Reason{}, err
	}
	record, _, err := records.get(ctx, campaign)
	if err != nil {
		return Reason{}, err
	}
	if record.State == subjects.CampaignPaused {
		return Reason{ReasonPaused, pausedText(record.Changes)}, nil
	}
	waiting, err := c.Waiting(ctx, campaign)
	if err != nil || waiting == 0 {
		return Reason{}, err
	}
	workers, err := c.workers(ctx)
	if err != nil {
		return Reason{}, err
	}
	return stuck(workers, time.Now()), nil
}

// reason is the same from what was looked at already, and knows whether what is left
// waits for its next attempt.
func (l *look) reason(record *subjects.Campaign, waiting uint64, of *subjects.Counts) Reason {
	if record.State == subjects.CampaignPaused {
		return Reason{ReasonPaused, pausedText(record.Changes)}
	}
	if waiting == 0 {
		return Reason{}
	}
	if workers := l.workers(); workers != nil {
		if r := stuck(workers, l.asOf); r.Code != ReasonNone {
			return r
		}
	}
	if of.Queued == 0 && of.Deferred > 0 {
		return restingReason(of.Deferred)
	}
	return Reason{}
}

func restingReason(recipients int) Reason {
	if recipients == 1 {
		return Reason{ReasonResting, "1 recipient was deferred, for the next attempt"}
	}
	return Reason{ReasonResting, fmt.Sprintf("%d recipients were deferred, for the next attempt", recipients)}
}

func pausedText(changes []subjects.CampaignChange) string {
	text := "paused"
	if len(changes) == 0 {
		return text
	}
	last := changes[len(changes)-1]
	if last.By != "" {
		text += " by " + last.By
	}
	text += " at " + last.Time.Local().Format(time.DateTime)
	if last.Why != "" {
		text += ": " + last.Why
	}
	return text
}

// workers reads what workers say of their relays.
func (c *Client) workers(ctx context.Context) ([]subjects.WorkerRelays, error) {
	bucket, err := c.js.KeyValue(ctx, c.names.RelayBucket())
	if errors.Is(err, jetstream.ErrBucketNotFound) {
		return nil, nil // no worker has ever run
	}
	if err != nil {
		return nil, fmt.Errorf("bucket %s: %w", c.names.RelayBucket(), err)
	}
	keys, err := bucket.ListKeysFiltered(ctx, subjects.WorkerKeys)
	if err != nil {
		return nil, fmt.Errorf("bucket %s: %w", c.names.RelayBucket(), err)
	}
	var workers []subjects.WorkerRelays
	for key := range keys.Keys() {
		entry, err := bucket.Get(ctx, key)
		if errors.Is(err, jetstream.ErrKeyNotFound) {
			continue // it left meanwhile
		}
		if err != nil {
			return nil, errors.Join(fmt.Errorf("bucket %s: %w", c.names.RelayBucket(), err), keys.Stop())
		}
		var w subjects.WorkerRelays
		if time.Since(entry.Created()) <= subjects.WorkerSilence && json.Unmarshal(entry.Value(), &w) == nil {
			workers = append(workers, w)
		}
	}
	return workers, nil
}

// stuck tells why workers with these relays send nothing; no Reason if one of them
// has a relay that can be used.
func stuck(workers []subjects.WorkerRelays, now time.Time) Reason {
	if len(workers) == 0 {
		return Reason{ReasonNoWorker, "no worker runs"}
	}
	byName := make(map[string]subjects.RelayStatus)
	for _, w := range workers {
		for _, r := range w.Relays {
			if usable(r, now) {
				return Reason{}
			}
			// Of several workers, the one that has to say more.
			if before, ok := byName[r.Relay]; !ok || r.LastErrorTime.After(before.LastErrorTime) {
				byName[r.Relay] = r
			}
		}
	}
	var down, capped []string
	for _, r := range slices.SortedFunc(maps.Values(byName), func(a, b subjects.RelayStatus) int { return cmp.Compare(a.Relay, b.Relay) }) {
		if text, unwell := stuckRelay(r, now); unwell {
			down = append(down, text)
		} else {
			capped = append(capped, text)
		}
	}
	text := strings.Join(append(capped, down...), "; ")
	switch {
	case len(capped) > 0:
		return Reason{ReasonCaps, text}
	case len(down) > 0:
		return Reason{ReasonRelays, text}
	}
	return Reason{ReasonRelays, "the workers have no relays"}
}

func usable(r subjects.RelayStatus, now time.Time) bool {
	switch r.State {
	case relayParked, relayWorthless, relayExhausted, relayAsleep:
		return false
	case relayPaced:
		return r.Until.Sub(now) < pacedFor
	}
	return true
}

// stuckRelay says why a relay takes nothing.
func stuckRelay(r subjects.RelayStatus, now time.Time) (text string, unwell bool) {
	until := ""
	if r.Until.After(now) {
		until = " until " + r.Until.Local().Format(time.DateTime)
	}
	switch r.State {
	case relayExhausted:
		return fmt.Sprintf("relay %s has used up max_messages%s", r.Relay, until), false
	case relayAsleep:
		return fmt.Sprintf("relay %s sleeps%s, as max_messages_while_awake says", r.Relay, until), false
	case relayPaced:
		return fmt.Sprintf("relay %s may send no more%s, as max_rate or max_messages_spread says", r.Relay, until), false
	}
	text = fmt.Sprintf("relay %s is %s%s", r.Relay, r.State, until)
	if r.LastError != "" {
		text += ": " + r.LastError
	}
	return text, true
}
