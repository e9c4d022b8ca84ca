package fleet

import (
	"maps"
	"slices"
	"time"

	"bulkmail/relay"
	"bulkmail/subjects"
)

// A ledger is a relay's allowance as the fleet shares it. It has no lock, no
// clock and no broker: it is told the broker's time.
//
// What workers hold counts towards every cap until it is reported or given
// back, so that no cap is exceeded whatever becomes of it. That is the same
// reckoning as that of a pool by itself, with leases for envelopes in flight.
type ledger struct {
	subjects.RelayLedger
	limits relay.Limits
}

const (
	// rateCells bounds the record of max_rate: entries a period.
	rateCells = 128
	// usualRecipients is what an envelope is taken to hold where it has no
	// limit.
	usualRecipients = 100
)

// envelope is the least that is worth leasing.
func (l *ledger) envelope() int {
	if l.limits.EnvelopeLimit <= 0 {
		return usualRecipients
	}
	return min(l.limits.EnvelopeLimit, usualRecipients)
}

func (l *ledger) quotaOn() bool { return l.limits.MaxMessages > 0 }
func (l *ledger) rateOn() bool  { return l.limits.MaxRate.Messages > 0 && l.limits.MaxRate.Per > 0 }
func (l *ledger) spreadOn() bool {
	return l.limits.Spread() != relay.Rate{}
}
func (l *ledger) awakeOn() bool {
	return l.limits.MaxMessagesWhileAwake > 0 && l.limits.SleepLength > 0
}

// clone makes a copy that can be changed.
func (l *ledger) clone() *ledger {
	c := *l
	c.Recent, c.Workers = slices.Clone(l.Recent), maps.Clone(l.Workers)
	if c.Workers == nil {
		c.Workers = make(map[string]subjects.RelayShare, 1)
	}
	return &c
}

// stored says when the broker stored the entry that l was read from. What that
// entry reported has happened by then, and counts as if it happened then.
func (l *ledger) stored(at time.Time) {
	fresh := l.Fresh
	l.Fresh = 0
	for name, share := range l.Workers {
		if share.Seen.IsZero() { // the writer's own
			share.Seen = at
			l.Workers[name] = share
		}
	}
	if window := l.limits.MaxMessagesWindow; window > 0 && l.WindowEnds.After(at.Truncate(window).Add(window)) {
		l.WindowEnds = at.Truncate(window).Add(window) // the window was longer once
	}
	if l.quotaOn() && l.limits.MaxMessagesWindow > 0 && !at.Before(l.WindowEnds) {
		l.WindowEnds, l.Used = at.Truncate(l.limits.MaxMessagesWindow).Add(l.limits.MaxMessagesWindow), fresh
	}
	if l.rateOn() && fresh > 0 {
		// Rounded up, for what is recorded later than it was does no harm.
		l.record(at.UnixMicro()+1, int64(fresh))
	}
	if l.awakeOn() && l.Awake >= l.limits.MaxMessagesWhileAwake {
		l.Awake, l.AsleepUntil = 0, at.Add(l.limits.SleepLength)
	}
}

func (l *ledger) record(at, messages int64) {
	cell := max(1, l.limits.MaxRate.Per.Microseconds()/rateCells)
	if last := len(l.Recent) - 1; last >= 0 && (l.Recent[last][0] >= at || l.Recent[last][0]/cell == at/cell) {
		l.Recent[last] = [2]int64{max(l.Recent[last][0], at), l.Recent[last][1] + messages}
		return
	}
	l.Recent = append(l.Recent, [2]int64{at, messages})
}

// roll drops what is over at now.
func (l *ledger) roll(now time.Time) {
	if l.quotaOn() && l.limits.MaxMessagesWindow > 0 && !now.Before(l.WindowEnds) {
		l.WindowEnds, l.Used = now.Truncate(l.limits.MaxMessagesWindow).Add(l.limits.MaxMessagesWindow), 0
	}
	over := now.Add(-l.limits.MaxRate.Per).UnixMicro()
	l.Recent = slices.DeleteFunc(l.Recent, func(r [2]int64) bool { return !l.rateOn() || r[0] <= over })
}

// fold counts what workers hold that have been silent for too long: nobody
// knows what became of it. It tells whether there was any.
func (l *ledger) fold(now time.Time, silence time.Duration, self string) bool {
	before := l.Fresh
	for name, share := range l.Workers {
		if name != self && now.Sub(share.Seen) > silence {
			l.count(share.Held)
			delete(l.Workers, name)
		}
	}
	return l.Fresh > before
}

// count counts messages in the entry that is about to be written.
func (l *ledger) count(messages int) {
	l.Fresh += messages
	l.Used += messages
	if l.awakeOn() {
		l.Awake += messages
	}
}

func (l *ledger) held() int {
	n := 0
	for _, share := range l.Workers {
		n += share.Held
	}
	return n
}

// wants tells whether a worker other than self could send more.
func (l *ledger) wants(self string) bool {
	for name, share := range l.Workers {
		if share.Wants && name != self {
			return true
		}
	}
	return false
}

func (l *ledger) recent() int {
	n := l.Fresh
	for _, r := range l.Recent {
		n += int(r[1])
	}
	return n
}

// left is what may be leased now; l was rolled.
func (l *ledger) left(now time.Time) int {
	left := l.capsLeave(now)
	if l.rateOn() && left > 0 {
		left = min(left, l.rate().tokens(now))
	}
	if l.spreadOn() && left > 0 {
		left = min(left, l.spread().tokens(now))
	}
	return max(left, 0)
}

// capsLeave is what is left of all caps, whether it is due or not.
func (l *ledger) capsLeave(now time.Time) int {
	held := l.held()
	left := l.quotaLeft(held)
	if l.awakeOn() {
		if now.Before(l.AsleepUntil) {
			return 0
		}
		left = min(left, l.limits.MaxMessagesWhileAwake-l.Awake-held)
	}
	if l.rateOn() {
		left = min(left, l.limits.MaxRate.Messages-held-l.recent())
	}
	return max(left, 0)
}

func (l *ledger) quotaLeft(held int) int {
	if !l.quotaOn() {
		return relay.Unlimited
	}
	return l.limits.MaxMessages - l.Used - held
}

// wait tells why nothing is left, in the broker's time; l was rolled.
func (l *ledger) wait(now time.Time) relay.Wait {
	held := l.held()
	if l.quotaLeft(held) <= 0 {
		w := relay.Wait{Limit: relay.LimitMaxMessages}
		if l.Used >= l.limits.MaxMessages {
			w.Until, w.Never = l.WindowEnds, l.limits.MaxMessagesWindow <= 0
		}
		return w
	}
	if l.awakeOn() {
		if now.Before(l.AsleepUntil) {
			return relay.Wait{Limit: relay.LimitWhileAwake, Until: l.AsleepUntil}
		}
		if l.limits.MaxMessagesWhileAwake-l.Awake-held <= 0 {
			return relay.Wait{Limit: relay.LimitWhileAwake}
		}
	}
	w := l.rateWait(held, now)
	if l.spreadOn() && (w.Limit == relay.NoLimit || !w.Until.IsZero() && w.Until.Before(l.Spread)) {
		if pace := l.spread(); pace.tokens(now) < 1 {
			return relay.Wait{Limit: relay.LimitSpread, Until: l.Spread}
		}
	}
	return w
}

func (l *ledger) rateWait(held int, now time.Time) relay.Wait {
	if !l.rateOn() {
		return relay.Wait{}
	}
	w := relay.Wait{Limit: relay.LimitRate}
	switch {
	case l.limits.MaxRate.Messages-held-l.recent() > 0:
		if pace := l.rate(); pace.tokens(now) > 0 {
			return relay.Wait{}
		}
		w.Until = l.Paced
	case len(l.Recent) > 0:
		w.Until = time.UnixMicro(l.Recent[0][0]).Add(l.limits.MaxRate.Per)
	}
	return w
}

// lease gives messages, at most what is left, to a worker.
func (l *ledger) lease(now time.Time, messages int) {
	if l.rateOn() {
		l.rate().spend(now, messages)
	}
	if l.spreadOn() {
		l.spread().spend(now, messages)
	}
}

// giveBack takes back what a worker does not use.
func (l *ledger) giveBack(messages int) {
	if l.rateOn() {
		l.rate().refund(messages)
	}
	if l.spreadOn() {
		l.spread().refund(messages)
	}
}

// quantum is what may be leased in one go: what max_rate and max_messages_spread
// let go once they are used up.
func (l *ledger) quantum() int {
	n := relay.Unlimited
	if l.rateOn() {
		n = l.rate().quantum()
	}
	if l.spreadOn() {
		n = min(n, l.spread().quantum())
	}
	return n
}

// within is d, or less where the time counts: what is held takes room in every
// period of a rate, and is reported late, which is no loss while there is plenty.
func (l *ledger) within(d time.Duration, part int64) time.Duration {
	if !l.rateOn() || 2*(l.held()+l.recent()) < l.limits.MaxRate.Messages {
		return d
	}
	return min(d, max(l.limits.MaxRate.Per/time.Duration(part), 2*time.Millisecond))
}
