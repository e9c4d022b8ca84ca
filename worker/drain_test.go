package worker_test

import (
	"fmt"
	"testing"
	"time"

	"bulkmail/envelope"
	"bulkmail/relay"
	"bulkmail/relay/sink"
	"bulkmail/subjects"
	"bulkmail/worker"
)

func oneSession(c *relay.Config)    { c.Connections = 1 }
func tenAnEnvelope(c *relay.Config) { c.EnvelopeLimit = 10 }

// G8: the ack wait of the house is 30 s; nothing here may wait for it.
func TestADrainFinishesWhatIsInFlightAndHandsOverTheRestAtOnce(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	busy, idle := newMemory(), newMemory()
	busy.gate, busy.arrived = make(chan struct{}), make(chan []string, 100)
	first := h.hire(t, worker.Options{Name: "w1", Batches: 2}, busy.relay(oneSession, tenAnEnvelope))
	var all [][]string
	for i := range 5 {
		list := people(100, fmt.Sprintf("d%d.test", i))
		all = append(all, list)
		h.publish(t, "c", envelope.Batch{ID: fmt.Sprint(i), Recipients: envelope.To(list...)})
	}
	flying := <-busy.arrived // one envelope is in flight, and will be for a while
	first.quit()
	first.log.wait(t, "draining", 1)

	// What the first had not begun is with the second at once, while the
	// envelope of the first is still in flight.
	second := h.hire(t, worker.Options{Name: "w2"}, idle.relay())
	l := &ledger{tail: h.tail(t, h.names.OutcomesStream(), h.names.CampaignOutcomes("c")), newest: make(map[string]outcome)}
	began := time.Now()
	for range 4 {
		if done := l.until(subjects.Done); done.Worker != "w2" {
			t.Errorf("a batch was done by %s", done.Worker)
		}
	}
	close(busy.gate)
	if done := l.until(subjects.Done); done.Worker != "w2" {
		t.Errorf("the last batch was done by %s", done.Worker)
	}
	if took := time.Since(began); took > 10*time.Second {
		t.Errorf("handing over took %v", took)
	}
	first.leave(t)
	second.leave(t)
	onceEach(t, busy.seen(), flying)
	both := busy.seen()
	for recipient, n := range idle.seen() {
		both[recipient] += n
	}
	onceEach(t, both, all...)
	if n := h.queued(t); n != 0 {
		t.Errorf("%d batches are left on the queue", n)
	}
}

func TestADrainOverTheWireSendsNobodyTwice(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	begun := make(chan struct{}, 10_000)
	post := openSink(t, sink.Options{Delay: 20 * time.Millisecond, Recorder: func(sink.Transaction) { begun <- struct{}{} }})
	var all [][]string
	for i := range 20 {
		list := people(200, fmt.Sprintf("a%d.test", i), fmt.Sprintf("b%d.test", i))
		all = append(all, list)
		h.publish(t, "c", envelope.Batch{ID: fmt.Sprint(i), Recipients: envelope.To(list...)})
	}
	for i := range 4 { // four workers come and go
		e := h.hire(t, worker.Options{Name: fmt.Sprint(i), Batches: 3}, post.relay(t, tenAnEnvelope))
		for range 20 {
			<-begun
		}
		e.leave(t)
	}
	last := h.hire(t, worker.Options{Name: "last"}, post.relay(t))
	l := &ledger{tail: h.tail(t, h.names.OutcomesStream(), h.names.CampaignOutcomes("c")), newest: make(map[string]outcome)}
	for range 20 {
		l.until(subjects.Done)
	}
	last.leave(t)
	onceEach(t, post.seen(), all...)
	if n := h.queued(t); n != 0 {
		t.Errorf("%d batches are left on the queue", n)
	}
}

func TestADrainThatTakesTooLongCutsAndStillWritesDownWhatItKnows(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	stuck := newMemory()
	stuck.gate, stuck.arrived = make(chan struct{}), make(chan []string, 100)
	e := h.hire(t, worker.Options{DrainTimeout: 500 * time.Millisecond}, stuck.relay(oneSession, tenAnEnvelope))
	list := people(30, "example.net")
	l := h.ledger(t, "c", "1")
	h.publish(t, "c", envelope.Batch{ID: "1", Recipients: envelope.To(list...)})
	<-stuck.arrived
	stuck.gate <- struct{}{} // the first envelope is answered
	<-stuck.arrived
	e.quit()
	began := time.Now()
	select {
	case err := <-e.done:
		if err == nil {
			t.Error("that envelopes were cut off is not said")
		}
		e.done <- nil
	case <-time.After(patience):
		t.Fatal("the drain does not end")
	}
	if took := time.Since(began); took > 2*time.Second {
		t.Errorf("a drain of at most 500ms took %v", took)
	}

	post := newMemory()
	h.hire(t, worker.Options{}, post.relay())
	l.until(subjects.Done)
	both := post.seen()
	for recipient, n := range stuck.seen() {
		both[recipient] += n
	}
	onceEach(t, both, list)
}

func TestAWorkerThatWasAskedToStopBeforeItBeganStops(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	e := h.hire(t, worker.Options{}, newMemory().relay())
	e.leave(t)
}

func TestAWorkerThatDrainsLeavesThePoolToTheOtherWorkersThatSendOverIt(t *testing.T) {
	t.Parallel()
	for name, long := range map[string]bool{"in time": false, "for too long": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h, post := newHouse(t), newMemory()
			post.gate, post.arrived = make(chan struct{}), make(chan []string, 100)
			pool := relay.NewPool([]relay.Relay{post.relay(tenAnEnvelope)}, relay.Options{Backoff: time.Hour, MaxBackoff: time.Hour})
			t.Cleanup(func() { closePool(t, pool) })
			drain := patience
			if long {
				drain = 500 * time.Millisecond
			}
			// One batch each, and both have an envelope in flight.
			both, lists := make([]*employee, 2), make([][]string, 2)
			for i := range both {
				lists[i] = people(10, fmt.Sprintf("d%d.test", i))
				h.publish(t, "c", envelope.Batch{ID: fmt.Sprint(i), Recipients: envelope.To(lists[i]...)})
				nc, js := connect(t, h.url)
				both[i] = h.hireOver(t, nc, js, worker.Options{Name: fmt.Sprint(i), Batches: 1, DrainTimeout: drain}, pool, newLogbook())
				<-post.arrived
			}
			both[0].quit()
			both[0].log.wait(t, "draining", 1)
			if !long {
				post.gate <- struct{}{} // both are answered
				post.gate <- struct{}{}
			}
			select {
			case err := <-both[0].done:
				both[0].done <- nil
				if long != (err != nil) {
					t.Errorf("the drain ended with: %v", err)
				}
			case <-time.After(patience):
				t.Fatal("the drain does not end")
			}
			if long {
				post.gate <- struct{}{} // only the other's is in flight still
			}
			h.ledger(t, "c", "1").until(subjects.Done)
			if long { // its batch is the other's now
				<-post.arrived
				post.gate <- struct{}{}
			}
			h.ledger(t, "c", "0").until(subjects.Done)
			last := people(10, "last.test")
			h.publish(t, "c", envelope.Batch{ID: "last", Recipients: envelope.To(last...)})
			<-post.arrived
			post.gate <- struct{}{}
			h.ledger(t, "c", "last").until(subjects.Done)
			onceEach(t, post.seen(), lists[0], lists[1], last)
			for _, r := range lists[1] {
				if n := post.begunNow()[r]; n != 1 {
					t.Errorf("%s was begun %d times: the drain cut off the envelope of the other worker", r, n)
				}
			}
		})
	}
}
