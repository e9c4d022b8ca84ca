package sink

import (
	"bytes"
	"crypto/sha256"
	"crypto/subtle"
	"crypto/tls"
	"io"
	"sync"

	"github.com/emersion/go-sasl"
	gosmtp "github.com/emersion/go-smtp"
)

// Replies that go-smtp lacks or words otherwise than the servers of the world.
var (
	errClosing  = &gosmtp.SMTPError{Code: 421, EnhancedCode: gosmtp.EnhancedCode{4, 3, 2}, Message: "Sink is closing"}
	errTooMany  = &gosmtp.SMTPError{Code: 452, EnhancedCode: gosmtp.EnhancedCode{4, 5, 3}, Message: "Too many recipients"}
	errNested   = &gosmtp.SMTPError{Code: 503, EnhancedCode: gosmtp.EnhancedCode{5, 5, 1}, Message: "Nested MAIL command"}
	errNoAuth   = &gosmtp.SMTPError{Code: 530, EnhancedCode: gosmtp.EnhancedCode{5, 7, 0}, Message: "Authentication required"}
	errBadLogin = &gosmtp.SMTPError{Code: 535, EnhancedCode: gosmtp.EnhancedCode{5, 7, 8}, Message: "Authentication failed"}
)

// A session is what go-smtp asks about the commands of one connection.
type session struct {
	sink *Server
	conn *conn
	auth bool // set once the client has authenticated

	mu sync.Mutex   // guards tx: the body of a BDAT is read by a goroutine of its own
	tx *transaction // nil outside of a transaction
}

type transaction struct {
	from       string
	recipients []string
}

// newSession is called at the first EHLO or HELO of a connection, and again
// after STARTTLS.
func (s *Server) newSession(c *gosmtp.Conn) (gosmtp.Session, error) {
	raw := c.Conn()
	if t, ok := raw.(*tls.Conn); ok {
		raw = t.NetConn()
	}
	ses := &session{sink: s, conn: raw.(*conn)}
	if err := ses.refuse(EHLO, 0, c.Hostname()); err != nil {
		return nil, err
	}
	s.tally.said(EHLO, nil, 0)
	return ses, nil
}

// Mail begins a transaction. go-smtp takes a MAIL within a transaction and
// keeps the recipients of the one before; a server must not (RFC 5321, 4.1.4).
func (s *session) Mail(from string, _ *gosmtp.MailOptions) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.conn.isGone():
		return errClosing
	case s.sink.opts.User != "" && !s.auth:
		s.sink.tally.said(Mail, errNoAuth, 0)
		return errNoAuth
	case s.tx != nil:
		s.sink.tally.said(Mail, errNested, 0)
		return errNested
	}
	if err := s.refuse(Mail, 0, from); err != nil {
		return err
	}
	s.sink.tally.said(Mail, nil, 0)
	s.tx = &transaction{from: from}
	return nil
}

// Rcpt takes a recipient or not.
func (s *session) Rcpt(to string, _ *gosmtp.RcptOptions) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.conn.isGone() {
		return errClosing
	}
	if limit := s.sink.opts.MaxRcpt; limit > 0 && len(s.tx.recipients) >= limit {
		s.sink.tally.said(Rcpt, errTooMany, 1)
		return errTooMany
	}
	if err := s.refuse(Rcpt, 1, to); err != nil {
		return err
	}
	s.sink.tally.said(Rcpt, nil, 0)
	s.tx.recipients = append(s.tx.recipients, to)
	return nil
}

// Data reads the message and answers the final dot.
func (s *session) Data(body io.Reader) error {
	s.mu.Lock()
	tx := s.tx
	s.mu.Unlock()
	switch {
	case s.conn.isGone():
		return errClosing
	case tx == nil: // a RSET overtook the BDAT
		return gosmtp.ErrDataReset
	}
	done := Transaction{From: tx.from, Recipients: tx.recipients}
	var message bytes.Buffer
	if s.sink.opts.Message != nil {
		body = io.TeeReader(body, &message)
	}
	if err := s.read(body, &done); err != nil {
		s.sink.tally.without(Data, "aborted")
		if s.sink.isClosing() {
			s.conn.closeAfterReply()
			return errClosing
		}
		return err
	}
	// While the transaction waits, the client should have the replies so far.
	if err := s.conn.flush(); err != nil {
		s.sink.tally.without(Data, "aborted")
		return err
	}
	if !s.sink.wait(s.sink.opts.Delay) {
		s.sink.tally.said(Data, errClosing, len(tx.recipients))
		s.conn.closeAfterReply()
		return errClosing
	}

	rule := s.sink.rules.Load().find(Data, tx.recipients...)
	if rule != nil && rule.action != takeAndDrop {
		return s.apply(rule, len(tx.recipients))
	}
	if s.sink.opts.Message != nil {
		s.sink.opts.Message(done, message.Bytes())
	}
	if s.sink.opts.Recorder != nil {
		s.sink.opts.Recorder(done)
	}
	s.sink.tally.took(len(tx.recipients), done.Size)
	if rule != nil {
		s.sink.tally.without(Data, takeAndDrop)
		s.conn.Close()
		return errClosing // nobody hears it
	}
	s.sink.tally.said(Data, nil, 0)
	return nil
}

// read takes in the message; what nobody records is not hashed.
func (s *session) read(body io.Reader, t *Transaction) (err error) {
	if s.sink.opts.Recorder == nil {
		t.Size, err = io.Copy(io.Discard, body)
		return err
	}
	h := sha256.New()
	t.Size, err = io.Copy(h, body)
	h.Sum(t.Digest[:0])
	return err
}

// refuse tells what a rule says to one of the keys, and so to n recipients, as
// an error for go-smtp.
func (s *session) refuse(phase Phase, n int, keys ...string) error {
	if rule := s.sink.rules.Load().find(phase, keys...); rule != nil {
		return s.apply(rule, n)
	}
	return nil
}

func (s *session) apply(rule *Rule, n int) error {
	if rule.action == drop {
		s.sink.tally.without(rule.phase, drop)
		s.conn.Close()
		return errClosing // nobody hears it
	}
	s.sink.tally.said(rule.phase, rule.reply, n)
	if rule.reply.Code == 421 {
		s.conn.closeAfterReply()
	}
	return rule.reply
}

// Reset ends the transaction: after RSET, and after each message.
func (s *session) Reset() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.tx = nil
}

// Logout has nothing to let go of.
func (s *session) Logout() error { return nil }

// AuthMechanisms is what EHLO offers.
func (s *session) AuthMechanisms() []string {
	if s.sink.opts.User == "" {
		return nil
	}
	return []string{sasl.Plain}
}

// Auth answers AUTH.
func (s *session) Auth(mechanism string) (sasl.Server, error) {
	if s.sink.opts.User == "" || mechanism != sasl.Plain {
		return nil, gosmtp.ErrAuthUnknownMechanism
	}
	return sasl.NewPlainServer(func(_, user, password string) error {
		right := subtle.ConstantTimeCompare([]byte(user), []byte(s.sink.opts.User)) &
			subtle.ConstantTimeCompare([]byte(password), []byte(s.sink.opts.Password))
		if right != 1 {
			return errBadLogin
		}
		s.auth = true
		return nil
	}), nil
}
