// Package brokertest has brokers for tests: real ones, in this process, on a
// free port of loopback, that end with the test.
package brokertest

import (
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"go.uber.org/goleak"

	"bulkmail/subjects/broker"
)

// waitAtMost is how long a broker may take to be ready.
const waitAtMost = time.Minute

// Start starts a broker with nothing on it. change may set other options.
func Start(t testing.TB, change ...func(*broker.Options)) *broker.Server {
	t.Helper()
	o := broker.Options{Listen: "127.0.0.1:0", Dir: t.TempDir(), Log: slog.New(slog.DiscardHandler)}
	for _, f := range change {
		f(&o)
	}
	b, err := broker.Start(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := b.Close(); err != nil {
			t.Error(err)
		}
	})
	return b
}

// Connect is a client of one broker, or of the members of a cluster, that comes
// back at once when they do.
func Connect(t testing.TB, urls ...string) jetstream.JetStream {
	t.Helper()
	nc, err := nats.Connect(strings.Join(urls, ","), nats.MaxReconnects(-1), nats.ReconnectWait(5*time.Millisecond), nats.ReconnectJitter(0, 0))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(nc.Close)
	js, err := jetstream.New(nc)
	if err != nil {
		t.Fatal(err)
	}
	return js
}

// LeftByNATS lets goleak pass over what the NATS client leaves behind now and then:
// whoever puts an object makes a goroutine that is to end with it, but that waits for
// ever where it does not run before all is put.
func LeftByNATS() goleak.Option {
	return goleak.IgnoreTopFunction("github.com/nats-io/nats.go/jetstream.(*jetStream).resetPendingAcksOnReconnect")
}

// StartWithout starts a broker without JetStream.
func StartWithout(t testing.TB) (url string) {
	t.Helper()
	return start(t, &server.Options{})
}

// StartSmall starts a broker that takes messages of so many octets at most.
func StartSmall(t testing.TB, maxPayload int32) (url string) {
	t.Helper()
	return start(t, &server.Options{JetStream: true, StoreDir: t.TempDir(), MaxPayload: maxPayload})
}

func start(t testing.TB, o *server.Options) (url string) {
	t.Helper()
	o.Host, o.Port, o.NoLog, o.NoSigs = "127.0.0.1", server.RANDOM_PORT, true, true
	s, err := server.NewServer(o)
	if err != nil {
		t.Fatal(err)
	}
	s.Start()
	t.Cleanup(func() {
		s.Shutdown()
		s.WaitForShutdown()
	})
	if !s.ReadyForConnections(waitAtMost) {
		t.Fatal("the broker is not ready")
	}
	return s.ClientURL()
}
