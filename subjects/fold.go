package subjects

import "time"

// State is what the journal of one batch says, as far as it was folded. The
// zero State is that of a batch without a journal.
//
// Everybody who reads journals folds them with it, so that all come to the same
// result: workers, `outcomes`, `status`, and whoever waits for a campaign.
type State struct {
	// Attempts is the number of attempts that recorded something. An attempt
	// that ended before anything was tried, because no relay could take
	// anything or its worker died at once, does not count.
	Attempts int
	// FirstClaim is when the batch was first taken up; zero for a new batch.
	FirstClaim time.Time
	// Results is the newest result of each recipient, as published. Recipients
	// whose results were recorded together share one Result: do not change it.
	Results map[string]*Result
	// Announced is the recipients that an attempt was about to send to and of
	// whom nothing is on record since: they are in doubt.
	Announced map[string]*Result
	// Doubts is how often each recipient was in doubt and is not final for that:
	// how many copies it may have. Nil: nobody was.
	Doubts map[string]int
	// Done tells whether the last entry said that every recipient is final.
	Done bool

	recorded bool // the current attempt has recorded something
}

// Result is the newest thing known about a recipient.
type Result struct {
	Outcome
	Attempt int
	Time    time.Time
}

// Final tells whether nothing more will happen to the recipient; not if nothing
// is known of it.
func (r *Result) Final() bool { return r != nil && r.Status.Final() }

// Fold takes in the next entry. A final result is never overturned: what comes
// after it in the journal was written by somebody who did not know of it.
//
// Changed, if not nil, is called for each recipient of whom the entry says
// something new. Before is nil if nothing was known. A recipient that is
// deferred again is a change, one that is announced ([Sending]) is none.
func (s *State) Fold(e Entry, changed func(recipient string, before, after *Result)) {
	s.Done = e.Event == Done
	switch {
	case e.Event == Claimed:
		s.recorded = false
		if s.FirstClaim.IsZero() {
			s.FirstClaim = e.Time
		}
		return
	case len(e.Results) == 0:
		return
	case e.Event == Sending:
		if s.Announced == nil {
			s.Announced = make(map[string]*Result)
		}
		for i := range e.Results {
			result := newResult(&e, &e.Results[i])
			for _, recipient := range e.Results[i].Recipients {
				s.Announced[recipient] = result
			}
		}
		return
	}
	if !s.recorded {
		s.recorded = true
		s.Attempts++
	}
	if s.Results == nil {
		s.Results = make(map[string]*Result)
	}
	for i := range e.Results {
		s.record(newResult(&e, &e.Results[i]), e.Results[i].Recipients, changed)
	}
}

func (s *State) record(after *Result, recipients []string, changed func(string, *Result, *Result)) {
	for _, recipient := range recipients {
		delete(s.Announced, recipient)
		before := s.Results[recipient]
		if before.Final() {
			continue
		}
		s.Results[recipient] = after
		if after.InDoubt && !after.Final() {
			if s.Doubts == nil {
				s.Doubts = make(map[string]int)
			}
			s.Doubts[recipient]++
		}
		if changed != nil {
			changed(recipient, before, after)
		}
	}
}

func newResult(e *Entry, r *Results) *Result {
	return &Result{r.Outcome(), e.Attempt, e.Time}
}

// Journals folds the journals of many batches, by batch, as their entries stand
// in the stream. A batch that is done changes no more and is forgotten, so that
// memory follows the batches under way. Make it as any map.
type Journals map[string]*State

// Fold takes in the next entry of a batch and returns its state. If that is
// Done it is returned for the last time: j has it no more. Changed is as for
// [State.Fold].
func (j Journals) Fold(batch string, e Entry, changed func(recipient string, before, after *Result)) *State {
	s := j[batch]
	if s == nil {
		s = new(State)
		j[batch] = s
	}
	s.Fold(e, changed)
	if s.Done {
		delete(j, batch)
	}
	return s
}
