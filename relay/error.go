package relay

import (
	"errors"
	"fmt"

	"bulkmail/relay/smtp"
)

// Error is what went wrong with a relay as a whole. What a relay said about
// single recipients is no error but their result.
//
// MBS is the code that Mail::Bulkmail::Server gives the same mishap:
//
//	MBS001  cannot connect to worthless servers
//	MBS002  could not make socket
//	MBS003  could not connect to server
//	MBS004  no response from server
//	MBS005  server won't say HELO
//	MBS006  cannot talk w/o speech (cannot happen here)
//	MBS007  cannot talk to server
//	MBS008  server won't respond to speech
//	MBS009  server disconnected
//	MBS010  can't greet server w/o domain
//	MBS011  server gave an error for EHLO
//	MBS012  temporarily won't respond to speech...re-trying
//	MBS013  could never resolve temporary error
//	MBS014  timed out waiting for response
//	MBS015  timed out waiting for response upon connect
//	MBS016  server didn't respond to EHLO, trying HELO (never an error by itself)
//	MBS017  cannot connect to server, no Tries parameter
//	MBS018  No file descriptor (a relay that was closed)
type Error struct {
	Relay    string // its name; empty when it is about all relays
	MBS      string // empty where Mail::Bulkmail has no code
	Code     int    // of the SMTP reply; 0: there was none
	Enhanced string // of the SMTP reply (RFC 3463)
	Common   bool   // another session of the relay broke after this one was opened: it was not the envelope that broke it
	Err      error
}

func (e *Error) Error() string {
	if e.Relay == "" {
		return e.Err.Error()
	}
	// What the session says names its own code already.
	if s, ok := errors.AsType[*smtp.Error](e.Err); e.MBS == "" || ok && s.MBS == e.MBS {
		return fmt.Sprintf("relay %s: %v", e.Relay, e.Err)
	}
	return fmt.Sprintf("relay %s: %s: %v", e.Relay, e.MBS, e.Err)
}

// Unwrap returns what happened underneath.
func (e *Error) Unwrap() error { return e.Err }

// fail makes err the *Error of the relay of that name, and finds what the
// session said. An error that is no [smtp.Error] is a lost connection.
func fail(name string, err error, dialing bool) (*Error, *smtp.Error) {
	said := saidBy(err)
	if said.Err == err { //nolint:errorlint // the very one: it was no smtp.Error
		if dialing {
			said.MBS = "MBS003"
		}
		err = said
	}
	e := &Error{Relay: name, MBS: said.MBS, Err: err}
	if said.Reply != nil && !said.Reply.Local {
		e.Code, e.Enhanced = said.Reply.Code, said.Reply.Enhanced
	}
	return e, said
}

// saidBy is what a session said went wrong. An error that is no [smtp.Error] is a
// lost connection.
func saidBy(err error) *smtp.Error {
	if said, ok := errors.AsType[*smtp.Error](err); ok {
		return said
	}
	return &smtp.Error{MBS: "MBS009", Err: err}
}
