//go:build scale

package journal_test

import (
	"fmt"
	"log/slog"
	"net"
	"net/url"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"

	"bulkmail/subjects"
	"bulkmail/subjects/broker/brokertest"
	"bulkmail/worker/journal"
)

// TestScaleHowManyBatchesAJournalTakes prints what one journal stream takes with
// one replica and with three, each with writes that are synced and not: batches
// of 1,000, each with a claim and an entry with all results, 32 at once. Three
// servers share this machine, so that a cluster of machines does better.
//
//	go test -tags scale -count=1 -v -run Scale ./worker/journal
func TestScaleHowManyBatchesAJournalTakes(t *testing.T) {
	list := make([]string, 1000)
	for i := range list {
		list[i] = fmt.Sprintf("recipient%07d@domain%03d.test", i, i/100)
	}
	for _, replicas := range []int{1, 3} {
		for _, sync := range []bool{false, true} {
			address := startCluster(t, replicas, sync)
			js := brokertest.Connect(t, address)
			o := subjects.Options{AckWait: time.Minute, OutcomesMaxAge: time.Hour, Replicas: replicas}
			await(t, func() error {
				return subjects.Provision(t.Context(), js, subjects.Names{}, o, slog.New(slog.DiscardHandler))
			})
			n, took := journals(t, address, 32, 3*time.Second, list)
			t.Logf("replicas %d, synced %-5v: %4.0f batches/s, %4.0f appends/s", replicas, sync, float64(n)/took.Seconds(), 2*float64(n)/took.Seconds())
		}
	}
}

// journals begins and ends batches for so long, so many at once.
func journals(t *testing.T, address string, atOnce int, long time.Duration, list []string) (n int64, took time.Duration) {
	var done atomic.Int64
	var all sync.WaitGroup
	began := time.Now()
	for i := range atOnce {
		j := open(t, address, fmt.Sprint("w", i))
		all.Go(func() {
			for k := 0; time.Since(began) < long; k++ {
				s, err := j.Read(t.Context(), "scale", fmt.Sprintf("%d-%d", i, k))
				if err != nil {
					t.Error(err)
					return
				}
				h, err := j.Claim(t.Context(), s, journal.Delivery{Sequence: 1, Count: 1}, nil)
				if err != nil {
					t.Error(err)
					return
				}
				h.Record(said(subjects.Results{Status: subjects.Accepted, Relay: "primary", Code: 250, Text: "2.0.0 Ok", Recipients: list}))
				if err := h.Close(t.Context(), true); err != nil {
					t.Error(err)
					return
				}
				done.Add(1)
			}
		})
	}
	all.Wait()
	return done.Load(), time.Since(began)
}

// startCluster starts one server, or a cluster of three, in this process.
func startCluster(t *testing.T, servers int, sync bool) (address string) {
	t.Helper()
	var routes []*url.URL // all know all: a cluster wants to know how many it will be
	var ports []int
	for range servers {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		ports = append(ports, l.Addr().(*net.TCPAddr).Port)
		routes = append(routes, &url.URL{Scheme: "nats-route", Host: l.Addr().String()})
		_ = l.Close()
	}
	var all []*server.Server
	for i := range servers {
		o := &server.Options{
			ServerName: fmt.Sprint("n", i), Host: "127.0.0.1", Port: server.RANDOM_PORT,
			JetStream: true, StoreDir: t.TempDir(), SyncAlways: sync, NoSigs: true, NoLog: true,
		}
		if servers > 1 {
			o.Cluster = server.ClusterOpts{Name: "scale", Host: "127.0.0.1", Port: ports[i]}
			o.Routes = routes
		}
		s, err := server.NewServer(o)
		if err != nil {
			t.Fatal(err)
		}
		s.Start()
		t.Cleanup(func() {
			s.Shutdown()
			s.WaitForShutdown()
		})
		all = append(all, s)
	}
	for _, s := range all {
		if !s.ReadyForConnections(waitAtMost) {
			t.Fatal("a server is not ready")
		}
		address = s.ClientURL()
	}
	js := brokertest.Connect(t, address)
	await(t, func() error {
		_, err := js.AccountInfo(t.Context())
		return err
	})
	return address
}

// await tries until it works: a cluster that has just begun elects its leaders.
func await(t *testing.T, try func() error) {
	t.Helper()
	deadline := time.Now().Add(waitAtMost)
	for {
		err := try()
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			t.Fatal(err)
		}
		time.Sleep(50 * time.Millisecond) // nothing tells of it
	}
}
