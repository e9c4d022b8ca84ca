// Package smtp is the client side of an SMTP or LMTP session (RFC 5321,
// RFC 2033), made for sending one message to very many recipients.
//
// A session knows nothing of relays, batches or brokers. Its life:
//
//  1. [Dialer.Dial] connects, reads the greeting, says EHLO (HELO where that is
//     refused), starts TLS and authenticates as configured.
//  2. [Session.Send] sends one envelope and leaves one [Result] per recipient
//     in it. It opens the [Message] once the server has asked for it. It may be handed the next envelope while the first is ending, so
//     that both travel in one group (RFC 2920).
//  3. [Session.Usable] tells whether the session can take another envelope.
//  4. [Session.Close] says QUIT.
//
// What a reply means is decided in one place, the pure function classify.
//
// # Errors
//
// [Error] carries the code that Mail::Bulkmail::Server gave to the same
// trouble:
//
//	MBS001  a worthless server is not dialled: package relay, not here
//	MBS002  no socket to be had: too many open files
//	MBS003  could not connect, or the name does not resolve
//	MBS004  the server closed the connection without a greeting
//	MBS005  the greeting was 4xx or 5xx; LHLO was refused
//	MBS006  nothing to say: an envelope without recipients
//	MBS007  the connection broke while we wrote
//	MBS008  the server refuses to go on with 5xx, or speaks no SMTP
//	MBS009  the server closed the connection, or said 421
//	MBS010  no domain to say in EHLO
//	MBS011  EHLO and HELO were refused
//	MBS012  a command is deferred and tried again (talk_attempts); logged, no error
//	MBS013  4xx that means the server as a whole; logged when talk_attempts are used up
//	MBS014  no reply in time
//	MBS015  no connection or greeting in time
//	MBS016  EHLO was refused, HELO is tried; logged, no error
//	MBS017  Tries is missing
//	MBS018  the session is closed
//
// STARTTLS, TLS and AUTH are younger than that module: their errors have no
// such code.
package smtp

import "bulkmail/envelope"

// An Envelope is one transaction: one sender, one message, recipients.
type Envelope struct {
	From       string               // reverse-path without brackets; empty for the null sender
	Recipients []envelope.Recipient // their Mailbox is the forward-path without brackets
	Message    Message
	DSN        DSN

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
	Blame  Blame  // whom a refusal blames
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
