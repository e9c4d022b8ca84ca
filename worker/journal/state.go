package journal

import (
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"bulkmail/subjects"
)

// State is what a batch's journal says, and where that was read.
type State struct {
	subjects.State

	// Content is what the batch said to all its recipients when it was claimed
	// first, as [Delivery] has it; empty if that is not known.
	Content string
	// Cut tells that the beginning of the journal is gone: it was older than the
	// stream keeps entries. What became of recipients is not known then.
	Cut bool
	// Stamp is what the first claim says of the letters. Claim writes it, if it is
	// not zero.
	Stamp Stamp

	subject  string
	last     uint64    // sequence of the last entry
	written  time.Time // when the broker stored that
	holder   Delivery  // the delivery that the last claim goes by
	released bool      // the last claim's hold is over by its own word
}

// A Stamp is what all attempts at a batch share, so that a letter that is sent
// again is the same letter.
type Stamp struct {
	Key  string    // id of the key of its Message-IDs and tokens
	Date time.Time // of its messages
}

// New tells whether nobody has taken the batch up yet.
func (s *State) New() bool { return s.last == 0 }

// Begun tells whether anybody may have been sent to.
func (s *State) Begun() bool { return len(s.Results)+len(s.Announced) > 0 }

// fold takes in the next entry, which came as m.
func (s *State) fold(e subjects.Entry, m *jetstream.RawStreamMsg) {
	if s.New() {
		s.Cut = e.Event != subjects.Claimed || e.Attempt > 1
	}
	s.last, s.written = m.Sequence, m.Time
	s.Fold(e, nil)
	s.released = m.Header.Get(headerReleased) != ""
	if e.Event != subjects.Claimed {
		return
	}
	s.holder = parseDelivery(m.Header)
	s.Stamp.read(m.Header)
	if s.Content == "" {
		s.Content = s.holder.Content
	}
}

// read takes in what a claim says; the first that says something counts.
func (s *Stamp) read(claim nats.Header) {
	if !s.Date.IsZero() {
		return
	}
	if date, err := time.Parse(time.RFC3339, claim.Get(headerDate)); err == nil {
		s.Key, s.Date = claim.Get(headerKey), date.UTC()
	}
}

func (s *Stamp) write(claim nats.Header) {
	if !s.Date.IsZero() {
		claim.Set(headerKey, s.Key)
		claim.Set(headerDate, s.Date.Format(time.RFC3339))
	}
}
