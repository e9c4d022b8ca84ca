package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"time"

	"bulkmail/envelope"
	"bulkmail/envelope/dkim"
)

// The template has so many octets in all; the middles fill it up.
const (
	benchTexts = "From: News <news@bench.test>\r\nTo: {{name}} <{{to}}>\r\nSubject: {{first}}, the news\r\nMIME-Version: 1.0\r\n" +
		"Content-Type: multipart/alternative; boundary=texts\r\n\r\n--texts\r\nContent-Type: text/plain; charset=utf-8\r\n" +
		"Content-Transfer-Encoding: quoted-printable\r\n\r\nDear {{first}} {{last}},\r\n"
	benchText     = "A line of text as mail has it, of some seventy octets, and no more.\r\n"
	benchTextsEnd = "Your number is {{number}}, your town {{town}}:\r\nhttps://www.bench.test/{{code}}\r\n\r\n" +
		"--texts\r\nContent-Type: text/html; charset=utf-8\r\nContent-Transfer-Encoding: quoted-printable\r\n\r\n<p>Dear {{first}} {{last}},</p>\r\n"
	benchHTML    = "<p>A line of text as mail has it, with a <b>few</b> tags and no more.</p>\r\n"
	benchHTMLEnd = "<p>Your number is {{number}}, your town {{town}}:\r\n<a href=3D\"https://www.bench.test/{{code}}\">here</a></p>\r\n--texts--\r\n"

	benchMinTemplate = len(benchTexts) + len(benchTextsEnd) + len(benchHTMLEnd)
)

// benchTemplate is a template of about so many octets, a third of them plain text.
func benchTemplate(size int) string {
	room := size - benchMinTemplate
	return benchTexts + strings.Repeat(benchText, room/3/len(benchText)) + benchTextsEnd +
		strings.Repeat(benchHTML, room*2/3/len(benchHTML)) + benchHTMLEnd
}

// benchLetter is what the template asks for, some of it other than ASCII.
func benchLetter(address string) *envelope.Letter {
	local, _, _ := strings.Cut(address, "@")
	return &envelope.Letter{
		Name: "Jörg Lee",
		Data: fmt.Sprintf(`{"first":"Jörg","last":"Lee %s","number":%d,"town":"Zürich & Köln","code":"a/%s"}`, local, len(local), local),
	}
}

func (o *benchOptions) minSize() int {
	if o.letters {
		return benchMinTemplate
	}
	return benchMinSize
}

// what is what is sent, and how in which way.
func (o *benchOptions) what() string {
	if o.letters {
		return "a letter each, of a template"
	}
	return "message"
}

func (o *benchOptions) how() string {
	if o.sign {
		return ", signed"
	}
	return ""
}

// A benchKey signs what a bench sends.
type benchKey struct {
	dir  string
	keys dkim.Keys
}

// makeKey makes a key in a temporary folder; nil if nothing is to be signed.
func (o *benchOptions) makeKey() (*benchKey, error) {
	if !o.sign {
		return nil, nil
	}
	text, err := dkim.Generate("rsa")
	if err != nil {
		return nil, err
	}
	k := &benchKey{}
	if k.dir, err = os.MkdirTemp("", "bulkmail-bench-"); err != nil {
		return nil, err
	}
	err = errors.Join(
		os.WriteFile(filepath.Join(k.dir, "bench.pem"), text, 0o600),
		os.WriteFile(k.file(), []byte("keys: [{domain: bench.test, selector: bench, key_file: bench.pem}]\n"), 0o600),
	)
	if err == nil {
		k.keys, err = dkim.Load(k.file())
	}
	if err != nil {
		return nil, errors.Join(err, k.remove())
	}
	return k, nil
}

// file is where the key is named, "" if there is none.
func (k *benchKey) file() string {
	if k == nil {
		return ""
	}
	return filepath.Join(k.dir, "dkim.yaml")
}

func (k *benchKey) remove() error {
	if k == nil {
		return nil
	}
	return os.RemoveAll(k.dir)
}

// floor measures what one signature takes, of a message of next to nothing, and how
// many of them all processors make in a second. Zero: not of interest.
func (h *benchRun) floor() (signature, perSecond float64) {
	if h.key == nil || !h.letters {
		return 0, 0
	}
	const tries = 200
	var signer dkim.Signer
	var field []byte
	took := make([]time.Duration, tries)
	for i := range took {
		began := time.Now()
		var err error
		if field, err = signer.Append(field[:0], []byte("From: news@bench.test\r\n\r\n"), h.key.keys, &dkim.Options{}, began); err != nil {
			return 0, 0 // the drain says why
		}
		took[i] = time.Since(began)
	}
	slices.Sort(took)
	signature = took[tries/2].Seconds()
	return signature, float64(runtime.GOMAXPROCS(0)) / signature
}
