package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"bulkmail/subjects"
	"bulkmail/subjects/campaign"
)

// helloMessage lacks nothing.
const helloMessage = "From: News <news@example.com>\nTo: readers@example.com\nSubject: t\nDate: Mon, 02 Nov 2026 09:30:00 +0100\nMessage-ID: <1@example.com>\nMIME-Version: 1.0\n\nhi\n"

// publishNews publishes some recipients as the command does.
func (c *client) publishNews(t *testing.T, s *streams) campaign.Receipt {
	t.Helper()
	receipt, err := publish(t.Context(), s, c.campaigns(s), campaign.Publication{
		Campaign: "news", From: "news@example.com", Message: helloMessage, List: campaign.ReadList(strings.NewReader(numbered(0, 3))),
	})
	if err != nil {
		t.Fatal(err)
	}
	return receipt
}

func numbered(from, to int) string {
	var list strings.Builder
	for i := from; i < to; i++ {
		fmt.Fprintf(&list, "r%d@d%d.test\n", i, i%3)
	}
	return list.String()
}

func TestAPublicationThatFailedSaysWhatToChange(t *testing.T) {
	t.Parallel()
	o := publishOptions{campaign: "news", list: "list.txt"}
	full := errors.New("maximum messages exceeded")
	for _, tc := range []struct {
		batches int
		err     error
		want    string
	}{
		{0, &campaign.MessageChangedError{Campaign: "news"}, "campaign news was published with another message: choose another --campaign"},
		{0, &campaign.SenderChangedError{Campaign: "news", Sender: "a@b.c"}, `campaign news was published with the sender "a@b.c": choose another --campaign`},
		{0, &campaign.CancelledError{Campaign: "news"}, "campaign news was cancelled: choose another --campaign"},
		{0, campaign.ErrEmptyList, "list.txt: there is no recipient in the list"},
		{0, &campaign.TooLargeError{Recipient: "ann@example.net", Bytes: 3000, Limit: 2048}, "a batch with ann@example.net alone has 3000 bytes, and the broker takes 2048: shorten the data, or raise the broker's max_payload"},
		{0, &campaign.TooLargeError{Recipient: "ann@example.net", Bytes: 3000, Limit: 2048, Inline: true}, "with the message inline a batch has 3,000 bytes, and the broker takes 2,048: leave out --inline, then the message is stored once, or raise the broker's max_payload"},
		{0, full, "maximum messages exceeded"},
		{1, full, "maximum messages exceeded; run the same command again to go on where it stopped"},
	} {
		if got := o.explain(campaign.Receipt{Batches: tc.batches}, tc.err); got.Error() != tc.want {
			t.Errorf("%T is told as %v, want %s", tc.err, got, tc.want)
		}
	}
}

func TestAListIsNamedInItsErrors(t *testing.T) {
	t.Parallel()
	var got []string
	for r, err := range of("list.txt", campaign.ReadList(strings.NewReader("email,name\nann@example.net,Ann\n"+strings.Repeat("bob@example.net,Bob\n", 200)+"\"carl@example.net,Carl\n"))) {
		if err != nil || r.Line == 2 {
			got = append(got, fmt.Sprint(r.Address, " ", err))
		}
	}
	want := []string{"ann@example.net <nil>", " list.txt: line 203: a cell that begins with a quote here is never closed: put \" at its end, or take off the one at its beginning"}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

func TestAWaitThatIsInterruptedSaysThatTheWorkersGoOn(t *testing.T) {
	t.Parallel()
	c, s := connected(t), discard()
	c.publishNews(t, s)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := follow(ctx, s, c.campaigns(s), "news"); err == nil || err.Error() != "no longer waiting; the workers go on, see: bulkmail outcomes news" {
		t.Errorf("error is %v", err)
	}
}

func TestWhoWaitsIsToldWhoIsWithoutAnOutcome(t *testing.T) {
	t.Parallel()
	c, s := connected(t), discard()
	c.putCampaign(t, "news", subjects.Campaign{State: subjects.CampaignRunning, Batches: 1, Recipients: 2001, Complete: true})
	c.journal(t, "news", "b1", entry(subjects.Done, 1, became(subjects.Accepted, "a", "1@x.test")))
	_, err := follow(t.Context(), s, c.campaigns(s), "news")
	if want := "2,000 recipients of campaign news without a final outcome although all batches are done"; err == nil || err.Error() != want {
		t.Errorf("error is %v, want %s", err, want)
	}
}

func TestWhoWaitsIsToldOfDeadLetters(t *testing.T) {
	t.Parallel()
	c, s := connected(t), discard()
	receipt := c.publishNews(t, s)
	store, err := c.js.ObjectStore(t.Context(), c.names.MessageStore())
	if err != nil {
		t.Fatal(err)
	}
	if err := store.Delete(t.Context(), campaign.Digest(helloMessage)); err != nil {
		t.Fatal(err)
	}
	worker := startBulkmail(t, []string{"BULKMAIL_NATS_URL=" + c.nc.ConnectedUrl(), "BULKMAIL_RELAYS=dummy:///dev/null?domain=client.test"}, "worker")
	ctx, cancel := context.WithTimeout(t.Context(), waitAtMost)
	defer cancel()
	summary, err := follow(ctx, s, c.campaigns(s), "news")
	if err != nil {
		t.Fatal(err)
	}
	o := publishOptions{campaign: "news", wait: true, mayFail: mayFail{text: "0"}}
	want := `1 batch went to the dead letters, the first because of: message_ref: there is no object "` + campaign.Digest(helloMessage) + `" in the object store`
	if err := o.report(s, receipt, summary, time.Second); err == nil || err.Error() != want {
		t.Errorf("error is %v, want %s", err, want)
	}
	worker.drain(t)
}

func TestASummaryIsToldInOneLineInATableAndInJSON(t *testing.T) {
	t.Parallel()
	summary := &campaign.Summary{
		Outcomes: map[subjects.Status]int{subjects.Accepted: 3000, subjects.Rejected: 2, subjects.Expired: 1, subjects.Deferred: 4},
		Relays: map[string]map[subjects.Status]int{
			"":  {subjects.Rejected: 1},
			"a": {subjects.Accepted: 1, subjects.Rejected: 1, subjects.Expired: 1, subjects.Deferred: 4},
			"b": {subjects.Accepted: 2999},
		},
	}
	if want := "3,000 accepted, 2 rejected, 1 expired, 4 deferred so far"; note(summary) != want {
		t.Errorf("in one line: %s, want %s", note(summary), want)
	}
	var out strings.Builder
	if err := printSummary(&out, summary); err != nil {
		t.Fatal(err)
	}
	want := `relay   accepted  rejected  expired  deferred
(none)         0         1        0         0
a              1         1        1         4
b          2,999         0        0         0
total      3,000         2        1         4
`
	if diff := cmp.Diff(want, out.String()); diff != "" {
		t.Error(diff)
	}
	text, err := json.Marshal(finalOutcomes(summary))
	if err != nil || string(text) != `{"accepted":3000,"expired":1,"rejected":2}` {
		t.Errorf("as JSON: %s, %v", text, err)
	}
}

func TestSomeMayFail(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		text              string
		failed, published int
		want              bool
	}{
		{"0", 0, 10, false}, {"0", 1, 10, true}, {"2", 2, 10, false}, {"2", 3, 10, true},
		{"10%", 10, 100, false}, {"10%", 11, 100, true}, {"0.5%", 1, 200, false}, {"0.5%", 2, 200, true}, {"0%", 1, 10, true}, {"0%", 0, 10, false},
	} {
		m, err := parseMayFail(tc.text)
		if err != nil {
			t.Fatal(err)
		}
		if got := m.exceeded(tc.failed, tc.published); got != tc.want {
			t.Errorf("%d of %d with %s: %v", tc.failed, tc.published, tc.text, got)
		}
	}
	for _, text := range []string{"", "x", "-1", "101%", "-1%", "NaN%", "%"} {
		if _, err := parseMayFail(text); err == nil {
			t.Errorf("%q is taken", text)
		}
	}
}

func TestAnEndOfAWaitIsAFailureWhenTooManyDidNotGetIt(t *testing.T) {
	t.Parallel()
	o := publishOptions{campaign: "news", mayFail: mayFail{n: 2, text: "2"}}
	summary := func(rejected, expired, inDoubt, cancelled int) *campaign.Summary {
		return &campaign.Summary{Published: 10, State: subjects.CampaignRunning, Outcomes: map[subjects.Status]int{
			subjects.Rejected: rejected, subjects.Expired: expired, subjects.InDoubt: inDoubt, subjects.Cancelled: cancelled, subjects.Suppressed: 5, subjects.Deferred: 7,
		}}
	}
	if err := o.failure(summary(1, 1, 0, 0)); err != nil {
		t.Errorf("two: %v", err)
	}
	const want = "4 of 10 did not get it, which is more than --max-failed 2: see bulkmail outcomes news --status rejected,expired,in_doubt,cancelled"
	if err := o.failure(summary(1, 1, 1, 1)); err == nil || err.Error() != want {
		t.Errorf("four: %v", err)
	}
	cancelled := summary(0, 0, 0, 0)
	cancelled.State = subjects.CampaignCancelled
	if err := o.failure(cancelled); err == nil || err.Error() != "campaign news was cancelled" {
		t.Errorf("cancelled: %v", err)
	}
}

// A writer that tells when it was written to.
type mark struct{ written chan string }

func (m mark) Write(p []byte) (int, error) {
	select {
	case m.written <- string(p):
	default:
	}
	return len(p), nil
}

func TestAQueueThatDoesNotAnswerIsTold(t *testing.T) {
	t.Parallel()
	c := connected(t)
	said := mark{make(chan string, 1)}
	s := &streams{out: io.Discard, err: said}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error)
	go func() {
		_, err := c.campaigns(s).Publish(ctx, campaign.Publication{Campaign: "news", Message: helloMessage, List: func(yield func(campaign.Recipient, error) bool) {
			if err := c.js.DeleteStream(ctx, c.names.BatchesStream()); err != nil {
				t.Error(err)
			}
			yield(campaign.Recipient{Address: "ann@example.net"}, nil)
		}})
		ended <- err
	}()
	if text := <-said.written; !strings.HasPrefix(text, "bulkmail: the queue does not answer, trying on for 45s: ") {
		t.Errorf("told: %s", text)
	}
	cancel()
	if err := <-ended; !errors.Is(err, context.Canceled) {
		t.Errorf("error is %v", err)
	}
}
