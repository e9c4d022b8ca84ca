package worker

import (
	"time"

	"bulkmail/subjects"
)

// An Observer is told what a worker does, by many goroutines at once. Its
// methods must not wait.
type Observer interface {
	// Appended says that an entry is in a journal, and how long that took with
	// all tries.
	Appended(e subjects.Entry, took time.Duration)
	// Attempted says how an attempt ended.
	Attempted(end Action)
	// Buried says that a dead letter was stored, and for which of the causes in
	// package subjects.
	Buried(cause string)
}

// nobody is the Observer of a worker that has none.
type nobody struct{}

func (nobody) Appended(subjects.Entry, time.Duration) {}
func (nobody) Attempted(Action)                       {}
func (nobody) Buried(string)                          {}
