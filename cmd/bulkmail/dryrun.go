package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"bulkmail/envelope/dkim"
	"bulkmail/envelope/escape"
	"bulkmail/envelope/letter"
	"bulkmail/envelope/requirements"
	"bulkmail/relay"
	relayconfig "bulkmail/relay/config"
	"bulkmail/relay/forecast"
	"bulkmail/subjects"
	"bulkmail/subjects/campaign"
	"bulkmail/worker/fleet"
)

// A dryRun is what publish --dry-run prints.
type dryRun struct {
	campaign.Estimate
	Seconds *int64           `json:"seconds"` // that the relays' caps take at least; null: not known
	Ends    *time.Time       `json:"ends"`    // if it began now
	Checks  []campaign.Check `json:"checks"`

	why string // there are no seconds, or where they come from
}

// defaultEnvelope is the envelope limit of a relay that says none.
const defaultEnvelope = 100

// dryRun reads the list and the message, and sends nothing. It needs neither a
// broker nor relays, and says more with them.
func (o *publishOptions) dryRunOf(ctx context.Context, s *streams, p campaign.Publication, checks []campaign.Check) error {
	c, names, err := loadConfig()
	if err != nil {
		return err
	}
	var relays []relay.Config
	if c.RelayURLs != "" || c.RelaysFile != "" {
		if relays, err = relayconfig.Load(c.RelayURLs, c.RelaysFile, relayconfig.Options{}); err != nil {
			return &usageError{err}
		}
	}
	// What would be refused is said with all the rest.
	refusal := campaign.Refused(checks)
	d := dryRun{Checks: checks, Estimate: campaign.Estimate{Unusable: []campaign.Unusable{}, Domains: []campaign.DomainCount{}}}
	if d.Checks, err = o.moreChecks(ctx, c, p.Message, d.Checks); err != nil {
		return err
	}
	if refusal == nil {
		if d.Estimate, err = p.Estimate(o.envelopeLimit(relays)); err != nil {
			return o.explain(campaign.Receipt{}, err)
		}
		o.forecast(ctx, s, c, names, relays, &d)
	}
	if o.json {
		err = encoder(s.out, isTerminal(s.out)).Encode(d)
	} else {
		err = d.print(s, refusal == nil)
	}
	if err == nil && refusal != nil {
		err = o.aboutMessage(refusal)
	}
	return err
}

// moreChecks adds what the large receivers want, as `bulkmail check` says it.
func (o *publishOptions) moreChecks(ctx context.Context, c config, message string, checks []campaign.Check) ([]campaign.Check, error) {
	setup := requirements.Setup{Sender: o.from, UnsubscribeURL: c.UnsubscribeURL, Now: time.Now()}
	if c.DKIMFile != "" {
		var err error
		if setup.Keys, err = dkim.Load(c.DKIMFile); err != nil {
			return nil, fmt.Errorf("BULKMAIL_DKIM_FILE: %w", err)
		}
	}
	all := append([]campaign.Check{}, checks...)
	findings, err := requirements.Check(ctx, message, setup)
	if _, isLetter := errors.AsType[*letter.Error](err); isLetter {
		err = nil // it is no template, which a message to many need not be
	}
	for _, f := range findings {
		if slices.ContainsFunc(checks, func(c campaign.Check) bool { return c.Rule == f.Rule }) {
			continue
		}
		all = append(all, campaign.Check{Rule: f.Rule, Level: campaign.LevelWarning, Text: f.Who + ": " + f.Found + ": " + f.Do})
	}
	return all, err
}

// envelopeLimit is the least of the relays', since nobody knows which one gets what.
func (o *publishOptions) envelopeLimit(relays []relay.Config) int {
	if o.letters {
		return 1
	}
	least := 0
	for _, r := range relays {
		if r.EnvelopeLimit > 0 && (least == 0 || r.EnvelopeLimit < least) {
			least = r.EnvelopeLimit
		}
	}
	if least == 0 && len(relays) == 0 {
		return defaultEnvelope
	}
	return least
}

// forecast says how long it takes, as far as the relays' caps do.
func (o *publishOptions) forecast(ctx context.Context, s *streams, c config, names subjects.Names, relays []relay.Config, d *dryRun) {
	if len(relays) == 0 {
		d.why = "not known: no relay is configured here"
		return
	}
	counters, _, _, err := c.lookAtFleet(ctx, names, relays)
	if err != nil && c.NATSURL != "" {
		fmt.Fprintf(s.err, "bulkmail: what was used of the relays' caps is not known: %v\n", err)
	}
	now := time.Now()
	duration, err := forecast.Duration(now, d.Recipients, capsOf(relays, counters))
	switch {
	case errors.Is(err, forecast.ErrNever):
		d.why = "never: " + err.Error()
		return
	case err != nil:
		d.why = "not known: " + err.Error()
		return
	}
	seconds, ends := int64(duration/time.Second), now.Add(duration).UTC().Truncate(time.Second)
	d.Seconds, d.Ends = &seconds, &ends
	d.why = "at least, with the relays' caps"
}

func capsOf(relays []relay.Config, counters map[string]fleet.Counters) []forecast.Relay {
	all := make([]forecast.Relay, len(relays))
	for i, r := range relays {
		n := counters[r.Name]
		all[i] = forecast.Relay{Limits: r.Caps(), Used: n.Used + n.Held, Awake: n.Awake, AsleepUntil: n.Asleep}
	}
	return all
}

// print prints for people. What would be refused has checks alone.
func (d *dryRun) print(s *streams, estimated bool) error {
	if estimated {
		t := newTable("nothing was sent", "")
		t.row("recipients", number(d.Recipients))
		t.row("in the list twice", number(d.Doubles))
		t.row("unusable lines", number(len(d.Unusable)))
		t.row("envelopes", number(d.Envelopes))
		t.row("on the wire", bytesText(d.Bytes))
		takes := d.why
		if d.Seconds != nil {
			takes = fmt.Sprintf("%v, until %s (%s)", time.Duration(*d.Seconds)*time.Second, d.Ends.Local().Format(time.DateTime), d.why)
		}
		t.row("takes", takes)
		if err := t.print(s.out); err != nil {
			return err
		}
	}
	for _, u := range d.Unusable[:min(len(d.Unusable), namedLines)] {
		fmt.Fprintf(s.out, "line %d: %q: %s\n", u.Line, u.Text, escape.Terminal(u.Reason))
	}
	if len(d.Domains) > 0 {
		fmt.Fprintln(s.out)
		t := newTable("largest domains", "#recipients")
		for _, domain := range d.Domains {
			t.row(domain.Domain, domain.Recipients)
		}
		if err := t.print(s.out); err != nil {
			return err
		}
	}
	if len(d.Checks) == 0 {
		return nil
	}
	fmt.Fprintln(s.out)
	for _, c := range d.Checks {
		if _, err := fmt.Fprintf(s.out, "%s: %s: %s\n", c.Level, c.Rule, escape.Terminal(c.Text)); err != nil {
			return err
		}
	}
	return nil
}

// bytesText is 12345678 as 12.3 MB.
func bytesText(n int64) string {
	size, unit := float64(n), "B"
	for _, next := range []string{"KB", "MB", "GB", "TB"} {
		if size < 1000 {
			break
		}
		size, unit = size/1000, next
	}
	if unit == "B" {
		return fmt.Sprintf("%d B", n)
	}
	return fmt.Sprintf("%.1f %s", size, unit)
}
