package feedback_test

import (
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"bulkmail/envelope"
	"bulkmail/envelope/keys"
	"bulkmail/envelope/returnpath"
	"bulkmail/subjects"
	"bulkmail/subjects/broker/brokertest"
	"bulkmail/worker/feedback"
	"bulkmail/worker/journal"
)

// A post is a broker with batches that were sent, and mail that came back.
type post struct {
	desk
	path   returnpath.Path
	minter *returnpath.Minter
}

func newPost(t *testing.T) *post {
	t.Helper()
	p := &post{desk: desk{t: t, js: brokertest.Connect(t, brokertest.Start(t).URL()), keys: keys.Keys{newKey(t, "k1")}, file: filepath.Join(t.TempDir(), "keys")}}
	p.writeKeys(p.keys...)
	var err error
	if p.path, err = returnpath.ParsePath("b+{token}@bounces.example.com"); err != nil {
		t.Fatal(err)
	}
	k, err := returnpath.NewKeys(p.keys.First().Derive(returnpath.Purpose))
	if err != nil {
		t.Fatal(err)
	}
	p.minter = k.Minter()
	o := subjects.Options{AckWait: 30 * time.Second, OutcomesMaxAge: time.Hour}
	if err := subjects.Provision(t.Context(), p.js, names, o, slog.New(slog.DiscardHandler)); err != nil {
		t.Fatal(err)
	}
	return p
}

// sent has a batch sent, and returns the sequence of its claim.
func (p *post) sent(campaign string, recipients ...string) uint64 {
	p.t.Helper()
	j, err := journal.New(p.t.Context(), p.js, names, "w")
	if err != nil {
		p.t.Fatal(err)
	}
	known, err := j.Read(p.t.Context(), campaign, "1")
	if err != nil {
		p.t.Fatal(err)
	}
	hold, err := j.Claim(p.t.Context(), known, journal.Delivery{Sequence: 1, Count: 1}, nil)
	if err != nil {
		p.t.Fatal(err)
	}
	hold.Record(subjects.Outcome{Status: subjects.Accepted}, envelope.To(recipients...))
	if err := hold.Close(p.t.Context(), true); err != nil {
		p.t.Fatal(err)
	}
	return hold.Claimed()
}

func (p *post) letter(claim uint64, mailbox string) string {
	return p.path.Address(p.minter.Mint(returnpath.Token{Sequence: claim, Mailbox: p.minter.Mailbox(mailbox)}))
}

func (p *post) many(claim uint64) string {
	return p.path.Address(p.minter.Mint(returnpath.Token{Sequence: claim, Batch: true}))
}

// report is a mail to a return path about some recipients, each with a status.
func report(to string, recipients ...string) string {
	var b strings.Builder
	fmt.Fprintf(&b, "From MAILER-DAEMON Wed Nov 25 04:00:00 2026\nReturn-Path: <>\nDelivered-To: %s\nFrom: MAILER-DAEMON@mx.example.net\nTo: %s\n", to, to)
	b.WriteString("Subject: Undelivered Mail\nContent-Type: multipart/report; report-type=delivery-status; boundary=b\n\n--b\n\nIt did not work.\n\n--b\n")
	b.WriteString("Content-Type: message/delivery-status\n\nReporting-MTA: dns; mx.example.net\n")
	for i := 0; i < len(recipients); i += 2 {
		fmt.Fprintf(&b, "\nFinal-Recipient: rfc822; %s\nAction: failed\nStatus: %s\nDiagnostic-Code: smtp; 550 %[2]s no\n", recipients[i], recipients[i+1])
	}
	b.WriteString("\n--b--\n\n")
	return b.String()
}

// read reads an mbox.
func (p *post) read(mbox ...string) map[feedback.Verdict]int {
	p.t.Helper()
	got, err := feedback.Read(p.t.Context(), p.js, names, p.path, feedback.Options{KeysFile: p.file}, feedback.Mbox(strings.NewReader(strings.Join(mbox, ""))), "mbox")
	if err != nil {
		p.t.Fatal(err)
	}
	return got
}

func TestABounceFindsItsCampaignBatchAndRecipient(t *testing.T) {
	t.Parallel()
	p := newPost(t)
	spring, autumn := p.sent("spring", "Ann@example.net", "bob@example.net"), p.sent("autumn", "carl@example.net", "dora@example.net", "eve@example.net")
	folded := strings.ToUpper(p.letter(spring, "Ann@example.net"))
	mails := []string{
		report(folded, "ann@elsewhere.test", "5.1.1"), // forwarded: the token alone knows who it is
		report(p.letter(spring, "bob@example.net"), "bob@example.net", "5.7.1"),
		report(p.many(autumn), "carl@example.net", "5.1.1", "DORA@example.net", "5.2.2", "stranger@example.net", "5.1.1"),
		report(p.many(autumn), "stranger@example.net", "5.1.1"), // had nothing of this batch
		report("b+"+strings.Repeat("a", returnpath.Length)+"@bounces.example.com", "eve@example.net", "5.1.1"),
		report("news@example.com", "eve@example.net", "5.1.1"),
		report(p.many(autumn+100), "eve@example.net", "5.1.1"),
		"From x Wed Nov 25 04:00:00 2026\nDelivered-To: " + p.many(autumn) + "\nSubject: Hello\n\nThank you.\n\n",
	}
	for range 2 { // the second time it is known
		want := map[feedback.Verdict]int{feedback.Taken: 3, feedback.NoReport: 2, feedback.NotOurs: 2, feedback.TooOld: 1}
		if diff := cmp.Diff(want, p.read(mails...)); diff != "" {
			t.Errorf("-want +got\n%s", diff)
		}
	}
	events, suppressed := p.stored()
	var got []string
	for _, e := range events {
		got = append(got, fmt.Sprintf("%s %s/%s %s hard=%t %s %s %d %s", e.Kind, e.Campaign, e.Batch, e.Recipient, e.Hard, e.Reason, e.Enhanced, e.Code, e.Source))
	}
	if diff := cmp.Diff([]string{
		"bounced spring/1 Ann@example.net hard=true unknown_user 5.1.1 550 mbox",
		"bounced spring/1 bob@example.net hard=false policy 5.7.1 550 mbox",
		"bounced autumn/1 carl@example.net hard=true unknown_user 5.1.1 550 mbox",
		"bounced autumn/1 dora@example.net hard=false mailbox_full 5.2.2 550 mbox",
	}, got); diff != "" {
		t.Errorf("events -want +got\n%s", diff)
	}
	if diff := cmp.Diff(map[string]string{"Ann@example.net bulk": "bounced: unknown user", "carl@example.net bulk": "bounced: unknown user"}, suppressed); diff != "" {
		t.Errorf("suppressed -want +got\n%s", diff)
	}
}

func TestAMailboxThatIsFullIsNotSentToAnyMoreAfterTheThirdCampaign(t *testing.T) {
	t.Parallel()
	p := newPost(t)
	full := func(campaign string) string {
		return report(p.letter(p.sent(campaign, "ann@example.net"), "ann@example.net"), "ann@example.net", "5.2.2")
	}
	first, second, third := full("one"), full("two"), full("three")
	p.read(first, first, second, second)
	if _, suppressed := p.stored(); len(suppressed) > 0 {
		t.Errorf("after two campaigns: %v", suppressed)
	}
	p.read(third) // as another process
	want := map[string]string{"ann@example.net bulk": "bounced in several campaigns, the last time: mailbox full"}
	if _, suppressed := p.stored(); !cmp.Equal(want, suppressed) {
		t.Errorf("after three: %v", suppressed)
	}
}

func TestWhoComplainsIsNotSentToAnyMore(t *testing.T) {
	t.Parallel()
	p := newPost(t)
	to := p.letter(p.sent("spring", "ann@example.net"), "ann@example.net")
	p.read("From x Wed Nov 25 04:00:00 2026\nFrom: fbl@provider.example\nTo: abuse@example.com\nSubject: complaint\n" +
		"Content-Type: multipart/report; report-type=feedback-report; boundary=f\n\n--f\n\nA complaint.\n\n--f\nContent-Type: message/feedback-report\n\n" +
		"Feedback-Type: abuse\nVersion: 1\nOriginal-Mail-From: <" + to + ">\n\n--f\nContent-Type: message/rfc822\n\nReturn-Path: <" + to + ">\nFrom: news@example.com\nSubject: Hi\n\nHi.\n\n--f--\n\n")
	events, suppressed := p.stored()
	if len(events) != 1 || events[0].Kind != subjects.Complained || events[0].Recipient != "ann@example.net" {
		t.Errorf("events %+v", events)
	}
	if diff := cmp.Diff(map[string]string{"ann@example.net bulk": "complained"}, suppressed); diff != "" {
		t.Error(diff)
	}
}

func TestAMaildirIsReadAndWhatWasNewIsSeenAfterwards(t *testing.T) {
	t.Parallel()
	p := newPost(t)
	claim := p.sent("spring", "ann@example.net", "bob@example.net")
	dir := t.TempDir()
	for name, text := range map[string]string{
		"new/1.host": report(p.many(claim), "ann@example.net", "5.1.1"), "cur/2.host:2,S": report(p.many(claim), "bob@example.net", "5.1.1"), "tmp/3": "half",
	} {
		if err := os.MkdirAll(filepath.Dir(filepath.Join(dir, name)), 0o700); err != nil {
			t.Fatal(err)
		}
		_, text, _ = strings.Cut(text, "\n") // that line is an mbox's
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	got, err := feedback.Read(t.Context(), p.js, names, p.path, feedback.Options{KeysFile: p.file}, feedback.Maildir(dir), "maildir")
	if err != nil {
		t.Fatal(err)
	}
	left, _ := filepath.Glob(filepath.Join(dir, "*", "*"))
	if events, _ := p.stored(); len(events) != 2 || got[feedback.Taken] < 2 || len(left) != 3 || filepath.Base(left[0]) != "1.host:2,S" {
		t.Errorf("%v, %d events, there is %v", got, len(events), left)
	}
	if _, err := feedback.Read(t.Context(), p.js, names, p.path, feedback.Options{KeysFile: p.file}, feedback.Maildir(t.TempDir()), "maildir"); err == nil || !strings.Contains(err.Error(), "is no maildir") {
		t.Errorf("a folder that is none: %v", err)
	}
}

func TestAnMboxIsReadMailByMail(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]int{
		"": 0, "From a\nx": 1, "From a\nx\n\nFrom b\ny\n": 2, "From a\nx\nFrom b\ny\n": 1, "From a\n\n>From b\n\nFrom c": 2, "no mail\n\n": 0,
		"From a\n" + strings.Repeat("x", 10000) + "From b\n\nFrom c\n": 2,
	} {
		n := 0
		for _, err := range feedback.Mbox(strings.NewReader(text)) {
			if n++; err != nil {
				t.Error(err)
			}
		}
		if n != want {
			t.Errorf("%.40q: %d mails, want %d", text, n, want)
		}
	}
}
