package worker_test

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"bulkmail/envelope"
	"bulkmail/relay"
	"bulkmail/relay/smtp"
	"bulkmail/subjects"
	"bulkmail/worker"
)

// hesitant is a relay to which messages take long to leave: their guard is asked
// again before their end.
type hesitant struct{ *memorySession }

func (hesitant) Dial(context.Context) (relay.Session, error) {
	return hesitant{&memorySession{m: newMemory()}}, nil
}

func (s hesitant) Send(ctx context.Context, e *smtp.Envelope, next func() *smtp.Envelope) error {
	for range 3 {
		if err := e.Message.Ask(ctx); err != nil {
			return err
		}
	}
	return s.memorySession.Send(ctx, e, next)
}

func TestWithSkipRecipientsAreAnnouncedOnceHoweverOftenTheGuardIsAsked(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	l := h.ledger(t, "c", "1")
	h.publish(t, "c", envelope.Batch{ID: "1", Recipients: envelope.To(people(30, "a.test")...)})
	r := newMemory().relay(oneSession, tenAnEnvelope)
	r.Dialer = hesitant{}
	h.hire(t, worker.Options{InDoubt: worker.Skip}, r)
	announced := map[string]int{}
	for {
		var e subjects.Entry
		if err := json.Unmarshal(l.next().Data(), &e); err != nil {
			t.Fatal(err)
		}
		if e.Event == subjects.Done {
			break
		}
		for _, r := range e.Results {
			for _, to := range r.Recipients {
				if e.Event == subjects.Sending {
					announced[to]++
				}
			}
		}
	}
	if len(announced) != 30 {
		t.Errorf("%d of 30 were announced", len(announced))
	}
	for to, n := range announced {
		if n != 1 {
			t.Errorf("%s was announced %d times", to, n)
		}
	}
}

// late is a server that takes messages and never says so. It counts the copies
// that it has by recipient.
type late struct {
	mu     sync.Mutex
	copies map[string]int
}

func (s *late) serve(conn net.Conn) {
	defer func() { _ = conn.Close() }()
	_, _ = fmt.Fprint(conn, "220 mx.test\r\n")
	var to []string
	data := false
	for lines := bufio.NewScanner(conn); lines.Scan(); {
		line := lines.Text()
		reply := "250 ok"
		switch {
		case data && line != ".":
			continue
		case data:
			s.mu.Lock()
			for _, r := range to {
				s.copies[r]++
			}
			s.mu.Unlock()
			data = false
			continue // the client does not wait that long
		case strings.HasPrefix(line, "MAIL"):
			to = nil
		case strings.HasPrefix(line, "RCPT"):
			to = append(to, strings.TrimSuffix(strings.TrimPrefix(line, "RCPT TO:<"), ">"))
		case line == "DATA":
			data, reply = true, "354 go on"
		case line == "QUIT":
			return
		}
		_, _ = fmt.Fprint(conn, reply+"\r\n")
	}
}

// A server whose reply to the dot always comes too late gets a copy each attempt,
// as the schedule says, and no more; with skip it gets one.
func TestAReplyThatAlwaysComesTooLateCostsACopyAnAttempt(t *testing.T) {
	t.Parallel()
	for inDoubt, final := range map[worker.InDoubt]subjects.Status{worker.Resend: subjects.Expired, worker.Skip: subjects.InDoubt} {
		t.Run(string(inDoubt), func(t *testing.T) {
			t.Parallel()
			s := &late{copies: map[string]int{}}
			addr := listening(t, s.serve)
			h := newHouse(t)
			l := h.ledger(t, "c", "1")
			list := people(3, "a.test")
			h.publish(t, "c", envelope.Batch{ID: "1", Recipients: envelope.To(list...)})
			e := h.hireWith(t, worker.Options{InDoubt: inDoubt, RetryFor: time.Second, RetryDelays: worker.Schedule{300 * time.Millisecond}}, impatient,
				smtpRelay(t, "late", addr, func(c *relay.Config) { c.TimeOut = 100 * time.Millisecond }))
			attempts := l.until(subjects.Done).Attempt
			e.leave(t)
			s.mu.Lock()
			defer s.mu.Unlock()
			for _, to := range list {
				got := l.newest[to]
				if got.status != final || !strings.Contains(got.text, "the connection was lost before the reply to the end of the data") {
					t.Errorf("%s is %+v", to, got)
				}
				if n := s.copies[to]; n < 1 || n > attempts || inDoubt == worker.Skip && n != 1 {
					t.Errorf("%s: %d copies in %d attempts", to, n, attempts)
				}
			}
		})
	}
}
