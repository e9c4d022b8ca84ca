package smtp

import (
	"regexp"
	"strconv"
	"strings"
	"time"
)

// A meaning is what follows from a reply.
type meaning uint8

const (
	goOn              meaning = iota // the command succeeded
	recipientDeferred                // 4xx for one recipient
	recipientRejected                // 5xx for one recipient
	tooMany                          // not this recipient's fault: it belongs in the next envelope
	envelopeDeferred                 // 4xx for all recipients the transaction still has
	envelopeRejected                 // 5xx for the same
	relayUnwell                      // leave the server alone for a while, nobody was judged
	sessionOver                      // the server is well but has had enough of this session
	outOfStep                        // we and the server disagree on where we are; nobody was judged
	unknowable                       // to the end of the data: no verdict can be read from it
)

// A verdict is a meaning with what belongs to it.
type verdict struct {
	meaning    meaning
	blame      Blame         // with recipient… and envelope…
	loud       bool          // with relayUnwell: an operator must act
	retryAfter time.Duration // with relayUnwell: the server's hint
}

// circumstances are what a reply must be read in the light of.
type circumstances struct {
	overlapped bool // the command travelled with, or right behind, the end of the message before
	taken      int  // recipients of this transaction the server has taken so far
}

// classify says what a reply means and, by [blamed], whom it blames. It is a pure
// function and the only place that decides; its table is in the package's test
// and reads, in short:
//
//	reply                                       to            means
//	2xx                                         all but DATA  go on
//	354                                         DATA          go on
//	421 with "timeout", "too many errors", "too
//	    many messages in this connection"       any           session over
//	421 otherwise                               any           relay unwell
//	521, 530, 534, 535, 538; 5xx that ask
//	    for authentication                      all but RCPT  relay unwell, loud
//	4xx                                         before MAIL   relay unwell
//	5xx                                         before MAIL   relay unwell, loud
//	500, 502, 503; 5xx that speak of
//	    synchronization or pipelining           MAIL DATA END out of step
//	5.5.1                                       MAIL DATA     out of step
//	x.1 and x.2 but of a sender                 MAIL DATA     out of step
//	551, 553, 550 bare                          DATA          out of step
//	502, 503; 500, 554 as above                 RCPT          out of step
//	4xx with 4.3.1, 4.3.2, 4.3.5; 452 bare      MAIL DATA END relay unwell (full, stopped, misconfigured)
//	450, 451, 452, 454 that speak of a rate     MAIL DATA END relay unwell
//	452, 552 but mailbox, size or policy        RCPT          too many if one was taken before, else deferred
//	other 4xx, 5xx                              RCPT          recipient deferred, rejected
//	other 4xx, 5xx                              MAIL DATA END envelope deferred, rejected
//	anything else                               END           unknowable: in doubt
//	anything else                               others        out of step
//
// The code is trusted over the enhanced code where the two disagree.
func classify(c command, r *Reply, in circumstances) verdict {
	switch class := r.Code / 100; class {
	case 2:
		if c == cmdDATA {
			return verdict{meaning: outOfStep}
		}
		return verdict{meaning: goOn}
	case 3:
		if c == cmdDATA && r.Code == 354 || c == cmdAuth && r.Code == 334 {
			return verdict{meaning: goOn}
		}
	case 4, 5:
		return classifyRefusal(c, r, in)
	}
	if c == cmdEnd {
		return verdict{meaning: unknowable}
	}
	return verdict{meaning: outOfStep}
}

func classifyRefusal(c command, r *Reply, in circumstances) verdict {
	text := strings.ToLower(r.Text)
	unwell := verdict{meaning: relayUnwell, retryAfter: retryHint(text)}
	loud := unwell
	loud.loud = true

	switch {
	case r.Code == 421:
		if subject(r) == "4.2" || contains(text, "timeout", "timed out", "idle") || speaksOfErrors(text) || speaksOfSession(text) {
			return verdict{meaning: sessionOver}
		}
		return unwell
	case r.Code == 521, c != cmdRCPT && wantsLogin(r, text):
		return loud
	}

	switch c {
	case cmdRCPT:
		return classifyRCPT(r, text, in)
	case cmdMAIL, cmdDATA, cmdEnd:
		return classifyEnvelope(c, r, text, unwell)
	case cmdRSET:
		return verdict{meaning: outOfStep}
	}
	if r.Code < 500 {
		return unwell
	}
	return loud
}

func classifyRCPT(r *Reply, text string, in circumstances) verdict {
	switch r.Code {
	case 502, 503:
		return verdict{meaning: outOfStep}
	case 500, 554:
		if disordered(text) {
			return verdict{meaning: outOfStep}
		}
	case 452, 552:
		switch s := subject(r); {
		case strings.HasPrefix(s, "2."), s == "3.4", strings.HasPrefix(s, "7."):
			// The mailbox is full, the message too large, a policy:
			// this recipient's own affair.
		case in.taken > 0:
			return verdict{meaning: tooMany}
		default:
			// RFC 5321, 4.5.3.1.10: 552 is to be treated as 452. As
			// the first of an envelope it must be a verdict, or the
			// recipient would go round for ever.
			return verdict{meaning: recipientDeferred}
		}
	}
	v := verdict{meaning: recipientRejected, blame: blamed(cmdRCPT, r, text), loud: wantsLogin(r, text)}
	if r.Code < 500 {
		v.meaning = recipientDeferred
	}
	return v
}

func classifyEnvelope(c command, r *Reply, text string, unwell verdict) verdict {
	s := subject(r)
	switch {
	case r.Code == 500, r.Code == 502, r.Code == 503,
		r.Code >= 500 && disordered(text),
		c != cmdEnd && r.Code >= 500 && s == "5.1",
		c == cmdDATA && saidToRCPT(r),
		c == cmdMAIL && addressed(r):
		return verdict{meaning: outOfStep}
	case r.Code >= 500:
		return verdict{meaning: envelopeRejected, blame: blamed(c, r, text)}
	case speaksOfSession(text):
		return verdict{meaning: sessionOver}
	case s == "3.1", s == "3.2", s == "3.5", r.Code == 452 && s == "":
		return unwell
	case (r.Code == 450 || r.Code == 451 || r.Code == 452 || r.Code == 454) && speaksOfRate(text):
		return unwell
	}
	return verdict{meaning: envelopeDeferred, blame: blamed(c, r, text)}
}

// saidToRCPT: a server that answers once too often answers DATA with what it had
// to say to the last RCPT.
func saidToRCPT(r *Reply) bool {
	return r.Code == 551 || r.Code == 553 || r.Code == 550 && subject(r) == "" || addressed(r)
}

// addressed: RFC 3463, 3.2 and 3.3: it is about the address or the mailbox of a
// recipient.
func addressed(r *Reply) bool {
	s := subject(r)
	return (strings.HasPrefix(s, "1.") || strings.HasPrefix(s, "2.")) && !ofSender(s)
}

// subject is the enhanced code without its class, "3.1", or empty where there
// is none or its class is another than the code's.
func subject(r *Reply) string {
	class, rest, ok := strings.Cut(r.Enhanced, ".")
	if !ok || class != strconv.Itoa(r.Code/100) {
		return ""
	}
	return rest
}

// Throttles tells whether the reply says that we send too much or too fast.
func (r *Reply) Throttles() bool { return speaksOfRate(strings.ToLower(r.Text)) }

func speaksOfRate(text string) bool {
	return contains(text, "throttl", "rate limit", "ratelimit", "sending rate", "rate exceeded", "rate is too",
		"too fast", "too quickly", "too much mail", "too many messages", "too many mails", "too many connections",
		"too many requests", "too many concurrent", "sending quota", "message quota", "slow down")
}

// speaksOfSession: a limit on this connection, which a new one does not have.
func speaksOfSession(text string) bool {
	return contains(text, "connection", "session") &&
		contains(text, "too many", "limit", "maximum", "max ") &&
		contains(text, "message", "mail", "transaction") &&
		!contains(text, "too many connections", "connections from", "connection rate", "concurrent", "simultaneous")
}

// disordered: what Exim and OpenSMTPD say to commands that came too early.
func disordered(text string) bool { return contains(text, "synchroni", "pipelining not") }

// speaksOfErrors: what servers say after so many refused recipients in one
// session (Postfix' smtpd_hard_error_limit). A list with bad addresses in it is
// no illness of the relay.
func speaksOfErrors(text string) bool {
	return contains(text, "too many errors", "too many bad", "too many syntax", "too many nonmail",
		"too many unrecognized", "too many invalid", "too many unknown")
}

func asksForAuth(text string) bool {
	return contains(text, "authentication required", "authentication is required", "must authenticate",
		"authenticate first", "auth first", "not authenticated", "authentication needed", "requires authentication", "unauthenticated senders")
}

func contains(text string, words ...string) bool {
	for _, w := range words {
		if strings.Contains(text, w) {
			return true
		}
	}
	return false
}

var hint = regexp.MustCompile(`(?:again|retry|wait)[^.;0-9]{0,40}?([0-9]{1,7}) ?(s|sec|second|m|min|minute|h|hour)s?\b`)

// retryHint reads "try again in 5 minutes" and its relatives off the lower-case
// text of a reply; 0: none.
func retryHint(text string) time.Duration {
	m := hint.FindStringSubmatch(text)
	if m == nil {
		return 0
	}
	n, err := strconv.Atoi(m[1])
	if err != nil {
		return 0
	}
	unit := time.Second
	switch m[2][0] {
	case 'm':
		unit = time.Minute
	case 'h':
		unit = time.Hour
	}
	// More than a day is no hint but a mistake or a joke.
	return min(time.Duration(n)*unit, 24*time.Hour)
}
