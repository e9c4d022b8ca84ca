package smtp_test

import (
	"context"
	"errors"
	"testing"

	"bulkmail/envelope"
	"bulkmail/relay/smtp"
)

// There is no way to the text of a message but Open: this is all that a session
// of somebody's own has.
func TestAMessageIsReadOnlyWithTheConsentOfItsGuard(t *testing.T) {
	t.Parallel()
	content := envelope.NewMessage("Subject: t\n\nhi\n")
	fenced := errors.New("somebody else has the batch")
	asked := 0
	m := smtp.Guarded(content, func(context.Context) error {
		if asked++; asked > 1 {
			return fenced
		}
		return nil
	})
	if m.Size() != content.Size() || asked != 0 {
		t.Errorf("size %d, the guard was asked %d times", m.Size(), asked)
	}
	if got, err := m.Open(t.Context()); err != nil || got != content {
		t.Errorf("%v, %v", got, err)
	}
	if got, err := m.Open(t.Context()); !errors.Is(err, fenced) || got != nil {
		t.Errorf("%v, %v", got, err)
	}
	if err := m.Ask(t.Context()); !errors.Is(err, fenced) {
		t.Error(err)
	}
	open := smtp.Guarded(content, nil)
	if got, err := open.Open(t.Context()); err != nil || got != content {
		t.Errorf("without a guard: %v, %v", got, err)
	}
}
