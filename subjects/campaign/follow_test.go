package campaign_test

import (
	"context"
	"errors"
	"testing"

	"github.com/google/go-cmp/cmp"

	"bulkmail/subjects"
	"bulkmail/subjects/campaign"
)

func TestASummaryAddsUpWhatBecameOfRecipients(t *testing.T) {
	t.Parallel()
	h := newFixture(t, campaign.Options{})
	for _, e := range []subjects.Entry{
		entry(subjects.Claimed, 1),
		entry(subjects.Sending, 1, became(subjects.InDoubt, "a", "1", "2")), // is announced, has not happened
		entry(subjects.Recorded, 1, became(subjects.Accepted, "b", "1", "2"), became(subjects.Deferred, "a", "3", "4", "5")),
		entry(subjects.Claimed, 2),
		entry(subjects.Recorded, 2, became(subjects.Deferred, "a", "5"), became(subjects.Rejected, "", "6")),
		entry(subjects.Recorded, 2, became(subjects.Rejected, "a", "1")), // final is final
		entry(subjects.Done, 3, became(subjects.Accepted, "a", "3"), became(subjects.Expired, "a", "5"), became(subjects.Rejected, "a", "4")),
	} {
		h.write("news", "b1", e)
	}
	h.write("other", "b1", entry(subjects.Done, 1, became(subjects.Accepted, "a", "7")))
	got, err := h.Wait(t.Context(), "news")
	if err != nil {
		t.Fatal(err)
	}
	want := &campaign.Summary{
		Outcomes: map[subjects.Status]int{subjects.Accepted: 3, subjects.Rejected: 2, subjects.Expired: 1, subjects.Deferred: 4},
		Relays: map[string]map[subjects.Status]int{
			"":  {subjects.Rejected: 1},
			"a": {subjects.Accepted: 1, subjects.Rejected: 1, subjects.Expired: 1, subjects.Deferred: 4},
			"b": {subjects.Accepted: 2},
		},
		State: subjects.CampaignRunning,
	}
	if diff := cmp.Diff(want, got); diff != "" || got.Final() != 6 || got.Failed() != 3 {
		t.Errorf("%d are final\n%s", got.Final(), diff)
	}
	h.leavesNothing("Wait")
}

func TestWhoFollowsSeesACampaignFromItsBeginningToItsEnd(t *testing.T) {
	t.Parallel()
	h := newFixture(t, campaign.Options{})
	if _, err := h.Publish(t.Context(), news(listOf(numbered(0, 30)))); err != nil {
		t.Fatal(err)
	}
	batches, _ := h.queued("news")
	h.write("news", batches[0].ID, entry(subjects.Recorded, 1, became(subjects.Deferred, "primary", "r0@d0.test")))
	var finals []int
	settled := false
	for s, err := range h.Follow(t.Context(), "news") {
		if err != nil {
			t.Fatal(err)
		}
		if s.Published != 30 {
			t.Fatalf("%d are published", s.Published)
		}
		finals = append(finals, s.Final())
		if s.Outcomes[subjects.Deferred] == 1 && !settled {
			settled = true // from here on there is an end
			h.settle("news")
		}
	}
	if finals[0] != 0 || finals[len(finals)-1] != 30 {
		t.Errorf("final on the way: %v", finals)
	}
	// It can be followed again, when it is over.
	if s, err := h.Wait(t.Context(), "news"); err != nil || s.Final() != 30 {
		t.Errorf("afterwards: %+v, %v", s, err)
	}
	h.leavesNothing("Follow")
}

// Nobody has counted who is in it, so the queue alone says that it is not over.
func TestABatchThatNoWorkerHasTakenUpIsWaitedFor(t *testing.T) {
	t.Parallel()
	h := newFixture(t, campaign.Options{})
	h.enqueue("news", `{"id":"b1","from":"","recipients":["ann@example.net"],"message":"Subject: t\n\nhi\n"}`)
	looks, final := 0, 0
	for s, err := range h.Follow(t.Context(), "news") {
		if err != nil {
			t.Fatal(err)
		}
		if looks++; looks == 3 {
			h.settle("news")
		}
		final = s.Final()
	}
	if looks < 3 || final != 1 {
		t.Errorf("%d are final after %d looks", final, looks)
	}
}

func TestWhoFollowsMayStop(t *testing.T) {
	t.Parallel()
	h := newFixture(t, campaign.Options{})
	if _, err := h.Publish(t.Context(), news(listOf(numbered(0, 3)))); err != nil {
		t.Fatal(err)
	}
	for range 100 { // more than anybody takes
		h.write("news", "b1", entry(subjects.Recorded, 1))
	}
	for _, err := range h.Follow(t.Context(), "news") {
		if err != nil {
			t.Fatal(err)
		}
		break
	}
	h.leavesNothing("Follow")
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	for s, err := range h.Follow(ctx, "news") {
		if cancel(); err != nil && !errors.Is(err, context.Canceled) {
			t.Errorf("%+v, %v", s, err)
		}
	}
	if _, err := h.Wait(ctx, "news"); !errors.Is(err, context.Canceled) {
		t.Errorf("error is %v", err)
	}
	h.leavesNothing("Follow")
}

func TestACampaignThatNobodyPublishedCannotBeFollowed(t *testing.T) {
	t.Parallel()
	h := newFixture(t, campaign.Options{})
	if _, err := h.Wait(t.Context(), "news"); !errors.Is(err, campaign.ErrNoCampaign) || err.Error() != "nothing was published under the campaign news" {
		t.Errorf("error is %v", err)
	}
	if _, err := h.Wait(t.Context(), "a.b"); err == nil {
		t.Error("a name that cannot be is followed")
	}
}

func TestWhoWaitsIsToldOfDeadLetters(t *testing.T) {
	t.Parallel()
	h := newFixture(t, campaign.Options{})
	h.putRecord("news", subjects.Campaign{State: subjects.CampaignRunning, Batches: 2, Recipients: 5, Complete: true})
	h.write("news", "b1", entry(subjects.Done, 1, became(subjects.Accepted, "a", "1@x.test", "2@x.test"), became(subjects.Expired, "a", "3@x.test")))
	h.bury("news", "b1", subjects.CauseExpired, "{}") // its journal says the same, as an outcome
	h.bury("news", "b2", subjects.CauseUnreadable, "{}")
	h.bury("other", "b3", subjects.CauseUnreadable, "{}")
	s, err := h.Wait(t.Context(), "news")
	if err != nil || len(s.Dead) != 1 || s.Dead[0].Batch != "b2" || s.Dead[0].Reason != "why b2" {
		t.Errorf("%+v, %v", s, err)
	}
}

func TestWhoIsWithoutAnOutcomeIsMissed(t *testing.T) {
	t.Parallel()
	h := newFixture(t, campaign.Options{})
	h.putRecord("news", subjects.Campaign{State: subjects.CampaignRunning, Batches: 1, Recipients: 5, Complete: true})
	h.write("news", "b1", entry(subjects.Done, 1, became(subjects.Accepted, "a", "1@x.test", "2@x.test")))
	h.writeRaw("news", "b2", "{")
	s, err := h.Wait(t.Context(), "news")
	if missing, ok := errors.AsType[*campaign.MissingError](err); !ok || missing.Missing != 3 || s.Final() != 2 {
		t.Errorf("%+v, %v", s, err)
	}
	if len(s.Unreadable) != 1 || s.Unreadable[0].Subject != "bulkmail.outcomes.news.b2" {
		t.Errorf("left out: %v", s.Unreadable)
	}
}
