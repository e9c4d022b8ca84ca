package worker_test

import (
	"fmt"
	"strings"
	"testing"

	"bulkmail/envelope"
	"bulkmail/subjects"
	"bulkmail/worker"
)

func (h *house) putMessage(t testing.TB, name, message string) {
	t.Helper()
	store, err := h.js.ObjectStore(t.Context(), h.names.MessageStore())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := store.PutString(t.Context(), name, message); err != nil {
		t.Fatal(err)
	}
}

func TestAMessageByReferenceIsFetchedOnceForManyBatches(t *testing.T) {
	t.Parallel()
	h, post := newHouse(t), newMemory()
	body := "Date: Wed, 25 Nov 2026 00:00:00 +0000\nMessage-ID: <large@example.com>\nMIME-Version: 1.0\nSubject: large\n\n" + strings.Repeat("A line of some length, again and again.\n", 10_000)
	h.putMessage(t, "large", body)
	w := h.hire(t, worker.Options{Batches: 8}, post.relay())
	w.log.wait(t, "working", 1)
	before := w.nc.Stats().InBytes

	var all [][]string
	for i := range 30 {
		list := people(20, fmt.Sprintf("d%d.test", i))
		all = append(all, list)
		h.publish(t, "c", envelope.Batch{ID: fmt.Sprint(i), Recipients: envelope.To(list...), MessageRef: "large"})
	}
	l := &ledger{tail: h.tail(t, h.names.OutcomesStream(), h.names.CampaignOutcomes("c")), newest: make(map[string]outcome)}
	for range 30 {
		l.until(subjects.Done)
	}
	w.leave(t)
	onceEach(t, post.seen(), all...)
	want := envelope.NewMessage(body)
	if n := post.wire[string(want.Wire())]; n != 30 || len(post.wire) != 1 {
		t.Errorf("%d of 30 envelopes carried the message", n)
	}
	if got := int(w.nc.Stats().InBytes - before); got > 2*len(body) {
		t.Errorf("the worker took in %d bytes for a message of %d: it was fetched more than once", got, len(body))
	}
}

func TestAMessagePutAnewUnderItsNameIsSentAsItIsNow(t *testing.T) {
	t.Parallel()
	h, post := newHouse(t), newMemory()
	h.hire(t, worker.Options{}, post.relay())
	for i, text := range []string{"Subject: a\r\n\r\nfirst\r\n", "Subject: a\r\n\r\nsecond\r\n"} {
		h.putMessage(t, "m", text)
		id := fmt.Sprint(i)
		h.publish(t, "c", envelope.Batch{ID: id, Recipients: envelope.To(people(1, id+".test")...), MessageRef: "m"})
		h.ledger(t, "c", id).until(subjects.Done)
	}
	if len(post.wire) != 2 {
		t.Errorf("%d different messages were sent, want 2", len(post.wire))
	}
}

func TestLineEndsOfAMessageAreOfOneKindOnTheWire(t *testing.T) {
	t.Parallel()
	h, post := newHouse(t), newMemory()
	e := h.hire(t, worker.Options{}, post.relay())
	h.publish(t, "c", envelope.Batch{ID: "1", Recipients: envelope.To(people(1, "example.net")...), Message: "Subject: t\n\n.\na\rb\r\n.\r\nMAIL FROM:<x@example.net>\n"})
	h.ledger(t, "c", "1").until(subjects.Done)
	e.leave(t)
	for wire := range post.wire {
		if strings.Contains(strings.ReplaceAll(wire, "\r\n", ""), "\n") || strings.Contains(strings.ReplaceAll(wire, "\r\n", ""), "\r") {
			t.Errorf("a bare CR or LF: %q", wire)
		}
		if strings.Contains(strings.TrimSuffix(wire, "\r\n.\r\n"), "\r\n.\r\n") {
			t.Errorf("the message ends before its end: %q", wire)
		}
	}
}

func TestTheObjectStoreIsAskedOnceForBatchesThatWaitTogether(t *testing.T) {
	t.Parallel()
	h, post := newHouse(t), newMemory()
	h.putMessage(t, "m", "Subject: a\r\n\r\nhello\r\n")
	asked, err := h.js.Conn().SubscribeSync("$JS.API.DIRECT.GET.OBJ_" + h.names.MessageStore() + ".>")
	if err != nil {
		t.Fatal(err)
	}
	const batches, slots = 60, 4
	for i := range batches {
		h.publish(t, "c", envelope.Batch{ID: fmt.Sprint(i), Recipients: envelope.To(people(5, fmt.Sprintf("d%d.test", i))...), MessageRef: "m"})
	}
	h.hire(t, worker.Options{Batches: slots}, post.relay())
	l := &ledger{tail: h.tail(t, h.names.OutcomesStream(), h.names.CampaignOutcomes("c")), newest: make(map[string]outcome)}
	for range batches {
		l.until(subjects.Done)
	}
	n, _, err := asked.Pending()
	if err != nil {
		t.Fatal(err)
	}
	// Slots that begin together ask each for itself, and the one that fetches the
	// message asks once more. On a slow machine a look may be too old.
	if n == 0 || n > batches/2 {
		t.Errorf("the store was asked %d times for %d batches", n, batches)
	}
}
