//go:build crash

package crash_test

import (
	"log/slog"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"bulkmail/envelope"
	"bulkmail/subjects/broker"
)

// embedded starts a broker within the tests' process.
func embedded(t testing.TB) *broker.Server {
	t.Helper()
	b, err := broker.Start(t.Context(), broker.Options{Listen: "127.0.0.1:0", Dir: t.TempDir(), SyncAlways: true, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := b.Close(); err != nil {
			t.Error(err)
		}
	})
	return b
}

func TestAWorkerStoppedForThreeAckWaitsFindsItselfFencedOff(t *testing.T) {
	b := embedded(t)
	s := openSink(t)
	f := newFleet(t, s, []string{strings.TrimPrefix(b.URL(), "nats://")})
	s.open(t)
	h := join(t, []string{b.URL()}, 1)
	stop := h.load(t, 40, false)
	defer stop()
	workers := []*process{f.startWorker(), f.startWorker()}
	var outages []outage
	for i := range 3 {
		p := workers[i%2]
		h.progress(t, 20)
		h.working(t, p)
		f.signal(p, syscall.SIGSTOP)
		o := outage{down: time.Now()}
		enough := time.After(3 * ackWait)
		taken := h.ledger.takenOver(t, p, o.down)
		<-enough
		f.signal(p, syscall.SIGCONT)
		o.up = time.Now()
		outages = append(outages, o)
		t.Logf("%s stopped for %v; taken over after %v", p.name, o.up.Sub(o.down).Round(time.Millisecond), taken.Sub(o.down).Round(time.Millisecond))
	}
	stop()
	h.settle(t)
	f.dismissAll()
	for _, p := range workers {
		begun, ended := h.trespasses(s, p)
		t.Logf("%s began %d and ended %d envelopes of batches that somebody else had claimed", p.name, begun, ended)
		// An envelope may have been between its cut and its MAIL when the worker
		// was stopped. It must not be ended.
		if ended > 0 || begun > 4*len(outages) {
			t.Errorf("%s went on with batches that were not its own", p.name)
		}
	}

	a := h.settleAccounts(t, "stopped", f, during(outages))
	a.kills[atRandom] = len(outages)
	table("a worker stopped for three ack waits", nil, "stop", a)
	a.check(t)
}

// A large message is on its way when its worker is stopped, and goes on when
// another one has the batch: what is left of it must stay where it is.
func TestAWorkerStoppedInTheMiddleOfAMessageDoesNotEndItForAnother(t *testing.T) {
	b := embedded(t)
	s := openSink(t)
	f := newFleet(t, s, []string{strings.TrimPrefix(b.URL(), "nats://")})
	stopped, release := make(chan string, 1), make(chan struct{})
	var once sync.Once
	s.inBody = func(worker string) {
		once.Do(func() {
			stopped <- worker
			<-release
		})
	}
	s.open(t)
	h := join(t, []string{b.URL()}, 1)
	h.storeLarge(t)
	if err := h.publish(t.Context(), batch(7, true)); err != nil {
		t.Fatal(err)
	}
	p := f.startWorker()
	select {
	case <-stopped:
	case <-time.After(waitAtMost):
		t.Fatal("no message was sent")
	}
	f.signal(p, syscall.SIGSTOP)
	o := outage{down: time.Now()}
	other := f.startWorker()
	h.ledger.takenOver(t, p, o.down)
	close(release) // the sink reads on: what is in the buffers leaves
	h.settle(t)
	f.signal(p, syscall.SIGCONT)
	o.up = time.Now()
	gone := func(list []*transaction) bool {
		for _, tx := range list {
			if tx.worker == p.name && !tx.lost.IsZero() {
				return true
			}
		}
		return false
	}
	s.wait(t, p.name+" to hang up", gone)
	f.dismissAll()
	if begun, ended := h.trespasses(s, p); ended > 0 {
		t.Errorf("%s ended %d of %d envelopes of a batch that %s had claimed", p.name, ended, begun, other.name)
	}
	a := h.settleAccounts(t, "stopped in a message", f, during([]outage{o}))
	a.check(t)
	if a.duplicates > 0 {
		t.Errorf("%d duplicates", a.duplicates)
	}
}

// plain is a batch whose recipients are all accepted at once.
func plain(n int) envelope.Batch {
	b := batch(n, false)
	for i, r := range b.Recipients {
		b.Recipients[i].Address = "p" + strings.TrimLeft(r.Address, "abcdefghijklmnopqrstuvwxyz")
	}
	return b
}

const drainTimeout = 5 * time.Second

func TestSIGTERMHandsOverWithinASecondAndDoublesNobody(t *testing.T) {
	b := embedded(t)
	s := openSink(t)
	s.think = 150 * time.Millisecond
	f := newFleet(t, s, []string{strings.TrimPrefix(b.URL(), "nats://")}, "BULKMAIL_DRAIN_TIMEOUT="+drainTimeout.String())
	s.open(t)
	h := join(t, []string{b.URL()}, 1)
	const batches, held = 20, 8
	for n := range batches {
		if err := h.publish(t.Context(), plain(n)); err != nil {
			t.Fatal(err)
		}
	}
	first := f.startWorker()
	h.ledger.wait(t, waitAtMost, "the first worker to be busy", func() bool { return len(h.ledger.claims) >= held })
	f.startWorker("BULKMAIL_BATCHES=64")
	h.ledger.wait(t, waitAtMost, "everything to be claimed", func() bool { return len(h.ledger.claims) >= batches })

	asked := time.Now()
	f.dismiss(first)
	left := time.Since(asked)
	if left > drainTimeout {
		t.Errorf("the worker drained for %v", left)
	}
	h.ledger.wait(t, waitAtMost, "every batch to be done", func() bool { return len(h.ledger.done) == batches })
	h.settle(t)
	f.dismissAll()

	h.ledger.mu.Lock()
	var handed int
	var slowest time.Duration
	owner := make(map[string]string)
	for _, c := range h.ledger.claims {
		if owner[c.batch] == first.pid() && c.pid != first.pid() {
			handed++
			slowest = max(slowest, c.stored.Sub(asked))
		}
		owner[c.batch] = c.pid
	}
	h.ledger.mu.Unlock()
	t.Logf("SIGTERM: gone after %v; %d batches with another worker, the last one after %v", left.Round(time.Millisecond), handed, slowest.Round(time.Millisecond))
	if handed == 0 {
		t.Error("the worker had nothing left to hand over")
	}
	if slowest > time.Second {
		t.Errorf("a batch was with another worker only after %v", slowest)
	}
	a := h.settleAccounts(t, "SIGTERM", f, func(transaction) excuse { return none })
	a.check(t)
	if a.duplicates > 0 {
		t.Errorf("%d duplicates", a.duplicates)
	}
}

func TestASecondSIGTERMCuts(t *testing.T) {
	b := embedded(t)
	s := openSink(t)
	f := newFleet(t, s, []string{strings.TrimPrefix(b.URL(), "nats://")}, "BULKMAIL_DRAIN_TIMEOUT=1m")
	blocked, release := make(chan string, 100), make(chan struct{})
	s.busy = func(worker string) {
		blocked <- worker
		<-release
	}
	s.open(t)
	h := join(t, []string{b.URL()}, 1)
	for n := range 4 {
		if err := h.publish(t.Context(), plain(n)); err != nil {
			t.Fatal(err)
		}
	}
	p := f.startWorker()
	<-blocked
	f.mu.Lock()
	p.gone, p.killed = true, time.Now()
	f.mu.Unlock()
	f.signal(p, syscall.SIGTERM)
	begin := time.Now()
	again := time.NewTicker(200 * time.Millisecond)
	defer again.Stop()
	for exited := false; !exited; {
		select {
		case <-again.C:
			_ = p.cmd.Process.Signal(syscall.SIGTERM)
		case <-p.exited:
			exited = true
		case <-time.After(waitAtMost):
			t.Fatal("a second SIGTERM does not cut")
		}
	}
	took := time.Since(begin)
	t.Logf("the second SIGTERM cut after %v: %v", took.Round(time.Millisecond), p.err)
	if took > 2*time.Second {
		t.Errorf("a second SIGTERM cut only after %v", took)
	}
	close(release)
	f.startWorker()
	h.settle(t)
	f.dismissAll()
	h.settleAccounts(t, "cut", f, f.excuse).check(t)
}
