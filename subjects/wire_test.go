package subjects_test

import (
	"bytes"
	"encoding/json"
	"flag"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"bulkmail/subjects"
)

// Formats are a contract with programs of others: rewrite a golden file only
// when the change is meant and told of.
var update = flag.Bool("update", false, "rewrite the golden files")

func TestWireFormatsAreAsPublished(t *testing.T) {
	t.Parallel()
	at := time.Date(2026, 11, 23, 22, 48, 37, 123e6, time.UTC)
	everyStatus := make([]subjects.Results, 0, len(subjects.Statuses()))
	for _, s := range subjects.Statuses() {
		everyStatus = append(everyStatus, subjects.Results{Status: s, Recipients: []string{string(s) + "@example.net"}})
	}
	for _, c := range []struct {
		golden string
		value  any
	}{
		{"entry-claimed.json", subjects.Entry{Time: at, Worker: "w1", Attempt: 1, Event: subjects.Claimed}},
		{"entry-sending.json", subjects.Entry{
			Time: at, Worker: "w1", Attempt: 1, Event: subjects.Sending,
			Results: []subjects.Results{{Status: subjects.InDoubt, Relay: "primary", Recipients: []string{"ann@example.net", "Bob <bob@example.org>"}}},
		}},
		{"entry-recorded.json", subjects.Entry{
			Time: at, Worker: "w1", Attempt: 2, Event: subjects.Recorded,
			Results: []subjects.Results{
				{Status: subjects.Accepted, Relay: "primary", Code: 250, Enhanced: "2.0.0", Text: "Ok: queued as <4XyZ&1>", Recipients: []string{"ann@example.net", "bob@example.org"}},
				{Status: subjects.Rejected, Relay: "primary", Code: 550, Enhanced: "5.1.1", Text: `"no such user"`, Recipients: []string{"gone@example.net"}},
				{Status: subjects.Deferred, Relay: "spare", Code: 451, Text: "später", Recipients: []string{"jörg@bücher.example"}},
				{Status: subjects.Deferred, Relay: "spare", Code: 451, Text: "lost", InDoubt: true, Recipients: []string{"late@example.net"}},
			},
		}},
		{"entry-done.json", subjects.Entry{Time: at, Worker: "w1", Attempt: 3, Event: subjects.Done}},
		{"entry-every-status.json", subjects.Entry{Time: at, Worker: "w1", Attempt: 3, Event: subjects.Done, Results: everyStatus}},
		{"campaign-running.json", subjects.Campaign{
			State: subjects.CampaignRunning, Created: at, From: "news@example.com", Message: "november-c0ffee",
			Batches: 2, Recipients: 2000, Complete: true,
		}},
		{"campaign-paused-by-hand.json", subjects.Campaign{State: subjects.CampaignPaused, Created: at}},
		{"relay-ledger.json", subjects.RelayLedger{
			Fresh: 3, Used: 120, WindowEnds: at.Add(time.Hour), Awake: 20, AsleepUntil: at.Add(time.Second),
			Recent: [][2]int64{{at.UnixMicro(), 14}}, Paced: at.Add(time.Millisecond), Dry: true, Resets: 1,
			Workers: map[string]subjects.RelayShare{"w1": {Held: 50, Serial: 7}, "w2": {Held: 0, Serial: 2, Wants: true, Seen: at}},
		}},
		{"relay-ledger-new.json", subjects.RelayLedger{}},
		{"worker-relays.json", subjects.WorkerRelays{Worker: "w1", Relays: []subjects.RelayStatus{
			{Relay: "primary", State: "awake", Sessions: 2, Busy: 1, Messages: 1000, LastMessage: at},
			{
				Relay: "spare", State: "parked", Until: at.Add(time.Minute), LastError: "454 4.7.0 later", LastErrorCode: 454,
				LastErrorMBS: "MBS013", LastErrorTime: at,
			},
		}}},
		{"campaign-paused-with-reasons.json", subjects.Campaign{
			State: subjects.CampaignPaused, Created: at, From: "news@example.com", Message: "november-c0ffee",
			Batches: 2, Recipients: 2000, Complete: true,
			Changes: []subjects.CampaignChange{
				{Time: at, State: subjects.CampaignPaused, By: "ann@office", Why: "wrong subject"},
				{Time: at.Add(time.Minute), State: subjects.CampaignRunning, By: "bob@office"},
				{Time: at.Add(time.Hour), State: subjects.CampaignPaused},
			},
		}},
		{"feedback-bounced.json", subjects.FeedbackEvent{
			ID: "b1c2", Time: at, Kind: subjects.Bounced, Campaign: "spring", Batch: "0001", Recipient: "ann@example.net",
			Hard: true, Reason: "unknown_user", Enhanced: "5.1.1", Code: 550, Text: "no such user", Remote: "mx.example.net", Source: "smtp",
		}},
		{"feedback-unsubscribed.json", subjects.FeedbackEvent{
			ID: "u1", Time: at, Kind: subjects.Unsubscribed, Campaign: "spring", Recipient: "ann@example.net", Source: "http",
		}},
		{"suppression-added.json", subjects.SuppressionChange{
			Time: at, Op: subjects.Suppress, Scope: "list:weekly", Until: at.Add(time.Hour), Why: "asked by phone", Source: "suppress", By: "ann@office",
			Names: []string{"ann@example.net", "@dead.example"},
		}},
		{"suppression-removed.json", subjects.SuppressionChange{Time: at, Op: subjects.Release, Names: []string{"ann@example.net"}}},
		{"campaign-cancelled.json", subjects.Campaign{State: subjects.CampaignCancelled, Created: at, Batches: 1, Recipients: 7}},
	} {
		t.Run(c.golden, func(t *testing.T) {
			t.Parallel()
			var got bytes.Buffer
			enc := json.NewEncoder(&got)
			enc.SetEscapeHTML(false)
			if err := enc.Encode(c.value); err != nil {
				t.Fatal(err)
			}
			if e, ok := c.value.(subjects.Entry); ok && string(e.AppendJSON(nil))+"\n" != got.String() {
				t.Errorf("by hand it is %s", e.AppendJSON(nil))
			}
			path := filepath.Join("testdata", c.golden)
			if *update {
				if err := os.WriteFile(path, got.Bytes(), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(string(want), got.String()); diff != "" {
				t.Errorf("-published +now\n%s", diff)
			}
		})
	}
}

func TestWhatWasPublishedIsReadAsWritten(t *testing.T) {
	t.Parallel()
	files, err := filepath.Glob("testdata/*.json")
	if err != nil || len(files) == 0 {
		t.Fatalf("no golden files: %v", err)
	}
	for _, path := range files {
		data, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		var value any = new(subjects.Entry)
		switch kind, _, _ := strings.Cut(filepath.Base(path), "-"); kind {
		case "campaign":
			value = new(subjects.Campaign)
		case "feedback":
			value = new(subjects.FeedbackEvent)
		case "suppression":
			value = new(subjects.SuppressionChange)
		case "relay":
			value = new(subjects.RelayLedger)
		case "worker":
			value = new(subjects.WorkerRelays)
		}
		dec := json.NewDecoder(bytes.NewReader(data))
		dec.DisallowUnknownFields()
		if err := dec.Decode(value); err != nil {
			t.Errorf("%s: %v", path, err)
			continue
		}
		var again bytes.Buffer
		enc := json.NewEncoder(&again)
		enc.SetEscapeHTML(false)
		if err := enc.Encode(value); err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(string(data), again.String()); diff != "" {
			t.Errorf("%s changes when read and written\n%s", path, diff)
		}
	}
}

func TestOnlyDeferredIsNotFinal(t *testing.T) {
	t.Parallel()
	for _, s := range subjects.Statuses() {
		if got, want := s.Final(), s != subjects.Deferred; got != want {
			t.Errorf("%s: final is %v", s, got)
		}
	}
	for _, unknown := range []subjects.Status{"", "sent"} {
		if unknown.Final() {
			t.Errorf("%q counts as final: its recipient would vanish", unknown)
		}
	}
	if all := subjects.Statuses(); len(slices.Compact(slices.Sorted(slices.Values(all)))) != len(all) {
		t.Errorf("a status is listed twice: %v", all)
	}
}
