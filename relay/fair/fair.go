// Package fair says which campaign is next where several want the same thing: a
// batch from the queue, a free session of a relay.
//
// Urgent campaigns come first and may starve the others. Within each of the two
// classes recipients are shared by weight, among those campaigns that have
// something at the moment: start-time fair queueing (Goyal, Vin, Cheng 1996),
// which is deficit round robin without rounds. A campaign's tag is what it was
// given so far, divided by its weight; the lowest tag is next. Who begins to
// have something starts at the tag that was served last, so that a newcomer
// neither starves the others for what they had before it came, nor waits for
// them. Who paused for a moment keeps a tag that is ahead, so that nobody gains
// by asking in small pieces.
//
// The package has no lock, no goroutine and no clock.
package fair

import (
	"cmp"
	"slices"
)

// The weights of a campaign. What is out of range is brought into it.
const (
	LeastWeight   = 1
	DefaultWeight = 100
	MostWeight    = 1000
)

// A Queue shares between flows, one for each campaign. The zero Queue is ready.
type Queue[T any] struct {
	flows  map[string]*Flow[T]
	active []*Flow[T] // in order of their names, so that equal tags are decided the same way each time
	ahead  []*Flow[T] // have nothing now, and had more than their share of late
	served [2]float64 // the tag that was served last, bulk and urgent
}

// A Flow is one campaign in a queue.
type Flow[T any] struct {
	Campaign string
	Value    T // the caller's

	weight int
	urgent bool
	active bool
	parked bool // in ahead
	tag    float64
}

// Flow returns the flow of a campaign, and makes it when there is none.
func (q *Queue[T]) Flow(campaign string) *Flow[T] {
	f := q.flows[campaign]
	if f == nil {
		if q.flows == nil {
			q.flows = make(map[string]*Flow[T])
		}
		f = &Flow[T]{Campaign: campaign, weight: DefaultWeight}
		q.flows[campaign] = f
	}
	return f
}

// Set gives a flow its weight (0: the default) and says whether it is urgent.
func (q *Queue[T]) Set(f *Flow[T], weight int, urgent bool) {
	f.weight = min(max(cmp.Or(weight, DefaultWeight), LeastWeight), MostWeight)
	if f.urgent != urgent {
		f.urgent = urgent
		f.tag = q.served[class(urgent)]
	}
}

// Urgent tells whether the flow comes before those that are not.
func (f *Flow[T]) Urgent() bool { return f.urgent }

// Begin says that a flow has something from now on.
func (q *Queue[T]) Begin(f *Flow[T]) {
	if f.active {
		return
	}
	f.active = true
	f.tag = max(f.tag, q.served[class(f.urgent)])
	at, _ := slices.BinarySearchFunc(q.active, f.Campaign, func(g *Flow[T], name string) int { return cmp.Compare(g.Campaign, name) })
	q.active = slices.Insert(q.active, at, f)
}

// End says that a flow has nothing any more. One that is not ahead of the others
// is forgotten, with its Value: ask for it by name again.
func (q *Queue[T]) End(f *Flow[T]) {
	if f.active {
		f.active = false
		at := slices.Index(q.active, f)
		q.active = slices.Delete(q.active, at, at+1)
	}
	if !q.forget(f) && !f.parked {
		f.parked = true
		q.ahead = append(q.ahead, f)
	}
}

// Next returns the flow whose turn it is among those that have something and of
// which can says yes; nil when there is none. It changes nothing: what the flow
// is given must be told to [Queue.Charge].
func (q *Queue[T]) Next(can func(*Flow[T]) bool) *Flow[T] {
	var next *Flow[T]
	for _, f := range q.active {
		if (next == nil || f.before(next)) && (can == nil || can(f)) {
			next = f
		}
	}
	return next
}

// before tells whether f's turn comes before that of g.
func (f *Flow[T]) before(g *Flow[T]) bool {
	if f.urgent != g.urgent {
		return f.urgent
	}
	return f.tag < g.tag
}

// Charge says that a flow was given so many recipients.
func (q *Queue[T]) Charge(f *Flow[T], recipients int) {
	served := &q.served[class(f.urgent)]
	*served = max(*served, f.tag)
	f.tag += float64(recipients) / float64(f.weight)
	if len(q.ahead) > 0 {
		q.ahead = slices.DeleteFunc(q.ahead, func(f *Flow[T]) bool {
			f.parked = !f.active && !q.forget(f)
			return !f.parked
		})
	}
}

// All are the flows that have something.
func (q *Queue[T]) All() []*Flow[T] { return q.active }

// forget drops a flow that has nothing and would start where the others are.
func (q *Queue[T]) forget(f *Flow[T]) bool {
	if f.active || f.tag > q.served[class(f.urgent)] {
		return false
	}
	if q.flows[f.Campaign] == f {
		delete(q.flows, f.Campaign)
	}
	return true
}

func class(urgent bool) int {
	if urgent {
		return 1
	}
	return 0
}
