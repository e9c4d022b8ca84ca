package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"bulkmail/envelope/escape"
	"bulkmail/subjects"
	"bulkmail/subjects/campaign"
)

// lullAfter is how long nothing moves until somebody asks why, and how often.
const lullAfter = time.Second

// A lull is why nothing of a campaign moves, as far as it was told.
type lull struct {
	campaigns *campaign.Client
	campaign  string

	seen  int       // results; more of them is movement
	moved time.Time // when there were more, or somebody asked
	told  campaign.Reason
}

// look returns a reason that is new: it was not told, or it has gone.
func (l *lull) look(ctx context.Context, now *campaign.Summary) (r campaign.Reason, isNew bool) {
	seen := 0
	for _, n := range now.Outcomes {
		seen += n
	}
	switch {
	case seen != l.seen:
		l.seen, l.moved = seen, time.Now()
	case time.Since(l.moved) < lullAfter:
		return l.told, false
	default:
		asking, cancel := context.WithTimeout(ctx, relaysWithin)
		defer cancel()
		var err error
		r, err = l.campaigns.Reason(asking, l.campaign)
		l.moved = time.Now()
		switch {
		case err != nil:
			r = campaign.Reason{Code: campaign.ReasonBroker, Text: err.Error()}
		case r.Code == campaign.ReasonNone && now.Resting > 0:
			r = campaign.Reason{Code: campaign.ReasonResting, Text: count(now.Resting, "recipient was", "recipients were") + " deferred, for the next attempt"}
		}
	}
	isNew = r != l.told
	l.told = r
	return r, isNew
}

// follow waits until a campaign is through and shows how far it is, and why it does
// not move.
func follow(ctx context.Context, s *streams, campaigns *campaign.Client, name string) (*campaign.Summary, error) {
	var shown *progress
	var summary *campaign.Summary
	var failed error
	quiet := lull{campaigns: campaigns, campaign: name, moved: time.Now()}
	for now, err := range campaigns.Follow(ctx, name) {
		if failed = err; now == nil {
			break
		}
		if summary = now; shown == nil {
			shown = newProgress(s.err, "final", now.Published)
		}
		if err == nil && ctx.Err() == nil {
			if why, isNew := quiet.look(ctx, now); isNew && why.Code != campaign.ReasonNone && ctx.Err() == nil {
				shown.say("waiting: " + escape.Terminal(why.Text))
			}
		}
		shown.set(now.Final(), note(now))
	}
	if shown != nil {
		shown.end(summary.Final(), note(summary))
		warnUnreadable(s, summary.Unreadable)
	}
	if ctx.Err() != nil {
		return nil, fmt.Errorf("no longer waiting; the workers go on, see: bulkmail outcomes %s", name)
	}
	if missing, ok := errors.AsType[*campaign.MissingError](failed); ok {
		return nil, fmt.Errorf("%s of campaign %s without a final outcome although all batches are done", count(missing.Missing, "recipient", "recipients"), name)
	}
	return summary, failed
}

// warnUnreadable says what is left out of a result.
func warnUnreadable(s *streams, entries []*campaign.EntryError) {
	for _, e := range entries {
		fmt.Fprintf(s.err, "bulkmail: left out: %v\n", e)
	}
}

// note is a summary in one line, for progress.
func note(summary *campaign.Summary) string {
	var parts []string
	for _, status := range subjects.Statuses() {
		if n := summary.Outcomes[status]; n > 0 {
			name := string(status)
			if status == subjects.Deferred {
				name = "deferred so far"
			}
			parts = append(parts, number(n)+" "+name)
		}
	}
	return strings.Join(parts, ", ")
}

// finalOutcomes are the counts of final outcomes.
func finalOutcomes(summary *campaign.Summary) map[subjects.Status]int {
	final := make(map[subjects.Status]int)
	for status, n := range summary.Outcomes {
		if status.Final() {
			final[status] = n
		}
	}
	return final
}

// printSummary prints outcomes by relay, with a line of totals.
func printSummary(w io.Writer, summary *campaign.Summary) error {
	header := []string{"relay"}
	var shown []subjects.Status
	for _, status := range subjects.Statuses() {
		if summary.Outcomes[status] > 0 {
			shown = append(shown, status)
			header = append(header, "#"+string(status))
		}
	}
	t := newTable(header...)
	line := func(name string, of map[subjects.Status]int) {
		cells := []any{name}
		for _, status := range shown {
			cells = append(cells, of[status])
		}
		t.row(cells...)
	}
	for _, name := range sortedKeys(summary.Relays) {
		shownName := name
		if name == "" {
			shownName = "(none)" // addresses that cannot be sent to
		}
		line(shownName, summary.Relays[name])
	}
	line("total", summary.Outcomes)
	return t.print(w)
}
