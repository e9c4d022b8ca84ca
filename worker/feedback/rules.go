package feedback

import (
	"encoding/json"
	"strings"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"bulkmail/envelope/bounce"
	"bulkmail/subjects"
)

const (
	// softCampaigns is in how many campaigns a mailbox must have bounced softly
	// within softDays until it is not sent to any more.
	softCampaigns = 3
	softDays      = 14 * 24 * time.Hour
)

// decide says whether somebody is not sent to any more, all bulk mail of everybody's:
// who complains, or asks for no more, at once; an address that is dead for good, at
// once; one that is full or closed again and again, after the third campaign. What
// was refused for a policy, a signature or our reputation (5.7.x) is not the
// mailbox's fault, and never counts.
func (r *recorder) decide(o *occurrence) {
	switch {
	case o.Kind == subjects.Complained:
		o.suppress("complained", "complaint")
	case o.Kind == subjects.Unsubscribed:
		o.suppress("unsubscribed", "unsubscribe")
	case o.Kind == subjects.Bounced && o.Hard && !strings.HasPrefix(o.Enhanced, "5.7."):
		o.suppress("bounced: "+strings.ReplaceAll(o.Reason, "_", " "), "bounce")
	case soft(&o.FeedbackEvent) && r.softly(&o.FeedbackEvent) >= softCampaigns:
		o.suppress("bounced in several campaigns, the last time: "+strings.ReplaceAll(o.Reason, "_", " "), "bounce")
	}
}

func (o *occurrence) suppress(why, cause string) {
	o.scope, o.why, o.cause = subjects.ScopeBulk, why, cause
}

// soft tells whether a bounce counts as the mailbox's trouble.
func soft(e *subjects.FeedbackEvent) bool {
	if e.Kind != subjects.Bounced || e.Hard || strings.HasPrefix(e.Enhanced, "5.7.") {
		return false
	}
	switch bounce.Reason(e.Reason) {
	case bounce.MailboxFull, bounce.Suspended, bounce.Other:
		return true
	}
	return false
}

// softly is in how many campaigns the recipient has bounced softly lately, with e.
func (r *recorder) softly(e *subjects.FeedbackEvent) int {
	r.mu.Lock()
	defer r.mu.Unlock()
	n := 1
	for campaign, at := range r.soft[strings.ToLower(e.Recipient)] {
		if campaign != e.Campaign && e.Time.Sub(at) <= softDays {
			n++
		}
	}
	return n
}

// learn takes in an event that is stored.
func (r *recorder) learn(m jetstream.Msg) {
	r.see(m.Headers().Get(jetstream.MsgIDHeader))
	if !strings.HasSuffix(m.Subject(), "."+string(subjects.Bounced)) {
		return
	}
	var e subjects.FeedbackEvent
	if json.Unmarshal(m.Data(), &e) == nil { // else it is of somebody else's making
		r.note(&e)
	}
}

// note keeps a bounce that counts.
func (r *recorder) note(e *subjects.FeedbackEvent) {
	if !soft(e) || time.Since(e.Time) > softDays {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	k := strings.ToLower(e.Recipient)
	if r.soft[k] == nil {
		r.soft[k] = make(map[string]time.Time)
	}
	r.soft[k][e.Campaign] = e.Time
}
