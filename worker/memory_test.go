package worker_test

import (
	"fmt"
	"strings"
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

// large is a message of so many octets, whose lines are those of an attachment.
func large(name string, octets int) string {
	head := "Date: Wed, 25 Nov 2026 00:00:00 +0000\r\nMessage-ID: <" + name + "@example.com>\r\nMIME-Version: 1.0\r\nSubject: large\r\n\r\n"
	line := strings.Repeat("QUJD", 19) + "\r\n"
	return head + strings.Repeat(line, octets/len(line))
}

// Eight campaigns at once, each with a large message of its own.
func TestLargeMessagesTakeNoMoreMemoryThanTheyMay(t *testing.T) {
	t.Parallel()
	const messages, size, bound, most = 8, 1 << 20, "5MB", 10 << 20
	h := newHouse(t)
	arrived, goOn := make(chan struct{}), make(chan struct{})
	post := openSink(t, sink.Options{Recorder: func(sink.Transaction) {
		arrived <- struct{}{}
		<-goOn
	}})
	var all [][]string
	for i := range messages {
		name := fmt.Sprint("m", i)
		h.putMessage(t, name, large(name, size))
		all = append(all, people(1, fmt.Sprintf("d%d.test", i)))
		h.publish(t, name, envelope.Batch{ID: "1", Recipients: envelope.To(all[i]...), MessageRef: name})
	}
	p := h.fork(t, "w", post.Addr(), worker.Resend, 50, "BULKMAIL_MESSAGE_MEMORY="+bound)
	highest := 0
	for range messages {
		<-arrived
		highest = max(highest, p.heap(t))
		goOn <- struct{}{}
	}
	h.empty(t)
	p.drain(t)
	t.Logf("live heap of the worker: at most %.1f MB with messages of %.1f MB", float64(highest)/1e6, float64(size)/1e6)
	if highest > most {
		t.Errorf("the worker's live heap was %d octets", highest)
	}
	onceEach(t, post.seen(), all...)
}

// The bound is smaller than any of the messages: each is sent all the same, alone,
// and who waits for that says so.
func TestAMessageLargerThanTheMemoryForMessagesIsSentAlone(t *testing.T) {
	t.Parallel()
	h, post := newHouse(t), newMemory()
	post.gate, post.arrived = make(chan struct{}), make(chan []string, 10)
	e := h.hire(t, worker.Options{MessageMemory: 1000}, post.relay())
	var all [][]string
	for i := range 3 {
		name := fmt.Sprint("m", i)
		all = append(all, people(2, name+".test"))
		h.publish(t, name, envelope.Batch{ID: "1", Recipients: envelope.To(all[i]...), Message: large(name, 2000)})
	}
	line := e.log.wait(t, "batch waits for memory, messages in hand take it", 2)
	if line.attrs["change"] != "BULKMAIL_MESSAGE_MEMORY" || line.attrs["bound"] != "1KB" || line.attrs["campaign"] == "" {
		t.Errorf("said %v", line.attrs)
	}
	<-post.arrived
	if n := len(post.arrived); n != 0 {
		t.Errorf("%d more messages are being sent", n)
	}
	close(post.gate)
	h.empty(t)
	e.leave(t)
	onceEach(t, post.seen(), all...)
}

func TestABatchThatWaitsForMemoryGoesBackWhenTheWorkerDrains(t *testing.T) {
	t.Parallel()
	h, post := newHouse(t), newMemory()
	post.gate, post.arrived = make(chan struct{}), make(chan []string, 10)
	e := h.hire(t, worker.Options{MessageMemory: 1000}, post.relay())
	h.publish(t, "a", envelope.Batch{ID: "1", Recipients: envelope.To(people(1, "a.test")...), Message: large("a", 2000)})
	<-post.arrived
	waits := people(1, "b.test")
	h.publish(t, "b", envelope.Batch{ID: "1", Recipients: envelope.To(waits...), Message: large("b", 2000)})
	e.log.wait(t, "batch waits for memory, messages in hand take it", 1)
	e.quit()
	other := newMemory()
	h.hire(t, worker.Options{}, other.relay())
	h.ledger(t, "b", "1").until(subjects.Done) // long before its ack wait
	close(post.gate)
	e.leave(t)
	onceEach(t, other.seen(), waits)
}
