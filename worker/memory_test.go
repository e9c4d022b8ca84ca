package worker_test

import (
	"fmt"
	"testing"
	"time"

	"bulkmail/envelope"
	"bulkmail/relay/sink"
	"bulkmail/subjects"
	"bulkmail/testdata/testrun"
	"bulkmail/worker"
)

// Nothing grows with the list. The worker is a process of
// its own, so that neither the broker's nor the sink's memory is counted.
func TestALongListBehindASlowRelayTakesLittleMemory(t *testing.T) {
	t.Parallel()
	const each, limit = 1000, 64 << 20
	batches := testrun.InFull(200, 60)
	h := newHouse(t)
	tick := make(chan struct{}, batches*each)
	post := openSink(t, sink.Options{Delay: 3 * time.Millisecond, Recorder: func(sink.Transaction) { tick <- struct{}{} }})
	var all [][]string
	for i := range batches {
		list := people(each, fmt.Sprintf("big%d.test", i), fmt.Sprintf("small%d.test", i), "everybody.test")
		for n := range list {
			list[n] = fmt.Sprintf("b%d-%s", i, list[n])
		}
		all = append(all, list)
		h.publish(t, "c", envelope.Batch{ID: fmt.Sprint(i), Recipients: envelope.To(list...)})
	}
	p := h.fork(t, "w", post.Addr(), worker.Resend, 50)
	l := &ledger{tail: h.tail(t, h.names.OutcomesStream(), h.names.CampaignOutcomes("c")), newest: make(map[string]outcome)}
	most, samples := 0, 0
	for done := range batches {
		l.until(subjects.Done)
		if done%10 == 5 {
			most = max(most, p.heap(t))
			samples++
		}
	}
	p.drain(t)
	t.Logf("live heap of the worker: at most %.1f MB in %d samples", float64(most)/1e6, samples)
	if most > limit {
		t.Errorf("the worker's live heap was %d bytes", most)
	}
	onceEach(t, post.seen(), all...)
	if n := h.queued(t); n != 0 {
		t.Errorf("%d batches are left on the queue", n)
	}
}
