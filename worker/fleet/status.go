package fleet

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"bulkmail/relay"
	"bulkmail/relay/caps"
	"bulkmail/subjects"
)

const (
	statusEvery = 5 * time.Second        // also if nothing has changed
	statusLook  = 500 * time.Millisecond // whether something has
)

// Serve says every few seconds, and when something changes, what pool knows of
// its relays, and resets their counters when somebody asks for that. Resume is
// called after a reset: it is [bulkmail/worker.Worker.Resume], since a worker may
// wait because no relay could take anything.
func (f *Fleet) Serve(pool Pool, resume func()) {
	f.mu.Lock()
	f.pool, f.resume = pool, resume
	f.mu.Unlock()
	f.wg.Go(func() {
		select {
		case <-f.opened:
		case <-f.ctx.Done():
			return
		}
		var last []subjects.RelayStatus
		var told time.Time
		for {
			now := f.status(pool)
			if time.Since(told) >= statusEvery || !slices.EqualFunc(now, last, alike) {
				if f.say(f.ctx, now) == nil {
					last, told = now, time.Now()
				}
			}
			f.logNotes()
			if !sleep(f.ctx, statusLook) {
				return
			}
		}
	})
}

// alike tells whether two statuses differ by counts and times at most.
func alike(a, b subjects.RelayStatus) bool {
	return a.Relay == b.Relay && a.Addr == b.Addr && a.Caps == b.Caps && a.State == b.State && a.LastErrorTime.Equal(b.LastErrorTime) && (a.Sessions > 0) == (b.Sessions > 0)
}

func (f *Fleet) status(pool Pool) []subjects.RelayStatus {
	all := pool.Status()
	out := make([]subjects.RelayStatus, len(all))
	for i, s := range all {
		out[i] = subjects.RelayStatus{
			Relay: s.Relay, State: string(s.State), Until: s.Until.UTC().Truncate(time.Millisecond), Sessions: s.Sessions, Busy: s.Busy,
			Messages: s.Messages, LastMessage: s.LastMessage.UTC().Truncate(time.Millisecond),
			LastErrorTime: s.LastErrorTime.UTC().Truncate(time.Millisecond),
		}
		f.setAddr(s.Relay, s.Addr)
		out[i].Addr, out[i].Caps = s.Addr, s.Caps.String()
		if e := s.LastError; e != nil {
			out[i].LastError, out[i].LastErrorCode, out[i].LastErrorMBS = e.Err.Error(), e.Code, e.MBS
		}
	}
	return out
}

func (f *Fleet) say(ctx context.Context, relays []subjects.RelayStatus) error {
	value, err := json.Marshal(subjects.WorkerRelays{Worker: f.o.Worker, Relays: relays})
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, writeTimeout)
	defer cancel()
	_, err = f.kv.Put(ctx, subjects.WorkerKey(f.o.Worker), value)
	return err
}

// leave takes what this worker said of its relays away.
func (f *Fleet) leave(ctx context.Context) {
	f.mu.Lock()
	served := f.pool != nil
	f.mu.Unlock()
	select {
	case <-f.opened:
	default:
		return
	}
	f.cancel() // nothing more is said
	f.wg.Wait()
	if served {
		ctx, cancel := context.WithTimeout(ctx, writeTimeout)
		defer cancel()
		_ = f.kv.Purge(ctx, subjects.WorkerKey(f.o.Worker)) // its age tells as well
	}
}

// noteLedger notes the ledger of a relay, and resets the counters of the relay here
// if somebody asked for that since the last time.
func (f *Fleet) noteLedger(name string, e jetstream.KeyValueEntry) {
	var l subjects.RelayLedger
	if json.Unmarshal(e.Value(), &l) != nil {
		return
	}
	f.mu.Lock()
	f.seen.ledgers[name] = l
	before, known := f.resets[name]
	f.resets[name] = l.Resets
	pool, resume := f.pool, f.resume
	f.mu.Unlock()
	if (known || e.Created().After(f.began)) && l.Resets > before && pool != nil && pool.Reset(name) {
		resume()
		f.o.Log.Info("counters of relay are reset", "relay", name)
	}
}

// Reset resets the counters of a relay for the whole fleet: max_messages,
// max_messages_while_awake, and by way of the workers those of each. What is
// leased stays leased. The messages of the last period of max_rate still count,
// for the relay knows of them.
func Reset(ctx context.Context, kv jetstream.KeyValue, name string) error {
	for {
		var l subjects.RelayLedger
		revision := uint64(0)
		e, err := kv.Get(ctx, subjects.RelayKey(name))
		switch {
		case errors.Is(err, jetstream.ErrKeyNotFound):
		case err != nil:
			return err
		default:
			revision = e.Revision()
			if err := json.Unmarshal(e.Value(), &l); err != nil {
				l = subjects.RelayLedger{} // whoever wrote that is not one of us
			}
			appendFresh(&l, e.Created())
		}
		l.Used, l.Awake, l.AsleepUntil = 0, 0, time.Time{}
		l.Spread, l.SpreadDry = time.Time{}, false
		l.Resets++
		value, err := json.Marshal(l)
		if err != nil {
			return err
		}
		if revision == 0 {
			_, err = kv.Create(ctx, subjects.RelayKey(name), value)
		} else {
			_, err = kv.Update(ctx, subjects.RelayKey(name), value, revision)
		}
		if err == nil || !refused(err) {
			return err
		}
		// A worker was faster: once more.
	}
}

// refused tells whether an entry was not stored because somebody was faster.
func refused(err error) bool {
	api, ok := errors.AsType[*jetstream.APIError](err)
	return ok && api.ErrorCode == jetstream.JSErrCodeStreamWrongLastSequence ||
		errors.Is(err, jetstream.ErrKeyExists) || errors.Is(err, jetstream.ErrKeyRevisionMismatch)
}

// Counters are a relay's allowance as the fleet has used it.
type Counters struct {
	Used       int       `json:"used"`                 // of max_messages, in this window
	Held       int       `json:"held"`                 // leased by workers
	Left       int       `json:"left"`                 // not leased; -1: no limit
	WindowEnds time.Time `json:"window_ends,omitzero"` // of max_messages_window
	Awake      int       `json:"awake"`                // messages since it woke up
	Asleep     time.Time `json:"asleep_until,omitzero"`
}

// Look reads the fleet's counters of relays, by name, and what the workers that
// are alive say of theirs, by the worker's name.
func Look(ctx context.Context, kv jetstream.KeyValue, relays []relay.Config) (map[string]Counters, []subjects.WorkerRelays, error) {
	counters := make(map[string]Counters, len(relays))
	for _, c := range relays {
		e, err := kv.Get(ctx, subjects.RelayKey(c.Name))
		var value []byte
		var stored time.Time
		switch {
		case errors.Is(err, jetstream.ErrKeyNotFound):
		case err != nil:
			return nil, nil, err
		default:
			value, stored = e.Value(), e.Created()
		}
		l, err := readLedger(c.Caps(), value, stored)
		if err != nil {
			return nil, nil, fmt.Errorf("allowance of relay %s: %w", c.Name, err)
		}
		now := time.Now()
		n := Counters{Left: l.Unused(now), Used: l.State.Used, Held: l.State.Held, Awake: l.State.Awake}
		if n.Left == caps.Unlimited {
			n.Left = -1
		}
		if c.MaxMessages > 0 && c.MaxMessagesWindow > 0 {
			n.WindowEnds = l.State.WindowEnds
		}
		if now.Before(l.State.AsleepUntil) {
			n.Asleep = l.State.AsleepUntil
		}
		counters[c.Name] = n
	}
	workers, err := lookAtWorkers(ctx, kv)
	return counters, workers, err
}

func lookAtWorkers(ctx context.Context, kv jetstream.KeyValue) ([]subjects.WorkerRelays, error) {
	keys, err := kv.ListKeysFiltered(ctx, subjects.WorkerKeys)
	if err != nil {
		return nil, err
	}
	var workers []subjects.WorkerRelays
	for key := range keys.Keys() {
		e, err := kv.Get(ctx, key)
		if errors.Is(err, jetstream.ErrKeyNotFound) {
			continue // it left meanwhile
		}
		if err != nil {
			return nil, errors.Join(err, keys.Stop())
		}
		var w subjects.WorkerRelays
		if time.Since(e.Created()) > subjects.WorkerSilence || json.Unmarshal(e.Value(), &w) != nil {
			continue
		}
		workers = append(workers, w)
	}
	slices.SortFunc(workers, func(a, b subjects.WorkerRelays) int { return cmp.Compare(a.Worker, b.Worker) })
	return workers, nil
}
