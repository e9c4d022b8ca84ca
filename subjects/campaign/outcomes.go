package campaign

import (
	"context"
	"errors"
	"iter"
	"maps"
	"slices"
	"time"

	"bulkmail/subjects"
)

// An Outcome is one recipient and what became of it. The order of the fields is
// that of the columns of `bulkmail outcomes`, and a contract.
type Outcome struct {
	Campaign  string          `json:"campaign"`
	Batch     string          `json:"batch"`
	Recipient string          `json:"recipient"` // as published
	Status    subjects.Status `json:"status"`    // deferred alone is not final
	Relay     string          `json:"relay"`     // empty: none was asked
	Code      int             `json:"code"`      // of the reply, 0 if there was none
	Enhanced  string          `json:"enhanced"`
	Text      string          `json:"text"`
	Attempt   int             `json:"attempt"` // from 1
	Time      time.Time       `json:"time"`
}

// A Filter says which outcomes are wanted. The zero Filter is all.
type Filter struct {
	Status []subjects.Status // one of these; none: any
}

func (f Filter) wants(r *subjects.Result) bool {
	return len(f.Status) == 0 || slices.Contains(f.Status, r.Status)
}

// Outcomes yields every recipient of a campaign with its newest state.
// Recipients of batches that no worker has taken up yet have none: see
// [Client.Waiting]. Batches that are done come first, in the order of their
// ends; within a batch recipients are sorted. Memory follows the batches under
// way.
//
// An entry of a journal that cannot be read is an [*EntryError], after which
// Outcomes goes on; any other error is the last that it yields, [ErrNoCampaign]
// among them.
func (c *Client) Outcomes(ctx context.Context, campaign string, f Filter) iter.Seq2[Outcome, error] {
	return func(yield func(Outcome, error) bool) {
		if err := checkName(campaign); err != nil {
			yield(Outcome{}, err)
			return
		}
		begun := false
		journals := make(subjects.Journals)
		for e, err := range c.entries(ctx, c.names.CampaignOutcomes(campaign)) {
			if err != nil {
				_, goesOn := errors.AsType[*EntryError](err)
				if !yield(Outcome{}, err) || !goesOn {
					return
				}
				begun = true
				continue
			}
			begun = true
			if state := journals.Fold(e.batch, e.Entry, nil); state.Done && !yieldBatch(yield, f, campaign, e.batch, state) {
				return
			}
		}
		for _, batch := range slices.Sorted(maps.Keys(journals)) {
			if !yieldBatch(yield, f, campaign, batch, journals[batch]) {
				return
			}
		}
		if begun {
			return
		}
		if waiting, err := c.Waiting(ctx, campaign); err != nil {
			yield(Outcome{}, err)
		} else if waiting == 0 {
			yield(Outcome{}, noCampaign(campaign))
		}
	}
}

func yieldBatch(yield func(Outcome, error) bool, f Filter, campaign, batch string, state *subjects.State) bool {
	for _, recipient := range slices.Sorted(maps.Keys(state.Results)) {
		r := state.Results[recipient]
		if f.wants(r) && !yield(outcomeOf(campaign, batch, recipient, r), nil) {
			return false
		}
	}
	return true
}

func outcomeOf(campaign, batch, recipient string, r *subjects.Result) Outcome {
	return Outcome{campaign, batch, recipient, r.Status, r.Relay, r.Code, r.Enhanced, r.Text, r.Attempt, r.Time}
}
