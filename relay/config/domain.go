package config

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"os"
	"strings"
	"time"
)

// localDomain is what EHLO says where nobody configured it: this host's full
// name, or else an address literal (RFC 5321, 4.1.4).
func (l *loader) localDomain() string {
	if name, err := l.opt.Hostname(); err == nil && isFullName(name) {
		return strings.TrimSuffix(name, ".")
	}
	addrs, err := l.opt.Addrs()
	if err != nil {
		addrs = nil
	}
	local := netip.AddrFrom4([4]byte{127, 0, 0, 1})
	for _, a := range addrs {
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
			return addressLiteral(ip)
		}
		if local.IsLoopback() {
			local = ip
		}
	}
	return addressLiteral(local)
}

// isFullName tells a name that means something elsewhere from a host's
// nickname, which many servers refuse.
func isFullName(name string) bool {
	bare := strings.TrimSuffix(name, ".")
	_, err := checkDomainName(name, errDomain)
	return err == nil && strings.Contains(bare, ".") && !strings.HasPrefix(bare, "localhost.")
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
