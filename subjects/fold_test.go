package subjects_test

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"bulkmail/subjects"
)

var start = time.Date(2026, 11, 23, 22, 0, 0, 0, time.UTC)

func entry(minute, attempt int, event subjects.Event, results ...subjects.Results) subjects.Entry {
	return subjects.Entry{Time: start.Add(time.Duration(minute) * time.Minute), Worker: "w", Attempt: attempt, Event: event, Results: results}
}

func is(status subjects.Status, recipients ...string) subjects.Results {
	return subjects.Results{Status: status, Recipients: recipients}
}

func TestWhatAJournalSays(t *testing.T) {
	t.Parallel()
	statuses := func(s map[string]*subjects.Result) map[string]subjects.Status {
		got := make(map[string]subjects.Status)
		for recipient, r := range s {
			got[recipient] = r.Status
		}
		return got
	}
	type known struct {
		Attempts  int
		Results   map[string]subjects.Status
		Announced map[string]subjects.Status
		Done      bool
	}
	type are = map[string]subjects.Status
	for _, c := range []struct {
		name    string
		entries []subjects.Entry
		want    known
	}{
		{"nothing", nil, known{}},
		{"a claim is no attempt yet", []subjects.Entry{
			entry(0, 1, subjects.Claimed), entry(1, 1, subjects.Claimed),
		}, known{}},
		{"results of one attempt count once", []subjects.Entry{
			entry(0, 1, subjects.Claimed), entry(0, 1, subjects.Recorded, is(subjects.Accepted, "a")), entry(0, 1, subjects.Recorded, is(subjects.Deferred, "b")),
		}, known{Attempts: 1, Results: are{"a": subjects.Accepted, "b": subjects.Deferred}}},
		{"each claim begins an attempt anew", []subjects.Entry{
			entry(0, 1, subjects.Claimed), entry(0, 1, subjects.Recorded, is(subjects.Deferred, "a")),
			entry(1, 2, subjects.Claimed), // no relay could take anything
			entry(2, 2, subjects.Claimed), entry(2, 2, subjects.Recorded, is(subjects.Deferred, "a")),
		}, known{Attempts: 2, Results: are{"a": subjects.Deferred}}},
		{"the newest result of who is not final", []subjects.Entry{
			entry(0, 1, subjects.Claimed), entry(0, 1, subjects.Recorded, is(subjects.Deferred, "a", "b")),
			entry(1, 2, subjects.Claimed), entry(1, 2, subjects.Done, is(subjects.Accepted, "a"), is(subjects.Rejected, "b")),
		}, known{Attempts: 2, Results: are{"a": subjects.Accepted, "b": subjects.Rejected}, Done: true}},
		{"final is never overturned", []subjects.Entry{
			entry(0, 1, subjects.Recorded, is(subjects.Accepted, "a"), is(subjects.Rejected, "b"), is(subjects.Expired, "c"),
				is(subjects.Suppressed, "d"), is(subjects.Cancelled, "e"), is(subjects.InDoubt, "f")),
			entry(1, 1, subjects.Recorded, is(subjects.Deferred, "a", "b", "c"), is(subjects.Rejected, "a"), is(subjects.Accepted, "b", "d", "e", "f")),
		}, known{Attempts: 1, Results: are{"a": subjects.Accepted, "b": subjects.Rejected, "c": subjects.Expired, "d": subjects.Suppressed, "e": subjects.Cancelled, "f": subjects.InDoubt}}},
		{"announced and nothing heard of since", []subjects.Entry{
			entry(0, 1, subjects.Claimed), entry(0, 1, subjects.Sending, is(subjects.InDoubt, "a", "b", "c")),
			entry(0, 1, subjects.Recorded, is(subjects.Accepted, "a"), is(subjects.Deferred, "b")),
			entry(1, 2, subjects.Claimed),
		}, known{Attempts: 1, Results: are{"a": subjects.Accepted, "b": subjects.Deferred}, Announced: are{"c": subjects.InDoubt}}},
		{"announced again in a later attempt", []subjects.Entry{
			entry(0, 1, subjects.Sending, is(subjects.InDoubt, "a")), entry(0, 1, subjects.Recorded, is(subjects.Deferred, "a")),
			entry(1, 2, subjects.Claimed), entry(1, 2, subjects.Sending, is(subjects.InDoubt, "a")),
		}, known{Attempts: 1, Results: are{"a": subjects.Deferred}, Announced: are{"a": subjects.InDoubt}}},
		{"done, and then published again with more", []subjects.Entry{
			entry(0, 1, subjects.Claimed), entry(0, 1, subjects.Done, is(subjects.Accepted, "a")), entry(9, 2, subjects.Claimed),
		}, known{Attempts: 1, Results: are{"a": subjects.Accepted}}},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			var s subjects.State
			for _, e := range c.entries {
				s.Fold(e, nil)
			}
			got := known{s.Attempts, statuses(s.Results), statuses(s.Announced), s.Done}
			if diff := cmp.Diff(c.want, got, cmpopts.EquateEmpty()); diff != "" {
				t.Error(diff)
			}
			if len(c.entries) > 0 && c.entries[0].Event == subjects.Claimed && !s.FirstClaim.Equal(start) {
				t.Errorf("first claimed at %v", s.FirstClaim)
			}
		})
	}
}

func TestAResultKeepsWhatWasSaidAndWhen(t *testing.T) {
	t.Parallel()
	var s subjects.State
	s.Fold(entry(3, 2, subjects.Recorded, subjects.Results{
		Status: subjects.Deferred, Relay: "r", Code: 451, Enhanced: "4.2.0", Text: "later", Recipients: []string{"a"},
	}), nil)
	want := &subjects.Result{Outcome: subjects.Outcome{Status: subjects.Deferred, Relay: "r", Code: 451, Enhanced: "4.2.0", Text: "later"}, Attempt: 2, Time: start.Add(3 * time.Minute)}
	if diff := cmp.Diff(want, s.Results["a"]); diff != "" {
		t.Error(diff)
	}
}

func TestHowOftenSomebodyWasInDoubtIsCountedUntilThatIsFinal(t *testing.T) {
	t.Parallel()
	var s subjects.State
	doubt := is(subjects.Deferred, "a", "b")
	doubt.InDoubt = true
	last := doubt
	last.Status = subjects.InDoubt
	for _, e := range []subjects.Entry{
		entry(0, 1, subjects.Recorded, doubt, is(subjects.Deferred, "c")),
		entry(1, 2, subjects.Recorded, doubt, is(subjects.Deferred, "c")),
		entry(2, 3, subjects.Recorded, last, is(subjects.Deferred, "c")),
	} {
		s.Fold(e, nil)
	}
	if diff := cmp.Diff(map[string]int{"a": 2, "b": 2}, s.Doubts); diff != "" {
		t.Error(diff)
	}
}

func TestWhoAddsUpIsToldOfEachChangeOnce(t *testing.T) {
	t.Parallel()
	var s subjects.State
	var got []string
	for _, e := range []subjects.Entry{
		entry(0, 1, subjects.Claimed),
		entry(0, 1, subjects.Sending, is(subjects.InDoubt, "a", "b", "c")),
		entry(0, 1, subjects.Recorded, is(subjects.Accepted, "a"), is(subjects.Deferred, "b", "c")),
		entry(1, 2, subjects.Claimed),
		entry(1, 2, subjects.Recorded, is(subjects.Rejected, "a"), is(subjects.Deferred, "b"), is(subjects.Expired, "c")),
		entry(2, 2, subjects.Done, is(subjects.Deferred, "c"), is(subjects.Accepted, "b")),
	} {
		s.Fold(e, func(recipient string, before, after *subjects.Result) {
			was := "-"
			if before != nil {
				was = string(before.Status)
			}
			got = append(got, recipient+" "+was+" "+string(after.Status))
		})
	}
	want := []string{"a - accepted", "b - deferred", "c - deferred", "b deferred deferred", "c deferred expired", "b deferred accepted"}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

func TestJournalsForgetABatchThatIsDone(t *testing.T) {
	t.Parallel()
	j := make(subjects.Journals)
	if s := j.Fold("1", entry(0, 1, subjects.Recorded, is(subjects.Deferred, "a")), nil); s.Done || s.Attempts != 1 {
		t.Errorf("got %+v", s)
	}
	j.Fold("2", entry(0, 1, subjects.Recorded, is(subjects.Accepted, "b")), nil)
	j.Fold("1", entry(1, 2, subjects.Claimed), nil)
	s := j.Fold("1", entry(1, 2, subjects.Done, is(subjects.Accepted, "a")), nil)
	if !s.Done || s.Attempts != 2 || s.Results["a"].Status != subjects.Accepted {
		t.Errorf("got %+v", s)
	}
	if len(j) != 1 || j["2"] == nil {
		t.Errorf("kept %v", j)
	}
}
