package worker_test

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"bulkmail/envelope"
	"bulkmail/relay"
	"bulkmail/subjects"
	"bulkmail/subjects/broker"
	"bulkmail/subjects/broker/brokertest"
	"bulkmail/worker"
)

// A house is a broker of its own and a client that looks at it.
type house struct {
	url   string
	nc    *nats.Conn
	js    jetstream.JetStream
	names subjects.Names
	waits worker.Waits // of the workers; where it is 0, a batch that could not be begun comes back sooner
}

// patience is how long anything may take before a test fails.
const patience = time.Minute

func startBroker(t testing.TB, listen, dir string) *broker.Server {
	t.Helper()
	b, err := broker.Start(t.Context(), broker.Options{Listen: listen, Dir: dir, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func newHouse(t testing.TB) *house {
	t.Helper()
	h := join(t, brokertest.Start(t).URL())
	h.provision(t, subjects.Options{AckWait: 30 * time.Second, OutcomesMaxAge: time.Hour})
	return h
}

func join(t testing.TB, url string) *house {
	t.Helper()
	h := &house{url: url}
	h.nc, h.js = connect(t, url)
	return h
}

func connect(t testing.TB, url string) (*nats.Conn, jetstream.JetStream) {
	t.Helper()
	js := brokertest.Connect(t, url)
	return js.Conn(), js
}

func (h *house) provision(t testing.TB, o subjects.Options) {
	t.Helper()
	if err := subjects.Provision(t.Context(), h.js, h.names, o, slog.New(slog.DiscardHandler)); err != nil {
		t.Fatal(err)
	}
}

// An employee is a running worker with a connection and a pool of its own.
type employee struct {
	nc     *nats.Conn
	worker *worker.Worker
	pool   *relay.Pool
	log    *logbook
	quit   context.CancelFunc
	done   chan error
}

// hire starts a worker.
func (h *house) hire(t testing.TB, o worker.Options, relays ...relay.Relay) *employee {
	t.Helper()
	return h.hireWith(t, o, relay.Options{}, relays...)
}

func (h *house) hireWith(t testing.TB, o worker.Options, po relay.Options, relays ...relay.Relay) *employee {
	t.Helper()
	nc, js := connect(t, h.url)
	return h.hireOn(t, nc, js, o, po, relays...)
}

// hireOn is hire for a worker whose connection is there already.
func (h *house) hireOn(t testing.TB, nc *nats.Conn, js jetstream.JetStream, o worker.Options, po relay.Options, relays ...relay.Relay) *employee {
	t.Helper()
	log := newLogbook()
	po.Log = slog.New(log)
	pool := relay.NewPool(relays, po)
	e := h.hireOver(t, nc, js, o, pool, log)
	t.Cleanup(func() { closePool(t, pool) })
	t.Cleanup(func() { e.leave(t) })
	return e
}

func closePool(t testing.TB, pool *relay.Pool) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	if err := pool.Close(ctx); err != nil {
		t.Errorf("the pool ended with: %v", err)
	}
}

// hireOver is hire for a worker whose pool somebody else closes.
func (h *house) hireOver(t testing.TB, nc *nats.Conn, js jetstream.JetStream, o worker.Options, pool *relay.Pool, log *logbook) *employee {
	t.Helper()
	e := &employee{nc: nc, pool: pool, log: log, done: make(chan error, 1)}
	o.Log = slog.New(e.log)
	if len(o.RetryDelays) == 0 {
		o.RetryDelays = worker.Schedule{10 * time.Millisecond}
	}
	ctx, quit := context.WithCancel(context.Background())
	e.quit = quit
	e.worker = worker.New(js, h.names, e.pool, o)
	e.worker.Shorten(worker.Waits{Trouble: 200 * time.Millisecond})
	e.worker.Shorten(h.waits)
	go func() { e.done <- e.worker.Run(ctx) }()
	t.Cleanup(func() { e.leave(t) })
	return e
}

// leave has the worker drain, and waits for it.
func (e *employee) leave(t testing.TB) {
	t.Helper()
	e.quit()
	select {
	case err := <-e.done:
		e.done <- nil // it may be asked again
		if err != nil {
			t.Errorf("the worker ended with: %v", err)
		}
	case <-time.After(patience):
		t.Error("the worker does not end")
	}
}

// publish puts a batch on the queue.
func (h *house) publish(t testing.TB, campaign string, b envelope.Batch) {
	t.Helper()
	if b.From == "" {
		b.From = "news@example.com"
	}
	if b.Message == "" && b.MessageRef == "" {
		b.Message = "Subject: t\n\nhi\n"
	}
	h.publishRaw(t, campaign, string(b.AppendJSON(nil)))
}

func (h *house) publishRaw(t testing.TB, campaign, data string, header ...string) {
	t.Helper()
	msg := nats.NewMsg(h.names.Batches(campaign))
	msg.Data = []byte(data)
	for i := 0; i < len(header); i += 2 {
		msg.Header.Set(header[i], header[i+1])
	}
	ctx, cancel := context.WithTimeout(t.Context(), patience) // large batches take a busy broker longer than usual
	defer cancel()
	if _, err := h.js.PublishMsg(ctx, msg); err != nil {
		t.Fatal(err)
	}
}

// queued is the number of batches on the queue.
func (h *house) queued(t testing.TB) int { return h.stored(t, h.names.BatchesStream()) }

func (h *house) stored(t testing.TB, stream string) int {
	t.Helper()
	s, err := h.js.Stream(t.Context(), stream)
	if err != nil {
		t.Fatal(err)
	}
	return int(s.CachedInfo().State.Msgs)
}

// A tail follows a stream from its beginning.
type tail struct {
	t    testing.TB
	msgs jetstream.MessagesContext
}

func (h *house) tail(t testing.TB, stream, subject string) *tail {
	t.Helper()
	c, err := h.js.OrderedConsumer(t.Context(), stream, jetstream.OrderedConsumerConfig{FilterSubjects: []string{subject}})
	if err != nil {
		t.Fatal(err)
	}
	msgs, err := c.Messages()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(msgs.Stop)
	return &tail{t, msgs}
}

// next waits for the next message.
func (l *tail) next() jetstream.Msg {
	l.t.Helper()
	msg, err := l.msgs.Next(jetstream.NextMaxWait(patience))
	if err != nil {
		l.t.Fatalf("nothing came: %v", err)
	}
	return msg
}

// A ledger follows the journal of one batch and knows the newest result of
// each recipient, as a user who reads the outcomes would.
type ledger struct {
	*tail
	events  []subjects.Event
	newest  map[string]outcome
	attempt int // of the last entry
}

type outcome struct {
	status  subjects.Status
	relay   string
	code    int
	text    string
	attempt int
}

func (h *house) ledger(t testing.TB, campaign, batch string) *ledger {
	t.Helper()
	return &ledger{tail: h.tail(t, h.names.OutcomesStream(), h.names.Outcomes(campaign, batch)), newest: make(map[string]outcome)}
}

// until reads on to the next entry with the event.
func (l *ledger) until(event subjects.Event) subjects.Entry {
	l.t.Helper()
	for {
		msg := l.next()
		var e subjects.Entry
		if err := json.Unmarshal(msg.Data(), &e); err != nil {
			l.t.Fatalf("%s: %v", msg.Data(), err)
		}
		l.events = append(l.events, e.Event)
		l.attempt = e.Attempt
		for _, r := range e.Results {
			if e.Event == subjects.Sending {
				continue
			}
			for _, recipient := range r.Recipients {
				if was := l.newest[recipient]; was.status.Final() {
					l.t.Errorf("%s is %s after it was %s", recipient, r.Status, was.status)
				}
				l.newest[recipient] = outcome{r.Status, r.Relay, r.Code, r.Text, e.Attempt}
			}
		}
		if e.Event == event {
			return e
		}
	}
}

// tally counts recipients by their newest status.
func (l *ledger) tally() map[subjects.Status]int {
	counts := make(map[subjects.Status]int)
	for _, o := range l.newest {
		counts[o.status]++
	}
	return counts
}

// A logbook keeps the messages of a log, and wakes who waits for one.
type logbook struct {
	*page
	attrs []slog.Attr
}

type page struct {
	mu    sync.Mutex
	lines []line
	more  chan struct{} // closed at the next line
}

type line struct {
	message string
	attrs   map[string]string
}

func newLogbook() *logbook { return &logbook{page: &page{more: make(chan struct{})}} }

func (l *logbook) Enabled(context.Context, slog.Level) bool { return true }
func (l *logbook) WithGroup(string) slog.Handler            { return l }
func (l *logbook) WithAttrs(attrs []slog.Attr) slog.Handler {
	return &logbook{l.page, slices.Concat(l.attrs, attrs)}
}

func (l *logbook) Handle(_ context.Context, r slog.Record) error {
	n := line{r.Message, make(map[string]string)}
	for _, a := range l.attrs {
		n.attrs[a.Key] = a.Value.String()
	}
	r.Attrs(func(a slog.Attr) bool { n.attrs[a.Key] = a.Value.String(); return true })
	l.mu.Lock()
	defer l.mu.Unlock()
	l.lines = append(l.lines, n)
	close(l.more)
	l.more = make(chan struct{})
	return nil
}

// wait waits until a message was logged n times and returns the nth.
func (l *logbook) wait(t testing.TB, message string, n int) line {
	t.Helper()
	timer := time.NewTimer(patience)
	defer timer.Stop()
	for {
		l.mu.Lock()
		lines, more := l.lines, l.more
		l.mu.Unlock()
		left := n
		for _, line := range lines {
			if line.message == message {
				if left--; left == 0 {
					return line
				}
			}
		}
		select {
		case <-more:
		case <-timer.C:
			t.Fatalf("%q was not logged %d times, but %v", message, n, lines)
		}
	}
}

func (l *logbook) count(message string) (n int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, line := range l.lines {
		if line.message == message {
			n++
		}
	}
	return n
}

// people returns n addresses in the domains, in turn.
func people(n int, domains ...string) []string {
	list := make([]string, n)
	for i := range list {
		list[i] = fmt.Sprintf("p%d@%s", i, domains[i%len(domains)])
	}
	return list
}

// onceEach checks that exactly these recipients were accepted, each once.
func onceEach(t testing.TB, got map[string]int, want ...[]string) {
	t.Helper()
	all := slices.Concat(want...)
	lost := 0
	for _, r := range all {
		if got[r] == 0 {
			lost++
		}
	}
	twice := 0
	for _, n := range got {
		if n > 1 {
			twice++
		}
	}
	if lost > 0 || twice > 0 || len(got) != len(all) {
		t.Errorf("of %d recipients %d were accepted, %d never, %d more than once", len(all), len(got), lost, twice)
	}
}
