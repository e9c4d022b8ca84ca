package main

import (
	"context"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"bulkmail/subjects"
	"bulkmail/subjects/campaign"
)

func newStatus(s *streams) *cobra.Command {
	var asJSON, follow bool
	cmd := &cobra.Command{
		Use:   "status [CAMPAIGN]",
		Short: "Print the campaigns: how far they are, what waits, and how the relays are",
		Long: `Print one line per campaign: its state, recipients published, final and deferred,
and its batches in the queue. A campaign is complete when its whole list was
published, and finished when in addition nothing of it waits and every recipient
has a final outcome. Recipients of batches that were published by other programs
are counted from their outcomes.

Without a campaign, also one line per relay: how many workers have it and how
they find it.`,
		Example: `  bulkmail status
  bulkmail status news --watch`,
		Args:              cobra.MaximumNArgs(1),
		ValidArgsFunction: completeCampaign(),
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) == 1 && !subjects.ValidID(args[0]) {
				return usage(cmd, badCampaign(args[0]))
			}
			c, err := connect(cmd.Context(), s, "status")
			if err != nil {
				return err
			}
			defer c.nc.Close()
			return c.status(cmd.Context(), s, args, asJSON, follow)
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON, one object a line")
	cmd.Flags().BoolVarP(&follow, "watch", "w", false, "print again every two seconds, with the rate and the time left")
	return cmd
}

// campaignStatus is a line of status.
type campaignStatus struct {
	campaign.Status

	// With --watch, from the second time on, while anything becomes final.
	PerSecond   float64 `json:"per_second,omitempty"`
	SecondsLeft float64 `json:"seconds_left,omitempty"`
}

// status prints the status once, or again and again.
func (c *client) status(ctx context.Context, s *streams, only []string, asJSON, follow bool) error {
	campaigns := c.campaigns(s)
	before, at := map[string]int{}, time.Now()
	for first := true; ; first = false {
		list, err := campaignStatuses(ctx, campaigns, only)
		if err != nil {
			return err
		}
		for i := range list {
			if l := &list[i]; !first && l.Final > before[l.Campaign] {
				l.PerSecond = float64(l.Final-before[l.Campaign]) / time.Since(at).Seconds()
				l.SecondsLeft = float64(l.Recipients-l.Final) / l.PerSecond
			}
		}
		at = time.Now()
		if err := printStatuses(s, list, asJSON); err != nil {
			return err
		}
		if len(only) == 0 {
			if err := c.printRelays(ctx, s, asJSON); err != nil {
				return err
			}
		}
		if !follow {
			return nil
		}
		before = make(map[string]int)
		for _, l := range list {
			before[l.Campaign] = l.Final
		}
		if !wait(ctx, plainEvery) {
			return nil
		}
	}
}

// campaignStatuses are those of all campaigns, or of one.
func campaignStatuses(ctx context.Context, campaigns *campaign.Client, only []string) ([]campaignStatus, error) {
	var all []campaign.Status
	var err error
	if len(only) == 0 {
		all, err = campaigns.Statuses(ctx)
	} else {
		all = make([]campaign.Status, 1)
		all[0], err = campaigns.Status(ctx, only[0])
	}
	if err != nil {
		return nil, err
	}
	list := make([]campaignStatus, len(all))
	for i := range all {
		list[i].Status = all[i]
	}
	return list, nil
}

// pace is the rate of a campaign and the time left at that rate.
func (l campaignStatus) pace() string {
	if l.PerSecond <= 0 {
		return ""
	}
	left := time.Duration(l.SecondsLeft * float64(time.Second))
	return fmt.Sprintf("%s/s, %s left", number(int(l.PerSecond)), left.Round(time.Second))
}

func printStatuses(s *streams, list []campaignStatus, asJSON bool) error {
	for _, l := range list {
		warnUnreadable(s, l.Unreadable)
	}
	if asJSON {
		enc := encoder(s.out, isTerminal(s.out))
		for _, l := range list {
			if err := enc.Encode(l); err != nil {
				return err
			}
		}
		return nil
	}
	t := newTable("campaign", "state", "#recipients", "#final", "#accepted", "#rejected", "#deferred", "#batches waiting", "pace")
	for _, l := range list {
		state := string(l.State)
		switch {
		case l.Finished && l.State == subjects.CampaignRunning:
			state = "finished"
		case l.State == subjects.CampaignRunning && !l.Complete && l.Waiting == 0:
			state = "incomplete"
		}
		t.row(l.Campaign, state, l.Recipients, l.Final, l.Outcomes[subjects.Accepted], l.Outcomes[subjects.Rejected],
			l.Outcomes[subjects.Deferred], l.Waiting, l.pace())
	}
	return t.print(s.out)
}
