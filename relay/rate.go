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
	n   int
	per time.Duration

	held    int     // taken, not settled
	counted int     // sum over recent
	recent  []spent // settled within the last period, oldest first

	quantum int       // tokens given out in one go after the bucket ran dry
	full    time.Time // when the bucket holds a quantum
	dry     bool      // ran out of tokens: wait until full, so that envelopes do not shrink to single recipients
}

// spent is messages settled between first and last, kept together to bound the
// record.
type spent struct {
	first, last time.Time
	messages    int
}

const (
	rateSlots       = 256             // entries a period in the record
	rateSpread      = 60              // quanta a period, at least, if that makes a quantum longer than a second
	usualRecipients = 100             // quantum where envelopes are not limited
	shortestSpread  = 1 * time.Second // no quantum need be worth less
)

func newRateLimit(r Rate, envelopeLimit int) *rateLimit {
	if r.Messages <= 0 || r.Per <= 0 {
		return nil
	}
	if envelopeLimit <= 0 {
		envelopeLimit = usualRecipients
	}
	l := &rateLimit{n: r.Messages, per: r.Per}
	spread := min(max(shortestSpread, r.Per/rateSpread), r.Per)
	inSpread := int(float64(r.Messages) * (float64(spread) / float64(r.Per)))
	l.quantum = max(1, min(envelopeLimit, inSpread, r.Messages))
	return l
}

// changed is the limit to, with what was counted under l.
func (l *rateLimit) changed(to *rateLimit) *rateLimit {
	if l == nil || to == nil {
		return to
	}
	to.held, to.counted, to.recent = l.held, l.counted, l.recent
	to.full, to.dry = l.full, l.dry
	return to
}

// worth is the time in which so many tokens flow in.
func (l *rateLimit) worth(messages int) time.Duration {
	return time.Duration(float64(l.per) * (float64(messages) / float64(l.n)))
}

// tokens in the bucket; it holds two quanta at most.
func (l *rateLimit) tokens(now time.Time) int {
	if l.dry && now.Before(l.full) {
		return 0
	}
	over := min(now.Sub(l.full), l.worth(l.quantum))
	tokens := float64(l.quantum) + float64(over)/float64(l.per)*float64(l.n)
	return int(tokens + 1e-6) // a token that is due to the nanosecond must not be lost to rounding
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
	// A bucket that has been full for long holds no more than two quanta.
	if oldest := now.Add(-l.worth(l.quantum)); l.full.Before(oldest) {
		l.full = oldest
	}
	l.dry = false
	l.full = l.full.Add(l.worth(messages))
	l.dry = l.tokens(now) < 1
}

func (l *rateLimit) settle(now time.Time, taken, counted int) {
	l.held -= taken
	l.full = l.full.Add(-l.worth(taken - counted))
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
	l.full, l.dry = time.Time{}, false
}
