package main

import (
	"context"
	"encoding/json"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/nats-io/nats.go"

	"bulkmail/subjects"
)

func entry(event subjects.Event, attempt int, results ...subjects.Results) subjects.Entry {
	return subjects.Entry{Time: time.Now().UTC(), Worker: "w", Attempt: attempt, Event: event, Results: results}
}

func became(status subjects.Status, relay string, recipients ...string) subjects.Results {
	return subjects.Results{Status: status, Relay: relay, Recipients: recipients}
}

func TestASummaryAddsUpWhatBecameOfRecipients(t *testing.T) {
	t.Parallel()
	s := newSummary()
	for _, e := range []subjects.Entry{
		entry(subjects.Claimed, 1),
		entry(subjects.Sending, 1, became(subjects.Accepted, "a", "not", "counted")), // is announced, has not happened
		entry(subjects.Recorded, 1, became(subjects.Accepted, "b", "1", "2"), became(subjects.Deferred, "a", "3", "4", "5")),
		entry(subjects.Claimed, 2),
		entry(subjects.Recorded, 2, became(subjects.Deferred, "a", "5"), became(subjects.Rejected, "", "6")),
		entry(subjects.Done, 3, became(subjects.Accepted, "a", "3"), became(subjects.Expired, "a", "5"), became(subjects.Rejected, "a", "4")),
	} {
		s.add(e)
	}
	if s.final() != 6 {
		t.Errorf("%d are final", s.final())
	}
	if want := "3 accepted, 2 rejected, 1 expired, 4 deferred so far"; s.note() != want {
		t.Errorf("in one line: %s, want %s", s.note(), want)
	}
	if diff := cmp.Diff(map[int]int{1: 2, 3: 1}, s.attempt); diff != "" {
		t.Errorf("accepted by attempt:\n%s", diff)
	}
	var out strings.Builder
	if err := s.print(&out); err != nil {
		t.Fatal(err)
	}
	want := `relay   accepted  rejected  expired  deferred
(none)         0         1        0         0
a              1         1        1         4
b              2         0        0         0
total          3         2        1         4
`
	if diff := cmp.Diff(want, out.String()); diff != "" {
		t.Error(diff)
	}
	text, err := json.Marshal(s)
	if err != nil || string(text) != `{"accepted":3,"expired":1,"rejected":2}` {
		t.Errorf("as JSON: %s, %v", text, err)
	}
}

func TestAWatchShowsTheJournalsAndDeadLettersOfOneCampaign(t *testing.T) {
	t.Parallel()
	c := connected(t)
	before := entry(subjects.Recorded, 1, became(subjects.Accepted, "a", "ann@example.net"))
	c.journal(t, "news", "b1", before)
	c.journal(t, "other", "b1", entry(subjects.Done, 1))
	w, err := newWatch(t.Context(), c, "news")
	if err != nil {
		t.Fatal(err)
	}
	defer w.stop()
	expect := func(want event) {
		t.Helper()
		ctx, cancel := context.WithTimeout(t.Context(), patience)
		defer cancel()
		got, ok, err := w.next(ctx, nil)
		if diff := cmp.Diff(want, got, cmp.AllowUnexported(event{}), cmpopts.EquateEmpty()); diff != "" || !ok || err != nil {
			t.Errorf("%t, %v\n%s", ok, err, diff)
		}
	}
	expect(event{batch: "b1", entry: before})
	after := entry(subjects.Done, 2)
	c.journal(t, "news", "b2", after)
	expect(event{batch: "b2", entry: after})
	for _, dead := range []struct{ campaign, batch, cause string }{
		{"other", "b3", subjects.CauseUnreadable},
		{"news", "b4", subjects.CauseUnreadable},
		{"news", "b5", subjects.CauseExpired},
	} {
		msg := &nats.Msg{Subject: c.names.Dead(dead.campaign), Header: nats.Header{
			subjects.HeaderBatch: {dead.batch}, subjects.HeaderReason: {"why"}, subjects.HeaderCause: {dead.cause},
		}}
		if _, err := c.js.PublishMsg(t.Context(), msg); err != nil {
			t.Fatal(err)
		}
	}
	expect(event{batch: "b4", reason: "why"})
	expect(event{batch: "b5"}) // its journal says the same, as an outcome

	// A tick is no event and no error.
	tick := make(chan time.Time, 1)
	tick <- time.Now()
	if e, ok, err := w.next(t.Context(), tick); ok || err != nil {
		t.Errorf("at a tick: %+v, %v", e, err)
	}
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	if _, _, err := w.next(ended, nil); !errors.Is(err, context.Canceled) {
		t.Errorf("at the end: %v", err)
	}
}

func TestAWatchEndsWithAnErrorOnAnEntryThatIsNone(t *testing.T) {
	t.Parallel()
	c := connected(t)
	w, err := newWatch(t.Context(), c, "news")
	if err != nil {
		t.Fatal(err)
	}
	defer w.stop()
	if _, err := c.js.Publish(t.Context(), c.names.Outcomes("news", "b1"), []byte("{")); err != nil {
		t.Fatal(err)
	}
	if _, _, err := w.next(t.Context(), nil); err == nil || !strings.Contains(err.Error(), "watch campaign news: journal bulkmail.outcomes.news.b1") {
		t.Errorf("error is %v", err)
	}
}

func TestAWatchThatIsStoppedInTheMiddleLeavesNothingBehind(t *testing.T) {
	t.Parallel()
	c := connected(t)
	for range 100 { // more than anybody takes
		c.journal(t, "news", "b1", entry(subjects.Recorded, 1))
	}
	w, err := newWatch(t.Context(), c, "news")
	if err != nil {
		t.Fatal(err)
	}
	if _, _, err := w.next(t.Context(), nil); err != nil {
		t.Fatal(err)
	}
	w.stop() // returns when its goroutines have
}
