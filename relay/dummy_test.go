package relay

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"bulkmail/envelope"
	"bulkmail/relay/smtp"
)

func message(t testing.TB) *envelope.Message {
	t.Helper()
	return envelope.NewMessage("Subject: hello\n\n.Hello.\n")
}

func TestTheDummySaysTheDialogueToItsFileAndAcceptsEverything(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "dialogue")
	if err := os.WriteFile(path, []byte("before\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	p := NewPool([]Relay{named("dummy", &Dummy{Path: path, Domain: "here.example.com"}, func(c *Config) { c.EnvelopeLimit = 2 })}, Options{})
	l := newList(p, "x", 3)
	l.message = message(t)
	p.Add(l)
	<-l.finished
	closePool(t, p)
	got, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	const want = "before\n" +
		"EHLO here.example.com\r\n" +
		"MAIL FROM:<news@example.com>\r\nRCPT TO:<x-0@example.net>\r\nRCPT TO:<x-1@example.net>\r\n" +
		"DATA\r\nSubject: hello\r\n\r\n..Hello.\r\n.\r\n" +
		"MAIL FROM:<news@example.com>\r\nRCPT TO:<x-2@example.net>\r\n" +
		"DATA\r\nSubject: hello\r\n\r\n..Hello.\r\n.\r\n" +
		"QUIT\r\n"
	if string(got) != want {
		t.Errorf("the file has\n%s\nwant\n%s", got, want)
	}
	if l.by["dummy"] != 3 {
		t.Errorf("%v", l.by)
	}
}

func TestTheDummyWithoutAFileKeepsTheLimitsToo(t *testing.T) {
	t.Parallel()
	p := NewPool([]Relay{named("dummy", &Dummy{}, func(c *Config) { c.MaxMessages = 150 }), named("spare", &Dummy{})}, Options{})
	l := add(p, "x", 1000)
	<-l.finished
	closePool(t, p)
	if l.by["dummy"] > 150 || l.by["dummy"]+l.by["spare"] != 1000 {
		t.Errorf("%v", l.by)
	}
}

func TestTheDummyDoesNotEndAMessageThatIsCalledBack(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "dialogue")
	s, err := (&Dummy{Path: path}).Dial(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	cancelled := errors.New("cancelled")
	e := &smtp.Envelope{Recipients: envelope.To("a@example.net"), Message: smtp.Guarded(message(t), func(context.Context) error { return cancelled })}
	if err := s.Send(t.Context(), e, nil); !errors.Is(err, cancelled) {
		t.Errorf("error %v", err)
	}
	if e.Results[0].Status != smtp.NotAttempted || s.Usable() {
		t.Errorf("%+v, usable %v", e.Results[0], s.Usable())
	}
	_ = s.Close()
	if got, _ := os.ReadFile(path); strings.Contains(string(got), "DATA") {
		t.Errorf("the file has %q", got)
	}
}
