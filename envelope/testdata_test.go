package envelope

import (
	"errors"
	"os"
	"strings"
	"testing"
)

// The shipped lists and messages are what the demo, the tests of the command
// and newcomers send; here they are held to what they say about themselves.

func TestTheNastyListSaysWhatBecomesOfEachAddress(t *testing.T) {
	t.Parallel()
	list, err := os.ReadFile("../testdata/nasty.txt")
	if err != nil {
		t.Fatal(err)
	}
	said, tried := "", 0
	for line := range strings.Lines(string(list)) {
		line = strings.TrimSuffix(line, "\n")
		if line == "" || strings.HasPrefix(line, "# ") {
			said = line
			continue
		}
		tried++
		a, err := ParseAddress(line)
		if reason, ok := strings.CutPrefix(said, "# invalid: "); ok {
			if e, ok := errors.AsType[*AddressError](err); !ok || e.Reason != reason {
				t.Errorf("%q is said to be invalid, %s:\n got %+v, %v", line, reason, a, err)
			}
			continue
		}
		if !strings.HasPrefix(said, "# valid, ") || !strings.HasSuffix(said, ": "+a.Mailbox) || err != nil {
			t.Errorf("%q under %q:\n got %+v, %v", line, said, a, err)
		}
	}
	if tried < 40 {
		t.Errorf("%d addresses found", tried)
	}
}

func TestTheShippedListIsTwoThousandRecipientsWithALongTail(t *testing.T) {
	t.Parallel()
	list, err := os.ReadFile("../testdata/recipients.txt")
	if err != nil {
		t.Fatal(err)
	}
	var b Batch
	for line := range strings.Lines(string(list)) {
		line = strings.TrimSpace(line)
		if _, inner, ok := strings.Cut(line, " <"); ok {
			line = strings.TrimSuffix(inner, ">")
		}
		if line != "" && line[0] != '#' {
			b.Recipients = append(b.Recipients, Recipient{Address: line})
		}
	}
	p := b.Plan(nil)
	most, single := 0, 0
	for _, g := range p.Groups {
		most = max(most, g.Len())
		if g.Len() == 1 {
			single++
		}
		if !reserved(g.Domain) {
			t.Errorf("%s is nobody's to write to", g.Domain)
		}
	}
	if len(b.Recipients) != 2000 || p.Recipients() != 2000 || len(p.Invalid) != 0 || len(p.Groups) != 150 || most != 666 || single < 75 {
		t.Errorf("%d lines, %d recipients, %d invalid, %d domains, %d in the largest, %d alone",
			len(b.Recipients), p.Recipients(), len(p.Invalid), len(p.Groups), most, single)
	}
}

// reserved tells whether mail to the domain can reach nobody (RFC 2606).
func reserved(domain string) bool {
	for _, end := range []string{".test", ".example.net", ".example.org", ".example.com"} {
		if strings.HasSuffix("."+domain, end) {
			return true
		}
	}
	return false
}

func TestTheShippedMessagesAreFitForTheWire(t *testing.T) {
	t.Parallel()
	for _, name := range []string{"plain.eml", "multipart.eml"} {
		raw, err := os.ReadFile("../testdata/" + name)
		if err != nil {
			t.Fatal(err)
		}
		m := NewMessage(string(raw))
		if stuffed := int64(len(m.Wire())) - m.Size(); stuffed == 0 || m.EightBit() || m.UTF8() {
			t.Errorf("%s: %d dots stuffed, 8-bit %v, UTF-8 %v; want dots, 7-bit, ASCII", name, stuffed, m.EightBit(), m.UTF8())
		}
	}
}
