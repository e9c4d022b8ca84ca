package subjects

import "time"

// Event says what a journal entry records.
type Event string

// The events.
const (
	Claimed  Event = "claimed"  // a worker took hold of the batch
	Sending  Event = "sending"  // the recipients in it are about to be sent to (IN_DOUBT=skip)
	Recorded Event = "recorded" // what became of recipients
	Done     Event = "done"     // every recipient of the batch is final; may carry the last results
)

// Status is what is known about a recipient.
type Status string

// The statuses.
const (
	Accepted   Status = "accepted"   // a relay took responsibility
	Rejected   Status = "rejected"   // 5xx, or an address that cannot be sent to
	Deferred   Status = "deferred"   // 4xx; will be tried again
	Expired    Status = "expired"    // deferred until RETRY_FOR was over
	Suppressed Status = "suppressed" // on a suppression list
	Cancelled  Status = "cancelled"  // the campaign was cancelled
	InDoubt    Status = "in_doubt"   // sent, but whether accepted is not known (RFC 1047)
)

// Statuses lists every status in the order in which tables show them.
func Statuses() []Status {
	return []Status{Accepted, Rejected, Expired, Suppressed, Cancelled, InDoubt, Deferred}
}

// Final tells whether nothing more will happen to the recipient.
func (s Status) Final() bool {
	switch s {
	case Accepted, Rejected, Expired, Suppressed, Cancelled, InDoubt:
		return true
	case Deferred:
	}
	return false
}

// Entry is one entry of a batch's journal, as JSON. An entry is written only
// if it follows the entry that its writer saw last, so that two holders of a
// batch cannot both write.
type Entry struct {
	Time    time.Time `json:"time"`
	Worker  string    `json:"worker"`
	Attempt int       `json:"attempt"`
	Event   Event     `json:"event"`
	Results []Results `json:"results,omitempty"`
}

// Outcome is what became of a recipient, or of several in the same way.
type Outcome struct {
	Status   Status
	Relay    string
	Code     int
	Enhanced string
	Text     string
	InDoubt  bool // of a deferred recipient: it may have been accepted, which is not known
}

// Results is what became of some recipients in the same way.
type Results struct {
	Status     Status   `json:"status"`
	Relay      string   `json:"relay,omitempty"`
	Code       int      `json:"code,omitempty"`
	Enhanced   string   `json:"enhanced,omitempty"`
	Text       string   `json:"text,omitempty"`
	InDoubt    bool     `json:"in_doubt,omitempty"` // of deferred ones: they may have been accepted
	Recipients []string `json:"recipients"`         // as published
}

// Outcome is r without the recipients.
func (r *Results) Outcome() Outcome {
	return Outcome{r.Status, r.Relay, r.Code, r.Enhanced, r.Text, r.InDoubt}
}
