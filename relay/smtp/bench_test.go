package smtp

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"bulkmail/envelope"
)

// BenchmarkSend sends to Postfix' smtp-sink in another process, so that the CPU
// time it reports is ours alone. BULKMAIL_BENCH_SINK=host:port names a sink that
// runs already.
func BenchmarkSend(b *testing.B) {
	for _, c := range []struct {
		name       string
		sessions   int
		recipients int
		size       int
		overlap    Overlap
		rtt        time.Duration
		tls        bool
	}{
		{name: "100/sessions=1/off", sessions: 1, recipients: 100, overlap: OverlapOff},
		{name: "100/sessions=1/on", sessions: 1, recipients: 100, overlap: OverlapOn},
		{name: "100/sessions=1/auto", sessions: 1, recipients: 100, overlap: OverlapAuto},
		{name: "100/sessions=16/off", sessions: 16, recipients: 100, overlap: OverlapOff},
		{name: "100/sessions=16/on", sessions: 16, recipients: 100, overlap: OverlapOn},
		{name: "100/sessions=16/auto", sessions: 16, recipients: 100, overlap: OverlapAuto},
		{name: "1/sessions=1/off", sessions: 1, recipients: 1, overlap: OverlapOff},
		{name: "1/sessions=1/on", sessions: 1, recipients: 1, overlap: OverlapOn},
		{name: "1/sessions=1/auto", sessions: 1, recipients: 1, overlap: OverlapAuto},
		{name: "1/sessions=16/off", sessions: 16, recipients: 1, overlap: OverlapOff},
		{name: "1/sessions=16/on", sessions: 16, recipients: 1, overlap: OverlapOn},
		{name: "1/sessions=16/auto", sessions: 16, recipients: 1, overlap: OverlapAuto},
		{name: "100/sessions=1/rtt=20ms/auto", sessions: 1, recipients: 100, overlap: OverlapAuto, rtt: 20 * time.Millisecond},
		{name: "100/sessions=1/rtt=20ms/off", sessions: 1, recipients: 100, overlap: OverlapOff, rtt: 20 * time.Millisecond},
		{name: "1/sessions=1/rtt=20ms/auto", sessions: 1, recipients: 1, overlap: OverlapAuto, rtt: 20 * time.Millisecond},
		{name: "100/sessions=16/tls/auto", sessions: 16, recipients: 100, overlap: OverlapAuto, tls: true},
		{name: "1/sessions=16/tls/auto", sessions: 16, recipients: 1, overlap: OverlapAuto, tls: true},
	} {
		b.Run(c.name, func(b *testing.B) {
			d := &Dialer{Addr: benchSink(b), Domain: "client.test", Tries: 1, TLS: NoTLS, Overlap: c.overlap}
			if c.rtt > 0 {
				d.Addr = slowProxy(b, d.Addr, c.rtt/2)
			}
			if c.tls {
				d.Addr, d.TLS, d.TLSVerify = tlsProxy(b, d.Addr), Implicit, VerifyNever
			}
			benchSend(b, d, c.sessions, c.recipients, 10<<10)
		})
	}
}

func benchSend(b *testing.B, d *Dialer, sessions, recipients, size int) {
	message := envelope.NewMessage("Subject: news\n\n" + strings.Repeat("0123456789012345678901234567890123456789012345678901234567890123456789\n", size/71))
	to := make([]envelope.Recipient, recipients)
	for i := range to {
		to[i].Mailbox = fmt.Sprintf("recipient%04d@example.net", i)
	}
	open := make([]*Session, sessions)
	for i := range open {
		var err error
		if open[i], err = d.Dial(b.Context()); err != nil {
			b.Fatal(err)
		}
		defer func() { _ = open[i].Close() }()
	}
	mayLeave := func(context.Context) error { return nil }
	var left, accepted atomic.Int64
	left.Store(int64(b.N))
	take := func() *Envelope {
		if left.Add(-1) < 0 {
			return nil
		}
		return &Envelope{From: "news@example.com", Recipients: to, Message: Guarded(message, mayLeave)}
	}
	b.ReportAllocs()
	b.ResetTimer()
	cpu := cpuTime()
	var wg sync.WaitGroup
	for _, s := range open {
		wg.Go(func() {
			var following *Envelope
			next := func() *Envelope { following = take(); return following }
			for e := take(); e != nil; {
				following = nil
				if err := s.Send(b.Context(), e, next); err != nil {
					b.Error(err)
					return
				}
				for i := range e.Results {
					if e.Results[i].Status == Accepted {
						accepted.Add(1)
					}
				}
				if e = following; e == nil {
					e = take()
				}
			}
		})
	}
	wg.Wait()
	b.StopTimer()
	n := float64(b.N * recipients)
	if accepted.Load() != int64(n) {
		b.Errorf("%d accepted, want %.0f", accepted.Load(), n)
	}
	b.ReportMetric(n/b.Elapsed().Seconds(), "recipients/s")
	b.ReportMetric(float64((cpuTime()-cpu).Microseconds())/n, "cpu-ms/1000recipients")
}

func cpuTime() time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		return 0
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

func benchSink(b *testing.B) string {
	if addr := os.Getenv("BULKMAIL_BENCH_SINK"); addr != "" {
		return addr
	}
	if _, err := exec.LookPath("smtp-sink"); err != nil {
		b.Skip("smtp-sink is missing: apt-get install postfix")
	}
	return startSink(b)
}
