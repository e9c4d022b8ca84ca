package relay

import (
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/url"
	"strconv"
	"strings"
	"time"

	"bulkmail/relay/smtp"
)

// The kinds of relay, which are also the schemes of a relay's URL.
const (
	KindSMTP  = "smtp"
	KindSMTPS = "smtps" // TLS from the first byte (RFC 8314)
	KindLMTP  = "lmtp"
	KindDummy = "dummy" // Mail::Bulkmail's DummyServer: the dialogue goes to a file
)

// When a session is encrypted; the values of [Config.TLS].
const (
	TLSNone          = "none"
	TLSOpportunistic = "opportunistic" // when offered, unverified, as Postfix' "may"
	TLSRequired      = "required"      // STARTTLS, verified, or nothing is sent
	TLSImplicit      = "implicit"      // what KindSMTPS means
)

// Values of [Config.DKIM] and [Config.ReturnPath].
const (
	On  = "on"
	Off = "off"
)

// Config is one relay as configured. What is left zero has the default that is
// said here; [None] is no limit where the default is one. URL parameters, YAML
// keys and the attributes of a Mail::Bulkmail server file all end here: package
// config reads and checks them.
//
// Formatting a Config in any way shows no password.
type Config struct {
	Name   string // unique; in logs, outcomes and counters; empty: the host, and the port if it is not the usual one
	Kind   string // KindSMTP, KindSMTPS, KindLMTP or KindDummy; empty: KindSMTP
	Host   string // a name or an IP address without brackets
	Port   int    // 0: 25, 465 (smtps), 24 (lmtp)
	Path   string // dummy: the file the dialogue goes to; empty: nowhere
	Domain string // said in EHLO; empty: this host's full name

	Tries                 int           // dials per connection attempt, over all addresses of the host; 0: 5
	MaxConnectionAttempts int           // failed attempts until the relay is worthless; 0: 5
	WorthlessFor          time.Duration // until one probe, doubling up to 1h; 0: 1m; None: for good, as in Mail::Bulkmail

	EnvelopeLimit            int           // recipients an envelope; 0: 100; None: no limit
	EnvelopeDomains          int           // of so many domains; 0: 1; None: of any
	MaxMessages              int           // 0: no cap
	MaxMessagesWindow        time.Duration // 0: until reset
	MaxMessagesSpread        bool          // evenly over the window
	MaxRate                  Rate          // zero: no limit
	MaxMessagesPerRobin      int           // 0: 500 with several relays, else None: stays until a limit is met
	MaxMessagesPerConnection int           // 0: no limit
	MaxMessagesWhileAwake    int           // 0: never sleeps
	SleepLength              time.Duration

	TalkAttempts int           // times a command is tried in the session on 4xx; 0: 1
	TimeOut      time.Duration // 0: RFC 5321, 4.5.3.2 per command
	Connections  int           // sessions at once; 0: 4
	Adaptive     bool          // as many of them as serve the relay best

	TLS       string      // TLSNone, TLSOpportunistic, TLSRequired, or TLSImplicit with KindSMTPS; empty: TLSRequired if there is a password, else TLSOpportunistic
	TLSVerify smtp.Verify // zero: with TLSRequired and TLSImplicit; smtp.VerifyNever is for tests and for relays on this host
	TLSCA     string      // PEM file; empty: the system's roots
	TLSCert   string      // PEM file of a client certificate
	TLSKey    string

	Auth         string // PLAIN, LOGIN, CRAM-MD5, SCRAM-SHA-256, XOAUTH2; empty: the best both know
	User         string
	Password     string `json:"-"`
	PasswordFile string // instead of Password; read anew when it changes
	AuthInClear  bool   // AUTH also where the session is not encrypted

	DKIM         string // On or Off: whether what leaves over this relay is signed; empty: On
	DKIMUnsigned string // header fields that must not be signed as the relay changes or adds them, with commas
	ReturnPath   string // On or Off: whether bounces may come to an address of our own making; empty: On

	Overlap      string // off, on, auto; empty: auto
	Conversation string // a file, or "stderr"; empty: off

	Where string // "relays.yaml:12" or "BULKMAIL_RELAYS, URL 2", for messages
}

// Verified tells whether the relay's certificate must be valid for its host.
func (c *Config) Verified() bool {
	if c.TLSVerify == smtp.VerifyAsMode {
		return c.TLS == TLSRequired || c.TLS == TLSImplicit
	}
	return c.TLSVerify == smtp.VerifyAlways
}

// Addr is host:port, with the brackets that IPv6 needs.
func (c Config) Addr() string { return net.JoinHostPort(c.Host, strconv.Itoa(c.Port)) }

// URL shows where the relay is, in the form in which it can be configured and
// with three stars for the password. Limits are left out.
func (c Config) URL() string {
	if c.Kind == KindDummy {
		return "dummy://" + (&url.URL{Path: c.Path}).EscapedPath()
	}
	u := url.URL{Scheme: c.Kind, Host: strings.ReplaceAll(c.Addr(), "%", "%25")}
	var login string
	if c.User != "" {
		login = url.User(c.User).String()
		if c.User == c.Password { // some providers have one token for both
			login = "***"
		}
		if c.Password != "" || c.PasswordFile != "" {
			login += ":***"
		}
		login += "@"
	}
	return u.Scheme + "://" + login + u.Host
}

// String is the relay's name and its redacted URL.
func (c Config) String() string { return c.Name + " " + c.URL() }

// Format writes what String says whatever the verb, so that no verb shows the
// password.
func (c Config) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, c.String()) }

// LogValue shows the relay and the limits that are set.
func (c Config) LogValue() slog.Value {
	attrs := []slog.Attr{slog.String("name", c.Name), slog.String("url", c.URL())}
	for _, limit := range []struct {
		key string
		n   int
	}{
		{"envelope_limit", c.EnvelopeLimit},
		{"envelope_domains", c.EnvelopeDomains},
		{"max_messages", c.MaxMessages},
		{"max_messages_per_robin", c.MaxMessagesPerRobin},
		{"max_messages_per_connection", c.MaxMessagesPerConnection},
		{"max_messages_while_awake", c.MaxMessagesWhileAwake},
		{"connections", c.Connections},
	} {
		if limit.n > 0 {
			attrs = append(attrs, slog.Int(limit.key, limit.n))
		}
	}
	if c.MaxMessagesWindow != 0 {
		attrs = append(attrs, slog.Duration("max_messages_window", c.MaxMessagesWindow))
	}
	if c.MaxMessagesSpread {
		attrs = append(attrs, slog.Bool("max_messages_spread", true))
	}
	if c.SleepLength != 0 {
		attrs = append(attrs, slog.Duration("sleep_length", c.SleepLength))
	}
	if c.MaxRate != (Rate{}) {
		attrs = append(attrs, slog.String("max_rate", c.MaxRate.String()))
	}
	return slog.GroupValue(attrs...)
}
