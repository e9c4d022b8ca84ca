// Package suppress keeps who must not be sent to.
//
// What is true stands in a log on the broker (log.go): changes, each of which
// suppresses some mailboxes and domains in a scope, or no longer does. A [Book] is
// the log as people want to read it. Workers hold a [Set], which is small, and a
// [Follower] keeps it in line with the log:
//
//	set := suppress.NewSet()
//	set.Add("ann@example.net", suppress.Mark{Scope: suppress.Bulk, Why: "complained"})
//	set.Add("@dead.example", suppress.Mark{Scope: suppress.All, Why: "gone"})
//	list := set.Scope("news")                              // once a batch
//	why, ok := set.Has("Ann@example.net", now, suppress.All, suppress.Bulk, list)
//
// An entry is 10 octets: what the bucket leaves of its 64-bit hash, a number that
// stands for scope and reason, and until when. With 5 million of them a set takes
// about 56 MB; an empty one takes nothing and is not looked at. Two addresses in
// 2^64 pairs share a hash: of 5 million entries, one in 10^12 others is suppressed
// by mistake. The hash is keyed, and each set has a key of its own.
//
// Lookups take no lock and allocate nothing. A bucket is replaced when it changes,
// so that a lookup sees it as it was before or after.
package suppress

import (
	"crypto/rand"
	"encoding/binary"
	"math"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"
	"unicode"
	"unicode/utf8"
)

// Scope is which messages an entry keeps back, as a set knows it.
type Scope uint16

// The scopes; those of lists follow.
const (
	All  Scope = iota // everything
	Bulk              // everything but transactional messages
	firstList
	unknownList Scope = 1<<16 - 1 // of a list that nothing is about
)

// Forever is the end of an entry that has none.
var Forever time.Time

// Mark is what an entry says of a name.
type Mark struct {
	Scope Scope
	Until time.Time // rounded up to the hour; Forever: for good
	Why   string
}

const (
	buckets   = 1 << 16
	entrySize = 10 // 6 octets of the hash, 14 bits of a label, 18 bits of hours

	hourBits  = 18
	maxHours  = 1<<hourBits - 1
	maxLabels = 1 << (32 - hourBits)
)

// epoch is where hours are counted from; 2^18 of them are 29 years. What ends
// later ends never.
const epoch = 1577836800 // 2020-01-01

// anyReason stands where there are more different reasons than a set can hold.
const anyReason = "on the suppression list"

// table holds entries by the first 16 bits of their hash, in the order of the others.
type table [buckets]atomic.Pointer[[]byte]

// A label is what many entries have in common.
type label struct {
	scope Scope
	why   string
}

// leftOver is that of entries for which there is no other: erring means not
// sending.
var leftOver = label{Bulk, anyReason}

// Set is a set of suppressions. Lookups may go on while it changes.
type Set struct {
	key     [2]uint64
	table   atomic.Pointer[table] // nil while nothing was ever added
	labels  atomic.Pointer[[]label]
	count   atomic.Int64
	version atomic.Uint64

	mu      sync.Mutex // guards changes, and what follows
	numbers map[label]uint32
	lists   map[string]Scope
}

// NewSet returns an empty set with a key of its own: without it, nobody who reads
// the hashes can try addresses.
func NewSet() *Set {
	var key [16]byte
	_, _ = rand.Read(key[:]) // never fails
	return newSet(key)
}

func newSet(key [16]byte) *Set {
	return &Set{key: [2]uint64{binary.LittleEndian.Uint64(key[:8]), binary.LittleEndian.Uint64(key[8:])}}
}

// Len returns how many entries there are, those that have ended among them.
func (s *Set) Len() int { return int(s.count.Load()) }

// Version is another number after each change.
func (s *Set) Version() uint64 { return s.version.Load() }

// Scope returns the scope of a list.
func (s *Set) Scope(list string) Scope {
	s.mu.Lock()
	defer s.mu.Unlock()
	if scope, ok := s.lists[list]; ok {
		return scope
	}
	return unknownList
}

// listScope is Scope for who will add to it. Beyond some 65,000 lists all share
// that of bulk mail: erring means not sending.
func (s *Set) listScope(list string) Scope {
	s.mu.Lock()
	defer s.mu.Unlock()
	scope, ok := s.lists[list]
	if !ok {
		if len(s.lists) >= int(unknownList-firstList) {
			return Bulk
		}
		scope = firstList + Scope(len(s.lists))
		if s.lists == nil {
			s.lists = make(map[string]Scope)
		}
		s.lists[list] = scope
	}
	return scope
}

// Add adds an entry for a mailbox, or for a domain, "@example.net". Case does not
// count, in local parts neither: erring means not sending. Of two entries with the
// same name and scope, the one that ends last stays.
func (s *Set) Add(name string, m Mark) { s.addHash(s.hash(name), m) }

func (s *Set) hash(name string) uint64 {
	var room [1 + 320]byte // RFC 5321: a local part of 64, a domain of 255
	return sipHash(s.key[0], s.key[1], fold(room[:0], name))
}

func (s *Set) addHash(hash uint64, m Mark) {
	s.mu.Lock()
	defer s.mu.Unlock()
	t := s.table.Load()
	if t == nil {
		t = new(table)
		s.table.Store(t)
	}
	bucket := &t[hash>>48]
	old := entries(bucket)
	at, found := s.search(old, hash, m.Scope)
	hours := hoursOf(m.Until)
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
	put(entry[at:], hash, s.number(m), hours)
	if found {
		copy(entry[at+entrySize:], old[at+entrySize:])
	} else {
		copy(entry[at+entrySize:], old[at:])
		s.count.Add(1)
	}
	bucket.Store(&entry)
	s.version.Add(1)
}

// number is that of a label, a new one for a new label. The caller holds mu.
func (s *Set) number(m Mark) uint32 {
	l := label{m.Scope, m.Why}
	if n, ok := s.numbers[l]; ok {
		return n
	}
	if s.numbers == nil {
		s.numbers = map[label]uint32{leftOver: 0}
		s.labels.Store(&[]label{leftOver})
	}
	all := *s.labels.Load()
	switch {
	case len(all) == maxLabels:
		return 0
	case len(all) >= maxLabels/2 && m.Why != anyReason:
		return s.number(Mark{Scope: m.Scope, Why: anyReason})
	}
	// Lookups may share the array: they see no more of it than there was.
	all = append(all, l)
	n := uint32(len(all) - 1)
	s.numbers[l] = n
	s.labels.Store(&all)
	return n
}

// Remove takes an entry away, and reports whether there was one.
func (s *Set) Remove(name string, scope Scope) bool {
	return s.removeHash(s.hash(name), func(has Scope) bool { return has == scope })
}

// RemoveAll takes the entries of a name in all scopes away.
func (s *Set) RemoveAll(name string) bool {
	return s.removeHash(s.hash(name), func(Scope) bool { return true })
}

func (s *Set) removeHash(hash uint64, which func(Scope) bool) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	t := s.table.Load()
	if t == nil {
		return false
	}
	bucket := &t[hash>>48]
	old := entries(bucket)
	labels := *s.labels.Load()
	kept := make([]byte, 0, len(old))
	for at := 0; at < len(old); at += entrySize {
		e := old[at : at+entrySize]
		if n, _ := meta(e); rest(e) != hash&restMask || !which(labels[n].scope) {
			kept = append(kept, e...)
		}
	}
	if len(kept) == len(old) {
		return false
	}
	bucket.Store(&kept)
	s.count.Add(int64(len(kept)-len(old)) / entrySize)
	s.version.Add(1)
	return true
}

// Has reports whether a mailbox, or its domain, is suppressed now in one of the
// scopes, and why. Who asks for many mailboxes of a domain asks for the domain once
// instead, with HasDomain, and for each with HasMailbox.
func (s *Set) Has(mailbox string, now time.Time, scopes ...Scope) (why string, ok bool) {
	if why, ok = s.HasMailbox(mailbox, now, scopes...); ok {
		return why, ok
	}
	if at := strings.LastIndexByte(mailbox, '@'); at >= 0 {
		return s.HasDomain(mailbox[at:], now, scopes...)
	}
	return "", false
}

// HasMailbox is Has without the domain.
func (s *Set) HasMailbox(mailbox string, now time.Time, scopes ...Scope) (why string, ok bool) {
	t := s.table.Load()
	if t == nil {
		return "", false
	}
	return s.find(t, s.hash(mailbox), now, scopes)
}

// HasDomain reports whether a whole domain, "@example.net", is suppressed.
func (s *Set) HasDomain(domain string, now time.Time, scopes ...Scope) (why string, ok bool) {
	return s.HasMailbox(domain, now, scopes...)
}

func (s *Set) find(t *table, hash uint64, now time.Time, scopes []Scope) (why string, ok bool) {
	hours := uint32(min(max(0, (now.Unix()-epoch)/3600), maxHours))
	b := entries(&t[hash>>48])
	at := first(b, hash)
	for ; at < len(b) && rest(b[at:]) == hash&restMask; at += entrySize {
		n, until := meta(b[at:])
		if until != 0 && hours >= until {
			continue
		}
		l := &(*s.labels.Load())[n]
		if slices.Contains(scopes, l.scope) {
			return l.why, true
		}
	}
	return "", false
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

// first returns where the first entry with a hash is or belongs.
func first(b []byte, hash uint64) int {
	hash &= restMask
	low, high := 0, len(b)/entrySize
	for low < high {
		middle := (low + high) / 2
		if rest(b[middle*entrySize:]) < hash {
			low = middle + 1
		} else {
			high = middle
		}
	}
	return low * entrySize
}

// search returns where the entry with a hash and scope is or belongs. The caller
// holds mu.
func (s *Set) search(b []byte, hash uint64, scope Scope) (at int, found bool) {
	for at = first(b, hash); at < len(b) && rest(b[at:]) == hash&restMask; at += entrySize {
		if n, _ := meta(b[at:]); (*s.labels.Load())[n].scope == scope {
			return at, true
		}
	}
	return at, false
}

func rest(e []byte) uint64 { return binary.BigEndian.Uint64(e[:8]) >> 16 }

func meta(e []byte) (labelNumber, hours uint32) {
	m := binary.BigEndian.Uint32(e[6:10])
	return m >> hourBits, m & maxHours
}

func put(e []byte, hash uint64, labelNumber, hours uint32) {
	binary.BigEndian.PutUint64(e[:8], hash<<16)
	binary.BigEndian.PutUint32(e[6:10], labelNumber<<hourBits|hours)
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
