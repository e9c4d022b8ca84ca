package campaign

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"bulkmail/envelope"
	"bulkmail/subjects"
)

// A DeadLetter is a batch that could not be read, or what was still deferred when
// the time for retries was over.
type DeadLetter struct {
	Number     uint64    `json:"number"`
	Time       time.Time `json:"time"`
	Campaign   string    `json:"campaign"`
	Batch      string    `json:"batch"`
	Cause      string    `json:"cause"`      // [subjects.CauseUnreadable] or [subjects.CauseExpired]
	Recipients int       `json:"recipients"` // 0 where the batch cannot be read
	Codes      string    `json:"codes"`      // the distinct last SMTP codes, blank-separated
	Reason     string    `json:"reason"`
	Data       []byte    `json:"-"` // the batch as published, or its rest
}

func (c *Client) dead(ctx context.Context) (jetstream.Stream, error) {
	stream, err := c.js.Stream(ctx, c.names.DeadStream())
	if err != nil {
		return nil, fmt.Errorf("stream %s: %w", c.names.DeadStream(), err)
	}
	return stream, nil
}

// DeadLetters yields the dead letters of a campaign, or of all where it is empty,
// the oldest first.
func (c *Client) DeadLetters(ctx context.Context, campaign string) iter.Seq2[DeadLetter, error] {
	return func(yield func(DeadLetter, error) bool) {
		subject := c.names.Dead("*")
		if campaign != "" {
			if err := checkName(campaign); err != nil {
				yield(DeadLetter{}, err)
				return
			}
			subject = c.names.Dead(campaign)
		}
		stream, err := c.dead(ctx)
		if err != nil {
			yield(DeadLetter{}, err)
			return
		}
		for next := uint64(1); ; {
			m, err := stream.GetMsg(ctx, next, jetstream.WithGetMsgSubject(subject))
			if errors.Is(err, jetstream.ErrMsgNotFound) {
				return
			}
			if err != nil {
				yield(DeadLetter{}, fmt.Errorf("stream %s: %w", c.names.DeadStream(), err))
				return
			}
			next = m.Sequence + 1
			if !yield(c.letter(m), nil) {
				return
			}
		}
	}
}

func (c *Client) letter(m *jetstream.RawStreamMsg) DeadLetter {
	l := DeadLetter{
		Number: m.Sequence, Time: m.Time.UTC().Truncate(time.Second), Batch: m.Header.Get(subjects.HeaderBatch),
		Cause: m.Header.Get(subjects.HeaderCause), Codes: m.Header.Get(subjects.HeaderCodes), Reason: m.Header.Get(subjects.HeaderReason),
		Data: m.Data,
	}
	l.Campaign, _ = c.names.Campaign(m.Subject)
	if b, err := envelope.Decode(m.Data); err == nil {
		l.Recipients = len(b.Recipients)
	}
	return l
}

// unreadable are the dead letters of batches that could not be read: no journal
// says what became of their recipients.
func (c *Client) unreadable(ctx context.Context, campaign string) ([]DeadLetter, error) {
	var letters []DeadLetter
	for l, err := range c.DeadLetters(ctx, campaign) {
		if err != nil {
			return nil, err
		}
		if l.Cause != subjects.CauseExpired { // which is an outcome
			letters = append(letters, l)
		}
	}
	return letters, nil
}

// DeadLetter returns one dead letter. The error is [ErrNoDeadLetter] where there
// is none of that number.
func (c *Client) DeadLetter(ctx context.Context, number uint64) (DeadLetter, error) {
	stream, err := c.dead(ctx)
	if err != nil {
		return DeadLetter{}, err
	}
	m, err := stream.GetMsg(ctx, number)
	if errors.Is(err, jetstream.ErrMsgNotFound) {
		return DeadLetter{}, fmt.Errorf("%w %d", ErrNoDeadLetter, number)
	}
	if err != nil {
		return DeadLetter{}, fmt.Errorf("dead letter %d: %w", number, err)
	}
	return c.letter(m), nil
}

// RetryDead publishes a dead letter as a new batch of its campaign, and takes it
// away once that is stored. It returns the letter and the id of the batch, which is
// made of the letter's number, so that a retry cut short in between and repeated is
// the same batch.
func (c *Client) RetryDead(ctx context.Context, number uint64) (l DeadLetter, batch string, err error) {
	if l, err = c.DeadLetter(ctx, number); err != nil {
		return l, "", err
	}
	b, err := envelope.Decode(l.Data)
	if err != nil {
		return l, "", fmt.Errorf("dead letter %d: it cannot be read (%w): publish it anew, put right, and drop this one", number, err)
	}
	b.ID = retryID(l)
	msg := &nats.Msg{Subject: c.names.Batches(l.Campaign), Data: b.AppendJSON(nil)}
	if _, err := c.js.PublishMsg(ctx, msg, jetstream.WithMsgID(l.Campaign+"."+b.ID), jetstream.WithExpectStream(c.names.BatchesStream())); err != nil {
		return l, "", fmt.Errorf("dead letter %d: %w", number, err)
	}
	return l, b.ID, c.DropDead(ctx, number)
}

// retryID is the id of the batch that a dead letter becomes.
func retryID(l DeadLetter) string {
	suffix := fmt.Sprintf("-r%d", l.Number)
	id := l.Batch
	if !subjects.ValidID(id) {
		id = "dead"
	}
	return id[:min(len(id), 64-len(suffix))] + suffix
}

// DropDead deletes a dead letter. The error is [ErrNoDeadLetter] where there is
// none of that number.
func (c *Client) DropDead(ctx context.Context, number uint64) error {
	stream, err := c.dead(ctx)
	if err != nil {
		return err
	}
	err = stream.DeleteMsg(ctx, number)
	if err == nil {
		return nil
	}
	// The broker does not say that it has none in a way that can be told apart.
	if _, err := stream.GetMsg(ctx, number); errors.Is(err, jetstream.ErrMsgNotFound) {
		return fmt.Errorf("%w %d", ErrNoDeadLetter, number)
	}
	return fmt.Errorf("dead letter %d: %w", number, err)
}
