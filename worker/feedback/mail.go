package feedback

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/mail"
	"strings"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"bulkmail/envelope"
	"bulkmail/envelope/bounce"
	"bulkmail/envelope/keys"
	"bulkmail/envelope/returnpath"
	"bulkmail/subjects"
	"bulkmail/worker/journal"
)

// mailBytes is how much of a mail is looked at; a report is in its beginning.
const mailBytes = 1 << 20

// A Verdict is what a mail was.
type Verdict string

// The verdicts.
const (
	Taken    Verdict = "taken"     // a report about a message of ours
	NotOurs  Verdict = "not_ours"  // no return path of ours is in it
	NoReport Verdict = "no_report" // an automatic reply, a person, spam
	TooOld   Verdict = "too_old"   // the outcomes of its batch are gone, so nobody knows what it is about
)

// mails reads mail that came to the return path.
type mails struct {
	recorder *recorder
	ring     *ring
	path     returnpath.Path
	log      *slog.Logger
}

// take reads one mail and stores what it says. Source is how it came.
func (m *mails) take(ctx context.Context, r io.Reader, source string) (Verdict, error) {
	text, err := io.ReadAll(io.LimitReader(r, mailBytes))
	if err != nil {
		return "", err
	}
	ring, err := m.ring.read()
	if err != nil {
		return "", err
	}
	if len(ring) == 0 {
		return "", errAway // the keys are there
	}
	report := bounce.Parse(text)
	opened, ok := m.token(ring, text, &report)
	if !ok {
		return NotOurs, nil
	}
	about, err := m.find(ctx, &opened)
	if err != nil || about == nil {
		return TooOld, err
	}
	verdict := NoReport
	for i := range report.Recipients {
		o, ok := about.occurrence(&report.Recipients[i], len(report.Recipients) == 1)
		if !ok {
			continue
		}
		o.Source = source
		m.recorder.decide(&o)
		if err := m.recorder.store(ctx, o); err != nil {
			return "", err
		}
		verdict = Taken
	}
	return verdict, nil
}

// token finds the return path that a mail came to: in the fields that say where it
// was delivered, else in the message that it returns.
func (m *mails) token(ring keys.Keys, text []byte, report *bounce.Report) (returnpath.Opened, bool) {
	derived := make([][]byte, len(ring))
	for i, k := range ring {
		derived[i] = k.Derive(returnpath.Purpose)
	}
	opener, err := returnpath.NewKeys(derived...)
	if err != nil {
		return returnpath.Opened{}, false
	}
	var candidates []string
	if head, err := mail.ReadMessage(bytes.NewReader(text)); err == nil {
		for _, field := range []string{"Delivered-To", "X-Original-To", "Envelope-To", "X-Envelope-To", "To", "Cc"} {
			for _, value := range head.Header[field] {
				candidates = append(candidates, strings.FieldsFunc(value, func(r rune) bool { return strings.ContainsRune(" \t\r\n<>,;\"", r) })...)
			}
		}
	}
	for _, address := range append(candidates, strings.Trim(report.ReturnPath, "<> ")) {
		token, ok := m.path.Token(address)
		if !ok {
			continue
		}
		if opened, err := opener.Open(strings.ToLower(token)); err == nil {
			return opened, true
		}
	}
	return returnpath.Opened{}, false
}

// A subject is the batch that a mail is about, and its recipients.
type subject struct {
	campaign, batch string
	token           *returnpath.Opened
	mailboxes       map[string]string // as the journal has them, by how they are compared
	one             string            // whom the token is about; empty: the mail says it
}

// find reads the journal of the batch that a token stands for. Nil: it is gone.
func (m *mails) find(ctx context.Context, token *returnpath.Opened) (*subject, error) {
	ctx, cancel := context.WithTimeout(ctx, storeTimeout)
	defer cancel()
	j, err := journal.New(ctx, m.recorder.js, m.recorder.names, "feedback")
	if err != nil {
		return nil, fmt.Errorf("%w: %w", errAway, err)
	}
	claim, err := j.Subject(ctx, token.Sequence)
	if errors.Is(err, jetstream.ErrMsgNotFound) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("%w: %w", errAway, err)
	}
	s := &subject{token: token, mailboxes: make(map[string]string)}
	s.campaign, s.batch = m.recorder.names.Campaign(claim)
	known, err := j.Read(ctx, s.campaign, s.batch)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", errAway, err)
	}
	for name := range known.Results {
		a, err := envelope.ParseAddress(name)
		if err != nil {
			continue
		}
		s.mailboxes[strings.ToLower(a.Mailbox)] = a.Mailbox
		if token.Is(a.Mailbox) {
			s.one = a.Mailbox
		}
	}
	return s, nil
}

// occurrence is what a report says of one recipient of the batch. A mail that names
// somebody else, who had no letter of it, says nothing: it may be made up.
func (s *subject) occurrence(r *bounce.Recipient, only bool) (o occurrence, ok bool) {
	recipient := ""
	for _, address := range []string{r.Address, r.Final} {
		if a, err := envelope.ParseAddress(address); err == nil && recipient == "" {
			recipient = s.mailboxes[strings.ToLower(a.Mailbox)]
		}
	}
	switch {
	case s.one != "" && (recipient == "" && only || strings.EqualFold(recipient, s.one)):
		recipient = s.one // a report may know but where it was forwarded to
	case !s.token.Batch || recipient == "":
		return o, false
	}
	kind := subjects.FeedbackKind(r.Kind)
	switch r.Kind {
	case bounce.Bounced, bounce.Delayed, bounce.Delivered, bounce.Complained, bounce.Unsubscribed:
	default:
		return o, false
	}
	o.FeedbackEvent = subjects.FeedbackEvent{
		ID:   eventID(kind, s.campaign, s.batch, strings.ToLower(recipient)),
		Time: time.Now().UTC().Truncate(time.Millisecond), Kind: kind, Campaign: s.campaign, Batch: s.batch, Recipient: recipient,
		Hard: r.Hard, Reason: string(r.Reason), Enhanced: r.Enhanced, Code: r.Code, Text: shortened(r.Text), Remote: r.Remote,
	}
	return o, true
}

// textBytes is how much of what a server said is kept.
const textBytes = 500

func shortened(s string) string {
	return strings.ToValidUTF8(s[:min(len(s), textBytes)], "")
}
