package journal

import (
	"time"

	"bulkmail/subjects"
)

// State is what a batch's journal says.
type State struct {
	// Attempts is the number of attempts that recorded something. An attempt
	// that ended before anything was tried, because no relay could take
	// anything or its worker died at once, does not count.
	Attempts int
	// FirstClaim is when the batch was first taken up; zero for a new batch.
	FirstClaim time.Time
	// Results is the newest result of each recipient, as published.
	Results map[string]Result
	// Announced is the recipients that an attempt was about to send to and of
	// whom nothing is on record since: they are in doubt.
	Announced map[string]Result
	// Done tells whether the last entry said that every recipient is final.
	Done bool

	subject  string
	last     uint64
	holder   Delivery // the delivery that the last claim goes by
	recorded bool     // the current attempt has recorded something
}

// Result is the newest thing known about one recipient.
type Result struct {
	Status   subjects.Status
	Relay    string
	Code     int
	Enhanced string
	Text     string
	Attempt  int
	Time     time.Time
}

// New tells whether nobody has taken the batch up yet.
func (s *State) New() bool { return s.last == 0 }

// Fold takes in the next entry. A final result is never overturned: what comes
// after it in the journal was written by somebody who did not know of it.
func (s *State) Fold(e subjects.Entry) {
	s.Done = e.Event == subjects.Done
	if e.Event == subjects.Claimed {
		s.recorded = false
		if s.FirstClaim.IsZero() {
			s.FirstClaim = e.Time
		}
		return
	}
	if e.Event == subjects.Sending {
		s.announce(e)
		return
	}
	if len(e.Results) == 0 {
		return
	}
	if !s.recorded {
		s.recorded = true
		s.Attempts++
	}
	if s.Results == nil {
		s.Results = make(map[string]Result)
	}
	for _, r := range e.Results {
		for _, recipient := range r.Recipients {
			delete(s.Announced, recipient)
			if s.Results[recipient].Status.Final() {
				continue
			}
			s.Results[recipient] = Result{r.Status, r.Relay, r.Code, r.Enhanced, r.Text, e.Attempt, e.Time}
		}
	}
}

func (s *State) announce(e subjects.Entry) {
	if s.Announced == nil {
		s.Announced = make(map[string]Result)
	}
	for _, r := range e.Results {
		for _, recipient := range r.Recipients {
			s.Announced[recipient] = Result{r.Status, r.Relay, r.Code, r.Enhanced, r.Text, e.Attempt, e.Time}
		}
	}
}
