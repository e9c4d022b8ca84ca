package smtp

import (
	"context"
	"net"
	"syscall"
	"time"
)

// askAgainAfter is how long the consent of a message's guard is good for while
// the message leaves. Longer than that it takes only where the server reads
// slowly, or where this process was stopped: then somebody else may have the
// batch by now, and the last octets must stay here.
const askAgainAfter = 250 * time.Millisecond

// A gate stands between a message and the connection while the message leaves. A
// session has one, for one message after the other.
type gate struct {
	socket  syscall.RawConn // nil: the gate is not at the socket
	every   time.Duration
	message Message
	ctx     context.Context //nolint:containedctx // of the Send that is under way
	asked   time.Time

	// What write is writing.
	parts   [2][]byte
	written int64
	just    bool // asked just now
	waits   bool // it must be asked first
	failed  error
	step    func(fd uintptr) bool // g.some, made once
}

// gateFor makes the gate that of a message that has just been opened; nil: it
// has no guard.
func (s *Session) gateFor(ctx context.Context, m Message) *gate {
	if m.guard == nil {
		return nil
	}
	g := s.spareGate
	if g == nil {
		g = &gate{socket: s.socket, every: askAgainAfter}
		g.step = g.some
		if s.d.askAgain > 0 {
			g.every = s.d.askAgain
		}
		s.spareGate = g
	}
	g.ctx, g.message, g.asked = ctx, m, time.Now()
	return g
}

// due tells whether the guard must be asked before anything more leaves.
func (g *gate) due() bool { return time.Since(g.asked) >= g.every }

// pass asks the guard if that is due.
func (g *gate) pass() error {
	if g == nil || !g.due() {
		return nil
	}
	if err := g.message.Ask(g.ctx); err != nil {
		return &withdrawn{err}
	}
	g.asked = time.Now()
	return nil
}

// withdrawn is that the guard of a message said no.
type withdrawn struct{ cause error }

func (e *withdrawn) Error() string { return e.cause.Error() }
func (e *withdrawn) Unwrap() error { return e.cause }

// write writes both parts to the socket, as one where the system takes them at
// once. What it does not take at once passes the gate again before it leaves.
func (g *gate) write(first, second []byte) (int64, error) {
	g.parts = [2][]byte{first, second}
	g.written, g.just = 0, false
	defer func() { g.parts = [2][]byte{} }()
	for {
		g.waits, g.failed = false, nil
		err := g.socket.Write(g.step)
		if g.failed != nil {
			err = &net.OpError{Op: "write", Net: "tcp", Err: g.failed}
		}
		if err != nil || !g.waits {
			return g.written, err
		}
		if err := g.pass(); err != nil {
			return g.written, err
		}
		g.just = true
	}
}

// some writes what the system takes at once. False: more is to be written when
// the socket can be written to.
func (g *gate) some(fd uintptr) bool {
	for len(g.parts[0])+len(g.parts[1]) > 0 {
		if g.waits = !g.just && g.due(); g.waits {
			return true
		}
		g.just = false
		n, err := writev(fd, &g.parts)
		g.written += int64(n)
		for i := range g.parts {
			took := min(n, len(g.parts[i]))
			g.parts[i], n = g.parts[i][took:], n-took
		}
		switch {
		case err == syscall.EAGAIN: //nolint:errorlint // an errno
			return false
		case err != nil && err != syscall.EINTR: //nolint:errorlint // an errno
			g.failed = err
			return true
		}
	}
	return true
}

// A gatedConn is the connection beneath TLS: records pass the gate like anything
// else.
type gatedConn struct {
	net.Conn
	s *Session
}

func (c *gatedConn) Write(b []byte) (int, error) {
	if c.s.gate == nil {
		return c.Conn.Write(b)
	}
	n, err := c.s.gate.write(b, nil)
	return int(n), err
}
