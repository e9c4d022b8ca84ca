package main

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"strings"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"bulkmail/subjects"
	"bulkmail/subjects/campaign"
	"bulkmail/worker/runner"
)

func publish(ctx context.Context, broker string, recipients ...string) error {
	nc, err := nats.Connect(broker)
	if err != nil {
		return err
	}
	defer nc.Close()
	js, err := jetstream.New(nc)
	if err != nil {
		return err
	}
	// The worker makes the streams as well; whoever comes first.
	if err := subjects.Provision(ctx, js, subjects.Names{}, runner.Options{}.Provision(), slog.Default()); err != nil {
		return err
	}
	return send(ctx, js, strings.NewReader(strings.Join(recipients, "\n")))
}

func send(ctx context.Context, js jetstream.JetStream, list io.Reader) error {
	client := campaign.New(js, subjects.Names{}, campaign.Options{Actor: "outside"})
	_, err := client.Publish(ctx, campaign.Publication{
		Campaign: "news",
		From:     "news@example.com",
		Message:  "From: News <news@example.com>\nSubject: Hi\n\nHello.\n",
		List:     campaign.ReadList(list),
	})
	if err != nil {
		return err
	}
	if _, err := client.Pause(ctx, "news", "to look at it once more"); err != nil {
		return err
	}
	before, err := client.Resume(ctx, "news", "")
	if err != nil {
		return err
	}
	fmt.Println("was", before)
	summary, err := client.Wait(ctx, "news")
	if err != nil {
		return err
	}
	fmt.Println(summary.Outcomes[subjects.Accepted], "of", summary.Published, "accepted")
	for o, err := range client.Outcomes(ctx, "news", campaign.Filter{}) {
		if err != nil {
			return err
		}
		fmt.Println(o.Recipient, o.Status, o.Relay, o.Code)
	}
	return nil
}
