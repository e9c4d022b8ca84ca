// Package envelope turns a published batch into what SMTP wants.
//
// The way through it:
//
//  1. [Decode] reads a batch from its JSON, strictly: what is wrong comes back
//     as a [FieldError] that names the field. A batch of a later version is a
//     [VersionError].
//  2. A [Message] is fit for the wire once, however many envelopes carry it:
//     CRLF line ends, dots stuffed. [NewMessage] takes a text as it stands;
//     package letter puts right what is wrong with it, and merges.
//  3. [Batch.Plan] checks each address ([ParseAddress]), leaves out what is
//     settled already and the same mailbox said twice, and groups the rest by
//     domain in order of first appearance.
//  4. [Group.Cut] takes the recipients of one envelope off a group.
//
// The package knows nothing of relays or brokers and imports nothing of this
// module.
package envelope

import "strings"

// A Group is the recipients of one domain, in the order of the batch; or, cut
// for an envelope that may have several, of domains one after the other, and
// Domain is empty. Recipients that want SMTPUTF8 make a group of their own: at a
// relay without it they must not take their neighbours with them (RFC 6531 3.5).
type Group struct {
	Domain     string // lower-case A-labels, or an address literal with its brackets
	UTF8       bool   // the local parts are not ASCII
	Recipients []Recipient
}

// Len is the number of recipients left in the group.
func (g *Group) Len() int { return len(g.Recipients) }

// Cut takes at most n recipients off the front of the group. It copies
// nothing: the returned group shares memory with g.
func (g *Group) Cut(n int) Group {
	n = min(n, len(g.Recipients))
	cut := Group{Domain: g.Domain, UTF8: g.UTF8, Recipients: g.Recipients[:n:n]}
	g.Recipients = g.Recipients[n:]
	return cut
}

// Split makes groups of the recipients of an envelope again, one for each of its
// domains. It copies no recipient.
func (g *Group) Split() []Group {
	groups := make([]Group, 0, 1)
	for from := 0; from < g.Len(); {
		domain := domainOf(g.Recipients[from].Mailbox)
		to, ascii := from, true
		for ; to < g.Len() && domainOf(g.Recipients[to].Mailbox) == domain; to++ {
			ascii = ascii && isASCII(g.Recipients[to].Mailbox)
		}
		groups = append(groups, Group{Domain: domain, UTF8: !ascii, Recipients: g.Recipients[from:to:to]})
		from = to
	}
	return groups
}

// domainOf is the domain of a [Address.Mailbox]. A quoted local part may have
// an @ in it, a domain never.
func domainOf(mailbox string) string { return mailbox[strings.LastIndexByte(mailbox, '@')+1:] }
