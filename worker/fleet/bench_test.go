package fleet

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"bulkmail/envelope"
	"bulkmail/relay"
	"bulkmail/relay/config"
	"bulkmail/relay/sink"
	"bulkmail/relay/smtp"
)

// feed is a source of so many envelopes that a real relay takes.
type feed struct {
	mu         sync.Mutex
	left, out  int
	recipients []envelope.Recipient
	message    *envelope.Message
	done       chan struct{}
}

func (f *feed) Pending() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.left
}

func (f *feed) Cut(g relay.Grant) *relay.Envelope {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.left == 0 {
		return nil
	}
	n := min(g.Messages, len(f.recipients))
	f.left--
	return &relay.Envelope{Envelope: smtp.Envelope{From: "a@example.com", Recipients: f.recipients[:n], Message: smtp.Guarded(f.message, nil), Results: make([]smtp.Result, n)}}
}

func (f *feed) Settle(*relay.Envelope, string, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.out--; f.out == 0 {
		close(f.done)
	}
}

func (f *feed) Stalled(time.Time, error) {}

func cpu(b *testing.B) time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// Caps that are never reached.
const (
	aQuota = "max_messages=1000000000&max_messages_window=24h"
	aRate  = "max_rate=10000000/s"
)

// BenchmarkCost sends over SMTP to one relay, with caps that are never reached
// and without any, and reports the CPU that all of it takes: pool, session,
// sink, and where there is a cap, fleet and broker.
func BenchmarkCost(b *testing.B) {
	for _, workers := range []int{1, 8} {
		for _, recipients := range []int{1, 10, 100} {
			for _, limits := range []string{"", aQuota, aRate} {
				name, _, _ := strings.Cut(limits, "=")
				b.Run(fmt.Sprintf("workers=%d/recipients=%d/cap=%s", workers, recipients, name), func(b *testing.B) {
					c := send(b, workers, recipients, limits, b.N)
					b.ReportMetric(float64(c.cpu.Nanoseconds())/float64(b.N*recipients), "cpu-ns/recipient")
					b.ReportMetric(float64(c.written)/float64(b.N), "entries/envelope")
					b.ReportMetric(float64(c.refused)/float64(b.N), "refused/envelope")
				})
			}
		}
	}
}

// BenchmarkRatio is the CPU that caps cost eight workers, in parts of what they take
// without: the median of rounds in which each is measured next to the other, and the
// ratio of two measurements without caps, which is the noise. One iteration is all
// rounds.
func BenchmarkRatio(b *testing.B) {
	const workers, recipients, envelopes, rounds = 8, 100, 20_000, 7
	cases := []struct{ name, limits string }{{"noise", ""}, {"max_messages", aQuota}, {"max_rate", aRate}}
	for b.Loop() {
		ratios := make([][]float64, len(cases))
		for round := range rounds {
			for i := range cases {
				k := (round + i) % len(cases)
				first, second := "", cases[k].limits
				if round%2 == 1 {
					first, second = second, first
				}
				one, two := send(b, workers, recipients, first, envelopes), send(b, workers, recipients, second, envelopes)
				if round%2 == 1 {
					one, two = two, one
				}
				ratios[k] = append(ratios[k], float64(two.cpu)/float64(one.cpu))
			}
		}
		for k, c := range cases {
			slices.Sort(ratios[k])
			b.ReportMetric(ratios[k][rounds/2], c.name)
			b.Logf("%s: %.3f", c.name, ratios[k])
		}
	}
}

// A cost is what it took to send.
type cost struct {
	cpu              time.Duration
	written, refused int // entries
}

// send has so many workers send so many envelopes together.
func send(b *testing.B, workers, recipients int, limits string, envelopes int) cost {
	server, err := sink.Start(sink.Options{})
	if err != nil {
		b.Fatal(err)
	}
	defer func() {
		if err := server.Close(context.Background()); err != nil {
			b.Error(err)
		}
	}()
	url, _ := openBucket(b, false)
	configs, err := config.Load(fmt.Sprintf("smtp://%s?tls=none&domain=client.test&%s", server.Addr(), limits), "", config.Options{})
	if err != nil {
		b.Fatal(err)
	}
	message := envelope.NewMessage("Subject: t\r\n\r\nhello\r\n")
	var hands []*testWorker
	var feeds []*feed
	for i := range workers {
		relays, err := relay.FromConfig(configs, relay.Outlets{})
		if err != nil {
			b.Fatal(err)
		}
		n := envelopes / workers
		if i == 0 {
			n += envelopes % workers
		}
		if n == 0 {
			continue
		}
		hands = append(hands, startWorker(b, url, fmt.Sprint("w", i), relay.Options{}, relays...))
		f := &feed{left: n, out: n, message: message, done: make(chan struct{})}
		for r := range recipients {
			f.recipients = append(f.recipients, envelope.To(fmt.Sprintf("r%d@example.net", r))...)
		}
		feeds = append(feeds, f)
	}
	before := cpu(b)
	for i, f := range feeds {
		hands[i].pool.Add(f)
	}
	for _, f := range feeds {
		<-f.done
	}
	c := cost{cpu: cpu(b) - before}
	c.written, c.refused = callsOf(hands)
	for _, h := range hands {
		h.leave(b)
	}
	return c
}
