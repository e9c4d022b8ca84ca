package main

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nkeys"
)

// keyPair writes a certificate for 127.0.0.1 that is its own CA, and its key.
func keyPair(t *testing.T) (cert, key string) {
	t.Helper()
	secret, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour),
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, IsCA: true, BasicConstraintsValid: true}
	der, err := x509.CreateCertificate(rand.Reader, template, template, secret.Public(), secret)
	if err != nil {
		t.Fatal(err)
	}
	keyDER, err := x509.MarshalPKCS8PrivateKey(secret)
	if err != nil {
		t.Fatal(err)
	}
	return writeFile(t, "cert.pem", string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}))),
		writeFile(t, "key.pem", string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: keyDER})))
}

// credentials writes a credentials file of a user of nobody's.
func credentials(t *testing.T) string {
	t.Helper()
	user, err := nkeys.CreateUser()
	if err != nil {
		t.Fatal(err)
	}
	seed, err := user.Seed()
	if err != nil {
		t.Fatal(err)
	}
	return writeFile(t, "user.creds", fmt.Sprintf("-----BEGIN USER NKEY SEED-----\n%s\n------END USER NKEY SEED------\n", seed))
}

// startServer starts a broker as others run it.
func startServer(t *testing.T, o server.Options) (addr string) {
	t.Helper()
	o.Port, o.StoreDir = server.RANDOM_PORT, t.TempDir()
	addr, _ = startServerAs(t, o)
	return addr
}

func startServerAs(t *testing.T, o server.Options) (addr string, stop func()) {
	t.Helper()
	o.Host, o.JetStream, o.NoLog, o.NoSigs = "127.0.0.1", true, true, true
	s, err := server.NewServer(&o)
	if err != nil {
		t.Fatal(err)
	}
	s.Start()
	stop = func() {
		s.Shutdown()
		s.WaitForShutdown()
	}
	t.Cleanup(stop)
	if !s.ReadyForConnections(waitAtMost) {
		t.Fatal("the server is not ready")
	}
	return s.Addr().String(), stop
}

// fails runs a command that must fail with an exit code, and returns its line.
func fails(t *testing.T, code int, env []string, args ...string) string {
	t.Helper()
	p := startBulkmail(t, env, args...)
	select {
	case <-p.exited:
	case <-time.After(waitAtMost):
		t.Fatalf("%v has not ended:\n%s", args, p.errors())
	}
	line := p.errors()
	if got := p.cmd.ProcessState.ExitCode(); got != code || p.stdout.Len() > 0 || strings.Count(line, "\n") != 1 {
		t.Errorf("%v ended with %d, wrote %q and %q", args, got, p.stdout.String(), line)
	}
	return line
}

func TestABrokerThatRefusesUsSaysHowToLogIn(t *testing.T) {
	t.Parallel()
	addr := startServer(t, server.Options{Username: "worker", Password: "s3cret"})
	line := fails(t, exitFailed, []string{"BULKMAIL_NATS_URL=nats://worker:wr0ng@" + addr}, "status")
	if !strings.HasPrefix(line, "bulkmail: broker nats://***@"+addr+": nats: Authorization Violation: log in with BULKMAIL_NATS_CREDS, ") {
		t.Error(line)
	}
	// A worker does not wait for what waiting does not mend.
	relays := "BULKMAIL_RELAYS=dummy:///dev/null?name=one&domain=client.test"
	line = fails(t, exitFailed, []string{"BULKMAIL_NATS_URL=nats://" + addr, relays}, "worker")
	if !strings.HasPrefix(line, "bulkmail: broker nats://"+addr+": nats: Authorization Violation: log in with BULKMAIL_NATS_CREDS, ") {
		t.Error(line)
	}
	p := startBulkmail(t, []string{"BULKMAIL_NATS_URL=nats://worker:s3cret@" + addr}, "status")
	if out := p.end(t); !strings.HasPrefix(out, "campaign ") {
		t.Errorf("with the right password: %s", out)
	}
}

func TestAWorkerOutlivesAChangeOfItsPassword(t *testing.T) {
	t.Parallel()
	o := server.Options{Port: int(freePort(t.Fatalf)), Username: "worker", Password: "s3cret", StoreDir: t.TempDir()}
	addr, stop := startServerAs(t, o)
	p := startBulkmail(t, []string{"BULKMAIL_NATS_URL=nats://worker:s3cret@" + addr, "BULKMAIL_RELAYS=dummy:///dev/null?name=one&domain=client.test"}, "worker")
	p.awaitLine(t, "working")
	stop()
	o.Password = "n3w"
	_, stop = startServerAs(t, o)
	for range 3 { // at the second, the NATS client would give up
		p.awaitLine(t, "broker reports.*(?i:authorization violation)")
	}
	stop()
	o.Password = "s3cret"
	startServerAs(t, o)
	p.awaitLine(t, "broker back")
	p.drain(t)
}

func TestABrokerOfAnUnknownCASaysHowToTrustIt(t *testing.T) {
	t.Parallel()
	cert, key := keyPair(t)
	pair, err := tls.LoadX509KeyPair(cert, key)
	if err != nil {
		t.Fatal(err)
	}
	addr := startServer(t, server.Options{TLSConfig: &tls.Config{Certificates: []tls.Certificate{pair}}})
	line := fails(t, exitFailed, []string{"BULKMAIL_NATS_URL=nats://" + addr}, "status")
	if !strings.Contains(line, "unknown authority: set BULKMAIL_NATS_TLS_CA to the certificate of its CA") {
		t.Error(line)
	}
	p := startBulkmail(t, []string{"BULKMAIL_NATS_URL=nats://" + addr, "BULKMAIL_NATS_TLS_CA=" + cert}, "status")
	if out := p.end(t); !strings.HasPrefix(out, "campaign ") {
		t.Errorf("with the CA: %s", out)
	}
}

func TestNoPasswordOfTheBrokerIsShown(t *testing.T) {
	t.Parallel()
	nobody := fmt.Sprintf("127.0.0.1:%d", freePort(t.Fatalf))
	url := "BULKMAIL_NATS_URL=nats://worker:s3cret@" + nobody + ",t0ken@" + nobody
	relays := "BULKMAIL_RELAYS=dummy:///dev/null?name=one&domain=client.test"
	for _, args := range [][]string{{"status"}, {"outcomes", "c"}, {"pause", "c"}, {"dead", "list"}, {"relays", "reset", "one"}} {
		line := fails(t, exitFailed, []string{url, relays}, args...)
		if strings.Contains(line, "s3cret") || strings.Contains(line, "t0ken") || !strings.Contains(line, "nats://***@"+nobody+",nats://***@"+nobody) {
			t.Errorf("%v says %s", args, line)
		}
	}
	p := startBulkmail(t, []string{url, relays}, "worker")
	if line := p.awaitLine(t, "(.*broker not reached, trying on.*)"); strings.Contains(line, "s3cret") || strings.Contains(line, "t0ken") {
		t.Error(line)
	}
	p.drain(t)
	// Nor where the address cannot be read because of it.
	line := fails(t, exitUsage, []string{"BULKMAIL_NATS_URL=nats://worker:s3/cret@" + nobody}, "status")
	if strings.Contains(line, "s3") || !strings.Contains(line, "BULKMAIL_NATS_URL: address 1 is not like nats://host:4222") {
		t.Error(line)
	}
}

func TestFilesThatLogInAreReadBeforeTheyAreUsed(t *testing.T) {
	cert, key := keyPair(t)
	_, other := keyPair(t)
	for want, env := range map[string]map[string]string{
		"":                                    {"BULKMAIL_NATS_CREDS": credentials(t), "BULKMAIL_NATS_TLS_CA": cert, "BULKMAIL_NATS_TLS_CERT": cert, "BULKMAIL_NATS_TLS_KEY": key},
		key + " holds no user's key":          {"BULKMAIL_NATS_CREDS": key},
		key + " holds no certificate":         {"BULKMAIL_NATS_TLS_CA": key},
		other + " does not go with " + cert:   {"BULKMAIL_NATS_TLS_CERT": cert, "BULKMAIL_NATS_TLS_KEY": other},
		"BULKMAIL_NATS_URL: address 2 is not": {"BULKMAIL_NATS_URL": "nats://a, ftp://b"},
	} {
		setEnvironment(t, env)
		_, _, err := loadConfig()
		if want == "" && err != nil || want != "" && (err == nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "\n")) {
			t.Errorf("%v: %v, want %q", env, err, want)
		}
	}
}
