package nbft

import (
	"encoding/hex"
	"net/netip"
	"slices"
	"strconv"
	"strings"
)

// Structure IDs (Boot "NBFT Elements").
const (
	idControl     = 1
	idHost        = 2
	idHFI         = 3
	idSSNS        = 4
	idSecurity    = 5
	idDiscovery   = 6
	idHFIInfo     = 7
	idSSNSExtInfo = 9
	idHFIExtInfo  = 10
)

// Sizes of the structures. Those of a list may be larger: the stride of a list
// is in the control structure. Those on the heap may be larger, too.
const (
	sizeHeader        = 64
	sizeControl       = 64
	sizeHost          = 32
	sizeHFI           = 32
	sizeSSNS          = 128
	sizeSecurity      = 64
	sizeDiscovery     = 32
	sizeHFIInfo       = 128
	sizeHFIExtInfo    = 20
	sizeSSNSExtInfo   = 18
	sizeSSNSExtInfo11 = 23 // since 1.1
)

// signature is the first bytes of the header.
const signature = "NBFT"

// Offsets in the header of what tells whether it is one.
const (
	offLength     = 4
	offMajor      = 8
	offChecksum   = 9
	offHeapOffset = 36
	offHeapLength = 40
)

// wellKnownNQN is what an entry without NQN means (Boot "Discovery Descriptor").
const wellKnownNQN = "nqn.2014-08.org.nvmexpress.discovery"

// Each of the following functions describes one structure, in both directions:
// see form.

func (t *Table) layoutHeader(f *form) {
	h := &t.Header
	f.u8(offMajor, &h.Major)
	f.name(10, 6, &h.OEMID)
	f.name(16, 8, &h.OEMTableID)
	f.u32(24, &h.OEMRevision)
	f.u32(28, &h.CreatorID)
	f.u32(32, &h.CreatorRevision)
	f.object(44, "driver signature", &h.DriverSignature)
	f.u8(50, &h.Minor)
}

func (t *Table) layoutHost(f *form) {
	h := &t.Host
	f.flag(1, 1, &h.IDConfigured)
	f.flag(1, 2, &h.NQNConfigured)
	f.pair(1, 3, (*uint8)(&h.Primary))
	f.bytes(2, h.ID[:])
	if f.text(18, "host NQN", &h.NQN) && h.NQN == "" && !f.encoding {
		f.problem("host NQN", "is missing")
	}
}

func (t *Table) layoutHFI(f *form, h *HFI) {
	if !f.begin(idHFI, 2) {
		return
	}
	f.u8(1, &h.Index)
	claim(f, h.Index, t.HFIs)
	f.trtype(3, &h.TrType)
	if f.ignored {
		return
	}
	f.must(f.sub(16, "transport info", idHFIInfo, sizeHFIInfo, func(in *form) { layoutHFIInfo(in, h) }))
}

func layoutHFIInfo(f *form, h *HFI) {
	version := uint8(1)
	if h.since11() {
		version = 2
	}
	f.u8(1, new(uint8(1)))
	f.trtype(2, &h.TrType)
	f.u8(3, &version)
	f.same(4, uint16(h.Index))
	if !f.valid(6) {
		f.must(f.problem("flags", "it is marked as not valid"))
		return
	}
	f.flag(6, 1, &h.DefaultRoute)
	f.flag(6, 2, &h.DHCP)
	f.u32(7, (*uint32)(&h.PCI))
	f.bytes(11, h.MAC[:])
	f.u16(17, &h.VLAN)
	f.u8(19, (*uint8)(&h.IPOrigin))
	f.ip(20, &h.IP)
	f.u8(36, &h.Prefix)
	f.ip(37, &h.Gateway)
	f.u16(54, &h.RouteMetric)
	f.ip(56, &h.PrimaryDNS)
	f.ip(72, &h.SecondaryDNS)
	if h.DHCP {
		f.ip(88, &h.DHCPServer)
	}
	f.text(104, "host name", &h.HostName)

	// Firmwares of 1.0 leave chance values in what was reserved then.
	if version < 2 {
		return
	}
	f.flag(6, 3, &h.Autoconf)
	f.u8(116, &h.PCIeSegment)
	if f.has(110, h.DHCPClientID) {
		f.sub(110, "extended info", idHFIExtInfo, sizeHFIExtInfo, func(in *form) { layoutHFIExtInfo(in, h) })
	}
}

func layoutHFIExtInfo(f *form, h *HFI) {
	f.u8(1, new(uint8(1)))
	f.same(2, uint16(h.Index))
	if f.ignored || !f.valid(4) {
		return
	}
	f.flag(4, 1, &h.DHCPClientID)
	if !h.DHCPClientID {
		return
	}
	iaid := le.AppendUint32(nil, h.DHCPIAID)
	switch {
	case !f.object(8, "DHCP IAID", &iaid):
	case len(iaid) != 4:
		f.problem("DHCP IAID", "has %d bytes, want 4", len(iaid))
	default:
		h.DHCPIAID = le.Uint32(iaid)
	}
	f.object(14, "DHCP DUID", (*[]byte)(&h.DHCPDUID))
}

func (t *Table) layoutSecurity(f *form, s *Security) {
	if !f.begin(idSecurity, 2) {
		return
	}
	f.u8(1, &s.Index)
	claim(f, s.Index, t.Security)
	f.pair(2, 1, (*uint8)(&s.InBandAuth))
	f.pair(2, 3, (*uint8)(&s.AuthPolicy))
	f.pair(2, 5, (*uint8)(&s.SecureChannel))
	f.pair(2, 7, (*uint8)(&s.ChannelPolicy))
	f.flag(2, 9, &s.CiphersRestricted)
	f.flag(2, 10, &s.GroupsRestricted)
	f.flag(2, 11, &s.HashesRestricted)
	f.flag(4, 1, &s.RedfishKey)
	for _, l := range []struct {
		off     int
		field   string
		inForce bool
		ids     *IDs
	}{
		{6, "secure channel algorithms", s.ChannelPolicy != PolicyNone, &s.ChannelAlgorithms},
		{12, "authentication protocols", s.AuthPolicy != PolicyNone, &s.AuthProtocols},
		{18, "cipher suites", s.CiphersRestricted, &s.CipherSuites},
		{24, "DH groups", s.GroupsRestricted, &s.DHGroups},
		{30, "hash functions", s.HashesRestricted, &s.HashFunctions},
	} {
		if l.inForce {
			f.object(l.off, l.field, (*[]byte)(l.ids))
		}
	}
	f.uri(36, "key path", &s.KeyPath)
}

func (t *Table) layoutDiscovery(f *form, d *Discovery) {
	if !f.begin(idDiscovery, 1) {
		return
	}
	f.u8(2, &d.Index)
	claim(f, d.Index, t.Discovery)
	ref(f, 3, "HFI index", t.HFIs, &d.HFI)
	ref(f, 4, "security index", t.Security, &d.Security)
	if f.must(f.uri(6, "URI", &d.URI)) {
		if _, _, err := endpoint(d.URI); err != nil {
			f.must(f.problem("URI", "%v", err))
		}
	}
	if f.must(f.text(12, "NQN", &d.NQN)) && d.NQN == "" {
		d.NQN = wellKnownNQN
	}
}

func (t *Table) layoutSSNS(f *form, s *Subsystem) {
	if !f.begin(idSSNS, 3) {
		return
	}
	security := s.Security != 0
	extended, since11 := s.extended()
	f.u16(1, &s.Index)
	f.flag(3, 1, &s.NonBootable)
	f.flag(3, 2, &security)
	f.flag(3, 3, &s.FromRootPath)
	f.flag(3, 4, &extended)
	f.flag(3, 5, &s.SeparateDiscovery)
	f.flag(3, 6, &s.Discovered)
	f.pair(3, 7, (*uint8)(&s.Availability))
	f.trtype(5, &s.TrType)

	// The digests count only if bit 0 says that the flags mean anything.
	digests := s.HdrDigest || s.DataDigest
	f.flag(6, 0, &digests)
	if digests {
		f.flag(6, 1, &s.HdrDigest)
		f.flag(6, 2, &s.DataDigest)
	}

	ref(f, 8, "discovery index", t.Discovery, &s.Discovery)
	f.traddr(10, &s.TrAddr)
	f.trsvcid(16, &s.TrSvcID)
	f.u16(22, &s.PortID)
	f.u32(24, &s.NSID)
	f.nid(28, s)
	if security {
		ref(f, 45, "security index", t.Security, &s.Security)
	}
	t.layoutHFIRefs(f, s)
	if f.must(f.text(54, "NQN", &s.NQN)) && s.NQN == "" {
		f.must(f.problem("NQN", "is missing"))
	}
	if extended && !f.ignored {
		size := sizeSSNSExtInfo
		if since11 {
			size = sizeSSNSExtInfo11
		}
		f.sub(60, "extended info", idSSNSExtInfo, size, func(in *form) { layoutSSNSExtInfo(in, s) })
	}
}

// layoutHFIRefs is about the primary HFI and the list of the secondary ones, in
// which real firmwares repeat the primary one.
func (t *Table) layoutHFIRefs(f *form, s *Subsystem) {
	const field = "secondary HFI indexes"
	var primary Ref
	var all []byte
	for i, r := range s.HFIs { // while encoding
		if i == 0 {
			primary = r
		}
		if h := t.HFI(r); h != nil {
			all = append(all, h.Index)
		} else {
			f.problem(field, "there is no HFI %d", r)
		}
	}
	ref(f, 46, "primary HFI index", t.HFIs, &primary)
	f.object(48, field, &all)
	s.HFIs = []Ref{}
	if primary != 0 {
		s.HFIs = append(s.HFIs, primary)
	}
	for _, index := range all {
		switch r := find(t.HFIs, index); {
		case r == 0:
			f.problem(field, "there is no HFI %d, or it is ignored", index)
		case !slices.Contains(s.HFIs, r):
			s.HFIs = append(s.HFIs, r)
		}
	}
}

func layoutSSNSExtInfo(f *form, s *Subsystem) {
	asqsz := s.ASQSz != 0
	f.u8(1, new(uint8(1)))
	f.same(2, s.Index)
	if f.ignored || !f.valid(4) {
		return
	}
	f.flag(4, 1, &asqsz)
	f.u16(8, &s.CntlID)
	if asqsz {
		f.u16(10, &s.ASQSz)
	}
	if s.FromRootPath {
		f.uri(12, "DHCP root path", &s.RootPath)
	}
	if len(f.b) < sizeSSNSExtInfo11 {
		return
	}
	f.u8(18, &s.NAED)
	f.u8(19, &s.CIPEEC)
	f.u16(20, &s.CTO)
	f.u8(22, &s.NCEEC)
}

// traddr is the address of a subsystem: an object with a binary address.
func (f *form) traddr(off int, v *netip.Addr) {
	const field = "transport address"
	ip := v.As16()
	b := ip[:]
	switch {
	case !f.must(f.object(off, field, &b)):
	case len(b) != 16:
		f.must(f.problem(field, "has %d bytes, want 16", len(b)))
	default:
		*v = netip.AddrFrom16([16]byte(b)).Unmap()
		if v.IsUnspecified() {
			f.must(f.problem(field, "is %v", *v))
		}
	}
}

func (f *form) trsvcid(off int, v *string) {
	const field = "transport service ID"
	if f.must(f.text(off, field, v)) && !isPort(*v) {
		f.must(f.problem(field, "%q is no port", *v))
	}
}

// nid is the type and the bytes of a namespace identifier.
func (f *form) nid(off int, s *Subsystem) {
	var id [16]byte
	if f.encoding {
		b, err := hex.DecodeString(strings.ReplaceAll(s.NID, "-", ""))
		if err != nil || len(b) > len(id) {
			f.problem("NID", "is %q", s.NID)
		}
		copy(id[:], b)
	}
	f.u8(off, (*uint8)(&s.NIDType))
	f.bytes(off+1, id[:])
	switch s.NIDType {
	case NIDNone:
	case NIDEUI64:
		s.NID = hex.EncodeToString(id[:8])
	case NIDNGUID:
		s.NID = hex.EncodeToString(id[:])
	case NIDUUID:
		s.NID = uuid(id)
	default:
		f.problem("NID type", "%d is unknown", s.NIDType)
		s.NIDType = NIDNone
	}
}

func isPort(s string) bool {
	n, err := strconv.ParseUint(s, 10, 16)
	return err == nil && n != 0
}
