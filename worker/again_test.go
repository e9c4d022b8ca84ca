package worker_test

import (
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"bulkmail/envelope"
	"bulkmail/relay"
	"bulkmail/relay/sink"
	"bulkmail/relay/smtp"
	"bulkmail/subjects"
	"bulkmail/subjects/broker/brokertest"
	"bulkmail/worker"
)

// later is a reply that defers while on is set.
func later(on *atomic.Bool, suffix string) func(string) *smtp.Reply {
	return func(recipient string) *smtp.Reply {
		if on.Load() && strings.HasSuffix(recipient, suffix) {
			return &smtp.Reply{Code: 451, Enhanced: "4.2.0", Text: "later", Command: "RCPT"}
		}
		return nil
	}
}

func TestABatchPublishedAgainIsSentToTheNewRecipientsOnly(t *testing.T) {
	t.Parallel()
	h, post := newHouse(t), newMemory()
	e := h.hire(t, worker.Options{}, post.relay())
	list := people(30, "example.net", "example.org")
	l := h.ledger(t, "c", "1")
	h.publish(t, "c", envelope.Batch{ID: "1", Recipients: envelope.To(append([]string{"p1@EXAMPLE.org"}, list[:20]...)...)})
	l.until(subjects.Done)
	h.publish(t, "c", envelope.Batch{ID: "1", Recipients: envelope.To(list[:20]...)}) // the same
	respelt := append([]string{"p0@EXAMPLE.NET"}, list...)                            // more, and one in another spelling
	h.publish(t, "c", envelope.Batch{ID: "1", Recipients: envelope.To(respelt...)})
	l.until(subjects.Done)
	e.leave(t)
	onceEach(t, post.seen(), list)
	if n := h.queued(t); n != 0 {
		t.Errorf("%d batches are left on the queue", n)
	}
	if diff := cmp.Diff(map[subjects.Status]int{subjects.Accepted: 30}, l.tally()); diff != "" {
		t.Error(diff)
	}
	claims := 0
	for _, event := range l.events {
		if event == subjects.Claimed {
			claims++
		}
	}
	if claims != 2 {
		t.Errorf("%d claims: a batch of which all is known needs none", claims)
	}
}

// A worker may die between the last entry of the journal and the ack.
func TestADoneBatchThatIsDeliveredAgainIsJustAcked(t *testing.T) {
	t.Parallel()
	h, post := newHouse(t), newMemory()
	l := h.ledger(t, "c", "1")
	first := h.hire(t, worker.Options{}, post.relay())
	list := people(5, "example.net")
	h.publish(t, "c", envelope.Batch{ID: "1", Recipients: envelope.To(list...)})
	l.until(subjects.Done)
	first.leave(t)
	before := h.stored(t, h.names.OutcomesStream())

	h.publish(t, "c", envelope.Batch{ID: "1", Recipients: envelope.To(list...)})
	h.publish(t, "c", envelope.Batch{ID: "2", Recipients: envelope.To(people(1, "example.org")...)})
	second := h.hire(t, worker.Options{Batches: 1}, post.relay())
	h.ledger(t, "c", "2").until(subjects.Done)
	second.leave(t)
	if n := h.stored(t, h.names.OutcomesStream()); n != before+2 && n != before+3 {
		t.Errorf("%d entries where %d were: the done batch got more", n, before)
	}
	if n := h.queued(t); n != 0 {
		t.Errorf("%d batches are left on the queue", n)
	}
	onceEach(t, post.seen(), list, people(1, "example.org"))
}

func TestABatchThatComesBackBeforeItsTimeIsLeftAlone(t *testing.T) {
	t.Parallel()
	h, post := newHouse(t), newMemory()
	var full atomic.Bool
	full.Store(true)
	post.reply = later(&full, "@full.test")
	e := h.hire(t, worker.Options{RetryDelays: worker.Schedule{time.Hour}}, post.relay())
	list := []string{"a@example.net", "b@full.test"}
	h.publish(t, "c", envelope.Batch{ID: "1", Recipients: envelope.To(list...)})
	e.log.wait(t, "attempt over", 1)
	entries := h.stored(t, h.names.OutcomesStream())

	full.Store(false)
	h.publish(t, "c", envelope.Batch{ID: "1", Recipients: envelope.To(list...)})
	h.publish(t, "c", envelope.Batch{ID: "2", Recipients: envelope.To("last@example.net")})
	h.ledger(t, "c", "2").until(subjects.Done)
	e.leave(t)
	if n := post.seen()["b@full.test"]; n != 0 {
		t.Errorf("b was sent to %d times, an hour before its time", n)
	}
	if n := h.queued(t); n != 2 {
		t.Errorf("%d batches rest in the queue, want both of the same id", n)
	}
	if n := h.stored(t, h.names.OutcomesStream()); n != entries+2 && n != entries+3 {
		t.Errorf("%d entries where %d were: the resting batch was claimed", n, entries)
	}
	onceEach(t, post.seen(), []string{"a@example.net", "last@example.net"})
}

// A delay that is over takes only those along whose own delay is.
func TestNewRecipientsOfARestingBatchAreSentToAtOnce(t *testing.T) {
	t.Parallel()
	h, post := newHouse(t), newMemory()
	var full atomic.Bool
	full.Store(true)
	post.reply = later(&full, "@full.test")
	e := h.hire(t, worker.Options{RetryDelays: worker.Schedule{time.Hour}}, post.relay())
	h.publish(t, "c", envelope.Batch{ID: "1", Recipients: envelope.To("a@example.net", "b@full.test")})
	e.log.wait(t, "attempt over", 1)
	full.Store(false)
	h.publish(t, "c", envelope.Batch{ID: "1", Recipients: envelope.To("a@example.net", "b@full.test", "c@example.net")})
	line := e.log.wait(t, "attempt over", 2)
	if line.attrs["accepted"] != "1" || line.attrs["deferred"] != "1" || line.attrs["verdict"] != "nak" {
		t.Errorf("the second attempt: %v", line.attrs)
	}
	e.leave(t)
	onceEach(t, post.seen(), []string{"a@example.net", "c@example.net"})
}

func TestWhenNoRelayCanTakeAnythingTheBatchGoesBackUncounted(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	first := h.hireWith(t, worker.Options{RetryFor: time.Nanosecond}, relay.Options{DialBackoff: time.Hour, MaxBackoff: time.Hour, Backoff: time.Hour},
		relay.Relay{Config: relay.Config{Name: "away", Connections: 1, MaxConnectionAttempts: 1, WorthlessFor: time.Hour}, Dialer: away{}})
	list := people(50, "example.net", "example.org")
	h.publish(t, "c", envelope.Batch{ID: "1", Recipients: envelope.To(list...)})
	line := first.log.wait(t, "attempt over", 1)
	if line.attrs["attempt"] != "1" || line.attrs["waiting"] != "2" && line.attrs["waiting"] != "50" || line.attrs["verdict"] != "nak" {
		t.Errorf("the attempt ended with %v", line.attrs)
	}
	if first.log.count("no relay can take anything, pausing") != 1 {
		t.Error("that no relay can take anything is not said once")
	}
	first.leave(t)
	if n := h.queued(t); n != 1 {
		t.Fatalf("%d batches on the queue", n)
	}

	// Another worker has a relay; the batch rests, so it is published again.
	post := newMemory()
	l := h.ledger(t, "c", "1")
	h.hire(t, worker.Options{}, post.relay())
	h.publish(t, "c", envelope.Batch{ID: "1", Recipients: envelope.To(list...)})
	if done := l.until(subjects.Done); done.Attempt != 1 {
		t.Errorf("this is attempt %d: the one without a relay was counted", done.Attempt)
	}
	onceEach(t, post.seen(), list)
}

func TestWhileNoRelayCanTakeAnythingNothingIsPulledAndWhatWasComesBackInTime(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	const hint = 2 * time.Second
	h.waits.Stall = hint / 20 // longer than that nobody waits with a batch in hand
	soon := openSink(t, sink.Options{}, "MAIL=421 4.7.0 try again in 2 seconds")
	late := openSink(t, sink.Options{}, "MAIL=421 4.7.0 try again in 1 hour")
	e := h.hire(t, worker.Options{}, smtpRelay(t, "late", late.Addr()), smtpRelay(t, "soon", soon.Addr()))
	first, second := people(50, "example.net"), people(50, "example.org")
	began := time.Now()
	h.publish(t, "c", envelope.Batch{ID: "first", Recipients: envelope.To(first...)})
	e.log.wait(t, "no relay can take anything, pausing", 1)
	soon.SetRules(nil)
	h.publish(t, "c", envelope.Batch{ID: "second", Recipients: envelope.To(second...)})
	over := e.log.wait(t, "attempt over", 1)
	if again, err := time.ParseDuration(over.attrs["again_in"]); err != nil || again > hint || again < hint-time.Since(began) || over.attrs["waiting"] != "50" {
		t.Errorf("the batch in hand went back with %v, the first relay can take it in %v", over.attrs, hint)
	}
	for id, claims := range map[string]int{"first": 2, "second": 1} {
		l := h.ledger(t, "c", id)
		done := l.until(subjects.Done)
		n := 0
		for _, event := range l.events {
			if event == subjects.Claimed {
				n++
			}
		}
		if n != claims || done.Attempt != 1 {
			t.Errorf("the %s batch was claimed %d times, want %d, and done in attempt %d", id, n, claims, done.Attempt)
		}
	}
	if took := time.Since(began); took < hint {
		t.Errorf("a relay that was to be left alone for %v was used after %v", hint, took)
	}
	onceEach(t, soon.seen(), first, second)
}

func TestAWorkerThatWaitsForItsRelaysGoesOnWhenTheyAreConfiguredAnew(t *testing.T) {
	t.Parallel()
	h, post := newHouse(t), newMemory()
	parked := openSink(t, sink.Options{}, "MAIL=421 4.7.0 try again in 1 hour")
	e := h.hire(t, worker.Options{Batches: 1}, smtpRelay(t, "parked", parked.Addr()))
	first, second := people(50, "example.net"), people(50, "example.org")
	h.publish(t, "c", envelope.Batch{ID: "first", Recipients: envelope.To(first...)})
	over := e.log.wait(t, "attempt over", 1)
	if again, err := time.ParseDuration(over.attrs["again_in"]); err != nil || again > time.Minute {
		t.Errorf("the batch in hand went back for %v: nobody could have it sooner", again)
	}
	h.publish(t, "c", envelope.Batch{ID: "second", Recipients: envelope.To(second...)})
	e.pool.Configure([]relay.Relay{post.relay()})
	e.worker.Resume()
	h.ledger(t, "c", "second").until(subjects.Done)
	onceEach(t, post.seen(), second)
}

func TestARelayThatComesBackSoonIsWaitedFor(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	post := openSink(t, sink.Options{}, "CONNECT=421 4.3.2 too busy")
	e := h.hireWith(t, worker.Options{}, relay.Options{DialBackoff: 10 * time.Millisecond, Backoff: 10 * time.Millisecond, MaxBackoff: 20 * time.Millisecond},
		post.relay(t, func(c *relay.Config) { c.MaxConnectionAttempts = 0 }))
	list := people(50, "example.net", "example.org")
	l := h.ledger(t, "c", "1")
	h.publish(t, "c", envelope.Batch{ID: "1", Recipients: envelope.To(list...)})
	l.until(subjects.Claimed)
	post.SetRules(nil)
	if done := l.until(subjects.Done); done.Attempt != 1 {
		t.Errorf("done in attempt %d", done.Attempt)
	}
	e.leave(t)
	onceEach(t, post.seen(), list)
}

func TestAnUnwellRelayCostsNobodyAnAttempt(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	sick := openSink(t, sink.Options{}, "MAIL=421 4.7.0 go away")
	well := openSink(t, sink.Options{})
	e := h.hire(t, worker.Options{}, smtpRelay(t, "sick", sick.Addr()), smtpRelay(t, "well", well.Addr()))
	list := people(300, "example.net", "example.org", "example.com")
	h.publish(t, "c", envelope.Batch{ID: "1", Recipients: envelope.To(list...)})
	l := h.ledger(t, "c", "1")
	l.until(subjects.Done)
	e.leave(t)
	for recipient, o := range l.newest {
		if o.status != subjects.Accepted || o.relay != "well" || o.attempt != 1 {
			t.Fatalf("%s: %+v", recipient, o)
		}
	}
	onceEach(t, well.seen(), list)
}

func TestWorkGoesOnWhenTheBrokerComesBack(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	b := startBroker(t, "127.0.0.1:0", dir)
	address := b.URL()[len("nats://"):]
	h := join(t, b.URL())
	h.provision(t, subjects.Options{AckWait: 2 * time.Second, OutcomesMaxAge: time.Hour})
	post := newMemory()
	post.gate, post.arrived = make(chan struct{}), make(chan []string, 100)
	e := h.hire(t, worker.Options{Batches: 2}, post.relay())
	var all [][]string
	for i := range 6 {
		list := people(20, fmt.Sprintf("d%d.test", i))
		all = append(all, list)
		h.publish(t, "c", envelope.Batch{ID: fmt.Sprint(i), Recipients: envelope.To(list...)})
	}
	<-post.arrived
	<-post.arrived
	if err := b.Close(); err != nil { // two envelopes are in flight
		t.Fatal(err)
	}
	b = startBroker(t, address, dir)
	t.Cleanup(func() {
		if err := b.Close(); err != nil {
			t.Error(err)
		}
	})
	close(post.gate)
	h = join(t, b.URL()) // the test does not wait for its own connection
	l := &ledger{tail: h.tail(t, h.names.OutcomesStream(), h.names.CampaignOutcomes("c")), newest: make(map[string]outcome)}
	for range 6 {
		l.until(subjects.Done)
	}
	e.leave(t)
	if n := h.queued(t); n != 0 {
		t.Errorf("%d batches are left on the queue", n)
	}
	onceEach(t, post.seen(), all...)
}

func TestAWorkerWaitsForItsBroker(t *testing.T) {
	t.Parallel()
	b := startBroker(t, "127.0.0.1:0", t.TempDir())
	h := join(t, b.URL())
	h.waits.Open = time.Second
	address := b.URL()[len("nats://"):]
	nc, js := connect(t, b.URL())
	if err := b.Close(); err != nil {
		t.Fatal(err)
	}
	post := newMemory()
	e := h.hireOn(t, nc, js, worker.Options{}, relay.Options{}, post.relay())
	e.log.wait(t, "broker not ready, trying on", 1)
	b = startBroker(t, address, t.TempDir())
	t.Cleanup(func() {
		if err := b.Close(); err != nil {
			t.Error(err)
		}
	})
	e.log.wait(t, "working", 1)
	h.publish(t, "c", envelope.Batch{ID: "1", Recipients: envelope.To(people(3, "example.net")...)})
	h.ledger(t, "c", "1").until(subjects.Done)
	onceEach(t, post.seen(), people(3, "example.net"))
	e.leave(t) // while there is a broker to tell
}

func TestABrokerWithoutJetStreamIsToldHowToStart(t *testing.T) {
	t.Parallel()
	url := brokertest.StartWithout(t)
	nc, js := connect(t, url)
	h := &house{url: url}
	e := h.hireOn(t, nc, js, worker.Options{}, relay.Options{}, newMemory().relay())
	if said := e.log.wait(t, "broker not ready, trying on", 1).attrs["error"]; !strings.Contains(said, "start it with -js") {
		t.Errorf("said %q", said)
	}
	e.leave(t)
}
