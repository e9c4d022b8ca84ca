package campaign_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"iter"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"go.uber.org/goleak"

	"bulkmail/envelope"
	"bulkmail/subjects"
	"bulkmail/subjects/broker/brokertest"
	"bulkmail/subjects/campaign"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m, brokertest.LeftByNATS()) }

// message is what all campaigns here send. It lacks nothing.
const message = "From: News <news@example.com>\nTo: readers@example.com\nSubject: t\nDate: Mon, 02 Nov 2026 09:30:00 +0100\nMessage-ID: <1@example.com>\nMIME-Version: 1.0\n\nhi\n"

var errDisk = errors.New("disk on fire")

// A fixture is a broker with everything on it, and a client of it.
type fixture struct {
	*campaign.Client
	t     testing.TB
	js    jetstream.JetStream
	names subjects.Names
}

func newFixture(t testing.TB, o campaign.Options) *fixture {
	t.Helper()
	h := &fixture{t: t, js: brokertest.Connect(t, brokertest.Start(t).URL())}
	if err := subjects.Provision(t.Context(), h.js, h.names, subjects.Options{AckWait: time.Minute, OutcomesMaxAge: time.Hour}, slog.New(slog.DiscardHandler)); err != nil {
		t.Fatal(err)
	}
	h.Client = campaign.New(h.js, h.names, o)
	return h
}

func (h *fixture) stream(name string) jetstream.Stream {
	h.t.Helper()
	s, err := h.js.Stream(h.t.Context(), name)
	if err != nil {
		h.t.Fatal(err)
	}
	return s
}

// write appends an entry to the journal of a batch, as a worker would.
func (h *fixture) write(name, batch string, e subjects.Entry) {
	h.t.Helper()
	data, err := json.Marshal(e)
	if err != nil {
		h.t.Fatal(err)
	}
	h.writeRaw(name, batch, string(data))
}

func (h *fixture) writeRaw(name, batch, data string) {
	h.t.Helper()
	if _, err := h.js.Publish(h.t.Context(), h.names.Outcomes(name, batch), []byte(data)); err != nil {
		h.t.Fatal(err)
	}
}

// enqueue puts something on the queue, as another program would.
func (h *fixture) enqueue(name, data string) {
	h.t.Helper()
	if _, err := h.js.Publish(h.t.Context(), h.names.Batches(name), []byte(data)); err != nil {
		h.t.Fatal(err)
	}
}

// bury makes a dead letter, as a worker would.
func (h *fixture) bury(name, batch, cause, data string) {
	h.t.Helper()
	msg := &nats.Msg{Subject: h.names.Dead(name), Data: []byte(data), Header: nats.Header{
		subjects.HeaderBatch: {batch}, subjects.HeaderReason: {"why " + batch}, subjects.HeaderCause: {cause}, subjects.HeaderCodes: {"452"},
	}}
	if _, err := h.js.PublishMsg(h.t.Context(), msg); err != nil {
		h.t.Fatal(err)
	}
}

// queued returns the batches of a campaign in the queue.
func (h *fixture) queued(name string) (batches []*envelope.Batch, sequences []uint64) {
	h.t.Helper()
	stream := h.stream(h.names.BatchesStream())
	for next := uint64(1); ; {
		m, err := stream.GetMsg(h.t.Context(), next, jetstream.WithGetMsgSubject(h.names.Batches(name)))
		if errors.Is(err, jetstream.ErrMsgNotFound) {
			return batches, sequences
		}
		if err != nil {
			h.t.Fatal(err)
		}
		b, err := envelope.Decode(m.Data)
		if err != nil {
			h.t.Fatal(err)
		}
		batches, sequences = append(batches, b), append(sequences, m.Sequence)
		next = m.Sequence + 1
	}
}

// recipients are those of the queue, each as often as it is there.
func (h *fixture) recipients(name string) map[string]int {
	h.t.Helper()
	all := make(map[string]int)
	batches, _ := h.queued(name)
	for _, b := range batches {
		for _, r := range b.Recipients {
			all[r.Address]++
		}
	}
	return all
}

// settle does what workers would: every batch of the queue is accepted and taken
// off.
func (h *fixture) settle(name string) {
	h.t.Helper()
	batches, sequences := h.queued(name)
	stream := h.stream(h.names.BatchesStream())
	for i, b := range batches {
		h.write(name, b.ID, entry(subjects.Claimed, 1))
		h.write(name, b.ID, entry(subjects.Done, 1, became(subjects.Accepted, "primary", addresses(b)...)))
		if err := stream.DeleteMsg(h.t.Context(), sequences[i]); err != nil {
			h.t.Fatal(err)
		}
	}
}

func addresses(b *envelope.Batch) []string {
	list := make([]string, len(b.Recipients))
	for i, r := range b.Recipients {
		list[i] = r.Address
	}
	return list
}

// record returns the record of a campaign; found is false if it has none.
func (h *fixture) record(name string) (record subjects.Campaign, found bool) {
	h.t.Helper()
	bucket, err := h.js.KeyValue(h.t.Context(), h.names.CampaignBucket())
	if err != nil {
		h.t.Fatal(err)
	}
	value, err := bucket.Get(h.t.Context(), name)
	if errors.Is(err, jetstream.ErrKeyNotFound) {
		return record, false
	}
	if err == nil {
		err = json.Unmarshal(value.Value(), &record)
	}
	if err != nil {
		h.t.Fatal(err)
	}
	return record, true
}

func (h *fixture) putRecord(name string, record subjects.Campaign) {
	h.t.Helper()
	bucket, err := h.js.KeyValue(h.t.Context(), h.names.CampaignBucket())
	if err != nil {
		h.t.Fatal(err)
	}
	data, err := json.Marshal(record)
	if err == nil {
		_, err = bucket.Put(h.t.Context(), name, data)
	}
	if err != nil {
		h.t.Fatal(err)
	}
}

// leavesNothing checks that nobody has left a consumer behind.
func (h *fixture) leavesNothing(after string) {
	h.t.Helper()
	for _, stream := range []string{h.names.OutcomesStream(), h.names.DeadStream()} {
		consumers := h.stream(stream).ListConsumers(h.t.Context())
		for info := range consumers.Info() {
			h.t.Errorf("%s leaves the consumer %s on %s", after, info.Name, stream)
		}
		if err := consumers.Err(); err != nil {
			h.t.Error(err)
		}
	}
}

func entry(event subjects.Event, attempt int, results ...subjects.Results) subjects.Entry {
	return subjects.Entry{Time: time.Date(2026, 11, 24, 0, 0, attempt, 0, time.UTC), Worker: "w", Attempt: attempt, Event: event, Results: results}
}

func became(status subjects.Status, relay string, recipients ...string) subjects.Results {
	return subjects.Results{Status: status, Relay: relay, Recipients: recipients}
}

// numbered is a list of recipients of three domains.
func numbered(from, to int) string {
	var list strings.Builder
	for i := from; i < to; i++ {
		fmt.Fprintf(&list, "r%d@d%d.test\n", i, i%3)
	}
	return list.String()
}

// news is a publication of the campaign news.
func news(list iter.Seq2[campaign.Recipient, error]) campaign.Publication {
	return campaign.Publication{Campaign: "news", From: "news@example.com", Message: message, List: list}
}

func listOf(text string) iter.Seq2[campaign.Recipient, error] {
	return campaign.ReadList(strings.NewReader(text))
}
