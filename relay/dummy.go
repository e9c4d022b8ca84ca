package relay

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"

	"bulkmail/envelope"
	"bulkmail/relay/smtp"
)

// Dummy is Mail::Bulkmail's DummyServer: it says to a file what would be said to
// a server, and accepts everything. Envelopes of sessions side by side do not
// mix in the file.
type Dummy struct {
	Path   string // opened for appending by each session; empty: nowhere
	Domain string // said in EHLO
}

// Dial opens the file and greets it.
func (d *Dummy) Dial(ctx context.Context) (Session, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	s := &dummySession{}
	if d.Path == "" {
		return s, nil
	}
	f, err := openAppend(d.Path)
	if err != nil {
		return nil, &smtp.Error{MBS: "MBS003", Command: "CONNECT", Loud: true, Err: err}
	}
	s.file = f
	if err := s.say("EHLO " + d.Domain + "\r\n"); err != nil {
		_ = f.Close()
		return nil, err
	}
	return s, nil
}

func openAppend(path string) (*os.File, error) {
	return os.OpenFile(path, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
}

type dummySession struct {
	file   *os.File // nil: nowhere
	broken bool
	buf    bytes.Buffer
}

var dummyReply = smtp.Reply{Code: 250, Enhanced: "2.0.0", Text: "written, not sent", Command: "END", Local: true}

// Send writes the transaction in one piece.
func (s *dummySession) Send(ctx context.Context, e *smtp.Envelope, _ func() *smtp.Envelope) error {
	e.Results = make([]smtp.Result, len(e.Recipients))
	err := ctx.Err()
	var message *envelope.Message
	if err == nil {
		message, err = e.Message.Open(ctx)
	}
	if _, ok := errors.AsType[*smtp.RefusedError](err); ok {
		return err
	}
	if err != nil {
		s.broken = true
		return &smtp.Error{Command: "END", Err: err}
	}
	if s.file != nil {
		s.buf.Reset()
		fmt.Fprintf(&s.buf, "MAIL FROM:<%s>\r\n", e.From)
		for i := range e.Recipients {
			fmt.Fprintf(&s.buf, "RCPT TO:<%s>\r\n", e.Recipients[i].Mailbox)
		}
		s.buf.WriteString("DATA\r\n")
		if message != nil {
			s.buf.Write(message.Wire())
		}
		s.buf.WriteString(".\r\n")
		if err := s.write(s.buf.Bytes()); err != nil {
			return err
		}
	}
	reply := dummyReply
	for i := range e.Results {
		e.Results[i] = smtp.Result{Status: smtp.Accepted, Reply: &reply}
	}
	return nil
}

func (s *dummySession) say(line string) error { return s.write([]byte(line)) }

func (s *dummySession) write(b []byte) error {
	if _, err := s.file.Write(b); err != nil {
		s.broken = true
		return &smtp.Error{MBS: "MBS007", Unwell: true, Loud: true, Err: err}
	}
	return nil
}

func (s *dummySession) Usable() bool       { return !s.broken }
func (s *dummySession) MaxRecipients() int { return 0 }

func (s *dummySession) Close() error {
	if s.file == nil {
		return nil
	}
	if !s.broken {
		_ = s.say("QUIT\r\n")
	}
	return s.file.Close()
}
