package fleet

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"

	"bulkmail/relay"
	"bulkmail/subjects"
)

var noon = time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC)

const silence = 30 * time.Second

// stored is what a bucket holds under one key, at one time.
type stored struct {
	revision uint64
	value    []byte
	at       time.Time
}

// A world is a broker, its clock, and the workers of a fleet with one relay.
// Clocks of the workers are wrong by hours.
type world struct {
	t       *rapid.T
	limits  relay.Limits
	now     time.Time // the broker's
	last    stored
	workers []*hand
	gone    int
	flights []*flight // settled, or lost in a crash
	wasted  int       // held by workers that were given up

	asleepUntil time.Time
	napped      time.Time
	awake       int    // messages accepted since the last nap
	before      []byte // the last entry
}

// A hand is a worker.
type hand struct {
	*share
	name    string
	off     time.Duration
	inbox   []stored
	flying  []*flight
	written *entry // sent, and still on its way
	heardOf time.Time
}

type flight struct {
	granted, settled time.Time
	taken, counted   int
	doomed           bool
}

func (w *world) hire() {
	w.gone++
	h := &hand{name: fmt.Sprintf("w%d", w.gone), off: time.Duration(rapid.IntRange(-10, 10).Draw(w.t, "clock")) * time.Hour, heardOf: w.now}
	h.share = newShare(h.name, silence, w.limits, func() {})
	w.workers = append(w.workers, h)
	w.get(h)
}

func (w *world) local(h *hand) time.Time { return w.now.Add(h.off) }

func (w *world) hear(h *hand, s stored) {
	if err := h.learn(w.local(h), s.revision, s.value, s.at); err != nil {
		w.t.Fatal(err)
	}
}

func (w *world) get(h *hand) { w.hear(h, w.last) }

// doom says which envelopes are not ended any more: whoever is silent for too
// long has lost its batches for good.
func (w *world) doom(h *hand) {
	for _, f := range h.flying {
		f.doomed = f.doomed || w.now.Sub(h.heardOf) > silence
	}
}

// put is what the broker does.
func (w *world) put(h *hand, e *entry) bool {
	if e.expected != w.last.revision {
		return false
	}
	w.last = stored{w.last.revision + 1, e.value, w.now}
	w.doom(h)
	h.heardOf = e.sent.Add(-h.off)
	for _, o := range w.workers {
		o.inbox = append(o.inbox, w.last)
	}
	l := &ledger{limits: w.limits}
	if err := json.Unmarshal(e.value, &l.RelayLedger); err != nil {
		w.t.Fatal(err)
	}
	var before subjects.RelayLedger
	if len(w.before) > 0 {
		if err := json.Unmarshal(w.before, &before); err != nil {
			w.t.Fatal(err)
		}
	}
	w.before = e.value
	w.t.Logf("%v %s writes %s", w.now.Sub(noon), h.name, e.value)
	for name, share := range before.Workers {
		if _, ok := l.Workers[name]; !ok {
			w.wasted += share.Held
		}
	}
	l.stored(w.now)
	if l.AsleepUntil.After(w.asleepUntil) {
		if w.awake > w.limits.MaxMessagesWhileAwake {
			w.t.Fatalf("%d messages while awake, at most %d", w.awake, w.limits.MaxMessagesWhileAwake)
		}
		w.asleepUntil, w.napped, w.awake = l.AsleepUntil, w.now, 0
	}
	return true
}

// turn lets a worker write what it wants written, once.
func (w *world) turn(h *hand, fate int) {
	if h.written != nil { // what was on its way arrives
		e := h.written
		h.written = nil
		w.put(h, e)
		w.get(h)
		return
	}
	e, _ := h.next(w.local(h))
	if e == nil {
		return
	}
	switch fate {
	case 0: // lost on its way
		w.get(h)
	case 1: // stored, but the word of that is lost
		w.put(h, e)
		w.get(h)
	case 2: // late: the worker looks, and may send it again before it arrives
		h.written = e
		w.get(h)
	default:
		if w.put(h, e) {
			h.wrote(e, w.last.revision)
		} else {
			w.get(h)
		}
	}
}

func (w *world) grant(h *hand, most int) {
	n := min(h.Left(w.local(h)), most)
	if n <= 0 {
		return
	}
	if w.now.Before(w.asleepUntil) {
		w.t.Fatalf("%s may send %d in the relay's sleep, until %v", h.name, n, w.asleepUntil.Sub(w.now))
	}
	h.Take(w.local(h), n)
	h.flying = append(h.flying, &flight{granted: w.now, taken: n})
}

func (w *world) settle(h *hand, k, counted int) {
	w.doom(h)
	f := h.flying[k]
	h.flying = slices.Delete(h.flying, k, k+1)
	f.counted, f.settled = min(counted, f.taken), w.now
	if f.doomed {
		f.counted = 0
	}
	if h.mixed {
		w.wasted += f.taken
	}
	h.Settle(w.local(h), f.taken, f.counted)
	w.landed(f)
}

func (w *world) landed(f *flight) {
	w.flights = append(w.flights, f)
	w.t.Logf("%v to %v, taken %d, accepted %d", f.granted.Sub(noon), f.settled.Sub(noon), f.taken, f.counted)
	if f.counted > 0 && f.granted.Before(w.napped) && !f.settled.Before(w.napped) && w.limits.SleepLength > 0 {
		w.t.Fatalf("sleep began at %v while %d messages were on their way", w.napped, f.counted)
	}
	w.awake += f.counted
}

func (w *world) crash(i int) {
	h := w.workers[i]
	w.doom(h)
	w.workers = slices.Delete(w.workers, i, i+1)
	for _, f := range h.flying { // perhaps accepted
		f.counted, f.settled = f.taken, w.now
		if f.doomed {
			f.counted = 0
		}
		w.landed(f)
	}
	if h.written != nil {
		w.put(h, h.written)
	}
}

var drawn = map[string]func(t *rapid.T, l *relay.Limits){
	"envelope_limit": func(t *rapid.T, l *relay.Limits) { l.EnvelopeLimit = rapid.IntRange(1, 20).Draw(t, "envelope_limit") },
	"max_messages":   func(t *rapid.T, l *relay.Limits) { l.MaxMessages = rapid.IntRange(1, 1000).Draw(t, "max_messages") },
	"max_messages_window": func(t *rapid.T, l *relay.Limits) {
		l.MaxMessages = rapid.IntRange(1, 100).Draw(t, "max_messages")
		l.MaxMessagesWindow = time.Duration(rapid.IntRange(1, 20).Draw(t, "max_messages_window")) * time.Second
	},
	"max_messages_spread": func(t *rapid.T, l *relay.Limits) {
		l.MaxMessages = rapid.IntRange(1, 500).Draw(t, "max_messages")
		l.MaxMessagesWindow = time.Duration(rapid.IntRange(1, 20).Draw(t, "max_messages_window")) * time.Second
		l.MaxMessagesSpread = true
	},
	"max_rate": func(t *rapid.T, l *relay.Limits) {
		l.MaxRate = relay.Rate{Messages: rapid.IntRange(1, 60).Draw(t, "max_rate"), Per: time.Duration(rapid.IntRange(1, 5).Draw(t, "per")) * time.Second}
	},
	"max_messages_while_awake": func(t *rapid.T, l *relay.Limits) {
		l.MaxMessagesWhileAwake = rapid.IntRange(1, 80).Draw(t, "max_messages_while_awake")
		l.SleepLength = time.Duration(rapid.IntRange(1, 10).Draw(t, "sleep_length")) * time.Second
	},
}

func TestNoCapIsEverExceededByAFleet(t *testing.T) {
	t.Parallel()
	names := slices.Sorted(maps.Keys(drawn))
	t.Run("all together", func(t *testing.T) {
		t.Parallel()
		rapid.Check(t, func(t *rapid.T) {
			var l relay.Limits
			for _, name := range names {
				if rapid.Bool().Draw(t, name) {
					drawn[name](t, &l)
				}
			}
			fleetKeepsCaps(t, l)
		})
	})
	for _, name := range names {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			rapid.Check(t, func(t *rapid.T) {
				var l relay.Limits
				drawn[name](t, &l)
				fleetKeepsCaps(t, l)
			})
		})
	}
}

func fleetKeepsCaps(t *rapid.T, limits relay.Limits) {
	w := &world{t: t, limits: limits, now: noon}
	for range rapid.IntRange(1, 4).Draw(t, "workers") {
		w.hire()
	}
	crashes := rapid.Bool().Draw(t, "crashes")
	for range 500 {
		h := w.workers[rapid.IntRange(0, len(w.workers)-1).Draw(t, "who")]
		switch rapid.IntRange(0, 11).Draw(t, "step") {
		case 0, 1, 2:
			w.grant(h, rapid.IntRange(1, 40).Draw(t, "cut"))
		case 3, 4:
			if n := len(h.flying); n > 0 {
				w.settle(h, rapid.IntRange(0, n-1).Draw(t, "which"), rapid.IntRange(0, 60).Draw(t, "counted"))
			}
		case 5, 6, 7:
			w.turn(h, rapid.IntRange(0, 9).Draw(t, "fate"))
		case 8, 9:
			if len(h.inbox) > 0 {
				w.hear(h, h.inbox[0])
				h.inbox = h.inbox[1:]
			}
		case 10:
			unit := rapid.SampledFrom([]time.Duration{time.Nanosecond, time.Microsecond, time.Millisecond, 20 * time.Millisecond, time.Second}).Draw(t, "unit")
			w.now = w.now.Add(time.Duration(rapid.IntRange(1, 20).Draw(t, "wait")) * unit)
		case 11:
			if crashes && rapid.IntRange(0, 9).Draw(t, "crash") == 0 {
				w.crash(slices.Index(w.workers, h))
				w.hire()
			}
		}
	}
	for _, h := range w.workers {
		for len(h.flying) > 0 {
			w.settle(h, 0, rapid.IntRange(0, 60).Draw(t, "counted"))
		}
	}
	w.checkCaps()
	w.checkUse()
}

// checkCaps looks at the worst that could have been: every message counts
// wherever it may have been accepted.
func (w *world) checkCaps() {
	most := func(from, to time.Time) int {
		n := 0
		for _, f := range w.flights {
			if f.granted.Before(to) && !f.settled.Before(from) {
				n += f.counted
			}
		}
		return n
	}
	l, total := w.limits, 0
	if l.Spread() != (relay.Rate{}) {
		w.checkSpread()
	}
	for _, f := range w.flights {
		total += f.counted
		if l.MaxRate.Messages > 0 {
			if n := most(f.settled, f.settled.Add(l.MaxRate.Per)); n > l.MaxRate.Messages {
				w.t.Fatalf("%d messages in %v from %v on, max_rate %v", n, l.MaxRate.Per, f.settled, l.MaxRate)
			}
		}
		if l.MaxMessagesWindow > 0 {
			for _, at := range []time.Time{f.granted, f.settled} {
				from := at.Truncate(l.MaxMessagesWindow)
				if n := most(from, from.Add(l.MaxMessagesWindow)); n > l.MaxMessages {
					w.t.Fatalf("%d messages in the window from %v on, max_messages %d", n, from, l.MaxMessages)
				}
			}
		}
	}
	if l.MaxMessages > 0 && l.MaxMessagesWindow == 0 && total > l.MaxMessages {
		w.t.Fatalf("%d messages, max_messages %d", total, l.MaxMessages)
	}
}

// checkSpread: never have more messages been granted that count than two quanta
// and what was due by then.
func (w *world) checkSpread() {
	flights := slices.SortedStableFunc(slices.Values(w.flights), func(a, b *flight) int { return a.granted.Compare(b.granted) })
	l, n := ledger{limits: w.limits}, 0
	for _, f := range flights {
		n += f.counted
		due := float64(w.limits.MaxMessages) * float64(f.granted.Sub(noon)) / float64(w.limits.MaxMessagesWindow)
		if float64(n) > float64(2*l.spread().quantum())+due+1 {
			w.t.Fatalf("%d messages by %v, %.1f are due", n, f.granted.Sub(noon), due)
		}
	}
}

// checkUse: with a broker that works, whoever is left can send all that is
// left, and what was not sent was held by somebody who crashed.
func (w *world) checkUse() {
	sent := 0
	for _, f := range w.flights {
		sent += f.counted
	}
	goal := w.limits.MaxMessages
	if goal == 0 || w.limits.MaxMessagesWindow > 0 {
		goal = sent + 40 // comes with time
	} else {
		goal = min(goal, sent+40+w.wasted)
	}
	for step := 0; sent < goal; step++ {
		if step > 20_000 {
			if sent >= goal-w.wasted {
				return
			}
			var now subjects.RelayLedger
			_ = json.Unmarshal(w.last.value, &now)
			w.t.Fatalf("%d sent of %d, %d wasted: %+v", sent, goal, w.wasted, now)
		}
		h := w.workers[step%len(w.workers)]
		for _, s := range h.inbox {
			w.hear(h, s)
		}
		h.inbox = nil
		before := len(h.flying)
		w.grant(h, 100)
		if len(h.flying) > before {
			sent += h.flying[0].taken
			w.settle(h, 0, h.flying[0].taken)
		}
		w.turn(h, 9)
		w.now = w.now.Add(50 * time.Millisecond)
	}
}
