package campaign

import (
	"context"
	"time"

	"bulkmail/subjects/tally"
)

// A Detail is how the recipients of a campaign spread. Its keys are a contract.
type Detail struct {
	Campaign string         `json:"campaign"`
	Relays   []*Row         `json:"relays"`  // the newest that were asked; "": none was
	Domains  []*Row         `json:"domains"` // receiving: the 20 largest
	Replies  []*Row         `json:"replies"` // the 20 most frequent, each with an example
	History  []tally.Minute `json:"history"` // of the last day
	AsOf     time.Time      `json:"as_of"`
}

// A Row is a relay, a domain or a reply, and how many recipients it has to do with.
type Row = tally.Row

// shownRows is how many domains and replies are told.
const shownRows = 20

// Detail tells how the recipients of a campaign spread over relays, domains, replies
// and time. The error is [ErrNoCampaign] where nothing of it was taken up.
func (c *Client) Detail(ctx context.Context, campaign string) (Detail, error) {
	d := Detail{Campaign: campaign, AsOf: time.Now().UTC().Truncate(time.Millisecond)}
	if err := checkName(campaign); err != nil {
		return d, err
	}
	// What is stored may be some seconds old; the rest is read from the journals.
	book, err := tally.Open(ctx, c.js, c.names, campaign, true)
	if err != nil {
		return d, err
	}
	if err := book.Read(ctx); err != nil {
		return d, err
	}
	t, err := book.Tally(ctx, campaign)
	if err != nil {
		return d, err
	}
	if t == nil {
		return d, noCampaign(campaign)
	}
	d.Relays, d.Domains, d.Replies = t.Detail.Relays.Largest(shownRows), t.Detail.Domains.Largest(shownRows), t.Detail.Replies.Largest(shownRows)
	d.History = append([]tally.Minute{}, t.Detail.History...)
	return d, nil
}
