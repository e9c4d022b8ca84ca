package runner_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"log"
	"os"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"bulkmail/relay"
	"bulkmail/relay/sink"
	"bulkmail/relay/smtp"
	"bulkmail/subjects"
	"bulkmail/worker/runner"
)

// A worker in a program of one's own, with a broker in the same process. The
// relay is an SMTP server for trying things.
func Example() {
	dir, err := os.MkdirTemp("", "bulkmail-")
	if err != nil {
		log.Fatal(err)
	}
	defer func() { _ = os.RemoveAll(dir) }()
	server, err := sink.Start(sink.Options{})
	if err != nil {
		log.Fatal(err)
	}
	defer server.Close(context.Background())

	r, err := runner.New(runner.Options{
		DataDir:   dir,
		Listen:    "127.0.0.1:0", // a free port
		HTTP:      runner.HTTPOff,
		RelayURLs: "smtp://" + server.Addr() + "?name=primary&domain=client.test",
	})
	if err != nil {
		log.Fatal(err) // all that is wrong, in a line each
	}
	ctx, stop := context.WithCancel(context.Background())
	ended := make(chan error)
	go func() { ended <- r.Run(ctx) }()
	<-r.Started() // a program that may fail to start waits for ended too

	publishAndPrint(r.Status().Broker, `{"from":"news@example.com","recipients":["ann@example.net"],"message":"Subject: Hi\n\nHello.\n"}`)

	stop() // drains
	if err := <-ended; err != nil {
		log.Fatal(err)
	}
	fmt.Println("the relay took", server.Counts().Accepted)
	// Output:
	// accepted by primary: 250 [ann@example.net]
	// the relay took 1
}

// A postbox is a relay of one's own: whatever can take an envelope, an API over
// HTTP for instance.
type postbox struct{}

// Dial opens a session; a worker has as many as Config.Connections says.
func (postbox) Dial(context.Context) (relay.Session, error) { return &delivery{}, nil }

type delivery struct{}

// Send takes an envelope, and says what became of each recipient.
func (*delivery) Send(ctx context.Context, e *smtp.Envelope, _ func() *smtp.Envelope) error {
	e.Results = make([]smtp.Result, len(e.Recipients))
	message, err := e.Message.Open(ctx) // the worker may have lost the batch
	if err != nil {
		return err
	}
	for i := range e.Recipients {
		fmt.Printf("to the postbox of %s, from %s, with a Message-ID: %t\n", e.Recipients[i].Mailbox, e.From, bytes.Contains(message.Wire(), []byte("\nMessage-ID: ")))
		e.Results[i] = smtp.Result{Status: smtp.Accepted, Reply: &smtp.Reply{Code: 250, Enhanced: "2.0.0", Text: "in the postbox"}}
	}
	return nil
}

func (*delivery) Usable() bool       { return true } // false: another session is dialled for the next envelope
func (*delivery) MaxRecipients() int { return 0 }    // 0: any number
func (*delivery) Close() error       { return nil }

// A relay of one's own, with the limits that any relay can have, beside those
// that are configured.
func Example_relayOfOnesOwn() {
	dir, err := os.MkdirTemp("", "bulkmail-")
	if err != nil {
		log.Fatal(err)
	}
	defer func() { _ = os.RemoveAll(dir) }()
	r, err := runner.New(runner.Options{
		DataDir: dir, Listen: "127.0.0.1:0", HTTP: runner.HTTPOff,
		Relays: []relay.Relay{{
			Config: relay.Config{Name: "postbox", EnvelopeLimit: 50, Connections: 2},
			Dialer: postbox{},
		}},
	})
	if err != nil {
		log.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	ended := make(chan error)
	go func() { ended <- r.Run(ctx) }()
	<-r.Started()

	publishAndPrint(r.Status().Broker, `{"from":"news@example.com","recipients":["ann@example.net"],"message":"Subject: Hi\n\nHello.\n"}`)

	stop()
	if err := <-ended; err != nil {
		log.Fatal(err)
	}
	// Output:
	// to the postbox of ann@example.net, from news@example.com, with a Message-ID: true
	// accepted by postbox: 250 [ann@example.net]
}

// publishAndPrint publishes a batch and prints its outcomes as they are recorded.
func publishAndPrint(broker, batch string) {
	nc, err := nats.Connect(broker)
	if err != nil {
		log.Fatal(err)
	}
	defer nc.Close()
	outcomes, err := nc.SubscribeSync("bulkmail.outcomes.news.>")
	if err != nil {
		log.Fatal(err)
	}
	js, err := jetstream.New(nc)
	if err != nil {
		log.Fatal(err)
	}
	// Again until the worker has made the stream.
	if _, err := js.Publish(context.Background(), "bulkmail.batches.news", []byte(batch), jetstream.WithRetryAttempts(100)); err != nil {
		log.Fatal(err)
	}
	for {
		msg, err := outcomes.NextMsg(time.Minute)
		if err != nil {
			log.Fatal(err)
		}
		var entry subjects.Entry
		if err := json.Unmarshal(msg.Data, &entry); err != nil {
			log.Fatal(err)
		}
		for _, result := range entry.Results {
			fmt.Printf("%s by %s: %d %s\n", result.Status, result.Relay, result.Code, result.Recipients)
		}
		if entry.Event == subjects.Done {
			return
		}
	}
}
