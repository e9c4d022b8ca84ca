//go:build crash

package crash_test

import (
	"fmt"
	"net/mail"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"bulkmail/envelope"
	"bulkmail/envelope/dkim"
)

// greeting is the template of the letters here.
const greeting = "From: News <news@example.com>\r\nTo: {{to}}\r\nSubject: {{first}}, hello\r\n\r\nDear {{first}}, it is {{month}}.\r\n{{unsubscribe_url}}\r\n"

// asLetters makes a batch one of letters.
func asLetters(b *envelope.Batch) {
	if b.MessageRef == "" {
		b.Message = greeting
	}
	b.Data = `{"month":"May"}`
	for i := range b.Recipients {
		b.Recipients[i].Letter = &envelope.Letter{Data: fmt.Sprintf(`{"first":"N%d"}`, i)}
	}
}

// signing makes a key, and returns the file that names it.
func signing(t testing.TB) string {
	t.Helper()
	dir := t.TempDir()
	key, err := dkim.Generate("ed25519")
	if err == nil {
		err = os.WriteFile(filepath.Join(dir, "key.pem"), key, 0o600)
	}
	file := filepath.Join(dir, "dkim.yaml")
	if err == nil {
		err = os.WriteFile(file, []byte("keys: [{domain: example.com, selector: s1, key_file: key.pem}]\n"), 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
	return file
}

// atItsTime are the tags of a signature that its time changes.
var atItsTime = regexp.MustCompile(`(?s) t=\d+;|\bb=[^;]*$`)

// timeless is a letter without what may differ when it is sent again.
func timeless(t testing.TB, letter string) string {
	t.Helper()
	read, err := mail.ReadMessage(strings.NewReader(letter))
	if err != nil {
		t.Fatalf("%v in\n%s", err, letter)
	}
	signature := read.Header.Get("DKIM-Signature")
	if signature == "" || read.Header.Get("Message-ID") == "" || read.Header.Get("Date") == "" {
		t.Errorf("without a signature, a Message-ID or a Date:\n%s", letter)
	}
	// The signature stands in front.
	_, rest, _ := strings.Cut(letter, "\r\nFrom: ")
	return atItsTime.ReplaceAllString(signature, "") + "\r\nFrom: " + rest
}

// checkLetters looks that a letter that came again, whether or not the first was
// accepted, is the same but for the time of its signature.
func (s *sink) checkLetters(t testing.TB, duplicates int) {
	t.Helper()
	s.mu.Lock()
	defer s.mu.Unlock()
	first := make(map[string]string)
	recipients := make(map[string]string) // by Message-ID
	again := 0
	for _, tx := range s.transactions {
		if tx.letter == "" {
			continue
		}
		if len(tx.recipients) != 1 {
			t.Errorf("a letter for %v", tx.recipients)
			continue
		}
		to, letter := tx.recipients[0], timeless(t, tx.letter)
		if known, ok := first[to]; ok {
			again++
			if known != letter {
				t.Errorf("%s got another letter, first\n%s\nthen\n%s", to, known, letter)
			}
			continue
		}
		first[to] = letter
		id, _, _ := strings.Cut(letter[strings.Index(letter, "\r\nMessage-ID: ")+2:], "\r\n")
		if other, ok := recipients[id]; ok {
			t.Errorf("%s and %s have one %s", other, to, id)
		}
		recipients[id] = to
	}
	if again == 0 {
		t.Error("no letter was sent again")
	}
	t.Logf("%d letters, %d of them were sent again, the same but for the time of the signature; %d accepted twice", len(first), again, duplicates)
}
