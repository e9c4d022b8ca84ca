package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"bulkmail/envelope"
	"bulkmail/envelope/dkim"
	"bulkmail/envelope/keys"
	"bulkmail/envelope/letter"
	"bulkmail/envelope/list"
	"bulkmail/subjects"
	"bulkmail/subjects/campaign"
)

// previewOptions are the flags of preview.
type previewOptions struct {
	message, campaign, from, dir, list string
	listID, kind                       string
	n, batchSize                       int
}

func newPreview(s *streams) *cobra.Command {
	var o previewOptions
	cmd := &cobra.Command{
		Use:   "preview --message FILE LIST",
		Short: "Show letters as they would leave",
		Long: `Merge a message with the recipients of a list, and print the letters or write them
to files, as they would leave but for Date and signature. Nothing is sent, and no
broker is asked.

LIST is CSV, whose columns are variables by their names; JSON, an object a line;
or addresses, one a line. The message is a template:

  {{first}}             what the list says; a letter without it is not sent
  {{first|friend}}      friend where it is missing or empty
  {{#member}}…{{/member}}, {{^member}}…{{/member}}
                        a part that stands there if it is so, if it is not, or
                        for each of a list
  {{! a comment }}, {{=<% %>=}}
                        other delimiters
  {{to}}, {{name}}, {{campaign}}, {{message_id}}, {{unsubscribe_url}}
                        are known of every letter

In HTML values are escaped, but for {{{first}}}; within a URL they are
percent-encoded. Recipients whose letter cannot be made are told on standard
error, with the reason, and make the exit code 1.

Message-IDs and unsubscribe links are those that leave where the campaign, the
envelope sender, the list, the batch size and BULKMAIL_KEYS_FILE are what publish
and the workers have.`,
		Example: `  bulkmail preview --message newsletter.eml -n 3 list.csv
  bulkmail preview --message newsletter.eml --dir letters list.csv`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			o.list = args[0]
			if err := o.check(); err != nil {
				return usage(cmd, err)
			}
			return o.run(s)
		},
	}
	flags := cmd.Flags()
	flags.StringVar(&o.message, "message", "", "`FILE` with the message, a template")
	flags.StringVar(&o.campaign, "campaign", "", "`NAME` of the campaign (default: as publish makes it)")
	flags.StringVar(&o.from, "from", "", "envelope sender `ADDRESS`")
	addListFlags(flags, &o.listID, &o.kind)
	flags.IntVar(&o.batchSize, "batch-size", campaign.DefaultBatchSize, "recipients a batch at most")
	flags.StringVar(&o.dir, "dir", "", "write the letters to `FOLDER`, as 0001.eml and so on in the order of LIST")
	flags.IntVarP(&o.n, "number", "n", 0, "letters at most; 0: all")
	if err := cmd.MarkFlagRequired("message"); err != nil {
		panic(err)
	}
	return cmd
}

func (o *previewOptions) check() error {
	problems := checkListFlags(o.listID, o.kind)
	o.from = bareSender(o.from)
	if _, err := envelope.ParseSender(o.from); err != nil {
		problems = append(problems, fmt.Errorf("--from: %w", err))
	}
	if o.campaign != "" && !subjects.ValidID(o.campaign) {
		problems = append(problems, fmt.Errorf("--campaign %q: use 1 to 64 letters, digits, - or _", o.campaign))
	}
	if o.batchSize < 1 {
		problems = append(problems, fmt.Errorf("--batch-size %d: use 1 or more", o.batchSize))
	}
	if o.n < 0 {
		problems = append(problems, fmt.Errorf("-n %d: use 0 or more", o.n))
	}
	return errors.Join(problems...)
}

// A preview is one run of the command.
type preview struct {
	*previewOptions
	out      *streams
	template *letter.Template
	raw      string
	key      *keys.Key
	signing  dkim.Keys
	config   config
	now      time.Time

	renderer letter.Renderer
	signer   dkim.Signer
	shown    int
	rejected int
}

func (o *previewOptions) run(s *streams) error {
	raw, err := os.ReadFile(o.message)
	if err != nil {
		return fmt.Errorf("--message: %w", err)
	}
	p := &preview{previewOptions: o, out: s, raw: string(raw), now: time.Now()}
	if p.template, err = letter.Compile(string(raw), letter.Options{Sender: o.from}); err != nil {
		return fmt.Errorf("--message %s: %w", o.message, err)
	}
	for _, problem := range p.template.Problems() {
		fmt.Fprintf(s.err, "bulkmail: %s: %s\n", o.message, problem)
	}
	if o.campaign == "" {
		o.campaign = campaignOf(o.message, p.raw)
	}
	if err := p.load(); err != nil {
		return err
	}
	in := s.in
	if o.list != "-" {
		f, err := os.Open(o.list)
		if err != nil {
			return err
		}
		defer f.Close()
		in = f
	}
	if o.dir != "" {
		if err := os.MkdirAll(o.dir, 0o750); err != nil {
			return fmt.Errorf("--dir: %w", err)
		}
	}
	return p.show(in)
}

// load reads the keys that the environment names.
func (p *preview) load() error {
	var err error
	if p.config, _, err = loadConfig(); err != nil {
		return err
	}
	read, err := loadKeys(p.config.KeysFile)
	if err != nil {
		return err
	}
	if p.key = read.First(); p.key == nil {
		fmt.Fprintln(p.out.err, "bulkmail: without BULKMAIL_KEYS_FILE the Message-IDs and unsubscribe links shown are made up")
		if p.key, err = keys.New("preview", strings.Repeat("preview-", 4)); err != nil {
			return err
		}
	}
	if p.config.DKIMFile != "" {
		if p.signing, err = dkim.Load(p.config.DKIMFile); err != nil {
			return fmt.Errorf("BULKMAIL_DKIM_FILE: %w", err)
		}
	}
	return nil
}

// errEnough says that so many letters are enough.
var errEnough = errors.New("enough")

// show makes the letters in the order of the list. Message-IDs are made of the
// batch's id too, so the batches are made as publish makes them, which holds a part
// of the list.
func (p *preview) show(in io.Reader) error {
	l, err := list.Open(in, list.Options{Data: true})
	if err != nil {
		return fmt.Errorf("%s: %w", p.list, err)
	}
	places := make(map[string]int) // in the list, of those who are in no batch yet
	seen := make(map[string]bool)
	publication := campaign.Publication{From: p.from, Message: p.raw, BatchSize: p.batchSize, List: func(yield func(campaign.Recipient, error) bool) {
		for r, err := range campaign.Recipients(l) {
			if m := r.Mailbox(); err == nil && !seen[m] {
				seen[m] = true
				places[r.Address] = len(seen)
			}
			if !yield(r, err) {
				return
			}
		}
	}}
	type waiting struct {
		to    envelope.Recipient
		batch *letter.Batch
	}
	ready := make(map[int]waiting) // whose turn has not come
	next := 1
	err = publication.Batches(func(b envelope.Batch) error {
		common := &letter.Batch{
			Campaign: p.campaign, ID: b.ID, List: p.listID, Key: p.key, Date: p.now,
			Transactional:  subjects.CampaignKind(p.kind) == subjects.KindTransactional,
			UnsubscribeURL: p.config.UnsubscribeURL, UnsubscribeMailto: p.config.UnsubscribeMailto,
		}
		for _, to := range b.Recipients {
			ready[places[to.Address]] = waiting{to, common}
			delete(places, to.Address)
		}
		for ; ; next++ {
			if p.n > 0 && next > p.n {
				return errEnough
			}
			w, ok := ready[next]
			if !ok {
				return nil
			}
			delete(ready, next)
			if err := p.showOne(next, w.to, w.batch); err != nil {
				return err
			}
		}
	})
	if err != nil && !errors.Is(err, errEnough) {
		return fmt.Errorf("%s: %w", p.list, err)
	}
	return p.close()
}

// close says what was shown and what was not.
func (p *preview) close() error {
	if p.dir != "" {
		if _, err := fmt.Fprintf(p.out.out, "%s in %s\n", count(p.shown, "letter", "letters"), p.dir); err != nil {
			return err
		}
	}
	if p.rejected > 0 {
		return fmt.Errorf("%s would not be sent", count(p.rejected, "letter", "letters"))
	}
	return nil
}

func (p *preview) showOne(number int, to envelope.Recipient, b *letter.Batch) error {
	reject := func(reason string) error {
		p.rejected++
		_, err := fmt.Fprintf(p.out.err, "bulkmail: %s: not sent: %s\n", to.Address, reason)
		return err
	}
	address, err := envelope.ParseAddress(to.Address)
	if err != nil {
		return reject(err.Error())
	}
	l, err := p.renderer.Render(p.template, b, &letter.Recipient{To: address.Mailbox, Name: to.Letter.Name, Data: to.Letter.Data}, false)
	if err != nil {
		if rejected, ok := errors.AsType[*letter.RejectError](err); ok {
			return reject(rejected.Reason)
		}
		return err
	}
	var text []byte
	if signing := p.signing.For(l.Domain); len(signing) > 0 {
		if text, err = p.signer.Append(nil, l.Wire, signing, &dkim.Options{}, p.now); err != nil {
			return err
		}
	}
	// Dots are stuffed for SMTP alone, and no letter begins with one.
	text = append(text, bytes.ReplaceAll(l.Wire, []byte("\r\n."), []byte("\r\n"))...)
	p.shown++
	if p.dir != "" {
		return os.WriteFile(filepath.Join(p.dir, fmt.Sprintf("%04d.eml", number)), text, 0o600)
	}
	if p.shown > 1 {
		text = append([]byte("\r\n"), text...)
	}
	_, err = p.out.out.Write(text)
	return err
}
