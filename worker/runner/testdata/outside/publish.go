package main

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"bulkmail/envelope"
	"bulkmail/subjects"
)

// publish publishes one batch, and prints what becomes of each recipient.
func publish(ctx context.Context, broker string, recipients ...string) error {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	nc, err := nats.Connect(broker)
	if err != nil {
		return err
	}
	defer nc.Close()
	js, err := jetstream.New(nc)
	if err != nil {
		return err
	}
	var names subjects.Names
	outcomes, err := nc.SubscribeSync(names.CampaignOutcomes("news"))
	if err != nil {
		return err
	}
	batch := envelope.Batch{From: "news@example.com", Recipients: recipients, Message: "Subject: Hi\r\n\r\nHello.\r\n"}
	if _, err := js.Publish(ctx, names.Batches("news"), batch.AppendJSON(nil), jetstream.WithRetryAttempts(100)); err != nil {
		return err
	}
	for {
		msg, err := outcomes.NextMsgWithContext(ctx)
		if err != nil {
			return err
		}
		var entry subjects.Entry
		if err := json.Unmarshal(msg.Data, &entry); err != nil {
			return err
		}
		for _, r := range entry.Results {
			fmt.Println(r.Status, r.Relay, r.Recipients)
		}
		if entry.Event == subjects.Done {
			return nil
		}
	}
}
