package envelope

import (
	"fmt"
	"net/netip"
	"strings"
	"unicode"
	"unicode/utf8"
)

// An Address is a mailbox that can be said in RCPT TO or MAIL FROM. Two
// addresses are the same mailbox when their Mailbox is the same.
type Address struct {
	Mailbox string // local@domain: local part as written, unquoted where it can be; domain as below
	Domain  string // lower-case A-labels, or an address literal with its brackets
	UTF8    bool   // the local part is not ASCII: SMTPUTF8 is wanted
}

// An AddressError is an address that cannot be sent to.
type AddressError struct {
	Address string // as given; may hold anything
	Reason  string
}

// Error is one line, whatever the address holds.
func (e *AddressError) Error() string { return quoted(e.Address) + ": " + e.Reason }

// ParseAddress checks s against RFC 5321 4.1.2 (Mailbox) with RFC 6531 3.3,
// without display name, angle brackets, comments or source route, and brings
// it into the one form in which mailboxes can be compared:
//
//   - The local part keeps its case, as it is the receiving host's to read.
//     Quotes that it does not need are taken off, as they are no part of it.
//     Invisible and unassigned characters beyond ASCII are refused: they come
//     from copying, never from a mailbox's owner.
//   - The domain is lower-cased, and mapped to A-labels as a browser would
//     (UTS 46, not transitional: ß stays ß). One label will do. Underscores
//     (no host name: RFC 952) and a final dot (RFC 5321 2.3.5) are refused,
//     as is an IP address without its brackets.
//   - An address literal is checked and written the shortest way.
//
// Lengths are those of the result: 64 octets for the local part, 254 in all,
// so that the path with its brackets is within the 256 of RFC 5321 4.5.3.1.3.
//
// The error is an *[AddressError]. A plain ASCII address with a lower-case
// domain costs no allocation: the result shares memory with s.
func ParseAddress(s string) (Address, error) {
	local, rest, reason := parseLocal(s)
	if reason != "" {
		return Address{}, &AddressError{s, reason}
	}
	domain, reason := parseDomain(rest)
	switch {
	case reason != "":
	case len(local) > 64:
		reason = "the local part is longer than 64 octets"
	case len(domain) > maxDomain:
		reason = tooLong
	case len(local)+1+len(domain) > 254:
		reason = "longer than 254 octets"
	}
	if reason != "" {
		return Address{}, &AddressError{s, reason}
	}
	a := Address{Mailbox: s, Domain: domain}
	if rest != domain || len(s) != len(local)+1+len(domain) { // unquoting shortens
		a.Mailbox = local + "@" + domain
	}
	for _, c := range []byte(local) {
		if c >= utf8.RuneSelf {
			a.UTF8 = true
			break
		}
	}
	return a, nil
}

// ParseSender is the mailbox of s as said in MAIL FROM. The null sender, ""
// or "<>", is "".
func ParseSender(s string) (string, error) {
	if s == "" || s == "<>" {
		return "", nil
	}
	a, err := ParseAddress(s)
	return a.Mailbox, err
}

const (
	maxDomain = 255 // RFC 5321 4.5.3.1.2
	tooLong   = "the domain is longer than 255 octets"
)

// What an octet may be part of.
const (
	atext = 1 << iota // RFC 5322 3.2.3, and any octet of UTF-8 beyond ASCII by RFC 6531 3.3
	lower
	upper
	digit
	hyphen
	dot
	high
)

var classes = func() (t [256]uint8) {
	for c := range t {
		switch {
		case 'a' <= c && c <= 'z':
			t[c] = atext | lower
		case 'A' <= c && c <= 'Z':
			t[c] = atext | upper
		case '0' <= c && c <= '9':
			t[c] = atext | digit
		case c == '-':
			t[c] = atext | hyphen
		case c == '.':
			t[c] = dot
		case c >= utf8.RuneSelf:
			t[c] = atext | high
		case strings.IndexByte("!#$%&'*+/=?^_`{|}~", byte(c)) >= 0:
			t[c] = atext
		}
	}
	return t
}()

// parseLocal reads the local part and the @ after it.
func parseLocal(s string) (local, rest, reason string) {
	if s == "" {
		return "", "", "empty"
	}
	if s[0] == '"' {
		return parseQuoted(s)
	}
	i, all := 0, uint8(0)
	for ; i < len(s); i++ {
		c := classes[s[i]]
		if c&(atext|dot) == 0 {
			break
		}
		all |= c
	}
	switch {
	case i == len(s):
		return "", "", "no @"
	case s[i] != '@':
		return "", "", unfit(s[i], "outside quotes")
	case i == 0:
		return "", "", "nothing before the @"
	}
	local = s[:i]
	if all&dot != 0 && (local[0] == '.' || local[i-1] == '.' || strings.Contains(local, "..")) {
		return "", "", "a dot in the local part belongs between two other characters, or in quotes"
	}
	if all&high != 0 {
		reason = checkText(local)
	}
	return local, s[i+1:], reason
}

// parseQuoted reads a local part that begins with a quote (RFC 5321 4.1.2,
// Quoted-string).
func parseQuoted(s string) (local, rest, reason string) {
	var content []byte
	atom := true // could as well be said without quotes
	i := 1
	for ; i < len(s) && s[i] != '"'; i++ {
		if s[i] == '\\' && i+1 < len(s) {
			i++
			if s[i] >= utf8.RuneSelf {
				return "", "", "a backslash quotes ASCII only"
			}
		}
		c := s[i]
		if c < ' ' || c == 0x7f {
			return "", "", unfit(c, "in quotes")
		}
		if classes[c]&atext == 0 && (c != '.' || len(content) == 0 || content[len(content)-1] == '.') {
			atom = false
		}
		content = append(content, c)
	}
	if i >= len(s) {
		return "", "", "the quote is not closed"
	}
	if i+1 == len(s) || s[i+1] != '@' {
		return "", "", "an @ belongs after the closing quote"
	}
	local, rest = string(content), s[i+2:]
	if reason := checkText(local); reason != "" {
		return "", "", reason
	}
	if atom && local != "" && local[len(local)-1] != '.' {
		return local, rest, ""
	}
	return `"` + quoter.Replace(local) + `"`, rest, ""
}

var quoter = strings.NewReplacer(`"`, `\"`, `\`, `\\`)

// checkText refuses what no mailbox's owner types but lists are full of: text
// read in the wrong encoding, non-breaking spaces, byte order marks. The
// joiners are letters' company in Persian and the scripts of India.
func checkText(s string) (reason string) {
	for i, r := range s {
		switch {
		case r == utf8.RuneError:
			if _, n := utf8.DecodeRuneInString(s[i:]); n == 1 {
				return "not UTF-8"
			}
			return "has U+FFFD, the mark of text read in the wrong encoding"
		case r < utf8.RuneSelf || unicode.IsPrint(r) || r == '\u200c' || r == '\u200d':
		default:
			return fmt.Sprintf("has the invisible character %U", r)
		}
	}
	return ""
}

// parseDomain returns the domain as it goes into the mailbox.
func parseDomain(s string) (domain, reason string) {
	if s == "" {
		return "", "nothing after the @"
	}
	if s[0] == '[' {
		return parseLiteral(s)
	}
	all := uint8(0)
	for _, c := range []byte(s) {
		class := classes[c]
		if class&(lower|upper|digit|hyphen|dot|high) == 0 {
			if c == '@' {
				return "", "more than one @"
			}
			return "", unfit(c, "in the domain")
		}
		all |= class
	}
	if all&upper != 0 && all&high == 0 {
		s = strings.ToLower(s)
	}
	if all&high != 0 || all&hyphen != 0 && strings.Contains(s, "xn--") {
		if !utf8.ValidString(s) {
			return "", "not UTF-8"
		}
		if s, reason = toASCII(s); reason != "" {
			return "", reason
		}
	}
	if reason := checkLabels(s); reason != "" {
		return "", reason
	}
	if last := s[len(s)-1]; '0' <= last && last <= '9' {
		if _, err := netip.ParseAddr(s); err == nil {
			return "", "an IP address goes in brackets: [" + s + "]"
		}
	}
	return s, ""
}

// checkLabels checks lower-case ASCII labels (RFC 1123 2.1, RFC 1035 2.3.4).
func checkLabels(s string) (reason string) {
	start := 0
	for i := 0; i <= len(s); i++ {
		if i < len(s) && s[i] != '.' {
			continue
		}
		switch label := s[start:i]; {
		case label == "" && i == len(s) && i > 0:
			return "the domain ends with a dot"
		case label == "":
			return "the domain has an empty label"
		case len(label) > 63:
			return "a label of the domain is longer than 63 octets"
		case label[0] == '-' || label[len(label)-1] == '-':
			return "a label of the domain begins or ends with a hyphen"
		}
		start = i + 1
	}
	return ""
}

// parseLiteral checks an address literal (RFC 5321 4.1.3). Equal addresses
// become equal strings, so that they share envelopes.
func parseLiteral(s string) (domain, reason string) {
	const tag = "IPv6:"
	inner, ok := strings.CutSuffix(s[1:], "]")
	if !ok {
		return "", "the bracket of the address literal is not closed"
	}
	if len(inner) >= len(tag) && strings.EqualFold(inner[:len(tag)], tag) {
		if ip, err := netip.ParseAddr(inner[len(tag):]); err == nil && ip.Is6() && ip.Zone() == "" {
			return "[" + tag + ip.String() + "]", ""
		}
	} else if ip, err := netip.ParseAddr(inner); err == nil && ip.Is4() {
		return s, ""
	}
	return "", "not an address literal: write [192.0.2.1] or [IPv6:2001:db8::1]"
}

// unfit says why an octet has no place there.
func unfit(c byte, where string) string {
	switch {
	case c == ' ':
		return "a space " + where
	case c < ' ' || c == 0x7f:
		return fmt.Sprintf("has the control character %U", c)
	case c == '<' || c == '>':
		return "give the bare address, without a name and < >"
	case c == ',' || c == ';':
		return "give each address by itself"
	}
	return fmt.Sprintf("%q %s", c, where)
}
