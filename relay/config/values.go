package config

import (
	"errors"
	"fmt"
	"net/netip"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"bulkmail/relay"
	"bulkmail/relay/caps"
	"bulkmail/relay/smtp"

	"golang.org/x/net/idna"
)

// Setters say what they want and never what they got: whether the value may be
// shown is known to their caller only.

func number(field func(*relay.Config) *int, least, most int) access {
	want := fmt.Errorf("want a whole number from %d to %d", least, most)
	return access{
		value: "number",
		set: func(c *relay.Config, s string) error {
			n, err := strconv.Atoi(s)
			if err != nil || n < least || n > most {
				return want
			}
			*field(c) = n
			return nil
		},
		get: func(c *relay.Config) string { return strconv.Itoa(*field(c)) },
	}
}

// orNone is a setting that has a default and whose 0 means that there is no
// limit, which a Config says with [relay.None].
func orNone[T int | time.Duration](a access, field func(*relay.Config) *T) access {
	set, get := a.set, a.get
	a.set = func(c *relay.Config, s string) error {
		err := set(c, s)
		if err == nil && *field(c) == 0 {
			*field(c) = relay.None
		}
		return err
	}
	a.get = func(c *relay.Config) string {
		if *field(c) < 0 {
			return "0"
		}
		return get(c)
	}
	return a
}

var (
	errDuration = errors.New("want a duration such as 90s, 15m or 24h, or a number of seconds")
	errTooLong  = errors.New("want at most ten years, 87600h")
)

// longest is more than anybody waits for, and far from where durations
// overflow when they are added up.
const longest = 10 * 365 * 24 * time.Hour

func duration(field func(*relay.Config) *time.Duration) access {
	return access{
		value: "duration",
		set: func(c *relay.Config, s string) error {
			d, err := parseDuration(s)
			if err != nil {
				return err
			}
			*field(c) = d
			return nil
		},
		get: func(c *relay.Config) string { return formatDuration(*field(c)) },
	}
}

var (
	bareNumber    = regexp.MustCompile(`^[0-9]+(\.[0-9]+)?$`)
	durationShape = regexp.MustCompile(`^([0-9]+(\.[0-9]+)?(ms|h|m|s))+$`)
)

// parseDuration reads Go's durations, and a bare number as seconds as
// Mail::Bulkmail does.
func parseDuration(s string) (time.Duration, error) {
	if bareNumber.MatchString(s) {
		s += "s"
	}
	d, err := time.ParseDuration(s)
	switch {
	case err != nil && durationShape.MatchString(s), err == nil && d > longest:
		return 0, errTooLong // ParseDuration does not tell an overflow from nonsense
	case err != nil || d < 0:
		return 0, errDuration
	}
	return d, nil
}

// formatDuration leaves out the zeros that time.Duration ends with: 24h, not
// 24h0m0s.
func formatDuration(d time.Duration) string {
	s := d.String()
	if strings.HasSuffix(s, "m0s") {
		s = strings.TrimSuffix(s, "0s")
	}
	if strings.HasSuffix(s, "h0m") {
		s = strings.TrimSuffix(s, "0m")
	}
	return s
}

var errBool = errors.New("want true or false")

func boolean(field func(*relay.Config) *bool) access {
	return access{
		value: "true or false",
		set: func(c *relay.Config, s string) error {
			switch strings.ToLower(s) {
			case "true", "yes", "on", "1":
				*field(c) = true
			case "false", "no", "off", "0":
				*field(c) = false
			default:
				return errBool
			}
			return nil
		},
		get: func(c *relay.Config) string { return strconv.FormatBool(*field(c)) },
	}
}

// verify is tls_verify: true, false, or as tls has it.
func verify() access {
	return access{
		value: "true or false",
		set: func(c *relay.Config, s string) error {
			var yes bool
			if err := boolean(func(*relay.Config) *bool { return &yes }).set(c, s); err != nil {
				return err
			}
			c.TLSVerify = smtp.VerifyNever
			if yes {
				c.TLSVerify = smtp.VerifyAlways
			}
			return nil
		},
		get: func(c *relay.Config) string { return strconv.FormatBool(c.Verified()) },
	}
}

// choice is one of several words, in any case.
func choice(field func(*relay.Config) *string, words ...string) access {
	last := len(words) - 1
	list := strings.Join(words[:last], ", ") + " or " + words[last]
	return access{
		value: list,
		set: func(c *relay.Config, s string) error {
			i := slices.IndexFunc(words, func(w string) bool { return strings.EqualFold(w, s) })
			if i < 0 {
				return errors.New("want " + list)
			}
			*field(c) = words[i]
			return nil
		},
		get: func(c *relay.Config) string { return *field(c) },
	}
}

func text(field func(*relay.Config) *string, value string, check func(string) (string, error)) access {
	return access{
		value: value,
		set: func(c *relay.Config, s string) error {
			if check != nil {
				var err error
				if s, err = check(s); err != nil {
					return err
				}
			}
			*field(c) = s
			return nil
		},
		get: func(c *relay.Config) string { return *field(c) },
	}
}

// checkFields reads names of header fields (RFC 5322 3.6.8), which stand in lower
// case from then on.
func checkFields(s string) (string, error) {
	names := strings.Split(strings.ToLower(s), ",")
	for i, name := range names {
		name = strings.TrimSpace(name)
		if name == "" || strings.ContainsFunc(name, func(r rune) bool { return r <= ' ' || r == ':' || r >= 0x7f }) {
			return "", errors.New("want names of header fields with commas between them, as message-id,date")
		}
		if name == "from" {
			return "", errors.New("the field From is always signed (RFC 6376, 5.4)")
		}
		names[i] = name
	}
	return strings.Join(names, ","), nil
}

func rate(field func(*relay.Config) *relay.Rate) access {
	return access{
		value: "rate",
		set: func(c *relay.Config, s string) error {
			r, err := caps.ParseRate(s)
			if err != nil {
				return err
			}
			*field(c) = r
			return nil
		},
		get: func(c *relay.Config) string { return field(c).String() },
	}
}

var (
	errHost   = errors.New("want a host name or an IP address")
	errDomain = errors.New("want a domain such as news.example.com, or an address literal such as [192.0.2.1] (RFC 5321, 4.1.3)")
	errName   = errors.New("want 1 to 260 letters, digits and . _ : % [ ] -")

	// The last label of a name is no number, or it would be a mistyped
	// address (RFC 3696, 2).
	hostName  = regexp.MustCompile(`^([A-Za-z0-9_]([A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?\.)*[A-Za-z0-9_]*[A-Za-z_-][A-Za-z0-9_-]*\.?$`)
	relayName = regexp.MustCompile(`^[A-Za-z0-9._:%\[\]-]{1,260}$`)
)

// checkHost returns a name as A-labels, or an IP address without brackets.
func checkHost(s string) (string, error) {
	bare := s
	if strings.HasPrefix(s, "[") && strings.HasSuffix(s, "]") {
		bare = s[1 : len(s)-1]
	}
	if ip, err := netip.ParseAddr(bare); err == nil {
		if bare != s && !ip.Is6() {
			return "", errHost
		}
		return ip.String(), nil
	}
	return checkDomainName(s, errHost)
}

func checkDomainName(s string, want error) (string, error) {
	if strings.ContainsFunc(s, func(r rune) bool { return r > 127 }) {
		ascii, err := idna.Lookup.ToASCII(s)
		if err != nil {
			return "", want
		}
		s = ascii
	}
	if len(s) > 253 || !hostName.MatchString(s) {
		return "", want
	}
	return s, nil
}

// checkDomain takes what may follow EHLO.
func checkDomain(s string) (string, error) {
	if !strings.HasPrefix(s, "[") {
		return checkDomainName(s, errDomain)
	}
	inner, ok := strings.CutSuffix(s[1:], "]")
	v6, is6 := strings.CutPrefix(inner, "IPv6:")
	ip, err := netip.ParseAddr(v6)
	if !ok || err != nil || ip.Is6() != is6 || ip.Zone() != "" {
		return "", errDomain
	}
	return relay.AddressLiteral(ip), nil
}

func checkName(s string) (string, error) {
	if !relayName.MatchString(s) {
		return "", errName
	}
	return s, nil
}

// describe is what a problem shows of a value.
func describe(value string) string {
	const most = 60
	if len(value) > most {
		value = strings.ToValidUTF8(value[:most], "") + "…"
	}
	return strconv.Quote(value)
}

// checkConversation lets off undo a default.
func checkConversation(s string) (string, error) {
	if s == "off" {
		return "", nil
	}
	return s, nil
}
