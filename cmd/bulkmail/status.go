package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"bulkmail/envelope/escape"
	"bulkmail/subjects"
	"bulkmail/subjects/api"
	"bulkmail/subjects/campaign"
)

func newStatus(s *streams) *cobra.Command {
	var asJSON, follow, detail bool
	cmd := &cobra.Command{
		Use:   "status [CAMPAIGN]",
		Short: "Print the campaigns: how far they are, what waits, and how the relays are",
		Long: `Print one line per campaign: its state, recipients published, how many of them are
queued, deferred, accepted and so on, which add up, and its batches. A campaign is
complete when its whole list was published, and finished when in addition nothing
of it waits and every recipient has a final outcome. Recipients of batches that
were published by other programs are counted when a worker takes these up.

Of a campaign that is named it says why it does not move. Without a campaign, also
one line per relay: how many workers have it and how they find it.`,
		Example: `  bulkmail status
  bulkmail status news --watch
  bulkmail status news --detail`,
		Args:              cobra.MaximumNArgs(1),
		ValidArgsFunction: completeCampaign(),
		RunE: func(cmd *cobra.Command, args []string) error {
			if detail && len(args) == 0 {
				return usage(cmd, errors.New("--detail is about one campaign: name it"))
			}
			if len(args) == 1 && !subjects.ValidID(args[0]) {
				return usage(cmd, badCampaign(args[0]))
			}
			c, err := connectToAsk(s, "status")
			if err != nil {
				return err
			}
			defer c.nc.Close()
			if detail {
				return c.detail(cmd.Context(), s, args, asJSON)
			}
			return c.status(cmd.Context(), s, args, asJSON, follow)
		},
	}
	cmd.Flags().BoolVar(&detail, "detail", false, "of the campaign that is named, how its recipients spread over relays, receiving domains and replies: the 20 largest; with --json also over the minutes of the last day")
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON, one object a line")
	cmd.Flags().BoolVarP(&follow, "watch", "w", false, "print again every two seconds, with the rate and the time left, until the campaign that is named is over")
	return cmd
}

// status prints the status once, or again and again: until the campaign that is
// named is over, or ctx ends.
func (c *client) status(ctx context.Context, s *streams, only []string, asJSON, follow bool) error {
	shown := screen{out: s.out, redraws: follow && !asJSON && isTerminal(s.out)}
	for {
		list, err := c.campaignStatuses(ctx, s, only)
		if err != nil {
			return err
		}
		if err := shown.draw(s, func(s *streams) error {
			if err := printStatuses(s, list, asJSON, follow); err != nil || len(only) > 0 {
				return err
			}
			return c.printRelays(ctx, s, asJSON)
		}); err != nil {
			return err
		}
		if !follow || len(only) > 0 && list[0].Over() || !wait(ctx, plainEvery) {
			return nil
		}
	}
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

// campaignStatuses are those of all campaigns, or of one: as a worker tells, or as
// they are found here where no worker answers.
func (c *client) campaignStatuses(ctx context.Context, s *streams, only []string) ([]campaign.Status, error) {
	list, err := statusesFrom(ctx, c.workers(), only)
	if !errors.Is(err, api.ErrNoWorker) {
		return list, err
	}
	campaigns, err := c.alone(ctx, s)
	if err != nil {
		return nil, err
	}
	return statusesFrom(ctx, campaigns, only)
}

// statusSource is who tells how campaigns are.
type statusSource interface {
	Status(ctx context.Context, name string) (campaign.Status, error)
	Statuses(ctx context.Context) ([]campaign.Status, error)
}

func statusesFrom(ctx context.Context, source statusSource, only []string) ([]campaign.Status, error) {
	if len(only) == 0 {
		return source.Statuses(ctx)
	}
	one, err := source.Status(ctx, only[0])
	return []campaign.Status{one}, err
}

// pace is the rate of a campaign and the time left at that rate.
func pace(l *campaign.Status) string {
	if l.Rate <= 0 || l.Ends == nil {
		return ""
	}
	return fmt.Sprintf("%s/s, %s left", number(int(l.Rate)), l.Ends.Sub(l.AsOf).Round(time.Second))
}

func printStatuses(s *streams, list []campaign.Status, asJSON, follow bool) error {
	for i := range list {
		warnUnreadable(s, list[i].Unreadable)
	}
	if asJSON {
		enc := encoder(s.out, isTerminal(s.out))
		for i := range list {
			if err := enc.Encode(&list[i]); err != nil {
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
		if slices.ContainsFunc(list, func(l campaign.Status) bool { return l.Outcomes.Of(status) > 0 }) {
			header, columns = append(header, "#"+string(status)), append(columns, status)
		}
	}
	paced := follow && slices.ContainsFunc(list, func(l campaign.Status) bool { return pace(&l) != "" })
	last := "#batches"
	if paced {
		last = "pace"
	}
	t := newTable(append(header, last)...)
	for i := range list {
		l := &list[i]
		cells := []any{l.Campaign, word(l), l.Published, l.Outcomes.Queued}
		for _, status := range columns {
			cells = append(cells, l.Outcomes.Of(status))
		}
		if paced {
			cells = append(cells, pace(l))
		} else {
			cells = append(cells, l.Batches)
		}
		t.row(cells...)
	}
	if err := t.print(s.out); err != nil {
		return err
	}
	if len(list) == 1 && list[0].Reason.Text != "" {
		fmt.Fprintln(s.out, "waiting: "+escape.Terminal(list[0].Reason.Text))
	}
	return nil
}

// word is the state of the campaign in one word.
func word(l *campaign.Status) string {
	switch {
	case l.Finished && l.State == subjects.CampaignRunning:
		return "finished"
	case l.State == subjects.CampaignRunning && !l.Complete && l.Outcomes.Left() == 0:
		return "incomplete"
	}
	return string(l.State)
}
