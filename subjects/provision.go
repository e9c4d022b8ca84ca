package subjects

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/nats-io/nats.go/jetstream"
)

// Options are what differs from one installation to another.
type Options struct {
	Replicas       int           // copies of every stream; 0 is 1
	AckWait        time.Duration // of the workers' consumer
	OutcomesMaxAge time.Duration // how long journals are kept
}

// dedupeWindow is how long the broker recognises a message id. Each id costs
// it some 170 bytes; what makes a batch idempotent is the journal, so the
// window need only cover a publisher's retries.
const dedupeWindow = time.Minute

// Provision makes what is missing on the broker. What is there already is left
// as it is, since updating a stream under load has lost delayed redeliveries in
// clusters; where it differs from what o asks for, a warning says how.
func Provision(ctx context.Context, js jetstream.JetStream, n Names, o Options, log *slog.Logger) error {
	for _, want := range n.streams(o) {
		if err := provisionStream(ctx, js, want, log); err != nil {
			return fmt.Errorf("stream %s: %w", want.Name, err)
		}
	}
	if err := provisionConsumer(ctx, js, n, o, log); err != nil {
		return fmt.Errorf("consumer %s of %s: %w", Consumer, n.BatchesStream(), err)
	}
	for _, bucket := range []string{n.CampaignBucket(), n.RelayBucket(), n.KeyBucket()} {
		_, err := js.KeyValue(ctx, bucket)
		if errors.Is(err, jetstream.ErrBucketNotFound) {
			_, err = js.CreateKeyValue(ctx, jetstream.KeyValueConfig{Bucket: bucket, Replicas: max(o.Replicas, 1), Storage: jetstream.FileStorage})
		}
		if err != nil && !errors.Is(err, jetstream.ErrBucketExists) {
			return fmt.Errorf("bucket %s: %w", bucket, err)
		}
	}
	_, err := js.ObjectStore(ctx, n.MessageStore())
	if errors.Is(err, jetstream.ErrBucketNotFound) {
		_, err = js.CreateObjectStore(ctx, jetstream.ObjectStoreConfig{Bucket: n.MessageStore(), Replicas: max(o.Replicas, 1), Storage: jetstream.FileStorage})
	}
	if err != nil && !errors.Is(err, jetstream.ErrBucketExists) {
		return fmt.Errorf("object store %s: %w", n.MessageStore(), err)
	}
	return nil
}

func (n Names) streams(o Options) []jetstream.StreamConfig {
	replicas := max(o.Replicas, 1)
	return []jetstream.StreamConfig{
		{
			Name:        n.BatchesStream(),
			Description: "batches of recipients that wait to be sent to",
			Subjects:    []string{n.Batches("*")},
			Retention:   jetstream.WorkQueuePolicy,
			Storage:     jetstream.FileStorage,
			Replicas:    replicas,
			Duplicates:  dedupeWindow,
			AllowDirect: true,
		},
		{
			Name:        n.OutcomesStream(),
			Description: "what became of every recipient: one journal a batch",
			Subjects:    []string{n.Outcomes("*", "*")},
			Retention:   jetstream.LimitsPolicy,
			Storage:     jetstream.FileStorage,
			Replicas:    replicas,
			MaxAge:      o.OutcomesMaxAge,
			Duplicates:  dedupeWindow,
			AllowDirect: true,
		},
		{
			Name:        n.DeadStream(),
			Description: "batches that could not be read, and what expired",
			Subjects:    []string{n.Dead("*")},
			Retention:   jetstream.LimitsPolicy,
			Storage:     jetstream.FileStorage,
			Replicas:    replicas,
			Duplicates:  dedupeWindow,
			AllowDirect: true,
		},
		{
			Name:        n.FeedbackStream(),
			Description: "bounces, complaints and unsubscribes",
			Subjects:    []string{n.AllFeedback()},
			Retention:   jetstream.LimitsPolicy,
			Storage:     jetstream.FileStorage,
			Replicas:    replicas,
			MaxAge:      o.OutcomesMaxAge,
			Duplicates:  dedupeWindow,
			AllowDirect: true,
		},
		{
			Name:        n.SuppressionStream(),
			Description: "who must not be sent to: what changed, for ever",
			Subjects:    []string{n.Suppressions()},
			Retention:   jetstream.LimitsPolicy,
			Storage:     jetstream.FileStorage,
			Replicas:    replicas,
			Duplicates:  dedupeWindow,
			AllowDirect: true,
			Compression: jetstream.S2Compression,
		},
		{
			Name:              n.TallyStream(),
			Description:       "what became of recipients, counted: one message a campaign and one of what is told beside",
			Subjects:          []string{n.Tally("*"), n.TallyDetail("*")},
			Retention:         jetstream.LimitsPolicy,
			Storage:           jetstream.FileStorage,
			Replicas:          replicas,
			MaxMsgsPerSubject: 1,
			AllowMsgTTL:       true, // of what stands for a campaign that was deleted
			Duplicates:        dedupeWindow,
			AllowDirect:       true,
		},
	}
}

func (n Names) consumer(o Options) jetstream.ConsumerConfig {
	return jetstream.ConsumerConfig{
		Durable:     Consumer,
		Description: "the workers of the fleet share it",
		AckPolicy:   jetstream.AckExplicitPolicy,
		AckWait:     o.AckWait,
		// An exhausted batch would sit in the work queue unseen.
		MaxDeliver: -1,
		// Delayed batches count as pending; a bound would let the retry
		// backlog block new work.
		MaxAckPending: -1,
	}
}

func provisionStream(ctx context.Context, js jetstream.JetStream, want jetstream.StreamConfig, log *slog.Logger) error {
	stream, err := js.Stream(ctx, want.Name)
	if errors.Is(err, jetstream.ErrStreamNotFound) {
		stream, err = js.CreateStream(ctx, want)
	}
	if errors.Is(err, jetstream.ErrStreamNameAlreadyInUse) {
		stream, err = js.Stream(ctx, want.Name) // another worker made it meanwhile
	}
	if err != nil {
		return err
	}
	have := stream.CachedInfo().Config
	var d differences
	d.compare("subjects", have.Subjects, want.Subjects)
	d.compare("retention", have.Retention, want.Retention)
	d.compare("storage", have.Storage, want.Storage)
	d.compare("replicas", have.Replicas, want.Replicas)
	d.compare("max_age", have.MaxAge, want.MaxAge)
	d.compare("allow_direct", have.AllowDirect, want.AllowDirect)
	d.warn(ctx, log, "stream", want.Name)
	return nil
}

func provisionConsumer(ctx context.Context, js jetstream.JetStream, n Names, o Options, log *slog.Logger) error {
	want := n.consumer(o)
	consumer, err := js.Consumer(ctx, n.BatchesStream(), Consumer)
	if errors.Is(err, jetstream.ErrConsumerNotFound) {
		consumer, err = js.CreateConsumer(ctx, n.BatchesStream(), want)
	}
	if errors.Is(err, jetstream.ErrConsumerExists) {
		consumer, err = js.Consumer(ctx, n.BatchesStream(), Consumer)
	}
	if err != nil {
		return err
	}
	have := consumer.CachedInfo().Config
	var d differences
	d.compare("ack_policy", have.AckPolicy, want.AckPolicy)
	d.compare("ack_wait", have.AckWait, want.AckWait)
	d.compare("max_deliver", have.MaxDeliver, want.MaxDeliver)
	d.compare("max_ack_pending", have.MaxAckPending, want.MaxAckPending)
	d.compare("backoff", have.BackOff, want.BackOff)
	d.warn(ctx, log, "consumer", Consumer)
	return nil
}

// differences collects what is not as wanted.
type differences []slog.Attr

func (d *differences) compare(key string, have, want any) {
	if h, w := fmt.Sprint(have), fmt.Sprint(want); h != w {
		*d = append(*d, slog.String(key, h+", not "+w))
	}
}

func (d differences) warn(ctx context.Context, log *slog.Logger, kind, name string) {
	if len(d) > 0 {
		log.LogAttrs(ctx, slog.LevelWarn, "found on the broker otherwise than configured, left as it is",
			append([]slog.Attr{slog.String(kind, name)}, d...)...)
	}
}

// Remove deletes all that [Provision] makes, with what is in it. What is not
// there is no error.
func Remove(ctx context.Context, js jetstream.JetStream, n Names) error {
	var problems []error
	for _, want := range n.streams(Options{}) {
		if err := js.DeleteStream(ctx, want.Name); err != nil && !errors.Is(err, jetstream.ErrStreamNotFound) {
			problems = append(problems, fmt.Errorf("stream %s: %w", want.Name, err))
		}
	}
	for _, bucket := range []string{n.CampaignBucket(), n.RelayBucket(), n.KeyBucket()} {
		if err := js.DeleteKeyValue(ctx, bucket); err != nil && !errors.Is(err, jetstream.ErrBucketNotFound) {
			problems = append(problems, fmt.Errorf("bucket %s: %w", bucket, err))
		}
	}
	if err := js.DeleteObjectStore(ctx, n.MessageStore()); err != nil && !errors.Is(err, jetstream.ErrBucketNotFound) {
		problems = append(problems, fmt.Errorf("object store %s: %w", n.MessageStore(), err))
	}
	return errors.Join(problems...)
}
