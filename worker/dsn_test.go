package worker_test

import (
	"context"
	"testing"

	"bulkmail/envelope"
	"bulkmail/relay"
	"bulkmail/relay/smtp"
	"bulkmail/subjects"
	"bulkmail/worker"
)

// askedFor is a relay that notes the delivery status notifications asked for.
type askedFor struct {
	*memory
	dsn chan smtp.DSN
}

func (a askedFor) Dial(ctx context.Context) (relay.Session, error) {
	session, err := a.memory.Dial(ctx)
	return askedForSession{session, a.dsn}, err
}

type askedForSession struct {
	relay.Session
	dsn chan smtp.DSN
}

func (s askedForSession) Send(ctx context.Context, e *smtp.Envelope, next func() *smtp.Envelope) error {
	s.dsn <- e.DSN
	return s.Session.Send(ctx, e, next)
}

func TestABatchMayAskForDeliveryStatusNotifications(t *testing.T) {
	t.Parallel()
	h, post := newHouse(t), newMemory()
	asked := askedFor{post, make(chan smtp.DSN, 2)}
	r := post.relay()
	r.Dialer = asked
	h.hire(t, worker.Options{}, r)
	for id, dsn := range map[string]envelope.DSN{"with": {EnvelopeID: "QQ314159", Return: "HDRS", Notify: "FAILURE"}, "without": {}} {
		h.publish(t, "c", envelope.Batch{ID: id, Recipients: envelope.To(id + "@example.net"), DSN: dsn})
		h.ledger(t, "c", id).until(subjects.Done)
		want := smtp.DSN{EnvelopeID: dsn.EnvelopeID, Return: dsn.Return, Notify: dsn.Notify, OriginalRecipient: dsn != envelope.DSN{}}
		if got := <-asked.dsn; got != want {
			t.Errorf("batch %s: the relay was asked for %+v, want %+v", id, got, want)
		}
	}
}
