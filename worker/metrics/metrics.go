// Package metrics counts what a worker does, for Prometheus.
//
// What happens is told to it: how long the phases of a session took, what was
// written to a journal, how attempts end. That costs an envelope or an append a
// few additions, and a recipient nothing. What is so now (relays, sessions,
// batches in hand, the backlog) is looked up when somebody asks, in current.go.
//
// Labels have few values: relays by name, statuses, phases, states. Campaigns
// and domains are no labels, for there is no end to them.
package metrics

import (
	"net/http"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"bulkmail/relay/smtp"
	"bulkmail/subjects"
	"bulkmail/worker"
)

const namespace = "bulkmail"

// Build is what the program was built from.
type Build struct{ Version, Commit, Go string }

// Metrics are those of one worker. It is a [worker.Observer].
type Metrics struct {
	registry *prometheus.Registry
	phases   *prometheus.HistogramVec // by relay and phase
	recorded *prometheus.CounterVec   // by relay and status
	appends  *prometheus.HistogramVec // by event
	attempts *prometheus.CounterVec   // by verdict
	letters  *prometheus.CounterVec   // by cause
}

// New returns metrics in which nothing has happened yet.
func New(b Build) *Metrics {
	m := &Metrics{registry: prometheus.NewRegistry()}
	m.phases = prometheus.NewHistogramVec(prometheus.HistogramOpts{
		Namespace: namespace, Name: "smtp_phase_duration_seconds",
		Help: "How long the phases of SMTP sessions took that came to their end: connect, greeting (to 220), tls (the handshake), " +
			"hello, auth, envelope (MAIL, RCPT and DATA), message (to the reply to its end).",
		Buckets: []float64{.001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 30, 60, 300},
	}, []string{"relay", "phase"})
	m.recorded = prometheus.NewCounterVec(prometheus.CounterOpts{
		Namespace: namespace, Name: "recipients_total",
		Help: "Recipients by what was recorded of them. deferred is not final: who is deferred counts once an attempt. " +
			"The relay is empty where none was asked.",
	}, []string{"relay", "status"})
	m.appends = prometheus.NewHistogramVec(prometheus.HistogramOpts{
		Namespace: namespace, Name: "journal_append_duration_seconds",
		Help:    "How long it took until an entry was in a journal, with all tries.",
		Buckets: []float64{.0005, .001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 30},
	}, []string{"event"})
	m.attempts = prometheus.NewCounterVec(prometheus.CounterOpts{
		Namespace: namespace, Name: "attempts_total",
		Help: "Attempts at batches by how they ended: ack (every recipient is final), nak (the batch comes back), expire (what was left " +
			"is given up), lost (another worker has the batch, or it comes back by itself).",
	}, []string{"verdict"})
	m.letters = prometheus.NewCounterVec(prometheus.CounterOpts{
		Namespace: namespace, Name: "dead_letters_total",
		Help: "Dead letters by cause: unreadable (a batch that could not be read) or expired (the rest of one).",
	}, []string{"cause"})
	build := prometheus.NewGauge(prometheus.GaugeOpts{
		Namespace: namespace, Name: "build_info",
		Help:        "What the worker was built from; the value is 1.",
		ConstLabels: prometheus.Labels{"version": b.Version, "commit": b.Commit, "goversion": b.Go},
	})
	build.Set(1)
	m.registry.MustRegister(m.phases, m.recorded, m.appends, m.attempts, m.letters, build,
		collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))

	// There from the start, so that a rate sees the first one.
	for _, event := range []subjects.Event{subjects.Claimed, subjects.Sending, subjects.Recorded, subjects.Done} {
		m.appends.WithLabelValues(string(event))
	}
	for _, end := range []worker.Action{worker.Ack, worker.Nak, worker.Expire, worker.Lost} {
		m.attempts.WithLabelValues(string(end))
	}
	for _, cause := range []string{subjects.CauseUnreadable, subjects.CauseExpired} {
		m.letters.WithLabelValues(cause)
	}
	return m
}

// Handler serves the metrics.
func (m *Metrics) Handler() http.Handler {
	return promhttp.HandlerFor(m.registry, promhttp.HandlerOpts{MaxRequestsInFlight: 4})
}

// Gatherer gathers the metrics.
func (m *Metrics) Gatherer() prometheus.Gatherer { return m.registry }

// Took is for [relay.Outlets]: it makes what is told of the phases of a relay's
// sessions.
func (m *Metrics) Took(relay string) func(smtp.Phase, time.Duration) {
	all := smtp.Phases()
	observers := make([]prometheus.Observer, len(all))
	for i, p := range all {
		observers[i] = m.phases.WithLabelValues(relay, p.String())
	}
	for _, status := range []subjects.Status{subjects.Accepted, subjects.Rejected, subjects.Deferred} {
		m.recorded.WithLabelValues(relay, string(status))
	}
	return func(p smtp.Phase, took time.Duration) { observers[p].Observe(took.Seconds()) }
}

// Appended implements [worker.Observer].
func (m *Metrics) Appended(e subjects.Entry, took time.Duration) {
	m.appends.WithLabelValues(string(e.Event)).Observe(took.Seconds())
	if e.Event == subjects.Sending {
		return // announced, and nothing has become of them yet
	}
	for _, r := range e.Results {
		m.recorded.WithLabelValues(r.Relay, string(r.Status)).Add(float64(len(r.Recipients)))
	}
}

// Attempted implements [worker.Observer].
func (m *Metrics) Attempted(end worker.Action) { m.attempts.WithLabelValues(string(end)).Inc() }

// Buried implements [worker.Observer].
func (m *Metrics) Buried(cause string) { m.letters.WithLabelValues(cause).Inc() }
