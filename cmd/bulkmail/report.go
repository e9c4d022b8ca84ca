package main

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"bulkmail/subjects"
	"bulkmail/subjects/campaign"
)

// mayFail is how many recipients may not get it: a number, or a share of those
// published.
type mayFail struct {
	n       int
	percent float64 // instead, if more than 0
	text    string
}

func parseMayFail(text string) (mayFail, error) {
	wrong := fmt.Errorf("--max-failed %q: use a number such as 10, or a share such as 0.5%%", text)
	m := mayFail{text: text}
	if share, ok := strings.CutSuffix(text, "%"); ok {
		var err error
		if m.percent, err = strconv.ParseFloat(share, 64); err != nil || !(m.percent >= 0 && m.percent <= 100) {
			return m, wrong
		}
		return m, nil
	}
	var err error
	if m.n, err = strconv.Atoi(text); err != nil || m.n < 0 {
		return m, wrong
	}
	return m, nil
}

// exceeded tells whether more than that failed.
func (m mayFail) exceeded(failed, published int) bool {
	if m.percent > 0 {
		return float64(failed)*100 > m.percent*float64(published)
	}
	return failed > m.n
}

// result is what --json prints.
type result struct {
	campaign.Receipt
	Outcomes map[subjects.Status]int `json:"outcomes,omitempty"`
}

// report prints the result; summary is nil for who does not wait.
func (o *publishOptions) report(s *streams, receipt campaign.Receipt, summary *campaign.Summary, took time.Duration) error {
	if o.json {
		r := result{Receipt: receipt}
		if summary != nil {
			r.Outcomes = finalOutcomes(summary)
		}
		if err := encoder(s.out, isTerminal(s.out)).Encode(r); err != nil {
			return err
		}
		return o.failure(summary)
	}
	line := fmt.Sprintf("campaign %s: %s in %s published", o.campaign, count(receipt.Recipients, "recipient", "recipients"), count(receipt.Batches, "batch", "batches"))
	if receipt.Repeated > 0 {
		line += fmt.Sprintf(", %s left out (in the list twice, or published before)", number(receipt.Repeated))
	}
	if _, err := fmt.Fprintln(s.out, line); err != nil {
		return err
	}
	if summary == nil {
		return nil
	}
	if err := printSummary(s.out, summary); err != nil {
		return err
	}
	who := "what became of each: bulkmail outcomes " + o.campaign
	if summary.Failed() > 0 {
		who = "who did not get it: " + failedCommand(o.campaign, summary)
	}
	if _, err := fmt.Fprintf(s.out, "in %s; %s\n", took.Round(time.Millisecond), who); err != nil {
		return err
	}
	return o.failure(summary)
}

// failedCommand lists who did not get it.
func failedCommand(name string, summary *campaign.Summary) string {
	var statuses []string
	for _, status := range []subjects.Status{subjects.Rejected, subjects.Expired, subjects.InDoubt, subjects.Cancelled} {
		if summary.Outcomes[status] > 0 {
			statuses = append(statuses, string(status))
		}
	}
	return "bulkmail outcomes " + name + " --status " + strings.Join(statuses, ",")
}

// failure is why waiting for a campaign ends with exit code 1.
func (o *publishOptions) failure(summary *campaign.Summary) error {
	if summary == nil {
		return nil
	}
	failed := summary.Failed()
	switch {
	case len(summary.Dead) > 0:
		return fmt.Errorf("%s went to the dead letters, the first because of: %s", count(len(summary.Dead), "batch", "batches"), summary.Dead[0].Reason)
	case summary.State == subjects.CampaignCancelled:
		return errors.New("campaign " + o.campaign + " was cancelled")
	case o.mayFail.exceeded(failed, summary.Published):
		return fmt.Errorf("%s of %s did not get it, which is more than --max-failed %s: see %s",
			number(failed), number(summary.Published), o.mayFail.text, failedCommand(o.campaign, summary))
	}
	return nil
}
