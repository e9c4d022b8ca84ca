package relay_test

import (
	"context"
	"fmt"
	"time"

	"bulkmail/envelope"
	"bulkmail/relay"
	"bulkmail/relay/smtp"
)

// A gateway is a relay of one's own: it hands messages to something that is no
// SMTP server. Dial makes a session, of which the pool uses one goroutine each.
type gateway struct{}

func (gateway) Dial(context.Context) (relay.Session, error) { return &connection{}, nil }

type connection struct{}

// Send must leave a result for each recipient. The message is behind a guard:
// Open says whether it may still be sent.
func (*connection) Send(ctx context.Context, e *smtp.Envelope, _ func() *smtp.Envelope) error {
	message, err := e.Message.Open(ctx)
	if err != nil {
		return err
	}
	fmt.Printf("from %s to %d recipients: %d octets\n", e.From, len(e.Recipients), len(message.Wire()))
	e.Results = make([]smtp.Result, len(e.Recipients))
	ok := &smtp.Reply{Code: 250, Text: "handed over"}
	for i := range e.Results {
		e.Results[i] = smtp.Result{Status: smtp.Accepted, Reply: ok}
	}
	return nil
}

func (*connection) Usable() bool       { return true } // it can take another envelope
func (*connection) MaxRecipients() int { return 0 }    // any number in one envelope
func (*connection) Close() error       { return nil }

// A newsletter is a source with one envelope.
type newsletter struct {
	message *envelope.Message
	waiting []envelope.Recipient
	done    chan struct{}
}

func (n *newsletter) Pending() int { return min(1, len(n.waiting)) }

func (n *newsletter) Cut(g relay.Grant) *relay.Envelope {
	if len(n.waiting) == 0 {
		return nil
	}
	to := n.waiting[:min(g.Messages, len(n.waiting))]
	n.waiting = n.waiting[len(to):]
	stillOurs := func(context.Context) error { return nil } // asked before the message is sent
	return &relay.Envelope{Envelope: smtp.Envelope{
		From: "news@example.com", Recipients: to, Message: smtp.Guarded(n.message, stillOurs),
	}}
}

func (n *newsletter) Settle(e *relay.Envelope, name string, err error) {
	for i, to := range e.Recipients {
		fmt.Println(to.Mailbox, e.Results[i].Status == smtp.Accepted, "by", name)
	}
	close(n.done)
}

func (n *newsletter) Stalled(time.Time, error) {}

// A relay of one's own in a pool.
func Example() {
	message := envelope.NewMessage("Subject: Hi\n\nHello.\n")
	pool := relay.NewPool([]relay.Relay{{Config: relay.Config{Name: "gateway"}, Dialer: gateway{}}}, relay.Options{})
	n := &newsletter{message: message, waiting: envelope.To("ann@example.net", "bob@example.net"), done: make(chan struct{})}
	pool.Add(n)
	<-n.done
	_ = pool.Close(context.Background())
	// Output:
	// from news@example.com to 2 recipients: 23 octets
	// ann@example.net true by gateway
	// bob@example.net true by gateway
}
