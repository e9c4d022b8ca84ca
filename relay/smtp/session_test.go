package smtp

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"bulkmail/envelope"
)

func mustMessage(t testing.TB, raw string) *envelope.Message {
	t.Helper()
	return envelope.NewMessage(raw)
}

func plainDialer(addr string) *Dialer {
	return &Dialer{Addr: addr, Domain: "client.test", Tries: 1, TLS: NoTLS, Overlap: OverlapOff}
}

// A willing server accepts everything and hands each message to got. It says
// nothing to the command named silent, and tells reached that it came.
func willing(conn net.Conn, silent string, reached chan<- struct{}, got func(from string, wire []byte)) {
	r, w := bufio.NewReader(conn), bufio.NewWriter(conn)
	say := func(s string) {
		_, _ = w.WriteString(s)
		if r.Buffered() == 0 {
			_ = w.Flush()
		}
	}
	quiet := func(command string) bool {
		if command != silent {
			return false
		}
		_ = w.Flush()
		reached <- struct{}{}
		_, _ = io.Copy(io.Discard, r)
		return true
	}
	if quiet("CONNECT") {
		return
	}
	say("220 willing\r\n")
	var from string
	for {
		line, err := r.ReadString('\n')
		if err != nil {
			return
		}
		verb := strings.ToUpper(line[:min(4, len(line))])
		if quiet(verb) {
			return
		}
		switch verb {
		case "EHLO":
			say("250-willing\r\n250-PIPELINING\r\n250-8BITMIME\r\n250 SMTPUTF8\r\n")
		case "MAIL":
			from = line[len("MAIL FROM:<"):strings.IndexByte(line, '>')]
			say("250 ok\r\n")
		case "DATA":
			say("354 go on\r\n")
			var wire []byte
			for {
				l, err := r.ReadBytes('\n')
				if err != nil {
					return
				}
				if bytes.Equal(l, []byte(".\r\n")) {
					break
				}
				wire = append(wire, l...)
			}
			if quiet("END") {
				return
			}
			if got != nil {
				got(from, wire)
			}
			say("250 queued\r\n")
		case "QUIT":
			say("221 bye\r\n")
			return
		default:
			say("250 ok\r\n")
		}
	}
}

func TestCancellingTheContextReturnsAtOnce(t *testing.T) {
	t.Parallel()
	for _, silent := range []string{"CONNECT", "EHLO", "MAIL", "RCPT", "DATA", "END"} {
		t.Run(silent, func(t *testing.T) {
			t.Parallel()
			reached := make(chan struct{}, 1)
			addr := serve(t, func(conn net.Conn) { willing(conn, silent, reached, nil) })
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			var canceled time.Time
			var wg sync.WaitGroup
			wg.Go(func() { <-reached; canceled = time.Now(); cancel() })
			e := &Envelope{From: "a@example.com", Recipients: envelope.To("b@example.net"), Message: Guarded(mustMessage(t, "Subject: x\n\ny\n"), nil)}
			s, err := plainDialer(addr).Dial(ctx) // no reply may take 5 minutes
			if err == nil {
				err = s.Send(ctx, e, nil)
			}
			wg.Wait()
			if took := time.Since(canceled); took > time.Second {
				t.Errorf("it took %v", took)
			}
			if !errors.Is(err, context.Canceled) {
				t.Errorf("%v, want %v", err, context.Canceled)
			}
			if e, ok := errors.AsType[*Error](err); !ok || e.Unwell {
				t.Errorf("%v: the relay is not to blame", err)
			}
			if s == nil {
				return
			}
			want := NotAttempted
			if silent == "END" {
				want = InDoubt
			}
			if e.Results[0].Status != want {
				t.Errorf("status %d, want %d", e.Results[0].Status, want)
			}
			if s.Usable() {
				t.Error("the session is said to be usable")
			}
		})
	}
}

func TestAContextThatIsOverSendsNothing(t *testing.T) {
	t.Parallel()
	addr := serve(t, func(conn net.Conn) { willing(conn, "", nil, nil) })
	s, err := plainDialer(addr).Dial(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	e := &Envelope{From: "a@example.com", Recipients: envelope.To("b@example.net"), Message: Guarded(mustMessage(t, "Subject: x\n\ny\n"), nil)}
	if err := s.Send(ctx, e, nil); !errors.Is(err, context.Canceled) || e.Results[0].Status != NotAttempted {
		t.Errorf("%v, %+v", err, e.Results)
	}
	if err := s.Send(t.Context(), e, nil); err != nil || e.Results[0].Status != Accepted {
		t.Errorf("the session was not used up: %v, %+v", err, e.Results)
	}
	_ = s.Close()
}

// A server that reads and answers one command after the other, and stops
// reading while it cannot get rid of its answers.
func TestAGroupLargerThanTheWindowDoesNotBlock(t *testing.T) {
	t.Parallel()
	const recipients = 3000
	long := strings.Repeat("no such user, and here is at length why that is so. ", 40)
	addr := serve(t, func(conn net.Conn) {
		_ = conn.(*net.TCPConn).SetReadBuffer(4 << 10)
		_ = conn.(*net.TCPConn).SetWriteBuffer(4 << 10)
		_, _ = io.WriteString(conn, "220 narrow\r\n")
		r := bufio.NewReaderSize(conn, 512)
		for {
			line, err := r.ReadString('\n')
			if err != nil {
				return
			}
			reply := "250 ok\r\n"
			switch line[:4] {
			case "EHLO":
				reply = "250-narrow\r\n250 PIPELINING\r\n"
			case "RCPT":
				reply = "550 5.1.1 " + long + "\r\n"
			case "DATA":
				reply = "554 5.5.1 no valid recipients\r\n"
			case "QUIT":
				reply = "221 bye\r\n"
			}
			if _, err := io.WriteString(conn, reply); err != nil {
				return
			}
		}
	})
	d := plainDialer(addr)
	d.Timeout = 20 * time.Second
	s, err := d.Dial(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	e := &Envelope{From: "a@example.com", Message: Guarded(mustMessage(t, "Subject: x\n\ny\n"), nil)}
	for i := range recipients {
		e.Recipients = append(e.Recipients, envelope.To(fmt.Sprintf("somebody-or-other-%05d@example.net", i))...)
	}
	if err := s.Send(t.Context(), e, nil); err != nil {
		t.Fatal(err)
	}
	for i, r := range e.Results {
		if r.Status != Rejected {
			t.Fatalf("recipient %d has status %d", i, r.Status)
		}
	}
	_ = s.Close()
}

func TestASilentServerCostsOneDeadline(t *testing.T) {
	t.Parallel()
	for _, silent := range []string{"MAIL", "RCPT", "DATA", "END"} {
		t.Run(silent, func(t *testing.T) {
			t.Parallel()
			addr := serve(t, func(conn net.Conn) { willing(conn, silent, make(chan struct{}, 1), nil) })
			d := plainDialer(addr)
			d.Timeout = time.Second
			s, err := d.Dial(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			e := &Envelope{From: "a@example.com", Recipients: envelope.To("b@example.net", "c@example.net"), Message: Guarded(mustMessage(t, "Subject: x\n\ny\n"), nil)}
			start := time.Now()
			err = s.Send(t.Context(), e, nil)
			if took := time.Since(start); took < d.Timeout || took > 2*d.Timeout {
				t.Errorf("it took %v with a deadline of %v", took, d.Timeout)
			}
			if e, ok := errors.AsType[*Error](err); !ok || e.MBS != "MBS014" || !e.Unwell {
				t.Errorf("%v", err)
			}
		})
	}
}

func TestAServerGoneWhileIdleIsNotUnwell(t *testing.T) {
	t.Parallel()
	served := make(chan struct{})
	closed := make(chan struct{})
	addr := serve(t, func(conn net.Conn) {
		go func() { <-served; _ = conn.Close(); close(closed) }()
		willing(conn, "", nil, nil)
	})
	s, err := plainDialer(addr).Dial(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	e := &Envelope{From: "a@example.com", Recipients: envelope.To("b@example.net"), Message: Guarded(mustMessage(t, "Subject: x\n\ny\n"), nil)}
	if err := s.Send(t.Context(), e, nil); err != nil {
		t.Fatal(err)
	}
	close(served)
	<-closed
	err = s.Send(t.Context(), e, nil)
	if e, ok := errors.AsType[*Error](err); !ok || e.Unwell {
		t.Errorf("%v: the session alone is over", err)
	}
	if e.Results[0].Status != NotAttempted {
		t.Errorf("status %d", e.Results[0].Status)
	}
}

// canned is a connection that answers from a tape and costs nothing, so that
// what is counted is ours.
type canned struct {
	net.Conn
	greeting []byte
	tape     []byte
	rest     []byte
}

func (c *canned) Read(p []byte) (int, error) {
	if len(c.greeting) > 0 {
		end := bytes.IndexByte(c.greeting, '@')
		n := copy(p, c.greeting[:end])
		c.greeting = c.greeting[end+1:]
		return n, nil
	}
	if len(c.rest) == 0 {
		c.rest = c.tape
	}
	end := bytes.IndexByte(c.rest, '@') // nothing is answered before it is asked
	n := copy(p, c.rest[:end])
	if c.rest = c.rest[n:]; n == end {
		c.rest = c.rest[1:]
	}
	return n, nil
}

func (c *canned) Write(p []byte) (int, error)      { return len(p), nil }
func (c *canned) SetReadDeadline(time.Time) error  { return nil }
func (c *canned) SetWriteDeadline(time.Time) error { return nil }
func (c *canned) SetDeadline(time.Time) error      { return nil }
func (c *canned) Close() error                     { return nil }

func TestARecipientCostsNoAllocation(t *testing.T) {
	allocations := func(recipients int) float64 {
		conn := &canned{
			greeting: []byte("220 mx\r\n@250-mx\r\n250-PIPELINING\r\n250 SIZE\r\n@"),
			tape:     []byte("250 2.1.0 ok\r\n" + strings.Repeat("250 2.1.5 ok\r\n", recipients) + "354 go on\r\n@250 2.0.0 queued\r\n@"),
		}
		d := plainDialer("mx.test:25")
		d.NetDial = func(context.Context, string, string) (net.Conn, error) { return conn, nil }
		s, err := d.Dial(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		e := &Envelope{From: "news@example.com", Message: Guarded(mustMessage(t, "Subject: x\n\ny\n"), nil)}
		for i := range recipients {
			e.Recipients = append(e.Recipients, envelope.To(fmt.Sprintf("r%d@example.net", i))...)
		}
		return testing.AllocsPerRun(100, func() {
			if err := s.Send(t.Context(), e, nil); err != nil {
				t.Fatal(err)
			}
		})
	}
	one, hundred := allocations(1), allocations(100)
	t.Logf("%v allocations for an envelope of 1, %v for one of 100", one, hundred)
	if hundred > one {
		t.Errorf("%v allocations for 1 recipient, %v for 100", one, hundred)
	}
}

func TestErrorsSayWhatHappened(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		err  *Error
		want string
	}{
		{&Error{MBS: "MBS009", Command: "MAIL", Reply: &Reply{Code: 421, Enhanced: "4.3.2", Text: "down"}}, "MAIL: the server said 421 4.3.2 down (MBS009)"},
		{unreachableFor(syscall.EMFILE), "CONNECT: too many open files (MBS002)"},
		{unreachableFor(syscall.ECONNREFUSED), "CONNECT: connection refused (MBS003)"},
		{gone(cmdRCPT, io.EOF), "RCPT: the server closed the connection (MBS009)"},
		{&Error{}, "the session is over"},
	} {
		if got := c.err.Error(); got != c.want {
			t.Errorf("%q, want %q", got, c.want)
		}
	}
}

func unreachableFor(err error) *Error { return new(Dialer).unreachable(context.Background(), err) }
