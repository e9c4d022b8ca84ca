package campaign

import (
	"cmp"
	"maps"
	"slices"
	"time"

	"bulkmail/envelope"
)

// An Estimate is what a publication would be, by its list and message alone.
type Estimate struct {
	Recipients int           `json:"recipients"` // different mailboxes that can be sent to
	Unusable   []Unusable    `json:"unusable"`   // the first 10,000
	Doubles    int           `json:"doubles"`    // in the list before
	Domains    []DomainCount `json:"domains"`    // the 20 largest, the largest first
	Envelopes  int           `json:"envelopes"`
	Bytes      int64         `json:"bytes"` // on the wire: messages and the commands around them
}

// A DomainCount is how many recipients have a domain.
type DomainCount struct {
	Domain     string `json:"domain"`
	Recipients int    `json:"recipients"`
}

// keptDomains is how many domains an Estimate names.
const keptDomains = 20

// Estimate reads the list of a publication, and asks nobody. Envelopes hold so many
// recipients at most, of one domain; 0 is no limit. Memory follows the recipients,
// some 50 bytes each, and the domains.
func (p Publication) Estimate(envelopeLimit int) (Estimate, error) {
	e := estimating{Estimate: Estimate{Unusable: []Unusable{}, Domains: []DomainCount{}}, limit: envelopeLimit, domains: make(map[string]int)}
	if err := p.check(); err != nil {
		return e.Estimate, err
	}
	text, err := p.finished(time.Now())
	if err != nil {
		return e.Estimate, err
	}
	// MAIL, DATA, the message and the lone dot.
	e.each = int64(len("MAIL FROM:<>\r\nDATA\r\n.\r\n")+len(p.From)) + int64(len(envelope.NewMessage(text).Wire()))
	known := newMailboxSet()
	b := newBatcher(cmp.Or(p.BatchSize, DefaultBatchSize), e.batch)
	for r, err := range p.List {
		if err != nil {
			return e.Estimate, err
		}
		if u, ok := unusable(r); ok {
			if len(e.Unusable) < keptUnusable {
				e.Unusable = append(e.Unusable, u)
			}
			continue
		}
		if !known.add(r.Address) {
			e.Doubles++
			continue
		}
		if err := b.add(r.Address); err != nil {
			return e.Estimate, err
		}
	}
	if err := b.flush(); err != nil {
		return e.Estimate, err
	}
	if e.Recipients == 0 && len(e.Unusable) == 0 {
		return e.Estimate, ErrEmptyList
	}
	e.name()
	return e.Estimate, nil
}

// estimating is one run of Estimate.
type estimating struct {
	Estimate
	limit   int
	each    int64 // bytes an envelope, without its recipients
	domains map[string]int
}

// batch takes in a batch as it would be published.
func (e *estimating) batch(recipients []string) error {
	of := make(map[string]int)
	for _, r := range recipients {
		a, err := envelope.ParseAddress(r)
		if err != nil {
			continue // ends as rejected
		}
		of[a.Domain]++
		e.Recipients++
		e.Bytes += int64(len("RCPT TO:<>\r\n") + len(a.Mailbox))
	}
	for domain, n := range of {
		e.domains[domain] += n
		envelopes := 1
		if e.limit > 0 {
			envelopes = (n + e.limit - 1) / e.limit
		}
		e.Envelopes += envelopes
		e.Bytes += int64(envelopes) * e.each
	}
	return nil
}

// name keeps the largest domains.
func (e *estimating) name() {
	names := slices.SortedFunc(maps.Keys(e.domains), func(a, b string) int {
		return cmp.Or(cmp.Compare(e.domains[b], e.domains[a]), cmp.Compare(a, b))
	})
	for _, domain := range names[:min(len(names), keptDomains)] {
		e.Domains = append(e.Domains, DomainCount{domain, e.domains[domain]})
	}
}
