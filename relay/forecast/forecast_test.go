package forecast_test

import (
	"errors"
	"testing"
	"time"

	"pgregory.net/rapid"

	"bulkmail/relay/caps"
	"bulkmail/relay/forecast"
)

// now is ten minutes before a whole hour.
var now = time.Date(2026, 11, 24, 9, 50, 0, 0, time.UTC)

func TestRelaysNeedAsLongAsTheirCapsSay(t *testing.T) {
	t.Parallel()
	rate := func(n int, per time.Duration) forecast.Relay {
		return forecast.Relay{Limits: caps.Limits{MaxRate: caps.Rate{Messages: n, Per: per}}}
	}
	most := func(n int, window time.Duration) forecast.Relay {
		return forecast.Relay{Limits: caps.Limits{MaxMessages: n, MaxMessagesWindow: window}}
	}
	used := most(100, time.Hour)
	used.Used = 40
	spread := most(3600, time.Hour)
	spread.Limits.MaxMessagesSpread = true
	awake := forecast.Relay{Limits: caps.Limits{MaxMessagesWhileAwake: 10, SleepLength: time.Minute}}
	drowsy, asleep := awake, awake
	drowsy.Awake = 7
	asleep.AsleepUntil = now.Add(30 * time.Second)
	for name, tc := range map[string]struct {
		n      int
		relays []forecast.Relay
		want   time.Duration
		err    error
	}{
		"a rate":                         {100, []forecast.Relay{rate(10, time.Second)}, 10 * time.Second, nil},
		"two rates":                      {100, []forecast.Relay{rate(10, time.Second), rate(600, time.Minute)}, 5 * time.Second, nil},
		"within the cap":                 {100, []forecast.Relay{most(100, 0)}, 0, nil},
		"beyond the cap":                 {101, []forecast.Relay{most(100, 0)}, 0, forecast.ErrNever},
		"the next window":                {101, []forecast.Relay{most(100, time.Hour)}, 10 * time.Minute, nil},
		"the one after the next":         {201, []forecast.Relay{most(100, time.Hour)}, 70 * time.Minute, nil},
		"a window of which some is used": {61, []forecast.Relay{used}, 10 * time.Minute, nil},
		"spread over its window":         {60, []forecast.Relay{spread}, time.Minute, nil},
		"awake":                          {10, []forecast.Relay{awake}, 0, nil},
		"after a sleep":                  {11, []forecast.Relay{awake}, time.Minute, nil},
		"soon asleep":                    {4, []forecast.Relay{drowsy}, time.Minute, nil},
		"asleep":                         {1, []forecast.Relay{asleep}, 30 * time.Second, nil},
		"asleep twice":                   {11, []forecast.Relay{asleep}, 90 * time.Second, nil},
		"a cap and a rate":               {15, []forecast.Relay{most(5, 0), rate(1, time.Second)}, 10 * time.Second, nil},
		"one without caps":               {1, []forecast.Relay{most(5, 0), {}}, 0, forecast.ErrUncapped},
		"none at all":                    {1, nil, 0, forecast.ErrNever},
	} {
		got, err := forecast.Duration(now, tc.n, tc.relays)
		if got != tc.want || !errors.Is(err, tc.err) {
			t.Errorf("%s: %v, %v, want %v, %v", name, got, err, tc.want, tc.err)
		}
	}
}

// Whatever the caps: more messages never take less time, and within the time said
// they go out.
func TestAForecastIsTheLeastThatIsEnough(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		relays := rapid.SliceOfN(rapid.Custom(func(t *rapid.T) forecast.Relay {
			r := forecast.Relay{Limits: caps.Limits{
				MaxMessages: rapid.IntRange(1, 2_000_000_000).Draw(t, "max"), MaxMessagesWindow: time.Duration(rapid.IntRange(0, 100_000).Draw(t, "window")) * time.Second,
				MaxMessagesSpread: rapid.Bool().Draw(t, "spread"), MaxMessagesWhileAwake: rapid.IntRange(0, 1000).Draw(t, "awake"),
				SleepLength: time.Duration(rapid.IntRange(0, 1000).Draw(t, "sleep")) * time.Second,
				MaxRate:     caps.Rate{Messages: rapid.IntRange(0, 1000).Draw(t, "rate"), Per: time.Duration(rapid.IntRange(0, 1000).Draw(t, "per")) * time.Second},
			}}
			r.Used = rapid.IntRange(0, r.Limits.MaxMessages).Draw(t, "used")
			return r
		}), 1, 3).Draw(t, "relays")
		n := rapid.IntRange(1, 10_000_000).Draw(t, "n")
		d, err := forecast.Duration(now, n, relays)
		if errors.Is(err, forecast.ErrNever) {
			return
		}
		sum, before := 0, 0
		for _, r := range relays {
			sum += r.Within(now, d)
			before += r.Within(now, d-time.Second)
		}
		if err != nil || sum < n || d > 0 && before >= n {
			t.Fatalf("%v, %v: %d messages, %d a second before, want %d", d, err, sum, before, n)
		}
		if more, err := forecast.Duration(now, n+1, relays); err == nil && more < d {
			t.Fatalf("one more takes %v instead of %v", more, d)
		}
	})
}
