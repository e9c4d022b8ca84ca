package relay

import (
	"context"
	"fmt"
	"sync/atomic"
	"testing"
	"time"

	"bulkmail/envelope"
	"bulkmail/relay/smtp"
)

// instant is a relay that accepts everything at once.
type instant struct{ overlap bool }

type instantSession struct{ overlap bool }

func (r *instant) Dial(context.Context) (Session, error) { return &instantSession{r.overlap}, nil }

func (s *instantSession) Send(_ context.Context, e *smtp.Envelope, next func() *smtp.Envelope) error {
	if s.overlap {
		next()
	}
	answer(e, smtp.Accepted)
	return nil
}

func (s *instantSession) Usable() bool       { return true }
func (s *instantSession) MaxRecipients() int { return 0 }
func (s *instantSession) Close() error       { return nil }

// supply is a source that makes no garbage: as many envelopes as asked for,
// reused when they come back.
type supply struct {
	left, out atomic.Int64
	spare     chan *Envelope
	done      chan struct{}
}

func newSupply(envelopes, recipients int) *supply {
	s := &supply{spare: make(chan *Envelope, 256), done: make(chan struct{})}
	s.left.Store(int64(envelopes))
	s.out.Store(int64(envelopes))
	for range cap(s.spare) {
		s.spare <- &Envelope{Envelope: smtp.Envelope{Recipients: make([]envelope.Recipient, recipients), Results: make([]smtp.Result, recipients)}}
	}
	return s
}

func (s *supply) Pending() int { return int(max(s.left.Load(), 0)) }

func (s *supply) Cut(g Grant) *Envelope {
	if s.left.Add(-1) < 0 {
		return nil
	}
	e := <-s.spare
	n := min(g.Messages, cap(e.Recipients))
	e.Recipients, e.Results = e.Recipients[:n], e.Results[:n]
	return e
}

func (s *supply) Settle(e *Envelope, _ string, _ error) {
	s.spare <- e
	if s.out.Add(-1) == 0 {
		close(s.done)
	}
}

func (s *supply) Stalled(time.Time, error) {}

// BenchmarkPool is what the pool adds to an envelope: relays that take no
// time, a source that makes no garbage.
func BenchmarkPool(b *testing.B) {
	for _, bench := range []struct {
		name              string
		relays, sessions  int
		recipients        int
		overlap, withCaps bool
	}{
		{"1 relay, 1 session", 1, 1, 100, false, false},
		{"1 relay, 16 sessions", 1, 16, 100, false, false},
		{"3 relays, 4 sessions", 3, 4, 100, false, false},
		{"3 relays, 4 sessions, 1 recipient", 3, 4, 1, false, false},
		{"3 relays, 4 sessions, overlap", 3, 4, 100, true, false},
		{"3 relays, 4 sessions, caps", 3, 4, 100, false, true},
	} {
		b.Run(bench.name, func(b *testing.B) {
			var relays []Relay
			for i := range bench.relays {
				relays = append(relays, named(fmt.Sprint("r", i), &instant{bench.overlap}, connections(bench.sessions), perRobin(500), func(c *Config) {
					if bench.withCaps {
						c.MaxMessages, c.MaxMessagesWindow = 1<<40, time.Hour
						c.MaxRate = Rate{Messages: 1 << 40, Per: time.Second}
						c.MaxMessagesWhileAwake, c.SleepLength = 1<<40, time.Second
					}
				}))
			}
			p := NewPool(relays, Options{})
			s := newSupply(b.N, bench.recipients)
			b.ReportAllocs()
			b.ResetTimer()
			p.Add(s)
			<-s.done
			b.StopTimer()
			closePool(b, p)
		})
	}
}
