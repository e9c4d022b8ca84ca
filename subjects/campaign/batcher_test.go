package campaign

import (
	"errors"
	"fmt"
	"runtime"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"
)

// batchesOf runs a list through a batcher and looks at what it holds on the way.
func batchesOf(t interface{ Fatalf(string, ...any) }, list []string, size, window int) [][]string {
	return batchesOfOctets(t, list, size, window, 0)
}

// octetsIn is what recipients have in a batch.
func octetsIn(recipients []string) (n int) {
	for _, r := range recipients {
		n += len(r) + 3
	}
	return n
}

// batchesOfOctets has batches of so many octets at most, if not 0.
func batchesOfOctets(t interface{ Fatalf(string, ...any) }, list []string, size, window, room int) [][]string {
	var batches [][]string
	b := newBatcher(size, func(recipients []string) error {
		batches = append(batches, recipients)
		return nil
	})
	if window > 0 {
		b.window = window
	}
	if room > 0 {
		b.room = room
	}
	for _, recipient := range list {
		if err := b.add(recipient); err != nil {
			t.Fatalf("%v", err)
		}
		held, holds := 0, 0
		for _, d := range b.order {
			holds += octetsIn(d.recipients)
			held += len(d.recipients)
			if len(d.recipients) == 0 || len(d.recipients) >= size {
				t.Fatalf("%d recipients of %s are held", len(d.recipients), d.domain)
			}
		}
		if holds != b.holds {
			t.Fatalf("%d octets are held, %d by its own count", holds, b.holds)
		}
		if held != b.held || held >= b.window || len(b.domains) != len(b.order) {
			t.Fatalf("%d held (%d by its own count, %d domains, %d of them in order), the window is %d", held, b.held, len(b.domains), len(b.order), b.window)
		}
	}
	if err := b.flush(); err != nil {
		t.Fatalf("%v", err)
	}
	if b.held != 0 || b.holds != 0 || len(b.order) != 0 || len(b.domains) != 0 {
		t.Fatalf("%d are held after the end", b.held)
	}
	return batches
}

func domainOf(recipient string) string {
	return strings.ToLower(recipient[strings.LastIndexByte(recipient, '@')+1:])
}

func TestEveryRecipientIsInExactlyOneBatch(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		size := rapid.IntRange(1, 12).Draw(t, "size")
		window := rapid.IntRange(size, 60).Draw(t, "window")
		// A few domains have most recipients, as in life.
		n := rapid.SampledFrom([]int{0, 1, 10, 50, 300}).Draw(t, "recipients")
		domains := rapid.SliceOfN(rapid.IntRange(0, rapid.IntRange(1, 40).Draw(t, "domains")), n, n).Draw(t, "list")
		list := make([]string, len(domains))
		for i, d := range domains {
			list[i] = fmt.Sprintf("%d@%s%d.test", i, []string{"d", "D"}[i%2], d*d/10)
			if d == 7 {
				list[i] = fmt.Sprintf("%d without a domain", i)
			}
		}

		room := rapid.SampledFrom([]int{1, 20, 40, 100, 1000}).Draw(t, "room")
		batches := batchesOfOctets(t, list, size, window, room)
		for _, batch := range batches {
			if len(batch) == 0 || len(batch) > size {
				t.Fatalf("a batch of %d, the size is %d", len(batch), size)
			}
			if n := octetsIn(batch); n > room && len(batch) > 1 {
				t.Fatalf("a batch of %d octets, there is room for %d", n, room)
			}
		}
		got, want := slices.Sorted(slices.Values(slices.Concat(batches...))), slices.Sorted(slices.Values(list))
		if diff := cmp.Diff(want, got); diff != "" {
			t.Fatal(diff)
		}
		if diff := cmp.Diff(batches, batchesOfOctets(t, list, size, window, room)); diff != "" {
			t.Fatalf("the same list makes other batches:\n%s", diff)
		}
	})
}

func TestADomainIsKeptTogether(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		size := rapid.IntRange(1, 12).Draw(t, "size")
		var list []string
		count := make(map[string]int)
		n := rapid.SampledFrom([]int{0, 1, 10, 50, 300}).Draw(t, "recipients")
		for i, d := range rapid.SliceOfN(rapid.IntRange(0, 20), n, n).Draw(t, "list") {
			recipient := fmt.Sprintf("%d@d%d.test", i, d)
			list = append(list, recipient)
			count[domainOf(recipient)]++
		}
		in := make(map[string]int) // batches that a domain is in
		for _, batch := range batchesOf(t, list, size, 0) {
			// Within a batch, too: envelopes are cut off neighbours.
			for _, d := range slices.Compact(mapped(batch, domainOf)) {
				in[d]++
			}
		}
		for d, n := range count {
			if most := n/size + 2; in[d] > most { // full ones, and a rest that may be cut once
				t.Fatalf("%d recipients of %s are in %d batches of %d", n, d, in[d], size)
			}
		}
	})
}

func mapped[A, B any](list []A, f func(A) B) []B {
	out := make([]B, len(list))
	for i, a := range list {
		out[i] = f(a)
	}
	return out
}

func TestBatchesOfAListInDomainOrderAreOfOneDomain(t *testing.T) {
	t.Parallel()
	var list []string
	for i := range 100_000 { // far more domains than a window holds
		list = append(list, fmt.Sprintf("%d@d%d.test", i, i/300))
	}
	const size = 1000
	mixed := 0
	for _, batch := range batchesOf(t, list, size, 4*size) {
		if len(slices.Compact(mapped(batch, domainOf))) > 1 {
			mixed++
		}
	}
	if mixed > 5 { // those of the end
		t.Errorf("%d batches are mixed although each domain was large enough", mixed)
	}
}

func TestABatchThatCannotBePublishedEndsTheList(t *testing.T) {
	t.Parallel()
	gone := errors.New("broker gone")
	b := newBatcher(2, func([]string) error { return gone })
	if err := b.add("1@x.test"); err != nil {
		t.Fatal(err)
	}
	if err := b.add("2@x.test"); !errors.Is(err, gone) {
		t.Errorf("error is %v", err)
	}
	b = newBatcher(2, func([]string) error { return gone })
	if err := errors.Join(b.add("1@x.test"), b.flush()); !errors.Is(err, gone) {
		t.Errorf("error of the rest is %v", err)
	}
}

func TestTheSameMailboxIsNewOnce(t *testing.T) {
	t.Parallel()
	s := newMailboxSet()
	for _, tc := range []struct {
		recipient string
		isNew     bool
	}{
		{"ann@example.net", true},
		{"ann@example.net", false},
		{"ann@EXAMPLE.net", false},    // a domain has no case
		{"Ann@example.net", true},     // a local part has
		{`"ann"@example.net`, false},  // quotes that are not needed are no part of it
		{"bob@münchen.example", true}, // one domain in two spellings
		{"bob@xn--mnchen-3ya.example", false},
		{"no address", true}, // stands for itself
		{"no address", false},
		{"", true},
		{"", false},
	} {
		if got := s.add(tc.recipient); got != tc.isNew {
			t.Errorf("%q is new: %t", tc.recipient, got)
		}
	}
}

// Not parallel, since it measures.
func TestAMailboxSetOfAMillionCostsSome50Megabytes(t *testing.T) {
	const n = 1_000_000
	before := heap()
	s := newMailboxSet()
	for i := range n {
		if !s.add(fmt.Sprintf("somebody-with-a-long-name.%d@mail.example.net", i)) {
			t.Fatalf("%d is taken for another", i)
		}
	}
	if used := heap() - before; used > 60<<20 {
		t.Errorf("%d bytes", used)
	}
	runtime.KeepAlive(s)
}

func heap() int64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}
