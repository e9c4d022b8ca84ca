package list_test

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"strings"
	"testing"
	"testing/iotest"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"

	"bulkmail/envelope"
	"bulkmail/envelope/list"
)

// Whatever a list is: it is refused with a reason, or its entries are addresses
// that can be sent to or say why not, in order, and the same however it comes.
func FuzzList(f *testing.F) {
	for _, seed := range []string{
		"ann@example.net\nBob <bob@example.org>\n# x\n",
		"Vorname;E-Mail\r\nJ\xf6rg;jorg@example.net\r\n",
		"sep=|\nName|Email\n\"A\n\"\"B\"\"\"|ann@example.net; bob@example.net\n",
		`{"to":"ann@example.net","name":"Ann","data":{"a":1}}` + "\n" + `{"email":"bob@example.net","x":"y"}`,
		"campaign,batch,recipient,status\nnews,1,'=a@example.net,rejected\n",
		"\xff\xfea\x00@\x00b\x00.\x00c\x00\n\x00",
		"=?utf-8?q?J=C3=B6rg?= <jorg@example.org>, \"a\\\"b\" <x@example.net> ::: y@example.net",
		zip("ann@example.net\n"),
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		got := holds(t, data)
		again, err := readAll(iotest.OneByteReader(bytes.NewReader(data)), list.Options{Data: true})
		if _, second := errors.AsType[*list.Error](err); err != nil && !second {
			t.Fatalf("error is %v", err)
		}
		if diff := cmp.Diff(got, again); diff != "" {
			t.Fatalf("octet by octet (-at once +so):\n%s", diff)
		}
		if !utf8.Valid(data) || bytes.IndexByte(data, 0) >= 0 || len(data) < 4 || len(got) == 0 || bytes.HasPrefix(data, []byte("\ufeff")) {
			return
		}
		for _, encoded := range []string{zip(string(data)), wide(string(data), binary.BigEndian, true)} {
			if again, err = readAll(strings.NewReader(encoded), list.Options{Data: true}); err != nil && len(again) == 0 {
				t.Fatalf("encoded anew: %v", err)
			}
			if diff := cmp.Diff(got, again); diff != "" {
				t.Fatalf("encoded anew (-want +got):\n%s", diff)
			}
		}
	})
}

// holds reads a list and checks what is promised of each entry.
func holds(t *testing.T, data []byte) (got []string) {
	t.Helper()
	l, err := list.Open(bytes.NewReader(data), list.Options{Data: true})
	if err != nil {
		if refused, ok := errors.AsType[*list.Error](err); !ok || refused.Reason == "" {
			t.Fatalf("error is %v", err)
		}
		return nil
	}
	line := 1
	for e, err := range l.Entries() {
		if err != nil {
			break
		}
		_, invalid := envelope.ParseAddress(e.To)
		bad, unusable := errors.AsType[*list.Error](e.Err)
		switch {
		case (invalid != nil) != unusable || (e.Err != nil) != unusable:
			t.Fatalf("%q: parsed with %v, entry says %v", e.To, invalid, e.Err)
		case unusable && (bad.Reason == "" || bad.Line != e.Line || strings.ContainsAny(bad.Error(), "\r\n")):
			t.Fatalf("%q says %q", e.To, bad)
		case e.Line < line || !utf8.ValidString(e.To) || !utf8.ValidString(e.Name):
			t.Fatalf("entry %+v after line %d", e, line)
		case e.Data != nil && (!json.Valid(e.Data) || e.Data[0] != '{'):
			t.Fatalf("data %s", e.Data)
		}
		line = e.Line
		got = append(got, said(e))
	}
	if l.Form() == "" {
		t.Fatal("no form")
	}
	return got
}
