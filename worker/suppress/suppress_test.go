package suppress

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"pgregory.net/rapid"
)

var (
	key = [16]byte{0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15}
	now = time.Date(2026, 11, 24, 12, 30, 0, 0, time.UTC)
)

// The vector of SipHash's authors: key 00 to 0f, message 00 to 0e.
func TestTheHashIsSipHash24(t *testing.T) {
	t.Parallel()
	k := New(key).key
	if got := sipHash(k[0], k[1], key[:15]); got != 0xa129ca6149be45e5 {
		t.Errorf("got %x", got)
	}
}

func TestAnEntryHoldsInItsScopeAndUntilItEnds(t *testing.T) {
	t.Parallel()
	s := New(key)
	if s.Has("ann@example.net", now, All, Bulk) {
		t.Error("an empty set has somebody")
	}
	list, err := s.Scope("news")
	if err != nil {
		t.Fatal(err)
	}
	s.Add(Mailbox, "Ann@Example.net", Bulk, Forever)
	s.Add(Mailbox, "bob@example.net", list, Forever)
	s.Add(Mailbox, "jörg@example.net", All, now.Add(time.Hour))
	s.Add(Domain, "Dead.example", All, Forever)
	for _, test := range []struct {
		mailbox string
		at      time.Time
		scopes  []Scope
		want    bool
	}{
		{"ann@example.net", now, []Scope{All, Bulk}, true},
		{"ANN@EXAMPLE.NET", now, []Scope{All, Bulk}, true},
		{"ann@example.net", now, []Scope{All}, false}, // a transactional message
		{"ann@example.net", now, nil, false},
		{"anne@example.net", now, []Scope{All, Bulk}, false},
		{"bob@example.net", now, []Scope{All, Bulk}, false},
		{"bob@example.net", now, []Scope{All, Bulk, list}, true},
		{"JÖRG@example.net", now, []Scope{All}, true},
		{"jörg@example.net", now.Add(59 * time.Minute), []Scope{All}, true},
		{"jörg@example.net", now.Add(2 * time.Hour), []Scope{All}, false},
		{"whoever@DEAD.example", now, []Scope{All}, true},
		{"whoever@not.dead.example", now, []Scope{All}, false},
		{"dead.example", now, []Scope{All}, false},
		{"", now, []Scope{All}, false},
	} {
		if got := s.Has(test.mailbox, test.at, test.scopes...); got != test.want {
			t.Errorf("%s at %v in %v: %t", test.mailbox, test.at, test.scopes, got)
		}
	}
	if again, err := s.Scope("news"); again != list || err != nil {
		t.Errorf("the list's scope is %d, then %d, %v", list, again, err)
	}
	if !s.Remove(Mailbox, "ann@example.NET", Bulk) || s.Remove(Mailbox, "ann@example.net", Bulk) || s.Has("ann@example.net", now, Bulk) || s.Len() != 3 {
		t.Errorf("removed, the set has %d", s.Len())
	}
}

func TestMoreListsThanCanBeHeldAreAnError(t *testing.T) {
	t.Parallel()
	s := New(key)
	for i := range int(maxScope-firstList) + 1 {
		if _, err := s.Scope(fmt.Sprint(i)); err != nil {
			t.Fatal(i, err)
		}
	}
	if _, err := s.Scope("one more"); !errors.Is(err, ErrTooManyLists) {
		t.Errorf("got %v", err)
	}
}

// model is the set as a map.
type model map[string]time.Time

func TestASetIsLikeAMap(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		s, m := New(key), make(model)
		// Few hashes, of few buckets, and many scopes: neighbours are what goes wrong.
		hash := rapid.Custom(func(t *rapid.T) uint64 {
			return rapid.SampledFrom([]uint64{0, 1, 1<<48 - 1, 1 << 48, 1<<48 | 7, 1<<64 - 1}).Draw(t, "hash")
		})
		scope := rapid.SampledFrom([]Scope{All, Bulk, 2, 3, maxScope})
		name := func(h uint64, s Scope) string { return fmt.Sprint(h, " ", s) }
		t.Repeat(map[string]func(*rapid.T){
			"add": func(t *rapid.T) {
				h, sc := hash.Draw(t, "h"), scope.Draw(t, "scope")
				until := rapid.SampledFrom([]time.Time{Forever, now, now.Add(24 * time.Hour)}).Draw(t, "until")
				s.AddHash(h, sc, until)
				if had, ok := m[name(h, sc)]; !ok || !had.IsZero() && (until.IsZero() || until.After(had)) {
					m[name(h, sc)] = until
				}
			},
			"remove": func(t *rapid.T) {
				h, sc := hash.Draw(t, "h"), scope.Draw(t, "scope")
				_, want := m[name(h, sc)]
				if s.RemoveHash(h, sc) != want {
					t.Fatalf("remove is not %t", want)
				}
				delete(m, name(h, sc))
			},
			"": func(t *rapid.T) {
				if s.Len() != len(m) {
					t.Fatalf("%d entries, want %d", s.Len(), len(m))
				}
				h, sc := hash.Draw(t, "h"), scope.Draw(t, "scope")
				until, want := m[name(h, sc)]
				at := now.Add(2 * time.Hour)
				want = want && (until.IsZero() || at.Before(until))
				table := s.table.Load()
				if got := table != nil && table.has(h, at, []Scope{sc}); got != want {
					t.Fatalf("%x %d: %t", h, sc, got)
				}
			},
		})
	})
}

func TestLookupsGoOnWhileASetChanges(t *testing.T) {
	t.Parallel()
	s := New(key)
	s.Add(Mailbox, "ann@example.net", Bulk, Forever)
	var all sync.WaitGroup
	for w := range 2 {
		all.Go(func() {
			for i := range 2000 {
				s.Add(Mailbox, fmt.Sprintf("%d@%d.example", i, w), Bulk, Forever)
				s.Remove(Mailbox, fmt.Sprintf("%d@%d.example", i, w), Bulk)
			}
		})
		all.Go(func() {
			for range 2000 {
				if !s.Has("ann@example.net", now, Bulk) {
					t.Error("an entry was not seen")
				}
			}
		})
	}
	all.Wait()
	if s.Len() != 1 {
		t.Errorf("%d entries are left", s.Len())
	}
}

func TestALookupAllocatesNothing(t *testing.T) {
	s := New(key)
	s.Add(Mailbox, "ann@example.net", Bulk, Forever)
	scopes := []Scope{All, Bulk, 2}
	if n := testing.AllocsPerRun(100, func() {
		s.Has("ann@example.net", now, scopes...)
		s.HasMailbox("bob@example.net", now, scopes...)
		s.Has("Jörg.Somebody@a.long.name.example.net", now, All, Bulk)
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

// filled is a set of so many entries.
func filled(n int) *Set {
	s := New(key)
	for i := range n {
		s.AddHash(s.Hash(Mailbox, fmt.Sprintf("somebody.%d@example.net", i)), Bulk, Forever)
	}
	return s
}

// With BULKMAIL_FULL_SET it is 5 million entries, as is promised; otherwise a
// twentieth of that, in which the buckets weigh more.
func TestAnEntryTakesAtMost12Octets(t *testing.T) {
	n, most := 250_000, 26.0
	if os.Getenv("BULKMAIL_FULL_SET") != "" {
		n, most = 5_000_000, 12.0
	}
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	s := filled(n)
	runtime.GC()
	runtime.ReadMemStats(&after)
	each := float64(after.HeapAlloc-before.HeapAlloc) / float64(n)
	t.Logf("%d entries take %.1f octets each", s.Len(), each)
	if each > most {
		t.Errorf("%.1f octets an entry, want %.0f at most", each, most)
	}
	runtime.KeepAlive(s)
}

func BenchmarkHas(b *testing.B) {
	for name, s := range map[string]*Set{"empty": New(key), "million": filled(1_000_000)} {
		b.Run(name, func(b *testing.B) {
			scopes := []Scope{All, Bulk, 2}
			mailboxes := strings.Fields("ann@example.net bob.somebody@example.org somebody.17@example.net")
			b.ReportAllocs()
			i := 0
			for b.Loop() {
				s.HasMailbox(mailboxes[i%3], now, scopes...)
				i++
			}
		})
	}
}
