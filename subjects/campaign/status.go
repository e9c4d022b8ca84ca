package campaign

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"bulkmail/subjects"
	"bulkmail/subjects/tally"
)

// A Status is how far a campaign is. Its keys are a contract.
type Status struct {
	Campaign string                 `json:"campaign"`
	State    subjects.CampaignState `json:"state"`
	Finished bool                   `json:"finished"` // complete, nothing waits, and everybody has a final outcome
	Reason                          // why it does not move

	Published int  `json:"published"` // different recipients of batches that can be read
	Batches   int  `json:"batches"`
	Complete  bool `json:"complete"` // the whole list was published

	Outcomes subjects.Counts `json:"outcomes"` // of those published: their sum
	Moved    int             `json:"moved"`    // recipients who are in another batch now, and count there
	Dead     DeadCounts      `json:"dead"`

	Began *time.Time `json:"began"` // when the first batch was taken up
	Ended *time.Time `json:"ended"` // when it was finished
	Rate  float64    `json:"rate"`  // recipients a second who became final, lately
	Ends  *time.Time `json:"ends"`  // at that rate
	AsOf  time.Time  `json:"as_of"` // of the figures

	// Changes are the last changes of its state, the newest last.
	Changes []subjects.CampaignChange `json:"changes"`
	// Unreadable are entries of its journals that were left out, the first ones.
	Unreadable []*EntryError `json:"unreadable,omitempty"`
}

// DeadCounts are the dead letters of a campaign.
type DeadCounts struct {
	Letters    int `json:"letters"`
	Unreadable int `json:"unreadable"` // those of batches that could not be read
}

// Over tells whether nothing more will happen to the campaign.
func (s *Status) Over() bool {
	return s.Finished || s.State == subjects.CampaignCancelled && s.Outcomes.Left() == 0
}

// Status tells how far a campaign is. The error is [ErrNoCampaign] where there
// is nothing of that name.
func (c *Client) Status(ctx context.Context, campaign string) (Status, error) {
	if err := checkName(campaign); err != nil {
		return Status{}, err
	}
	list, err := c.statuses(ctx, campaign)
	if err != nil {
		return Status{}, err
	}
	if len(list) == 0 {
		return Status{}, noCampaign(campaign)
	}
	return list[0], nil
}

// Statuses tells how far every campaign is that the broker knows of, sorted by
// name.
func (c *Client) Statuses(ctx context.Context) ([]Status, error) {
	return c.statuses(ctx, "")
}

// A look is what is known of all campaigns, or of one, at one time.
type look struct {
	waiting map[string]uint64
	counts  map[string]tally.Counts
	dead    map[string]DeadCounts
	asOf    time.Time
	now     bool // counts has all that was there when waiting was looked at

	workers func() []subjects.WorkerRelays // nil where they cannot be seen
}

// statuses begins with the queue: a batch that is settled meanwhile is met in its
// journal, never in neither.
func (c *Client) statuses(ctx context.Context, only string) ([]Status, error) {
	records, err := c.records(ctx)
	if err != nil {
		return nil, err
	}
	l, err := c.look(ctx, only)
	if err != nil {
		return nil, err
	}
	names := []string{only}
	if only == "" {
		if names, err = records.names(ctx); err != nil {
			return nil, err
		}
		names = l.names(names)
	}
	var list []Status
	for _, name := range names {
		record, revision, err := records.get(ctx, name)
		if err != nil {
			return nil, err
		}
		if revision > 0 || l.has(name) {
			list = append(list, l.status(name, &record, revision > 0))
		}
	}
	slices.SortFunc(list, func(a, b Status) int { return cmp.Compare(a.Campaign, b.Campaign) })
	return list, nil
}

func (c *Client) look(ctx context.Context, only string) (*look, error) {
	wanted := cmp.Or(only, "*")
	bySubject, err := c.count(ctx, c.names.BatchesStream(), c.names.Batches(wanted))
	if err != nil {
		return nil, err
	}
	l := &look{waiting: make(map[string]uint64), counts: make(map[string]tally.Counts)}
	for subject, n := range bySubject {
		name, _ := c.names.Campaign(subject)
		l.waiting[strings.Clone(name)] = n
	}
	if err := c.lookAtTallies(ctx, l, only); err != nil {
		return nil, err
	}
	if l.dead, err = c.deadCounts(ctx, wanted); err != nil {
		return nil, err
	}
	l.workers = onceWorkers(func() ([]subjects.WorkerRelays, error) { return c.workers(ctx) })
	return l, nil
}

const (
	// fresh is how old the tallies may be that a teller keeps. Beyond that there is
	// none, and the rest is counted here.
	fresh = 1500 * time.Millisecond
	// mostCaught is how many entries beyond them are read.
	mostCaught = 100
)

// lookAtTallies reads what was counted, and counts the rest: all of it where nobody
// else does, else as far as it is little.
func (c *Client) lookAtTallies(ctx context.Context, l *look, only string) error {
	l.asOf = time.Now().UTC().Truncate(time.Millisecond)
	book, err := tally.Open(ctx, c.js, c.names, only, false)
	if err != nil {
		return err
	}
	if book.Age() > fresh {
		err, l.now = book.Read(ctx), true
	} else if l.now, err = book.Catch(ctx, mostCaught); !l.now {
		l.asOf = book.AsOf()
	}
	if err != nil {
		return err
	}
	names := []string{only}
	if only == "" {
		if names, err = book.Campaigns(ctx); err != nil {
			return err
		}
		if err := book.Load(ctx, names); err != nil {
			return err
		}
	}
	for _, name := range names {
		t, err := book.Tally(ctx, name)
		if err != nil {
			return err
		}
		if t != nil {
			l.counts[name] = t.Counts
		}
	}
	return nil
}

// onceWorkers asks when it is first wanted. What cannot be seen is nil.
func onceWorkers(ask func() ([]subjects.WorkerRelays, error)) func() []subjects.WorkerRelays {
	var asked bool
	var known []subjects.WorkerRelays
	return func() []subjects.WorkerRelays {
		if asked {
			return known
		}
		asked = true
		workers, err := ask()
		if err == nil {
			known = append([]subjects.WorkerRelays{}, workers...)
		}
		return known
	}
}

func (l *look) has(name string) bool {
	_, counted := l.counts[name]
	return l.waiting[name] > 0 || counted || l.dead[name].Letters > 0
}

// names are the campaigns that there is anything of, and those given.
func (l *look) names(given []string) []string {
	for name := range l.waiting {
		given = append(given, name)
	}
	for name := range l.counts {
		given = append(given, name)
	}
	slices.Sort(given)
	return slices.Compact(given)
}

// status puts together what the record, the queue and the journals say. A campaign
// without a record was published by others: it is what is there of it.
func (l *look) status(name string, record *subjects.Campaign, recorded bool) Status {
	counts := l.counts[name]
	waiting := l.waiting[name]
	s := Status{
		Campaign: name, State: record.State, Complete: record.Complete || !recorded, Changes: append([]subjects.CampaignChange{}, record.Changes...),
		Published: max(record.Recipients, counts.Published), Batches: max(record.Batches, counts.Batches),
		Moved: counts.Moved(), Dead: l.dead[name], AsOf: l.asOf, Rate: counts.Rate(l.asOf),
	}
	if waiting == 0 && l.now && (s.Dead.Unreadable > 0 || s.State == subjects.CampaignCancelled) {
		s.Published = counts.Published // the others were in batches that could not be read, or never came
	}
	for status, n := range counts.Outcomes {
		s.Outcomes.Add(status, n)
	}
	s.Outcomes.Queued = s.Published - s.Outcomes.Final() - s.Outcomes.Deferred
	for _, u := range counts.Unreadable {
		s.Unreadable = append(s.Unreadable, &EntryError{u.Subject, u.Sequence, errors.New(u.Reason)})
	}
	// Where nobody counted who was published, whoever is in a batch or an entry that
	// could not be read may have no outcome.
	hidden := !recorded && (s.Dead.Unreadable+len(s.Unreadable) > 0 || !l.now)
	s.Finished = s.Complete && waiting == 0 && s.Outcomes.Left() == 0 && !hidden
	s.times(&counts)
	s.Reason = l.reason(record, waiting, &s.Outcomes)
	return s
}

func (s *Status) times(counts *tally.Counts) {
	if !counts.Began.IsZero() {
		s.Began = &counts.Began
	}
	switch left := s.Outcomes.Left(); {
	case s.Finished && !counts.Last.IsZero():
		s.Ended = &counts.Last
	case left > 0 && s.Rate > 0 && s.State == subjects.CampaignRunning:
		ends := s.AsOf.Add(time.Duration(float64(left) / s.Rate * float64(time.Second))).Truncate(time.Second)
		s.Ends = &ends
	}
}

// deadCounts counts dead letters by campaign.
func (c *Client) deadCounts(ctx context.Context, wanted string) (map[string]DeadCounts, error) {
	bySubject, err := c.count(ctx, c.names.DeadStream(), c.names.Dead(wanted))
	if err != nil {
		return nil, err
	}
	dead := make(map[string]DeadCounts, len(bySubject))
	for subject, n := range bySubject {
		name, _ := c.names.Campaign(subject)
		counts := DeadCounts{Letters: int(n)}
		looked := 0
		for l, err := range c.DeadLetters(ctx, name) {
			if err != nil {
				return nil, err
			}
			if l.Cause != subjects.CauseExpired { // which is an outcome
				counts.Unreadable++
			}
			if looked++; looked == mostLooked {
				break
			}
		}
		dead[strings.Clone(name)] = counts
	}
	return dead, nil
}

// mostLooked is at how many dead letters of a campaign a status looks.
const mostLooked = 100

// entryErrorJSON is how an [EntryError] is told to other programs.
type entryErrorJSON struct {
	Subject  string `json:"subject"`
	Sequence uint64 `json:"sequence"`
	Error    string `json:"error"`
}

// MarshalJSON writes subject, sequence and error.
func (e *EntryError) MarshalJSON() ([]byte, error) {
	return json.Marshal(entryErrorJSON{e.Subject, e.Sequence, fmt.Sprint(e.Err)})
}

// UnmarshalJSON reads what MarshalJSON wrote.
func (e *EntryError) UnmarshalJSON(data []byte) error {
	var told entryErrorJSON
	err := json.Unmarshal(data, &told)
	e.Subject, e.Sequence, e.Err = told.Subject, told.Sequence, errors.New(told.Error)
	return err
}
