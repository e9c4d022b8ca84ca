package metrics_test

import (
	"flag"
	"fmt"
	"log/slog"
	"net/http/httptest"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"go.uber.org/goleak"

	"bulkmail/relay"
	"bulkmail/relay/smtp"
	"bulkmail/subjects"
	"bulkmail/subjects/broker/brokertest"
	"bulkmail/worker"
	"bulkmail/worker/health"
	"bulkmail/worker/metrics"
)

var update = flag.Bool("update", false, "write testdata/metrics.txt anew")

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// A desk is a worker as it looks from outside.
type desk struct {
	state  worker.State
	relays []relay.Status
}

func (d desk) State() worker.State              { return d.state }
func (d desk) InHand() int                      { return 3 }
func (d desk) KeepsJournals() bool              { return false }
func (d desk) Suppressed() (int, time.Duration) { return 5, 3 * time.Second }
func (d desk) Status() []relay.Status           { return d.relays }

// observed is metrics of which each has a value.
func observed(t *testing.T) *metrics.Metrics {
	t.Helper()
	js := brokertest.Connect(t, brokertest.Start(t).URL())
	var names subjects.Names
	if err := subjects.Provision(t.Context(), js, names, subjects.Options{AckWait: 30 * time.Second}, slog.New(slog.DiscardHandler)); err != nil {
		t.Fatal(err)
	}
	if _, err := js.Publish(t.Context(), names.Batches("c"), []byte("{}")); err != nil {
		t.Fatal(err)
	}
	d := desk{worker.Draining, []relay.Status{
		{Relay: "mx1", State: relay.Awake, Left: relay.Unlimited, AtOnce: 6, Sessions: 4, Busy: 1, Envelopes: 7, Refused: 2, Failed: 1, LastMessage: time.Unix(1e9, 5e8)},
		{Relay: "mx2", State: relay.Parked, Left: 17, Errors: 5},
	}}
	m := metrics.New(metrics.Build{Version: "v1.2.3", Commit: "abc", Go: "go1"})
	m.Watch(metrics.Source{Worker: d, Relays: d, Conn: js.Conn(), Broker: health.NewBroker(js, names)})
	took := m.Took("mx1")
	for _, p := range smtp.Phases() {
		took(p, 2*time.Millisecond)
	}
	m.Appended(subjects.Entry{Event: subjects.Claimed}, time.Millisecond)
	m.Appended(subjects.Entry{Event: subjects.Sending, Results: []subjects.Results{
		{Status: subjects.InDoubt, Relay: "mx1", Recipients: []string{"a@example.net"}},
	}}, time.Millisecond)
	m.Appended(subjects.Entry{Event: subjects.Recorded, Results: []subjects.Results{
		{Status: subjects.Accepted, Relay: "mx1", Recipients: []string{"a@example.net", "b@example.net"}},
		{Status: subjects.Accepted, Relay: "mx1", Recipients: []string{"c@example.net"}},
		{Status: subjects.Rejected, Recipients: []string{"d"}},
	}}, time.Second)
	m.Attempted(worker.Nak)
	m.Buried(subjects.CauseExpired)
	return m
}

func TestWhatWasObservedIsServed(t *testing.T) {
	t.Parallel()
	m := observed(t)
	answer := httptest.NewRecorder()
	m.Handler().ServeHTTP(answer, httptest.NewRequest("GET", "/metrics", nil))
	lines := strings.Split(answer.Body.String(), "\n")
	for _, want := range []string{
		`bulkmail_recipients_total{relay="mx1",status="accepted"} 3`,
		`bulkmail_recipients_total{relay="mx1",status="rejected"} 0`,
		`bulkmail_recipients_total{relay="",status="rejected"} 1`,
		`bulkmail_smtp_phase_duration_seconds_count{phase="message",relay="mx1"} 1`,
		`bulkmail_smtp_phase_duration_seconds_sum{phase="tls",relay="mx1"} 0.002`,
		`bulkmail_smtp_phase_duration_seconds_bucket{phase="tls",relay="mx1",le="0.001"} 0`,
		`bulkmail_smtp_phase_duration_seconds_bucket{phase="tls",relay="mx1",le="0.0025"} 1`,
		`bulkmail_journal_append_duration_seconds_sum{event="recorded"} 1`,
		`bulkmail_journal_append_duration_seconds_count{event="sending"} 1`,
		`bulkmail_journal_append_duration_seconds_count{event="done"} 0`,
		`bulkmail_attempts_total{verdict="nak"} 1`,
		`bulkmail_attempts_total{verdict="ack"} 0`,
		`bulkmail_dead_letters_total{cause="expired"} 1`,
		`bulkmail_build_info{commit="abc",goversion="go1",version="v1.2.3"} 1`,
		`bulkmail_worker_state{state="draining"} 1`,
		`bulkmail_worker_state{state="working"} 0`,
		`bulkmail_batches_in_hand 3`,
		`bulkmail_broker_connected 1`,
		`bulkmail_journal_kept 0`,
		`bulkmail_suppressions 5`,
		`bulkmail_suppressions_behind_seconds 3`,
		`bulkmail_broker_reconnects_total 0`,
		`bulkmail_backlog_batches{state="waiting"} 1`,
		`bulkmail_backlog_batches{state="unacknowledged"} 0`,
		`bulkmail_envelopes_total{relay="mx1",result="accepted"} 7`,
		`bulkmail_envelopes_total{relay="mx1",result="refused"} 2`,
		`bulkmail_envelopes_total{relay="mx1",result="failed"} 1`,
		`bulkmail_sessions{relay="mx1",state="idle"} 3`,
		`bulkmail_sessions{relay="mx1",state="busy"} 1`,
		`bulkmail_sessions_limit{relay="mx1"} 6`,
		`bulkmail_relay_state{relay="mx1",state="awake"} 1`,
		`bulkmail_relay_state{relay="mx2",state="awake"} 0`,
		`bulkmail_relay_state{relay="mx2",state="parked"} 1`,
		`bulkmail_relay_errors_total{relay="mx2"} 5`,
		`bulkmail_relay_allowance_messages{relay="mx2"} 17`,
		`bulkmail_relay_last_message_timestamp_seconds{relay="mx1"} 1.0000000005e+09`,
	} {
		if !slices.Contains(lines, want) {
			t.Errorf("missing: %s", want)
		}
	}
	// What is only announced has no outcome, and what has no cap no allowance.
	for _, no := range []string{`status="in_doubt"`, `bulkmail_relay_allowance_messages{relay="mx1"}`, `bulkmail_relay_last_message_timestamp_seconds{relay="mx2"}`} {
		if strings.Contains(answer.Body.String(), no) {
			t.Errorf("there is %s", no)
		}
	}
}

func TestTheMetricsKeepPrometheusConventions(t *testing.T) {
	t.Parallel()
	problems, err := testutil.GatherAndLint(observed(t).Gatherer())
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range problems {
		t.Errorf("%s: %s", p.Metric, p.Text)
	}
}

// Dashboards and alerts go by names and labels: both are a promise. With -update
// the list is written anew.
func TestNamesAndLabelsAreThoseThatWerePromised(t *testing.T) {
	t.Parallel()
	families, err := observed(t).Gatherer().Gather()
	if err != nil {
		t.Fatal(err)
	}
	var got strings.Builder
	for _, f := range families {
		if !strings.HasPrefix(f.GetName(), "bulkmail_") {
			continue // those of Go and of the process
		}
		var labels []string
		for _, l := range f.GetMetric()[0].GetLabel() {
			labels = append(labels, l.GetName())
		}
		fmt.Fprintf(&got, "%s %s %s\n", strings.ToLower(f.GetType().String()), f.GetName(), strings.Join(labels, ","))
	}
	const golden = "testdata/metrics.txt"
	if *update {
		if err := os.WriteFile(golden, []byte(got.String()), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(golden)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), got.String()); diff != "" {
		t.Error(diff)
	}
}

func TestTheREADMENamesOnlyMetricsThatThereAre(t *testing.T) {
	t.Parallel()
	readme, err := os.ReadFile("../../README.md")
	if err != nil {
		t.Fatal(err)
	}
	golden, err := os.ReadFile("testdata/metrics.txt")
	if err != nil {
		t.Fatal(err)
	}
	names := regexp.MustCompile(`bulkmail_[a-z_]+`).FindAllString(string(readme), -1)
	if len(names) == 0 {
		t.Error("the README names none")
	}
	for _, name := range names {
		family := regexp.MustCompile(`_(bucket|sum|count)$`).ReplaceAllString(name, "")
		if !strings.Contains(string(golden), " "+family+" ") {
			t.Errorf("there is no %s", name)
		}
	}
}

func TestWhatIsToldOfAnEnvelopeCostsNoAllocation(t *testing.T) {
	m := metrics.New(metrics.Build{})
	took := m.Took("mx1")
	entry := subjects.Entry{Event: subjects.Recorded, Results: []subjects.Results{{Status: subjects.Accepted, Relay: "mx1", Recipients: make([]string, 100)}}}
	if n := testing.AllocsPerRun(100, func() {
		took(smtp.PhaseEnvelope, time.Millisecond)
		took(smtp.PhaseMessage, time.Millisecond)
		m.Appended(entry, time.Millisecond)
		m.Attempted(worker.Ack)
	}); n > 0 {
		t.Errorf("%v allocations", n)
	}
}

// BenchmarkEnvelope is what one envelope costs: two phases, and an entry for each
// (at worst: entries hold several).
func BenchmarkEnvelope(b *testing.B) {
	m := metrics.New(metrics.Build{})
	took := m.Took("mx1")
	entry := subjects.Entry{Event: subjects.Recorded, Results: []subjects.Results{{Status: subjects.Accepted, Relay: "mx1", Recipients: make([]string, 100)}}}
	b.ReportAllocs()
	for b.Loop() {
		took(smtp.PhaseEnvelope, time.Millisecond)
		took(smtp.PhaseMessage, time.Millisecond)
		m.Appended(entry, time.Millisecond)
	}
}
