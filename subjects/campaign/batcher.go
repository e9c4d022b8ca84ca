package campaign

import (
	"hash/maphash"
	"slices"
	"strings"
)

// A batcher makes batches of a stream of recipients: of one domain as far as
// possible, so that envelopes fill. It holds window recipients at most, and
// makes the same batches of the same list every time.
type batcher[R any] struct {
	size    int // recipients a batch
	window  int // recipients held at once
	address func(R) string
	emit    func(recipients []R) error

	domains map[string]*bucket[R]
	order   []*bucket[R] // in order of first appearance
	held    int
}

// A bucket is what is held of one domain; never empty.
type bucket[R any] struct {
	domain     string
	recipients []R
}

// newBatcher is a batcher of recipients who are addresses and nothing else.
func newBatcher(size int, emit func([]string) error) *batcher[string] {
	return newBatcherOf(size, func(address string) string { return address }, emit)
}

func newBatcherOf[R any](size int, address func(R) string, emit func([]R) error) *batcher[R] {
	return &batcher[R]{size: size, window: 64 * size, address: address, emit: emit, domains: make(map[string]*bucket[R])}
}

// add takes one recipient.
func (b *batcher[R]) add(recipient R) error {
	address := b.address(recipient)
	domain := strings.ToLower(address[strings.LastIndexByte(address, '@')+1:])
	d := b.domains[domain]
	if d == nil {
		d = &bucket[R]{domain: domain}
		b.domains[domain] = d
		b.order = append(b.order, d)
	}
	d.recipients = append(d.recipients, recipient)
	b.held++
	if len(d.recipients) == b.size {
		return b.flushBucket(d)
	}
	if b.held == b.window {
		return b.flushSmall()
	}
	return nil
}

// flushBucket forgets the domain as well: a list of a million domains must not
// be held as a million empty buckets.
func (b *batcher[R]) flushBucket(d *bucket[R]) error {
	b.held -= len(d.recipients)
	delete(b.domains, d.domain)
	i := slices.Index(b.order, d)
	b.order = slices.Delete(b.order, i, i+1)
	return b.emit(d.recipients)
}

// flushSmall makes room: the fullest domains go out alone, down to those that
// are worth waiting for; when all are small, everything goes.
func (b *batcher[R]) flushSmall() error {
	fullest := slices.MaxFunc(b.order, func(x, y *bucket[R]) int { return len(x.recipients) - len(y.recipients) })
	if len(fullest.recipients) >= b.size/4 {
		return b.flushBucket(fullest)
	}
	return b.flush()
}

// flush sends out all that is held, several domains to a batch.
func (b *batcher[R]) flush() error {
	var batch []R
	for _, d := range b.order {
		for len(d.recipients) > 0 {
			n := min(b.size-len(batch), len(d.recipients))
			batch = append(batch, d.recipients[:n]...)
			d.recipients = d.recipients[n:]
			if len(batch) == b.size {
				if err := b.emit(batch); err != nil {
					return err
				}
				batch = nil
			}
		}
	}
	clear(b.domains)
	b.order, b.held = nil, 0
	if len(batch) == 0 {
		return nil
	}
	return b.emit(batch)
}

// A mailboxSet remembers mailboxes by 128-bit hashes, so that a list of a
// million costs some 50 MB and not the list itself.
type mailboxSet struct {
	seeds [2]maphash.Seed
	seen  map[[2]uint64]struct{}
}

func newMailboxSet() *mailboxSet {
	return &mailboxSet{
		seeds: [2]maphash.Seed{maphash.MakeSeed(), maphash.MakeSeed()},
		seen:  make(map[[2]uint64]struct{}),
	}
}

// add tells whether the mailbox of a recipient is new. Addresses that cannot
// be sent to stand for themselves.
func (s *mailboxSet) add(recipient string) bool {
	recipient = Recipient{Address: recipient}.Mailbox()
	key := [2]uint64{maphash.String(s.seeds[0], recipient), maphash.String(s.seeds[1], recipient)}
	if _, ok := s.seen[key]; ok {
		return false
	}
	s.seen[key] = struct{}{}
	return true
}
