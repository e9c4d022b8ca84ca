package letter

import (
	"strings"
	"testing"
)

// messageOf is a message to many.
func messageOf(t *testing.T, raw string, sevenBit bool) Letter {
	t.Helper()
	tp, err := Compile(raw, Options{Constant: true})
	if err != nil {
		t.Fatal(err)
	}
	b := batch(t, "")
	b.ID = ""
	var r Renderer
	l, err := r.Render(tp, b, &Recipient{To: "digest"}, sevenBit)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func TestAMessageToManyGetsWhatItLacksAndKeepsTheRest(t *testing.T) {
	t.Parallel()
	const raw = "From: a@example.com\r\nMessage-ID: <1@old.example>\r\nSubject: {{first}}\r\n\tfolded\r\nBcc: b@example.com\r\nX-Odd : =?x?=\r\n\r\n.{{#x}}\r\n\r\nend"
	const want = "From: a@example.com\r\nMessage-ID: <1@old.example>\r\nSubject: {{first}}\r\n\tfolded\r\nX-Odd : =?x?=\r\n" +
		"Date: Fri, 01 May 2026 08:30:00 +0000\r\nMIME-Version: 1.0\r\n\r\n..{{#x}}\r\n\r\nend\r\n"
	if l := messageOf(t, raw, true); string(l.Wire) != want || l.Size != int64(len(want)-1) || l.EightBit || l.UTF8 {
		t.Errorf("%q, %d", l.Wire, l.Size)
	}
	id := fieldOf(string(messageOf(t, "From: a@example.com\n\nx", false).Wire), "Message-ID")
	if !strings.HasSuffix(id, "@example.com>") || id != fieldOf(string(messageOf(t, "From: a@example.com\n\nx", false).Wire), "Message-ID") {
		t.Errorf("Message-ID:%s", id)
	}
	if l := messageOf(t, "From: a@example.com", false); bodyOf(string(l.Wire)) != "" {
		t.Errorf("%q", l.Wire)
	}
}

func TestWhatWouldArriveBrokenIsEncoded(t *testing.T) {
	t.Parallel()
	long := strings.Repeat("word ", 300)
	for _, test := range []struct {
		name, raw, field, want, body string
		sevenBit, eightBit, utf8     bool
	}{
		{"a raw subject", "Subject: für\n", "Subject", " =?utf-8?q?f=C3=BCr?=", "", false, false, false},
		{"in the charset of the text", "Subject: \xa4\nContent-Type: text/plain; charset=iso-8859-15\n\nx", "Subject", " =?utf-8?b?4oKs?=", "", false, false, false},
		{"in none", "Subject: \x80\n\nx", "Subject", " =?utf-8?b?4oKs?=", "", false, false, false},
		{"a raw name", "To: Jörg, <j@example.com>, Müller <m@example.com>\n\nx", "To", " Jörg, <j@example.com>, Müller <m@example.com>", "", false, false, true},
		{"a raw quoted name", "To: \"Jörg, L.\" <j@example.com>, Müller <m@example.com>\n\nx", "To", " =?utf-8?q?J=C3=B6rg=2C_L=2E?= <j@example.com>,\r\n =?utf-8?q?M=C3=BCller?= <m@example.com>", "", false, false, false},
		{"a raw domain", "To: j@bücher.example\n\nx", "To", " j@xn--bcher-kva.example", "", false, false, false},
		{"a raw local part", "To: jörg@example.com\n\nx", "To", " jörg@example.com", "", false, false, true},
		{"a raw file name", "Content-Disposition: attachment; filename=\"für.txt\"\n\nx", "Content-Disposition", " attachment; filename*=utf-8''f%C3%BCr.txt", "", false, false, false},
		{"8-bit text", "\nfür", "Content-Type", " text/plain; charset=utf-8", "für\r\n", false, true, false},
		{"8-bit text for an old relay", "\nfür", "Content-Transfer-Encoding", " quoted-printable", "f=C3=BCr\r\n", true, false, false},
		{"its octets stay", "Content-Type: text/plain; charset=koi8-r\n\n\xc1\xc2", "Content-Type", " text/plain; charset=koi8-r", "=C1=C2\r\n", true, false, false},
		{"other 8-bit", "Content-Type: application/x-thing\nContent-Transfer-Encoding: 8bit\n\n\xc1\n\xc2\n", "Content-Transfer-Encoding", " base64", "wQ0Kwg==\r\n", true, false, false},
		{"long base64", "Content-Type: image/png\nContent-Transfer-Encoding: base64\n\n" + strings.Repeat("AAAA", 300), "Content-Transfer-Encoding", " base64", strings.TrimSuffix(strings.Repeat(strings.Repeat("AAAA", 19)+"\r\n", 16)[:15*78+60], "\r\n") + "\r\n", false, false, false},
		{"a long line", "Content-Type: text/html\n\n" + long, "Content-Transfer-Encoding", " quoted-printable", "", false, false, false},
	} {
		raw := "From: a@example.com\nDate: now\nMessage-ID: <1@a>\nMIME-Version: 1.0\n" + test.raw
		l := messageOf(t, raw, test.sevenBit)
		wire := string(l.Wire)
		if got := fieldOf(wire, test.field); got != test.want {
			t.Errorf("%s: %s:%q, want %q", test.name, test.field, got, test.want)
		}
		if got := bodyOf(wire); test.body != "" && got != test.body {
			t.Errorf("%s: body %q, want %q", test.name, got, test.body)
		}
		if l.EightBit != test.eightBit || l.UTF8 != test.utf8 {
			t.Errorf("%s: 8-bit %v, UTF-8 %v", test.name, l.EightBit, l.UTF8)
		}
		for line := range strings.SplitSeq(wire, "\r\n") {
			if len(line) > maxLine {
				t.Errorf("%s: a line of %d", test.name, len(line))
			}
		}
	}
	for _, field := range []string{"Subject: " + strings.Repeat("x", 2000), "To: " + strings.Repeat("Ann Lee <ann@example.net>, ", 80) + "x@example.net", "X-Long: " + long, "References: " + strings.Repeat("<1@a> ", 300)} {
		for line := range strings.SplitSeq(string(messageOf(t, "From: a@example.com\n"+field+"\n\nx", false).Wire), "\r\n") {
			if len(line) > maxLine {
				t.Errorf("%.20s: a line of %d", field, len(line))
			}
		}
	}
	if _, err := Compile("From: a@example.com\nReferences: "+strings.Repeat("x", 2000)+"\n\nx", Options{Constant: true}); err == nil || err.Error() != "line 2: the field References has a word that cannot be folded below 998 octets" {
		t.Error(err)
	}
}

func TestAPublisherIsToldWhatItShouldNotSend(t *testing.T) {
	t.Parallel()
	const ok = "From: a@example.com\nTo: b@example.net\nSubject: t\nDate: now\nMessage-ID: <1@a>\n"
	for _, test := range []struct{ header, want string }{
		{ok, ""},
		{"Subject: t\n", "there is no From field: add one, as From: News <news@example.com>"},
		{ok + "FROM: c@example.com\n", "line 6: a second FROM field, the first is on line 1: leave one"},
		{ok + "Subject: u\nTo: d@example.com\n", "line 6: a second Subject field, the first is on line 3: leave one; line 7: a second To field, the first is on line 2: leave one"},
		{ok + "date: then\nmessage-id: <2@a>\n", "line 6: a second date field, the first is on line 4: leave one; line 7: a second message-id field, the first is on line 5: leave one"},
		{ok + "Cc: \"=?utf-8?q?J=C3=B6rg?=\" <j@example.com>\n", "line 6: Cc has an encoded word (=?…?=) in quotes: take the quotes off"},
		{ok + "Cc: <=?utf-8?q?j?=@example.com>\n", "line 6: Cc has an encoded word (=?…?=) in an address: an address is not encoded"},
		{ok + "Content-Type: text/plain; name==?utf-8?q?j?=\n", "line 6: Content-Type has an encoded word (=?…?=) in Content-Type, which is no text: encode it as RFC 2231 does, or write ASCII"},
		{ok + "Cc: =?utf-8?q?J=C3=B6rg?= <j@example.com>, (=?utf-8?q?c?=) k@example.com\nX: \"=?utf-8?q?c?=\"\n", ""},
	} {
		tp, err := Compile(test.header+"\nx\n", Options{Constant: true})
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		for _, p := range tp.Problems() {
			got = append(got, p.String())
		}
		if strings.Join(got, "; ") != test.want {
			t.Errorf("%s\n got %s\nwant %s", test.header, strings.Join(got, "; "), test.want)
		}
	}
	if tp := compile(t, head+"bcc: a@example.com\n\nx"); !tp.HasBcc() || tp.Has("bcc") {
		t.Error("Bcc is not seen")
	}
}
