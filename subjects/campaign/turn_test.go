package campaign_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"

	"bulkmail/subjects/campaign"
)

// Their batches would be cut at other places, and have other ids.
func TestPublicationsOfOneCampaignTakeTurns(t *testing.T) {
	t.Parallel()
	troubles := make(chan error, 1)
	h := newHouse(t, campaign.Options{Trouble: func(why error) {
		select {
		case troubles <- why:
		default:
		}
	}})
	list := numbered(0, 900)
	_, without, _ := strings.Cut(list, "\n")
	done := make(chan error, 1)
	began := false
	p := news(listOf(list))
	p.BatchSize = 50
	p.Progress = func(campaign.Receipt) {
		if began {
			return
		}
		began = true
		other := news(listOf(without))
		other.BatchSize = 50
		go func() {
			receipt, err := h.Publish(t.Context(), other)
			if err == nil && (receipt.Batches != 0 || receipt.Repeated != 899) {
				err = fmt.Errorf("the second published %+v", receipt)
			}
			done <- err
		}()
		if why := <-troubles; !strings.Contains(why.Error(), "another publication of this campaign") {
			t.Errorf("told %v", why)
		}
	}
	if _, err := h.Publish(t.Context(), p); err != nil {
		t.Error(err)
	}
	if err := <-done; err != nil {
		t.Error(err)
	}
	h.once(list)
	if record, _ := h.record("news"); record.Publishing != nil {
		t.Errorf("on record: %+v is publishing", record.Publishing)
	}
}

func TestWhoWaitsForItsTurnMayGiveUp(t *testing.T) {
	t.Parallel()
	h := newHouse(t, campaign.Options{})
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	p := news(listOf(numbered(0, 3)))
	gaveUp := make(chan error, 1)
	p.Progress = func(campaign.Receipt) {
		go func() {
			_, err := h.Publish(ctx, news(listOf(numbered(0, 2))))
			gaveUp <- err
		}()
		cancel()
		if err := <-gaveUp; !errors.Is(err, context.Canceled) {
			t.Errorf("got %v", err)
		}
	}
	if _, err := h.Publish(t.Context(), p); err != nil {
		t.Error(err)
	}
	h.once(numbered(0, 3))
}
