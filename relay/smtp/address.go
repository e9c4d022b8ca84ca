package smtp

import (
	"strings"
	"time"
)

// address says MAIL, RCPT and DATA. It tells whether the server waits for the
// message. Refused recipients have their verdict, those taken are marked.
func (s *Session) address(t *transaction) (ready bool, err *Error) {
	switch {
	case !s.caps.Pipelining:
		return s.stepByStep(t)
	case s.d.TalkAttempts > 1:
		return s.patiently(t)
	}
	if !t.begun {
		s.out.begin()
		s.out.buf = s.appendGroup(s.out.buf, t, true)
		s.start(t)
	}
	if ready, err = s.readMAIL(t, t.said+1); !ready {
		return false, err
	}
	if err = s.readRCPTs(t); err != nil {
		return false, err
	}
	a, err := s.reply(cmdDATA)
	if err != nil {
		t.shortOfReplies(err)
		return false, err
	}
	if ready, err = s.heardDATA(t, a); ready && s.in.buffered() {
		t.void()
		return false, s.refuse(verdict{meaning: outOfStep}, a.reply(cmdDATA))
	}
	return ready, err
}

// start writes the first group of a transaction.
func (s *Session) start(t *transaction) {
	t.begun = true
	s.sent++
	s.said(s.out.buf)
	_ = s.write(s.out.buf) // its error shows when the replies are read
}

// readMAIL reads the replies to RSET and MAIL. Where MAIL was refused it reads
// on over the rest of the group, so many replies, the last one to DATA unless
// the group had none.
func (s *Session) readMAIL(t *transaction, rest int) (ok bool, err *Error) {
	if t.rset {
		if err := s.readRSET(t); err != nil {
			return false, err
		}
	}
	a, err := s.reply(cmdMAIL)
	if err != nil {
		return false, err
	}
	if a.positive() {
		return true, nil
	}
	r, err := s.refusedMAIL(t, a)
	if err != nil {
		return false, err
	}
	if !s.skip(t, rest) && !ofSender(subject(r)) {
		// The server goes on as if MAIL had been accepted, or is a reply
		// short: the refusal may be that of a recipient.
		t.void()
		return false, s.refuse(verdict{meaning: outOfStep}, r)
	}
	return false, nil
}

// skip reads the replies behind a refused MAIL. It tells whether they go with
// that: what follows is refused too.
func (s *Session) skip(t *transaction, rest int) (refused bool) {
	refused = true
	for i := range rest {
		c := cmdRCPT
		if i == t.said {
			c = cmdDATA
		}
		a, err := s.reply(c)
		if err != nil {
			return false
		}
		refused = refused && a.code >= 400
		// With 354 the server waits for a message that must not be: a
		// lone dot would send an empty one, perhaps under the sender of
		// the transaction before.
		if a.code == 421 || a.code/100 == 3 {
			s.kill()
			break
		}
	}
	return refused
}

// readRSET: a session that cannot be reset is of no use.
func (s *Session) readRSET(t *transaction) *Error {
	a, err := s.reply(cmdRSET)
	if err != nil {
		return err
	}
	if !a.positive() {
		r := a.reply(cmdRSET)
		return s.refuse(classify(cmdRSET, r, circumstances{}), r)
	}
	t.rset, s.dirty = false, false
	return nil
}

// refusedMAIL judges all recipients, or nobody where the reply does not
// concern them.
func (s *Session) refusedMAIL(t *transaction, a answer) (*Reply, *Error) {
	s.dirty = true
	r := a.reply(cmdMAIL)
	v := classify(cmdMAIL, r, circumstances{overlapped: t.overlapped})
	if t.speaksOf(r) {
		v = verdict{meaning: outOfStep}
	}
	switch v.meaning {
	case envelopeDeferred:
		t.judgeAll(Deferred, v.blame, r)
	case envelopeRejected:
		t.judgeAll(Rejected, v.blame, r)
	default:
		s.learnOrder(t, v)
		return r, s.refuse(v, r)
	}
	return r, nil
}

// learnOrder: a server that lost its way behind an overlapped message is not
// overlapped again.
func (s *Session) learnOrder(t *transaction, v verdict) {
	if v.meaning == outOfStep && t.overlapped {
		s.d.learnt.refuse()
		s.d.logger().Info("the server does not follow overlapped messages", "addr", s.d.Addr)
	}
}

// readRCPTs reads the reply to each RCPT.
func (s *Session) readRCPTs(t *transaction) *Error {
	for i := range t.end {
		if !t.left(i) {
			continue
		}
		a, err := s.reply(cmdRCPT)
		if err != nil {
			t.shortOfReplies(err)
			return err
		}
		if a.positive() {
			t.accept(i)
			continue
		}
		if err := s.refusedRCPT(t, i, a); err != nil {
			return err
		}
	}
	s.learnRoom(t)
	return nil
}

// learnRoom learns for how many recipients the server has room.
func (s *Session) learnRoom(t *transaction) {
	if t.tooMany == 0 && !s.probing {
		return
	}
	if s.d.crowded.learn(t, s.probing, time.Now()) {
		s.probing = false
	}
}

// refusedRCPT judges one recipient.
func (s *Session) refusedRCPT(t *transaction, i int, a answer) *Error {
	r := a.reply(cmdRCPT)
	if t.misplaced(i, r) {
		t.void()
		return s.refuse(verdict{meaning: outOfStep}, r)
	}
	v := classify(cmdRCPT, r, circumstances{taken: t.taken})
	switch v.meaning {
	case recipientDeferred:
		t.e.Results[i] = Result{Deferred, v.blame, r}
	case recipientRejected:
		t.e.Results[i] = Result{Rejected, v.blame, r}
		if v.loud {
			t.wantsLogin(i, s.complaint(verdict{meaning: relayUnwell, loud: true}, r))
		}
	case tooMany:
		if t.tooMany == 0 {
			t.roomFor = t.taken
		}
		t.tooMany++
		t.told = t.told || subject(r) == "5.3"
	default:
		s.learnOrder(t, v)
		if r.Code < 400 || r.Code > 599 {
			t.void()
			return s.refuse(v, r)
		}
		if r.Code == 421 {
			e := s.refuse(v, r)
			e.To = t.e.Recipients[i].Mailbox
			return e
		}
		// The others of this envelope may have fared better.
		t.fail(s.complaint(v, r))
	}
	return nil
}

// heardDATA tells whether the server waits for the message.
func (s *Session) heardDATA(t *transaction, a answer) (ready bool, err *Error) {
	switch {
	case a.code == 354 && t.taken > 0:
		return true, nil
	case a.code == 354:
		s.loneDot()
		return false, nil
	}
	s.dirty = true
	r := a.reply(cmdDATA)
	if t.taken == 0 && a.code != 421 {
		// All were refused, and so is DATA: unless it is the last RCPT that
		// is answered here.
		if s.caps.Pipelining && (a.code/100 != 4 && a.code/100 != 5 || saidToRCPT(r) || t.speaksOf(r)) {
			t.void()
			return false, s.refuse(verdict{meaning: outOfStep}, r)
		}
		return false, nil
	}
	v := classify(cmdDATA, r, circumstances{overlapped: t.overlapped})
	if t.speaksOf(r) {
		v = verdict{meaning: outOfStep}
	}
	switch v.meaning {
	case envelopeDeferred:
		t.judge(Deferred, v.blame, r)
	case envelopeRejected:
		t.judge(Rejected, v.blame, r)
	default:
		s.learnOrder(t, v)
		if v.meaning == outOfStep && !disordered(strings.ToLower(r.Text)) {
			t.void()
		}
		return false, s.refuse(v, r)
	}
	return false, nil
}

// loneDot ends a message that nobody is to get. MAIL was accepted and no RCPT,
// so whatever the server answers reaches nobody (RFC 2920, 3.1).
func (s *Session) loneDot() {
	s.dirty = true
	s.out.begin()
	s.out.buf = append(s.out.buf, ".\r\n"...)
	s.said(s.out.buf)
	_ = s.write(s.out.buf)
	if a, err := s.reply(cmdEnd); err == nil && a.code == 421 {
		s.kill()
	}
}
