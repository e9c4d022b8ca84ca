package main

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/spf13/cobra"

	"bulkmail/envelope"
	"bulkmail/subjects"
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
	flags.IntVar(&o.batchSize, "batch-size", 1000, "recipients a batch")
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

// A publication is one run of publish.
type publication struct {
	*publishOptions
	*client
	out *streams

	raw       string // the message
	digest    string // of the message; its name in the object store
	campaigns campaigns
	known     *mailboxSet
	open      map[string]bool // batches that are not done

	summary    *summary
	batches    int // published in this run
	recipients int
	repeated   int // left out: said twice in the list, or published before
}

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
	p := newPublication(o, s, string(raw))
	if o.campaign == "" {
		base := strings.TrimSuffix(filepath.Base(o.message), filepath.Ext(o.message))
		base = strings.Trim(notOfID.ReplaceAllString(base, "-"), "-")
		o.campaign = base[:min(len(base), 48)] + "-" + p.digest[:8]
	}
	if p.client, err = connect(ctx, s, "publish"); err != nil {
		return err
	}
	defer p.nc.Close()
	if err := p.publish(ctx, list); err != nil {
		return err
	}
	if o.wait {
		if err := p.follow(ctx); err != nil {
			return err
		}
	}
	return p.report()
}

func newPublication(o *publishOptions, s *streams, raw string) *publication {
	sum := sha256.Sum256([]byte(raw))
	return &publication{
		publishOptions: o,
		out:            s,
		raw:            raw,
		digest:         hex.EncodeToString(sum[:16]),
		known:          newMailboxSet(),
		open:           make(map[string]bool),
		summary:        newSummary(),
	}
}

// publish puts the list on the queue.
func (p *publication) publish(ctx context.Context, list io.Reader) error {
	var err error
	if p.campaigns, err = openCampaigns(ctx, p.js, p.names); err != nil {
		return err
	}
	if err := p.begin(ctx); err != nil {
		return err
	}
	began := time.Now()
	shown := newProgress(p.out.err, "published", 0)
	b := newBatcher(p.batchSize, func(recipients []string) error {
		if err := p.put(ctx, recipients); err != nil {
			return err
		}
		shown.set(p.recipients, "")
		return nil
	})
	err = func() error {
		for recipient, err := range readList(list) {
			if err != nil {
				return fmt.Errorf("%s: %w", p.list, err)
			}
			if !p.known.add(recipient) {
				p.repeated++
				continue
			}
			if err := b.add(recipient); err != nil {
				return err
			}
		}
		return b.flush()
	}()
	shown.end(p.recipients, fmt.Sprintf("%s, campaign %s, in %s", count(p.batches, "batch", "batches"), p.campaign, time.Since(began).Round(time.Millisecond)))
	// What was published counts also when the rest could not be.
	if p.batches > 0 || err == nil {
		update := p.campaigns.update(context.WithoutCancel(ctx), p.campaign, func(c *subjects.Campaign) error {
			c.Batches += p.batches
			c.Recipients += p.recipients
			c.Complete = c.Complete || err == nil
			return nil
		})
		err = errors.Join(err, update)
	}
	if err != nil && p.batches > 0 {
		return fmt.Errorf("%w; run the same command again to go on where it stopped", err)
	}
	if err != nil {
		return err
	}
	if p.recipients == 0 && p.repeated == 0 {
		return fmt.Errorf("%s: there is no recipient in the list", p.list)
	}
	return nil
}

// begin makes the campaign, or finds out who was published in it before.
func (p *publication) begin(ctx context.Context) error {
	err := p.campaigns.update(ctx, p.campaign, func(c *subjects.Campaign) error {
		switch {
		case c.Message != "" && c.Message != p.digest:
			return fmt.Errorf("campaign %s was published with another message: choose another --campaign", p.campaign)
		case c.Message != "" && c.From != p.from:
			return fmt.Errorf("campaign %s was published with the sender %q: choose another --campaign", p.campaign, c.From)
		case c.State == subjects.CampaignCancelled:
			return fmt.Errorf("campaign %s was cancelled: choose another --campaign", p.campaign)
		}
		c.Message, c.From = p.digest, p.from
		return nil
	})
	if err != nil {
		return err
	}
	if !p.inline {
		if err := p.store(ctx); err != nil {
			return err
		}
	}
	return p.published(ctx, p.campaign,
		func(id string, b *envelope.Batch) {
			p.open[id] = true
			for _, recipient := range b.Recipients {
				p.known.add(recipient)
			}
		},
		func(id string, e subjects.Entry) {
			p.open[id] = e.Event != subjects.Done
			for _, r := range e.Results {
				for _, recipient := range r.Recipients {
					p.known.add(recipient)
				}
			}
		})
}

// store puts the message into the object store, once.
func (p *publication) store(ctx context.Context) error {
	store, err := p.js.ObjectStore(ctx, p.names.MessageStore())
	if err == nil {
		if _, err = store.GetInfo(ctx, p.digest); errors.Is(err, jetstream.ErrObjectNotFound) {
			_, err = store.PutString(ctx, p.digest, p.raw)
		}
	}
	if err != nil {
		return fmt.Errorf("store message: %w", err)
	}
	return nil
}

// put publishes one batch. Its id is made of what is in it, so that a batch
// published again is the same batch.
func (p *publication) put(ctx context.Context, recipients []string) error {
	b := envelope.Batch{From: p.from, Recipients: recipients, MessageRef: p.digest}
	if p.inline {
		b.MessageRef, b.Message = "", p.raw
	}
	sum := sha256.Sum256(b.AppendJSON(nil))
	b.ID = hex.EncodeToString(sum[:12])
	data := b.AppendJSON(nil)
	if limit := int(p.nc.MaxPayload()); len(data) > limit {
		return p.tooLarge(len(recipients), len(data), limit)
	}
	p.open[b.ID] = true
	msg := &nats.Msg{Subject: p.names.Batches(p.campaign), Data: data}
	if err := p.enqueue(ctx, msg, p.campaign+"."+b.ID); err != nil {
		return fmt.Errorf("publish: %w", err)
	}
	p.batches++
	p.recipients += len(recipients)
	return nil
}

func (p *publication) tooLarge(recipients, size, limit int) error {
	if p.inline && len(p.raw) > limit/2 {
		return fmt.Errorf("with the message inline a batch has %s bytes, and the broker takes %s: leave out --inline, then the message is stored once, or raise the broker's max_payload", number(size), number(limit))
	}
	return fmt.Errorf("a batch of %s recipients has %s bytes, and the broker takes %s: use a smaller --batch-size, for example %d", number(recipients), number(size), number(limit), max(1, recipients*limit/size*9/10))
}

// follow waits until every batch of the campaign is done.
func (p *publication) follow(ctx context.Context) error {
	err := p.followAll(ctx)
	if ctx.Err() != nil {
		return fmt.Errorf("no longer waiting; the workers go on, see: bulkmail outcomes %s", p.campaign)
	}
	return err
}

func (p *publication) followAll(ctx context.Context) error {
	campaign, _, _, err := p.campaigns.get(ctx, p.campaign)
	if err != nil {
		return err
	}
	shown := newProgress(p.out.err, "final", campaign.Recipients)
	if slices.Contains(slices.Collect(maps.Values(p.open)), true) {
		err = p.watch(ctx, shown)
	} else {
		err = p.readJournals(ctx, p.campaign, func(_ string, e subjects.Entry) { p.summary.add(e) })
	}
	shown.end(p.summary.final(), p.summary.note())
	if err != nil {
		return err
	}
	if missing := campaign.Recipients - p.summary.final(); missing > 0 && len(p.summary.dead) == 0 {
		return fmt.Errorf("%s of campaign %s without a final outcome although all batches are done", count(missing, "recipient", "recipients"), p.campaign)
	}
	return nil
}

// watch adds up the campaign's journals from their beginning until no batch is
// open.
func (p *publication) watch(ctx context.Context, shown *progress) error {
	w, err := newWatch(ctx, p.client, p.campaign)
	if err != nil {
		return err
	}
	defer w.stop()
	tick := time.NewTicker(plainEvery)
	defer tick.Stop()
	left := 0
	for _, open := range p.open {
		if open {
			left++
		}
	}
	for left > 0 {
		e, ok, err := w.next(ctx, tick.C)
		if err != nil {
			return err
		}
		if ok {
			p.summary.add(e.entry)
			if e.reason != "" {
				p.summary.dead = append(p.summary.dead, e.reason)
			}
			if p.open[e.batch] && (e.reason != "" || e.entry.Event == subjects.Done) {
				p.open[e.batch] = false
				left--
			}
		}
		shown.set(p.summary.final(), p.summary.note())
	}
	return nil
}

// report prints the result.
func (p *publication) report() error {
	if p.json {
		result := struct {
			Campaign   string   `json:"campaign"`
			Batches    int      `json:"batches"`
			Recipients int      `json:"recipients"`
			Repeated   int      `json:"repeated"`
			Outcomes   *summary `json:"outcomes,omitempty"`
		}{p.campaign, p.batches, p.recipients, p.repeated, nil}
		if p.wait {
			result.Outcomes = p.summary
		}
		if err := json.NewEncoder(p.out.out).Encode(result); err != nil {
			return err
		}
	} else {
		line := fmt.Sprintf("campaign %s: %s in %s published", p.campaign, count(p.recipients, "recipient", "recipients"), count(p.batches, "batch", "batches"))
		if p.repeated > 0 {
			line += fmt.Sprintf(", %s left out (in the list twice, or published before)", number(p.repeated))
		}
		if _, err := fmt.Fprintln(p.out.out, line); err != nil {
			return err
		}
		if p.wait {
			if err := p.summary.print(p.out.out); err != nil {
				return err
			}
		}
	}
	if n := len(p.summary.dead); n > 0 {
		return fmt.Errorf("%s went to the dead letters, the first because of: %s", count(n, "batch", "batches"), p.summary.dead[0])
	}
	return nil
}
