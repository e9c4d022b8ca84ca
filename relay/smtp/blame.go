package smtp

import (
	"regexp"
	"strings"
)

// Blame is whom a refusal blames, and so what another relay would say to the
// same.
type Blame uint8

const (
	BlameRecipient Blame = iota // the recipient: another relay would hear the same
	BlameEnvelope               // the sender or the message, whoever the recipients are: another relay may take it
	BlameRelay                  // the relay, which cannot or will not carry it: another one may
)

// blamed says whom a refusal blames. What is not plainly about somebody else is
// about the recipient where one was named, and about the envelope where none
// was.
//
//	reply                                       to             blames
//	an address: x.1 but .7 and .8, x.2          RCPT           the recipient
//	"relay access denied" and its like          any            the relay
//	"client host blocked using" and its like    any            the relay
//	wants us to log in                          any            the relay
//	x.6.1 to x.6.10, x.3.4, size                any            the relay: it cannot carry it
//	x.1.7, x.1.8, "sender address rejected"     any            the envelope
//	5.7 that does not speak of the recipient    RCPT           the relay
//	5.3                                         RCPT           the relay
//	other                                       RCPT           the recipient
//	other 4xx                                   END            the recipients
//	other                                       MAIL DATA END  the envelope
func blamed(c command, r *Reply, text string) Blame {
	s := subject(r)
	switch {
	case c == cmdRCPT && addressed(r) && !refusesToRelay(text) && !refusesSender(text):
		return BlameRecipient
	case refusesToRelay(text), refusesClient(text), wantsLogin(r, text), cannotCarry(s):
		return BlameRelay
	case ofSender(s), refusesSender(text), speaksOfSender(text):
		return BlameEnvelope
	case c == cmdRCPT && r.Code >= 500:
		policy := strings.HasPrefix(s, "7.") || s == "" && contains(text, "access denied", "administrative prohibition", "policy")
		if strings.HasPrefix(s, "3.") || policy && !speaksOfRecipient(text) {
			return BlameRelay
		}
		return BlameRecipient
	case c == cmdRCPT, c == cmdEnd && r.Code < 500:
		return BlameRecipient
	}
	return BlameEnvelope
}

// cannotCarry: RFC 3463, 3.7: the message must be converted and cannot be; 3.4:
// it is too big for this system.
func cannotCarry(subject string) bool {
	return subject == "3.4" || strings.HasPrefix(subject, "6.") && subject != "6.0"
}

// ofSender: RFC 3463, 3.2.
func ofSender(subject string) bool { return subject == "1.7" || subject == "1.8" }

// wantsLogin: RFC 4954, 6, and RFC 3207, 4.
func wantsLogin(r *Reply, text string) bool {
	switch r.Code {
	case 530, 534, 535, 538:
		return true
	}
	return r.Code >= 500 && asksForAuth(text)
}

var (
	anAddress = regexp.MustCompile(`<[^>]*>|[^\s<>@]+@[^\s<>@]+`)
	relaying  = regexp.MustCompile(`(?:^|[^a-z0-9._-])relay(?:ing|ed)?(?:[^a-z0-9._-]|\.?$|\. )`)
)

// refusesToRelay: the server would take the recipient from somebody else, or for
// other domains.
func refusesToRelay(text string) bool {
	if contains(text, "rcpthosts", "non-accepted domain") {
		return true
	}
	if !strings.Contains(text, "relay") {
		return false
	}
	text = anAddress.ReplaceAllString(text, " ")
	return relaying.MatchString(text) &&
		contains(text, "denied", "unable", "not ", "cannot", "can't", "won't", "don't", "prohibit", "refuse", "reject", "disallow", "forbid", "no relay", "open relay")
}

// refusesClient: it is we whom the server does not want, our address or our
// account.
func refusesClient(text string) bool {
	if contains(text, "address blacklisted") { // of the recipient
		return false
	}
	return contains(text, "sending ip", "sending paused", "sending limit", "sending quota", "credits exceeded", "not authorized to perform", "your access",
		"client host", "client address", "blocked using", "blacklist", "blocklist", "block list", "black list", "dnsbl", " rbl", "rbl ",
		"spamhaus", "spamcop", "listed at ", "listed by ", "your ip", "ip address", "your host", "your server", "sending server", "reverse dns",
		"reverse hostname", "ptr record", "helo command", "ehlo command", "helo name", "reputation")
}

// refusesSender: some say so to RCPT, and as of an address.
func refusesSender(text string) bool {
	return contains(text, "sender address rejected", "sender verify")
}

func speaksOfSender(text string) bool {
	return !strings.Contains(text, "recipient") && contains(text, "sender address", "sender rejected", "sender denied", "sender not", "sender is not", "not verified", "unverified",
		"from address", "mail from", "return path", "return-path")
}

func speaksOfRecipient(text string) bool {
	return contains(text, "recipient", "mailbox", "user", "account", "inbox", "addressee", "no such", "unknown", "does not exist", "doesn't exist", "not found")
}
