//go:build compose

package cluster_test

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"
)

// A window is the time around an event in which what was accepted may not have
// got on record: envelopes in flight, and those begun before the worker noticed.
type window struct {
	what     string
	from, to time.Time
}

// slack is for what is in flight before an event, and until it is noticed: the
// longest transaction and a worker's notice, a quarter of a second each, on a busy
// machine.
const slack = 1500 * time.Millisecond

// cutFor is longer than the ack wait: somebody else takes over what the worker has,
// and when it comes back it is fenced off.
const cutFor = 32 * time.Second

func TestAStormLosesNobodyAndDoublesOnlyWhoWasInFlight(t *testing.T) {
	v := visit(t)
	js, err := jetstream.New(v.connect(t, "publisher"))
	if err != nil {
		t.Fatal(err)
	}
	healthy(t, "worker", 2)
	relays := []*sink{followSink(t, "relay-1"), followSink(t, "relay-2")}
	l := startLoad(t, relays...)
	var windows []window
	during := func(what string, do func()) {
		t.Helper()
		l.progress()
		from := time.Now()
		do()
		windows = append(windows, window{what, from.Add(-slack), time.Now().Add(slack)})
		l.progress()
		t.Logf("%s, %d taken so far", what, l.taken())
	}

	var server string
	during("NATS server killed, the leader of the journal", func() {
		server = leader(t, js, "BULKMAIL_OUTCOMES")
		docker(t, "docker", "kill", one(t, server).ID)
	})
	docker(t, "docker", "start", one(t, server).ID)
	healthy(t, server, 1)
	whole(t, js)

	worker := containers(t, "worker")[0]
	during("worker killed", func() { docker(t, "docker", "kill", worker.ID) })
	docker(t, "docker", "start", worker.ID)
	healthy(t, "worker", 2)

	worker = containers(t, "worker")[1]
	network := worker.project() + "_broker"
	during("worker cut off from the cluster", func() { docker(t, "docker", "network", "disconnect", network, worker.ID) })
	<-time.After(cutFor)
	docker(t, "docker", "network", "connect", network, worker.ID)
	healthy(t, "worker", 2)

	// Nobody may be sent to twice because of what follows: no window.
	worker = containers(t, "worker")[0]
	docker(t, "docker", "stop", worker.ID)
	if state := containers(t, "worker")[0].State; state.Running || state.ExitCode != 0 {
		t.Errorf("a worker that was stopped in the midst of the list ended with %+v", state)
	}
	docker(t, "docker", "start", worker.ID)
	healthy(t, "worker", 2)
	l.progress()
	t.Logf("worker stopped, %d taken so far", l.taken())
	for _, n := range []int{4, 2} {
		l.progress()
		docker(t, "docker-compose", "up", "-d", "--no-recreate", "--scale", fmt.Sprintf("worker=%d", n))
		healthy(t, "worker", n)
		l.progress()
		t.Logf("%d workers, %d taken so far", n, l.taken())
	}
	list := l.stop()
	t.Logf("the publisher's closing table\n%s", l.said.String())
	settle(t, list, outcomes(t), accepted(t, relays...), windows)
	quiet(t)
}

// leader is the server that leads a stream.
func leader(t testing.TB, js jetstream.JetStream, stream string) (name string) {
	t.Helper()
	until(t, "a leader of "+stream, func() bool {
		info := streamInfo(t, js, stream)
		if info == nil || info.Cluster == nil {
			return false
		}
		name = info.Cluster.Leader
		return name != ""
	})
	return name
}

// whole waits until every copy of the streams is current.
func whole(t testing.TB, js jetstream.JetStream) {
	t.Helper()
	for _, stream := range []string{"BULKMAIL_BATCHES", "BULKMAIL_OUTCOMES", "BULKMAIL_DEAD", "KV_bulkmail-campaigns", "KV_bulkmail-relays", "OBJ_bulkmail-messages"} {
		until(t, stream+" to be whole", func() bool {
			info := streamInfo(t, js, stream)
			if info == nil || info.Cluster == nil || info.Cluster.Leader == "" {
				return false
			}
			current := 0
			for _, r := range info.Cluster.Replicas {
				if r.Current && !r.Offline {
					current++
				}
			}
			return current == 2
		})
	}
}

func streamInfo(t testing.TB, js jetstream.JetStream, stream string) *jetstream.StreamInfo {
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
	defer cancel()
	s, err := js.Stream(ctx, stream)
	if err != nil {
		return nil
	}
	return s.CachedInfo()
}

// outcomes are the final statuses of the list by recipient.
func outcomes(t testing.TB) map[string][]string {
	t.Helper()
	all := make(map[string][]string)
	out := docker(t, "docker-compose", "run", "--rm", "-T", "--no-deps", "demo", "outcomes", campaign, "--format", "json")
	for line := range strings.Lines(out) {
		var o struct{ Recipient, Status string }
		if err := json.Unmarshal([]byte(line), &o); err != nil {
			t.Fatalf("outcomes printed %q: %v", line, err)
		}
		all[o.Recipient] = append(all[o.Recipient], o.Status)
	}
	return all
}

// settle compares the list with the outcomes and with what the sinks took.
func settle(t testing.TB, list []string, outcomes map[string][]string, accepted map[string][]time.Time, windows []window) {
	t.Helper()
	lost, duplicates, stray, inFlight := 0, 0, 0, 0
	by := make(map[string]int)
	for _, recipient := range list {
		got, times := outcomes[recipient], accepted[recipient]
		if !slices.Equal(got, []string{"accepted"}) || len(times) == 0 {
			lost++
			t.Errorf("%s: outcomes %q, taken %d times", recipient, got, len(times))
			continue
		}
		slices.SortFunc(times, time.Time.Compare)
		for i, at := range times {
			w := windowOf(windows, at)
			if w != nil {
				inFlight++
			}
			if i == len(times)-1 {
				continue // the one on record
			}
			duplicates++
			if w == nil {
				stray++
				t.Errorf("%s was taken at %v, and nothing happened then", recipient, times)
				continue
			}
			by[w.what]++
		}
	}
	t.Logf("recipients %d, lost %d, duplicates %d of the %d taken around the events, others %d", len(list), lost, duplicates, inFlight, stray)
	for _, w := range windows {
		t.Logf("  %s: %d duplicates", w.what, by[w.what])
	}
	if len(outcomes) != len(list) {
		t.Errorf("%d recipients have an outcome, %d were published", len(outcomes), len(list))
	}
}

func windowOf(windows []window, at time.Time) *window {
	for i, w := range windows {
		if at.After(w.from) && at.Before(w.to) {
			return &windows[i]
		}
	}
	return nil
}

// quiet reads the logs of everything: nothing broke down, and nobody tried what
// they may not.
func quiet(t testing.TB) {
	t.Helper()
	logs := docker(t, "docker-compose", "logs", "--no-color")
	if !strings.Contains(logs, "attempt over") {
		t.Error("the logs of the workers are not among those that were read")
	}
	for line := range strings.Lines(logs) {
		for _, word := range []string{"panic", "goroutine ", "fatal error", "Permissions Violation"} {
			if strings.Contains(line, word) {
				t.Errorf("logged: %s", line)
			}
		}
	}
}
