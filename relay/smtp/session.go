package smtp

import (
	"context"
	"crypto/tls"
	"errors"
	"net"
	"sync/atomic"
	"syscall"
	"time"
)

// A Session is one connection to one server. One goroutine at a time may use
// it.
type Session struct {
	d         *Dialer
	raw       net.Conn        // the connection itself
	conn      net.Conn        // the same, or TLS on it
	tcp       *net.TCPConn    // nil under TLS and on other connections: no writev there
	socket    syscall.RawConn // of raw; nil where it is no socket
	gate      *gate           // of the message that leaves; nil: it has no guard
	spareGate *gate           // for the next such message
	in        replyReader
	out       writer
	caps      Capabilities
	secret    bool // what travels now belongs to AUTH

	greeting string // without the code
	login    string // the mechanism by which the server knows us; empty: it does not

	now     transaction
	ahead   transaction // what the caller promised to send next
	waiting bool        // ahead holds something

	dirty   bool // the last transaction did not complete: RSET comes first
	sent    int  // transactions begun
	judged  int  // transactions in which somebody got a verdict
	probing bool // the next envelope may hold more recipients than the server is known to take
	dead    bool // no further envelope
	closed  bool // the connection is closed
	endedAt time.Time

	stop    atomic.Bool // the context was cancelled
	abortFn func()      // s.abort, made once
}

func (d *Dialer) newSession(conn net.Conn) *Session {
	s := &Session{d: d, raw: conn}
	s.abortFn = s.abort
	if tcp, ok := conn.(*net.TCPConn); ok {
		s.socket = socketOf(tcp)
	}
	s.in = replyReader{buf: make([]byte, readBuffer), stopped: s.stop.Load}
	d.learnt.count(1)
	if d.Conversation != nil {
		s.in.heard = s.hear
	}
	s.use(conn)
	return s
}

// use makes conn the session's connection.
func (s *Session) use(conn net.Conn) {
	s.conn = conn
	s.tcp, _ = conn.(*net.TCPConn)
	s.in.src = conn
	if s.tcp != nil {
		s.in.quickAck = quickAcker(s.tcp)
	}
}

// watch makes the cancelling of ctx end what the session waits for. The
// function it returns ends the watch.
func (s *Session) watch(ctx context.Context) func() {
	if ctx.Done() == nil {
		return func() {}
	}
	end := context.AfterFunc(ctx, s.abortFn)
	return func() {
		if !end() {
			s.kill() // its deadlines are spoilt
		}
	}
}

func (s *Session) abort() {
	s.stop.Store(true)
	_ = s.raw.SetDeadline(time.Unix(1, 0))
}

// reply reads the reply to c.
func (s *Session) reply(c command) (answer, *Error) {
	a, err := s.in.next(s.d.timeout(c))
	if err != nil {
		return a, s.lost(c, err)
	}
	return a, nil
}

// lost is the end of a session whose connection broke, or whose server talks
// nonsense.
func (s *Session) lost(c command, err error) *Error {
	// A connection that breaks breaks both ways; what the goroutine meets
	// after kill is our own doing.
	var w error
	if s.out.joinBriefly(brokenBothWays) {
		w = s.out.err
	}
	s.kill()
	if no, ok := errors.AsType[*withdrawn](w); ok {
		return &Error{Command: cmdDATA.String(), Err: no}
	}
	if w != nil && !errors.Is(err, errNoReply) {
		e := gone(c, w)
		if e.MBS == "MBS009" {
			e.MBS = "MBS007"
		}
		return e
	}
	e := gone(c, err)
	// A server that does not answer must not be asked again at once.
	e.Unwell = e.MBS == "MBS014"
	return e
}

// refuse is the end of a session because of what a reply means.
func (s *Session) refuse(v verdict, r *Reply) *Error {
	s.kill()
	return s.complaint(v, r)
}

// complaint makes an Error of a reply that judges nobody.
func (s *Session) complaint(v verdict, r *Reply) *Error {
	e := &Error{Command: r.Command, Reply: r, MBS: "MBS008", Loud: v.loud, RetryAfter: v.retryAfter}
	switch {
	case r.Code == 421:
		e.MBS = "MBS009"
	case r.Code/100 == 4:
		e.MBS = "MBS013"
	}
	e.Unwell = v.meaning == relayUnwell
	return e
}

// kill closes the connection as it is.
func (s *Session) kill() {
	s.dead = true
	if s.closed {
		return
	}
	s.closed = true
	if s.probing {
		s.probing = false
		s.d.crowded.giveUp()
	}
	_ = s.raw.Close()
	s.d.learnt.count(-1)
	s.out.join()
}

// Usable tells whether the session can take another envelope.
func (s *Session) Usable() bool { return !s.dead }

// MaxRecipients is how many recipients the server takes in one envelope, as it
// announced (RFC 9422 RCPTMAX) or taught us (452 at the k-th RCPT); 0 when
// unknown. Once in a while it is twice what we were taught, to see whether that
// still holds.
func (s *Session) MaxRecipients() int {
	announced, taught := s.caps.MaxRecipients, s.d.crowded.limit(s.probing)
	if announced == 0 || taught > 0 && taught < announced {
		return taught
	}
	return announced
}

// mayProbe lets this session try for all whether the server takes more
// recipients than it did.
func (s *Session) mayProbe() {
	if !s.probing && !s.dead && s.d.crowded.limit(false) > 0 {
		s.probing = s.d.crowded.probe(time.Now())
	}
}

// MaxDomains is of how many domains the recipients of one envelope may be, as
// the server announced (RFC 9422 RCPTDOMAINMAX); 0 when unknown.
func (s *Session) MaxDomains() int { return s.caps.MaxDomains }

// MaxMessages is how many envelopes the server takes in one session, as it
// announced (RFC 9422 MAILMAX); 0 when unknown. The session sees to it itself.
func (s *Session) MaxMessages() int { return s.caps.MaxMessages }

// Greeting is what the server said first, without its code.
func (s *Session) Greeting() string { return s.greeting }

// LoggedIn is the mechanism by which we logged in; empty: we did not.
func (s *Session) LoggedIn() string { return s.login }

// Capabilities is what the server offered last, after STARTTLS if there was.
func (s *Session) Capabilities() Capabilities { return s.caps }

// TLS is the state of the encryption; nil in the clear.
func (s *Session) TLS() *tls.ConnectionState {
	if c, ok := s.conn.(*tls.Conn); ok {
		state := c.ConnectionState()
		return &state
	}
	return nil
}

// Close says QUIT, waits briefly for the reply and closes the connection. The
// error is always nil: there is nothing left that could be lost.
func (s *Session) Close() error {
	if s.closed {
		return nil
	}
	s.dead = true
	if !s.waiting || !s.ahead.begun {
		s.out.begin()
		s.out.buf = append(s.out.buf, "QUIT\r\n"...)
		s.said(s.out.buf)
		if s.write(s.out.buf) == nil {
			_, _ = s.in.next(s.d.timeout(cmdQUIT))
		}
	}
	s.kill()
	return nil
}
