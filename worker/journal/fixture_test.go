package journal_test

import (
	"encoding/json"
	"io"
	"log/slog"
	"net"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"
	"go.uber.org/goleak"

	"bulkmail/envelope"
	"bulkmail/subjects"
	"bulkmail/subjects/broker/brokertest"
	"bulkmail/testdata/testrun"
	"bulkmail/worker/journal"
)

func TestMain(m *testing.M) {
	testrun.AtOnce(6)
	goleak.VerifyTestMain(m)
}

// waitAtMost is how long anything may take before a test fails.
const waitAtMost = time.Minute

// startBroker starts a broker with everything on it and returns its address.
func startBroker(t testing.TB) string {
	t.Helper()
	b := brokertest.Start(t)
	js := brokertest.Connect(t, b.URL())
	o := subjects.Options{AckWait: time.Minute, OutcomesMaxAge: time.Hour}
	if err := subjects.Provision(t.Context(), js, subjects.Names{}, o, slog.New(slog.DiscardHandler)); err != nil {
		t.Fatal(err)
	}
	return b.URL()
}

// open returns the journal as the worker of that name writes it.
func open(t testing.TB, url, worker string) *journal.Journal {
	t.Helper()
	js := brokertest.Connect(t, url)
	j, err := journal.New(t.Context(), js, subjects.Names{}, worker)
	if err != nil {
		t.Fatal(err)
	}
	return j
}

func read(t testing.TB, j *journal.Journal, batch string) *journal.State {
	t.Helper()
	s, err := j.Read(t.Context(), "c", batch)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// claim reads and claims.
func claim(t testing.TB, j *journal.Journal, batch string, count uint64) *journal.Hold {
	t.Helper()
	h, err := j.Claim(t.Context(), read(t, j, batch), journal.Delivery{Sequence: 1, Count: count}, nil)
	if err != nil {
		t.Fatal(err)
	}
	return h
}

func closeHold(t testing.TB, h *journal.Hold, done bool) {
	t.Helper()
	if err := h.Close(t.Context(), done); err != nil {
		t.Error(err)
	}
}

// A stored entry is one as it lies in the stream.
type stored struct {
	subjects.Entry
	raw []byte
}

// entries returns all entries of a batch.
func entries(t testing.TB, url, batch string) []stored {
	t.Helper()
	js := brokertest.Connect(t, url)
	subject := subjects.Names{}.Outcomes("c", batch)
	stream, err := js.Stream(t.Context(), subjects.Names{}.OutcomesStream())
	if err != nil {
		t.Fatal(err)
	}
	info, err := stream.Info(t.Context(), jetstream.WithSubjectFilter(subject))
	if err != nil {
		t.Fatal(err)
	}
	n := info.State.Subjects[subject]
	follow := follow(t, url, batch)
	all := make([]stored, 0, n)
	for range n {
		all = append(all, follow())
	}
	return all
}

// follow returns a function that waits for the next entry of a batch.
func follow(t testing.TB, url, batch string) func() stored {
	t.Helper()
	js := brokertest.Connect(t, url)
	c, err := js.OrderedConsumer(t.Context(), subjects.Names{}.OutcomesStream(), jetstream.OrderedConsumerConfig{FilterSubjects: []string{subjects.Names{}.Outcomes("c", batch)}})
	if err != nil {
		t.Fatal(err)
	}
	msgs, err := c.Messages()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(msgs.Stop)
	return func() stored {
		t.Helper()
		msg, err := msgs.Next(jetstream.NextMaxWait(waitAtMost))
		if err != nil {
			t.Fatalf("no entry came: %v", err)
		}
		e := stored{raw: msg.Data()}
		if err := json.Unmarshal(msg.Data(), &e.Entry); err != nil {
			t.Fatalf("%s: %v", msg.Data(), err)
		}
		return e
	}
}

// A wire is a TCP proxy in front of the broker that can lose the broker's
// answers, and be cut.
type wire struct {
	listener net.Listener
	to       string
	running  sync.WaitGroup

	mu    sync.Mutex
	deaf  bool // what the broker says is lost
	cutUp bool // new connections are refused at once
	conns []net.Conn
}

func layWire(t testing.TB, url string) *wire {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	w := &wire{listener: l, to: url[len("nats://"):]}
	w.running.Go(w.serve)
	t.Cleanup(func() {
		_ = l.Close()
		w.cut(true)
		w.running.Wait()
	})
	return w
}

func (w *wire) url() string { return "nats://" + w.listener.Addr().String() }

func (w *wire) serve() {
	for {
		client, err := w.listener.Accept()
		if err != nil {
			return
		}
		broker, err := net.Dial("tcp", w.to)
		w.mu.Lock()
		if err != nil || w.cutUp {
			w.mu.Unlock()
			_ = client.Close()
			if broker != nil {
				_ = broker.Close()
			}
			continue
		}
		w.conns = append(w.conns, client, broker)
		w.mu.Unlock()
		w.running.Go(func() { _, _ = io.Copy(broker, client); _ = broker.Close() })
		w.running.Go(func() { _, _ = io.Copy(ear{w, client}, broker); _ = client.Close() })
	}
}

// ear is the client's, which may be deaf.
type ear struct {
	wire   *wire
	client net.Conn
}

func (e ear) Write(p []byte) (int, error) {
	e.wire.mu.Lock()
	deaf := e.wire.deaf
	e.wire.mu.Unlock()
	if deaf {
		return len(p), nil
	}
	return e.client.Write(p)
}

func (w *wire) setDeaf(on bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.deaf = on
}

// cut ends all connections, and refuses new ones while stay is true.
func (w *wire) cut(stay bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.cutUp = stay
	for _, c := range w.conns {
		_ = c.Close()
	}
	w.conns = nil
}

func is(status subjects.Status, recipients ...string) (subjects.Outcome, []envelope.Recipient) {
	return said(subjects.Results{Status: status, Recipients: recipients})
}

func said(r subjects.Results) (subjects.Outcome, []envelope.Recipient) {
	return r.Outcome(), envelope.To(r.Recipients...)
}
