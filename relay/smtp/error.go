package smtp

import (
	"context"
	"errors"
	"io"
	"net"
	"os"
	"strconv"
	"strings"
	"time"
)

// Error is what went wrong with a session or a server as a whole.
type Error struct {
	MBS        string        // Mail::Bulkmail's code, "MBS003"; empty where it has none
	Command    string        // what was being said: CONNECT, EHLO, MAIL, ..., END; empty before that
	Reply      *Reply        // what the server said, if it did
	To         string        // the recipient whose RCPT it was said to; empty: it was said to something else, or to several
	Unwell     bool          // the server should be left alone for a while (parked); otherwise the session alone is dead
	Loud       bool          // an operator must act: credentials, TLS, configuration
	RetryAfter time.Duration // the server's hint; 0: none
	Err        error         // the cause underneath, if any
}

// Error is one line, Mail::Bulkmail's code last.
func (e *Error) Error() string {
	var b strings.Builder
	if e.Command != "" {
		b.WriteString(e.Command)
		b.WriteString(": ")
	}
	switch {
	case e.Reply != nil:
		b.WriteString("the server said ")
		b.WriteString(e.Reply.String())
	case e.Err != nil:
		b.WriteString(e.Err.Error())
	default:
		b.WriteString("the session is over")
	}
	if e.MBS != "" {
		b.WriteString(" (")
		b.WriteString(e.MBS)
		b.WriteByte(')')
	}
	return b.String()
}

// Unwrap gives the cause underneath.
func (e *Error) Unwrap() error { return e.Err }

// String is the reply in one line: code, enhanced code, text.
func (r *Reply) String() string {
	s := strconv.Itoa(r.Code)
	if r.Enhanced != "" {
		s += " " + r.Enhanced
	}
	if r.Text != "" {
		s += " " + r.Text
	}
	return s
}

// Causes that Error wraps. They say what happened, not what it means.
var (
	errStopped        = errors.New("stopped")
	errServerClosed   = errors.New("the server closed the connection")
	errNotAhead       = errors.New("Send was given another envelope than the one promised to follow")
	errSessionClosed  = errors.New("the session is closed: dial a new one")
	errNothingToSay   = errors.New("an envelope without recipients")
	errNoDomain       = errors.New("no domain to greet the server with: set domain")
	errNoTries        = errors.New("tries is below 1: set it to 1 or more")
	errPlainInjection = errors.New("the server sent more after its reply to STARTTLS in the clear: somebody may be meddling")
)

// gone makes an Error of a read or write that failed while c was being said.
func gone(c command, err error) *Error {
	e := &Error{Command: c.String(), Err: err, MBS: "MBS009"}
	switch {
	case errors.Is(err, errNoReply), errors.Is(err, errCodeChanged), errors.Is(err, errReplySize):
		e.MBS = "MBS008"
	case errors.Is(err, os.ErrDeadlineExceeded):
		e.MBS = "MBS014"
		e.Err = &explained{"no reply in time: see time_out", err}
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		e.Err = &explained{errServerClosed.Error(), err}
	case errors.Is(err, net.ErrClosed):
		e.MBS, e.Err = "MBS018", &explained{errSessionClosed.Error(), err}
	}
	return e
}

// stopped makes an Error of a cancelled context.
func stopped(ctx context.Context, c command) *Error {
	return &Error{Command: c.String(), Err: context.Cause(ctx)}
}

// explained puts a sentence for people in front of a cause for programs.
type explained struct {
	text  string
	cause error
}

func (e *explained) Error() string { return e.text }
func (e *explained) Unwrap() error { return e.cause }
