package config

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"

	"bulkmail/relay"
	"bulkmail/relay/smtp"
)

// A candidate is a relay on its way from draft to Config.
type candidate struct {
	*draft
	*loader
	cfg relay.Config
	bad map[string]bool // keys whose values were not understood
}

// finish makes Configs of all drafts.
func (l *loader) finish(drafts []*draft) []relay.Config {
	var domain string
	relays := make([]relay.Config, len(drafts))
	taken := map[string]place{}
	for i, d := range drafts {
		c := &candidate{draft: d, loader: l, bad: map[string]bool{}}
		c.cfg.Where = d.at.String()
		c.apply()
		if !c.said("domain") {
			if domain == "" {
				domain = relay.LocalDomain(l.opt.Hostname, l.opt.Addrs)
			}
			c.cfg.Domain = domain
		}
		if !c.bad["kind"] {
			c.address()
			c.login()
			c.encryption()
		}
		name := c.cfg.Name // a problem with a name that nobody wrote is told of otherwise
		c.cfg = c.cfg.WithDefaults(len(drafts))
		c.cfg.Name = name
		c.limits()
		c.files()
		c.name(taken)
		relays[i] = c.cfg
	}
	l.unusedDefaults(drafts, relays)
	return relays
}

// apply puts everything that is said, and the plain defaults, into the Config.
func (c *candidate) apply() {
	kind, _, _ := c.lookup("kind")
	dummy := strings.EqualFold(kind.value, relay.KindDummy)
	for i := range table {
		key := &table[i]
		if key.initial != "" && (!dummy || !key.network) {
			// The table's own values are right: a test reads them all.
			_ = key.set(&c.cfg, key.initial)
		}
		s, own, ok := c.lookup(key.Name)
		if !ok {
			continue
		}
		if (dummy && key.network) || (!dummy && key.Name == "path") {
			// A drop-in for a server may keep the server's settings, and so
			// may any relay share defaults with others.
			if own && c.form != formServerFile {
				what := "means nothing for a dummy"
				if !dummy {
					what = "is for a dummy only"
				}
				c.problem(s, what)
			}
			continue
		}
		c.set(s)
	}
}

func (c *candidate) set(s setting) {
	var reason string
	if s.broken {
		c.bad[s.key.Name] = true
		return
	}
	if strings.ContainsFunc(s.value, unicode.IsControl) || !utf8.ValidString(s.value) {
		reason = "has a control character, a line break or bytes that are no UTF-8 in it"
	} else if err := s.key.set(&c.cfg, s.value); err != nil {
		reason = err.Error()
		if !s.mask && !s.key.Secret {
			reason += ", not " + describe(s.value)
		}
		if c.form == formServerFile && strings.Contains(s.value, " #") {
			reason += "; a comment stands on a line of its own"
		}
	} else {
		return
	}
	c.bad[s.key.Name] = true
	c.problem(s, reason)
}

func (c *candidate) problem(s setting, reason string) { c.problems.add(s.at, s.label, reason) }

// said tells whether a key has a value that somebody wrote.
func (c *candidate) said(key string) bool {
	_, _, ok := c.lookup(key)
	return ok
}

// ownSetting returns what the relay itself says under a key. Combinations that make
// no sense are wrong there only: defaults are for many relays.
func (c *candidate) ownSetting(key string) (setting, bool) {
	s, own, ok := c.lookup(key)
	return s, own && ok
}

// anyBad tells whether one of the keys was not understood, which was reported.
func (c *candidate) anyBad(keys ...string) bool {
	return slices.ContainsFunc(keys, func(k string) bool { return c.bad[k] })
}

// address checks host and port against what the relay speaks.
func (c *candidate) address() {
	cfg := &c.cfg
	if cfg.Kind == relay.KindDummy {
		return
	}
	// A URL without a host was reported where it was read.
	if cfg.Host == "" && !c.bad["host"] && c.form != formURL {
		label := joinLabel(c.label, "host")
		if c.form == formServerFile {
			label = keyNamed("host").Seed
		}
		c.problems.add(c.at, label, "missing: say where the relay is")
	}
	if cfg.Port == 0 {
		cfg.Port = relay.UsualPort(cfg.Kind)
	}
	s, _, ok := c.lookup("port")
	if !ok || c.bad["port"] {
		return
	}
	switch {
	case cfg.Kind == relay.KindSMTP && cfg.Port == 465:
		c.problem(s, "port 465 speaks TLS from the first byte (RFC 8314): use smtps, or port 587")
	case cfg.Kind == relay.KindSMTPS && (cfg.Port == 25 || cfg.Port == 587):
		c.problem(s, fmt.Sprintf("port %d starts in the clear: use smtp with tls=required, or port 465", cfg.Port))
	case cfg.Kind == relay.KindLMTP && cfg.Port == 25:
		c.problem(s, "LMTP must not be spoken on port 25 (RFC 2033, 5): use smtp, or another port")
	}
}

// login checks who logs in, and how.
func (c *candidate) login() {
	cfg := &c.cfg
	if cfg.Kind == relay.KindDummy {
		return
	}
	password, ownPassword, hasPassword := c.lookup("password")
	file, ownFile, hasFile := c.lookup("password_file")
	if hasPassword && hasFile {
		switch {
		case ownPassword == ownFile:
			c.problem(file, "password and password_file exclude each other: leave one out")
		case ownPassword:
			cfg.PasswordFile, hasFile = "", false
		default:
			cfg.Password, hasPassword = "", false
		}
	}
	user, _, hasUser := c.lookup("user")
	if c.anyBad("user", "password", "password_file") {
		return
	}
	switch {
	case hasUser && !hasPassword && !hasFile:
		c.problem(user, "has no password: add password or password_file")
	case !hasUser && ownPassword:
		c.problem(password, "has no user: add user")
	case !hasUser && ownFile:
		c.problem(file, "has no user: add user")
	case !hasUser:
		cfg.Password, cfg.PasswordFile = "", "" // of the defaults; nobody logs in here
	}
	if s, ok := c.ownSetting("auth"); ok && !hasUser && !c.bad["auth"] {
		c.problem(s, "nobody logs in: add user and password, or leave it out")
	}
}

// encryption fills in and checks the TLS settings.
func (c *candidate) encryption() {
	cfg := &c.cfg
	if cfg.Kind == relay.KindDummy {
		return
	}
	mode, own, said := c.lookup("tls")
	switch {
	case cfg.Kind == relay.KindSMTPS:
		if own && cfg.TLS != relay.TLSRequired && !c.bad["tls"] {
			c.problem(mode, "smtps is encrypted from the first byte: leave it out, or use smtp")
		}
		cfg.TLS = relay.TLSImplicit
	case !said:
		cfg.TLS = cfg.WithDefaults(1).TLS
	}
	if c.anyBad("tls", "tls_verify", "auth_in_clear") {
		return
	}
	if cfg.TLS == relay.TLSNone && cfg.HasPassword() && !cfg.AuthInClear {
		c.problem(mode, "would send the password in the clear: leave it out, or set auth_in_clear=true if that is meant")
	}
	switch {
	case cfg.TLS == relay.TLSNone:
		for _, key := range []string{"tls_verify", "tls_ca", "tls_cert", "tls_key"} {
			if s, ok := c.ownSetting(key); ok {
				c.problem(s, "means nothing with tls=none")
			}
		}
		cfg.TLSVerify = smtp.VerifyAsMode
	case !c.said("tls_verify"):
		if s, ok := c.ownSetting("tls_ca"); ok && !cfg.Verified() {
			c.problem(s, "no certificate is verified with tls=opportunistic: set tls=required, or tls_verify=true")
		}
	}
	if asMode := (&relay.Config{TLS: cfg.TLS}); asMode.Verified() == cfg.Verified() {
		cfg.TLSVerify = smtp.VerifyAsMode
	}
	c.ownCertificate()
}

// ownCertificate checks that a certificate of ours has its key.
func (c *candidate) ownCertificate() {
	cert, _, hasCert := c.lookup("tls_cert")
	key, _, hasKey := c.lookup("tls_key")
	if c.anyBad("tls_cert", "tls_key") {
		return
	}
	switch {
	case hasCert && !hasKey:
		c.problem(cert, "has no key: add tls_key")
	case hasKey && !hasCert:
		c.problem(key, "has no certificate: add tls_cert")
	}
}

// pairs are limits that mean something together only.
var pairs = []struct {
	part, whole string
	isSet       func(*relay.Config) bool // the part
	reason      string
}{
	{
		"sleep_length", "max_messages_while_awake",
		func(c *relay.Config) bool { return c.SleepLength > 0 },
		"the relay never sleeps: add max_messages_while_awake, or leave it out",
	},
	{
		"max_messages_window", "max_messages",
		func(c *relay.Config) bool { return c.MaxMessagesWindow > 0 },
		"there is nothing to count: add max_messages, or leave it out",
	},
	{
		"max_messages_spread", "max_messages_window",
		func(c *relay.Config) bool { return c.MaxMessagesSpread },
		"there is no time to spread max_messages over: add max_messages_window, or leave it out",
	},
}

// limits checks what limits mean together. An explicit 0 switches a limit off
// and may leave its other half standing. So may a server
// file: Mail::Bulkmail's own sample says that a sleep_length does no harm.
func (c *candidate) limits() {
	for _, p := range pairs {
		s, own := c.ownSetting(p.part)
		if own && c.form != formServerFile && p.isSet(&c.cfg) && !c.said(p.whole) {
			c.problem(s, p.reason)
		}
	}
	if s, _, ok := c.lookup("max_messages_while_awake"); ok && c.cfg.MaxMessagesWhileAwake > 0 &&
		c.cfg.SleepLength == 0 && !c.bad["sleep_length"] {
		c.problem(s, "how long is missing: add sleep_length, such as 60s")
	}
}

// unusedDefaults reports halves of pairs among the defaults of a YAML file
// that no relay has the other half for.
func (l *loader) unusedDefaults(drafts []*draft, relays []relay.Config) {
	for _, p := range pairs {
		var half *setting
		used := false
		for i, d := range drafts {
			if d.defaults == nil || d.form == formServerFile {
				continue
			}
			if s, ok := d.defaults[p.part]; ok && p.isSet(&relays[i]) {
				half = &s
			}
			_, _, said := d.lookup(p.whole)
			used = used || said
		}
		if half != nil && !used {
			l.problems.add(half.at, half.label, p.reason)
		}
	}
}

// files reads every file that a relay names once, so that what is wrong with
// it is known before the first message.
func (c *candidate) files() {
	cfg := &c.cfg
	if c.cfg.Kind == relay.KindDummy {
		return
	}
	if s, _, ok := c.lookup("password_file"); ok && cfg.PasswordFile != "" {
		if data, ok := c.read(s.at, s.label, s.value); ok && strings.TrimSpace(string(data)) == "" {
			c.problem(s, s.value+" is empty: write the password into it")
		}
	}
	if s, _, ok := c.lookup("tls_ca"); ok && cfg.TLSCA != "" {
		data, ok := c.read(s.at, s.label, s.value)
		if ok && !x509.NewCertPool().AppendCertsFromPEM(data) {
			c.problem(s, s.value+" holds no certificate in PEM form")
		}
	}
	cert, _, hasCert := c.lookup("tls_cert")
	key, _, hasKey := c.lookup("tls_key")
	if !hasCert || !hasKey || c.anyBad("tls_cert", "tls_key") {
		return
	}
	certPEM, ok1 := c.read(cert.at, cert.label, cert.value)
	keyPEM, ok2 := c.read(key.at, key.label, key.value)
	if !ok1 || !ok2 {
		return
	}
	if _, err := tls.X509KeyPair(certPEM, keyPEM); err != nil {
		c.problem(cert, "does not go with tls_key: "+strings.TrimPrefix(err.Error(), "tls: "))
	}
}

// name gives the relay its name if it has none yet, and sees that no other one
// has it. A default name depends on nothing but the relay itself, as counters
// are kept under it: another relay in the list must not rename this one.
func (c *candidate) name(taken map[string]place) {
	if c.anyBad("name", "kind", "host", "port") {
		return
	}
	cfg := &c.cfg
	s, own, _ := c.lookup("name")
	if cfg.Name == "" {
		if cfg.Host == "" && cfg.Kind != relay.KindDummy {
			return // reported
		}
		cfg.Name = cfg.DefaultName()
		s = setting{at: c.at, label: joinLabel(c.label, "name")}
	}
	if c.form == formServerFile && (!own || cfg.Kind == relay.KindDummy) {
		// Mail::Bulkmail has no names and takes a server twice. Numbers do
		// here: in its files the order is all there is.
		base := cfg.Name
		for n := 2; taken[cfg.Name] != (place{}); n++ {
			cfg.Name = base + "-" + strconv.Itoa(n)
		}
	}
	if first := taken[cfg.Name]; first != (place{}) {
		c.problem(s, fmt.Sprintf("two relays are called %s, the other at %s: give each a name of its own", cfg.Name, first))
		return
	}
	taken[cfg.Name] = c.at
}
