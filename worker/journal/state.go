package journal

import "bulkmail/subjects"

// State is what a batch's journal says, and where that was read.
type State struct {
	subjects.State

	subject string
	last    uint64   // sequence of the last entry
	holder  Delivery // the delivery that the last claim goes by
}

// New tells whether nobody has taken the batch up yet.
func (s *State) New() bool { return s.last == 0 }
