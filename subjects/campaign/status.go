package campaign

import (
	"cmp"
	"context"
	"errors"
	"slices"
	"strings"

	"bulkmail/subjects"
)

// A Status is how far a campaign is.
type Status struct {
	Campaign   string                  `json:"campaign"`
	State      subjects.CampaignState  `json:"state"`
	Finished   bool                    `json:"finished"`   // complete, nothing waits, and everybody has a final outcome
	Complete   bool                    `json:"complete"`   // the whole list was published
	Recipients int                     `json:"recipients"` // published; at least those with an outcome
	Final      int                     `json:"final"`
	Outcomes   map[subjects.Status]int `json:"outcomes"` // recipients by their newest status
	Waiting    int                     `json:"waiting"`  // batches in the queue

	// Changes are the last changes of its state, the newest last.
	Changes []subjects.CampaignChange `json:"changes,omitempty"`
	// Unreadable are entries of its journals that were left out.
	Unreadable []*EntryError `json:"-"`
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

// statuses reads everything once, whether of one campaign or of all. It begins
// with the queue: a batch that is settled meanwhile is met in its journal, never
// in neither.
func (c *Client) statuses(ctx context.Context, only string) ([]Status, error) {
	records, err := c.records(ctx)
	if err != nil {
		return nil, err
	}
	byName := make(map[string]*Status)
	of := func(name string) *Status {
		s := byName[name]
		if s == nil {
			name = strings.Clone(name)
			s = &Status{Campaign: name, Outcomes: make(map[subjects.Status]int)}
			byName[name] = s
		}
		return s
	}
	wanted := cmp.Or(only, "*")
	bySubject, err := c.count(ctx, c.names.BatchesStream(), c.names.Batches(wanted))
	if err != nil {
		return nil, err
	}
	for subject, n := range bySubject {
		name, _ := c.names.Campaign(subject)
		of(name).Waiting = int(n)
	}
	if err := c.countOutcomes(ctx, c.names.CampaignOutcomes(wanted), of); err != nil {
		return nil, err
	}
	names := []string{only}
	if only == "" {
		if names, err = records.names(ctx); err != nil {
			return nil, err
		}
		for _, name := range names {
			of(name)
		}
		names = nil
		for name := range byName {
			names = append(names, name)
		}
	}
	var list []Status
	for _, name := range names {
		record, revision, err := records.get(ctx, name)
		if err != nil {
			return nil, err
		}
		if byName[name] == nil && revision == 0 {
			continue
		}
		s := of(name)
		if err := c.complete(ctx, s, record, revision > 0); err != nil {
			return nil, err
		}
		list = append(list, *s)
	}
	slices.SortFunc(list, func(a, b Status) int { return cmp.Compare(a.Campaign, b.Campaign) })
	return list, nil
}

// countOutcomes counts recipients by their newest status. Memory follows the
// batches under way.
func (c *Client) countOutcomes(ctx context.Context, subject string, of func(string) *Status) error {
	journals := make(subjects.Journals)
	retries := make(map[*Status]retried)
	for e, err := range c.entries(ctx, subject) {
		if unreadable, ok := errors.AsType[*EntryError](err); ok {
			s := of(e.campaign)
			s.Unreadable = append(s.Unreadable, unreadable)
			continue
		}
		if err != nil {
			return err
		}
		s := of(e.campaign)
		if retries[s] == nil {
			retries[s] = make(retried)
		}
		journals.Fold(e.subject, e.Entry, func(_ string, before, after *subjects.Result) {
			if before != nil {
				s.leaves(before.Status)
			}
			s.Outcomes[after.Status]++
			if _, again := retries[s].fold(e.batch, before, after); again {
				s.leaves(subjects.Expired)
			}
		})
	}
	return nil
}

// leaves takes a recipient out of those of a status.
func (s *Status) leaves(status subjects.Status) {
	if s.Outcomes[status]--; s.Outcomes[status] == 0 {
		delete(s.Outcomes, status)
	}
}

// complete adds what the record says to what the queue and the journals do. A
// campaign without a record was published by others: it is what is there of it.
func (c *Client) complete(ctx context.Context, s *Status, record subjects.Campaign, recorded bool) error {
	s.State, s.Complete, s.Recipients, s.Changes = record.State, record.Complete || !recorded, record.Recipients, record.Changes
	known := 0
	for status, n := range s.Outcomes {
		known += n
		if status.Final() {
			s.Final += n
		}
	}
	s.Recipients = max(s.Recipients, known)
	s.Finished = s.Complete && s.Waiting == 0 && s.Final == s.Recipients
	if !s.Finished || recorded {
		return nil
	}
	// Nobody counted who was published: whoever is in a batch or an entry that
	// could not be read may have no outcome.
	dead, err := c.unreadable(ctx, s.Campaign)
	s.Finished = len(dead) == 0 && len(s.Unreadable) == 0
	return err
}
