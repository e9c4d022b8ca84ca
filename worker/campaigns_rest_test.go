package worker

import (
	"testing"
	"time"
)

// Fifty thousand batches of a campaign that is paused come back to be looked at
// no more than so many a second, however long the pause, and a few come back
// after the usual delay.
func TestALongQueueThatIsPausedIsLookedAtNowAndThen(t *testing.T) {
	t.Parallel()
	var c campaigns
	now := time.Now()
	if d := c.rest(now); d != pausedDelay {
		t.Errorf("the first batch rests %v, want %v", d, pausedDelay)
	}
	due := make([]time.Time, 50_000) // in order: what was looked at goes to the end
	for i := range due {
		due[i] = now.Add(c.rest(now))
	}
	looks := make(map[int64]int)
	for range 200_000 {
		at := due[0]
		looks[at.Unix()]++
		due = append(due[1:], at.Add(c.rest(at)))
	}
	for second, n := range looks {
		if n > pausedLooks+1 {
			t.Errorf("%d looks in second %d, want %d at most", n, second, pausedLooks)
		}
	}
	if longest := due[len(due)-1].Sub(due[0]); longest > 275*time.Second {
		t.Errorf("resumed, the last batch comes back after %v", longest)
	}
}
