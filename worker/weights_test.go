package worker_test

import (
	"fmt"
	"math"
	"testing"

	"bulkmail/envelope"
	"bulkmail/relay"
	"bulkmail/relay/sink"
	"bulkmail/subjects"
	"bulkmail/testdata/testrun"
	"bulkmail/worker"
)

// While relays keep up, that is. One that has no free session, or none yet, is
// passed over and not waited for; with work for more sessions than there are, it
// is they that share.
func TestRelaysThatKeepUpShareMessagesByTheirWeights(t *testing.T) {
	t.Parallel()
	const warm, size = 100, 100
	batches := testrun.InFull(1000, 400)
	h := newHouse(t)
	l := &ledger{tail: h.tail(t, h.names.OutcomesStream(), h.names.CampaignOutcomes("c")), newest: make(map[string]outcome)}
	weights := []int{100, 300, 600}
	var posts []*postOffice
	var relays []relay.Relay
	for _, w := range weights {
		post := openSink(t, sink.Options{})
		posts = append(posts, post)
		relays = append(relays, post.relay(t, func(c *relay.Config) { c.Name, c.MaxMessagesPerRobin = fmt.Sprint("of ", w), w }))
	}
	e := h.hire(t, worker.Options{Batches: 3}, relays...)
	send := func(from, to int) (shares []float64) {
		before := make([]int64, len(posts))
		for i, p := range posts {
			before[i] = p.Counts().Accepted
		}
		for i := from; i < to; i++ {
			h.publish(t, "c", envelope.Batch{ID: fmt.Sprint(i), Recipients: envelope.To(people(size, fmt.Sprintf("d%d.test", i))...)})
		}
		for range to - from {
			l.until(subjects.Done)
		}
		for i, p := range posts {
			shares = append(shares, float64(p.Counts().Accepted-before[i])/float64((to-from)*size))
		}
		return shares
	}
	send(0, warm) // sessions are opened
	shares := send(warm, warm+batches)
	e.leave(t)
	t.Logf("shares %.4f of %d for weights %v", shares, batches*size, weights)
	for i, w := range weights {
		if math.Abs(shares[i]-float64(w)/1000) > 0.01 {
			t.Errorf("the relay of weight %d has a share of %.4f", w, shares[i])
		}
	}
}
