package sink_test

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"

	"bulkmail/relay/sink"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestAPipelinedMessageIsRecordedBeforeItIsAnswered(t *testing.T) {
	t.Parallel()
	var got []sink.Transaction
	s := start(t, sink.Options{Recorder: func(tx sink.Transaction) { got = append(got, tx) }})
	c := greeted(t, s)
	c.say("MAIL FROM:<news@example.com> BODY=8BITMIME", "RCPT TO:<ann@example.net>", `RCPT TO:<"b ob"@example.net>`,
		"DATA")
	c.expect("250", "250", "250", "354")
	c.say("Subject: t", "", "..dots", ".")
	c.expect("250")

	want := []sink.Transaction{{
		From: "news@example.com", Recipients: []string{"ann@example.net", "b ob@example.net"},
		Size:   int64(len("Subject: t\r\n\r\n.dots\r\n")),
		Digest: sha256.Sum256([]byte("Subject: t\r\n\r\n.dots\r\n")),
	}}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	c.say("QUIT")
	c.expect("221")
	c.expectEnd()
	counts := s.Counts()
	if counts.Connections != 1 || counts.Transactions != 1 || counts.Accepted != 2 || counts.Bytes != want[0].Size {
		t.Errorf("counts are\n%v", counts)
	}
}

func TestEHLOOffersWhatTheSinkCanDo(t *testing.T) {
	t.Parallel()
	c := dial(t, start(t, sink.Options{User: "ann", Password: "secret"}))
	c.expect("220 sink.test")
	c.say("EHLO client.test")
	offers := c.reply()
	for _, want := range []string{"PIPELINING", "8BITMIME", "SMTPUTF8", "DSN", "SIZE", "AUTH PLAIN", "CHUNKING"} {
		if !strings.Contains(offers, want) {
			t.Errorf("%s is not offered:\n%s", want, offers)
		}
	}
	if strings.Contains(offers, "STARTTLS") {
		t.Errorf("STARTTLS is offered without a certificate")
	}
}

func TestInternationalAddressesAndDSNAreTaken(t *testing.T) {
	t.Parallel()
	var got sink.Transaction
	c := greeted(t, start(t, sink.Options{Recorder: func(tx sink.Transaction) { got = tx }}))
	c.say("MAIL FROM:<> SMTPUTF8 RET=HDRS ENVID=x1", "RCPT TO:<jürgen@example.net> NOTIFY=FAILURE", "DATA")
	c.expect("250", "250", "354")
	c.say(".")
	c.expect("250")
	if got.From != "" || len(got.Recipients) != 1 || got.Recipients[0] != "jürgen@example.net" {
		t.Errorf("recorded %+v", got)
	}
}

func TestMoreRecipientsThanTheLimitAreDeferred(t *testing.T) {
	t.Parallel()
	s := start(t, sink.Options{MaxRcpt: 2})
	c := greeted(t, s)
	for range 2 { // the limit is a transaction's, not a session's
		rcpt, dot := c.send("a@example.com", "1@x.test", "2@x.test", "3@x.test")
		want := "452 4.5.3"
		if !strings.HasPrefix(rcpt[1], "250") || !strings.HasPrefix(rcpt[2], want) || !strings.HasPrefix(dot, "250") {
			t.Errorf("replies are %q, %q", rcpt, dot)
		}
	}
	if got := s.Counts(); got.Accepted != 4 || got.Deferred != 2 || got.Replies["RCPT 452 4.5.3"] != 2 {
		t.Errorf("counts are\n%v", got)
	}
}

func TestTheReplyToTheDotWaitsForTheDelay(t *testing.T) {
	t.Parallel()
	const delay = 50 * time.Millisecond
	c := greeted(t, start(t, sink.Options{Delay: delay}))
	begin := time.Now()
	c.send("a@example.com", "1@x.test")
	if took := time.Since(begin); took < delay {
		t.Errorf("answered after %v, want %v or more", took, delay)
	}
}

func TestAMailWithinATransactionIsRefusedAndChangesNothing(t *testing.T) {
	t.Parallel()
	var got sink.Transaction
	s := start(t, sink.Options{Recorder: func(tx sink.Transaction) { got = tx }}, "RCPT:no@*=550 5.1.1 no")
	c := greeted(t, s)
	c.say("MAIL FROM:<first@example.com>", "RCPT TO:<no@x.test>",
		"MAIL FROM:<second@example.com>", "RCPT TO:<yes@x.test>", "DATA")
	c.expect("250", "550", "503 5.5.1", "250", "354")
	c.say(".")
	c.expect("250")
	if got.From != "first@example.com" {
		t.Errorf("sender is %q: real servers keep that of the open transaction", got.From)
	}
	c.say("MAIL FROM:<third@example.com>", "RSET", "MAIL FROM:<fourth@example.com>")
	c.expect("250", "250", "250")
}

func TestBDATIsTakenAndOneThatBreaksOffIsNot(t *testing.T) {
	t.Parallel()
	var got []sink.Transaction
	s := start(t, sink.Options{Recorder: func(tx sink.Transaction) { got = append(got, tx) }})
	c := greeted(t, s)
	c.say("MAIL FROM:<a@example.com>", "RCPT TO:<1@x.test>", "BDAT 7", "hello")
	c.expect("250", "250", "250")
	if err := c.tcp.CloseWrite(); err != nil {
		t.Fatal(err)
	}
	c.expectEnd()
	c = greeted(t, s)
	c.say("MAIL FROM:<b@example.com>", "RCPT TO:<2@x.test>", "BDAT 7", "hello", "BDAT 4 LAST", "hi")
	c.expect("250", "250", "250", "250")
	if len(got) != 1 || got[0].From != "b@example.com" || got[0].Size != 11 {
		t.Errorf("recorded %+v", got)
	}
}

func TestMessagesArriveOnceWhileCountsAndRulesAreInUse(t *testing.T) {
	t.Parallel()
	var mu sync.Mutex
	seen := map[string]int{}
	s := start(t, sink.Options{Recorder: func(tx sink.Transaction) {
		mu.Lock()
		defer mu.Unlock()
		for _, r := range tx.Recipients {
			seen[r]++
		}
	}})

	const sessions, transactions, recipients = 4, 25, 10
	var wg sync.WaitGroup
	for i := range sessions {
		wg.Go(func() {
			c := greeted(t, s)
			for j := range transactions {
				var to []string
				for k := range recipients {
					to = append(to, fmt.Sprintf("%d.%d.%d@x.test", i, j, k))
				}
				c.send("a@example.com", to...)
			}
		})
	}
	for range 100 {
		s.SetRules(parse(t, "RCPT first 1:*@defer.test=451 later"))
		_ = s.Counts().String()
	}
	wg.Wait()

	if len(seen) != sessions*transactions*recipients {
		t.Errorf("%d recipients seen", len(seen))
	}
	for r, n := range seen {
		if n != 1 {
			t.Errorf("%s seen %d times", r, n)
		}
	}
	got := s.Counts()
	if got.Accepted != int64(len(seen)) || got.Connections != sessions || got.PeakSessions > sessions {
		t.Errorf("counts are\n%v", got)
	}
}

func TestCloseTells421ToIdleSessionsAndTakesNothingThatWaits(t *testing.T) {
	t.Parallel()
	s := start(t, sink.Options{Delay: time.Hour, Recorder: func(sink.Transaction) { t.Error("recorded") }})
	idle, halfway, waiting, grouped := greeted(t, s), greeted(t, s), greeted(t, s), greeted(t, s)
	for _, c := range []*client{halfway, waiting} {
		c.say("MAIL FROM:<a@example.com>", "RCPT TO:<1@x.test>", "DATA")
		c.expect("250", "250", "354")
	}
	halfway.say("Subject: t")
	waiting.say("Subject: t", "", "hi", ".")
	// What is answered already must not wait for the dot's reply.
	grouped.say("MAIL FROM:<a@example.com>", "RCPT TO:<1@x.test>", "DATA", "Subject: t", "", "hi", ".")
	grouped.expect("250", "250", "354")

	if err := s.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	for _, c := range []*client{idle, halfway, waiting, grouped} {
		c.expect("421")
		c.expectEnd()
	}
	if got := s.Counts(); got.Transactions != 0 || got.Accepted != 0 {
		t.Errorf("counts are\n%v", got)
	}
	if _, err := net.Dial("tcp", s.Addr()); err == nil {
		t.Error("still listening")
	}
	if err := s.Close(t.Context()); err != nil {
		t.Errorf("closed again: %v", err)
	}
}

func TestCloseGivesUpOnARecorderThatDoesNotReturn(t *testing.T) {
	t.Parallel()
	entered, leave := make(chan struct{}), make(chan struct{})
	s, err := sink.Start(sink.Options{Recorder: func(sink.Transaction) { close(entered); <-leave }})
	if err != nil {
		t.Fatal(err)
	}
	defer close(leave)
	c := greeted(t, s)
	c.say("MAIL FROM:<a@example.com>", "RCPT TO:<1@x.test>", "DATA", ".")
	<-entered
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := s.Close(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("error is %v", err)
	}
}

func TestCloseDoesNotWaitForAClientThatDoesNotRead(t *testing.T) {
	t.Parallel()
	s := start(t, sink.Options{})
	c := greeted(t, s)
	// Replies that nobody reads fill both buffers, and then the sink's session
	// stands in its write, and this client in its own.
	c.tcp.SetWriteDeadline(time.Now().Add(200 * time.Millisecond))
	noops := []byte(strings.Repeat("NOOP\r\n", 10_000))
	for {
		if _, err := c.tcp.Write(noops); err != nil {
			break
		}
	}
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	if err := s.Close(ctx); err != nil {
		t.Error(err)
	}
}

func TestPeakSessionsAreThoseOpenAtOnce(t *testing.T) {
	t.Parallel()
	s := start(t, sink.Options{})
	for range 3 {
		c := greeted(t, s)
		c.say("QUIT")
		c.expect("221")
		c.expectEnd()
	}
	greeted(t, s)
	greeted(t, s)
	if got := s.Counts(); got.Connections != 5 || got.PeakSessions != 2 {
		t.Errorf("counts are\n%v", got)
	}
}

func TestAnAddressInUseIsSaidSo(t *testing.T) {
	t.Parallel()
	s := start(t, sink.Options{})
	_, err := sink.Start(sink.Options{Listen: s.Addr()})
	if err == nil || !strings.Contains(err.Error(), "address already in use") ||
		!strings.Contains(err.Error(), "choose another address") {
		t.Errorf("error is %v", err)
	}
}

func TestCountsReadAsATable(t *testing.T) {
	t.Parallel()
	s := start(t, sink.Options{}, "RCPT:*@no.test=550 5.1.1 no", "DATA:*@later.test=451 later")
	c := greeted(t, s)
	c.send("a@example.com", "1@x.test", "2@x.test", "3@no.test")
	c.send("a@example.com", "4@later.test")
	want := `connections                   1
peak sessions                 1
transactions                  1
recipients accepted           2
recipients rejected           1
recipients deferred           1
bytes                        21
  DATA 250                    1
  DATA 451                    1
  EHLO 250                    1
  MAIL 250                    2
  RCPT 250                    3
  RCPT 550 5.1.1              1`
	if diff := cmp.Diff(want, s.Counts().String()); diff != "" {
		t.Error(diff)
	}
}

// smtp-source is Postfix' own load generator: a client that is not ours.
func TestSMTPSourceAndTheSinkAgreeOnTheCount(t *testing.T) {
	t.Parallel()
	source, err := exec.LookPath("smtp-source")
	if err != nil {
		if os.Getenv("BULKMAIL_REQUIRE_PEERS") != "" {
			t.Fatal("smtp-source is missing: apt-get install postfix")
		}
		t.Skip("smtp-source is missing: apt-get install postfix")
	}
	s := start(t, sink.Options{})
	out, err := exec.CommandContext(t.Context(), source, "-s", "4", "-m", "40", "-r", "50", "-l", "2000",
		"-f", "a@example.com", "-t", "b@example.net", s.Addr()).CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	got := s.Counts()
	if got.Transactions != 40 || got.Accepted != 40*50 || got.Bytes < 40*2000 {
		t.Errorf("counts are\n%v", got)
	}
}
