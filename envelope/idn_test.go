package envelope

import (
	"strings"
	"testing"
)

func TestAnInternationalDomainBecomesALabels(t *testing.T) {
	t.Parallel()
	for in, want := range map[string]string{
		"a@bücher.example":        "xn--bcher-kva.example",
		"a@BÜCHER.Example":        "xn--bcher-kva.example",
		"a@XN--Bcher-KVA.example": "xn--bcher-kva.example",
		"a@bu\u0308cher.example":  "xn--bcher-kva.example", // decomposed
		"a@bücher。example":        "xn--bcher-kva.example", // ideographic full stop
		"a@ab--cd.bücher.example": "ab--cd.xn--bcher-kva.example",
		"a@straße.example":        "xn--strae-oqa.example", // its own domain since IDNA 2008, not strasse
		"a@mañana.ｅxample":        "xn--maana-pta.example",
		"a@παράδειγμα.test":       "xn--hxajbheg2az3al.test",
		"a@例え.test":               "xn--r8jz45g.test",
		"a@مثال.test":             "xn--mgbh0fb.test",
	} {
		a, err := ParseAddress(in)
		if err != nil {
			t.Error(err)
		} else if a.Domain != want || a.Mailbox != "a@"+want || a.UTF8 {
			t.Errorf("%s: %+v, want the domain %s", in, a, want)
		}
	}
}

func TestADomainThatIsNotInternationalSaysWhy(t *testing.T) {
	t.Parallel()
	for in, want := range map[string]string{
		"a@xn--a.example":               `not a domain name: invalid label "\u0080"`,
		"a@xn--.example":                `the domain has an empty label`,
		"a@bücher..example":             `the domain has an empty label`,
		"a@bücher.example.":             `the domain ends with a dot`,
		"a@bü_cher.example":             `'_' in the domain`,
		"a@bü＠cher.example":             `not a domain name: disallowed rune U+FF20`,
		"a@bü\u200bcher.example":        ``, // mapped to nothing by UTS 46
		"a@bü\u00a0cher.example":        `not a domain name: disallowed rune U+00A0`,
		"a@אb.test":                     `not a domain name: invalid label "אb.test"`, // both directions in one label
		"a@" + strings.Repeat("ü", 511): `the domain is longer than 255 octets`,
		"a@b\xfccher.example":           `not UTF-8`,
		"a@bü\u0085cher.example":        `not a domain name: disallowed rune U+0085`,
		"a@１９２.0.2.1":                   `an IP address goes in brackets: [192.0.2.1]`,
		"jörg@[192.0.2.1\u200b]":        `not an address literal: write [192.0.2.1] or [IPv6:2001:db8::1]`,
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

// Punycode takes time with the square of the length: a domain of a megabyte
// must not hold up the batch.
func TestAnEndlessInternationalDomainIsRefusedAtOnceAndInShort(t *testing.T) {
	t.Parallel()
	_, err := ParseAddress("a@" + strings.Repeat("üü.", 1<<19))
	oneLine(t, err)
	_, err = ParseAddress("a@" + strings.Repeat("a", 500) + "אb")
	oneLine(t, err)
}
