package smtp

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"strings"
	"syscall"
	"time"
)

// Dial connects and greets. The error is an [*Error].
//
// Connecting and the greeting are tried on all addresses of the host, Tries
// times in all. What comes after the greeting is tried once.
func (d *Dialer) Dial(ctx context.Context) (*Session, error) {
	if d.Domain == "" || strings.ContainsFunc(d.Domain, func(r rune) bool { return r <= ' ' || r == 0x7f }) {
		return nil, &Error{MBS: "MBS010", Unwell: true, Loud: true, Err: errNoDomain}
	}
	if d.Tries < 1 {
		return nil, &Error{MBS: "MBS017", Unwell: true, Loud: true, Err: errNoTries}
	}
	if err := d.tls.load(d); err != nil {
		return nil, &Error{Unwell: true, Loud: true, Err: err}
	}
	credentials, err := d.credentials()
	if err != nil {
		return nil, &Error{Unwell: true, Loud: true, Err: err}
	}
	s, e := d.open(ctx, credentials, d.TLS)
	if e != nil && errors.Is(e, errHandshake) && d.TLS == Opportunistic && !d.verified() &&
		(credentials.none() || d.AuthInClear) {
		// What "may" means: a server whose TLS is broken is one without.
		d.logger().Warn("tls does not work, going on in the clear", "addr", d.Addr, "error", e.Err)
		s, e = d.open(ctx, credentials, NoTLS)
	}
	if e != nil {
		return nil, e
	}
	return s, nil
}

func (d *Dialer) logger() *slog.Logger {
	if d.Log != nil {
		return d.Log
	}
	return slog.New(slog.DiscardHandler)
}

// open makes a session that is ready for its first envelope.
func (d *Dialer) open(ctx context.Context, credentials credentials, mode TLSMode) (*Session, *Error) {
	s, err := d.connect(ctx, mode)
	if err != nil {
		return nil, err
	}
	end := s.watch(ctx)
	err = s.introduce(ctx, credentials, mode)
	end()
	if s.stop.Load() {
		err = stopped(ctx, cmdEHLO)
	}
	if err != nil {
		s.kill()
		return nil, err
	}
	s.endedAt = time.Now()
	s.mayProbe()
	return s, nil
}

// connect dials until a server greets.
func (d *Dialer) connect(ctx context.Context, mode TLSMode) (*Session, *Error) {
	addrs, err := d.addresses(ctx)
	if err != nil {
		return nil, d.unreachable(ctx, err)
	}
	var last *Error
	first := time.Now()
	for i := range d.Tries {
		if i > 0 && time.Since(first) > dialPatience {
			break
		}
		began := d.clock()
		conn, err := d.dial(ctx, addrs[i%len(addrs)])
		if err != nil {
			if last = d.unreachable(ctx, err); ctx.Err() != nil {
				break
			}
			continue
		}
		d.took(PhaseConnect, began, nil)
		s := d.newSession(conn)
		end := s.watch(ctx)
		last = s.greeted(ctx, mode)
		end()
		if s.stop.Load() {
			last = stopped(ctx, cmdConnect)
		}
		if last == nil {
			return s, nil
		}
		s.kill()
		// A server that is there and refuses is not asked twice, but
		// another address may be another server.
		if ctx.Err() != nil || i+1 >= len(addrs) {
			break
		}
	}
	return nil, last
}

func (d *Dialer) addresses(ctx context.Context) ([]string, error) {
	host, port, err := net.SplitHostPort(d.Addr)
	if err != nil {
		return nil, err
	}
	if d.NetDial != nil || net.ParseIP(host) != nil {
		return []string{d.Addr}, nil
	}
	hosts, err := net.DefaultResolver.LookupHost(ctx, host)
	if err != nil {
		return nil, err
	}
	for i, h := range hosts {
		hosts[i] = net.JoinHostPort(h, port)
	}
	return hosts, nil
}

func (d *Dialer) dial(ctx context.Context, addr string) (net.Conn, error) {
	limit := dialTimeout
	if d.Timeout > 0 {
		limit = d.Timeout
	}
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	if d.NetDial != nil {
		return d.NetDial(ctx, "tcp", addr)
	}
	var dialer net.Dialer
	return dialer.DialContext(ctx, "tcp", addr)
}

func (d *Dialer) unreachable(ctx context.Context, err error) *Error {
	if ctx.Err() != nil {
		return stopped(ctx, cmdConnect)
	}
	e := &Error{MBS: "MBS003", Command: cmdConnect.String(), Unwell: true, Err: err}
	switch {
	case errors.Is(err, syscall.EMFILE), errors.Is(err, syscall.ENFILE), errors.Is(err, syscall.ENOBUFS):
		e.MBS, e.Loud = "MBS002", true
	case errors.Is(err, os.ErrDeadlineExceeded), errors.Is(err, context.DeadlineExceeded):
		e.MBS, e.Err = "MBS015", &explained{"no answer: check host and port, or whether a firewall drops what we send", err}
	case errors.Is(err, syscall.ECONNRESET):
		e.MBS = "MBS004" // it was there
	}
	return e
}

// greeted waits for the server's 220.
func (s *Session) greeted(ctx context.Context, mode TLSMode) *Error {
	if mode == Implicit {
		if err := s.encrypt(ctx); err != nil {
			return err
		}
	}
	began := s.d.clock()
	a, err := s.in.next(s.d.timeout(cmdConnect))
	if err != nil {
		e := gone(cmdConnect, err)
		e.Unwell = true
		switch {
		case e.MBS == "MBS014" && mode != Implicit:
			e.MBS, e.Err = "MBS015", &explained{"connected, but no greeting in time: does this port speak TLS from the first byte (smtps)?", err}
		case e.MBS == "MBS014":
			e.MBS = "MBS015"
		case errors.Is(err, io.EOF), errors.Is(err, syscall.ECONNRESET):
			e.MBS = "MBS004"
		}
		return e
	}
	s.d.took(PhaseGreeting, began, nil)
	s.greeting = a.reply(cmdConnect).Text
	return s.expect(cmdConnect, a, "MBS005")
}

// expect makes an Error of every reply that is not positive. Before MAIL no
// refusal concerns anything less than the server.
func (s *Session) expect(c command, a answer, mbs string) *Error {
	if a.positive() {
		return nil
	}
	r := a.reply(c)
	e := s.refuse(classify(c, r, circumstances{}), r)
	e.Unwell, e.MBS = true, mbs
	return e
}

// introduce says EHLO, encrypts and authenticates.
func (s *Session) introduce(ctx context.Context, credentials credentials, mode TLSMode) *Error {
	if err := s.hello(); err != nil {
		return err
	}
	if mode == Required || mode == Opportunistic {
		if err := s.startTLS(ctx, mode); err != nil {
			return err
		}
	}
	if credentials.none() {
		return nil
	}
	began := s.d.clock()
	err := s.authenticate(credentials)
	s.d.took(PhaseAuth, began, err)
	return err
}

// hello says EHLO, or HELO to servers that do not know it.
func (s *Session) hello() *Error {
	began := s.d.clock()
	err := s.sayHello()
	s.d.took(PhaseHello, began, err)
	return err
}

func (s *Session) sayHello() *Error {
	s.caps = Capabilities{}
	if s.d.LMTP {
		a, err := s.ask(cmdLHLO, "LHLO "+s.d.Domain)
		if err != nil {
			return err
		}
		s.caps = parseCapabilities(string(a.text))
		return s.expect(cmdLHLO, a, "MBS005")
	}
	a, err := s.ask(cmdEHLO, "EHLO "+s.d.Domain)
	if err != nil {
		return err
	}
	if a.positive() {
		s.caps = parseCapabilities(string(a.text))
		return nil
	}
	if a.code/100 != 5 || a.code == 521 {
		return s.expect(cmdEHLO, a, "MBS011")
	}
	s.d.logger().Info("no EHLO, trying HELO", "addr", s.d.Addr, "mbs", "MBS016", "code", a.code)
	if a, err = s.ask(cmdHELO, "HELO "+s.d.Domain); err != nil {
		return err
	}
	return s.expect(cmdHELO, a, "MBS011")
}

// ask says one command and reads the reply.
func (s *Session) ask(c command, line string) (answer, *Error) {
	s.out.begin()
	s.out.buf = append(append(s.out.buf, line...), "\r\n"...)
	if !s.secret {
		s.said(s.out.buf)
	}
	_ = s.write(s.out.buf) // its error shows when the reply is read
	a, err := s.reply(c)
	if err != nil {
		err.Unwell = true
	}
	return a, err
}

// require is an error of ours about what the server does not offer.
func (s *Session) require(c command, format string, args ...any) *Error {
	s.kill()
	return &Error{Command: c.String(), Unwell: true, Loud: true, Err: fmt.Errorf(format, args...)}
}
