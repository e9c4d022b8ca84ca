package journal_test

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"os"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"bulkmail/envelope"
	"bulkmail/subjects"
	"bulkmail/subjects/broker/brokertest"
	"bulkmail/worker/journal"
)

var update = flag.Bool("update", false, "rewrite the golden files")

// ended is when nothing is waited for.
func ended(t testing.TB) context.Context {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	return ctx
}

// soon ends when a test has waited long enough.
func soon(t testing.TB) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), waitAtMost)
	t.Cleanup(cancel)
	return ctx
}

func wantLost(t testing.TB, h *journal.Hold) {
	t.Helper()
	select {
	case <-h.Lost():
	case <-time.After(waitAtMost):
		t.Error("the hold was not lost")
	}
}

func TestABatchWithoutAJournalIsNew(t *testing.T) {
	t.Parallel()
	j := open(t, startBroker(t), "w")
	if s := read(t, j, "1"); !s.New() || s.Attempts != 0 || len(s.Results) != 0 || s.Done {
		t.Errorf("of a batch that nobody has seen is known: %+v", s)
	}
}

func TestWhatIsRecordedIsReadByTheNextOwner(t *testing.T) {
	t.Parallel()
	url := startBroker(t)
	first, second := open(t, url, "w1"), open(t, url, "w2")
	h := claim(t, first, "1", 1)
	h.Record(said(subjects.Results{Status: subjects.Accepted, Relay: "r", Code: 250, Recipients: []string{"a", "b"}}))
	h.Record(said(subjects.Results{Status: subjects.Deferred, Relay: "r", Code: 451, Enhanced: "4.2.0", Text: "later", Recipients: []string{"c"}}))
	closeHold(t, h, false)

	s := read(t, second, "1")
	if s.New() || s.Attempts != 1 || s.Done || s.FirstClaim.IsZero() || len(s.Results) != 3 {
		t.Errorf("the next owner knows %+v", s)
	}
	if c := s.Results["c"]; c.Status != subjects.Deferred || c.Text != "later" || c.Attempt != 1 {
		t.Errorf("of c it knows %+v", c)
	}
	h = claim(t, second, "1", 2)
	if h.Attempt() != 2 {
		t.Errorf("this is attempt %d", h.Attempt())
	}
	h.Record(said(subjects.Results{Status: subjects.Accepted, Recipients: []string{"c"}}))
	closeHold(t, h, true)
	if s := read(t, first, "1"); !s.Done || s.Attempts != 2 || s.Results["c"].Status != subjects.Accepted {
		t.Errorf("at last is known %+v", s)
	}
	es := entries(t, url, "1")
	if last := es[len(es)-1]; last.Event != subjects.Done || len(last.Results) != 1 || last.Worker != "w2" {
		t.Errorf("the last results and done are not one entry: %s", last.raw)
	}
}

func TestAClaimIsRefusedWhenSomebodyHasWrittenSince(t *testing.T) {
	t.Parallel()
	url := startBroker(t)
	first, second := open(t, url, "w1"), open(t, url, "w2")
	early := read(t, second, "1")
	h := claim(t, first, "1", 1)
	if _, err := second.Claim(t.Context(), early, journal.Delivery{Sequence: 1, Count: 2}, nil); !errors.Is(err, journal.ErrFenced) {
		t.Errorf("got %v, want %v", err, journal.ErrFenced)
	}
	h.Record(is(subjects.Accepted, "a"))
	closeHold(t, h, true) // the refused one did no harm
	if n := len(entries(t, url, "1")); n != 2 {
		t.Errorf("%d entries, want 2", n)
	}
}

func TestOfTwoWhoClaimAtOnceOneGetsTheBatch(t *testing.T) {
	t.Parallel()
	url := startBroker(t)
	first, second := open(t, url, "w1"), open(t, url, "w2")
	for i := range 20 {
		batch := fmt.Sprint(i)
		claims := make(chan *journal.Hold)
		s := read(t, first, batch)
		for _, j := range []*journal.Journal{first, second} {
			go func() {
				h, err := j.Claim(t.Context(), s, journal.Delivery{Sequence: 1, Count: 1}, nil)
				if err != nil && !errors.Is(err, journal.ErrFenced) {
					t.Error(err)
				}
				claims <- h
			}()
		}
		a, b := <-claims, <-claims
		if (a == nil) == (b == nil) {
			t.Errorf("batch %s: held by the first: %v, by the second: %v", batch, a != nil, b != nil)
		}
		for _, h := range []*journal.Hold{a, b} {
			if h != nil {
				closeHold(t, h, true)
			}
		}
	}
}

// A delivery that lay in a queue for longer than the ack wait comes to a worker
// when the batch is held by the next delivery already.
func TestAStaleDeliveryLetsGo(t *testing.T) {
	t.Parallel()
	url := startBroker(t)
	slow, quick := open(t, url, "slow"), open(t, url, "quick")
	h := claim(t, quick, "1", 2)
	_, err := slow.Claim(t.Context(), read(t, slow, "1"), journal.Delivery{Sequence: 1, Count: 1}, nil)
	if !errors.Is(err, journal.ErrFenced) {
		t.Errorf("the first delivery took the batch from the second: %v", err)
	}
	closeHold(t, h, false)
	for _, d := range []journal.Delivery{{Sequence: 1, Count: 3}, {Sequence: 9, Count: 1}} { // redelivered; published again
		h, err := slow.Claim(t.Context(), read(t, slow, "1"), d, nil)
		if err != nil {
			t.Fatalf("delivery %v: %v", d, err)
		}
		closeHold(t, h, false)
	}
}

func TestWhoLostTheBatchFindsOutAtTheNextAppend(t *testing.T) {
	t.Parallel()
	url := startBroker(t)
	first, second := open(t, url, "w1"), open(t, url, "w2")
	old := claim(t, first, "1", 1)
	h := claim(t, second, "1", 2)
	select {
	case <-old.Lost():
		t.Error("lost without having tried to write")
	default:
	}
	old.Record(is(subjects.Accepted, "a"))
	wantLost(t, old)
	old.Record(is(subjects.Accepted, "b")) // too late, and harmless
	if err := old.Sending(t.Context(), "r", envelope.To("c")); !errors.Is(err, journal.ErrFenced) {
		t.Errorf("who lost the batch may send: %v", err)
	}
	if err := old.Close(t.Context(), true); !errors.Is(err, journal.ErrFenced) {
		t.Errorf("closing says %v, want %v", err, journal.ErrFenced)
	}
	h.Record(is(subjects.Rejected, "a"))
	closeHold(t, h, true)
	s := read(t, first, "1")
	if len(s.Results) != 1 || s.Results["a"].Status != subjects.Rejected || !s.Done {
		t.Errorf("the journal knows %+v", s.Results)
	}
}

func TestClosingFindsOutTooThatTheBatchIsLost(t *testing.T) {
	t.Parallel()
	url := startBroker(t)
	first, second := open(t, url, "w1"), open(t, url, "w2")
	old := claim(t, first, "1", 1)
	h := claim(t, second, "1", 2)
	if err := old.Close(t.Context(), true); !errors.Is(err, journal.ErrFenced) {
		t.Errorf("closing says %v, want %v", err, journal.ErrFenced)
	}
	closeHold(t, h, false)
	if s := read(t, first, "1"); s.Done {
		t.Error("the batch was done by who had lost it")
	}
}

func TestCloseWritesWhatIsPending(t *testing.T) {
	t.Parallel()
	url := startBroker(t)
	j := open(t, url, "w")
	for i, done := range []bool{false, true} {
		batch := fmt.Sprint(i)
		h := claim(t, j, batch, 1)
		for n := range 50 {
			h.Record(is(subjects.Accepted, fmt.Sprint(n)))
		}
		closeHold(t, h, done)
		if s := read(t, j, batch); len(s.Results) != 50 || s.Done != done {
			t.Errorf("done %v: %d of 50 results were written, done is %v", done, len(s.Results), s.Done)
		}
	}
}

func TestClosingWithoutResultsSaysThatTheHoldIsOverAndIsNoAttempt(t *testing.T) {
	t.Parallel()
	url := startBroker(t)
	j := open(t, url, "w")
	closeHold(t, claim(t, j, "1", 1), false)
	if n := len(entries(t, url, "1")); n != 2 {
		t.Errorf("%d entries, want the claim and its end", n)
	}
	closeHold(t, claim(t, j, "1", 2), true)
	if s := read(t, j, "1"); !s.Done || s.Attempts != 0 {
		t.Errorf("known: %+v", s)
	}
}

func TestManyResultsBecomeFewEntries(t *testing.T) {
	t.Parallel()
	url := startBroker(t)
	j := open(t, url, "w")
	h := claim(t, j, "1", 1)
	const recorders, each = 8, 500
	var recording sync.WaitGroup
	for r := range recorders {
		recording.Go(func() {
			for i := range each {
				h.Record(said(subjects.Results{Status: subjects.Accepted, Relay: "r", Code: 250, Text: "ok", Recipients: []string{fmt.Sprintf("%d-%d", r, i)}}))
			}
		})
	}
	recording.Wait()
	closeHold(t, h, true)
	if s := read(t, j, "1"); len(s.Results) != recorders*each {
		t.Errorf("%d of %d results are in the journal", len(s.Results), recorders*each)
	}
	es := entries(t, url, "1")
	if len(es) > 100 {
		t.Errorf("%d results took %d entries", recorders*each, len(es))
	}
	for _, e := range es[1:] {
		if len(e.Results) > 1 {
			t.Fatalf("results that say the same are not together: %.300s", e.raw)
		}
	}
}

func TestResultsThatDifferAreKeptApart(t *testing.T) {
	t.Parallel()
	url := startBroker(t)
	j := open(t, url, "w")
	h := claim(t, j, "1", 1)
	all := []subjects.Results{
		{Status: subjects.Deferred, Relay: "r", Code: 451, Enhanced: "4.2.0", Text: "x"},
		{Status: subjects.Rejected, Relay: "r", Code: 451, Enhanced: "4.2.0", Text: "x"},
		{Status: subjects.Deferred, Relay: "s", Code: 451, Enhanced: "4.2.0", Text: "x"},
		{Status: subjects.Deferred, Relay: "r", Code: 450, Enhanced: "4.2.0", Text: "x"},
		{Status: subjects.Deferred, Relay: "r", Code: 451, Enhanced: "4.2.1", Text: "x"},
		{Status: subjects.Deferred, Relay: "r", Code: 451, Enhanced: "4.2.0", Text: "y"},
	}
	want := make(map[string]*subjects.Result)
	for round := range 3 {
		for i, r := range all {
			name := fmt.Sprintf("%d-%d", round, i)
			r.Recipients = []string{name}
			h.Record(said(r))
			want[name] = &subjects.Result{Outcome: r.Outcome(), Attempt: 1}
		}
	}
	closeHold(t, h, false)
	got := read(t, j, "1").Results
	for _, r := range got {
		r.Time = time.Time{}
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

func TestRecordingDoesNotChangeTheCallersList(t *testing.T) {
	t.Parallel()
	j := open(t, startBroker(t), "w")
	h := claim(t, j, "1", 1)
	list := envelope.To("a", "b", "c", "d")
	h.Record(subjects.Outcome{Status: subjects.Accepted}, list[:2])
	h.Record(is(subjects.Accepted, "x", "y"))
	closeHold(t, h, false)
	if diff := cmp.Diff(envelope.To("a", "b", "c", "d"), list); diff != "" {
		t.Error(diff)
	}
}

func TestNoEntryIsOverTheBrokersLimit(t *testing.T) {
	t.Parallel()
	url := startBroker(t)
	j := open(t, url, "w")
	list := make([]string, 25_000)
	for i := range list {
		list[i] = fmt.Sprintf("%s-%d@%s.example.net", strings.Repeat("l", 60), i, strings.Repeat("d", 60))
	}
	for name, write := range map[string]func(*journal.Hold){
		"results": func(h *journal.Hold) { h.Record(is(subjects.Accepted, list...)) },
		"announcements": func(h *journal.Hold) {
			if err := h.Sending(soon(t), "r", envelope.To(list...)); err != nil {
				t.Error(err)
			}
		},
		"announcements at once": func(h *journal.Hold) {
			var sending sync.WaitGroup
			for i := range 50 {
				sending.Go(func() {
					if err := h.Sending(soon(t), "r", envelope.To(list[500*i:500*(i+1)]...)); err != nil {
						t.Error(err)
					}
				})
			}
			sending.Wait()
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			batch := strings.ReplaceAll(name, " ", "-")
			h := claim(t, j, batch, 1)
			write(h)
			if err := h.Close(soon(t), true); err != nil {
				t.Fatal(err)
			}
			s := read(t, j, batch)
			if known := len(s.Results) + len(s.Announced); known != len(list) || !s.Done {
				t.Errorf("of %d recipients %d are in the journal, done is %v", len(list), known, s.Done)
			}
			es := entries(t, url, batch)
			for i, e := range es {
				if len(e.raw) > 512<<10 {
					t.Errorf("entry %d has %d bytes", i, len(e.raw))
				}
				if e.Event == subjects.Done && i != len(es)-1 {
					t.Errorf("entry %d of %d says done", i, len(es))
				}
			}
		})
	}
}

// As many texts as recipients, and a broker that takes little.
func TestEntriesFitABrokerThatTakesSmallMessages(t *testing.T) {
	t.Parallel()
	const most = 64 << 10
	url := brokertest.StartSmall(t, most)
	js := brokertest.Connect(t, url)
	o := subjects.Options{AckWait: time.Minute, OutcomesMaxAge: time.Hour}
	if err := subjects.Provision(t.Context(), js, subjects.Names{}, o, slog.New(slog.DiscardHandler)); err != nil {
		t.Fatal(err)
	}
	h := claim(t, open(t, url, "w"), "1", 1)
	for i := range 500 {
		text := fmt.Sprint(i, strings.Repeat("\xe4\x01", 240)) // each octet six as JSON
		h.Record(said(subjects.Results{Status: subjects.Deferred, Code: 451, Text: text, Recipients: []string{fmt.Sprintf("p%d@example.net", i)}}))
	}
	longest := strings.Repeat("\x01", journal.RecipientBytes(most))
	h.Record(is(subjects.Rejected, longest, "x"+longest[1:]))
	if err := h.Close(soon(t), false); err != nil {
		t.Fatal(err)
	}
	if n := len(read(t, open(t, url, "w"), "1").Results); n != 502 {
		t.Errorf("%d of 502 results are in the journal", n)
	}
}

func TestAnAnnouncementIsInTheJournalWhenSendingReturns(t *testing.T) {
	t.Parallel()
	url := startBroker(t)
	j, other := open(t, url, "w1"), open(t, url, "w2")
	h := claim(t, j, "1", 1)
	for i := range 20 {
		name := fmt.Sprint(i)
		if err := h.Sending(t.Context(), "r", envelope.To(name)); err != nil {
			t.Fatal(err)
		}
		if a, ok := read(t, other, "1").Announced[name]; !ok || a.Relay != "r" {
			t.Fatalf("%s is not announced", name)
		}
		if i%2 == 0 {
			h.Record(is(subjects.Accepted, name))
		}
	}
	closeHold(t, h, false)
	if s := read(t, other, "1"); len(s.Announced) != 10 || len(s.Results) != 10 {
		t.Errorf("%d in doubt and %d known, want 10 and 10", len(s.Announced), len(s.Results))
	}
}

func TestAnEntryThatCannotBeReadIsNamed(t *testing.T) {
	t.Parallel()
	url := startBroker(t)
	js := brokertest.Connect(t, url)
	if _, err := js.Publish(t.Context(), "bulkmail.outcomes.c.1", []byte("by hand")); err != nil {
		t.Fatal(err)
	}
	_, err := open(t, url, "w").Read(t.Context(), "c", "1")
	if err == nil || !strings.Contains(err.Error(), "bulkmail.outcomes.c.1: entry 1") {
		t.Errorf("got %v", err)
	}
}

func TestEntriesOnTheWireAreAsPublished(t *testing.T) {
	t.Parallel()
	url := startBroker(t)
	j := open(t, url, "w1")
	h := claim(t, j, "1", 1)
	next := follow(t, url, "1")
	var got strings.Builder
	line := func() {
		got.Write(regexp.MustCompile(`"time":"[^"]+"`).ReplaceAll(next().raw, []byte(`"time":"2026-11-23T22:48:37.123Z"`)))
		got.WriteByte('\n')
	}
	line()
	if err := h.Sending(t.Context(), "primary", envelope.To("ann@example.net")); err != nil {
		t.Fatal(err)
	}
	line()
	h.Record(said(subjects.Results{Status: subjects.Deferred, Relay: "primary", Code: 451, Enhanced: "4.2.0", Text: "<later> & later", Recipients: []string{"ann@example.net"}}))
	line()
	closeHold(t, h, false)
	line()
	h = claim(t, j, "1", 2)
	line()
	h.Record(said(subjects.Results{Status: subjects.Accepted, Relay: "primary", Code: 250, Recipients: []string{"ann@example.net"}}))
	closeHold(t, h, true)
	e := next()
	for e.Event != subjects.Done { // the result may have gone before
		e = next()
	}
	const path = "testdata/journal.jsonl"
	if *update {
		if err := os.WriteFile(path, []byte(got.String()), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), got.String()); diff != "" {
		t.Errorf("-published +now\n%s", diff)
	}
}
