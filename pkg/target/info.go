package target

import (
	"cmp"
	"maps"
	"slices"
	"time"

	"github.com/nvme-stas/stas/pkg/nvme"
)

// ListenerInfo is a listener as it is now.
type ListenerInfo struct {
	Name        string        `json:"name"`
	Address     string        `json:"address"` // with the port that it got
	PortID      uint16        `json:"port-id"`
	State       string        `json:"state"` // open, refusing, black hole, restarting
	Discovery   DiscoveryType `json:"discovery"`
	NQN         string        `json:"nqn,omitempty"` // of the discovery service
	Connections int           `json:"connections"`
}

// SubsystemInfo is a subsystem as it is now.
type SubsystemInfo struct {
	NQN         string          `json:"nqn"`
	Listeners   []string        `json:"listeners"` // that offer it
	Hosts       []string        `json:"hosts"`     // that may connect; any if there are none
	Controllers int             `json:"controllers"`
	NCC         bool            `json:"ncc"`
	Namespaces  []NamespaceInfo `json:"namespaces"`
}

// NamespaceInfo is a namespace as it is now.
type NamespaceInfo struct {
	ID        uint32      `json:"id"`
	Size      Size        `json:"size"`
	Used      Size        `json:"used"` // memory that it takes
	BlockSize uint32      `json:"block-size"`
	ANAGroup  uint32      `json:"ana-group"`
	ANA       []ANAInfo   `json:"ana"`
	ID128     nvme.HostID `json:"uuid"`
}

// ANAInfo is the state of a namespace's group on a listener.
type ANAInfo struct {
	Listener string        `json:"listener"`
	State    nvme.ANAState `json:"state"`
}

// HostInfo is what the target knows of a host.
type HostInfo struct {
	NQN           string    `json:"nqn"`
	ID            string    `json:"id,omitempty"`
	Connections   int       `json:"connections"` // associations
	Authenticates bool      `json:"authenticates"`
	Zones         []string  `json:"zones"`
	Registered    time.Time `json:"registered,omitzero"`
	Name          string    `json:"name,omitempty"`
	SymbolicName  string    `json:"symbolic-name,omitempty"`
	Software      string    `json:"software,omitempty"`
	Address       string    `json:"address,omitempty"`
	Listener      string    `json:"listener,omitempty"` // where it has registered
}

// ConnectionInfo is an association of a host.
type ConnectionInfo struct {
	CntlID    uint16    `json:"cntlid"`
	Host      string    `json:"host"`
	HostID    string    `json:"hostid"`
	From      string    `json:"from"`
	Listener  string    `json:"listener"`
	Subsystem string    `json:"subsystem"` // NQN by which the host has connected
	Discovery bool      `json:"discovery"`
	KATO      Duration  `json:"kato"`
	Queues    int       `json:"queues"` // of I/O
	Ready     bool      `json:"ready"`
	AERs      int       `json:"aers"` // that wait for an event
	Since     time.Time `json:"since"`
	LastHeard time.Time `json:"last-heard"`
	GENCTR    uint64    `json:"genctr,omitempty"`  // of the log page it sees
	Entries   int       `json:"entries,omitempty"` // of that page
}

// FaultInfo is a fault that is on.
type FaultInfo struct {
	ID int `json:"id"`
	Fault
	Met  int `json:"met"`  // exchanges that it was for
	Done int `json:"done"` // how often it struck
}

// Listeners lists the listeners in the order in which they were added.
func (t *Target) Listeners() []ListenerInfo {
	t.mu.Lock()
	defer t.mu.Unlock()
	var all []ListenerInfo
	for _, l := range t.listeners {
		info := ListenerInfo{
			Name: l.Name, Address: l.bound.String(), PortID: l.PortID, State: string(l.state),
			Discovery: l.Discovery.Type, Connections: len(l.queues),
		}
		if l.Discovery.Type != NoDiscovery {
			info.NQN = l.discoveryNQN()
		}
		all = append(all, info)
	}
	return all
}

// Subsystems lists the subsystems by name.
func (t *Target) Subsystems() []SubsystemInfo {
	t.mu.Lock()
	defer t.mu.Unlock()
	count := make(map[*subsystem]int)
	for _, c := range t.controllers {
		count[c.sub]++
	}
	var all []SubsystemInfo
	for _, s := range t.sortedSubsystems() {
		info := SubsystemInfo{NQN: s.NQN, Hosts: slices.Clone(s.Hosts), Controllers: count[s], NCC: s.NCC}
		for _, l := range t.listeners {
			if s.offeredOn(l.Name) {
				info.Listeners = append(info.Listeners, l.Name)
			}
		}
		state := s.state.Load()
		for _, id := range state.ids {
			n := state.namespaces[id]
			ns := NamespaceInfo{ID: id, Size: n.Size, Used: n.used(), BlockSize: n.BlockSize, ANAGroup: n.ANAGroup, ID128: n.ids}
			for _, l := range info.Listeners {
				ns.ANA = append(ns.ANA, ANAInfo{l, state.anaState(l, n.ANAGroup)})
			}
			info.Namespaces = append(info.Namespaces, ns)
		}
		all = append(all, info)
	}
	return all
}

// Hosts lists the hosts that are connected, have registered, were configured or
// are in a zone group, by name.
func (t *Target) Hosts() []HostInfo {
	t.mu.Lock()
	defer t.mu.Unlock()
	all := make(map[string]*HostInfo)
	of := func(nqn string) *HostInfo {
		if all[nqn] == nil {
			all[nqn] = &HostInfo{NQN: nqn}
		}
		return all[nqn]
	}
	for _, c := range t.controllers {
		info := of(c.hostNQN)
		info.ID = c.hostID.String()
		info.Connections++
	}
	for nqn, h := range t.hosts {
		of(nqn).Authenticates = !h.Key.IsZero()
	}
	for _, g := range t.zoning.Groups {
		for _, nqn := range g.Hosts {
			info := of(nqn)
			info.Zones = append(info.Zones, g.Name)
		}
	}
	for nqn, r := range t.registered {
		info := of(nqn)
		info.ID = cmp.Or(info.ID, r.hostID.String())
		info.Registered, info.Name, info.SymbolicName = r.at, r.name, r.symbolicName
		info.Software, info.Address, info.Listener = r.version, r.from, r.listener
	}
	var list []HostInfo
	for _, nqn := range slices.Sorted(maps.Keys(all)) {
		list = append(list, *all[nqn])
	}
	return list
}

// Connections lists the associations by controller ID.
func (t *Target) Connections() []ConnectionInfo {
	t.mu.Lock()
	defer t.mu.Unlock()
	var all []ConnectionInfo
	for _, id := range slices.Sorted(maps.Keys(t.controllers)) {
		c := t.controllers[id]
		info := ConnectionInfo{
			CntlID: id, Host: c.hostNQN, HostID: c.hostID.String(), From: c.admin.remote,
			Listener: c.listener.Name, Subsystem: c.nqn, Discovery: c.sub == nil,
			Since: c.since, LastHeard: time.Unix(0, c.last.Load()),
		}
		if c.view != nil {
			info.GENCTR, info.Entries = c.view.gen, len(c.view.entries)
		}
		c.mu.Lock()
		info.KATO, info.Queues, info.AERs = Duration(c.kato), len(c.io), len(c.aers)
		info.Ready = c.csts&nvme.CSTSReady != 0
		c.mu.Unlock()
		all = append(all, info)
	}
	return all
}

// Zoning returns the zoning as it is.
func (t *Target) Zoning() Zoning {
	t.mu.Lock()
	defer t.mu.Unlock()
	z := t.zoning
	z.Groups = slices.Clone(z.Groups)
	return z
}

// Faults lists the faults that are on, in the order in which they were added.
func (t *Target) Faults() []FaultInfo {
	var all []FaultInfo
	for _, f := range t.faults.all() {
		f.mu.Lock()
		all = append(all, FaultInfo{ID: f.id, Fault: f.Fault, Met: f.met, Done: f.did})
		f.mu.Unlock()
	}
	return all
}
