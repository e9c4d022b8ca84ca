package fleet

import (
	"bytes"
	"log/slog"
	"strings"
	"testing"

	"bulkmail/subjects/broker/brokertest"

	"github.com/nats-io/nats.go"
)

// A broker may be without JetStream for long, while a cluster finds a leader.
func TestABrokerThatIsNotReadyIsToldOfOnce(t *testing.T) {
	t.Parallel()
	js := brokertest.Connect(t, brokertest.StartWithout(t))
	asked := make(chan struct{}, 100)
	if _, err := js.Conn().Subscribe("$JS.API.STREAM.INFO.>", func(m *nats.Msg) {
		_ = m.Respond([]byte(`{"error":{"code":503,"err_code":10008,"description":"JetStream system temporarily unavailable"}}`))
		asked <- struct{}{}
	}); err != nil {
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
