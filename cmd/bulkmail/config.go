package main

import (
	"cmp"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"os"
	"reflect"
	"slices"
	"strings"
	"time"

	"github.com/kelseyhightower/envconfig"
	"github.com/nats-io/nkeys"

	"bulkmail/subjects"
	"bulkmail/worker"
)

// config is the environment, with the prefix BULKMAIL_.
type config struct {
	NATSURL     string `envconfig:"NATS_URL" desc:"broker; empty: a worker embeds one, other commands use nats://127.0.0.1:4222"`
	NATSCreds   string `envconfig:"NATS_CREDS" desc:"credentials file"`
	NATSTLSCA   string `envconfig:"NATS_TLS_CA" desc:"PEM file of the broker's CA"`
	NATSTLSCert string `envconfig:"NATS_TLS_CERT" desc:"PEM file of our certificate"`
	NATSTLSKey  string `envconfig:"NATS_TLS_KEY" desc:"PEM file of its key"`
	NATSInbox   string `envconfig:"NATS_INBOX" desc:"prefix of the subjects that answers come on, for users of a broker who may hear no other (_INBOX)"`
	Prefix      string `envconfig:"PREFIX" default:"bulkmail" desc:"first token of every subject; streams are upper-case of it"`
	Replicas    int    `envconfig:"REPLICAS" default:"1" desc:"copies of each stream in a cluster"`

	DataDir string `envconfig:"DATA_DIR" default:"./bulkmail-data" desc:"folder of the embedded broker"`
	Listen  string `envconfig:"LISTEN" default:"127.0.0.1:4222" desc:"address of the embedded broker"`
	Sync    string `envconfig:"SYNC" default:"always" desc:"embedded broker: always (a batch it confirmed survives power loss) or interval"`

	Relays     string `envconfig:"RELAYS" desc:"relay URLs, blank-separated"`
	RelaysFile string `envconfig:"RELAYS_FILE" desc:"relays in YAML, or a Mail::Bulkmail server file"`

	Batches        int             `envconfig:"BATCHES" default:"8" desc:"batches sent for at once"`
	AckWait        time.Duration   `envconfig:"ACK_WAIT" default:"30s" desc:"a worker silent for so long loses its batches"`
	OutcomesMaxAge time.Duration   `envconfig:"OUTCOMES_MAX_AGE" default:"720h" desc:"how long outcomes are kept"`
	RetryDelays    []time.Duration `envconfig:"RETRY_DELAYS" default:"1m,5m,15m,1h,4h" desc:"between attempts; the last repeats"`
	RetryFor       time.Duration   `envconfig:"RETRY_FOR" default:"72h" desc:"what is deferred for so long expires"`
	InDoubt        string          `envconfig:"IN_DOUBT" default:"resend" desc:"recipients that may have been accepted, which nobody can know: resend (at least once) or skip (at most once)"`
	DrainTimeout   time.Duration   `envconfig:"DRAIN_TIMEOUT" default:"30s" desc:"bound on the end of envelopes in flight after SIGTERM"`

	HTTP          string `envconfig:"HTTP" default:"127.0.0.1:8080" desc:"address for /healthz, /readyz and /metrics of a worker; set and empty: off; unless set, the next free port if it is taken"`
	HTTPTokenFile string `envconfig:"HTTP_TOKEN_FILE" desc:"file with the Bearer token that /metrics asks for; needed on any address but loopback"`

	LogLevel  slog.Level `envconfig:"LOG_LEVEL" default:"info" desc:"debug, info, warn or error"`
	LogFormat string     `envconfig:"LOG_FORMAT" default:"auto" desc:"auto (text on a terminal, JSON elsewhere), text or json"`
}

const prefix = "BULKMAIL"

// loadConfig reads and checks the environment and reports every problem at
// once.
func loadConfig() (config, subjects.Names, error) {
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
	names, err := subjects.New(c.Prefix)
	if err != nil {
		problems = append(problems, fmt.Errorf("BULKMAIL_PREFIX: %w", err))
	}
	problems = append(problems, c.check(bad)...)
	if len(problems) > 0 {
		return c, names, &usageError{errors.Join(problems...)}
	}
	return c, names, nil
}

func (c *config) check(bad map[string]bool) []error {
	var problems []error
	problem := func(key, format string, args ...any) {
		problems = append(problems, fmt.Errorf("BULKMAIL_%s: %s", key, fmt.Sprintf(format, args...)))
	}
	oneOf := func(key, have string, want ...string) {
		if !slices.Contains(want, have) {
			problem(key, "%q is unknown; use %s", have, strings.Join(want, " or "))
		}
	}
	positive := func(field, key string, have int64) {
		if !bad[field] && have <= 0 {
			problem(key, "must be more than 0")
		}
	}
	oneOf("SYNC", c.Sync, "always", "interval")
	oneOf("LOG_FORMAT", c.LogFormat, "auto", "text", "json")
	oneOf("IN_DOUBT", c.InDoubt, string(worker.Resend), string(worker.Skip))
	positive("Batches", "BATCHES", int64(c.Batches))
	positive("AckWait", "ACK_WAIT", int64(c.AckWait))
	positive("OutcomesMaxAge", "OUTCOMES_MAX_AGE", int64(c.OutcomesMaxAge))
	positive("RetryFor", "RETRY_FOR", int64(c.RetryFor))
	positive("DrainTimeout", "DRAIN_TIMEOUT", int64(c.DrainTimeout))
	if !bad["RetryDelays"] && (len(c.RetryDelays) == 0 || slices.Min(c.RetryDelays) <= 0) {
		problem("RETRY_DELAYS", "give one or more durations above 0, for example 1m,5m,1h")
	}
	if !bad["Replicas"] && (c.Replicas < 1 || c.Replicas > 5) {
		problem("REPLICAS", "is %d; use 1 to 5", c.Replicas)
	}
	if _, _, err := net.SplitHostPort(c.Listen); err != nil {
		problem("LISTEN", "%q is no address; use host:port, for example 127.0.0.1:4222", c.Listen)
	}
	if c.NATSURL != "" {
		if err := checkURLs(c.NATSURL); err != nil {
			problem("NATS_URL", "%v", err)
		}
	}
	if why := c.checkHTTP(); why != "" {
		problem("HTTP", "%s", why)
	}
	if c.HTTPTokenFile != "" {
		if _, err := readToken(c.HTTPTokenFile); err != nil {
			problem("HTTP_TOKEN_FILE", "%v", err)
		}
	}
	if (c.NATSTLSCert == "") != (c.NATSTLSKey == "") {
		problem("NATS_TLS_CERT, BULKMAIL_NATS_TLS_KEY", "set both or neither")
	}
	if strings.ContainsAny(c.NATSInbox, "*> \t") || slices.Contains(strings.Split(c.NATSInbox, "."), "") && c.NATSInbox != "" {
		problem("NATS_INBOX", "%q is no prefix of a subject; use for example _INBOX_worker", c.NATSInbox)
	}
	for key, file := range map[string]string{"NATS_CREDS": c.NATSCreds, "NATS_TLS_CA": c.NATSTLSCA, "NATS_TLS_CERT": c.NATSTLSCert, "NATS_TLS_KEY": c.NATSTLSKey} {
		if file == "" {
			continue
		}
		content, err := os.ReadFile(file)
		if err != nil {
			problem(key, "%v", err)
			continue
		}
		switch key {
		case "NATS_CREDS":
			if _, err := nkeys.ParseDecoratedUserNKey(content); err != nil {
				problem(key, "%s holds no user's key; nsc generate creds makes such a file", file)
			}
		case "NATS_TLS_CA":
			if !x509.NewCertPool().AppendCertsFromPEM(content) {
				problem(key, "%s holds no certificate in PEM form", file)
			}
		case "NATS_TLS_KEY":
			if _, err := tls.LoadX509KeyPair(c.NATSTLSCert, file); err != nil && c.NATSTLSCert != "" && !errors.Is(err, fs.ErrNotExist) {
				problem(key, "%s does not go with %s: %v", file, c.NATSTLSCert, err)
			}
		}
	}
	slices.SortFunc(problems, func(a, b error) int { return cmp.Compare(a.Error(), b.Error()) })
	return problems
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
