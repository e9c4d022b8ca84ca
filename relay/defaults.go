package relay

import (
	"cmp"
	"net"
	"path/filepath"
	"regexp"
	"strconv"
	"time"
)

// None stands for "no limit" in the settings of a [Config] that have one by
// default: EnvelopeLimit, EnvelopeDomains and MaxMessagesPerRobin. In WorthlessFor
// it means "for good".
const None = -1

// The defaults that are the same for every relay.
const (
	defaultTries              = 5
	defaultConnectionAttempts = 5
	defaultWorthlessFor       = time.Minute
	defaultEnvelopeLimit      = 100
	defaultEnvelopeDomains    = 1
	defaultPerRobin           = 500 // with several relays
	defaultTalkAttempts       = 1
	defaultConnections        = 4
)

// WithDefaults is c as one of so many relays, with the default of everything
// that it leaves open but Domain, which takes a look at the network: see
// [LocalDomain]. [FromConfig] and [NewPool] call it themselves.
func (c Config) WithDefaults(relays int) Config {
	c.Kind = cmp.Or(c.Kind, KindSMTP)
	c.MaxConnectionAttempts = cmp.Or(c.MaxConnectionAttempts, defaultConnectionAttempts)
	c.WorthlessFor = cmp.Or(c.WorthlessFor, defaultWorthlessFor)
	c.EnvelopeLimit = cmp.Or(c.EnvelopeLimit, defaultEnvelopeLimit)
	c.EnvelopeDomains = cmp.Or(c.EnvelopeDomains, defaultEnvelopeDomains)
	c.TalkAttempts = cmp.Or(c.TalkAttempts, defaultTalkAttempts)
	c.Connections = cmp.Or(c.Connections, defaultConnections)
	c.Tries = cmp.Or(c.Tries, defaultTries)
	c.Overlap = cmp.Or(c.Overlap, "auto")
	c.DKIM = cmp.Or(c.DKIM, On)
	c.ReturnPath = cmp.Or(c.ReturnPath, On)
	if c.MaxMessagesPerRobin == 0 {
		c.MaxMessagesPerRobin = None
		if relays > 1 {
			c.MaxMessagesPerRobin = defaultPerRobin
		}
	}
	if c.Kind != KindDummy {
		c.Port = cmp.Or(c.Port, UsualPort(c.Kind))
		c.TLS = cmp.Or(c.TLS, c.usualTLS())
	}
	c.Name = cmp.Or(c.Name, c.DefaultName())
	return c
}

// UsualPort is the port of a kind of relay.
func UsualPort(kind string) int {
	switch kind {
	case KindSMTP:
		return 25
	case KindSMTPS:
		return 465
	case KindLMTP:
		return 24
	}
	return 0
}

// usualTLS: a password does not travel in the clear, nor to just anybody.
func (c *Config) usualTLS() string {
	switch {
	case c.Kind == KindSMTPS:
		return TLSImplicit
	case c.HasPassword():
		return TLSRequired
	}
	return TLSOpportunistic
}

// HasPassword tells whether we log in at the relay.
func (c *Config) HasPassword() bool { return c.Password != "" || c.PasswordFile != "" }

var plainName = regexp.MustCompile(`^[A-Za-z0-9._:%\[\]-]{1,250}$`)

// DefaultName is the name of a relay that has not been given one. It depends on
// nothing but the relay itself, as counters are kept under it: another relay in
// the list must not rename this one.
func (c *Config) DefaultName() string {
	switch {
	case c.Kind == KindDummy:
		base := filepath.Base(c.Path)
		if c.Path == "" || !plainName.MatchString(base) {
			return "dummy"
		}
		return "dummy:" + base
	case c.Port == UsualPort(c.Kind):
		return c.Host
	}
	return net.JoinHostPort(c.Host, strconv.Itoa(c.Port))
}
