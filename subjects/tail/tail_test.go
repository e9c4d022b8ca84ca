package tail_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/url"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go/jetstream"
	"go.uber.org/goleak"

	"bulkmail/subjects/broker/brokertest"
	"bulkmail/subjects/tail"
)

// startCluster runs three brokers in this process.
func startCluster(t *testing.T) map[string]*server.Server {
	t.Helper()
	routes := make([]*url.URL, 3)
	ports := make([]int, 3)
	for i := range routes {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		ports[i] = l.Addr().(*net.TCPAddr).Port
		routes[i] = &url.URL{Scheme: "nats", Host: l.Addr().String()}
		_ = l.Close()
	}
	members := make(map[string]*server.Server)
	for i, port := range ports {
		name := fmt.Sprintf("n%d", i)
		s, err := server.NewServer(&server.Options{
			ServerName: name, Host: "127.0.0.1", Port: server.RANDOM_PORT, NoLog: true, NoSigs: true,
			JetStream: true, StoreDir: t.TempDir(), Routes: routes,
			Cluster: server.ClusterOpts{Name: "test", Host: "127.0.0.1", Port: port},
		})
		if err != nil {
			t.Fatal(err)
		}
		s.Start()
		t.Cleanup(func() {
			s.Shutdown()
			s.WaitForShutdown()
		})
		members[name] = s
	}
	return members
}

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// A reader is a tail with what a test asks of it.
type reader struct {
	*tail.Tail
	t *testing.T
}

func read(t *testing.T, js jetstream.JetStream, subject string, after uint64) reader {
	t.Helper()
	r, err := tail.Open(t.Context(), js, "S", subject, after)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { r.Stop(context.WithoutCancel(t.Context())) })
	return reader{r, t}
}

func (r reader) next(want string) {
	r.t.Helper()
	ctx, cancel := context.WithTimeout(r.t.Context(), time.Minute)
	defer cancel()
	m, err := r.Next(ctx)
	if err != nil {
		r.t.Fatalf("waiting for %s: %v", want, err)
	}
	if string(m.Data()) != want {
		r.t.Fatalf("got %s, want %s", m.Data(), want)
	}
}

func TestATailBeginsWhereItWasToldAndReadsItsSubjectInOrder(t *testing.T) {
	t.Parallel()
	js := brokertest.Connect(t, brokertest.Start(t).URL())
	if _, err := tail.Open(t.Context(), js, "S", "s.*", 0); !errors.Is(err, jetstream.ErrStreamNotFound) {
		t.Errorf("without a stream: %v", err)
	}
	if _, err := js.CreateStream(t.Context(), jetstream.StreamConfig{Name: "S", Subjects: []string{"s.*", "t.*"}}); err != nil {
		t.Fatal(err)
	}
	for i := range 3 {
		for _, subject := range []string{"s", "t"} {
			if _, err := js.Publish(t.Context(), fmt.Sprintf("%s.%d", subject, i), fmt.Appendf(nil, "%s%d", subject, i)); err != nil {
				t.Fatal(err)
			}
		}
	}
	all, rest := read(t, js, "s.*", 0), read(t, js, "s.*", 1)
	for i := range 3 {
		all.next(fmt.Sprintf("s%d", i))
	}
	rest.next("s1")
	rest.next("s2")
	if rest.After() != 5 {
		t.Errorf("the last message read is %d, want 5", rest.After())
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := rest.Next(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
}

// A stream has room for so many consumers and no more.
func TestATailThatIsStoppedLeavesNoConsumer(t *testing.T) {
	t.Parallel()
	js := brokertest.Connect(t, brokertest.Start(t).URL())
	stream, err := js.CreateStream(t.Context(), jetstream.StreamConfig{Name: "S", Subjects: []string{"s.*"}})
	if err != nil {
		t.Fatal(err)
	}
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	for name, ctx := range map[string]context.Context{"in time": t.Context(), "after the end": ended} {
		r, err := tail.Open(t.Context(), js, "S", "s.*", 0)
		if err != nil {
			t.Fatal(err)
		}
		r.Stop(ctx)
		list := stream.ListConsumers(t.Context())
		for info := range list.Info() {
			t.Errorf("%s: %s is left", name, info.Name)
		}
		if err := list.Err(); err != nil {
			t.Error(err)
		}
	}
}

// Who waits for the end of a campaign must not wait for ever because somebody
// removed the consumer, or a server of the cluster is gone for good.
func TestATailOutlivesItsConsumer(t *testing.T) {
	t.Parallel()
	members := startCluster(t)
	var urls []string
	for _, s := range members {
		if !s.ReadyForConnections(20 * time.Second) {
			t.Fatal("a server is not ready")
		}
		urls = append(urls, s.ClientURL())
	}
	js := brokertest.Connect(t, urls...)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	var stream jetstream.Stream
	insist(ctx, t, func(ctx context.Context) (err error) { // until the cluster has a leader
		stream, err = js.CreateStream(ctx, jetstream.StreamConfig{Name: "S", Subjects: []string{"s.*"}, Replicas: 3})
		return err
	})
	publish := func(text string) {
		insist(ctx, t, func(ctx context.Context) error {
			_, err := js.Publish(ctx, "s.1", []byte(text), jetstream.WithMsgID(text))
			return err
		})
	}
	consumer := func() (last *jetstream.ConsumerInfo) {
		list := stream.ListConsumers(ctx)
		for info := range list.Info() {
			if last == nil || info.Created.After(last.Created) {
				last = info
			}
		}
		if last == nil {
			t.Fatalf("nobody reads: %v", list.Err())
		}
		return last
	}
	publish("first")
	r := read(t, js, "s.*", 0)
	r.next("first")
	if err := stream.DeleteConsumer(ctx, consumer().Name); err != nil {
		t.Fatal(err)
	}
	publish("second")
	r.next("second")
	holder := members[consumer().Cluster.Leader]
	if holder == nil {
		t.Fatalf("the consumer is held by %q", consumer().Cluster.Leader)
	}
	holder.Shutdown()
	holder.WaitForShutdown()
	publish("third")
	r.next("third")
}

// insist tries until the cluster does it.
func insist(ctx context.Context, t *testing.T, do func(context.Context) error) {
	t.Helper()
	for {
		one, cancel := context.WithTimeout(ctx, 2*time.Second)
		err := do(one)
		cancel()
		if err == nil {
			return
		}
		if ctx.Err() != nil {
			t.Fatal(err)
		}
	}
}
