package campaign_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"bulkmail/subjects"
	"bulkmail/subjects/campaign"
)

// Their batches would be cut at other places, and have other ids.
func TestPublicationsOfOneCampaignTakeTurns(t *testing.T) {
	t.Parallel()
	troubles := make(chan error, 1)
	h := newFixture(t, campaign.Options{Trouble: func(why error) {
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
	h := newFixture(t, campaign.Options{})
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

// A publication that dies leaves its turn in the campaign's record.
func TestAPublicationThatDiedHoldsUpTheNextOneForABoundThatIsSaid(t *testing.T) {
	t.Parallel()
	troubles := make(chan error, 1)
	h := newFixture(t, campaign.Options{Trouble: func(why error) { troubles <- why }})
	const over = 400 * time.Millisecond
	h.SetTurnOver(over)
	h.putRecord("news", subjects.Campaign{State: subjects.CampaignRunning, Publishing: &subjects.CampaignTurn{Owner: "dead", Beat: 7}})
	began := time.Now()
	if _, err := h.Publish(t.Context(), news(listOf(numbered(0, 3)))); err != nil {
		t.Fatal(err)
	}
	if took := time.Since(began); took < over {
		t.Errorf("it took the turn after %v: the other one may have been alive", took)
	}
	if why := <-troubles; !strings.HasSuffix(why.Error(), "waiting for its end, or until it has shown no sign of life for 400ms") {
		t.Errorf("told %v", why)
	}
	h.once(numbered(0, 3))
	if record, _ := h.record("news"); record.Publishing != nil {
		t.Errorf("on record: %+v is publishing", record.Publishing)
	}
}

// One that is alive keeps its turn, however long it takes; one that stood still and
// goes on later publishes no more.
func TestAPublicationThatStoodStillEndsWhenAnotherHasTakenItsTurn(t *testing.T) {
	t.Parallel()
	h := newFixture(t, campaign.Options{})
	h.SetTurnOver(300 * time.Millisecond)
	p := news(listOf(numbered(0, 100_000))) // more than it comes to publish
	taken := false
	p.Progress = func(campaign.Receipt) {
		if taken {
			return
		}
		taken = true
		ctx, cancel := context.WithTimeout(t.Context(), time.Second) // three times as long as it may stand still
		defer cancel()
		if _, err := h.Publish(ctx, news(listOf(numbered(0, 2)))); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("beside one that is alive: %v", err)
		}
		record, _ := h.record("news")
		record.Publishing = &subjects.CampaignTurn{Owner: "next"} // as if this one had stood still meanwhile
		h.putRecord("news", record)
	}
	p.BatchSize = 1
	if _, err := h.Publish(t.Context(), p); err == nil || !strings.Contains(err.Error(), "this one stood still for 300ms: another publication of this campaign") {
		t.Errorf("it ended with %v", err)
	}
}
