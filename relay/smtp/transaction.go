package smtp

import (
	"slices"
	"strconv"
	"strings"

	"bulkmail/envelope"
)

// taken is the status of a recipient whose RCPT the server accepted. It lives
// within a transaction only: settle replaces it on every way out.
const taken Status = 0xff

// A transaction is an envelope on its way.
type transaction struct {
	e     *Envelope
	end   int  // recipients beyond this wait for the next envelope (RFC 9422)
	said  int  // recipients before end that are said: all but those we refuse ourselves
	taken int  // those the server took and that have no verdict yet
	any   bool // the server took one at least
	lmtp  bool
	order []int // under LMTP those taken as the server took them, which is how it will answer
	utf8  bool  // SMTPUTF8 is needed
	rset  bool  // RSET goes first

	begun      bool // the group with MAIL, RCPT and DATA has left
	overlapped bool // it left with the end of the message before
	followed   bool // it was waiting when the one before ended

	tooMany int    // recipients refused with 452 or 552 for being too many
	roomFor int    // those taken before the first of them
	told    bool   // one of them with 4.5.3
	failure *Error // a reply to RCPT that says more about the server than about the recipient
	login   *Error // a reply to RCPT that wants us to log in
}

// accept marks recipient i as taken.
func (t *transaction) accept(i int) {
	t.e.Results[i] = Result{Status: taken}
	t.taken++
	t.any = true
	if t.lmtp {
		t.order = append(t.order, i)
	}
}

// left tells whether recipient i is still to be judged by its RCPT.
func (t *transaction) left(i int) bool { return t.e.Results[i].Reply == nil }

// judge gives the taken recipients a verdict.
func (t *transaction) judge(status Status, blame Blame, r *Reply) {
	if t.taken == 0 {
		return
	}
	for i := range t.e.Results {
		if t.e.Results[i].Status == taken {
			t.e.Results[i] = Result{status, blame, r}
		}
	}
	t.taken = 0
}

// judgeAll gives a verdict to all recipients that were said.
func (t *transaction) judgeAll(status Status, blame Blame, r *Reply) {
	for i := range t.end {
		if t.left(i) {
			t.e.Results[i] = Result{status, blame, r}
		}
	}
	t.taken = 0
}

// fail keeps the first failure.
func (t *transaction) fail(e *Error) {
	if t.failure == nil {
		t.failure = e
	}
}

// void takes back what was said of recipients where we and the server disagree on
// which reply belongs to which RCPT. What names its recipient stands.
func (t *transaction) void() {
	for i := range t.end {
		if r := t.e.Results[i].Reply; r == nil || !r.Local && !names(r, t.e.Recipients[i].Mailbox) {
			t.e.Results[i] = Result{}
		}
	}
	t.taken = 0
}

// shortOfReplies: a server that leaves us waiting may think that it has answered
// all; then one of the replies that we have belongs to somebody else.
func (t *transaction) shortOfReplies(e *Error) {
	if e.MBS == "MBS014" {
		t.void()
	}
}

// names tells whether a reply speaks of a recipient by name.
func names(r *Reply, to string) bool {
	return len(r.Text) > len(to) && strings.Contains(strings.ToLower(r.Text), "<"+strings.ToLower(to)+">")
}

// speaksOf tells whether a reply names somebody of the envelope.
func (t *transaction) speaksOf(r *Reply) bool {
	return strings.IndexByte(r.Text, '<') >= 0 && slices.ContainsFunc(t.e.Recipients, func(to envelope.Recipient) bool { return names(r, to.Mailbox) })
}

// wantsLogin keeps that the server wants us to log in before it takes recipient
// i. Whether that is so for everybody is known when all have been answered.
func (t *transaction) wantsLogin(i int, e *Error) {
	if t.login != nil {
		t.login.To = ""
		return
	}
	e.To = t.e.Recipients[i].Mailbox
	t.login = e
}

// mixUp: under LMTP the server said a reply too much or too little to the end of
// the data. Nobody knows whose is whose.
func (t *transaction) mixUp() {
	for _, i := range t.order {
		if r := t.e.Results[i].Reply; r == nil || !names(r, t.e.Recipients[i].Mailbox) {
			t.e.Results[i] = Result{Status: InDoubt, Reply: miscounted()}
		}
	}
}

// misplaced tells whether a refusal of recipient i names another one of the
// envelope.
func (t *transaction) misplaced(i int, r *Reply) bool {
	open := strings.IndexByte(r.Text, '<')
	if open < 0 {
		return false
	}
	named, _, ok := strings.Cut(r.Text[open+1:], ">")
	if !ok || strings.EqualFold(named, t.e.Recipients[i].Mailbox) {
		return false
	}
	return slices.ContainsFunc(t.e.Recipients, func(to envelope.Recipient) bool { return strings.EqualFold(to.Mailbox, named) })
}

// first is the first recipient that is said.
func (t *transaction) first() int {
	for i := range t.end {
		if r := t.e.Results[i].Reply; r == nil || !r.Local {
			return i
		}
	}
	return 0
}

// reopen takes back what judgeAll said.
func (t *transaction) reopen() {
	for i := range t.end {
		if r := t.e.Results[i].Reply; r != nil && !r.Local {
			t.e.Results[i] = Result{}
		}
	}
}

// reopenBlamed takes back refusals that blame the relay.
func (t *transaction) reopenBlamed() {
	for i := range t.e.Results {
		if r := &t.e.Results[i]; r.Blame == BlameRelay && r.Reply != nil && !r.Reply.Local {
			*r = Result{}
		}
	}
}

// settle leaves nothing half-way behind.
func (t *transaction) settle() { t.judge(NotAttempted, 0, nil) }

// judged tells whether the server gave anybody a verdict.
func (t *transaction) judged() bool {
	for i := range t.e.Results {
		if r := &t.e.Results[i]; r.Reply != nil && !r.Reply.Local && r.Status != InDoubt {
			return true
		}
	}
	return false
}

// appendGroup is the start of a transaction in one group (RFC 2920, 3.1).
func (s *Session) appendGroup(b []byte, t *transaction, data bool) []byte {
	if t.rset {
		b = append(b, "RSET\r\n"...)
	}
	b = s.appendMAIL(b, t)
	for i := range t.end {
		if t.left(i) {
			b = s.appendRCPT(b, t, i)
		}
	}
	if data {
		b = append(b, "DATA\r\n"...)
	}
	return b
}

func (s *Session) appendMAIL(b []byte, t *transaction) []byte {
	b = append(append(append(b, "MAIL FROM:<"...), t.e.From...), '>')
	if s.caps.SizeOffered {
		b = strconv.AppendInt(append(b, " SIZE="...), t.e.Message.Size(), 10)
	}
	if s.caps.EightBitMIME && (t.e.Message.EightBit() || t.e.Message.UTF8()) {
		b = append(b, " BODY=8BITMIME"...)
	}
	if t.utf8 {
		b = append(b, " SMTPUTF8"...)
	}
	if s.caps.DSN {
		b = t.e.DSN.appendMAIL(b)
	}
	return append(b, "\r\n"...)
}

func (s *Session) appendRCPT(b []byte, t *transaction, i int) []byte {
	to := t.e.Recipients[i].Mailbox
	b = append(append(append(b, "RCPT TO:<"...), to...), '>')
	if s.caps.DSN && t.e.DSN != (DSN{}) {
		b = t.e.DSN.appendRCPT(b, to, t.utf8)
	}
	return append(b, "\r\n"...)
}
