package worker

import "time"

// Waits is how long a worker waits for what, as waits is; 0: as it is.
type Waits struct{ Open, Trouble, Stall time.Duration }

// Shorten sets the waits of a worker that does not run yet.
func (w *Worker) Shorten(to Waits) {
	if to.Open > 0 {
		w.waits.open = to.Open
	}
	if to.Trouble > 0 {
		w.waits.trouble = to.Trouble
	}
	if to.Stall > 0 {
		w.waits.stall = to.Stall
	}
}
