package main

import (
	"context"
	"errors"
	"fmt"

	"bulkmail/subjects"
	"bulkmail/subjects/campaign"
)

// A demoAccount is what became of everybody in the demo.
type demoAccount struct {
	accepted  map[string]int // by relay, from the outcomes
	byAttempt map[int]int
	byStatus  map[subjects.Status]int
	total     int
	missing   int // of them have no outcome that is final
	problems  []error
}

// accountForAll compares the lists, the outcomes and the relays' own counts, and
// prints the closing tables.
func accountForAll(ctx context.Context, s *streams, campaigns *campaign.Client, mailings []*demoMailing, relays []*demoRelay) error {
	a := demoAccount{accepted: make(map[string]int), byAttempt: make(map[int]int), byStatus: make(map[subjects.Status]int)}
	for _, m := range mailings {
		if err := a.add(ctx, campaigns, m); err != nil {
			return err
		}
	}
	if more := a.missing - demoNamed; more > 0 {
		a.problems = append(a.problems, fmt.Errorf("and so on, %s more", number(more)))
	}
	fmt.Fprintln(s.out)
	if err := a.printRelays(s, mailings, relays); err != nil {
		return err
	}
	fmt.Fprintln(s.out)
	if err := a.printOutcomes(s); err != nil {
		return err
	}
	if len(a.problems) > 0 {
		return errors.Join(a.problems...)
	}
	_, err := fmt.Fprintf(s.out, "\nevery one of %s is accounted for\n", count(a.total, "recipient", "recipients"))
	return err
}

// add looks for an outcome of everybody in a list.
func (a *demoAccount) add(ctx context.Context, campaigns *campaign.Client, m *demoMailing) error {
	outcomes := make(map[string][]subjects.Status) // by mailbox
	for o, err := range campaigns.Outcomes(ctx, m.Campaign, campaign.Filter{}) {
		if errors.Is(err, campaign.ErrNoCampaign) {
			break // the demo ended before it was published
		}
		if err != nil {
			return err
		}
		mailbox := campaign.Recipient{Address: o.Recipient}.Mailbox()
		outcomes[mailbox] = append(outcomes[mailbox], o.Status)
		if o.Status == subjects.Accepted {
			a.accepted[o.Relay]++
			a.byAttempt[o.Attempt]++
		}
	}
	for recipient, err := range m.list() {
		if err != nil {
			return err
		}
		a.total++
		if err := accountFor(recipient.Address, outcomes[recipient.Mailbox()], a.byStatus); err != nil {
			if a.missing++; a.missing <= demoNamed {
				a.problems = append(a.problems, err)
			}
		}
	}
	return nil
}

// printRelays prints what each relay took, by the outcomes and by its own count.
func (a *demoAccount) printRelays(s *streams, mailings []*demoMailing, relays []*demoRelay) error {
	t := newTable("relay", "#accepted", "#deferred", "#rejected", "#cap", "#its own count", "manners")
	var problems []error
	for _, r := range relays {
		of, counts := make(map[subjects.Status]int), r.server.Counts()
		for _, m := range mailings {
			for status, n := range m.summary.Relays[r.name] {
				of[status] += n
			}
		}
		most := "-"
		if r.name == "small" {
			most = number(demoCap)
			if counts.Accepted > demoCap {
				problems = append(problems, fmt.Errorf("relay %s took %d recipients, its cap is %d", r.name, counts.Accepted, demoCap))
			}
		}
		t.row(r.name, a.accepted[r.name], of[subjects.Deferred], of[subjects.Rejected], most, int(counts.Accepted), r.manners)
		if a.accepted[r.name] != int(counts.Accepted) {
			problems = append(problems, fmt.Errorf("relay %s took %d recipients, the journals say %d", r.name, counts.Accepted, a.accepted[r.name]))
		}
	}
	a.problems = append(problems, a.problems...)
	return t.print(s.out)
}

// printOutcomes prints how many have which.
func (a *demoAccount) printOutcomes(s *streams) error {
	t := newTable("outcome", "#recipients")
	for _, status := range subjects.Statuses() {
		if a.byStatus[status] > 0 {
			t.row(string(status), a.byStatus[status])
		}
		for _, attempt := range sortedKeys(a.byAttempt) {
			if status == subjects.Accepted {
				t.row(fmt.Sprintf("  at attempt %d", attempt), a.byAttempt[attempt])
			}
		}
	}
	t.row("total", a.total)
	return t.print(s.out)
}

// accountFor checks that a recipient has exactly one outcome and that it is
// final.
func accountFor(recipient string, outcomes []subjects.Status, by map[subjects.Status]int) error {
	switch {
	case len(outcomes) == 0:
		return fmt.Errorf("%s is unaccounted for", recipient)
	case len(outcomes) > 1:
		return fmt.Errorf("%s has %d outcomes", recipient, len(outcomes))
	case !outcomes[0].Final():
		return fmt.Errorf("%s is %s, which is not final", recipient, outcomes[0])
	}
	by[outcomes[0]]++
	return nil
}
