package campaign_test

import (
	"errors"
	"testing"

	"bulkmail/subjects"
	"bulkmail/subjects/campaign"
)

func TestACampaignThatIsDeletedLeavesNothing(t *testing.T) {
	t.Parallel()
	h := newFixture(t, campaign.Options{})
	if _, err := h.Publish(t.Context(), news(listOf(numbered(0, 3)))); err != nil {
		t.Fatal(err)
	}
	if err := h.Delete(t.Context(), "news"); !errors.Is(err, campaign.ErrUnfinished) {
		t.Errorf("with a batch in the queue: %v", err)
	}
	h.settle("news")
	h.bury("news", "b2", subjects.CauseExpired, fullLetter)
	h.bury("other", "b1", subjects.CauseExpired, fullLetter)
	h.write("other", "b1", entry(subjects.Done, 1, became(subjects.Accepted, "a", "1@x.test")))
	if err := h.Delete(t.Context(), "news"); err != nil {
		t.Fatal(err)
	}
	if _, err := h.Status(t.Context(), "news"); !errors.Is(err, campaign.ErrNoCampaign) {
		t.Errorf("its status: %v", err)
	}
	letters := 0
	for l, err := range h.DeadLetters(t.Context(), "") {
		if err != nil || l.Campaign != "other" {
			t.Errorf("%+v, %v", l, err)
		}
		letters++
	}
	if s, err := h.Status(t.Context(), "other"); letters != 1 || s.Outcomes.Final() != 1 || err != nil {
		t.Errorf("of another campaign there are %d dead letters and %+v, %v", letters, s, err)
	}
	// The name is free.
	if r, err := h.Publish(t.Context(), news(listOf(numbered(0, 3)))); r.Recipients != 3 || err != nil {
		t.Errorf("published anew: %+v, %v", r, err)
	}
}
