package subjects

import (
	"context"
	"errors"
	"time"

	"github.com/nats-io/nats.go/jetstream"
)

// CampaignConsumer is the name of a campaign's consumer: a durable pull consumer
// on the batches, filtered to the campaign's subject.
func CampaignConsumer(campaign string) string { return "c-" + campaign }

// Queued is where the broker says that a batch of a campaign was stored: the
// header of the batch, without its data, with the sequence in Nats-Sequence.
func (n Names) Queued(campaign string) string { return n.Prefix() + ".queued." + campaign }

// Queue is how many batches of each campaign are on the queue, whether they wait,
// are in a worker's hand or rest.
func Queue(ctx context.Context, js jetstream.JetStream, n Names) (map[string]uint64, error) {
	stream, err := js.Stream(ctx, n.BatchesStream())
	if err != nil {
		return nil, err
	}
	info, err := stream.Info(ctx, jetstream.WithSubjectFilter(n.Batches("*")))
	if err != nil {
		return nil, err
	}
	campaigns := make(map[string]uint64, len(info.State.Subjects))
	for subject, batches := range info.State.Subjects {
		campaign, _ := n.Campaign(subject)
		campaigns[campaign] = batches
	}
	return campaigns, nil
}

// HeaderRecipients of a batch is how many recipients it has, as a decimal number.
const HeaderRecipients = "Bulkmail-Recipients"

// forever is until when a consumer is paused that nobody knows when to resume.
var forever = time.Date(2200, 1, 1, 0, 0, 0, 0, time.UTC)

// OpenConsumer returns a campaign's consumer, and makes it when there is none:
// paused until then, unless that is over or zero.
func OpenConsumer(ctx context.Context, js jetstream.JetStream, n Names, campaign string, ackWait time.Duration, until time.Time) (jetstream.Consumer, error) {
	name := CampaignConsumer(campaign)
	consumer, err := js.Consumer(ctx, n.BatchesStream(), name)
	if !errors.Is(err, jetstream.ErrConsumerNotFound) {
		return consumer, err
	}
	want := jetstream.ConsumerConfig{
		Durable:       name,
		Description:   "batches of campaign " + campaign,
		FilterSubject: n.Batches(campaign),
		AckPolicy:     jetstream.AckExplicitPolicy,
		AckWait:       ackWait,
		// An exhausted batch would sit in the work queue unseen.
		MaxDeliver: -1,
		// Delayed batches count as pending; a bound would let the retry
		// backlog block new work.
		MaxAckPending: -1,
	}
	if !until.IsZero() {
		want.PauseUntil = &until
	}
	consumer, err = js.CreateConsumer(ctx, n.BatchesStream(), want)
	if errors.Is(err, jetstream.ErrConsumerExists) {
		return js.Consumer(ctx, n.BatchesStream(), name)
	}
	return consumer, err
}

// PauseConsumer keeps the broker from handing out batches of a campaign until
// then; zero: until it is resumed. A consumer that is not there need not be
// paused: whoever makes it asks the campaign's record.
func PauseConsumer(ctx context.Context, js jetstream.JetStream, n Names, campaign string, until time.Time) error {
	if until.IsZero() {
		until = forever
	}
	_, err := js.PauseConsumer(ctx, n.BatchesStream(), CampaignConsumer(campaign), until)
	if errors.Is(err, jetstream.ErrConsumerNotFound) {
		return nil
	}
	return err
}

// ResumeConsumer ends what [PauseConsumer] began. Workers must pull anew: what
// waited on the broker while the consumer was paused may be answered late.
func ResumeConsumer(ctx context.Context, js jetstream.JetStream, n Names, campaign string) error {
	_, err := js.ResumeConsumer(ctx, n.BatchesStream(), CampaignConsumer(campaign))
	if errors.Is(err, jetstream.ErrConsumerNotFound) {
		return nil
	}
	return err
}

// RenewConsumer deletes a campaign's consumer and makes it anew, so that batches
// which rest until their next attempt are handed out at once. What a worker has
// in hand is handed out too; its journal says who holds it.
func RenewConsumer(ctx context.Context, js jetstream.JetStream, n Names, campaign string, ackWait time.Duration) error {
	err := js.DeleteConsumer(ctx, n.BatchesStream(), CampaignConsumer(campaign))
	if err != nil && !errors.Is(err, jetstream.ErrConsumerNotFound) {
		return err
	}
	_, err = OpenConsumer(ctx, js, n, campaign, ackWait, time.Time{})
	return err
}
