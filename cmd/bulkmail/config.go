package main

import (
	"cmp"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"reflect"
	"slices"
	"strings"
	"time"

	"github.com/kelseyhightower/envconfig"

	relayconfig "bulkmail/relay/config"
	"bulkmail/subjects"
	"bulkmail/worker"
	"bulkmail/worker/runner"
)

// config is the environment, with the prefix BULKMAIL_. A field that
// [runner.Options] has too is called the same there, and has the same default.
type config struct {
	NATSURL     string `envconfig:"NATS_URL" desc:"broker; empty: a worker embeds one, other commands use nats://127.0.0.1:4222"`
	NATSCreds   string `envconfig:"NATS_CREDS" desc:"credentials file"`
	NATSNkey    string `envconfig:"NATS_NKEY" desc:"file with the seed of a user's nkey, in the place of credentials"`
	NATSTLSCA   string `envconfig:"NATS_TLS_CA" desc:"PEM file of the broker's CA"`
	NATSTLSCert string `envconfig:"NATS_TLS_CERT" desc:"PEM file of our certificate"`
	NATSTLSKey  string `envconfig:"NATS_TLS_KEY" desc:"PEM file of its key"`
	NATSInbox   string `envconfig:"NATS_INBOX" desc:"prefix of the subjects that answers come on, for users of a broker who may hear no other (_INBOX)"`
	Prefix      string `envconfig:"PREFIX" default:"bulkmail" desc:"first token of every subject; streams are upper-case of it"`
	Replicas    int    `envconfig:"REPLICAS" default:"1" desc:"copies of each stream in a cluster"`

	DataDir string `envconfig:"DATA_DIR" default:"./bulkmail-data" desc:"folder of the embedded broker"`
	Listen  string `envconfig:"LISTEN" default:"127.0.0.1:4222" desc:"address of the embedded broker"`
	Sync    string `envconfig:"SYNC" default:"always" desc:"embedded broker: always (a batch it confirmed survives power loss) or interval"`

	RelayURLs  string `envconfig:"RELAYS" desc:"relay URLs, blank-separated"`
	RelaysFile string `envconfig:"RELAYS_FILE" desc:"relays in YAML, or a Mail::Bulkmail server file"`

	Batches        int             `envconfig:"BATCHES" default:"8" desc:"batches sent for at once"`
	AckWait        time.Duration   `envconfig:"ACK_WAIT" default:"30s" desc:"a worker silent for so long loses its batches"`
	OutcomesMaxAge time.Duration   `envconfig:"OUTCOMES_MAX_AGE" default:"720h" desc:"how long outcomes are kept"`
	RetryDelays    []time.Duration `envconfig:"RETRY_DELAYS" default:"1m,5m,15m,1h,4h" desc:"between attempts; the last repeats"`
	RetryFor       time.Duration   `envconfig:"RETRY_FOR" default:"72h" desc:"what is deferred for so long expires"`
	InDoubt        worker.InDoubt  `envconfig:"IN_DOUBT" default:"resend" desc:"recipients that may have been accepted, which nobody can know: resend (in_doubt after three copies) or skip (at most once)"`
	DrainTimeout   time.Duration   `envconfig:"DRAIN_TIMEOUT" default:"30s" desc:"bound on the end of envelopes in flight after SIGTERM"`
	MessageMemory  worker.Octets   `envconfig:"MESSAGE_MEMORY" default:"256MB" desc:"what messages in hand and kept for the next batches may take; batches wait for room, and a message that is larger is sent alone"`

	KeysFile          string `envconfig:"KEYS_FILE" desc:"keys of Message-IDs and unsubscribe links, a line each, the first for new ones (bulkmail keys new)"`
	DKIMFile          string `envconfig:"DKIM_FILE" desc:"YAML with the keys that sign: keys, each with domain, selector and key_file"`
	UnsubscribeURL    string `envconfig:"UNSUBSCRIBE_URL" desc:"https URL to which a letter's unsubscribe token is appended"`
	UnsubscribeMailto string `envconfig:"UNSUBSCRIBE_MAILTO" desc:"address that takes unsubscribes by mail"`
	ReturnPath        string `envconfig:"RETURN_PATH" desc:"sender in MAIL FROM, with a token by which bounces are found again: b+{token}@bounces.example.com"`

	FeedbackHTTP    string `envconfig:"FEEDBACK_HTTP" desc:"address of bulkmail feedback for unsubscribes (RFC 8058), such as :8443"`
	FeedbackTLSCert string `envconfig:"FEEDBACK_TLS_CERT" desc:"PEM file of its certificate; without one it speaks plain HTTP, for a proxy that has TLS"`
	FeedbackTLSKey  string `envconfig:"FEEDBACK_TLS_KEY" desc:"PEM file of its key"`

	HTTP          string `envconfig:"HTTP" default:"127.0.0.1:8080" desc:"address for /healthz, /readyz and /metrics of a worker; set and empty: off; unless set, the next free port if it is taken"`
	HTTPTokenFile string `envconfig:"HTTP_TOKEN_FILE" desc:"file with the Bearer token that /metrics asks for; needed on any address but loopback"`

	LogLevel  slog.Level `envconfig:"LOG_LEVEL" default:"info" desc:"debug, info, warn or error"`
	LogFormat string     `envconfig:"LOG_FORMAT" default:"auto" desc:"auto (text on a terminal, JSON elsewhere), text or json"`
}

const (
	prefix       = "BULKMAIL"
	httpVariable = prefix + "_HTTP"
)

// loadConfig reads and checks the environment, but for relays, and reports every
// problem at once.
func loadConfig() (config, subjects.Names, error) {
	c, problems := readEnvironment()
	problems = append(problems, inVariables(c.options(nil).Validate())...)
	if len(problems) > 0 {
		return c, subjects.Names{}, &usageError{errors.Join(problems...)}
	}
	names, err := subjects.New(c.Prefix)
	return c, names, err
}

// readEnvironment reads the environment, and reports what cannot be read and what
// [runner.Options] would not find.
func readEnvironment() (config, []error) {
	var c config
	// Field by field, since envconfig stops at the first one it cannot read. The
	// prefix goes into the tag: as an argument, envconfig would make do with the
	// name that lacks it, and PREFIX or LOG_LEVEL are often somebody else's.
	var problems []error
	bad := make(map[string]bool)
	fields := reflect.ValueOf(&c).Elem()
	for i := range fields.NumField() {
		field := fields.Type().Field(i)
		field.Tag = reflect.StructTag(strings.Replace(string(field.Tag), `envconfig:"`, `envconfig:"`+prefix+`_`, 1))
		one := reflect.New(reflect.StructOf([]reflect.StructField{field}))
		if err := envconfig.Process("", one.Interface()); err != nil {
			problems = append(problems, unreadable(err))
			bad[field.Name] = true
		}
		fields.Field(i).Set(one.Elem().Field(0))
	}
	return c, append(problems, c.unset(bad)...)
}

// unset finds variables that are set to nothing or 0, which [runner.Options] would
// take for their defaults, and what only the command line knows.
func (c *config) unset(bad map[string]bool) []error {
	var problems []error
	values := reflect.ValueOf(c).Elem()
	for i := range values.NumField() {
		field, value := values.Type().Field(i), values.Field(i)
		empty := value.IsZero() || value.Kind() == reflect.Slice && value.Len() == 0
		if bad[field.Name] || !empty || field.Tag.Get("default") == "" || field.Name == "HTTP" || field.Name == "LogLevel" {
			continue
		}
		why := "is empty; leave it unset for " + field.Tag.Get("default")
		if value.CanInt() {
			why = "must be more than 0"
		}
		problems = append(problems, fmt.Errorf("%s: %s", variable(field.Name), why))
	}
	if formats := []string{"auto", "text", "json"}; c.LogFormat != "" && !slices.Contains(formats, c.LogFormat) {
		problems = append(problems, fmt.Errorf("%s_LOG_FORMAT: %q is unknown; use %s", prefix, c.LogFormat, strings.Join(formats, " or ")))
	}
	return problems
}

// variable is the name in the environment of a field of config.
func variable(field string) string {
	f, ok := reflect.TypeFor[config]().FieldByName(field)
	if !ok {
		return field
	}
	return prefix + "_" + f.Tag.Get("envconfig")
}

// inVariables are the problems of [runner.Options], in the words of the
// environment.
func inVariables(err error) []error {
	found, _ := errors.AsType[runner.Problems](err)
	problems := make([]error, len(found))
	for i, p := range found {
		problems[i] = errors.New(p.In(variable))
	}
	slices.SortFunc(problems, func(a, b error) int { return cmp.Compare(a.Error(), b.Error()) })
	return problems
}

// options are those of a worker in this environment.
func (c config) options(log *slog.Logger) runner.Options {
	o := runner.Options{
		NATSURL: c.NATSURL, NATSCreds: c.NATSCreds, NATSNkey: c.NATSNkey, NATSTLSCA: c.NATSTLSCA, NATSTLSCert: c.NATSTLSCert, NATSTLSKey: c.NATSTLSKey,
		NATSInbox: c.NATSInbox, Prefix: c.Prefix, Replicas: c.Replicas, DataDir: c.DataDir, Listen: c.Listen, Sync: c.Sync,
		RelayURLs: c.RelayURLs, RelaysFile: c.RelaysFile, ReadRelays: relayconfig.Options{URLsFrom: variable("RelayURLs")},
		Batches: c.Batches, AckWait: c.AckWait, OutcomesMaxAge: c.OutcomesMaxAge, RetryDelays: c.RetryDelays, RetryFor: c.RetryFor,
		InDoubt: c.InDoubt, DrainTimeout: c.DrainTimeout, MessageMemory: c.MessageMemory, KeysFile: c.KeysFile, DKIMFile: c.DKIMFile,
		UnsubscribeURL: c.UnsubscribeURL, UnsubscribeMailto: c.UnsubscribeMailto, ReturnPath: c.ReturnPath, HTTP: c.HTTP, HTTPTokenFile: c.HTTPTokenFile, Log: log,
	}
	switch _, asked := os.LookupEnv(httpVariable); {
	case c.HTTP == "":
		o.HTTP = runner.HTTPOff
	case !asked:
		o.HTTP = "" // the next free port will do
	}
	return o
}

// unreadable says of a value that envconfig could not read what would do.
func unreadable(err error) error {
	e, ok := errors.AsType[*envconfig.ParseError](err)
	if !ok {
		return err
	}
	want := "a " + e.TypeName
	switch {
	case strings.Contains(e.TypeName, "Duration"):
		want = "a duration such as 30s, 5m or 72h"
	case e.TypeName == "int":
		want = "a whole number"
	case strings.Contains(e.TypeName, "Octets"):
		want = "a size such as 64MB or 1GB"
	case strings.Contains(e.TypeName, "Level"):
		want = "debug, info, warn or error"
	}
	return fmt.Errorf("%s: %q is not %s", e.KeyName, e.Value, want)
}

// unknownVariables are the BULKMAIL_ variables that are set and mean nothing:
// most likely misspelt.
func unknownVariables() []string {
	var unknown []string
	t := reflect.TypeFor[config]()
	for _, entry := range os.Environ() {
		key, _, _ := strings.Cut(entry, "=")
		name, ours := strings.CutPrefix(key, prefix+"_")
		if ours && !slices.ContainsFunc(reflect.VisibleFields(t), func(f reflect.StructField) bool { return f.Tag.Get("envconfig") == name }) {
			unknown = append(unknown, key)
		}
	}
	return unknown
}

// environment describes the variables, for help texts.
func environment() string {
	var b strings.Builder
	t := reflect.TypeFor[config]()
	for field := range t.Fields() {
		tag := field.Tag
		line := fmt.Sprintf("  BULKMAIL_%-17s %s", tag.Get("envconfig"), tag.Get("desc"))
		if d := tag.Get("default"); d != "" {
			line += " (" + d + ")"
		}
		b.WriteString(line + "\n")
	}
	return b.String()
}
