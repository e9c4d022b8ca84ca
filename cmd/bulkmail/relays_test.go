package main

import (
	"bufio"
	"context"
	"crypto/tls"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http/httptest"
	"regexp"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"bulkmail/relay/sink"
)

func TestACheckShowsHowASessionIsSecuredAndWhatTheServerLimits(t *testing.T) {
	t.Parallel()
	https := httptest.NewUnstartedServer(nil)
	https.StartTLS()
	defer https.Close()
	ca := writeFile(t, "ca.pem", string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: https.Certificate().Raw})))
	secured, err := sink.Start(sink.Options{Domain: "secured.test", TLS: &tls.Config{Certificates: https.TLS.Certificates}, User: "ann", Password: "secret"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := secured.Close(context.WithoutCancel(t.Context())); err != nil {
			t.Error(err)
		}
	})
	limited := limitedServer(t)
	check := startBulkmail(t, []string{"BULKMAIL_RELAYS=smtp://ann:secret@" + secured.Addr() + "?name=secured&domain=client.test&tls_ca=" + ca +
		" smtp://" + limited + "?name=limited&domain=client.test"}, "relays", "check")
	table := check.end(t)
	ends := https.Certificate().NotAfter.UTC().Format("2006-01-02")
	for _, line := range []string{
		`(?m)^secured +smtp://ann:\*\*\*@\S+ +ok +\S+ +secured.test ESMTP Service Ready +TLS1.3 +` + ends + ` +PLAIN; logged in by PLAIN +- +PIPELINING,`,
		`(?m)^limited +smtp://\S+ +ok +\S+ +limited.test welcomes you +- +- +LOGIN +SIZE=1000,RCPTMAX=20,MAILMAX=5,RCPTDOMAINMAX=3 +PIPELINING$`,
	} {
		if !regexp.MustCompile(line).MatchString(table) {
			t.Errorf("no line like %s in\n%s", line, table)
		}
	}
}

// A port that waits for TLS says nothing, and one behind a firewall does not even
// connect. Each is a line with the likely cause, and they are waited for together.
func TestACheckOfPortsThatSayNothingEndsWithTheLikelyCause(t *testing.T) {
	t.Parallel()
	silent, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = silent.Close() }()
	check := startBulkmail(t, []string{"BULKMAIL_RELAYS=smtp://" + silent.Addr().String() + "?name=tls&time_out=300ms&domain=client.test" +
		" smtp://" + deafPort(t) + "?name=deaf&time_out=300ms&tries=1&domain=client.test"}, "relays", "check")
	table := check.fails(t, "2 relays of 2 cannot be used")
	for _, line := range []string{
		`(?m)^tls +smtp://\S+ +CONNECT: connected, but no greeting in time: does this port speak TLS from the first byte \(smtps\)\? .*\(MBS015\) +\S+ `,
		`(?m)^deaf +smtp://\S+ +CONNECT: no answer: check host and port, or whether a firewall drops what we send.* \(MBS015\) +\S+ `,
	} {
		if !regexp.MustCompile(line).MatchString(table) {
			t.Errorf("no line like %s in\n%s", line, table)
		}
	}
}

// deafPort is an address that drops what it is sent: the queue of those who want to
// connect is full, and nobody takes them off it.
func deafPort(t *testing.T) string {
	t.Helper()
	fd, err := syscall.Socket(syscall.AF_INET, syscall.SOCK_STREAM, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = syscall.Close(fd) })
	if err := errors.Join(syscall.Bind(fd, &syscall.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}), syscall.Listen(fd, 0)); err != nil {
		t.Fatal(err)
	}
	name, err := syscall.Getsockname(fd)
	if err != nil {
		t.Fatal(err)
	}
	addr := fmt.Sprintf("127.0.0.1:%d", name.(*syscall.SockaddrInet4).Port)
	for range 10 {
		conn, err := net.DialTimeout("tcp", addr, 200*time.Millisecond)
		if err != nil {
			return addr
		}
		t.Cleanup(func() { _ = conn.Close() })
	}
	t.Fatal("the queue takes everybody")
	return ""
}

func TestAListShowsHowEveryWorkerFindsEveryRelay(t *testing.T) {
	t.Parallel()
	open := func(o sink.Options, rules ...string) string {
		var err error
		if o.Rules, err = sink.ParseRules(rules...); err != nil {
			t.Fatal(err)
		}
		server, err := sink.Start(o)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			if err := server.Close(context.WithoutCancel(t.Context())); err != nil {
				t.Error(err)
			}
		})
		return "smtp://" + server.Addr() + "?tls=none&domain=client.test&max_messages_per_robin=10&"
	}
	gone, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	_ = gone.Close()
	c := connected(t)
	env := []string{
		"BULKMAIL_NATS_URL=" + c.nc.ConnectedUrl(),
		"BULKMAIL_RELAYS=" + open(sink.Options{}) + "name=capped&max_messages=30 " +
			open(sink.Options{}) + "name=sleepy&max_messages_while_awake=20&sleep_length=1h " +
			open(sink.Options{}, "DATA=454 4.7.0 throttled, try again in 1 hour") + "name=throttled " +
			"smtp://" + gone.Addr().String() + "?name=gone&domain=client.test&tries=1&max_connection_attempts=1&worthless_for=0",
	}
	one, two := startBulkmail(t, env, "worker"), startBulkmail(t, env, "worker")
	names := []string{one.awaitLine(t, `working.* worker=(\S+)`), two.awaitLine(t, `working.* worker=(\S+)`)}
	var list strings.Builder
	for i := range 100 {
		fmt.Fprintf(&list, "r%d@d%d.test\n", i, i)
	}
	startBulkmail(t, env, "publish", "--from", "news@example.com", "--message", writeFile(t, "hello.eml", "From: news@example.com\nSubject: t\n\nhi\n"),
		"--campaign", "news", "--batch-size", "2", writeFile(t, "list.txt", list.String())).end(t)

	const at = `(\d{4}-\d\d-\d\dT)?\d\d:\d\d:\d\dZ`
	want := []string{
		`capped +30 +0 +0 +- +0 +-`,
		`sleepy +20 +0 +0 +- +0 +` + at,
	}
	for _, name := range names {
		want = append(want,
			name+` +capped +exhausted +- +\d+ +\d+ +(-|`+at+`) +-`,
			name+` +sleepy +asleep +`+at+` +\d+ +\d+ +(-|`+at+`) +-`,
			name+` +throttled +parked +`+at+` +\d+ +0 +- +`+at+` END: the server said 454 4.7.0 throttled, try again in 1 hour \(MBS013\)`,
			name+` +gone +worthless +- +0 +0 +- +`+at+` CONNECT: .*connection refused \(MBS003\)`,
		)
	}
	for deadline := time.Now().Add(waitAtMost); ; {
		shown := startBulkmail(t, env, "relays", "list").end(t)
		missing := ""
		for _, line := range want {
			if !regexp.MustCompile(`(?m)^` + line + `$`).MatchString(shown) {
				missing = line
			}
		}
		if missing == "" {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("no line like %s in\n%s", missing, shown)
		}
	}
	one.drain(t)
	two.drain(t)
}

// limitedServer greets and announces limits (RFC 9422).
func limitedServer(t *testing.T) (addr string) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var serving sync.WaitGroup
	t.Cleanup(func() {
		_ = l.Close()
		serving.Wait()
	})
	serving.Go(func() {
		conn, err := l.Accept()
		if err != nil {
			return
		}
		defer conn.Close()
		_, _ = io.WriteString(conn, "220 limited.test welcomes you\r\n")
		for lines := bufio.NewScanner(conn); lines.Scan(); {
			if strings.HasPrefix(lines.Text(), "QUIT") {
				_, _ = io.WriteString(conn, "221 2.0.0 bye\r\n")
				return
			}
			_, _ = io.WriteString(conn, "250-limited.test\r\n250-PIPELINING\r\n250-AUTH LOGIN\r\n250-SIZE 1000\r\n250 LIMITS RCPTMAX=20 MAILMAX=5 RCPTDOMAINMAX=3\r\n")
		}
	})
	return l.Addr().String()
}
