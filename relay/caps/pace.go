package caps

import "time"

// A Level is how full a token bucket is: it holds a quantum at Full. Dry is that
// it ran out of tokens: it waits for Full then, so that envelopes do not shrink to
// single recipients.
type Level struct {
	Full time.Time
	Dry  bool
}

const (
	// A quantum is worth no more than the longer of these, so that 10000/h is no
	// burst followed by an hour of silence.
	shortestQuantum = time.Second
	quantaInPeriod  = 60
	// A fast rate goes in at most so many quanta a second: each costs a fleet an
	// entry on the broker.
	quantaInSecond = 64
)

// quantum is what goes at once of a rate that is used up: an envelope, or of a fast
// rate more.
func (l Limits) quantum(r Rate) int {
	envelope := l.EnvelopeLimit
	if envelope <= 0 {
		envelope = usualEnvelope
	}
	return max(1, min(envelope, r.in(max(shortestQuantum, r.Per/quantaInPeriod))), r.in(time.Second)/quantaInSecond)
}

// A pace lets messages go evenly: a token bucket of two quanta, whose level is
// part of the state of a ledger.
type pace struct {
	Rate
	quantum int
	*Level
}

// tokens is how many messages may go now.
func (p pace) tokens(now time.Time) int {
	if p.Dry && now.Before(p.Full) {
		return 0
	}
	over := min(now.Sub(p.Full), p.worth(p.quantum))
	tokens := float64(p.quantum) + float64(over)/float64(p.Per)*float64(p.Messages)
	return int(tokens + 1e-6) // a token that is due to the nanosecond must not be lost to rounding
}

func (p pace) spend(now time.Time, messages int) {
	// A bucket that has been full for long holds no more than two quanta.
	if oldest := now.Add(-p.worth(p.quantum)); p.Full.Before(oldest) {
		p.Full = oldest
	}
	p.Dry = false
	p.Full = p.Full.Add(p.worth(messages))
	p.Dry = p.tokens(now) < 1
}

func (p pace) refund(messages int) { p.Full = p.Full.Add(-p.worth(messages)) }
