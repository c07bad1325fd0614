package target

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strconv"

	"github.com/nvme-stas/stas/pkg/dhchap"
	"github.com/nvme-stas/stas/pkg/nvme"
)

// Config is what a target consists of. The zero value of everything is usable.
type Config struct {
	Listeners  []Listener  `json:"listeners,omitempty"`
	Subsystems []Subsystem `json:"subsystems,omitempty"`
	Hosts      []Host      `json:"hosts,omitempty"`
	Zoning     Zoning      `json:"zoning,omitzero"`
	Faults     []Fault     `json:"faults,omitempty"`
}

// Listener is a place where hosts connect: a port of the NVM subsystem, in the
// words of the specification.
type Listener struct {
	// Name by which everything else refers to it; "port1", "port2", … if empty.
	Name string `json:"name"`
	// Address is where it listens, "127.0.0.1:8009". Port 0 takes a free one.
	Address string `json:"address"`
	// PortID is PORTID in log page entries; counted from 1 if 0.
	PortID uint16 `json:"port-id,omitempty"`
	// Advertise stands in log page entries in place of the address, for a
	// listener that is reached by another one.
	Advertise string `json:"advertise,omitempty"`
	// MaxH2CData is MAXH2CDATA of the ICResp in bytes; 128 KiB if 0.
	MaxH2CData uint32 `json:"max-h2c-data,omitempty"`
	// InCapsule is how many bytes of data a command of an I/O queue may carry;
	// 8 KiB if 0. Admin queues always take 8 KiB (TCP, "Capsule Sizes").
	InCapsule uint32 `json:"in-capsule,omitempty"`
	// Discovery is the discovery service that answers here.
	Discovery Discovery `json:"discovery,omitzero"`
}

// DiscoveryType says what kind of discovery controller answers.
type DiscoveryType string

// The kinds of discovery controllers.
const (
	DDC         DiscoveryType = "ddc"  // direct: tells about its own target
	CDC         DiscoveryType = "cdc"  // centralized: tells about a fabric, hosts register with it
	NoDiscovery DiscoveryType = "none" // I/O controllers only
	// Untyped is a controller as Linux's target up to 6.12 has it: it reports
	// the type of no discovery controller, and knows neither registration nor
	// supported log pages.
	Untyped DiscoveryType = "untyped"
)

// Discovery is the discovery service of a listener.
type Discovery struct {
	Type DiscoveryType `json:"type,omitempty"` // ddc if empty
	// NQN is the unique name of the discovery subsystem; the well-known one
	// leads there too. Without it there is only the well-known one.
	NQN string `json:"nqn,omitempty"`
	// Scope says whose subsystems the log lists: those offered on this
	// listener, which is the default for all but a CDC, or on any.
	Scope Scope `json:"scope,omitempty"`
	// Referrals are other discovery services.
	Referrals []Referral `json:"referrals,omitempty"`
	// Flags of the log page entry in which the service describes itself.
	Flags EntryFlags `json:"flags,omitzero"`
	// NoSelf leaves that entry out.
	NoSelf bool `json:"no-self,omitempty"`
	// NoPLEO, NoExtended: entries of this port only, extended entries, are not
	// supported. NoSupportedPages: nor is the log page that would tell so.
	NoPLEO           bool `json:"no-pleo,omitempty"`
	NoExtended       bool `json:"no-extended,omitempty"`
	NoSupportedPages bool `json:"no-supported-pages,omitempty"`
	// NoAEN: changes of the log are not announced, and a host that asks for a
	// persistent connection is refused.
	NoAEN bool `json:"no-aen,omitempty"`
	// Registration is how the controller takes Discovery Information
	// Management commands.
	Registration Registration `json:"registration,omitzero"`
	// Authenticate demands DH-HMAC-CHAP of hosts that have a key.
	Authenticate bool `json:"authenticate,omitempty"`
	// IdleTimeout ends a connection without keep alive on which nothing was
	// asked for so long; 2 min if 0.
	IdleTimeout Duration `json:"idle-timeout,omitempty"`
}

// Scope is a range of subsystems.
type Scope string

// The scopes.
const (
	ScopeListener Scope = "listener"
	ScopeTarget   Scope = "target"
)

// Registration says how a discovery controller takes registrations.
type Registration struct {
	Off      bool `json:"off,omitempty"`      // the command is unknown: Invalid Opcode
	Disabled bool `json:"disabled,omitempty"` // Requested Function Disabled
	Locked   bool `json:"locked,omitempty"`   // Zoning Data Structure Locked
	Max      int  `json:"max,omitempty"`      // further hosts: Insufficient Discovery Resources; 16,384 if 0
}

// EntryFlags are the EFLAGS of a log page entry.
type EntryFlags struct {
	DUPRETINFO bool `json:"dupretinfo,omitempty"`
	EPCSD      bool `json:"epcsd,omitempty"`
	NCC        bool `json:"ncc,omitempty"`
}

func (f EntryFlags) wire() nvme.EntryFlags {
	return nvme.NewEntryFlags(f.DUPRETINFO, f.EPCSD, f.NCC)
}

// Referral is a log page entry that leads to another discovery service.
type Referral struct {
	Address string     `json:"address"`           // "192.0.2.1:8009"
	NQN     string     `json:"nqn,omitempty"`     // the well-known one if empty
	PortID  uint16     `json:"port-id,omitempty"` //
	Flags   EntryFlags `json:"flags,omitzero"`
}

// Subsystem is an NVM subsystem with its namespaces.
type Subsystem struct {
	NQN string `json:"nqn"`
	// Listeners that offer it, by name; all if empty.
	Listeners []string `json:"listeners,omitempty"`
	// Hosts that may connect, by host NQN; any if empty.
	Hosts []string `json:"hosts,omitempty"`
	// Namespaces; one of 64 MiB if there are none.
	Namespaces []Namespace `json:"namespaces,omitempty"`
	// SinglePath: the subsystem has one controller only, and no multipath.
	SinglePath bool `json:"single-path,omitempty"`
	// Controllers is how many may exist at a time; 0 is no limit.
	Controllers int `json:"controllers,omitempty"`
	// Queues is how many I/O queues a controller grants; 8 if 0.
	Queues int `json:"queues,omitempty"`
	// Label is the symbolic name in extended log page entries.
	Label string `json:"label,omitempty"`
	// NCC marks the log page entries: no connectivity to the CDC.
	NCC bool `json:"ncc,omitempty"`
	// Serial and Model as Identify shows them; made of the NQN if empty.
	Serial string `json:"serial,omitempty"`
	Model  string `json:"model,omitempty"`
	// ANA is the state of namespace groups by listener, where it is not
	// optimized.
	ANA []ANA `json:"ana,omitempty"`
}

// Namespace is storage in memory, which it takes when it is written.
type Namespace struct {
	ID        uint32 `json:"id,omitempty"`         // counted from 1 if 0
	Size      Size   `json:"size,omitempty"`       // 64 MiB if 0
	BlockSize uint32 `json:"block-size,omitempty"` // 512 or 4096 bytes; 512 if 0
	ANAGroup  uint32 `json:"ana-group,omitempty"`  // 1 if 0
}

// ANA is the state of a group of namespaces as controllers of a listener see it.
type ANA struct {
	Listener string        `json:"listener,omitempty"` // all if empty
	Group    uint32        `json:"group,omitempty"`    // 1 if 0
	State    nvme.ANAState `json:"state"`
}

// Host is what the target knows of a host in advance.
type Host struct {
	NQN string `json:"nqn"`
	// Key is the DH-HMAC-CHAP key of the host. With one, I/O controllers let
	// the host in only if it authenticates itself; see Discovery.Authenticate.
	Key dhchap.Key `json:"dhchap-key,omitzero"`
	// CtrlKey is the key of the controllers, for a host that wants them to
	// authenticate themselves.
	CtrlKey dhchap.Key `json:"dhchap-ctrl-key,omitzero"`
	// Hash and Group are what is used; SHA-256 and the NULL group if empty.
	Hash  dhchap.Hash  `json:"dhchap-hash,omitempty"`
	Group dhchap.Group `json:"dhchap-group,omitempty"`
}

// Zoning is who is told of what. It rules the discovery log, not who may
// connect, as zoning of an IP fabric does.
type Zoning struct {
	// Enabled: a host is told only of subsystems with which it shares a group.
	// Without it the groups are kept and mean nothing.
	Enabled bool `json:"enabled,omitempty"`
	// Registered: a host is told of subsystems only after it has registered.
	Registered bool        `json:"registered,omitempty"`
	Groups     []ZoneGroup `json:"groups,omitempty"`
}

// ZoneGroup is a set of hosts and subsystems.
type ZoneGroup struct {
	Name       string   `json:"name"`
	Hosts      []string `json:"hosts,omitempty"`      // host NQNs
	Subsystems []string `json:"subsystems,omitempty"` // subsystem NQNs
}

// Defaults.
const (
	defaultMaxH2CData  = 128 << 10
	defaultInCapsule   = 8 << 10
	defaultSize        = 64 << 20
	defaultBlockSize   = 512
	defaultQueues      = 8
	defaultMaxHosts    = 16384
	defaultIdleTimeout = 120e9 // ns; what Linux's target allows
)

// check completes a listener by its defaults and says what is wrong with it.
func (l *Listener) check() error {
	if _, err := parseAddress(l.Address); err != nil {
		return fmt.Errorf("listener %s: address: %w", l.Name, err)
	}
	if l.Advertise != "" {
		if _, err := parseAddress(l.Advertise); err != nil {
			return fmt.Errorf("listener %s: advertise: %w", l.Name, err)
		}
	}
	if l.MaxH2CData == 0 {
		l.MaxH2CData = defaultMaxH2CData
	}
	if l.InCapsule == 0 {
		l.InCapsule = defaultInCapsule
	}
	if l.InCapsule%16 != 0 || l.InCapsule > maxTransfer {
		return fmt.Errorf("listener %s: in-capsule is %d, allowed are multiples of 16 up to %d", l.Name, l.InCapsule, maxTransfer)
	}
	if err := l.Discovery.check(); err != nil {
		return fmt.Errorf("listener %s: discovery: %w", l.Name, err)
	}
	return nil
}

func (d *Discovery) check() error {
	if d.Type == "" {
		d.Type = DDC
	}
	if !slices.Contains([]DiscoveryType{DDC, CDC, NoDiscovery, Untyped}, d.Type) {
		return fmt.Errorf("the type is %q, allowed are %s, %s, %s and %s", d.Type, DDC, CDC, Untyped, NoDiscovery)
	}
	if d.Scope == "" {
		d.Scope = ScopeListener
		if d.Type == CDC {
			d.Scope = ScopeTarget
		}
	}
	if d.Scope != ScopeListener && d.Scope != ScopeTarget {
		return fmt.Errorf("the scope is %q, allowed are %s and %s", d.Scope, ScopeListener, ScopeTarget)
	}
	if d.Type == Untyped {
		d.NoSupportedPages, d.NoPLEO, d.NoExtended, d.Registration.Off = true, true, true, true
	}
	if d.IdleTimeout <= 0 {
		d.IdleTimeout = defaultIdleTimeout
	}
	if d.Registration.Max <= 0 {
		d.Registration.Max = defaultMaxHosts
	}
	if d.NQN != "" {
		if err := nvme.CheckNQN(d.NQN); err != nil {
			return err
		}
	}
	for _, r := range d.Referrals {
		if _, err := parseAddress(r.Address); err != nil {
			return fmt.Errorf("referral: %w", err)
		}
		if r.NQN != "" {
			if err := nvme.CheckNQN(r.NQN); err != nil {
				return fmt.Errorf("referral %s: %w", r.Address, err)
			}
		}
	}
	return nil
}

// check completes a subsystem by its defaults and says what is wrong with it.
func (s *Subsystem) check() error {
	if err := nvme.CheckNQN(s.NQN); err != nil {
		return err
	}
	if s.NQN == nvme.WellKnownDiscoveryNQN {
		return fmt.Errorf("%s is the name of discovery, not of a subsystem", s.NQN)
	}
	if s.Queues <= 0 {
		s.Queues = defaultQueues
	}
	if len(s.Namespaces) == 0 {
		s.Namespaces = []Namespace{{}}
	}
	s.Namespaces = slices.Clone(s.Namespaces)
	for i := range s.Namespaces {
		if err := s.Namespaces[i].check(uint32(i) + 1); err != nil {
			return fmt.Errorf("subsystem %s: %w", s.NQN, err)
		}
	}
	for i, a := range s.ANA {
		if a.State == 0 {
			return fmt.Errorf("subsystem %s: ana %d has no state", s.NQN, i+1)
		}
	}
	return nil
}

func (n *Namespace) check(id uint32) error {
	if n.ID == 0 {
		n.ID = id
	}
	if n.Size == 0 {
		n.Size = defaultSize
	}
	if n.BlockSize == 0 {
		n.BlockSize = defaultBlockSize
	}
	if n.ANAGroup == 0 {
		n.ANAGroup = 1
	}
	switch {
	case n.ID > maxNamespaces:
		return fmt.Errorf("namespace %d: the highest ID is %d", n.ID, maxNamespaces)
	case n.BlockSize != 512 && n.BlockSize != 4096:
		return fmt.Errorf("namespace %d: the block size is %d, allowed are 512 and 4096", n.ID, n.BlockSize)
	case n.Size < Size(n.BlockSize) || n.Size%Size(n.BlockSize) != 0:
		return fmt.Errorf("namespace %d: %s is no number of blocks of %d bytes", n.ID, n.Size, n.BlockSize)
	case n.ANAGroup > maxANAGroups:
		return fmt.Errorf("namespace %d: the highest ANA group is %d", n.ID, maxANAGroups)
	}
	return nil
}

func (h *Host) check() error {
	if err := nvme.CheckNQN(h.NQN); err != nil {
		return fmt.Errorf("host: %w", err)
	}
	if h.Key.IsZero() && !h.CtrlKey.IsZero() {
		return fmt.Errorf("host %s: a controller key needs a host key", h.NQN)
	}
	return nil
}

func (g ZoneGroup) check() error {
	if g.Name == "" {
		return errors.New("a zone group without a name")
	}
	return nil
}

// parseAddress reads "ADDRESS:PORT"; it resolves no names.
func parseAddress(s string) (netip.AddrPort, error) {
	host, port, err := net.SplitHostPort(s)
	if err != nil {
		return netip.AddrPort{}, fmt.Errorf("%q is not ADDRESS:PORT", s)
	}
	addr, err := netip.ParseAddr(host)
	if err != nil {
		return netip.AddrPort{}, fmt.Errorf("%q is not an IP address", host)
	}
	n, err := strconv.ParseUint(port, 10, 16)
	if err != nil {
		return netip.AddrPort{}, fmt.Errorf("%q is not a port", port)
	}
	return netip.AddrPortFrom(addr.Unmap(), uint16(n)), nil
}
