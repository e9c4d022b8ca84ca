package fleet

import (
	"bytes"
	"log/slog"
	"strings"
	"testing"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// A broker may be without JetStream for long, while a cluster finds a leader.
func TestABrokerThatIsNotReadyIsToldOfOnce(t *testing.T) {
	t.Parallel()
	s, err := server.NewServer(&server.Options{Host: "127.0.0.1", Port: server.RANDOM_PORT, NoLog: true, NoSigs: true})
	if err != nil {
		t.Fatal(err)
	}
	s.Start()
	t.Cleanup(func() {
		s.Shutdown()
		s.WaitForShutdown()
	})
	if !s.ReadyForConnections(patience) {
		t.Fatal("the broker is not ready")
	}
	nc, err := nats.Connect(s.ClientURL())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(nc.Close)
	asked := make(chan struct{}, 100)
	if _, err := nc.Subscribe("$JS.API.STREAM.INFO.>", func(m *nats.Msg) {
		_ = m.Respond([]byte(`{"error":{"code":503,"err_code":10008,"description":"JetStream system temporarily unavailable"}}`))
		asked <- struct{}{}
	}); err != nil {
		t.Fatal(err)
	}
	js, err := jetstream.New(nc)
	if err != nil {
		t.Fatal(err)
	}
	var log bytes.Buffer // read when nobody writes any more
	f := New(js, "relays", Options{Worker: "w", Log: slog.New(slog.NewTextHandler(&log, nil))})
	for range 4 {
		<-asked
	}
	if err := f.Close(t.Context()); err != nil {
		t.Error(err)
	}
	if n := strings.Count(log.String(), "relays not followed, trying on"); n != 1 {
		t.Errorf("told %d times:\n%s", n, log.String())
	}
}
