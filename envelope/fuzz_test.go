package envelope

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"net/mail"
	"net/textproto"
	"regexp"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"
)

// Decode against encoding/json with the stricter rules written out slowly:
// what one takes the other takes, and reads the same from it.
func FuzzDecode(f *testing.F) {
	f.Add([]byte(`{"id":"1","from":"a@example.com","recipients":["x@example.net"],"message":"Subject: t\n\nhi\n"}`))
	f.Add([]byte(`{"from":"","recipients":["\ud83d\ude00@example.net","]","\\\"]"],"message_ref":"m"}`))
	f.Add([]byte(`{"from":"","recipients":["x"],"message_ref":"m","dsn_envid":"a+b","dsn_return":"HDRS","dsn_notify":"DELAY,FAILURE"}`))
	f.Add([]byte(`{"version":2,"from":"","recipients":["x",{"to":"y","name":"Y","data":{"a":[1,-0.5e+3,true,null,{"b":"\u00fc"}]}}],"message_ref":"m","data":{"c":{}}}`))
	f.Add([]byte(`{"new":[{"to":1}],"version":17}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		got, err := Decode(data)
		if _, later := errors.AsType[*VersionError](err); later {
			ofLaterVersion(t, data)
			return
		}
		want, ok := decodeSlowly(data)
		switch {
		case ok && err != nil:
			t.Fatalf("refused: %v", err)
		case !ok && err == nil:
			t.Fatalf("taken for %+v", got)
		case !ok:
			if e, ok := errors.AsType[*FieldError](err); !ok || e.Field == "" || e.Reason == "" {
				t.Fatalf("does not say what is wrong where: %v", err)
			}
			oneLine(t, err)
			return
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Fatalf("(-encoding/json +ours):\n%s", diff)
		}
		again, err := Decode(got.AppendJSON(nil))
		if diff := cmp.Diff(got, again); err != nil || diff != "" {
			t.Fatalf("written and read again: %v (-want +got):\n%s", err, diff)
		}
	})
}

// ofLaterVersion checks that data is one JSON object, with a version above ours.
func ofLaterVersion(t *testing.T, data []byte) {
	var object map[string]json.RawMessage
	if err := json.Unmarshal(data, &object); err != nil {
		t.Fatalf("taken for a batch of a later version: %v", err)
	}
	if v := object["version"]; !regexp.MustCompile(`^([3-9]|[1-9][0-9]+)$`).Match(v) {
		t.Fatalf("version %s taken for a later one", v)
	}
}

func decodeSlowly(data []byte) (*Batch, bool) {
	if !utf8.Valid(data) || !json.Valid(data) {
		return nil, false
	}
	dec := json.NewDecoder(bytes.NewReader(data))
	if open, err := dec.Token(); err != nil || open != json.Delim('{') {
		return nil, false
	}
	fields := map[string]json.RawMessage{}
	for dec.More() {
		name, _ := dec.Token()
		if _, twice := fields[name.(string)]; twice {
			return nil, false
		}
		var value json.RawMessage
		if dec.Decode(&value) != nil {
			return nil, false
		}
		fields[name.(string)] = value
	}
	var b Batch
	_, from := fields["from"]
	ok := from
	b.Version = 1
	if value, given := fields["version"]; given {
		if !regexp.MustCompile(`^[1-9][0-9]*$`).Match(value) {
			return nil, false
		}
		if string(value) != "1" && string(value) != "2" {
			return nil, false // told apart below
		}
		b.Version = int(value[0] - '0')
	}
	for name, value := range fields {
		switch name {
		case "version":
		case "data":
			ok = objectSlowly(value, &b.Data) && len(value) <= DataBytes && ok
		case "id":
			ok = stringSlowly(value, &b.ID) && ok
		case "from":
			ok = stringSlowly(value, &b.From) && ok
		case "message":
			ok = stringSlowly(value, &b.Message) && ok
		case "message_ref":
			ok = stringSlowly(value, &b.MessageRef) && ok
		case "dsn_envid":
			ok = stringSlowly(value, &b.DSN.EnvelopeID) && ok && regexp.MustCompile(`^[ -~]*$`).MatchString(b.DSN.EnvelopeID) &&
				len(b.DSN.EnvelopeID)+2*strings.Count(b.DSN.EnvelopeID, " ")+2*strings.Count(b.DSN.EnvelopeID, "+")+2*strings.Count(b.DSN.EnvelopeID, "=") <= 100
		case "dsn_return":
			ok = stringSlowly(value, &b.DSN.Return) && ok && regexp.MustCompile(`^(FULL|HDRS)?$`).MatchString(b.DSN.Return)
		case "dsn_notify":
			const words = `(SUCCESS|FAILURE|DELAY)`
			ok = stringSlowly(value, &b.DSN.Notify) && ok && regexp.MustCompile(`^(NEVER|`+words+`(,`+words+`){0,2})?$`).MatchString(b.DSN.Notify) &&
				strings.Count(b.DSN.Notify, "SUCCESS") < 2 && strings.Count(b.DSN.Notify, "FAILURE") < 2 && strings.Count(b.DSN.Notify, "DELAY") < 2
		case "recipients":
			var list []json.RawMessage
			ok = json.Unmarshal(value, &list) == nil && ok
			for _, value := range list {
				var r Recipient
				ok = recipientSlowly(value, &r) && ok
				b.Recipients = append(b.Recipients, r)
			}
		default:
			return nil, false
		}
	}
	sender, err := ParseSender(b.From)
	b.From = sender
	ok = ok && err == nil && regexp.MustCompile(`^[A-Za-z0-9_-]{0,64}$`).MatchString(b.ID)
	return &b, ok && len(b.Recipients) > 0 && (b.Message == "") != (b.MessageRef == "")
}

func recipientSlowly(value json.RawMessage, r *Recipient) bool {
	if value[0] != '{' {
		return stringSlowly(value, &r.Address)
	}
	r.Letter = new(Letter)
	dec := json.NewDecoder(bytes.NewReader(value))
	_, _ = dec.Token()
	seen := map[string]bool{}
	for dec.More() {
		name, _ := dec.Token()
		var value json.RawMessage
		if dec.Decode(&value) != nil || seen[name.(string)] {
			return false
		}
		seen[name.(string)] = true
		ok := false
		switch name {
		case "to":
			ok = stringSlowly(value, &r.Address)
		case "name":
			ok = stringSlowly(value, &r.Letter.Name)
		case "data":
			ok = objectSlowly(value, &r.Letter.Data)
		}
		if !ok {
			return false
		}
	}
	return seen["to"]
}

// objectSlowly reads an object that is not nested too deep.
func objectSlowly(value json.RawMessage, into *string) bool {
	if value[0] != '{' || !wholeCharacters(value) {
		return false
	}
	*into = string(value)
	depth := 0
	for dec := json.NewDecoder(bytes.NewReader(value)); ; {
		switch token, err := dec.Token(); {
		case err != nil:
			return errors.Is(err, io.EOF)
		case token == json.Delim('{') || token == json.Delim('['):
			depth++
		case token == json.Delim('}') || token == json.Delim(']'):
			depth--
		}
		if depth > deepest {
			return false
		}
	}
}

// stringSlowly reads a string, but none that encoding/json would mend: half a
// surrogate pair becomes U+FFFD there.
func stringSlowly(value json.RawMessage, into *string) bool {
	return value[0] == '"' && json.Unmarshal(value, into) == nil && wholeCharacters(value)
}

func wholeCharacters(value json.RawMessage) bool {
	units := regexp.MustCompile(`\\u[dD][89aAbB]..\\u[dD][c-fC-F]..|\\u([dD][89a-fA-F])|\\.`)
	for _, m := range units.FindAllSubmatch(value, -1) {
		if len(m[1]) > 0 {
			return false
		}
	}
	return true
}

// A mailbox as RFC 5321 4.1.2 and RFC 6531 3.3 spell it, in the one form that
// ParseAddress gives.
var mailboxSyntax = func() *regexp.Regexp {
	const (
		atom  = "[A-Za-z0-9!#$%&'*+/=?^_`{|}~\\x{80}-\\x{10ffff}-]+"
		label = "[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?"
		text  = `[ !#-\[\]-~\x{80}-\x{10ffff}]|\\["\\]`
	)
	return regexp.MustCompile(`^(?:` + atom + `(?:\.` + atom + `)*|"(?:` + text + `)*")@(?:` +
		label + `(?:\.` + label + `)*|\[(?:[0-9.]+|IPv6:[0-9a-f:.]+)\])$`)
}()

func FuzzParseAddress(f *testing.F) {
	for _, s := range []string{
		"ann@example.net", `"a b\"c"@Example.net`, "a@[IPv6:2001:db8::1]", "jörg@bücher.example",
		"a@xn--bcher-kva.example", "a@192.0.2.1", "a\r\n@b.test", `"a.b"@c.test`, "a@b@c", "",
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		a, err := ParseAddress(s)
		if err != nil {
			if e, ok := errors.AsType[*AddressError](err); !ok || e.Address != s || e.Reason == "" {
				t.Fatalf("does not say what is wrong with what: %v", err)
			}
			oneLine(t, err)
			return
		}
		if !mailboxSyntax.MatchString(a.Mailbox) || len(a.Mailbox) > 254 {
			t.Fatalf("%q is no argument of RCPT TO", a.Mailbox)
		}
		if !strings.HasSuffix(a.Mailbox, "@"+a.Domain) || len(a.Mailbox)-len(a.Domain)-1 > 64 {
			t.Fatalf("%+v", a)
		}
		if a.UTF8 == isASCII(a.Mailbox) {
			t.Fatalf("%+v: SMTPUTF8 is for mailboxes that are not ASCII", a)
		}
		again, err := ParseAddress(a.Mailbox)
		if err != nil || again != a {
			t.Fatalf("%+v becomes %+v, %v", a, again, err)
		}
		// net/mail knows no literals in their tagged form and no empty quotes.
		if a.Domain[0] != '[' && !strings.HasPrefix(a.Mailbox, `""`) {
			if _, err := mail.ParseAddress("<" + a.Mailbox + ">"); err != nil {
				t.Fatalf("net/mail refuses %s: %v", a.Mailbox, err)
			}
		}
	})
}

func FuzzNewMessage(f *testing.F) {
	f.Add("Subject: t\n\nhi\n.\n..\n")
	f.Add("Subject: t\r\n folded\r\n\r\na\rb\r\r\n.\r")
	f.Add(".a: \xff\n\n\xff")
	endings := strings.NewReplacer("\r\n", "\r\n", "\r", "\r\n", "\n", "\r\n")
	f.Fuzz(func(t *testing.T, raw string) {
		m := NewMessage(raw)
		want := endings.Replace(raw)
		if want != "" && !strings.HasSuffix(want, "\r\n") {
			want += "\r\n"
		}
		wire := "\r\n" + string(m.Wire())
		if strings.Contains(wire, "\r\n.\r\n") {
			t.Fatalf("the data ends early: %q", wire)
		}
		if strings.ContainsAny(strings.ReplaceAll(wire, "\r\n", ""), "\r\n") {
			t.Fatalf("a bare CR or LF: %q", wire)
		}
		unstuffed := strings.ReplaceAll(wire, "\r\n.", "\r\n")[len("\r\n"):]
		if unstuffed != want || m.Size() != int64(len(want)) {
			t.Fatalf("arrives as %q (size %d), want %q (%d)", unstuffed, m.Size(), want, len(want))
		}
		// A server that is not ours reads it to the lone dot and no further.
		server := textproto.NewReader(bufio.NewReader(strings.NewReader(string(m.Wire()) + ".\r\nRSET\r\n")))
		got, err := io.ReadAll(server.DotReader())
		if err != nil || string(got) != strings.ReplaceAll(want, "\r\n", "\n") {
			t.Fatalf("net/textproto reads %q, %v", got, err)
		}
		if next, err := server.ReadLine(); next != "RSET" {
			t.Fatalf("after the data: %q, %v", next, err)
		}
		header, body, _ := strings.Cut("\r\n"+want, "\r\n\r\n")
		if m.UTF8() == isASCII(header) || m.EightBit() == isASCII(body) {
			t.Fatalf("8-bit %v, UTF-8 %v: %q", m.EightBit(), m.UTF8(), want)
		}
	})
}

func oneLine(t *testing.T, err error) {
	t.Helper()
	s := err.Error()
	if !utf8.ValidString(s) || strings.ContainsFunc(s, func(r rune) bool { return r < ' ' || r == 0x7f }) || len(s) > 1000 {
		t.Fatalf("not one clean line: %q", s)
	}
}
