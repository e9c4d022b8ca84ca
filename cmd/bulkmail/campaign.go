package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"bulkmail/envelope"
	"bulkmail/subjects"
	"bulkmail/subjects/tail"
)

// campaigns reads and writes the campaigns bucket.
type campaigns struct{ bucket jetstream.KeyValue }

func openCampaigns(ctx context.Context, js jetstream.JetStream, names subjects.Names) (campaigns, error) {
	bucket, err := js.KeyValue(ctx, names.CampaignBucket())
	if err != nil {
		return campaigns{}, fmt.Errorf("bucket %s: %w", names.CampaignBucket(), err)
	}
	return campaigns{bucket}, nil
}

// get returns the entry of a campaign; found is false if it has none.
func (c campaigns) get(ctx context.Context, name string) (campaign subjects.Campaign, revision uint64, found bool, err error) {
	entry, err := c.bucket.Get(ctx, name)
	if errors.Is(err, jetstream.ErrKeyNotFound) {
		return campaign, 0, false, nil
	}
	if err != nil {
		return campaign, 0, false, fmt.Errorf("campaign %s: %w", name, err)
	}
	if err := json.Unmarshal(entry.Value(), &campaign); err != nil {
		return campaign, 0, false, fmt.Errorf("campaign %s: %w", name, err)
	}
	return campaign, entry.Revision(), true, nil
}

// update changes the entry of a campaign, which is made if there is none. It
// tries again when somebody else changed it meanwhile.
func (c campaigns) update(ctx context.Context, name string, change func(*subjects.Campaign) error) error {
	for {
		campaign, revision, found, err := c.get(ctx, name)
		if err != nil {
			return err
		}
		if !found {
			campaign = subjects.Campaign{State: subjects.CampaignRunning, Created: time.Now().UTC().Truncate(time.Second)}
		}
		if err := change(&campaign); err != nil {
			return err
		}
		value, err := json.Marshal(campaign)
		if err != nil {
			return err
		}
		if found {
			_, err = c.bucket.Update(ctx, name, value, revision)
		} else {
			_, err = c.bucket.Create(ctx, name, value)
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

// published calls each with every batch of a campaign that waits in the queue,
// and then with every journal entry. A batch that is settled in between is met
// in its journal.
func (c *client) published(ctx context.Context, campaign string, queued func(id string, b *envelope.Batch), entry func(id string, e subjects.Entry)) error {
	stream, err := c.js.Stream(ctx, c.names.BatchesStream())
	if err != nil {
		return err
	}
	// A work queue lends itself to no second consumer; its messages can be got.
	for sequence := uint64(1); ; {
		m, err := stream.GetMsg(ctx, sequence, jetstream.WithGetMsgSubject(c.names.Batches(campaign)))
		if errors.Is(err, jetstream.ErrMsgNotFound) {
			break
		}
		if err != nil {
			return fmt.Errorf("read queue: %w", err)
		}
		sequence = m.Sequence + 1
		if b, err := envelope.Decode(m.Data); err == nil {
			queued(subjects.BatchID(b.ID, m.Header.Get(jetstream.MsgIDHeader), m.Sequence, m.Time), b)
		}
	}
	return c.readJournals(ctx, campaign, entry)
}

// readJournals calls each with every entry of a campaign's journals as they
// stand now, in order.
func (c *client) readJournals(ctx context.Context, campaign string, each func(id string, e subjects.Entry)) error {
	name, subject := c.names.OutcomesStream(), c.names.CampaignOutcomes(campaign)
	stream, err := c.js.Stream(ctx, name)
	if err != nil {
		return fmt.Errorf("read journals: %w", err)
	}
	last, err := stream.GetLastMsgForSubject(ctx, subject)
	if errors.Is(err, jetstream.ErrMsgNotFound) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("read journals: %w", err)
	}
	entries, err := tail.Open(ctx, c.js, name, subject, 0)
	if err != nil {
		return fmt.Errorf("read journals: %w", err)
	}
	defer entries.Stop()
	for entries.After() < last.Sequence {
		m, err := entries.Next(ctx)
		if err != nil {
			return fmt.Errorf("read journals: %w", err)
		}
		if entries.After() > last.Sequence { // the last one is too old by now, and gone
			return nil
		}
		id, e, err := c.decodeEntry(m)
		if err != nil {
			return err
		}
		each(id, e)
	}
	return nil
}

func (c *client) decodeEntry(m jetstream.Msg) (id string, e subjects.Entry, err error) {
	_, id = c.names.Campaign(m.Subject())
	if err := json.Unmarshal(m.Data(), &e); err != nil {
		return "", e, fmt.Errorf("journal %s: %w", m.Subject(), err)
	}
	return id, e, nil
}
