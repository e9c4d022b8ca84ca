package relay_test

import (
	"context"
	"fmt"
	"net"
	"os/exec"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"bulkmail/envelope"
	"bulkmail/relay"
	"bulkmail/relay/config"
	"bulkmail/relay/sink"
	"bulkmail/relay/smtp"
)

// endless is a source that never runs out.
type endless struct {
	pool       *relay.Pool
	recipients []envelope.Recipient
	message    *envelope.Message
	accepted   atomic.Int64
	stalled    atomic.Int64
}

func (s *endless) Pending() int { return 1 << 20 }

func (s *endless) Cut(g relay.Grant) *relay.Envelope {
	n := min(g.Messages, len(s.recipients))
	return &relay.Envelope{Envelope: smtp.Envelope{From: "a@example.com", Recipients: s.recipients[:n], Message: smtp.Guarded(s.message, nil), Results: make([]smtp.Result, n)}}
}

func (s *endless) Settle(e *relay.Envelope, _ string, _ error) {
	for _, r := range e.Results {
		if r.Status == smtp.Accepted {
			s.accepted.Add(1)
		}
	}
	s.pool.Ready(s)
}

func (s *endless) Stalled(time.Time, error) { s.stalled.Add(1) }

// manners are how a server behaves with so many messages in its hands.
type manners struct {
	name  string
	takes func(n int) time.Duration // over each
	most  int                       // and beyond that it throttles; 0: never
}

func (m manners) start(b *testing.B) string {
	var inHand atomic.Int32
	var mu sync.Mutex
	var server *sink.Server
	throttle, err := sink.ParseRules("MAIL=451 4.7.0 throttled, too many concurrent sessions")
	if err != nil {
		b.Fatal(err)
	}
	manner := func() {
		if m.most == 0 {
			return
		}
		mu.Lock()
		defer mu.Unlock()
		if int(inHand.Load()) >= m.most {
			server.SetRules(throttle)
		} else {
			server.SetRules(nil)
		}
	}
	mu.Lock()
	server, err = sink.Start(sink.Options{Recorder: func(sink.Transaction) {
		n := inHand.Add(1)
		manner()
		time.Sleep(m.takes(int(n)))
		inHand.Add(-1)
		manner()
	}})
	mu.Unlock()
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() {
		if err := server.Close(context.Background()); err != nil {
			b.Error(err)
		}
	})
	return server.Addr()
}

// BenchmarkAdaptive sends for a while with 16 connections, all of them or as
// many as serve the relay best: -benchtime 1x.
func BenchmarkAdaptive(b *testing.B) {
	const usual = 5 * time.Millisecond
	servers := []manners{
		{"has room for all", func(int) time.Duration { return usual }, 0},
		{"has room for 4", func(n int) time.Duration { return usual * time.Duration(max(4, n)) / 4 }, 0},
		{"thrashes beyond 4", func(n int) time.Duration { return usual * time.Duration(max(16, n*n)) / 16 }, 0},
		{"throttles beyond 4", func(int) time.Duration { return usual }, 4},
	}
	for _, m := range servers {
		for _, adaptive := range []bool{false, true} {
			b.Run(fmt.Sprintf("%s/adaptive=%t", m.name, adaptive), func(b *testing.B) { benchmarkAdaptive(b, m.start(b), adaptive) })
		}
	}
	for _, adaptive := range []bool{false, true} {
		b.Run(fmt.Sprintf("smtp-sink/adaptive=%t", adaptive), func(b *testing.B) {
			path, err := exec.LookPath("smtp-sink")
			if err != nil {
				b.Skip(err)
			}
			l, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				b.Fatal(err)
			}
			addr := l.Addr().String()
			_ = l.Close()
			command := exec.Command(path, "-u", "nobody", addr, "1000")
			if err := command.Start(); err != nil {
				b.Fatal(err)
			}
			for conn, err := net.Dial("tcp", addr); ; conn, err = net.Dial("tcp", addr) {
				if err == nil {
					_ = conn.Close()
					break
				}
			}
			b.Cleanup(func() {
				_ = command.Process.Kill()
				_ = command.Wait()
			})
			benchmarkAdaptive(b, addr, adaptive)
		})
	}
}

func benchmarkAdaptive(b *testing.B, addr string, adaptive bool) {
	configs, err := config.Load(fmt.Sprintf("smtp://%s?tls=none&domain=client.test&connections=16&adaptive=%t", addr, adaptive), "", config.Options{})
	if err != nil {
		b.Fatal(err)
	}
	relays, err := relay.FromConfig(configs, relay.Outlets{})
	if err != nil {
		b.Fatal(err)
	}
	p := relay.NewPool(relays, relay.Options{})
	s := &endless{pool: p}
	s.message = envelope.NewMessage("Subject: t\r\n\r\nhello\r\n")
	for i := range 10 {
		s.recipients = append(s.recipients, envelope.To(fmt.Sprintf("r%d@example.net", i))...)
	}
	const span = 20 * time.Second
	for b.Loop() {
		before := s.accepted.Load()
		p.Add(s)
		time.Sleep(span / 20)
		first := s.accepted.Load() - before
		time.Sleep(span * 19 / 20)
		b.ReportMetric(float64(s.accepted.Load()-before)/span.Seconds(), "recipients/s")
		b.ReportMetric(float64(first), "in-the-first-second")
		b.ReportMetric(float64(p.Status()[0].AtOnce), "sessions")
		p.Remove(s)
	}
	if err := p.Close(context.Background()); err != nil {
		b.Fatal(err)
	}
}
