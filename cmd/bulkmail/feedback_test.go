package main

import (
	"crypto/tls"
	"crypto/x509"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"bulkmail/envelope/keys"
)

// The whole way: a letter with its address, a POST, and the next letter that does not
// leave.
func TestWhoUnsubscribesGetsNoMoreLetters(t *testing.T) {
	t.Parallel()
	const secret = "0123456789012345678901234567"
	k, err := keys.New("k1", secret)
	if err != nil {
		t.Fatal(err)
	}
	cert, key := keyPair(t)
	env := []string{
		"BULKMAIL_KEYS_FILE=" + writeFile(t, "keys", k.Line()+"\n"), "BULKMAIL_RELAYS=dummy:///dev/null?domain=client.test",
		"BULKMAIL_UNSUBSCRIBE_URL=https://news.example.com/u/", "BULKMAIL_DATA_DIR=" + filepath.Join(t.TempDir(), "data"), "BULKMAIL_LISTEN=127.0.0.1:0",
		"BULKMAIL_FEEDBACK_HTTP=127.0.0.1:0", "BULKMAIL_FEEDBACK_TLS_CERT=" + cert, "BULKMAIL_FEEDBACK_TLS_KEY=" + key,
	}
	worker := startBulkmail(t, env, "worker")
	env = append(env, "BULKMAIL_NATS_URL="+worker.awaitLine(t, `broker embedded.* url=(nats://\S+)`))
	worker.awaitLine(t, "working")
	desk := startBulkmail(t, env, "feedback")
	address := "https://" + desk.awaitLine(t, `taking unsubscribes.* addr=(\S+)`)
	message := writeFile(t, "hello.eml", "From: news@example.com\nSubject: t\n\nhi\n")
	list := writeFile(t, "list.txt", "ann@example.net\nbob@example.net\n")
	publish := func(campaign string) string {
		startBulkmail(t, env, "publish", "--letters", "--list", "weekly", "--from", "news@example.com", "--message", message, "--campaign", campaign, "--wait", list).end(t)
		return startBulkmail(t, env, "outcomes", campaign).end(t)
	}
	if out := publish("c1"); strings.Count(out, ",accepted,") != 2 {
		t.Fatalf("before:\n%s", out)
	}
	pem, err := os.ReadFile(cert)
	if err != nil {
		t.Fatal(err)
	}
	trusted := x509.NewCertPool()
	trusted.AppendCertsFromPEM(pem)
	client := http.Client{Transport: &http.Transport{DisableKeepAlives: true, TLSClientConfig: &tls.Config{RootCAs: trusted}}}
	token := string(k.Maker().AppendToken(nil, keys.Subscription{Campaign: "c1", List: "weekly", Mailbox: "ann@example.net"}))
	unsubscribe(t, &client, address+"/u/"+token)
	if out := publish("c2"); !strings.Contains(out, "ann@example.net,suppressed,,0,,unsubscribed,") || strings.Count(out, ",accepted,") != 1 {
		t.Errorf("after:\n%s", out)
	}
	desk.drain(t)
	worker.drain(t)
}

// unsubscribe posts as a mail program does, until that is taken.
func unsubscribe(t *testing.T, client *http.Client, address string) {
	t.Helper()
	for end := time.Now().Add(waitAtMost); time.Now().Before(end); {
		r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, address, strings.NewReader("List-Unsubscribe=One-Click"))
		if err != nil {
			t.Fatal(err)
		}
		r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		answer, err := client.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		_ = answer.Body.Close()
		if answer.StatusCode == http.StatusOK {
			return
		}
		if answer.StatusCode != http.StatusServiceUnavailable { // it has not read what is stored
			t.Fatal(answer.Status)
		}
	}
	t.Fatal("not ready")
}
