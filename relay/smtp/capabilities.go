package smtp

import (
	"slices"
	"strconv"
	"strings"
)

// Capabilities is what a server offered in its reply to EHLO or LHLO. The zero
// value is a server that knows HELO alone.
type Capabilities struct {
	Lines []string // as announced, without the greeting line

	Pipelining          bool     // RFC 2920
	EightBitMIME        bool     // RFC 6152
	SMTPUTF8            bool     // RFC 6531
	DSN                 bool     // RFC 3461
	EnhancedStatusCodes bool     // RFC 2034
	Chunking            bool     // RFC 3030
	StartTLS            bool     // RFC 3207
	SizeOffered         bool     // RFC 1870
	Size                int64    // the largest message in octets; 0: not said
	Auth                []string // mechanisms, upper case (RFC 4954)

	// RFC 9422 LIMITS; 0: not said.
	MaxRecipients int // RCPTMAX
	MaxMessages   int // MAILMAX
	MaxDomains    int // RCPTDOMAINMAX
}

// parseCapabilities reads the text of an EHLO reply, lines joined by \n. What
// is malformed is ignored: a server that cannot spell an extension does not
// offer it.
func parseCapabilities(text string) Capabilities {
	var c Capabilities
	_, text, _ = strings.Cut(text, "\n") // the greeting
	for line := range strings.SplitSeq(text, "\n") {
		line = strings.TrimSpace(line)
		if line == "" {
			continue
		}
		c.Lines = append(c.Lines, printable([]byte(line)))
		keyword, params, _ := strings.Cut(line, " ")
		switch strings.ToUpper(keyword) {
		case "PIPELINING":
			c.Pipelining = true
		case "8BITMIME":
			c.EightBitMIME = true
		case "SMTPUTF8":
			c.SMTPUTF8 = true
		case "DSN":
			c.DSN = true
		case "ENHANCEDSTATUSCODES":
			c.EnhancedStatusCodes = true
		case "CHUNKING":
			c.Chunking = true
		case "STARTTLS":
			c.StartTLS = true
		case "SIZE":
			c.parseSize(params)
		case "AUTH":
			c.addAuth(params)
		case "LIMITS":
			c.parseLimits(params)
		default:
			// Some servers announce AUTH a second time in the form of
			// an early draft.
			if rest, ok := cutPrefixFold(line, "AUTH="); ok {
				c.addAuth(rest)
			}
		}
	}
	return c
}

func (c *Capabilities) parseSize(params string) {
	params = strings.TrimSpace(params)
	if params == "" {
		c.SizeOffered = true
		return
	}
	if n, err := strconv.ParseUint(params, 10, 63); err == nil {
		c.SizeOffered, c.Size = true, int64(n)
	}
}

func (c *Capabilities) addAuth(params string) {
	for mechanism := range strings.FieldsSeq(strings.ToUpper(params)) {
		if !slices.Contains(c.Auth, mechanism) {
			c.Auth = append(c.Auth, mechanism)
		}
	}
}

// parseLimits reads RFC 9422, 3: items like RCPTMAX=100, a value of 1 to 6
// digits that does not begin with 0.
func (c *Capabilities) parseLimits(params string) {
	for item := range strings.FieldsSeq(params) {
		name, value, ok := strings.Cut(item, "=")
		if !ok || len(value) < 1 || len(value) > 6 || value[0] < '1' || value[0] > '9' {
			continue
		}
		n, err := strconv.ParseUint(value, 10, 32)
		if err != nil {
			continue
		}
		switch strings.ToUpper(name) {
		case "RCPTMAX":
			c.MaxRecipients = int(n)
		case "MAILMAX":
			c.MaxMessages = int(n)
		case "RCPTDOMAINMAX":
			c.MaxDomains = int(n)
		}
	}
}

func cutPrefixFold(s, prefix string) (string, bool) {
	if len(s) >= len(prefix) && strings.EqualFold(s[:len(prefix)], prefix) {
		return s[len(prefix):], true
	}
	return s, false
}
