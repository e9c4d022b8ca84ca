// Command outside is a program of somebody else's: a worker with a relay of its
// own, and a publisher that reads what became of everybody. Its argument is the
// address of a broker. TestAModuleOutsideTheTreeRunsAWorkerAndPublishes builds it,
// and README.md shows parts of it.
package main

import (
	"context"
	"fmt"
	"log"
	"os"

	"bulkmail/relay"
	"bulkmail/relay/smtp"
	"bulkmail/worker/runner"
)

// A printer is a relay of one's own: it prints who is sent to.
type printer struct{}

func (printer) Dial(context.Context) (relay.Session, error) { return printer{}, nil }

func (printer) Send(ctx context.Context, e *smtp.Envelope, _ func() *smtp.Envelope) error {
	e.Results = make([]smtp.Result, len(e.Recipients))
	_, err := e.Message.Open(ctx) // an error: another worker has the batch
	if err != nil {
		return err
	}
	for i, to := range e.Recipients {
		fmt.Println("to", to.Mailbox)
		e.Results[i] = smtp.Result{Status: smtp.Accepted, Reply: &smtp.Reply{Code: 250, Text: "printed"}}
	}
	return nil
}

func (printer) Usable() bool       { return true }
func (printer) MaxRecipients() int { return 0 } // any number
func (printer) Close() error       { return nil }

func work(ctx context.Context, broker string) error {
	r, err := runner.New(runner.Options{
		NATSURL: broker, // without it, the worker has a broker of its own
		HTTP:    runner.HTTPOff,
		Relays:  []relay.Relay{{Config: relay.Config{Name: "printer", EnvelopeLimit: 100}, Dialer: printer{}}},
	})
	if err != nil {
		return err // all that is wrong with the options, in a line each
	}
	return r.Run(ctx) // until ctx ends; then it drains
}

func main() {
	ctx, stop := context.WithCancel(context.Background())
	worked := make(chan error, 1)
	go func() { worked <- work(ctx, os.Args[1]) }()
	err := publish(ctx, os.Args[1], "ann@example.net")
	stop()
	if err != nil {
		log.Print(err)
	}
	if err := <-worked; err != nil {
		log.Print(err)
	}
}
