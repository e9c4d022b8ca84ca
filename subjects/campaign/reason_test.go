package campaign_test

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

	"bulkmail/subjects"
	"bulkmail/subjects/campaign"
)

// worker says of its relays what a worker would.
func (h *fixture) worker(name string, relays ...subjects.RelayStatus) {
	h.t.Helper()
	bucket, err := h.js.KeyValue(h.t.Context(), h.names.RelayBucket())
	if err != nil {
		h.t.Fatal(err)
	}
	value, err := json.Marshal(subjects.WorkerRelays{Worker: name, Relays: relays})
	if err == nil {
		_, err = bucket.Put(h.t.Context(), subjects.WorkerKey(name), value)
	}
	if err != nil {
		h.t.Fatal(err)
	}
}

func TestACampaignThatDoesNotMoveSaysWhy(t *testing.T) {
	t.Parallel()
	h := newFixture(t, campaign.Options{Actor: "ann@office"})
	check := func(code campaign.ReasonCode, texts ...string) {
		t.Helper()
		r, err := h.Reason(t.Context(), "news")
		if err != nil || r.Code != code || code == "" && r.Text != "" {
			t.Errorf("%+v, %v, want %s", r, err, code)
		}
		for _, text := range texts {
			if !strings.Contains(r.Text, text) {
				t.Errorf("%q is without %q", r.Text, text)
			}
		}
	}
	check("") // nothing waits
	if _, err := h.Publish(t.Context(), news(listOf(numbered(0, 3)))); err != nil {
		t.Fatal(err)
	}
	check(campaign.ReasonNoWorker, "no worker runs")

	now := time.Now()
	parked := subjects.RelayStatus{Relay: "primary", State: "parked", Until: now.Add(time.Hour), LastError: "421 go away", LastErrorTime: now}
	worthless := subjects.RelayStatus{Relay: "spare", State: "worthless"}
	used := subjects.RelayStatus{Relay: "small", State: "exhausted", Until: now.Add(time.Hour)}
	asleep := subjects.RelayStatus{Relay: "tired", State: "asleep", Until: now.Add(time.Hour)}
	spread := subjects.RelayStatus{Relay: "spread", State: "paced", Until: now.Add(time.Hour)}
	paced := subjects.RelayStatus{Relay: "paced", State: "paced", Until: now.Add(time.Second)}
	h.worker("w1")
	check(campaign.ReasonRelays, "the workers have no relays")
	h.worker("w1", parked, worthless)
	h.worker("w2", subjects.RelayStatus{Relay: "primary", State: "parked"})
	check(campaign.ReasonRelays, "relay primary is parked until "+now.Add(time.Hour).Format(time.DateTime)+": 421 go away; relay spare is worthless")
	h.worker("w2", parked, used, asleep, spread)
	check(campaign.ReasonCaps, "relay small has used up max_messages until "+now.Add(time.Hour).Format(time.DateTime)+"; relay spread may send no more", "; relay tired sleeps until ", "; relay primary is parked")
	h.worker("w3", paced)
	check("")
	h.worker("w3", subjects.RelayStatus{Relay: "primary", State: "awake"})
	check("")

	if _, err := h.Pause(t.Context(), "news", "wrong subject"); err != nil {
		t.Fatal(err)
	}
	check(campaign.ReasonPaused, "paused by ann@office at ", ": wrong subject")
	if _, err := h.Reason(t.Context(), "a.b"); err == nil {
		t.Error("a name that cannot be has a reason")
	}
}
