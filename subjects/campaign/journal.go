package campaign

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"iter"

	"github.com/nats-io/nats.go/jetstream"

	"bulkmail/subjects"
	"bulkmail/subjects/tail"
)

// An entry of the journal of a batch.
type entry struct {
	subjects.Entry
	subject         string
	campaign, batch string
	sequence        uint64 // in the stream
}

// entries yields the entries of journals as they stand now, in order; subject
// says of which. After an [*EntryError] it goes on.
func (c *Client) entries(ctx context.Context, subject string) iter.Seq2[entry, error] {
	return func(yield func(entry, error) bool) {
		last, err := c.lastEntry(ctx, subject)
		if err != nil {
			yield(entry{}, err)
			return
		}
		if last == 0 {
			return
		}
		journals, err := tail.Open(ctx, c.js, c.names.OutcomesStream(), subject, 0)
		if err != nil {
			yield(entry{}, fmt.Errorf("read journals: %w", err))
			return
		}
		defer journals.Stop(ctx)
		for journals.After() < last {
			m, err := journals.Next(ctx)
			if err != nil {
				yield(entry{}, fmt.Errorf("read journals: %w", err))
				return
			}
			if journals.After() > last { // the last one is too old by now, and gone
				return
			}
			if !yield(c.decode(m.Subject(), m.Data(), journals.After())) {
				return
			}
		}
	}
}

// lastEntry is the sequence of the last entry of journals; 0: there is none.
func (c *Client) lastEntry(ctx context.Context, subject string) (uint64, error) {
	stream, err := c.js.Stream(ctx, c.names.OutcomesStream())
	if err != nil {
		return 0, fmt.Errorf("stream %s: %w", c.names.OutcomesStream(), err)
	}
	last, err := stream.GetLastMsgForSubject(ctx, subject)
	if errors.Is(err, jetstream.ErrMsgNotFound) {
		return 0, nil
	}
	if err != nil {
		return 0, fmt.Errorf("read journals: %w", err)
	}
	return last.Sequence, nil
}

func (c *Client) decode(subject string, data []byte, sequence uint64) (entry, error) {
	e := entry{subject: subject, sequence: sequence}
	e.campaign, e.batch = c.names.Campaign(subject)
	if err := json.Unmarshal(data, &e.Entry); err != nil {
		return e, &EntryError{Subject: subject, Sequence: sequence, Err: err}
	}
	return e, nil
}
