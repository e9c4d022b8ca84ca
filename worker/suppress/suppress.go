// Package suppress holds, in little memory, who must not be sent to: millions of
// mailboxes and domains, as keyed hashes, that are looked up for every recipient.
//
//	set := suppress.New(key)
//	set.Add(suppress.Mailbox, "ann@example.net", suppress.Bulk, suppress.Forever)
//	list, err := set.Scope("news")                         // once a campaign
//	if set.Has("Ann@example.net", now, suppress.All, suppress.Bulk, list) { … }
//
// An entry is 10 octets: what the bucket leaves of its 64-bit hash, its scope, and
// until when. With 5 million of them a set takes about 56 MB; an empty one takes
// nothing and is not looked at. Two addresses in 2^64 pairs share a hash: of 5
// million entries, one in 10^12 others is suppressed by mistake.
//
// Lookups take no lock and allocate nothing. A bucket is replaced when it changes,
// so that a lookup sees it as it was before or after.
package suppress

import (
	"encoding/binary"
	"errors"
	"math"
	"strings"
	"sync"
	"sync/atomic"
	"time"
	"unicode"
	"unicode/utf8"
)

// Subject is what an entry names.
type Subject uint8

// The subjects.
const (
	Mailbox Subject = iota // "ann@example.net"
	Domain                 // "example.net": all its mailboxes
)

// Scope is which messages an entry keeps back.
type Scope uint16

// The scopes; those of lists follow.
const (
	All  Scope = iota // everything
	Bulk              // everything but transactional messages
	firstList
	maxScope Scope = 1<<12 - 1
)

// ErrTooManyLists is what Scope returns beyond some 4,000 lists.
var ErrTooManyLists = errors.New("suppressions of more than 4,093 lists cannot be held: use the scope bulk or all")

// Forever is the end of an entry that has none.
var Forever time.Time

const (
	buckets   = 1 << 16
	entrySize = 10 // 6 octets of the hash, 12 bits of scope, 20 bits of hours

	maxHours = 1<<20 - 1
)

// epoch is where hours are counted from; 2^20 of them are 119 years.
const epoch = 1577836800 // 2020-01-01

// table holds entries by the first 16 bits of their hash, in the order of the others.
type table [buckets]atomic.Pointer[[]byte]

// Set is a set of suppressions. Lookups may go on while it changes.
type Set struct {
	key   [2]uint64
	table atomic.Pointer[table] // nil while nothing was ever added
	count atomic.Int64

	mu    sync.Mutex // guards changes, and what follows
	lists map[string]Scope
}

// New returns an empty set. The key is secret: without it, nobody who reads the
// hashes can try addresses.
func New(key [16]byte) *Set {
	return &Set{key: [2]uint64{binary.LittleEndian.Uint64(key[:8]), binary.LittleEndian.Uint64(key[8:])}}
}

// Len returns how many entries there are, those that have ended among them.
func (s *Set) Len() int { return int(s.count.Load()) }

// Scope returns the scope of a list, a new one for a new list.
func (s *Set) Scope(list string) (Scope, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if scope, ok := s.lists[list]; ok {
		return scope, nil
	}
	scope := firstList + Scope(len(s.lists))
	if scope > maxScope {
		return 0, ErrTooManyLists
	}
	if s.lists == nil {
		s.lists = make(map[string]Scope)
	}
	s.lists[list] = scope
	return scope, nil
}

// Hash returns the hash of a mailbox or domain, by which it can be kept elsewhere.
// Case does not count, in local parts neither: erring means not sending.
func (s *Set) Hash(subject Subject, name string) uint64 {
	var room [1 + 320]byte // RFC 5321: a local part of 64, a domain of 255
	b := room[:0]
	if subject == Domain {
		b = append(b, '@')
	}
	return sipHash(s.key[0], s.key[1], fold(b, name))
}

// Add adds an entry that ends at until, rounded up to the hour; Forever: never. Of
// two entries with the same name and scope, the one that ends last stays.
func (s *Set) Add(subject Subject, name string, scope Scope, until time.Time) {
	s.AddHash(s.Hash(subject, name), scope, until)
}

// AddHash is Add of what only the hash is known of.
func (s *Set) AddHash(hash uint64, scope Scope, until time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	t := s.table.Load()
	if t == nil {
		t = new(table)
		s.table.Store(t)
	}
	bucket := &t[hash>>48]
	old := entries(bucket)
	at, found := search(old, hash, scope)
	hours := hoursOf(until)
	if found {
		if _, had := meta(old[at:]); had == 0 || hours != 0 && had >= hours {
			return
		}
	}
	size := len(old)
	if !found {
		size += entrySize
	}
	entry := make([]byte, size)
	copy(entry, old[:at])
	put(entry[at:], hash, scope, hours)
	if found {
		copy(entry[at+entrySize:], old[at+entrySize:])
	} else {
		copy(entry[at+entrySize:], old[at:])
		s.count.Add(1)
	}
	bucket.Store(&entry)
}

// Remove takes an entry away, and reports whether there was one.
func (s *Set) Remove(subject Subject, name string, scope Scope) bool {
	return s.RemoveHash(s.Hash(subject, name), scope)
}

// RemoveHash is Remove of what only the hash is known of.
func (s *Set) RemoveHash(hash uint64, scope Scope) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	t := s.table.Load()
	if t == nil {
		return false
	}
	bucket := &t[hash>>48]
	old := entries(bucket)
	at, found := search(old, hash, scope)
	if !found {
		return false
	}
	entry := make([]byte, len(old)-entrySize)
	copy(entry, old[:at])
	copy(entry[at:], old[at+entrySize:])
	bucket.Store(&entry)
	s.count.Add(-1)
	return true
}

// Has reports whether a mailbox, or its domain, is suppressed now in one of the
// scopes. Who asks for many mailboxes of a domain asks for the domain once instead,
// with HasDomain, and for each with HasMailbox.
func (s *Set) Has(mailbox string, now time.Time, scopes ...Scope) bool {
	at := strings.LastIndexByte(mailbox, '@')
	return s.HasMailbox(mailbox, now, scopes...) || at >= 0 && s.HasDomain(mailbox[at+1:], now, scopes...)
}

// HasMailbox is Has without the domain.
func (s *Set) HasMailbox(mailbox string, now time.Time, scopes ...Scope) bool {
	t := s.table.Load()
	return t != nil && t.has(s.Hash(Mailbox, mailbox), now, scopes)
}

// HasDomain reports whether a whole domain is suppressed.
func (s *Set) HasDomain(domain string, now time.Time, scopes ...Scope) bool {
	t := s.table.Load()
	return t != nil && t.has(s.Hash(Domain, domain), now, scopes)
}

func (t *table) has(hash uint64, now time.Time, scopes []Scope) bool {
	hours := uint32(min(max(0, (now.Unix()-epoch)/3600), maxHours))
	b := entries(&t[hash>>48])
	at, _ := search(b, hash, 0)
	for ; at < len(b) && rest(b[at:]) == hash&restMask; at += entrySize {
		scope, until := meta(b[at:])
		for _, s := range scopes {
			if scope == s && (until == 0 || hours < until) {
				return true
			}
		}
	}
	return false
}

// hoursOf returns the hour that an entry ends with, 0 for never.
func hoursOf(until time.Time) uint32 {
	if until.IsZero() {
		return 0
	}
	hours := math.Ceil(float64(until.Unix()-epoch) / 3600)
	if hours > maxHours {
		return 0
	}
	return uint32(max(1, hours))
}

const restMask = 1<<48 - 1

func entries(bucket *atomic.Pointer[[]byte]) []byte {
	if p := bucket.Load(); p != nil {
		return *p
	}
	return nil
}

// search returns where the entry is or belongs, by hash and scope.
func search(b []byte, hash uint64, scope Scope) (at int, found bool) {
	hash &= restMask
	low, high := 0, len(b)/entrySize
	for low < high {
		middle := (low + high) / 2
		e := b[middle*entrySize:]
		h := rest(e)
		if h == hash {
			m, _ := meta(e)
			if m == scope {
				return middle * entrySize, true
			}
			if m < scope {
				low = middle + 1
				continue
			}
		}
		if h < hash {
			low = middle + 1
		} else {
			high = middle
		}
	}
	return low * entrySize, false
}

func rest(e []byte) uint64 { return binary.BigEndian.Uint64(e[:8]) >> 16 }

func meta(e []byte) (Scope, uint32) {
	m := binary.BigEndian.Uint32(e[6:10])
	return Scope(m >> 20), m & maxHours
}

func put(e []byte, hash uint64, scope Scope, hours uint32) {
	binary.BigEndian.PutUint64(e[:8], hash<<16)
	binary.BigEndian.PutUint32(e[6:10], uint32(scope)<<20|hours)
}

// fold appends a name without regard to case.
func fold(b []byte, name string) []byte {
	for i := 0; i < len(name); i++ {
		c := name[i]
		if c >= utf8.RuneSelf {
			for _, r := range name[i:] {
				b = utf8.AppendRune(b, unicode.ToLower(unicode.ToUpper(r)))
			}
			return b
		}
		if c >= 'A' && c <= 'Z' {
			c += 'a' - 'A'
		}
		b = append(b, c)
	}
	return b
}
