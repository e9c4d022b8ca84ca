//go:build crash

package crash_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"time"
)

// A cluster is three brokers that hold every stream three times.
type cluster struct {
	t       testing.TB
	members []*brokerProcess
}

func startCluster(t testing.TB) *cluster {
	t.Helper()
	c := &cluster{t: t}
	var routes, listen []string
	for range 3 {
		listen = append(listen, freeAddr(t))
		routes = append(routes, "nats://"+listen[len(listen)-1])
	}
	for i := range 3 {
		name := fmt.Sprintf("n%d", i)
		c.members = append(c.members, newBrokerProcess(t, name, freeAddr(t),
			brokerName+"="+name, brokerCluster+"="+listen[i], brokerRoutes+"="+strings.Join(routes, ",")))
	}
	for _, m := range c.members {
		m.start()
	}
	return c
}

func (c *cluster) addrs() (list []string) {
	for _, m := range c.members {
		list = append(list, m.addr)
	}
	return list
}

func (c *cluster) urls() (list []string) {
	for _, m := range c.members {
		list = append(list, m.url())
	}
	return list
}

// poll tries until ok, which asks the cluster, says so.
func poll(t testing.TB, what string, ok func(context.Context) bool) {
	t.Helper()
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for deadline := time.Now().Add(waitAtMost); ; <-tick.C {
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		done := ok(ctx)
		cancel()
		if done {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("waited in vain for %s", what)
		}
	}
}

// leader returns the member that leads what is asked for.
func (c *cluster) leader(h *fixture, what string) *brokerProcess {
	c.t.Helper()
	var leader *brokerProcess
	poll(c.t, "a leader of the "+what, func(ctx context.Context) bool {
		var name string
		switch what {
		case "queue", "journal":
			stream := h.names.BatchesStream()
			if what == "journal" {
				stream = h.names.OutcomesStream()
			}
			if s, err := h.js.Stream(ctx, stream); err == nil && s.CachedInfo().Cluster != nil {
				name = s.CachedInfo().Cluster.Leader
			}
		case "consumer":
			if s, err := h.js.Consumer(ctx, h.names.BatchesStream(), "workers"); err == nil && s.CachedInfo().Cluster != nil {
				name = s.CachedInfo().Cluster.Leader
			}
		}
		for _, m := range c.members {
			if m.name == name {
				leader = m
			}
		}
		return leader != nil
	})
	return leader
}

// whole waits until every copy of the streams is current, so that the next
// member may be killed.
func (c *cluster) whole(h *fixture) {
	c.t.Helper()
	for _, stream := range []string{h.names.BatchesStream(), h.names.OutcomesStream()} {
		poll(c.t, stream+" to be whole", func(ctx context.Context) bool {
			s, err := h.js.Stream(ctx, stream)
			if err != nil || s.CachedInfo().Cluster == nil || s.CachedInfo().Cluster.Leader == "" {
				return false
			}
			current := 0
			for _, r := range s.CachedInfo().Cluster.Replicas {
				if r.Current && !r.Offline {
					current++
				}
			}
			return current == 2
		})
	}
}

const leaderKills = 3 // of the queue, the journal and the consumer

func TestLeadersKilledInTurnLoseNobody(t *testing.T) {
	c := startCluster(t)
	s := openSink(t)
	f := newFleet(t, s, c.addrs(), "BULKMAIL_REPLICAS=3")
	s.open(t)
	h := join(t, c.urls(), 3)
	stop := h.load(t, 40, false)
	defer stop()
	for range 3 {
		f.startWorker()
	}
	var outages []outage
	for i := range leaderKills {
		h.progress(t, 20)
		what := []string{"queue", "journal", "consumer"}[i%3]
		m := c.leader(h, what)
		m.kill()
		o := outage{down: time.Now()}
		h.progress(t, 20)
		went := time.Since(o.down)
		m.start()
		c.whole(h)
		o.up = time.Now()
		t.Logf("leader of the %s killed; longest time without an envelope %v, batches done again after %v, whole again after %v", what, s.silence(o).Round(time.Millisecond), went.Round(time.Millisecond), o.up.Sub(o.down).Round(time.Millisecond))
		outages = append(outages, o)
	}
	stop()
	h.settle(t)
	f.dismissAll()

	a := h.settleAccounts(t, "replicas 3", f, during(outages))
	a.kills[atRandom] = len(outages)
	table("leader killed with -9", nil, "kill", a)
	a.check(t)
}

// progress waits until some more batches are done.
func (h *fixture) progress(t testing.TB, atMost int) {
	t.Helper()
	h.ledger.mu.Lock()
	seen := len(h.ledger.done) + 1 + rand.IntN(atMost)
	h.ledger.mu.Unlock()
	h.ledger.wait(t, waitAtMost, "batches to be done", func() bool { return len(h.ledger.done) >= seen })
}

// trespasses counts the envelopes that a worker began, and those that it ended,
// when somebody else had claimed the batch.
func (h *fixture) trespasses(s *sink, p *process) (begun, ended int) {
	h.ledger.mu.Lock()
	defer h.ledger.mu.Unlock()
	for _, tx := range s.begun(p.name) {
		if len(tx.recipients) == 0 {
			continue
		}
		batch := batchOf(tx.recipients[0])
		if holder := h.ledger.holderAt(batch, tx.begun); holder != "" && holder != p.pid() {
			begun++
		}
		if holder := h.ledger.holderAt(batch, tx.ended); !tx.ended.IsZero() && holder != "" && holder != p.pid() {
			ended++
		}
	}
	return begun, ended
}

// batchOf is the batch of a recipient that batch made up.
func batchOf(recipient string) string {
	number, _, _ := strings.Cut(strings.TrimLeft(recipient, "abcdefghijklmnopqrstuvwxyz"), "-")
	return "b" + number
}

func TestAWorkerCutOffFromTheClusterBeginsNothingAfterItsLease(t *testing.T) {
	c := startCluster(t)
	s := openSink(t)
	f := newFleet(t, s, c.addrs(), "BULKMAIL_REPLICAS=3")
	s.open(t)
	h := join(t, c.urls(), 3)
	stop := h.load(t, 40, false)
	defer stop()
	workers := []*process{f.startWorker(), f.startWorker()}
	var outages []outage
	for i := range 4 {
		h.progress(t, 20)
		h.working(t, workers[i%2])
		p := workers[i%2]
		p.cut()
		o := outage{down: time.Now()}
		taken := h.ledger.takenOver(t, p, o.down)
		<-time.After(ackWait)
		o.up = time.Now()
		late := 0
		for _, tx := range s.begun(p.name) {
			if tx.begun.After(o.down.Add(ackWait+margin)) && tx.begun.Before(o.up) || tx.ended.After(o.down.Add(ackWait+margin)) && tx.ended.Before(o.up) {
				late++
				t.Errorf("an envelope after the lease ended, cut at %s:%s", o.down.Format("15:04:05.000"), tx)
			}
		}
		t.Logf("%s cut off; taken over after %v, mended after %v; envelopes begun or ended after the lease: %d",
			p.name, taken.Sub(o.down).Round(time.Millisecond), o.up.Sub(o.down).Round(time.Millisecond), late)
		p.mend()
		outages = append(outages, o)
	}
	stop()
	h.settle(t)
	f.dismissAll()
	for _, p := range workers {
		if begun, ended := h.trespasses(s, p); begun+ended > 0 {
			t.Errorf("%s began %d and ended %d envelopes of batches that somebody else had claimed", p.name, begun, ended)
		}
	}

	a := h.settleAccounts(t, "cut off", f, during(outages))
	a.kills[atRandom] = len(outages)
	table("a worker cut off from the cluster", nil, "cut", a)
	a.check(t)
}

// margin is the time that bytes may be on their way within this host.
const margin = 50 * time.Millisecond

// working waits until the worker has begun an envelope from now on.
func (h *fixture) working(t testing.TB, p *process) {
	t.Helper()
	h.ledger.mu.Lock()
	seen := len(h.ledger.claims)
	h.ledger.mu.Unlock()
	h.ledger.wait(t, waitAtMost, p.name+" to claim something", func() bool {
		for _, c := range h.ledger.claims[seen:] {
			if c.pid == p.pid() {
				return true
			}
		}
		return false
	})
}
