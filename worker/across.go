package worker

import (
	"bulkmail/envelope"
	"bulkmail/relay"
)

// take takes the recipients of one envelope off the queue: those of one group
// at its head, unless the relay takes several domains together and there is
// room for more. The caller holds mu; the queue is not empty.
func (a *attempt) take(g relay.Grant) envelope.Group {
	head := &a.queue[0]
	if g.Domains == 1 || head.Len() >= g.Messages || head.tries > 0 {
		cut := head.Cut(g.Messages)
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
// not if one of them wants SMTPUTF8 and the other does not, nor what was cut
// short before, which may be what breaks connections.
func joins(w, head *waiting) bool { return w.UTF8 == head.UTF8 && w.tries == 0 }

// putBack returns recipients that were not attempted to the queue, each domain
// by itself. The caller holds mu.
func (a *attempt) putBack(left envelope.Group, tries int) {
	for _, g := range left.Split() {
		a.queue = append(a.queue, waiting{Group: g, tries: tries})
	}
}
