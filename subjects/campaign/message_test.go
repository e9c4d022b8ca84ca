package campaign_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/nats-io/nats.go/jetstream"

	"bulkmail/envelope"
	"bulkmail/envelope/keys"
	"bulkmail/subjects"
	"bulkmail/subjects/campaign"
	"bulkmail/testdata"
)

func TestAMessageIsLookedAtAsItsReceiversWould(t *testing.T) {
	t.Parallel()
	const whole = "From: News <news@example.com>\nTo: readers@example.com\nSubject: t\nDate: Mon, 02 Nov 2026 09:30:00 +0100\nMessage-ID: <1@example.com>\nMIME-Version: 1.0\n"
	for name, tc := range map[string]struct {
		message string
		want    []string
	}{
		"nothing wrong": {whole + "\nhi\n", nil},
		"the shipped":   {testdata.Plain, nil},
		"no From": {strings.Replace(whole, "From", "X-From", 1) + "\nhi\n", []string{
			"from error there is no From field: add one, as From: News <news@example.com>",
		}},
		"two of a field": {"Subject: a\n" + whole + "From: b@example.com\n\nhi\n", []string{
			"one-of-each-field error line 4: a second Subject field, the first is on line 1: leave one",
			"one-of-each-field error line 8: a second From field, the first is on line 2: leave one",
		}},
		"encoded words in quotes": {strings.Replace(whole, "News", `"=?utf-8?q?N?="`, 1) + "\nhi\n", []string{
			"encoded-words error line 1: From has an encoded word (=?…?=) in quotes: take the quotes off",
		}},
		"Bcc":     {whole + "Bcc: boss@example.com\n\nhi\n", []string{"bcc note Bcc would be seen by everybody: it is taken out"}},
		"no text": {whole + "\n \n", []string{"body warning there is no text after the header"}},
		"a wrong date": {strings.Replace(whole, "Mon,", "Someday,", 1) + "\nhi\n", []string{
			`date warning Date is no date ("Someday, 02 Nov 2026 09:30:00 +0100"): leave it out, then the right one is added`,
		}},
		"a placeholder":    {whole + "\nDear {{first}},\n", []string{"placeholder warning {{first}} will be read as it stands by everybody: this is a message to many"}},
		"braces that mean": {whole + "\n<style>a{{color: red}}</style> {{}} {{\n", nil},
		"the least": {"From: a@example.com\n\nhi\n", []string{
			"subject warning there is no Subject: add one",
			"to warning there is no To field, which filters mind: add one, as To: Readers of the news <news@example.com>",
			"date note there is no Date: it is added",
			"message-id note there is no Message-ID: it is added",
			"mime-version note there is no MIME-Version: it is added",
		}},
	} {
		checks, err := campaign.CheckMessage(tc.message)
		if err != nil {
			t.Errorf("%s: %v", name, err)
		}
		var got []string
		for _, c := range checks {
			got = append(got, fmt.Sprint(c.Rule, " ", c.Level, " ", c.Text))
		}
		if diff := cmp.Diff(tc.want, got); diff != "" {
			t.Errorf("%s: %s", name, diff)
		}
	}
	_, err := campaign.CheckMessage("no header\n")
	if field, ok := errors.AsType[*envelope.FieldError](err); !ok || field.Field != "message" || !strings.HasPrefix(field.Reason, "line 1: no header field") {
		t.Errorf("error is %v", err)
	}
}

// stored is the message that a batch in the queue asks for.
func (h *fixture) stored(b *envelope.Batch) string {
	h.t.Helper()
	store, err := h.js.ObjectStore(h.t.Context(), h.names.MessageStore())
	if err != nil {
		h.t.Fatal(err)
	}
	text, err := store.GetString(h.t.Context(), b.MessageRef)
	if err != nil || campaign.Digest(text) != b.MessageRef {
		h.t.Fatalf("%s is %q, %v", b.MessageRef, text, err)
	}
	return text
}

func TestAMessageThatLacksNothingIsStoredToTheOctet(t *testing.T) {
	t.Parallel()
	h := newFixture(t, campaign.Options{})
	p := news(listOf(numbered(0, 3)))
	p.Message = testdata.Plain
	if _, err := h.Publish(t.Context(), p); err != nil {
		t.Fatal(err)
	}
	if batches, _ := h.queued("news"); batches[0].MessageRef != campaign.Digest(testdata.Plain) || h.stored(batches[0]) != testdata.Plain {
		t.Errorf("stored is\n%s", h.stored(batches[0]))
	}
}

func TestAMessageIDIsMadeWithTheKeyOfTheWorkers(t *testing.T) {
	t.Parallel()
	h := newFixture(t, campaign.Options{})
	key, err := keys.New("k1", strings.Repeat("secret--", 4))
	if err != nil {
		t.Fatal(err)
	}
	p := news(listOf(numbered(0, 3)))
	p.Message, p.Key = "From: News <news@example.com>\nSubject: t\n\nhi\n", key
	if _, err := h.Publish(t.Context(), p); err != nil {
		t.Fatal(err)
	}
	want := key.Maker().AppendMessageID([]byte("Message-ID: <"), "news", "", campaign.Digest(p.Message))
	batches, _ := h.queued("news")
	if text := h.stored(batches[0]); !strings.Contains(text, string(want)+"@example.com>\r\n") {
		t.Errorf("without %s:\n%s", want, text)
	}
}

func TestWhatAMessageLacksIsAddedTheSameEachTime(t *testing.T) {
	t.Parallel()
	h := newFixture(t, campaign.Options{})
	p := news(listOf(numbered(0, 3)))
	p.Message = "From: News <news@example.com>\nBcc: boss@example.com,\n\tboard@example.com\nSubject: t\n\n.dot\n"
	if _, err := h.Publish(t.Context(), p); err != nil {
		t.Fatal(err)
	}
	record, _ := h.record("news")
	if record.Message != campaign.Digest(p.Message) || time.Since(record.Date) > time.Hour {
		t.Errorf("on record: %+v", record)
	}
	batches, _ := h.queued("news")
	text := h.stored(batches[0])
	for _, want := range []string{
		"\r\nDate: " + record.Date.Format("Mon, 02 Jan 2006 15:04:05 +0000") + "\r\n", "@example.com>\r\nMIME-Version: 1.0\r\n", "\r\n.dot\r\n",
	} {
		if !strings.Contains(text, want) {
			t.Errorf("without %q:\n%s", want, text)
		}
	}
	if strings.Contains(text, "bo") || strings.Count(text, "Message-ID: <") != 1 {
		t.Errorf("sent is\n%s", text)
	}
	// Whoever goes on another day sends the same message.
	record.Date = record.Date.Add(-48 * time.Hour)
	h.putRecord("news", record)
	for n := range 2 {
		p.List = listOf(numbered(0, 4+n))
		if r, err := h.Publish(t.Context(), p); err != nil || r.Recipients != 1 {
			t.Fatalf("%+v, %v", r, err)
		}
	}
	batches, _ = h.queued("news")
	if batches[1].MessageRef == batches[0].MessageRef || batches[2].MessageRef != batches[1].MessageRef {
		t.Errorf("messages %s, %s and %s", batches[0].MessageRef, batches[1].MessageRef, batches[2].MessageRef)
	}
	if again := h.stored(batches[2]); !strings.Contains(again, record.Date.Format("Mon, 02 Jan 2006 15:04:05 +0000")) {
		t.Errorf("the second is\n%s", again)
	}
}

func TestLinesThatRelaysWouldCutAreEncoded(t *testing.T) {
	t.Parallel()
	h := newFixture(t, campaign.Options{})
	p := news(listOf(numbered(0, 3)))
	p.Message = "From: J\xfcrgen <news@example.com>\nSubject: t\n\n" + strings.Repeat("long ", 300) + "\n"
	if _, err := h.Publish(t.Context(), p); err != nil {
		t.Fatal(err)
	}
	batches, _ := h.queued("news")
	text := h.stored(batches[0])
	if !strings.Contains(text, "\r\nContent-Transfer-Encoding: quoted-printable\r\n") || !strings.HasPrefix(text, "From: =?") || !strings.Contains(text, "long =\r\nlong ") {
		t.Errorf("stored is\n%s", text)
	}
}

// A release that stored messages as they were given has published to some.
func TestACampaignOfTheReleaseBeforeGoesOnWithTheSameMessage(t *testing.T) {
	t.Parallel()
	h := newFixture(t, campaign.Options{})
	const given = "From: News <news@example.com>\nSubject: t\n\nhi\n"
	store, err := h.js.ObjectStore(t.Context(), h.names.MessageStore())
	if err == nil {
		_, err = store.PutString(t.Context(), campaign.Digest(given), given)
	}
	if err != nil {
		t.Fatal(err)
	}
	h.putRecord("news", subjects.Campaign{
		State: subjects.CampaignRunning, From: "news@example.com", Message: campaign.Digest(given), Batches: 1, Recipients: 2, Complete: true,
	})
	h.write("news", "b1", entry(subjects.Done, 1, became(subjects.Accepted, "a", "r0@d0.test")))
	h.enqueue("news", `{"id":"b2","from":"news@example.com","recipients":["r1@d1.test"],"message_ref":"`+campaign.Digest(given)+`"}`)
	p := news(listOf(numbered(0, 3)))
	p.Message = given
	if r, err := h.Publish(t.Context(), p); err != nil || r.Recipients != 1 || r.Repeated != 2 {
		t.Errorf("%+v, %v", r, err)
	}
	h.once("r1@d1.test r2@d2.test")
	if text, err := store.GetString(t.Context(), campaign.Digest(given)); text != given || err != nil {
		t.Errorf("the stored one is %q, %v", text, err)
	}
}

func TestAMessageThatShouldNotBeSentIsRefused(t *testing.T) {
	t.Parallel()
	h := newFixture(t, campaign.Options{})
	p := news(listOf(numbered(0, 3)))
	p.Message = "Subject: t\nSubject: t\n\nhi\n"
	_, err := h.Publish(t.Context(), p)
	if wrong, ok := errors.AsType[*campaign.MessageError](err); !ok || len(wrong.Checks) != 2 ||
		err.Error() != "line 2: a second Subject field, the first is on line 1: leave one; there is no From field: add one, as From: News <news@example.com>" {
		t.Errorf("error is %v", err)
	}
	if _, found := h.record("news"); found {
		t.Error("there is a record")
	}
	store, err := h.js.ObjectStore(t.Context(), h.names.MessageStore())
	if err != nil {
		t.Fatal(err)
	}
	if objects, err := store.List(t.Context()); !errors.Is(err, jetstream.ErrNoObjectsFound) {
		t.Errorf("stored: %v, %v", objects, err)
	}
}
