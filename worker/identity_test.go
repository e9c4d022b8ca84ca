package worker_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"bulkmail/envelope"
	"bulkmail/relay"
	"bulkmail/relay/sink"
	"bulkmail/relay/smtp"
	"bulkmail/subjects"
	"bulkmail/testdata/testrun"
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
	for seed := range uint64(testrun.InFull(12, 4)) {
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

// The stored message is deleted between two attempts.
func TestAMessageThatIsGoneBetweenAttemptsExpiresTheRestAlone(t *testing.T) {
	t.Parallel()
	h, post := newHouse(t), newMemory()
	var full atomic.Bool
	full.Store(true)
	post.reply = later(&full, "@full.test")
	h.putMessage(t, "november", "Subject: t\n\nhi\n")
	h.hire(t, worker.Options{RetryDelays: worker.Schedule{time.Second}}, post.relay())
	l := h.ledger(t, "c", "1")
	good, bad := people(20, "example.net"), people(2, "full.test")
	h.publish(t, "c", envelope.Batch{ID: "1", Recipients: envelope.To(append(good, bad...)...), MessageRef: "november"})
	for len(l.newest) < 22 {
		l.until(subjects.Recorded)
	}
	store, err := h.js.ObjectStore(t.Context(), h.names.MessageStore())
	if err != nil {
		t.Fatal(err)
	}
	if err := store.Delete(t.Context(), "november"); err != nil {
		t.Fatal(err)
	}
	letter := h.tail(t, h.names.DeadStream(), h.names.Dead("c")).next()
	l.until(subjects.Done)
	if diff := cmp.Diff(map[subjects.Status]int{subjects.Accepted: 20, subjects.Expired: 2}, l.tally()); diff != "" {
		t.Error(diff)
	}
	if cause := letter.Headers().Get(subjects.HeaderCause); cause != subjects.CauseExpired {
		t.Errorf("the cause is %q: nobody but the journal knows the outcomes", cause)
	}
	if reason := letter.Headers().Get(subjects.HeaderReason); !strings.Contains(reason, `there is no object "november"`) {
		t.Errorf("the reason is %q", reason)
	}
	b, err := envelope.Decode(letter.Data())
	if err != nil {
		t.Fatal(err)
	}
	var rest []string
	for _, r := range b.Recipients {
		rest = append(rest, r.Address)
	}
	if diff := cmp.Diff(bad, rest); diff != "" {
		t.Errorf("the dead letter is for: %s", diff)
	}
	h.empty(t)
	onceEach(t, post.seen(), good)
}

// A deadly broker is one on which a worker dies as soon as a dead letter is stored:
// nothing it writes after that arrives.
type deadly struct {
	jetstream.JetStream
	letters string
	died    chan struct{}
	once    sync.Once
}

func (d *deadly) PublishMsg(ctx context.Context, m *nats.Msg, o ...jetstream.PublishOpt) (*jetstream.PubAck, error) {
	select {
	case <-d.died:
		return nil, errors.New("dead")
	default:
	}
	ack, err := d.JetStream.PublishMsg(ctx, m, o...)
	if m.Subject == d.letters && err == nil {
		d.once.Do(func() { close(d.died) })
	}
	return ack, err
}

func TestAWorkerThatDiesBetweenTheDeadLetterAndTheJournalLeavesOneLetter(t *testing.T) {
	t.Parallel()
	h, post := shortWait(t), newMemory()
	post.reply = func(string) *smtp.Reply { return &smtp.Reply{Code: 451, Text: "later", Command: "RCPT"} }
	o := worker.Options{RetryDelays: worker.Schedule{time.Millisecond}, RetryFor: time.Millisecond, DrainTimeout: time.Second}
	nc, js := connect(t, h.url)
	d := &deadly{JetStream: js, letters: h.names.Dead("c"), died: make(chan struct{})}
	first := h.hireOn(t, nc, d, o, relay.Options{}, post.relay())
	l := h.ledger(t, "c", "1")
	h.publish(t, "c", envelope.Batch{ID: "1", Recipients: envelope.To(people(5, "full.test")...)})
	<-d.died
	first.leave(t)
	h.hire(t, o, post.relay())
	l.until(subjects.Done)
	h.empty(t)
	if n := h.stored(t, h.names.DeadStream()); n != 1 {
		t.Errorf("%d dead letters of the same recipients: retrying all sends to them as often", n)
	}
	if diff := cmp.Diff(map[subjects.Status]int{subjects.Expired: 5}, l.tally()); diff != "" {
		t.Error(diff)
	}
}

func TestTheDeadLetterOfAMessageAsLargeAsTheBrokerTakesCanBeStoredAndPublishedAgain(t *testing.T) {
	t.Parallel()
	h, post := newHouse(t), newMemory()
	var full atomic.Bool
	full.Store(true)
	post.reply = later(&full, "@full.test")
	h.hire(t, worker.Options{RetryDelays: worker.Schedule{time.Millisecond}, RetryFor: time.Millisecond}, post.relay())
	b := envelope.Batch{ID: "1", From: "a@example.com", Recipients: envelope.To("x@full.test", "y@full.test"), Message: "Subject: t\n\n"}
	line := strings.Repeat("x", 70) + "\n" // one octet more as JSON
	room := int(h.nc.MaxPayload()) - 300 - len(b.AppendJSON(nil))
	b.Message += strings.Repeat(line, room/(len(line)+1))
	h.publish(t, "c", b)
	letter := h.tail(t, h.names.DeadStream(), h.names.Dead("c")).next()
	h.empty(t)
	full.Store(false)
	h.publishRaw(t, "retried", string(letter.Data()))
	h.empty(t)
	onceEach(t, post.seen(), []string{"x@full.test", "y@full.test"})
	for wire := range post.wire {
		if n := len(wire); n < len(b.Message) {
			t.Errorf("a message of %d octets became one of %d", len(b.Message), n)
		}
	}
}

func TestAGarbageEntryCostsItsBatchAloneAndIsToldOnce(t *testing.T) {
	t.Parallel()
	h, post := newHouse(t), newMemory()
	if _, err := h.js.Publish(t.Context(), h.names.Outcomes("c", "ill"), []byte("by hand")); err != nil {
		t.Fatal(err)
	}
	e := h.hire(t, worker.Options{Batches: 1}, post.relay())
	list := people(3, "example.net")
	for range 3 {
		h.publish(t, "c", envelope.Batch{ID: "ill", Recipients: envelope.To("nobody@example.net")})
	}
	h.publish(t, "c", envelope.Batch{ID: "well", Recipients: envelope.To(list...)})
	h.ledger(t, "c", "well").until(subjects.Done)
	e.leave(t)
	onceEach(t, post.seen(), list)
	const said = "journal not readable, its batch waits until somebody has deleted that entry"
	if n := e.log.count(said); n != 1 {
		t.Errorf("told %d times", n)
	}
	if reason := e.log.wait(t, said, 1).attrs["error"]; !strings.Contains(reason, "bulkmail.outcomes.c.ill: entry 1") {
		t.Errorf("told %q: which entry is it?", reason)
	}
	if n := h.queued(t); n != 3 {
		t.Errorf("%d batches on the queue, want the three of the ill journal", n)
	}
}

// The entries of a first attempt are older than the stream keeps them; those of a
// later one are there.
func TestABatchWhoseFirstOutcomesAreGoneIsADeadLetterOfTheRest(t *testing.T) {
	t.Parallel()
	h, post := newHouse(t), newMemory()
	e := subjects.Entry{Time: time.Now(), Worker: "other", Attempt: 2, Event: subjects.Claimed}
	for range 2 {
		if _, err := h.js.Publish(t.Context(), h.names.Outcomes("c", "1"), e.AppendJSON(nil)); err != nil {
			t.Fatal(err)
		}
		e.Event = subjects.Recorded
		e.Results = []subjects.Results{{Status: subjects.Accepted, Recipients: []string{"p0@example.net"}}}
	}
	h.hire(t, worker.Options{}, post.relay())
	h.publish(t, "c", envelope.Batch{ID: "1", Recipients: envelope.To(people(3, "example.net")...)})
	letter := h.tail(t, h.names.DeadStream(), h.names.Dead("c")).next()
	h.empty(t)
	if reason := letter.Headers().Get(subjects.HeaderReason); !strings.Contains(reason, "BULKMAIL_OUTCOMES_MAX_AGE") {
		t.Errorf("the reason is %q", reason)
	}
	if b, err := envelope.Decode(letter.Data()); err != nil || len(b.Recipients) != 2 {
		t.Errorf("the letter is %s (%v), want the two of whom nothing is known", letter.Data(), err)
	}
	if n := len(post.seen()); n != 0 {
		t.Errorf("%d were sent to, who may have been before", n)
	}
}

// A worker that is cut off while its batch is taken over by another one.
func TestAWorkerThatLostItsBatchSaysWhatItCouldNotRecord(t *testing.T) {
	t.Parallel()
	h, post := newHouse(t), newMemory()
	post.gate, post.arrived = make(chan struct{}), make(chan []string, 1)
	e := h.hire(t, worker.Options{}, post.relay())
	h.publish(t, "c", envelope.Batch{ID: "1", Recipients: envelope.To(people(3, "example.net")...)})
	<-post.arrived
	claim := subjects.Entry{Time: time.Now(), Worker: "other", Attempt: 1, Event: subjects.Claimed}
	if _, err := h.js.Publish(t.Context(), h.names.Outcomes("c", "1"), claim.AppendJSON(nil)); err != nil {
		t.Fatal(err)
	}
	close(post.gate)
	line := e.log.wait(t, "accepted by relays, and not recorded as another worker has the batch", 1)
	if line.attrs["accepted"] != "3" || !strings.Contains(line.attrs["recipients"], "p1@example.net") {
		t.Errorf("said %v", line.attrs)
	}
}
