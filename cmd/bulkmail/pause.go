package main

import (
	"context"
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"bulkmail/subjects"
	"bulkmail/subjects/api"
	"bulkmail/subjects/campaign"
)

func newPause(s *streams) *cobra.Command {
	return changing{"pause", "Pause a campaign: envelopes in flight finish, nothing new is sent",
		subjects.CampaignPaused, (*api.Client).Pause, (*campaign.Client).Pause}.command(s)
}

func newResume(s *streams) *cobra.Command {
	return changing{"resume", "Go on with a campaign that was paused",
		subjects.CampaignRunning, (*api.Client).Resume, (*campaign.Client).Resume}.command(s)
}

func newCancel(s *streams) *cobra.Command {
	return changing{"cancel", "Cancel a campaign for good: who was not sent to yet gets the outcome cancelled",
		subjects.CampaignCancelled, (*api.Client).Cancel, (*campaign.Client).Cancel}.command(s)
}

// changing is bringing a campaign into a state.
type changing struct {
	use, short string
	state      subjects.CampaignState
	ask        func(c *api.Client, ctx context.Context, name, why string) (api.Record, subjects.CampaignState, error)
	alone      func(c *campaign.Client, ctx context.Context, name, why string) (subjects.CampaignState, error)
}

func (d changing) command(s *streams) *cobra.Command {
	var why string
	cmd := &cobra.Command{
		Use:   d.use + " CAMPAIGN",
		Short: d.short,
		Long: d.short + `.

A worker is asked to do it. Where none answers it is done here, and said.`,
		Example:           "  bulkmail " + d.use + " news",
		Args:              cobra.ExactArgs(1),
		ValidArgsFunction: completeCampaign(),
		RunE: func(cmd *cobra.Command, args []string) error {
			if !subjects.ValidID(args[0]) {
				return usage(cmd, badCampaign(args[0]))
			}
			c, err := connectToAsk(s, d.use)
			if err != nil {
				return err
			}
			defer c.nc.Close()
			before, err := d.do(cmd.Context(), c, s, args[0], why)
			if err != nil {
				return err
			}
			_, err = fmt.Fprintf(s.out, "campaign %s: was %s, is %s\n", args[0], before, d.state)
			return err
		},
	}
	cmd.Flags().StringVar(&why, "why", "", "a `REASON` to keep with the change, which status --json shows")
	return cmd
}

// do has a worker do it, or does it itself.
func (d changing) do(ctx context.Context, c *client, s *streams, name, why string) (before subjects.CampaignState, err error) {
	_, before, err = d.ask(c.workers(), ctx, name, why)
	if !errors.Is(err, api.ErrNoWorker) {
		return before, err
	}
	campaigns, err := c.alone(ctx, s)
	if err != nil {
		return "", err
	}
	if before, err = d.alone(campaigns, ctx, name, why); err == nil {
		fmt.Fprintln(s.err, "bulkmail: no worker runs; it holds for those that start")
	}
	return before, err
}

func badCampaign(name string) error {
	return fmt.Errorf("campaign %q: use 1 to 64 letters, digits, - or _", name)
}
