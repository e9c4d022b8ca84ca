package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/nats-io/nats.go/jetstream"
	"github.com/spf13/cobra"

	"bulkmail/subjects"
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
	Campaign   string                  `json:"campaign"`
	State      subjects.CampaignState  `json:"state"`
	Finished   bool                    `json:"finished"`
	Complete   bool                    `json:"complete"`
	Recipients int                     `json:"recipients"` // published; at least those with an outcome
	Final      int                     `json:"final"`
	Outcomes   map[subjects.Status]int `json:"outcomes"`
	Waiting    uint64                  `json:"waiting"` // batches in the queue

	// With --watch, from the second time on, while anything becomes final.
	PerSecond   float64 `json:"per_second,omitempty"`
	SecondsLeft float64 `json:"seconds_left,omitempty"`
}

// status prints the status once, or again and again.
func (c *client) status(ctx context.Context, s *streams, only []string, asJSON, follow bool) error {
	before, at := map[string]int{}, time.Now()
	for first := true; ; first = false {
		list, err := c.campaignStatuses(ctx, only)
		if err != nil {
			return err
		}
		if first && len(only) == 1 && len(list) == 0 {
			return fmt.Errorf("nothing was published under the campaign %s", only[0])
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
		select {
		case <-time.After(plainEvery):
		case <-ctx.Done():
			return nil
		}
	}
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
	if asJSON {
		enc := json.NewEncoder(s.out)
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
			l.Outcomes[subjects.Deferred], int(l.Waiting), l.pace())
	}
	return t.print(s.out)
}

// campaignStatuses are the campaigns that the broker knows of, or one.
func (c *client) campaignStatuses(ctx context.Context, only []string) ([]campaignStatus, error) {
	bucket, err := openCampaigns(ctx, c.js, c.names)
	if err != nil {
		return nil, err
	}
	names, err := c.campaignNames(ctx, bucket)
	if err != nil {
		return nil, err
	}
	var list []campaignStatus
	for _, name := range sortedKeys(names) {
		if len(only) == 1 && only[0] != name {
			continue
		}
		entry, _, found, err := bucket.get(ctx, name)
		if err != nil {
			return nil, err
		}
		l := campaignStatus{Campaign: name, State: subjects.CampaignRunning, Complete: true}
		if found {
			l.State, l.Complete, l.Recipients = entry.State, entry.Complete, entry.Recipients
		}
		// The queue first: a batch that is settled meanwhile is met in its
		// journal, never in neither.
		if l.Waiting, err = c.waiting(ctx, name); err != nil {
			return nil, err
		}
		if l.Outcomes, err = c.countOutcomes(ctx, name); err != nil {
			return nil, err
		}
		known := 0
		for status, n := range l.Outcomes {
			known += n
			if status.Final() {
				l.Final += n
			}
		}
		l.Recipients = max(l.Recipients, known)
		l.Finished = l.Complete && l.Waiting == 0 && l.Final == l.Recipients
		list = append(list, l)
	}
	return list, nil
}

// campaignNames are the campaigns in the bucket, the queue and the journals.
func (c *client) campaignNames(ctx context.Context, bucket campaigns) (map[string]bool, error) {
	names := make(map[string]bool)
	keys, err := bucket.bucket.Keys(ctx)
	if err != nil && !errors.Is(err, jetstream.ErrNoKeysFound) {
		return nil, err
	}
	for _, key := range keys {
		names[key] = true
	}
	for stream, filter := range map[string]string{
		c.names.BatchesStream():  c.names.Batches("*"),
		c.names.OutcomesStream(): c.names.CampaignOutcomes("*"),
	} {
		st, err := c.js.Stream(ctx, stream)
		if err != nil {
			return nil, err
		}
		info, err := st.Info(ctx, jetstream.WithSubjectFilter(filter))
		if err != nil {
			return nil, err
		}
		for subject := range info.State.Subjects {
			name, _ := c.names.Campaign(subject)
			names[strings.Clone(name)] = true
		}
	}
	return names, nil
}

// countOutcomes counts the recipients of a campaign by their newest status.
// Only what is deferred is kept by name, until it is final.
func (c *client) countOutcomes(ctx context.Context, campaign string) (map[subjects.Status]int, error) {
	counts := make(map[subjects.Status]int)
	deferred := make(map[string]struct{})
	err := c.readJournals(ctx, campaign, func(id string, e subjects.Entry) {
		if e.Event == subjects.Sending {
			return
		}
		for _, r := range e.Results {
			for _, recipient := range r.Recipients {
				key := id + " " + recipient
				if r.Status == subjects.Deferred {
					deferred[key] = struct{}{}
					continue
				}
				delete(deferred, key)
				counts[r.Status]++
			}
		}
	})
	if len(deferred) > 0 {
		counts[subjects.Deferred] = len(deferred)
	}
	return counts, err
}
