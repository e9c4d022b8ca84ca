package fleet

import (
	"encoding/json"
	"fmt"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"

	"bulkmail/relay/caps"
	"bulkmail/relay/caps/capstest"
	"bulkmail/subjects"
	"bulkmail/testdata/testrun"
)

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
	t       rapid.TB
	limits  caps.Limits
	now     time.Time // the broker's
	last    stored
	workers []*peer
	gone    int
	sent    capstest.Sendings // settled, or lost in a crash
	wasted  int               // held by workers that were given up

	asleepUntil time.Time
	napped      time.Time
	awake       int    // messages accepted since the last nap
	before      []byte // the last entry
}

// A peer is a worker of the fleet.
type peer struct {
	*share
	name    string
	off     time.Duration
	inbox   []stored
	flying  []*flight
	written *entry // sent, and still on its way
	heardOf time.Time
}

// A flight is an envelope that is being sent, doomed if its worker has lost its batch
// meanwhile: that worker ends no message any more.
type flight struct {
	capstest.Sending
	doomed bool
}

func (w *world) join(off time.Duration) {
	w.gone++
	h := &peer{name: fmt.Sprintf("w%d", w.gone), off: off, heardOf: w.now}
	h.share = newShare(h.name, silence, w.limits, func() {})
	w.workers = append(w.workers, h)
	w.get(h)
}

func (w *world) local(h *peer) time.Time { return w.now.Add(h.off) }

func (w *world) hear(h *peer, s stored) {
	if err := h.learn(w.local(h), s.revision, s.value, s.at); err != nil {
		w.t.Fatal(err)
	}
}

func (w *world) get(h *peer) { w.hear(h, w.last) }

// doom says which envelopes are not ended any more: whoever is silent for too
// long has lost its batches for good.
func (w *world) doom(h *peer) {
	for _, f := range h.flying {
		f.doomed = f.doomed || w.now.Sub(h.heardOf) > silence
	}
}

// put is what the broker does.
func (w *world) put(h *peer, e *entry) bool {
	if e.expected != w.last.revision {
		return false
	}
	w.last = stored{w.last.revision + 1, e.value, w.now}
	w.doom(h)
	h.heardOf = e.sent.Add(-h.off)
	for _, o := range w.workers {
		o.inbox = append(o.inbox, w.last)
	}
	l, err := readLedger(w.limits, e.value, w.now)
	if err != nil {
		w.t.Fatal(err)
	}
	var before subjects.RelayLedger
	if len(w.before) > 0 {
		if err := json.Unmarshal(w.before, &before); err != nil {
			w.t.Fatal(err)
		}
	}
	w.before = e.value
	for name, share := range before.Workers {
		if _, ok := l.workers[name]; !ok {
			w.wasted += share.Held
		}
	}
	if l.State.AsleepUntil.After(w.asleepUntil) {
		if w.awake > w.limits.MaxMessagesWhileAwake {
			w.t.Fatalf("%d messages while awake, at most %d", w.awake, w.limits.MaxMessagesWhileAwake)
		}
		w.asleepUntil, w.napped, w.awake = l.State.AsleepUntil, w.now, 0
	}
	return true
}

// turn lets a worker write what it wants written, once.
func (w *world) turn(h *peer, fate int) {
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

func (w *world) grant(h *peer, most int) {
	w.grantWhile(h, func(n int) int { return min(n, most) }, func() {})
}

// grantWhile cuts an envelope while something else happens.
func (w *world) grantWhile(h *peer, cut func(granted int) int, meanwhile func()) {
	n := h.Left(w.local(h))
	if n <= 0 {
		return
	}
	meanwhile()
	granted := h.Reserve(w.local(h), n)
	if granted == 0 {
		return
	}
	meanwhile()
	n = cut(granted)
	if n == 0 {
		h.Take(w.local(h), 0)
		return
	}
	if w.now.Before(w.asleepUntil) {
		w.t.Fatalf("%s may send %d in the relay's sleep, until %v", h.name, n, w.asleepUntil.Sub(w.now))
	}
	h.Take(w.local(h), n)
	h.flying = append(h.flying, &flight{Sending: capstest.Sending{Granted: w.now, Taken: n}})
}

func (w *world) settle(h *peer, k, counted int) {
	w.doom(h)
	f := h.flying[k]
	h.flying = slices.Delete(h.flying, k, k+1)
	f.Counted, f.Settled = min(counted, f.Taken), w.now
	if f.doomed {
		f.Counted = 0
	}
	if h.unsure {
		w.wasted += f.Taken
	}
	h.Settle(w.local(h), f.Taken, f.Counted)
	w.landed(f)
}

func (w *world) landed(f *flight) {
	w.sent = append(w.sent, &f.Sending)
	if f.Counted > 0 && f.Granted.Before(w.napped) && !f.Settled.Before(w.napped) && w.limits.SleepLength > 0 {
		w.t.Fatalf("sleep began at %v while %d messages were on their way", w.napped, f.Counted)
	}
	w.awake += f.Counted
}

func (w *world) crash(i int) {
	h := w.workers[i]
	w.doom(h)
	w.workers = slices.Delete(w.workers, i, i+1)
	for _, f := range h.flying { // perhaps accepted
		f.Counted, f.Settled = f.Taken, w.now
		if f.doomed {
			f.Counted = 0
		}
		w.landed(f)
	}
	if h.written != nil {
		w.put(h, h.written)
	}
}

func TestAFleetNeverExceedsACap(t *testing.T) {
	t.Parallel()
	capstest.Check(t, func(t *rapid.T, draw *rapid.Generator[caps.Limits]) {
		fleetKeepsCaps(t, draw.Draw(t, "limits"))
	})
}

func clock(t *rapid.T) time.Duration {
	return time.Duration(rapid.IntRange(-10, 10).Draw(t, "clock")) * time.Hour
}

func fleetKeepsCaps(t *rapid.T, limits caps.Limits) {
	w := &world{t: t, limits: limits, now: capstest.Noon}
	for range rapid.IntRange(1, 4).Draw(t, "workers") {
		w.join(clock(t))
	}
	crashes := rapid.Bool().Draw(t, "crashes")
	for range testrun.InFull(500, 200) {
		h := w.workers[rapid.IntRange(0, len(w.workers)-1).Draw(t, "who")]
		switch rapid.IntRange(0, 11).Draw(t, "step") {
		case 0, 1, 2:
			w.grantWhile(h, func(granted int) int { return min(granted, rapid.IntRange(0, 40).Draw(t, "cut")) }, func() {
				if rapid.IntRange(0, 3).Draw(t, "meanwhile") == 0 {
					w.turn(h, rapid.IntRange(0, 9).Draw(t, "fate"))
				}
			})
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
				w.join(clock(t))
			}
		}
	}
	for _, h := range w.workers {
		for len(h.flying) > 0 {
			w.settle(h, 0, rapid.IntRange(0, 60).Draw(t, "counted"))
		}
	}
	w.sent.Check(t, limits)
	w.checkUse()
}

// checkUse: with a broker that works, whoever is left can send all that is
// left, and what was not sent was held by somebody who crashed.
func (w *world) checkUse() {
	sent := w.sent.Sent()
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
			sent += h.flying[0].Taken
			w.settle(h, 0, h.flying[0].Taken)
		}
		w.turn(h, 9)
		w.now = w.now.Add(50 * time.Millisecond)
	}
}

// TestAFleetSendsAsMuchAsTheTableAllows: one worker and several are held to the table
// that a pool by itself is held to.
func TestAFleetSendsAsMuchAsTheTableAllows(t *testing.T) {
	t.Parallel()
	for _, workers := range []int{1, 4} {
		for _, c := range capstest.Cases() {
			t.Run(fmt.Sprint(workers, " ", c.Name), func(t *testing.T) {
				t.Parallel()
				w := &world{t: t, limits: c.Limits, now: capstest.Noon}
				for i := range workers {
					w.join(time.Duration(i) * time.Hour)
				}
				for end := capstest.Noon.Add(c.For); w.now.Before(end); w.now = w.now.Add(c.For / 1500) {
					w.everybodySends()
				}
				w.sent.Check(t, c.Limits)
				if n := w.sent.Sent(); n > c.AtMost || n < c.AtLeast {
					t.Errorf("%d messages, want %d to %d", n, c.AtLeast, c.AtMost)
				}
			})
		}
	}
}

// everybodySends has each worker send an envelope if it may, and write if it wants.
func (w *world) everybodySends() {
	for _, h := range w.workers {
		for _, s := range h.inbox {
			w.hear(h, s)
		}
		h.inbox = h.inbox[:0]
		w.grant(h, w.limits.Envelope())
		for len(h.flying) > 0 {
			w.settle(h, 0, h.flying[0].Taken)
		}
		w.turn(h, 9)
	}
}

// What was left when a pool looked may be given back while it cuts an envelope: the
// pool must not send it all the same, for another worker may have leased it since.
func TestWhatWasGivenBackMeanwhileIsNotSent(t *testing.T) {
	t.Parallel()
	w := &world{t: t, limits: caps.Limits{MaxMessages: 30}, now: capstest.Noon}
	w.join(0)
	h := w.workers[0]
	for h.Left(w.now) == 0 {
		w.everybodyWrites()
	}
	w.now = w.now.Add(2 * idleAfter) // long enough for it to be given back
	left := h.Left(w.now)
	w.everybodyWrites()
	if n := h.Reserve(w.now, left); n != 0 {
		t.Errorf("%d messages are reserved of those that were given back", n)
	}
	for h.Left(w.now) == 0 {
		w.everybodyWrites()
	}
	w.now = w.now.Add(2 * idleAfter)
	reserved := h.Reserve(w.now, 10)
	w.everybodyWrites()
	h.Take(w.now, 4)
	w.now = w.now.Add(2 * idleAfter)
	h.Settle(w.now, 4, 4)
	for range 10 {
		w.everybodyWrites()
		w.now = w.now.Add(2 * idleAfter)
	}
	l, err := readLedger(w.limits, w.last.value, w.last.at)
	if err != nil {
		t.Fatal(err)
	}
	if reserved != 10 || l.State.Used != 4 || l.State.Held != 0 {
		t.Errorf("%d were reserved, then %d are used and %d held: want 10, 4 and 0", reserved, l.State.Used, l.State.Held)
	}
}

// everybodyWrites lets each worker write and read what it wants.
func (w *world) everybodyWrites() {
	for _, h := range w.workers {
		w.turn(h, 9)
		for _, s := range h.inbox {
			w.hear(h, s)
		}
		h.inbox = h.inbox[:0]
	}
}
