package smtp

import (
	"context"
	"fmt"
	"net"
	"strconv"
	"strings"
	"testing"
	"time"

	msgauth "github.com/emersion/go-msgauth/dkim"

	"bulkmail/envelope"
	"bulkmail/envelope/dkim"
	"bulkmail/envelope/letter"
	"bulkmail/relay/sink"
	"bulkmail/testdata"
)

// signedLetters are some letters of the shipped newsletter, as they leave: in
// quoted-printable, and one whose text is 8-bit and has dots and blanks in odd
// places.
func signedLetters(t *testing.T, key *dkim.Key) []*envelope.Message {
	t.Helper()
	odd := "From: News <news@example.com>\nTo: {{name}} <{{to}}>\nSubject:  two  blanks \n and a fold, {{name}}\n" +
		"Content-Type: text/plain; charset=utf-8\nContent-Transfer-Encoding: 8bit\n\n.\n..dots\ntrailing  \n\tf\u00fcr {{name}}\n\n\n"
	var messages []*envelope.Message
	var r letter.Renderer
	var signer dkim.Signer
	for i, raw := range []string{testdata.Newsletter, odd} {
		template, err := letter.Compile(raw, letter.Options{})
		if err != nil {
			t.Fatal(err)
		}
		for _, name := range []string{"Ann Lee", "J\u00f6rg, \"the Oar\" M\u00fcller", strings.Repeat("long ", 60)} {
			l, err := r.Render(template, &letter.Batch{Campaign: "c", Date: time.Now()}, &letter.Recipient{To: fmt.Sprintf("ok%d@example.net", i), Name: name}, false)
			if err != nil {
				t.Fatal(err)
			}
			signed, err := signer.Append(nil, l.Wire, dkim.Keys{key}, &dkim.Options{}, time.Now())
			if err != nil {
				t.Fatal(err)
			}
			m := envelope.WireMessage(append(signed, l.Wire...), l.Size+int64(len(signed)), l.EightBit, l.UTF8)
			messages = append(messages, &m)
		}
	}
	return messages
}

// Real servers that pass letters on add fields in front, and may fold and encode
// anew. At the end the signatures hold.
func TestASignatureHoldsAtTheEndOfRealRelays(t *testing.T) {
	t.Parallel()
	for name, start := range map[string]func(t *testing.T, host, port string) (addr string, push func()){
		"Postfix": func(t *testing.T, host, port string) (string, func()) {
			addr, _ := startPostfix(t, fmt.Sprintf("default_transport = smtp:[%s]:%s", host, port))
			return addr, func() {}
		},
		"Exim": func(t *testing.T, host, port string) (string, func()) {
			addr, dir := startEximAs(t, strings.NewReplacer("PIPELINING", "*", "driver = accept", "driver = manualroute\n  domains = *\n  route_list = * "+host+"\n  self = send",
				"driver = appendfile\n  file = /dev/null\n  user = Debian-exim", "driver = smtp\n  port = "+port+"\n  allow_localhost").Replace(eximConfig))
			return addr, func() {
				queue := peerCommand(peerProgram(t, "exim4"), "-C", dir+"/exim.conf", "-q")
				if out, err := queue.CombinedOutput(); err != nil {
					t.Errorf("%v: %s", err, out)
				}
			}
		},
		"OpenSMTPD": func(t *testing.T, host, port string) (string, func()) {
			addr, _ := startOpenSMTPDAs(t, "action \"onward\" relay host smtp://"+net.JoinHostPort(host, port)+"\nmatch from any for any action \"onward\"\n")
			return addr, func() {}
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			// OpenSMTPD has one queue a machine, and what it had passed on when it was
			// stopped may come once more: ours are known by their selector.
			selector := "s" + strconv.FormatInt(time.Now().UnixNano(), 36)
			arrived := make(chan string, 100)
			end, err := sink.Start(sink.Options{Message: func(_ sink.Transaction, message []byte) {
				if strings.Contains(string(message), selector) {
					arrived <- string(message)
				}
			}})
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { _ = end.Close(context.WithoutCancel(t.Context())) })
			host, port, err := net.SplitHostPort(end.Addr())
			if err != nil {
				t.Fatal(err)
			}
			addr, push := start(t, host, port)
			pem, err := dkim.Generate("rsa")
			if err != nil {
				t.Fatal(err)
			}
			key, err := dkim.NewKey("example.com", selector, pem)
			if err != nil {
				t.Fatal(err)
			}
			messages := signedLetters(t, key)
			var envelopes []*Envelope
			for i, m := range messages {
				envelopes = append(envelopes, &Envelope{From: "news@example.com", Message: Guarded(m, nil), Recipients: envelope.To(fmt.Sprintf("ok%d@example.net", i))})
			}
			if results := sendAll(t, plainDialer(addr), envelopes, 1); countAccepted(results) != len(messages) {
				t.Fatalf("%v", results)
			}
			push()
			for range messages {
				select {
				case text := <-arrived:
					holds(t, key, text)
				case <-time.After(time.Minute):
					t.Fatal("a letter did not arrive")
				}
			}
		})
	}
}

// holds asks a verifier that nobody here wrote.
func holds(t *testing.T, key *dkim.Key, text string) {
	t.Helper()
	found, err := msgauth.VerifyWithOptions(strings.NewReader(text), &msgauth.VerifyOptions{LookupTXT: func(string) ([]string, error) { return []string{key.Record()}, nil }})
	if err != nil || len(found) != 1 || found[0].Err != nil {
		for _, v := range found {
			err = v.Err
		}
		t.Errorf("%d signatures, %v:\n%s", len(found), err, text)
	}
	if !strings.Contains(text, "\nReceived: ") && !strings.HasPrefix(text, "Received: ") {
		t.Errorf("no relay has had it:\n%s", text)
	}
}
