package suppress

import (
	"log/slog"

	"github.com/nats-io/nats.go/jetstream"

	"bulkmail/subjects"
	"bulkmail/subjects/tail"
)

// A Follower keeps a set in line with the log on the broker. What is stored there
// is in the set some milliseconds later. Who was suppressed stays so when the log is
// made anew, for erring means not sending.
type Follower struct {
	*tail.Follower
	set *Set
}

// NewFollower makes a follower with an empty set.
func NewFollower(js jetstream.JetStream, n subjects.Names, log *slog.Logger) *Follower {
	set := NewSet()
	take := func(m jetstream.Msg) {
		c, err := readChange(m)
		if err != nil {
			// Of somebody's making: all others must not wait for him.
			log.Error("a change of suppressions is left out", "error", err)
			return
		}
		set.Apply(&c)
	}
	return &Follower{tail.NewFollower(js, n.SuppressionStream(), n.Suppressions(), take, log), set}
}

// Set is the set.
func (f *Follower) Set() *Set { return f.set }
