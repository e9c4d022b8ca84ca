package caps

import (
	"slices"
	"time"
)

// A State is what a ledger has counted. The zero State is that of a relay that has
// been given nothing yet.
type State struct {
	Held int // taken by all members together and not settled

	Used       int       // counted towards max_messages, in this window
	WindowEnds time.Time // of max_messages_window

	Awake       int       // counted since the relay woke up
	AsleepUntil time.Time // max_messages_while_awake was reached

	// Recent is what was counted within the last period of max_rate, oldest first:
	// microseconds since 1970, and messages that were counted by then.
	Recent [][2]int64
	Rate   Level // of max_rate
	Spread Level // of max_messages_spread
}

// A Ledger is the allowance of one relay. Make it with [New].
//
// Times that it is given must not go back by more than the members' clocks differ;
// an earlier time errs towards less.
type Ledger struct {
	Limits Limits
	State  State

	recent int // sum of State.Recent
}

// New is the ledger of a relay with that state.
func New(l Limits, s State) *Ledger {
	made := &Ledger{Limits: l, State: s}
	for _, r := range s.Recent {
		made.recent += int(r[1])
	}
	return made
}

// Clone is a copy that shares nothing.
func (l *Ledger) Clone() *Ledger {
	c := *l
	c.State.Recent = slices.Clone(l.State.Recent)
	return &c
}

func (l *Ledger) rate() pace {
	return pace{l.Limits.MaxRate, l.Limits.quantum(l.Limits.MaxRate), &l.State.Rate}
}

func (l *Ledger) spread() pace {
	return pace{l.Limits.spread(), l.Limits.quantum(l.Limits.spread()), &l.State.Spread}
}

// Left is how many messages may be taken now.
func (l *Ledger) Left(now time.Time) int {
	left := l.Unused(now)
	if l.Limits.rateOn() && left > 0 {
		left = min(left, l.rate().tokens(now))
	}
	if l.Limits.spreadOn() && left > 0 {
		left = min(left, l.spread().tokens(now))
	}
	return max(left, 0)
}

// Remaining is Left.
func (l *Ledger) Remaining(now time.Time) int { return l.Left(now) }

// Unused is what is left of all caps, whether it is due or not.
func (l *Ledger) Unused(now time.Time) int {
	l.roll(now)
	left := l.quotaLeft()
	if l.Limits.awakeOn() {
		if now.Before(l.State.AsleepUntil) {
			return 0
		}
		left = min(left, l.awakeLeft())
	}
	if l.Limits.rateOn() {
		left = min(left, l.rateLeft())
	}
	return max(left, 0)
}

func (l *Ledger) quotaLeft() int {
	if !l.Limits.quotaOn() {
		return Unlimited
	}
	return l.Limits.MaxMessages - l.State.Used - l.State.Held
}

func (l *Ledger) awakeLeft() int {
	return l.Limits.MaxMessagesWhileAwake - l.State.Awake - l.State.Held
}

func (l *Ledger) rateLeft() int { return l.Limits.MaxRate.Messages - l.State.Held - l.recent }

// Tight tells whether more than half of max_rate is used or held. What a member
// holds longer than it must is a loss then, and none while there is plenty.
func (l *Ledger) Tight() bool {
	return l.Limits.rateOn() && 2*l.rateLeft() <= l.Limits.MaxRate.Messages
}

// Reserve is all of the messages: between Left and Take nobody else is given any.
func (l *Ledger) Reserve(_ time.Time, messages int) int { return messages }

// Take gives a member so many messages, at most what is left.
func (l *Ledger) Take(now time.Time, messages int) {
	l.State.Held += messages
	if l.Limits.rateOn() {
		l.rate().spend(now, messages)
	}
	if l.Limits.spreadOn() {
		l.spread().spend(now, messages)
	}
}

// Settle says that of so many messages taken so many count: those that the relay
// accepted or may have accepted. The rest is given back. Of messages that count and
// were accepted over some time now is the end of it.
func (l *Ledger) Settle(now time.Time, taken, counted int) {
	l.roll(now)
	l.State.Held -= taken
	if l.Limits.rateOn() {
		l.rate().refund(taken - counted)
	}
	if l.Limits.spreadOn() {
		l.spread().refund(taken - counted)
	}
	l.State.Used += counted
	if l.Limits.rateOn() && counted > 0 {
		l.record(now, counted)
	}
	if l.Limits.awakeOn() {
		// Sleep begins when the last message is settled, so that the relay has its
		// pause in full.
		l.State.Awake += counted
		if l.State.Awake >= l.Limits.MaxMessagesWhileAwake {
			l.State.Awake, l.State.AsleepUntil = 0, now.Add(l.Limits.SleepLength)
		}
	}
}

// roll drops what is over at now. What is held when a window turns was counted in
// the window it was taken in and counts in the one it is settled in as well, for
// nobody knows on which side of the turn the relay counts it.
func (l *Ledger) roll(now time.Time) {
	if l.Limits.windowOn() {
		turns := now.Truncate(l.Limits.MaxMessagesWindow).Add(l.Limits.MaxMessagesWindow)
		if !now.Before(l.State.WindowEnds) {
			l.State.WindowEnds, l.State.Used = turns, 0
		} else if l.State.WindowEnds.After(turns) {
			l.State.WindowEnds = turns // the window was longer once
		}
	}
	if !l.Limits.rateOn() {
		return // whoever has a max_rate will want to know
	}
	over, drop := now.Add(-l.Limits.MaxRate.Per).UnixMicro(), 0
	for drop < len(l.State.Recent) && l.State.Recent[drop][0] <= over {
		l.recent -= int(l.State.Recent[drop][1])
		drop++
	}
	l.State.Recent = slices.Delete(l.State.Recent, 0, drop)
}

// The record of max_rate has so many entries a period, fewer while there is plenty
// left of it: what shares an entry is dropped together.
const (
	fineCells   = 128
	coarseCells = 16
)

// record notes messages that were counted by now. They count until a full period
// after that, and from when they were taken, for the relay counts them at some
// moment in between.
func (l *Ledger) record(now time.Time, messages int) {
	at := now.Add(time.Microsecond - 1).UnixMicro() // rounded up
	l.recent += messages
	cells := int64(coarseCells)
	if l.Tight() {
		cells = fineCells
	}
	cell := max(1, l.Limits.MaxRate.Per.Microseconds()/cells)
	if last := len(l.State.Recent) - 1; last >= 0 && (l.State.Recent[last][0] >= at || l.State.Recent[last][0]/cell == at/cell) {
		l.State.Recent[last] = [2]int64{max(l.State.Recent[last][0], at), l.State.Recent[last][1] + int64(messages)}
		return
	}
	l.State.Recent = append(l.State.Recent, [2]int64{at, int64(messages)})
}

// Wait tells why nothing is left: the limit that lasts longest.
func (l *Ledger) Wait(now time.Time) Wait {
	l.roll(now)
	var longest Wait
	for _, w := range [...]Wait{l.quotaWait(), l.spreadWait(now), l.awakeWait(now), l.rateWait(now)} {
		if w.outlasts(longest) {
			longest = w
		}
	}
	return longest
}

func (l *Ledger) quotaWait() Wait {
	switch {
	case l.quotaLeft() > 0:
		return Wait{}
	case l.State.Used < l.Limits.MaxMessages:
		return Wait{Limit: LimitMaxMessages}
	case l.Limits.windowOn():
		return Wait{Limit: LimitMaxMessages, Until: l.State.WindowEnds}
	default:
		return Wait{Limit: LimitMaxMessages, Never: true}
	}
}

func (l *Ledger) spreadWait(now time.Time) Wait {
	if !l.Limits.spreadOn() || l.spread().tokens(now) > 0 {
		return Wait{}
	}
	return Wait{Limit: LimitSpread, Until: l.State.Spread.Full}
}

func (l *Ledger) awakeWait(now time.Time) Wait {
	switch {
	case !l.Limits.awakeOn():
		return Wait{}
	case now.Before(l.State.AsleepUntil):
		return Wait{Limit: LimitWhileAwake, Until: l.State.AsleepUntil}
	case l.awakeLeft() > 0:
		return Wait{}
	default:
		return Wait{Limit: LimitWhileAwake}
	}
}

func (l *Ledger) rateWait(now time.Time) Wait {
	if !l.Limits.rateOn() {
		return Wait{}
	}
	w := Wait{Limit: LimitRate}
	if l.rateLeft() > 0 {
		if l.rate().tokens(now) > 0 {
			return Wait{}
		}
		w.Until = l.State.Rate.Full
		return w
	}
	if len(l.State.Recent) == 0 {
		return w
	}
	w.Until = time.UnixMicro(l.State.Recent[0][0]).Add(l.Limits.MaxRate.Per)
	if l.State.Rate.Dry && l.State.Rate.Full.After(w.Until) {
		w.Until = l.State.Rate.Full
	}
	return w
}

// Reset is the reset of Mail::Bulkmail::Server: nothing has been counted. What is
// held stays held, and the messages of the last period of max_rate still count, for
// the relay knows of them.
func (l *Ledger) Reset(time.Time) {
	l.State.Used, l.State.Awake, l.State.AsleepUntil = 0, 0, time.Time{}
	l.State.Rate, l.State.Spread = Level{}, Level{}
}

// Change sets other limits; what was counted stays.
func (l *Ledger) Change(to Limits) {
	l.Limits = to
	if !to.awakeOn() || l.State.Awake >= to.MaxMessagesWhileAwake {
		l.State.Awake = 0 // nothing that is held might end that
	}
}
