package relay

import (
	"slices"
	"time"

	"bulkmail/relay/smtp"
)

// An inquiry finds out what follows from an envelope that did not simply pass.
// Package smtp says whom each refusal blames; here it meets what else is known:
// whether another relay could be asked, and whether this one passes others.
//
//	blamed by the reply    another relay    this one passes others    what becomes of the recipients
//	the recipient          –                –                         the verdict of the reply
//	the envelope           can be asked     –                         not attempted: the other one is asked
//	the envelope           none             –                         the verdict, on the envelope as a whole
//	the relay              can be asked     –                         not attempted: the other one is asked
//	the relay              none             yes                       deferred
//	the relay              none             nobody knows              not attempted: the relay waits
//
// A session that breaks, or a relay that says that it is unwell, over this
// envelope (it stumbles):
//
//	this one passes others    recipients               what becomes of them
//	nobody knows              any number               not attempted: the relay waits, others may try it
//	yes                       several                  not attempted, in smaller envelopes
//	yes                       one, or one was named    deferred
//	nobody knows              the same, the 3rd time   deferred
type inquiry struct {
	p       *Pool
	s       *session
	m       *member
	e       *Envelope
	now     time.Time
	what    mishap
	tally   tally
	suspect bool // a relay has stumbled over these recipients before
	cleared bool // and this one has passed others since
}

// inquire draws the conclusions from what became of e. It returns what the source
// is told of the relay. Caller holds mu.
func (s *session) inquire(e *Envelope, t tally, err error, what mishap, now time.Time) *Error {
	q := &inquiry{p: s.pool, s: s, m: s.member, e: e, now: now, what: what, tally: t}
	q.suspect = e.Trail.suspect()
	q.cleared = q.suspect && s.member.passed.After(e.Trail.at)
	q.what.suspect = q.suspect
	if t.accepted > 0 {
		q.m.refusals = 0
	}
	var failure *Error
	if t.blamed > 0 {
		failure = q.refusals(err != nil)
	}
	if err != nil {
		return q.stumble(err)
	}
	if t.tried == 0 && t.blamed == 0 {
		// A verdict for nobody: it must not be asked again and again.
		q.what.stale = false
		return q.stumble(errNoVerdict)
	}
	return failure
}

// refusals decides about those whose refusal blames the envelope or the relay.
func (q *inquiry) refusals(failed bool) *Error {
	e, m := q.e, q.m
	elsewhere := q.p.another(m, e.Trail, q.now)
	whole := q.tally.blamed == q.tally.verdicts // nobody was accepted, and nobody refused for a reason of their own
	waits := false
	var cause *smtp.Reply
	for i := range e.Results {
		r := &e.Results[i]
		if r.Blame == smtp.BlameRecipient || r.Status != smtp.Deferred && r.Status != smtp.Rejected {
			continue
		}
		cause = r.Reply
		switch {
		case elsewhere:
			*r = smtp.Result{Status: smtp.NotAttempted, Reply: r.Reply}
		case r.Blame == smtp.BlameEnvelope:
		case whole && !failed && !q.cleared && !q.isSure(len(e.Recipients)):
			waits = true
			*r = smtp.Result{Status: smtp.NotAttempted, Reply: r.Reply}
		default:
			r.Status = smtp.Deferred
		}
	}
	if cause == nil {
		return nil
	}
	said := &smtp.Error{MBS: "MBS008", Command: cause.Command, Reply: cause, Unwell: true, Loud: cause.Code >= 500}
	if whole && !failed {
		m.refusals++
		m.refusal, _ = fail(m.name, said, false)
	}
	switch {
	case elsewhere:
		e.after = e.Trail.refusedBy(m.name)
	case waits:
		e.after = e.Trail.stumbled(q.now, len(e.Recipients), false, m.name, cause)
		q.what.alone = q.suspect && len(e.Recipients) == 1
		return q.p.blame(m, q.now, q.what, said)
	}
	return nil
}

// isSure tells whether so many suspects have made relays stumble often enough.
func (q *inquiry) isSure(suspects int) bool {
	return q.suspect && suspects == 1 && (q.cleared || q.e.Trail.stumbles+1 >= sureStumbles)
}

// stumble decides about those who had no verdict when the session broke off.
func (q *inquiry) stumble(err error) *Error {
	said := saidBy(err)
	suspects := q.suspects(said)
	reply := notSent(said)
	unwell := said.Unwell || said.Loud
	tries := 1
	if q.e.Trail != nil {
		tries += q.e.Trail.stumbles
	}
	deferred := q.isSure(len(suspects)) || !unwell && tries >= maxBroken
	for _, i := range suspects {
		q.e.Results[i] = smtp.Result{Status: smtp.NotAttempted, Reply: reply}
		if deferred {
			q.e.Results[i].Status = smtp.Deferred
		}
	}
	if len(suspects) > 0 && q.e.after == nil {
		q.e.after = q.e.Trail.stumbled(q.now, len(suspects), q.cleared, q.m.name, reply)
	}
	q.what.cleared = q.cleared && len(suspects) > 0
	q.what.alone = q.suspect && len(suspects) == 1
	return q.p.blame(q.m, q.now, q.what, err)
}

// suspects are the recipients over which the session may have broken: the one
// whose RCPT it was, or all that have no verdict. There are none when it broke for
// a reason of its own.
func (q *inquiry) suspects(said *smtp.Error) []int {
	switch {
	case q.what.again, q.p.sessions.Err() != nil, // broken before, or by us
		said.Reply == nil && q.what.opened.Before(q.m.broke), // with others of the relay
		q.what.stale && said.Reply == nil,                    // closed while it was idle
		said.Reply == nil && said.MBS == "" && !said.Unwell,  // called back
		said.Reply != nil && said.Reply.Throttles():
		return nil
	}
	var suspects []int
	for i := range q.e.Results {
		r := &q.e.Results[i]
		if r.Status != smtp.NotAttempted || r.Reply != nil {
			continue
		}
		if said.To == q.e.Recipients[i].Mailbox {
			return []int{i}
		}
		suspects = append(suspects, i)
	}
	return suspects
}

// passed says that an envelope got its verdicts: the relay is well, and relays
// that would not have these recipients refuse what others take. Caller holds mu.
func (s *session) passed(e *Envelope, t tally, now time.Time) {
	p, m := s.pool, s.member
	if s.started.After(m.passed) && t.blamed < max(t.verdicts, 1) {
		m.passed = s.started
	}
	if t.accepted == 0 {
		return
	}
	m.refusals = 0
	if e.Trail == nil {
		return
	}
	for _, other := range p.members {
		if other.refusals >= refusalsToPark && e.Trail.hasRefused(other.name) {
			if other.health.park(now, mishap{began: now}, 0, other.refusal, false) {
				other.stats.lastError, other.stats.lastErrorTime = other.refusal, now
				other.stats.errors++
				p.logTrouble(other, other.refusal, saidBy(other.refusal.Err))
			}
		}
	}
}

// refusedAsWhole tells whether the envelope as a whole was refused by every relay
// that was asked.
func (e *Envelope) refusedAsWhole() bool {
	return slices.ContainsFunc(e.Results, func(r smtp.Result) bool { return r.Blame == smtp.BlameEnvelope })
}

// refusalsToPark is how many envelopes in a row a relay refuses as a whole before
// it is parked, when another one took one of them.
const refusalsToPark = 3
