package smtp

import (
	"context"

	"bulkmail/envelope"
)

// A Message is the message of an envelope behind a guard, which says whether it
// may still be sent: another worker may have taken over the batch meanwhile, or
// the campaign may have been paused. There is no way to the text but [Message.Open],
// so that no session can send a message without having asked.
//
// It is there from the beginning ([Guarded]), or it is made when a session is
// about to begin with its envelope ([Made]).
type Message struct {
	content *envelope.Message // nil: not made yet
	source  Source
	guard   func(context.Context) error
}

// A Source makes the message of one envelope, in the goroutine of the session
// that sends it: what takes long holds up nobody else.
type Source interface {
	// Make makes the message; sevenBit: for a server without 8BITMIME. What cannot
	// be made is a reply in the server's place, the verdict on the recipients of
	// the envelope: rejected with 5xx, deferred with 4xx. The message must not
	// change until the envelope is settled.
	Make(sevenBit bool) (*envelope.Message, *Reply)
}

// A RefusedError is a message that could not be made. Nothing is wrong with the
// server.
type RefusedError struct{ Reply *Reply }

func (e *RefusedError) Error() string { return "the message cannot be made: " + e.Reply.Text }

// Guarded puts a message behind a guard; nil: it may always be sent. The guard is
// called by the session's goroutines and may be called several times.
func Guarded(m *envelope.Message, guard func(context.Context) error) Message {
	return Message{content: m, guard: guard}
}

// Made is [Guarded] for a message that is to be made.
func Made(s Source, guard func(context.Context) error) Message {
	return Message{source: s, guard: guard}
}

// Source is what makes the message; nil: it was there from the beginning.
func (m *Message) Source() Source { return m.source }

// Prepare makes the message, unless it is there. A session calls it before it says
// MAIL, for what the message needs of the server is known only then. A reply is
// what [Source] says of it: the verdict on all recipients of the envelope, of
// which the server hears nothing.
func (m *Message) Prepare(sevenBit bool) *Reply {
	if m.content != nil || m.source == nil {
		return nil
	}
	var no *Reply
	m.content, no = m.source.Make(sevenBit)
	return no
}

// Open asks the guard and returns the message. A session calls it as late as it
// can: over SMTP when the server has asked for the message (354). After an error
// it must not let the server take the message, and no recipient was attempted,
// unless the error is a [*RefusedError] of a message that was not prepared.
func (m *Message) Open(ctx context.Context) (*envelope.Message, error) {
	if no := m.Prepare(false); no != nil {
		return nil, &RefusedError{no}
	}
	if err := m.Ask(ctx); err != nil {
		return nil, err
	}
	return m.content, nil
}

// Ask asks the guard again. A session whose message takes long to leave does so
// before the last octet, without which no server takes the message.
func (m *Message) Ask(ctx context.Context) error {
	if m.guard == nil {
		return nil
	}
	return m.guard(ctx)
}

// What a message asks of a server is known once it is there.

// Size is the number of octets that MAIL announces (RFC 1870).
func (m *Message) Size() int64 { return m.content.Size() }

// EightBit tells whether the message needs 8BITMIME (RFC 6152).
func (m *Message) EightBit() bool { return m.content.EightBit() }

// UTF8 tells whether the header of the message needs SMTPUTF8 (RFC 6531).
func (m *Message) UTF8() bool { return m.content.UTF8() }
