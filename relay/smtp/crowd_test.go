package smtp

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"bulkmail/envelope"
)

// A cramped server takes so many recipients in one envelope.
type cramped struct {
	room  atomic.Int32
	serve sync.WaitGroup
}

func (c *cramped) dialer() *Dialer {
	d := plainDialer("cramped.test:25")
	d.NetDial = func(context.Context, string, string) (net.Conn, error) {
		client, server := net.Pipe()
		c.serve.Go(func() { c.talk(server) })
		return client, nil
	}
	return d
}

// talk answers each group once it has read all of it, as net.Pipe holds nothing.
func (c *cramped) talk(conn net.Conn) {
	defer conn.Close()
	r := bufio.NewReader(conn)
	_, _ = io.WriteString(conn, "220 cramped.test\r\n")
	var replies strings.Builder
	taken, data := int32(0), false
	for {
		line, err := r.ReadString('\n')
		if err != nil {
			return
		}
		switch verb, _, _ := strings.Cut(strings.TrimSpace(line), " "); {
		case data && line != ".\r\n":
			continue
		case data:
			data = false
			replies.WriteString("250 2.0.0 ok\r\n")
		case verb == "EHLO":
			replies.WriteString("250-cramped.test\r\n250 PIPELINING\r\n")
		case verb == "MAIL":
			taken = 0
			replies.WriteString("250 2.1.0 ok\r\n")
			continue
		case verb == "RCPT" && taken < c.room.Load():
			taken++
			replies.WriteString("250 2.1.5 ok\r\n")
			continue
		case verb == "RCPT":
			replies.WriteString("452 4.5.3 too many recipients\r\n")
			continue
		case verb == "DATA":
			data = true
			replies.WriteString("354 go on\r\n")
		case verb == "QUIT":
			_, _ = io.WriteString(conn, "221 2.0.0 bye\r\n")
			return
		}
		_, _ = io.WriteString(conn, replies.String())
		replies.Reset()
	}
}

// fill sends as many recipients as the session says that the server takes, 64 at
// most, and returns how many were said and how many accepted. The others must
// not have been attempted.
func fill(t *testing.T, s *Session) (said, accepted int) {
	t.Helper()
	said = 64
	if n := s.MaxRecipients(); n > 0 {
		said = min(said, n)
	}
	e := &Envelope{From: "a@example.com", Message: Guarded(mustMessage(t, "Subject: t\r\n\r\nhi\r\n"), nil)}
	for i := range said {
		e.Recipients = append(e.Recipients, envelope.To(fmt.Sprintf("r%d@example.net", i))...)
	}
	if err := s.Send(t.Context(), e, nil); err != nil {
		t.Fatal(err)
	}
	for i, r := range e.Results {
		switch r.Status {
		case Accepted:
			accepted++
		case NotAttempted:
		default:
			t.Fatalf("recipient %d of %d: %+v", i, said, r)
		}
	}
	return said, accepted
}

func TestWhatAServerTaughtIsTriedAgainAfterPausesThatDouble(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		server := &cramped{}
		server.room.Store(8)
		s, err := server.dialer().Dial(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		var probes []string
		began := time.Now()
		for at := time.Duration(0); at < 3*time.Hour; at = time.Since(began) {
			if at >= 2*time.Hour {
				server.room.Store(40)
			}
			if said, accepted := fill(t, s); said != accepted || said > 8 && at > 0 && len(probes) < 7 {
				probes = append(probes, fmt.Sprintf("%v %d of %d", at, accepted, said))
			}
			time.Sleep(time.Minute)
		}
		want := "[0s 8 of 64 11m0s 8 of 16 32m0s 8 of 16 1h13m0s 8 of 16 2h34m0s 16 of 16 2h35m0s 32 of 32 2h36m0s 40 of 64 2h47m0s 40 of 64]"
		if fmt.Sprint(probes) != want {
			t.Errorf("tried more: %v\nwant %s", probes, want)
		}
		if n := s.MaxRecipients(); n != 40 {
			t.Errorf("at most %d recipients, the server takes 40", n)
		}
		_ = s.Close()
		server.serve.Wait()
	})
}

func TestOneSessionTriesForAllAndAnotherTakesOverIfItIsClosed(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		server := &cramped{}
		server.room.Store(8)
		d := server.dialer()
		var sessions []*Session
		for range 3 {
			s, err := d.Dial(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			sessions = append(sessions, s)
		}
		for _, s := range sessions {
			fill(t, s)
		}
		time.Sleep(firstProbe)
		for _, s := range sessions {
			fill(t, s)
		}
		if a, b, c := sessions[0].MaxRecipients(), sessions[1].MaxRecipients(), sessions[2].MaxRecipients(); a != 16 || b != 8 || c != 8 {
			t.Errorf("%d, %d and %d recipients, want the first to try 16 and the others to send 8", a, b, c)
		}
		_ = sessions[0].Close()
		fill(t, sessions[1])
		if n := sessions[1].MaxRecipients(); n != 16 {
			t.Errorf("%d recipients, want the second to try 16", n)
		}
		_ = sessions[1].Close()
		_ = sessions[2].Close()
		server.serve.Wait()
	})
}
