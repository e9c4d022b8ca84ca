package envelope

import (
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"
)

func TestRecipientsAreGroupedByDomainInOrderOfFirstAppearance(t *testing.T) {
	t.Parallel()
	b := Batch{Recipients: []string{
		"ann@b.test", "bob@a.test", "cid@B.test", "dan@[192.0.2.1]", "eve@a.test",
	}}
	p := b.Plan(nil)
	want := []Group{
		{Domain: "b.test", Mailboxes: []string{"ann@b.test", "cid@b.test"}, Addresses: []string{"ann@b.test", "cid@B.test"}},
		{Domain: "a.test", Mailboxes: []string{"bob@a.test", "eve@a.test"}, Addresses: []string{"bob@a.test", "eve@a.test"}},
		{Domain: "[192.0.2.1]", Mailboxes: []string{"dan@[192.0.2.1]"}, Addresses: []string{"dan@[192.0.2.1]"}},
	}
	if diff := cmp.Diff(want, p.Groups); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestTheSameMailboxIsOneRecipientUnderTheAddressThatCameFirst(t *testing.T) {
	t.Parallel()
	b := Batch{Recipients: []string{
		"ann@A.test", "ann@a.test", `"ann"@a.test`, "Ann@a.test", "nobody", "nobody",
	}}
	p := b.Plan(nil)
	want := []Group{{Domain: "a.test", Mailboxes: []string{"ann@a.test", "Ann@a.test"}, Addresses: []string{"ann@A.test", "Ann@a.test"}}}
	if diff := cmp.Diff(want, p.Groups); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if len(p.Invalid) != 1 || p.Recipients() != 3 {
		t.Errorf("%d invalid, %d recipients in all; want 1 and 3", len(p.Invalid), p.Recipients())
	}
}

func TestAnInvalidAddressIsSetApartAndItsNeighboursStay(t *testing.T) {
	t.Parallel()
	b := Batch{Recipients: []string{"ann@a.test", "bob@a.test\r\nRCPT TO:<eve@a.test>", "", "cid@a.test"}}
	p := b.Plan(nil)
	if len(p.Groups) != 1 || !slices.Equal(p.Groups[0].Mailboxes, []string{"ann@a.test", "cid@a.test"}) {
		t.Errorf("groups: %+v", p.Groups)
	}
	var got []string
	for _, invalid := range p.Invalid {
		got = append(got, invalid.Address+" | "+invalid.Err.Error())
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
	b := Batch{Recipients: []string{"ann@a.test", "bob@B.test", "nobody", "cid@a.test", "no one", "bob@b.test"}}
	var asked []string
	p := b.Plan(func(mailbox string) bool {
		asked = append(asked, mailbox)
		return slices.Contains([]string{"bob@b.test", "cid@a.test", "nobody"}, mailbox)
	})
	if diff := cmp.Diff([]string{"ann@a.test", "bob@b.test", "nobody", "cid@a.test", "no one"}, asked); diff != "" {
		t.Errorf("asked (-want +got):\n%s", diff)
	}
	want := []Group{{Domain: "a.test", Mailboxes: []string{"ann@a.test"}, Addresses: []string{"ann@a.test"}}}
	if diff := cmp.Diff(want, p.Groups); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if len(p.Invalid) != 1 || p.Invalid[0].Address != "no one" || p.Recipients() != 2 || p.Settled != 3 {
		t.Errorf("invalid %v, %d recipients, %d settled", p.Invalid, p.Recipients(), p.Settled)
	}
}

func TestRecipientsThatWantSMTPUTF8DoNotHoldUpTheirNeighbours(t *testing.T) {
	t.Parallel()
	b := Batch{Recipients: []string{"ann@a.test", "jörg@a.test", "bob@a.test", "zoë@a.test"}}
	want := []Group{
		{Domain: "a.test", Mailboxes: []string{"ann@a.test", "bob@a.test"}, Addresses: []string{"ann@a.test", "bob@a.test"}},
		{Domain: "a.test", UTF8: true, Mailboxes: []string{"jörg@a.test", "zoë@a.test"}, Addresses: []string{"jörg@a.test", "zoë@a.test"}},
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
	b := Batch{Recipients: []string{"a@a.test", "b@a.test", "c@a.test", "x@b.test"}}
	p := b.Plan(nil)
	g := &p.Groups[0]
	_ = append(g.Mailboxes, "y@a.test")
	first, rest, none := g.Cut(2), g.Cut(100), g.Cut(1)
	if !slices.Equal(first.Mailboxes, []string{"a@a.test", "b@a.test"}) || !slices.Equal(rest.Mailboxes, []string{"c@a.test"}) || none.Len() != 0 || g.Len() != 0 {
		t.Errorf("cut %v, %v, %v, left %v", first, rest, none, g)
	}
	// An envelope's owner may append without writing into its neighbour.
	_ = append(first.Mailboxes, "y@a.test")
	_ = append(rest.Addresses, "y@a.test")
	if rest.Mailboxes[0] != "c@a.test" || p.Groups[1].Mailboxes[0] != "x@b.test" {
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
		b := Batch{Recipients: rapid.SliceOf(address).Draw(t, "recipients")}
		settled := rapid.MapOf(address, rapid.Bool()).Draw(t, "settled")
		p := b.Plan(func(mailbox string) bool { return settled[mailbox] })

		// The same, slowly: the first address of each mailbox, by group.
		type key struct {
			domain string
			utf8   bool
		}
		var order []key
		groups, invalid, known, left := map[key][]string{}, []string(nil), map[string]bool{}, 0
		for _, r := range b.Recipients {
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
				for j := range cut.Mailboxes {
					got = append(got, cut.Mailboxes[j], cut.Addresses[j])
				}
			}
			if k := (key{g.Domain, g.UTF8}); k != order[i] || !slices.Equal(got, groups[k]) {
				t.Fatalf("group %d: %v %q, want %v %q", i, k, got, order[i], groups[order[i]])
			}
		}
		for i := range p.Invalid {
			if p.Invalid[i].Address != invalid[i] {
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
			b.Recipients = append(b.Recipients, local.Draw(t, "local")+"@"+domain.Draw(t, "domain"))
		}
		groups := b.Plan(nil).Groups
		var across Group
		for _, g := range groups {
			across.Mailboxes = append(across.Mailboxes, g.Mailboxes...)
			across.Addresses = append(across.Addresses, g.Addresses...)
		}
		var want []Group // neighbours that differ by UTF8 alone come back as one
		for _, g := range groups {
			if last := len(want) - 1; last >= 0 && want[last].Domain == g.Domain {
				want[last].UTF8 = true
				want[last].Mailboxes = slices.Concat(want[last].Mailboxes, g.Mailboxes)
				want[last].Addresses = slices.Concat(want[last].Addresses, g.Addresses)
				continue
			}
			want = append(want, g)
		}
		if diff := cmp.Diff(want, across.Split()); diff != "" {
			t.Fatalf("(-want +got):\n%s", diff)
		}
	})
}
