package main

import (
	"bufio"
	"cmp"
	"context"
	"encoding/csv"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/nats-io/nats.go/jetstream"
	"github.com/spf13/cobra"

	"bulkmail/subjects"
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
  bulkmail outcomes news --status rejected --format json`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if status != "" && !slices.Contains(subjects.Statuses(), subjects.Status(status)) {
				return usage(cmd, fmt.Errorf("--status %q is unknown; use %s", status, statusNames()))
			}
			if format != "csv" && format != "json" {
				return usage(cmd, fmt.Errorf("--format %q is unknown; use csv or json", format))
			}
			if !subjects.ValidID(args[0]) {
				return usage(cmd, badCampaign(args[0]))
			}
			return runOutcomes(cmd.Context(), s, args[0], subjects.Status(status), format)
		},
		ValidArgsFunction: completeCampaign(),
	}
	cmd.Flags().StringVar(&status, "status", "", "only recipients in this `status`")
	cmd.Flags().StringVar(&format, "format", "csv", "`csv` or json (one object a line)")
	completeWords(cmd, "format", "csv", "json")
	completeWords(cmd, "status", strings.Split(statusNames(), ", ")...)
	return cmd
}

func statusNames() string {
	var names []string
	for _, s := range subjects.Statuses() {
		names = append(names, string(s))
	}
	return strings.Join(names, ", ")
}

func runOutcomes(ctx context.Context, s *streams, campaign string, status subjects.Status, format string) error {
	c, err := connect(ctx, s, "outcomes")
	if err != nil {
		return err
	}
	defer c.nc.Close()

	buffered := bufio.NewWriter(s.out)
	write := newOutcomeWriter(buffered, format)
	// A batch that is done changes no more: its recipients are printed and
	// forgotten, so that memory follows the batches under way.
	open := make(subjects.Journals)
	begun := false
	printBatch := func(id string, state *subjects.State) {
		if err == nil {
			err = printState(write, campaign, id, state, status)
		}
	}
	readErr := c.readJournals(ctx, campaign, func(id string, e subjects.Entry) {
		begun = true
		if state := open.Fold(id, e, nil); state.Done {
			printBatch(id, state)
		}
	})
	if readErr != nil {
		return readErr
	}
	for _, id := range sortedKeys(open) {
		printBatch(id, open[id])
	}
	if err == nil {
		err = write.flush()
	}
	if err == nil {
		err = buffered.Flush()
	}
	if err != nil {
		return err
	}
	waiting, err := c.waiting(ctx, campaign)
	if err != nil {
		return err
	}
	switch {
	case waiting > 0:
		fmt.Fprintf(s.err, "%s in the queue: not everybody has a final outcome yet\n", count(waiting, "batch", "batches"))
	case !begun:
		return fmt.Errorf("campaign %s has no outcomes and no batches in the queue: nothing was published under that name", campaign)
	}
	return nil
}

// printState prints the recipients of one batch, sorted, so that the same
// journal prints the same.
func printState(write *outcomeWriter, campaign, id string, state *subjects.State, status subjects.Status) error {
	for _, recipient := range sortedKeys(state.Results) {
		r := state.Results[recipient]
		if status != "" && r.Status != status {
			continue
		}
		if err := write.outcome(outcome{campaign, id, recipient, r.Status, r.Relay, r.Code, r.Enhanced, r.Text, r.Attempt, r.Time}); err != nil {
			return err
		}
	}
	return nil
}

// outcome is a line of the output. The order of the fields is that of the
// columns, and a contract.
type outcome struct {
	Campaign  string          `json:"campaign"`
	Batch     string          `json:"batch"`
	Recipient string          `json:"recipient"`
	Status    subjects.Status `json:"status"`
	Relay     string          `json:"relay"`
	Code      int             `json:"code"`
	Enhanced  string          `json:"enhanced"`
	Text      string          `json:"text"`
	Attempt   int             `json:"attempt"`
	Time      time.Time       `json:"time"`
}

// outcomeWriter writes outcomes as CSV or JSON lines.
type outcomeWriter struct {
	csv  *csv.Writer
	json *json.Encoder
}

func newOutcomeWriter(w io.Writer, format string) *outcomeWriter {
	if format == "json" {
		enc := json.NewEncoder(w)
		enc.SetEscapeHTML(false)
		return &outcomeWriter{json: enc}
	}
	c := csv.NewWriter(w)
	// An error stays with the writer and shows at flush.
	_ = c.Write([]string{"campaign", "batch", "recipient", "status", "relay", "code", "enhanced", "text", "attempt", "time"})
	return &outcomeWriter{csv: c}
}

func (w *outcomeWriter) flush() error {
	if w.csv == nil {
		return nil
	}
	w.csv.Flush()
	return w.csv.Error()
}

func (w *outcomeWriter) outcome(o outcome) error {
	if w.json != nil {
		return w.json.Encode(o)
	}
	return w.csv.Write([]string{
		o.Campaign, o.Batch, o.Recipient, string(o.Status), o.Relay, strconv.Itoa(o.Code), o.Enhanced, o.Text,
		strconv.Itoa(o.Attempt), o.Time.Format(time.RFC3339Nano),
	})
}

// waiting is the number of a campaign's batches in the queue, those in workers'
// hands and those that wait for their next attempt included.
func (c *client) waiting(ctx context.Context, campaign string) (uint64, error) {
	stream, err := c.js.Stream(ctx, c.names.BatchesStream())
	if err != nil {
		return 0, err
	}
	subject := c.names.Batches(campaign)
	info, err := stream.Info(ctx, jetstream.WithSubjectFilter(subject))
	if err != nil {
		return 0, err
	}
	return info.State.Subjects[subject], nil
}

func sortedKeys[K cmp.Ordered, V any](m map[K]V) []K {
	return slices.Sorted(maps.Keys(m))
}
