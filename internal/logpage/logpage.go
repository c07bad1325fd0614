// Package logpage holds discovery log page entries in the form in which stafd
// serves them and stacd uses them: text, under the names of the D-Bus
// interface. Its values are comparable, so that a change is easily seen.
package logpage

import (
	"cmp"
	"fmt"
	"iter"
	"maps"
	"net/netip"
	"strconv"

	"github.com/nvme-stas/stas/internal/tid"
	"github.com/nvme-stas/stas/pkg/nvme"
)

// Entry is a discovery log page entry. The JSON names are those of the D-Bus
// interface org.nvmexpress.staf.
type Entry struct {
	TrType  string `json:"trtype"`
	AdrFam  string `json:"adrfam"`
	SubType string `json:"subtype"`
	TReq    string `json:"treq"`
	PortID  string `json:"portid"`
	CntlID  string `json:"cntlid"`
	ASQSz   string `json:"asqsz"`
	EFlags  string `json:"eflags"`
	TrSvcID string `json:"trsvcid"`
	SubNQN  string `json:"subnqn"`
	TrAddr  string `json:"traddr"`
	// TSAS is how TCP is to be secured, "{'sectype': 'tls13'}"; nothing if it
	// is not.
	TSAS string `json:"tsas,omitempty"`
}

// The subtypes of entries.
const (
	SubNVMe      = "nvme"      // an NVM subsystem
	SubReferral  = "referral"  // another discovery service
	SubDiscovery = "discovery" // the discovery service that is telling
)

// FromNVMe turns a decoded entry into text.
func FromNVMe(e nvme.DiscoveryLogEntry) Entry {
	entry := Entry{
		TrType:  e.TrType.String(),
		AdrFam:  e.AdrFam.String(),
		SubType: e.SubType.String(),
		TReq:    e.TReq.String(),
		PortID:  strconv.Itoa(int(e.PortID)),
		CntlID:  strconv.Itoa(int(e.CntlID)),
		ASQSz:   strconv.Itoa(int(e.ASQSz)),
		EFlags:  strconv.Itoa(int(e.EFlags)),
		TrSvcID: e.TrSvcID,
		SubNQN:  e.SubNQN,
		TrAddr:  e.TrAddr,
	}
	if e.TrType == nvme.TCP && e.Security() != nvme.SecurityNone {
		entry.TSAS = fmt.Sprintf("{'sectype': '%s'}", e.Security())
	}
	return entry
}

// Map is the entry as a D-Bus dictionary.
func (e Entry) Map() map[string]string { return maps.Collect(e.All()) }

// All yields the fields that have a value to speak of, in the order of
// nvme-stas.
func (e Entry) All() iter.Seq2[string, string] {
	return func(yield func(name, value string) bool) {
		_ = yield("trtype", e.TrType) &&
			yield("adrfam", e.AdrFam) &&
			yield("traddr", e.TrAddr) &&
			yield("trsvcid", e.TrSvcID) &&
			yield("subnqn", e.SubNQN) &&
			yield("subtype", e.SubType) &&
			yield("treq", e.TReq) &&
			(e.TSAS == "" || yield("tsas", e.TSAS)) &&
			yield("portid", e.PortID) &&
			yield("cntlid", e.CntlID) &&
			yield("asqsz", e.ASQSz) &&
			yield("eflags", e.EFlags)
	}
}

// Placeholder reports that the entry names no address that could be used:
// some discovery controllers list ports that listen nowhere.
func (e Entry) Placeholder() bool {
	ip, err := netip.ParseAddr(e.TrAddr)
	return e.TrAddr == "" || err == nil && ip.Unmap().IsUnspecified()
}

// IOC is the transport ID of the I/O controller that the entry names, when a
// host reaches it the way it reached the discovery controller dc.
func (e Entry) IOC(dc tid.TID) (tid.TID, error) { return e.seenFrom(dc, e.SubNQN) }

// DC is the transport ID of the discovery controller that the entry refers to,
// when a host reaches it the way it reached the one that says so.
func (e Entry) DC(dc tid.TID) (tid.TID, error) {
	return e.seenFrom(dc, cmp.Or(e.SubNQN, nvme.WellKnownDiscoveryNQN))
}

func (e Entry) seenFrom(dc tid.TID, nqn string) (tid.TID, error) {
	id := tid.New(tid.TID{
		Transport: e.TrType, TrAddr: onLink(e.TrAddr, dc), TrSvcID: e.TrSvcID, SubsysNQN: nqn,
		HostTrAddr: dc.HostTrAddr, HostIface: dc.HostIface, HostNQN: dc.HostNQN,
	})
	return id, id.Validate()
}

// Flags are EFLAGS.
func (e Entry) Flags() nvme.EntryFlags {
	n, _ := strconv.ParseUint(e.EFlags, 10, 16)
	return nvme.EntryFlags(n)
}

// onLink adds to a link-local address the link that it is on. The target cannot
// know what the host calls that, so it lists the address without, which the
// kernel refuses; but it has to be the discovery controller's.
func onLink(addr string, dc tid.TID) string {
	ip, err := netip.ParseAddr(addr)
	if ip = ip.Unmap(); err != nil || !ip.Is6() || !ip.IsLinkLocalUnicast() || ip.Zone() != "" {
		return addr
	}
	far, _ := netip.ParseAddr(dc.TrAddr)
	return ip.WithZone(cmp.Or(far.Zone(), dc.HostIface)).String()
}

// Page is what is known of one discovery controller's log.
type Page struct {
	// Known says that Entries are all there is, from a log that was read
	// completely, now or earlier. On a page that is not Known there may be
	// others as well: what is missing from it proves nothing.
	Known   bool    `json:"known"`
	GenCtr  uint64  `json:"genctr,omitempty"`
	Entries []Entry `json:"entries"`
}

// Update returns the page after a new reading of the log. Entries that could
// not be decoded are no evidence that something has gone: then the new page
// keeps what the old one had.
func (p Page) Update(log nvme.DiscoveryLog) Page {
	next := Page{Known: p.Known || len(log.Bad) == 0, GenCtr: log.GenCtr, Entries: make([]Entry, 0, len(log.Entries))}
	have := make(map[Entry]bool, len(log.Entries))
	add := func(e Entry) {
		if !have[e] && !e.Placeholder() {
			have[e] = true
			next.Entries = append(next.Entries, e)
		}
	}
	for _, e := range log.Entries {
		add(FromNVMe(e))
	}
	if len(log.Bad) > 0 {
		for _, e := range p.Entries {
			add(e)
		}
	}
	return next
}
