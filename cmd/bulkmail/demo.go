package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"iter"
	"log/slog"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/spf13/cobra"

	"bulkmail/relay/sink"
	"bulkmail/subjects"
	"bulkmail/subjects/broker"
	"bulkmail/subjects/campaign"
	"bulkmail/testdata"
	"bulkmail/worker/runner"
)

// demoTimeout bounds the whole demo.
const demoTimeout = 55 * time.Second

const (
	demoCampaign = "demo"
	demoCap      = 50 // max_messages of the small relay
	demoRefused  = "cobalt-press.test"
	demoNamed    = 10 // recipients unaccounted for that are named
)

func newDemo(s *streams) *cobra.Command {
	var verbose bool
	cmd := &cobra.Command{
		Use:   "demo",
		Short: "See a list of 2,000 go through a broker, two workers and three relays",
		Long: `Run everything in this process, on loopback and in a temporary folder: a broker,
three SMTP servers with different manners, two workers. Publish a list of 2,000
made-up recipients, watch it, and print a table in which everybody is accounted
for. The exit code is 0 only if everybody is.`,
		Example: `  bulkmail demo`,
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return runDemo(cmd.Context(), s, verbose)
		},
	}
	cmd.Flags().BoolVarP(&verbose, "verbose", "v", false, "show the log")
	return cmd
}

// demoRelay is one of the three SMTP servers.
type demoRelay struct {
	name, manners string
	options       sink.Options
	limits        string // URL parameters
	server        *sink.Server
}

func demoRelays() []*demoRelay {
	refuse := "RCPT:*@" + demoRefused + "=550 5.1.1 no such mailbox"
	return []*demoRelay{
		{
			name: "small", manners: "takes at most " + number(demoCap) + " recipients",
			options: sink.Options{Rules: demoRules(refuse)},
			limits:  fmt.Sprintf("max_messages=%d&max_messages_per_robin=25&connections=2", demoCap),
		},
		{
			name: "slow", manners: "takes 40 ms over each message",
			options: sink.Options{Delay: 40 * time.Millisecond, Rules: demoRules(refuse)},
			limits:  "max_messages_per_robin=200",
		},
		{
			name: "wary", manners: "defers every recipient the first time",
			options: sink.Options{Rules: demoRules(refuse, "RCPT first 1:*=451 4.7.1 not seen before, try again later")},
			limits:  "max_messages_per_robin=100",
		},
	}
}

func demoRules(texts ...string) []sink.Rule {
	rules, err := sink.ParseRules(texts...)
	if err != nil {
		panic(err) // ours, and tested
	}
	return rules
}

// runDemo wires everything up, in the order in which it must end.
func runDemo(ctx context.Context, s *streams, verbose bool) (err error) {
	ctx, cancel := context.WithTimeout(ctx, demoTimeout)
	defer cancel()
	log := slog.New(slog.DiscardHandler)
	if verbose {
		log = newLogger(config{LogFormat: "auto", LogLevel: slog.LevelDebug}, s.err)
	}
	dir, err := os.MkdirTemp("", "bulkmail-demo-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()

	b, err := broker.Start(ctx, broker.Options{Listen: "127.0.0.1:0", Dir: dir, SyncAlways: true, Log: log})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, b.Close()) }()
	fmt.Fprintf(s.out, "broker   %s, in this process\n", b.URL())

	relays := demoRelays()
	var urls []string
	for _, r := range relays {
		r.options.Log = log
		if r.server, err = sink.Start(r.options); err != nil {
			return err
		}
		defer func() {
			closing, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
			defer cancel()
			err = errors.Join(err, r.server.Close(closing))
		}()
		urls = append(urls, fmt.Sprintf("smtp://%s?name=%s&tls=none&domain=demo.test&%s", r.server.Addr(), r.name, r.limits))
		fmt.Fprintf(s.out, "relay    %-6s smtp://%s  %s\n", r.name, r.server.Addr(), r.manners)
	}
	o := runner.Options{NATSURL: b.URL(), RelayURLs: strings.Join(urls, " "), Batches: 4, OutcomesMaxAge: 2 * time.Hour,
		RetryDelays: []time.Duration{2 * time.Second}, RetryFor: time.Hour, DrainTimeout: 5 * time.Second, HTTP: runner.HTTPOff, Log: log}
	stop, err := demoWorkers(ctx, o)
	if err != nil {
		return err
	}
	c := config{NATSURL: b.URL(), OutcomesMaxAge: 2 * time.Hour}
	fmt.Fprintf(s.out, "workers  2, each with sessions of its own; caps hold for both together\n\n")
	cl, err := c.connect(ctx, subjects.Names{}, "publish", log)
	if err != nil {
		return errors.Join(err, stop())
	}
	defer cl.nc.Close()
	campaigns := cl.campaigns(s)
	summary, err := demoPublish(ctx, s, campaigns)
	err = errors.Join(err, stop())
	return errors.Join(err, accountForAll(context.WithoutCancel(ctx), s, campaigns, summary, relays))
}

// demoPublish publishes the shipped list and waits for everybody.
func demoPublish(ctx context.Context, s *streams, campaigns *campaign.Client) (*campaign.Summary, error) {
	_, err := publish(ctx, s, campaigns, campaign.Publication{
		Campaign: demoCampaign, From: "news@example.com", Message: testdata.Plain, List: of("the shipped list", demoList()), BatchSize: 100,
	})
	if err != nil {
		return new(campaign.Summary), err
	}
	summary, err := follow(ctx, s, campaigns, demoCampaign)
	if ctx.Err() != nil {
		err = fmt.Errorf("the demo ended before everybody had a final outcome: %w", ctx.Err())
	}
	return cmp.Or(summary, new(campaign.Summary)), err
}

func demoList() iter.Seq2[campaign.Recipient, error] {
	return campaign.ReadList(strings.NewReader(testdata.Recipients))
}

// demoWorkers starts two workers. The small relay's cap holds for both together.
func demoWorkers(ctx context.Context, o runner.Options) (stop func() error, err error) {
	ctx, cancel := context.WithCancel(ctx)
	var running sync.WaitGroup
	errs := make([]error, 2)
	stop = func() error {
		cancel()
		running.Wait()
		return errors.Join(errs...)
	}
	for i := range errs {
		o.Name = fmt.Sprintf("worker-%d", i+1)
		r, err := runner.New(o)
		if err != nil {
			return nil, errors.Join(err, stop())
		}
		ended := make(chan struct{})
		running.Go(func() {
			defer close(ended)
			errs[i] = r.Run(ctx)
		})
		select {
		case <-r.Started():
		case <-ended:
			if err = stop(); err == nil {
				err = errors.New("the demo ended before it began")
			}
			return nil, err
		}
	}
	return stop, nil
}

// accountForAll compares the list, the outcomes and the relays' own counts, and
// prints the closing tables.
func accountForAll(ctx context.Context, s *streams, campaigns *campaign.Client, summary *campaign.Summary, relays []*demoRelay) error {
	var problems []error
	accepted := make(map[string]int) // by relay, from the outcomes
	byAttempt := make(map[int]int)
	outcomes := make(map[string][]subjects.Status) // by mailbox
	for o, err := range campaigns.Outcomes(ctx, demoCampaign, campaign.Filter{}) {
		if err != nil {
			return err
		}
		mailbox := campaign.Recipient{Address: o.Recipient}.Mailbox()
		outcomes[mailbox] = append(outcomes[mailbox], o.Status)
		if o.Status == subjects.Accepted {
			accepted[o.Relay]++
			byAttempt[o.Attempt]++
		}
	}
	t := newTable("relay", "#accepted", "#deferred", "#rejected", "#cap", "#its own count", "manners")
	for _, r := range relays {
		of, counts := summary.Relays[r.name], r.server.Counts()
		most := "-"
		if r.name == "small" {
			most = number(demoCap)
			if counts.Accepted > demoCap {
				problems = append(problems, fmt.Errorf("relay %s took %d recipients, its cap is %d", r.name, counts.Accepted, demoCap))
			}
		}
		t.row(r.name, accepted[r.name], of[subjects.Deferred], of[subjects.Rejected], most, int(counts.Accepted), r.manners)
		if accepted[r.name] != int(counts.Accepted) {
			problems = append(problems, fmt.Errorf("relay %s took %d recipients, the journals say %d", r.name, counts.Accepted, accepted[r.name]))
		}
	}
	fmt.Fprintln(s.out)
	if err := t.print(s.out); err != nil {
		return err
	}
	total, unaccounted, by := 0, 0, make(map[subjects.Status]int)
	for recipient, err := range demoList() {
		if err != nil {
			return err
		}
		total++
		if err := accountFor(recipient.Address, outcomes[recipient.Mailbox()], by); err != nil {
			if unaccounted++; unaccounted <= demoNamed {
				problems = append(problems, err)
			}
		}
	}
	if more := unaccounted - demoNamed; more > 0 {
		problems = append(problems, fmt.Errorf("and so on, %s more", number(more)))
	}
	fmt.Fprintln(s.out)
	t = newTable("outcome", "#recipients")
	for _, status := range subjects.Statuses() {
		if by[status] > 0 {
			t.row(string(status), by[status])
		}
		for _, attempt := range sortedKeys(byAttempt) {
			if status == subjects.Accepted {
				t.row(fmt.Sprintf("  at attempt %d", attempt), byAttempt[attempt])
			}
		}
	}
	t.row("total", total)
	if err := t.print(s.out); err != nil {
		return err
	}
	if len(problems) > 0 {
		return errors.Join(problems...)
	}
	_, err := fmt.Fprintf(s.out, "\nevery one of %s is accounted for\n", count(total, "recipient", "recipients"))
	return err
}

// accountFor checks that a recipient has exactly one outcome and that it is
// final.
func accountFor(recipient string, outcomes []subjects.Status, by map[subjects.Status]int) error {
	switch {
	case len(outcomes) == 0:
		return fmt.Errorf("%s is unaccounted for", recipient)
	case len(outcomes) > 1:
		return fmt.Errorf("%s has %d outcomes", recipient, len(outcomes))
	case !outcomes[0].Final():
		return fmt.Errorf("%s is %s, which is not final", recipient, outcomes[0])
	}
	by[outcomes[0]]++
	return nil
}
