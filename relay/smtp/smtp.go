// Package smtp is the client side of an SMTP or LMTP session (RFC 5321,
// RFC 2033), made for sending one message to very many recipients.
//
// A session knows nothing of relays, batches or brokers. Its life:
//
//  1. [Dialer.Dial] connects, reads the greeting, says EHLO (HELO where that is
//     refused), starts TLS and authenticates as configured.
//  2. [Session.Send] sends one envelope and leaves one [Result] per recipient
//     in it. It may be handed the next envelope while the first is ending, so
//     that both travel in one group (RFC 2920).
//  3. [Session.Usable] tells whether the session can take another envelope.
//  4. [Session.Close] says QUIT.
package smtp

import (
	"context"

	"bulkmail/envelope"
)

// An Envelope is one transaction: one sender, one message, recipients.
type Envelope struct {
	From       string   // reverse-path without brackets; empty for the null sender
	Recipients []string // forward-paths without brackets, as said in RCPT TO
	Message    *envelope.Message
	DSN        DSN

	// BeforeEnd, if not nil, is called once the server has asked for the
	// message (354) and before the last byte of it leaves. An error keeps the
	// message from being sent: the session closes the connection without
	// ending the data, and no recipient was attempted.
	BeforeEnd func(context.Context) error

	// Results has the length of Recipients; Send overwrites it.
	Results []Result
}

// Status says what became of one recipient.
type Status uint8

const (
	NotAttempted Status = iota // no verdict on the recipient: it may be sent again at once, here or elsewhere
	Accepted                   // the server took responsibility for it
	Deferred                   // 4xx for this recipient
	Rejected                   // 5xx for this recipient
	InDoubt                    // the connection was lost between the end of the data and the reply (RFC 1047)
)

// A Result is what became of one recipient. Recipients with the same reply
// share it.
type Result struct {
	Status Status
	Reply  *Reply // nil when NotAttempted
}

// A Reply is what the server said, or what we say in its place when the
// conversation broke off (then Local is true).
type Reply struct {
	Code     int    // 250, 451, ...
	Enhanced string // "4.2.0" (RFC 3463); empty when the server sent none
	Text     string // without codes, lines joined by a blank
	Command  string // the command it answers: CONNECT, EHLO, MAIL, RCPT, DATA, END, ...
	Local    bool
}
