package smtp

import (
	"errors"
	"net"
	"sync"
	"sync/atomic"
	"time"
)

const (
	// Commands beyond this are written while their replies are read
	// (RFC 2920, 3.1): less than this the kernel holds even when the server
	// reads nothing, because it cannot get rid of its replies.
	windowOfCommands = 16 << 10
	// A message beyond this is written the same way, so that a server that
	// breaks it off is heard at once.
	windowOfMessage = 256 << 10
	// A block has a deadline of its own (RFC 5321, 4.5.3.2.5).
	block = 256 << 10
	// Under TLS small parts are joined, or each would be a record.
	joined = 64 << 10
)

var joinBuffers = sync.Pool{New: func() any { b := make([]byte, 0, joined); return &b }}

// A writer is the writing half of a session: a buffer for commands and, while
// a group is too large for the window, the goroutine that writes it.
type writer struct {
	buf   []byte
	parts [2][]byte
	vec   net.Buffers

	under chan struct{} // closed when the goroutine is done; nil: none is under way
	n     atomic.Int64  // bytes of the last write that left
	err   error         // what the last write met
}

// begin empties the buffer, which the goroutine may still be reading.
func (w *writer) begin() {
	w.join()
	w.buf = w.buf[:0]
}

// join waits for the goroutine, if there is one.
func (w *writer) join() {
	if w.under != nil {
		<-w.under
		w.under = nil
	}
}

// joinBriefly is join for when the server has answered what may not yet have
// left. It tells whether the goroutine is done.
func (w *writer) joinBriefly(patience time.Duration) bool {
	if w.under == nil {
		return true
	}
	t := time.NewTimer(patience)
	defer t.Stop()
	select {
	case <-w.under:
		w.under = nil
		return true
	case <-t.C:
		return false
	}
}

// write writes commands. After an error the replies are still worth reading:
// a server that closes the connection often says why first.
func (s *Session) write(commands []byte) error {
	s.out.join()
	s.in.fills = 0
	if len(commands) > windowOfCommands {
		s.writeBeside(commands)
		return nil
	}
	s.out.n.Store(0)
	if s.out.err = s.armWrite(); s.out.err == nil {
		var n int
		n, s.out.err = s.conn.Write(commands)
		s.out.n.Store(int64(n))
	}
	return s.writeFailed()
}

// writeMessage writes a message and what follows it in one go.
func (s *Session) writeMessage(message, tail []byte) error {
	s.out.join()
	s.in.fills = 0
	if len(message) > windowOfMessage || len(tail) > windowOfCommands {
		// The time for the reply begins when the message has left.
		s.in.held = true
		_ = s.conn.SetReadDeadline(time.Time{})
		s.writeBeside(message, tail)
		return nil
	}
	s.out.n.Store(0)
	if s.out.err = s.armWrite(); s.out.err == nil {
		var n int64
		n, s.out.err = s.writeTogether(message, tail)
		s.out.n.Store(n)
	}
	return s.writeFailed()
}

func (s *Session) writeTogether(message, tail []byte) (int64, error) {
	w := &s.out
	if s.tcp != nil && s.gate != nil && s.socket != nil {
		return s.gate.write(message, tail)
	}
	if s.tcp != nil {
		w.parts = [2][]byte{message, tail}
		w.vec = w.parts[:]
		n, err := w.vec.WriteTo(s.tcp)
		w.parts = [2][]byte{}
		return n, err
	}
	gated := s.gate != nil && s.socket == nil // the gate is not beneath conn
	if len(message)+len(tail) <= joined && !gated {
		b := joinBuffers.Get().(*[]byte)
		defer joinBuffers.Put(b)
		*b = append(append((*b)[:0], message...), tail...)
		n, err := s.conn.Write(*b)
		return int64(n), err
	}
	n, err := s.conn.Write(message)
	if err == nil && gated {
		err = s.gate.pass()
	}
	if err != nil {
		return int64(n), err
	}
	m, err := s.conn.Write(tail)
	return int64(n) + int64(m), err
}

// writeBeside writes in a goroutine that join waits for.
func (s *Session) writeBeside(parts ...[]byte) {
	s.out.n.Store(0)
	s.out.err = nil
	held := s.in.held
	under := make(chan struct{})
	s.out.under = under
	go func() {
		defer close(under)
		s.out.err = s.writeBlocks(parts)
		if s.out.err == nil && !held {
			return
		}
		patience := s.d.timeout(cmdEnd)
		if s.out.err != nil {
			patience = min(patience, drainTimeout)
		}
		if _, ok := errors.AsType[*withdrawn](s.out.err); ok {
			patience = 0 // nothing that the server says matters any more
		}
		_ = s.conn.SetReadDeadline(time.Now().Add(patience))
		if s.stop.Load() {
			s.abort()
		}
	}()
}

func (s *Session) writeBlocks(parts [][]byte) error {
	for _, part := range parts {
		for len(part) > 0 {
			chunk := part[:min(len(part), block)]
			part = part[len(chunk):]
			if err := s.armWrite(); err != nil {
				return err
			}
			n, err := s.writeBlock(chunk)
			s.out.n.Add(n)
			if err != nil {
				return err
			}
		}
	}
	return nil
}

func (s *Session) writeBlock(chunk []byte) (int64, error) {
	switch {
	case s.gate == nil:
	case s.tcp != nil && s.socket != nil:
		return s.gate.write(chunk, nil)
	case s.socket == nil:
		if err := s.gate.pass(); err != nil {
			return 0, err
		}
	}
	n, err := s.conn.Write(chunk)
	return int64(n), err
}

func (s *Session) armWrite() error {
	if err := s.conn.SetWriteDeadline(time.Now().Add(s.d.writeTimeout())); err != nil {
		return err
	}
	if s.stop.Load() {
		return errStopped
	}
	return nil
}

// writeFailed leaves the server a moment for its last words.
func (s *Session) writeFailed() error {
	s.in.lastWords = s.out.err != nil
	return s.out.err
}
