package worker

// State is how far a worker is.
type State uint32

// The states of a worker, in their order.
const (
	Starting State = iota // the broker is not reached, or what is missing there not made
	Working
	Draining // no new batch; envelopes in flight finish
	Ended
)

// States are all states.
func States() []State { return []State{Starting, Working, Draining, Ended} }

// String is the state in one word.
func (s State) String() string {
	switch s {
	case Starting:
		return "starting"
	case Working:
		return "working"
	case Draining:
		return "draining"
	default:
		return "ended"
	}
}

// State is how far the worker is.
func (w *Worker) State() State { return State(w.state.Load()) }

// Working is closed when the worker begins to work: what is missing on the broker
// is made.
func (w *Worker) Working() <-chan struct{} { return w.working }

func (w *Worker) enter(s State) {
	if w.state.Store(uint32(s)); s == Working {
		close(w.working)
	}
}

// KeepsJournals tells whether journals can be written and read, as far as is
// known.
func (w *Worker) KeepsJournals() bool { return !w.troubled.Load() }

// InHand is how many batches the worker holds.
func (w *Worker) InHand() int { return int(w.inHand.Load()) }
