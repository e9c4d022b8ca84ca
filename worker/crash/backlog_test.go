//go:build crash

package crash_test

import (
	"context"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"bulkmail/envelope"
	"bulkmail/subjects"
)

func TestFiftyThousandBatchesInDelayDoNotHoldUpAFreshOne(t *testing.T) {
	const delayed = 50_000
	b := newBrokerProcess(t, "broker", freeAddr(t))
	b.start()
	s := openSink(t)
	f := newFleet(t, s, []string{b.addr})
	s.open(t)
	h := join(t, []string{b.url()}, 1)
	one := func(id string) []byte {
		batch := envelope.Batch{ID: id, From: "news@example.com", Message: "Subject: t\r\n\r\nHello.\r\n", Recipients: envelope.To("p" + id + "@d.test")}
		return batch.AppendJSON(nil)
	}
	before := usageOf(t, b.cmd.Process.Pid)
	for i := range delayed {
		if _, err := h.js.PublishAsync(h.names.Batches("delayed"), one(strconv.Itoa(i)), jetstream.WithStallWait(waitAtMost)); err != nil {
			t.Fatal(err)
		}
	}
	select {
	case <-h.js.PublishAsyncComplete():
	case <-time.After(2 * waitAtMost):
		t.Fatal("the batches are not stored")
	}
	c, err := h.js.Consumer(t.Context(), h.names.BatchesStream(), subjects.Consumer)
	if err != nil {
		t.Fatal(err)
	}
	for left := delayed; left > 0; {
		batches, err := c.Fetch(min(left, 1000), jetstream.FetchMaxWait(ackWait))
		if err != nil {
			t.Fatal(err)
		}
		for msg := range batches.Messages() {
			if err := msg.NakWithDelay(time.Hour); err != nil {
				t.Fatal(err)
			}
			left--
		}
	}
	poll(t, "every batch to be delayed", func(ctx context.Context) bool {
		c, err := h.js.Consumer(ctx, h.names.BatchesStream(), subjects.Consumer)
		return err == nil && c.CachedInfo().NumPending == 0 && c.CachedInfo().NumAckPending == delayed
	})

	p := f.startWorker()
	var took []time.Duration
	for i := range 20 {
		id := fmt.Sprintf("fresh%d", i)
		begin := time.Now()
		if _, err := h.js.Publish(t.Context(), h.names.Batches("fresh"), one(id)); err != nil {
			t.Fatal(err)
		}
		s.wait(t, "the fresh batch", func(all []*transaction) bool {
			return slices.ContainsFunc(all, func(tx *transaction) bool { return !tx.accepted.IsZero() && tx.recipients[0] == "p"+id+"@d.test" })
		})
		if i > 0 { // the first one waits for the worker to start
			took = append(took, time.Since(begin))
		}
	}
	slices.Sort(took)
	const idle = 10 * time.Second
	broker, worker := usageOf(t, b.cmd.Process.Pid), usageOf(t, p.cmd.Process.Pid)
	<-time.After(idle) // CPU seconds are counted over this time
	brokerIdle, workerIdle := usageOf(t, b.cmd.Process.Pid), usageOf(t, p.cmd.Process.Pid)
	f.dismissAll()

	fmt.Printf("\n%d batches in delay\n", delayed)
	fmt.Printf("  fresh batch accepted after     %v (median of %d), %v (slowest)\n", took[len(took)/2].Round(time.Millisecond), len(took), took[len(took)-1].Round(time.Millisecond))
	fmt.Printf("  broker, memory                 %d MiB (%d MiB before)\n", brokerIdle.rss>>20, before.rss>>20)
	fmt.Printf("  broker, CPU while idle         %.1f %%\n", 100*(brokerIdle.cpu-broker.cpu).Seconds()/idle.Seconds())
	fmt.Printf("  idle worker, memory            %d MiB\n", workerIdle.rss>>20)
	fmt.Printf("  idle worker, CPU               %.1f %%\n\n", 100*(workerIdle.cpu-worker.cpu).Seconds()/idle.Seconds())
	if slowest := took[len(took)-1]; slowest > time.Second {
		t.Errorf("a fresh batch took %v", slowest)
	}
}

// usage is what a process uses.
type usage struct {
	cpu time.Duration
	rss int
}

// usageOf reads /proc; a clock tick is 10 ms on Linux.
func usageOf(t testing.TB, pid int) usage {
	t.Helper()
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		t.Fatal(err)
	}
	_, after, _ := strings.Cut(string(stat), ") ")
	fields := strings.Fields(after) // from the third of proc(5)
	user, err := strconv.Atoi(fields[11])
	if err != nil {
		t.Fatal(err)
	}
	system, err := strconv.Atoi(fields[12])
	if err != nil {
		t.Fatal(err)
	}
	pages, err := strconv.Atoi(fields[21])
	if err != nil {
		t.Fatal(err)
	}
	return usage{time.Duration(user+system) * 10 * time.Millisecond, pages * os.Getpagesize()}
}
