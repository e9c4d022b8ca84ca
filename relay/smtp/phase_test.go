package smtp_test

import (
	"bufio"
	"context"
	"crypto/tls"
	"fmt"
	"net"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"bulkmail/envelope"
	"bulkmail/relay/sink"
	"bulkmail/relay/smtp"
)

func TestEachPhaseIsToldWithTheTimeItTook(t *testing.T) {
	t.Parallel()
	const delay = 30 * time.Millisecond
	web := httptest.NewUnstartedServer(nil)
	web.StartTLS()
	web.Close()
	rules, err := sink.ParseRules("RCPT:gone@example.net=550 5.1.1 no such user")
	if err != nil {
		t.Fatal(err)
	}
	server, err := sink.Start(sink.Options{
		TLS: &tls.Config{Certificates: web.TLS.Certificates}, User: "ann", Password: "secret", Delay: delay, Rules: rules,
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := server.Close(context.WithoutCancel(t.Context())); err != nil {
			t.Error(err)
		}
	})
	message := envelope.NewMessage("Subject: t\n\nhi\n")
	var told []smtp.Phase
	took := make(map[smtp.Phase]time.Duration)
	d := smtp.Dialer{
		Addr: server.Addr(), Domain: "client.test", TLS: smtp.Required, TLSVerify: smtp.VerifyNever, User: "ann", Password: "secret", Tries: 1,
		Took: func(p smtp.Phase, d time.Duration) { // one session, so one goroutine
			told = append(told, p)
			took[p] += d
		},
	}
	began := time.Now()
	s, err := d.Dial(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	// The second one has nobody left to send a message to.
	for _, to := range []string{"bob@example.net", "gone@example.net"} {
		if err := s.Send(t.Context(), &smtp.Envelope{From: "a@example.com", Recipients: envelope.To(to), Message: smtp.Guarded(message, nil)}, nil); err != nil {
			t.Fatal(err)
		}
	}
	all := time.Since(began)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	want := []smtp.Phase{smtp.PhaseConnect, smtp.PhaseGreeting, smtp.PhaseHello, smtp.PhaseTLS, smtp.PhaseHello, smtp.PhaseAuth,
		smtp.PhaseEnvelope, smtp.PhaseMessage, smtp.PhaseEnvelope}
	if diff := cmp.Diff(want, told); diff != "" {
		t.Error(diff)
	}
	var sum time.Duration
	for p, d := range took {
		if sum += d; d <= 0 {
			t.Errorf("%v took %v", p, d)
		}
	}
	if sum > all {
		t.Errorf("the phases took %v of %v", sum, all)
	}
	if took[smtp.PhaseMessage] < delay {
		t.Errorf("the message took %v, the server %v", took[smtp.PhaseMessage], delay)
	}
}

func TestAPhaseThatDoesNotComeToItsEndIsNotTold(t *testing.T) {
	t.Parallel()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	served := make(chan struct{})
	go func() { // greets, and hangs up at EHLO
		defer close(served)
		conn, err := l.Accept()
		if err != nil {
			return
		}
		defer conn.Close()
		fmt.Fprint(conn, "220 mx.test ESMTP\r\n")
		_, _ = bufio.NewReader(conn).ReadString('\n')
	}()
	var told []smtp.Phase
	d := smtp.Dialer{Addr: l.Addr().String(), Domain: "client.test", TLS: smtp.NoTLS, Tries: 1, Took: func(p smtp.Phase, _ time.Duration) {
		told = append(told, p)
	}}
	if _, err := d.Dial(t.Context()); err == nil {
		t.Error("there is a session")
	}
	<-served
	if diff := cmp.Diff([]smtp.Phase{smtp.PhaseConnect, smtp.PhaseGreeting}, told); diff != "" {
		t.Error(diff)
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	told = nil
	if _, err := d.Dial(t.Context()); err == nil || len(told) > 0 {
		t.Errorf("%v is told of a connection that is refused (%v)", told, err)
	}
}
