package relay

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"os"
	"regexp"
	"strings"
	"time"
)

// LocalDomain is what EHLO says where nobody configured it: this host's full
// name, or else an address literal (RFC 5321, 4.1.4). hostname is usually [FQDN],
// addrs net.InterfaceAddrs.
func LocalDomain(hostname func() (string, error), addrs func() ([]net.Addr, error)) string {
	if name, err := hostname(); err == nil && isFullName(name) {
		return strings.TrimSuffix(name, ".")
	}
	all, err := addrs()
	if err != nil {
		all = nil
	}
	local := netip.AddrFrom4([4]byte{127, 0, 0, 1})
	for _, a := range all {
		p, err := netip.ParsePrefix(a.String())
		if err != nil {
			continue
		}
		ip := p.Addr().Unmap().WithZone("")
		if !ip.IsGlobalUnicast() {
			continue
		}
		// IPv4 first: it is what most relays are reached by, and compare
		// against.
		if ip.Is4() {
			return AddressLiteral(ip)
		}
		if local.IsLoopback() {
			local = ip
		}
	}
	return AddressLiteral(local)
}

// AddressLiteral is an address as it may stand for a domain (RFC 5321, 4.1.3).
func AddressLiteral(ip netip.Addr) string {
	if ip.Is6() {
		return "[IPv6:" + ip.String() + "]"
	}
	return "[" + ip.String() + "]"
}

var fullName = regexp.MustCompile(`^([A-Za-z0-9_]([A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?\.)+[A-Za-z0-9_]*[A-Za-z_-][A-Za-z0-9_-]*\.?$`)

// isFullName tells a name that means something elsewhere from a host's
// nickname, which many servers refuse.
func isFullName(name string) bool {
	return len(name) <= 253 && fullName.MatchString(name) && !strings.HasPrefix(name, "localhost.")
}

// FQDN is the full name of this host: what the kernel calls it, or what
// resolving that says, within two seconds.
func FQDN() (string, error) {
	name, err := os.Hostname()
	if err != nil || isFullName(name) {
		return name, err
	}
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
	defer cancel()
	if full, err := net.DefaultResolver.LookupCNAME(ctx, name); err == nil && isFullName(full) {
		return strings.TrimSuffix(full, "."), nil
	}
	return "", errors.New("the host " + name + " has no full name")
}
