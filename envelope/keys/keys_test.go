package keys

import (
	"strings"
	"testing"

	"pgregory.net/rapid"
)

const file = `# of news.example
k2 MPKgbhoaNnhg4rd3LfSvcgHTHiPrCqmNkbFJd0QkfcM

k1 iNJ8HBYQ5E8hKfpGvEZ0CDMh0mPrxUzMpSX9fOHPYb4
`

func parse(t *testing.T, file string) Keys {
	t.Helper()
	keys, err := Parse(file)
	if err != nil {
		t.Fatal(err)
	}
	return keys
}

func TestTheFirstKeyMakesAndAllRead(t *testing.T) {
	t.Parallel()
	keys := parse(t, file)
	if len(keys) != 2 || keys.First().ID != "k2" || keys.Find("k1") == nil || keys.Find("k3") != nil {
		t.Fatal(keys)
	}
	want := Subscription{"may", "weekly", "Ann@example.net"}
	old := string(keys.Find("k1").Maker().AppendToken(nil, want))
	// Two rotations later.
	for _, id := range []string{"k3", "k4"} {
		k, err := Generate(id)
		if err != nil {
			t.Fatal(err)
		}
		file := Add(file, k)
		if keys = parse(t, file); keys.First().ID != id || len(keys) != 3 || !strings.HasPrefix(file, "# of news.example\n") {
			t.Fatal(file)
		}
	}
	if got, ok := keys.Read(old); !ok || got != want {
		t.Errorf("%+v, %v", got, ok)
	}
	if got, ok := parse(t, "k1 "+strings.Repeat("another-secret", 3)).Read(old); ok {
		t.Errorf("read without its key: %+v", got)
	}
}

func TestAKeysFileThatCannotBeUsedSaysWhy(t *testing.T) {
	t.Parallel()
	for _, test := range []struct{ file, want string }{
		{"", "there is no key in it: let `bulkmail keys new` make one"},
		{"# nothing\n\n", "there is no key in it: let `bulkmail keys new` make one"},
		{"\nk1\n", "line 2: a line has an id and a secret, with a blank between them"},
		{"k1 short\n", "line 1: the secret of k1 is shorter than 22 characters: let `bulkmail keys new` make one"},
		{"k/1 " + strings.Repeat("x", 30), `line 1: the id "k/1" is not 1 to 64 letters, digits, _ or -`},
		{file + "k1 " + strings.Repeat("x", 30), "line 5: the id k1 is there already"},
	} {
		if _, err := Parse(test.file); err == nil || err.Error() != test.want {
			t.Errorf("%q: %v, want %s", test.file, err, test.want)
		}
	}
}

func TestAMessageIDIsThatOfItsCampaignBatchAndMailbox(t *testing.T) {
	t.Parallel()
	m := parse(t, file).First().Maker()
	first := string(m.AppendMessageID(nil, "may", "0001", "ann@example.net"))
	if len(first) != 32 {
		t.Errorf("%q", first)
	}
	if again := string(m.AppendMessageID(nil, "may", "0001", "ann@example.net")); again != first {
		t.Errorf("%s, then %s", first, again)
	}
	seen := map[string]bool{first: true}
	for _, other := range [][3]string{{"ma", "y0001", "ann@example.net"}, {"may", "0002", "ann@example.net"}, {"may", "0001", "Ann@example.net"}} {
		id := string(m.AppendMessageID(nil, other[0], other[1], other[2]))
		if seen[id] {
			t.Errorf("%v has the id of another", other)
		}
		seen[id] = true
	}
}

// What was in letters must be read for months: the form is for good.
func TestATokenOfToday(t *testing.T) {
	t.Parallel()
	keys := parse(t, file)
	s := Subscription{"may", "weekly", "ann@example.net"}
	const want = "ae3q4yexuycjeh62vxg4zowxnbat7jkobtupehgq2bpbj3tbbwjqwbvlpvdcdvcsb626a"
	if got := string(keys.First().Maker().AppendToken(nil, s)); got != want {
		t.Errorf("%s, want %s", got, want)
	}
	if got, ok := keys.Read(strings.ToUpper(want)); !ok || got != s {
		t.Errorf("%+v, %v", got, ok)
	}
}

func TestATokenIsReadByWhoHasItsKeyAndChangedByNobody(t *testing.T) {
	t.Parallel()
	keys := parse(t, file)
	m := keys.First().Maker()
	rapid.Check(t, func(t *rapid.T) {
		s := Subscription{
			Campaign: rapid.StringMatching(`[A-Za-z0-9_-]{1,64}`).Draw(t, "campaign"),
			List:     rapid.StringMatching(`[A-Za-z0-9_-]{0,64}`).Draw(t, "list"),
			Mailbox:  rapid.StringMatching(`[a-z"é.]{1,30}@[a-z]{1,9}\.example`).Draw(t, "mailbox"),
		}
		token := string(m.AppendToken(nil, s))
		if again := string(m.AppendToken(nil, s)); again != token {
			t.Fatalf("%s, then %s", token, again)
		}
		if strings.Trim(token, "abcdefghijklmnopqrstuvwxyz234567") != "" || strings.Contains(token, s.Mailbox) {
			t.Fatalf("token %s", token)
		}
		if got, ok := keys.Read(token); !ok || got != s {
			t.Fatalf("%s: %+v, %v", token, got, ok)
		}
		// The last character has bits that say nothing.
		at := rapid.IntRange(0, len(token)-2).Draw(t, "at")
		forged := []byte(token)
		for forged[at] == token[at] {
			forged[at] = "abcdefghijklmnopqrstuvwxyz234567"[rapid.IntRange(0, 31).Draw(t, "char")]
		}
		if got, ok := keys.Read(string(forged)); ok {
			t.Fatalf("forged %s reads as %+v", forged, got)
		}
	})
}

func FuzzRead(f *testing.F) {
	keys, err := Parse(file)
	if err != nil {
		f.Fatal(err)
	}
	f.Add("ae3q4yexuycjeh62vxg4zowxnbat7jkobtupehgq2bpbj3tbbwjqwbvlpvdcdvcsb626a")
	f.Add("")
	f.Add("aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa")
	f.Fuzz(func(t *testing.T, token string) {
		s, ok := keys.Read(token)
		if ok && !strings.EqualFold(strings.TrimSpace(token[:len(token)-1]), string(keys.First().Maker().AppendToken(nil, s))[:len(token)-1]) {
			t.Errorf("%q reads as %+v", token, s)
		}
	})
}

func BenchmarkToken(b *testing.B) {
	k, err := Generate("k")
	if err != nil {
		b.Fatal(err)
	}
	m := k.Maker()
	var dst []byte
	b.ReportAllocs()
	for b.Loop() {
		dst = m.AppendToken(dst[:0], Subscription{"may-newsletter", "weekly", "user0001@mail001.example.net"})
		dst = m.AppendMessageID(dst, "may-newsletter", "0001", "user0001@mail001.example.net")
	}
}
