package worker

import (
	"bulkmail/envelope"
	"bulkmail/envelope/returnpath"
	"bulkmail/relay"
)

// returnPaths makes the return paths of an attempt's envelopes, by which mail that
// comes back finds the batch and its recipient: a token of the batch's claim takes
// the place of the sender. One goroutine at a time uses it; nil: the sender stays.
type returnPaths struct {
	path   returnpath.Path
	minter *returnpath.Minter
	claim  uint64
	batch  string // of envelopes to many
}

// returnPaths are those of a batch that was claimed; from is its sender. Mail from
// the null sender is a report itself, and must not be answered.
func (m *mailing) returnPaths(from string, claim uint64) *returnPaths {
	if m == nil || from == "" || m.press.o.ReturnPath == (returnpath.Path{}) {
		return nil
	}
	keys, err := returnpath.NewKeys(m.common.Key.Derive(returnpath.Purpose))
	if err != nil {
		return nil // a derived key has 32 octets
	}
	p := &returnPaths{path: m.press.o.ReturnPath, minter: keys.Minter(), claim: claim}
	if !m.letters {
		p.batch = p.path.Address(p.minter.Mint(returnpath.Token{Sequence: claim, Batch: true}))
	}
	return p
}

// sender is what MAIL FROM says of one envelope.
func (a *attempt) sender(g relay.Grant, to []envelope.Recipient) string {
	p := a.returnPaths
	switch {
	case p == nil || !g.ReturnPath:
		return a.published.From
	case p.batch != "":
		return p.batch
	}
	return p.path.Address(p.minter.Mint(returnpath.Token{Sequence: p.claim, Mailbox: p.minter.Mailbox(to[0].Mailbox)}))
}
