package fair_test

import (
	"fmt"
	"math"
	"testing"

	"pgregory.net/rapid"

	"bulkmail/relay/fair"
)

type queue = fair.Queue[int]

// drive gives envelopes of the sizes in envelope to whoever's turn it is, and
// returns what each campaign got.
func drive(q *queue, envelope map[string]int, recipients int) map[string]int {
	got := make(map[string]int)
	for given := 0; given < recipients; {
		f := q.Next(nil)
		if f == nil {
			break
		}
		n := envelope[f.Campaign]
		q.Charge(f, n)
		got[f.Campaign] += n
		given += n
	}
	return got
}

func begin(q *queue, campaign string, weight int, urgent bool) *fair.Flow[int] {
	f := q.Flow(campaign)
	q.Set(f, weight, urgent)
	q.Begin(f)
	return f
}

func TestWeightsShareRecipientsWhateverTheEnvelopes(t *testing.T) {
	var q queue
	begin(&q, "one", 100, false)
	begin(&q, "three", 300, false)
	got := drive(&q, map[string]int{"one": 100, "three": 7}, 400_000)
	if share := float64(got["one"]) / 400_000; math.Abs(share-0.25) > 0.001 {
		t.Errorf("weight 100 beside 300 got %.4f of the recipients, want a quarter: %v", share, got)
	}
}

func TestUrgentCampaignsComeFirstAndShareByWeight(t *testing.T) {
	var q queue
	begin(&q, "bulk", 1000, false)
	begin(&q, "reset", 100, true)
	begin(&q, "code", 200, true)
	got := drive(&q, map[string]int{"bulk": 1, "reset": 1, "code": 1}, 3000)
	if got["bulk"] != 0 || got["reset"] != 1000 || got["code"] != 2000 {
		t.Errorf("got %v, want 1,000 for reset, 2,000 for code and nothing for bulk", got)
	}
	q.End(q.Flow("reset"))
	q.End(q.Flow("code"))
	if f := q.Next(nil); f == nil || f.Campaign != "bulk" {
		t.Error("bulk is not next when no urgent campaign has anything")
	}
}

func TestANewcomerNeitherStarvesTheOthersNorWaits(t *testing.T) {
	var q queue
	begin(&q, "old", 100, false)
	drive(&q, map[string]int{"old": 100}, 1_000_000)
	begin(&q, "new", 100, false)
	got := drive(&q, map[string]int{"old": 100, "new": 100}, 1000)
	if math.Abs(float64(got["old"]-got["new"])) > 200 {
		t.Errorf("after a million of the old one the next thousand went %v, want halves", got)
	}
}

func TestNobodyGainsByPausingAfterEachEnvelope(t *testing.T) {
	var q queue
	begin(&q, "steady", 100, false)
	got := make(map[string]int)
	for range 10_000 {
		begin(&q, "jumpy", 100, false)
		f := q.Next(nil)
		q.Charge(f, 10)
		got[f.Campaign] += 10
		q.End(q.Flow("jumpy"))
	}
	if math.Abs(float64(got["steady"]-got["jumpy"])) > 20 {
		t.Errorf("got %v, want halves", got)
	}
}

func TestWhoCannotTakeIsPassedOver(t *testing.T) {
	var q queue
	begin(&q, "a", 100, true)
	begin(&q, "b", 100, false)
	f := q.Next(func(f *fair.Flow[int]) bool { return f.Campaign != "a" })
	if f == nil || f.Campaign != "b" {
		t.Errorf("next is %v, want b", f)
	}
	if f := q.Next(func(*fair.Flow[int]) bool { return false }); f != nil {
		t.Errorf("next is %v where none can take anything", f)
	}
}

func TestAFlowThatIsNotAheadIsForgotten(t *testing.T) {
	var q queue
	f := begin(&q, "a", 100, false)
	f.Value = 7
	q.End(f)
	if q.Flow("a").Value != 0 {
		t.Error("a flow without a debt was kept")
	}
	f = begin(&q, "a", 100, false)
	f.Value = 7
	q.Charge(f, 10)
	q.End(f)
	if q.Flow("a").Value != 7 {
		t.Error("a flow that is ahead was forgotten, and its debt with it")
	}
}

// While two campaigns of a class both have something, what they get for their
// weight never differs by more than an envelope of each, whatever others do.
func TestSharesAreFairOverEveryInterval(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		const most = 100
		var q queue
		weights := make(map[string]int)
		urgent := make(map[string]bool)
		has := make(map[string]bool)
		got := make(map[string]float64)     // for each unit of weight
		base := make(map[[2]string]float64) // got[a]-got[b] when both began
		names := []string{"a", "b", "c", "d"}
		for _, n := range names {
			weights[n] = rapid.IntRange(1, 1000).Draw(t, "weight "+n)
			urgent[n] = rapid.Bool().Draw(t, "urgent "+n)
		}
		for range rapid.IntRange(1, 300).Draw(t, "steps") {
			if rapid.IntRange(0, 3).Draw(t, "what") == 0 {
				n := rapid.SampledFrom(names).Draw(t, "who")
				if has[n] {
					q.End(q.Flow(n))
				} else {
					begin(&q, n, weights[n], urgent[n])
					for _, o := range names {
						base[[2]string{n, o}], base[[2]string{o, n}] = got[n]-got[o], got[o]-got[n]
					}
				}
				has[n] = !has[n]
				continue
			}
			f := q.Next(nil)
			if f == nil {
				for _, n := range names {
					if has[n] {
						t.Fatalf("%s has something and nobody is next", n)
					}
				}
				continue
			}
			if !has[f.Campaign] {
				t.Fatalf("%s is next and has nothing", f.Campaign)
			}
			size := rapid.IntRange(1, most).Draw(t, "envelope")
			q.Charge(f, size)
			got[f.Campaign] += float64(size) / float64(weights[f.Campaign])
			for _, o := range names {
				if !has[o] || o == f.Campaign {
					continue
				}
				if urgent[o] && !urgent[f.Campaign] {
					t.Fatalf("%s was served before %s, which is urgent", f.Campaign, o)
				}
				if urgent[o] != urgent[f.Campaign] {
					continue
				}
				ahead := got[f.Campaign] - got[o] - base[[2]string{f.Campaign, o}]
				bound := most/float64(weights[o]) + most/float64(weights[f.Campaign])
				if ahead > bound+1e-6 {
					t.Fatalf("%s is %.4f ahead of %s for its weight, the bound is %.4f", f.Campaign, ahead, o, bound)
				}
			}
		}
	})
}

func BenchmarkNextOfFiveHundred(b *testing.B) {
	var q queue
	for i := range 500 {
		begin(&q, fmt.Sprint(i), 100, false)
	}
	b.ReportAllocs()
	for b.Loop() {
		q.Charge(q.Next(nil), 1000)
	}
}
