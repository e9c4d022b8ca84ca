package smtp

// stepByStep is for servers without PIPELINING: they cut the session, or worse,
// when commands come before they were asked for.
func (s *Session) stepByStep(t *transaction) (ready bool, err *Error) {
	if t.rset {
		s.out.begin()
		s.out.buf = append(s.out.buf, "RSET\r\n"...)
		s.said(s.out.buf)
		_ = s.write(s.out.buf)
		if err := s.readRSET(t); err != nil {
			return false, err
		}
	}
	t.begun = true
	s.sent++
	a, err := s.insist(cmdMAIL, t, 0)
	if err != nil {
		return false, err
	}
	if !a.positive() {
		_, err = s.refusedMAIL(t, a)
		return false, err
	}
	for i := range t.end {
		if !t.left(i) {
			continue
		}
		if a, err = s.insist(cmdRCPT, t, i); err != nil {
			return false, err
		}
		if a.positive() {
			t.accept(i)
			continue
		}
		if err = s.refusedRCPT(t, i, a); err != nil {
			return false, err
		}
		if t.tooMany > 0 {
			break // the rest would be told the same
		}
	}
	s.learnRoom(t)
	return s.sayDATA(t)
}

// patiently is for those who want commands tried again on 4xx: what was
// refused must be known before DATA closes the list.
func (s *Session) patiently(t *transaction) (ready bool, err *Error) {
	for attempt := 1; ; attempt++ {
		s.out.begin()
		s.out.buf = s.appendGroup(s.out.buf, t, false)
		s.start(t)
		if ready, err = s.readMAIL(t, t.said); err != nil || s.dead {
			return false, err
		}
		if ready {
			break
		}
		if !s.again(cmdMAIL, attempt, t.e.Results[t.first()].Status == Deferred) {
			return false, nil
		}
		t.reopen()
		t.rset = true
	}
	if err = s.readRCPTs(t); err != nil {
		return false, err
	}
	for attempt := 1; ; attempt++ {
		var deferred []int
		for i := range t.end {
			if r := &t.e.Results[i]; r.Status == Deferred && !r.Reply.Local {
				deferred = append(deferred, i)
			}
		}
		if !s.again(cmdRCPT, attempt, len(deferred) > 0) {
			return s.sayDATA(t)
		}
		if err = s.sayAgain(t, deferred); err != nil {
			return false, err
		}
	}
}

// sayAgain says RCPT once more to those who were deferred.
func (s *Session) sayAgain(t *transaction, deferred []int) *Error {
	s.out.begin()
	for _, i := range deferred {
		s.out.buf = s.appendRCPT(s.out.buf, t, i)
	}
	s.said(s.out.buf)
	_ = s.write(s.out.buf)
	for _, i := range deferred {
		a, err := s.reply(cmdRCPT)
		if err != nil {
			return err
		}
		if a.positive() {
			t.accept(i)
			continue
		}
		t.e.Results[i] = Result{}
		if err := s.refusedRCPT(t, i, a); err != nil {
			return err
		}
	}
	return nil
}

// sayDATA says DATA by itself, if there is anybody to send to.
func (s *Session) sayDATA(t *transaction) (ready bool, err *Error) {
	if t.taken == 0 {
		s.dirty = true
		return false, nil
	}
	a, err := s.insist(cmdDATA, t, 0)
	if err != nil {
		return false, err
	}
	return s.heardDATA(t, a)
}

// insist says a command up to TalkAttempts times while the server defers it.
func (s *Session) insist(c command, t *transaction, i int) (answer, *Error) {
	for attempt := 1; ; attempt++ {
		s.out.begin()
		switch c {
		case cmdMAIL:
			s.out.buf = s.appendMAIL(s.out.buf, t)
		case cmdRCPT:
			s.out.buf = s.appendRCPT(s.out.buf, t, i)
		default:
			s.out.buf = append(s.out.buf, "DATA\r\n"...)
		}
		s.said(s.out.buf)
		_ = s.write(s.out.buf)
		a, err := s.reply(c)
		if err == nil && s.in.buffered() && !s.in.takesLeave() {
			// Nothing else was asked: it may be that this was.
			t.void()
			return a, s.refuse(verdict{meaning: outOfStep}, a.reply(c))
		}
		if err != nil || a.code/100 != 4 {
			return a, err
		}
		v := classify(c, a.reply(c), circumstances{taken: t.taken})
		if !s.again(c, attempt, v.meaning == recipientDeferred || v.meaning == envelopeDeferred) {
			return a, nil
		}
	}
}

// again tells whether a deferred command is worth another attempt.
func (s *Session) again(c command, attempt int, deferred bool) bool {
	switch {
	case !deferred || s.d.TalkAttempts <= 1:
		return false
	case attempt >= s.d.TalkAttempts:
		s.d.logger().Debug("deferred for good", "addr", s.d.Addr, "command", c.String(), "attempts", attempt, "mbs", "MBS013")
		return false
	}
	s.d.logger().Debug("deferred, trying again", "addr", s.d.Addr, "command", c.String(), "attempts", attempt, "mbs", "MBS012")
	return true
}
