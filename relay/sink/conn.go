package sink

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"sync"
	"time"

	gosmtp "github.com/emersion/go-smtp"
)

const (
	// lastWords bounds the writes of a session that ends.
	lastWords = time.Second
	// lastInput bounds what is read, and thrown away, after a 421.
	lastInput = 1 << 20
)

// A listener hands connections to go-smtp, refuses those that a CONNECT rule
// names, and can end them all.
type listener struct {
	net.Listener
	sink *Server

	mu     sync.Mutex // guards conns and closed
	conns  map[*conn]struct{}
	closed bool
}

func newListener(l net.Listener, s *Server) *listener {
	return &listener{Listener: l, sink: s, conns: map[*conn]struct{}{}}
}

// Accept waits for a connection that no rule refuses.
func (l *listener) Accept() (net.Conn, error) {
	for {
		raw, err := l.Listener.Accept()
		if err != nil {
			return nil, err
		}
		c := &conn{Conn: raw, listener: l, out: bufio.NewWriterSize(raw, 16<<10)}
		if !l.add(c) {
			raw.Close()
			return nil, net.ErrClosed
		}
		l.sink.tally.connected()
		if l.refuses(c) {
			continue
		}
		return c, nil
	}
}

// refuses answers a connection that a CONNECT rule names, in place of a
// greeting.
func (l *listener) refuses(c *conn) bool {
	host, _, _ := net.SplitHostPort(c.RemoteAddr().String())
	rule := l.sink.rules.Load().find(Connect, host)
	if rule == nil {
		return false
	}
	if rule.action == drop {
		l.sink.tally.without(Connect, drop)
	} else {
		l.sink.tally.said(Connect, rule.reply, 0)
		e := rule.reply.EnhancedCode
		if e == gosmtp.NoEnhancedCode {
			fmt.Fprintf(c, "%d %s\r\n", rule.reply.Code, rule.reply.Message)
		} else {
			fmt.Fprintf(c, "%d %d.%d.%d %s\r\n", rule.reply.Code, e[0], e[1], e[2], rule.reply.Message)
		}
	}
	c.Close()
	return true
}

// add tells whether the listener is still open.
func (l *listener) add(c *conn) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return false
	}
	l.conns[c] = struct{}{}
	return true
}

func (l *listener) remove(c *conn) {
	l.mu.Lock()
	delete(l.conns, c)
	l.mu.Unlock()
	l.sink.tally.disconnected()
}

// hangUp stops accepting and lets each session end by itself: go-smtp says 421
// when a read times out.
func (l *listener) hangUp() {
	l.Close()
	l.mu.Lock()
	defer l.mu.Unlock()
	for c := range l.conns {
		c.SetWriteDeadline(time.Now().Add(lastWords))
		c.SetReadDeadline(time.Now())
	}
}

// cut closes every connection at once.
func (l *listener) cut() {
	l.mu.Lock()
	defer l.mu.Unlock()
	for c := range l.conns {
		c.Conn.Close()
	}
}

// Close stops accepting. It may be called again: by go-smtp, after hangUp.
func (l *listener) Close() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return nil
	}
	l.closed = true
	return l.Listener.Close()
}

// A conn holds replies back until the session has to wait for its client
// (RFC 2920, 3.2); go-smtp alone writes each by itself, which costs a system
// call, and often a packet, a recipient.
type conn struct {
	net.Conn
	listener *listener

	mu   sync.Mutex // guards out, last and gone
	out  *bufio.Writer
	last bool // the next reply is the last
	gone bool // closed by us: no reply goes out any more
}

// Read sends what is held back, then waits for the client.
func (c *conn) Read(p []byte) (int, error) {
	if err := c.flush(); err != nil {
		return 0, err
	}
	return c.Conn.Read(p)
}

// Write takes one line of a reply, or one record where TLS is on.
func (c *conn) Write(p []byte) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.gone {
		return 0, net.ErrClosed
	}
	n, err := c.out.Write(p)
	if c.last {
		c.end()
	}
	return n, err
}

func (c *conn) flush() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.gone {
		return net.ErrClosed
	}
	return c.out.Flush()
}

// Close sends what is held back, and closes. It may be called again.
func (c *conn) Close() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.end()
	return nil
}

// closeAfterReply makes the next reply the last, as after 421.
func (c *conn) closeAfterReply() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.last = true
}

// isGone tells whether nobody listens any more. go-smtp goes on with the
// commands that it has read already.
func (c *conn) isGone() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.gone
}

// end closes the connection. After a last reply it first reads what the client
// has sent meanwhile: closed with input unread, TCP would reset the connection
// and the client might lose the reply. The caller holds mu.
func (c *conn) end() {
	if c.gone {
		return
	}
	c.gone = true
	c.listener.remove(c)
	c.Conn.SetDeadline(time.Now().Add(lastWords))
	if c.out.Flush() == nil && c.last {
		if tcp, ok := c.Conn.(*net.TCPConn); ok && tcp.CloseWrite() == nil {
			_, _ = io.CopyN(io.Discard, tcp, lastInput)
		}
	}
	c.Conn.Close()
}
