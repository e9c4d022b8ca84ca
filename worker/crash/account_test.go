//go:build crash

package crash_test

import (
	"fmt"
	"os"
	"strings"
	"testing"
	"text/tabwriter"

	"bulkmail/subjects"
)

// An account is what came of everybody.
type account struct {
	title      string
	recipients int
	kills      map[point]int
	lost       int // published, but no final outcome; or accepted says the journal, and the sink knows nothing
	duplicates int // acceptances by the sink beyond the first
	late       int // of these, those begun after a kill of the broker or a cut, before it was noticed
	stray      int // of these, those that were not in flight at a kill
	wrong      int // final outcomes that are not what the sink said
	outcomes   map[subjects.Status]int
}

// excuse is why nothing is on record of an envelope.
type excuse int

const (
	none      excuse = iota
	unnoticed        // it was begun after an outage had, before the worker noticed
	inFlight         // it was in flight at a kill or when an outage began
)

// settleAccounts compares the journals with what the sink accepted. excuseOf is
// asked of envelopes of which nothing is on record by their worker.
func (h *fixture) settleAccounts(t testing.TB, title string, f *fleet, excuseOf func(transaction) excuse) account {
	t.Helper()
	a := account{title: title, kills: make(map[point]int), outcomes: make(map[subjects.Status]int)}
	accepted, taken, names := f.sink.accepted(), f.sink.taken(), f.names()
	h.mu.Lock()
	defer h.mu.Unlock()
	h.ledger.mu.Lock()
	defer h.ledger.mu.Unlock()
	for id, recipients := range h.batches {
		for _, recipient := range recipients {
			a.recipients++
			times, finals := accepted[recipient], h.ledger.finals[recipient]
			status := h.ledger.newest[recipient]
			a.outcomes[status]++
			switch {
			case !status.Final(), status == subjects.Accepted && len(times) == 0:
				a.lost++
				t.Errorf("%s of batch %s is lost: journal %q, accepted %d times", recipient, id, status, len(times))
			case strings.HasPrefix(recipient, "never") != (status == subjects.Rejected), len(finals) > 1:
				a.wrong++
				t.Errorf("%s of batch %s: accepted %d times, but the journal says %v", recipient, id, len(times), finals)
			case status == subjects.InDoubt && !taken[recipient]:
				a.wrong++
				t.Errorf("%s of batch %s is in doubt, but no RCPT of it was ever taken", recipient, id)
			}
			if len(times) < 2 {
				continue
			}
			a.duplicates += len(times) - 1
			known := 0 // acceptances that no kill explains
			for i, tx := range times {
				switch {
				case recorded(times, i, finals, names), excuseOf(tx) == none:
					known++
				case excuseOf(tx) == unnoticed:
					a.late++
				}
			}
			if known > 1 {
				a.stray += known - 1
				t.Errorf("%s of batch %s was accepted %d times, and that was not in flight:%s\non record: %v%v", recipient, id, len(times), times, finals, h.ledger.claimsOf(id))
			}
		}
	}
	return a
}

// recorded tells whether acceptance i is on record, or was begun when another
// one was already. A record tells of the last acceptance before it by the same
// worker.
func recorded(times []transaction, i int, finals []final, names map[string]string) bool {
	for _, on := range finals {
		if times[i].begun.After(on.stored) {
			return true
		}
		if names[on.pid] != times[i].worker || times[i].accepted.After(on.stored) {
			continue
		}
		last := true
		for _, later := range times[i+1:] {
			if later.worker == times[i].worker && !later.accepted.After(on.stored) {
				last = false
			}
		}
		if last {
			return true
		}
	}
	return false
}

// check fails the test if anything but duplicates that were in flight happened.
func (a account) check(t testing.TB) {
	t.Helper()
	if a.lost+a.stray+a.wrong > 0 {
		t.Errorf("%s: of %d recipients %d are lost, %d were sent to twice without being in flight, %d have a wrong outcome", a.title, a.recipients, a.lost, a.stray, a.wrong)
	}
}

// table prints accounts beside each other.
func table(heading string, points []point, event string, accounts ...account) {
	w := tabwriter.NewWriter(os.Stdout, 0, 0, 3, ' ', tabwriter.AlignRight)
	row := func(label string, value func(account) int) {
		fmt.Fprintf(w, "%s", label)
		for _, a := range accounts {
			fmt.Fprintf(w, "\t%d", value(a))
		}
		fmt.Fprint(w, "\t\n")
	}
	width := len("duplicates not in flight at a " + event)
	for _, p := range points {
		width = max(width, len(p)+2)
	}
	width = max(width, len(heading), len("  of these, sent before it was noticed"))
	pad := func(s string) string { return s + strings.Repeat(" ", width-len(s)) }
	fmt.Fprint(w, pad(heading))
	for _, a := range accounts {
		fmt.Fprintf(w, "\t%s", a.title)
	}
	fmt.Fprint(w, "\t\n")
	row(pad("recipients"), func(a account) int { return a.recipients })
	row(pad(event+"s"), func(a account) (n int) {
		for _, k := range a.kills {
			n += k
		}
		return n
	})
	for _, p := range points {
		row(pad("  "+string(p)), func(a account) int { return a.kills[p] })
	}
	row(pad("lost"), func(a account) int { return a.lost })
	row(pad("duplicates"), func(a account) int { return a.duplicates })
	if len(points) == 0 {
		row(pad("  of these, sent before it was noticed"), func(a account) int { return a.late })
	}
	row(pad("duplicates not in flight at a "+event), func(a account) int { return a.stray })
	row(pad("in doubt"), func(a account) int { return a.outcomes[subjects.InDoubt] })
	fmt.Println()
	_ = w.Flush()
	fmt.Println()
}
