package tally

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"math/rand/v2"
	"slices"
	"strconv"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"go.uber.org/goleak"

	"bulkmail/subjects"
	"bulkmail/subjects/broker/brokertest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// A house is what is under a prefix on a broker.
type house struct {
	t     *testing.T
	js    jetstream.JetStream
	names subjects.Names
	last  map[string]uint64          // by journal
	know  map[string]*subjects.State // the same, folded here
	claim map[string]int             // what its claims said at most
	of    map[string]map[string]bool // journals by campaign
}

func newHouse(t *testing.T, js jetstream.JetStream, prefix string) *house {
	t.Helper()
	names, err := subjects.New(prefix)
	if err != nil {
		t.Fatal(err)
	}
	if err := subjects.Provision(t.Context(), js, names, subjects.Options{AckWait: time.Minute, OutcomesMaxAge: time.Hour}, slog.New(slog.DiscardHandler)); err != nil {
		t.Fatal(err)
	}
	return &house{t, js, names, make(map[string]uint64), make(map[string]*subjects.State), make(map[string]int), make(map[string]map[string]bool)}
}

// write appends an entry to a journal, as a worker would. Claimed is how many
// recipients a claim says.
func (h *house) write(campaign, batch string, claimed int, event subjects.Event, results ...subjects.Results) {
	h.t.Helper()
	e := subjects.Entry{Time: time.Now().UTC(), Worker: "w", Attempt: 1, Event: event, Results: results}
	subject := h.names.Outcomes(campaign, batch)
	msg := &nats.Msg{Subject: subject, Data: e.AppendJSON(nil), Header: nats.Header{}}
	if claimed > 0 {
		msg.Header.Set(subjects.HeaderRecipients, strconv.Itoa(claimed))
	}
	ack, err := h.js.PublishMsg(h.t.Context(), msg, jetstream.WithExpectLastSequencePerSubject(h.last[subject]))
	if err != nil {
		h.t.Fatal(err)
	}
	h.last[subject] = ack.Sequence
	if h.know[subject] == nil {
		h.know[subject] = new(subjects.State)
	}
	h.know[subject].Fold(e, nil)
	h.claim[subject] = max(h.claim[subject], claimed)
	if h.of[campaign] == nil {
		h.of[campaign] = make(map[string]bool)
	}
	h.of[campaign][subject] = true
}

func became(status subjects.Status, relay string, code int, text string, recipients ...string) subjects.Results {
	return subjects.Results{Status: status, Relay: relay, Code: code, Text: text, Recipients: recipients}
}

// counts is what the journals of a campaign are, read one by one.
func (h *house) counts(campaign string) (published int, outcomes map[subjects.Status]int, relays, domains map[string]int) {
	outcomes, relays, domains = make(map[subjects.Status]int), make(map[string]int), make(map[string]int)
	for subject := range h.of[campaign] {
		published += max(h.claim[subject], len(h.know[subject].Results))
		for recipient, r := range h.know[subject].Results {
			outcomes[r.Status]++
			relays[r.Relay]++
			domains[domainOf(recipient)]++
		}
	}
	return published, outcomes, relays, domains
}

// book is the whole book as it is now.
func (h *house) book() *Book {
	h.t.Helper()
	b, err := Open(h.t.Context(), h.js, h.names, "", true)
	if err == nil {
		err = b.Read(h.t.Context())
	}
	if err != nil {
		h.t.Fatal(err)
	}
	return b
}

func (h *house) tally(b *Book, campaign string) *Tally {
	h.t.Helper()
	t, err := b.Tally(h.t.Context(), campaign)
	if err != nil || t == nil {
		h.t.Fatalf("tally of %s: %v, %v", campaign, t, err)
	}
	return t
}

// check compares the tallies with the journals, and those that were kept with those
// that are counted from the beginning.
func (h *house) check() {
	h.t.Helper()
	b := h.book()
	anew := h.fromTheBeginning()
	for campaign := range h.of {
		t := h.tally(b, campaign)
		published, outcomes, relays, domains := h.counts(campaign)
		if diff := cmp.Diff(outcomes, t.Counts.Outcomes, cmpopts.EquateEmpty()); diff != "" || t.Counts.Published != published || t.Counts.Batches != len(h.of[campaign]) {
			h.t.Errorf("%s: %d published in %d batches, not %d in %d; -journals +tally\n%s", campaign, t.Counts.Published, t.Counts.Batches, published, len(h.of[campaign]), diff)
		}
		if diff := cmp.Diff(relays, sums(t.Detail.Relays)) + cmp.Diff(domains, sums(t.Detail.Domains)); diff != "" {
			h.t.Errorf("%s: relays and domains -journals +tally\n%s", campaign, diff)
		}
		if diff := cmp.Diff(asStored(h.t, h.tally(anew, campaign)), asStored(h.t, t)); diff != "" {
			h.t.Errorf("%s: -at once +in turns\n%s", campaign, diff)
		}
	}
}

func (h *house) fromTheBeginning() *Book {
	h.t.Helper()
	b, err := Open(h.t.Context(), h.js, h.names, "", true)
	if err != nil {
		h.t.Fatal(err)
	}
	b.store, b.read, b.upTo = store{js: h.js, names: h.names}, 0, Checkpoint{}
	if err := b.Read(h.t.Context()); err != nil {
		h.t.Fatal(err)
	}
	return b
}

func sums(r Rows) map[string]int {
	by := make(map[string]int)
	for _, row := range r.Largest(1000) {
		by[row.Name] += row.Sum()
	}
	if n := r.Rest.Sum(); n != 0 {
		by["the rest"] = n
	}
	return by
}

func asStored(t *testing.T, tally *Tally) string {
	t.Helper()
	data, err := json.MarshalIndent(tally, "", " ")
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

// A random life of some batches: claims, results that overturn deferrals, ends,
// batches published once more; and tellers that are killed at any point, whether
// they have stored what they counted or not, while others are ahead of them.
func TestATallyIsTheFoldOfAllJournalsWhoeverCounted(t *testing.T) {
	t.Parallel()
	js := brokertest.Connect(t, brokertest.Start(t).URL())
	for seed := range uint64(8) {
		h := newHouse(t, js, fmt.Sprintf("seed%d", seed))
		random := rand.New(rand.NewPCG(seed, 1))
		var tellers []*keeping
		for range 150 {
			switch random.IntN(5) {
			case 0: // a teller begins
				b, err := Open(t.Context(), js, h.names, "", true)
				if err != nil {
					t.Fatal(err)
				}
				b.under.room = 10 // journals are read again and again
				tellers = append(tellers, &keeping{Book: b, worker: "w"})
			case 1: // one counts a little
				if len(tellers) > 0 {
					if _, err := tellers[random.IntN(len(tellers))].Catch(t.Context(), random.IntN(10)); err != nil {
						t.Fatal(err)
					}
				}
			case 2: // one stores that, and is killed at the next beat, or overtaken
				if len(tellers) > 0 {
					i := random.IntN(len(tellers))
					ctx, kill := context.WithCancel(t.Context())
					if random.IntN(3) == 0 {
						kill() // what it has put is stored, or not
					}
					err := tellers[i].store(ctx, "w", random.IntN(2) == 0)
					kill()
					if err != nil || random.IntN(2) == 0 {
						tellers = slices.Delete(tellers, i, i+1)
					}
				}
			default:
				h.live(random)
			}
		}
		h.check()
	}
}

// live has something happen to a batch.
func (h *house) live(random *rand.Rand) {
	campaign, batch := "c"+strconv.Itoa(random.IntN(3)), "b"+strconv.Itoa(random.IntN(6))
	recipients := func() []string {
		var list []string
		for i := range 8 {
			if random.IntN(3) == 0 {
				list = append(list, fmt.Sprintf("r%d@d%d.test", i, i%3))
			}
		}
		return list
	}
	known := h.know[h.names.Outcomes(campaign, batch)]
	relay := []string{"a", "b"}[random.IntN(2)]
	switch {
	case known == nil || random.IntN(4) == 0:
		h.write(campaign, batch, 8, subjects.Claimed)
	case random.IntN(6) == 0:
		h.write(campaign, batch, 0, subjects.Done, became(subjects.Rejected, relay, 550, "no such user <4X1Y>", recipients()...))
	case random.IntN(8) == 0:
		h.write(campaign, batch, 0, subjects.Sending, became(subjects.InDoubt, relay, 0, "", recipients()...))
	default:
		status := []subjects.Status{subjects.Accepted, subjects.Deferred, subjects.Deferred, subjects.Expired}[random.IntN(4)]
		h.write(campaign, batch, 0, subjects.Recorded, became(status, relay, 250, "Ok: queued as "+strconv.Itoa(random.IntN(1000)), recipients()...))
	}
}

func TestOneWorkerCountsAndAnotherGoesOnWhenItIsGone(t *testing.T) {
	t.Parallel()
	js := brokertest.Connect(t, brokertest.Start(t).URL())
	h := newHouse(t, js, "bulkmail")
	begin := func(name string) (end func()) {
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan struct{})
		go func() {
			defer close(ended)
			NewTeller(js, h.names, name, slog.New(slog.DiscardHandler)).Run(ctx)
		}()
		return func() { cancel(); <-ended }
	}
	// counted waits until the tally says so many, by the stored one alone.
	counted := func(n int) Checkpoint {
		t.Helper()
		for deadline := time.Now().Add(20 * time.Second); ; {
			b, err := Open(t.Context(), js, h.names, "news", false)
			if err != nil {
				t.Fatal(err)
			}
			now, err := b.Tally(t.Context(), "news")
			if err != nil {
				t.Fatal(err)
			}
			if now != nil && now.Counts.Final() == n && b.Age() < silence && b.upTo.AsOf.After(now.Counts.Last) {
				return b.upTo
			}
			if time.Now().After(deadline) {
				t.Fatalf("%+v does not become %d; %+v", now, n, b.upTo)
			}
			time.Sleep(20 * time.Millisecond)
		}
	}
	h.write("news", "b1", 3, subjects.Claimed)
	h.write("news", "b1", 0, subjects.Recorded, became(subjects.Accepted, "a", 250, "Ok", "1@x.test", "2@x.test"))
	end := map[string]func(){"one": begin("one"), "two": begin("two")}
	first := counted(2).Teller
	end[first]()
	h.write("news", "b1", 0, subjects.Done, became(subjects.Rejected, "a", 550, "no", "3@x.test"))
	second := counted(3).Teller
	if second == first || second == "" {
		t.Errorf("%s counts after %s", second, first)
	}
	end[second]()
	h.check()
	stream, err := js.Stream(t.Context(), h.names.OutcomesStream())
	if err != nil {
		t.Fatal(err)
	}
	for info := range stream.ListConsumers(t.Context()).Info() {
		t.Errorf("the consumer %s is left behind", info.Name)
	}
}

func TestATallyOutlivesTheJournals(t *testing.T) {
	t.Parallel()
	js := brokertest.Connect(t, brokertest.Start(t).URL())
	h := newHouse(t, js, "bulkmail")
	h.write("news", "b1", 2, subjects.Claimed)
	h.write("news", "b1", 0, subjects.Done, became(subjects.Accepted, "a", 250, "Ok", "1@x.test", "2@x.test"))
	k := &keeping{Book: h.book()}
	if err := k.store(t.Context(), "", true); err != nil {
		t.Fatal(err)
	}
	stream, err := js.Stream(t.Context(), h.names.OutcomesStream())
	if err == nil {
		err = stream.Purge(t.Context())
	}
	if err != nil {
		t.Fatal(err)
	}
	h.write("other", "b1", 1, subjects.Claimed)
	if now := h.tally(h.book(), "news"); now.Counts.Published != 2 || now.Counts.Outcomes[subjects.Accepted] != 2 {
		t.Errorf("%+v", now.Counts)
	}
}

// Whoever counts has it before it, and may not have stored it yet.
func TestWhatWasForgottenIsNotStoredAnyMore(t *testing.T) {
	t.Parallel()
	js := brokertest.Connect(t, brokertest.Start(t).URL())
	h := newHouse(t, js, "bulkmail")
	stream, err := js.Stream(t.Context(), h.names.OutcomesStream())
	if err != nil {
		t.Fatal(err)
	}
	for _, before := range []bool{false, true} { // it was stored
		h.write("news", "b1", 1, subjects.Claimed)
		k := &keeping{Book: h.book()}
		if before {
			if err := k.store(t.Context(), "", true); err != nil {
				t.Fatal(err)
			}
			h.write("news", "b1", 0, subjects.Done, became(subjects.Accepted, "a", 250, "Ok", "1@x.test"))
			if err := k.Read(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
		if err := stream.Purge(t.Context(), jetstream.WithPurgeSubject(h.names.CampaignOutcomes("news"))); err != nil {
			t.Fatal(err)
		}
		clear(h.last)
		if err := Forget(t.Context(), js, h.names, "news"); err != nil {
			t.Fatal(err)
		}
		if err := k.store(t.Context(), "", true); !errors.Is(err, ErrOvertaken) {
			t.Errorf("stored before %v: error is %v", before, err)
		}
		if now, err := h.book().Tally(t.Context(), "news"); now != nil || err != nil {
			t.Errorf("stored before %v: %+v, %v", before, now, err)
		}
	}
}

func TestWhoeverIsManyTimesTheSmallestKeepsItsRow(t *testing.T) {
	t.Parallel()
	var r Rows
	for i := range 2000 {
		r.count(rowKey{name: "large.test"}, "", subjects.Accepted, 1)
		r.count(rowKey{name: fmt.Sprintf("d%d.test", i)}, "", subjects.Accepted, 1)
	}
	total := r.Rest.Sum()
	for _, row := range r.Largest(keptRows + 1) {
		total += row.Sum()
	}
	if first := r.Largest(1)[0]; first.Name != "large.test" || first.Sum() != 2000 || len(r.of) != keptRows || total != 4000 {
		t.Errorf("%+v, %d rows, %d in all", first, len(r.of), total)
	}
	// Who made room goes where it is.
	r.count(rowKey{name: "d998.test"}, "", subjects.Accepted, -1)
	if got := r.Rest.Sum(); got != total-2000-(keptRows-1)-1 {
		t.Errorf("the rest is %d", got)
	}
}

func TestRepliesOfOneKindAreOneRow(t *testing.T) {
	t.Parallel()
	kinds := make(map[string]bool)
	for _, text := range []string{"Ok: queued as 4XyZ1", "Ok: queued as 9abc2", "<ann@x.test>: no such user", "<bob@y.test>: no such user", "later"} {
		kinds[common(text)] = true
	}
	if diff := cmp.Diff([]string{"Ok: queued as …", "later", "… no such user"}, slices.Sorted(maps.Keys(kinds))); diff != "" {
		t.Error(diff)
	}
}

func TestTheRateIsThatOfTheLastMinutes(t *testing.T) {
	t.Parallel()
	now := time.Date(2026, 11, 24, 12, 0, 30, 0, time.UTC)
	var c Counts
	c.Began = now.Add(-10 * time.Minute)
	for ago := 10; ago >= 0; ago-- {
		for range 60 {
			c.Recent = minuted(c.Recent, recentMinutes, now.Add(-time.Duration(ago)*time.Minute), subjects.Accepted)
		}
	}
	if got := c.Rate(now); got < 0.9 || got > 1.5 {
		t.Errorf("60 a minute are %g a second", got)
	}
	if got := c.Rate(now.Add(5 * time.Minute)); got != 0 {
		t.Errorf("five minutes later it is %g", got)
	}
}
