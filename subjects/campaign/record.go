package campaign

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"bulkmail/subjects"
)

// keptChanges is how many changes of its state a campaign's record keeps.
const keptChanges = 20

// records reads and writes the records of campaigns.
type records struct {
	bucket   jetstream.KeyValue
	turnOver time.Duration
}

func (c *Client) records(ctx context.Context) (records, error) {
	bucket, err := c.js.KeyValue(ctx, c.names.CampaignBucket())
	if err != nil {
		return records{}, fmt.Errorf("bucket %s: %w", c.names.CampaignBucket(), err)
	}
	return records{bucket, c.turnOver}, nil
}

func (r records) names(ctx context.Context) ([]string, error) {
	names, err := r.bucket.Keys(ctx)
	if errors.Is(err, jetstream.ErrNoKeysFound) {
		return nil, nil
	}
	return names, err
}

// get returns the record of a campaign; revision is 0 if it has none, and it
// runs then.
func (r records) get(ctx context.Context, name string) (record subjects.Campaign, revision uint64, err error) {
	entry, err := r.bucket.Get(ctx, name)
	if errors.Is(err, jetstream.ErrKeyNotFound) {
		return subjects.Campaign{State: subjects.CampaignRunning}, 0, nil
	}
	if err == nil {
		err = json.Unmarshal(entry.Value(), &record)
	}
	if err != nil {
		return record, 0, fmt.Errorf("campaign %s: %w", name, err)
	}
	return record, entry.Revision(), nil
}

// update changes the record of a campaign, which is made if there is none. It
// tries again when somebody else changed it meanwhile.
func (r records) update(ctx context.Context, name string, change func(*subjects.Campaign) error) error {
	for {
		record, revision, err := r.get(ctx, name)
		if err != nil {
			return err
		}
		if revision == 0 {
			record.Created = time.Now().UTC().Truncate(time.Second)
		}
		if err := change(&record); err != nil {
			return err
		}
		value, err := json.Marshal(record)
		if err != nil {
			return err
		}
		if revision == 0 {
			_, err = r.bucket.Create(ctx, name, value)
		} else {
			_, err = r.bucket.Update(ctx, name, value, revision)
		}
		if errors.Is(err, jetstream.ErrKeyExists) { // also: changed since revision
			continue
		}
		if err != nil {
			return fmt.Errorf("campaign %s: %w", name, err)
		}
		return nil
	}
}

// Pause holds a campaign: envelopes in flight finish, nothing new is sent. Why
// is on record, and may be empty. It returns the state of before. A name that
// nobody has used yet may be paused: what is published under it waits.
func (c *Client) Pause(ctx context.Context, campaign, why string) (subjects.CampaignState, error) {
	return c.setState(ctx, campaign, subjects.CampaignPaused, why)
}

// Resume goes on with a campaign that was paused. The error is [ErrNoCampaign] where
// there is nothing of that name.
func (c *Client) Resume(ctx context.Context, campaign, why string) (subjects.CampaignState, error) {
	return c.setState(ctx, campaign, subjects.CampaignRunning, why)
}

// Cancel ends a campaign for good: who was not sent to yet gets the outcome
// cancelled.
func (c *Client) Cancel(ctx context.Context, campaign, why string) (subjects.CampaignState, error) {
	return c.setState(ctx, campaign, subjects.CampaignCancelled, why)
}

// setState changes the state of a campaign. Batches published by hand have no
// record; they get one as long as there is anything of them, or when they are to
// wait.
func (c *Client) setState(ctx context.Context, campaign string, state subjects.CampaignState, why string) (before subjects.CampaignState, err error) {
	if err := checkName(campaign); err != nil {
		return "", err
	}
	records, err := c.records(ctx)
	if err != nil {
		return "", err
	}
	if _, revision, err := records.get(ctx, campaign); err != nil {
		return "", err
	} else if revision == 0 && state != subjects.CampaignPaused {
		known, err := c.known(ctx, campaign)
		if err != nil {
			return "", err
		}
		if !known {
			return "", noCampaign(campaign)
		}
	}
	err = records.update(ctx, campaign, func(record *subjects.Campaign) error {
		if before = record.State; before == subjects.CampaignCancelled && state != subjects.CampaignCancelled {
			return &CancelledError{campaign}
		}
		if before == state {
			return nil
		}
		record.State = state
		record.Changes = append(record.Changes, subjects.CampaignChange{
			Time: time.Now().UTC().Truncate(time.Second), State: state, By: c.o.Actor, Why: why,
		})
		record.Changes = record.Changes[max(0, len(record.Changes)-keptChanges):]
		return nil
	})
	return before, err
}
