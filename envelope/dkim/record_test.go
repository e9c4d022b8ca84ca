package dkim

import (
	"strings"
	"testing"
)

func TestAPublishedRecordIsComparedWithTheKey(t *testing.T) {
	t.Parallel()
	rsa, ed := key(t, "example.com", "r1", "rsa.pem"), key(t, "example.com", "e1", "ed25519.pem")
	other := key(t, "example.com", "r1", "rsa8.pem")
	for _, test := range []struct {
		key  *Key
		txt  []string
		want string
	}{
		{rsa, []string{rsa.Record()}, ""},
		{ed, []string{"v=spf1 -all", ed.Record() + "; t=s"}, ""},
		{rsa, []string{strings.Replace(rsa.Record(), "v=DKIM1; k=rsa; p=", "p = ", 1)}, ""},
		{rsa, nil, "there is no DKIM record"},
		{rsa, []string{rsa.Record(), other.Record()}, "there is more than one DKIM record, and receivers read any of them"},
		{rsa, []string{other.Record()}, "it is another key than that of the file"},
		{rsa, []string{ed.Record()}, "it is a key of type ed25519, the file has one of type rsa"},
		{rsa, []string{"v=DKIM1; p="}, "the key is revoked (p= is empty)"},
		{rsa, []string{rsa.Record() + "; t=y"}, "it says t=y, testing: take that out"},
		{rsa, []string{rsa.Record() + "; h=sha1"}, "it is for h=sha1 alone, signatures are with sha256"},
	} {
		got := ""
		if err := test.key.Compare(test.txt); err != nil {
			got = err.Error()
		}
		if got != test.want {
			t.Errorf("%v: %q, want %q", test.txt, got, test.want)
		}
	}
}

func TestAKeyThatIsMadeCanBeRead(t *testing.T) {
	t.Parallel()
	for _, kind := range []string{"rsa", "ed25519"} {
		text, err := Generate(kind)
		if err != nil {
			t.Fatal(err)
		}
		k, err := NewKey("Example.com", "s1", text)
		if err != nil {
			t.Fatal(err)
		}
		zone := k.ZoneRecord()
		if !strings.HasPrefix(zone, `s1._domainkey.example.com. IN TXT ( "v=DKIM1; k=`+kind) {
			t.Error(zone)
		}
		for part := range strings.SplitSeq(zone, `"`) {
			if len(part) > maxString {
				t.Errorf("a string of %d", len(part))
			}
		}
	}
	if _, err := Generate("dsa"); err == nil {
		t.Error("a key of type dsa")
	}
}
