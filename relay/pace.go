package relay

import "time"

// pace is a token bucket that spreads so many messages over so much time. It is
// told the time; once it ran dry it waits until it holds a quantum, so that
// envelopes do not shrink to single recipients.
type pace struct {
	n   int
	per time.Duration

	quantum int       // tokens given out in one go after the bucket ran dry
	full    time.Time // when the bucket holds a quantum
	dry     bool      // ran out of tokens: wait until full
}

const (
	rateSpread      = 60              // quanta a period, at least, if that makes a quantum longer than a second
	usualRecipients = 100             // quantum where envelopes are not limited
	shortestSpread  = 1 * time.Second // no quantum need be worth less
)

func newPace(r Rate, envelopeLimit int) pace {
	if envelopeLimit <= 0 {
		envelopeLimit = usualRecipients
	}
	spread := min(max(shortestSpread, r.Per/rateSpread), r.Per)
	inSpread := int(float64(r.Messages) * (float64(spread) / float64(r.Per)))
	return pace{n: r.Messages, per: r.Per, quantum: max(1, min(envelopeLimit, inSpread, r.Messages))}
}

// goOn goes on where another pace is.
func (p *pace) goOn(was pace) { p.full, p.dry = was.full, was.dry }

func (p *pace) restart() { p.goOn(pace{}) }

// worth is the time in which so many tokens flow in.
func (p *pace) worth(messages int) time.Duration {
	return time.Duration(float64(p.per) * (float64(messages) / float64(p.n)))
}

// tokens in the bucket; it holds two quanta at most.
func (p *pace) tokens(now time.Time) int {
	if p.dry && now.Before(p.full) {
		return 0
	}
	over := min(now.Sub(p.full), p.worth(p.quantum))
	tokens := float64(p.quantum) + float64(over)/float64(p.per)*float64(p.n)
	return int(tokens + 1e-6) // a token that is due to the nanosecond must not be lost to rounding
}

func (p *pace) spend(now time.Time, messages int) {
	// A bucket that has been full for long holds no more than two quanta.
	if oldest := now.Add(-p.worth(p.quantum)); p.full.Before(oldest) {
		p.full = oldest
	}
	p.dry = false
	p.full = p.full.Add(p.worth(messages))
	p.dry = p.tokens(now) < 1
}

func (p *pace) refund(messages int) { p.full = p.full.Add(-p.worth(messages)) }
