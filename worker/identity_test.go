package worker_test

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"bulkmail/envelope"
	"bulkmail/relay"
	"bulkmail/relay/sink"
	"bulkmail/subjects"
	"bulkmail/worker"
)

// respelt is the same mailboxes in another spelling.
func respelt(list []string) []string {
	other := make([]string, len(list))
	for i, address := range list {
		local, domain, _ := strings.Cut(address, "@")
		other[i] = local + "@" + strings.ToUpper(domain)
	}
	return other
}

// empty waits until no batch is on the queue.
func (h *house) empty(t testing.TB) {
	t.Helper()
	for deadline := time.Now().Add(patience); h.queued(t) > 0; time.Sleep(20 * time.Millisecond) { // nothing tells of it
		if time.Now().After(deadline) {
			t.Fatalf("%d batches do not leave the queue", h.queued(t))
		}
	}
}

// A batch is published again, in another spelling, while its envelopes are in
// flight.
func TestABatchPublishedTwiceWhileInFlightIsSentOnce(t *testing.T) {
	t.Parallel()
	for _, inDoubt := range []worker.InDoubt{worker.Resend, worker.Skip} {
		for workers := 1; workers <= 3; workers++ {
			t.Run(fmt.Sprintf("%s, %d workers", inDoubt, workers), func(t *testing.T) {
				t.Parallel()
				h, post := shortWait(t), newMemory()
				post.gate, post.arrived = make(chan struct{}), make(chan []string, 1000)
				l := h.ledger(t, "c", "1")
				var all []*employee
				for i := range workers {
					all = append(all, h.hire(t, worker.Options{Name: fmt.Sprint("w", i), InDoubt: inDoubt}, post.relay(tenAnEnvelope)))
				}
				list := people(100, "example.net", "example.org")
				h.publish(t, "c", envelope.Batch{ID: "1", Recipients: envelope.To(list...)})
				<-post.arrived
				h.publish(t, "c", envelope.Batch{ID: "1", Recipients: envelope.To(respelt(list)...)})
				h.publish(t, "c", envelope.Batch{ID: "1", Recipients: envelope.To(list...)})
				for range 8 { // two ack waits and more: the holder has nothing to record
					l.until(subjects.Recorded)
				}
				close(post.gate)
				l.until(subjects.Done)
				h.empty(t)
				for _, e := range all {
					e.leave(t)
				}
				onceEach(t, post.seen(), list)
				if diff := cmp.Diff(map[subjects.Status]int{subjects.Accepted: 100}, l.tally()); diff != "" {
					t.Error(diff)
				}
			})
		}
	}
}

func TestABatchInAnotherSpellingAfterADeferralHasOneOutcomeForEachMailbox(t *testing.T) {
	t.Parallel()
	for round := range 5 { // the order of a map is not always the wrong one
		t.Run(fmt.Sprint(round), func(t *testing.T) {
			t.Parallel()
			h, post := newHouse(t), newMemory()
			var full atomic.Bool
			full.Store(true)
			post.reply = later(&full, "@full.test")
			e := h.hire(t, worker.Options{RetryDelays: worker.Schedule{time.Millisecond, time.Hour}}, post.relay())
			l := h.ledger(t, "c", "1")
			list := people(30, "full.test")
			h.publish(t, "c", envelope.Batch{ID: "1", Recipients: envelope.To(list...)})
			e.log.wait(t, "attempt over", 2)
			h.publish(t, "c", envelope.Batch{ID: "1", Recipients: envelope.To(append(respelt(list), "new@full.test")...)})
			e.log.wait(t, "attempt over", 3)
			full.Store(false)
			h.campaign(t, "c", subjects.CampaignCancelled)
			e.log.wait(t, "campaign changed", 1)
			h.publish(t, "c", envelope.Batch{ID: "1", Recipients: envelope.To(append(respelt(list), "new@full.test")...)})
			l.until(subjects.Done)
			e.leave(t)
			if diff := cmp.Diff(map[subjects.Status]int{subjects.Cancelled: 31}, l.tally()); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestAnotherMessageUnderAnIDUsedBeforeIsADeadLetterThatSaysSo(t *testing.T) {
	t.Parallel()
	h, post := newHouse(t), newMemory()
	h.hire(t, worker.Options{}, post.relay())
	list := people(10, "example.net")
	first := envelope.Batch{ID: "1", Recipients: envelope.To(list...), Message: "Subject: one\n\nhi\n"}
	l := h.ledger(t, "c", "1")
	h.publish(t, "c", first)
	l.until(subjects.Done)
	letters := h.tail(t, h.names.DeadStream(), h.names.Dead("c"))
	for name, change := range map[string]func(*envelope.Batch){
		"another message": func(b *envelope.Batch) { b.Message = "Subject: two\n\nhi\n" },
		"another sender":  func(b *envelope.Batch) { b.From = "other@example.com" },
		"another DSN":     func(b *envelope.Batch) { b.DSN.Notify = "NEVER" },
	} {
		other := first
		change(&other)
		h.publish(t, "c", other)
		letter := letters.next()
		if reason := letter.Headers().Get(subjects.HeaderReason); !strings.Contains(reason, "id: used before") {
			t.Errorf("%s: the reason is %q", name, reason)
		}
		if b, err := envelope.Decode(letter.Data()); err != nil || b.Message != other.Message || len(b.Recipients) != 10 {
			t.Errorf("%s: the letter holds %s (%v)", name, letter.Data(), err)
		}
	}
	h.publish(t, "c", first) // the same is the same still
	h.empty(t)
	onceEach(t, post.seen(), list)
}

// Copies of one batch come at random moments, in random spellings, to one to three
// workers. Nothing crashes, so nobody is sent to twice and nobody is in doubt.
func TestCopiesOfABatchAtAnyMomentSendNothingTwice(t *testing.T) {
	t.Parallel()
	for seed := range uint64(12) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			t.Parallel()
			random := rand.New(rand.NewPCG(seed, 0))
			h := shortWait(t)
			list := people(80, "a.test", "b.test", "c.test", "full.test")
			var mu sync.Mutex
			taken, more := 0, make(chan struct{})
			post := openSink(t, sink.Options{
				Delay: time.Duration(random.IntN(30)) * time.Millisecond,
				Recorder: func(tx sink.Transaction) {
					mu.Lock()
					defer mu.Unlock()
					taken += len(tx.Recipients)
					close(more)
					more = make(chan struct{})
				},
			}, "RCPT:*@full.test=451 4.2.0 later")
			o := worker.Options{RetryDelays: worker.Schedule{300 * time.Millisecond}}
			if random.IntN(2) == 0 {
				o.InDoubt = worker.Skip
			}
			l := h.ledger(t, "c", "1")
			for i := range 1 + random.IntN(3) {
				o.Name = fmt.Sprint("w", i)
				h.hire(t, o, post.relay(t, func(c *relay.Config) { c.EnvelopeLimit, c.Connections = 1+random.IntN(10), 1 }))
			}
			copies := 2 + random.IntN(3)
			for range copies {
				spelling := list
				if random.IntN(2) == 0 {
					spelling = respelt(list)
				}
				h.publish(t, "c", envelope.Batch{ID: "1", Recipients: envelope.To(spelling...)})
				for until := random.IntN(61); ; { // 60 of 80 are taken at first
					mu.Lock()
					reached, next := taken >= until, more
					mu.Unlock()
					if reached {
						break
					}
					<-next
				}
			}
			for n := 0; n < 20; { // those at full.test
				for _, r := range l.until(subjects.Recorded).Results {
					if r.Status == subjects.Deferred {
						n += len(r.Recipients)
					}
				}
			}
			post.SetRules(nil)
			l.until(subjects.Done)
			h.empty(t)
			onceEach(t, post.seen(), list)
			if diff := cmp.Diff(map[subjects.Status]int{subjects.Accepted: 80}, l.tally()); diff != "" {
				t.Errorf("seed %d: %s", seed, diff)
			}
		})
	}
}
