package envelope

import (
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"
)

func TestRecipientsAreGroupedByDomainInOrderOfFirstAppearance(t *testing.T) {
	t.Parallel()
	b := Batch{Recipients: published(
		"ann@b.test", "bob@a.test", "cid@B.test", "dan@[192.0.2.1]", "eve@a.test",
	)}
	p := b.Plan(nil)
	want := []Group{
		{Domain: "b.test", Recipients: []Recipient{{Address: "ann@b.test", Mailbox: "ann@b.test"}, {Address: "cid@B.test", Mailbox: "cid@b.test"}}},
		{Domain: "a.test", Recipients: To("bob@a.test", "eve@a.test")},
		{Domain: "[192.0.2.1]", Recipients: To("dan@[192.0.2.1]")},
	}
	if diff := cmp.Diff(want, p.Groups); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestTheSameMailboxIsOneRecipientUnderTheAddressThatCameFirst(t *testing.T) {
	t.Parallel()
	b := Batch{Recipients: published(
		"ann@A.test", "ann@a.test", `"ann"@a.test`, "Ann@a.test", "nobody", "nobody",
	)}
	p := b.Plan(nil)
	want := []Group{{Domain: "a.test", Recipients: []Recipient{{Address: "ann@A.test", Mailbox: "ann@a.test"}, {Address: "Ann@a.test", Mailbox: "Ann@a.test"}}}}
	if diff := cmp.Diff(want, p.Groups); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if len(p.Invalid) != 1 || p.Recipients() != 3 {
		t.Errorf("%d invalid, %d recipients in all; want 1 and 3", len(p.Invalid), p.Recipients())
	}
}

func TestAnInvalidAddressIsSetApartAndItsNeighboursStay(t *testing.T) {
	t.Parallel()
	b := Batch{Recipients: published("ann@a.test", "bob@a.test\r\nRCPT TO:<eve@a.test>", "", "cid@a.test")}
	p := b.Plan(nil)
	if len(p.Groups) != 1 || !slices.Equal(p.Groups[0].Recipients, To("ann@a.test", "cid@a.test")) {
		t.Errorf("groups: %+v", p.Groups)
	}
	var got []string
	for _, invalid := range p.Invalid {
		got = append(got, invalid.Recipient.Address+" | "+invalid.Err.Error())
	}
	want := []string{
		"bob@a.test\r\nRCPT TO:<eve@a.test> | " + `"bob@a.test\r\nRCPT TO:<eve@a.test>": has the control character U+000D`,
		` | "": empty`,
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestWhatIsSettledIsLeftOut(t *testing.T) {
	t.Parallel()
	b := Batch{Recipients: published("ann@a.test", "bob@B.test", "nobody", "cid@a.test", "no one", "bob@b.test")}
	var asked []string
	p := b.Plan(func(r Recipient) bool {
		asked = append(asked, r.Address+" "+r.Mailbox)
		return slices.Contains([]string{"bob@b.test", "cid@a.test", "nobody"}, r.Mailbox)
	})
	if diff := cmp.Diff([]string{"ann@a.test ann@a.test", "bob@B.test bob@b.test", "nobody nobody", "cid@a.test cid@a.test", "no one no one"}, asked); diff != "" {
		t.Errorf("asked (-want +got):\n%s", diff)
	}
	want := []Group{{Domain: "a.test", Recipients: To("ann@a.test")}}
	if diff := cmp.Diff(want, p.Groups); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if len(p.Invalid) != 1 || p.Invalid[0].Recipient.Address != "no one" || p.Recipients() != 2 || p.Settled != 3 {
		t.Errorf("invalid %v, %d recipients, %d settled", p.Invalid, p.Recipients(), p.Settled)
	}
}

func TestRecipientsThatWantSMTPUTF8DoNotHoldUpTheirNeighbours(t *testing.T) {
	t.Parallel()
	b := Batch{Recipients: published("ann@a.test", "jörg@a.test", "bob@a.test", "zoë@a.test")}
	want := []Group{
		{Domain: "a.test", Recipients: To("ann@a.test", "bob@a.test")},
		{Domain: "a.test", UTF8: true, Recipients: To("jörg@a.test", "zoë@a.test")},
	}
	p := b.Plan(nil)
	if diff := cmp.Diff(want, p.Groups); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if cut := p.Groups[1].Cut(1); !cut.UTF8 {
		t.Error("the envelope cut from a group that wants SMTPUTF8 does not want it")
	}
}

func TestEnvelopesAreCutFromTheFrontUntilNothingIsLeft(t *testing.T) {
	t.Parallel()
	b := Batch{Recipients: published("a@a.test", "b@a.test", "c@a.test", "x@b.test")}
	p := b.Plan(nil)
	g := &p.Groups[0]
	_ = append(g.Recipients, To("y@a.test")...)
	first, rest, none := g.Cut(2), g.Cut(100), g.Cut(1)
	if !slices.Equal(first.Recipients, To("a@a.test", "b@a.test")) || !slices.Equal(rest.Recipients, To("c@a.test")) || none.Len() != 0 || g.Len() != 0 {
		t.Errorf("cut %v, %v, %v, left %v", first, rest, none, g)
	}
	// An envelope's owner may append without writing into its neighbour.
	_ = append(first.Recipients, To("y@a.test")...)
	_ = append(rest.Recipients, To("y@a.test")...)
	if rest.Recipients[0].Mailbox != "c@a.test" || p.Groups[1].Recipients[0].Mailbox != "x@b.test" {
		t.Error("appending to one envelope changed another")
	}
}

func TestAPlanLosesNobodyAndSaysNobodyTwice(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		address := rapid.Custom(func(t *rapid.T) string {
			return rapid.SampledFrom([]string{"ann", "Ann", `"ann"`, "bob", "jörg", "a b", ""}).Draw(t, "local") +
				rapid.SampledFrom([]string{"@a.test", "@A.test", "@b.test", "@[192.0.2.1]", "@c.test.", ""}).Draw(t, "domain")
		})
		list := rapid.SliceOf(address).Draw(t, "recipients")
		b := Batch{Recipients: published(list...)}
		settled := rapid.MapOf(address, rapid.Bool()).Draw(t, "settled")
		p := b.Plan(func(r Recipient) bool { return settled[r.Mailbox] })

		// The same, slowly: the first address of each mailbox, by group.
		type key struct {
			domain string
			utf8   bool
		}
		var order []key
		groups, invalid, known, left := map[key][]string{}, []string(nil), map[string]bool{}, 0
		for _, r := range list {
			a, err := ParseAddress(r)
			if err != nil {
				a.Mailbox = r
			}
			if known[a.Mailbox] {
				continue
			}
			known[a.Mailbox] = true
			k := key{a.Domain, a.UTF8}
			switch {
			case settled[a.Mailbox]:
				left++
				continue
			case err != nil:
				invalid = append(invalid, r)
				continue
			case groups[k] == nil:
				order = append(order, k)
			}
			groups[k] = append(groups[k], a.Mailbox, r)
		}

		if p.Settled != left || p.Recipients()+p.Settled != len(known) || len(p.Groups) != len(order) {
			t.Fatalf("%d groups, %d recipients and %d settled; want %d groups, %d settled of %d", len(p.Groups), p.Recipients(), p.Settled, len(order), left, len(known))
		}
		for i, g := range p.Groups {
			var got []string
			for g.Len() > 0 {
				cut := g.Cut(rapid.IntRange(1, 3).Draw(t, "grant"))
				for _, r := range cut.Recipients {
					got = append(got, r.Mailbox, r.Address)
				}
			}
			if k := (key{g.Domain, g.UTF8}); k != order[i] || !slices.Equal(got, groups[k]) {
				t.Fatalf("group %d: %v %q, want %v %q", i, k, got, order[i], groups[order[i]])
			}
		}
		for i := range p.Invalid {
			if p.Invalid[i].Recipient.Address != invalid[i] {
				t.Fatalf("invalid: %v, want %q", p.Invalid, invalid)
			}
		}
	})
}

func TestPlanningTakesFewAllocationsHoweverManyTheRecipients(t *testing.T) {
	b := batchOf(10000, 10)
	if n := testing.AllocsPerRun(10, func() { b.Plan(nil) }); n > 100 {
		t.Errorf("%v allocations for 10,000 recipients", n)
	}
}

func TestAnEnvelopeOfManyDomainsSplitsIntoItsGroupsAgain(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		local := rapid.SampledFrom([]string{"ann", "Bob", `"a@b"`, "ü", "cid"})
		domain := rapid.SampledFrom([]string{"a.test", "B.test", "[192.0.2.1]", "[IPv6:2001:db8::1]", "bücher.test"})
		var b Batch
		for range rapid.IntRange(1, 30).Draw(t, "recipients") {
			b.Recipients = append(b.Recipients, published(local.Draw(t, "local")+"@"+domain.Draw(t, "domain"))...)
		}
		groups := b.Plan(nil).Groups
		var across Group
		for _, g := range groups {
			across.Recipients = append(across.Recipients, g.Recipients...)
		}
		var want []Group // neighbours that differ by UTF8 alone come back as one
		for _, g := range groups {
			if last := len(want) - 1; last >= 0 && want[last].Domain == g.Domain {
				want[last].UTF8 = true
				want[last].Recipients = slices.Concat(want[last].Recipients, g.Recipients)
				continue
			}
			want = append(want, g)
		}
		if diff := cmp.Diff(want, across.Split()); diff != "" {
			t.Fatalf("(-want +got):\n%s", diff)
		}
	})
}

func TestTooMuchDataIsTheRecipientsOwnTrouble(t *testing.T) {
	t.Parallel()
	list := published("ann@a.test", "bob@a.test", "cid@a.test")
	list[0].Letter = &Letter{Data: `{"a":"` + strings.Repeat("x", DataBytes-8) + `"}`}
	list[1].Letter = &Letter{Data: `{"a":"` + strings.Repeat("x", DataBytes-7) + `"}`}
	p := (&Batch{Recipients: list}).Plan(nil)
	if len(p.Groups) != 1 || p.Groups[0].Len() != 2 || p.Groups[0].Recipients[0].Letter != list[0].Letter {
		t.Errorf("groups: %+v", p.Groups)
	}
	if len(p.Invalid) != 1 || p.Invalid[0].Recipient != list[1] || p.Invalid[0].Err.Error() != "data: has 32769 bytes, 32768 are the most" {
		t.Errorf("invalid: %+v", p.Invalid)
	}
}
