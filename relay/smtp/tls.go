package smtp

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"os"
	"sync"
)

var errHandshake = errors.New("tls handshake")

// A tlsSetup is the Dialer's TLS configuration, read once.
type tlsSetup struct {
	once   sync.Once
	config *tls.Config
	err    error
}

func (t *tlsSetup) load(d *Dialer) error {
	t.once.Do(func() { t.config, t.err = d.tlsConfig() })
	return t.err
}

func (d *Dialer) tlsConfig() (*tls.Config, error) {
	if d.TLS == NoTLS {
		return nil, nil
	}
	host, _, err := net.SplitHostPort(d.Addr)
	if err != nil {
		return nil, err
	}
	config := &tls.Config{
		MinVersion:         tls.VersionTLS12,
		ServerName:         host,
		InsecureSkipVerify: !d.verified(), //nolint:gosec // by name only
		ClientSessionCache: tls.NewLRUClientSessionCache(0),
		// Small first records are for pages that render; a message is
		// wanted whole.
		DynamicRecordSizingDisabled: true,
	}
	if d.TLSCA != "" {
		pem, err := os.ReadFile(d.TLSCA)
		if err != nil {
			return nil, fmt.Errorf("tls_ca: %w", err)
		}
		config.RootCAs = x509.NewCertPool()
		if !config.RootCAs.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("tls_ca: no certificate in %s", d.TLSCA)
		}
	}
	if d.TLSCert != "" || d.TLSKey != "" {
		pair, err := tls.LoadX509KeyPair(d.TLSCert, d.TLSKey)
		if err != nil {
			return nil, fmt.Errorf("tls_cert, tls_key: %w", err)
		}
		config.Certificates = []tls.Certificate{pair}
	}
	return config, nil
}

// startTLS encrypts the session as the mode has it, and learns anew what the
// server offers (RFC 3207, 4.2).
func (s *Session) startTLS(ctx context.Context, mode TLSMode) *Error {
	if !s.caps.StartTLS {
		if mode == Required {
			return s.require(cmdStartTLS, "the server does not offer STARTTLS: set tls if it may be without")
		}
		return nil
	}
	a, err := s.ask(cmdStartTLS, "STARTTLS")
	if err != nil {
		return err
	}
	if !a.positive() {
		if mode == Opportunistic && a.code != 421 {
			return nil
		}
		return s.expect(cmdStartTLS, a, "")
	}
	// CVE-2011-0411 in our direction: what came in the clear must not be
	// read as if it had come encrypted.
	if s.in.buffered() {
		s.kill()
		return &Error{Command: cmdStartTLS.String(), Unwell: true, Loud: true, Err: errPlainInjection}
	}
	if err := s.encrypt(ctx); err != nil {
		return err
	}
	return s.hello()
}

func (s *Session) encrypt(ctx context.Context) *Error {
	began := s.d.clock()
	beneath := s.raw
	if s.socket != nil {
		beneath = &gatedConn{s.raw, s}
	}
	conn := tls.Client(beneath, s.d.tls.config)
	ctx, cancel := context.WithTimeout(ctx, min(s.d.timeout(cmdStartTLS), greetTimeout))
	defer cancel()
	if err := conn.HandshakeContext(ctx); err != nil {
		if errors.Is(err, context.DeadlineExceeded) {
			err = &explained{"no answer in time: does this port speak TLS at all?", err}
		}
		e := &Error{Command: cmdStartTLS.String(), Unwell: true, Loud: true, Err: fmt.Errorf("%w: %w", errHandshake, err)}
		s.kill()
		return e
	}
	s.d.took(PhaseTLS, began, nil)
	s.use(conn)
	return nil
}
