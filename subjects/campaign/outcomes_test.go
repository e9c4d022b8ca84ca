package campaign_test

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"bulkmail/subjects"
	"bulkmail/subjects/campaign"
)

// outcomes are those of news, and the entries that could not be read.
func (h *fixture) outcomes(f campaign.Filter) (all []campaign.Outcome, unreadable []string) {
	h.t.Helper()
	for o, err := range h.Outcomes(h.t.Context(), "news", f) {
		if wrong, ok := errors.AsType[*campaign.EntryError](err); ok {
			unreadable = append(unreadable, wrong.Subject)
			continue
		}
		if err != nil {
			h.t.Fatal(err)
		}
		all = append(all, o)
	}
	return all, unreadable
}

func TestOutcomesAreEveryRecipientWithItsNewestState(t *testing.T) {
	t.Parallel()
	h := newFixture(t, campaign.Options{})
	later := became(subjects.Deferred, "b", "dora@x.test", "carl@x.test")
	later.Code, later.Enhanced, later.Text = 451, "4.2.0", "later"
	h.write("news", "b1", entry(subjects.Recorded, 1, later))
	h.write("news", "b2", entry(subjects.Done, 1, became(subjects.Accepted, "a", "bob@x.test", "ann@x.test")))
	h.write("other", "b1", entry(subjects.Done, 1, became(subjects.Accepted, "a", "eve@x.test")))
	h.write("news", "b1", entry(subjects.Recorded, 2, became(subjects.Rejected, "a", "dora@x.test")))
	at := func(second int) time.Time { return time.Date(2026, 11, 24, 0, 0, second, 0, time.UTC) }
	want := []campaign.Outcome{
		{Campaign: "news", Batch: "b2", Recipient: "ann@x.test", Status: subjects.Accepted, Relay: "a", Attempt: 1, Time: at(1)},
		{Campaign: "news", Batch: "b2", Recipient: "bob@x.test", Status: subjects.Accepted, Relay: "a", Attempt: 1, Time: at(1)},
		{Campaign: "news", Batch: "b1", Recipient: "carl@x.test", Status: subjects.Deferred, Relay: "b", Code: 451, Enhanced: "4.2.0", Text: "later", Attempt: 1, Time: at(1)},
		{Campaign: "news", Batch: "b1", Recipient: "dora@x.test", Status: subjects.Rejected, Relay: "a", Attempt: 2, Time: at(2)},
	}
	all, _ := h.outcomes(campaign.Filter{})
	if diff := cmp.Diff(want, all); diff != "" {
		t.Error(diff)
	}
	some, _ := h.outcomes(campaign.Filter{Status: []subjects.Status{subjects.Deferred, subjects.Rejected}})
	if diff := cmp.Diff(want[2:], some); diff != "" {
		t.Error(diff)
	}
	for _, err := range h.Outcomes(t.Context(), "news", campaign.Filter{}) {
		if err != nil {
			t.Error(err)
		}
		break // may be left at any time
	}
	h.leavesNothing("Outcomes")
}

// One entry that is no JSON must not hide the outcomes of all others.
func TestOutcomesGoOnAfterAnEntryThatCannotBeRead(t *testing.T) {
	t.Parallel()
	h := newFixture(t, campaign.Options{})
	h.write("news", "b1", entry(subjects.Recorded, 1, became(subjects.Accepted, "a", "1@x.test")))
	h.writeRaw("news", "b1", "no JSON")
	h.write("news", "b1", entry(subjects.Done, 1, became(subjects.Accepted, "a", "2@x.test")))
	h.write("news", "b2", entry(subjects.Done, 1, became(subjects.Accepted, "a", "3@x.test")))
	all, unreadable := h.outcomes(campaign.Filter{})
	if diff := cmp.Diff([]string{"bulkmail.outcomes.news.b1"}, unreadable); diff != "" || len(all) != 3 {
		t.Errorf("%d outcomes, unreadable:\n%s", len(all), diff)
	}
	for _, err := range h.Outcomes(t.Context(), "news", campaign.Filter{}) {
		if err != nil {
			break // may be left there as well
		}
	}
	h.leavesNothing("Outcomes")
}

func TestOutcomesOfACampaignThatNobodyPublishedAreAnError(t *testing.T) {
	t.Parallel()
	h := newFixture(t, campaign.Options{})
	last := func(ctx context.Context, name string) (err error) {
		for _, err = range h.Outcomes(ctx, name, campaign.Filter{}) {
		}
		return err
	}
	if err := last(t.Context(), "news"); !errors.Is(err, campaign.ErrNoCampaign) {
		t.Errorf("error is %v", err)
	}
	if err := last(t.Context(), "a.b"); err == nil {
		t.Error("a name that cannot be has outcomes")
	}
	h.enqueue("news", "{}") // not taken up yet
	if err := last(t.Context(), "news"); err != nil {
		t.Errorf("of a campaign that waits: %v", err)
	}
	h.write("news", "b1", entry(subjects.Claimed, 1))
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	if err := last(ended, "news"); !errors.Is(err, context.Canceled) {
		t.Errorf("after the end: %v", err)
	}
	h.leavesNothing("Outcomes")
}

// The broker has room for 1,000 consumers on a stream.
func TestLooksAtManyCampaignsLeaveNoConsumers(t *testing.T) {
	t.Parallel()
	h := newFixture(t, campaign.Options{})
	const campaigns = 50
	for i := range campaigns {
		h.write(fmt.Sprintf("c%d", i), "b1", entry(subjects.Done, 1, became(subjects.Accepted, "a", "1@x.test")))
	}
	for range 2 {
		list, err := h.Statuses(t.Context())
		if err != nil || len(list) != campaigns {
			t.Fatalf("%d campaigns, %v", len(list), err)
		}
		for _, s := range list {
			for _, err := range h.Outcomes(t.Context(), s.Campaign, campaign.Filter{}) {
				if err != nil {
					t.Fatal(err)
				}
			}
		}
	}
	h.leavesNothing("Statuses and Outcomes")
}
