//go:build crash

package crash_test

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"bulkmail/envelope"
	"bulkmail/subjects"
)

// waitAtMost is how long any one thing may take before a test fails.
const waitAtMost = time.Minute

// program is the worker's binary, built by TestMain.
var program string

func TestMain(m *testing.M) {
	if dir := os.Getenv(brokerDir); dir != "" {
		os.Exit(runBroker(dir))
	}
	os.Exit(run(m))
}

func run(m *testing.M) int {
	dir, err := os.MkdirTemp("", "bulkmail-crash-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer func() { _ = os.RemoveAll(dir) }()
	program = filepath.Join(dir, "bulkmail")
	build := exec.Command("go", "build", "-o", program, "bulkmail/cmd/bulkmail")
	build.Stdout, build.Stderr = os.Stderr, os.Stderr
	if err := build.Run(); err != nil {
		fmt.Fprintln(os.Stderr, "build the worker:", err)
		return 1
	}
	return m.Run()
}

// A fixture is a client of the broker that publishes batches and follows what
// becomes of them.
type fixture struct {
	js     jetstream.JetStream
	names  subjects.Names
	ledger *ledger

	letters bool // batches are of letters

	mu      sync.Mutex          // guards what follows
	batches map[string][]string // recipients by batch id
}

func join(t testing.TB, urls []string, replicas int) *fixture {
	t.Helper()
	nc, err := nats.Connect(strings.Join(urls, ","), nats.MaxReconnects(-1), nats.ReconnectWait(50*time.Millisecond), nats.ReconnectJitter(0, 0))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(nc.Close)
	js, err := jetstream.New(nc)
	if err != nil {
		t.Fatal(err)
	}
	h := &fixture{js: js, batches: make(map[string][]string)}
	o := subjects.Options{Replicas: replicas, AckWait: ackWait, OutcomesMaxAge: time.Hour}
	for deadline := time.Now().Add(waitAtMost); ; { // a cluster may have no leader yet
		err := subjects.Provision(t.Context(), js, h.names, o, slog.New(slog.DiscardHandler))
		if err == nil {
			break
		}
		if time.Now().After(deadline) {
			t.Fatal(err)
		}
		<-time.After(100 * time.Millisecond)
	}
	h.ledger = follow(t, js, h.names)
	return h
}

const (
	campaign     = "crash"
	largeMessage = "large"
	batchSize    = 40
)

// storeLarge stores a message that does not fit into the buffers between a
// worker and the sink.
func (h *fixture) storeLarge(t testing.TB) {
	t.Helper()
	store, err := h.js.ObjectStore(t.Context(), h.names.MessageStore())
	if err != nil {
		t.Fatal(err)
	}
	line := strings.Repeat("x", 70) + "\r\n"
	message := "From: News <news@example.com>\r\nSubject: large\r\n\r\n" + strings.Repeat(line, (large+1<<20)/len(line))
	if _, err := store.PutBytes(t.Context(), largeMessage, []byte(message)); err != nil {
		t.Fatal(err)
	}
}

// batch makes up batch n. Every tenth recipient is deferred once, and some are
// refused; each fifteenth batch has the large message, if there is one.
func batch(n int, withLarge bool) envelope.Batch {
	b := envelope.Batch{ID: fmt.Sprintf("b%d", n), From: "news@example.com", Message: "Subject: t\r\n\r\nHello.\r\n"}
	size := batchSize
	if withLarge && n%15 == 7 {
		b.Message, b.MessageRef = "", largeMessage
		size = 2
	}
	for i := range size {
		name := "p"
		switch i {
		case 10, 20, 30:
			name = "later"
		case 39:
			name = "never"
		}
		b.Recipients = append(b.Recipients, envelope.To(fmt.Sprintf("%s%d-%d@d%d.test", name, n, i, i%4))...)
	}
	return b
}

// publish stores a batch, whatever happens to the broker meanwhile.
func (h *fixture) publish(ctx context.Context, b envelope.Batch) error {
	h.mu.Lock()
	h.batches[b.ID] = nil
	for _, r := range b.Recipients {
		h.batches[b.ID] = append(h.batches[b.ID], r.Address)
	}
	h.mu.Unlock()
	data := b.AppendJSON(nil)
	for {
		try, cancel := context.WithTimeout(ctx, 2*time.Second)
		_, err := h.js.Publish(try, h.names.Batches(campaign), data, jetstream.WithMsgID(campaign+"."+b.ID))
		cancel()
		if err == nil || ctx.Err() != nil {
			return err
		}
	}
}

// load publishes batches so that about backlog of them are not done, until stop
// is called.
func (h *fixture) load(t testing.TB, backlog int, withLarge bool) (stop func()) {
	ctx, cancel := context.WithCancel(t.Context())
	var loading sync.WaitGroup
	loading.Go(func() {
		for n := 0; ctx.Err() == nil; n++ {
			room := func() bool { return n-len(h.ledger.done) < backlog }
			if !h.ledger.waitOr(2*waitAtMost, ctx.Done(), room) {
				if ctx.Err() == nil {
					t.Errorf("no batch was done for %v", 2*waitAtMost)
				}
				return
			}
			// A publication that has begun is completed: whether an aborted one was
			// stored, nobody would know.
			whole, end := context.WithTimeout(context.WithoutCancel(ctx), 2*waitAtMost)
			b := batch(n, withLarge)
			if h.letters {
				asLetters(&b)
			}
			err := h.publish(whole, b)
			end()
			if err != nil {
				t.Errorf("publish: %v", err)
				return
			}
		}
	})
	return func() {
		cancel()
		loading.Wait()
	}
}

// settle waits until every batch is done and off the queue.
func (h *fixture) settle(t testing.TB) {
	t.Helper()
	h.mu.Lock()
	all := len(h.batches)
	h.mu.Unlock()
	h.ledger.wait(t, 2*waitAtMost, "every batch to be done", func() bool { return len(h.ledger.done) == all })
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for timer := time.NewTimer(waitAtMost); ; {
		if n, err := h.queued(t.Context()); err == nil && n == 0 {
			return
		}
		select {
		case <-tick.C:
		case <-timer.C:
			t.Fatal("batches that are done do not leave the queue")
		}
	}
}

func (h *fixture) queued(ctx context.Context) (uint64, error) {
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	s, err := h.js.Stream(ctx, h.names.BatchesStream())
	if err != nil {
		return 0, err
	}
	return s.CachedInfo().State.Msgs, nil
}
