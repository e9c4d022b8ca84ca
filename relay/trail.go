package relay

import (
	"math"
	"slices"
	"time"

	"bulkmail/relay/smtp"
)

// A Trail is what recipients have been through in this attempt without a
// verdict: which relays would not have them, and how often a relay stumbled over
// an envelope with them. A nil Trail is that of recipients nobody has met yet.
//
// A source keeps it with the recipients that it puts back (see
// [Envelope.TrailOf]), asks [Grant.For] before it cuts them again, and sets it as
// [Envelope.Trail] then. A Trail never changes. Recipients of two Trails must not
// share an envelope.
type Trail struct {
	refused  []string  // relays that would not have them
	stumbles int       // relays have stumbled over them so many times
	at       time.Time // of the last time
	by       string    // the relay that stumbled then
	said     *smtp.Reply
	alone    bool // it was over one recipient, no other could be meant
	most     int  // at most so many of them in an envelope, to find out who it is; 0: any number
}

const (
	// sureStumbles is how often one recipient alone may make relays stumble
	// before it is deferred, when nobody else is there to show that they are
	// well.
	sureStumbles = 3
	// maxBroken is how often an envelope may be cut short by a connection that
	// breaks. It might be what breaks it.
	maxBroken = 3
)

// For is how many recipients with that Trail the grant is for; 0: others first,
// or another relay.
func (g Grant) For(t *Trail) int {
	switch {
	case t == nil:
		return g.Messages
	case g.fresh, g.member != nil && t.hasRefused(g.Relay) && g.pool.another(g.member, t, g.now):
		return 0
	case t.most > 0:
		return min(g.Messages, t.most)
	}
	return g.Messages
}

// TrailOf is what a source keeps with recipient i when it puts it back.
func (e *Envelope) TrailOf(i int) *Trail {
	if e.Results[i].Reply != nil {
		return e.after
	}
	return e.Trail // the relay did not come as far as this one
}

// refusedBy is t and one relay more that would not have them.
func (t *Trail) refusedBy(relay string) *Trail {
	var after Trail
	if t != nil {
		after = *t
	}
	after.refused = append(slices.Clone(after.refused), relay)
	return &after
}

// StumbledAlone is the relay that stumbled last and what it said, if it was over
// this recipient and no other; nil: it was not. A source that gives up what waits,
// as no relay can take anything, defers such a recipient.
func (t *Trail) StumbledAlone() (relay string, said *smtp.Reply) {
	if t == nil || !t.alone {
		return "", nil
	}
	return t.by, t.said
}

// stumbled is t and one time more that a relay stumbled over an envelope of so
// many recipients, and what it said. The second time it is likely to be one of
// these, and smaller envelopes tell which; told says that others passed meanwhile:
// then it is.
func (t *Trail) stumbled(now time.Time, recipients int, told bool, by string, said *smtp.Reply) *Trail {
	var after Trail
	if t != nil {
		after = *t
	}
	after.stumbles++
	after.at, after.by, after.said, after.alone = now, by, said, recipients == 1
	if told || after.stumbles > 1 {
		after.most = 1
		if root := int(math.Ceil(math.Sqrt(float64(recipients)))); recipients > 4 && root < recipients {
			after.most = root
		}
	}
	return &after
}

// suspect tells whether relays have stumbled over these recipients.
func (t *Trail) suspect() bool { return t != nil && t.stumbles > 0 }

// hasRefused tells whether a relay would not have these recipients.
func (t *Trail) hasRefused(relay string) bool { return slices.Contains(t.refused, relay) }

// another tells whether a relay that has not refused these recipients could take
// them soon. Caller holds mu.
func (p *Pool) another(m *member, t *Trail, now time.Time) bool {
	for i, other := range p.members {
		if other == m || t != nil && t.hasRefused(other.name) {
			continue
		}
		if other.open == 0 && len(other.dials) > 0 && now.Sub(other.dials[0]) >= p.opts.DialPatience {
			continue // it does not answer
		}
		if at, never := p.nextAt(now, i, other); !never && at.Sub(now) <= p.opts.StallAfter {
			return true
		}
	}
	return false
}

// notSent is what is said to recipients whose connection broke before the server
// had their message.
func notSent(said *smtp.Error) *smtp.Reply {
	if said.Reply != nil {
		return said.Reply
	}
	return &smtp.Reply{Code: 451, Enhanced: "4.4.2", Text: "not sent: the connection was lost", Command: said.Command, Local: true}
}
