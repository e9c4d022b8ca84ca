package worker_test

import (
	"slices"
	"testing"
	"time"

	"bulkmail/worker"
)

func TestTheFateOfABatch(t *testing.T) {
	t.Parallel()
	now := time.Date(2026, 11, 23, 22, 0, 0, 0, time.UTC)
	in := now.Add
	const soon, later = 10 * time.Second, time.Hour
	for _, c := range []struct {
		name     string
		tally    worker.Tally
		deadline time.Time
		want     worker.Verdict
	}{
		{"all final", worker.Tally{}, in(later), worker.Verdict{Action: worker.Ack}},
		{"all final after the deadline", worker.Tally{}, in(-later), worker.Verdict{Action: worker.Ack}},
		{"some deferred", worker.Tally{Deferred: 3, Due: in(soon)}, in(later), worker.Verdict{Action: worker.Nak, Delay: soon}},
		{"deferred and due already", worker.Tally{Deferred: 3, Due: in(-soon)}, in(later), worker.Verdict{Action: worker.Nak}},
		{"due beyond the deadline: one last try at it", worker.Tally{Deferred: 1, Due: in(2 * later)}, in(later), worker.Verdict{Action: worker.Nak, Delay: later}},
		{"deferred at the deadline", worker.Tally{Deferred: 1, Due: in(soon)}, now, worker.Verdict{Action: worker.Expire}},
		{"deferred past the deadline", worker.Tally{Deferred: 1, Due: in(-soon)}, in(-1), worker.Verdict{Action: worker.Expire}},
		{"the worker drains", worker.Tally{Waiting: 5}, in(later), worker.Verdict{Action: worker.Nak}},
		{"no relay can take them for a while", worker.Tally{Waiting: 5, Until: in(soon)}, in(later), worker.Verdict{Action: worker.Nak, Delay: soon}},
		{"that while is over", worker.Tally{Waiting: 5, Until: in(-soon)}, in(later), worker.Verdict{Action: worker.Nak}},
		{"never attempted past the deadline: nobody's fault", worker.Tally{Waiting: 5, Until: in(soon)}, in(-later), worker.Verdict{Action: worker.Nak, Delay: soon}},
		{"some wait for a relay, some are deferred", worker.Tally{Waiting: 1, Deferred: 1, Due: in(later)}, in(later), worker.Verdict{Action: worker.Nak}},
		{"the same past the deadline: who had the last try expires", worker.Tally{Waiting: 1, Deferred: 1, Due: in(-soon), Until: in(soon)}, in(-later), worker.Verdict{Action: worker.Nak, Delay: soon, GiveUp: true}},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			if got := worker.Decide(c.tally, c.deadline, now); got != c.want {
				t.Errorf("got %+v, want %+v", got, c.want)
			}
		})
	}
}

func TestTheLastDelayRepeats(t *testing.T) {
	t.Parallel()
	s := worker.Schedule{time.Minute, 5 * time.Minute, time.Hour}
	var got []time.Duration
	for attempt := range 6 {
		got = append(got, s.After(attempt))
	}
	want := []time.Duration{time.Minute, time.Minute, 5 * time.Minute, time.Hour, time.Hour, time.Hour}
	if !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
	if d := (worker.Schedule{}).After(1); d != 0 {
		t.Errorf("no schedule: a delay of %v", d)
	}
}

func TestDelaysDifferByATenthAtMostAndDoDiffer(t *testing.T) {
	t.Parallel()
	s := worker.Schedule{time.Minute, time.Hour}
	for attempt, want := range map[int]time.Duration{1: time.Minute, 2: time.Hour, 9: time.Hour} {
		least, most := time.Duration(1<<62), time.Duration(0)
		for range 1000 {
			d := s.Jittered(attempt)
			least, most = min(least, d), max(most, d)
		}
		if least < want*9/10 || most > want*11/10 {
			t.Errorf("attempt %d: between %v and %v, want %v ±10 %%", attempt, least, most, want)
		}
		// Of 1,000 even draws all miss a quarter of the range once in 10^124.
		if least > want*95/100 || most < want*105/100 {
			t.Errorf("attempt %d: between %v and %v only: batches deferred together come back together", attempt, least, most)
		}
	}
}

// What the queue gives back after the shortest jittered delay must be due, or
// it would be sent away again.
func TestABatchThatWaitedItsDelayIsDue(t *testing.T) {
	t.Parallel()
	s := worker.Schedule{time.Minute, time.Hour}
	deferred := time.Date(2026, 11, 23, 22, 0, 0, 0, time.UTC)
	for attempt := 1; attempt <= 3; attempt++ {
		due := s.Due(attempt, deferred)
		if due.Before(deferred.Add(s.After(attempt) * 9 / 10)) {
			t.Errorf("attempt %d: due at %v, before its delay is over", attempt, due)
		}
		for range 1000 {
			if back := deferred.Add(s.Jittered(attempt)); back.Before(due) {
				t.Fatalf("attempt %d: back after %v, due after %v", attempt, back.Sub(deferred), due.Sub(deferred))
			}
		}
	}
}
