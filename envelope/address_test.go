package envelope

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestAnAddressHasOneForm(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		in   string
		want Address
	}{
		{"ann@example.net", Address{Mailbox: "ann@example.net", Domain: "example.net"}},
		{"Ann.B+tag@Example.NET", Address{Mailbox: "Ann.B+tag@example.net", Domain: "example.net"}},
		{"!#$%&'*+-/=?^_`{|}~@example.net", Address{Mailbox: "!#$%&'*+-/=?^_`{|}~@example.net", Domain: "example.net"}},
		{"root@localhost", Address{Mailbox: "root@localhost", Domain: "localhost"}},
		{"a@1.example", Address{Mailbox: "a@1.example", Domain: "1.example"}},
		{"a@r3---b.example.net", Address{Mailbox: "a@r3---b.example.net", Domain: "r3---b.example.net"}},

		{`"ann"@example.net`, Address{Mailbox: "ann@example.net", Domain: "example.net"}},
		{`"a\nn"@example.net`, Address{Mailbox: "ann@example.net", Domain: "example.net"}},
		{`"a b"@example.net`, Address{Mailbox: `"a b"@example.net`, Domain: "example.net"}},
		{`"a\ b\"\\@<c>"@Example.net`, Address{Mailbox: `"a b\"\\@<c>"@example.net`, Domain: "example.net"}},
		{`".a"@example.net`, Address{Mailbox: `".a"@example.net`, Domain: "example.net"}},
		{`"a."@example.net`, Address{Mailbox: `"a."@example.net`, Domain: "example.net"}},
		{`"a..b"@example.net`, Address{Mailbox: `"a..b"@example.net`, Domain: "example.net"}},
		{`""@example.net`, Address{Mailbox: `""@example.net`, Domain: "example.net"}},

		{"a@[192.0.2.1]", Address{Mailbox: "a@[192.0.2.1]", Domain: "[192.0.2.1]"}},
		{"a@[ipv6:2001:DB8:0::1]", Address{Mailbox: "a@[IPv6:2001:db8::1]", Domain: "[IPv6:2001:db8::1]"}},

		{"jörg@example.net", Address{Mailbox: "jörg@example.net", Domain: "example.net", UTF8: true}},
		{`"jörg"@example.net`, Address{Mailbox: "jörg@example.net", Domain: "example.net", UTF8: true}},
		{`"jörg ü"@example.net`, Address{Mailbox: `"jörg ü"@example.net`, Domain: "example.net", UTF8: true}},

		{strings.Repeat("l", 64) + "@example.net", Address{Mailbox: strings.Repeat("l", 64) + "@example.net", Domain: "example.net"}},
		{"a@" + strings.Repeat("d", 63) + ".test", Address{Mailbox: "a@" + strings.Repeat("d", 63) + ".test", Domain: strings.Repeat("d", 63) + ".test"}},
	} {
		got, err := ParseAddress(test.in)
		if err != nil {
			t.Errorf("%v", err)
		} else if diff := cmp.Diff(test.want, got); diff != "" {
			t.Errorf("%s (-want +got):\n%s", test.in, diff)
		}
	}
}

// What a user finds beside the recipient, with the local reply 553 5.1.3.
func TestAnAddressThatCannotBeSentToSaysWhy(t *testing.T) {
	t.Parallel()
	for in, want := range map[string]string{
		"":                                       `empty`,
		"ann":                                    `no @`,
		"@example.net":                           `nothing before the @`,
		"ann@":                                   `nothing after the @`,
		"ann@b@example.net":                      `more than one @`,
		"Ann <ann@example.net>":                  `a space outside quotes`,
		"<ann@example.net>":                      `give the bare address, without a name and < >`,
		"ann@example.net>":                       `give the bare address, without a name and < >`,
		"ann@example.net,bob@example.net":        `give each address by itself`,
		" ann@example.net":                       `a space outside quotes`,
		"ann@example.net ":                       `a space in the domain`,
		"ann(work)@example.net":                  `'(' outside quotes`,
		"@a.test,@b.test:ann@example.net":        `nothing before the @`,
		"ann@example.net\r\nDATA":                `has the control character U+000D`,
		"ann\x00@example.net":                    `has the control character U+0000`,
		"ann\t@example.net":                      `has the control character U+0009`,
		"ann@exam\x7fple.net":                    `has the control character U+007F`,
		"\"a\nb\"@example.net":                   `has the control character U+000A`,
		"\"a\x7fb\"@example.net":                 `has the control character U+007F`,
		"\"a\\\rb\"@example.net":                 `has the control character U+000D`,
		`"a@example.net`:                         `the quote is not closed`,
		`"a\`:                                    `the quote is not closed`,
		`"a\"@example.net`:                       `the quote is not closed`,
		`"a"b@example.net`:                       `an @ belongs after the closing quote`,
		`"\ü"@example.net`:                       `a backslash quotes ASCII only`,
		".ann@example.net":                       `a dot in the local part belongs between two other characters, or in quotes`,
		"ann.@example.net":                       `a dot in the local part belongs between two other characters, or in quotes`,
		"a..nn@example.net":                      `a dot in the local part belongs between two other characters, or in quotes`,
		strings.Repeat("l", 65) + "@a.test":      `the local part is longer than 64 octets`,
		strings.Repeat("ü", 33) + "@a.test":      `the local part is longer than 64 octets`,
		"a@" + strings.Repeat("d", 64):           `a label of the domain is longer than 63 octets`,
		"a@" + strings.Repeat("d.", 125) + "ee":  ``, // 254 octets
		"a@" + strings.Repeat("d.", 125) + "eee": `longer than 254 octets`,
		"a@" + strings.Repeat("d.", 128) + "e":   `the domain is longer than 255 octets`,
		"a@example.net.":                         `the domain ends with a dot`,
		"a@.":                                    `the domain has an empty label`,
		"a@.example.net":                         `the domain has an empty label`,
		"a@example..net":                         `the domain has an empty label`,
		"a@-example.net":                         `a label of the domain begins or ends with a hyphen`,
		"a@example-.net":                         `a label of the domain begins or ends with a hyphen`,
		"a@under_score.example.net":              `'_' in the domain`,
		"a@192.0.2.1":                            `an IP address goes in brackets: [192.0.2.1]`,
		"a@[192.0.2.1":                           `the bracket of the address literal is not closed`,
		"a@[192.0.2.256]":                        `not an address literal: write [192.0.2.1] or [IPv6:2001:db8::1]`,
		"a@[2001:db8::1]":                        `not an address literal: write [192.0.2.1] or [IPv6:2001:db8::1]`,
		"a@[IPv6:fe80::1%eth0]":                  `not an address literal: write [192.0.2.1] or [IPv6:2001:db8::1]`,
		"a@[IPv6:192.0.2.1]":                     `not an address literal: write [192.0.2.1] or [IPv6:2001:db8::1]`,
		"j\xf6rg@example.net":                    `not UTF-8`,
		"j\ufffdrg@example.net":                  `has U+FFFD, the mark of text read in the wrong encoding`,
		"\ufeffann@example.net":                  `has the invisible character U+FEFF`,
		"ann\u00a0@example.net":                  `has the invisible character U+00A0`,
		"ann\u200b@example.net":                  `has the invisible character U+200B`,
		"ann@b\xfccher.example":                  `not UTF-8`,
	} {
		a, err := ParseAddress(in)
		switch {
		case want == "":
			if err != nil {
				t.Error(err)
			}
		case err == nil:
			t.Errorf("%q: taken for %+v", in, a)
		case err.Error() != quoted(in)+": "+want:
			t.Errorf("%q:\n got %s\nwant %s", in, err, want)
		}
	}
}

func TestAnErrorAboutAnAddressIsOneShortLine(t *testing.T) {
	t.Parallel()
	_, err := ParseAddress("x\r\n\x1b[2J" + strings.Repeat("y", 10000))
	if s := err.Error(); strings.ContainsAny(s, "\r\n\x1b") || len(s) > 400 {
		t.Errorf("%d octets: %q", len(s), s)
	}
}

func TestTheNullSenderIsASenderButNoRecipient(t *testing.T) {
	t.Parallel()
	for in, want := range map[string]string{"": "", "<>": "", "Ann@Example.net": "Ann@example.net"} {
		if got, err := ParseSender(in); err != nil || got != want {
			t.Errorf("%q: %q, %v", in, got, err)
		}
	}
	if _, err := ParseSender("<a@example.net>"); err == nil {
		t.Error("angle brackets are taken for a sender")
	}
}

func TestACommonAddressCostsNoAllocation(t *testing.T) {
	for _, in := range []string{"user.name+tag@mail-1.example.net", "jörg@example.net"} {
		if n := testing.AllocsPerRun(100, func() { _, _ = ParseAddress(in) }); n != 0 {
			t.Errorf("%s: %v allocations", in, n)
		}
	}
}
