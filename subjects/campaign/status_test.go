package campaign_test

import (
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"bulkmail/subjects"
	"bulkmail/subjects/campaign"
)

func TestACampaignIsFinishedOnlyWhenEverybodyHasAFinalOutcome(t *testing.T) {
	t.Parallel()
	h := newFixture(t, campaign.Options{})
	two := entry(subjects.Done, 1, became(subjects.Accepted, "a", "1@x.test"), became(subjects.Rejected, "a", "2@x.test"))
	done := subjects.Counts{Accepted: 1, Rejected: 1}
	published := func(recipients int, complete bool) subjects.Campaign {
		return subjects.Campaign{State: subjects.CampaignRunning, Batches: 1, Recipients: recipients, Complete: complete}
	}
	running := subjects.CampaignRunning
	var want []campaign.Status
	add := func(s campaign.Status) { want = append(want, s) }

	h.putRecord("all", published(2, true))
	h.write("all", "b1", two)
	add(campaign.Status{Campaign: "all", State: running, Finished: true, Complete: true, Published: 2, Outcomes: done})
	// Published by another program: no record. The second attempt overturns the
	// deferral, and nobody is counted twice.
	h.write("by-hand", "b1", entry(subjects.Recorded, 1, became(subjects.Deferred, "a", "1@x.test")))
	h.write("by-hand", "b1", entry(subjects.Done, 2, became(subjects.Accepted, "a", "1@x.test")))
	add(campaign.Status{Campaign: "by-hand", State: running, Finished: true, Complete: true, Published: 1, Outcomes: subjects.Counts{Accepted: 1}})
	// The rest of the list was never published.
	h.putRecord("cut", published(2, false))
	h.write("cut", "b1", two)
	add(campaign.Status{Campaign: "cut", State: running, Published: 2, Outcomes: done})
	// Nobody knows who was in the batch that could not be read.
	h.write("dead", "b1", two)
	h.bury("dead", "b0", subjects.CauseExpired, "{}")
	h.bury("dead", "b2", subjects.CauseUnreadable, "{")
	add(campaign.Status{Campaign: "dead", State: running, Complete: true, Published: 2, Outcomes: done, Dead: campaign.DeadCounts{Letters: 2, Unreadable: 1}})
	h.putRecord("deferred", published(2, true))
	h.write("deferred", "b1", entry(subjects.Recorded, 1, became(subjects.Accepted, "a", "1@x.test"), became(subjects.Deferred, "a", "2@x.test")))
	add(campaign.Status{Campaign: "deferred", State: running, Complete: true, Published: 2, Outcomes: subjects.Counts{Accepted: 1, Deferred: 1}})
	// Somebody is in no journal: finished it is not, whatever the queue says.
	h.putRecord("one-missing", published(3, true))
	h.write("one-missing", "b1", two)
	add(campaign.Status{Campaign: "one-missing", State: running, Complete: true, Published: 3, Outcomes: subjects.Counts{Queued: 1, Accepted: 1, Rejected: 1}})
	paused := published(2, true)
	paused.State = subjects.CampaignPaused
	h.putRecord("paused", paused)
	add(campaign.Status{
		Campaign: "paused", State: subjects.CampaignPaused, Complete: true, Published: 2, Outcomes: subjects.Counts{Queued: 2},
		Reason: campaign.Reason{Code: campaign.ReasonPaused, Text: "paused"},
	})
	h.putRecord("queued", published(2, true))
	h.write("queued", "b1", two)
	h.enqueue("queued", "{}")
	add(campaign.Status{
		Campaign: "queued", State: running, Complete: true, Published: 2, Outcomes: done,
		Reason: campaign.Reason{Code: campaign.ReasonNoWorker, Text: "no worker runs"},
	})
	// Two recipients were in a batch that could not be read: what can be is done.
	h.putRecord("readable", published(4, true))
	h.write("readable", "b1", two)
	h.bury("readable", "b2", subjects.CauseUnreadable, "{")
	add(campaign.Status{Campaign: "readable", State: running, Finished: true, Complete: true, Published: 2, Outcomes: done, Dead: campaign.DeadCounts{Letters: 1, Unreadable: 1}})
	for i := range want {
		want[i].Batches = 1
	}

	got, err := h.Statuses(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, got, butTimes); diff != "" {
		t.Errorf("of all: %s", diff)
	}
	for _, s := range got {
		if sum := s.Outcomes.Left() + s.Outcomes.Final(); sum != s.Published {
			t.Errorf("%s: %d are published, and its outcomes %+v are %d", s.Campaign, s.Published, s.Outcomes, sum)
		}
	}
	for _, want := range want {
		one, err := h.Status(t.Context(), want.Campaign)
		if diff := cmp.Diff(want, one, butTimes); diff != "" || err != nil {
			t.Errorf("of one: %v %s", err, diff)
		}
	}
	names, err := h.Campaigns(t.Context())
	if slices.Sort(names); len(names) != len(want) || names[0] != "all" || names[len(names)-1] != "readable" || err != nil {
		t.Errorf("campaigns %v, %v", names, err)
	}
	h.leavesNothing("Status")
}

// butTimes leaves out what differs from run to run.
var butTimes = cmp.Options{
	cmpopts.IgnoreFields(campaign.Status{}, "Began", "Ended", "Rate", "Ends", "AsOf"), cmpopts.EquateEmpty(),
}

func TestTheStatusOfWhatNobodyPublishedIsAnError(t *testing.T) {
	t.Parallel()
	h := newFixture(t, campaign.Options{})
	if list, err := h.Statuses(t.Context()); len(list) != 0 || err != nil {
		t.Errorf("of all: %v, %v", list, err)
	}
	if _, err := h.Status(t.Context(), "news"); !errors.Is(err, campaign.ErrNoCampaign) {
		t.Errorf("error is %v", err)
	}
	if _, err := h.Status(t.Context(), "*"); err == nil || errors.Is(err, campaign.ErrNoCampaign) {
		t.Errorf("of a name that cannot be: %v", err)
	}
}

// One entry that is no JSON must not hide all campaigns.
func TestStatusesGoOnAfterAnEntryThatCannotBeRead(t *testing.T) {
	t.Parallel()
	h := newFixture(t, campaign.Options{})
	h.write("a", "b1", entry(subjects.Done, 1, became(subjects.Accepted, "a", "1@x.test")))
	h.writeRaw("b", "b1", "no JSON")
	h.write("c", "b1", entry(subjects.Done, 1, became(subjects.Accepted, "a", "1@x.test")))
	list, err := h.Statuses(t.Context())
	if err != nil || len(list) != 3 {
		t.Fatalf("%+v, %v", list, err)
	}
	for _, s := range list {
		if s.Campaign == "b" {
			if len(s.Unreadable) != 1 || !strings.HasPrefix(s.Unreadable[0].Error(), "journal bulkmail.outcomes.b.b1: entry 2 cannot be read: ") || s.Finished {
				t.Errorf("%+v", s)
			}
			continue
		}
		if !s.Finished || s.Outcomes.Final() != 1 || len(s.Unreadable) != 0 {
			t.Errorf("%+v", s)
		}
	}
	h.leavesNothing("Statuses")
}

func TestPauseResumeAndCancelAreOnRecordWithWhoAndWhy(t *testing.T) {
	t.Parallel()
	h := newFixture(t, campaign.Options{Actor: "ann@office"})
	if _, err := h.Publish(t.Context(), news(listOf(numbered(0, 3)))); err != nil {
		t.Fatal(err)
	}
	type step struct {
		set         func(name, why string) (subjects.CampaignState, error)
		why         string
		before, now subjects.CampaignState
	}
	with := func(f func(*campaign.Client, string, string) (subjects.CampaignState, error)) func(string, string) (subjects.CampaignState, error) {
		return func(name, why string) (subjects.CampaignState, error) { return f(h.Client, name, why) }
	}
	pause := with(func(c *campaign.Client, name, why string) (subjects.CampaignState, error) {
		return c.Pause(t.Context(), name, why)
	})
	resume := with(func(c *campaign.Client, name, why string) (subjects.CampaignState, error) {
		return c.Resume(t.Context(), name, why)
	})
	cancel := with(func(c *campaign.Client, name, why string) (subjects.CampaignState, error) {
		return c.Cancel(t.Context(), name, why)
	})
	for _, s := range []step{
		{pause, "wrong subject", subjects.CampaignRunning, subjects.CampaignPaused},
		{pause, "again", subjects.CampaignPaused, subjects.CampaignPaused}, // no change
		{resume, "", subjects.CampaignPaused, subjects.CampaignRunning},
		{cancel, "enough", subjects.CampaignRunning, subjects.CampaignCancelled},
	} {
		before, err := s.set("news", s.why)
		if record, _ := h.record("news"); before != s.before || record.State != s.now || record.Recipients != 3 || err != nil {
			t.Errorf("was %s, is %+v, %v", before, record, err)
		}
	}
	s, err := h.Status(t.Context(), "news")
	if err != nil {
		t.Fatal(err)
	}
	for i, c := range s.Changes {
		if time.Since(c.Time) > time.Hour {
			t.Errorf("change %d at %v", i, c.Time)
		}
		s.Changes[i].Time = time.Time{}
	}
	want := []subjects.CampaignChange{
		{State: subjects.CampaignPaused, By: "ann@office", Why: "wrong subject"},
		{State: subjects.CampaignRunning, By: "ann@office"},
		{State: subjects.CampaignCancelled, By: "ann@office", Why: "enough"},
	}
	if diff := cmp.Diff(want, s.Changes); diff != "" {
		t.Error(diff)
	}
	// That is for good.
	for _, set := range []func(string, string) (subjects.CampaignState, error){pause, resume} {
		_, err := set("news", "")
		if cancelled, ok := errors.AsType[*campaign.CancelledError](err); !ok || cancelled.Campaign != "news" {
			t.Errorf("error is %v", err)
		}
	}
	if _, err := cancel("news", ""); err != nil {
		t.Errorf("cancelled once more: %v", err)
	}
}

func TestARecordKeepsTheLastChanges(t *testing.T) {
	t.Parallel()
	h := newFixture(t, campaign.Options{})
	h.enqueue("news", "{}") // by another program
	for i := range 15 {
		for _, set := range []func() (subjects.CampaignState, error){
			func() (subjects.CampaignState, error) { return h.Pause(t.Context(), "news", string(rune('a'+i))) },
			func() (subjects.CampaignState, error) { return h.Resume(t.Context(), "news", "") },
		} {
			if _, err := set(); err != nil {
				t.Fatal(err)
			}
		}
	}
	record, _ := h.record("news")
	if n := len(record.Changes); n != 20 || record.Changes[n-2].Why != "o" || record.Changes[0].Why != "f" {
		t.Errorf("%d changes: %+v", n, record.Changes)
	}
}

func TestANameThatNobodyUsedYetCanBePausedAndNothingElse(t *testing.T) {
	t.Parallel()
	h := newFixture(t, campaign.Options{})
	for _, set := range []func() (subjects.CampaignState, error){
		func() (subjects.CampaignState, error) { return h.Resume(t.Context(), "news", "") },
		func() (subjects.CampaignState, error) { return h.Cancel(t.Context(), "news", "") },
	} {
		if _, err := set(); !errors.Is(err, campaign.ErrNoCampaign) {
			t.Errorf("error is %v", err)
		}
	}
	if _, err := h.Pause(t.Context(), "a.b", ""); err == nil {
		t.Error("a name that cannot be is paused")
	}
	if before, err := h.Pause(t.Context(), "news", "not yet"); before != subjects.CampaignRunning || err != nil {
		t.Errorf("was %s, %v", before, err)
	}
	// What is published under it then waits.
	if _, err := h.Publish(t.Context(), news(listOf(numbered(0, 3)))); err != nil {
		t.Fatal(err)
	}
	if record, _ := h.record("news"); record.State != subjects.CampaignPaused || record.Recipients != 3 {
		t.Errorf("on record: %+v", record)
	}
	h.write("other", "b1", entry(subjects.Claimed, 1)) // has a journal, and no record
	if before, err := h.Pause(t.Context(), "other", ""); before != subjects.CampaignRunning || err != nil {
		t.Errorf("was %s, %v", before, err)
	}
}

// Whoever expired and was published again from the dead letters is in two batches.
func TestWhoIsSentToAgainFromTheDeadLettersCountsOnce(t *testing.T) {
	t.Parallel()
	h := newFixture(t, campaign.Options{})
	h.putRecord("news", subjects.Campaign{State: subjects.CampaignRunning, Batches: 1, Recipients: 3, Complete: true})
	h.write("news", "b1", entry(subjects.Done, 1, became(subjects.Accepted, "a", "1@x.test"), became(subjects.Expired, "a", "2@x.test"), became(subjects.Expired, "b", "3@x.test")))
	check := func(want subjects.Counts, finished bool) {
		t.Helper()
		s, err := h.Status(t.Context(), "news")
		if diff := cmp.Diff(want, s.Outcomes); diff != "" || err != nil || s.Published != 3 || s.Finished != finished {
			t.Errorf("%+v, %v\n%s", s, err, diff)
		}
	}
	check(subjects.Counts{Accepted: 1, Expired: 2}, true)
	h.write("news", "b1-r7", entry(subjects.Recorded, 1, became(subjects.Accepted, "a", "2@x.test"), became(subjects.Deferred, "a", "3@x.test")))
	check(subjects.Counts{Accepted: 2, Deferred: 1}, false)
	h.write("news", "b1-r7", entry(subjects.Done, 2, became(subjects.Expired, "a", "3@x.test")))
	check(subjects.Counts{Accepted: 2, Expired: 1}, true)
	h.write("news", "b1-r7-r9", entry(subjects.Done, 1, became(subjects.Accepted, "a", "3@x.test")))
	check(subjects.Counts{Accepted: 3}, true)
	s, err := h.Wait(t.Context(), "news")
	want := map[string]map[subjects.Status]int{"a": {subjects.Accepted: 3, subjects.Deferred: 1}, "b": {}}
	if diff := cmp.Diff(want, s.Relays); diff != "" || err != nil || s.Failed() != 0 {
		t.Errorf("%+v, %v\n%s", s, err, diff)
	}
}
