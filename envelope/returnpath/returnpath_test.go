package returnpath

import (
	"bytes"
	"errors"
	"regexp"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

func keysOf(t interface{ Fatal(...any) }, names ...string) *Keys {
	var all [][]byte
	for _, name := range names {
		all = append(all, bytes.Repeat([]byte(name), 16))
	}
	keys, err := NewKeys(all...)
	if err != nil {
		t.Fatal(err)
	}
	return keys
}

func TestATokenSaysWhatWasPutIntoIt(t *testing.T) {
	t.Parallel()
	form := regexp.MustCompile(`^[a-z2-7]{39}$`)
	rapid.Check(t, func(t *rapid.T) {
		keys := keysOf(t, "a")
		m := keys.Minter()
		mailbox := rapid.String().Draw(t, "mailbox")
		want := Token{Sequence: rapid.Uint64Range(0, 1<<48-1).Draw(t, "sequence"), Mailbox: m.Mailbox(mailbox)}
		if want.Batch = rapid.Bool().Draw(t, "batch"); want.Batch {
			want.Mailbox = 0
		}
		token := string(m.Mint(want))
		if !form.MatchString(token) {
			t.Fatalf("%q is not 39 lower-case letters and digits", token)
		}
		got, err := keys.Open(token)
		if err != nil || got.Token != want {
			t.Fatalf("got %+v, %v, want %+v", got, err, want)
		}
		if got.Is(mailbox) == want.Batch || got.Is(mailbox+"x") {
			t.Fatalf("%+v is of the wrong mailbox", got)
		}
		// After two rotations.
		rotated := keysOf(t, "c", "b", "a")
		if got, err := rotated.Open(token); err != nil || got.Token != want || got.Is(mailbox) == want.Batch {
			t.Fatalf("after rotation: %+v, %v", got, err)
		}
		if _, err := keysOf(t, "c", "b").Open(token); !errors.Is(err, errForged) {
			t.Fatalf("without its key: %v", err)
		}
	})
}

func TestAnythingButATokenIsRefusedInTheSameWay(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		keys := keysOf(t, "a", "b")
		token := string(keys.Minter().Mint(Token{Sequence: rapid.Uint64Range(0, 1<<48-1).Draw(t, "sequence"), Mailbox: 7}))
		at := rapid.IntRange(0, Length-1).Draw(t, "at")
		with := rapid.OneOf(rapid.Byte(), rapid.SampledFrom([]byte(letters))).Draw(t, "with")
		forged := rapid.SampledFrom([]string{
			token[:at] + string([]byte{with}) + token[at+1:],
			token[:at], token[at:], token[:at] + token[at+1:] + "a", token + "a", "a" + token[1:],
			strings.ToUpper(token), token[:at] + strings.ToUpper(token[at:]),
			rapid.StringOfN(rapid.RuneFrom([]rune(letters)), Length, Length, -1).Draw(t, "random"), "",
		}).Draw(t, "forged")
		if forged == token {
			t.Skip("not changed")
		}
		if got, err := keys.Open(forged); !errors.Is(err, errForged) || err.Error() != errForged.Error() {
			t.Fatalf("%q made of %q is opened: %+v, %v", forged, token, got, err)
		}
	})
}

func TestAPathCarriesATokenAndGivesItBack(t *testing.T) {
	t.Parallel()
	path, err := ParsePath("b+{token}@Bounces.example.com")
	if err != nil {
		t.Fatal(err)
	}
	address := path.Address([]byte("abc"))
	if address != "b+abc@Bounces.example.com" {
		t.Errorf("got %s", address)
	}
	for address, want := range map[string]string{
		address: "abc", "B+abc@bounces.EXAMPLE.com": "abc", "b+@bounces.example.com": "", "c+abc@bounces.example.com": "",
		"b+abc@example.com": "", "": "", "@": "",
	} {
		if got, ok := path.Token(address); got != want || ok != (want != "") {
			t.Errorf("%s: got %q, %t", address, got, ok)
		}
	}
	for _, wrong := range []string{
		"", "b@example.com", "{token}", "b+{token}", "b+{token}@", "b@{token}.example.com", "{token}{token}@example.com", "b {token}@example.com",
		"bounces-of-example-com+" + "xyz+{token}@example.com", "a@b+{token}@example.com",
	} {
		if _, err := ParsePath(wrong); err == nil {
			t.Errorf("%q is taken for a path", wrong)
		}
	}
}

func TestAShortKeyIsRefused(t *testing.T) {
	t.Parallel()
	for _, keys := range [][][]byte{nil, {[]byte("short")}, {bytes.Repeat([]byte("a"), 16), nil}} {
		if _, err := NewKeys(keys...); err == nil {
			t.Errorf("%q are taken for keys", keys)
		}
	}
}

func TestMintingAllocatesNothing(t *testing.T) {
	m := keysOf(t, "a").Minter()
	token := Token{Sequence: 17, Mailbox: m.Mailbox("ann@example.net")}
	m.Mint(token)
	if n := testing.AllocsPerRun(100, func() {
		token.Mailbox = m.Mailbox("somebody.with.a.long.name@a.domain.with.a.long.name.example.net")
		m.Mint(token)
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func FuzzOpen(f *testing.F) {
	keys := keysOf(f, "a")
	token := string(keys.Minter().Mint(Token{Sequence: 1, Mailbox: 2}))
	f.Add(token)
	f.Add(strings.ToUpper(token))
	f.Add(token[1:])
	f.Add(strings.Repeat("=", Length))
	f.Fuzz(func(t *testing.T, s string) {
		if _, err := keys.Open(s); err == nil && s != token {
			t.Fatalf("%q is opened", s)
		}
	})
}

func BenchmarkMint(b *testing.B) {
	m := keysOf(b, "a").Minter()
	b.ReportAllocs()
	for b.Loop() {
		m.Mint(Token{Sequence: 17, Mailbox: m.Mailbox("ann@example.net")})
	}
}
