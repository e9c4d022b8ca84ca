// Package api is how programs ask the workers: the verbs of their service, what
// is asked and answered, and a [Client].
//
// Workers are a NATS service that is called like the prefix, so `nats micro ls`
// finds it. A verb is a subject, <prefix>.api.<verb>.<campaign>, with _ where no
// campaign is meant, so that rights can be given by verb and campaign. Requests
// and answers are JSON; an empty request is {}. Errors come as the service's
// headers say, with the codes of [Error].
//
// The broker tells workers who asks where it is set up to (Nats-Request-Info); else
// the header [HeaderActor] says so.
package api

import (
	"fmt"

	"bulkmail/subjects"
	"bulkmail/subjects/campaign"
)

// A Verb is what can be asked for.
type Verb string

// The verbs.
const (
	Status    Verb = "status"    // answers with a list of [campaign.Status]
	Detail    Verb = "detail"    // with a [campaign.Detail]
	Campaigns Verb = "campaigns" // with a list of names
	Outcomes  Verb = "outcomes"  // [OutcomesRequest], with [OutcomesAnswer]
	Pause     Verb = "pause"     // [ChangeRequest], with [Record]
	Resume    Verb = "resume"    // the same
	Cancel    Verb = "cancel"    // the same
)

// Verbs are all of them.
func Verbs() []Verb { return []Verb{Status, Detail, Campaigns, Outcomes, Pause, Resume, Cancel} }

const (
	// HeaderActor of a request is who asks, for the record.
	HeaderActor = "Bulkmail-Actor"
	// HeaderBefore of an answer is the state that a campaign was in.
	HeaderBefore = "Bulkmail-Before"
	// HeaderNext of an answer of status says that there are more campaigns, behind
	// this one: see [StatusRequest].
	HeaderNext = "Bulkmail-Next"
)

// A ChangeRequest asks for another state of a campaign.
type ChangeRequest struct {
	Why string `json:"why,omitempty"` // for the record
}

// A Record is the record of a campaign.
type Record struct {
	Name string `json:"campaign"`
	subjects.Campaign
}

// A StatusRequest asks for the status of all campaigns whose names come after one.
// It means nothing where one campaign is asked for.
type StatusRequest struct {
	After string `json:"after,omitempty"`
}

// An OutcomesRequest asks for a page of the outcomes of a campaign.
type OutcomesRequest struct {
	Status []subjects.Status `json:"status,omitempty"` // one of these; none: any
	After  string            `json:"after,omitempty"`  // Next of the page before; empty: the first
	Limit  int               `json:"limit,omitempty"`  // outcomes at most; 0: 1,000
}

// An OutcomesAnswer is such a page.
type OutcomesAnswer struct {
	Outcomes   []campaign.Outcome     `json:"outcomes"`
	Next       string                 `json:"next"`                 // empty: this is the last
	Unreadable []*campaign.EntryError `json:"unreadable,omitempty"` // entries of journals that were left out
}

// An Error is what the service says instead of an answer.
type Error struct {
	Code int // 400, 403, 404, 409 or 503
	Text string
}

func (e *Error) Error() string { return e.Text }

// Is makes a code mean what a [campaign.Client] says.
func (e *Error) Is(target error) bool { return e.Code == NotFound && target == campaign.ErrNoCampaign }

// The codes of an [Error].
const (
	BadRequest  = 400
	Forbidden   = 403 // the worker's user of the broker may not
	NotFound    = 404
	Conflict    = 409 // not in the state that it is in
	Unavailable = 503 // the broker does not answer, or not as it should
)

// String is the error with its code.
func (e *Error) String() string { return fmt.Sprintf("%d %s", e.Code, e.Text) }
