package main

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"regexp"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"bulkmail/envelope"
	"bulkmail/subjects"
	"bulkmail/subjects/campaign"
)

// publishOptions are the flags of publish.
type publishOptions struct {
	from, message, campaign string
	column                  string
	batchSize               int
	wait, inline, json      bool
	dryRun                  bool
	letters                 bool
	listID, kind            string
	test                    string
	maxFailed               string
	list                    string

	mayFail mayFail // of maxFailed
}

//nolint:funlen // most of it is the help
func newPublish(s *streams) *cobra.Command {
	var o publishOptions
	cmd := &cobra.Command{
		Use:   "publish --from ADDRESS --message FILE LIST",
		Short: "Put a list of recipients and a message on the queue",
		Long: `Put a list of recipients and a message on the queue, in batches.

LIST is a file of addresses, one a line ("Ann <ann@example.net>" too, # begins a
comment), or - for standard input. These are lists as well:

  CSV   separated by commas, semicolons, tabs or |; the column of addresses is
        found by its name (Email, E-Mail Address, Adresse e-mail …) and by what
        stands in it, or named by --column
  JSON  one object a line, with "email" or "to"

and what bulkmail outcomes prints; in UTF-8, UTF-16 or Windows-1252, compressed by
gzip or not. A list is read as a stream and grouped by domain on the way. What is no
list, or has half of its first hundred lines unusable, is refused before anything is
sent. Other lines that hold no address are published too, so that they get an
outcome like everybody else (rejected, 553), and are named at the end.

The message is refused without From, with two of From, To, Subject, Date or
Message-ID, and with encoded words in wrong places. Bcc is taken out; Date,
Message-ID and MIME-Version are added where they are missing.

With --letters everybody gets a letter of their own: the message is a template, and
each column of a CSV, or each field of a JSON object, is a variable by its name.
bulkmail preview shows the letters, and says what a template may have.

With --dry-run nothing is sent: it counts recipients, unusable and double lines,
domains, envelopes and bytes, says how long the relays' caps let it take, and what
receivers may mind in the message. It needs neither broker nor relays, and says more
with BULKMAIL_NATS_URL, BULKMAIL_RELAYS or BULKMAIL_RELAYS_FILE.

With --test the message goes to one address, and LIST to nobody. What became of it
is printed, and kept in a campaign of its own that is deleted at the end.

With --wait it says why nothing moves while nothing does, and ends with what became
of everybody, the time taken and the command that lists who did not get it. The exit
code is 1 if more than --max-failed recipients were rejected, expired, are in doubt
or were cancelled (suppressed ones do not count), or if somebody cancelled the
campaign. While it is paused, publish waits on.

It can be repeated: who was published in this campaign before is left out, so an
interrupted run, or a list with some more addresses, sends nothing twice.`,
		Example: `  bulkmail publish --from news@example.com --message hello.eml --wait list.txt
  bulkmail publish --from news@example.com --message hello.eml --dry-run list.txt
  bulkmail publish --from news@example.com --message hello.eml --test me@example.com
  bulkmail publish --from news@example.com --message hello.eml --column Work list.csv.gz
  bulkmail publish --from news@example.com --message newsletter.eml --letters members.csv
  grep @example.net list.txt | bulkmail publish --from '' --message hello.eml --campaign test -`,
		Args: func(cmd *cobra.Command, args []string) error {
			if o.test != "" && len(args) == 0 {
				return nil
			}
			return cobra.ExactArgs(1)(cmd, args)
		},
		ValidArgsFunction: func(cmd *cobra.Command, args []string, typed string) ([]string, cobra.ShellCompDirective) {
			if len(args) > 0 {
				return nil, cobra.ShellCompDirectiveNoFileComp
			}
			return completeFiles(cmd, args, typed)
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) > 0 {
				o.list = args[0]
			}
			if err := o.check(); err != nil {
				return usage(cmd, err)
			}
			return o.run(cmd.Context(), s)
		},
	}
	flags := cmd.Flags()
	flags.StringVar(&o.from, "from", "", "envelope sender `ADDRESS`, with a name or without; '' is the null sender")
	flags.StringVar(&o.message, "message", "", "`FILE` with the message, header and body")
	flags.StringVar(&o.campaign, "campaign", "", "`NAME` under which outcomes are kept (default: made of the message's name and content)")
	flags.BoolVar(&o.letters, "letters", false, "a letter of their own for everybody: the message is a template, LIST has the values")
	addListFlags(flags, &o.listID, &o.kind)
	flags.StringVar(&o.column, "column", "", "`COLUMN` of a table with the addresses, by name or number (default: found)")
	flags.IntVar(&o.batchSize, "batch-size", campaign.DefaultBatchSize, "recipients a batch at most")
	flags.BoolVar(&o.wait, "wait", false, "wait until every recipient has a final outcome")
	flags.StringVar(&o.maxFailed, "max-failed", "0", "with --wait, the exit code is 1 if more than `N` recipients, or N% of them, did not get it")
	flags.BoolVar(&o.dryRun, "dry-run", false, "send nothing, and say what would be sent, how long it takes and what is wrong")
	flags.StringVar(&o.test, "test", "", "send the message to this `ADDRESS` alone, outside the campaign, and say what became of it")
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
	o.from, o.test = bareSender(o.from), bareSender(o.test)
	if _, err := envelope.ParseSender(o.from); err != nil {
		problems = append(problems, fmt.Errorf("--from: %w: write news@example.com or 'News <news@example.com>'", err))
	}
	if o.campaign != "" && !subjects.ValidID(o.campaign) {
		problems = append(problems, fmt.Errorf("--campaign %q: use 1 to 64 letters, digits, - or _", o.campaign))
	}
	problems = append(problems, checkListFlags(o.listID, o.kind)...)
	var err error
	if o.mayFail, err = parseMayFail(o.maxFailed); err != nil {
		problems = append(problems, err)
	}
	if o.test != "" {
		if _, err := envelope.ParseAddress(o.test); err != nil {
			problems = append(problems, fmt.Errorf("--test: %w", err))
		}
		if o.dryRun {
			problems = append(problems, errors.New("--test sends, --dry-run does not: use one of them"))
		}
	}
	if o.batchSize < 1 {
		problems = append(problems, fmt.Errorf("--batch-size %d: use 1 or more", o.batchSize))
	}
	return errors.Join(problems...)
}

// addListFlags adds what says whom a campaign is to.
func addListFlags(flags *pflag.FlagSet, list, kind *string) {
	flags.StringVar(list, "list", "", "`NAME` of the list, as List-Id and unsubscribes have it")
	flags.StringVar(kind, "kind", "", "`KIND` of mail: bulk, or transactional, from which nobody unsubscribes (default: as before, else bulk)")
}

func checkListFlags(list, kind string) (problems []error) {
	if list != "" && !subjects.ValidID(list) {
		problems = append(problems, fmt.Errorf("--list %q: use 1 to 64 letters, digits, - or _", list))
	}
	if k := subjects.CampaignKind(kind); k != "" && k != subjects.KindBulk && k != subjects.KindTransactional {
		problems = append(problems, fmt.Errorf("--kind %s: use %s or %s", kind, subjects.KindBulk, subjects.KindTransactional))
	}
	return problems
}

// notOfID is what cannot stand in an id.
var notOfID = regexp.MustCompile(`[^A-Za-z0-9_-]+`)

// campaignOf is the name of a campaign that was given none: of the message's file,
// and what is in it.
func campaignOf(file, message string) string {
	base := strings.TrimSuffix(filepath.Base(file), filepath.Ext(file))
	base = strings.Trim(notOfID.ReplaceAllString(base, "-"), "-")
	return base[:min(len(base), 48)] + "-" + campaign.Digest(message)[:8]
}

// bareSender is the address of "News <news@example.com>"; the name is the business
// of the message's From.
func bareSender(from string) string {
	if open := strings.LastIndexByte(from, '<'); open >= 0 && strings.HasSuffix(from, ">") {
		return strings.TrimSpace(from[open+1 : len(from)-1])
	}
	return from
}

func (o *publishOptions) run(ctx context.Context, s *streams) error {
	began := time.Now()
	raw, checks, err := o.readMessage()
	if err != nil {
		return err
	}
	if !o.dryRun {
		if err := o.judgeMessage(s, checks); err != nil {
			return err
		}
	}
	if o.campaign == "" {
		o.campaign = campaignOf(o.message, raw)
	}
	if o.test != "" {
		return o.trialOf(ctx, s, raw)
	}
	l, closeList, err := o.openList(s)
	if err != nil {
		return err
	}
	defer closeList()
	p, err := o.publication(raw)
	if err != nil {
		return err
	}
	p.Campaign, p.List, p.Inline = o.campaign, of(o.list, campaign.Recipients(l)), o.inline
	if o.dryRun {
		return o.dryRunOf(ctx, s, p, checks)
	}
	c, err := connect(ctx, s, "publish")
	if err != nil {
		return err
	}
	defer c.nc.Close()
	campaigns := c.campaigns(s)
	receipt, err := publish(ctx, s, campaigns, p)
	o.warnUnusable(s, receipt.Unusable, l.Blank())
	if err != nil {
		return o.explain(receipt, err)
	}
	if !o.wait {
		return o.report(s, receipt, nil, 0)
	}
	summary, err := follow(ctx, s, campaigns, o.campaign)
	if err != nil {
		return err
	}
	return o.report(s, receipt, summary, time.Since(began))
}

// publication is what is published, but for the campaign and its list.
func (o *publishOptions) publication(message string) (campaign.Publication, error) {
	p := campaign.Publication{
		From: o.from, Message: message, Letters: o.letters, BatchSize: o.batchSize,
		ListID: o.listID, Kind: subjects.CampaignKind(o.kind),
	}
	c, _, err := loadConfig()
	if err != nil {
		return p, err
	}
	read, err := loadKeys(c.KeysFile)
	p.Key = read.First()
	return p, err
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
	if _, ok := errors.AsType[*campaign.MessageError](err); ok {
		err = o.aboutMessage(err)
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
	if e.Inline {
		return fmt.Errorf("with the message inline a batch has %s bytes, and the broker takes %s: leave out --inline, then the message is stored once, or raise the broker's max_payload", number(e.Bytes), number(e.Limit))
	}
	return e
}
