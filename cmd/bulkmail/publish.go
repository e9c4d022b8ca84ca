package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"iter"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/spf13/cobra"

	"bulkmail/envelope"
	"bulkmail/subjects"
	"bulkmail/subjects/campaign"
)

// publishOptions are the flags of publish.
type publishOptions struct {
	from, message, campaign string
	batchSize               int
	wait, inline, json      bool
	list                    string
}

func newPublish(s *streams) *cobra.Command {
	var o publishOptions
	cmd := &cobra.Command{
		Use:   "publish --from ADDRESS --message FILE LIST",
		Short: "Put a list of recipients and a message on the queue",
		Long: `Put a list of recipients and a message on the queue, in batches.

LIST is a file of addresses, one a line ("Ann <ann@example.net>" too, # begins a
comment), or CSV with a column "email", or - for standard input. It is read as a
stream and grouped by domain on the way. Addresses that cannot be sent to are
published too, so that they get an outcome like everybody else.

It can be repeated: who was published in this campaign before is left out, so an
interrupted run, or a list with some more addresses, sends nothing twice.`,
		Example: `  bulkmail publish --from news@example.com --message hello.eml --wait list.txt
  grep @example.net list.txt | bulkmail publish --from '' --message hello.eml --campaign test -`,
		Args: cobra.ExactArgs(1),
		ValidArgsFunction: func(cmd *cobra.Command, args []string, typed string) ([]string, cobra.ShellCompDirective) {
			if len(args) > 0 {
				return nil, cobra.ShellCompDirectiveNoFileComp
			}
			return completeFiles(cmd, args, typed)
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			o.list = args[0]
			if err := o.check(); err != nil {
				return usage(cmd, err)
			}
			return o.run(cmd.Context(), s)
		},
	}
	flags := cmd.Flags()
	flags.StringVar(&o.from, "from", "", "envelope sender `ADDRESS`; '' is the null sender")
	flags.StringVar(&o.message, "message", "", "`FILE` with the message, header and body")
	flags.StringVar(&o.campaign, "campaign", "", "`NAME` under which outcomes are kept (default: made of the message's name and content)")
	flags.IntVar(&o.batchSize, "batch-size", campaign.DefaultBatchSize, "recipients a batch")
	flags.BoolVar(&o.wait, "wait", false, "wait until every recipient has a final outcome")
	flags.BoolVar(&o.inline, "inline", false, "put the message into every batch instead of the object store")
	flags.BoolVar(&o.json, "json", false, "print the result as JSON")
	for _, name := range []string{"from", "message"} {
		if err := cmd.MarkFlagRequired(name); err != nil {
			panic(err)
		}
	}
	completeCampaignFlag(cmd, "campaign")
	return cmd
}

func (o *publishOptions) check() error {
	var problems []error
	if o.from != "" {
		if _, err := envelope.ParseAddress(o.from); err != nil {
			problems = append(problems, fmt.Errorf("--from: %w", err))
		}
	}
	if o.campaign != "" && !subjects.ValidID(o.campaign) {
		problems = append(problems, fmt.Errorf("--campaign %q: use 1 to 64 letters, digits, - or _", o.campaign))
	}
	if o.batchSize < 1 {
		problems = append(problems, fmt.Errorf("--batch-size %d: use 1 or more", o.batchSize))
	}
	return errors.Join(problems...)
}

// notOfID is what cannot stand in an id.
var notOfID = regexp.MustCompile(`[^A-Za-z0-9_-]+`)

func (o *publishOptions) run(ctx context.Context, s *streams) error {
	raw, err := os.ReadFile(o.message)
	if err != nil {
		return fmt.Errorf("--message: %w", err)
	}
	if _, err := envelope.NewMessage(string(raw)); err != nil {
		return fmt.Errorf("--message %s: %w", o.message, err)
	}
	if o.inline && !utf8.Valid(raw) {
		return fmt.Errorf("--message %s: it is not UTF-8, which a batch must be: leave out --inline", o.message)
	}
	list := s.in
	if o.list != "-" {
		f, err := os.Open(o.list)
		if err != nil {
			return err
		}
		defer f.Close()
		list = f
	}
	if o.campaign == "" {
		base := strings.TrimSuffix(filepath.Base(o.message), filepath.Ext(o.message))
		base = strings.Trim(notOfID.ReplaceAllString(base, "-"), "-")
		o.campaign = base[:min(len(base), 48)] + "-" + campaign.Digest(string(raw))[:8]
	}
	c, err := connect(ctx, s, "publish")
	if err != nil {
		return err
	}
	defer c.nc.Close()
	campaigns := c.campaigns(s)
	receipt, err := publish(ctx, s, campaigns, campaign.Publication{
		Campaign: o.campaign, From: o.from, Message: string(raw), List: of(o.list, campaign.ReadList(list)),
		BatchSize: o.batchSize, Inline: o.inline,
	})
	if err != nil {
		return o.explain(receipt, err)
	}
	if !o.wait {
		return o.report(s, receipt, nil)
	}
	summary, err := follow(ctx, s, campaigns, o.campaign)
	if err != nil {
		return err
	}
	return o.report(s, receipt, summary)
}

// of names the list in its errors.
func of(name string, list iter.Seq2[campaign.Recipient, error]) iter.Seq2[campaign.Recipient, error] {
	return func(yield func(campaign.Recipient, error) bool) {
		for r, err := range list {
			if err != nil {
				err = fmt.Errorf("%s: %w", name, err)
			}
			if !yield(r, err) {
				return
			}
		}
	}
}

// publish publishes and shows how far that is.
func publish(ctx context.Context, s *streams, campaigns *campaign.Client, p campaign.Publication) (campaign.Receipt, error) {
	began := time.Now()
	shown := newProgress(s.err, "published", 0)
	p.Progress = func(r campaign.Receipt) { shown.set(r.Recipients, "") }
	receipt, err := campaigns.Publish(ctx, p)
	if receipt.Batches > 0 || err == nil {
		shown.end(receipt.Recipients, fmt.Sprintf("%s, campaign %s, in %s", count(receipt.Batches, "batch", "batches"), p.Campaign, time.Since(began).Round(time.Millisecond)))
	} else {
		shown.drop()
	}
	return receipt, err
}

// explain says of a publication that failed what to change, in the words of the
// command line.
func (o *publishOptions) explain(receipt campaign.Receipt, err error) error {
	another := func(problem string) error {
		return fmt.Errorf("campaign %s %s: choose another --campaign", o.campaign, problem)
	}
	if _, ok := errors.AsType[*campaign.MessageChangedError](err); ok {
		return another("was published with another message")
	}
	if sender, ok := errors.AsType[*campaign.SenderChangedError](err); ok {
		return another(fmt.Sprintf("was published with the sender %q", sender.Sender))
	}
	if _, ok := errors.AsType[*campaign.CancelledError](err); ok {
		return another("was cancelled")
	}
	if large, ok := errors.AsType[*campaign.TooLargeError](err); ok {
		err = tooLarge(large)
	}
	switch {
	case errors.Is(err, campaign.ErrEmptyList):
		return fmt.Errorf("%s: %w", o.list, err)
	case receipt.Batches > 0:
		return fmt.Errorf("%w; run the same command again to go on where it stopped", err)
	}
	return err
}

func tooLarge(e *campaign.TooLargeError) error {
	if e.Fit == 0 {
		return fmt.Errorf("with the message inline a batch has %s bytes, and the broker takes %s: leave out --inline, then the message is stored once, or raise the broker's max_payload", number(e.Bytes), number(e.Limit))
	}
	return fmt.Errorf("a batch of %s recipients has %s bytes, and the broker takes %s: use a smaller --batch-size, for example %d", number(e.Recipients), number(e.Bytes), number(e.Limit), e.Fit)
}

// report prints the result; summary is nil for who does not wait.
func (o *publishOptions) report(s *streams, receipt campaign.Receipt, summary *campaign.Summary) error {
	if o.json {
		result := struct {
			campaign.Receipt
			Outcomes map[subjects.Status]int `json:"outcomes,omitempty"`
		}{receipt, nil}
		if summary != nil {
			result.Outcomes = finalOutcomes(summary)
		}
		if err := json.NewEncoder(s.out).Encode(result); err != nil {
			return err
		}
	} else {
		line := fmt.Sprintf("campaign %s: %s in %s published", o.campaign, count(receipt.Recipients, "recipient", "recipients"), count(receipt.Batches, "batch", "batches"))
		if receipt.Repeated > 0 {
			line += fmt.Sprintf(", %s left out (in the list twice, or published before)", number(receipt.Repeated))
		}
		if _, err := fmt.Fprintln(s.out, line); err != nil {
			return err
		}
		if summary != nil {
			if err := printSummary(s.out, summary); err != nil {
				return err
			}
		}
	}
	if summary == nil || len(summary.Dead) == 0 {
		return nil
	}
	return fmt.Errorf("%s went to the dead letters, the first because of: %s", count(len(summary.Dead), "batch", "batches"), summary.Dead[0].Reason)
}
