package worker_test

import (
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"bulkmail/envelope"
	"bulkmail/relay/smtp"
	"bulkmail/subjects"
	"bulkmail/worker"
)

const notBegun = "batch not begun, it comes back"

func TestABatchThatCannotBeBegunStaysInTheQueueAndHoldsNobodyUp(t *testing.T) {
	t.Parallel()
	good := envelope.Batch{ID: "1", From: "news@example.com", Recipients: envelope.To("a@example.net"), Message: "Subject: t\n\nhi\n"}
	stored := good
	stored.Message, stored.MessageRef = "", "spring.eml"
	for name, c := range map[string]struct {
		batch string
		line  string
		spoil func(t *testing.T, h *house)
	}{
		"its journal cannot be read": {string(good.AppendJSON(nil)), "journal not readable, its batch waits until somebody has deleted that entry", func(t *testing.T, h *house) {
			if _, err := h.js.Publish(t.Context(), h.names.Outcomes("c", "1"), []byte("no entry")); err != nil {
				t.Fatal(err)
			}
		}},
		"its message cannot be fetched": {string(stored.AppendJSON(nil)), notBegun, func(t *testing.T, h *house) {
			if err := h.js.DeleteObjectStore(t.Context(), h.names.MessageStore()); err != nil {
				t.Fatal(err)
			}
		}},
		"it is a dead letter that cannot be stored": {"no batch", notBegun, func(t *testing.T, h *house) {
			if err := h.js.DeleteStream(t.Context(), h.names.DeadStream()); err != nil {
				t.Fatal(err)
			}
		}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h, post := newHouse(t), newMemory()
			e := h.hire(t, worker.Options{Batches: 1}, post.relay())
			h.publish(t, "c", envelope.Batch{ID: "before", Recipients: envelope.To("before@example.net")})
			h.ledger(t, "c", "before").until(subjects.Done)
			c.spoil(t, h)
			said, err := h.nc.SubscribeSync("$JS.ACK." + h.names.BatchesStream() + ".>")
			if err != nil {
				t.Fatal(err)
			}
			h.publishRaw(t, "c", c.batch)
			if line := e.log.wait(t, c.line, 1); line.attrs["campaign"] != "c" || line.attrs["error"] == "" {
				t.Errorf("logged: %v", line.attrs)
			}
			// The batch before may be acked only now, after its last entry.
			for told := false; !told; {
				msg, err := said.NextMsg(patience)
				if err != nil {
					t.Fatalf("the broker was not told to deliver it again later: %v", err)
				}
				told = strings.HasPrefix(string(msg.Data), `-NAK {"delay"`)
			}
			h.publish(t, "c", envelope.Batch{ID: "after", Recipients: envelope.To("after@example.net")})
			h.ledger(t, "c", "after").until(subjects.Done)
			e.leave(t)
			if n := h.queued(t); n != 1 {
				t.Errorf("%d batches are in the queue, want the one that was not begun", n)
			}
			onceEach(t, post.seen(), []string{"before@example.net", "after@example.net"})
		})
	}
}

// A broker that was killed may make deliveries once more while their holder is
// alive.
func TestABatchThatTheJournalSaysIsHeldIsNeitherSentNorGivenBack(t *testing.T) {
	t.Parallel()
	h, post := newHouse(t), newMemory()
	claim := nats.NewMsg(h.names.Outcomes("c", "1"))
	entry := subjects.Entry{Time: time.Now(), Worker: "holder", Attempt: 1, Event: subjects.Claimed}
	claim.Data = entry.AppendJSON(nil)
	claim.Header.Set("Bulkmail-Delivery", "1.1")
	if _, err := h.js.PublishMsg(t.Context(), claim); err != nil {
		t.Fatal(err)
	}
	h.publish(t, "c", envelope.Batch{ID: "1", Recipients: envelope.To("a@example.net")})
	e := h.hire(t, worker.Options{}, post.relay())
	e.log.wait(t, "batch let go", 1)
	e.leave(t)
	onceEach(t, post.seen())
	consumer, err := h.js.Consumer(t.Context(), h.names.BatchesStream(), subjects.Consumer)
	if err != nil {
		t.Fatal(err)
	}
	if info := consumer.CachedInfo(); info.NumAckPending != 1 || info.NumPending != 0 || info.NumRedelivered != 0 {
		t.Errorf("the broker was told something in the name of the holder: %+v", info)
	}
}

func TestACampaignWhoseNameIsNoneIsADeadLetter(t *testing.T) {
	t.Parallel()
	h, post := newHouse(t), newMemory()
	h.hire(t, worker.Options{}, post.relay())
	long := strings.Repeat("x", 65)
	h.publish(t, long, envelope.Batch{ID: "1", Recipients: envelope.To("a@example.net")})
	letter := h.tail(t, h.names.DeadStream(), h.names.Dead(long)).next()
	if reason := letter.Headers().Get(subjects.HeaderReason); !strings.HasPrefix(reason, "subject: the campaign is 1 to 64") {
		t.Errorf("dead because of %q", reason)
	}
	onceEach(t, post.seen())
}

func TestABatchStaysInTheQueueUntilTheDeadLetterOfWhatExpiredIsStored(t *testing.T) {
	t.Parallel()
	h, post := newHouse(t), newMemory()
	post.reply = func(string) *smtp.Reply {
		return &smtp.Reply{Code: 451, Enhanced: "4.2.0", Text: "later", Command: "RCPT"}
	}
	e := h.hire(t, worker.Options{RetryFor: time.Nanosecond}, post.relay())
	h.publish(t, "c", envelope.Batch{ID: "before", Recipients: envelope.To("before@example.net")})
	e.log.wait(t, "attempt over", 1)
	if err := h.js.DeleteStream(t.Context(), h.names.DeadStream()); err != nil {
		t.Fatal(err)
	}
	h.publish(t, "c", envelope.Batch{ID: "1", Recipients: envelope.To("a@example.net")})
	e.log.wait(t, "dead letter not stored, the batch comes back for it", 1)
	over := e.log.wait(t, "attempt over", 2)
	if over.attrs["verdict"] != "nak" || over.attrs["deferred"] != "1" {
		t.Errorf("the attempt ended with %v", over.attrs)
	}
	l := h.ledger(t, "c", "1")
	l.until(subjects.Recorded)
	if o := l.newest["a@example.net"]; o.status != subjects.Expired {
		t.Errorf("the journal says %+v of who expired", o)
	}
	e.leave(t)
	if n := h.queued(t); n != 1 {
		t.Errorf("%d batches are in the queue", n)
	}
}

func TestADrainThatCannotWriteTheJournalLeavesTheBatchToTheBroker(t *testing.T) {
	t.Parallel()
	h, post := newHouse(t), newMemory()
	post.gate, post.arrived = make(chan struct{}), make(chan []string, 1)
	e := h.hire(t, worker.Options{DrainTimeout: time.Second}, post.relay())
	h.publish(t, "c", envelope.Batch{ID: "1", Recipients: envelope.To("a@example.net")})
	<-post.arrived
	h.fillJournals(t, true)
	post.gate <- struct{}{}
	e.log.wait(t, noJournal, 1)
	e.leave(t)
	if n := e.log.count("journal not written, the batch comes back after the ack wait"); n != 1 {
		t.Errorf("said %d times", n)
	}
	if n := h.queued(t); n != 1 {
		t.Errorf("%d batches are in the queue: the batch left it although nobody knows what became of it", n)
	}
}
