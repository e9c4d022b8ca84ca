package smtp

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"bulkmail/envelope"
)

// A worker that was stopped in the middle of a message goes on when somebody else
// has the batch. What waits in front of the socket must not leave then, least of
// all the lone dot. The server stops reading until the batch is lost, which is
// what a stop looks like to the session.
func TestAMessageThatTakesLongIsNotEndedOnceItsGuardSaysNo(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		size     int
		tls      bool
		lost     bool
		accepted bool
	}{
		"in the clear":                       {size: 8 << 20, lost: true},
		"under TLS":                          {size: 8 << 20, tls: true, lost: true},
		"and is ended if its guard consents": {size: 8 << 20, accepted: true},
		"the same under TLS":                 {size: 8 << 20, tls: true, accepted: true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			reading, opened, resumed, over := make(chan struct{}), make(chan struct{}), make(chan struct{}), make(chan struct{})
			var body bytes.Buffer
			addr := serve(t, func(conn net.Conn) {
				defer close(over)
				if c.tls {
					conn = tls.Server(conn, testServerTLS(t))
				}
				r := bufio.NewReader(conn)
				_, _ = conn.Write([]byte("220 mx.test\r\n"))
				for {
					line, err := r.ReadString('\n')
					if err != nil {
						return
					}
					switch {
					case strings.HasPrefix(line, "EHLO"):
						_, _ = conn.Write([]byte("250 mx.test\r\n"))
					case strings.HasPrefix(line, "DATA"):
						_, _ = conn.Write([]byte("354 go on\r\n"))
						close(reading)
						<-resumed
						_, _ = io.Copy(&body, &untilDot{r: r})
						_, _ = conn.Write([]byte("250 2.0.0 queued\r\n"))
					default:
						_, _ = conn.Write([]byte("250 ok\r\n"))
					}
				}
			})
			content := envelope.NewMessage("Subject: x\n\n" + strings.Repeat(strings.Repeat("x", 70)+"\n", c.size/71))
			d := plainDialer(addr)
			d.askAgain = time.Nanosecond
			if c.tls {
				d.TLS, d.TLSVerify = Implicit, VerifyNever
			}
			s, err := d.Dial(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			defer func() { _ = s.Close() }()
			fenced := errors.New("somebody else has the batch")
			var lost atomic.Bool
			var asked atomic.Int64
			e := &Envelope{From: "a@example.com", Recipients: envelope.To("b@example.net"), Message: Guarded(content, func(context.Context) error {
				if asked.Add(1) == 1 {
					close(opened)
				}
				if lost.Load() {
					return fenced
				}
				return nil
			})}
			go func() {
				<-reading
				<-opened
				lost.Store(c.lost)
				close(resumed)
			}()
			err = s.Send(t.Context(), e, nil)
			if c.accepted {
				if err != nil || e.Results[0].Status != Accepted || asked.Load() < 2 {
					t.Errorf("%v, %+v, asked %d times", err, e.Results[0], asked.Load())
				}
				return
			}
			if !errors.Is(err, fenced) || e.Results[0].Status != NotAttempted || s.Usable() {
				t.Errorf("%v, %+v", err, e.Results[0])
			}
			if wrong, ok := errors.AsType[*Error](err); !ok || wrong.Unwell {
				t.Errorf("%+v", err)
			}
			_ = s.Close()
			<-over
			if bytes.Contains(body.Bytes(), []byte("\r\n.\r\n")) {
				t.Error("the message was ended")
			}
		})
	}
}

// untilDot reads a message up to its end.
type untilDot struct {
	r    *bufio.Reader
	over bool
	rest []byte
}

func (u *untilDot) Read(p []byte) (int, error) {
	if len(u.rest) == 0 {
		if u.over {
			return 0, io.EOF
		}
		line, err := u.r.ReadBytes('\n')
		if err != nil {
			return 0, err
		}
		u.over = string(line) == ".\r\n"
		u.rest = line
	}
	n := copy(p, u.rest)
	u.rest = u.rest[n:]
	return n, nil
}
