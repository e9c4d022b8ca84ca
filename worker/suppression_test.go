package worker_test

import (
	"encoding/json"
	"maps"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"bulkmail/envelope"
	"bulkmail/relay"
	"bulkmail/relay/sink"
	"bulkmail/subjects"
	"bulkmail/worker"
	"bulkmail/worker/suppress"
)

func (h *house) suppress(t testing.TB, scope, why string, names ...string) {
	t.Helper()
	c := subjects.SuppressionChange{Op: subjects.Suppress, Scope: scope, Why: why, Names: names}
	if err := suppress.Append(t.Context(), h.js, h.names, c); err != nil {
		t.Fatal(err)
	}
}

func (h *house) release(t testing.TB, names ...string) {
	t.Helper()
	if err := suppress.Append(t.Context(), h.js, h.names, subjects.SuppressionChange{Op: subjects.Release, Names: names}); err != nil {
		t.Fatal(err)
	}
}

// record gives a campaign a record.
func (h *house) record(t testing.TB, name string, c subjects.Campaign) {
	t.Helper()
	kv, err := h.js.KeyValue(t.Context(), h.names.CampaignBucket())
	if err != nil {
		t.Fatal(err)
	}
	value, err := json.Marshal(c)
	if err == nil {
		_, err = kv.Put(t.Context(), name, value)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// knows waits until a worker knows of so many suppressions.
func (e *employee) knows(t testing.TB, entries int) {
	t.Helper()
	for until := time.Now().Add(patience); ; time.Sleep(time.Millisecond) {
		if n, _ := e.worker.Suppressed(); n == entries {
			return
		} else if time.Now().After(until) {
			t.Fatalf("the worker knows of %d suppressions, not of %d", n, entries)
		}
	}
}

func TestWhoIsSuppressedGetsNothingOfWhatTheScopeKeepsBack(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	h.suppress(t, subjects.ScopeBulk, "complained", "Bulk@A.test")
	h.suppress(t, subjects.ScopeAll, "asked by phone", "all@a.test", "@dead.test")
	h.suppress(t, subjects.ScopeList+"weekly", "unsubscribed", "weekly@a.test")
	h.suppress(t, subjects.ScopeBulk, "by mistake", "back@a.test")
	h.release(t, "back@a.test")
	running := subjects.Campaign{State: subjects.CampaignRunning}
	receipts, weekly, daily := running, running, running
	receipts.Kind, weekly.List, daily.List, daily.Kind = subjects.KindTransactional, "weekly", "daily", subjects.KindBulk
	h.record(t, "receipts", receipts)
	h.record(t, "weekly", weekly)
	h.record(t, "daily", daily)
	m := newMemory()
	h.hire(t, worker.Options{}, m.relay())
	everybody := envelope.To("ann@a.test", "back@a.test", "bulk@a.test", "all@a.test", "weekly@a.test", "whoever@dead.test", "x@Dead.test")
	const dead = "asked by phone"
	always := map[string]string{"all@a.test": dead, "whoever@dead.test": dead, "x@Dead.test": dead}
	for campaign, more := range map[string]map[string]string{
		"nameless": {"bulk@a.test": "complained"},
		"receipts": {},
		"weekly":   {"bulk@a.test": "complained", "weekly@a.test": "unsubscribed"},
		"daily":    {"bulk@a.test": "complained"},
	} {
		h.publish(t, campaign, envelope.Batch{ID: "1", Recipients: everybody})
		l := h.ledger(t, campaign, "1")
		l.until(subjects.Done)
		got := make(map[string]string)
		for name, o := range l.newest {
			switch {
			case o.status == subjects.Suppressed:
				got[name] = o.text
			case o.status != subjects.Accepted:
				t.Errorf("%s, %s: %+v", campaign, name, o)
			}
		}
		maps.Copy(more, always)
		if diff := cmp.Diff(more, got); diff != "" || len(l.newest) != len(everybody) {
			t.Errorf("%s: suppressed -want +got\n%s", campaign, diff)
		}
	}
	if n := m.seen(); n["all@a.test"]+n["whoever@dead.test"]+n["x@dead.test"] != 0 || n["bulk@a.test"] != 1 || n["ann@a.test"] != 4 || n["weekly@a.test"] != 3 {
		t.Errorf("accepted: %v", n)
	}
}

// A batch may be in hand for hours at a slow relay.
func TestTheNextEnvelopeLeavesOutWhoIsSuppressedMeanwhile(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	m := newMemory()
	m.gate, m.arrived = make(chan struct{}), make(chan []string, 8)
	e := h.hire(t, worker.Options{}, m.relay(func(c *relay.Config) { c.Connections, c.EnvelopeLimit = 1, 1 }))
	h.publish(t, "c", envelope.Batch{ID: "1", Recipients: envelope.To("a@a.test", "b@b.test", "c@c.test", "d@d.test", "e@d.test")})
	<-m.arrived
	h.suppress(t, subjects.ScopeBulk, "unsubscribed", "B@b.test", "@d.test")
	e.knows(t, 2)
	m.gate <- struct{}{}
	if got := <-m.arrived; len(got) != 1 || got[0] != "c@c.test" {
		t.Errorf("the second envelope is to %v", got)
	}
	m.gate <- struct{}{}
	l := h.ledger(t, "c", "1")
	l.until(subjects.Done)
	if diff := cmp.Diff(map[subjects.Status]int{subjects.Accepted: 2, subjects.Suppressed: 3}, l.tally()); diff != "" {
		t.Errorf("-want +got\n%s", diff)
	}
	if got := l.newest["e@d.test"].text; got != "unsubscribed" {
		t.Errorf("because %q", got)
	}
}

func TestABatchOfWhomAllAreSuppressedMeanwhileEnds(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	m := newMemory()
	m.gate, m.arrived = make(chan struct{}), make(chan []string, 8)
	e := h.hire(t, worker.Options{}, m.relay(func(c *relay.Config) { c.Connections, c.EnvelopeLimit = 1, 1 }))
	h.publish(t, "c", envelope.Batch{ID: "1", Recipients: envelope.To("a@a.test", "b@b.test")})
	<-m.arrived
	h.suppress(t, subjects.ScopeAll, "gone", "b@b.test", "a@a.test")
	e.knows(t, 2)
	m.gate <- struct{}{}
	l := h.ledger(t, "c", "1")
	l.until(subjects.Done)
	if l.newest["a@a.test"].status != subjects.Accepted || l.newest["b@b.test"].status != subjects.Suppressed {
		t.Errorf("%+v", l.newest)
	}
}

func TestWhoIsDeferredAndThenSuppressedIsNotSentToAgain(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	post := openSink(t, sink.Options{}, "RCPT:*=451 4.2.0 later")
	e := h.hire(t, worker.Options{RetryDelays: worker.Schedule{100 * time.Millisecond}}, post.relay(t))
	h.publish(t, "c", envelope.Batch{ID: "1", Recipients: envelope.To("a@a.test")})
	l := h.ledger(t, "c", "1")
	for l.newest["a@a.test"].status != subjects.Deferred {
		l.until(subjects.Recorded)
	}
	h.suppress(t, subjects.ScopeBulk, "unsubscribed", "a@a.test")
	e.knows(t, 1)
	l.until(subjects.Done)
	if got := l.newest["a@a.test"]; got.status != subjects.Suppressed || got.text != "unsubscribed" {
		t.Errorf("%+v", got)
	}
}

// Restarted, a worker knows all before it takes a batch.
func TestAWorkerKnowsWhoIsSuppressedBeforeItsFirstBatch(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	people := people(3000, "a.test")
	h.suppress(t, subjects.ScopeBulk, "imported", people...)
	h.publish(t, "c", envelope.Batch{ID: "1", Recipients: envelope.To(people...)})
	m := newMemory()
	h.hire(t, worker.Options{}, m.relay())
	l := h.ledger(t, "c", "1")
	l.until(subjects.Done)
	if diff := cmp.Diff(map[subjects.Status]int{subjects.Suppressed: 3000}, l.tally()); diff != "" || len(m.seen()) > 0 {
		t.Errorf("-want +got\n%s", diff)
	}
}
