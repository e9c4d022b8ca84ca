package queue_test

import (
	"context"
	"fmt"
	"math"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"go.uber.org/goleak"

	"bulkmail/subjects"
	"bulkmail/subjects/broker/brokertest"
	"bulkmail/worker/queue"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// patience is how long anything may take before a test fails.
const patience = time.Minute

// A house is a broker with a stream of batches, and the terms of campaigns.
type house struct {
	js    jetstream.JetStream
	names subjects.Names

	mu    sync.Mutex
	terms map[string]queue.Terms
}

func newHouse(t *testing.T) *house {
	t.Helper()
	h := &house{js: brokertest.Connect(t, brokertest.Start(t).URL()), terms: make(map[string]queue.Terms)}
	_, err := h.js.CreateStream(t.Context(), jetstream.StreamConfig{
		Name: h.names.BatchesStream(), Subjects: []string{h.names.Batches("*")}, Retention: jetstream.WorkQueuePolicy, AllowDirect: true,
		RePublish: &jetstream.RePublish{Source: h.names.Batches("*"), Destination: h.names.Queued("{{wildcard(1)}}"), HeadersOnly: true},
	})
	if err != nil {
		t.Fatal(err)
	}
	return h
}

func (h *house) set(campaign string, terms queue.Terms) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.terms[campaign] = terms
}

func (h *house) termsOf(campaign string, _ time.Time) queue.Terms {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.terms[campaign]
}

// publish stores batches of so many recipients, as their header says.
func (h *house) publish(t *testing.T, campaign string, batches, recipients int) {
	t.Helper()
	for i := range batches {
		msg := nats.NewMsg(h.names.Batches(campaign))
		msg.Data = fmt.Appendf(nil, "%s %d", campaign, i)
		msg.Header.Set(subjects.HeaderRecipients, fmt.Sprint(recipients))
		if _, err := h.js.PublishMsg(t.Context(), msg); err != nil {
			t.Fatal(err)
		}
	}
}

// run starts a queue that ends with the test.
func (h *house) run(t *testing.T, o queue.Options[*nats.Msg]) *queue.Queue[*nats.Msg] {
	t.Helper()
	o.Arrived = func(msg *nats.Msg) *nats.Msg { return msg }
	o.Release = func(msg *nats.Msg) { _ = msg.Nak() }
	o.Terms = h.termsOf
	q := queue.New(h.js, h.names, o)
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- q.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		select {
		case err := <-ended:
			if err != nil {
				t.Error(err)
			}
		case <-time.After(patience):
			t.Error("the queue does not end")
		}
	})
	return q
}

// next takes the next batch and says of which campaign it is.
func next(t *testing.T, q *queue.Queue[*nats.Msg], urgent bool) *nats.Msg {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	msg, ok := q.Next(ctx, urgent)
	if !ok {
		t.Fatal("no batch is handed out")
	}
	if err := msg.Ack(); err != nil {
		t.Fatal(err)
	}
	return msg
}

// hasReady waits until a batch of each campaign is ready to be taken.
func hasReady(t *testing.T, q *queue.Queue[*nats.Msg], campaigns int) {
	t.Helper()
	await(t, q, func() bool { return q.Waiting() >= campaigns })
}

// await waits until cond holds, which is asked when a batch comes or goes.
func await(t *testing.T, q *queue.Queue[*nats.Msg], cond func() bool) {
	t.Helper()
	timer := time.After(patience)
	for {
		arrival := q.Arrival()
		if cond() {
			return
		}
		select {
		case <-arrival:
		case <-timer:
			t.Fatalf("waited in vain; %d batches wait", q.Waiting())
		}
	}
}

func TestCampaignsThatNobodyAnnouncedAreFoundAndHeardOf(t *testing.T) {
	h := newHouse(t)
	h.publish(t, "before", 1, 1)
	q := h.run(t, queue.Options[*nats.Msg]{})
	if c, _ := h.names.Campaign(next(t, q, false).Subject); c != "before" {
		t.Fatalf("got %s", c)
	}
	h.publish(t, "later", 3, 1)
	for range 3 {
		if c, _ := h.names.Campaign(next(t, q, false).Subject); c != "later" {
			t.Fatalf("got %s", c)
		}
	}
}

func TestBacklogsShareByWeightInRecipients(t *testing.T) {
	h := newHouse(t)
	h.set("one", queue.Terms{Weight: 100})
	h.set("three", queue.Terms{Weight: 300})
	h.publish(t, "one", 200, 1000)
	h.publish(t, "three", 400, 500)
	q := h.run(t, queue.Options[*nats.Msg]{})
	recipients := map[string]int{}
	for range 200 {
		hasReady(t, q, 2)
		campaign, _ := h.names.Campaign(next(t, q, false).Subject)
		recipients[campaign] += map[string]int{"one": 1000, "three": 500}[campaign]
	}
	share := float64(recipients["one"]) / float64(recipients["one"]+recipients["three"])
	if math.Abs(share-0.25) > 0.02 {
		t.Errorf("weight 100 beside 300 got %.3f of the recipients, want a quarter", share)
	}
}

func TestAnUrgentBatchIsNextWhateverWaits(t *testing.T) {
	h := newHouse(t)
	h.set("reset", queue.Terms{Urgent: true})
	h.publish(t, "bulk", 50, 1000)
	q := h.run(t, queue.Options[*nats.Msg]{})
	hasReady(t, q, 1)
	h.publish(t, "reset", 1, 1)
	hasReady(t, q, 2)
	if c, _ := h.names.Campaign(next(t, q, false).Subject); c != "reset" {
		t.Errorf("%s came before the urgent campaign", c)
	}
	h.publish(t, "reset", 1, 1)
	if c, _ := h.names.Campaign(next(t, q, true).Subject); c != "reset" {
		t.Errorf("%s came where only urgent ones were asked for", c)
	}
}

func TestAPausedCampaignGivesNothingUntilItIsResumed(t *testing.T) {
	h := newHouse(t)
	h.set("held", queue.Terms{Held: true})
	h.publish(t, "held", 1, 1)
	h.publish(t, "other", 1, 1)
	q := h.run(t, queue.Options[*nats.Msg]{})
	if c, _ := h.names.Campaign(next(t, q, false).Subject); c != "other" {
		t.Fatalf("got a batch of %s, which is paused", c)
	}
	h.set("held", queue.Terms{})
	q.Changed("held")
	if c, _ := h.names.Campaign(next(t, q, false).Subject); c != "held" {
		t.Fatalf("got %s", c)
	}
}

func TestABatchThatWaitsWhenItsCampaignIsPausedGoesBack(t *testing.T) {
	h := newHouse(t)
	h.publish(t, "news", 1, 1)
	q := h.run(t, queue.Options[*nats.Msg]{})
	hasReady(t, q, 1)
	h.set("news", queue.Terms{Held: true})
	q.Changed("news")
	await(t, q, func() bool { return q.Waiting() == 0 })
	h.set("news", queue.Terms{})
	q.Changed("news")
	if c, _ := h.names.Campaign(next(t, q, false).Subject); c != "news" {
		t.Fatalf("got %s", c)
	}
}

func TestACampaignIsNotSentBeforeItsTimeNorAfterItsEnd(t *testing.T) {
	h := newHouse(t)
	opens := time.Now().Add(700 * time.Millisecond)
	h.set("timed", queue.Terms{Opens: opens})
	h.set("over", queue.Terms{Closes: time.Now().Add(-time.Second)})
	h.publish(t, "timed", 1, 1)
	h.publish(t, "over", 1, 1)
	q := h.run(t, queue.Options[*nats.Msg]{})
	if c, _ := h.names.Campaign(next(t, q, false).Subject); c != "timed" {
		t.Fatalf("got %s, whose time is over", c)
	}
	if now := time.Now(); now.Before(opens) {
		t.Errorf("handed out %v before its time", opens.Sub(now))
	}
}

func TestAConsumerThatWasDeletedIsMadeAnewAndWhatRestedComesAtOnce(t *testing.T) {
	h := newHouse(t)
	h.publish(t, "news", 1, 1)
	q := h.run(t, queue.Options[*nats.Msg]{})
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	msg, ok := q.Next(ctx, false)
	if !ok {
		t.Fatal("no batch")
	}
	if err := msg.NakWithDelay(time.Hour); err != nil {
		t.Fatal(err)
	}
	if err := h.js.Conn().FlushWithContext(ctx); err != nil {
		t.Fatal(err)
	}
	if err := subjects.RenewConsumer(ctx, h.js, h.names, "news", time.Minute); err != nil {
		t.Fatal(err)
	}
	next(t, q, false)
}

func TestACampaignThatHasNothingIsLeftAndHeardOfAgain(t *testing.T) {
	h := newHouse(t)
	q := h.run(t, queue.Options[*nats.Msg]{Idle: 20 * time.Millisecond})
	for range 3 {
		h.publish(t, "news", 1, 1)
		next(t, q, false)
		deadline := time.Now().Add(patience)
		for q.Campaigns() > 0 {
			if time.Now().After(deadline) {
				t.Fatal("a campaign that has nothing is still pulled for")
			}
			time.Sleep(time.Millisecond) // nothing tells that a feed has ended
		}
	}
}

func TestWhatWaitsIsBoundedInOctets(t *testing.T) {
	h := newHouse(t)
	for i := range 5 {
		h.publish(t, fmt.Sprintf("c%d", i), 1, 1) // of four octets each
	}
	q := h.run(t, queue.Options[*nats.Msg]{MaxBytes: 9})
	got := make(map[string]int)
	for left := 5; left > 0; left-- {
		hasReady(t, q, min(left, 2))
		if n := q.Waiting(); n > 2 {
			t.Fatalf("%d batches wait, which are more than 9 octets", n)
		}
		campaign, _ := h.names.Campaign(next(t, q, false).Subject)
		got[campaign]++
	}
	if len(got) != 5 {
		t.Errorf("got %v, want one of each", got)
	}
}
