//go:build crash

package crash_test

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"

	"bulkmail/subjects/broker"
)

// The environment of a process that is a broker: this test binary again.
const (
	brokerDir     = "BULKMAIL_CRASH_BROKER_DIR"
	brokerListen  = "BULKMAIL_CRASH_BROKER_LISTEN"
	brokerName    = "BULKMAIL_CRASH_BROKER_NAME"    // one of a cluster
	brokerCluster = "BULKMAIL_CRASH_BROKER_CLUSTER" // where it listens for the others
	brokerRoutes  = "BULKMAIL_CRASH_BROKER_ROUTES"
)

// runBroker is the main of a broker's process. It ends with its standard input,
// so that it does not outlive the tests.
func runBroker(dir string) int {
	var err error
	if name := os.Getenv(brokerName); name == "" {
		_, err = broker.Start(context.Background(), broker.Options{
			Listen: os.Getenv(brokerListen), Dir: dir, SyncAlways: true, Log: slog.New(slog.DiscardHandler),
		})
	} else {
		err = startMember(name, dir)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	fmt.Println("ready")
	_, _ = io.Copy(io.Discard, os.Stdin)
	return 0
}

// startMember starts one server of a cluster.
func startMember(name, dir string) error {
	o := &server.Options{ServerName: name, JetStream: true, StoreDir: dir, SyncAlways: true, NoSigs: true, NoLog: true}
	o.Host, o.Port = hostPort(os.Getenv(brokerListen))
	o.Cluster.Name = "crash"
	o.Cluster.Host, o.Cluster.Port = hostPort(os.Getenv(brokerCluster))
	o.Cluster.NoAdvertise = true // clients keep to the proxies
	o.Routes = server.RoutesFromStr(os.Getenv(brokerRoutes))
	s, err := server.NewServer(o)
	if err != nil {
		return err
	}
	s.Start()
	if !s.ReadyForConnections(waitAtMost) {
		return fmt.Errorf("%s is not ready", name)
	}
	return nil
}

func hostPort(address string) (string, int) {
	a, err := net.ResolveTCPAddr("tcp", address)
	if err != nil {
		panic(err)
	}
	return a.IP.String(), a.Port
}

// A brokerProcess can be killed and started again on its folder and address.
type brokerProcess struct {
	t      testing.TB
	name   string
	addr   string
	env    []string
	cmd    *exec.Cmd
	exited chan struct{}
	stdin  io.Closer
}

func newBrokerProcess(t testing.TB, name, addr string, env ...string) *brokerProcess {
	b := &brokerProcess{t: t, name: name, addr: addr}
	b.env = append([]string{
		"HOME=" + os.Getenv("HOME"), "TMPDIR=" + os.TempDir(), "BULKMAIL_CI_RUN=" + os.Getenv("BULKMAIL_CI_RUN"),
		brokerDir + "=" + filepath.Join(t.TempDir(), name), brokerListen + "=" + addr,
	}, env...)
	t.Cleanup(func() {
		if b.cmd != nil {
			b.kill()
		}
	})
	return b
}

func (b *brokerProcess) url() string { return (&url.URL{Scheme: "nats", Host: b.addr}).String() }

// start starts the broker and waits until it takes connections.
func (b *brokerProcess) start() {
	b.t.Helper()
	self, err := os.Executable()
	if err != nil {
		b.t.Fatal(err)
	}
	cmd := exec.Command(self)
	cmd.Env, cmd.Stderr = b.env, os.Stderr
	if b.stdin, err = cmd.StdinPipe(); err != nil {
		b.t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		b.t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		b.t.Fatal(err)
	}
	b.cmd, b.exited = cmd, make(chan struct{})
	line, err := bufio.NewReader(out).ReadString('\n')
	go func() {
		_ = cmd.Wait()
		close(b.exited)
	}()
	if line != "ready\n" {
		b.t.Fatalf("the broker says %q: %v", line, err)
	}
}

// kill is kill -9.
func (b *brokerProcess) kill() {
	b.t.Helper()
	if err := b.cmd.Process.Kill(); err != nil {
		b.t.Errorf("kill the broker: %v", err)
	}
	<-b.exited
	_ = b.stdin.Close()
}

// freeAddr is a loopback address that nobody listens on.
func freeAddr(t testing.TB) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

// An outage is a time in which nothing could be recorded, or a worker could not
// know that it had lost its batches.
type outage struct{ down, up time.Time }

const (
	// recording is how long the record of a reply may be on its way.
	recording = time.Second
	// noticing is how long a worker may take to notice an outage.
	noticing = 300 * time.Millisecond
)

// during excuses what was in flight when one of the outages began, or was begun
// before the worker could notice.
func during(outages []outage) func(transaction) excuse {
	return func(tx transaction) excuse {
		why := none
		for _, o := range outages {
			if tx.accepted.Add(recording).Before(o.down) {
				continue
			}
			if tx.begun.Before(o.down) {
				return inFlight
			}
			if tx.begun.Before(o.down.Add(noticing)) {
				why = unnoticed
			}
		}
		return why
	}
}

const restarts = 20

func TestABrokerKilledAndRestartedUnderLoadLosesNobody(t *testing.T) {
	b := newBrokerProcess(t, "broker", freeAddr(t))
	b.start()
	s := openSink(t)
	f := newFleet(t, s, []string{b.addr})
	s.open(t)
	h := join(t, []string{b.url()}, 1)
	stop := h.load(t, 40, false)
	defer stop()
	for range 3 {
		f.startWorker()
	}

	var outages []outage
	for i := range restarts {
		h.progress(t, 40)
		b.kill()
		o := outage{down: time.Now()}
		if i%5 == 4 {
			<-time.After(ackWait * 3 / 2) // every hold runs out meanwhile
		}
		b.start()
		o.up = time.Now()
		outages = append(outages, o)
		t.Logf("down %s, up %s", o.down.Format("15:04:05.000"), o.up.Format("15:04:05.000"))
	}
	stop()
	h.settle(t)
	f.dismissAll()

	a := h.settleAccounts(t, "synced writes", f, during(outages))
	a.kills[atRandom] = len(outages)
	table("broker killed with -9", nil, "kill", a)
	a.check(t)
}
