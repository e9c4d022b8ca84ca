package runner

import (
	"cmp"
	"fmt"
	"log/slog"
	"os"
	"slices"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nuid"

	"bulkmail/relay"
	relayconfig "bulkmail/relay/config"
	"bulkmail/subjects"
	"bulkmail/worker"
	"bulkmail/worker/metrics"
)

// Values of [Options.Sync].
const (
	SyncAlways   = "always"   // a batch that the broker confirmed survives power loss
	SyncInterval = "interval" // it may lose the last two minutes
)

const (
	// DefaultHTTP is where a worker serves unless [Options.HTTP] says otherwise.
	DefaultHTTP = "127.0.0.1:8080"
	// HTTPOff as [Options.HTTP] has nothing served.
	HTTPOff = "off"
)

// Options are the settings of a [Runner]. Where a field has an environment
// variable, which `bulkmail worker --help` lists, it means the same and has the
// same default.
type Options struct {
	// Name tells this worker from every other one, in journals, in logs and in
	// the ledgers of caps. Defaults to host, process id and a random word.
	Name string
	// Version is that of the program, which its service tells. Defaults to 0.0.0.
	Version string

	// Conn is a connection to use. It is not closed; it should go on
	// reconnecting for ever, as one made with [Options.NATSOptions] does.
	// Defaults to a connection to NATSURL.
	Conn *nats.Conn
	// NATSURL is where the broker is, or several addresses with commas between
	// them. Defaults to a broker in this process, on Listen.
	NATSURL     string
	NATSCreds   string // credentials file. Defaults to none
	NATSNkey    string // file with the seed of a user's nkey. Defaults to none
	NATSTLSCA   string // PEM file of the broker's CA. Defaults to the system's roots
	NATSTLSCert string // PEM file of our certificate. Defaults to none
	NATSTLSKey  string // PEM file of its key. Defaults to none
	NATSInbox   string // prefix of the subjects that answers come on. Defaults to _INBOX

	Prefix   string // first token of every subject; streams are upper-case of it. Defaults to "bulkmail"
	Replicas int    // copies of each stream in a cluster. Defaults to 1

	DataDir string // folder of the embedded broker. Defaults to ./bulkmail-data
	Listen  string // its address; port 0: any free one. Defaults to 127.0.0.1:4222
	Sync    string // SyncAlways or SyncInterval. Defaults to SyncAlways

	// Relays are relays of your own. One without a Dialer is reached as its
	// Config says.
	Relays []relay.Relay
	// RelayURLs are URLs of relays, blank-separated, and RelaysFile is a file in
	// YAML or a Mail::Bulkmail server file; they come after Relays, in this
	// order. There must be a relay somewhere.
	RelayURLs  string
	RelaysFile string
	// ReadRelays says how both are read. Defaults to what the operating system
	// says of this host.
	ReadRelays relayconfig.Options
	// Conversation is given each line of what is said to relays and by them, by
	// many goroutines at once. Defaults to nobody.
	Conversation func(relay, line string)

	Batches        int             // batches sent for at once. Defaults to 8
	AckWait        time.Duration   // a worker silent for so long loses its batches. Defaults to 30s
	OutcomesMaxAge time.Duration   // how long outcomes are kept. Defaults to 720h
	RetryDelays    []time.Duration // between attempts; the last repeats. Defaults to 1m, 5m, 15m, 1h, 4h
	RetryFor       time.Duration   // what is deferred for so long expires. Defaults to 72h
	InDoubt        worker.InDoubt  // worker.Resend or worker.Skip. Defaults to worker.Resend
	DrainTimeout   time.Duration   // bound on the end of envelopes in flight. Defaults to 30s
	MessageMemory  worker.Octets   // what messages of batches may take; one that is larger is sent alone. Defaults to 256MB

	// KeysFile has the keys of Message-IDs and unsubscribe links, one a line: "ID
	// SECRET". The first makes what is new. Defaults to a key that all workers share
	// on the broker.
	KeysFile string
	// DKIMFile is YAML that names the keys that sign: see [dkim.Load]. Defaults to
	// none: what leaves is unsigned.
	DKIMFile string
	// UnsubscribeURL is an https URL to which a letter's token is appended, and
	// UnsubscribeMailto an address. Default to none.
	UnsubscribeURL    string
	UnsubscribeMailto string
	// ReturnPath is an address with a place for a token, such as
	// "b+{token}@bounces.example.com". It takes the place of the sender in MAIL FROM,
	// so that what comes back finds its batch. Defaults to none.
	ReturnPath string

	// HTTP is where /healthz, /readyz and /metrics are served; HTTPOff: nowhere.
	// Defaults to DefaultHTTP, or the next free port if that one is taken; an
	// address that is set is used or is an error.
	HTTP string
	// HTTPTokenFile is a file with the Bearer token that /metrics asks for. On
	// any address but loopback there must be one. Defaults to none.
	HTTPTokenFile string
	// Metrics count what happens, one for each Runner. Defaults to some of its
	// own, which /metrics shows.
	Metrics *metrics.Metrics

	Log *slog.Logger // Defaults to nowhere
}

// WithDefaults is o as [New] takes it: fields that are zero and have a default
// have that. HTTP stays as it is, for it matters whether an address was asked
// for. It neither opens nor checks anything.
func (o Options) WithDefaults() Options {
	o.Name = cmp.Or(o.Name, uniqueName())
	o.Prefix = cmp.Or(o.Prefix, subjects.DefaultPrefix)
	o.Replicas = cmp.Or(o.Replicas, 1)
	o.DataDir = cmp.Or(o.DataDir, "./bulkmail-data")
	o.Listen = cmp.Or(o.Listen, "127.0.0.1:4222")
	o.Sync = cmp.Or(o.Sync, SyncAlways)
	o.ReadRelays.URLsFrom = cmp.Or(o.ReadRelays.URLsFrom, "RelayURLs")
	o.Batches = cmp.Or(o.Batches, 8)
	o.AckWait = cmp.Or(o.AckWait, 30*time.Second)
	o.OutcomesMaxAge = cmp.Or(o.OutcomesMaxAge, 30*24*time.Hour)
	if len(o.RetryDelays) == 0 {
		o.RetryDelays = []time.Duration{time.Minute, 5 * time.Minute, 15 * time.Minute, time.Hour, 4 * time.Hour}
	}
	o.RetryDelays = slices.Clone(o.RetryDelays)
	o.RetryFor = cmp.Or(o.RetryFor, 72*time.Hour)
	o.InDoubt = cmp.Or(o.InDoubt, worker.Resend)
	o.DrainTimeout = cmp.Or(o.DrainTimeout, 30*time.Second)
	o.MessageMemory = cmp.Or(o.MessageMemory, 256e6)
	o.Log = logOr(o.Log)
	return o
}

// logOr is log, or one that goes nowhere.
func logOr(log *slog.Logger) *slog.Logger {
	if log == nil {
		return slog.New(slog.DiscardHandler)
	}
	return log
}

// Provision is what [subjects.Provision] makes for these options.
func (o Options) Provision() subjects.Options {
	o = o.WithDefaults()
	return subjects.Options{Replicas: o.Replicas, AckWait: o.AckWait, OutcomesMaxAge: o.OutcomesMaxAge}
}

func (o Options) worker(letters worker.LetterOptions) worker.Options {
	return worker.Options{
		Name:          o.Name,
		Batches:       o.Batches,
		RetryDelays:   o.RetryDelays,
		RetryFor:      o.RetryFor,
		InDoubt:       o.InDoubt,
		DrainTimeout:  o.DrainTimeout,
		MessageMemory: o.MessageMemory,
		Letters:       letters,
		Provision:     o.Provision(),
		Observer:      o.Metrics,
		Log:           o.Log,
	}
}

// uniqueName tells this worker from every other one, also from those that this
// process has had before.
func uniqueName() string {
	host, err := os.Hostname()
	if err != nil {
		host = "unknown"
	}
	id := nuid.Next()
	return fmt.Sprintf("%s-%d-%s", host, os.Getpid(), id[len(id)-6:])
}
