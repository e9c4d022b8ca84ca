package worker_test

import (
	"fmt"
	"maps"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"bulkmail/envelope"
	"bulkmail/relay"
	"bulkmail/relay/sink"
	"bulkmail/subjects"
	"bulkmail/subjects/broker/brokertest"
	"bulkmail/worker"
)

// shortWait makes a house in which a batch is another's after a second.
func shortWait(t testing.TB) *house {
	t.Helper()
	h := join(t, brokertest.Start(t).URL())
	h.provision(t, subjects.Options{AckWait: time.Second, OutcomesMaxAge: time.Hour})
	return h
}

// A worker process is killed while envelopes of it are in flight: what was
// recorded is not sent again, and nobody but these is sent to twice.
func TestAnotherWorkerGoesOnWhereADeadOneEnded(t *testing.T) {
	t.Parallel()
	for _, inDoubt := range []worker.InDoubt{worker.Resend, worker.Skip} {
		t.Run(string(inDoubt), func(t *testing.T) {
			t.Parallel()
			h := shortWait(t)
			transactions := make(chan sink.Transaction)
			post := openSink(t, sink.Options{Recorder: func(tx sink.Transaction) { transactions <- tx }})
			process := h.fork(t, "dead", post.Addr(), inDoubt, 10)
			list := people(200, "example.net")
			l := h.ledger(t, "c", "1")
			h.publish(t, "c", envelope.Batch{ID: "1", Recipients: envelope.To(list...)})
			for range 8 {
				<-transactions
			}
			for len(l.newest) == 0 {
				l.until(subjects.Recorded)
			}
			process.kill(t)
			flying := make(chan []string)
			go func() { // the sink has taken what was in flight, and cannot tell anybody
				var late []string
				for tx := range transactions {
					late = append(late, tx.Recipients...)
				}
				flying <- late
			}()
			h.hire(t, worker.Options{Name: "heir", InDoubt: inDoubt}, post.relay(t))
			done := l.until(subjects.Done)
			if done.Worker != "heir" {
				t.Errorf("done by %s", done.Worker)
			}
			close(transactions)
			<-flying

			seen := post.seen()
			duplicates := 0
			for _, n := range seen {
				duplicates += n - 1
			}
			counts := l.tally()
			t.Logf("%d accepted by the sink, %d twice, journal %v", len(seen), duplicates, counts)
			if len(l.newest) != 200 {
				t.Errorf("%d of 200 recipients have an outcome", len(l.newest))
			}
			switch inDoubt {
			case worker.Resend:
				if len(seen) != 200 || counts[subjects.Accepted] != 200 {
					t.Errorf("%d of 200 recipients were accepted, the journal knows %v", len(seen), counts)
				}
				// In doubt is what has no recorded reply, and nobody else.
				for recipient, o := range l.newest {
					if o.attempt == 1 && seen[recipient] != 1 {
						t.Errorf("%s was on record as accepted, and taken %d times", recipient, seen[recipient])
					}
				}
			case worker.Skip:
				if duplicates > 0 {
					t.Errorf("%d duplicates", duplicates)
				}
				if counts[subjects.Accepted]+counts[subjects.InDoubt] != 200 {
					t.Errorf("the journal knows %v", counts)
				}
				for recipient := range maps.Keys(l.newest) {
					if l.newest[recipient].status == subjects.Accepted && seen[recipient] != 1 {
						t.Errorf("%s is accepted, the sink took it %d times", recipient, seen[recipient])
					}
				}
			}
		})
	}
}

// A worker that is cut off from the broker for longer than the ack wait begins
// no envelope more, and what it has in flight is not ended.
func TestAWorkerCutOffFromTheBrokerStopsSending(t *testing.T) {
	t.Parallel()
	h := shortWait(t)
	w := layWire(t, h.url)
	lonely, post := newMemory(), newMemory()
	lonely.gate, lonely.arrived = make(chan struct{}), make(chan []string, 100)
	nc, js := connect(t, w.url())
	first := h.hireOn(t, nc, js, worker.Options{Name: "lonely"}, relay.Options{}, lonely.relay(oneSession, tenAnEnvelope))
	list := people(100, "example.net")
	l := h.ledger(t, "c", "1")
	h.publish(t, "c", envelope.Batch{ID: "1", Recipients: envelope.To(list...)})
	<-lonely.arrived
	lonely.gate <- struct{}{} // the first ten are accepted
	<-lonely.arrived          // the next ten are in flight
	l.until(subjects.Recorded)
	w.cut(true)

	h.hire(t, worker.Options{Name: "heir"}, post.relay())
	if done := l.until(subjects.Done); done.Worker != "heir" {
		t.Errorf("done by %s", done.Worker)
	}
	first.log.wait(t, "broker silent for an ack wait, no new envelopes", 1)
	close(lonely.gate)
	w.cut(false)
	first.leave(t)
	if n := len(lonely.begun); n != 20 {
		t.Errorf("%d recipients were begun by the worker that was cut off, want the 20 of before", n)
	}
	if n := len(lonely.seen()); n != 10 {
		t.Errorf("%d recipients were accepted from the worker that was cut off, want the 10 of before", n)
	}
	both := post.seen()
	for recipient, n := range lonely.seen() {
		both[recipient] += n
	}
	onceEach(t, both, list)
}

// A reply that came while the broker was away is recorded when it is back.
func TestRepliesAreKeptWhileTheBrokerIsAwayForAMoment(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	w := layWire(t, h.url)
	post := newMemory()
	post.gate, post.arrived = make(chan struct{}), make(chan []string, 100)
	nc, js := connect(t, w.url())
	e := h.hireOn(t, nc, js, worker.Options{}, relay.Options{}, post.relay(oneSession, tenAnEnvelope))
	list := people(50, "example.net")
	l := h.ledger(t, "c", "1")
	h.publish(t, "c", envelope.Batch{ID: "1", Recipients: envelope.To(list...)})
	<-post.arrived
	w.cut(true)
	post.gate <- struct{}{}
	w.cut(false)
	close(post.gate)
	if done := l.until(subjects.Done); done.Attempt != 1 {
		t.Errorf("done in attempt %d", done.Attempt)
	}
	e.leave(t)
	onceEach(t, post.seen(), list)
	if n := h.queued(t); n != 0 {
		t.Errorf("%d batches are left on the queue", n)
	}
}

// The connection to the relay breaks after the end of the data: the sink took
// the message and nobody knows.
func TestRecipientsInDoubt(t *testing.T) {
	t.Parallel()
	for _, inDoubt := range []worker.InDoubt{worker.Resend, worker.Skip} {
		t.Run(string(inDoubt), func(t *testing.T) {
			t.Parallel()
			h := newHouse(t)
			post := openSink(t, sink.Options{}, "DATA first 1:*@doubt.test=take-and-drop")
			e := h.hireWith(t, worker.Options{InDoubt: inDoubt}, relay.Options{Backoff: time.Millisecond, DialBackoff: time.Millisecond}, post.relay(t))
			list := people(40, "example.net", "doubt.test")
			l := h.ledger(t, "c", "1")
			h.publish(t, "c", envelope.Batch{ID: "1", Recipients: envelope.To(list...)})
			l.until(subjects.Done)
			e.leave(t)
			want := map[subjects.Status]int{subjects.Accepted: 40}
			times := 2
			if inDoubt == worker.Skip {
				want = map[subjects.Status]int{subjects.Accepted: 20, subjects.InDoubt: 20}
				times = 1
			}
			if diff := cmp.Diff(want, l.tally()); diff != "" {
				t.Error(diff)
			}
			seen := post.seen()
			for i, recipient := range list {
				if n := seen[recipient]; i%2 == 0 && n != 1 || i%2 == 1 && n != times {
					t.Fatalf("%s was taken %d times", recipient, n)
				}
			}
			announced := slices.Contains(l.events, subjects.Sending)
			if announced != (inDoubt == worker.Skip) {
				t.Errorf("events %v", l.events)
			}
		})
	}
}

// Batches of a campaign that is paused are not sent; cancelled ones end.
func TestCampaignsThatStop(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	post := newMemory()
	post.gate, post.arrived = make(chan struct{}), make(chan []string, 100)
	e := h.hire(t, worker.Options{Batches: 2}, post.relay(oneSession, tenAnEnvelope))
	list := people(30, "example.net")
	l := h.ledger(t, "stop", "1")
	h.publish(t, "stop", envelope.Batch{ID: "1", Recipients: envelope.To(list...)})
	flying := <-post.arrived
	h.campaign(t, "stop", subjects.CampaignCancelled)
	e.log.wait(t, "campaign changed", 1)
	close(post.gate)
	l.until(subjects.Done)
	if diff := cmp.Diff(map[subjects.Status]int{subjects.Accepted: 10, subjects.Cancelled: 20}, l.tally()); diff != "" {
		t.Error(diff)
	}
	onceEach(t, post.seen(), flying)

	h.campaign(t, "pause", subjects.CampaignPaused)
	e.log.wait(t, "campaign changed", 2)
	h.publish(t, "pause", envelope.Batch{ID: "1", Recipients: envelope.To(people(3, "pause.test")...)})
	h.publish(t, "go", envelope.Batch{ID: "1", Recipients: envelope.To(people(3, "go.test")...)})
	h.ledger(t, "go", "1").until(subjects.Done)
	e.leave(t)
	if n := h.queued(t); n != 1 {
		t.Errorf("%d batches are on the queue, want the paused one", n)
	}
	onceEach(t, post.seen(), flying, people(3, "go.test"))
}

func (h *house) campaign(t testing.TB, name string, state subjects.CampaignState) {
	t.Helper()
	kv, err := h.js.KeyValue(t.Context(), h.names.CampaignBucket())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := kv.PutString(t.Context(), name, fmt.Sprintf(`{"state":%q}`, state)); err != nil {
		t.Fatal(err)
	}
}
