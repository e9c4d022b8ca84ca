package smtp

import (
	"context"
	"errors"
	"time"
)

// Send sends one envelope and sets e.Results, one per recipient.
//
// A nil error means that the server gave each recipient a verdict, except that
// recipients it was too full to take (452 and 552 at the k-th RCPT) or does not
// take in one envelope (RFC 9422 LIMITS) stay NotAttempted and may follow at
// once in another envelope; at least one other recipient then has a verdict.
// An [*Error] says what went wrong with the session or with the server as a
// whole; recipients without a verdict are then NotAttempted or InDoubt, never
// guessed at.
//
// next, if not nil, is called at most once, when the message is about to be
// written, and returns the envelope that should follow on this session or nil.
// An envelope it returned must be the one of the following call to Send,
// whatever this call returns; if the session broke meanwhile, that call says
// so and leaves every recipient NotAttempted.
func (s *Session) Send(ctx context.Context, e *Envelope, next func() *Envelope) error {
	t := &s.now
	if err := s.take(ctx, t, e); err != nil {
		return err
	}
	if t.said == 0 {
		return nil
	}
	end := s.watch(ctx)
	err := s.transact(ctx, t, next)
	t.settle()
	end()
	if t.judged() {
		s.judged++
	}
	s.mayProbe()
	if n := s.caps.MaxMessages; n > 0 && s.sent >= n {
		s.dead = true
	}
	s.stray()
	t.e = nil
	switch {
	case err == nil:
		return nil
	case err.Reply == nil && s.stop.Load():
		return &Error{Command: err.Command, Err: context.Cause(ctx)}
	case s.judged == 0 && !isWithdrawn(err):
		// A server that has not settled a single recipient on this
		// connection would fare no better on the next one.
		err.Unwell = true
	}
	return err
}

func isWithdrawn(e *Error) bool {
	_, ok := errors.AsType[*withdrawn](e.Err)
	return ok
}

// take makes e the transaction t: the one that was promised, or a new one.
func (s *Session) take(ctx context.Context, t *transaction, e *Envelope) error {
	promised := s.waiting
	s.waiting = false
	switch {
	case promised && s.ahead.e == e:
		*t, s.ahead = s.ahead, transaction{}
		if !t.begun {
			t.rset = s.dirty
		}
		if s.dead && t.said > 0 {
			t.begun = false
			return &Error{MBS: "MBS009", Command: cmdMAIL.String(), Err: errSessionClosed}
		}
	case promised:
		s.kill()
		s.prepare(t, e)
		return &Error{Err: errNotAhead}
	case len(e.Recipients) == 0:
		e.Results = nil
		return &Error{MBS: "MBS006", Err: errNothingToSay}
	default:
		s.prepare(t, e)
		if s.dead && t.said > 0 {
			return &Error{MBS: "MBS018", Err: errSessionClosed}
		}
	}
	if ctx.Err() != nil && t.said > 0 {
		if t.begun {
			s.kill()
		}
		return stopped(ctx, cmdMAIL)
	}
	return nil
}

// transact is one transaction from MAIL to the reply to the lone dot.
func (s *Session) transact(ctx context.Context, t *transaction, next func() *Envelope) *Error {
	began := s.d.clock()
	ready, err := s.address(t)
	s.d.took(PhaseEnvelope, began, err)
	if err == nil && ready {
		err = s.deliver(ctx, t, next)
	}
	if err == nil && t.failure != nil {
		s.kill()
		err = t.failure
	}
	if t.login != nil && !t.any && err == nil {
		// Nobody was taken: it is we who should have logged in.
		t.reopenBlamed()
		s.kill()
		err = t.login
	}
	return err
}

// deliver writes the message and reads what becomes of it.
func (s *Session) deliver(ctx context.Context, t *transaction, next func() *Envelope) *Error {
	content, err := t.e.Message.Open(ctx)
	if err != nil {
		// Only a connection that breaks keeps a server from taking what
		// it has got so far.
		s.kill()
		return &Error{Command: cmdDATA.String(), Err: &withdrawn{err}}
	}
	s.gate = s.gateFor(ctx, t.e.Message)
	defer func() { s.out.join(); s.gate = nil }()
	began := s.d.clock()
	message := content.Wire()
	s.out.begin()
	s.out.buf = append(s.out.buf, ".\r\n"...)
	if t.failure == nil {
		s.lookAhead(next)
	}
	s.said(s.out.buf)
	ended := int64(len(message) + len(".\r\n"))
	if no, ok := errors.AsType[*withdrawn](s.writeMessage(message, s.out.buf)); ok { // another error shows when the reply is read
		if s.out.n.Load() < ended {
			s.kill()
			return &Error{Command: cmdDATA.String(), Err: no}
		}
		s.dead = true // what follows has not left as a whole
	}
	var failed *Error
	if s.d.LMTP {
		failed = s.readEnds(t, ended)
	} else {
		failed = s.readEnd(t, ended)
	}
	s.d.took(PhaseMessage, began, failed)
	return failed
}

// readEnd reads the reply to the lone dot, which holds for all recipients
// taken. ended is how many bytes must have left for the message to be whole.
func (s *Session) readEnd(t *transaction, ended int64) *Error {
	a, err := s.in.next(s.d.timeout(cmdEnd))
	if err != nil {
		return s.lostEnd(t, ended, err)
	}
	early := s.early(ended)
	stray := s.stray()
	if a.positive() && !early {
		t.judge(Accepted, 0, a.reply(cmdEnd))
		s.completed(t)
		return nil
	}
	r := a.reply(cmdEnd)
	if early {
		return s.brokenOff(t, r)
	}
	v := classify(cmdEnd, r, circumstances{overlapped: s.waiting && s.ahead.begun})
	switch {
	case stray:
		v = verdict{meaning: unknowable}
	case s.waiting && s.ahead.begun && addressed(r):
		// That is what RCPT is answered: the server may be a reply ahead, and
		// with the next transaction on its way it does not show.
		v = verdict{meaning: unknowable}
		s.d.learnt.refuse()
	}
	switch v.meaning {
	case envelopeDeferred:
		t.judge(Deferred, v.blame, r)
		s.completed(t)
		return nil
	case envelopeRejected:
		t.judge(Rejected, v.blame, r)
		s.completed(t)
		return nil
	case unknowable:
		t.judge(InDoubt, 0, r)
	case outOfStep:
		if s.waiting && s.ahead.begun {
			s.d.learnt.refuse()
		}
	}
	return s.refuse(v, r)
}

// stray ends a session whose server has said more than it was asked: the next
// transaction would take it for its own. Of a refusal nobody knows then what it
// refuses.
func (s *Session) stray() bool {
	if s.waiting && s.ahead.begun || !s.in.buffered() {
		return false
	}
	s.dead = true
	return true
}

// readEnds reads a reply for each recipient, in the order in which the server
// took them (RFC 2033, 4.2): one that was deferred and said again comes last.
func (s *Session) readEnds(t *transaction, ended int64) *Error {
	for _, i := range t.order {
		result := &t.e.Results[i]
		a, err := s.in.next(s.d.timeout(cmdEnd))
		if err != nil {
			e := s.lostEnd(t, ended, err)
			if e.MBS == "MBS014" { // it may think that it has answered all
				t.mixUp()
			}
			return e
		}
		r := a.reply(cmdEnd)
		if s.early(ended) {
			return s.brokenOff(t, r)
		}
		t.taken--
		switch v := classify(cmdEnd, r, circumstances{}); v.meaning {
		case goOn:
			*result = Result{Status: Accepted, Reply: r}
		case envelopeDeferred:
			*result = Result{Deferred, v.ofOne(), r}
		case envelopeRejected:
			*result = Result{Rejected, v.ofOne(), r}
		case unknowable:
			*result = Result{Status: InDoubt, Reply: r}
			t.judge(InDoubt, 0, lostAtEnd())
			return s.refuse(v, r)
		default:
			*result = Result{}
			e := s.complaint(v, r)
			e.To = t.e.Recipients[i].Mailbox
			if r.Code == 421 {
				t.judge(InDoubt, 0, lostAtEnd())
				s.kill()
				return e
			}
			t.fail(e)
		}
	}
	if s.stray() && !s.in.takesLeave() {
		t.mixUp()
	}
	s.completed(t)
	return nil
}

// ofOne is the blame of a reply that is for one recipient alone (RFC 2033, 4.2).
func (v verdict) ofOne() Blame {
	if v.blame == BlameEnvelope {
		return BlameRecipient
	}
	return v.blame
}

// early tells whether the server answered before it had the whole message.
func (s *Session) early(ended int64) bool {
	if s.out.n.Load() >= ended {
		return false
	}
	s.out.joinBriefly(time.Second)
	return s.out.n.Load() < ended
}

// brokenOff takes a reply that came before the server had the whole message,
// also where our write failed first. A refusal counts; to accept what it has not
// got in full is more than a server can promise.
func (s *Session) brokenOff(t *transaction, r *Reply) *Error {
	v := classify(cmdEnd, r, circumstances{})
	switch v.meaning {
	case envelopeDeferred:
		t.judge(Deferred, v.blame, r)
	case envelopeRejected:
		t.judge(Rejected, v.blame, r)
	case goOn, unknowable:
		t.judge(InDoubt, 0, r)
		return s.refuse(v, r)
	default:
		return s.refuse(v, r)
	}
	s.kill()
	return nil
}

// lostEnd: without the end of the message no server takes it; with it, only
// the server knows (RFC 1047).
func (s *Session) lostEnd(t *transaction, ended int64, err error) *Error {
	e := s.lost(cmdEnd, err)
	if s.out.n.Load() >= ended {
		t.judge(InDoubt, 0, lostAtEnd())
	}
	return e
}

// completed: the server has answered the end of the data, so it has forgotten
// the transaction (RFC 5321, 4.1.1.4).
func (s *Session) completed(t *transaction) {
	s.dirty = false
	if s.d.Overlap == OverlapAuto {
		now := time.Now()
		if t.followed {
			s.d.learnt.sample(t.overlapped, now.Sub(s.endedAt))
		}
		s.endedAt = now
	}
}
