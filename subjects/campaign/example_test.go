package campaign_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log"
	"log/slog"
	"os"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"bulkmail/envelope"
	"bulkmail/subjects"
	"bulkmail/subjects/broker"
	"bulkmail/subjects/campaign"
)

// Publish from Go, and wait until everybody has a final outcome.
func Example() {
	ctx := context.Background()
	js, stop := connect(ctx)
	defer stop()
	client := campaign.New(js, subjects.Names{}, campaign.Options{})

	receipt, err := client.Publish(ctx, campaign.Publication{
		Campaign: "news",
		From:     "news@example.com",
		Message:  "From: News <news@example.com>\nSubject: Hello\n\nHello.\n",
		List:     campaign.ReadList(strings.NewReader("ann@example.net\nBob <bob@example.net>\nann@example.net\n")),
	})
	if err != nil {
		log.Fatal(err)
	}
	fmt.Printf("%d recipients published, %d left out\n", receipt.Recipients, receipt.Repeated)

	work(ctx, js) // elsewhere: bulkmail worker
	summary, err := client.Wait(ctx, "news")
	if err != nil {
		log.Fatal(err)
	}
	fmt.Printf("%d of %d accepted\n", summary.Outcomes[subjects.Accepted], summary.Published)
	// Output:
	// 2 recipients published, 1 left out
	// 2 of 2 accepted
}

// Show how far a campaign is while it goes through.
func ExampleClient_Follow() {
	ctx := context.Background()
	js, stop := connect(ctx)
	defer stop()
	client := campaign.New(js, subjects.Names{}, campaign.Options{})
	publishNews(ctx, client)
	work(ctx, js)

	shown := 0
	for summary, err := range client.Follow(ctx, "news") {
		if err != nil {
			log.Fatal(err)
		}
		if n := summary.Final(); n > shown {
			shown = n
			fmt.Printf("%d of %d\n", n, summary.Published)
		}
	}
	// Output:
	// 2 of 2
}

// Read who was not reached, and why.
func ExampleClient_Outcomes() {
	ctx := context.Background()
	js, stop := connect(ctx)
	defer stop()
	client := campaign.New(js, subjects.Names{}, campaign.Options{})
	publishNews(ctx, client)
	work(ctx, js)

	for o, err := range client.Outcomes(ctx, "news", campaign.Filter{Status: []subjects.Status{subjects.Accepted}}) {
		if unreadable, ok := errors.AsType[*campaign.EntryError](err); ok {
			fmt.Println("left out:", unreadable)
			continue
		}
		if err != nil {
			log.Fatal(err)
		}
		fmt.Println(o.Recipient, o.Status, o.Relay, o.Code)
	}
	// Output:
	// ann@example.net accepted primary 250
	// bob@example.net accepted primary 250
}

// Hold a campaign, see how far it is, and go on.
func ExampleClient_Pause() {
	ctx := context.Background()
	js, stop := connect(ctx)
	defer stop()
	client := campaign.New(js, subjects.Names{}, campaign.Options{Actor: "ann@office"})
	publishNews(ctx, client)

	if _, err := client.Pause(ctx, "news", "the subject is wrong"); err != nil {
		log.Fatal(err)
	}
	status, err := client.Status(ctx, "news")
	if err != nil {
		log.Fatal(err)
	}
	last := status.Changes[len(status.Changes)-1]
	fmt.Printf("%s: %s by %s, because %s; %d of %d are final\n", status.Campaign, status.State, last.By, last.Why, status.Outcomes.Final(), status.Published)

	before, err := client.Resume(ctx, "news", "")
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println("was", before)

	_, err = client.Resume(ctx, "nws", "")
	fmt.Println(errors.Is(err, campaign.ErrNoCampaign), err)
	// Output:
	// news: paused by ann@office, because the subject is wrong; 0 of 2 are final
	// was paused
	// true nothing was published under the campaign nws
}

// publishNews publishes a campaign of two.
func publishNews(ctx context.Context, client *campaign.Client) {
	_, err := client.Publish(ctx, campaign.Publication{
		Campaign: "news",
		From:     "news@example.com",
		Message:  "From: News <news@example.com>\nSubject: Hello\n\nHello.\n",
		List:     campaign.ReadList(strings.NewReader("ann@example.net\nbob@example.net\n")),
	})
	if err != nil {
		log.Fatal(err)
	}
}

// connect starts a broker in this process. A program usually connects to the one
// of its workers: nats.Connect("nats://127.0.0.1:4222").
func connect(ctx context.Context) (js jetstream.JetStream, stop func()) {
	dir, err := os.MkdirTemp("", "bulkmail-example-")
	if err != nil {
		log.Fatal(err)
	}
	quiet := slog.New(slog.DiscardHandler)
	b, err := broker.Start(ctx, broker.Options{Listen: "127.0.0.1:0", Dir: dir, Log: quiet})
	if err != nil {
		log.Fatal(err)
	}
	nc, err := nats.Connect(b.URL())
	if err != nil {
		log.Fatal(err)
	}
	if js, err = jetstream.New(nc); err != nil {
		log.Fatal(err)
	}
	if err := subjects.Provision(ctx, js, subjects.Names{}, subjects.Options{AckWait: 30 * time.Second, OutcomesMaxAge: time.Hour}, quiet); err != nil {
		log.Fatal(err)
	}
	return js, func() {
		nc.Close()
		if err := errors.Join(b.Close(), os.RemoveAll(dir)); err != nil {
			log.Fatal(err)
		}
	}
}

// work stands for the workers: whoever is in the queue is accepted.
func work(ctx context.Context, js jetstream.JetStream) {
	var names subjects.Names
	queue, err := js.Stream(ctx, names.BatchesStream())
	if err != nil {
		log.Fatal(err)
	}
	for {
		m, err := queue.GetMsg(ctx, 1, jetstream.WithGetMsgSubject(names.Batches("*")))
		if errors.Is(err, jetstream.ErrMsgNotFound) {
			return
		}
		if err != nil {
			log.Fatal(err)
		}
		b, err := envelope.Decode(m.Data)
		if err != nil {
			log.Fatal(err)
		}
		name, _ := names.Campaign(m.Subject)
		accepted := make([]string, len(b.Recipients))
		for i, r := range b.Recipients {
			accepted[i] = r.Address
		}
		done, err := json.Marshal(subjects.Entry{
			Time: m.Time, Worker: "w", Attempt: 1, Event: subjects.Done,
			Results: []subjects.Results{{Status: subjects.Accepted, Relay: "primary", Code: 250, Recipients: accepted}},
		})
		if err != nil {
			log.Fatal(err)
		}
		if _, err := js.Publish(ctx, names.Outcomes(name, b.ID), done); err != nil {
			log.Fatal(err)
		}
		if err := queue.DeleteMsg(ctx, m.Sequence); err != nil {
			log.Fatal(err)
		}
	}
}
