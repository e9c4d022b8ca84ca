// Package tally counts what became of the recipients of each campaign, so that
// whoever asks need not read the journals.
//
//   - A [Tally] is what is known of a campaign, up to a [Place] in the stream of
//     outcomes. It is the fold of all journals of the campaign up to there and
//     nothing else, so that whoever folds comes to the same tally.
//   - A [Book] holds the tallies of all campaigns, or of one, and takes in the
//     stream in its order.
//
// # What is counted
//
// Each recipient of a batch counts once, with its newest status as
// [subjects.State.Fold] has it. A batch counts with the different recipients that
// its claim says it has, or with those who have an outcome if these are more.
// Whoever expired and was published again from the dead letters counts in the newer
// batch alone, as soon as that says anything of them; whoever was moved counts
// where it is now.
//
// Relays, receiving domains and replies are counted one by one as long as there
// are few enough of them; when there are more, the smallest ones make room and
// count under "the rest", so that a sum is always that of all.
package tally

import (
	"time"

	"bulkmail/subjects"
)

// moved is the status of a recipient that is in another batch now.
const moved subjects.Status = "moved"

// A Place is up to where a stream was read.
type Place struct {
	Stream   time.Time `json:"stream"`   // when the stream was made
	Sequence uint64    `json:"sequence"` // of its entry that was read last
}

// has tells whether what is in the stream at q was read.
func (p Place) has(q Place) bool { return p.Stream.Equal(q.Stream) && q.Sequence <= p.Sequence }

// Counts are the figures of a campaign.
type Counts struct {
	Place
	Published int                     `json:"published"` // different recipients of batches that were taken up
	Batches   int                     `json:"batches"`   // that were taken up
	Outcomes  map[subjects.Status]int `json:"outcomes"`  // recipients by their newest status
	Began     time.Time               `json:"began,omitzero"`
	Last      time.Time               `json:"last,omitzero"` // of the newest entry
	Recent    []Minute                `json:"recent,omitempty"`
	// Unreadable are the first entries that could not be read.
	Unreadable []Unreadable `json:"unreadable,omitempty"`
}

// Detail is what is told of a campaign beside its figures.
type Detail struct {
	Place
	Relays  Rows     `json:"relays"`            // the newest that were asked; "": none was
	Domains Rows     `json:"domains"`           // receiving
	Replies Rows     `json:"replies"`           // by code, enhanced code and what their texts have in common
	History []Minute `json:"history,omitempty"` // of the last day
}

// A Tally is what is known of a campaign.
type Tally struct {
	Counts Counts
	Detail Detail
}

// A Minute is what was recorded in one.
type Minute struct {
	At       int64 `json:"at"` // its beginning, in seconds since 1970
	Accepted int   `json:"accepted,omitempty"`
	Rejected int   `json:"rejected,omitempty"`
	Other    int   `json:"other,omitempty"`    // final
	Deferred int   `json:"deferred,omitempty"` // as often as they were
}

// Final is how many became final in that minute.
func (m Minute) Final() int { return m.Accepted + m.Rejected + m.Other }

// An Unreadable is an entry of a journal that is left out.
type Unreadable struct {
	Subject  string `json:"subject"`
	Sequence uint64 `json:"sequence"`
	Reason   string `json:"reason"`
}

const (
	keptUnreadable = 10
	recentMinutes  = 15
	historyMinutes = 24 * 60
)

// minuted adds a recipient to a history that is kept for so many minutes.
func minuted(history []Minute, kept int, at time.Time, status subjects.Status) []Minute {
	begins := at.Unix() / 60 * 60
	// Entries come in the order in which the broker stored them, as its clock goes.
	if n := len(history); n == 0 || history[n-1].At < begins {
		oldest := begins - int64(kept-1)*60
		for len(history) > 0 && history[0].At < oldest {
			history = history[1:]
		}
		history = append(history, Minute{At: begins})
	}
	m := &history[len(history)-1]
	switch {
	case status == subjects.Accepted:
		m.Accepted++
	case status == subjects.Rejected:
		m.Rejected++
	case status == subjects.Deferred:
		m.Deferred++
	case status.Final():
		m.Other++
	}
	return history
}

// Rate is how many recipients became final a second lately, as of now; 0 if that
// is over.
func (c *Counts) Rate(now time.Time) float64 {
	const lately = 2 * time.Minute
	since := now.Add(-lately).Truncate(time.Minute)
	if c.Began.After(since) {
		since = c.Began
	}
	n := 0
	for _, m := range c.Recent {
		if m.At >= since.Truncate(time.Minute).Unix() {
			n += m.Final()
		}
	}
	return float64(n) / max(now.Sub(since).Seconds(), 1)
}

// Final is how many recipients have a final outcome.
func (c *Counts) Final() int {
	n := 0
	for status, of := range c.Outcomes {
		if status.Final() {
			n += of
		}
	}
	return n
}

// Known is how many recipients have an outcome.
func (c *Counts) Known() int {
	n := 0
	for status, of := range c.Outcomes {
		if status != moved {
			n += of
		}
	}
	return n
}

// Moved is how many recipients are in another batch now, which they count in.
func (c *Counts) Moved() int { return c.Outcomes[moved] }

func (c *Counts) count(status subjects.Status, n int) {
	if c.Outcomes == nil {
		c.Outcomes = make(map[subjects.Status]int)
	}
	if c.Outcomes[status] += n; c.Outcomes[status] == 0 {
		delete(c.Outcomes, status)
	}
}
