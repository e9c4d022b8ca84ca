package smtp

import (
	"errors"
	"net"
	"testing"
	"time"

	"bulkmail/envelope"
)

// feed plays a busy session: each message takes as long as its mode does.
func feed(l *learner, n int, off, on func(i int) time.Duration) (overlapped int) {
	for i := range n {
		ask, overlap := l.choose()
		if overlap {
			overlapped++
		}
		if ask {
			if overlap {
				l.sample(true, on(i))
			} else {
				l.sample(false, off(i))
			}
		}
	}
	return overlapped
}

func steady(d time.Duration) func(int) time.Duration {
	return func(int) time.Duration { return d }
}

// noisy is d give or take a third, the same each time.
func noisy(d time.Duration) func(int) time.Duration {
	return func(i int) time.Duration { return d + d*time.Duration(i*7%11-5)/15 }
}

func TestOverlapIsUsedWhereItPays(t *testing.T) {
	t.Parallel()
	const n = 1000
	for _, c := range []struct {
		name     string
		off, on  func(int) time.Duration
		min, max int // of n messages that are overlapped
	}{
		{"twice as fast", steady(40 * time.Millisecond), steady(20 * time.Millisecond), n - 5, n},
		{"the same", noisy(100 * time.Microsecond), noisy(100 * time.Microsecond), 0, 30},
		{"slower", noisy(100 * time.Microsecond), noisy(130 * time.Microsecond), 0, 30},
		{"a fifth faster", noisy(100 * time.Microsecond), noisy(80 * time.Microsecond), n - 30, n},
		{"stalls", steady(time.Millisecond), steady(41 * time.Millisecond), 0, 2},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			var l learner
			l.count(1)
			if got := feed(&l, n, c.off, c.on); got < c.min || got > c.max {
				t.Errorf("%d of %d were overlapped, want %d to %d", got, n, c.min, c.max)
			}
		})
	}
}

func TestOverlapIsTriedAgain(t *testing.T) {
	t.Parallel()
	var l learner
	l.count(1)
	feed(&l, 200, steady(time.Millisecond), steady(2*time.Millisecond))
	if got := feed(&l, 2000, steady(2*time.Millisecond), steady(time.Millisecond)); got < 1000 {
		t.Errorf("the server has become another one, and %d of 2000 were overlapped", got)
	}
}

func TestARefusedOverlapIsNeverTriedAgain(t *testing.T) {
	t.Parallel()
	var l learner
	l.count(1)
	l.refuse()
	if got := feed(&l, 3*longestTerm, steady(2*time.Millisecond), steady(time.Millisecond)); got != 0 {
		t.Errorf("%d were overlapped", got)
	}
}

func TestSendInsistsOnTheEnvelopeThatWasPromised(t *testing.T) {
	t.Parallel()
	addr := serve(t, func(conn net.Conn) { willing(conn, "", nil, nil) })
	d := plainDialer(addr)
	d.Overlap = OverlapOn
	s, err := d.Dial(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	message := mustMessage(t, "Subject: x\n\ny\n")
	first := &Envelope{From: "a@example.com", Recipients: envelope.To("b@example.net"), Message: Guarded(message, nil)}
	promised := &Envelope{From: "c@example.com", Recipients: envelope.To("d@example.net"), Message: Guarded(message, nil)}
	other := &Envelope{From: "e@example.com", Recipients: envelope.To("f@example.net"), Message: Guarded(message, nil)}
	if err := s.Send(t.Context(), first, func() *Envelope { return promised }); err != nil {
		t.Fatal(err)
	}
	if err := s.Send(t.Context(), other, nil); !errors.Is(err, errNotAhead) {
		t.Errorf("%v, want %v", err, errNotAhead)
	}
	if other.Results[0].Status != NotAttempted || s.Usable() {
		t.Errorf("%+v, usable %v", other.Results, s.Usable())
	}
}
