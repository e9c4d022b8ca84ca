package campaign

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"net/mail"
	"slices"
	"strings"
	"time"

	"bulkmail/envelope"
	"bulkmail/envelope/keys"
	"bulkmail/envelope/letter"
)

// Digest is the name of a message. It is made of its content.
func Digest(message string) string {
	sum := sha256.Sum256([]byte(message))
	return hex.EncodeToString(sum[:16])
}

// A Level says what a [Check] means for a publication.
type Level string

// The levels of a check.
const (
	LevelError   Level = "error"   // it is refused
	LevelWarning Level = "warning" // it is sent, and may do harm
	LevelNote    Level = "note"    // Publish puts it right
)

// A Check is something about a message that its author should know.
type Check struct {
	Rule  string `json:"rule"` // a short name
	Level Level  `json:"level"`
	Text  string `json:"text"` // what is wrong, and what to change or what is done about it
}

// A MessageError is a message that is not sent as it is.
type MessageError struct{ Checks []Check } // those of LevelError

// Error is one line.
func (e *MessageError) Error() string {
	texts := make([]string, len(e.Checks))
	for i, c := range e.Checks {
		texts[i] = c.Text
	}
	return strings.Join(texts, "; ")
}

// CheckMessage looks at a message to many as its receivers would. The error is an
// [*envelope.FieldError] where it cannot be sent at all.
func CheckMessage(message string) ([]Check, error) {
	t, err := compile(message, "")
	if err != nil {
		return nil, err
	}
	checks := checksOf(t, message)
	if p := placeholder(message); p != "" {
		checks = append(checks, Check{"placeholder", LevelWarning, p + " will be read as it stands by everybody: this is a message to many"})
	}
	return checks, nil
}

func checksOf(t *letter.Template, message string) []Check {
	var checks []Check
	add := func(rule string, level Level, text string) {
		checks = append(checks, Check{rule, level, text})
	}
	for _, p := range t.Problems() {
		add(ruleOf(p), LevelError, p.String())
	}
	if t.HasBcc() {
		add("bcc", LevelNote, "Bcc would be seen by everybody: it is taken out")
	}
	if !t.Has("subject") {
		add("subject", LevelWarning, "there is no Subject: add one")
	}
	if !t.Has("to") {
		add("to", LevelWarning, "there is no To field, which filters mind: add one, as To: Readers of the news <news@example.com>")
	}
	for _, field := range []string{"Date", "Message-ID", "MIME-Version"} {
		if !t.Has(strings.ToLower(field)) {
			add(strings.ToLower(field), LevelNote, "there is no "+field+": it is added")
		}
	}
	header, body := splitMessage(message)
	if strings.TrimSpace(body) == "" {
		add("body", LevelWarning, "there is no text after the header")
	}
	if date, found := dateOf(header); found {
		if _, err := mail.ParseDate(date); err != nil {
			add("date", LevelWarning, fmt.Sprintf("Date is no date (%q): leave it out, then the right one is added", date))
		}
	}
	return checks
}

// ruleOf is the rule that a problem breaks.
func ruleOf(p letter.Problem) string {
	switch {
	case strings.Contains(p.Reason, "encoded word"):
		return "encoded-words"
	case strings.Contains(p.Reason, "no From"):
		return "from"
	}
	return "one-of-each-field"
}

func compile(message, from string) (*letter.Template, error) {
	t, err := letter.Compile(message, letter.Options{Constant: true, Sender: from})
	if err != nil {
		return nil, &envelope.FieldError{Field: "message", Reason: err.Error()}
	}
	return t, nil
}

// splitMessage cuts a message behind its header.
func splitMessage(message string) (header, body string) {
	message = strings.ReplaceAll(message, "\r\n", "\n")
	header, body, _ = strings.Cut(message, "\n\n")
	return header, body
}

func dateOf(header string) (date string, found bool) {
	for line := range strings.SplitSeq(header, "\n") {
		if name, value, ok := strings.Cut(line, ":"); ok && strings.EqualFold(strings.TrimSpace(name), "date") {
			return strings.TrimSpace(value), true
		}
	}
	return "", false
}

// placeholder is the first {{name}} of a message; CSS and programs have braces
// too, but no names in them.
func placeholder(message string) string {
	for rest := message; ; {
		_, after, ok := strings.Cut(rest, "{{")
		if !ok {
			return ""
		}
		name, _, ok := strings.Cut(after, "}}")
		if ok && name != "" && len(name) < 60 && !strings.ContainsAny(name, "{}:;\r\n") {
			return "{{" + name + "}}"
		}
		rest = after
	}
}

// Refused is a [*MessageError] where a check says that the message is not to be
// sent.
func Refused(checks []Check) error {
	checks = slices.DeleteFunc(slices.Clone(checks), func(c Check) bool { return c.Level != LevelError })
	if len(checks) == 0 {
		return nil
	}
	return &MessageError{checks}
}

// finished is a message as it is put into the store or into batches: without Bcc,
// with Date, Message-ID and MIME-Version, and without lines that relays would cut.
// A message that lacks nothing stays as it is, to the octet.
//
// The same message in the same campaign on the same date is the same again, so that
// batches of it are.
func (p *Publication) finished(date time.Time) (string, error) {
	t, err := compile(p.Message, p.From)
	if err != nil {
		return "", err
	}
	digest, key := Digest(p.Message), p.Key
	// Whoever gets the message twice has the same Message-ID twice. It may be made
	// of nothing secret: all recipients see the same.
	if key == nil {
		sum := sha256.Sum256([]byte(p.Campaign + "\x00" + digest))
		if key, err = keys.New("publish", hex.EncodeToString(sum[:])); err != nil {
			return "", err
		}
	}
	var r letter.Renderer
	l, err := r.Render(t, &letter.Batch{Campaign: p.Campaign, Date: date, Key: key}, &letter.Recipient{To: digest}, false)
	if err != nil {
		return "", &envelope.FieldError{Field: "message", Reason: err.Error()}
	}
	if string(envelope.NewMessage(p.Message).Wire()) == string(l.Wire) {
		return p.Message, nil
	}
	return unstuffed(string(l.Wire)), nil
}

// unstuffed takes the dots off that lines have on the wire alone.
func unstuffed(wire string) string {
	return strings.TrimPrefix(strings.ReplaceAll("\r\n"+wire, "\r\n.", "\r\n"), "\r\n")
}
