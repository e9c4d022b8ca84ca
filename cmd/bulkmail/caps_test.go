package main

import (
	"context"
	"fmt"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"bulkmail/relay/sink"
)

// capsFor is for how long the caps are watched, unless BULKMAIL_CAPS_FOR says
// otherwise. Half a minute and more also kills workers.
const capsFor = 5 * time.Second

// A meter writes down how many recipients a sink took, and when.
type meter struct {
	mu    sync.Mutex // guards what follows
	times []time.Time
}

func (m *meter) record(tx sink.Transaction) {
	m.mu.Lock()
	defer m.mu.Unlock()
	now := time.Now()
	for range tx.Recipients {
		m.times = append(m.times, now)
	}
}

// taken is the times of all that was taken so far, in order.
func (m *meter) taken() []time.Time {
	m.mu.Lock()
	defer m.mu.Unlock()
	return append([]time.Time(nil), m.times...)
}

// mostIn is the most that was taken in any time of that length.
func mostIn(times []time.Time, period time.Duration) int {
	most, first := 0, 0
	for i, at := range times {
		for !times[first].Add(period).After(at) {
			first++
		}
		most = max(most, i-first+1)
	}
	return most
}

// spells is how much was taken between pauses of that length.
func spells(times []time.Time, pause time.Duration) []int {
	n := []int{0}
	for i, at := range times {
		if i > 0 && at.Sub(times[i-1]) >= pause {
			n = append(n, 0)
		}
		n[len(n)-1]++
	}
	return n
}

func TestEightWorkerProcessesKeepEveryCapTogetherAndUseIt(t *testing.T) {
	watch := capsFor
	if s := os.Getenv("BULKMAIL_CAPS_FOR"); s != "" {
		var err error
		if watch, err = time.ParseDuration(s); err != nil {
			t.Fatal(err)
		}
	}
	const workers, most, rate, awake = 8, 10_000, 14, 500
	const sleepLength, ackWait = 2 * time.Second, 3 * time.Second
	meters := make([]*meter, 3)
	var urls []string
	for i, limits := range []string{
		fmt.Sprintf("name=capped&max_messages=%d", most),
		fmt.Sprintf("name=paced&max_rate=%d/s", rate),
		fmt.Sprintf("name=sleepy&max_messages_while_awake=%d&sleep_length=%v", awake, sleepLength),
	} {
		meters[i] = &meter{}
		server, err := sink.Start(sink.Options{Recorder: meters[i].record})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			ctx, cancel := context.WithTimeout(context.WithoutCancel(t.Context()), waitAtMost)
			defer cancel()
			if err := server.Close(ctx); err != nil {
				t.Error(err)
			}
		})
		urls = append(urls, fmt.Sprintf("smtp://%s?tls=none&domain=client.test&max_messages_per_robin=50&%s", server.Addr(), limits))
	}
	c := connected(t)
	env := []string{
		"BULKMAIL_NATS_URL=" + c.nc.ConnectedUrl(),
		"BULKMAIL_RELAYS=" + strings.Join(urls, " "),
		"BULKMAIL_ACK_WAIT=" + ackWait.String(),
	}
	startWorker := func() *program {
		p := startBulkmail(t, env, "worker")
		p.awaitLine(t, `working.* worker=(\S+)`)
		return p
	}
	fleet := make([]*program, workers)
	for i := range fleet {
		fleet[i] = startWorker()
	}
	var list strings.Builder
	for i := range most + int(watch/time.Second+10)*(rate+awake) {
		fmt.Fprintf(&list, "r%d@d%d.test\n", i, i/5)
	}
	startBulkmail(t, env, "publish", "--from", "news@example.com", "--message", writeFile(t, "hello.eml", "From: news@example.com\nSubject: t\n\nhi\n"),
		"--campaign", "news", "--batch-size", "100", writeFile(t, "list.txt", list.String())).end(t)

	began := time.Now()
	kills := 0
	for at := 15 * time.Second; at < watch; at += 20 * time.Second {
		time.Sleep(time.Until(began.Add(at)))
		if err := fleet[kills].cmd.Process.Kill(); err != nil {
			t.Fatal(err)
		}
		fleet[kills] = startWorker()
		kills++
	}
	time.Sleep(time.Until(began.Add(watch)))
	capped, paced, sleepy := meters[0].taken(), meters[1].taken(), meters[2].taken()
	for _, p := range fleet {
		if err := p.cmd.Process.Kill(); err != nil {
			t.Error(err)
		}
	}

	n := spells(sleepy, sleepLength)
	t.Logf("in %v with %d kills: max_messages %d of %d; max_rate %d of %.0f, at most %d in a second; awake %v",
		watch, kills, len(capped), most, len(paced), rate*watch.Seconds(), mostIn(paced, time.Second), n)
	// What a worker holds when it is killed is wasted: at most a chunk of
	// max_messages, a period of the rate until it is given up, and a sleep that
	// begins later.
	if len(capped) > most || len(capped) < most*98/100 && watch >= 2*capsFor {
		t.Errorf("max_messages %d, %d were taken", most, len(capped))
	}
	if n := mostIn(paced, time.Second); n > rate {
		t.Errorf("%d messages in one second, max_rate %d/s", n, rate)
	}
	least := rate * (watch.Seconds() - float64(kills)*ackWait.Seconds()*1.5)
	if watch >= 2*capsFor && float64(len(paced)) < 0.98*least {
		t.Errorf("%d messages, max_rate allows for %.0f", len(paced), least)
	}
	short := 0
	for _, messages := range n[:len(n)-1] {
		if messages > awake {
			t.Errorf("%d messages while awake, at most %d", messages, awake)
		}
		if messages < awake {
			short++
		}
	}
	if short > kills || len(n) < 2 {
		t.Errorf("messages while awake: %v", n)
	}
}
