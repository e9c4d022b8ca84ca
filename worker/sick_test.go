package worker_test

import (
	"fmt"
	"net"
	"os"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"bulkmail/envelope"
	"bulkmail/relay"
	"bulkmail/relay/sink"
	"bulkmail/subjects"
	"bulkmail/worker"
)

// hanging is a server that takes connections and never says anything.
func hanging(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var accepting sync.WaitGroup
	var conns []net.Conn
	accepting.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			conns = append(conns, c)
		}
	})
	t.Cleanup(func() {
		_ = l.Close()
		accepting.Wait()
		for _, c := range conns {
			_ = c.Close()
		}
	})
	return l.Addr().String()
}

// send has a worker send batches over relays, and returns how long that took.
// Everybody must be accepted at the first attempt.
func send(t *testing.T, batches int, relays ...relay.Relay) time.Duration {
	t.Helper()
	const size = 200
	h := newHouse(t)
	var ledgers []*ledger
	for i := range batches {
		id := fmt.Sprintf("%04d", i)
		domains := []string{"a.test", "b.test", "c.test", "d.test", "e.test"}
		h.publish(t, "c", envelope.Batch{ID: id, Recipients: envelope.To(people(size, domains...)...)})
		ledgers = append(ledgers, h.ledger(t, "c", id))
	}
	began := time.Now()
	e := h.hire(t, worker.Options{Name: "w"}, relays...)
	for i, l := range ledgers {
		done := l.until(subjects.Done)
		if done.Attempt != 1 || l.tally()[subjects.Accepted] != size {
			t.Errorf("batch %d took %d attempts: %v", i, done.Attempt, l.tally())
		}
	}
	took := time.Since(began)
	e.leave(t)
	return took
}

// BULKMAIL_SICK_BATCHES is how many batches of 200 are sent, so that the sick
// relays are probed in vain, and that the time can be judged: 20.
func TestSickRelaysCostNobodyAnAttempt(t *testing.T) {
	batches, long := 20, false
	if s := os.Getenv("BULKMAIL_SICK_BATCHES"); s != "" {
		var err error
		if batches, err = strconv.Atoi(s); err != nil {
			t.Fatal(err)
		}
		long = batches >= 500
	}
	t.Parallel()
	named := func(name string) func(*relay.Config) {
		return func(c *relay.Config) { c.Name, c.MaxMessagesPerRobin = name, 100 }
	}
	healthy := func() []relay.Relay {
		var relays []relay.Relay
		for _, name := range []string{"healthy", "well"} {
			post := openSink(t, sink.Options{Delay: 40 * time.Millisecond})
			relays = append(relays, post.relay(t, named(name)))
		}
		return relays
	}
	alone := send(t, batches, healthy()...)

	var dying *postOffice
	var taken atomic.Int32
	drop := parseRules(t, "MAIL:*=drop", "CONNECT:*=drop")
	dying = openSink(t, sink.Options{Recorder: func(sink.Transaction) {
		if taken.Add(1) == 10 {
			dying.SetRules(drop)
		}
	}})
	busy := openSink(t, sink.Options{}, "CONNECT:*=421 4.3.2 too busy")
	throttling := openSink(t, sink.Options{}, "DATA:*=454 4.7.0 throttled")
	locked := openSink(t, sink.Options{User: "bulk", Password: "right"})
	sick := append([]relay.Relay{
		dying.relay(t, named("dying")),
		busy.relay(t, named("busy")),
		throttling.relay(t, named("throttling")),
		locked.relay(t, named("locked"), func(c *relay.Config) { c.User, c.Password, c.AuthInClear = "bulk", "wrong", true }),
		smtpRelay(t, "hanging", hanging(t), named("hanging")),
	}, healthy()...)
	beside := send(t, batches, sick...)
	t.Logf("healthy relays alone %v, beside sick ones %v", alone.Round(time.Millisecond), beside.Round(time.Millisecond))
	if taken.Load() < 10 {
		t.Errorf("the dying relay took %d messages, it was to die after 10", taken.Load())
	}
	// Within 10 % is what is wanted; a busy machine and a short time are given
	// more.
	if beside > alone*3/2+time.Second || long && beside > alone*11/10 {
		t.Errorf("healthy relays alone took %v, beside sick ones %v", alone, beside)
	}
}
