package main

import (
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
	demoLetters  = "demo-letters"
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
three SMTP servers with different manners, two workers. Publish a message to 2,000
made-up recipients and a newsletter to twelve, who get a letter of their own each;
watch it, and print a table in which everybody is accounted for, and one of the
letters. The exit code is 0 only if everybody is.`,
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
	var letter demoLetter
	for _, r := range relays {
		r.options.Log, r.options.Message = log, letter.from(r.name)
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
	if err := demoKeys(dir, &o); err != nil {
		return err
	}
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
	mailings := demoMailings()
	err = demoPublish(ctx, s, campaigns, mailings)
	if ctx.Err() != nil {
		err = fmt.Errorf("the demo ended before everybody had a final outcome: %w", ctx.Err())
	}
	err = errors.Join(err, stop())
	if err = errors.Join(err, accountForAll(context.WithoutCancel(ctx), s, campaigns, mailings, relays)); err != nil {
		return err
	}
	return letter.print(s.out)
}

// A demoMailing is a campaign of the demo.
type demoMailing struct {
	campaign.Publication
	list    func() iter.Seq2[campaign.Recipient, error]
	summary campaign.Summary
}

func demoMailings() []*demoMailing {
	return []*demoMailing{
		{list: demoList, Publication: campaign.Publication{Campaign: demoCampaign, Message: testdata.Plain, BatchSize: 100}},
		{list: demoRowers, Publication: campaign.Publication{Campaign: demoLetters, Message: testdata.Newsletter, Letters: true, ListID: "rowers"}},
	}
}

// demoPublish publishes the shipped lists and waits for everybody.
func demoPublish(ctx context.Context, s *streams, campaigns *campaign.Client, mailings []*demoMailing) error {
	for _, m := range mailings {
		m.From, m.List = "news@example.com", of("the shipped list", m.list())
		if _, err := publish(ctx, s, campaigns, m.Publication); err != nil {
			return err
		}
	}
	for _, m := range mailings {
		summary, err := follow(ctx, s, campaigns, m.Campaign)
		if summary != nil {
			m.summary = *summary
		}
		if err != nil {
			return err
		}
	}
	return nil
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
