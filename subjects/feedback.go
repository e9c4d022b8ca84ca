package subjects

import "time"

// FeedbackEvent is what came back of a message after a relay had accepted it, as
// JSON.
type FeedbackEvent struct {
	ID        string       `json:"id"` // made of what happened: the same event has the same
	Time      time.Time    `json:"time"`
	Kind      FeedbackKind `json:"kind"`
	Campaign  string       `json:"campaign"`
	Batch     string       `json:"batch"` // empty: not known
	Recipient string       `json:"recipient"`

	// What a mail says. Reason is one of those of package bounce.
	Hard     bool   `json:"hard"` // the address is dead for good
	Reason   string `json:"reason"`
	Enhanced string `json:"enhanced"`
	Code     int    `json:"code"`
	Text     string `json:"text"`
	Remote   string `json:"remote"` // the host that said it

	Source string `json:"source"` // how we heard of it: http, smtp, lmtp, maildir or mbox
}

// FeedbackKind is what happened.
type FeedbackKind string

// The kinds of feedback.
const (
	Bounced      FeedbackKind = "bounced"
	Delayed      FeedbackKind = "delayed"
	Delivered    FeedbackKind = "delivered"
	Complained   FeedbackKind = "complained"
	Unsubscribed FeedbackKind = "unsubscribed"
)
