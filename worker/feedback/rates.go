package feedback

import (
	"net"
	"net/netip"
	"sync"
	"time"

	"golang.org/x/time/rate"
)

// defaultRate is what one address may ask for in a second: mailbox providers send
// many unsubscribes from few addresses.
const defaultRate = 200

// rateAddresses is how many addresses are known at a time, twice.
const rateAddresses = 4096

// rates bound how often an address may ask for something.
type rates struct {
	perSecond int

	mu       sync.Mutex // guards what follows
	now, old map[netip.Prefix]*rate.Limiter
}

func newRates(perSecond int) *rates {
	return &rates{perSecond: perSecond, now: make(map[netip.Prefix]*rate.Limiter)}
}

// allow tells whether an address may ask once more. Who has a network of IPv6 has
// all its addresses.
func (r *rates) allow(remote string, at time.Time) bool {
	host, _, err := net.SplitHostPort(remote)
	if err != nil {
		host = remote
	}
	addr, err := netip.ParseAddr(host)
	if err != nil {
		return true
	}
	addr = addr.Unmap().WithZone("")
	bits := addr.BitLen()
	if addr.Is6() {
		bits = 64
	}
	network := netip.PrefixFrom(addr, bits).Masked()
	return r.of(network).AllowN(at, 1)
}

func (r *rates) of(network netip.Prefix) *rate.Limiter {
	r.mu.Lock()
	defer r.mu.Unlock()
	if l := r.now[network]; l != nil {
		return l
	}
	l := r.old[network]
	if l == nil {
		l = rate.NewLimiter(rate.Limit(r.perSecond), 2*r.perSecond)
	}
	if len(r.now) >= rateAddresses {
		r.now, r.old = make(map[netip.Prefix]*rate.Limiter), r.now
	}
	r.now[network] = l
	return l
}
