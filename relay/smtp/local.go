package smtp

import (
	"fmt"
	"slices"
	"strings"

	"bulkmail/envelope"
)

// maxPath bounds a mailbox so that its command fits a line of 512 octets
// (RFC 5321, 4.5.3.1) with every parameter we may add but ORCPT.
const maxPath = 320

// What we say in the server's place.

func badRecipient() *Reply {
	return &Reply{Code: 553, Enhanced: "5.1.3", Text: "not an address that can be sent to", Command: "RCPT", Local: true}
}

func badSender() *Reply {
	return &Reply{Code: 553, Enhanced: "5.1.7", Text: "the sender is not an address that can be sent from", Command: "MAIL", Local: true}
}

func badDSN() *Reply {
	return &Reply{Code: 501, Enhanced: "5.5.4", Text: "the DSN parameters make no sense", Command: "MAIL", Local: true}
}

func tooLarge(size, limit int64) *Reply {
	return &Reply{Code: 552, Enhanced: "5.3.4", Command: "MAIL", Local: true,
		Text: fmt.Sprintf("the message has %d octets, the server takes %d", size, limit)}
}

func needs8Bit() *Reply {
	return &Reply{Code: 554, Enhanced: "5.6.3", Command: "MAIL", Local: true,
		Text: "the message has 8-bit lines, the server does not offer 8BITMIME"}
}

func needsUTF8() *Reply {
	return &Reply{Code: 550, Enhanced: "5.6.7", Command: "MAIL", Local: true,
		Text: "the header or the sender is not ASCII, the server does not offer SMTPUTF8"}
}

func needsUTF8To() *Reply {
	return &Reply{Code: 553, Enhanced: "5.6.7", Command: "RCPT", Local: true,
		Text: "the address is not ASCII, the server does not offer SMTPUTF8"}
}

func lostAtEnd() *Reply {
	return &Reply{Code: 451, Enhanced: "4.4.2", Command: "END", Local: true,
		Text: "the connection was lost before the reply to the end of the data"}
}

func miscounted() *Reply {
	return &Reply{Code: 451, Enhanced: "4.5.0", Command: "END", Local: true,
		Text: "the server's replies to the end of the data are not as many as the recipients"}
}

// prepare makes t the transaction of e: fresh results, and what can be refused
// without asking the server is.
func (s *Session) prepare(t *transaction, e *Envelope) {
	*t = transaction{e: e, end: len(e.Recipients), rset: s.dirty, lmtp: s.d.LMTP, order: t.order[:0]}
	if cap(e.Results) >= len(e.Recipients) {
		e.Results = e.Results[:len(e.Recipients)]
		clear(e.Results)
	} else {
		e.Results = make([]Result, len(e.Recipients))
	}
	status, blame := Rejected, BlameRecipient
	r := e.Message.Prepare(!s.caps.EightBitMIME)
	if r == nil {
		r, blame = s.refuseEnvelope(e, t)
	} else if r.Code < 500 {
		status = Deferred
	}
	if r != nil {
		for i := range e.Results {
			e.Results[i] = Result{status, blame, r}
		}
		t.end = 0
		return
	}
	if n := s.caps.MaxRecipients; n > 0 && n < t.end {
		t.end = n
	}
	if n := s.caps.MaxDomains; n > 0 {
		t.end = min(t.end, withinDomains(e.Recipients[:t.end], n))
	}
	t.said = t.end
	for i := range e.Recipients[:t.end] {
		to := e.Recipients[i].Mailbox
		ok, ascii := sayable(to)
		switch {
		case !ok || to == "":
			e.Results[i] = Result{Rejected, BlameRecipient, badRecipient()}
			t.said--
		case ascii:
		case s.caps.SMTPUTF8:
			t.utf8 = true
		default:
			e.Results[i] = Result{Rejected, BlameRelay, needsUTF8To()}
			t.said--
		}
	}
}

// refuseEnvelope says what is wrong with e whoever its recipients are: nobody
// can send it, or this server does not offer what it needs.
func (s *Session) refuseEnvelope(e *Envelope, t *transaction) (*Reply, Blame) {
	ok, ascii := sayable(e.From)
	t.utf8 = !ascii || e.Message.UTF8()
	switch {
	case !ok:
		return badSender(), BlameEnvelope
	case !e.DSN.valid():
		return badDSN(), BlameEnvelope
	case s.caps.Size > 0 && e.Message.Size() > s.caps.Size:
		return tooLarge(e.Message.Size(), s.caps.Size), BlameRelay
	case t.utf8 && !s.caps.SMTPUTF8:
		return needsUTF8(), BlameRelay
	case e.Message.EightBit() && !s.caps.EightBitMIME:
		return needs8Bit(), BlameRelay
	}
	return nil, 0
}

// sayable tells whether a path can stand between angle brackets without
// becoming something else: a second parameter, a second command.
func sayable(path string) (ok, ascii bool) {
	if len(path) > maxPath {
		return false, true
	}
	ascii = true
	quoted := false
	for i := 0; i < len(path); i++ {
		switch c := path[i]; {
		case c < ' ' || c == 0x7f:
			return false, ascii
		case c >= 0x80:
			ascii = false
		case c == '"':
			quoted = !quoted
		case quoted && c == '\\':
			i++
			if i == len(path) || path[i] < ' ' || path[i] >= 0x7f {
				return false, ascii
			}
		case !quoted && (c == ' ' || c == '<' || c == '>'):
			return false, ascii
		}
	}
	return !quoted, ascii
}

// withinDomains is how many recipients from the front have at most n domains.
func withinDomains(recipients []envelope.Recipient, n int) int {
	var seen []string
	for i := range recipients {
		to := recipients[i].Mailbox
		domain := strings.ToLower(to[strings.LastIndexByte(to, '@')+1:])
		if slices.Contains(seen, domain) {
			continue
		}
		if len(seen) == n {
			return i
		}
		seen = append(seen, domain)
	}
	return len(recipients)
}
