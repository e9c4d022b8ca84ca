package letter

import (
	"errors"
	"strings"
	"testing"

	"bulkmail/envelope/keys"
	"bulkmail/testdata"
)

const head = "From: News <news@example.com>\n"

func TestAValueIsWrittenAsItsPlaceWants(t *testing.T) {
	t.Parallel()
	const data = `{"v":"<b>Tom & \"Jerry's\"</b>","q":"a b&c/d?ü","url":"https://x.example/?a=1&b=2","lines":"one\r\ntwo\rthree\nfour"}`
	for _, test := range []struct{ header, template, want string }{
		{"Content-Type: text/html", "{{v}}", "&lt;b&gt;Tom &amp; &quot;Jerry&#39;s&quot;&lt;/b&gt;\n"},
		{"Content-Type: text/html", "{{{v}}}{{&v}}", `<b>Tom & "Jerry's"</b><b>Tom & "Jerry's"</b>` + "\n"},
		{"Content-Type: text/plain", "{{v}} {{{v}}}", `<b>Tom & "Jerry's"</b> <b>Tom & "Jerry's"</b>` + "\n"},
		{"Content-Type: text/html", `<a href="https://x.example/{{q}}?q={{q}}&amp;r={{q}}">{{url}}</a>`, `<a href="https://x.example/a%20b%26c%2Fd%3F%C3%BC?q=a%20b%26c%2Fd%3F%C3%BC&amp;r=a%20b%26c%2Fd%3F%C3%BC">https://x.example/?a=1&amp;b=2</a>` + "\n"},
		{"Content-Type: text/html", `<a href="{{url}}">`, `<a href="https://x.example/?a=1&amp;b=2">` + "\n"},
		{"Content-Type: text/html", `<a href="HTTPS://x.example/{{{v}}}">`, `<a href="HTTPS://x.example/<b>Tom & "Jerry's"</b>">` + "\n"},
		{"Content-Type: text/plain", "see https://x.example/{{q}}, or {{url}} or ftp://x/{{v}}", "see https://x.example/a%20b%26c%2Fd%3F%C3%BC, or https://x.example/?a=1&b=2 or ftp://x/" + `<b>Tom & "Jerry's"</b>` + "\n"},
		{"X-Other: y", "{{lines}}", "one\ntwo\nthree\nfour\n"},
		{"Content-Transfer-Encoding: base64", "e3tsaW5lc319", "one\ntwo\nthree\nfour"},
		{"Content-Transfer-Encoding: quoted-printable", "{{lines}} =7B=7Bv=7D}", "one\ntwo\nthree\nfour " + `<b>Tom & "Jerry's"</b>` + "\n"},
	} {
		got := textOf(t, wireOf(t, head+test.header+"\n\n"+test.template+"\n", data))
		if strings.TrimSuffix(got, "\n") != strings.TrimSuffix(test.want, "\n") {
			t.Errorf("%s, %s:\n got %q\nwant %q", test.header, test.template, got, test.want)
		}
	}
}

func TestAHeaderFieldHoldsWhatItMay(t *testing.T) {
	t.Parallel()
	long := strings.Repeat("ä long subject ", 20)
	data := `{"a":"Ann","u":"Jörg","quoted":"Lee, \"Ann\" <x@y.example>","tab":"a\tb","fake":"=?utf-8?q?x?=","long":"` + long + `","q":"a b&c"}`
	for _, test := range []struct{ field, want string }{
		{"Subject: Hi {{a}}, how are you?", " Hi Ann, how are you?"},
		{"Subject: Hi {{u}}, how are you?", " Hi =?utf-8?q?J=C3=B6rg,?= how are you?"},
		{"Subject: =?utf-8?q?F=C3=BCr_=7B=7Bu}}?= alone", " =?utf-8?q?F=C3=BCr_J=C3=B6rg?= alone"},
		{"Subject: =?iso-8859-1?q?F=FCr_{{a}}?=", " =?utf-8?q?F=C3=BCr?= Ann"},
		{"Subject: {{fake}}", " =?utf-8?q?=3D=3Futf-8=3Fq=3Fx=3F=3D?="},
		{"Subject: {{tab}}", " a b"},
		{"Subject: {{{quoted}}}", ` Lee, "Ann" <x@y.example>`},
		{"Subject:\n folded {{a}}\n\tagain", " folded Ann\tagain"},
		{"X-Link: https://x.example/?q={{q}}", " https://x.example/?q=a%20b%26c"},
		{"To: {{name}} <{{to}}>", " Ann Lee <ann@example.net>"},
		{"To: {{u}} <{{to}}>", " =?utf-8?q?J=C3=B6rg?= <ann@example.net>"},
		{"To: {{quoted}} <{{to}}>", ` "Lee, \"Ann\" <x@y.example>" <ann@example.net>`},
		{`To: "{{quoted}}" <{{to}}>`, ` "Lee, \"Ann\" <x@y.example>" <ann@example.net>`},
		{`To: "J. {{a}}" <{{to}}>, {{to}}`, ` "J. Ann" <ann@example.net>, ann@example.net`},
		{"To: =?utf-8?q?F=C3=BCr=2C?= {{a}} <{{to}}>", " =?utf-8?q?F=C3=BCr=2C_Ann?= <ann@example.net>"},
		{"To: {{none|}} <{{to}}>", " ann@example.net"},
		{"To: \"a\x01b\" <{{to}}>", " a b <ann@example.net>"},
		{"To: (hi {{a}}) {{to}}", " ann@example.net"},
		{`X-Ours: {{#a}}yes{{/a}}{{^a}}no{{/a}}`, " yes"},
		{"List-Help: <https://x.example/{{q}}>", " <https://x.example/a%20b%26c>"},
		{`Content-Type: text/plain; name="{{a}}.txt"`, ` text/plain; name="Ann.txt"`},
		{`Content-Disposition: inline; filename="{{u}} 1.txt"`, " inline; filename*=utf-8''J%C3%B6rg%201.txt"},
	} {
		name, _, _ := strings.Cut(test.field, ":")
		if got := fieldOf(wireOf(t, head+test.field+"\n\nhi\n", data), name); got != test.want {
			t.Errorf("%s:\n got %q\nwant %q", test.field, got, test.want)
		}
	}
	subject := fieldOf(wireOf(t, head+"Subject: {{long}}{{long}}\n\nhi\n", data), "Subject")
	for i, line := range strings.Split("Subject:"+subject, "\r\n") {
		if len(line) > 76 || i > 0 && line[0] != ' ' {
			t.Errorf("line %q", line)
		}
	}
	if got, err := words.DecodeHeader(strings.ReplaceAll(subject, "\r\n", "")); err != nil || strings.TrimSpace(got) != strings.TrimSpace(long+long) {
		t.Errorf("%q, %v", got, err)
	}
}

func TestALetterThatCannotBeMadeIsRejectedWithTheReason(t *testing.T) {
	t.Parallel()
	for _, test := range []struct{ field, body, data, want string }{
		{"", "{{first}}", ``, "{{first}} is missing and has no default"},
		{"Subject: {{first}}", "x", `{"first":null}`, "{{first}} is missing and has no default"},
		{"", "{{unsubscribe_url}}", ``, "{{unsubscribe_url}} is missing and has no default"},
		{"Subject: {{v}}", "x", `{"v":"a\r\nBcc: b@example.com"}`, "{{v}} in Subject has a line break"},
		{"Subject: {{v}}", "x", `{"v":"a\nb"}`, "{{v}} in Subject has a line break"},
		{"Subject: {{v}}", "x", `{"v":"a\u0000b"}`, "{{v}} in Subject has a NUL"},
		{"", "{{v}}", `{"v":"a\u0000b"}`, "{{v}} has a NUL"},
		{"Subject: {{v}}", "x", `{"v":"` + strings.Repeat("x", 1000) + `"}`, "Subject has a word that cannot be folded below 998 octets"},
		{"To: {{v}}", "x", `{"v":"Ann <ann@example.net>"}`, `To would not be a list of addresses any more: "Ann <ann@example.net>": a space outside quotes`},
		{"To: Ann <{{v}}>", "x", `{"v":"a@b.example>, <c@d.example"}`, `To would not be a list of addresses any more: "a@b.example>, <c@d.example": give the bare address, without a name and < >`},
		{"To: {{v|}}", "x", ``, "To has no address"},
		{"References: <{{v}}>", "x", `{"v":"ü"}`, "{{v}} is not ASCII, which References has to be"},
		{"", "{{v}}", `{"v":[1]}`, "{{v}} is a list or an object, not a text"},
		{"", "{{v}}", `[1`, "the data are not JSON"},
		{"", "{{v}}", `{"v":"` + strings.Repeat("x", 33<<10) + `"}`, "the data have 33800 octets, 32768 is the most"},
		{"Content-Type: text/plain; charset=x-none", "f\xfcr {{v}}", `{"v":"ü"}`, "a value is not ASCII, and the charset of the text it goes into is unknown: say charset=utf-8"},
	} {
		raw := head + test.field + "\n\n" + test.body + "\n"
		if test.field == "" {
			raw = head + "\n" + test.body + "\n"
		}
		_, err := letterOf(t, raw, test.data, false)
		rejected, ok := errors.AsType[*RejectError](err)
		if !ok || rejected.Reason != test.want {
			t.Errorf("%s %s: %v\nwant %s", test.field, test.body, err, test.want)
		}
	}
}

// The line and column are those of the message as it is in the file, whatever it
// is encoded in.
func TestATemplateThatDoesNotParseSaysWhere(t *testing.T) {
	t.Parallel()
	for _, test := range []struct{ raw, want string }{
		{head + "Subject: ä {{first\n\nx\n", "line 2, column 12: the tag is not closed: }} is missing"},
		{head + "Subject: a\n {{#first}}\n\nx\n", "line 3, column 2: the section first is not closed: write {{/first}}"},
		{head + "Subject: =?utf-8?q?{{first?=\n\nx\n", "line 2: the tag is not closed: }} is missing"},
		{head + "\none\n ä {{/x}}\n", "line 4, column 4: no section x is open here"},
		{head + "Content-Transfer-Encoding: quoted-printable\n\none=\n two\nf=C3=BCr {{>x}}\n", "line 6, column 10: partials and blocks are not supported: write the text here"},
		{head + "Content-Type: text/plain; charset=iso-8859-1\nContent-Transfer-Encoding: quoted-printable\n\nf=FCr {{>x}}\n", "line 5, column 7: partials and blocks are not supported: write the text here"},
		{head + "Content-Transfer-Encoding: base64\n\nb25lIHR3\nbyB7e3h9\n", "line 5, column 3: the tag is not closed: }} is missing"},
		{head + "Content-Type: multipart/mixed; boundary=b\n\n--b\n\nfine\n--b\nContent-Type: text/html\n\n<p>\n{{x\n--b--\n", "line 11, column 1: the tag is not closed: }} is missing"},
		{"", "the message is empty"},
		{"hello\n", "line 1: no header field: a message begins with its header, then an empty line, then the text"},
		{head + "\na\x00b\n", "line 3, column 2: a NUL: encode its part as base64"},
		{head + "no field\n\nx", "line 2: neither a header field nor the empty line before the text"},
		{"\nx", "line 1: the line is empty: a message begins with its header"},
	} {
		if _, err := Compile(test.raw, Options{}); err == nil || err.Error() != test.want {
			t.Errorf("%q:\n got %v\nwant %s", test.raw, err, test.want)
		}
	}
}

func TestATextIsEncodedAnewInTheLettersThatNeedIt(t *testing.T) {
	t.Parallel()
	utf8 := head + "MIME-Version: 1.0\nContent-Type: text/plain; charset=utf-8\n"
	for _, test := range []struct {
		name, raw, value, typed, encoding, body string
		sevenBit, eightBit                      bool
	}{
		{"7bit stays", head + "\n.{{v}}\n..\n", ".a\n.b", "no Content-Type", "no Content-Transfer-Encoding", "...a\r\n..b\r\n...\r\n", false, false},
		{"us-ascii becomes UTF-8", head + "\n{{v}}!\n", "ü", " text/plain; charset=utf-8", " quoted-printable", "=C3=BC!\r\n", false, false},
		{"7bit becomes quoted-printable", utf8 + "Content-Transfer-Encoding: 7bit\n\n{{v}}!\n", "ü", " text/plain; charset=utf-8", " quoted-printable", "=C3=BC!\r\n", false, false},
		{"8bit stays", utf8 + "Content-Transfer-Encoding: 8bit\n\n{{v}}!\n", "ü", " text/plain; charset=utf-8", " 8bit", "ü!\r\n", false, true},
		{"8bit for a relay without 8BITMIME", utf8 + "Content-Transfer-Encoding: 8bit\n\n{{v}}!\n", "ü", " text/plain; charset=utf-8", " quoted-printable", "=C3=BC!\r\n", true, false},
		{"8bit without need", utf8 + "Content-Transfer-Encoding: 8bit\n\n{{v}}!\n", "u", " text/plain; charset=utf-8", " 8bit", "u!\r\n", true, false},
		{"a long line", head + "\n{{v}}\n", strings.Repeat("x ", 500), "no Content-Type", " quoted-printable", "", false, false},
		{"another charset stays", head + "Content-Type: text/plain; charset=iso-8859-15; format=flowed\nContent-Transfer-Encoding: quoted-printable\n\nf=FCr {{v}}\n", "10 €", " text/plain; charset=iso-8859-15; format=flowed", " quoted-printable", "f=FCr 10 =A4\r\n", false, false},
		{"or becomes UTF-8", head + "Content-Type: text/plain; charset=iso-8859-1; format=flowed\nContent-Transfer-Encoding: quoted-printable\n\nf=FCr {{v}}\n", "10 €", " text/plain; charset=utf-8; format=flowed", " quoted-printable", "f=C3=BCr 10 =E2=82=AC\r\n", false, false},
		{"raw UTF-8 is labelled", head + "\nfür {{v}}\n", "ü", " text/plain; charset=utf-8", " 8bit", "für ü\r\n", false, true},
		{"octets stay", head + "\nf\xfcr {{v}}\n", "u", "no Content-Type", " 8bit", "f\xfcr u\r\n", false, true},
		{"a blank at the end of a line", utf8 + "Content-Transfer-Encoding: quoted-printable\n\na {{v}}\nb {{v}}c\n", "", "", " quoted-printable", "a=20\r\nb c\r\n", false, false},
		{"and of a value", utf8 + "Content-Transfer-Encoding: quoted-printable\n\na{{v}}\nb{{v}}c{{v}}", "  ", "", " quoted-printable", "a =20\r\nb  c =20\r\n", false, false},
		{"a dot at the beginning", utf8 + "Content-Transfer-Encoding: quoted-printable\n\n{{v}}\n.{{v}}", ".", "", " quoted-printable", "=2E\r\n=2E.\r\n", false, false},
	} {
		l, err := letterOf(t, test.raw, `{"v":`+string(quoteJSON(test.value))+`}`, test.sevenBit)
		if err != nil {
			t.Errorf("%s: %v", test.name, err)
			continue
		}
		wire := string(l.Wire)
		if got := fieldOf(wire, "Content-Type"); test.typed != "" && got != test.typed {
			t.Errorf("%s: Content-Type:%s", test.name, got)
		}
		if got := fieldOf(wire, "Content-Transfer-Encoding"); got != test.encoding {
			t.Errorf("%s: Content-Transfer-Encoding:%s", test.name, got)
		}
		if got := bodyOf(wire); test.body != "" && got != test.body {
			t.Errorf("%s: %q, want %q", test.name, got, test.body)
		}
		if l.EightBit != test.eightBit || l.UTF8 {
			t.Errorf("%s: 8-bit %v, UTF-8 %v", test.name, l.EightBit, l.UTF8)
		}
		if want := int64(len(unstuffed(l.Wire))); l.Size != want {
			t.Errorf("%s: size %d, want %d", test.name, l.Size, want)
		}
		if test.name == "a long line" && strings.TrimRight(textOf(t, wire), "\n") != test.value {
			t.Errorf("%q", wire)
		}
	}
}

func TestALetterHasWhatMailNeeds(t *testing.T) {
	t.Parallel()
	b := batch(t, "")
	b.List, b.UnsubscribeURL, b.UnsubscribeMailto = "weekly", "https://u.example.com/x", "leave@example.com"
	to := &Recipient{To: "ann@example.net"}
	var r Renderer
	l, err := r.Render(compile(t, "From: News <news@Example.com>\nBcc: boss@example.com\nMessage-ID: <1@old.example>\nSubject: t\n\n{{unsubscribe_url}} {{message_id}}\n"), b, to, false)
	if err != nil {
		t.Fatal(err)
	}
	wire := string(l.Wire)
	id := strings.TrimSuffix(strings.TrimPrefix(fieldOf(wire, "Message-ID"), " <"), ">")
	url := strings.TrimPrefix(strings.Split(fieldOf(wire, "List-Unsubscribe"), ">")[0], " <")
	token := strings.TrimPrefix(url, "https://u.example.com/x/")
	for name, want := range map[string]string{
		"Date": " Fri, 01 May 2026 08:30:00 +0000", "MIME-Version": " 1.0", "Bcc": "no Bcc", "List-Id": " <weekly.Example.com>",
		"List-Unsubscribe":      " <" + url + ">,\r\n <mailto:leave@example.com?subject=" + token + ">",
		"List-Unsubscribe-Post": " List-Unsubscribe=One-Click",
	} {
		if got := fieldOf(wire, name); got != want {
			t.Errorf("%s: %q, want %q", name, got, want)
		}
	}
	if !strings.HasSuffix(id, "@Example.com") || len(id) != 32+len("@Example.com") {
		t.Errorf("Message-ID %s", id)
	}
	if got := bodyOf(wire); got != url+" "+id+"\r\n" {
		t.Errorf("%q", got)
	}
	if s, ok := (keys.Keys{b.Key}).Read(strings.ToUpper(token)); !ok || s != (keys.Subscription{Campaign: "may", List: "weekly", Mailbox: "ann@example.net"}) {
		t.Errorf("token %s: %+v, %v", token, s, ok)
	}
	// What the message has itself stays.
	l, err = r.Render(compile(t, "From: {{x|news}}@{{x|news.example.com}}\nDate: then\nMIME-Version: 1.0\nMessage-ID: <{{to}}>\nList-Unsubscribe: <{{unsubscribe_url}}>\n\nx\n"), b, to, false)
	if err != nil {
		t.Fatal(err)
	}
	if wire = string(l.Wire); fieldOf(wire, "Date") != " then" || fieldOf(wire, "Message-ID") != " <ann@example.net>" || strings.Count(wire, "MIME-Version") != 1 ||
		fieldOf(wire, "List-Unsubscribe") != " <"+url+">" || fieldOf(wire, "List-Unsubscribe-Post") != " List-Unsubscribe=One-Click" || l.Domain != "news.example.com" {
		t.Errorf("%s %s", wire, l.Domain)
	}
}

func TestTheDataOfARecipientGoFirst(t *testing.T) {
	t.Parallel()
	var r Renderer
	tp := compile(t, head+"\n{{a}} {{b}} {{name}} {{to}} {{campaign}}{{#list}}{{.}}{{x}}{{/list}}\n")
	b := batch(t, `{"a":"batch","b":"batch","x":"-"}`)
	for _, test := range []struct{ data, want string }{
		{`{"b":"own"}`, "batch own Ann ann@example.net may\n"},
		{`{"name":"Dr. Lee","campaign":"c","list":[1,"2"]}`, "batch batch Dr. Lee ann@example.net c1-2-\n"},
		{``, "batch batch Ann ann@example.net may\n"},
	} {
		l, err := r.Render(tp, b, &Recipient{To: "ann@example.net", Name: "Ann", Data: test.data}, false)
		if err != nil {
			t.Fatal(err)
		}
		if got := textOf(t, string(l.Wire)); got != test.want {
			t.Errorf("%s: %q", test.data, got)
		}
	}
	if _, err := r.Render(tp, &Batch{Data: "{"}, &Recipient{}, false); err == nil || err.Error() != "data of the batch: not JSON" {
		t.Error(err)
	}
}

func TestAttachmentsAndSignedPartsAreLeftAlone(t *testing.T) {
	t.Parallel()
	for _, part := range []string{
		"Content-Type: text/plain\nContent-Disposition: attachment; filename=a.txt\n\n{{x}} .\n.\n",
		"Content-Type: application/json\n\n{\"{{x}}\": 1}\n",
		"Content-Type: multipart/signed; boundary=s\n\n--s\nContent-Type: text/plain\n\n{{x}}\n--s\nContent-Type: application/pgp-signature\n\n{{x}}\n--s--\n",
		"Content-Type: message/rfc822\n\nSubject: {{x}}\n\n{{x}}\n",
	} {
		wire := unstuffed([]byte(wireOf(t, head+"Content-Type: multipart/mixed; boundary=b\n\nfor {{nobody}}\n--b\n"+part+"--b--\n{{after}}\n", `{}`)))
		if want := strings.ReplaceAll("--b\n"+part+"--b--\n{{after}}\n", "\n", "\r\n"); !strings.HasSuffix(string(wire), want) {
			t.Errorf("%s\nwant %s", wire, want)
		}
	}
}

func TestTheSameLetterComesOutAgain(t *testing.T) {
	t.Parallel()
	tp := compile(t, testdata.Newsletter)
	b := batch(t, "")
	b.UnsubscribeURL = "https://u.example.com/"
	var first Renderer
	l, err := first.Render(tp, b, &Recipient{To: "ann@example.net"}, false)
	if err != nil {
		t.Fatal(err)
	}
	want := string(l.Wire)
	for _, other := range []string{"bob@example.net", "ann@example.net"} {
		again, err := first.Render(tp, b, &Recipient{To: other, Name: "Bob", Data: `{"dates":[{"day":"Monday","what":"rowing"}],"first":"Bób"}`}, true)
		if err != nil || string(again.Wire) == want {
			t.Fatalf("%v\n%s", err, again.Wire)
		}
	}
	var second Renderer
	if l, err = second.Render(tp, batchLike(b), &Recipient{To: "ann@example.net"}, false); err != nil || string(l.Wire) != want {
		t.Errorf("%v\n%s\n\nwas\n\n%s", err, l.Wire, want)
	}
}

func batchLike(b *Batch) *Batch {
	other := *b
	return &other
}
