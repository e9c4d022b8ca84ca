package worker_test

import (
	"testing"

	"bulkmail/envelope"
	"bulkmail/subjects"
	"bulkmail/worker"
)

func TestABatchOfALaterVersionStaysInTheQueueAndIsSaidOnce(t *testing.T) {
	t.Parallel()
	h, post := newHouse(t), newMemory()
	e := h.hire(t, worker.Options{}, post.relay())
	const later = `{"version":17,"new":{"to":["a@example.net"]}}`
	h.publishRaw(t, "c", later)
	h.publishRaw(t, "c", later)
	h.publishRaw(t, "c", `{"version":"new","from":"a@example.com","recipients":["a@example.net"],"message":"Subject: t\n\nhi\n"}`)
	h.publish(t, "c", envelope.Batch{ID: "known", Recipients: envelope.To("b@example.net")})
	h.ledger(t, "c", "known").until(subjects.Done)
	// What a version may be is known: this is none.
	letter := h.tail(t, h.names.DeadStream(), h.names.Dead("c")).next()
	if reason := letter.Headers().Get(subjects.HeaderReason); reason != "version: not a positive integer" {
		t.Errorf("dead because of %s", reason)
	}
	const said = "batches of a later version stay in the queue for a worker that knows it"
	if l := e.log.wait(t, said, 1); l.attrs["campaign"] != "c" || l.attrs["version"] != "17" {
		t.Errorf("said: %v", l)
	}
	e.leave(t)
	if n := h.queued(t); n != 2 {
		t.Errorf("%d batches are in the queue, want the two of a later version", n)
	}
	if n := h.stored(t, h.names.DeadStream()); n != 1 {
		t.Errorf("%d dead letters", n)
	}
	if n := e.log.count(said); n != 1 {
		t.Errorf("said %d times", n)
	}
}
