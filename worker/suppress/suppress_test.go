package suppress

import (
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
	k := newSet(key).key
	if got := sipHash(k[0], k[1], key[:15]); got != 0xa129ca6149be45e5 {
		t.Errorf("got %x", got)
	}
}

func TestAnEntryHoldsInItsScopeAndUntilItEnds(t *testing.T) {
	t.Parallel()
	s := newSet(key)
	if _, ok := s.Has("ann@example.net", now, All, Bulk); ok {
		t.Error("an empty set has somebody")
	}
	if s.Scope("news") != unknownList {
		t.Error("a list is known that nothing is about")
	}
	list := s.listScope("news")
	s.Add("Ann@Example.net", Mark{Scope: Bulk, Why: "complained"})
	s.Add("bob@example.net", Mark{Scope: list, Why: "unsubscribed"})
	s.Add("jörg@example.net", Mark{Scope: All, Until: now.Add(time.Hour), Why: "away"})
	s.Add("@Dead.example", Mark{Scope: All, Why: "gone"})
	for _, test := range []struct {
		mailbox string
		at      time.Time
		scopes  []Scope
		want    string
	}{
		{"ann@example.net", now, []Scope{All, Bulk}, "complained"},
		{"ANN@EXAMPLE.NET", now, []Scope{All, Bulk}, "complained"},
		{"ann@example.net", now, []Scope{All}, ""}, // a transactional message
		{"ann@example.net", now, nil, ""},
		{"anne@example.net", now, []Scope{All, Bulk}, ""},
		{"bob@example.net", now, []Scope{All, Bulk}, ""},
		{"bob@example.net", now, []Scope{All, Bulk, s.Scope("news")}, "unsubscribed"},
		{"bob@example.net", now, []Scope{All, Bulk, s.Scope("others")}, ""},
		{"JÖRG@example.net", now, []Scope{All}, "away"},
		{"jörg@example.net", now.Add(59 * time.Minute), []Scope{All}, "away"},
		{"jörg@example.net", now.Add(2 * time.Hour), []Scope{All}, ""},
		{"whoever@DEAD.example", now, []Scope{All}, "gone"},
		{"whoever@not.dead.example", now, []Scope{All}, ""},
		{"dead.example", now, []Scope{All}, ""},
		{"", now, []Scope{All}, ""},
	} {
		if got, ok := s.Has(test.mailbox, test.at, test.scopes...); got != test.want || ok != (got != "") {
			t.Errorf("%s at %v in %v: %q, %t", test.mailbox, test.at, test.scopes, got, ok)
		}
	}
	version := s.Version()
	if !s.Remove("ann@example.NET", Bulk) || s.Remove("ann@example.net", Bulk) || s.Len() != 3 {
		t.Errorf("removed, the set has %d", s.Len())
	}
	if _, ok := s.Has("ann@example.net", now, Bulk); ok || s.Version() == version {
		t.Error("who was removed is there")
	}
	s.Add("bob@example.net", Mark{Scope: Bulk, Why: "complained"})
	if !s.RemoveAll("bob@example.net") || s.RemoveAll("bob@example.net") || s.Len() != 2 {
		t.Errorf("removed from all scopes, the set has %d", s.Len())
	}
}

func TestReasonsBeyondWhatASetHoldsBecomeOne(t *testing.T) {
	t.Parallel()
	s := newSet(key)
	for i := range maxLabels {
		s.Add(fmt.Sprintf("%d@example.net", i), Mark{Scope: All, Why: fmt.Sprintf("reason %d", i)})
	}
	first, _ := s.Has("0@example.net", now, All)
	last, ok := s.Has(fmt.Sprintf("%d@example.net", maxLabels-1), now, All)
	if first != "reason 0" || last != anyReason || !ok {
		t.Errorf("the first because of %q, the last because of %q", first, last)
	}
	for i := range maxLabels {
		s.Add(fmt.Sprintf("reader.%d@example.net", i), Mark{Scope: s.listScope(fmt.Sprint(i)), Why: "unsubscribed"})
	}
	if _, ok := s.Has(fmt.Sprintf("reader.%d@example.net", maxLabels-1), now, Bulk); !ok {
		t.Error("who is on more lists than can be told apart gets mail of all the others")
	}
}

// model is the set as a map.
type model map[string]time.Time

func TestASetIsLikeAMap(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		s, m := newSet(key), make(model)
		// Few hashes, of few buckets, and many scopes: neighbours are what goes wrong.
		hash := rapid.Custom(func(t *rapid.T) uint64 {
			return rapid.SampledFrom([]uint64{0, 1, 1<<48 - 1, 1 << 48, 1<<48 | 7, 1<<64 - 1}).Draw(t, "hash")
		})
		scope := rapid.SampledFrom([]Scope{All, Bulk, 2, 3, 60000})
		name := func(h uint64, s Scope) string { return fmt.Sprint(h, " ", s) }
		t.Repeat(map[string]func(*rapid.T){
			"add": func(t *rapid.T) {
				h, sc := hash.Draw(t, "h"), scope.Draw(t, "scope")
				until := rapid.SampledFrom([]time.Time{Forever, now, now.Add(24 * time.Hour)}).Draw(t, "until")
				s.addHash(h, Mark{Scope: sc, Until: until, Why: "x"})
				if had, ok := m[name(h, sc)]; !ok || !had.IsZero() && (until.IsZero() || until.After(had)) {
					m[name(h, sc)] = until
				}
			},
			"remove": func(t *rapid.T) {
				h, sc := hash.Draw(t, "h"), scope.Draw(t, "scope")
				_, want := m[name(h, sc)]
				if s.removeHash(h, func(has Scope) bool { return has == sc }) != want {
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
				got := false
				if table := s.table.Load(); table != nil {
					_, got = s.find(table, h, at, []Scope{sc})
				}
				if got != want {
					t.Fatalf("%x %d: %t", h, sc, got)
				}
			},
		})
	})
}

func TestLookupsGoOnWhileASetChanges(t *testing.T) {
	t.Parallel()
	s := newSet(key)
	s.Add("ann@example.net", Mark{Scope: Bulk, Why: "x"})
	var all sync.WaitGroup
	for w := range 2 {
		all.Go(func() {
			for i := range 2000 {
				s.Add(fmt.Sprintf("%d@%d.example", i, w), Mark{Scope: Bulk, Why: fmt.Sprint(i)})
				s.Remove(fmt.Sprintf("%d@%d.example", i, w), Bulk)
			}
		})
		all.Go(func() {
			for range 2000 {
				if why, ok := s.Has("ann@example.net", now, Bulk); !ok || why != "x" {
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
	s := newSet(key)
	s.Add("ann@example.net", Mark{Scope: Bulk, Why: "x"})
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
	s := newSet(key)
	for i := range n {
		s.Add(fmt.Sprintf("somebody.%d@example.net", i), Mark{Scope: Bulk, Why: "x"})
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
	for name, s := range map[string]*Set{"empty": newSet(key), "million": filled(1_000_000)} {
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
