package worker

import (
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"bulkmail/envelope"
	"bulkmail/subjects"
)

func TestWhatIsPlannedForARecipientFollowsFromItsJournal(t *testing.T) {
	t.Parallel()
	now := time.Date(2026, 11, 25, 12, 0, 0, 0, time.UTC)
	delays := Schedule{10 * time.Minute}
	result := func(status subjects.Status, ago time.Duration) *subjects.Result {
		return &subjects.Result{Outcome: subjects.Outcome{Status: status}, Attempt: 1, Time: now.Add(-ago)}
	}
	type results = map[string]*subjects.Result
	deferredLately, deferredLongAgo := result(subjects.Deferred, time.Minute), result(subjects.Deferred, time.Hour)
	announced := results{"ann@a.test": result(subjects.InDoubt, time.Minute)}
	for name, c := range map[string]struct {
		published string // instead of ann@a.test
		results   results
		announced results
		began     time.Duration // ago
		skip      bool
		cancelled bool
		want      string
	}{
		"a new one":                       {want: "send"},
		"no address":                      {published: "ann", want: "reject"},
		"accepted":                        {results: results{"ann@a.test": result(subjects.Accepted, 0)}, want: ""},
		"accepted under another spelling": {published: "ann@A.test", results: results{"ann@a.test": result(subjects.Accepted, 0)}, want: ""},
		"accepted, and deferred as another spelling": {results: results{"ann@a.test": result(subjects.Accepted, 0), "ann@A.test": deferredLately}, want: ""},
		"no address, and rejected for that":          {published: "ann", results: results{"ann": result(subjects.Rejected, 0)}, want: ""},
		"deferred and due":                           {results: results{"ann@a.test": deferredLongAgo}, want: "send"},
		"deferred and not due":                       {results: results{"ann@a.test": deferredLately}, want: "rest"},
		"deferred, not due, and past the deadline":   {results: results{"ann@a.test": deferredLately}, began: 72 * time.Hour, want: "send"},
		"deferred and due, cancelled":                {results: results{"ann@a.test": deferredLongAgo}, cancelled: true, want: "rest"},
		"deferred, past the deadline, cancelled":     {results: results{"ann@a.test": deferredLately}, began: 72 * time.Hour, cancelled: true, want: "rest"},
		"announced, resend":                          {announced: announced, want: "send"},
		"announced, skip":                            {announced: announced, skip: true, want: "doubtful"},
		"announced after it was deferred, skip":      {results: results{"ann@a.test": deferredLongAgo}, announced: announced, skip: true, want: "doubtful"},
		"announced after it was deferred, resend":    {results: results{"ann@a.test": deferredLately}, announced: announced, want: "rest"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			address := "ann@a.test"
			if c.published != "" {
				address = c.published
			}
			known := &subjects.State{Results: c.results, Announced: c.announced, FirstClaim: now.Add(-c.began)}
			how := policy{RetryDelays: delays, RetryFor: 72 * time.Hour, InDoubt: Resend}
			if c.skip {
				how.InDoubt = Skip
			}
			p := makePlan(&envelope.Batch{Recipients: envelope.To(address)}, known, how, nil, c.cancelled, now)
			var got string
			for what, n := range map[string]int{"send": len(p.send), "reject": len(p.reject), "rest": len(p.rest), "doubtful": len(p.doubtful)} {
				for range n {
					got += what
				}
			}
			if got != c.want {
				t.Errorf("planned %q, want %q", got, c.want)
			}
			if rests := len(p.rest) > 0; rests == p.due.IsZero() {
				t.Errorf("%d rest, due %v", len(p.rest), p.due)
			}
			if p.idle() != slices.Contains([]string{"", "rest"}, c.want) {
				t.Errorf("idle: %v", p.idle())
			}
		})
	}
}

func TestAPlanIsDueWithTheFirstThatRestsAndGivesUpFromTheFirstClaim(t *testing.T) {
	t.Parallel()
	now := time.Date(2026, 11, 25, 12, 0, 0, 0, time.UTC)
	how := policy{RetryDelays: Schedule{10 * time.Minute}, RetryFor: time.Hour, InDoubt: Resend}
	batch := &envelope.Batch{Recipients: envelope.To("a@a.test", "b@a.test")}
	results := make(map[string]*subjects.Result)
	for i, r := range batch.Recipients {
		results[r.Address] = &subjects.Result{Outcome: subjects.Outcome{Status: subjects.Deferred, Code: 450 + i}, Attempt: 1, Time: now.Add(-time.Duration(i) * time.Minute)}
	}
	p := makePlan(batch, &subjects.State{Results: results, FirstClaim: now.Add(-time.Minute)}, how, nil, false, now)
	if want := now.Add(-time.Minute + 9*time.Minute); !p.due.Equal(want) {
		t.Errorf("due %v, want %v", p.due, want)
	}
	if want := now.Add(59 * time.Minute); !p.deadline.Equal(want) {
		t.Errorf("deadline %v, want %v", p.deadline, want)
	}
	if p := makePlan(batch, &subjects.State{}, how, nil, false, now); !p.deadline.Equal(now.Add(time.Hour)) || len(p.send) != 1 {
		t.Errorf("new: %+v", p)
	}
	var codes []int
	for _, r := range p.rest {
		codes = append(codes, r.Code)
	}
	if diff := cmp.Diff([]int{450, 451}, codes); diff != "" {
		t.Error(diff)
	}
}

func TestWhoRestsOrIsInDoubtHasTheLetterOfThisBatchAndTheNameOfTheJournal(t *testing.T) {
	t.Parallel()
	now := time.Date(2026, 11, 25, 12, 0, 0, 0, time.UTC)
	ann := envelope.Recipient{Address: "ann@A.test", Letter: &envelope.Letter{Name: "Ann", Data: `{"seat":"1"}`}}
	bob := envelope.Recipient{Address: "bob@A.test", Letter: &envelope.Letter{Name: "Bob"}}
	batch := &envelope.Batch{Recipients: []envelope.Recipient{ann, bob}}
	known := &subjects.State{
		Results:   map[string]*subjects.Result{"ann@a.test": {Outcome: subjects.Outcome{Status: subjects.Deferred}, Attempt: 1, Time: now}},
		Announced: map[string]*subjects.Result{"bob@a.test": {Outcome: subjects.Outcome{Status: subjects.InDoubt}, Attempt: 1, Time: now}},
	}
	p := makePlan(batch, known, policy{RetryDelays: Schedule{time.Hour}, RetryFor: time.Hour, InDoubt: Skip}, nil, false, now)
	ann.Mailbox, bob.Mailbox = "ann@a.test", "bob@a.test"
	ann.Address, bob.Address = ann.Mailbox, bob.Mailbox
	if len(p.rest) != 1 || p.rest[0].recipient != ann {
		t.Errorf("rests: %+v, want %+v", p.rest, ann)
	}
	if len(p.doubtful) != 1 || p.doubtful[0].recipient != bob {
		t.Errorf("in doubt: %+v, want %+v", p.doubtful, bob)
	}
}
