// Package sink is an SMTP server for trying things: it takes every message,
// keeps none, counts all, and can be told to be slow, strict or rude.
//
//  1. [Start] listens, with [Rule] values that say what is refused and how.
//  2. Every message that was taken is shown to the Recorder before the reply
//     goes out, so that a test can prove what arrived, and how often.
//  3. [Server.SetRules] changes its manners while it runs.
//  4. [Server.Counts] tells what happened so far.
//  5. [Server.Close] ends it and waits for everything it started.
//
// The protocol is go-smtp's: PIPELINING, 8BITMIME, SMTPUTF8, DSN, CHUNKING,
// ENHANCEDSTATUSCODES and SIZE are always offered. What it refuses by itself,
// for bad syntax or a wrong sequence of commands, is not counted. In go-smtp
// 0.25.1 a BDAT that RSET breaks off can leave its result to the next one of
// the session: a client that gives up a BDAT should close the connection.
package sink

import (
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"sync"
	"sync/atomic"
	"time"

	gosmtp "github.com/emersion/go-smtp"
)

// Options says how a sink behaves. The zero value takes everything at once on
// a free port of the loopback interface.
type Options struct {
	Listen string // host:port; empty: 127.0.0.1:0, a free port
	Domain string // said in the greeting; empty: sink.test

	Rules   []Rule        // what is refused; the first that applies is taken
	Delay   time.Duration // waited after the final dot, before the reply
	MaxRcpt int           // recipients a transaction, then 452 4.5.3; 0: no limit

	TLS      *tls.Config // not nil: STARTTLS is offered
	User     string      // not empty: MAIL wants AUTH PLAIN, which is offered under TLS, or in the clear where there is no TLS
	Password string

	// Recorder, if not nil, is called with each transaction that is taken,
	// after its rules and Delay and before the reply to the final dot: what
	// was answered with 250 has been recorded. Connections call it
	// concurrently; while it runs, its connection waits.
	Recorder func(Transaction)

	// Message, if not nil, is called before Recorder with the message itself as it
	// came, dots unstuffed, for whoever wants to look at what arrives.
	Message func(Transaction, []byte)

	Log *slog.Logger // nil: discarded
}

// A Transaction is one message that the sink took.
type Transaction struct {
	From       string   // without brackets; empty for the null sender
	Recipients []string // those accepted, in order; quoted local parts come unquoted
	Size       int64    // octets of the message, dots unstuffed
	Digest     [32]byte // SHA-256 of the same
}

// A Server is a sink that listens. Its methods are safe for concurrent use.
type Server struct {
	opts     Options
	smtp     *gosmtp.Server
	listener *listener
	tally    tally
	rules    atomic.Pointer[ruleSet]

	closing    chan struct{} // closed when Close begins; ends the delays
	closeBegun func()        // closes closing, once
	served     chan struct{} // closed when the accepting goroutine has ended
}

// Start listens and serves until Close.
func Start(opts Options) (*Server, error) {
	opts.Listen = cmp.Or(opts.Listen, "127.0.0.1:0")
	opts.Domain = cmp.Or(opts.Domain, "sink.test")
	if opts.Log == nil {
		opts.Log = slog.New(slog.DiscardHandler)
	}

	tcp, err := net.Listen("tcp", opts.Listen)
	if err != nil {
		return nil, fmt.Errorf("sink cannot listen, choose another address: %w", err)
	}
	s := &Server{opts: opts, closing: make(chan struct{}), served: make(chan struct{})}
	s.closeBegun = sync.OnceFunc(func() { close(s.closing) })
	s.SetRules(opts.Rules)
	s.listener = newListener(tcp, s)

	s.smtp = gosmtp.NewServer(gosmtp.BackendFunc(s.newSession))
	s.smtp.Domain = opts.Domain
	s.smtp.TLSConfig = opts.TLS
	s.smtp.AllowInsecureAuth = opts.TLS == nil
	s.smtp.EnableSMTPUTF8 = true
	s.smtp.EnableDSN = true
	s.smtp.ErrorLog = libraryLog{opts.Log}

	go func() {
		defer close(s.served)
		if err := s.smtp.Serve(s.listener); err != nil && !s.isClosing() {
			opts.Log.Error("sink stopped accepting", "error", err)
		}
	}()
	return s, nil
}

// Addr is the address that the sink listens on, host:port.
func (s *Server) Addr() string { return s.listener.Addr().String() }

// Counts is what happened since Start.
func (s *Server) Counts() Counts { return s.tally.snapshot() }

// SetRules replaces all rules, beginning with the next command of every
// session. What a rule with "first N" has counted is forgotten.
func (s *Server) SetRules(rules []Rule) { s.rules.Store(newRuleSet(rules)) }

// Close ends the sink: nothing more is accepted, clients are told 421,
// transactions that wait for their Delay are not taken. It returns when all
// that Start began has ended, or when ctx ends, after cutting every connection;
// then a Recorder that does not return is still running.
func (s *Server) Close(ctx context.Context) error {
	s.closeBegun()
	s.listener.hangUp()
	<-s.served
	err := s.smtp.Shutdown(ctx)
	if errors.Is(err, gosmtp.ErrServerClosed) {
		return nil
	}
	if err != nil {
		s.listener.cut()
		return fmt.Errorf("sink closed before its sessions had ended: %w", err)
	}
	return nil
}

func (s *Server) isClosing() bool {
	select {
	case <-s.closing:
		return true
	default:
		return false
	}
}

// wait lets d pass and tells whether the sink is still open.
func (s *Server) wait(d time.Duration) bool {
	if d <= 0 {
		return true
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-s.closing:
		return false
	}
}

// libraryLog takes what go-smtp has to say: sessions that broke off, and
// panics of a Recorder.
type libraryLog struct{ log *slog.Logger }

func (l libraryLog) Printf(format string, args ...any) {
	l.log.Warn("smtp session ended badly", "reason", fmt.Sprintf(format, args...))
}

func (l libraryLog) Println(args ...any) {
	l.log.Warn("smtp session ended badly", "reason", fmt.Sprint(args...))
}
