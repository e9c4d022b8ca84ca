package relay

import (
	"slices"
	"time"
)

// Changes are the names of relays that [Pool.Configure] found otherwise than
// they were.
type Changes struct{ Added, Removed, Changed []string }

// Any tells whether there are any.
func (c Changes) Any() bool { return len(c.Added)+len(c.Removed)+len(c.Changed) > 0 }

// Configure makes relays those of the pool, in their order, while it works.
// Counters and sessions of a relay whose name is the same stay. Other limits
// hold from the next envelope on; where it is reached otherwise than before, its
// sessions end with the envelope that they are sending. So do those of a relay
// that is no longer there.
func (p *Pool) Configure(relays []Relay) Changes {
	p.mu.Lock()
	defer p.mu.Unlock()
	var changes Changes
	before, lanes := p.members, p.robin.lanes
	p.members, p.robin.lanes = make([]*member, len(relays)), make([]*lane, len(relays))
	for i, r := range relays {
		r.Config = r.Config.WithDefaults(len(relays))
		l := r.Config.Limits()
		old := slices.IndexFunc(before, func(m *member) bool { return m != nil && m.name == r.Config.Name })
		if old < 0 {
			p.members[i] = p.newMember(i, r)
			p.robin.lanes[i] = newLane(l, p.allowance(r.Config.Name, l))
			changes.Added = append(changes.Added, r.Config.Name)
			continue
		}
		m, lane := before[old], lanes[old]
		before[old] = nil
		if p.reconfigure(m, lane, i, r) {
			changes.Changed = append(changes.Changed, m.name)
		}
		p.members[i], p.robin.lanes[i] = m, lane
	}
	for _, m := range before {
		if m != nil {
			p.outdate(m)
			changes.Removed = append(changes.Removed, m.name)
		}
	}
	p.stall.on = false // another relay may be able to take something
	p.dispatch(time.Now())
	return changes
}

// reconfigure makes a relay what r says, and tells whether that is something
// else. Caller holds mu.
func (p *Pool) reconfigure(m *member, lane *lane, index int, r Relay) bool {
	was, is := m.config, r.Config
	m.configure(index, is)
	if was.reached() != is.reached() {
		m.dialer = r.Dialer
		m.health.reset()
		m.reached = false
		p.outdate(m)
	}
	if l := is.Limits(); l != was.Limits() {
		lane.envelopeLimit, lane.perRobin = l.EnvelopeLimit, l.MaxMessagesPerRobin
		switch had := was.Limits(); {
		case p.opts.Allowance == nil || !l.caps().Any() && !had.caps().Any():
			lane.allowance.Change(l.caps())
		default:
			lane.allowance = p.allowance(is.Name, l)
		}
	}
	for surplus := m.open - m.limit; surplus > 0 && len(m.free) > 0; surplus-- {
		p.dismiss(m)
	}
	was.Where, is.Where = "", ""
	return was != is
}

// reached is c without what does not matter to a session.
func (c Config) reached() Config {
	c.EnvelopeLimit, c.EnvelopeDomains = 0, 0
	c.MaxMessages, c.MaxMessagesWindow, c.MaxMessagesSpread, c.MaxRate = 0, 0, false, Rate{}
	c.MaxMessagesPerRobin, c.MaxMessagesPerConnection, c.MaxMessagesWhileAwake, c.SleepLength = 0, 0, 0, 0
	c.MaxConnectionAttempts, c.WorthlessFor, c.Connections, c.Adaptive, c.Where = 0, 0, 0, false, ""
	c.DKIM, c.DKIMUnsigned, c.ReturnPath = "", "", ""
	return c
}

// outdate ends the sessions of a relay once they are idle. Caller holds mu.
func (p *Pool) outdate(m *member) {
	m.generation++
	for len(m.free) > 0 {
		p.dismiss(m)
	}
}

// dismiss ends an idle session. Caller holds mu.
func (p *Pool) dismiss(m *member) {
	s := m.free[0]
	m.free = slices.Delete(m.free, 0, 1)
	p.idle--
	s.work <- nil
}
