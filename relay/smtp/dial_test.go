package smtp

import (
	"bufio"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"bulkmail/envelope"
)

func TestAClientCertificateIsShownAndTLSSessionsAreResumed(t *testing.T) {
	t.Parallel()
	cert, key := testPEM(t)
	config := testServerTLS(t)
	config.ClientAuth = tls.RequireAndVerifyClientCert
	config.ClientCAs = x509.NewCertPool()
	pem, err := os.ReadFile(cert)
	if err != nil {
		t.Fatal(err)
	}
	config.ClientCAs.AppendCertsFromPEM(pem)
	addr := serve(t, func(conn net.Conn) { willing(tls.Server(conn, config), "", nil, nil) })
	d := &Dialer{Addr: addr, Domain: "client.test", Tries: 1, TLS: Implicit, TLSCA: cert, TLSCert: cert, TLSKey: key}
	e := &Envelope{From: "a@example.com", Recipients: envelope.To("b@example.net"), Message: Guarded(mustMessage(t, "Subject: x\n\ny\n"), nil)}
	for i := range 2 {
		s, err := d.Dial(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if err := s.Send(t.Context(), e, nil); err != nil || e.Results[0].Status != Accepted {
			t.Fatalf("%v, %+v", err, e.Results)
		}
		state := s.TLS()
		if state == nil || state.Version < tls.VersionTLS12 {
			t.Fatalf("%+v", state)
		}
		if state.DidResume != (i == 1) {
			t.Errorf("connection %d: resumed %v", i+1, state.DidResume)
		}
		_ = s.Close()
	}
}

func TestOldTLSIsRefused(t *testing.T) {
	t.Parallel()
	config := testServerTLS(t)
	config.MaxVersion = tls.VersionTLS11
	config.MinVersion = tls.VersionTLS10
	addr := serve(t, func(conn net.Conn) { willing(tls.Server(conn, config), "", nil, nil) })
	d := &Dialer{Addr: addr, Domain: "client.test", Tries: 1, TLS: Implicit, TLSVerify: VerifyNever}
	_, err := d.Dial(t.Context())
	if e, ok := errors.AsType[*Error](err); !ok || !e.Loud || !errors.Is(err, errHandshake) {
		t.Errorf("%v", err)
	}
}

func TestTLSFilesThatCannotBeReadAreSaidByName(t *testing.T) {
	t.Parallel()
	empty := filepath.Join(t.TempDir(), "empty.pem")
	if err := os.WriteFile(empty, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for want, d := range map[string]*Dialer{
		"tls_ca":            {TLSCA: "/nowhere"},
		"no certificate in": {TLSCA: empty},
		"tls_cert":          {TLSCert: "/nowhere", TLSKey: "/nowhere"},
		"password_file":     {User: "ann", PasswordFile: "/nowhere"},
	} {
		d.Addr, d.Domain, d.Tries = "127.0.0.1:1", "client.test", 1
		_, err := d.Dial(t.Context())
		if e, ok := errors.AsType[*Error](err); !ok || !e.Loud || !strings.Contains(err.Error(), want) {
			t.Errorf("%v does not speak of %s", err, want)
		}
	}
}

func TestAChangedPasswordFileIsReadAnew(t *testing.T) {
	t.Parallel()
	var mu sync.Mutex
	var got []string
	addr := serve(t, func(conn net.Conn) {
		r := bufio.NewReader(conn)
		_, _ = io.WriteString(conn, "220 mx\r\n")
		_, _ = r.ReadString('\n')
		_, _ = io.WriteString(conn, "250-mx\r\n250 AUTH PLAIN\r\n")
		line, _ := r.ReadString('\n')
		plain, _ := base64.StdEncoding.DecodeString(strings.TrimSpace(strings.TrimPrefix(line, "AUTH PLAIN ")))
		mu.Lock()
		got = append(got, string(plain))
		mu.Unlock()
		_, _ = io.WriteString(conn, "235 ok\r\n")
		_, _ = r.ReadString('\n')
	})
	file := filepath.Join(t.TempDir(), "password")
	d := &Dialer{Addr: addr, Domain: "client.test", Tries: 1, TLS: NoTLS, User: "ann", PasswordFile: file, AuthInClear: true, Timeout: 5 * time.Second}
	for _, password := range []string{"first", "second"} {
		if err := os.WriteFile(file, []byte(password+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		s, err := d.Dial(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		_ = s.Close()
	}
	mu.Lock()
	defer mu.Unlock()
	if strings.Join(got, " ") != "\x00ann\x00first \x00ann\x00second" {
		t.Errorf("%q", got)
	}
}

// RFC 7677, 3.
func TestSCRAMIsWhatTheRFCShows(t *testing.T) {
	t.Parallel()
	m := &scram{credentials: credentials{"user", "pencil"}, nonce: "rOprNGfwEbeRWgbNEkqO"}
	_, initial, err := m.Start()
	if err != nil || string(initial) != "n,,n=user,r=rOprNGfwEbeRWgbNEkqO" {
		t.Fatalf("%q, %v", initial, err)
	}
	final, err := m.Next([]byte("r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096"))
	if want := "c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ="; err != nil || string(final) != want {
		t.Fatalf("%q, %v, want %q", final, err, want)
	}
	if m.proven() {
		t.Error("the server has proven nothing yet")
	}
	if _, err := m.Next([]byte("v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4=")); err != nil || !m.proven() {
		t.Error(err)
	}
}

func TestAServerThatDoesNotKnowThePasswordIsAnImpostor(t *testing.T) {
	t.Parallel()
	first := func(m *scram) error {
		_, _, _ = m.Start()
		_, err := m.Next([]byte("r=" + m.nonce + "server,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=1"))
		return err
	}
	m, err := newSCRAM(credentials{"user", "pencil"})
	if err != nil {
		t.Fatal(err)
	}
	if err := first(m); err != nil {
		t.Fatal(err)
	}
	if _, err := m.Next([]byte("v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4=")); !errors.Is(err, errImpostor) || m.proven() {
		t.Errorf("%v", err)
	}
	for _, bad := range []string{"r=other,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=1", "r=" + m.nonce + "x,s=!!,i=1", "r=" + m.nonce + "x,s=,i=99999999", "m=ext", ""} {
		m.step = 0
		if _, err := m.Next([]byte(bad)); err == nil {
			t.Errorf("%q was answered", bad)
		}
	}
}

func TestTriesAreDialsOverAllAddresses(t *testing.T) {
	t.Parallel()
	var dialled int
	d := plainDialer("mx.test:25")
	d.Tries = 3
	d.NetDial = func(context.Context, string, string) (net.Conn, error) {
		dialled++
		return nil, errors.New("unreachable")
	}
	_, err := d.Dial(t.Context())
	if e, ok := errors.AsType[*Error](err); !ok || e.MBS != "MBS003" || !e.Unwell {
		t.Errorf("%v", err)
	}
	if dialled != 3 {
		t.Errorf("%d dials, want 3", dialled)
	}
}

func TestARefusingServerIsNotAskedTwice(t *testing.T) {
	t.Parallel()
	var mu sync.Mutex
	asked := 0
	addr := serve(t, func(conn net.Conn) {
		mu.Lock()
		asked++
		mu.Unlock()
		_, _ = io.WriteString(conn, "554 no\r\n")
		_, _ = conn.Read(make([]byte, 1))
	})
	d := plainDialer(addr)
	d.Tries = 5
	if _, err := d.Dial(t.Context()); err == nil {
		t.Fatal("it was let in")
	}
	mu.Lock()
	defer mu.Unlock()
	if asked != 1 {
		t.Errorf("asked %d times", asked)
	}
}
