package relay_test

import (
	"crypto/tls"
	"encoding/pem"
	"net"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"bulkmail/relay"
	"bulkmail/relay/config"
	"bulkmail/relay/sink"
	"bulkmail/relay/smtp"
)

// selfSigned starts a sink with a certificate for 127.0.0.1 that nobody
// vouches for, and writes it to a file.
func selfSigned(t *testing.T) (host string, port int, ca string) {
	t.Helper()
	web := httptest.NewUnstartedServer(nil)
	web.StartTLS()
	defer web.Close()
	s, err := sink.Start(sink.Options{TLS: &tls.Config{Certificates: web.TLS.Certificates}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close(t.Context()) })
	host, portText, _ := net.SplitHostPort(s.Addr())
	port, _ = strconv.Atoi(portText)
	ca = filepath.Join(t.TempDir(), "ca.pem")
	cert := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: web.Certificate().Raw})
	if err := os.WriteFile(ca, cert, 0o600); err != nil {
		t.Fatal(err)
	}
	return host, port, ca
}

// TestRequiredTLSRefusesACertificateThatNobodyVouchesFor in each of the ways in
// which a relay can be made.
func TestRequiredTLSRefusesACertificateThatNobodyVouchesFor(t *testing.T) {
	t.Parallel()
	host, port, ca := selfSigned(t)
	addr := net.JoinHostPort(host, strconv.Itoa(port))
	configured := func(c relay.Config) relay.Dialer {
		c.Host, c.Port, c.Domain, c.Tries = host, port, "client.test", 1
		made, err := relay.FromConfig([]relay.Config{c}, relay.Outlets{})
		if err != nil {
			t.Fatal(err)
		}
		return made[0].Dialer
	}
	loaded := func(query string) relay.Dialer {
		cs, err := config.Load("smtp://"+addr+"?"+query, "", config.Options{})
		if err != nil {
			t.Fatal(err)
		}
		return configured(cs[0])
	}
	for name, c := range map[string]struct {
		dialer relay.Dialer
		fails  bool
	}{
		"a Config":                           {configured(relay.Config{TLS: relay.TLSRequired}), true},
		"a Config that trusts it":            {configured(relay.Config{TLS: relay.TLSRequired, TLSCA: ca}), false},
		"a Config that does not care":        {configured(relay.Config{TLS: relay.TLSRequired, TLSVerify: smtp.VerifyNever}), false},
		"a Config with a password":           {configured(relay.Config{User: "u", Password: "p"}), true},
		"an opportunistic Config":            {configured(relay.Config{}), false},
		"an opportunistic one that verifies": {configured(relay.Config{TLS: relay.TLSOpportunistic, TLSVerify: smtp.VerifyAlways}), true},
		"a URL":                              {loaded("tls=required"), true},
		"a URL that does not care":           {loaded("tls=required&tls_verify=false"), false},
	} {
		s, err := c.dialer.Dial(t.Context())
		if err == nil {
			_ = s.Close()
		}
		if failed := err != nil && strings.Contains(err.Error(), "certificate"); failed != c.fails {
			t.Errorf("%s: %v", name, err)
		}
	}
	direct := &smtp.Dialer{Addr: addr, Domain: "client.test", Tries: 1, TLS: smtp.Required}
	if s, err := direct.Dial(t.Context()); err == nil {
		_ = s.Close()
		t.Error("an smtp.Dialer took a certificate that nobody vouches for")
	}
}
