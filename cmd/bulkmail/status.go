package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"bulkmail/envelope/escape"
	"bulkmail/subjects"
	"bulkmail/subjects/campaign"
)

func newStatus(s *streams) *cobra.Command {
	var asJSON, follow bool
	cmd := &cobra.Command{
		Use:   "status [CAMPAIGN]",
		Short: "Print the campaigns: how far they are, what waits, and how the relays are",
		Long: `Print one line per campaign: its state, recipients published, how many of them are
queued, deferred, accepted and so on, which add up, and its batches in the queue. A
campaign is complete when its whole list was published, and finished when in
addition nothing of it waits and every recipient has a final outcome. Recipients of
batches that were published by other programs are counted from their outcomes.

Of a campaign that is named it says why it does not move. Without a campaign, also
one line per relay: how many workers have it and how they find it.`,
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
	cmd.Flags().BoolVarP(&follow, "watch", "w", false, "print again every two seconds, with the rate and the time left, until the campaign that is named is over")
	return cmd
}

// campaignStatus is a line of status.
type campaignStatus struct {
	campaign.Status
	campaign.Reason // of a campaign that is named: why it does not move

	// With --watch, from the second time on, while anything becomes final.
	PerSecond   float64 `json:"per_second,omitempty"`
	SecondsLeft float64 `json:"seconds_left,omitempty"`
}

// status prints the status once, or again and again: until the campaign that is
// named is over, or ctx ends.
func (c *client) status(ctx context.Context, s *streams, only []string, asJSON, follow bool) error {
	campaigns := c.campaigns(s)
	shown := screen{out: s.out, redraws: follow && !asJSON && isTerminal(s.out)}
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
		if err := shown.draw(s, func(s *streams) error {
			if err := printStatuses(s, list, asJSON); err != nil || len(only) > 0 {
				return err
			}
			return c.printRelays(ctx, s, asJSON)
		}); err != nil {
			return err
		}
		if !follow || len(only) > 0 && list[0].over() {
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

// over tells whether nothing more will happen to the campaign.
func (l campaignStatus) over() bool {
	return l.Finished || l.State == subjects.CampaignCancelled && l.Waiting == 0
}

// A screen is what is drawn again and again: in place on a terminal, one below the
// other elsewhere.
type screen struct {
	out     io.Writer
	redraws bool
	lines   int // of what is there
}

func (w *screen) draw(s *streams, show func(*streams) error) error {
	var text bytes.Buffer
	if err := show(&streams{s.in, &text, s.err}); err != nil {
		return err
	}
	if !w.redraws {
		_, err := w.out.Write(text.Bytes())
		return err
	}
	_, err := io.WriteString(w.out, w.over(text.String(), terminalWidth(w.out)))
	return err
}

// over is what puts a text in the place of the one before. A line that wrapped
// would be two.
func (w *screen) over(text string, width int) string {
	var b strings.Builder
	if w.lines > 0 {
		fmt.Fprintf(&b, "\x1b[%dA\r\x1b[J", w.lines)
	}
	w.lines = 0
	for line := range strings.Lines(text) {
		b.WriteString(cropped(strings.TrimRight(line, " \n"), width) + "\n")
		w.lines++
	}
	return b.String()
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
	if len(only) > 0 {
		list[0].Reason, err = campaigns.Reason(ctx, only[0])
		if err != nil && ctx.Err() == nil { // its user may not be allowed to see the relays
			err = nil
		}
	}
	return list, err
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
	// Whoever was published is in one of the columns: they add up. Those that
	// nobody is in are left out, but for the usual ones.
	header := []string{"campaign", "state", "#recipients", "#queued", "#deferred", "#accepted", "#rejected"}
	columns := []subjects.Status{subjects.Deferred, subjects.Accepted, subjects.Rejected}
	for _, status := range []subjects.Status{subjects.Expired, subjects.Suppressed, subjects.Cancelled, subjects.InDoubt} {
		if slices.ContainsFunc(list, func(l campaignStatus) bool { return l.Outcomes[status] > 0 }) {
			header, columns = append(header, "#"+string(status)), append(columns, status)
		}
	}
	paced := slices.ContainsFunc(list, func(l campaignStatus) bool { return l.pace() != "" })
	last := "#batches"
	if paced {
		last = "pace"
	}
	t := newTable(append(header, last)...)
	for _, l := range list {
		cells := []any{l.Campaign, l.word(), l.Recipients, l.queued()}
		for _, status := range columns {
			cells = append(cells, l.Outcomes[status])
		}
		if paced {
			cells = append(cells, l.pace())
		} else {
			cells = append(cells, l.Waiting)
		}
		t.row(cells...)
	}
	if err := t.print(s.out); err != nil {
		return err
	}
	for _, l := range list {
		if l.Reason.Text != "" && len(list) == 1 {
			fmt.Fprintln(s.out, "waiting: "+escape.Terminal(l.Reason.Text))
		}
	}
	return nil
}

// word is the state of the campaign in one word.
func (l campaignStatus) word() string {
	switch {
	case l.Finished && l.State == subjects.CampaignRunning:
		return "finished"
	case l.State == subjects.CampaignRunning && !l.Complete && l.Waiting == 0:
		return "incomplete"
	}
	return string(l.State)
}

// queued is how many have no outcome yet.
func (l campaignStatus) queued() int {
	n := l.Recipients
	for _, of := range l.Outcomes {
		n -= of
	}
	return max(0, n)
}
