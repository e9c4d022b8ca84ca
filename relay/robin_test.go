package relay

import (
	"slices"
	"testing"
	"time"

	"bulkmail/relay/caps"
)

var noon = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

func all(int) int { return Unlimited }

// only makes relays without a free session of all but these.
func only(able ...int) func(int) int {
	return func(i int) int {
		if slices.Contains(able, i) {
			return Unlimited
		}
		return 0
	}
}

// hand has the robin hand out messages one envelope after the other, each
// accepted at once, and returns relay and size of each.
func hand(r *Robin, now time.Time, messages int, room func(int) int) (relays, sizes []int) {
	for messages > 0 {
		i, n := r.Next(now, room)
		if i < 0 {
			return relays, sizes
		}
		n = min(n, messages)
		r.Take(now, i, n)
		r.Settle(now, i, n, n)
		messages -= n
		relays, sizes = append(relays, i), append(sizes, n)
	}
	return relays, sizes
}

func equal(t *testing.T, what string, got, want []int) {
	t.Helper()
	if !slices.Equal(got, want) {
		t.Errorf("%s: %v, want %v", what, got, want)
	}
}

func TestEnvelopeLimitBoundsTheGrant(t *testing.T) {
	t.Parallel()
	r := NewRobin([]Limits{{EnvelopeLimit: 100}})
	_, sizes := hand(r, noon, 250, all)
	equal(t, "envelopes", sizes, []int{100, 100, 50})

	_, n := NewRobin([]Limits{{}}).Next(noon, all)
	if n != Unlimited {
		t.Errorf("envelope_limit 0 grants %d, want no limit", n)
	}
}

func TestTheGrantIsTheLeastOfAllLimits(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		limits Limits
		room   int
		want   int
	}{
		"envelope_limit":              {Limits{EnvelopeLimit: 7}, Unlimited, 7},
		"max_messages":                {Limits{EnvelopeLimit: 100, MaxMessages: 9}, Unlimited, 9},
		"max_messages_per_robin":      {Limits{EnvelopeLimit: 100, MaxMessagesPerRobin: 30}, Unlimited, 30},
		"max_messages_per_connection": {Limits{EnvelopeLimit: 100}, 40, 40},
		"max_messages_while_awake":    {Limits{EnvelopeLimit: 100, MaxMessagesWhileAwake: 50, SleepLength: time.Second}, Unlimited, 50},
		"max_rate":                    {Limits{EnvelopeLimit: 100, MaxRate: Rate{Messages: 14, Per: time.Second}}, Unlimited, 14},
		"what the server takes":       {Limits{EnvelopeLimit: 100, MaxMessages: 90}, 20, 20},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			i, n := NewRobin([]Limits{c.limits}).Next(noon, func(int) int { return c.room })
			if i != 0 || n != c.want {
				t.Errorf("relay %d is granted %d, want %d", i, n, c.want)
			}
		})
	}
}

// The seed: "server becomes worthless and will not be used again". Ours is
// done until its counter is reset, and is not called worthless, for nothing is
// wrong with it.
func TestMaxMessagesIsReachedAndTheOthersGoOn(t *testing.T) {
	t.Parallel()
	r := NewRobin([]Limits{{EnvelopeLimit: 100, MaxMessages: 150}, {EnvelopeLimit: 100}})
	relays, sizes := hand(r, noon, 400, all)
	equal(t, "relays", relays, []int{0, 0, 1, 1, 1})
	equal(t, "sizes", sizes, []int{100, 50, 100, 100, 50})
	if l := r.ReachedLimit(noon, 0); l != 1 {
		t.Errorf("reached_limit answers %d, want 1", l)
	}
	if w := r.Wait(noon, 0); !w.Never {
		t.Errorf("waits %+v, want for good", w)
	}
	later := noon.AddDate(1, 0, 0)
	if i, _ := r.Next(later, only(0)); i >= 0 {
		t.Error("a year later it takes again, without a reset")
	}
	r.Reset(later, 0)
	if i, _ := r.Next(later, only(0)); i != 0 {
		t.Error("after a reset it takes no more")
	}
}

func TestMaxMessagesWithAWindowStartsAnewWhenTheWindowTurnsInUTC(t *testing.T) {
	t.Parallel()
	r := NewRobin([]Limits{{MaxMessages: 100, MaxMessagesWindow: 24 * time.Hour}})
	hand(r, noon, 100, all)
	midnight := time.Date(2026, 3, 2, 0, 0, 0, 0, time.UTC)
	if w := r.Wait(noon, 0); w.Never || !w.Until.Equal(midnight) {
		t.Fatalf("waits %+v, want until %v", w, midnight)
	}
	if i, _ := r.Next(midnight.Add(-time.Nanosecond), all); i >= 0 {
		t.Error("takes before the window turned")
	}
	if _, n := r.Next(midnight, all); n != 100 {
		t.Errorf("is granted %d in the new window, want 100", n)
	}
}

func TestAnEnvelopeInFlightWhenTheWindowTurnsCountsInTheNewOneToo(t *testing.T) {
	t.Parallel()
	r := NewRobin([]Limits{{MaxMessages: 100, MaxMessagesWindow: time.Hour}})
	late := noon.Add(-time.Second)
	r.Next(late, all)
	r.Take(late, 0, 80)
	if _, n := r.Next(noon, all); n != 20 {
		t.Errorf("is granted %d while 80 are in flight, want 20", n)
	}
	r.Settle(noon.Add(time.Second), 0, 80, 30)
	if _, n := r.Next(noon.Add(time.Second), all); n != 70 {
		t.Errorf("is granted %d after 30 of them were accepted, want 70", n)
	}
}

func TestMaxMessagesPerRobinMovesOnToTheNextRelay(t *testing.T) {
	t.Parallel()
	r := NewRobin([]Limits{
		{EnvelopeLimit: 100, MaxMessagesPerRobin: 150},
		{EnvelopeLimit: 100, MaxMessagesPerRobin: 100},
	})
	relays, sizes := hand(r, noon, 250, all)
	equal(t, "relays", relays, []int{0, 0, 1})
	equal(t, "sizes", sizes, []int{100, 50, 100})
	if l := r.ReachedLimit(noon, 0); l != 3 {
		t.Errorf("reached_limit answers %d, want 3", l)
	}
	relays, _ = hand(r, noon, 250, all)
	equal(t, "relays of the second round", relays, []int{0, 0, 1})
}

func TestMaxMessagesPerRobinAreWeights(t *testing.T) {
	t.Parallel()
	r := NewRobin([]Limits{
		{EnvelopeLimit: 70, MaxMessagesPerRobin: 100},
		{EnvelopeLimit: 70, MaxMessagesPerRobin: 300},
		{EnvelopeLimit: 70, MaxMessagesPerRobin: 600},
	})
	relays, sizes := hand(r, noon, 100_000, all)
	var shares [3]int
	for k, i := range relays {
		shares[i] += sizes[k]
	}
	if shares != [3]int{10_000, 30_000, 60_000} {
		t.Errorf("shares %v", shares)
	}
}

func TestAPerRobinOfZeroStaysAndMakesTheOthersSpares(t *testing.T) {
	t.Parallel()
	r := NewRobin([]Limits{{EnvelopeLimit: 100}, {EnvelopeLimit: 100}})
	relays, _ := hand(r, noon, 300, all)
	equal(t, "relays", relays, []int{0, 0, 0})
	relays, _ = hand(r, noon, 200, only(1))
	equal(t, "relays while the primary cannot take", relays, []int{1, 1})
	relays, _ = hand(r, noon, 200, all)
	equal(t, "relays when it can again", relays, []int{0, 0})
}

func TestPassingARelayOverDoesNotEndItsTurn(t *testing.T) {
	t.Parallel()
	r := NewRobin([]Limits{
		{EnvelopeLimit: 50, MaxMessagesPerRobin: 100},
		{EnvelopeLimit: 50, MaxMessagesPerRobin: 100},
	})
	relays, _ := hand(r, noon, 50, all)
	equal(t, "at first", relays, []int{0})
	relays, _ = hand(r, noon, 50, only(1))
	equal(t, "while it has no session", relays, []int{1})
	relays, _ = hand(r, noon, 100, all)
	equal(t, "the rest of both turns", relays, []int{0, 1})
}

func TestARoundEndsWhenAllThatCanTakeHaveHadTheirTurn(t *testing.T) {
	t.Parallel()
	r := NewRobin([]Limits{
		{EnvelopeLimit: 100, MaxMessagesPerRobin: 100},
		{EnvelopeLimit: 100, MaxMessagesPerRobin: 100},
		{EnvelopeLimit: 100, MaxMessagesPerRobin: 100},
	})
	relays, _ := hand(r, noon, 500, only(0, 2))
	equal(t, "without the second", relays, []int{0, 2, 0, 2, 0})
}

func TestAskingTheRobinChangesNothing(t *testing.T) {
	t.Parallel()
	r := NewRobin([]Limits{
		{EnvelopeLimit: 100, MaxMessagesPerRobin: 100, MaxMessages: 1000},
		{EnvelopeLimit: 100, MaxMessagesPerRobin: 100},
	})
	hand(r, noon, 100, all)
	for range 3 {
		if i, n := r.Next(noon, only(0)); i != 0 || n != 100 {
			t.Fatalf("a new round for the only one that can: relay %d, %d messages", i, n)
		}
	}
	if i, _ := r.Next(noon, all); i != 1 {
		t.Error("the turn went back without anything taken")
	}
}

// The seed sleeps with the whole program. Here the relay sleeps and the
// others go on.
func TestARelaySleepsAfterMaxMessagesWhileAwakeAndTheOthersGoOn(t *testing.T) {
	t.Parallel()
	r := NewRobin([]Limits{
		{EnvelopeLimit: 100, MaxMessagesWhileAwake: 150, SleepLength: time.Minute},
		{EnvelopeLimit: 100},
	})
	relays, sizes := hand(r, noon, 350, all)
	equal(t, "relays", relays, []int{0, 0, 1, 1})
	equal(t, "sizes", sizes, []int{100, 50, 100, 100})
	if l := r.ReachedLimit(noon, 0); l != 0 {
		t.Errorf("reached_limit answers %d, want 0 as in Mail::Bulkmail", l)
	}
	awake := noon.Add(time.Minute)
	if w := r.Wait(noon, 0); !w.Until.Equal(awake) || w.Limit != caps.LimitWhileAwake {
		t.Errorf("waits %+v, want until %v", w, awake)
	}
	if i, _ := r.Next(awake.Add(-1), only(0)); i >= 0 {
		t.Error("it takes while asleep")
	}
	relays, sizes = hand(r, awake, 200, only(0))
	equal(t, "relays when awake again", relays, []int{0, 0})
	equal(t, "sizes when awake again", sizes, []int{100, 50})
}

func TestSleepBeginsWhenTheLastEnvelopeIsSettled(t *testing.T) {
	t.Parallel()
	r := NewRobin([]Limits{{EnvelopeLimit: 50, MaxMessagesWhileAwake: 100, SleepLength: time.Minute}})
	r.Take(noon, 0, 50)
	r.Take(noon, 0, 50)
	r.Settle(noon.Add(time.Second), 0, 50, 50)
	if w := r.Wait(noon.Add(time.Second), 0); w.Limit != caps.LimitWhileAwake || !w.Until.IsZero() || w.Never {
		t.Errorf("waits %+v, want for the envelope in flight", w)
	}
	r.Settle(noon.Add(10*time.Second), 0, 50, 50)
	if w := r.Wait(noon.Add(10*time.Second), 0); !w.Until.Equal(noon.Add(70 * time.Second)) {
		t.Errorf("waits %+v, want a full minute from then", w)
	}
}

func TestWhatTheRelayDidNotAcceptIsGivenBack(t *testing.T) {
	t.Parallel()
	for name, l := range map[string]Limits{
		"max_messages":             {MaxMessages: 100},
		"max_messages_while_awake": {MaxMessagesWhileAwake: 100, SleepLength: time.Hour},
		"max_rate":                 {MaxRate: Rate{Messages: 100, Per: time.Hour}, EnvelopeLimit: 100},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := NewRobin([]Limits{l})
			first := r.Left(noon, 0)
			r.Take(noon, 0, first)
			if i, _ := r.Next(noon, all); i >= 0 {
				t.Fatal("granted more than the cap while envelopes are in flight")
			}
			r.Settle(noon, 0, first, 0)
			if left := r.Left(noon.Add(time.Minute), 0); left < first {
				t.Errorf("left %d after all %d were refused", left, first)
			}
		})
	}
}

func TestMaxRateHoldsInEveryPeriodFromTheReplyOn(t *testing.T) {
	t.Parallel()
	r := NewRobin([]Limits{{MaxRate: Rate{Messages: 14, Per: time.Second}}})
	_, n := r.Next(noon, all)
	if n != 14 {
		t.Fatalf("granted %d, want 14", n)
	}
	r.Take(noon, 0, 14)
	replied := noon.Add(300 * time.Millisecond)
	r.Settle(replied, 0, 14, 14)
	again := replied.Add(time.Second)
	if w := r.Wait(replied, 0); w.Limit != caps.LimitRate || !w.Until.Equal(again) {
		t.Errorf("waits %+v, want until %v", w, again)
	}
	if left := r.Left(again.Add(-1), 0); left != 0 {
		t.Errorf("%d left within a second of the replies", left)
	}
	if left := r.Left(again, 0); left != 14 {
		t.Errorf("%d left a second later, want 14", left)
	}
}

func TestMaxRateHoldsForRepliesInQuickSuccession(t *testing.T) {
	t.Parallel()
	r := NewRobin([]Limits{{MaxRate: Rate{Messages: 14, Per: time.Second}}})
	r.Take(noon, 0, 7)
	r.Take(noon, 0, 7)
	r.Settle(noon, 0, 7, 7)
	r.Settle(noon.Add(2*time.Millisecond), 0, 7, 7)
	if left := r.Left(noon.Add(time.Second), 0); left > 7 {
		t.Errorf("%d left a second after the first 7 replies", left)
	}
	if left := r.Left(noon.Add(1002*time.Millisecond), 0); left != 14 {
		t.Errorf("%d left a second after the last reply, want 14", left)
	}
}

func TestMaxRateHoldsForRepliesToldOutOfOrder(t *testing.T) {
	t.Parallel()
	r := NewRobin([]Limits{{MaxRate: Rate{Messages: 14, Per: time.Second}}})
	r.Take(noon, 0, 7)
	r.Take(noon, 0, 7)
	r.Settle(noon.Add(2*time.Millisecond), 0, 7, 7)
	r.Settle(noon.Add(time.Millisecond), 0, 7, 7)
	if left := r.Left(noon.Add(1001*time.Millisecond), 0); left > 7 {
		t.Errorf("%d left within a second of the later 7 replies", left)
	}
}

func TestAnHourlyRateIsSpreadOverTheHour(t *testing.T) {
	t.Parallel()
	r := NewRobin([]Limits{{EnvelopeLimit: 100, MaxRate: Rate{Messages: 10_000, Per: time.Hour}}})
	sent, most := 0, 0
	for now := noon; now.Before(noon.Add(4 * time.Hour)); now = now.Add(time.Second) {
		_, sizes := hand(r, now, 10_000, all)
		burst := 0
		for _, n := range sizes {
			burst += n
		}
		sent, most = sent+burst, max(most, burst)
	}
	if most > 200 {
		t.Errorf("a burst of %d, want no more than two envelopes", most)
	}
	if sent < 39_200 || sent > 40_000 {
		t.Errorf("%d in four hours, want 98 to 100 %% of 40,000", sent)
	}
}

func TestAQuotaThatIsSpreadIsNoBurstAndYetUsed(t *testing.T) {
	t.Parallel()
	r := NewRobin([]Limits{{EnvelopeLimit: 100, MaxMessages: 10_000, MaxMessagesWindow: time.Hour, MaxMessagesSpread: true}})
	sent := make([]int, 4)
	most := 0
	for now := noon; now.Before(noon.Add(4 * time.Hour)); now = now.Add(time.Second) {
		_, sizes := hand(r, now, 10_000, all)
		burst := 0
		for _, n := range sizes {
			burst += n
		}
		sent[int(now.Sub(noon).Hours())] += burst
		most = max(most, burst)
	}
	if most > 200 {
		t.Errorf("a burst of %d, want no more than two envelopes", most)
	}
	for _, n := range sent {
		if n < 9_800 || n > 10_000 {
			t.Errorf("%v in four hours, want 98 to 100 %% of 10,000 in each", sent)
		}
	}
}

func TestAQuotaThatIsSpreadSaysWhenTheNextMessagesAreDue(t *testing.T) {
	t.Parallel()
	r := NewRobin([]Limits{{EnvelopeLimit: 10, MaxMessages: 3600, MaxMessagesWindow: time.Hour, MaxMessagesSpread: true}})
	hand(r, noon, 10_000, all) // two quanta of ten
	if w := r.Wait(noon, 0); w.Limit != caps.LimitSpread || w.Until.Sub(noon) != 10*time.Second {
		t.Errorf("waits %+v, want 10s for the next ten", w)
	}
	if n := r.Left(noon.Add(10*time.Second), 0); n != 10 {
		t.Errorf("%d are due after 10s, want 10", n)
	}
	r.Reset(noon, 0)
	if n := r.Left(noon, 0); n != 20 {
		t.Errorf("%d left after a reset, want 20", n)
	}
}

func TestAFastRateStillFillsEnvelopes(t *testing.T) {
	t.Parallel()
	r := NewRobin([]Limits{{EnvelopeLimit: 100, MaxRate: Rate{Messages: 1000, Per: time.Second}}})
	envelopes, sent := 0, 0
	for now := noon; now.Before(noon.Add(time.Minute)); now = now.Add(time.Millisecond) {
		_, sizes := hand(r, now, 10_000, all)
		envelopes += len(sizes)
		for _, n := range sizes {
			sent += n
		}
	}
	if sent < 58_800 || sent > 60_000 {
		t.Errorf("%d in a minute, want 98 to 100 %% of 60,000", sent)
	}
	if mean := sent / envelopes; mean < 50 {
		t.Errorf("%d recipients an envelope", mean)
	}
}

func TestWhatIsLeftOfARateIsTakenAtOnce(t *testing.T) {
	t.Parallel()
	r := NewRobin([]Limits{{EnvelopeLimit: 100, MaxRate: Rate{Messages: 1000, Per: time.Second}}})
	_, sizes := hand(r, noon, 150, func(int) int { return 1 })
	if len(sizes) != 150 {
		t.Errorf("%d envelopes of one recipient at one moment, want 150", len(sizes))
	}
}

func TestTheNumbersOfTheSeedStay(t *testing.T) {
	t.Parallel()
	if caps.LimitMaxMessages != 1 || caps.LimitPerConnection != 2 || caps.LimitPerRobin != 3 {
		t.Error("reached_limit answers with other numbers than the seed's")
	}
}
