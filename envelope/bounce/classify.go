package bounce

import (
	"bytes"
	"math/bits"
	"strings"
)

// Reason is why a recipient got no message, of a small fixed list.
type Reason string

// The reasons. UnknownUser, UnknownHost and Moved are hard: the address is dead.
const (
	UnknownUser    Reason = "unknown_user"
	UnknownHost    Reason = "unknown_host" // no such domain, or one that takes no mail
	MailboxFull    Reason = "mailbox_full"
	Suspended      Reason = "suspended" // the account exists and is disabled or locked
	Moved          Reason = "moved"
	Policy         Reason = "policy" // refused by a rule, of the server or of the recipient
	Authentication Reason = "authentication"
	Content        Reason = "content"
	Rate           Reason = "rate"
	Blocked        Reason = "blocked" // the sending host is, whatever it sends
	TooLarge       Reason = "too_large"
	Network        Reason = "network" // could not be connected to, or not in time
	Other          Reason = "other"
)

// Hard reports whether an address with this reason is dead for good.
func (r Reason) Hard() bool { return r == UnknownUser || r == UnknownHost || r == Moved }

// Command is the SMTP command that was refused.
type Command uint8

// The commands. A server that refuses what comes before RCPT says nothing of
// the recipient; one that refuses what comes after it had taken the recipient.
const (
	CommandUnknown Command = iota
	CommandConnect         // the greeting, EHLO, STARTTLS, AUTH
	CommandMail
	CommandRcpt
	CommandData // DATA, or the end of the message
)

// Refusal is what a server said of a recipient. Each field may be missing.
type Refusal struct {
	Enhanced string // RFC 3463, "5.1.1"
	Code     int    // of the SMTP reply
	Text     string // of the reply, or the diagnostic text of a report
	Command  Command
}

// Verdict is what a refusal means.
type Verdict struct {
	Kind   Kind // Bounced, or Delayed where the refusal is for now
	Reason Reason
	Hard   bool
}

// Classify says what a refusal means. It serves reports and the replies to RCPT
// at send time alike, keeps nothing, and allocates nothing.
//
// Words decide before numbers, because a great many servers say 550 or 5.1.1 to
// everything; an unknown user who is told in words that do not fit the rest of
// the refusal is taken for a rule of the recipient, which is not hard. Nothing is
// hard that is said to be for now (4xx, 4.x.x).
func Classify(r Refusal) Verdict { return classify(r, false) }

// classify classifies a refusal; prose is what was found in the text of a mail
// rather than in the fields of a report, and is trusted less.
func classify(r Refusal, prose bool) Verdict {
	status := chooseStatus(r.Enhanced, r.Text)
	code := r.Code
	if code == 0 {
		code = findCode(r.Text)
	}
	if len(r.Text) == 0 && status.class == 0 && code == 0 {
		return Verdict{Kind: Bounced, Reason: Other}
	}
	var room [maxText]byte
	words, named := plainWords(room[:0], r.Text)
	e := evidence{status: status, code: code, command: r.Command, words: words, named: named}
	if prose { // then only if nothing stands between the address and the words
		e.named = bytes.Contains(words, []byte("@ user unknown"))
	}
	v := Verdict{Kind: Bounced, Reason: e.reason()}
	if e.temporary() {
		v.Kind = Delayed
		switch v.Reason {
		case UnknownHost:
			v.Reason = Network
		case UnknownUser, Moved:
			v.Reason = Other
		}
	}
	v.Hard = v.Reason.Hard()
	return v
}

// evidence is a refusal in the form in which it is judged.
type evidence struct {
	status  status
	code    int
	command Command
	words   []byte // lower case, without addresses, URLs and codes
	named   bool   // the words name an address, and are the server's own
}

// temporary reports whether the refusal is for now. An enhanced status tells more
// than a code: relays give up with 4.4.7, and a 5xx that carries it.
func (e *evidence) temporary() bool {
	if e.status.class != 0 {
		return e.status.class == 4
	}
	return e.code >= 400 && e.code < 500
}

func (e *evidence) reason() Reason {
	reason, found := e.byWords()
	if !found {
		if reason, found = e.byStatus(); !found {
			reason = e.byCode()
		}
	}
	if reason.Hard() && (e.command == CommandConnect || e.command == CommandMail) {
		return Policy // the recipient was not named yet
	}
	return reason
}

func (e *evidence) byWords() (Reason, bool) {
	for fit := spoken(e.words); fit != 0; fit &= fit - 1 {
		rule := &rules[bits.TrailingZeros32(fit)]
		switch rule.sure {
		case ifNamed:
			return e.unknownUser(), true
		case ifFree:
			if reason, ok := e.unavailable(); ok {
				return reason, true
			}
			continue
		case ifNoOther:
			if _, ok := e.byStatus(); ok && !e.status.vague() || e.byCode().Hard() && e.code != codeMoved {
				continue
			}
			if e.command == CommandRcpt && e.status.vague() && bytes.HasSuffix(bytes.TrimRight(e.words, "."), []byte("recipient address rejected")) {
				return UnknownUser, true // refused for no other reason than itself
			}
		}
		if rule.reason == Suspended && e.status.is(1, 1) {
			return UnknownUser, true // 5.1.1 for an account that was closed
		}
		return rule.reason, true
	}
	return Other, false
}

// phraseStarts finds the phrases of all rules by their first two letters, so that
// words are gone through once.
var phraseStarts = indexPhrases()

type phraseStart struct {
	phrase string
	rule   uint8
}

const startBuckets = 1 << 11

func startBucket(a, b byte) int { return (int(a)*67 + int(b)) % startBuckets }

func indexPhrases() *[startBuckets][]phraseStart {
	var index [startBuckets][]phraseStart
	for i, rule := range rules {
		for _, phrase := range rule.phrases {
			bucket := &index[startBucket(phrase[0], phrase[1])]
			*bucket = append(*bucket, phraseStart{phrase, uint8(i)})
		}
	}
	return &index
}

// spoken returns a bit for each rule of which a phrase is among the words.
func spoken(words []byte) (fit uint32) {
	for i := 0; i+1 < len(words); i++ {
		for _, start := range phraseStarts[startBucket(words[i], words[i+1])] {
			if n := len(start.phrase); i+n <= len(words) && string(words[i:i+n]) == start.phrase {
				fit |= 1 << start.rule
			}
		}
	}
	return fit
}

// unknownUser judges "user unknown", the words that most servers say of a mailbox
// that there is not, and that some say instead of "this person does not want your
// mail": those of the mobile carriers of Japan do, after DATA or without the
// address. The former comes with a status of addresses (x.1.x) or in reply to RCPT.
func (e *evidence) unknownUser() Reason {
	switch {
	case e.status.subject == 1 || e.command == CommandRcpt:
		return UnknownUser
	case e.command != CommandUnknown, e.status.subject == 2, e.status.subject == 7, !e.named:
		return Policy
	}
	return UnknownUser
}

// unavailable judges "mailbox unavailable", RFC 5321's words for any 550.
func (e *evidence) unavailable() (Reason, bool) {
	switch {
	case e.command == CommandData, e.status.subject == 2, e.status.subject == 7:
		return Other, false
	}
	return UnknownUser, true
}

// byStatus judges by RFC 3463 and the registry of enhanced status codes.
func (e *evidence) byStatus() (Reason, bool) {
	s := e.status
	switch s.subject {
	case 1:
		switch s.detail {
		case 2:
			return UnknownHost, true
		case 4, 5:
			return Other, true
		case 6:
			return Moved, true
		case 7, 8, 9: // of the sender; and that a message must not be relayed
			return Policy, true
		}
		return UnknownUser, s.class != 0
	case 2:
		switch s.detail {
		case 1:
			return Suspended, true
		case 2:
			return MailboxFull, true
		case 3:
			return TooLarge, true
		}
	case 3:
		if s.detail == 4 {
			return TooLarge, true
		}
	case 4:
		switch s.detail {
		case 4, 310:
			return UnknownHost, true
		}
		return Network, true
	case 6:
		return Content, true
	case 7:
		return securityReason(s.detail), true
	}
	return Other, false
}

// securityReason judges x.7.x, of which Exchange Online has more than the registry.
func securityReason(detail int) Reason {
	switch {
	case detail == 13:
		return Suspended
	case detail == 5, detail == 7, detail == 20, detail == 21, detail == 22, detail == 23, detail == 24, detail == 26,
		detail == 30, detail == 32, detail == 509, detail == 515:
		return Authentication
	case detail == 25, detail == 511, detail >= 606 && detail <= 649, detail == 750:
		return Blocked
	case detail == 28, detail == 708:
		return Rate
	}
	return Policy
}

// codeUnregistered is what the filters of MessageLabs say of an address that is not
// registered with them.
const codeUnregistered = 542

// codeMoved is RFC 5321's "user not local", which is said of relaying too.
const codeMoved = 551

func (e *evidence) byCode() Reason {
	switch e.code {
	case 421, 450, 451, 452:
		return Other
	case 521, 556: // RFC 7504, RFC 7505
		return UnknownHost
	case codeUnregistered:
		return UnknownUser
	case codeMoved:
		return Moved
	case 552:
		return MailboxFull
	}
	return Other
}

// status is an enhanced status; its class is 0 if there is none.
type status struct{ class, subject, detail int }

func (s status) is(subject, detail int) bool {
	return s.class != 0 && s.subject == subject && s.detail == detail
}

// vague reports whether a status says no more than its class.
func (s status) vague() bool { return s.subject == 0 && s.detail == 0 }

// chooseStatus prefers the status within the text, which is the remote server's,
// to the one that the reporting server made of it, unless only that says something.
func chooseStatus(enhanced, text string) status {
	given, _ := parseStatus(strings.TrimLeft(enhanced, " \t"))
	said := findStatus(text)
	if said.class == 0 || said.vague() && given.class == said.class {
		return given
	}
	return said
}

// findStatus returns the last status in a text: gateways put what they made of a
// reply before it.
func findStatus(text string) (last status) {
	text = text[:min(len(text), maxText)]
	for i := 0; i+5 <= len(text); i++ {
		if c := text[i]; c != '2' && c != '4' && c != '5' || i > 0 && !startsWord(text[i-1]) {
			continue
		}
		s, n := parseStatus(text[i:])
		if n == 0 {
			continue
		}
		if last.class == 0 || !s.vague() {
			last = s
		}
		i += n - 1
	}
	return last
}

func startsWord(before byte) bool {
	switch before {
	case ' ', '\t', '\n', '\r', '-', '(', '[', '#', ':', ';', '\'', '"', '=', ',', '<':
		return true
	}
	return false
}

// parseStatus reads a status at the beginning of s, and returns its length.
func parseStatus(s string) (status, int) {
	if len(s) < 5 || s[1] != '.' || s[0] != '2' && s[0] != '4' && s[0] != '5' {
		return status{}, 0
	}
	subject, n := digits(s[2:], 3)
	i := 2 + n
	if n == 0 || i >= len(s) || s[i] != '.' {
		return status{}, 0
	}
	detail, n := digits(s[i+1:], 3)
	i += 1 + n
	// A fourth number makes it an IP address.
	if n == 0 || i < len(s) && (isDigit(s[i]) || s[i] == '.' && i+1 < len(s) && isDigit(s[i+1])) {
		return status{}, 0
	}
	return status{int(s[0] - '0'), subject, detail}, i
}

func digits(s string, most int) (value, n int) {
	for n < len(s) && n < most && isDigit(s[n]) {
		value = value*10 + int(s[n]-'0')
		n++
	}
	return value, n
}

func isDigit(c byte) bool { return c >= '0' && c <= '9' }

// findCode returns the first thing in a text that looks like an SMTP reply code.
func findCode(text string) int {
	text = text[:min(len(text), maxText)]
	for i := 0; i+3 <= len(text); i++ {
		if c := text[i]; c != '4' && c != '5' || i > 0 && !startsWord(text[i-1]) {
			continue
		}
		code, n := digits(text[i:], 4)
		if n == 3 && text[i+1] <= '5' && (i+3 == len(text) || strings.IndexByte(" -:;,\t\r\n)]'", text[i+3]) >= 0) {
			return code
		}
	}
	return 0
}

// maxText is how much of a text is looked at.
const maxText = 2048

// plainWords appends to out, up to its capacity, the words of a text in lower
// case, a blank between them. Addresses become a lone @, as they may contain any
// word; URLs and the codes that a reply of several lines repeats are left out.
func plainWords(out []byte, text string) (words []byte, named bool) {
	for len(text) > 0 {
		end := 0
		for end < len(text) && text[end] > ' ' {
			end++
		}
		word := text[:end]
		text = strings.TrimLeft(text[min(end+1, len(text)):], " \t\r\n")
		word = trimCodes(word)
		switch {
		case word == "" || strings.Contains(word, "://"):
			continue
		case strings.IndexByte(word, '@') >= 0:
			word, named = "@", true
		}
		if len(out)+1+len(word) > cap(out) {
			return out, named
		}
		if len(out) > 0 {
			out = append(out, ' ')
		}
		for i := range len(word) {
			c := word[i]
			if c >= 'A' && c <= 'Z' {
				c += 'a' - 'A'
			}
			out = append(out, c)
		}
	}
	return out, named
}

// trimCodes takes "550", "550-5.1.1" and "5.1.1" off the beginning of a word.
func trimCodes(word string) string {
	if code, n := digits(word, 4); n == 3 && code >= 200 && code < 600 && (len(word) == 3 || word[3] == '-') {
		word = word[min(4, len(word)):]
	}
	if _, n := parseStatus(word); n > 0 {
		word = word[n:]
	}
	return word
}
