package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"iter"
	"strconv"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/spf13/cobra"

	"bulkmail/envelope"
	"bulkmail/subjects"
)

func newDead(s *streams) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "dead",
		Short: "Look at the dead letters, and retry or drop them",
		Long: `Dead letters are batches that could not be read, and what was still deferred
when BULKMAIL_RETRY_FOR was over. Each has a number.`,
		Example: `  bulkmail dead list
  bulkmail dead retry 17`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	var campaign string
	var asJSON bool
	list := &cobra.Command{
		Use: "list", Short: "Print the dead letters", Args: cobra.NoArgs,
		Example: "  bulkmail dead list --campaign news",
		RunE: func(cmd *cobra.Command, _ []string) error {
			if campaign != "" && !subjects.ValidID(campaign) {
				return usage(cmd, badCampaign(campaign))
			}
			return withDead(cmd.Context(), s, func(ctx context.Context, d *deadLetters) error {
				return d.list(ctx, s, campaign, asJSON)
			})
		},
	}
	list.Flags().StringVar(&campaign, "campaign", "", "only of this `CAMPAIGN`")
	completeCampaignFlag(list, "campaign")
	list.Flags().BoolVar(&asJSON, "json", false, "print JSON, one object a line")
	each := func(use, short string, do func(context.Context, *deadLetters, *jetstream.RawStreamMsg) error) *cobra.Command {
		return &cobra.Command{
			Use: use + " NUMBER...", Short: short, Args: cobra.MinimumNArgs(1), ValidArgsFunction: completeDead(),
			Example: "  bulkmail dead " + use + " 17",
			RunE: func(cmd *cobra.Command, args []string) error {
				numbers := make([]uint64, len(args))
				for i, arg := range args {
					n, err := strconv.ParseUint(arg, 10, 64)
					if err != nil {
						return usage(cmd, fmt.Errorf("%q is no number of a dead letter", arg))
					}
					numbers[i] = n
				}
				return withDead(cmd.Context(), s, func(ctx context.Context, d *deadLetters) error {
					for _, n := range numbers {
						m, err := d.stream.GetMsg(ctx, n)
						if errors.Is(err, jetstream.ErrMsgNotFound) {
							return fmt.Errorf("there is no dead letter %d, see: bulkmail dead list", n)
						}
						if err != nil {
							return fmt.Errorf("dead letter %d: %w", n, err)
						}
						if err := do(ctx, d, m); err != nil {
							return fmt.Errorf("dead letter %d: %w", n, err)
						}
					}
					return nil
				})
			},
		}
	}
	cmd.AddCommand(list,
		each("show", "Print dead letters whole", func(_ context.Context, _ *deadLetters, m *jetstream.RawStreamMsg) error {
			_, err := fmt.Fprintf(s.out, "%s\n", m.Data)
			return err
		}),
		each("retry", "Publish dead letters again, in the same campaign", func(ctx context.Context, d *deadLetters, m *jetstream.RawStreamMsg) error {
			return d.retry(ctx, s, m)
		}),
		each("drop", "Delete dead letters", func(ctx context.Context, d *deadLetters, m *jetstream.RawStreamMsg) error {
			if err := d.stream.DeleteMsg(ctx, m.Sequence); err != nil {
				return err
			}
			_, err := fmt.Fprintf(s.out, "%d dropped\n", m.Sequence)
			return err
		}))
	return cmd
}

// deadLetters is the stream of dead letters.
type deadLetters struct {
	*client
	stream jetstream.Stream
}

func withDead(ctx context.Context, s *streams, do func(context.Context, *deadLetters) error) error {
	c, err := connect(ctx, s, "dead")
	if err != nil {
		return err
	}
	defer c.nc.Close()
	stream, err := c.js.Stream(ctx, c.names.DeadStream())
	if err != nil {
		return err
	}
	return do(ctx, &deadLetters{c, stream})
}

// deadLetter is what list prints.
type deadLetter struct {
	Number     uint64    `json:"number"`
	Time       time.Time `json:"time"`
	Campaign   string    `json:"campaign"`
	Batch      string    `json:"batch"`
	Cause      string    `json:"cause"`
	Recipients int       `json:"recipients"` // 0 where the batch cannot be read
	Codes      string    `json:"codes"`
	Reason     string    `json:"reason"`
}

// letters yields the dead letters of a campaign, or of all, from the first on.
func (d *deadLetters) letters(ctx context.Context, campaign string) iter.Seq2[deadLetter, error] {
	subject := d.names.Dead("*")
	if campaign != "" {
		subject = d.names.Dead(campaign)
	}
	return func(yield func(deadLetter, error) bool) {
		for next := uint64(1); ; {
			m, err := d.stream.GetMsg(ctx, next, jetstream.WithGetMsgSubject(subject))
			if errors.Is(err, jetstream.ErrMsgNotFound) {
				return
			}
			if err != nil {
				yield(deadLetter{}, err)
				return
			}
			next = m.Sequence + 1
			l := deadLetter{
				Number: m.Sequence, Time: m.Time.UTC().Truncate(time.Second), Batch: m.Header.Get(subjects.HeaderBatch),
				Cause: m.Header.Get(subjects.HeaderCause), Codes: m.Header.Get(subjects.HeaderCodes), Reason: m.Header.Get(subjects.HeaderReason),
			}
			l.Campaign, _ = d.names.Campaign(m.Subject)
			if b, err := envelope.Decode(m.Data); err == nil {
				l.Recipients = len(b.Recipients)
			}
			if !yield(l, nil) {
				return
			}
		}
	}
}

func (d *deadLetters) list(ctx context.Context, s *streams, campaign string, asJSON bool) error {
	t := newTable("#number", "time", "campaign", "batch", "cause", "#recipients", "codes", "reason")
	enc := json.NewEncoder(s.out)
	for l, err := range d.letters(ctx, campaign) {
		if err != nil {
			return err
		}
		if asJSON {
			if err := enc.Encode(l); err != nil {
				return err
			}
			continue
		}
		t.row(l.Number, l.Time.Format(time.DateTime), l.Campaign, l.Batch, l.Cause, l.Recipients, l.Codes, l.Reason)
	}
	if asJSON {
		return nil
	}
	return t.print(s.out)
}

// retry publishes a dead letter as a new batch, and takes it away once that is
// stored. Its id is made of the dead letter's, so that a retry cut short in
// between and repeated is the same batch.
func (d *deadLetters) retry(ctx context.Context, s *streams, m *jetstream.RawStreamMsg) error {
	b, err := envelope.Decode(m.Data)
	if err != nil {
		return fmt.Errorf("it cannot be read (%w): publish it anew, put right, and drop this one", err)
	}
	campaign, _ := d.names.Campaign(m.Subject)
	b.ID = retryID(m)
	msg := &nats.Msg{Subject: d.names.Batches(campaign), Data: b.AppendJSON(nil)}
	if _, err := d.js.PublishMsg(ctx, msg, jetstream.WithMsgID(campaign+"."+b.ID), jetstream.WithExpectStream(d.names.BatchesStream())); err != nil {
		return err
	}
	if err := d.stream.DeleteMsg(ctx, m.Sequence); err != nil {
		return err
	}
	_, err = fmt.Fprintf(s.out, "%d published again as batch %s of campaign %s: %s\n", m.Sequence, b.ID, campaign, count(len(b.Recipients), "recipient", "recipients"))
	return err
}

// retryID is the id of the batch that a dead letter becomes.
func retryID(m *jetstream.RawStreamMsg) string {
	suffix := fmt.Sprintf("-r%d", m.Sequence)
	id := m.Header.Get(subjects.HeaderBatch)
	if !subjects.ValidID(id) {
		id = "dead"
	}
	return id[:min(len(id), 64-len(suffix))] + suffix
}

// hasMessage tells whether a stream has a message on a subject.
func hasMessage(ctx context.Context, stream jetstream.Stream, subject string) (bool, error) {
	_, err := stream.GetMsg(ctx, 1, jetstream.WithGetMsgSubject(subject))
	if errors.Is(err, jetstream.ErrMsgNotFound) {
		return false, nil
	}
	return err == nil, err
}
