package sink_test

import (
	"crypto/tls"
	"crypto/x509"
	"net"
	"net/http/httptest"
	"net/smtp"
	"strings"
	"testing"

	"bulkmail/relay/sink"
)

// certificate is for 127.0.0.1, with the pool that trusts it.
func certificate(t *testing.T) (tls.Certificate, *x509.CertPool) {
	t.Helper()
	s := httptest.NewUnstartedServer(nil)
	s.StartTLS()
	defer s.Close()
	pool := x509.NewCertPool()
	pool.AddCert(s.Certificate())
	return s.TLS.Certificates[0], pool
}

func TestTheStandardLibraryDeliversOverTLSWithAPassword(t *testing.T) {
	t.Parallel()
	cert, pool := certificate(t)
	var got sink.Transaction
	s := start(t, sink.Options{
		TLS:  &tls.Config{Certificates: []tls.Certificate{cert}},
		User: "ann", Password: "secret",
		Recorder: func(tx sink.Transaction) { got = tx },
	})

	c, err := smtp.Dial(s.Addr())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if err := c.StartTLS(&tls.Config{ServerName: "127.0.0.1", RootCAs: pool}); err != nil {
		t.Fatal(err)
	}
	if ok, _ := c.Extension("STARTTLS"); ok {
		t.Error("STARTTLS is offered again under TLS")
	}
	host, _, _ := net.SplitHostPort(s.Addr())
	if err := c.Auth(smtp.PlainAuth("", "ann", "secret", host)); err != nil {
		t.Fatal(err)
	}
	if err := c.Mail("a@example.com"); err != nil {
		t.Fatal(err)
	}
	if err := c.Rcpt("b@example.net"); err != nil {
		t.Fatal(err)
	}
	w, err := c.Data()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.Write([]byte("Subject: t\r\n\r\nhi\r\n")); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	if err := c.Quit(); err != nil {
		t.Fatal(err)
	}
	if got.From != "a@example.com" || got.Size != 18 {
		t.Errorf("recorded %+v", got)
	}
}

func TestWithoutAGoodPasswordNothingIsTaken(t *testing.T) {
	t.Parallel()
	s := start(t, sink.Options{User: "ann", Password: "secret"})
	err := smtp.SendMail(s.Addr(), nil, "a@example.com", []string{"b@example.net"}, []byte("hi\r\n"))
	if err == nil || !strings.Contains(err.Error(), `530 "5.7.0`) {
		t.Errorf("error without AUTH is %v", err)
	}
	auth := smtp.PlainAuth("", "ann", "wrong", "127.0.0.1")
	err = smtp.SendMail(s.Addr(), auth, "a@example.com", []string{"b@example.net"}, []byte("hi\r\n"))
	if err == nil || !strings.Contains(err.Error(), `535 "5.7.8`) {
		t.Errorf("error with a wrong password is %v", err)
	}
}

func TestWhereThereIsTLSAPasswordInTheClearIsNotTaken(t *testing.T) {
	t.Parallel()
	cert, pool := certificate(t)
	s := start(t, sink.Options{TLS: &tls.Config{Certificates: []tls.Certificate{cert}}, User: "ann", Password: "secret"})
	c, err := smtp.Dial(s.Addr())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if ok, _ := c.Extension("AUTH"); ok {
		t.Error("AUTH is offered in the clear")
	}
	auth := smtp.PlainAuth("", "ann", "secret", "127.0.0.1")
	if err := c.Auth(auth); err == nil || !strings.HasPrefix(err.Error(), "523 ") {
		t.Errorf("error of AUTH in the clear is %v", err)
	}
	c, err = smtp.Dial(s.Addr()) // the client hung up on that
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if err := c.StartTLS(&tls.Config{ServerName: "127.0.0.1", RootCAs: pool}); err != nil {
		t.Fatal(err)
	}
	if err := c.Auth(auth); err != nil {
		t.Error(err)
	}
}
