package campaign

import (
	"context"
	"errors"
	"fmt"

	"github.com/nats-io/nats.go/jetstream"

	"bulkmail/subjects/tally"
)

// Delete removes a campaign of which nothing is in the queue any more: its record,
// its journals and its dead letters. A message that was stored for it stays. The
// error is [ErrUnfinished] where batches are left, and nothing is removed then. A
// user of the broker who may not remove one of these still removes the others.
func (c *Client) Delete(ctx context.Context, campaign string) error {
	waiting, err := c.Waiting(ctx, campaign)
	if err != nil {
		return err
	}
	if waiting > 0 {
		return fmt.Errorf("campaign %s: %w", campaign, ErrUnfinished)
	}
	records, err := c.records(ctx)
	if err == nil {
		if err = records.bucket.Delete(ctx, campaign); err != nil {
			err = fmt.Errorf("campaign %s: %w", campaign, err)
		}
	}
	return errors.Join(err,
		c.purge(ctx, c.names.OutcomesStream(), c.names.CampaignOutcomes(campaign)),
		tally.Forget(ctx, c.js, c.names, campaign), // when there is nothing to count any more
		c.purge(ctx, c.names.DeadStream(), c.names.Dead(campaign)))
}

func (c *Client) purge(ctx context.Context, name, subject string) error {
	stream, err := c.js.Stream(ctx, name)
	if err == nil {
		err = stream.Purge(ctx, jetstream.WithPurgeSubject(subject))
	}
	if err != nil {
		return fmt.Errorf("stream %s: %w", name, err)
	}
	return nil
}
