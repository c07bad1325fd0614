package nbft

import (
	"encoding/hex"
	"encoding/json"
	"fmt"
	"net/netip"
	"strconv"
)

// Table is a decoded NBFT. Its JSON has the names of libnvme's, and a few more.
type Table struct {
	Header     Header      `json:"-"`
	Host       Host        `json:"host"`
	Subsystems []Subsystem `json:"subsystem"`
	HFIs       []HFI       `json:"hfi"`
	Discovery  []Discovery `json:"discovery"`
	Security   []Security  `json:"security,omitempty"`

	// Problems says what of the table could not be understood.
	Problems []Problem `json:"problems,omitempty"`
}

// HFI is the interface that a reference means; nil if it means none.
func (t *Table) HFI(r Ref) *HFI {
	if r < 1 || int(r) > len(t.HFIs) {
		return nil
	}
	return &t.HFIs[r-1]
}

// Problem is one thing in a table that makes no sense.
type Problem struct {
	Structure string `json:"structure"`      // "HFI", "SSNS"…
	Index     int    `json:"index,omitzero"` // place in its list, the first is 1
	Field     string `json:"field"`
	Text      string `json:"problem"`
	// Ignored says that not only the field, but all of the structure is.
	Ignored bool `json:"ignored"`
}

// String says for example "SSNS 3: NQN: is missing; SSNS 3 is ignored".
func (p Problem) String() string {
	name := p.Structure
	if p.Index > 0 {
		name += " " + strconv.Itoa(p.Index)
	}
	s := fmt.Sprintf("%s: %s: %s", name, p.Field, p.Text)
	if p.Ignored {
		s += "; " + name + " is ignored"
	}
	return s
}

// Ref refers to a descriptor of a list of the Table: 1 is the first one that is
// there, 0 none. In a table without problems that is the index by which the
// firmware means it. In JSON it counts from 0, as libnvme does.
type Ref int

// MarshalJSON is about another reference than none, which fields omit.
func (r Ref) MarshalJSON() ([]byte, error) { return strconv.AppendInt(nil, int64(r)-1, 10), nil }

// Header is the ACPI header (Boot "Header").
type Header struct {
	Major, Minor    uint8
	OEMID           string
	OEMTableID      string
	OEMRevision     uint32
	CreatorID       uint32
	CreatorRevision uint32
	DriverSignature []byte // device path of the firmware's driver, as text or binary
}

// Host is who the firmware was when it connected (Boot "Host Descriptor").
type Host struct {
	NQN           string  `json:"nqn,omitempty"`
	ID            HostID  `json:"id,omitzero"`
	IDConfigured  bool    `json:"host_id_configured"`  // false: a default of the driver
	NQNConfigured bool    `json:"host_nqn_configured"` // likewise
	Primary       Primary `json:"primary_admin_host_flag"`
}

// HostID is a host identifier as the table has it. Whether its bytes are those
// of a UUID in the order of its text, or those of an EFI GUID, differs from
// firmware to firmware.
type HostID [16]byte

// String spells the bytes in their order. A host of this ID sends the same
// bytes in its Connect commands.
func (id HostID) String() string { return uuid(id) }

// GUID spells the bytes as an EFI GUID, whose first three fields are
// little-endian.
func (id HostID) GUID() string {
	id[0], id[1], id[2], id[3] = id[3], id[2], id[1], id[0]
	id[4], id[5] = id[5], id[4]
	id[6], id[7] = id[7], id[6]
	return uuid(id)
}

// MarshalText is String.
func (id HostID) MarshalText() ([]byte, error) { return []byte(id.String()), nil }

func uuid(b [16]byte) string {
	return fmt.Sprintf("%x-%x-%x-%x-%x", b[:4], b[4:6], b[6:8], b[8:10], b[10:])
}

// Primary tells which of several tables has the identity of the host.
type Primary uint8

// The values of Primary.
const (
	PrimaryNotIndicated Primary = 0
	PrimaryUnselected   Primary = 1
	PrimarySelected     Primary = 2
)

func (p Primary) String() string {
	return [...]string{"not indicated", "unselected", "selected", reserved}[p&3]
}

// MarshalText is String.
func (p Primary) MarshalText() ([]byte, error) { return []byte(p.String()), nil }

// reserved is what the fourth value of a field of two bits is called.
const reserved = "reserved"

// TransportType is the TRTYPE of a descriptor.
type TransportType uint8

// TCP is the only transport of the specification.
const TCP TransportType = 3

func (t TransportType) String() string {
	if t == TCP {
		return "tcp"
	}
	return strconv.Itoa(int(t))
}

// MarshalText is String.
func (t TransportType) MarshalText() ([]byte, error) { return []byte(t.String()), nil }

// HFI is a Host Fabric Interface with its transport info (Boot "HFI Descriptor",
// "HFI Transport Info Descriptor – NVMe/TCP").
type HFI struct {
	Index        uint8         `json:"index"`
	TrType       TransportType `json:"trtype"`
	PCI          PCI           `json:"pcidev"`
	MAC          MAC           `json:"mac_addr"`
	VLAN         uint16        `json:"vlan"` // 0: none
	IPOrigin     IPOrigin      `json:"ip_origin"`
	IP           netip.Addr    `json:"ipaddr"`
	Prefix       uint8         `json:"subnet_mask_prefix"`
	Gateway      netip.Addr    `json:"gateway_ipaddr"` // :: or 0.0.0.0: none
	RouteMetric  uint16        `json:"route_metric"`
	PrimaryDNS   netip.Addr    `json:"primary_dns_ipaddr"`
	SecondaryDNS netip.Addr    `json:"secondary_dns_ipaddr"`
	DHCPServer   netip.Addr    `json:"dhcp_server_ipaddr"` // of DHCP only
	HostName     string        `json:"host_name,omitempty"`
	DefaultRoute bool          `json:"this_hfi_is_default_route"`
	DHCP         bool          `json:"dhcp_override"`

	// Since 1.1.
	Autoconf    bool  `json:"address_autoconf,omitzero"`
	PCIeSegment uint8 `json:"pcie_seg_num,omitzero"` // of flit mode
	// The identity that the firmware's DHCP client had (RFC 4361).
	DHCPClientID bool   `json:"dhcp_client_id,omitzero"`
	DHCPIAID     uint32 `json:"dhcp_iaid,omitzero"`
	DHCPDUID     Hex    `json:"dhcp_duid,omitempty"` // as the table has it
}

func (h HFI) index() uint8 { return h.Index }

// since11 reports whether there is something that 1.0 has no place for.
func (h HFI) since11() bool { return h.Autoconf || h.PCIeSegment != 0 || h.DHCPClientID }

// PCI is the place of a PCI function: segment in bits 31:16, bus in 15:8,
// device in 7:3, function in 2:0.
type PCI uint32

// String is for example "0:40:0.0", in hexadecimal.
func (p PCI) String() string {
	return fmt.Sprintf("%x:%x:%x.%x", uint32(p>>16), uint32(p>>8&0xff), uint32(p>>3&0x1f), uint32(p&7))
}

// MarshalText is String.
func (p PCI) MarshalText() ([]byte, error) { return []byte(p.String()), nil }

// MAC is the address of an Ethernet interface.
type MAC [6]byte

// String is for example "52:54:00:9e:20:1a".
func (m MAC) String() string {
	return fmt.Sprintf("%02x:%02x:%02x:%02x:%02x:%02x", m[0], m[1], m[2], m[3], m[4], m[5])
}

// MarshalText is String.
func (m MAC) MarshalText() ([]byte, error) { return []byte(m.String()), nil }

// IPOrigin says where an address is from (NL_PREFIX_ORIGIN of Windows, says the
// specification; some firmwares leave chance values). In JSON it is a number.
type IPOrigin uint8

// String names the values that have a name.
func (o IPOrigin) String() string {
	names := [...]string{"", "manual", "well-known", "dhcp", "router"}
	if int(o) < len(names) {
		return names[o]
	}
	return strconv.Itoa(int(o))
}

// Hex is bytes that are shown as hexadecimal digits.
type Hex []byte

// MarshalText is that text.
func (h Hex) MarshalText() ([]byte, error) { return hex.AppendEncode(nil, h), nil }

// Subsystem is a namespace in a subsystem, and one way to it (Boot "Subsystem
// Namespace Descriptor", SSNS, and its Extended Information).
type Subsystem struct {
	Index      uint16        `json:"index"`
	HFIs       []Ref         `json:"hfi_indexes"` // the primary one first, each once
	TrType     TransportType `json:"trtype"`
	TrAddr     netip.Addr    `json:"traddr"`
	TrSvcID    string        `json:"trsvcid"`
	PortID     uint16        `json:"subsys_port_id"`
	NSID       uint32        `json:"nsid"` // 0: only the NID tells which it is
	NIDType    NIDType       `json:"nid_type,omitzero"`
	NID        string        `json:"nid,omitempty"`
	NQN        string        `json:"subsys_nqn"`
	CntlID     uint16        `json:"controller_id"` // that the firmware got or asked for
	ASQSz      uint16        `json:"asqsz"`         // 0: nobody asked for one
	RootPath   string        `json:"dhcp_root_path_string,omitempty"`
	HdrDigest  bool          `json:"pdu_header_digest_required"`
	DataDigest bool          `json:"data_digest_required"`

	Discovery         Ref          `json:"discovery_index,omitzero"` // of the DC that listed it
	Security          Ref          `json:"security_index,omitzero"`
	NonBootable       bool         `json:"non_bootable,omitzero"`
	FromRootPath      bool         `json:"dhcp_root_path_override,omitzero"`
	SeparateDiscovery bool         `json:"separate_discovery,omitzero"` // the DC has another address
	Discovered        bool         `json:"discovered,omitzero"`         // false: configured
	Availability      Availability `json:"availability,omitzero"`

	// Since 1.1: how connecting went.
	NAED   uint8  `json:"naed,omitzero"`   // namespace availability, details
	CIPEEC uint8  `json:"cipeec,omitzero"` // which parameter of Connect was invalid
	CTO    uint16 `json:"cto,omitzero"`    // connect time-out
	NCEEC  uint8  `json:"nceec,omitzero"`  // network error, details
}

// extended reports whether there is something for the Extended Information,
// and whether 1.0 has no place for it.
func (s Subsystem) extended() (any, since11 bool) {
	since11 = s.NAED != 0 || s.CIPEEC != 0 || s.CTO != 0 || s.NCEEC != 0
	return since11 || s.CntlID != 0 || s.ASQSz != 0 || s.RootPath != "", since11
}

// NIDType is the kind of a namespace identifier (Base "Namespace
// Identification Descriptor", NIDT).
type NIDType uint8

// The values of NIDType.
const (
	NIDNone  NIDType = 0
	NIDEUI64 NIDType = 1
	NIDNGUID NIDType = 2
	NIDUUID  NIDType = 3
)

func (n NIDType) String() string {
	names := [...]string{"", "eui64", "nguid", "uuid"}
	if int(n) < len(names) {
		return names[n]
	}
	return strconv.Itoa(int(n))
}

// MarshalText is String.
func (n NIDType) MarshalText() ([]byte, error) { return []byte(n.String()), nil }

// Availability is how a namespace was when the firmware left.
type Availability uint8

// The values of Availability.
const (
	AvailabilityNotIndicated Availability = 0
	Available                Availability = 1
	Unavailable              Availability = 2 // or never tried
)

func (a Availability) String() string {
	return [...]string{"", "available", "unavailable", reserved}[a&3]
}

// MarshalText is String.
func (a Availability) MarshalText() ([]byte, error) { return []byte(a.String()), nil }

// Discovery is a discovery controller that the firmware knew, through one HFI
// (Boot "Discovery Descriptor").
type Discovery struct {
	Index    uint8  `json:"index"`
	Security Ref    `json:"security_index,omitzero"`
	HFI      Ref    `json:"hfi_index,omitzero"`
	URI      string `json:"uri"` // without user and password, if it had any
	NQN      string `json:"nqn"`
}

func (d Discovery) index() uint8 { return d.Index }

// Security says how connections have to be secured (Boot "Security Profile
// Descriptor"). Lists are empty unless they are in force.
type Security struct {
	Index             uint8       `json:"index"`
	InBandAuth        Requirement `json:"in_band_auth"`
	AuthPolicy        Policy      `json:"auth_policy"` // who made AuthProtocols
	SecureChannel     Requirement `json:"secure_channel"`
	ChannelPolicy     Policy      `json:"secure_channel_policy"` // who made ChannelAlgorithms
	CiphersRestricted bool        `json:"cipher_suites_restricted"`
	GroupsRestricted  bool        `json:"dh_groups_restricted"`
	HashesRestricted  bool        `json:"hash_functions_restricted"`
	ChannelAlgorithms IDs         `json:"secure_channel_algorithms,omitempty"` // SECTYPE
	AuthProtocols     IDs         `json:"auth_protocols,omitempty"`
	CipherSuites      IDs         `json:"cipher_suites,omitempty"` // IANA TLS Parameters
	DHGroups          IDs         `json:"dh_groups,omitempty"`
	HashFunctions     IDs         `json:"hash_functions,omitempty"`
	RedfishKey        bool        `json:"redfish_key"`        // KeyPath is a Redfish URI
	KeyPath           string      `json:"key_path,omitempty"` // without user and password
}

func (s Security) index() uint8 { return s.Index }

// IDs is a list of identifiers of one byte each. In JSON they are numbers.
type IDs []byte

// MarshalJSON keeps encoding/json from writing base64.
func (ids IDs) MarshalJSON() ([]byte, error) {
	numbers := make([]int, len(ids))
	for i, id := range ids {
		numbers[i] = int(id)
	}
	return json.Marshal(numbers)
}

// Requirement says whether something is there and has to be used.
type Requirement uint8

// The values of Requirement.
const (
	NotSupported Requirement = 0
	NotRequired  Requirement = 1
	Required     Requirement = 2
)

func (r Requirement) String() string {
	return [...]string{"not supported", "not required", "required", reserved}[r&3]
}

// MarshalText is String.
func (r Requirement) MarshalText() ([]byte, error) { return []byte(r.String()), nil }

// Policy says who made a list.
type Policy uint8

// The values of Policy.
const (
	PolicyNone   Policy = 0 // there is none
	PolicyDriver Policy = 1
	PolicyAdmin  Policy = 2
)

func (p Policy) String() string {
	return [...]string{"none", "driver", "administrator", reserved}[p&3]
}

// MarshalText is String.
func (p Policy) MarshalText() ([]byte, error) { return []byte(p.String()), nil }
