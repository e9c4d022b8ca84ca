package main

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/nats-io/nats.go/jetstream"

	"bulkmail/relay/sink"
	"bulkmail/subjects/broker"
	"bulkmail/subjects/broker/brokertest"
)

// A site as others see it: what is served by a worker process.
type served struct {
	*program
	address string
}

// startServed starts a worker with a port of its own for HTTP.
func startServed(t *testing.T, env ...string) *served {
	t.Helper()
	w := startBulkmail(t, env, "worker")
	return &served{w, w.awaitLine(t, `http listening.* addr=(\S+)`)}
}

// get asks for a path, with headers as key=value.
func (s *served) get(t *testing.T, path string, headers ...string) (status int, body string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), waitAtMost)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+s.address+path, nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, h := range headers {
		key, value, _ := strings.Cut(h, "=")
		request.Header.Set(key, value)
	}
	response, err := (&http.Transport{DisableKeepAlives: true}).RoundTrip(request)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	if err != nil {
		t.Fatal(err)
	}
	return response.StatusCode, string(text)
}

// wantReady asks whether the worker is ready; with lines it must not be, and
// must say so.
func (s *served) wantReady(t *testing.T, lines ...string) {
	t.Helper()
	wantStatus, wantBody := http.StatusOK, "ready\n"
	if len(lines) > 0 {
		wantStatus, wantBody = http.StatusServiceUnavailable, strings.Join(lines, "\n")+"\n"
	}
	if status, body := s.get(t, "/readyz"); status != wantStatus || body != wantBody {
		t.Errorf("readyz says %d %q, want %d %q", status, body, wantStatus, wantBody)
	}
}

// metrics are the values of bulkmail's metrics, by name and labels.
func (s *served) metrics(t *testing.T) map[string]float64 {
	t.Helper()
	status, body := s.get(t, "/metrics")
	if status != http.StatusOK {
		t.Fatalf("metrics: %d %s", status, body)
	}
	values := make(map[string]float64)
	for line := range strings.Lines(body) {
		if !strings.HasPrefix(line, "bulkmail_") {
			continue
		}
		i := strings.LastIndexByte(line, ' ')
		value, err := strconv.ParseFloat(strings.TrimSpace(line[i:]), 64)
		if err != nil {
			t.Fatalf("%q: %v", line, err)
		}
		values[line[:i]] = value
	}
	return values
}

// wantMetrics compares some of them.
func (s *served) wantMetrics(t *testing.T, want map[string]float64) {
	t.Helper()
	all, got := s.metrics(t), make(map[string]float64)
	for key := range want {
		if value, ok := all[key]; ok {
			got[key] = value
		}
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

func startSink(t *testing.T, o sink.Options, rules ...string) *sink.Server {
	t.Helper()
	var err error
	if o.Rules, err = sink.ParseRules(rules...); err != nil {
		t.Fatal(err)
	}
	server, err := sink.Start(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := server.Close(context.WithoutCancel(t.Context())); err != nil {
			t.Error(err)
		}
	})
	return server
}

// publishBatch publishes a batch as any client would.
func (c *client) publishBatch(t *testing.T, id string, recipients ...string) {
	t.Helper()
	batch := fmt.Sprintf(`{"id":%q,"from":"a@example.com","recipients":["%s"],"message":"Subject: t\n\nhi\n"}`, id, strings.Join(recipients, `","`))
	if _, err := c.js.Publish(t.Context(), c.names.Batches("c"), []byte(batch)); err != nil {
		t.Fatal(err)
	}
}

func TestMetricsShowExactlyWhatBecameOfEverybody(t *testing.T) {
	t.Parallel()
	first := startSink(t, sink.Options{}, "RCPT:*@gone.test=550 5.1.1 no such user", "RCPT first 1:*@wary.test=451 4.7.1 try again later")
	c := connected(t)
	w := startServed(t, "BULKMAIL_NATS_URL="+c.nc.ConnectedUrl(), "BULKMAIL_RETRY_DELAYS=10ms",
		"BULKMAIL_RELAYS=smtp://"+first.Addr()+"?name=first&domain=client.test&max_messages=100&tls=none")
	w.awaitLine(t, "working")
	c.publishBatch(t, "1", "a@fine.test", "b@fine.test", "c@fine.test", "d@gone.test", "e@gone.test", "f@wary.test", "g@wary.test", "no address")
	if _, err := c.js.Publish(t.Context(), c.names.Batches("c"), []byte("no batch")); err != nil {
		t.Fatal(err)
	}
	dead, acked := false, false
	for !dead || !acked { // in any order
		line := w.awaitLine(t, `(batch is a dead letter|attempt over.* verdict=ack)`)
		dead, acked = dead || strings.HasPrefix(line, "batch"), acked || strings.HasPrefix(line, "attempt")
	}
	// The deferred are one domain: one envelope in the first attempt and one in
	// the second. Each attempt has a claim, and an entry with its results.
	w.wantMetrics(t, map[string]float64{
		`bulkmail_recipients_total{relay="first",status="accepted"}`:                 5,
		`bulkmail_recipients_total{relay="first",status="rejected"}`:                 2,
		`bulkmail_recipients_total{relay="first",status="deferred"}`:                 2,
		`bulkmail_recipients_total{relay="",status="rejected"}`:                      1,
		`bulkmail_envelopes_total{relay="first",result="accepted"}`:                  2,
		`bulkmail_envelopes_total{relay="first",result="refused"}`:                   2,
		`bulkmail_envelopes_total{relay="first",result="failed"}`:                    0,
		`bulkmail_smtp_phase_duration_seconds_count{phase="envelope",relay="first"}`: 4,
		`bulkmail_smtp_phase_duration_seconds_count{phase="message",relay="first"}`:  2,
		`bulkmail_smtp_phase_duration_seconds_count{phase="auth",relay="first"}`:     0,
		`bulkmail_attempts_total{verdict="nak"}`:                                     1,
		`bulkmail_attempts_total{verdict="ack"}`:                                     1,
		`bulkmail_attempts_total{verdict="expire"}`:                                  0,
		`bulkmail_attempts_total{verdict="lost"}`:                                    0,
		`bulkmail_dead_letters_total{cause="unreadable"}`:                            1,
		`bulkmail_journal_append_duration_seconds_count{event="claimed"}`:            2,
		`bulkmail_journal_append_duration_seconds_count{event="sending"}`:            0,
		`bulkmail_journal_append_duration_seconds_count{event="done"}`:               1,
		`bulkmail_relay_state{relay="first",state="awake"}`:                          1,
		`bulkmail_relay_allowance_messages{relay="first"}`:                           95,
		`bulkmail_worker_state{state="working"}`:                                     1,
		`bulkmail_broker_connected`:                                                  1,
	})
	m := w.metrics(t)
	sessions := m[`bulkmail_sessions{relay="first",state="idle"}`] + m[`bulkmail_sessions{relay="first",state="busy"}`]
	for _, phase := range []string{"connect", "greeting", "hello"} {
		if n := m[`bulkmail_smtp_phase_duration_seconds_count{phase="`+phase+`",relay="first"}`]; n < 1 || n != sessions {
			t.Errorf("%v of phase %s, of %v sessions", n, phase, sessions)
		}
	}
	if last := m[`bulkmail_relay_last_message_timestamp_seconds{relay="first"}`]; time.Since(time.UnixMilli(int64(last*1000))) > waitAtMost {
		t.Errorf("the last message was at %v", last)
	}
	w.drain(t)
}

func TestReadinessComesWithTheBrokerAndGoesWithTheLastRelay(t *testing.T) {
	t.Parallel()
	listen := fmt.Sprintf("127.0.0.1:%d", freePort(t.Fatalf))
	nowhere := freePort(t.Fatalf)
	w := startServed(t, "BULKMAIL_NATS_URL=nats://"+listen,
		fmt.Sprintf("BULKMAIL_RELAYS=smtp://127.0.0.1:%d?name=only&domain=client.test&tries=1&max_connection_attempts=1&worthless_for=0", nowhere))
	w.wantReady(t, "worker: starting", "broker: not reached")
	if status, body := w.get(t, "/healthz"); status != http.StatusOK || body != "alive\n" {
		t.Errorf("healthz says %d %q", status, body)
	}
	w.wantMetrics(t, map[string]float64{`bulkmail_broker_connected`: 0, `bulkmail_worker_state{state="starting"}`: 1})

	b := brokertest.Start(t, func(o *broker.Options) { o.Listen = listen })
	w.awaitLine(t, "working")
	w.wantReady(t)

	connectedTo(t, b.URL()).publishBatch(t, "1", "a@example.net")
	w.awaitLine(t, "relay is worthless")
	w.wantReady(t, "relays: none of 1 can be used: 1 worthless")
	w.wantMetrics(t, map[string]float64{
		`bulkmail_relay_state{relay="only",state="worthless"}`:      1,
		`bulkmail_relay_state{relay="only",state="awake"}`:          0,
		`bulkmail_relay_errors_total{relay="only"}`:                 1,
		`bulkmail_recipients_total{relay="only",status="deferred"}`: 0,
	})
	w.drain(t)
}

func TestARelayThatIsAddedMeanwhileIsMeasured(t *testing.T) {
	t.Parallel()
	post := startSink(t, sink.Options{})
	c := connected(t)
	const first = "relays:\n  - {name: first, host: 127.0.0.1, port: 1, tls: none, domain: client.test, max_messages: 1}\n"
	file := writeFile(t, "relays.yaml", first)
	w := startServed(t, "BULKMAIL_NATS_URL="+c.nc.ConnectedUrl(), "BULKMAIL_RELAYS_FILE="+file)
	w.awaitLine(t, "working")
	host, port, _ := net.SplitHostPort(post.Addr())
	second := fmt.Sprintf("relays:\n  - {name: second, host: %s, port: %s, tls: none, domain: client.test}\n", host, port)
	if err := os.WriteFile(file, []byte(second), 0o600); err != nil {
		t.Fatal(err)
	}
	w.awaitLine(t, `relays changed.*added=\[second\]`)
	c.publishBatch(t, "1", "a@example.net")
	w.awaitLine(t, "attempt over.* verdict=ack")
	w.wantMetrics(t, map[string]float64{
		`bulkmail_recipients_total{relay="second",status="accepted"}`:                1,
		`bulkmail_smtp_phase_duration_seconds_count{phase="message",relay="second"}`: 1,
		`bulkmail_relay_state{relay="second",state="awake"}`:                         1,
	})
	if _, ok := w.metrics(t)[`bulkmail_relay_state{relay="first",state="awake"}`]; ok {
		t.Error("a relay that is gone has a state")
	}
	w.drain(t)
}

func TestAWorkerWithoutAJournalIsNotReady(t *testing.T) {
	t.Parallel()
	c := connected(t)
	w := startServed(t, "BULKMAIL_NATS_URL="+c.nc.ConnectedUrl(), "BULKMAIL_RELAYS=dummy:///dev/null?name=dummy&domain=client.test")
	w.awaitLine(t, "working")
	outcomes, err := c.js.Stream(t.Context(), c.names.OutcomesStream())
	if err != nil {
		t.Fatal(err)
	}
	limits := outcomes.CachedInfo().Config
	limits.Discard, limits.MaxMsgSize = jetstream.DiscardNew, 1 // no entry is that short
	if _, err := c.js.UpdateStream(t.Context(), limits); err != nil {
		t.Fatal(err)
	}
	c.publishBatch(t, "1", "a@example.net")
	w.awaitLine(t, "no journal")
	w.wantReady(t, "journal: cannot be kept")
	w.wantMetrics(t, map[string]float64{`bulkmail_journal_kept`: 0, `bulkmail_broker_connected`: 1})
	limits.MaxMsgSize = -1
	if _, err := c.js.UpdateStream(t.Context(), limits); err != nil {
		t.Fatal(err)
	}
	w.awaitLine(t, "journal is kept again")
	w.wantReady(t)
	w.awaitLine(t, "attempt over.* verdict=ack")
	w.wantMetrics(t, map[string]float64{`bulkmail_journal_kept`: 1, `bulkmail_recipients_total{relay="dummy",status="accepted"}`: 1})
	w.drain(t)
}

func TestAWorkerThatDrainsSaysSoAndAnswersToTheEnd(t *testing.T) {
	t.Parallel()
	taken, release := make(chan struct{}), make(chan struct{})
	letGo := sync.OnceFunc(func() { close(release) })
	defer letGo()
	server := startSink(t, sink.Options{Recorder: func(sink.Transaction) {
		close(taken)
		<-release
	}})
	c := connected(t)
	w := startServed(t, "BULKMAIL_NATS_URL="+c.nc.ConnectedUrl(), "BULKMAIL_RELAYS=smtp://"+server.Addr()+"?name=only&domain=client.test&tls=none")
	w.awaitLine(t, "working")
	c.publishBatch(t, "1", "a@example.net")
	<-taken
	w.wantReady(t)
	w.wantMetrics(t, map[string]float64{
		`bulkmail_batches_in_hand`:                         1,
		`bulkmail_sessions{relay="only",state="busy"}`:     1,
		`bulkmail_backlog_batches{state="unacknowledged"}`: 1,
		`bulkmail_backlog_batches{state="waiting"}`:        0,
	})
	if err := w.cmd.Process.Signal(os.Interrupt); err != nil {
		t.Fatal(err)
	}
	w.awaitLine(t, "draining")
	w.wantReady(t, "worker: draining")
	w.wantMetrics(t, map[string]float64{
		`bulkmail_worker_state{state="draining"}`: 1,
		`bulkmail_batches_in_hand`:                1,
	})
	letGo()
	w.end(t)
	if conn, err := net.Dial("tcp", w.address); err == nil {
		conn.Close()
		t.Error("somebody listens after the end")
	}
}

func TestMetricsWantTheTokenAndProbesDoNot(t *testing.T) {
	t.Parallel()
	const token, next = "0123456789abcdef", "fedcba9876543210"
	file := writeFile(t, "token", token+"\n")
	w := startServed(t, "BULKMAIL_NATS_URL="+startBroker(t).URL(), "BULKMAIL_RELAYS=dummy:///dev/null?domain=client.test",
		"BULKMAIL_HTTP=0.0.0.0:0", "BULKMAIL_HTTP_TOKEN_FILE="+file)
	w.awaitLine(t, "working")
	env := []string{"BULKMAIL_HTTP=" + w.address, "BULKMAIL_HTTP_TOKEN_FILE=" + file}
	if out := startBulkmail(t, env, "health", "--ready").end(t); out != "ready\n" {
		t.Errorf("health says %q", out)
	}
	asks := func(wants int, path string, headers ...string) {
		t.Helper()
		status, body := w.get(t, path, headers...)
		if status != wants {
			t.Errorf("%s with %q: %d, want %d", path, headers, status, wants)
		}
		if strings.Contains(body, "bulkmail_") != (path == "/metrics" && wants == http.StatusOK) {
			t.Errorf("%s with %q: %s", path, headers, body)
		}
	}
	asks(http.StatusOK, "/healthz")
	asks(http.StatusOK, "/readyz")
	asks(http.StatusUnauthorized, "/metrics")
	asks(http.StatusUnauthorized, "/metrics", "Authorization=Bearer "+token[1:])
	asks(http.StatusUnauthorized, "/metrics", "Authorization=Bearer ")
	asks(http.StatusUnauthorized, "/metrics", "Authorization="+token)
	asks(http.StatusUnauthorized, "/metrics", "Authorization=Basic "+token)
	asks(http.StatusOK, "/metrics", "Authorization=Bearer "+token)

	// Another token needs no restart, and none lets nobody in.
	if err := os.WriteFile(file, []byte(next), 0o600); err != nil {
		t.Fatal(err)
	}
	asks(http.StatusUnauthorized, "/metrics", "Authorization=Bearer "+token)
	asks(http.StatusOK, "/metrics", "Authorization=Bearer "+next)
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	asks(http.StatusServiceUnavailable, "/metrics", "Authorization=Bearer ")
	w.awaitLine(t, "nobody can ask for metrics")
	w.drain(t)
}

func TestNothingElseIsServed(t *testing.T) {
	t.Parallel()
	w := startServed(t, "BULKMAIL_NATS_URL="+startBroker(t).URL(), "BULKMAIL_RELAYS=dummy:///dev/null?domain=client.test")
	for _, path := range []string{"/", "/debug/pprof/", "/metrics/", "/healthz/x", "/readyz?verbose"} {
		status, _ := w.get(t, path)
		if ok := strings.HasPrefix(path, "/readyz"); !ok && status != http.StatusNotFound || ok && status == http.StatusNotFound {
			t.Errorf("%s: %d", path, status)
		}
	}
	w.drain(t)
}

func TestAWorkerTakesTheNextFreePortWhenTheDefaultOneIsTaken(t *testing.T) {
	t.Parallel()
	const address = "127.0.0.1:8080"
	if l, err := net.Listen("tcp", address); err == nil { // else somebody has it already
		defer l.Close()
	}
	path, err := exec.LookPath("bulkmail")
	if err != nil {
		t.Fatal(err)
	}
	env := []string{"PATH=" + os.Getenv("PATH"), "GORACE=" + raceOptions, "BULKMAIL_LOG_FORMAT=text", "BULKMAIL_LISTEN=127.0.0.1:0",
		"BULKMAIL_RELAYS=dummy:///dev/null?domain=client.test"}
	w, err := startProgram(t.Cleanup, t.TempDir(), env, path, "worker")
	if err != nil {
		t.Fatal(err)
	}
	advice := w.awaitLine(t, `http address taken, using the next free port.* taken=`+address+` for_health="(.*) bulkmail health"`)
	chosen := w.awaitLine(t, `http listening.* addr=(\S+)`)
	if chosen == address || advice != httpVariable+"="+chosen {
		t.Errorf("listens on %s, advises %q", chosen, advice)
	}
	w.awaitLine(t, "working")
	if out := startBulkmail(t, []string{advice}, "health", "--ready").end(t); strings.TrimSpace(out) != "ready" {
		t.Errorf("health says %q", out)
	}
	w.drain(t)
}
