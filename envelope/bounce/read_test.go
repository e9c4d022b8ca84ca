package bounce

import (
	"bytes"
	"encoding/json"
	"errors"
	"flag"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/google/go-cmp/cmp"
)

var update = flag.Bool("update", false, "write testdata/mail.golden.json anew")

// The mails in testdata/mail are one of each form; what is read in them stands in
// mail.golden.json.
func TestEachFormOfMailIsRead(t *testing.T) {
	t.Parallel()
	files, err := filepath.Glob("testdata/mail/*.eml")
	if err != nil || len(files) < 20 {
		t.Fatalf("%d mails, %v", len(files), err)
	}
	var got bytes.Buffer
	out := json.NewEncoder(&got)
	out.SetEscapeHTML(false)
	out.SetIndent("", " ")
	for _, file := range files {
		mail, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		report := Parse(mail)
		if err := out.Encode(map[string]Report{strings.TrimSuffix(filepath.Base(file), ".eml"): report}); err != nil {
			t.Fatal(err)
		}
		// As they come over SMTP.
		if crlf := Parse(bytes.ReplaceAll(mail, []byte("\n"), []byte("\r\n"))); !cmp.Equal(crlf, report) {
			t.Errorf("%s with CRLF:\n%s", file, cmp.Diff(report, crlf))
		}
	}
	if *update {
		if err := os.WriteFile("testdata/mail.golden.json", got.Bytes(), 0o666); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile("testdata/mail.golden.json")
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), got.String()); diff != "" {
		t.Error(diff)
	}
}

func TestAMailOfWhichNothingCanBeReadIsNoReport(t *testing.T) {
	t.Parallel()
	for _, mail := range []string{"", "\n", "\r\n\r\n", "no header", "From: a@example.com\n\nHello.", "\x00\xff", "--\n--", "Content-Type: multipart/report\n\n"} {
		report := Parse([]byte(mail))
		if report.Kind != None || len(report.Recipients) != 1 || report.Recipients[0].Hard {
			t.Errorf("%q: %+v", mail, report)
		}
	}
}

func TestAMailThatCannotBeReadToItsEndIsAnError(t *testing.T) {
	t.Parallel()
	broken := errors.New("broken")
	if _, err := Read(iotest.ErrReader(broken)); !errors.Is(err, broken) {
		t.Errorf("got %v", err)
	}
}

// delivery is a report on as many recipients.
func delivery(recipients int) string {
	return "From: MAILER-DAEMON@example.com\nContent-Type: message/delivery-status\n\nReporting-MTA: dns; example.com\n\n" +
		strings.Repeat("Final-Recipient: rfc822; ann@example.net\nAction: failed\nStatus: 5.1.1\n\n", recipients)
}

func TestHostileMailIsReadWithinBounds(t *testing.T) {
	nested := strings.Builder{}
	nested.WriteString("From: MAILER-DAEMON@example.com\n")
	for range 2000 {
		nested.WriteString("Content-Type: multipart/mixed; boundary=b\n\n--b\n")
	}
	bounced := "From: MAILER-DAEMON@example.com\nSubject: Undeliverable\n\nYour mail could not be delivered:\n"
	for name, mail := range map[string]string{
		"multiparts within multiparts": nested.String(),
		"parts":                        "Content-Type: multipart/mixed; boundary=b\n\n" + strings.Repeat("--b\n\n", 200_000),
		"recipients":                   delivery(12_000),
		"recipients in text":           bounced + strings.Repeat("<ann@example.net>: 550 user unknown\n<bob@example.net>: no\n", 17_000),
		"fields":                       strings.Repeat("A: b\n", 200_000),
		"continuations":                "Subject: a\n" + strings.Repeat(" \n b\n", 160_000),
		"one line":                     bounced + strings.Repeat("a", maxMail),
		"addresses":                    bounced + strings.Repeat("a@b ", maxMail/4),
		"quotation marks":              bounced + strings.Repeat(`"@`, maxMail/2),
		"at signs":                     bounced + strings.Repeat("@", maxMail),
		"tags":                         "From: MAILER-DAEMON@example.com\nContent-Type: text/html\n\n" + strings.Repeat("<p", maxMail/2),
		"parameters":                   "Content-Type: multipart/mixed" + strings.Repeat(";\n a=b", maxMail/6),
		"endless":                      strings.Repeat("x: y\n\n", maxMail),
	} {
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		report, err := Read(strings.NewReader(mail))
		runtime.ReadMemStats(&after)
		allocated := after.TotalAlloc - before.TotalAlloc
		if err != nil || len(report.Recipients) == 0 || len(report.Recipients) > maxRecipients {
			t.Errorf("%s: %d recipients, %v", name, len(report.Recipients), err)
		}
		t.Logf("%s: %d octets, %d allocated", name, len(mail), allocated)
		if allocated > 64<<20 {
			t.Errorf("%s: %d octets allocated", name, allocated)
		}
		if len(mail) > maxMail && !report.Truncated {
			t.Errorf("%s: does not say that it was cut", name)
		}
	}
	if report := Parse([]byte(delivery(maxRecipients + 1))); !report.Truncated || len(report.Recipients) != maxRecipients {
		t.Errorf("of %d recipients %d are read, truncated %t", maxRecipients+1, len(report.Recipients), report.Truncated)
	}
}

func FuzzParse(f *testing.F) {
	files, err := filepath.Glob("testdata/mail/*.eml")
	if err != nil {
		f.Fatal(err)
	}
	for _, file := range files {
		mail, err := os.ReadFile(file)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(mail)
	}
	f.Fuzz(func(t *testing.T, mail []byte) {
		report := Parse(mail)
		if len(report.Recipients) == 0 || len(report.Recipients) > maxRecipients || report.Kind != report.Recipients[0].Kind {
			t.Fatalf("%+v", report)
		}
		for _, r := range report.Recipients {
			if r.Hard != (r.Kind == Bounced && r.Reason.Hard()) {
				t.Fatalf("%+v", r)
			}
			if strings.ContainsAny(r.Address, "\r\n") || r.Address != "" && !strings.Contains(r.Address, "@") {
				t.Fatalf("%q is no address", r.Address)
			}
		}
	})
}
