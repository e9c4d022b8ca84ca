package runner_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"bulkmail/relay"
	"bulkmail/relay/sink"
	"bulkmail/subjects"
	"bulkmail/subjects/broker"
	"bulkmail/subjects/broker/brokertest"
	"bulkmail/worker"
	"bulkmail/worker/fleet"
	"bulkmail/worker/runner"
)

func TestARunnerWithABrokerOfItsOwnLeavesNothingOpen(t *testing.T) {
	t.Parallel()
	mine := newOwn()
	o := onLoopback(t, mine.as("mine"))
	for round, recipient := range []string{"ann@example.net", "bob@example.net"} {
		r := run(t, o)
		r.publish(t, "news", recipient)
		mine.took(t, []string{"ann@example.net", "bob@example.net"}[:round+1]...)
		status := r.Status()
		if status.State != worker.Working || status.Name == "" || len(status.Relays) != 1 || status.Relays[0].Relay != "mine" {
			t.Errorf("round %d: %+v", round, status)
		}
		if err := r.stop(); err != nil {
			t.Error(err)
		}
		if status := r.Status(); status.State != worker.Ended || len(status.Relays) > 0 {
			t.Errorf("after the end: %+v", status)
		}
		for _, address := range []string{strings.TrimPrefix(status.Broker, "nats://"), status.HTTP} {
			if c, err := net.Dial("tcp", address); err == nil {
				t.Errorf("%s still takes connections", address)
				_ = c.Close()
			}
		}
	} // a second time on the same folder: it was unlocked
}

func TestWhereOneStepFailsTheOthersAreUndone(t *testing.T) {
	t.Parallel()
	first := run(t, onLoopback(t, newOwn().as("mine")))
	address := strings.TrimPrefix(first.Status().Broker, "nats://")
	locked := startLocked(t)
	for part, change := range map[string]func(*runner.Options){
		"http":       func(o *runner.Options) { o.HTTP = first.Status().HTTP },
		"broker":     func(o *runner.Options) { o.Listen = address },
		"connection": func(o *runner.Options) { o.NATSURL = locked },
	} {
		o := onLoopback(t, newOwn().as("mine"))
		change(&o)
		r, err := runner.New(o)
		if err != nil {
			t.Fatal(err)
		}
		err = r.Run(t.Context())
		failed, ok := errors.AsType[*runner.Error](err)
		if !ok || failed.Part != part {
			t.Errorf("%s: the error is %v", part, err)
		}
		if part == "broker" && !errors.Is(err, broker.ErrAddressInUse) {
			t.Errorf("the error is %v", err)
		}
		select {
		case <-r.Started():
			t.Errorf("%s: it has started", part)
		default:
		}
		if missing := r.Ready(t.Context()); !slices.Equal(missing, []string{"worker: starting"}) || r.Status().State != worker.Starting {
			t.Errorf("%s: %v, %+v", part, missing, r.Status())
		}
		if err := r.Run(t.Context()); !errors.Is(err, runner.ErrRunAgain) {
			t.Errorf("%s: once more: %v", part, err)
		}
		if err := r.Reset(t.Context(), "mine"); !errors.Is(err, runner.ErrNotRunning) {
			t.Errorf("%s: reset: %v", part, err)
		}
	}
}

func TestAnEndWhileTheBrokerIsWaitedForIsNoError(t *testing.T) {
	t.Parallel()
	l, err := net.Listen("tcp", "127.0.0.1:0") // a port where nobody is
	if err != nil {
		t.Fatal(err)
	}
	address := l.Addr().String()
	_ = l.Close()
	o := onLoopback(t, newOwn().as("mine"))
	o.NATSURL = "nats://" + address
	r, err := runner.New(o)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- r.Run(ctx) }()
	<-r.Started()
	if missing := r.Ready(t.Context()); len(missing) == 0 || missing[0] != "worker: starting" {
		t.Errorf("it is said to be ready, but for %v", missing)
	}
	cancel()
	if err := <-ended; err != nil {
		t.Error(err)
	}
}

func TestWhatAWorkerHasLeasedIsGivenBackAtItsEnd(t *testing.T) {
	t.Parallel()
	js := brokertest.Connect(t, brokertest.Start(t).URL())
	mine := newOwn()
	o := onLoopback(t, mine.as("mine", func(c *relay.Config) { c.MaxMessages = 1000 }))
	o.NATSURL = js.Conn().ConnectedUrl()
	r := run(t, o)
	r.publish(t, "news", "ann@example.net")
	mine.took(t, "ann@example.net")
	if err := r.stop(); err != nil {
		t.Fatal(err)
	}
	ledgers, err := js.KeyValue(t.Context(), subjects.Names{}.RelayBucket())
	if err != nil {
		t.Fatal(err)
	}
	counters, workers, err := fleet.Look(t.Context(), ledgers, []relay.Config{o.Relays[0].Config})
	if diff := cmp.Diff(fleet.Counters{Used: 1, Left: 999}, counters["mine"]); diff != "" || len(workers) > 0 || err != nil {
		t.Errorf("%s, workers %v, %v", diff, workers, err)
	}
}

func TestTwoRunnersInOneProcessShareAConnectionThatStaysOpen(t *testing.T) {
	t.Parallel()
	js := brokertest.Connect(t, brokertest.Start(t).URL())
	mine := newOwn()
	var workers []*running
	for range 2 {
		o := onLoopback(t, mine.as("mine"))
		o.Conn, o.Batches = js.Conn(), 1
		workers = append(workers, run(t, o))
	}
	if workers[0].Status().Name == workers[1].Status().Name {
		t.Errorf("both are called %s", workers[0].Status().Name)
	}
	var list []string
	for i := range 40 {
		list = append(list, fmt.Sprintf("r%02d@example.net", i))
		workers[0].publish(t, "news", list[i])
	}
	mine.took(t, list...)
	for _, w := range workers {
		if err := w.stop(); err != nil {
			t.Error(err)
		}
	}
	if !js.Conn().IsConnected() {
		t.Error("a connection that was lent was closed")
	}
}

func TestRelaysOfOnesOwnAreChangedWhileAWorkerWorksAndThoseOfTheFileStay(t *testing.T) {
	t.Parallel()
	server, err := sink.Start(sink.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = server.Close(context.WithoutCancel(t.Context())) })
	file := filepath.Join(t.TempDir(), "relays.yaml")
	host, port, _ := net.SplitHostPort(server.Addr())
	write := func(text string) {
		t.Helper()
		if err := os.WriteFile(file+".new", []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(file+".new", file); err != nil {
			t.Fatal(err)
		}
	}
	described := "relays:\n  - name: described\n    host: " + host + "\n    port: " + port + "\n    tls: none\n"
	write(described)
	before, after := newOwn(), newOwn()
	o := onLoopback(t, before.as("before"))
	o.RelaysFile = file
	said := newLines()
	o.Conversation = func(relay, line string) { fmt.Fprintln(said, relay, line) }
	r := run(t, o)
	names := func() (names []string) {
		for _, s := range r.Status().Relays {
			names = append(names, s.Relay)
		}
		return names
	}
	if diff := cmp.Diff([]string{"before", "described"}, names()); diff != "" {
		t.Error(diff)
	}
	changes, err := r.Configure([]relay.Relay{after.as("after")})
	if diff := cmp.Diff(relay.Changes{Added: []string{"after"}, Removed: []string{"before"}}, changes); diff != "" || err != nil {
		t.Error(diff, err)
	}
	if _, err := r.Configure([]relay.Relay{after.as("described")}); err == nil || err.Error() != "Relays: two relays are called described: give each a name of its own" {
		t.Errorf("two relays of one name: %v", err)
	}
	if diff := cmp.Diff([]string{"after", "described"}, names()); diff != "" {
		t.Error(diff)
	}
	write("relays:\n  - name: described\n    hots: a\n")
	r.Reload()
	r.log.await(t, "relays not changed")
	write(described + "    max_messages: 7\n") // seen without being asked
	r.log.await(t, "changed=[described]")
	r.Reload()
	r.log.await(t, "nothing has changed")
	if diff := cmp.Diff([]string{"after", "described"}, names()); diff != "" {
		t.Error(diff)
	}

	if _, err := r.Configure(nil); err != nil { // the one in the file is left
		t.Fatal(err)
	}
	r.publish(t, "news", "ann@example.net")
	said.await(t, "described S: 250 2.0.0 OK")
	if n := server.Counts().Accepted; n != 1 {
		t.Errorf("the relay in the file took %d", n)
	}
}

func TestAWorkerWithoutAnyRelayIsRefused(t *testing.T) {
	t.Parallel()
	r, err := runner.New(onLoopback(t, newOwn().as("mine")))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := r.Configure(nil); err == nil || !strings.HasPrefix(err.Error(), "RelayURLs: no relay is configured: ") {
		t.Errorf("the error is %v", err)
	}
	other := newOwn()
	if changes, err := r.Configure([]relay.Relay{other.as("other")}); err != nil || changes.Any() {
		t.Errorf("before it runs: %+v, %v", changes, err)
	}
}

func TestAResetLetsAWorkerGoOnThatWaitsBecauseNoRelayCanTakeAnything(t *testing.T) {
	t.Parallel()
	mine := newOwn()
	o := onLoopback(t, mine.as("mine", func(c *relay.Config) { c.MaxMessages = 1 }))
	o.RetryDelays, o.Batches = []time.Duration{time.Millisecond}, 1
	r := run(t, o)
	r.publish(t, "news", "ann@example.net")
	mine.took(t, "ann@example.net")
	r.publish(t, "news", "bob@example.net")
	r.log.await(t, "no relay can take anything")
	if err := r.Reset(t.Context(), "other"); !errors.Is(err, runner.ErrNoRelay) {
		t.Errorf("a relay that is not there is reset: %v", err)
	}
	if err := r.Reset(t.Context(), "mine"); err != nil {
		t.Fatal(err)
	}
	r.publish(t, "news", "eve@example.net") // bob's comes back later, and nothing else would be pulled before
	mine.took(t, "ann@example.net", "eve@example.net")
}

func TestHealthAndMetricsAreServedWhereTheStatusSays(t *testing.T) {
	t.Parallel()
	r := run(t, onLoopback(t, newOwn().as("mine")))
	get := func(path string) string {
		t.Helper()
		request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+r.Status().HTTP+path, nil)
		if err != nil {
			t.Fatal(err)
		}
		request.Close = true
		response, err := (&http.Transport{DisableKeepAlives: true}).RoundTrip(request)
		if err != nil {
			t.Fatal(err)
		}
		defer response.Body.Close()
		if got := response.Header.Get("Server"); got != runner.ServerName {
			t.Errorf("%s is served by %q", path, got)
		}
		text, err := io.ReadAll(response.Body)
		if err != nil {
			t.Fatal(err)
		}
		return string(text)
	}
	if got := get("/healthz"); got != "alive\n" {
		t.Errorf("/healthz says %q", got)
	}
	if got := get("/metrics"); !strings.Contains(got, `bulkmail_relay_state{relay="mine",state="untried"} 1`) {
		t.Errorf("/metrics says %q", got)
	}
	if missing := r.Ready(t.Context()); len(missing) > 0 {
		t.Errorf("it is not ready: %v", missing)
	}
}

func TestABrokerThatOthersReachIsSaid(t *testing.T) {
	t.Parallel()
	for listen, want := range map[string]bool{"127.0.0.1:0": false, "0.0.0.0:0": true} {
		o := onLoopback(t, newOwn().as("mine"))
		o.Listen = listen
		if got := run(t, o).log.has("can be reached from elsewhere and asks nobody for a password"); got != want {
			t.Errorf("listening on %s, it warns: %v", listen, got)
		}
	}
}

func TestAStopTakesNoLongerThanItsPartsTogether(t *testing.T) {
	t.Parallel()
	if got := (runner.Options{}).StopsWithin(); got < 30*time.Second || got > 40*time.Second {
		t.Errorf("with a drain of 30 s it is %s", got)
	}
}
