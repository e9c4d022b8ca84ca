package runner_test

import (
	"bytes"
	"context"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"go.uber.org/goleak"

	"bulkmail/envelope"
	"bulkmail/relay"
	relayconfig "bulkmail/relay/config"
	"bulkmail/relay/smtp"
	"bulkmail/subjects/broker/brokertest"
	"bulkmail/testdata/testrun"
	"bulkmail/worker/runner"
)

func TestMain(m *testing.M) {
	testrun.AtOnce(6)
	goleak.VerifyTestMain(m, brokertest.LeftByNATS())
}

// waitAtMost bounds every wait; no test waits for it to pass.
const waitAtMost = time.Minute

// onLoopback are options with nothing outside this process but a folder.
func onLoopback(t testing.TB, relays ...relay.Relay) runner.Options {
	return runner.Options{
		Listen: "127.0.0.1:0", DataDir: t.TempDir(), Sync: runner.SyncInterval, HTTP: "127.0.0.1:0", DrainTimeout: 10 * time.Second, Relays: relays,
		ReadRelays: relayconfig.Options{Hostname: func() (string, error) { return "client.test", nil }},
	}
}

// A running worker.
type running struct {
	*runner.Runner
	log  *lines
	js   jetstream.JetStream
	stop func() error // ends it, and says how it ended
}

// run runs a worker, from when it works until the end of the test, or until it is
// stopped.
func run(t *testing.T, o runner.Options) *running {
	t.Helper()
	log := newLines()
	o.Log = log.logger()
	r, err := runner.New(o)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	ended := make(chan error, 1)
	go func() { ended <- r.Run(ctx) }()
	stop := sync.OnceValue(func() error {
		cancel()
		return <-ended
	})
	t.Cleanup(func() {
		if err := stop(); err != nil {
			t.Error(err)
		}
	})
	select {
	case <-r.Started():
	case err := <-ended:
		ended <- err
		t.Fatal("it did not start")
	}
	log.await(t, "msg=working")
	nc, err := nats.Connect(r.Status().Broker)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(nc.Close)
	js, err := jetstream.New(nc)
	if err != nil {
		t.Fatal(err)
	}
	return &running{r, log, js, stop}
}

// publish publishes a batch.
func (r *running) publish(t *testing.T, campaign string, recipients ...string) {
	t.Helper()
	b := envelope.Batch{From: "news@example.com", Recipients: envelope.To(recipients...), Message: "Subject: t\r\n\r\nhi\r\n"}
	if _, err := r.js.Publish(t.Context(), "bulkmail.batches."+campaign, b.AppendJSON(nil)); err != nil {
		t.Fatal(err)
	}
}

// An own relay is one of a user's own: it delivers into a list.
type own struct {
	mu    sync.Mutex // guards what follows
	taken []string
	more  chan struct{} // holds something when taken has grown
}

func newOwn() *own { return &own{more: make(chan struct{}, 1)} }

func (o *own) as(name string, change ...func(*relay.Config)) relay.Relay {
	c := relay.Config{Name: name, EnvelopeLimit: 100, Connections: 1}
	for _, f := range change {
		f(&c)
	}
	return relay.Relay{Config: c, Dialer: o}
}

func (o *own) Dial(context.Context) (relay.Session, error) { return ownSession{o}, nil }

// took waits until these recipients, and nobody else, were taken.
func (o *own) took(t *testing.T, want ...string) {
	t.Helper()
	deadline := time.After(waitAtMost)
	for {
		o.mu.Lock()
		got := slices.Clone(o.taken)
		o.mu.Unlock()
		slices.Sort(got)
		if slices.Equal(got, want) {
			return
		}
		select {
		case <-o.more:
		case <-deadline:
			t.Fatalf("the relay took %v, want %v", got, want)
		}
	}
}

type ownSession struct{ *own }

func (s ownSession) Send(ctx context.Context, e *smtp.Envelope, _ func() *smtp.Envelope) error {
	e.Results = make([]smtp.Result, len(e.Recipients))
	_, err := e.Message.Open(ctx)
	if err != nil {
		return err
	}
	for i := range e.Recipients {
		e.Results[i] = smtp.Result{Status: smtp.Accepted, Reply: &smtp.Reply{Code: 250, Text: "taken"}}
	}
	s.mu.Lock()
	for _, r := range e.Recipients {
		s.taken = append(s.taken, r.Mailbox)
	}
	s.mu.Unlock()
	select {
	case s.more <- struct{}{}:
	default:
	}
	return nil
}

func (ownSession) Usable() bool       { return true }
func (ownSession) MaxRecipients() int { return 0 }
func (ownSession) Close() error       { return nil }

// A log that a test waits for.
type lines struct {
	mu   sync.Mutex // guards what follows
	text bytes.Buffer
	more chan struct{}
}

func newLines() *lines { return &lines{more: make(chan struct{}, 1)} }

func (l *lines) logger() *slog.Logger { return slog.New(slog.NewTextHandler(l, nil)) }

func (l *lines) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	select {
	case l.more <- struct{}{}:
	default:
	}
	return l.text.Write(b)
}

func (l *lines) has(part string) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return strings.Contains(l.text.String(), part)
}

func (l *lines) await(t *testing.T, part string) {
	t.Helper()
	deadline := time.After(waitAtMost)
	for !l.has(part) {
		select {
		case <-l.more:
		case <-deadline:
			t.Fatalf("the log does not say %q", part)
		}
	}
}

// startLocked starts a broker that asks for a password.
func startLocked(t *testing.T) (url string) {
	t.Helper()
	s, err := server.NewServer(&server.Options{Host: "127.0.0.1", Port: server.RANDOM_PORT, NoLog: true, NoSigs: true, Username: "worker", Password: "s3cret"})
	if err != nil {
		t.Fatal(err)
	}
	s.Start()
	t.Cleanup(func() {
		s.Shutdown()
		s.WaitForShutdown()
	})
	if !s.ReadyForConnections(waitAtMost) {
		t.Fatal("the server is not ready")
	}
	return s.ClientURL()
}
