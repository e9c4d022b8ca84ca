package config

import (
	"bytes"
	"net"
	"net/url"
	"regexp"
	"strconv"
	"strings"

	"bulkmail/relay"
)

// URL writes a relay as the URL that reads back as it. Unlike
// [relay.Config.URL] it is complete: it holds every limit, and the password.
func URL(c relay.Config) string {
	var b strings.Builder
	b.WriteString(c.Kind + "://")
	if c.Kind != relay.KindDummy {
		if c.User != "" {
			b.WriteString(escape(c.User))
			if c.Password != "" {
				b.WriteString(":" + escape(c.Password))
			}
			b.WriteByte('@')
		}
		b.WriteString(strings.ReplaceAll(net.JoinHostPort(c.Host, strconv.Itoa(c.Port)), "%", "%25"))
	}
	separator := byte('?')
	for _, s := range settingsOf(c) {
		if s.key.fromHead || s.key.Name == "user" || s.key.Name == "password" {
			continue
		}
		b.WriteByte(separator)
		b.WriteString(s.key.Name + "=" + escape(s.value))
		separator = '&'
	}
	return b.String()
}

// escape is for any part of a URL: a plus sign stays what it is and a blank,
// which would end the URL in a list, does not.
func escape(s string) string { return strings.ReplaceAll(url.QueryEscape(s), "+", "%20") }

// plainText means the same with and without quotes in YAML, whatever version.
var plainText = regexp.MustCompile(`^((0|[1-9][0-9]*)(ms|/?[smh])?|[A-Za-z/][A-Za-z0-9._/-]*)$`)

// YAML writes relays as the file that reads back as them, passwords included:
// what a server file or a list of URLs says, in the form that can say
// everything.
func YAML(relays []relay.Config) []byte {
	var b bytes.Buffer
	b.WriteString("relays:\n")
	for _, c := range relays {
		indent := "- "
		for _, s := range settingsOf(c) {
			value := s.value
			if !plainText.MatchString(value) || strings.EqualFold(value, "null") {
				value = "'" + strings.ReplaceAll(value, "'", "''") + "'"
			}
			b.WriteString(indent + s.key.Name + ": " + value + "\n")
			indent = "  "
		}
	}
	return b.Bytes()
}

// Values is what is configured of a relay, by key, without what is secret:
// numbers and truth values as such, everything else as it would be written.
// It is complete, defaults and all.
func Values(c relay.Config) map[string]any {
	values := make(map[string]any, len(table))
	for i := range table {
		key := &table[i]
		if key.Secret {
			continue
		}
		text := key.get(&c)
		values[key.Name] = text
		if n, err := strconv.Atoi(text); err == nil && key.value == "number" {
			values[key.Name] = n
		} else if is, err := strconv.ParseBool(text); err == nil && key.value == "true or false" {
			values[key.Name] = is
		}
	}
	return values
}

// settingsOf lists what has to be said about a relay for it to be read as it
// is, wherever it stands in a list.
func settingsOf(c relay.Config) []setting {
	dummy, implicit := c.Kind == relay.KindDummy, c.TLS == relay.TLSImplicit
	var settings []setting
	for i := range table {
		key := &table[i]
		value := key.get(&c)
		var initial relay.Config
		if key.initial != "" {
			_ = key.set(&initial, key.initial)
		}
		switch {
		case dummy && key.network, value == "":
		case key.Name == "tls" && implicit:
		case key.Name == "tls_verify" && c.TLS == relay.TLSNone:
		case key.Name == "kind", key.initial == "", value != key.get(&initial):
			settings = append(settings, setting{key: key, value: value})
		}
	}
	return settings
}
