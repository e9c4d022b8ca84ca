package main

import (
	"context"
	"fmt"

	"github.com/spf13/cobra"

	"bulkmail/subjects"
	"bulkmail/subjects/campaign"
)

func newPause(s *streams) *cobra.Command {
	return stateCommand(s, "pause", "Pause a campaign: envelopes in flight finish, nothing new is sent",
		subjects.CampaignPaused, (*campaign.Client).Pause)
}

func newResume(s *streams) *cobra.Command {
	return stateCommand(s, "resume", "Go on with a campaign that was paused",
		subjects.CampaignRunning, (*campaign.Client).Resume)
}

func newCancel(s *streams) *cobra.Command {
	return stateCommand(s, "cancel", "Cancel a campaign for good: who was not sent to yet gets the outcome cancelled",
		subjects.CampaignCancelled, (*campaign.Client).Cancel)
}

// stateCommand makes a command that brings a campaign into a state.
func stateCommand(s *streams, use, short string, state subjects.CampaignState,
	set func(c *campaign.Client, ctx context.Context, name, why string) (subjects.CampaignState, error),
) *cobra.Command {
	var why string
	cmd := &cobra.Command{
		Use:               use + " CAMPAIGN",
		Short:             short,
		Example:           "  bulkmail " + use + " news",
		Args:              cobra.ExactArgs(1),
		ValidArgsFunction: completeCampaign(),
		RunE: func(cmd *cobra.Command, args []string) error {
			if !subjects.ValidID(args[0]) {
				return usage(cmd, badCampaign(args[0]))
			}
			c, err := connect(cmd.Context(), s, use)
			if err != nil {
				return err
			}
			defer c.nc.Close()
			before, err := set(c.campaigns(s), cmd.Context(), args[0], why)
			if err != nil {
				return err
			}
			_, err = fmt.Fprintf(s.out, "campaign %s: was %s, is %s\n", args[0], before, state)
			return err
		},
	}
	cmd.Flags().StringVar(&why, "why", "", "a `REASON` to keep with the change, which status --json shows")
	return cmd
}

func badCampaign(name string) error {
	return fmt.Errorf("campaign %q: use 1 to 64 letters, digits, - or _", name)
}
