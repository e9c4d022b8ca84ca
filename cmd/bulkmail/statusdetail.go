package main

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"bulkmail/subjects"
	"bulkmail/subjects/api"
	"bulkmail/subjects/campaign"
)

// detail prints how the recipients of a campaign spread, after its status.
func (c *client) detail(ctx context.Context, s *streams, only []string, asJSON bool) error {
	d, err := c.workers().Detail(ctx, only[0])
	if errors.Is(err, api.ErrNoWorker) {
		var campaigns *campaign.Client
		if campaigns, err = c.alone(ctx, s); err == nil {
			d, err = campaigns.Detail(ctx, only[0])
		}
	}
	if err != nil {
		return err
	}
	if asJSON {
		return encoder(s.out, isTerminal(s.out)).Encode(d)
	}
	if err := c.status(ctx, s, only, false, false); err != nil {
		return err
	}
	for _, part := range []struct {
		name string
		rows []*campaign.Row
	}{{"relay", d.Relays}, {"domain", d.Domains}, {"reply", d.Replies}} {
		if len(part.rows) == 0 {
			continue
		}
		fmt.Fprintln(s.out)
		if err := detailTable(part.name, part.rows).print(s.out); err != nil {
			return err
		}
	}
	return nil
}

// detailTable has a row each, and a column for every status that anybody has.
func detailTable(name string, rows []*campaign.Row) *table {
	var shown []subjects.Status
	var header []string
	for _, status := range subjects.Statuses() {
		for _, row := range rows {
			if row.By[status] > 0 {
				shown, header = append(shown, status), append(header, "#"+string(status))
				break
			}
		}
	}
	t := newTable(append(header, name)...)
	for _, row := range rows {
		cells := make([]any, 0, len(shown)+1)
		for _, status := range shown {
			cells = append(cells, row.By[status])
		}
		t.row(append(cells, rowName(row))...)
	}
	return t
}

// rowName says what a row is about.
func rowName(row *campaign.Row) string {
	var parts []string
	if row.Code != 0 {
		parts = append(parts, fmt.Sprint(row.Code))
	}
	for _, part := range []string{row.Enhanced, row.Text, row.Name} {
		if part != "" {
			parts = append(parts, part)
		}
	}
	if len(parts) == 0 {
		return "(none)" // addresses that cannot be sent to
	}
	return strings.Join(parts, " ")
}
