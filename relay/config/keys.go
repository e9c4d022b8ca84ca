package config

import (
	"slices"
	"strings"
	"time"

	"bulkmail/relay"
)

// A Key is one thing that can be said about a relay, in whatever form.
type Key struct {
	Name    string // in URLs and YAML
	Seed    string // in a Mail::Bulkmail server file; empty: it has none
	Value   string // what a value looks like: "number", "duration", "none, opportunistic or required"
	Default string // empty: there is none
	Doc     string // what it means, one line
	Secret  bool   // never shown

	access
	aliases  []string // misspellings in Mail::Bulkmail's own sample
	initial  string   // the value of a relay that says nothing; empty: zero, or known to finish only
	single   bool     // belongs to one relay and not into defaults
	network  bool     // means nothing for a dummy
	fromDir  bool     // a path, relative to the file that names it
	fromHead bool     // a URL says it before its question mark
}

// access is how a text becomes part of a Config and back.
type access struct {
	value string
	set   func(*relay.Config, string) error
	get   func(*relay.Config) string
}

const manyMessages = 1_000_000_000

// table is the one list of keys: all forms are read through it, and all help
// is printed from it.
var table = []Key{
	{
		Name: "name", Default: "the host, and the port if it is not the usual one", single: true,
		Doc:    "in logs, outcomes and counters; no two relays share one",
		access: text(func(c *relay.Config) *string { return &c.Name }, "name", checkName),
	},
	{
		Name: "kind", Default: relay.KindSMTP, initial: relay.KindSMTP, fromHead: true,
		Doc:    "what the relay speaks; in a URL the scheme, in a server file the package",
		access: choice(func(c *relay.Config) *string { return &c.Kind }, relay.KindSMTP, relay.KindSMTPS, relay.KindLMTP, relay.KindDummy),
	},
	{
		Name: "host", Seed: "Smtp", single: true, network: true, fromHead: true,
		Doc:    "name or address of the relay",
		access: text(func(c *relay.Config) *string { return &c.Host }, "host", checkHost),
	},
	{
		Name: "port", Seed: "Port", Default: "25; smtps 465, lmtp 24", network: true, fromHead: true,
		Doc:    "port of the relay",
		access: number(func(c *relay.Config) *int { return &c.Port }, 1, 65535),
	},
	{
		Name: "path", Seed: "dummy_file", Default: "nowhere", fromDir: true,
		Doc:    "of a dummy: the file that the dialogue is appended to",
		access: text(func(c *relay.Config) *string { return &c.Path }, "file", nil),
	},
	{
		Name: "domain", Seed: "Domain", Default: "this host's full name",
		Doc:    "said in EHLO",
		access: text(func(c *relay.Config) *string { return &c.Domain }, "domain", checkDomain),
	},
	{
		Name: "tries", Seed: "Tries", Default: "5", initial: "5",
		Doc:    "dials per connection attempt, over all addresses of the host",
		access: number(func(c *relay.Config) *int { return &c.Tries }, 1, 1000),
	},
	{
		Name: "max_connection_attempts", Seed: "max_connection_attempts", Default: "5", initial: "5",
		Doc:    "failed attempts until the relay is worthless",
		access: number(func(c *relay.Config) *int { return &c.MaxConnectionAttempts }, 1, 1_000_000),
	},
	{
		Name: "worthless_for", Default: "1m", initial: "1m",
		Doc:    "rest of a worthless relay before one probe, doubling up to 1h; 0: for good, as in Mail::Bulkmail",
		access: orNone(duration(func(c *relay.Config) *time.Duration { return &c.WorthlessFor }), func(c *relay.Config) *time.Duration { return &c.WorthlessFor }),
	},
	{
		Name: "envelope_limit", Seed: "envelope_limit", Default: "100", initial: "100",
		Doc:    "recipients per envelope; 0: no limit",
		access: orNone(number(func(c *relay.Config) *int { return &c.EnvelopeLimit }, 0, 1_000_000), func(c *relay.Config) *int { return &c.EnvelopeLimit }),
	},
	{
		Name: "envelope_domains", Default: "1", initial: "1",
		Doc:    "domains whose recipients share an envelope, for relays that split it themselves; 0: any",
		access: orNone(number(func(c *relay.Config) *int { return &c.EnvelopeDomains }, 0, 1_000_000), func(c *relay.Config) *int { return &c.EnvelopeDomains }),
	},
	{
		Name: "max_messages", Seed: "max_messages", Default: "0", initial: "0",
		Doc:    "messages over this relay by all workers together; 0: no cap",
		access: number(func(c *relay.Config) *int { return &c.MaxMessages }, 0, manyMessages),
	},
	{
		Name: "max_messages_window", Default: "0", initial: "0",
		Doc:    "time in which max_messages counts, which makes it a quota (24h); 0: until relays reset",
		access: duration(func(c *relay.Config) *time.Duration { return &c.MaxMessagesWindow }),
	},
	{
		Name: "max_messages_spread", Default: "false", initial: "false",
		Doc:    "max_messages go evenly over max_messages_window, not in one burst",
		access: boolean(func(c *relay.Config) *bool { return &c.MaxMessagesSpread }),
	},
	{
		Name: "max_rate", Default: "0", initial: "0",
		Doc:    "messages in a time by all workers together, 14/s, 500/m or 10000/h; 0: no limit",
		access: rate(func(c *relay.Config) *relay.Rate { return &c.MaxRate }),
	},
	{
		Name: "max_messages_per_robin", Seed: "max_messages_per_robin", Default: "500 with several relays, else 0", aliases: []string{"max_message_per_robin"},
		Doc:    "messages before the robin moves on to the next relay; 0: stays until a limit is met",
		access: orNone(number(func(c *relay.Config) *int { return &c.MaxMessagesPerRobin }, 0, manyMessages), func(c *relay.Config) *int { return &c.MaxMessagesPerRobin }),
	},
	{
		Name: "max_messages_per_connection", Seed: "max_messages_per_connection", Default: "0", initial: "0",
		Doc:    "messages before a fresh session; 0: no limit",
		access: number(func(c *relay.Config) *int { return &c.MaxMessagesPerConnection }, 0, manyMessages),
	},
	{
		Name: "max_messages_while_awake", Seed: "max_messages_while_awake", Default: "0", initial: "0",
		Doc:    "messages by all workers together before the relay sleeps for sleep_length; 0: never",
		access: number(func(c *relay.Config) *int { return &c.MaxMessagesWhileAwake }, 0, manyMessages),
	},
	{
		Name: "sleep_length", Seed: "sleep_length", Default: "0", initial: "0",
		Doc:    "how long the relay sleeps; workers go on with the others",
		access: duration(func(c *relay.Config) *time.Duration { return &c.SleepLength }),
	},
	{
		Name: "talk_attempts", Seed: "talk_attempts", Default: "1", initial: "1",
		Doc:    "times a command is tried in the session on 4xx before the recipient is deferred",
		access: number(func(c *relay.Config) *int { return &c.TalkAttempts }, 1, 1000),
	},
	{
		Name: "time_out", Seed: "time_out", Default: "RFC 5321, 4.5.3.2 per command", initial: "0",
		Doc:    "longest wait for a reply; one value overrides all",
		access: duration(func(c *relay.Config) *time.Duration { return &c.TimeOut }),
	},
	{
		Name: "connections", Default: "4", initial: "4",
		Doc:    "sessions at once per worker",
		access: number(func(c *relay.Config) *int { return &c.Connections }, 1, 10_000),
	},
	{
		Name: "adaptive", Default: "false", initial: "false",
		Doc:    "as many sessions as the relay is served best with, from 1 to connections",
		access: boolean(func(c *relay.Config) *bool { return &c.Adaptive }),
	},
	{
		Name: "tls", Default: "required if there is a password, else opportunistic", network: true,
		Doc:    "none; opportunistic: encrypt when offered; required: encrypted and verified or nothing is sent",
		access: choice(func(c *relay.Config) *string { return &c.TLS }, relay.TLSNone, relay.TLSOpportunistic, relay.TLSRequired),
	},
	{
		Name: "tls_verify", Default: "true with tls=required and smtps, else false", network: true,
		Doc:    "whether the relay's certificate must be valid for its host",
		access: verify(),
	},
	{
		Name: "tls_ca", Default: "the system's roots", network: true, fromDir: true,
		Doc:    "PEM file of the authorities to trust",
		access: text(func(c *relay.Config) *string { return &c.TLSCA }, "file", nil),
	},
	{
		Name: "tls_cert", network: true, fromDir: true,
		Doc:    "PEM file of our certificate, where the relay asks for one",
		access: text(func(c *relay.Config) *string { return &c.TLSCert }, "file", nil),
	},
	{
		Name: "tls_key", network: true, fromDir: true,
		Doc:    "PEM file of its key",
		access: text(func(c *relay.Config) *string { return &c.TLSKey }, "file", nil),
	},
	{
		Name: "auth", Default: "the best both know", network: true,
		Doc:    "how to log in",
		access: choice(func(c *relay.Config) *string { return &c.Auth }, "PLAIN", "LOGIN", "CRAM-MD5", "SCRAM-SHA-256", "XOAUTH2"),
	},
	{
		Name: "user", network: true,
		Doc:    "who logs in",
		access: text(func(c *relay.Config) *string { return &c.User }, "text", nil),
	},
	{
		Name: "password", network: true, Secret: true,
		Doc:    "and with what; shown nowhere",
		access: text(func(c *relay.Config) *string { return &c.Password }, "text", nil),
	},
	{
		Name: "password_file", network: true, fromDir: true,
		Doc:    "file with the password, read anew when it changes",
		access: text(func(c *relay.Config) *string { return &c.PasswordFile }, "file", nil),
	},
	{
		Name: "auth_in_clear", Default: "false", initial: "false", network: true,
		Doc:    "log in even where the session is not encrypted",
		access: boolean(func(c *relay.Config) *bool { return &c.AuthInClear }),
	},
	{
		Name: "dkim", Default: relay.On, initial: relay.On,
		Doc:    "whether what leaves over this relay is signed with the keys of BULKMAIL_DKIM_FILE; off where the relay signs and wants no other signature",
		access: choice(func(c *relay.Config) *string { return &c.DKIM }, relay.On, relay.Off),
	},
	{
		Name:   "dkim_unsigned",
		Doc:    "header fields to leave unsigned as the relay changes or adds them, with commas; for Amazon SES message-id,date",
		access: text(func(c *relay.Config) *string { return &c.DKIMUnsigned }, "header fields", checkFields),
	},
	{
		Name: "return_path", Default: relay.On, initial: relay.On,
		Doc:    "whether letters may have a sender of their own, by which a bounce is known; off where the relay wants one sender",
		access: choice(func(c *relay.Config) *string { return &c.ReturnPath }, relay.On, relay.Off),
	},
	{
		Name: "overlap", Default: "auto", initial: "auto",
		Doc:    "send the next envelope before the reply to the last: off, on, or auto where it pays",
		access: choice(func(c *relay.Config) *string { return &c.Overlap }, "off", "on", "auto"),
	},
	{
		Name: "conversation", Seed: "CONVERSATION", Default: "off", fromDir: true,
		Doc:    "file that the SMTP conversation is appended to, or stderr; secrets never",
		access: text(func(c *relay.Config) *string { return &c.Conversation }, "file, stderr or off", checkConversation),
	},
}

// Keys lists everything that can be said about a relay, for help and
// documentation.
func Keys() []Key {
	keys := slices.Clone(table)
	for i := range keys {
		keys[i].Value = keys[i].value
	}
	return keys
}

// keyNamed finds a key by its name in URLs and YAML.
func keyNamed(name string) *Key {
	for i := range table {
		if table[i].Name == name {
			return &table[i]
		}
	}
	return nil
}

// seedKey finds a key by its name in a server file, in any case. Keys that
// Mail::Bulkmail does not have are found by their own name.
func seedKey(name string) *Key {
	for i := range table {
		k := &table[i]
		if strings.EqualFold(k.Seed, name) || strings.EqualFold(k.Name, name) ||
			slices.ContainsFunc(k.aliases, func(a string) bool { return strings.EqualFold(a, name) }) {
			return k
		}
	}
	return nil
}
