//go:build scale

package worker_test

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"os"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"bulkmail/envelope"
	"bulkmail/subjects"
	"bulkmail/worker"
)

// The scale model: worker processes at relays 20 ms away, and what a batch, an
// envelope and a recipient cost. It prints the figures of scale.go:
//
//	go test -tags scale -count=1 -v -run Scale ./worker

// scaleMessage has 10 KB.
var scaleMessage = "From: news@bench.test\nSubject: news\n\n" + strings.Repeat("0123456789 abcdefghijklmnopqrstuvwxyz ABCDEFGHIJKLMNOPQRSTUVWXYZ .,;:\n", 144)

func TestScaleFourWorkersAtRelays20MillisecondsAwayAreNearlyFourTimesOne(t *testing.T) {
	const each = 120 // batches a worker
	sink := scaleSink(t)
	rates := make(map[int]float64)
	for _, workers := range []int{1, 2, 4, 8} {
		h := newHouse(t)
		// Each worker reaches the relay over a line of its own.
		h.fill(t, each*workers, 1000, 100)
		before := cpuOf(syscall.RUSAGE_SELF)
		pace := h.pace(t, each*workers*1000)
		var staff []*process
		for i := range workers {
			staff = append(staff, h.fork(t, fmt.Sprintf("w%d", i), distant(t, sink, 10*time.Millisecond), worker.Resend, 100))
		}
		h.drained(t)
		rates[workers] = pace()
		took := time.Duration(float64(each*workers*1000) / rates[workers] * float64(time.Second))
		house := cpuOf(syscall.RUSAGE_SELF) - before
		var theirs time.Duration
		for _, p := range staff {
			p.drain(t)
			theirs += p.cmd.ProcessState.UserTime() + p.cmd.ProcessState.SystemTime()
		}
		t.Logf("%d workers: %7.0f recipients/s, %.2f times one; cores: workers %.2f, broker and lines %.2f",
			workers, rates[workers], rates[workers]/rates[1], theirs.Seconds()/took.Seconds(), house.Seconds()/took.Seconds())
	}
	if times := rates[4] / rates[1]; times < 3.8 {
		t.Errorf("four workers are %.2f times one, want 3.8", times)
	}
}

// The CPU of a worker process and of the broker for work of three shapes tells
// what a batch, an envelope and a recipient cost.
func TestScaleWhatABatchAnEnvelopeAndARecipientCost(t *testing.T) {
	sink := scaleSink(t)
	shapes := []struct {
		batches, recipients, limit int
	}{{400, 1000, 100}, {30, 1000, 1}, {5000, 1, 1}}
	var counts [3][3]float64
	var own, brokers [3]float64
	for i, s := range shapes {
		h := newHouse(t)
		h.fill(t, s.batches, s.recipients, max(s.limit, 1))
		before := cpuOf(syscall.RUSAGE_SELF)
		began := time.Now()
		p := h.fork(t, "w", sink, worker.Resend, s.limit)
		h.drained(t)
		took := time.Since(began)
		brokers[i] = (cpuOf(syscall.RUSAGE_SELF) - before).Seconds() * 1e6
		p.drain(t)
		own[i] = (p.cmd.ProcessState.UserTime() + p.cmd.ProcessState.SystemTime()).Seconds() * 1e6
		n := float64(s.batches * s.recipients)
		counts[i] = [3]float64{float64(s.batches), n / float64(s.limit), n}
		t.Logf("%d batches of %d, %d an envelope: %.0f recipients/s; CPU for one recipient: worker %.2f µs, broker %.2f µs",
			s.batches, s.recipients, s.limit, n/took.Seconds(), own[i]/n, brokers[i]/n)
	}
	a, b := solve(counts, own), solve(counts, brokers)
	t.Logf("CPU of the worker: %.0f µs a batch, %.1f µs an envelope, %.2f µs a recipient", a[0], a[1], a[2])
	t.Logf("CPU of the broker: %.0f µs a batch, %.1f µs an envelope, %.2f µs a recipient", b[0], b[1], b[2])
}

// fill puts batches on the queue, each of its recipients in domains of so many.
func (h *house) fill(t testing.TB, batches, recipients, domain int) {
	t.Helper()
	h.putMessage(t, "m", scaleMessage)
	for i := range batches {
		b := envelope.Batch{ID: fmt.Sprint(i), From: "news@bench.test", MessageRef: "m"}
		for n := range recipients {
			b.Recipients = append(b.Recipients, envelope.To(fmt.Sprintf("recipient%07d@domain%03d.test", i*recipients+n, n/domain))...)
		}
		if _, err := h.js.Publish(t.Context(), h.names.Batches("scale"), b.AppendJSON(nil)); err != nil {
			t.Fatal(err)
		}
	}
}

// pace measures how many recipients were recorded in a second, while all slots
// of all workers had work: from a tenth of them to nine tenths.
func (h *house) pace(t testing.TB, recipients int) func() float64 {
	t.Helper()
	var n int
	var from, to time.Time
	var first, last int
	sub, err := h.nc.Subscribe(h.names.CampaignOutcomes("scale"), func(m *nats.Msg) {
		var e subjects.Entry
		if json.Unmarshal(m.Data, &e) != nil {
			return
		}
		for _, r := range e.Results {
			n += len(r.Recipients)
		}
		switch {
		case n < recipients/10:
		case from.IsZero():
			from, first = time.Now(), n
		case n <= recipients*9/10:
			to, last = time.Now(), n
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	return func() float64 {
		if err := sub.Drain(); err != nil {
			t.Fatal(err)
		}
		for sub.IsValid() {
			time.Sleep(time.Millisecond) // the client says no other way that the last was handled
		}
		return float64(last-first) / to.Sub(from).Seconds()
	}
}

// drained waits until every batch is settled.
func (h *house) drained(t testing.TB) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	queue, err := h.js.Stream(ctx, h.names.BatchesStream())
	if err != nil {
		t.Fatal(err)
	}
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		info, err := queue.Info(ctx)
		if err != nil {
			t.Fatal(err)
		}
		if info.State.Msgs == 0 {
			return
		}
		<-tick.C
	}
}

func cpuOf(who int) time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(who, &u); err != nil {
		return 0
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// solve solves three equations by elimination.
func solve(m [3][3]float64, v [3]float64) [3]float64 {
	for i := range 3 {
		for j := i + 1; j < 3; j++ {
			f := m[j][i] / m[i][i]
			for k := range 3 {
				m[j][k] -= f * m[i][k]
			}
			v[j] -= f * v[i]
		}
	}
	for i := 2; i >= 0; i-- {
		for k := i + 1; k < 3; k++ {
			v[i] -= m[i][k] * v[k]
		}
		v[i] /= m[i][i]
	}
	return v
}

// scaleSink is Postfix' smtp-sink, which takes little of the CPU.
func scaleSink(t testing.TB) (address string) {
	t.Helper()
	path, err := exec.LookPath("smtp-sink")
	if err != nil {
		path, err = exec.LookPath("/usr/sbin/smtp-sink")
	}
	if err != nil {
		t.Skip("smtp-sink is missing: apt-get install postfix")
	}
	var args []string
	if os.Geteuid() == 0 {
		args = []string{"-u", "root"} // it insists on a user to become
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address = l.Addr().String()
	_ = l.Close()
	cmd := exec.Command(path, append(args, address, "256")...)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	deadline := time.Now().Add(patience)
	for {
		conn, err := net.Dial("tcp", address)
		if err == nil {
			_ = conn.Close()
			return address
		}
		if time.Now().After(deadline) {
			t.Fatalf("smtp-sink does not listen: %v", err)
		}
		time.Sleep(5 * time.Millisecond) // another process: there is no signal to wait for
	}
}

// distant leads to an address over a line that takes its time each way.
func distant(t testing.TB, to string, delay time.Duration) (address string) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var lines sync.WaitGroup
	t.Cleanup(func() {
		_ = l.Close()
		lines.Wait()
	})
	lines.Go(func() {
		for {
			near, err := l.Accept()
			if err != nil {
				return
			}
			far, err := net.Dial("tcp", to)
			if err != nil {
				_ = near.Close()
				continue
			}
			lines.Go(func() { delayed(far, near, delay) })
			lines.Go(func() { delayed(near, far, delay) })
		}
	})
	return l.Addr().String()
}

// delayed copies from one connection to another, everything after a delay.
func delayed(to, from net.Conn, delay time.Duration) {
	type parcel struct {
		at   time.Time
		data []byte
	}
	parcels := make(chan parcel, 1024)
	var writing sync.WaitGroup
	writing.Go(func() {
		for p := range parcels {
			time.Sleep(time.Until(p.at)) // the line is long
			if _, err := to.Write(p.data); err != nil {
				_ = from.Close()
			}
		}
		_ = to.Close()
	})
	for {
		buf := make([]byte, 64<<10)
		n, err := from.Read(buf)
		if n > 0 {
			parcels <- parcel{time.Now().Add(delay), buf[:n]}
		}
		if err != nil {
			break
		}
	}
	close(parcels)
	writing.Wait()
}
