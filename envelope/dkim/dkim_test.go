package dkim

import (
	"bytes"
	"crypto/ed25519"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/emersion/go-msgauth/dkim"
	"pgregory.net/rapid"
)

var now = time.Unix(1528637909, 0)

func key(t testing.TB, domain, selector, file string) *Key {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("testdata", file))
	if err != nil {
		t.Fatal(err)
	}
	k, err := NewKey(domain, selector, text)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

// unstuffed is what a receiver reads.
func unstuffed(wire []byte) []byte {
	return bytes.ReplaceAll(wire, []byte("\r\n."), []byte("\r\n"))
}

// verify asks a verifier that nobody here wrote.
func verify(keys Keys, message []byte) ([]*dkim.Verification, error) {
	return dkim.VerifyWithOptions(bytes.NewReader(message), &dkim.VerifyOptions{LookupTXT: func(name string) ([]string, error) {
		for _, k := range keys {
			if k.Name() == name {
				return []string{k.Record()}, nil
			}
		}
		return nil, errors.New("no such name")
	}})
}

func passes(t interface {
	Helper()
	Errorf(string, ...any)
}, keys Keys, message []byte) {
	t.Helper()
	found, err := verify(keys, message)
	if err != nil || len(found) != len(keys) {
		t.Errorf("%d signatures, %v", len(found), err)
	}
	for _, v := range found {
		if v.Err != nil {
			t.Errorf("d=%s: %v\n%s", v.Domain, v.Err, message)
		}
	}
}

// RFC 6376 3.4.5, with the dots that follow DATA.
func TestTheExamplesOfCanonicalizationHold(t *testing.T) {
	t.Parallel()
	if got := string(appendRelaxed(appendRelaxed(nil, []byte("A"), []byte(" X")), []byte("B"), []byte(" Y\t\r\n\tZ  "))); got != "a:X\r\nb:Y Z\r\n" {
		t.Errorf("%q", got)
	}
	s := Signer{body: sha256.New()}
	for _, test := range []struct{ wire, canonical string }{
		{" C \r\nD \t E\r\n\r\n\r\n", " C\r\nD E\r\n"},
		{"", ""},
		{"\r\n\r\n", ""},
		{"no end", "no end\r\n"},
		{"a\r\n\r\n \r\nb\r\n", "a\r\n\r\n\r\nb\r\n"},
		{"..\r\n..a\r\n", ".\r\n.a\r\n"},
		{strings.Repeat("a b  c\r\n", 5000), strings.Repeat("a b c\r\n", 5000)},
	} {
		sum := sha256.Sum256([]byte(test.canonical))
		if got, want := string(s.hashBody([]byte(test.wire))), base64.StdEncoding.EncodeToString(sum[:]); got != want {
			t.Errorf("%.40q is not hashed as %.40q", test.wire, test.canonical)
		}
	}
}

// RFC 8463 appendix A, whose message is that of RFC 6376 appendix A: the key, the
// hash of the body and the signature there come out here.
func TestTheExampleOfRFC8463IsSignedAlike(t *testing.T) {
	t.Parallel()
	const (
		message = "From: Joe SixPack <joe@football.example.com>\r\n" +
			"To: Suzie Q <suzie@shopping.example.net>\r\n" +
			"Subject: Is dinner ready?\r\n" +
			"Date: Fri, 11 Jul 2003 21:00:37 -0700 (PDT)\r\n" +
			"Message-ID: <20030712040037.46341.5F8J@football.example.com>\r\n" +
			"\r\nHi.\r\n\r\nWe lost the game.  Are you hungry yet?\r\n\r\nJoe.\r\n"
		field = " v=1; a=ed25519-sha256; c=relaxed/relaxed;\r\n" +
			" d=football.example.com; i=@football.example.com;\r\n" +
			" q=dns/txt; s=brisbane; t=1528637909; h=from : to :\r\n" +
			" subject : date : message-id : from : subject : date;\r\n" +
			" bh=2jUSOH9NhtVGCQWNr9BrIAPreKQjO6Sn7XIkfJVOzv8=;\r\n b="
		want = "/gCrinpcQOoIfuHNQIbq4pgh9kyIK3AQUdt9OdqQehSwhEIug4D11BusFa3bT3FY5OsU7ZbnKELq+eXdp1Q1Dw=="
	)
	seed, err := base64.StdEncoding.DecodeString("nWGxne/9WmC6hEr0kuwsxERJxWl7MmkZcDusAxyuf2A=")
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.MarshalPKCS8PrivateKey(ed25519.NewKeyFromSeed(seed))
	if err != nil {
		t.Fatal(err)
	}
	k, err := NewKey("football.example.com", "brisbane", pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}))
	if err != nil {
		t.Fatal(err)
	}
	if k.Record() != "v=DKIM1; k=ed25519; p=11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo=" || k.Name() != "brisbane._domainkey.football.example.com" {
		t.Errorf("%s: %s", k.Name(), k.Record())
	}
	header, body := split([]byte(message))
	s := Signer{body: sha256.New(), head: sha256.New()}
	s.readFields(header)
	if bh := string(s.hashBody(body)); bh != "2jUSOH9NhtVGCQWNr9BrIAPreKQjO6Sn7XIkfJVOzv8=" {
		t.Errorf("bh=%s", bh)
	}
	for _, name := range []string{"From", "To", "Subject", "Date", "Message-ID"} {
		for _, f := range s.fields {
			if equalFold(f.name, name) {
				s.head.Write(appendRelaxed(nil, f.name, f.value))
			}
		}
	}
	s.head.Write(bytes.TrimSuffix(appendRelaxed(nil, []byte("dkim-signature"), []byte(field)), []byte("\r\n")))
	signature, err := k.signer.Sign(nil, s.head.Sum(nil), signOptions(k))
	if got := base64.StdEncoding.EncodeToString(signature); err != nil || got != want {
		t.Errorf("b=%s, %v", got, err)
	}
}

func sample(t *rapid.T) []byte {
	line := rapid.SampledFrom([]string{"", " ", ".", "..", "...dots", "a", "a  b \t c ", "\ttab", "trailing  ", strings.Repeat("long ", 190), "ümläut 😀"})
	var b strings.Builder
	for _, name := range rapid.Permutation([]string{"From", "to", "SUBJECT", "Date", "Message-Id", "X-Other", "List-Unsubscribe", "List-Id", "To"}).Draw(t, "fields") {
		if rapid.Bool().Draw(t, name) || name == "From" {
			value := rapid.SampledFrom([]string{" a@example.com", " folded\r\n  twice\r\n\tand more ", "", " two  blanks"}).Draw(t, "value")
			if name == "From" {
				value = " a@news.example.com"
			}
			fmt.Fprintf(&b, "%s:%s\r\n", name, value)
		}
	}
	b.WriteString("\r\n")
	for _, l := range rapid.SliceOfN(line, 0, 20).Draw(t, "lines") {
		if strings.HasPrefix(l, ".") {
			l = "." + l
		}
		b.WriteString(l + "\r\n")
	}
	return []byte(b.String())
}

func TestAnotherVerifierFindsEverySignatureRightAndEveryChangeWrong(t *testing.T) {
	t.Parallel()
	keys := Keys{key(t, "example.com", "r1", "rsa.pem"), key(t, "news.example.com", "e1", "ed25519.pem")}
	var s Signer
	rapid.Check(t, func(t *rapid.T) {
		wire := sample(t)
		fields, err := s.Append(nil, wire, keys, &Options{}, now)
		if err != nil {
			t.Fatal(err)
		}
		for line := range strings.Lines(string(fields)) {
			if len(line) > 80 || !strings.HasSuffix(line, "\r\n") {
				t.Fatalf("line %q", line)
			}
		}
		message := append(fields, unstuffed(wire)...)
		passes(t, keys, message)
		for _, added := range []string{"From: b@example.com\r\n", "Subject: buy\r\n", "List-Unsubscribe: <https://evil.example>\r\n"} {
			found, err := verify(keys, append([]byte(added), message...))
			for _, v := range found {
				if v.Err == nil {
					t.Fatalf("%q in front is not noticed: %v", added, err)
				}
			}
		}
		if found, _ := verify(keys, append(message, "more\r\n"...)); len(found) != 2 || found[0].Err == nil || found[1].Err == nil {
			t.Fatal("more text is not noticed")
		}
	})
}

func TestWhatARelayChangesIsNotSigned(t *testing.T) {
	t.Parallel()
	keys := Keys{key(t, "example.com", "r1", "rsa8.pem")}
	wire := []byte("From: a@example.com\r\nSubject: t\r\nMessage-ID: <1@example.com>\r\nDate: Fri, 11 Jul 2003 21:00:37 -0700\r\n\r\nhi\r\n")
	var s Signer
	fields, err := s.Append(nil, wire, keys, &Options{Unsigned: []string{"message-id", "Date", "List-Unsubscribe", "From"}, Expire: time.Hour}, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Contains(fields, []byte("\r\n h=From:From:Subject:Subject:List-Unsubscribe-Post;")) || !bytes.Contains(fields, []byte("; x=")) {
		t.Errorf("%s", fields)
	}
	// A relay as Amazon SES.
	changed := bytes.Replace(wire, []byte("<1@example.com>"), []byte("<2@relay.example>"), 1)
	changed = append([]byte("Date: Sat, 12 Jul 2003 21:00:37 -0700\r\n"), changed...)
	passes(t, keys, append(append([]byte("Received: by relay.example\r\n"), fields...), changed...))
}

func TestKeysAreChosenByTheOrganizationOfFrom(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "dkim.yaml")
	here, err := filepath.Abs("testdata")
	if err != nil {
		t.Fatal(err)
	}
	write := func(name, text string) {
		if err := os.WriteFile(filepath.Join(filepath.Dir(file), name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	rsa, err := os.ReadFile(filepath.Join(here, "rsa.pem"))
	if err != nil {
		t.Fatal(err)
	}
	write("r.pem", string(rsa))
	write("dkim.yaml", fmt.Sprintf("keys:\n  - {domain: Example.com, selector: r1, key_file: r.pem}\n  - {domain: mail.example.co.uk, selector: e1, key_file: %q}\n  - {domain: news.example.com, selector: r2, key_file: r.pem}\n", filepath.Join(here, "ed25519.pem")))
	keys, err := Load(file)
	if err != nil {
		t.Fatal(err)
	}
	for domain, want := range map[string]string{
		"example.com": "r1 r2", "NEWS.example.com": "r1 r2", "example.org": "", "example.co.uk": "e1", "other.co.uk": "", "com": "", "notexample.com": "",
	} {
		var got []string
		for _, k := range keys.For(domain) {
			got = append(got, k.Selector)
		}
		if strings.Join(got, " ") != want {
			t.Errorf("%s: %v, want %s", domain, got, want)
		}
	}
	for text, want := range map[string]string{
		"":                              "there is no key in it",
		"keys: [{domain: example.com}]": "keys[0]: give domain, selector and key_file",
		"keys: [{domain: a, selector: s, key_file: none.pem}]":  "keys[0]: key_file: open ",
		"keys: [{domain: a, selector: s, key_file: dkim.yaml}]": "not PEM",
		"keys: [{domain: a b, selector: s, key_file: r.pem}]":   "is not a domain name",
		"keys: [{domain: a, selector: s/t, key_file: r.pem}]":   "is not a label",
		"keys: [{domian: a, selector: s, key_file: r.pem}]":     `unknown field "domian"`,
	} {
		write("dkim.yaml", text)
		if _, err := Load(file); err == nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "\n") {
			t.Errorf("%s: %v, want %s", text, err, want)
		}
	}
}

func TestSigningAllocatesNoMoreForALongMessage(t *testing.T) {
	keys := Keys{key(t, "example.com", "e1", "ed25519.pem")}
	var s Signer
	count := func(lines int) float64 {
		wire := []byte("From: a@example.com\r\nSubject: t\r\n\r\n" + strings.Repeat("A line of  text.\r\n", lines))
		var dst []byte
		return testing.AllocsPerRun(20, func() {
			var err error
			if dst, err = s.Append(dst[:0], wire, keys, &Options{}, now); err != nil {
				t.Fatal(err)
			}
		})
	}
	if few, many := count(10), count(10000); few != many {
		t.Errorf("%v allocations for 10 lines, %v for 10,000", few, many)
	}
}

func BenchmarkSign(b *testing.B) {
	wire := []byte("From: a@example.com\r\nTo: b@example.net\r\nSubject: t\r\nDate: Fri, 11 Jul 2003 21:00:37 -0700\r\nMessage-ID: <1@example.com>\r\n\r\n" + strings.Repeat("A line of text as mail has it, of some 72 octets, and no more than that.\r\n", 140))
	for _, file := range []string{"rsa.pem", "ed25519.pem"} {
		keys := Keys{key(b, "example.com", "s", file)}
		var s Signer
		var dst []byte
		b.Run(file, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				var err error
				if dst, err = s.Append(dst[:0], wire, keys, &Options{}, now); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
	b.Run("without the signature itself", func(b *testing.B) {
		var s Signer
		if _, err := s.Append(nil, wire, nil, &Options{}, now); err != nil {
			b.Fatal(err)
		}
		b.ReportAllocs()
		for b.Loop() {
			if _, err := s.Append(nil, wire, nil, &Options{}, now); err != nil {
				b.Fatal(err)
			}
		}
	})
}
