package relay

import (
	"testing"
	"testing/synctest"
	"time"
)

func TestAListGoesOutOverOneRelayInEnvelopesOfTheLimit(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		r := &recorder{latency: time.Millisecond}
		p := NewPool([]Relay{named("a", r)}, Options{})
		l := add(p, "x", 250)
		<-l.finished
		closePool(t, p)
		var sizes []int
		for _, s := range r.envelopes() {
			sizes = append(sizes, len(s.recipients))
		}
		if len(sizes) != 3 || sizes[0] != 100 || sizes[1] != 100 || sizes[2] != 50 {
			t.Errorf("envelopes of %v recipients", sizes)
		}
		if r.dials != 1 || r.said != 1 || r.open != 0 {
			t.Errorf("%d dials, %d QUIT, %d open", r.dials, r.said, r.open)
		}
	})
}
