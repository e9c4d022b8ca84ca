package worker

import (
	"strings"
	"time"

	"bulkmail/envelope"
	"bulkmail/subjects"
	"bulkmail/worker/suppress"
)

// A screen tells who of a campaign must not be sent to. It serves one goroutine.
type screen struct {
	set    *suppress.Set
	scopes []suppress.Scope
	now    time.Time

	// What was said of the last domain: batches are grouped, or sorted, mostly.
	domain string
	why    string
	all    bool
}

// screenOf is the screen of a campaign as it is now; nil: nobody is suppressed.
func (w *Worker) screenOf(campaign string, now time.Time) *screen {
	set := w.suppressed.Set()
	if set.Len() == 0 {
		return nil
	}
	s := &screen{set: set, now: now, scopes: []suppress.Scope{suppress.All}}
	list := w.campaigns.list(campaign)
	if list.kind != subjects.KindTransactional {
		s.scopes = append(s.scopes, suppress.Bulk)
	}
	if list.name != "" {
		s.scopes = append(s.scopes, set.Scope(list.name))
	}
	return s
}

// has tells whether a mailbox is suppressed, and why.
func (s *screen) has(mailbox string) (why string, ok bool) {
	if domain := mailbox[max(0, strings.LastIndexByte(mailbox, '@')):]; domain != s.domain {
		s.domain = domain
		s.why, s.all = s.set.HasDomain(domain, s.now, s.scopes...)
	}
	if s.all {
		return s.why, true
	}
	return s.set.HasMailbox(mailbox, s.now, s.scopes...)
}

// suppression is what is recorded of somebody who is suppressed.
func suppression(why string) subjects.Outcome {
	return subjects.Outcome{Status: subjects.Suppressed, Text: why}
}

// screen takes those off the queue who were suppressed since the batch was planned,
// or since it was looked at last: the next envelope leaves them out. Where nothing
// has changed it costs a look.
func (a *attempt) screen() {
	version := a.worker.suppressed.Set().Version()
	if a.screened.Load() == version || a.screened.Swap(version) == version {
		return
	}
	s := a.worker.screenOf(a.campaign, time.Now())
	if s == nil {
		return
	}
	out := make(map[string][]envelope.Recipient)
	a.mu.Lock()
	kept := a.queue[:0]
	for _, group := range a.queue {
		group.Recipients = s.split(group.Recipients, out)
		if group.Len() > 0 {
			kept = append(kept, group)
		}
	}
	a.queue = kept
	for _, recipients := range out {
		a.left -= len(recipients)
	}
	a.flying++ // until they are recorded, the attempt is not over
	a.mu.Unlock()
	for why, recipients := range out {
		a.record(suppression(why), recipients)
	}
	a.mu.Lock()
	a.flying--
	a.finish()
	a.mu.Unlock()
}

// split returns those who may be sent to, and puts the others to out, by reason.
// What it returns is new where somebody is left out: what is recorded elsewhere
// shares its memory.
func (s *screen) split(recipients []envelope.Recipient, out map[string][]envelope.Recipient) []envelope.Recipient {
	for i := range recipients {
		if _, ok := s.has(recipients[i].Mailbox); ok {
			kept := append(make([]envelope.Recipient, 0, len(recipients)-1), recipients[:i]...)
			for _, r := range recipients[i:] {
				if why, ok := s.has(r.Mailbox); ok {
					out[why] = append(out[why], r)
				} else {
					kept = append(kept, r)
				}
			}
			return kept
		}
	}
	return recipients
}
