package main

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/spf13/cobra"

	"bulkmail/subjects"
	"bulkmail/subjects/campaign"
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
	cmd.AddCommand(newDeadList(s),
		deadCommand(s, "show", "Print dead letters whole", func(ctx context.Context, c *campaign.Client, n uint64) error {
			l, err := c.DeadLetter(ctx, n)
			if err == nil {
				_, err = fmt.Fprintf(s.out, "%s\n", l.Data)
			}
			return err
		}),
		deadCommand(s, "retry", "Publish dead letters again, in the same campaign", func(ctx context.Context, c *campaign.Client, n uint64) error {
			l, batch, err := c.RetryDead(ctx, n)
			if err == nil {
				_, err = fmt.Fprintf(s.out, "%d published again as batch %s of campaign %s: %s\n", n, batch, l.Campaign, count(l.Recipients, "recipient", "recipients"))
			}
			return err
		}),
		deadCommand(s, "drop", "Delete dead letters", func(ctx context.Context, c *campaign.Client, n uint64) error {
			err := c.DropDead(ctx, n)
			if err == nil {
				_, err = fmt.Fprintf(s.out, "%d dropped\n", n)
			}
			return err
		}))
	return cmd
}

// deadCommand makes a command that does something with each of some dead letters.
func deadCommand(s *streams, use, short string, do func(context.Context, *campaign.Client, uint64) error) *cobra.Command {
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
			c, err := connect(cmd.Context(), s, "dead")
			if err != nil {
				return err
			}
			defer c.nc.Close()
			for _, n := range numbers {
				err := do(cmd.Context(), c.campaigns(s), n)
				if errors.Is(err, campaign.ErrNoDeadLetter) {
					return fmt.Errorf("%w, see: bulkmail dead list", err)
				}
				if err != nil {
					return err
				}
			}
			return nil
		},
	}
}

func newDeadList(s *streams) *cobra.Command {
	var name string
	var asJSON bool
	cmd := &cobra.Command{
		Use: "list", Short: "Print the dead letters", Args: cobra.NoArgs,
		Example: "  bulkmail dead list --campaign news",
		RunE: func(cmd *cobra.Command, _ []string) error {
			if name != "" && !subjects.ValidID(name) {
				return usage(cmd, badCampaign(name))
			}
			c, err := connect(cmd.Context(), s, "dead")
			if err != nil {
				return err
			}
			defer c.nc.Close()
			return listDead(cmd.Context(), s, c.campaigns(s), name, asJSON)
		},
	}
	cmd.Flags().StringVar(&name, "campaign", "", "only of this `CAMPAIGN`")
	completeCampaignFlag(cmd, "campaign")
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON, one object a line")
	return cmd
}

func listDead(ctx context.Context, s *streams, campaigns *campaign.Client, name string, asJSON bool) error {
	t := newTable("#number", "time", "campaign", "batch", "cause", "#recipients", "codes", "reason")
	enc := encoder(s.out, isTerminal(s.out))
	for l, err := range campaigns.DeadLetters(ctx, name) {
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
