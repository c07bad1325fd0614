package nbft

import (
	"errors"
	"net/netip"
	"net/url"
	"slices"
	"strings"
)

// Identity is who the firmware was to the storage. The operating system has to
// be the same, or it gets other storage than it was booted from.
type Identity struct {
	NQN           string // "" if the table has none
	NQNConfigured bool   // somebody chose it, it is not a default of the firmware
	// IDs spells the host ID in both byte orders that firmwares use, the likely
	// one first; none if the table has no ID. The connections that were made at
	// boot tell which one is in use: Linux knows one ID for each NQN.
	IDs          []string
	IDConfigured bool
}

// Identity returns who the firmware was. Likely is the spelling that is the
// UUID of the NQN; else the one whose bytes the firmware sent itself, if it
// sent those of the table.
func (t *Table) Identity() Identity {
	id := Identity{NQN: t.Host.NQN, NQNConfigured: t.Host.NQNConfigured, IDConfigured: t.Host.IDConfigured}
	if t.Host.ID == (HostID{}) {
		return id
	}
	id.IDs = []string{t.Host.ID.String(), t.Host.ID.GUID()}
	if _, uuid, _ := strings.Cut(t.Host.NQN, ":uuid:"); strings.EqualFold(uuid, id.IDs[1]) {
		slices.Reverse(id.IDs)
	}
	id.IDs = slices.Compact(id.IDs)
	return id
}

// Controller is a controller that a table names, in the terms of the kernel's
// connect options. Nothing of it was checked beyond what decoding checks.
type Controller struct {
	Transport string
	TrAddr    string // IP address, or a host name in lower case
	TrSvcID   string // port; "" is the default of the transport
	SubsysNQN string
	HostNQN   string // only if somebody configured it; "" leaves it to the host

	// What it is reached through. MAC is zero if the table does not tell;
	// HostIface is "" then, and also if the host has no such interface (yet).
	MAC       MAC
	VLAN      uint16 // 0: none
	HostIface string

	HdrDigest, DataDigest bool
}

// IfaceFinder returns the name of the interface with the address, in the VLAN
// if that is not 0; "" if there is none. A VLAN's interface has the address of
// the one that it is on, so the address alone does not tell it.
type IfaceFinder func(mac MAC, vlan uint16) string

// DiscoveryControllers returns the discovery controllers of the table, each
// once.
func (t *Table) DiscoveryControllers(iface IfaceFinder) []Controller {
	var list []Controller
	for _, d := range t.Discovery {
		addr, port, err := endpoint(d.URI)
		if err != nil {
			continue // Decode reports it
		}
		c := Controller{Transport: TCP.String(), TrAddr: addr, TrSvcID: port, SubsysNQN: d.NQN}
		list = appendNew(list, t.through(c, d.HFI, iface))
	}
	return list
}

// SubsystemControllers returns the controllers through which the firmware
// reached, or was to reach, the namespaces of the table: one for each path,
// that is for each HFI of an entry, and each once, though a path may lead to
// many namespaces. Some firmwares list discovery subsystems here, too.
func (t *Table) SubsystemControllers(iface IfaceFinder) []Controller {
	var list []Controller
	for _, s := range t.Subsystems {
		c := Controller{
			Transport: s.TrType.String(), TrAddr: s.TrAddr.String(), TrSvcID: s.TrSvcID, SubsysNQN: s.NQN,
			HdrDigest: s.HdrDigest, DataDigest: s.DataDigest,
		}
		if len(s.HFIs) == 0 {
			list = appendNew(list, t.through(c, 0, iface))
		}
		for _, r := range s.HFIs {
			list = appendNew(list, t.through(c, r, iface))
		}
	}
	return list
}

// through completes a controller with what belongs to the host.
func (t *Table) through(c Controller, r Ref, iface IfaceFinder) Controller {
	if t.Host.NQNConfigured {
		c.HostNQN = t.Host.NQN
	}
	if h := t.HFI(r); h != nil && h.MAC != (MAC{}) {
		c.MAC, c.VLAN = h.MAC, h.VLAN
		c.HostIface = iface(h.MAC, h.VLAN)
	}
	return c
}

func appendNew(list []Controller, c Controller) []Controller {
	if slices.Contains(list, c) {
		return list
	}
	return append(list, c)
}

// endpoint takes the URI of a discovery controller apart. No port is "".
func endpoint(uri string) (addr, port string, err error) {
	u, err := url.Parse(uri)
	switch {
	case uri == "":
		return "", "", errors.New("is missing")
	case err != nil:
		return "", "", errNoURI
	case u.Scheme != "nvme+tcp":
		return "", "", errors.New("is not of the scheme nvme+tcp")
	case u.Hostname() == "" || !isText(u.Hostname()):
		return "", "", errors.New("names no host")
	}
	if port = u.Port(); port != "" && !isPort(port) {
		return "", "", errors.New("has no port that is one")
	}
	if ip, err := netip.ParseAddr(u.Hostname()); err == nil {
		return ip.Unmap().String(), port, nil
	}
	return strings.ToLower(u.Hostname()), port, nil
}

// errNoURI does not say more: it might quote a password.
var errNoURI = errors.New("is not a URI that can be understood")

// stripURI removes user and password from a URI; other texts stay as they are.
func stripURI(s string) (string, error) {
	scheme, rest, ok := strings.Cut(s, "//")
	if !ok || scheme != "" && !strings.HasSuffix(scheme, ":") {
		return s, nil
	}
	if _, err := url.Parse(s); err != nil {
		return "", errNoURI
	}
	end := strings.IndexAny(rest, "/?#")
	if end < 0 {
		end = len(rest)
	}
	at := strings.LastIndex(rest[:end], "@")
	return scheme + "//" + rest[at+1:], nil
}
