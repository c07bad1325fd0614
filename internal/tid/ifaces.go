package tid

import "net/netip"

// IfaceAddr is one address of a network interface of the host.
type IfaceAddr struct {
	Iface string
	Addr  netip.Addr
}

// Ifaces is what matching has to know of the host's network interfaces. The
// zero value knows nothing.
type Ifaces struct {
	owner   map[netip.Addr]string
	primary map[ifaceFamily]netip.Addr
}

type ifaceFamily struct {
	iface string
	ipv4  bool
}

// NewIfaces takes the addresses in the order in which the kernel lists them:
// the first one of a family is the interface's primary, which connections use
// that ask for no other.
func NewIfaces(addrs []IfaceAddr) Ifaces {
	t := Ifaces{
		owner:   make(map[netip.Addr]string, len(addrs)),
		primary: make(map[ifaceFamily]netip.Addr, len(addrs)),
	}
	for _, a := range addrs {
		ip := a.Addr.Unmap().WithZone("")
		if _, ok := t.owner[ip]; !ok {
			t.owner[ip] = a.Iface
		}
		k := ifaceFamily{a.Iface, ip.Is4()}
		if _, ok := t.primary[k]; !ok {
			t.primary[k] = ip
		}
	}
	return t
}

// Owner is the interface that has the address; "" if none has. A zone names
// the interface itself, and decides for link-local addresses, which several
// interfaces may have.
func (t Ifaces) Owner(addr netip.Addr) string {
	if zone := addr.Zone(); zone != "" {
		return zone
	}
	return t.owner[addr.Unmap()]
}

// primaryOf is the primary address of an interface in the family of like.
func (t Ifaces) primaryOf(iface string, like netip.Addr) (netip.Addr, bool) {
	ip, ok := t.primary[ifaceFamily{iface, like.Is4()}]
	return ip, ok
}
