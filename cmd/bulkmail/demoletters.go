package main

import (
	"bytes"
	"fmt"
	"io"
	"iter"
	"os"
	"path/filepath"
	"strings"
	"sync"

	"bulkmail/envelope/dkim"
	"bulkmail/envelope/escape"
	"bulkmail/envelope/keys"
	"bulkmail/envelope/list"
	"bulkmail/relay/sink"
	"bulkmail/subjects/campaign"
	"bulkmail/testdata"
	"bulkmail/worker/runner"
)

// demoFor gets the letter that the demo shows.
const demoFor = "ann@example.net"

// demoKeys has workers make and sign letters with keys that are made for them.
func demoKeys(dir string, o *runner.Options) error {
	key, err := keys.Generate("demo")
	if err != nil {
		return err
	}
	signing, err := dkim.Generate("rsa")
	if err != nil {
		return err
	}
	for name, text := range map[string]string{
		"keys.txt":  key.Line() + "\n",
		"dkim.pem":  string(signing),
		"dkim.yaml": "keys:\n  - {domain: example.com, selector: demo, key_file: dkim.pem}\n",
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			return err
		}
	}
	o.KeysFile, o.DKIMFile = filepath.Join(dir, "keys.txt"), filepath.Join(dir, "dkim.yaml")
	o.UnsubscribeURL = "https://news.example.com/u/"
	return nil
}

// demoRowers is the list of those who get a letter of their own.
func demoRowers() iter.Seq2[campaign.Recipient, error] {
	return func(yield func(campaign.Recipient, error) bool) {
		l, err := list.Open(strings.NewReader(testdata.Rowers), list.Options{Data: true})
		if err != nil {
			yield(campaign.Recipient{}, err)
			return
		}
		campaign.Recipients(l)(yield)
	}
}

// demoLetter is the letter that the demo shows, once a relay has it.
type demoLetter struct {
	mu    sync.Mutex // guards what follows
	relay string
	text  []byte
}

// from is what keeps the letter when it comes from a relay.
func (d *demoLetter) from(relay string) func(sink.Transaction, []byte) {
	return func(t sink.Transaction, message []byte) {
		if len(t.Recipients) != 1 || t.Recipients[0] != demoFor {
			return
		}
		d.mu.Lock()
		defer d.mu.Unlock()
		d.relay, d.text = relay, bytes.Clone(message)
	}
}

// print prints the letter's header, and how it begins.
func (d *demoLetter) print(w io.Writer) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	header, body, _ := strings.Cut(strings.ReplaceAll(string(d.text), "\r\n", "\n"), "\n\n")
	_, err := fmt.Fprintf(w, "\none of the letters, as relay %s got it: merged, with a link to unsubscribe, and signed\n\n", d.relay)
	for line := range strings.SplitSeq(header, "\n") {
		if err == nil {
			_, err = fmt.Fprintln(w, escape.Terminal(line))
		}
	}
	at := strings.Index(body, "\nDear ")
	if at < 0 || err != nil {
		return err
	}
	greeting, _, _ := strings.Cut(body[at+1:], "\n")
	_, err = fmt.Fprintf(w, "\n%s …\n", escape.Terminal(greeting))
	return err
}
