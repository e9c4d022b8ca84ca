package worker_test

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"bulkmail/envelope"
	"bulkmail/relay/smtp"
	"bulkmail/subjects"
	"bulkmail/worker"
)

const (
	noJournal    = "no journal: nothing is sent until the broker keeps it again"
	journalAgain = "journal is kept again"
)

// fillJournals leaves the stream of journals no room for another entry, or takes the
// limit away.
func (h *house) fillJournals(t testing.TB, full bool) {
	t.Helper()
	s, err := h.js.Stream(t.Context(), h.names.OutcomesStream())
	if err != nil {
		t.Fatal(err)
	}
	c := s.CachedInfo().Config
	c.Discard, c.MaxMsgs = jetstream.DiscardNew, -1
	if full {
		c.MaxMsgs = int64(s.CachedInfo().State.Msgs)
	}
	if _, err := h.js.UpdateStream(t.Context(), c); err != nil {
		t.Fatal(err)
	}
}

func TestWhileTheJournalIsFullNothingIsSentAndNothingIsLost(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	post := newMemory()
	post.gate, post.arrived = make(chan struct{}), make(chan []string, 100)
	e := h.hire(t, worker.Options{Batches: 2}, post.relay(oneSession, tenAnEnvelope))
	first := people(30, "first.test")
	h.publish(t, "c", envelope.Batch{ID: "0", Recipients: envelope.To(first...)})
	<-post.arrived // one envelope of the first batch is in flight

	h.fillJournals(t, true)
	post.gate <- struct{}{}
	e.log.wait(t, noJournal, 1)
	all := [][]string{first}
	for i := range 4 {
		list := people(30, fmt.Sprintf("d%d.test", i))
		all = append(all, list)
		h.publish(t, "c", envelope.Batch{ID: fmt.Sprint(i + 1), Recipients: envelope.To(list...)})
	}
	h.fillJournals(t, false)
	if begun := len(post.begunNow()); begun > 20 { // the second envelope may have been cut before the first entry was refused
		t.Errorf("%d recipients were begun while their outcomes could not be kept", begun)
	}
	close(post.gate)
	for i := range all {
		if done := h.ledger(t, "c", fmt.Sprint(i)).until(subjects.Done); done.Attempt != 1 {
			t.Errorf("batch %d done in attempt %d", i, done.Attempt)
		}
	}
	e.log.wait(t, journalAgain, 1)
	e.leave(t)
	onceEach(t, post.seen(), all...)
	if n := e.log.count(noJournal); n != 1 {
		t.Errorf("one trouble was told of %d times", n)
	}
}

func TestAJournalThatIsMissingIsToldByNameAndWaitedFor(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	post := newMemory()
	e := h.hire(t, worker.Options{Batches: 2}, post.relay())
	e.log.wait(t, "working", 1)
	if err := h.js.DeleteStream(t.Context(), h.names.OutcomesStream()); err != nil {
		t.Fatal(err)
	}
	list := people(30, "example.net")
	h.publish(t, "c", envelope.Batch{ID: "1", Recipients: envelope.To(list...)})
	said := e.log.wait(t, noJournal, 1).attrs["error"]
	if want := "BULKMAIL_OUTCOMES: the stream is missing or has no leader; a worker makes what is missing when it starts"; !strings.Contains(said, want) {
		t.Errorf("said %q, want %q in it", said, want)
	}
	if n := len(post.begunNow()); n > 0 {
		t.Errorf("%d recipients were begun without a journal", n)
	}
	h.provision(t, subjects.Options{AckWait: 30 * time.Second, OutcomesMaxAge: time.Hour})
	h.ledger(t, "c", "1").until(subjects.Done)
	e.leave(t)
	onceEach(t, post.seen(), list)
	if n := e.log.count(noJournal); n != 1 {
		t.Errorf("one trouble was told of %d times", n)
	}
}

// What counts is when the broker stored an entry, not what the clock of the
// worker showed that wrote it.
func TestTheClocksOfWorkersMayDiffer(t *testing.T) {
	t.Parallel()
	for name, skew := range map[string]time.Duration{"ahead": time.Minute, "behind": -time.Minute} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h := newHouse(t)
			list := people(3, "example.net")
			for _, e := range []subjects.Entry{
				{Event: subjects.Claimed},
				{Event: subjects.Recorded, Results: []subjects.Results{
					{Status: subjects.Accepted, Relay: "r", Code: 250, Recipients: list[:1]},
					{Status: subjects.Deferred, Relay: "r", Code: 451, Recipients: list[1:]},
				}},
			} {
				e.Time, e.Worker, e.Attempt = time.Now().Add(skew), "other", 1
				data, err := json.Marshal(e)
				if err != nil {
					t.Fatal(err)
				}
				if _, err := h.js.Publish(t.Context(), h.names.Outcomes("c", "1"), data); err != nil {
					t.Fatal(err)
				}
			}
			// One more deferral, which must not be the last: the batch was first
			// claimed a moment ago.
			post := newMemory()
			deferred := make(map[string]bool)
			post.reply = func(recipient string) *smtp.Reply {
				if !deferred[recipient] {
					deferred[recipient] = true
					return &smtp.Reply{Code: 451, Text: "later"}
				}
				return nil
			}
			e := h.hire(t, worker.Options{RetryFor: 30 * time.Second}, post.relay(oneSession))
			l := h.ledger(t, "c", "1")
			h.publish(t, "c", envelope.Batch{ID: "1", Recipients: envelope.To(list...)})
			l.until(subjects.Done)
			e.leave(t)
			if n := l.tally()[subjects.Accepted]; n != 3 {
				t.Errorf("%d of 3 were accepted: %v", n, l.newest)
			}
			onceEach(t, post.seen(), list[1:])
		})
	}
}
