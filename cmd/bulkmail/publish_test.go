package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"bulkmail/envelope"
	"bulkmail/subjects"
)

// publishTo makes a publication to a broker, as one run of the command is.
func publishTo(t *testing.T, c *client, o publishOptions, list io.Reader) (*publication, error) {
	t.Helper()
	o.from, o.campaign = "news@example.com", "news"
	if o.batchSize == 0 {
		o.batchSize = 1000
	}
	p := newPublication(&o, discard(), "Subject: t\n\nhi\n")
	p.client = c
	return p, p.publish(t.Context(), list)
}

func numbered(from, to int) string {
	var list strings.Builder
	for i := from; i < to; i++ {
		fmt.Fprintf(&list, "r%d@d%d.test\n", i, i%3)
	}
	return list.String()
}

// queued counts how often each recipient is in the queue.
func (c *client) queued(t *testing.T) *tally {
	t.Helper()
	all := newTally()
	err := c.published(t.Context(), "news", func(_ string, b *envelope.Batch) { all.add(b.Recipients...) }, func(string, subjects.Entry) {})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

// broken ends with an error instead of io.EOF.
type broken struct{ io.Reader }

func (b broken) Read(p []byte) (int, error) {
	n, err := b.Reader.Read(p)
	if errors.Is(err, io.EOF) {
		err = errDisk
	}
	return n, err
}

func TestAPublicationThatBrokeOffGoesOnWhereItStopped(t *testing.T) {
	t.Parallel()
	c := connected(t)
	_, err := publishTo(t, c, publishOptions{batchSize: 500}, broken{strings.NewReader(numbered(0, 8_000))})
	if !errors.Is(err, errDisk) || !strings.Contains(err.Error(), "run the same command again to go on where it stopped") {
		t.Errorf("error is %v", err)
	}
	campaigns, err := openCampaigns(t.Context(), c.js, c.names)
	if err != nil {
		t.Fatal(err)
	}
	campaign, _, _, err := campaigns.get(t.Context(), "news")
	if err != nil || campaign.Complete || campaign.Batches == 0 || campaign.Batches*500 != campaign.Recipients {
		t.Errorf("after the first run: %+v, %v", campaign, err)
	}
	before := campaign.Recipients

	second, err := publishTo(t, c, publishOptions{batchSize: 500}, strings.NewReader(numbered(0, 10_000)))
	if err != nil {
		t.Fatal(err)
	}
	if second.recipients != 10_000-before || second.repeated != before {
		t.Errorf("the second run published %d and left out %d, after %d", second.recipients, second.repeated, before)
	}
	c.queued(t).once(t, strings.Fields(numbered(0, 10_000)))
	if campaign, _, _, err = campaigns.get(t.Context(), "news"); err != nil || !campaign.Complete || campaign.Recipients != 10_000 {
		t.Errorf("after the second run: %+v, %v", campaign, err)
	}
}

func TestAWaitThatIsInterruptedSaysThatTheWorkersGoOn(t *testing.T) {
	t.Parallel()
	p, err := publishTo(t, connected(t), publishOptions{wait: true}, strings.NewReader(numbered(0, 3)))
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := p.follow(ctx); err == nil || err.Error() != "no longer waiting; the workers go on, see: bulkmail outcomes news" {
		t.Errorf("error is %v", err)
	}
}

func TestWhoWaitsIsToldOfDeadLetters(t *testing.T) {
	t.Parallel()
	c := connected(t)
	p, err := publishTo(t, c, publishOptions{wait: true}, strings.NewReader(numbered(0, 3)))
	if err != nil {
		t.Fatal(err)
	}
	store, err := c.js.ObjectStore(t.Context(), c.names.MessageStore())
	if err != nil {
		t.Fatal(err)
	}
	if err := store.Delete(t.Context(), p.digest); err != nil {
		t.Fatal(err)
	}
	worker := startBulkmail(t, []string{"BULKMAIL_NATS_URL=" + c.nc.ConnectedUrl(), "BULKMAIL_RELAYS=dummy:///dev/null?domain=client.test"}, "worker")
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	if err := p.follow(ctx); err != nil {
		t.Fatal(err)
	}
	want := `1 batch went to the dead letters, the first because of: message_ref: there is no object "` + p.digest + `" in the object store`
	if err := p.report(); err == nil || err.Error() != want {
		t.Errorf("error is %v, want %s", err, want)
	}
	worker.drain(t)
}

func TestTheMessageIsStoredOnce(t *testing.T) {
	t.Parallel()
	c := connected(t)
	for range 2 {
		if _, err := publishTo(t, c, publishOptions{}, strings.NewReader(numbered(0, 3))); err != nil {
			t.Fatal(err)
		}
	}
	store, err := c.js.ObjectStore(t.Context(), c.names.MessageStore())
	if err != nil {
		t.Fatal(err)
	}
	objects, err := store.List(t.Context())
	if err != nil || len(objects) != 1 {
		t.Errorf("%d objects are stored, %v", len(objects), err)
	}
	// An object that is put anew would leave the chunks of the old one or
	// change its time.
	stream, err := c.js.Stream(t.Context(), "OBJ_"+c.names.MessageStore())
	if err != nil {
		t.Fatal(err)
	}
	info, err := stream.Info(t.Context(), jetstream.WithSubjectFilter(">"))
	if err != nil || info.State.LastSeq != 2 { // a chunk and its description
		t.Errorf("%d messages were written for it, %v", info.State.LastSeq, err)
	}
}

// A mark is a writer that tells when it was written to.
type mark struct{ written chan struct{} }

func (m mark) Write(p []byte) (int, error) {
	select {
	case m.written <- struct{}{}:
	default:
	}
	return len(p), nil
}

// A cluster that has lost its leader has a new one in a moment; who publishes a
// long list must not have to begin again.
func TestAQueueThatDoesNotAnswerIsWaitedFor(t *testing.T) {
	t.Parallel()
	c := connected(t)
	stream, err := c.js.Stream(t.Context(), c.names.BatchesStream())
	if err != nil {
		t.Fatal(err)
	}
	if err := c.js.DeleteStream(t.Context(), c.names.BatchesStream()); err != nil {
		t.Fatal(err)
	}
	said := mark{make(chan struct{}, 1)}
	p := newPublication(&publishOptions{from: "news@example.com", campaign: "news", batchSize: 1000}, &streams{out: io.Discard, err: said}, "Subject: t\n\nhi\n")
	p.client = c
	ended := make(chan error)
	go func() {
		ended <- p.enqueue(t.Context(), &nats.Msg{Subject: c.names.Batches("news"), Data: []byte("{}")}, "1")
	}()
	<-said.written
	if _, err := c.js.CreateStream(t.Context(), stream.CachedInfo().Config); err != nil {
		t.Fatal(err)
	}
	if err := <-ended; err != nil {
		t.Errorf("the queue is back, and publish says %v", err)
	}
}

func TestAQueueThatRefusesIsNotWaitedFor(t *testing.T) {
	t.Parallel()
	c := connected(t)
	stream, err := c.js.Stream(t.Context(), c.names.BatchesStream())
	if err != nil {
		t.Fatal(err)
	}
	full := stream.CachedInfo().Config
	full.MaxMsgs, full.Discard = 1, jetstream.DiscardNew
	if _, err := c.js.UpdateStream(t.Context(), full); err != nil {
		t.Fatal(err)
	}
	_, err = publishTo(t, c, publishOptions{batchSize: 10}, strings.NewReader(numbered(0, 100)))
	if err == nil || !strings.Contains(err.Error(), "maximum messages exceeded") || !strings.Contains(err.Error(), "run the same command again") {
		t.Errorf("a full queue is told as %v", err)
	}
}
