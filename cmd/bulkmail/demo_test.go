package main

import (
	"context"
	"slices"
	"strings"
	"testing"
	"time"

	"bulkmail/relay/sink"
	"bulkmail/subjects"
)

func TestARecipientNeedsExactlyOneFinalOutcome(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		outcomes []subjects.Status
		want     string
	}{
		"accepted":         {[]subjects.Status{subjects.Accepted}, ""},
		"rejected":         {[]subjects.Status{subjects.Rejected}, ""},
		"in doubt":         {[]subjects.Status{subjects.InDoubt}, ""},
		"none":             {nil, "ann@example.net is unaccounted for"},
		"two":              {[]subjects.Status{subjects.Accepted, subjects.Accepted}, "ann@example.net has 2 outcomes"},
		"one not final":    {[]subjects.Status{subjects.Deferred}, "ann@example.net is deferred, which is not final"},
		"one that is none": {[]subjects.Status{""}, "ann@example.net is , which is not final"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			by := make(map[subjects.Status]int)
			err := accountFor("ann@example.net", tc.outcomes, by)
			switch {
			case tc.want == "" && (err != nil || by[tc.outcomes[0]] != 1 || len(by) != 1):
				t.Errorf("counted %v, error %v", by, err)
			case tc.want != "" && (err == nil || err.Error() != tc.want || len(by) != 0):
				t.Errorf("counted %v, error %v, want %s", by, err, tc.want)
			}
		})
	}
}

// The demo's own account of a run is tried on journals that are right but for
// one thing.
func TestTheDemoFailsIfOneRecipientIsUnaccountedFor(t *testing.T) {
	t.Parallel()
	all := shipped(t)
	odd := all[1234]
	for name, tc := range map[string]struct {
		tamper func(entries map[string]subjects.Entry)
		want   string // empty: all is well
	}{
		"all are accounted for": {func(map[string]subjects.Entry) {}, ""},
		"one is missing": {func(entries map[string]subjects.Entry) {
			r := &entries["1"].Results[0]
			r.Recipients = slices.DeleteFunc(r.Recipients, func(s string) bool { return s == odd })
		}, odd + " is unaccounted for"},
		"a journal is missing": {func(entries map[string]subjects.Entry) {
			delete(entries, "1")
		}, all[1000] + " is unaccounted for\n"},
		"many are missing": {func(entries map[string]subjects.Entry) {
			delete(entries, "1")
		}, "\nand so on, 990 more"},
		"one is deferred": {func(entries map[string]subjects.Entry) {
			r := entries["1"].Results[0]
			r.Recipients = slices.DeleteFunc(slices.Clone(r.Recipients), func(s string) bool { return s != odd })
			r.Status = subjects.Deferred
			entries["1"].Results[0].Recipients = slices.DeleteFunc(entries["1"].Results[0].Recipients, func(s string) bool { return s == odd })
			e := entries["1"]
			e.Results = append(e.Results, r)
			entries["1"] = e
		}, odd + " is deferred, which is not final"},
		"one is in two batches": {func(entries map[string]subjects.Entry) {
			r := &entries["0"].Results[0]
			r.Recipients = append(r.Recipients, odd)
		}, odd + " has 2 outcomes"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			entries := make(map[string]subjects.Entry)
			for i, batch := range [][]string{all[:1000], all[1000:]} {
				entries[string(rune('0'+i))] = subjects.Entry{
					Time: time.Now(), Worker: "w", Attempt: 1, Event: subjects.Done,
					Results: []subjects.Results{{Status: subjects.Rejected, Relay: "primary", Code: 550, Recipients: slices.Clone(batch)}},
				}
			}
			tc.tamper(entries)
			out, err := account(t, entries)
			switch {
			case tc.want == "" && (err != nil || !strings.Contains(out, "every one of 2,000 recipients is accounted for")):
				t.Errorf("error %v, printed\n%s", err, out)
			case tc.want != "" && (err == nil || !strings.Contains(err.Error(), tc.want) || strings.Contains(out, "accounted for")):
				t.Errorf("error %v, want %s, printed\n%s", err, tc.want, out)
			}
		})
	}
}

func TestTheDemoFailsIfARelayHasCountedOtherwise(t *testing.T) {
	t.Parallel()
	all := shipped(t)
	relays := demoRelays()
	for _, r := range relays {
		var err error
		if r.server, err = sink.Start(r.options); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			if err := r.server.Close(context.WithoutCancel(t.Context())); err != nil {
				t.Error(err)
			}
		})
	}
	_, err := account(t, map[string]subjects.Entry{"1": {Attempt: 1, Event: subjects.Done, Results: []subjects.Results{
		{Status: subjects.Accepted, Relay: "slow", Recipients: all},
	}}}, relays...)
	if want := "relay slow took 0 recipients, the journals say 2000"; err == nil || err.Error() != want {
		t.Errorf("error is %v, want %s", err, want)
	}
}

// account lets the demo account for journals.
func account(t *testing.T, entries map[string]subjects.Entry, relays ...*demoRelay) (out string, err error) {
	t.Helper()
	c := connected(t)
	for batch, e := range entries {
		c.journal(t, demoCampaign, batch, e)
	}
	var printed strings.Builder
	s := discard()
	s.out = &printed
	err = accountForAll(t.Context(), s, c.campaigns(s), demoMailings()[:1], relays)
	return printed.String(), err
}

// shipped are the recipients of the shipped list.
func shipped(t *testing.T) (all []string) {
	t.Helper()
	for r, err := range demoList() {
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, r.Address)
	}
	return all
}
