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
	"bulkmail/relay/sink"
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

// A server whose reply to the dot always comes too late gets a few copies and no
// more, however long retries go on; with skip it gets one. Who may have the message
// is in doubt in the end, not expired, and in no dead letter.
func TestARecipientWhoseReplyAlwaysComesTooLateGetsThreeCopiesAndIsInDoubt(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		o      worker.Options
		copies int
		text   string
	}{
		"resend":                 {worker.Options{InDoubt: worker.Resend, RetryFor: time.Hour}, 3, "; so it was 3 times, not sent again"},
		"resend, the time is up": {worker.Options{InDoubt: worker.Resend, RetryFor: time.Millisecond}, 1, "the end of the data"},
		"skip":                   {worker.Options{InDoubt: worker.Skip, RetryFor: time.Hour}, 1, "the end of the data"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := &late{copies: map[string]int{}}
			addr := listening(t, s.serve)
			h := newHouse(t)
			l := h.ledger(t, "c", "1")
			list := people(3, "a.test")
			h.publish(t, "c", envelope.Batch{ID: "1", Recipients: envelope.To(list...)})
			e := h.hireWith(t, c.o, impatient, smtpRelay(t, "late", addr, func(c *relay.Config) { c.TimeOut = 100 * time.Millisecond }))
			l.until(subjects.Done)
			h.empty(t)
			e.leave(t)
			s.mu.Lock()
			defer s.mu.Unlock()
			for _, to := range list {
				got := l.newest[to]
				if got.status != subjects.InDoubt || got.code != 451 || !strings.HasSuffix(got.text, c.text) ||
					!strings.HasPrefix(got.text, "the connection was lost before the reply to the end of the data") {
					t.Errorf("%s is %+v", to, got)
				}
				if n := s.copies[to]; n != c.copies {
					t.Errorf("%s: %d copies, want %d", to, n, c.copies)
				}
			}
			if n := h.stored(t, h.names.DeadStream()); n != 0 {
				t.Errorf("%d dead letters: retrying them sends once more", n)
			}
		})
	}
}

// Deferred after it was in doubt, a recipient may still have the first copy.
func TestWhoWasInDoubtOnceDoesNotExpire(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	post := openSink(t, sink.Options{}, "RCPT:*=451 4.2.0 later")
	known := subjects.Entry{Time: time.Now(), Worker: "other", Attempt: 1, Event: subjects.Claimed}
	for range 2 {
		if _, err := h.js.Publish(t.Context(), h.names.Outcomes("c", "1"), known.AppendJSON(nil)); err != nil {
			t.Fatal(err)
		}
		known.Event = subjects.Recorded
		known.Results = []subjects.Results{{Status: subjects.Deferred, InDoubt: true, Code: 451, Text: "lost", Recipients: []string{"p0@a.test"}}}
	}
	l := h.ledger(t, "c", "1")
	h.publish(t, "c", envelope.Batch{ID: "1", Recipients: envelope.To(people(2, "a.test")...)})
	h.hire(t, worker.Options{RetryFor: time.Millisecond, RetryDelays: worker.Schedule{time.Millisecond}}, post.relay(t))
	l.until(subjects.Done)
	h.empty(t)
	if got := l.newest["p0@a.test"]; got.status != subjects.InDoubt || got.text != "an earlier attempt may have been accepted; the last one: later" {
		t.Errorf("who was in doubt is %+v", got)
	}
	if got := l.newest["p1@a.test"]; got.status != subjects.Expired {
		t.Errorf("who was not is %+v", got)
	}
	if n := h.stored(t, h.names.DeadStream()); n != 1 {
		t.Errorf("%d dead letters, want that of the one who expired", n)
	}
}
