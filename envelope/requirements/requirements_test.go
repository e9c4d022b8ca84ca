package requirements

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"bulkmail/envelope/dkim"
)

func fixture(t *testing.T, name string) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("testdata", name))
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

func keyOf(t *testing.T, domain, pem string) *dkim.Key {
	t.Helper()
	k, err := dkim.NewKey(domain, "s1", []byte(pem))
	if err != nil {
		t.Fatal(err)
	}
	return k
}

// A fixture is the right message, its setup and its zone, with one thing wrong.
type wrong struct {
	rule  string
	found string // a part of the finding

	replace, with string // in the message; "" and a text: in front of it
	zone, zoned   string // likewise in the zone
	setup         func(*Setup)
}

func TestEachRuleThatIsBrokenIsNamedWithWhatToDo(t *testing.T) {
	t.Parallel()
	ed, err := dkim.Generate("ed25519")
	if err != nil {
		t.Fatal(err)
	}
	rsa := keyOf(t, "example.com", fixture(t, "../../dkim/testdata/rsa.pem"))
	other := keyOf(t, "example.com", fixture(t, "../../dkim/testdata/rsa8.pem"))
	small := keyOf(t, "example.com", fixture(t, "rsa1024.pem"))
	const unsubscribe = "List-Unsubscribe: <https://u.example.com/1>\n"
	for _, test := range []wrong{
		{},
		{rule: "from", found: "there is no From field", replace: "From: Example Rowing Club <news@news.example.com>\n"},
		{rule: "from", found: "From is no address", replace: "<news@news.example.com>", with: "news"},
		{rule: "from", found: "several addresses", replace: "Example Rowing Club <news@news.example.com>", with: "a@news.example.com, b@news.example.com"},
		{rule: "one-of-each-field", found: "line 2: a second From field", with: "From: a@news.example.com\n"},
		{rule: "encoded-words", found: "line 1: From has an encoded word", replace: "Example Rowing Club", with: `"=?utf-8?q?x?="`},
		{rule: "subject", found: "there is no Subject", replace: "Subject: The boats are back\n"},
		{rule: "to", found: "there is no To", replace: "To: {{to}}\n"},
		{rule: "bcc", found: "seen by all", with: "Bcc: boss@example.com\n"},
		{rule: "honest-subject", found: "begins as an answer", replace: "The boats", with: "Re: the boats"},
		{rule: "date", found: "Date is no date", with: "Date: yesterday\n"},
		{rule: "date", found: "which is not now", with: "Date: Mon, 02 Nov 2015 09:30:00 +0100\n"},
		{rule: "message-id", found: "Message-ID is not", with: "Message-ID: 17\n"},
		{rule: "own-domain", found: "From is at gmail.com", replace: "news@news.example.com", with: "rowing@gmail.com", setup: func(s *Setup) {
			s.Keys, s.LookupTXT = dkim.Keys{keyOf(t, "gmail.com", fixture(t, "../../dkim/testdata/rsa.pem"))}, nil
		}},
		{rule: "reachable", found: "which nobody reads", replace: "news@", with: "no-reply@"},
		{rule: "one-click-unsubscribe", found: "there is no List-Unsubscribe:", setup: func(s *Setup) { s.UnsubscribeURL = "" }},
		{rule: "one-click-unsubscribe", found: "no https URI", with: "List-Unsubscribe: <mailto:leave@example.com>\n"},
		{rule: "one-click-unsubscribe", found: "there is no List-Unsubscribe-Post", with: unsubscribe},
		{rule: "one-click-unsubscribe", found: "is not List-Unsubscribe=One-Click", with: unsubscribe + "List-Unsubscribe-Post: yes\n"},
		{rule: "unsubscribe-link", found: "no link to unsubscribe", replace: "Unsubscribe: {{unsubscribe_url}}\n"},
		{rule: "dkim", found: "no key signs for news.example.com", setup: func(s *Setup) { s.Keys = dkim.Keys{keyOf(t, "example.org", string(ed))} }},
		{rule: "dkim-key-size", found: "has 1024 bits", setup: func(s *Setup) { s.Keys, s.LookupTXT = dkim.Keys{small}, nil }},
		{rule: "dkim-algorithm", found: "are Ed25519", setup: func(s *Setup) { s.Keys, s.LookupTXT = dkim.Keys{keyOf(t, "example.com", string(ed))}, nil }},
		{rule: "dkim-record", found: "it is another key", setup: func(s *Setup) { s.Keys = dkim.Keys{other} }},
		{rule: "dkim-record", found: "there is no DKIM record", zone: "s1._domainkey", zoned: "s2._domainkey"},
		{rule: "dmarc", found: "there is no DMARC record", zone: "_dmarc", zoned: "_other"},
		{rule: "dmarc", found: "has no policy", zone: "p=none;", zoned: "sp=none;"},
		{rule: "dmarc", found: "several records", zoned: "_dmarc.example.com. IN TXT \"v=DMARC1; p=none\"\n"},
		{rule: "spf", found: "there is no SPF record at news.example.com", zone: "v=spf1", zoned: "v=spf2"},
		{rule: "spf", found: "at bounces.example.com", setup: func(s *Setup) { s.Sender = "b@bounces.example.com" }},
		{rule: "spf", found: "lets everybody send", zone: "-all", zoned: "+all"},
		{rule: "spf", found: "several SPF records", zoned: "news.example.com. TXT \"v=spf1 -all\"\n"},
	} {
		zone, err := ParseZone(changed(test.zone, test.zoned, fixture(t, "right.zone")+rsa.ZoneRecord()+"\n"))
		if err != nil {
			t.Fatal(err)
		}
		setup := Setup{Keys: dkim.Keys{rsa}, UnsubscribeURL: "https://u.example.com/", Now: time.Date(2026, 5, 1, 0, 0, 0, 0, time.UTC), LookupTXT: zone.LookupTXT}
		if test.setup != nil {
			test.setup(&setup)
		}
		findings, err := Check(t.Context(), changed(test.replace, test.with, fixture(t, "right.eml")), setup)
		if err != nil {
			t.Fatal(err)
		}
		if test.rule == "" {
			if len(findings) != 0 {
				t.Errorf("a right message: %v", findings)
			}
			continue
		}
		if len(findings) != 1 || findings[0].Rule != test.rule || !strings.Contains(findings[0].String(), test.found) || findings[0].Do == "" || !strings.Contains(findings[0].Who, "Gmail") && findings[0].Who != "Outlook" {
			t.Errorf("%s, %s: %v", test.rule, test.found, findings)
		}
	}
}

// changed is the text with one thing replaced, or put in front.
func changed(replace, with, text string) string {
	if replace == "" {
		return with + text
	}
	return strings.Replace(text, replace, with, 1)
}

func TestFromTransactionalMailNobodyUnsubscribes(t *testing.T) {
	t.Parallel()
	rsa := keyOf(t, "example.com", fixture(t, "../../dkim/testdata/rsa.pem"))
	findings, err := Check(t.Context(), "From: a@example.com\nTo: b@example.com\nSubject: your bill\n\nhi\n", Setup{Keys: dkim.Keys{rsa}, Transactional: true})
	if err != nil || len(findings) != 0 {
		t.Error(findings, err)
	}
	if _, err := Check(t.Context(), "From: a@example.com\n\n{{x\n", Setup{}); err == nil || err.Error() != "line 3, column 1: the tag is not closed: }} is missing" {
		t.Error(err)
	}
}

func TestAZoneFileIsReadAsNameServersDo(t *testing.T) {
	t.Parallel()
	zone, err := ParseZone("$ORIGIN Example.com.\n; nothing\na IN TXT ( \"one \" ; first\n  \"two\\\"\" )\n  TXT plain\n@ 60 TXT \"top; really\"\nb.example.org. TXT \"other\"\na IN A 192.0.2.1\n")
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]string{"a.example.com": `one two"|plain`, "EXAMPLE.com.": "top; really", "b.example.org": "other", "c.example.com": ""} {
		got, err := zone.LookupTXT(t.Context(), name)
		if err != nil || strings.Join(got, "|") != want {
			t.Errorf("%s: %q, %v", name, got, err)
		}
	}
	if _, err := ParseZone("a TXT \"open\n"); !errors.Is(err, ErrZone) {
		t.Error(err)
	}
}

func FuzzParseZone(f *testing.F) {
	f.Add("$ORIGIN example.com.\na IN TXT ( \"x\"\n \"y\" )\n")
	f.Add(" TXT \"\\\"\n)(;")
	f.Fuzz(func(t *testing.T, text string) {
		if _, err := ParseZone(text); err != nil && !errors.Is(err, ErrZone) {
			t.Error(err)
		}
	})
}
