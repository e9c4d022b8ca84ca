package envelope

// A Plan is what has to be done about a batch.
type Plan struct {
	Groups  []Group   // in order of first appearance
	Invalid []Invalid // cannot be sent to; in the order of the batch
	Settled int       // recipients left out because they are settled

	recipients int
}

// An Invalid is a recipient that cannot be sent to.
type Invalid struct {
	Recipient Recipient
	Err       error // an *[AddressError], or a *[FieldError] about what it was given beside the address
}

// Recipients is the number of recipients of the plan: those of its groups
// before anything was cut off, and the invalid ones. With Settled it is the
// number of different recipients of the batch.
func (p *Plan) Recipients() int { return p.recipients }

// Plan checks the recipients of the batch and groups them by domain. The same
// mailbox twice is one recipient, under the address that came first; so is
// the same invalid address. Settled may be nil; it is asked once for every
// mailbox, and for every invalid address, which then stands for the mailbox; what
// it answers true for is left out.
func (b *Batch) Plan(settled func(Recipient) bool) Plan {
	p := planner{
		settled: settled,
		seen:    make(map[string]struct{}, len(b.Recipients)),
		placed:  make([]placement, 0, len(b.Recipients)),
		domains: make(map[domain]int32),
	}
	for i := range b.Recipients {
		p.add(int32(i), &b.Recipients[i])
	}
	p.place(b.Recipients)
	return p.plan
}

// planner passes over the recipients twice: the first pass counts, so that the
// second can place all groups in one piece of memory.
type planner struct {
	plan    Plan
	settled func(Recipient) bool
	seen    map[string]struct{}
	placed  []placement
	domains map[domain]int32
	last    int32 // group of the recipient before: published lists are often sorted
	sizes   []int32
}

// A domain is what recipients have to share to be in one group.
type domain struct {
	name string
	utf8 bool
}

// A placement is one recipient in its group.
type placement struct {
	mailbox   string
	recipient int32 // in the batch
	group     int32
}

func (p *planner) add(i int32, r *Recipient) {
	a, err := ParseAddress(r.Address)
	if err != nil {
		// Cannot be mistaken for a mailbox: every mailbox is a valid address.
		a.Mailbox = r.Address
	} else if r.Letter != nil && len(r.Letter.Data) > DataBytes {
		err = tooMuchData(r.Letter.Data)
	}
	if _, twice := p.seen[a.Mailbox]; twice {
		return
	}
	p.seen[a.Mailbox] = struct{}{}
	if p.settled != nil && p.settled(Recipient{r.Address, a.Mailbox, r.Letter}) {
		p.plan.Settled++
		return
	}
	p.plan.recipients++
	if err != nil {
		p.plan.Invalid = append(p.plan.Invalid, Invalid{*r, err})
		return
	}
	g := p.group(domain{a.Domain, a.UTF8})
	p.sizes[g]++
	p.placed = append(p.placed, placement{a.Mailbox, i, g})
}

func (p *planner) group(d domain) int32 {
	if len(p.plan.Groups) > 0 {
		if last := &p.plan.Groups[p.last]; last.Domain == d.name && last.UTF8 == d.utf8 {
			return p.last
		}
	}
	g, ok := p.domains[d]
	if !ok {
		g = int32(len(p.plan.Groups))
		p.domains[d] = g
		p.plan.Groups = append(p.plan.Groups, Group{Domain: d.name, UTF8: d.utf8})
		p.sizes = append(p.sizes, 0)
	}
	p.last = g
	return g
}

func (p *planner) place(recipients []Recipient) {
	memory := make([]Recipient, len(p.placed))
	for g := range p.plan.Groups {
		size := p.sizes[g]
		p.plan.Groups[g].Recipients, memory = memory[:0:size], memory[size:]
	}
	for i := range p.placed {
		at := &p.placed[i]
		group, r := &p.plan.Groups[at.group], &recipients[at.recipient]
		group.Recipients = append(group.Recipients, Recipient{r.Address, at.mailbox, r.Letter})
	}
}
