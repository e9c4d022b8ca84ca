package worker_test

import (
	"bytes"
	"fmt"
	"io"
	"net"
	"net/mail"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	msgauth "github.com/emersion/go-msgauth/dkim"

	"bulkmail/envelope"
	"bulkmail/envelope/dkim"
	"bulkmail/envelope/keys"
	"bulkmail/relay"
	"bulkmail/relay/sink"
	"bulkmail/subjects"
	"bulkmail/subjects/campaign"
	"bulkmail/worker"
)

// greeting is a template with a value in the header, in a text that is 7bit, and an
// unsubscribe link.
const greeting = "From: News <news@example.com>\r\nTo: {{name|}} <{{to}}>\r\nSubject: Hello {{first}}\r\n" +
	"Content-Type: text/plain; charset=utf-8\r\n\r\nDear {{first|friend}}, it is {{month}}.\r\n{{unsubscribe_url}}\r\n"

// A letterbox keeps what arrives, by recipient.
type letterbox struct {
	*postOffice
	mu      sync.Mutex
	letters map[string][]string
}

func openLetterbox(t testing.TB, rules ...string) *letterbox {
	t.Helper()
	l := &letterbox{letters: make(map[string][]string)}
	l.postOffice = openSink(t, sink.Options{Message: func(tx sink.Transaction, message []byte) {
		l.mu.Lock()
		defer l.mu.Unlock()
		for _, to := range tx.Recipients {
			l.letters[to] = append(l.letters[to], string(message))
		}
		if len(tx.Recipients) > 1 {
			t.Errorf("an envelope of %d recipients", len(tx.Recipients))
		}
	}}, rules...)
	return l
}

// of returns the letters that somebody got.
func (l *letterbox) of(t testing.TB, to string, want int) []string {
	t.Helper()
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.letters[to]) != want {
		t.Fatalf("%s got %d letters, want %d", to, len(l.letters[to]), want)
	}
	return l.letters[to]
}

func letterTo(to, name, data string) envelope.Recipient {
	return envelope.Recipient{Address: to, Letter: &envelope.Letter{Name: name, Data: data}}
}

// signing makes options with a key that signs for example.com, and those who verify it.
func signing(t testing.TB) (worker.LetterOptions, dkim.Keys) {
	t.Helper()
	text, err := dkim.Generate("ed25519")
	if err != nil {
		t.Fatal(err)
	}
	key, err := dkim.NewKey("example.com", "s1", text)
	if err != nil {
		t.Fatal(err)
	}
	secret, err := keys.New("k1", strings.Repeat("secret--", 4))
	if err != nil {
		t.Fatal(err)
	}
	return worker.LetterOptions{Keys: keys.Keys{secret}, DKIM: dkim.Keys{key}, UnsubscribeURL: "https://news.example.com/u/"}, dkim.Keys{key}
}

// verify asks a verifier that nobody here wrote; it wants one signature.
func verify(t testing.TB, by dkim.Keys, message string) {
	t.Helper()
	found, err := msgauth.VerifyWithOptions(strings.NewReader(message), &msgauth.VerifyOptions{LookupTXT: func(name string) ([]string, error) {
		i := slices.IndexFunc(by, func(k *dkim.Key) bool { return k.Name() == name })
		if i < 0 {
			return nil, fmt.Errorf("no record at %s", name)
		}
		return []string{by[i].Record()}, nil
	}})
	if err != nil || len(found) != 1 {
		t.Fatalf("%d signatures, %v in\n%s", len(found), err, message)
	}
	if found[0].Err != nil {
		t.Errorf("%v of\n%s", found[0].Err, message)
	}
}

func field(t testing.TB, message, name string) string {
	t.Helper()
	read, err := mail.ReadMessage(strings.NewReader(message))
	if err != nil {
		t.Fatalf("%v in\n%s", err, message)
	}
	return read.Header.Get(name)
}

func TestEachRecipientOfABatchOfLettersGetsALetterMergedAndSigned(t *testing.T) {
	t.Parallel()
	h, post := newHouse(t), openLetterbox(t)
	o, by := signing(t)
	h.hire(t, worker.Options{Letters: o}, post.relay(t))
	h.publish(t, "c", envelope.Batch{ID: "1", Message: greeting, Data: `{"month":"May"}`, Recipients: []envelope.Recipient{
		letterTo("ann@example.net", "Ann Lee", `{"first":"Ann"}`),
		letterTo("bob@example.net", "", `{"first":"Bøb","month":"June"}`),
		letterTo("cat@example.org", "Cat", `{"first":"C"}`),
	}})
	l := h.ledger(t, "c", "1")
	l.until(subjects.Done)
	if l.tally()[subjects.Accepted] != 3 {
		t.Fatalf("outcomes: %v", l.newest)
	}
	ann := post.of(t, "ann@example.net", 1)[0]
	for _, want := range []string{"To: Ann Lee <ann@example.net>\r\n", "Subject: Hello Ann\r\n", "Dear Ann, it is May.\r\n", "List-Unsubscribe: <https://news.example.com/u/", "MIME-Version: 1.0\r\n"} {
		if !strings.Contains(ann, want) {
			t.Errorf("no %q in\n%s", want, ann)
		}
	}
	bob := post.of(t, "bob@example.net", 1)[0]
	for _, want := range []string{"Subject: Hello =?", "Dear B=C3=B8b, it is June"} {
		if !strings.Contains(bob, want) {
			t.Errorf("no %q in\n%s", want, bob)
		}
	}
	ids := make(map[string]bool)
	for _, to := range []string{"ann@example.net", "bob@example.net", "cat@example.org"} {
		text := post.of(t, to, 1)[0]
		verify(t, by, text)
		ids[field(t, text, "Message-ID")+field(t, text, "List-Unsubscribe")] = true
	}
	if len(ids) != 3 {
		t.Error("letters share a Message-ID or an unsubscribe link")
	}
}

func TestALetterThatCannotBeMadeIsItsRecipientsOutcomeAlone(t *testing.T) {
	t.Parallel()
	h, post := newHouse(t), openLetterbox(t)
	o, _ := signing(t)
	w := h.hire(t, worker.Options{Letters: o}, post.relay(t))
	list := []envelope.Recipient{
		letterTo("missing@example.net", "", `{}`),
		letterTo("crlf@example.net", "", `{"first":"x\r\nBcc: all@example.net"}`),
		letterTo("nul@example.net", "", `{"first":"a\u0000b"}`),
		letterTo("big@example.net", "", `{"first":"`+strings.Repeat("x", 40<<10)+`"}`),
	}
	for i := range 20 {
		list = append(list, letterTo(fmt.Sprintf("good%d@example.net", i), "", fmt.Sprintf(`{"first":"G%d"}`, i)))
	}
	h.publish(t, "c", envelope.Batch{ID: "1", Message: greeting, Data: `{"month":"May"}`, Recipients: list})
	l := h.ledger(t, "c", "1")
	if done := l.until(subjects.Done); done.Attempt != 1 {
		t.Errorf("it took %d attempts", done.Attempt)
	}
	if got := l.tally(); got[subjects.Accepted] != 20 || got[subjects.Rejected] != 4 {
		t.Errorf("outcomes: %v", got)
	}
	for to, reason := range map[string]string{"missing": "first", "crlf": "first", "nul": "first", "big": "data"} {
		o := l.newest[to+"@example.net"]
		if o.code != 554 || o.relay != "" || !strings.HasPrefix(o.text, "not sent: ") || !strings.Contains(o.text, reason) {
			t.Errorf("%s: %+v", to, o)
		}
	}
	if n := post.Counts().Replies["MAIL 250"]; n != 20 {
		t.Errorf("MAIL was said %d times for 20 letters", n)
	}
	if s := w.pool.Status()[0]; s.State != relay.Awake {
		t.Errorf("the relay is %v", s.State)
	}
}

func TestALetterThatIsSentAgainIsTheSameLetter(t *testing.T) {
	t.Parallel()
	for name, rule := range map[string]string{"deferred": "DATA first 1:*@example.net=451 4.2.0 later", "in doubt": "DATA first 1:*@example.net=take-and-drop"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h, post := newHouse(t), openLetterbox(t, rule)
			o, by := signing(t)
			h.hireWith(t, worker.Options{Letters: o, RetryDelays: worker.Schedule{1100 * time.Millisecond}},
				relay.Options{Backoff: time.Millisecond, DialBackoff: time.Millisecond}, post.relay(t))
			h.publish(t, "c", envelope.Batch{ID: "1", Message: greeting, Data: `{"month":"May"}`, Recipients: []envelope.Recipient{
				letterTo("ann@example.net", "Ann", `{"first":"Ann"}`), letterTo("bob@example.org", "Bob", `{"first":"Bob"}`),
			}})
			l := h.ledger(t, "c", "1")
			done := l.until(subjects.Done)
			if l.tally()[subjects.Accepted] != 2 {
				t.Fatalf("outcomes: %v", l.newest)
			}
			n := 1
			if name == "in doubt" {
				n = 2
			}
			letters := post.of(t, "ann@example.net", n)
			again := letters[n-1]
			verify(t, by, again)
			if !strings.Contains(again, "Dear Ann, it is May.\r\n") {
				t.Errorf("without its data:\n%s", again)
			}
			bob := post.of(t, "bob@example.org", 1)[0]
			if field(t, again, "Date") != field(t, bob, "Date") {
				t.Errorf("attempt %d is of %s, the first of %s", done.Attempt, field(t, again, "Date"), field(t, bob, "Date"))
			}
			if n == 2 && unsigned(letters[0]) != unsigned(letters[1]) {
				t.Errorf("not the same letter:\n%s\n%s", letters[0], letters[1])
			}
		})
	}
}

var signature = regexp.MustCompile(`(?s)^DKIM-Signature:.*?\r\n([^ ])`)

func unsigned(letter string) string { return signature.ReplaceAllString(letter, "$1") }

func TestAKeyPutInFrontBetweenAttemptsChangesNoMessageID(t *testing.T) {
	t.Parallel()
	h, post := newHouse(t), openLetterbox(t, "DATA first 1:*=take-and-drop")
	o, _ := signing(t)
	first := h.hire(t, worker.Options{Letters: o, RetryDelays: worker.Schedule{time.Hour}}, post.relay(t))
	h.publish(t, "c", envelope.Batch{ID: "1", Message: greeting, Data: `{"month":"May"}`, Recipients: []envelope.Recipient{letterTo("ann@example.net", "Ann", `{"first":"Ann"}`)}})
	l := h.ledger(t, "c", "1")
	l.until(subjects.Recorded)
	first.leave(t)
	other, err := keys.New("k2", strings.Repeat("another-", 4))
	if err != nil {
		t.Fatal(err)
	}
	rotated := o
	rotated.Keys = keys.Keys{other, o.Keys[0]}
	// Published again: the first delivery rests for an hour.
	h.hire(t, worker.Options{Letters: rotated}, post.relay(t))
	h.publish(t, "c", envelope.Batch{ID: "1", Message: greeting, Data: `{"month":"May"}`, Recipients: []envelope.Recipient{letterTo("ann@example.net", "Ann", `{"first":"Ann"}`)}})
	l.until(subjects.Done)
	letters := post.of(t, "ann@example.net", 2)
	if unsigned(letters[0]) != unsigned(letters[1]) {
		t.Errorf("not the same letter:\n%s\n%s", letters[0], letters[1])
	}
}

func TestExpiredLettersKeepTheirDataInTheDeadLetter(t *testing.T) {
	t.Parallel()
	h, post := newHouse(t), openLetterbox(t, "DATA:*=451 4.2.0 later")
	o, _ := signing(t)
	h.hire(t, worker.Options{Letters: o, RetryFor: time.Millisecond}, post.relay(t))
	h.publish(t, "c", envelope.Batch{ID: "1", Message: greeting, Data: `{"month":"May"}`, Recipients: []envelope.Recipient{letterTo("ann@example.net", "Ann Lee", `{"first":"Ann"}`)}})
	h.ledger(t, "c", "1").until(subjects.Done)
	dead, err := envelope.Decode(h.tail(t, h.names.DeadStream(), h.names.Dead("c")).next().Data())
	if err != nil {
		t.Fatal(err)
	}
	if to := dead.Recipients[0]; dead.Data != `{"month":"May"}` || to.Letter == nil || *to.Letter != (envelope.Letter{Name: "Ann Lee", Data: `{"first":"Ann"}`}) {
		t.Errorf("the dead letter is %+v", dead)
	}
}

// without8Bit is the way to a relay that does not offer 8BITMIME.
func without8Bit(t testing.TB, address string) string {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var running sync.WaitGroup
	t.Cleanup(func() { _ = listener.Close(); running.Wait() })
	running.Go(func() {
		for {
			client, err := listener.Accept()
			if err != nil {
				return
			}
			server, err := net.Dial("tcp", address)
			if err != nil {
				_ = client.Close()
				return
			}
			running.Go(func() { _, _ = io.Copy(server, client); _ = server.Close() })
			running.Go(func() {
				defer client.Close()
				buf := make([]byte, 4<<10)
				for {
					n, err := server.Read(buf)
					if _, werr := client.Write(bytes.ReplaceAll(buf[:n], []byte("8BITMIME"), []byte("XSEVEN"))); err != nil || werr != nil {
						return
					}
				}
			})
		}
	})
	return listener.Addr().String()
}

func TestARelayWithout8BitMIMEGetsWhatIsSentEncoded(t *testing.T) {
	t.Parallel()
	h, post := newHouse(t), openLetterbox(t)
	o, by := signing(t)
	h.hire(t, worker.Options{Letters: o}, smtpRelay(t, "sink", without8Bit(t, post.Addr())))
	many := "From: news@example.com\r\nSubject: H\xc3\xb6he\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Transfer-Encoding: 8bit\r\n\r\nGr\xc3\xbc\xc3\x9fe\r\n"
	h.publish(t, "letters", envelope.Batch{ID: "1", Message: greeting, Data: `{"month":"März"}`, Recipients: []envelope.Recipient{letterTo("ann@example.net", "", `{"first":"Ännchen"}`)}})
	h.publish(t, "many", envelope.Batch{ID: "1", Message: many, Recipients: envelope.To("bob@example.net")})
	h.ledger(t, "letters", "1").until(subjects.Done)
	h.ledger(t, "many", "1").until(subjects.Done)
	for to, want := range map[string]string{"ann@example.net": "Dear =C3=84nnchen, it is M=C3=A4rz", "bob@example.net": "Gr=C3=BC=C3=9Fe"} {
		text := post.of(t, to, 1)[0]
		if !strings.Contains(text, want) || strings.ContainsFunc(text, func(r rune) bool { return r > 126 }) {
			t.Errorf("%s got\n%s", to, text)
		}
		verify(t, by, text)
	}
}

func TestWhatARelayAddsItselfIsLeftUnsigned(t *testing.T) {
	t.Parallel()
	h, post := newHouse(t), openLetterbox(t)
	o, by := signing(t)
	h.hire(t, worker.Options{Letters: o}, post.relay(t, func(c *relay.Config) { c.DKIMUnsigned = "message-id,date" }))
	h.publish(t, "c", envelope.Batch{ID: "1", Message: greeting, Data: `{"month":"May"}`, Recipients: []envelope.Recipient{letterTo("ann@example.net", "", `{"first":"Ann"}`)}})
	h.ledger(t, "c", "1").until(subjects.Done)
	// As Amazon SES does.
	text := post.of(t, "ann@example.net", 1)[0]
	text = regexp.MustCompile(`(?m)^(Message-ID|Date):.*\r\n`).ReplaceAllString(text, "")
	verify(t, by, "Date: Thu, 01 Jan 1970 00:00:00 +0000\r\nMessage-ID: <other@amazonses.example>\r\n"+text)
}

func TestARelayThatSignsItselfGetsNoSignature(t *testing.T) {
	t.Parallel()
	h, post := newHouse(t), openLetterbox(t)
	o, _ := signing(t)
	h.hire(t, worker.Options{Letters: o}, post.relay(t, func(c *relay.Config) { c.DKIM = relay.Off }))
	h.publish(t, "c", envelope.Batch{ID: "1", Message: greeting, Data: `{"month":"May"}`, Recipients: []envelope.Recipient{letterTo("ann@example.net", "", `{"first":"Ann"}`)}})
	h.ledger(t, "c", "1").until(subjects.Done)
	if text := post.of(t, "ann@example.net", 1)[0]; strings.Contains(text, "DKIM-Signature") {
		t.Errorf("signed:\n%s", text)
	}
}

func TestAMessageToManyGetsWhatItLacksAndLosesBcc(t *testing.T) {
	t.Parallel()
	h, post := newHouse(t), openLetterbox(t)
	o, by := signing(t)
	w := h.hire(t, worker.Options{Letters: o}, post.relay(t))
	raw := "From: a@example.com\r\nFrom: b@example.com\r\nBcc: boss@example.com\r\nSubject: t\r\n\r\n" + strings.Repeat("x", 1200) + "\r\n"
	for id, to := range map[string]string{"1": "ann@example.net", "2": "bob@example.org"} {
		h.publish(t, "c", envelope.Batch{ID: id, Message: raw, Recipients: envelope.To(to)})
		h.ledger(t, "c", id).until(subjects.Done)
	}
	ann, bob := post.of(t, "ann@example.net", 1)[0], post.of(t, "bob@example.org", 1)[0]
	for _, name := range []string{"Date", "Message-ID", "MIME-Version"} {
		if field(t, ann, name) == "" {
			t.Errorf("no %s in\n%s", name, ann)
		}
	}
	if strings.Contains(ann, "boss") || strings.Contains(ann, strings.Repeat("x", 999)) {
		t.Errorf("with Bcc, or a long line:\n%s", ann)
	}
	if field(t, ann, "Message-ID") != field(t, bob, "Message-ID") {
		t.Error("one message has two Message-IDs")
	}
	// It is the one that publish makes with the same key.
	if want := o.Keys[0].Maker().AppendMessageID([]byte("<"), "c", "", campaign.Digest(raw)); field(t, ann, "Message-ID") != string(want)+"@example.com>" {
		t.Errorf("Message-ID %s, want %s", field(t, ann, "Message-ID"), want)
	}
	if !strings.HasPrefix(ann, "DKIM-Signature: ") || len(by) == 0 {
		t.Errorf("unsigned:\n%s", ann)
	}
	if n := w.log.count("message sent as it is, publish would refuse it"); n != 1 {
		t.Errorf("its problem was said %d times", n)
	}
}

func TestWorkersWithoutAKeysFileShareAKeyOnTheBroker(t *testing.T) {
	t.Parallel()
	h, post := newHouse(t), openLetterbox(t, "DATA first 1:*=take-and-drop")
	batch := envelope.Batch{ID: "1", Message: strings.ReplaceAll(greeting, "{{unsubscribe_url}}", ""), Data: `{"month":"May"}`, Recipients: []envelope.Recipient{letterTo("ann@example.net", "Ann", `{"first":"Ann"}`)}}
	first := h.hire(t, worker.Options{RetryDelays: worker.Schedule{time.Hour}}, post.relay(t))
	h.publish(t, "c", batch)
	l := h.ledger(t, "c", "1")
	l.until(subjects.Recorded)
	first.leave(t)
	h.hire(t, worker.Options{}, post.relay(t))
	h.publish(t, "c", batch)
	l.until(subjects.Done)
	letters := post.of(t, "ann@example.net", 2)
	if id := field(t, letters[0], "Message-ID"); id == "" || id != field(t, letters[1], "Message-ID") {
		t.Errorf("Message-IDs %s and %s", id, field(t, letters[1], "Message-ID"))
	}
}
