package main

import (
	"context"
	"encoding/json"
	"io"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"bulkmail/subjects"
	"bulkmail/subjects/campaign"
)

// putCampaign puts the record of a campaign into the bucket.
func (c *client) putCampaign(t *testing.T, name string, entry subjects.Campaign) {
	t.Helper()
	bucket, err := c.js.KeyValue(t.Context(), c.names.CampaignBucket())
	if err != nil {
		t.Fatal(err)
	}
	value, err := json.Marshal(entry)
	if err == nil {
		_, err = bucket.Put(t.Context(), name, value)
	}
	if err != nil {
		t.Fatal(err)
	}
}

func TestAStatusIsALineACampaign(t *testing.T) {
	t.Parallel()
	c := connected(t)
	running := func(recipients int, complete bool) subjects.Campaign {
		return subjects.Campaign{State: subjects.CampaignRunning, Batches: 1, Recipients: recipients, Complete: complete}
	}
	two := entry(subjects.Done, 1, became(subjects.Accepted, "a", "1@x.test"), became(subjects.Rejected, "a", "2@x.test"))
	c.putCampaign(t, "all", running(2, true))
	c.journal(t, "all", "b1", two)
	// Somebody is in no journal: finished it is not, whatever the queue says.
	c.putCampaign(t, "one-missing", running(3, true))
	c.journal(t, "one-missing", "b1", two)
	// The rest of the list was never published.
	c.putCampaign(t, "cut", running(2, false))
	c.journal(t, "cut", "b1", two)
	c.putCampaign(t, "deferred", running(2, true))
	c.journal(t, "deferred", "b1", entry(subjects.Recorded, 1, became(subjects.Accepted, "a", "1@x.test"), became(subjects.Deferred, "a", "2@x.test")))
	c.putCampaign(t, "queued", running(2, true))
	c.journal(t, "queued", "b1", two)
	if _, err := c.js.Publish(t.Context(), c.names.Batches("queued"), []byte("{}")); err != nil {
		t.Fatal(err)
	}
	// Published by another program: no entry. The second attempt overturns the
	// deferral, and nobody is counted twice.
	c.journal(t, "by-hand", "b1", entry(subjects.Recorded, 1, became(subjects.Deferred, "a", "1@x.test")))
	c.journal(t, "by-hand", "b1", entry(subjects.Done, 2, became(subjects.Accepted, "a", "1@x.test")))
	paused := running(2, true)
	paused.State = subjects.CampaignPaused
	c.putCampaign(t, "paused", paused)

	var out strings.Builder
	s := discard()
	s.out = &out
	if err := c.status(t.Context(), s, nil, false, false); err != nil {
		t.Fatal(err)
	}
	var lines []string
	for line := range strings.Lines(out.String()) {
		lines = append(lines, strings.TrimRight(line, " \n"))
	}
	want := []string{
		"campaign     state       recipients  queued  deferred  accepted  rejected  batches",
		"all          finished             2       0         0         1         1        1",
		"by-hand      finished             1       0         0         1         0        1",
		"cut          incomplete           2       0         0         1         1        1",
		"deferred     running              2       0         1         1         0        1",
		"one-missing  running              3       1         0         1         1        1",
		"paused       paused               2       2         0         0         0        1",
		"queued       running              2       0         0         1         1        1",
	}
	if diff := cmp.Diff(want, lines); diff != "" {
		t.Error(diff)
	}
}

// Whoever expired, was cancelled and so on stands somewhere.
func TestTheColumnsOfAStatusAddUp(t *testing.T) {
	t.Parallel()
	list := []campaign.Status{
		{
			Campaign: "a", State: subjects.CampaignRunning, Published: 50_000, Batches: 9,
			Outcomes: subjects.Counts{Queued: 201, Accepted: 41_691, Rejected: 100, Expired: 8_000, InDoubt: 1, Deferred: 7},
		},
		{Campaign: "b", State: subjects.CampaignCancelled, Published: 10, Batches: 1, Outcomes: subjects.Counts{Cancelled: 10}},
	}
	var out strings.Builder
	s := discard()
	s.out = &out
	if err := printStatuses(s, list, false, false); err != nil {
		t.Fatal(err)
	}
	want := `campaign  state      recipients  queued  deferred  accepted  rejected  expired  cancelled  in_doubt  batches
a         running        50,000     201         7    41,691       100    8,000          0         1        9
b         cancelled          10       0         0         0         0        0         10         0        1
`
	if diff := cmp.Diff(want, out.String()); diff != "" {
		t.Error(diff)
	}
}

func TestWhatIsWatchedIsDrawnInItsPlace(t *testing.T) {
	t.Parallel()
	var w screen
	if got := w.over("one\ntwo  \n", 80); got != "one\ntwo\n" {
		t.Errorf("at first %q", got)
	}
	if got := w.over("one\na line that is too long\nthree\n", 10); got != "\x1b[2A\r\x1b[Jone\na line th…\nthree\n" {
		t.Errorf("then %q", got)
	}
	if got := w.over("one\n", 80); got != "\x1b[3A\r\x1b[Jone\n" {
		t.Errorf("in the end %q", got)
	}
}

func TestAWatchEndsWithTheCampaign(t *testing.T) {
	t.Parallel()
	c := connected(t)
	done := entry(subjects.Done, 1, became(subjects.Accepted, "a", "1@x.test"))
	c.putCampaign(t, "news", subjects.Campaign{State: subjects.CampaignRunning, Batches: 1, Recipients: 1, Complete: true})
	c.journal(t, "news", "b1", done)
	c.putCampaign(t, "gone", subjects.Campaign{State: subjects.CampaignCancelled, Batches: 2, Recipients: 2, Complete: true})
	c.journal(t, "gone", "b1", done)
	for _, name := range []string{"news", "gone"} {
		if err := c.status(t.Context(), discard(), []string{name}, false, true); err != nil {
			t.Error(err)
		}
	}
}

func TestAStatusSaysWhatIsLeftOut(t *testing.T) {
	t.Parallel()
	c := connected(t)
	if _, err := c.js.Publish(t.Context(), c.names.Outcomes("broken", "b1"), []byte("no JSON")); err != nil {
		t.Fatal(err)
	}
	c.journal(t, "fine", "b1", entry(subjects.Done, 1, became(subjects.Accepted, "a", "1@x.test")))
	var out, errs strings.Builder
	if err := c.status(t.Context(), &streams{strings.NewReader(""), &out, &errs}, nil, false, false); err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(out.String(), "\nfine      finished ") || !strings.Contains(out.String(), "\nbroken    running ") {
		t.Errorf("printed is\n%s", out.String())
	}
	if !strings.HasPrefix(errs.String(), "bulkmail: left out: journal bulkmail.outcomes.broken.b1: entry 1 cannot be read: ") {
		t.Errorf("told is %s", errs.String())
	}
}

func TestThePaceOfACampaignSaysWhatIsLeft(t *testing.T) {
	t.Parallel()
	now := time.Now()
	for rate, want := range map[float64]string{0: "", 2_000: "2,000/s, 3s left", 0.5: "0/s, 3h20m0s left"} {
		l := campaign.Status{Rate: rate, AsOf: now}
		if rate > 0 {
			ends := now.Add(time.Duration(6_000 / rate * float64(time.Second)))
			l.Ends = &ends
		}
		if got := pace(&l); got != want {
			t.Errorf("at %g/s it says %q, want %q", rate, got, want)
		}
	}
}

func TestAStatusAddsUpWhatTheWorkersSayOfARelay(t *testing.T) {
	t.Parallel()
	at := func(second int) time.Time { return time.Date(2026, 11, 24, 0, 0, second, 0, time.UTC) }
	got := relayStatuses([]subjects.WorkerRelays{
		{Worker: "1", Relays: []subjects.RelayStatus{
			{Relay: "b", State: "awake", Sessions: 2, Messages: 10, LastError: "newer", LastErrorTime: at(2)},
			{Relay: "a", State: "awake", Sessions: 1, Messages: 5},
		}},
		{Worker: "2", Relays: []subjects.RelayStatus{
			{Relay: "b", State: "parked", Messages: 1, LastError: "older", LastErrorTime: at(1)},
			{Relay: "a", State: "awake", Sessions: 1, Messages: 5},
		}},
	})
	want := []relayStatus{
		{Relay: "a", Workers: 2, States: map[string]int{"awake": 2}, Sessions: 2, Accepted: 10},
		{Relay: "b", Workers: 2, States: map[string]int{"awake": 1, "parked": 1}, Sessions: 2, Accepted: 11, LastError: "newer", lastError: at(2)},
	}
	if diff := cmp.Diff(want, got, cmp.AllowUnexported(relayStatus{})); diff != "" {
		t.Error(diff)
	}
	if a, b := got[0].state(), got[1].state(); a != "awake" || b != "awake 1, parked 1" {
		t.Errorf("states %q and %q", a, b)
	}
}

func TestAWatchedStatusSaysInJSONWhatIsLeft(t *testing.T) {
	t.Parallel()
	c := connected(t)
	c.putCampaign(t, "c", subjects.Campaign{State: subjects.CampaignRunning, Batches: 1, Recipients: 3, Complete: true})
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	lines := make(chan campaign.Status)
	pipe, out := io.Pipe()
	go func() {
		defer close(lines)
		for dec := json.NewDecoder(pipe); ; {
			var l campaign.Status
			if dec.Decode(&l) != nil {
				return
			}
			lines <- l
		}
	}()
	ended := make(chan error)
	go func() {
		s := discard()
		s.out = out
		err := c.status(ctx, s, []string{"c"}, true, true)
		_ = out.Close()
		ended <- err
	}()
	if first := <-lines; first.Outcomes.Final() != 0 || first.Rate != 0 || first.Ends != nil {
		t.Errorf("first %+v", first)
	}
	c.journal(t, "c", "b1", entry(subjects.Recorded, 1, became(subjects.Accepted, "a", "1@x.test")))
	if second := <-lines; second.Outcomes.Final() != 1 || second.Rate <= 0 || second.Ends == nil || !second.Ends.After(second.AsOf) {
		t.Errorf("second %+v", second)
	}
	cancel()
	for range lines { // what was printed meanwhile
	}
	if err := <-ended; err != nil && ctx.Err() == nil {
		t.Error(err)
	}
}
