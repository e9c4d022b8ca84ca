package fleet

import (
	"encoding/json"
	"maps"
	"slices"
	"time"

	"bulkmail/relay/caps"
	"bulkmail/subjects"
)

// A ledger is a [caps.Ledger] as the fleet shares it: the value in the bucket, and
// who holds how much. It is told the broker's time.
//
// A writer cannot know the broker's time of what it is about to write, so it counts
// nothing: what it reports it puts down as fresh, and whoever reads the entry counts
// that at the time at which the broker stored it.
type ledger struct {
	*caps.Ledger
	workers map[string]subjects.RelayShare // by name
	fresh   int
	resets  int
}

// readLedger reads an entry that the broker stored at that time; the zero time is
// that of no entry.
func readLedger(limits caps.Limits, value []byte, stored time.Time) (*ledger, error) {
	var e subjects.RelayLedger
	if len(value) > 0 {
		if err := json.Unmarshal(value, &e); err != nil {
			return nil, err
		}
	}
	state := caps.State{
		Held:        e.Fresh,
		Used:        e.Used - e.Fresh,
		WindowEnds:  e.WindowEnds,
		Awake:       max(0, e.Awake-e.Fresh),
		AsleepUntil: e.AsleepUntil,
		Recent:      e.Recent,
		Rate:        caps.Level{Full: e.Paced, Dry: e.Dry},
		Spread:      caps.Level{Full: e.Spread, Dry: e.SpreadDry},
	}
	for name, w := range e.Workers {
		state.Held += w.Held
		if w.Seen.IsZero() { // the writer's own
			w.Seen = stored
			e.Workers[name] = w
		}
	}
	l := &ledger{Ledger: caps.New(limits, state), workers: e.Workers, resets: e.Resets}
	if !stored.IsZero() {
		l.Settle(stored, e.Fresh, e.Fresh)
	}
	return l, nil
}

// entry is what is to be written.
func (l *ledger) entry() subjects.RelayLedger {
	e := subjects.RelayLedger{
		Fresh:       l.fresh,
		Used:        l.State.Used + l.fresh,
		WindowEnds:  l.State.WindowEnds,
		Awake:       l.State.Awake,
		AsleepUntil: l.State.AsleepUntil,
		Recent:      l.State.Recent,
		Paced:       l.State.Rate.Full,
		Dry:         l.State.Rate.Dry,
		Spread:      l.State.Spread.Full,
		SpreadDry:   l.State.Spread.Dry,
		Resets:      l.resets,
		Workers:     l.workers,
		Caps:        l.Limits.String(),
	}
	if l.Limits.MaxMessagesWhileAwake > 0 && l.Limits.SleepLength > 0 {
		e.Awake += l.fresh
	}
	return e
}

// clone makes a copy that can be changed.
func (l *ledger) clone() *ledger {
	c := *l
	c.Ledger, c.workers = l.Ledger.Clone(), maps.Clone(l.workers)
	if c.workers == nil {
		c.workers = make(map[string]subjects.RelayShare, 1)
	}
	return &c
}

// writeOff reports as sent what workers hold that have been silent for too long:
// nobody knows what became of it. It tells whether there was any.
func (l *ledger) writeOff(now time.Time, silence time.Duration, self string) bool {
	before := l.fresh
	maps.DeleteFunc(l.workers, func(name string, w subjects.RelayShare) bool {
		silent := name != self && now.Sub(w.Seen) > silence
		if silent {
			l.fresh += w.Held
		}
		return silent
	})
	return l.fresh > before
}

// wants tells whether a worker other than self could send more.
func (l *ledger) wants(self string) bool {
	for name, w := range l.workers {
		if w.Wants && name != self {
			return true
		}
	}
	return false
}

// soon is d, or less where holding takes room that others need: most of max_rate is
// used, or a window is short.
func (l *ledger) soon(d time.Duration, part int64) time.Duration {
	if l.Tight() {
		d = min(d, l.Limits.MaxRate.Per/time.Duration(part))
	}
	if w := l.Limits.MaxMessagesWindow; w > 0 && l.Limits.MaxMessages > 0 {
		d = min(d, w/time.Duration(part))
	}
	return max(d, 2*time.Millisecond)
}

// appendFresh moves what an entry reports to where the next writer would put it.
func appendFresh(e *subjects.RelayLedger, stored time.Time) {
	if e.Fresh > 0 {
		e.Recent = append(slices.Clip(e.Recent), [2]int64{stored.UnixMicro() + 1, int64(e.Fresh)})
		e.Fresh = 0
	}
}
