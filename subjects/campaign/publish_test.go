package campaign_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/nats-io/nats.go/jetstream"

	"bulkmail/envelope"
	"bulkmail/envelope/list"
	"bulkmail/subjects"
	"bulkmail/subjects/campaign"
)

// broken ends with an error instead of io.EOF.
type broken struct{ io.Reader }

func (b broken) Read(p []byte) (int, error) {
	n, err := b.Reader.Read(p)
	if errors.Is(err, io.EOF) {
		err = errDisk
	}
	return n, err
}

// once wants each of a list in the queue exactly once, and nobody else.
func (h *fixture) once(list string) {
	h.t.Helper()
	want := make(map[string]int)
	for r := range strings.FieldsSeq(list) {
		want[r] = 1
	}
	if diff := cmp.Diff(want, h.recipients("news")); diff != "" {
		h.t.Error(diff)
	}
}

func TestAPublicationIsBatchesARecordAndAMessage(t *testing.T) {
	t.Parallel()
	h := newFixture(t, campaign.Options{})
	p := news(listOf(numbered(0, 250) + "r0@D0.test\nnobody\n"))
	p.BatchSize = 100
	var told []campaign.Receipt
	p.Progress = func(r campaign.Receipt) { told = append(told, r) }
	got, err := h.Publish(t.Context(), p)
	if err != nil {
		t.Fatal(err)
	}
	want := campaign.Receipt{Campaign: "news", Batches: 3, Recipients: 251, Repeated: 1,
		Unusable: []campaign.Unusable{{Line: 252, Text: "nobody", Reason: "no @"}}}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	if len(told) != 3 || told[2].Batches != 3 || told[2].Recipients != 251 {
		t.Errorf("told on the way: %+v", told)
	}
	h.once(numbered(0, 250) + "nobody")
	record, _ := h.record("news")
	if record.State != subjects.CampaignRunning || record.Batches != 3 || record.Recipients != 251 || !record.Complete ||
		record.From != "news@example.com" || record.Message != campaign.Digest(message) {
		t.Errorf("on record: %+v", record)
	}
	store, err := h.js.ObjectStore(t.Context(), h.names.MessageStore())
	if err != nil {
		t.Fatal(err)
	}
	if stored, err := store.GetString(t.Context(), campaign.Digest(message)); stored != message || err != nil {
		t.Errorf("stored is %q, %v", stored, err)
	}
	batches, _ := h.queued("news")
	for _, b := range batches {
		if b.From != "news@example.com" || b.MessageRef != campaign.Digest(message) || b.Message != "" || !subjects.ValidID(b.ID) {
			t.Errorf("a batch is %+v", b)
		}
	}
	h.leavesNothing("Publish")
}

func TestAMessageMayGoInline(t *testing.T) {
	t.Parallel()
	h := newFixture(t, campaign.Options{})
	p := news(listOf(numbered(0, 3)))
	p.Inline = true
	if _, err := h.Publish(t.Context(), p); err != nil {
		t.Fatal(err)
	}
	if batches, _ := h.queued("news"); len(batches) != 1 || batches[0].Message != message || batches[0].MessageRef != "" {
		t.Errorf("in the queue: %+v", batches)
	}
	store, err := h.js.ObjectStore(t.Context(), h.names.MessageStore())
	if err != nil {
		t.Fatal(err)
	}
	if objects, err := store.List(t.Context()); !errors.Is(err, jetstream.ErrNoObjectsFound) {
		t.Errorf("stored: %v, %v", objects, err)
	}
}

func TestAPublicationThatBrokeOffGoesOnWhereItStopped(t *testing.T) {
	t.Parallel()
	h := newFixture(t, campaign.Options{})
	p := news(campaign.ReadList(broken{strings.NewReader(numbered(0, 8_000))}))
	p.BatchSize = 500
	first, err := h.Publish(t.Context(), p)
	if !errors.Is(err, errDisk) {
		t.Errorf("error is %v", err)
	}
	record, _ := h.record("news")
	if record.Complete || first.Batches == 0 || record.Batches != first.Batches || record.Recipients != first.Recipients || first.Batches*500 != first.Recipients {
		t.Errorf("after the first run: %+v, receipt %+v", record, first)
	}

	p.List = listOf(numbered(0, 10_000))
	second, err := h.Publish(t.Context(), p)
	if err != nil {
		t.Fatal(err)
	}
	if second.Recipients != 10_000-first.Recipients || second.Repeated != first.Recipients {
		t.Errorf("the second run published %d and left out %d, after %d", second.Recipients, second.Repeated, first.Recipients)
	}
	h.once(numbered(0, 10_000))
	if record, _ := h.record("news"); !record.Complete || record.Recipients != 10_000 {
		t.Errorf("after the second run: %+v", record)
	}
}

func TestWhoHasAnOutcomeIsNotPublishedAgain(t *testing.T) {
	t.Parallel()
	h := newFixture(t, campaign.Options{})
	if _, err := h.Publish(t.Context(), news(listOf(numbered(0, 3)))); err != nil {
		t.Fatal(err)
	}
	h.settle("news")
	again, err := h.Publish(t.Context(), news(listOf(numbered(0, 4))))
	if err != nil || again.Recipients != 1 || again.Repeated != 3 {
		t.Errorf("again: %+v, %v", again, err)
	}
	h.once("r3@d0.test")
	h.leavesNothing("Publish")

	// Whom an entry that cannot be read names, nobody knows.
	h.writeRaw("news", "b9", "{")
	_, err = h.Publish(t.Context(), news(listOf(numbered(0, 5))))
	if _, ok := errors.AsType[*campaign.EntryError](err); !ok || !strings.Contains(err.Error(), "journal bulkmail.outcomes.news.b9: entry ") {
		t.Errorf("beside an entry that cannot be read: %v", err)
	}
}

func TestTheMessageIsStoredOnce(t *testing.T) {
	t.Parallel()
	h := newFixture(t, campaign.Options{})
	for n := range 2 {
		if _, err := h.Publish(t.Context(), news(listOf(numbered(0, 3+n)))); err != nil {
			t.Fatal(err)
		}
	}
	// An object that is put anew would leave the chunks of the old one or
	// change its time.
	info, err := h.stream("OBJ_"+h.names.MessageStore()).Info(t.Context(), jetstream.WithSubjectFilter(">"))
	if err != nil || info.State.LastSeq != 2 { // a chunk and its description
		t.Errorf("%d messages were written for it, %v", info.State.LastSeq, err)
	}
}

func TestACampaignHasOneMessageAndOneSender(t *testing.T) {
	t.Parallel()
	h := newFixture(t, campaign.Options{})
	if _, err := h.Publish(t.Context(), news(listOf(numbered(0, 3)))); err != nil {
		t.Fatal(err)
	}
	p := news(listOf(numbered(0, 5)))
	p.Message = "From: news@example.com\nSubject: else\n\nhi\n"
	_, err := h.Publish(t.Context(), p)
	if changed, ok := errors.AsType[*campaign.MessageChangedError](err); !ok || changed.Campaign != "news" {
		t.Errorf("with another message: %v", err)
	}
	p = news(listOf(numbered(0, 5)))
	p.From = "else@example.com"
	_, err = h.Publish(t.Context(), p)
	if changed, ok := errors.AsType[*campaign.SenderChangedError](err); !ok || changed.Sender != "news@example.com" {
		t.Errorf("with another sender: %v", err)
	}
	if _, err := h.Cancel(t.Context(), "news", ""); err != nil {
		t.Fatal(err)
	}
	_, err = h.Publish(t.Context(), news(listOf(numbered(0, 5))))
	if _, ok := errors.AsType[*campaign.CancelledError](err); !ok {
		t.Errorf("into a cancelled one: %v", err)
	}
	h.once(numbered(0, 3))
}

func TestAPublicationWithoutABatchLeavesNothing(t *testing.T) {
	t.Parallel()
	h := newFixture(t, campaign.Options{})
	for name, tc := range map[string]struct {
		list string
		want error
	}{
		"empty":  {"# nobody\n", campaign.ErrEmptyList},
		"broken": {"email\n\"", new(list.Error)},
	} {
		_, err := h.Publish(t.Context(), news(listOf(tc.list)))
		if _, line := errors.AsType[*list.Error](err); !errors.Is(err, tc.want) && !line {
			t.Errorf("%s: %v", name, err)
		}
		if _, found := h.record("news"); found {
			t.Errorf("%s: there is a record", name)
		}
	}
	// Nor does one that was cut before its first batch was stored bind anybody.
	h.putRecord("news", subjects.Campaign{State: subjects.CampaignRunning, Message: "another", From: "else@example.com"})
	if _, err := h.Publish(t.Context(), news(listOf(numbered(0, 3)))); err != nil {
		t.Error(err)
	}
	if record, _ := h.record("news"); record.Message != campaign.Digest(message) || record.From != "news@example.com" || record.Recipients != 3 {
		t.Errorf("on record: %+v", record)
	}
}

// A run that was killed has not put on record what it had published.
func TestBatchesThatAreNotOnRecordBindTheirCampaign(t *testing.T) {
	t.Parallel()
	h := newFixture(t, campaign.Options{})
	if _, err := h.Publish(t.Context(), news(listOf(numbered(0, 3)))); err != nil {
		t.Fatal(err)
	}
	record, _ := h.record("news")
	record.Batches, record.Recipients, record.Complete = 0, 0, false
	h.putRecord("news", record)
	other := news(listOf(numbered(0, 5)))
	other.Message = "From: news@example.com\nSubject: else\n\nhi\n"
	for _, where := range []string{"queue", "journals"} {
		other.List = listOf(numbered(0, 5))
		_, err := h.Publish(t.Context(), other)
		if _, ok := errors.AsType[*campaign.MessageChangedError](err); !ok {
			t.Errorf("with batches in the %s: %v", where, err)
		}
		h.settle("news")
	}
}

func TestWhatIsWrongWithAPublicationIsToldByField(t *testing.T) {
	t.Parallel()
	h := newFixture(t, campaign.Options{})
	for field, spoil := range map[string]func(*campaign.Publication){
		"campaign":   func(p *campaign.Publication) { p.Campaign = "a.b" },
		"from":       func(p *campaign.Publication) { p.From = "nobody" },
		"message":    func(p *campaign.Publication) { p.Message = "" },
		"batch size": func(p *campaign.Publication) { p.BatchSize = -1 },
		"list":       func(p *campaign.Publication) { p.List = nil },
	} {
		p := news(listOf(numbered(0, 3)))
		spoil(&p)
		_, err := h.Publish(t.Context(), p)
		if wrong, ok := errors.AsType[*envelope.FieldError](err); !ok || wrong.Field != field {
			t.Errorf("%s: error is %v", field, err)
		}
	}
	p := news(listOf(numbered(0, 3)))
	p.Message, p.Inline = "From: news@example.com\nSubject: t\n\nj\xfcrgen\n", true
	_, err := h.Publish(t.Context(), p)
	if wrong, ok := errors.AsType[*envelope.FieldError](err); !ok || wrong.Field != "message" {
		t.Errorf("inline, and not UTF-8: error is %v", err)
	}
}

// queuedOctets are the batches of a campaign as the broker has them.
func (h *fixture) queuedOctets(name string) (sizes []int) {
	h.t.Helper()
	batches, _ := h.queued(name)
	for i := range batches {
		sizes = append(sizes, len(batches[i].AppendJSON(nil)))
	}
	return sizes
}

func TestLettersWithMuchDataAreSplitByOctets(t *testing.T) {
	t.Parallel()
	h := newFixture(t, campaign.Options{})
	letters := func(n int) campaign.Publication {
		p := news(func(yield func(campaign.Recipient, error) bool) {
			for i := range n {
				// Quotes and line ends take more in JSON than they are.
				text := strings.Repeat("\"x\"\n", 20<<10/5)
				data, _ := json.Marshal(map[string]string{"first": fmt.Sprint(i), "text": text})
				if !yield(campaign.Recipient{Address: fmt.Sprintf("r%d@d%d.test", i, i%3), Name: "Ann Lee", Data: string(data)}, nil) {
					return
				}
			}
		})
		p.Letters = true
		return p
	}
	receipt, err := h.Publish(t.Context(), letters(90))
	if err != nil || receipt.Recipients != 90 {
		t.Fatalf("%+v, %v", receipt, err)
	}
	sizes := h.queuedOctets("news")
	if most := slices.Max(sizes); most > 600<<10 || most < 400<<10 || len(sizes) != receipt.Batches || len(sizes) > 9 {
		t.Errorf("batches of %v octets", sizes)
	}
	got := h.recipients("news")
	if len(got) != 90 || got["r89@d2.test"] != 1 {
		t.Errorf("%d recipients in the queue", len(got))
	}
	// Preview makes the same batches.
	var previewed []string
	if err := letters(90).Batches(func(b envelope.Batch) error { previewed = append(previewed, b.ID); return nil }); err != nil {
		t.Fatal(err)
	}
	batches, _ := h.queued("news")
	for _, b := range batches {
		if !slices.Contains(previewed, b.ID) || len(batches) != len(previewed) {
			t.Errorf("batch %s is none of %v", b.ID, previewed)
		}
	}
}

func TestABatchIsAsLargeAsTheBrokerTakes(t *testing.T) {
	t.Parallel()
	h := newFixture(t, campaign.Options{})
	limit := int(h.js.Conn().MaxPayload())
	p := news(listOf(numbered(0, 4000)))
	p.BatchSize = 100_000
	p.Inline, p.Message = true, "From: news@example.com\nSubject: t\n\n"+strings.Repeat("long\n", (limit-60<<10)/8)
	if _, err := h.Publish(t.Context(), p); err != nil {
		t.Fatal(err)
	}
	h.once(numbered(0, 4000))
	if sizes := h.queuedOctets("news"); len(sizes) < 2 || slices.Max(sizes) > limit || slices.Max(sizes) < limit-5<<10 {
		t.Errorf("batches of %v octets, the broker takes %d", sizes, limit)
	}
	// What has no room at all says so.
	p.Campaign, p.Message, p.List = "inline", "From: news@example.com\nSubject: t\n\n"+strings.Repeat("long\n", 250_000), listOf(numbered(0, 1))
	_, err := h.Publish(t.Context(), p)
	if large, ok := errors.AsType[*campaign.TooLargeError](err); !ok || !large.Inline || large.Limit != limit {
		t.Errorf("with a large message inline: %v", err)
	}
}

func TestWhomACampaignIsToStaysOnRecordUntilAnotherListIsNamed(t *testing.T) {
	t.Parallel()
	h := newFixture(t, campaign.Options{})
	for _, step := range []struct {
		last     int
		listID   string
		kind     subjects.CampaignKind
		wantList string
		want     subjects.CampaignKind
	}{
		{2, "", "", "", subjects.KindBulk},
		{4, "orders", subjects.KindTransactional, "orders", subjects.KindTransactional},
		{6, "", "", "orders", subjects.KindTransactional},
		{6, "weekly", "", "weekly", subjects.KindTransactional}, // nobody is new
		{8, "", subjects.KindBulk, "weekly", subjects.KindBulk},
	} {
		p := news(listOf(numbered(0, step.last)))
		p.ListID, p.Kind = step.listID, step.kind
		if _, err := h.Publish(t.Context(), p); err != nil {
			t.Fatal(err)
		}
		if record, _ := h.record("news"); record.List != step.wantList || record.Kind != step.want {
			t.Errorf("after %+v: list %q, kind %q", step, record.List, record.Kind)
		}
	}
}

// A cluster that has lost its leader has a new one in a moment; who publishes a
// long list must not have to begin again.
func TestAQueueThatDoesNotAnswerIsWaitedFor(t *testing.T) {
	t.Parallel()
	said := make(chan error, 1)
	h := newFixture(t, campaign.Options{Trouble: func(err error) { said <- err }})
	queue := h.stream(h.names.BatchesStream()).CachedInfo().Config
	gone := false
	list := listOf(numbered(0, 3))
	ended := make(chan error)
	go func() {
		_, err := h.Publish(t.Context(), news(func(yield func(campaign.Recipient, error) bool) {
			for r, err := range list { // the queue goes when publishing has begun
				if !gone {
					gone = true
					if err := h.js.DeleteStream(t.Context(), queue.Name); err != nil {
						t.Error(err)
					}
				}
				if !yield(r, err) {
					return
				}
			}
		}))
		ended <- err
	}()
	if err := <-said; !strings.HasPrefix(err.Error(), "the queue does not answer, trying on for 45s: ") {
		t.Errorf("told: %v", err)
	}
	if _, err := h.js.CreateStream(t.Context(), queue); err != nil {
		t.Fatal(err)
	}
	if err := <-ended; err != nil {
		t.Errorf("the queue is back, and publish says %v", err)
	}
	h.once(numbered(0, 3))
}

func TestAQueueThatRefusesIsNotWaitedFor(t *testing.T) {
	t.Parallel()
	h := newFixture(t, campaign.Options{Trouble: func(err error) { t.Errorf("told of trouble: %v", err) }})
	full := h.stream(h.names.BatchesStream()).CachedInfo().Config
	full.MaxMsgs, full.Discard = 1, jetstream.DiscardNew
	if _, err := h.js.UpdateStream(t.Context(), full); err != nil {
		t.Fatal(err)
	}
	p := news(listOf(numbered(0, 100)))
	p.BatchSize = 10
	receipt, err := h.Publish(t.Context(), p)
	if err == nil || !strings.Contains(err.Error(), "maximum messages exceeded") || receipt.Batches != 1 {
		t.Errorf("a full queue is told as %v, published %+v", err, receipt)
	}
}

func TestADigestIsMadeOfTheMessage(t *testing.T) {
	t.Parallel()
	digests := []string{campaign.Digest(message), campaign.Digest(message), campaign.Digest("else")}
	if digests[0] != digests[1] || digests[0] == digests[2] || slices.ContainsFunc(digests, func(d string) bool { return !subjects.ValidID(d) }) {
		t.Errorf("digests %q", digests)
	}
}
