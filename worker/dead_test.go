package worker_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"bulkmail/envelope"
	"bulkmail/relay/smtp"
	"bulkmail/subjects"
	"bulkmail/worker"
)

// terms returns a function that waits until the broker has taken n batches off
// the queue that were given up. Unlike an ack, giving up is not answered.
func (h *house) terms(t testing.TB) func(n int) {
	t.Helper()
	sub, err := h.nc.SubscribeSync("$JS.EVENT.ADVISORY.CONSUMER.MSG_TERMINATED.>")
	if err != nil {
		t.Fatal(err)
	}
	if err := h.nc.Flush(); err != nil {
		t.Fatal(err)
	}
	return func(n int) {
		t.Helper()
		for range n {
			if _, err := sub.NextMsg(patience); err != nil {
				t.Fatalf("no batch was taken off the queue: %v", err)
			}
		}
	}
}

// What cannot be read goes to the dead letters as it was
// published, with a reason that names the field, and leaves the queue.
func TestEveryKindOfBadBatchIsADeadLetterThatNamesTheField(t *testing.T) {
	t.Parallel()
	h, post := newHouse(t), newMemory()
	terms := h.terms(t)
	e := h.hire(t, worker.Options{}, post.relay())
	const good = `"from":"a@example.com","recipients":["x@example.net"],"message":"Subject: t\n\nhi\n"`
	cases := []struct{ campaign, batch, reason string }{
		{"no-json", "Dear all,", "batch: not a JSON object"},
		{"nothing", "", "batch: empty"},
		{"cut-short", `{"id":"1","from":"a@exam`, "from"},
		{"two-objects", "{" + good + "}{}", "nothing after it"},
		{"unknown-field", `{"form":"a@example.com",` + good + "}", `"form": unknown field`},
		{"field-twice", `{"from":"b@example.com",` + good + "}", "from: given twice"},
		{"bad-id", `{"id":"a b",` + good + "}", `id: "a b" is not 1 to 64 letters, digits, _ or -`},
		{"no-sender", `{"recipients":["x@example.net"],"message":"hi"}`, "from: missing"},
		{"bad-sender", `{"from":"nobody","recipients":["x@example.net"],"message":"hi"}`, "from: "},
		{"no-recipients", `{"from":"a@example.com","message":"hi"}`, "recipients: missing"},
		{"empty-list", `{"from":"a@example.com","recipients":[],"message":"hi"}`, "recipients: the list is empty"},
		{"number-for-address", `{"from":"a@example.com","recipients":["x@example.net",7],"message":"hi"}`, "recipients[1]"},
		{"no-message", `{"from":"a@example.com","recipients":["x@example.net"]}`, "message, message_ref: give exactly one"},
		{"two-messages", `{` + good + `,"message_ref":"m"}`, "message, message_ref: give exactly one"},
		{"no-such-object", `{"id":"1","from":"a@example.com","recipients":["x@example.net"],"message_ref":"november"}`, `message_ref: there is no object "november" in the object store`},
		{"no-header", `{"from":"a@example.com","recipients":["x@example.net"],"message":"Dear all,\n"}`, "message: line 1: no header field"},
		{"no-template", `{"from":"a@example.com","recipients":[{"to":"x@example.net"}],"message":"Subject: t\n\n{{#first}}hi\n"}`, "message: line 3, column 1: "},
	}
	for _, c := range cases {
		h.publishRaw(t, c.campaign, c.batch)
	}
	letters := h.tail(t, h.names.DeadStream(), h.names.Dead("*"))
	got := make(map[string]string)
	for range cases {
		msg := letters.next()
		campaign, _ := h.names.Campaign(msg.Subject())
		got[campaign] = msg.Headers().Get(subjects.HeaderReason)
		if cause := msg.Headers().Get(subjects.HeaderCause); cause != subjects.CauseUnreadable {
			t.Errorf("%s: the cause is %q", campaign, cause)
		}
		if !subjects.ValidID(msg.Headers().Get(subjects.HeaderBatch)) {
			t.Errorf("%s: the batch is %q", campaign, msg.Headers().Get(subjects.HeaderBatch))
		}
		for _, c := range cases {
			if c.campaign == campaign && c.batch != string(msg.Data()) {
				t.Errorf("%s: the dead letter is not the batch as published: %s", campaign, msg.Data())
			}
		}
	}
	for _, c := range cases {
		if !strings.Contains(got[c.campaign], c.reason) {
			t.Errorf("%s: the reason %q does not say %q", c.campaign, got[c.campaign], c.reason)
		}
	}

	// They harm nobody behind them.
	h.publishRaw(t, "fine", "{"+good+`,"id":"1"}`)
	h.ledger(t, "fine", "1").until(subjects.Done)
	terms(len(cases))
	e.leave(t)
	if n := h.queued(t); n != 0 {
		t.Errorf("%d batches are left on the queue", n)
	}
	if n := h.stored(t, h.names.OutcomesStream()); n != 2 && n != 3 {
		t.Errorf("%d journal entries, want only those of the good batch", n)
	}
	onceEach(t, post.seen(), []string{"x@example.net"})
}

func TestTheSameBadBatchTwiceIsTwoDeadLetters(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	h.hire(t, worker.Options{})
	letters := h.tail(t, h.names.DeadStream(), h.names.Dead("c"))
	for range 2 {
		h.publishRaw(t, "c", "no batch", "Bulkmail-Test", "1")
	}
	first, second := letters.next(), letters.next()
	if a, b := first.Headers().Get(subjects.HeaderBatch), second.Headers().Get(subjects.HeaderBatch); a == b {
		t.Errorf("both are batch %s: nobody could tell them apart", a)
	}
}

func TestABatchWithoutIDIsKnownByItsMessageIDOrItsPlace(t *testing.T) {
	t.Parallel()
	h, post := newHouse(t), newMemory()
	h.hire(t, worker.Options{}, post.relay())
	const batch = `{"from":"a@example.com","recipients":["p%d@example.net"],"message":"Subject: t\n\nhi\n"}`
	h.publishRaw(t, "c", fmt.Sprintf(batch, 0), "Nats-Msg-Id", "nightly-7")
	h.publishRaw(t, "c", fmt.Sprintf(batch, 1))
	h.ledger(t, "c", "nightly-7").until(subjects.Done)
	journals := &ledger{tail: h.tail(t, h.names.OutcomesStream(), h.names.CampaignOutcomes("c")), newest: make(map[string]outcome)}
	for range 2 {
		journals.until(subjects.Done)
	}
	onceEach(t, post.seen(), people(2, "example.net"))
}

func TestReasonsAreOneLine(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	h.hire(t, worker.Options{})
	h.publishRaw(t, "c", `{"fr\r\nNats-Rollup: all":1}`)
	reason := h.tail(t, h.names.DeadStream(), h.names.Dead("c")).next().Headers()
	if reason.Get("Nats-Rollup") != "" || !strings.Contains(reason.Get(subjects.HeaderReason), "unknown field") {
		t.Errorf("headers %v", reason)
	}
}

func TestADeadLetterCanBePublishedAgain(t *testing.T) {
	t.Parallel()
	h, post := newHouse(t), newMemory()
	h.hire(t, worker.Options{}, post.relay())
	list := people(3, "example.net")
	batch := envelope.Batch{ID: "1", Recipients: envelope.To(list...), MessageRef: "late"}
	h.publish(t, "c", batch)
	letter := h.tail(t, h.names.DeadStream(), h.names.Dead("c")).next()
	h.putMessage(t, "late", "Subject: late\n\nhi\n")
	h.publishRaw(t, "c", string(letter.Data()))
	h.ledger(t, "c", "1").until(subjects.Done)
	onceEach(t, post.seen(), list)
}

// A batch as large as the broker takes leaves no room for the headers of a
// dead letter.
func TestABadBatchOfTheLargestSizeLeavesTheQueueToo(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	terms := h.terms(t)
	e := h.hire(t, worker.Options{})
	h.publishRaw(t, "c", strings.Repeat("x", int(h.nc.MaxPayload())))
	letter := h.tail(t, h.names.DeadStream(), h.names.Dead("c")).next()
	if reason := letter.Headers().Get(subjects.HeaderReason); !strings.Contains(reason, "batch: not a JSON object") {
		t.Errorf("the reason is %q", reason)
	}
	terms(1)
	e.leave(t)
	if n := h.queued(t); n != 0 {
		t.Errorf("%d batches are left on the queue", n)
	}
}

// The journal could not hold it.
func TestARecipientThatCannotBeRecordedMakesTheBatchADeadLetter(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	terms := h.terms(t)
	e := h.hire(t, worker.Options{})
	const batch = `{"from":"a@b.test","message":"Subject: t\n\nhi\n","recipients":["x@y.test","%s"]}`
	room := int(h.nc.MaxPayload()) - len(batch) + 2
	letters := h.tail(t, h.names.DeadStream(), h.names.Dead("*"))
	for name, long := range map[string]string{
		"letters":           strings.Repeat("x", room),
		"escaped":           strings.Repeat(`\u0001`, room/6),
		"escaped-when-read": strings.Repeat("\u2028", room/3),
	} {
		h.publishRaw(t, name, fmt.Sprintf(batch, long))
	}
	for range 3 {
		letter := letters.next()
		if reason := letter.Headers().Get(subjects.HeaderReason); !strings.HasPrefix(reason, "recipients[1]: has ") {
			t.Errorf("%s: the reason is %q", letter.Subject(), reason)
		}
	}
	terms(3)
	e.leave(t)
	if n := h.queued(t); n != 0 {
		t.Errorf("%d batches are left on the queue", n)
	}
}

func TestABatchFullOfNonsenseIsRecordedInEntriesThatTheBrokerTakes(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	h.hire(t, worker.Options{})
	const batch = `{"id":"1","from":"a@b.test","message":"Subject: t\n\nhi\n","recipients":[%s"x"]}`
	for name, nonsense := range map[string]string{"control": `\u0001`, "separator": "\u2028"} {
		var list strings.Builder
		each := 10_000 / len(nonsense)
		for i := 0; list.Len() < int(h.nc.MaxPayload())-11_000; i++ {
			fmt.Fprintf(&list, `"%d%s",`, i, strings.Repeat(nonsense, each))
		}
		h.publishRaw(t, name, fmt.Sprintf(batch, list.String()))
		l := h.ledger(t, name, "1")
		l.until(subjects.Done)
		if n := l.tally()[subjects.Rejected]; n < 100 {
			t.Errorf("%s: %d recipients are rejected", name, n)
		}
	}
}

func TestWhatExpiresOfALargeBatchIsSeveralDeadLettersIfItMust(t *testing.T) {
	t.Parallel()
	h, post := newHouse(t), newMemory()
	post.reply = func(string) *smtp.Reply { return &smtp.Reply{Code: 451, Text: "later", Command: "RCPT"} }
	e := h.hire(t, worker.Options{RetryDelays: worker.Schedule{time.Millisecond}, RetryFor: time.Millisecond}, post.relay())
	var list []string
	local := strings.Repeat("l", 50)
	for size := 0; size < int(h.nc.MaxPayload())-200; size += len(list[len(list)-1]) + 3 {
		list = append(list, fmt.Sprintf("%s%d@d%d.test", local, len(list), len(list)%3))
	}
	h.publish(t, "c", envelope.Batch{From: "a@b.test", Message: "Subject: t\n\nhi\n", Recipients: envelope.To(list...)})
	letters := h.tail(t, h.names.DeadStream(), h.names.Dead("c"))
	left := make(map[string]int)
	for len(left) < len(list) {
		part, err := envelope.Decode(letters.next().Data())
		if err != nil {
			t.Fatal(err)
		}
		for _, r := range part.Recipients {
			left[r.Address]++
		}
	}
	e.log.wait(t, "attempt over", 1)
	e.leave(t)
	onceEach(t, left, list)
	if n := h.queued(t); n != 0 {
		t.Errorf("%d batches are left on the queue", n)
	}
}
