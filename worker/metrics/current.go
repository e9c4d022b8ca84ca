package metrics

import (
	"context"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/prometheus/client_golang/prometheus"

	"bulkmail/relay"
	"bulkmail/worker"
	"bulkmail/worker/health"
)

// scrapeTimeout bounds what a scrape waits for the broker. Its answer may be
// some seconds old.
const scrapeTimeout = 3 * time.Second

// Source is where the metrics of what is so now come from.
type Source struct {
	Worker interface {
		State() worker.State
		InHand() int
		KeepsJournals() bool
		Suppressed() (entries int, behind time.Duration)
	}
	Relays interface{ Status() []relay.Status }
	Conn   *nats.Conn
	Broker *health.Broker
}

// Watch adds what s says to the metrics. It is called once.
func (m *Metrics) Watch(s Source) { m.registry.MustRegister(current{s}) }

// current collects what is so now.
type current struct{ Source }

func describe(name, help string, labels ...string) *prometheus.Desc {
	return prometheus.NewDesc(prometheus.BuildFQName(namespace, "", name), help, labels, nil)
}

var (
	descState      = describe("worker_state", "Whether the worker is in this state: starting, working, draining or ended.", "state")
	descInHand     = describe("batches_in_hand", "Batches that the worker holds.")
	descJournal    = describe("journal_kept", "Whether journals can be written and read, as far as is known; if not, nothing is sent.")
	descSuppressed = describe("suppressions", "Entries that the worker knows of those who must not be sent to.")
	descBehind     = describe("suppressions_behind_seconds", "For how long it has not been known that these are those of the broker; 0 where it is known.")
	descConnected  = describe("broker_connected", "Whether the broker is reached.")
	descReconnects = describe("broker_reconnects_total", "Times that the broker was reached again.")
	descBacklog    = describe("backlog_batches", "Batches of all workers together: waiting (not delivered), unacknowledged (in a worker's hand, or delayed). "+
		"Some seconds old; missing while the broker does not answer.", "state")
	descEnvelopes = describe("envelopes_total", "Envelopes by what became of them: accepted (somebody was), refused (everybody was, or deferred), "+
		"failed (no verdict on anybody; they go out again).", "relay", "result")
	descSessions = describe("sessions", "Open sessions: idle, or busy sending.", "relay", "state")
	descLimit    = describe("sessions_limit", "Sessions that may be sending at once: connections, or what adaptive found.", "relay")
	descRelay    = describe("relay_state", "Whether the relay is in this state: untried (no session yet), awake, asleep (max_messages_while_awake), paced (max_rate), "+
		"exhausted (max_messages), parked (unwell) or worthless (max_connection_attempts).", "relay", "state")
	descErrors    = describe("relay_errors_total", "Errors of sessions, and of attempts to have one.", "relay")
	descAllowance = describe("relay_allowance_messages", "Recipients that the caps of the relay leave, for all workers together; missing where it has none.", "relay")
	descLast      = describe("relay_last_message_timestamp_seconds", "When the relay accepted a message last; missing before the first.", "relay")
)

// Describe implements [prometheus.Collector].
func (current) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{
		descState, descInHand, descJournal, descSuppressed, descBehind, descConnected, descReconnects, descBacklog, descEnvelopes, descSessions, descLimit, descRelay, descErrors, descAllowance, descLast,
	} {
		ch <- d
	}
}

// Collect implements [prometheus.Collector].
func (c current) Collect(ch chan<- prometheus.Metric) {
	gauge := func(d *prometheus.Desc, value float64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, value, labels...)
	}
	count := func(d *prometheus.Desc, value float64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.CounterValue, value, labels...)
	}
	now := c.Worker.State()
	for _, s := range worker.States() {
		gauge(descState, truth(s == now), s.String())
	}
	gauge(descInHand, float64(c.Worker.InHand()))
	gauge(descJournal, truth(c.Worker.KeepsJournals()))
	suppressed, behind := c.Worker.Suppressed()
	gauge(descSuppressed, float64(suppressed))
	gauge(descBehind, behind.Seconds())
	gauge(descConnected, truth(c.Conn.IsConnected()))
	count(descReconnects, float64(c.Conn.Stats().Reconnects))
	if c.Conn.IsConnected() {
		ctx, cancel := context.WithTimeout(context.Background(), scrapeTimeout)
		defer cancel()
		if b, err := c.Broker.Backlog(ctx); err == nil {
			gauge(descBacklog, float64(b.Waiting), "waiting")
			gauge(descBacklog, float64(b.Unacknowledged), "unacknowledged")
		}
	}
	for _, r := range c.Relays.Status() {
		count(descEnvelopes, float64(r.Envelopes), r.Relay, "accepted")
		count(descEnvelopes, float64(r.Refused), r.Relay, "refused")
		count(descEnvelopes, float64(r.Failed), r.Relay, "failed")
		gauge(descSessions, float64(r.Sessions-r.Busy), r.Relay, "idle")
		gauge(descSessions, float64(r.Busy), r.Relay, "busy")
		gauge(descLimit, float64(r.AtOnce), r.Relay)
		for _, s := range relay.States() {
			gauge(descRelay, truth(s == r.State), r.Relay, string(s))
		}
		count(descErrors, float64(r.Errors), r.Relay)
		if r.Left != relay.Unlimited {
			gauge(descAllowance, float64(r.Left), r.Relay)
		}
		if !r.LastMessage.IsZero() {
			gauge(descLast, float64(r.LastMessage.UnixMilli())/1000, r.Relay)
		}
	}
}

func truth(is bool) float64 {
	if is {
		return 1
	}
	return 0
}
