package campaign

import (
	"cmp"
	"hash/maphash"
	"slices"
	"strings"
)

const (
	// batchRoom is how many octets of recipients a batch has at most. Half of what
	// brokers take by default is left, and every broker gets the same batches.
	batchRoom = 512 << 10
	// windowRoom is how many octets of recipients are held at once at most.
	windowRoom = 16 << 20
)

// A batcher makes batches of a stream of recipients: of one domain as far as
// possible, so that envelopes fill. It holds window recipients at most, and
// makes the same batches of the same list every time.
type batcher[R any] struct {
	size    int // recipients a batch
	window  int // recipients held at once
	room    int // octets a batch, but for a recipient that has more
	address func(R) string
	octets  func(R) int // that a recipient has in its batch
	emit    func(recipients []R) error

	domains map[string]*bucket[R]
	order   []*bucket[R] // in order of first appearance
	held    int
	holds   int // octets
}

// A bucket is what is held of one domain; never empty.
type bucket[R any] struct {
	domain     string
	recipients []R
	octets     int
}

// newBatcher is a batcher of recipients who are addresses and nothing else.
func newBatcher(size int, emit func([]string) error) *batcher[string] {
	address := func(address string) string { return address }
	octets := func(address string) int { return len(address) + len(`"",`) }
	return newBatcherOf(size, address, octets, emit)
}

func newBatcherOf[R any](size int, address func(R) string, octets func(R) int, emit func([]R) error) *batcher[R] {
	return &batcher[R]{
		size: size, window: 64 * size, room: batchRoom, address: address, octets: octets, emit: emit,
		domains: make(map[string]*bucket[R]),
	}
}

// add takes one recipient.
func (b *batcher[R]) add(recipient R) error {
	address, octets := b.address(recipient), b.octets(recipient)
	domain := strings.ToLower(address[strings.LastIndexByte(address, '@')+1:])
	d := b.domains[domain]
	if d != nil && d.octets+octets > b.room {
		if err := b.flushBucket(d); err != nil {
			return err
		}
		d = nil
	}
	if d == nil {
		d = &bucket[R]{domain: domain}
		b.domains[domain] = d
		b.order = append(b.order, d)
	}
	d.recipients = append(d.recipients, recipient)
	d.octets += octets
	b.held++
	b.holds += octets
	if len(d.recipients) == b.size {
		return b.flushBucket(d)
	}
	if b.held == b.window || b.holds > windowRoom {
		return b.flushSmall()
	}
	return nil
}

// flushBucket forgets the domain as well: a list of a million domains must not
// be held as a million empty buckets.
func (b *batcher[R]) flushBucket(d *bucket[R]) error {
	b.held -= len(d.recipients)
	b.holds -= d.octets
	delete(b.domains, d.domain)
	i := slices.Index(b.order, d)
	b.order = slices.Delete(b.order, i, i+1)
	return b.emit(d.recipients)
}

// flushSmall makes room: the fullest domains go out alone, down to those that
// are worth waiting for; when all are small, everything goes.
func (b *batcher[R]) flushSmall() error {
	fullest := slices.MaxFunc(b.order, func(x, y *bucket[R]) int { return cmp.Compare(b.fill(x), b.fill(y)) })
	if b.fill(fullest) >= 0.25 {
		return b.flushBucket(fullest)
	}
	return b.flush()
}

// fill is how much of a batch a domain would be.
func (b *batcher[R]) fill(d *bucket[R]) float64 {
	return max(float64(len(d.recipients))/float64(b.size), float64(d.octets)/float64(b.room))
}

// flush sends out all that is held, several domains to a batch.
func (b *batcher[R]) flush() error {
	var batch []R
	octets := 0
	for _, d := range b.order {
		for _, r := range d.recipients {
			has := b.octets(r)
			if len(batch) == b.size || len(batch) > 0 && octets+has > b.room {
				if err := b.emit(batch); err != nil {
					return err
				}
				batch, octets = nil, 0
			}
			batch = append(batch, r)
			octets += has
		}
		d.recipients = nil
	}
	clear(b.domains)
	b.order, b.held, b.holds = nil, 0, 0
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
