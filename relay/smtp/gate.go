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

// A gate stands between a message and the connection while the message leaves.
type gate struct {
	ask   func() error
	every time.Duration
	asked time.Time
}

// gateFor makes the gate of a message that has just been opened; nil: it has no
// guard.
func (s *Session) gateFor(ctx context.Context, m Message) *gate {
	if m.guard == nil {
		return nil
	}
	g := &gate{ask: func() error { return m.Ask(ctx) }, every: askAgainAfter, asked: time.Now()}
	if s.d.askAgain > 0 {
		g.every = s.d.askAgain
	}
	return g
}

// due tells whether the guard must be asked before anything more leaves.
func (g *gate) due() bool { return time.Since(g.asked) >= g.every }

// pass asks the guard if that is due.
func (g *gate) pass() error {
	if g == nil || !g.due() {
		return nil
	}
	if err := g.ask(); err != nil {
		return &withdrawn{err}
	}
	g.asked = time.Now()
	return nil
}

// withdrawn is that the guard of a message said no.
type withdrawn struct{ cause error }

func (e *withdrawn) Error() string { return e.cause.Error() }
func (e *withdrawn) Unwrap() error { return e.cause }

// write writes both parts to a connection, as one where the system takes them at
// once. What it does not take at once passes the gate again before it leaves.
func (g *gate) write(raw syscall.RawConn, first, second []byte) (int64, error) {
	parts := [2][]byte{first, second}
	written := int64(0)
	asked := false // just now
	for {
		var failed error
		due := false
		err := raw.Write(func(fd uintptr) bool {
			for len(parts[0])+len(parts[1]) > 0 {
				if due = !asked && g.due(); due {
					return true
				}
				asked = false
				n, err := writev(fd, &parts)
				written += int64(n)
				for i := range parts {
					took := min(n, len(parts[i]))
					parts[i], n = parts[i][took:], n-took
				}
				switch {
				case err == syscall.EAGAIN: //nolint:errorlint // an errno
					return false
				case err != nil && err != syscall.EINTR: //nolint:errorlint // an errno
					failed = err
					return true
				}
			}
			return true
		})
		if failed != nil {
			err = &net.OpError{Op: "write", Net: "tcp", Err: failed}
		}
		if err != nil || !due {
			return written, err
		}
		if err := g.pass(); err != nil {
			return written, err
		}
		asked = true
	}
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
	n, err := c.s.gate.write(c.s.socket, b, nil)
	return int(n), err
}
