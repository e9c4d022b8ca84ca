package relay

import "time"

// rateLimit is max_rate. Two things bound it: a record of the messages of the
// last period, so that no period of that length, wherever it begins, sees more
// than the cap; and a token bucket that spreads them, so that 10000/h is not a
// burst followed by an hour of silence.
//
// The relay counts a message at some moment between grant and reply. A message
// therefore counts from its grant until a full period after its reply.
type rateLimit struct {
	held    int     // taken, not settled
	counted int     // sum over recent
	recent  []spent // settled within the last period, oldest first

	pace
}

// spent is messages settled between first and last, kept together to bound the
// record.
type spent struct {
	first, last time.Time
	messages    int
}

const rateSlots = 256 // entries a period in the record

func newRateLimit(r Rate, envelopeLimit int) *rateLimit {
	if r.Messages <= 0 || r.Per <= 0 {
		return nil
	}
	return &rateLimit{pace: newPace(r, envelopeLimit)}
}

// changed is the limit to, with what was counted under l.
func (l *rateLimit) changed(to *rateLimit) *rateLimit {
	if l == nil || to == nil {
		return to
	}
	to.held, to.counted, to.recent = l.held, l.counted, l.recent
	to.goOn(l.pace)
	return to
}

func (l *rateLimit) expire(now time.Time) {
	drop := 0
	for drop < len(l.recent) && !now.Before(l.recent[drop].last.Add(l.per)) {
		l.counted -= l.recent[drop].messages
		drop++
	}
	if drop > 0 {
		l.recent = l.recent[:copy(l.recent, l.recent[drop:])]
	}
}

func (l *rateLimit) left(now time.Time) int {
	l.expire(now)
	return min(l.n-l.held-l.counted, l.tokens(now))
}

func (l *rateLimit) take(now time.Time, messages int) {
	l.held += messages
	l.spend(now, messages)
}

func (l *rateLimit) settle(now time.Time, taken, counted int) {
	l.held -= taken
	l.refund(taken - counted)
	if counted == 0 {
		return
	}
	l.expire(now)
	l.counted += counted
	if last := len(l.recent) - 1; last >= 0 && now.Sub(l.recent[last].first) < l.per/rateSlots {
		l.recent[last].last = later(l.recent[last].last, now)
		l.recent[last].messages += counted
		return
	}
	l.recent = append(l.recent, spent{first: now, last: now, messages: counted})
}

func (l *rateLimit) wait(now time.Time) Wait {
	if l.left(now) > 0 {
		return Wait{}
	}
	w := Wait{Limit: LimitRate}
	if l.n-l.held-l.counted > 0 {
		w.Until = l.full
		return w
	}
	if len(l.recent) == 0 {
		return w
	}
	w.Until = l.recent[0].last.Add(l.per)
	if l.dry && l.full.After(w.Until) {
		w.Until = l.full
	}
	return w
}

func (l *rateLimit) reset() {
	l.recent, l.counted = l.recent[:0], 0
	l.restart()
}
