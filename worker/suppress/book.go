package suppress

import (
	"iter"
	"maps"
	"slices"
	"time"

	"bulkmail/subjects"
)

// An Entry is a suppression as people read it.
type Entry struct {
	Name   string    `json:"email"` // as it was given; "@example.net" is a domain
	Scope  string    `json:"scope"`
	Why    string    `json:"reason"`
	Until  time.Time `json:"until,omitzero"`
	Since  time.Time `json:"since"`
	Source string    `json:"source,omitempty"`
	By     string    `json:"by,omitempty"`
}

// Ended tells whether the entry holds no more.
func (e *Entry) Ended(now time.Time) bool { return !e.Until.IsZero() && !now.Before(e.Until) }

// lasts tells whether nothing is to be added to e by another entry of the same name
// and scope.
func (e *Entry) lasts(until time.Time) bool {
	return e.Until.IsZero() || !until.IsZero() && !until.After(e.Until)
}

// A Book is the log as people read it: all of it, or what concerns a few names.
// All of it takes some 200 octets an entry.
type Book struct {
	only    map[string]bool    // by folded name; nil: all
	entries map[string][]Entry // by folded name
}

// NewBook makes an empty book, for some names alone if any are given.
func NewBook(only ...string) *Book {
	b := &Book{entries: make(map[string][]Entry)}
	if len(only) > 0 {
		b.only = make(map[string]bool, len(only))
		for _, name := range only {
			b.only[folded(name)] = true
		}
	}
	return b
}

func folded(name string) string { return string(fold(nil, name)) }

// Apply writes a change into the book.
func (b *Book) Apply(c *subjects.SuppressionChange) {
	for _, name := range c.Names {
		k := folded(name)
		if b.only != nil && !b.only[k] {
			continue
		}
		entries := b.entries[k]
		i := slices.IndexFunc(entries, func(e Entry) bool { return e.Scope == c.Scope })
		switch {
		case c.Op == subjects.Release && c.Scope == "":
			entries = nil
		case c.Op == subjects.Release && i >= 0:
			entries = slices.Delete(entries, i, i+1)
		case c.Op == subjects.Release, i >= 0 && entries[i].lasts(c.Until):
			continue
		default:
			if i < 0 {
				i = len(entries)
				entries = append(entries, Entry{})
			}
			entries[i] = Entry{Name: name, Scope: c.Scope, Why: c.Why, Until: c.Until, Since: c.Time, Source: c.Source, By: c.By}
		}
		if len(entries) == 0 {
			delete(b.entries, k)
			continue
		}
		b.entries[k] = entries
	}
}

// Of is what there is about one name, in the order in which it came.
func (b *Book) Of(name string) []Entry { return b.entries[folded(name)] }

// All yields every entry that has not ended, by name.
func (b *Book) All(now time.Time) iter.Seq[Entry] {
	return func(yield func(Entry) bool) {
		for _, name := range slices.Sorted(maps.Keys(b.entries)) {
			for _, e := range b.entries[name] {
				if !e.Ended(now) && !yield(e) {
					return
				}
			}
		}
	}
}
