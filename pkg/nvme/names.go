package nvme

import "strconv"

// TransportType is the TRTYPE of a discovery log entry (Base figure
// "Discovery Log Page Entry Data Structure").
type TransportType uint8

// The transports that Linux knows.
const (
	RDMA TransportType = 1
	FC   TransportType = 2
	TCP  TransportType = 3
	Loop TransportType = 254 // within one host
)

var transportNames = map[TransportType]string{RDMA: "rdma", FC: "fc", TCP: "tcp", Loop: "loop"}

// String returns the kernel's name of the transport, or the number.
func (t TransportType) String() string { return name(transportNames, t) }

// ParseTransportType is the inverse of String for the named transports.
func ParseTransportType(s string) (TransportType, bool) {
	for t, n := range transportNames {
		if n == s {
			return t, true
		}
	}
	return 0, false
}

// AddressFamily is the ADRFAM of a discovery log entry.
type AddressFamily uint8

// The address families.
const (
	FamilyPCI  AddressFamily = 0
	FamilyIPv4 AddressFamily = 1
	FamilyIPv6 AddressFamily = 2
	FamilyIB   AddressFamily = 3
	FamilyFC   AddressFamily = 4
	FamilyLoop AddressFamily = 254
)

var familyNames = map[AddressFamily]string{
	FamilyPCI: "pci", FamilyIPv4: "ipv4", FamilyIPv6: "ipv6", FamilyIB: "ib", FamilyFC: "fc", FamilyLoop: "loop",
}

func (f AddressFamily) String() string { return name(familyNames, f) }

// SubsystemType is the SUBTYPE of a discovery log entry: what the entry leads to.
type SubsystemType uint8

// The subsystem types.
const (
	Referral         SubsystemType = 1 // another discovery service
	NVMSubsystem     SubsystemType = 2 // storage
	CurrentDiscovery SubsystemType = 3 // the discovery service that is telling
)

var subsystemNames = map[SubsystemType]string{Referral: "referral", NVMSubsystem: "nvme", CurrentDiscovery: "discovery"}

func (s SubsystemType) String() string { return name(subsystemNames, s) }

// TReq is the TREQ of a discovery log entry: what the transport must provide.
type TReq uint8

// Bits 1:0 of TREQ say whether a secure channel is needed; bit 2 says that
// the target can do without SQ flow control.
const (
	SecureNotSpecified TReq = 0
	SecureRequired     TReq = 1
	SecureNotRequired  TReq = 2
	TReqDisableSQFlow  TReq = 1 << 2

	secureMask TReq = 3
)

var treqNames = map[TReq]string{
	SecureNotSpecified: "not specified", SecureRequired: "required",
	SecureNotRequired: "not required", TReqDisableSQFlow: "disable sqflow",
}

// String names the values with one meaning; a combination is shown as its
// number, which is what users of STAS are used to.
func (t TReq) String() string { return name(treqNames, t) }

// SecureChannel returns the part that speaks of a secure channel.
func (t TReq) SecureChannel() TReq { return t & secureMask }

// DisableSQFlow reports whether SQ flow control may be switched off.
func (t TReq) DisableSQFlow() bool { return t&TReqDisableSQFlow != 0 }

// EntryFlags is the EFLAGS of a discovery log entry.
type EntryFlags uint16

// The flags of an entry.
const (
	flagDUPRETINFO EntryFlags = 1 << 0
	flagEPCSD      EntryFlags = 1 << 1
	flagNCC        EntryFlags = 1 << 2
)

// NewEntryFlags returns EFLAGS with the given flags.
func NewEntryFlags(dupretinfo, epcsd, ncc bool) EntryFlags {
	var f EntryFlags
	if dupretinfo {
		f |= flagDUPRETINFO
	}
	if epcsd {
		f |= flagEPCSD
	}
	if ncc {
		f |= flagNCC
	}
	return f
}

// DUPRETINFO (duplicate returned information): all ports of the discovery
// subsystem marked so return the same log page.
func (f EntryFlags) DUPRETINFO() bool { return f&flagDUPRETINFO != 0 }

// EPCSD (explicit persistent connection support): the discovery controller
// keeps connections for good.
func (f EntryFlags) EPCSD() bool { return f&flagEPCSD != 0 }

// NCC (no CDC connectivity): the described subsystem was out of reach of the
// centralized discovery controller lately; connecting will likely fail.
func (f EntryFlags) NCC() bool { return f&flagNCC != 0 }

// Security is the SECTYPE in the TSAS of a TCP entry (NVMe/TCP Transport
// Specification, "Transport Specific Address Subtype").
type Security uint8

// The security types.
const (
	SecurityNone  Security = 0
	SecurityTLS   Security = 1 // TLS 1.2, obsolete
	SecurityTLS13 Security = 2
)

var securityNames = map[Security]string{SecurityNone: "none", SecurityTLS: "tls", SecurityTLS13: "tls13"}

func (s Security) String() string { return name(securityNames, s) }

func name[T ~uint8](names map[T]string, v T) string {
	if n, ok := names[v]; ok {
		return n
	}
	return strconv.Itoa(int(v))
}
