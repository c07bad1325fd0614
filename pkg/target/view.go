package target

import (
	"cmp"
	"net/netip"
	"slices"
	"strconv"

	"github.com/nvme-stas/stas/pkg/nvme"
)

// maxViews is how many log pages are remembered for hosts that are not
// connected, so that an unchanged page has an unchanged generation for them.
const maxViews = 4096

// view is a discovery log page as one host sees it, or all that see the same.
// It is replaced, never changed.
type view struct {
	gen     uint64
	entries []*logEntry
}

type viewKey struct {
	listener *listener
	host     string // NQN; "" while all hosts see the same
}

// logEntry is an entry of log pages. Pages share it, and it is the same entry
// as long as nothing of it changes: pages are compared by it.
type logEntry struct {
	nvme.DiscoveryLogEntry
	listener *listener // that it leads to; nil for referrals
	label    string    // symbolic name, for extended entries
}

// viewOf returns the log page that a host sees on a listener.
func (t *Target) viewOf(l *listener, host string) *view {
	key := t.viewKey(l, host)
	v := t.views[key]
	if v == nil {
		v = &view{t.gen, t.compile(key)}
		if len(t.views) < maxViews {
			t.views[key] = v
		}
	}
	return v
}

func (t *Target) viewKey(l *listener, host string) viewKey {
	if !t.audience.perHost {
		host = ""
	}
	return viewKey{l, host}
}

// audience is who is told of what, worked out once for each change.
type audience struct {
	perHost    bool                    // hosts do not all see the same
	subsystems []*subsystem            // by name
	zones      map[string][]*subsystem // what a host shares a group with, by name; nil without zoning
}

func (t *Target) newAudience() audience {
	a := audience{perHost: t.zoning.Enabled || t.zoning.Registered, subsystems: t.sortedSubsystems()}
	for _, s := range a.subsystems {
		a.perHost = a.perHost || len(s.Hosts) > 0
	}
	if !t.zoning.Enabled {
		return a
	}
	a.zones = make(map[string][]*subsystem)
	for _, g := range t.zoning.Groups {
		var members []*subsystem
		for _, nqn := range g.Subsystems {
			if s := t.subsystems[nqn]; s != nil {
				members = append(members, s)
			}
		}
		for _, host := range g.Hosts {
			a.zones[host] = append(a.zones[host], members...)
		}
	}
	for host, members := range a.zones {
		slices.SortFunc(members, byName)
		a.zones[host] = slices.Compact(members)
	}
	return a
}

// of returns the subsystems that a host is told of.
func (a audience) of(host string) []*subsystem {
	if a.zones != nil {
		return a.zones[host]
	}
	return a.subsystems
}

// refresh makes all log pages anew, and tells the hosts whose page differs
// from what it was. The cost is that of the pages' lengths, not that of
// hosts times subsystems, as long as hosts see the same.
func (t *Target) refresh() {
	t.gen++
	t.audience = t.newAudience()
	old := t.views
	t.views = make(map[viewKey]*view, len(old))
	renew := func(key viewKey, before *view) *view {
		v := t.views[key]
		if v == nil {
			v = before
			if entries := t.compile(key); before == nil || !slices.Equal(before.entries, entries) {
				v = &view{t.gen, entries}
			}
			t.views[key] = v
		}
		return v
	}
	for _, c := range t.controllers {
		if c.sub != nil {
			continue
		}
		if v := renew(t.viewKey(c.listener, c.hostNQN), c.view); v != c.view {
			moved := !slices.Equal(v.entries, c.view.entries)
			c.view = v
			if moved {
				c.notify(eventDiscoveryLog)
			}
		}
	}
	for key, v := range old {
		if len(t.views) >= maxViews {
			break
		}
		if slices.Contains(t.listeners, key.listener) && (key.host != "") == t.audience.perHost {
			renew(key, v)
		}
	}
}

// compile makes the entries of a log page: the service itself, where else to
// ask, and the storage.
func (t *Target) compile(key viewKey) []*logEntry {
	l := key.listener
	var entries []*logEntry
	if l.self != nil {
		entries = append(entries, l.self)
	}
	entries = append(entries, l.referrals...)
	if t.zoning.Registered && t.registered[key.host] == nil {
		return entries
	}
	for _, s := range t.audience.of(key.host) {
		if s.admits(key.host) {
			entries = append(entries, t.entriesOf(l, s)...)
		}
	}
	return entries
}

// entriesOf returns the ways to a subsystem that a listener's log page lists.
func (t *Target) entriesOf(l *listener, s *subsystem) []*logEntry {
	var entries []*logEntry
	for _, other := range t.listeners {
		if (other == l || l.Discovery.Scope == ScopeTarget) && s.offeredOn(other.Name) {
			entries = append(entries, other.entry(s))
		}
	}
	return entries
}

// all returns the entries of all subsystems, whoever may see them.
func (t *Target) all(l *listener) []*logEntry {
	t.mu.Lock()
	defer t.mu.Unlock()
	entries := slices.Clone(l.referrals)
	if l.self != nil {
		entries = slices.Insert(entries, 0, l.self)
	}
	for _, s := range t.audience.subsystems {
		entries = append(entries, t.entriesOf(l, s)...)
	}
	return entries
}

// entry returns the way to a subsystem through this listener.
func (l *listener) entry(s *subsystem) *logEntry {
	e := l.entries[s]
	if e == nil {
		e = &logEntry{newEntry(l.advertised(), nvme.NVMSubsystem, l.PortID, s.NQN, EntryFlags{NCC: s.NCC}), l, s.Label}
		l.entries[s] = e
	}
	return e
}

// describe makes the entries that depend on the listener alone.
func (l *listener) describe() {
	l.entries = make(map[*subsystem]*logEntry)
	l.self, l.referrals = nil, nil
	d := l.Discovery
	if d.Type == NoDiscovery {
		return
	}
	if !d.NoSelf {
		l.self = &logEntry{newEntry(l.advertised(), nvme.CurrentDiscovery, l.PortID, l.discoveryNQN(), d.Flags), l, ""}
	}
	for _, r := range d.Referrals {
		address, _ := parseAddress(r.Address) // checked before
		nqn := cmp.Or(r.NQN, nvme.WellKnownDiscoveryNQN)
		l.referrals = append(l.referrals, &logEntry{newEntry(address, nvme.Referral, r.PortID, nqn, r.Flags), nil, ""})
	}
}

// discoveryNQN is the name under which the discovery service speaks of itself.
func (l *listener) discoveryNQN() string { return cmp.Or(l.Discovery.NQN, nvme.WellKnownDiscoveryNQN) }

func newEntry(address netip.AddrPort, kind nvme.SubsystemType, port uint16, nqn string, flags EntryFlags) nvme.DiscoveryLogEntry {
	family := nvme.FamilyIPv4
	if address.Addr().Is6() {
		family = nvme.FamilyIPv6
	}
	return nvme.DiscoveryLogEntry{
		TrType: nvme.TCP, AdrFam: family, SubType: kind, TReq: nvme.SecureNotSpecified,
		PortID: port, CntlID: nvme.CntlIDDynamic, ASQSz: adminQueueSize, EFlags: flags.wire(),
		TrSvcID: strconv.Itoa(int(address.Port())), TrAddr: address.Addr().WithZone("").String(), SubNQN: nqn,
	}
}

// notifyNamespaces tells the hosts of a subsystem that namespaces came, went or
// changed.
func (t *Target) notifyNamespaces(s *subsystem, ids []uint32) {
	for _, c := range t.controllers {
		if c.sub == s {
			c.namespacesChanged(ids)
		}
	}
}
