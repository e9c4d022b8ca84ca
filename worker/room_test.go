package worker

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"

	"pgregory.net/rapid"

	"bulkmail/envelope/letter"
)

// come has a batch enter, and tells when it is in; it is false if it has to wait.
func come(r *room, key string, size int) (g *guest, in bool) {
	ctx, cancel := context.WithCancel(context.Background())
	g, err := r.enter(ctx, key, size, func(Octets) { cancel() })
	cancel()
	return g, err == nil
}

func TestMessagesStayWithinTheirBoundAndOneThatIsLargerIsAlone(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		r := newRoom(1000)
		var in []*guest
		largest := Octets(0)
		for range rapid.IntRange(1, 60).Draw(t, "steps") {
			if len(in) > 0 && rapid.Bool().Draw(t, "leaves") {
				i := rapid.IntRange(0, len(in)-1).Draw(t, "who")
				r.leave(in[i])
				in = append(in[:i], in[i+1:]...)
				continue
			}
			n := rapid.IntRange(0, 9).Draw(t, "message")
			size := 10 << n // up to 5120, of which nothing else has room
			g, ok := come(r, string(rune('a'+n)), size)
			if !ok {
				if len(in) == 0 {
					t.Fatalf("a message of %d waits, and there is nobody to wait for", size)
				}
				continue
			}
			if g.first {
				made := &message{template: new(letter.Template), letters: rapid.Bool().Draw(t, "shared")}
				var err error
				if rapid.IntRange(0, 9).Draw(t, "fails") == 0 {
					made, err = nil, errors.New("no")
				}
				r.made(g, made, err)
			}
			in = append(in, g)
			largest = max(largest, freshCost*Octets(size))
			if r.used > r.bound && len(in) > 1 {
				t.Fatalf("%d of %d are used by %d batches", r.used, r.bound, len(in))
			}
		}
		for _, g := range in {
			r.leave(g)
		}
		if r.used != r.unused || r.inside != 0 || r.waiting.Len() != 0 {
			t.Fatalf("nobody is there, and %d are used, %d of them kept; %d inside, %d wait", r.used, r.unused, r.inside, r.waiting.Len())
		}
		if r.unused > r.bound/4 && r.idle.Len() > 1 {
			t.Fatalf("%d are kept of %d", r.unused, r.bound)
		}
		if len(r.kept) != r.idle.Len() {
			t.Fatalf("%d are known, %d of them are not used", len(r.kept), r.idle.Len())
		}
	})
}

// A large message would wait for ever if small ones always went past it.
func TestWhoWaitsForRoomIsNotPassedBy(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		r := newRoom(1000)
		small, _ := come(r, "small", 10)
		r.made(small, &message{template: new(letter.Template), letters: true}, nil)
		var order []string
		wait := func(key string, size int) {
			go func() {
				g, err := r.enter(t.Context(), key, size, func(Octets) {})
				if err != nil {
					t.Error(err)
					return
				}
				order = append(order, key)
				if g.first {
					r.made(g, &message{template: new(letter.Template), letters: true}, nil)
				}
				r.leave(g)
			}()
			synctest.Wait()
		}
		wait("large", 2000)
		wait("small", 10) // it is there, and would cost nothing
		if _, ok := come(r, "small", 10); ok {
			t.Error("a small one went past a large one that waits")
		}
		if len(order) != 0 {
			t.Fatalf("let in: %v", order)
		}
		r.leave(small)
		synctest.Wait()
		if len(order) != 2 || order[0] != "large" || order[1] != "small" {
			t.Errorf("let in in the order %v", order)
		}
	})
}

func TestWhoGivesUpWaitingLetsTheNextIn(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		r := newRoom(1000)
		first, _ := come(r, "first", 100)
		ctx, cancel := context.WithCancel(t.Context())
		gone, entered := make(chan error), make(chan *guest)
		go func() {
			_, err := r.enter(ctx, "large", 2000, func(Octets) {})
			gone <- err
		}()
		synctest.Wait()
		go func() {
			g, _ := r.enter(t.Context(), "small", 10, func(Octets) {})
			entered <- g
		}()
		synctest.Wait()
		cancel()
		if err := <-gone; !errors.Is(err, context.Canceled) {
			t.Errorf("it ended with %v", err)
		}
		r.leave(<-entered)
		r.leave(first)
	})
}

func TestAnAmountOfMemoryIsReadAsPeopleWriteIt(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]Octets{"0": 0, "123": 123, "64MB": 64e6, "1 GB": 1e9, "10kB": 10e3, "2MiB": 2 << 20, "1GiB": 1 << 30, "7B": 7} {
		var got Octets
		if err := got.UnmarshalText([]byte(text)); err != nil || got != want {
			t.Errorf("%s is %d (%v), want %d", text, got, err, want)
		}
	}
	for _, text := range []string{"", "MB", "-1", "1.5GB", "9999999999GB", "64MBs", "64M", "1GBMB"} {
		if err := new(Octets).UnmarshalText([]byte(text)); err == nil {
			t.Errorf("%q is a size", text)
		}
	}
	for want, o := range map[string]Octets{"999B": 999, "256MB": 256e6, "1.5GB": 1.5e9} {
		if got := o.String(); got != want {
			t.Errorf("%d is %s, want %s", o, got, want)
		}
	}
}
