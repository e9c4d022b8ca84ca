package smtp

import (
	"context"

	"bulkmail/envelope"
)

// A Message is the message of an envelope behind a guard, which says whether it
// may still be sent: another worker may have taken over the batch meanwhile, or
// the campaign may have been paused. There is no way to the text but [Message.Open],
// so that no session can send a message without having asked.
type Message struct {
	content *envelope.Message
	guard   func(context.Context) error
}

// Guarded puts a message behind a guard; nil: it may always be sent. The guard is
// called by the session's goroutines and may be called several times.
func Guarded(m *envelope.Message, guard func(context.Context) error) Message {
	return Message{content: m, guard: guard}
}

// Open asks the guard and returns the message. A session calls it as late as it
// can: over SMTP when the server has asked for the message (354). After an error
// it must not let the server take the message, and no recipient was attempted.
func (m Message) Open(ctx context.Context) (*envelope.Message, error) {
	if err := m.Ask(ctx); err != nil {
		return nil, err
	}
	return m.content, nil
}

// Ask asks the guard again. A session whose message takes long to leave does so
// before the last octet, without which no server takes the message.
func (m Message) Ask(ctx context.Context) error {
	if m.guard == nil {
		return nil
	}
	return m.guard(ctx)
}

// Size is the number of octets that MAIL announces (RFC 1870).
func (m Message) Size() int64 { return m.content.Size() }

// EightBit tells whether the message needs 8BITMIME (RFC 6152).
func (m Message) EightBit() bool { return m.content.EightBit() }

// UTF8 tells whether the header of the message needs SMTPUTF8 (RFC 6531).
func (m Message) UTF8() bool { return m.content.UTF8() }
