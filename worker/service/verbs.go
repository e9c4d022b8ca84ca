package service

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"sort"

	"bulkmail/subjects"
	"bulkmail/subjects/api"
	"bulkmail/subjects/campaign"
)

const (
	// pageOutcomes is how many outcomes a page has unless the request says, and
	// mostOutcomes how many it has at most.
	pageOutcomes = 1000
	mostOutcomes = 5000
)

// do does what is asked.
func (q *request) do(ctx context.Context) (answer any, err error) {
	switch q.verb {
	case api.Status:
		return q.status(ctx)
	case api.Detail:
		if err := q.read(&struct{}{}); err != nil {
			return nil, err
		}
		return q.campaigns.Detail(ctx, q.about)
	case api.Campaigns:
		return q.names(ctx)
	case api.Outcomes:
		return q.outcomes(ctx)
	case api.Pause:
		return q.change(ctx, (*campaign.Client).Pause)
	case api.Resume:
		return q.change(ctx, (*campaign.Client).Resume)
	case api.Cancel:
		return q.change(ctx, (*campaign.Client).Cancel)
	}
	return nil, fmt.Errorf("verb %s is unknown", q.verb)
}

// change brings a campaign into a state.
func (q *request) change(ctx context.Context, set func(*campaign.Client, context.Context, string, string) (subjects.CampaignState, error)) (any, error) {
	var asked api.ChangeRequest
	if err := q.read(&asked); err != nil {
		return nil, err
	}
	before, err := set(q.campaigns.As(q.actor), ctx, q.about, printable(asked.Why))
	if err != nil {
		return nil, err
	}
	q.header[api.HeaderBefore] = []string{string(before)}
	record, err := q.campaigns.Record(ctx, q.about)
	return api.Record{Name: q.about, Campaign: record}, err
}

// status is that of one campaign, or of as many as an answer holds.
func (q *request) status(ctx context.Context) (any, error) {
	var asked api.StatusRequest
	if err := q.read(&asked); err != nil {
		return nil, err
	}
	if q.about != subjects.AllCampaigns {
		one, err := q.campaigns.Status(ctx, q.about)
		return []campaign.Status{one}, err
	}
	all, err := q.campaigns.Statuses(ctx)
	if err != nil {
		return nil, err
	}
	after := sort.Search(len(all), func(i int) bool { return all[i].Campaign > asked.After })
	list := append([]campaign.Status{}, all[after:]...) // none is []
	for {
		data, err := encode(list)
		if err != nil || len(data) <= q.most || len(list) < 2 {
			return list, err
		}
		list = list[:len(list)*q.most/len(data)*9/10+1]
		q.header[api.HeaderNext] = []string{list[len(list)-1].Campaign}
	}
}

func (q *request) names(ctx context.Context) (any, error) {
	if err := q.read(&struct{}{}); err != nil {
		return nil, err
	}
	names, err := q.campaigns.Campaigns(ctx)
	slices.Sort(names)
	return append([]string{}, names...), err
}

// outcomes is a page of the outcomes of a campaign.
func (q *request) outcomes(ctx context.Context) (any, error) {
	var asked api.OutcomesRequest
	if err := q.read(&asked); err != nil {
		return nil, err
	}
	asked.Limit = cmp.Or(asked.Limit, pageOutcomes)
	for _, status := range asked.Status {
		if !slices.Contains(subjects.Statuses(), status) {
			return nil, &api.Error{Code: api.BadRequest, Text: fmt.Sprintf("status %q is unknown", status)}
		}
	}
	if asked.Limit < 1 || asked.Limit > mostOutcomes {
		return nil, &api.Error{Code: api.BadRequest, Text: fmt.Sprintf("limit %d: use 1 to %d", asked.Limit, mostOutcomes)}
	}
	page, err := q.campaigns.OutcomesPage(ctx, q.about, campaign.Filter{Status: asked.Status}, asked.After, asked.Limit, q.most/2)
	return api.OutcomesAnswer{Outcomes: append([]campaign.Outcome{}, page.Outcomes...), Next: page.Next, Unreadable: page.Partial}, err
}
