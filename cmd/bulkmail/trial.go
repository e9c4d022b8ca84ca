package main

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"unicode/utf8"

	"bulkmail/envelope/escape"
	"bulkmail/subjects"
	"bulkmail/subjects/campaign"
)

// trialOf sends the message to one address, in a campaign of its own that is deleted
// at the end, and prints what became of it.
func (o *publishOptions) trialOf(ctx context.Context, s *streams, raw string) error {
	c, err := connect(ctx, s, "publish")
	if err != nil {
		return err
	}
	defer c.nc.Close()
	campaigns := c.campaigns(s)
	suffix := make([]byte, 4)
	_, _ = rand.Read(suffix) // never fails
	name := o.campaign[:min(len(o.campaign), 48)] + "-test-" + hex.EncodeToString(suffix)
	to, err := o.trialRecipient(s)
	if err != nil {
		return err
	}
	p, err := o.publication(raw)
	if err != nil {
		return err
	}
	p.Campaign, p.List = name, func(yield func(campaign.Recipient, error) bool) { yield(to, nil) }
	// Where it can be, so that nothing is left in the store.
	p.Inline = utf8.ValidString(raw) && int64(len(raw)) < c.nc.MaxPayload()/3
	if _, err := campaigns.Publish(ctx, p); err != nil {
		return o.explain(campaign.Receipt{}, err)
	}
	summary, err := follow(ctx, s, campaigns, name)
	if ctx.Err() != nil {
		if _, err := campaigns.Cancel(context.WithoutCancel(ctx), name, "the test was interrupted"); err != nil {
			return err
		}
		return fmt.Errorf("no longer waiting; the test is cancelled if it has not left yet, see: bulkmail outcomes %s", name)
	}
	if err != nil {
		return err
	}
	told := o.tellTrial(ctx, s, campaigns, name, summary)
	deleting, cancel := context.WithTimeout(ctx, relaysWithin) // a broker does not answer who may not
	defer cancel()
	if err := campaigns.Delete(deleting, name); err != nil {
		fmt.Fprintf(s.err, "bulkmail: campaign %s stays, in part at least: %v\n", name, err)
	}
	return told
}

// trialRecipient is who gets the test; of letters, with the name and the data of the
// first in LIST.
func (o *publishOptions) trialRecipient(s *streams) (campaign.Recipient, error) {
	to := campaign.Recipient{Address: o.test}
	if !o.letters || o.list == "" {
		return to, nil
	}
	l, closeList, err := o.openList(s)
	if err != nil {
		return to, err
	}
	defer closeList()
	for first, err := range campaign.Recipients(l) {
		if err != nil {
			return to, fmt.Errorf("%s: %w", o.list, err)
		}
		to.Name, to.Data = first.Name, first.Data
		break
	}
	return to, nil
}

// tellTrial prints the one outcome. That it was not accepted is a failure.
func (o *publishOptions) tellTrial(ctx context.Context, s *streams, campaigns *campaign.Client, name string, summary *campaign.Summary) error {
	if len(summary.Dead) > 0 {
		return fmt.Errorf("the test went to the dead letters because of: %s", summary.Dead[0].Reason)
	}
	for outcome, err := range campaigns.Outcomes(ctx, name, campaign.Filter{}) {
		if err != nil {
			return err
		}
		text := fmt.Sprintf("%s: %s", outcome.Recipient, outcome.Status)
		if outcome.Relay != "" {
			text += " by " + outcome.Relay
		}
		if outcome.Code != 0 {
			text += fmt.Sprintf(": %d %s %s", outcome.Code, outcome.Enhanced, outcome.Text)
		}
		if o.json {
			err = encoder(s.out, isTerminal(s.out)).Encode(outcome)
		} else {
			_, err = fmt.Fprintln(s.out, escape.Terminal(text))
		}
		if err == nil && outcome.Status != subjects.Accepted {
			err = fmt.Errorf("the test was not accepted: %s", escape.Terminal(text))
		}
		return err
	}
	return errors.New("the test has no outcome")
}
