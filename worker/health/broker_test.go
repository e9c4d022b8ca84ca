package health_test

import (
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"
	"go.uber.org/goleak"

	"bulkmail/subjects"
	"bulkmail/subjects/broker/brokertest"
	"bulkmail/worker/health"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func connect(t *testing.T) jetstream.JetStream {
	t.Helper()
	return brokertest.Connect(t, brokertest.Start(t).URL())
}

func provision(t *testing.T, js jetstream.JetStream, n subjects.Names) {
	t.Helper()
	if err := subjects.Provision(t.Context(), js, n, subjects.Options{AckWait: 30 * time.Second}, slog.New(slog.DiscardHandler)); err != nil {
		t.Fatal(err)
	}
}

func TestWhatIsMissingOnTheBrokerIsNamed(t *testing.T) {
	t.Parallel()
	js := connect(t)
	var names subjects.Names
	says := func(want string) {
		t.Helper()
		got := ""
		if err := health.NewBroker(js, names).Streams(t.Context()); err != nil {
			got = err.Error()
		}
		if got != want {
			t.Errorf("says %q, want %q", got, want)
		}
	}
	says("BULKMAIL_BATCHES: not there")
	provision(t, js, names)
	says("")
	if err := js.DeleteStream(t.Context(), names.DeadStream()); err != nil {
		t.Fatal(err)
	}
	says("BULKMAIL_DEAD: not there")
	provision(t, js, names)
	if err := js.DeleteConsumer(t.Context(), names.BatchesStream(), subjects.Consumer); err != nil {
		t.Fatal(err)
	}
	says("consumer workers of BULKMAIL_BATCHES: not there")
	js.Conn().Close()
	if err := health.NewBroker(js, names).Streams(t.Context()); err == nil {
		t.Error("all is there without a connection")
	}
}

func TestTheBrokerIsAskedOnceHoweverManyAsk(t *testing.T) {
	t.Parallel()
	js := connect(t)
	var names subjects.Names
	provision(t, js, names)
	for range 3 {
		if _, err := js.Publish(t.Context(), names.Batches("c"), []byte("{}")); err != nil {
			t.Fatal(err)
		}
	}
	// The consumer learns of what is stored a moment later.
	for waiting := uint64(0); waiting < 3; {
		c, err := js.Consumer(t.Context(), names.BatchesStream(), subjects.Consumer)
		if err != nil {
			t.Fatal(err)
		}
		waiting = c.CachedInfo().NumPending
	}
	b := health.NewBroker(js, names)
	before := js.Conn().Stats().OutMsgs
	for range 100 {
		got, err := b.Backlog(t.Context())
		if err != nil || got != (health.Backlog{Waiting: 3}) {
			t.Fatalf("%+v, %v", got, err)
		}
	}
	if n := js.Conn().Stats().OutMsgs - before; n != 1 {
		t.Errorf("%d questions about the backlog", n)
	}
	for range 100 {
		if err := b.Streams(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	if n := js.Conn().Stats().OutMsgs - before; n != 4 { // and one for each stream
		t.Errorf("%d questions", n)
	}
}

func TestABrokerThatIsSilentIsToldInTime(t *testing.T) {
	t.Parallel()
	js := connect(t)
	deaf, err := jetstream.NewWithAPIPrefix(js.Conn(), "nobody.listens")
	if err != nil {
		t.Fatal(err)
	}
	// Somebody takes the question and never answers.
	sub, err := js.Conn().SubscribeSync("nobody.listens.>")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = sub.Unsubscribe() }()
	began := time.Now()
	err = health.NewBroker(deaf, subjects.Names{}).Streams(t.Context())
	if err == nil || !strings.HasSuffix(err.Error(), "BULKMAIL_BATCHES: no answer in time") || time.Since(began) > 4*time.Second {
		t.Errorf("says %v after %v", err, time.Since(began))
	}
}
