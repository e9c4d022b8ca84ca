package sink

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	gosmtp "github.com/emersion/go-smtp"
)

// A Phase is the point of a session where a rule applies.
type Phase string

// The phases, and what a rule's pattern is held against.
const (
	Connect Phase = "CONNECT" // the greeting; the client's IP address
	EHLO    Phase = "EHLO"    // EHLO or HELO; the name that the client says
	Mail    Phase = "MAIL"    // MAIL FROM; the sender, empty for the null sender
	Rcpt    Phase = "RCPT"    // RCPT TO; the recipient
	Data    Phase = "DATA"    // the reply to the final dot; any accepted recipient
)

// What a rule may do in place of a reply.
const (
	drop        = "drop"          // the connection is closed
	takeAndDrop = "take-and-drop" // the message is taken, but the client never hears of it
)

// A Rule is one thing that the sink refuses. [ParseRule] makes it; the zero
// Rule never applies.
type Rule struct {
	text    string
	phase   Phase
	first   int      // applies so many times to each key; 0: always
	pattern []string // lower case, split at the stars
	action  string   // drop, takeAndDrop, or empty: reply is sent
	reply   *gosmtp.SMTPError
}

// String is the rule as it was written.
func (r Rule) String() string { return r.text }

// A RuleError is a rule that cannot be read.
type RuleError struct {
	Rule    string // as written
	Problem string // what is wrong, and what would be right
}

func (e *RuleError) Error() string { return fmt.Sprintf("rule %q: %s", e.Rule, e.Problem) }

// ParseRules reads several rules and reports every bad one.
func ParseRules(texts ...string) ([]Rule, error) {
	rules := make([]Rule, 0, len(texts))
	var problems []error
	for _, text := range texts {
		r, err := ParseRule(text)
		if err != nil {
			problems = append(problems, err)
			continue
		}
		rules = append(rules, r)
	}
	return rules, errors.Join(problems...)
}

// ParseRule reads a rule:
//
//	PHASE[ first N]:PATTERN=CODE [ENHANCED] [TEXT]
//
//	RCPT:*@defer.test=451 4.2.0 later
//	RCPT first 1:*@grey.test=451 4.7.1 greylisted, come again
//	DATA:*=554 5.7.1 spam
//	CONNECT=421 4.3.2 too busy
//	DATA:*@doubt.test=take-and-drop
//
// PHASE is CONNECT, EHLO, MAIL, RCPT or DATA. A star in PATTERN stands for any
// characters, none too; case does not matter; without a pattern the rule
// applies to all. With "first N" the rule applies N times to each recipient
// (sender, name, client) and then no more. CODE is 400 to 599; the session
// ends after a 421. ENHANCED need not agree with CODE: clients must live with
// servers where it does not. In place of a reply, "drop" closes the connection,
// and with DATA, "take-and-drop" takes the message and then does.
//
// The error is a [*RuleError].
func ParseRule(text string) (Rule, error) {
	bad := func(format string, args ...any) (Rule, error) {
		return Rule{}, &RuleError{Rule: text, Problem: fmt.Sprintf(format, args...)}
	}
	if strings.ContainsFunc(text, func(c rune) bool { return c < ' ' || c == 0x7f }) {
		return bad("has a control character; write it on one line")
	}
	end := strings.IndexAny(text, ":=")
	if end < 0 {
		return bad("has no reply; write it as RCPT:*@example.test=451 4.2.0 later")
	}
	r := Rule{text: text}

	phase, first, counted := strings.Cut(strings.TrimSpace(text[:end]), " ")
	r.phase = Phase(strings.ToUpper(phase))
	if !slices.Contains([]Phase{Connect, EHLO, Mail, Rcpt, Data}, r.phase) {
		return bad("begins with %q; use CONNECT, EHLO, MAIL, RCPT or DATA", phase)
	}
	if counted {
		times, ok := strings.CutPrefix(strings.TrimSpace(first), "first ")
		n, err := strconv.Atoi(strings.TrimSpace(times))
		if !ok || err != nil || n < 1 {
			return bad("has %q after %s; write %s first N, with N from 1 up", first, phase, r.phase)
		}
		r.first = n
	}

	pattern, reply := "*", text[end+1:]
	if text[end] == ':' {
		var ok bool
		if pattern, reply, ok = cutReply(text[end+1:]); !ok {
			return bad("has no reply; add =CODE TEXT at the end, as in =451 4.2.0 later")
		}
	}
	r.pattern = strings.Split(strings.ToLower(strings.TrimSpace(pattern)), "*")

	reply = strings.TrimSpace(reply)
	switch {
	case reply == drop, reply == takeAndDrop && r.phase == Data:
		r.action = reply
		return r, nil
	case reply == takeAndDrop:
		return bad("%s cannot take a message; use take-and-drop with DATA only", r.phase)
	}
	code, said, _ := strings.Cut(reply, " ")
	n, ok := parseCode(code)
	if !ok || n < 400 || n > 599 {
		return bad("has the code %q; use one from 400 to 599, drop, or with DATA take-and-drop", code)
	}
	r.reply = &gosmtp.SMTPError{Code: n, EnhancedCode: gosmtp.NoEnhancedCode, Message: strings.TrimSpace(said)}
	enhanced, rest, _ := strings.Cut(r.reply.Message, " ")
	if c, ok := parseEnhanced(enhanced); ok {
		r.reply.EnhancedCode, r.reply.Message = c, strings.TrimSpace(rest)
	}
	return r, nil
}

// cutReply splits at the first "=" that a reply follows, as a local part may
// have one too, else at the last.
func cutReply(s string) (pattern, reply string, ok bool) {
	for i := range len(s) {
		if s[i] != '=' {
			continue
		}
		pattern, reply, ok = s[:i], s[i+1:], true
		word, _, _ := strings.Cut(strings.TrimSpace(reply), " ")
		if _, code := parseCode(word); code || word == drop || word == takeAndDrop {
			break
		}
	}
	return pattern, reply, ok
}

func parseCode(s string) (int, bool) {
	n, err := strconv.Atoi(s)
	return n, err == nil && len(s) == 3 && n >= 100
}

// parseEnhanced reads a status code of RFC 3463.
func parseEnhanced(s string) (gosmtp.EnhancedCode, bool) {
	parts := strings.Split(s, ".")
	if len(parts) != 3 {
		return gosmtp.EnhancedCode{}, false
	}
	var c gosmtp.EnhancedCode
	for i, p := range parts {
		n, err := strconv.ParseUint(p, 10, 16)
		if err != nil || n > 999 {
			return gosmtp.EnhancedCode{}, false
		}
		c[i] = int(n)
	}
	return c, c[0] == 2 || c[0] == 4 || c[0] == 5
}

// matches tells whether key, in lower case, is what the pattern says.
func (r Rule) matches(key string) bool {
	if len(r.pattern) == 0 {
		return false
	}
	last := len(r.pattern) - 1
	if last == 0 {
		return key == r.pattern[0]
	}
	key, ok := strings.CutPrefix(key, r.pattern[0])
	if !ok {
		return false
	}
	for _, part := range r.pattern[1:last] {
		if _, key, ok = strings.Cut(key, part); !ok {
			return false
		}
	}
	return strings.HasSuffix(key, r.pattern[last])
}
