package journal_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"bulkmail/envelope"
	"bulkmail/subjects"
	"bulkmail/worker/journal"
)

// answerLost is how long these tests wait for an answer until it is lost.
const answerLost = 500 * time.Millisecond

// A connection that breaks after the broker took an entry and before it said so
// must not make the writer believe that somebody else wrote it.
func TestAnAppendWhoseAnswerWasLostIsRecognised(t *testing.T) {
	t.Parallel()
	url := startBroker(t)
	w := layWire(t, url)
	j := open(t, w.url(), "w")
	j.TryFor(answerLost)
	next := follow(t, url, "1")
	troubles := make(chan error, 10)
	h, err := j.Claim(t.Context(), read(t, j, "1"), journal.Delivery{Sequence: 1, Count: 1}, func(why error) { troubles <- why })
	if err != nil {
		t.Fatal(err)
	}
	next() // the claim

	w.setDeaf(true)
	h.Record(is(subjects.Accepted, "a"))
	if e := next(); e.Event != subjects.Recorded {
		t.Fatalf("got %s", e.raw)
	}
	// The entry is stored, the answer is gone, and so is the connection.
	w.setDeaf(false)
	w.cut(false)
	told := func() error {
		select {
		case why := <-troubles:
			return why
		case <-time.After(waitAtMost):
			t.Fatal("not told")
			return nil
		}
	}
	if why := told(); why == nil {
		t.Error("told of the end of trouble before its beginning")
	}
	for told() != nil { // slow first, then worse
	}
	h.Record(is(subjects.Accepted, "b"))
	closeHold(t, h, true)
	got := make(map[string]int)
	for _, e := range entries(t, url, "1") {
		for _, r := range e.Results {
			for _, recipient := range r.Recipients {
				got[recipient]++
			}
		}
	}
	if diff := cmp.Diff(map[string]int{"a": 1, "b": 1}, got); diff != "" {
		t.Errorf("results in the journal: %s", diff)
	}
}

// The same, when somebody else took the batch over meanwhile.
func TestAnAppendWhoseAnswerWasLostDoesNotTakeTheBatchBack(t *testing.T) {
	t.Parallel()
	url := startBroker(t)
	w := layWire(t, url)
	j, other := open(t, w.url(), "w1"), open(t, url, "w2")
	j.TryFor(answerLost)
	next := follow(t, url, "1")
	h := claim(t, j, "1", 1)
	next()
	w.setDeaf(true)
	h.Record(is(subjects.Accepted, "a"))
	next()
	w.cut(true)
	taken := claim(t, other, "1", 2)
	w.setDeaf(false)
	w.cut(false)
	wantLost(t, h)
	if err := h.Close(t.Context(), true); !errors.Is(err, journal.ErrFenced) {
		t.Errorf("closing says %v", err)
	}
	closeHold(t, taken, true)
	if s := read(t, other, "1"); s.Results["a"].Status != subjects.Accepted {
		t.Error("what was written before the loss is not known")
	}
}

func TestAClaimWhoseAnswerWasLostIsRecognised(t *testing.T) {
	t.Parallel()
	url := startBroker(t)
	w := layWire(t, url)
	j := open(t, w.url(), "w")
	j.TryFor(answerLost)
	next := follow(t, url, "1")
	s := read(t, j, "1")
	w.setDeaf(true)
	claimed := make(chan *journal.Hold)
	go func() {
		h, err := j.Claim(t.Context(), s, journal.Delivery{Sequence: 1, Count: 1}, nil)
		if err != nil {
			t.Error(err)
		}
		claimed <- h
	}()
	next()
	w.setDeaf(false)
	w.cut(false)
	if h := <-claimed; h != nil {
		closeHold(t, h, true)
	}
	if n := len(entries(t, url, "1")); n != 2 {
		t.Errorf("%d entries, want a claim and done", n)
	}
}

func TestWithoutABrokerCloseWaitsUntilItsTimeIsOver(t *testing.T) {
	t.Parallel()
	url := startBroker(t)
	w := layWire(t, url)
	j := open(t, w.url(), "w")
	h := claim(t, j, "1", 1)
	w.cut(true)
	h.Record(is(subjects.Accepted, "a"))
	err := h.Close(ended(t), true)
	if err == nil || errors.Is(err, journal.ErrFenced) {
		t.Errorf("got %v: the batch is not held by another, the broker is away", err)
	}
	if s := read(t, open(t, url, "w2"), "1"); s.Done || len(s.Results) != 0 {
		t.Errorf("what was written: %+v", s)
	}
}

func TestAnAnnouncementEndsWithItsContext(t *testing.T) {
	t.Parallel()
	url := startBroker(t)
	w := layWire(t, url)
	j := open(t, w.url(), "w1")
	h := claim(t, j, "1", 1)
	w.cut(true)
	if err := h.Sending(ended(t), "r", envelope.To("a")); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
	_ = h.Close(ended(t), false)
}
