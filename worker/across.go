package worker

import (
	"slices"

	"bulkmail/envelope"
	"bulkmail/relay"
	"bulkmail/relay/smtp"
)

// next brings the first group that the grant is for to the head of the queue. It
// tells whether there is one. The caller holds mu.
func (a *attempt) next(g relay.Grant) bool {
	for i := range a.queue {
		if g.For(a.queue[i].trail) > 0 {
			w := a.queue[i]
			copy(a.queue[1:i+1], a.queue[:i])
			a.queue[0] = w
			return true
		}
	}
	return false
}

// take takes the recipients of one envelope off the queue: those of one group
// at its head, unless the relay takes several domains together and there is
// room for more. The caller holds mu; the queue is not empty.
func (a *attempt) take(g relay.Grant) envelope.Group {
	head := &a.queue[0]
	if g.Domains == 1 || head.Len() >= g.Messages || head.trail != nil {
		cut := head.Cut(g.For(head.trail))
		if head.Len() == 0 {
			a.queue = a.queue[1:]
		}
		return cut
	}
	groups, n := 0, 0
	for groups < len(a.queue) && n < g.Messages && (g.Domains <= 0 || groups < g.Domains) && joins(&a.queue[groups], head) {
		n += a.queue[groups].Len()
		groups++
	}
	if groups == 1 {
		cut := head.Group
		a.queue = a.queue[1:]
		return cut
	}
	n = min(n, g.Messages)
	across := envelope.Group{UTF8: head.UTF8, Recipients: make([]envelope.Recipient, 0, n)}
	for across.Len() < n {
		head := &a.queue[0]
		cut := head.Cut(n - across.Len())
		across.Recipients = append(across.Recipients, cut.Recipients...)
		if head.Len() == 0 {
			a.queue = a.queue[1:]
		}
	}
	return across
}

// joins tells whether recipients of w may share an envelope with those of head:
// not if one of them wants SMTPUTF8 and the other does not, nor what a relay
// refused or stumbled over, which may be what ails it.
func joins(w, head *waiting) bool { return w.UTF8 == head.UTF8 && w.trail == nil }

// leave adds recipients that were not attempted to those with the same trail.
func leave(left []waiting, recipients []envelope.Recipient, trail *relay.Trail) []waiting {
	for i := range left {
		if left[i].trail == trail {
			left[i].Recipients = append(left[i].Recipients, recipients...)
			return left
		}
	}
	return append(left, waiting{envelope.Group{Recipients: recipients}, trail})
}

// putBack returns recipients that were not attempted to the queue, each domain
// by itself; those that a relay refused or stumbled over to its head, so that it
// is found out what ails them while others pass. The caller holds mu.
func (a *attempt) putBack(left envelope.Group, trail *relay.Trail) {
	a.left += left.Len()
	for _, g := range left.Split() {
		if trail != nil {
			a.queue = slices.Insert(a.queue, 0, waiting{g, trail})
		} else {
			a.queue = append(a.queue, waiting{Group: g})
		}
	}
}

// deferStumbled gives those over whom a relay stumbled alone the verdict that
// they are deferred. Nobody has shown that it is not their fault, and what goes
// back to the queue is met anew: without a verdict they would wait for ever.
func (a *attempt) deferStumbled() {
	a.mu.Lock()
	var stumbled []waiting
	a.queue = slices.DeleteFunc(a.queue, func(w waiting) bool {
		_, reply := w.trail.StumbledAlone()
		if reply != nil {
			stumbled = append(stumbled, w)
		}
		return reply != nil
	})
	a.flying++ // until they are recorded, the attempt is not over
	a.mu.Unlock()
	for _, w := range stumbled {
		name, reply := w.trail.StumbledAlone()
		a.record(a.outcome(smtp.Result{Status: smtp.Deferred, Reply: reply}, name, false), w.Recipients)
	}
	a.mu.Lock()
	a.flying--
	a.mu.Unlock()
}
