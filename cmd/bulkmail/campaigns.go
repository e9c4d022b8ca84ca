package main

import (
	"context"
	"fmt"

	"github.com/spf13/cobra"

	"bulkmail/subjects"
)

func newPause(s *streams) *cobra.Command {
	return stateCommand(s, "pause", "Pause a campaign: envelopes in flight finish, nothing new is sent",
		subjects.CampaignPaused)
}

func newResume(s *streams) *cobra.Command {
	return stateCommand(s, "resume", "Go on with a campaign that was paused", subjects.CampaignRunning)
}

func newCancel(s *streams) *cobra.Command {
	return stateCommand(s, "cancel", "Cancel a campaign for good: who was not sent to yet gets the outcome cancelled",
		subjects.CampaignCancelled)
}

func stateCommand(s *streams, use, short string, state subjects.CampaignState) *cobra.Command {
	return &cobra.Command{
		Use:               use + " CAMPAIGN",
		Short:             short,
		Example:           "  bulkmail " + use + " news",
		Args:              cobra.ExactArgs(1),
		ValidArgsFunction: completeCampaign(),
		RunE: func(cmd *cobra.Command, args []string) error {
			if !subjects.ValidID(args[0]) {
				return usage(cmd, badCampaign(args[0]))
			}
			return setState(cmd.Context(), s, args[0], state)
		},
	}
}

func badCampaign(name string) error {
	return fmt.Errorf("campaign %q: use 1 to 64 letters, digits, - or _", name)
}

// setState changes the state of a campaign. Batches published by hand have no
// entry in the bucket; they get one as long as there is anything of them.
func setState(ctx context.Context, s *streams, campaign string, state subjects.CampaignState) error {
	c, err := connect(ctx, s, string(state))
	if err != nil {
		return err
	}
	defer c.nc.Close()
	bucket, err := openCampaigns(ctx, c.js, c.names)
	if err != nil {
		return err
	}
	if _, _, found, err := bucket.get(ctx, campaign); err != nil {
		return err
	} else if !found {
		known, err := c.known(ctx, campaign)
		if err != nil {
			return err
		}
		if !known {
			return fmt.Errorf("nothing was published under the campaign %s", campaign)
		}
	}
	var before subjects.CampaignState
	err = bucket.update(ctx, campaign, func(entry *subjects.Campaign) error {
		if before = entry.State; before == subjects.CampaignCancelled && state != subjects.CampaignCancelled {
			return fmt.Errorf("campaign %s was cancelled, which is for good", campaign)
		}
		entry.State = state
		return nil
	})
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(s.out, "campaign %s: was %s, is %s\n", campaign, before, state)
	return err
}

// known tells whether a campaign has batches in the queue or outcomes.
func (c *client) known(ctx context.Context, campaign string) (bool, error) {
	waiting, err := c.waiting(ctx, campaign)
	if err != nil || waiting > 0 {
		return waiting > 0, err
	}
	stream, err := c.js.Stream(ctx, c.names.OutcomesStream())
	if err != nil {
		return false, err
	}
	return hasMessage(ctx, stream, c.names.CampaignOutcomes(campaign))
}
