//go:build compose

package cluster_test

import (
	"bufio"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"net/smtp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
)

// What each user may is tested beside nats.conf, in all its detail; this is that
// the cluster is as the file says.
func TestThePublisherMayNeitherDestroyNorReadNorAcknowledge(t *testing.T) {
	v := visit(t)
	refusals := make(chan error, 16)
	nc := v.connect(t, "publisher", nats.ErrorHandler(func(_ *nats.Conn, _ *nats.Subscription, err error) { refusals <- err }))
	refused := func(what string, err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		select {
		case err := <-refusals:
			if !errors.Is(err, nats.ErrPermissionViolation) {
				t.Errorf("%s: %v", what, err)
			}
		case <-time.After(patience):
			t.Errorf("%s is not refused", what)
		}
	}
	for what, subject := range map[string]string{
		"delete a stream":   "$JS.API.STREAM.DELETE.BULKMAIL_BATCHES",
		"empty a stream":    "$JS.API.STREAM.PURGE.BULKMAIL_OUTCOMES",
		"acknowledge":       "$JS.ACK.BULKMAIL_BATCHES.workers.1.1.1.1.1",
		"take a batch":      "$JS.API.CONSUMER.MSG.NEXT.BULKMAIL_BATCHES.workers",
		"write an outcome":  "bulkmail.outcomes.demo.1",
		"change relay caps": "$KV.bulkmail-relays.relay.relay-1",
	} {
		refused(what, nc.Publish(subject, nil))
	}
	for _, subject := range []string{">", "bulkmail.batches.*", "_INBOX_worker.>"} {
		_, err := nc.SubscribeSync(subject)
		refused("hear "+subject, err)
	}
	if _, err := nc.Request("$JS.API.STREAM.INFO.BULKMAIL_OUTCOMES", nil, patience); err != nil {
		t.Errorf("what it may do fails: %v", err)
	}
}

func TestNobodyElseGetsIn(t *testing.T) {
	v := visit(t)
	for who, o := range map[string][]nats.Option{
		"without a certificate":            v.trusting(),
		"with the name of a user":          append(v.trusting(), nats.UserInfo("CN=worker", "")),
		"with the certificate of a relay":  v.as("relay"),
		"with the certificate of a server": v.as("nats"),
		"who does not know the authority":  {nats.SetCustomDialer(v), nats.SkipHostLookup()},
	} {
		if nc, err := nats.Connect(natsURL, o...); err == nil {
			nc.Close()
			t.Errorf("one %s connects", who)
		}
	}
	for _, closed := range []string{"nats-1:8222", "relay-1:8080"} {
		if c, err := v.Dial("tcp", closed); err == nil {
			c.Close()
			t.Errorf("%s is open", closed)
		}
	}
}

// A route to the cluster may do everything, so a certificate of the authority is
// not enough for one.
func TestAPublisherIsNoServerOfTheCluster(t *testing.T) {
	v := visit(t)
	// said is what a server says to one who wants to be another server.
	said := func(user string) string {
		t.Helper()
		raw, err := v.Dial("tcp", "nats-1:6222")
		if err != nil {
			t.Fatal(err)
		}
		defer raw.Close()
		if err := raw.SetDeadline(time.Now().Add(patience)); err != nil {
			t.Fatal(err)
		}
		roots := x509.NewCertPool()
		roots.AppendCertsFromPEM(v.authority(t, user))
		c := tls.Client(raw, &tls.Config{ServerName: "nats-1", RootCAs: roots, Certificates: []tls.Certificate{v.certificate(t, user)}, MinVersion: tls.VersionTLS12})
		lines := bufio.NewScanner(c)
		lines.Buffer(nil, 64<<10)
		if !lines.Scan() || !strings.HasPrefix(lines.Text(), "INFO ") {
			t.Fatalf("greeted with %q, %v", lines.Text(), lines.Err())
		}
		if _, err := c.Write([]byte(`CONNECT {"cluster":"elsewhere","name":"visitor"}` + "\r\nPING\r\n")); err != nil {
			t.Fatal(err)
		}
		if !lines.Scan() {
			t.Fatalf("no answer: %v", lines.Err())
		}
		return lines.Text()
	}
	if answer := said("publisher"); answer != "-ERR 'Authorization Violation'" {
		t.Errorf("to a publisher that wants a route the server says %s", answer)
	}
	if answer := said("nats"); strings.Contains(answer, "Authorization") {
		t.Errorf("to a server too, so the above proves nothing: %s", answer)
	}
}

func TestEveryContainerIsConfined(t *testing.T) {
	for _, c := range containers(t) {
		h := c.HostConfig
		if !h.ReadonlyRootfs || !slices.Equal(h.CapDrop, []string{"ALL"}) || !slices.Contains(h.SecurityOpt, "no-new-privileges:true") {
			t.Errorf("%s may write or become more than it is: %+v", c.Name, h)
		}
		if h.Memory <= 0 || h.NanoCpus <= 0 || h.PidsLimit <= 0 {
			t.Errorf("%s has no limits: %+v", c.Name, h)
		}
		if c.Config.User != "65532:65532" {
			t.Errorf("%s runs as %q", c.Name, c.Config.User)
		}
		if len(h.PortBindings) > 0 {
			t.Errorf("%s has ports on the host: %v", c.Name, h.PortBindings)
		}
	}
}

func TestARelayTakesNothingWithoutTLSAndThePassword(t *testing.T) {
	v := visit(t)
	open := func() *smtp.Client {
		t.Helper()
		raw, err := v.Dial("tcp", "relay-1:2525")
		if err != nil {
			t.Fatal(err)
		}
		c, err := smtp.NewClient(raw, "relay-1")
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Close() })
		return c
	}
	c := open()
	if offered, _ := c.Extension("AUTH"); offered {
		t.Error("AUTH is offered in the clear")
	}
	if err := c.Mail("a@example.com"); err == nil || !strings.HasPrefix(err.Error(), "530 ") {
		t.Errorf("MAIL in the clear: %v", err)
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(v.authority(t, "worker"))
	if err := c.StartTLS(&tls.Config{ServerName: "relay-1", RootCAs: roots, MinVersion: tls.VersionTLS12}); err != nil {
		t.Fatal(err)
	}
	if err := c.Mail("a@example.com"); err == nil || !strings.HasPrefix(err.Error(), "530 ") {
		t.Errorf("MAIL without a password: %v", err)
	}
	if err := c.Auth(smtp.PlainAuth("", "bulkmail", "guessed", "relay-1")); err == nil || !strings.HasPrefix(err.Error(), "535 ") {
		t.Errorf("AUTH with a wrong password: %v", err)
	}
	// Another server's certificate is not the relay's.
	roots = x509.NewCertPool()
	roots.AppendCertsFromPEM(v.authority(t, "worker"))
	if err := open().StartTLS(&tls.Config{ServerName: "nats-1", RootCAs: roots, MinVersion: tls.VersionTLS12}); err == nil {
		t.Error("the relay has a certificate for another host")
	}
}
