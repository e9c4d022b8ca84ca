package main

import (
	"bufio"
	"cmp"
	"context"
	"encoding/csv"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"iter"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"bulkmail/envelope/escape"
	"bulkmail/subjects"
	"bulkmail/subjects/api"
	"bulkmail/subjects/campaign"
)

func newOutcomes(s *streams) *cobra.Command {
	var status, format string
	cmd := &cobra.Command{
		Use:   "outcomes CAMPAIGN",
		Short: "Print every recipient of a campaign and what became of it",
		Long: `Print one line per recipient with its newest state. Recipients of batches that
no worker has taken up yet have none, and are counted on standard error.

Statuses: ` + statusNames() + `.
deferred alone is not final: it will be tried again.`,
		Example: `  bulkmail outcomes news > news.csv
  bulkmail outcomes news --status rejected,expired --format json`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			wanted, err := statusesOf(status)
			if err != nil {
				return usage(cmd, err)
			}
			if format != "csv" && format != "json" {
				return usage(cmd, fmt.Errorf("--format %q is unknown; use csv or json", format))
			}
			if !subjects.ValidID(args[0]) {
				return usage(cmd, badCampaign(args[0]))
			}
			return runOutcomes(cmd.Context(), s, args[0], wanted, format)
		},
		ValidArgsFunction: completeCampaign(),
	}
	cmd.Flags().StringVar(&status, "status", "", "only recipients in this `STATUS`, or in one of several, separated by commas")
	cmd.Flags().StringVar(&format, "format", "csv", "`csv` or json (one object a line)")
	completeWords(cmd, "format", "csv", "json")
	completeWords(cmd, "status", strings.Split(statusNames(), ", ")...)
	return cmd
}

// statusesOf reads statuses separated by commas; none is all.
func statusesOf(text string) (wanted []subjects.Status, err error) {
	if text == "" {
		return nil, nil
	}
	for name := range strings.SplitSeq(text, ",") {
		status := subjects.Status(strings.TrimSpace(name))
		if !slices.Contains(subjects.Statuses(), status) {
			return nil, fmt.Errorf("--status %q is unknown; use %s", name, statusNames())
		}
		wanted = append(wanted, status)
	}
	return wanted, nil
}

func statusNames() string {
	var names []string
	for _, s := range subjects.Statuses() {
		names = append(names, string(s))
	}
	return strings.Join(names, ", ")
}

func runOutcomes(ctx context.Context, s *streams, name string, wanted []subjects.Status, format string) error {
	c, err := connectToAsk(s, "outcomes")
	if err != nil {
		return err
	}
	defer c.nc.Close()
	buffered := bufio.NewWriter(s.out)
	write := newOutcomeWriter(buffered, format, isTerminal(s.out))
	for o, err := range c.outcomes(ctx, s, name, campaign.Filter{Status: wanted}) {
		if unreadable, ok := errors.AsType[*campaign.EntryError](err); ok {
			warnUnreadable(s, []*campaign.EntryError{unreadable})
			continue
		}
		if errors.Is(err, campaign.ErrNoCampaign) {
			return fmt.Errorf("campaign %s has no outcomes and no batches in the queue: nothing was published under that name", name)
		}
		if err != nil {
			return err
		}
		if err := write.outcome(&o); err != nil {
			return err
		}
	}
	if err := write.flush(); err != nil {
		return err
	}
	if err := buffered.Flush(); err != nil {
		return err
	}
	now, err := c.campaignStatuses(ctx, s, []string{name})
	if err == nil && !now[0].Over() {
		fmt.Fprintf(s.err, "%s without a final outcome yet\n", count(now[0].Outcomes.Left(), "recipient is", "recipients are"))
	}
	return err
}

// outcomes are those that a worker tells, or that are found here where none answers.
func (c *client) outcomes(ctx context.Context, s *streams, name string, f campaign.Filter) iter.Seq2[campaign.Outcome, error] {
	return func(yield func(campaign.Outcome, error) bool) {
		for o, err := range c.workers().Outcomes(ctx, name, f) {
			if !errors.Is(err, api.ErrNoWorker) {
				if !yield(o, err) {
					return
				}
				continue
			}
			campaigns, err := c.alone(ctx, s)
			if err != nil {
				yield(o, err)
				return
			}
			campaigns.Outcomes(ctx, name, f)(yield)
			return
		}
	}
}

// outcomeWriter writes outcomes as CSV or JSON lines. Replies and addresses are
// strangers' texts: no cell is a formula of a spreadsheet, and a terminal obeys
// nothing.
type outcomeWriter struct {
	csv      *csv.Writer
	json     *json.Encoder
	terminal bool
}

func newOutcomeWriter(w io.Writer, format string, terminal bool) *outcomeWriter {
	if format == "json" {
		enc := encoder(w, terminal)
		enc.SetEscapeHTML(false)
		return &outcomeWriter{json: enc}
	}
	c := csv.NewWriter(w)
	// An error stays with the writer and shows at flush.
	_ = c.Write([]string{"campaign", "batch", "recipient", "status", "relay", "code", "enhanced", "text", "attempt", "time"})
	return &outcomeWriter{csv: c, terminal: terminal}
}

func (w *outcomeWriter) flush() error {
	if w.csv == nil {
		return nil
	}
	w.csv.Flush()
	return w.csv.Error()
}

func (w *outcomeWriter) outcome(o *campaign.Outcome) error {
	if w.json != nil {
		return w.json.Encode(o)
	}
	row := []string{
		o.Campaign, o.Batch, o.Recipient, string(o.Status), o.Relay, strconv.Itoa(o.Code), o.Enhanced, o.Text,
		strconv.Itoa(o.Attempt), o.Time.Format(time.RFC3339Nano),
	}
	for i, cell := range row {
		if w.terminal {
			cell = escape.Terminal(cell)
		}
		row[i] = escape.Cell(cell)
	}
	return w.csv.Write(row)
}

// encoder writes JSON, one value a line, that does nothing to a terminal.
func encoder(w io.Writer, terminal bool) *json.Encoder {
	if terminal {
		w = shownJSON{w}
	}
	return json.NewEncoder(w)
}

// shownJSON makes what is written, a whole text at a time, safe for a terminal.
type shownJSON struct{ io.Writer }

func (w shownJSON) Write(text []byte) (int, error) {
	if _, err := w.Writer.Write(escape.JSON(text)); err != nil {
		return 0, err
	}
	return len(text), nil
}

func sortedKeys[K cmp.Ordered, V any](m map[K]V) []K {
	return slices.Sorted(maps.Keys(m))
}
