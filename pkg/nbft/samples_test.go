package nbft

import (
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// samples is where tables of real firmwares are, with what is expected of each.
// They are no part of the product.
const samples = "../../../shared/nbft"

// sample is an entry of expected.json; its names are those of nvme-cli. Bytes
// are hexadecimal without leading zeros, each byte for itself.
type sample struct {
	File     string
	Valid    bool
	Expected struct {
		Host struct {
			ID    string `json:"id_unpadded_hex"`
			NQN   string
			Flags string
		}
		HFIs []struct {
			Index     uint8
			Transport string
			TCP       struct {
				PCI          PCI    `json:"pci_sbdf"`
				MAC          string `json:"mac_addr_unpadded_hex"`
				VLAN         uint16
				IPOrigin     IPOrigin `json:"ip_origin"`
				IP           string   `json:"ipaddr"`
				Prefix       uint8    `json:"subnet_mask_prefix"`
				Gateway      string   `json:"gateway_ipaddr"`
				RouteMetric  uint16   `json:"route_metric"`
				PrimaryDNS   string   `json:"primary_dns_ipaddr"`
				SecondaryDNS string   `json:"secondary_dns_ipaddr"`
				DHCPServer   string   `json:"dhcp_server_ipaddr"`
				HostName     string   `json:"host_name"`
				Flags        string
				Segment      uint8  `json:"pcie_seg_num"`
				IAID         uint32 `json:"dhcp_iaid"`
				DUID         string `json:"dhcp_duid"`
			} `json:"tcp_info"`
		} `json:"hfi_list"`
		Discovery []struct {
			Index    uint8
			HFI      struct{ Index uint8 }
			URI, NQN string
		} `json:"discovery_list"`
		Subsystems []struct {
			Index     uint16
			Discovery struct{ Index Ref }
			HFIs      []struct{ Index Ref }
			Transport string
			TrAddr    string
			TrSvcID   string
			PortID    uint16 `json:"subsys_port_id"`
			NSID      uint32
			NIDType   NIDType `json:"nid_type"`
			NID       string  `json:"nid_unpadded_hex"`
			NQN       string  `json:"subsys_nqn"`
			TrFlags   string
			CntlID    uint16 `json:"controller_id"`
			ASQSz     uint16
			RootPath  string `json:"dhcp_root_path_string"`
			NAED      string
			CIPEEC    string
			CTO       uint16
			NCEEC     string
			Flags     string
		} `json:"subsystem_ns_list"`
	}
	Controllers controllers
	WithIfaces  controllers `json:"controllers_with_interfaces"`
}

// controllers is what a host with the given interfaces makes of a table.
type controllers struct {
	Interfaces map[string]string
	Expect     struct{ DCs, IOCs []map[string]any }
}

func TestSamples(t *testing.T) {
	text, err := os.ReadFile(filepath.Join(samples, "expected.json"))
	if err != nil {
		t.Skip(err)
	}
	var all []sample
	if err := json.Unmarshal(text, &all); err != nil || len(all) == 0 {
		t.Fatalf("%d samples, %v", len(all), err)
	}
	for _, want := range all {
		t.Run(want.File, func(t *testing.T) {
			b, err := os.ReadFile(filepath.Join(samples, want.File))
			if err != nil {
				t.Fatal(err)
			}
			table, err := Decode(b)
			if (err == nil) != want.Valid {
				t.Fatalf("%v, want valid = %v", err, want.Valid)
			}
			if err != nil {
				t.Log(err)
				return
			}
			for _, p := range table.Problems {
				t.Error(p)
			}
			want.compare(t, table)
			for _, c := range []controllers{want.Controllers, want.WithIfaces} {
				find := func(mac MAC, _ uint16) string { return c.Interfaces[mac.String()] }
				compareControllers(t, table.DiscoveryControllers(find), c.Expect.DCs, false)
				compareControllers(t, table.SubsystemControllers(find), c.Expect.IOCs, true)
			}
			again := decode(t, encode(t, table))
			if diff := cmp.Diff(table, again, compareIPs); diff != "" {
				t.Errorf("after a round trip:\n%s", diff)
			}
		})
	}
}

func unpadded(b []byte) string {
	var s strings.Builder
	for _, v := range b {
		fmt.Fprintf(&s, "%x", v)
	}
	return s.String()
}

// bits is flags as numbers, from those that are set.
func bits(flags ...bool) (v uint16) {
	for i, set := range flags {
		if set {
			v |= 1 << i
		}
	}
	return v
}

func (want sample) compare(t *testing.T, table *Table) {
	t.Helper()
	check := func(what string, got, want any) {
		t.Helper()
		if got != want {
			t.Errorf("%s: %v, want %v", what, got, want)
		}
	}
	hexFlags := func(v uint16, digits int) string { return fmt.Sprintf("0x%0*x", digits, v) }

	h := table.Host
	check("host ID", unpadded(h.ID[:]), want.Expected.Host.ID)
	check("host NQN", h.NQN, want.Expected.Host.NQN)
	check("host flags", hexFlags(bits(true, h.IDConfigured, h.NQNConfigured)|uint16(h.Primary)<<3, 2), want.Expected.Host.Flags)

	check("number of HFIs", len(table.HFIs), len(want.Expected.HFIs))
	for i, w := range want.Expected.HFIs {
		h := table.HFIs[i]
		check("HFI index", h.Index, w.Index)
		check("transport", h.TrType.String(), w.Transport)
		check("PCI", h.PCI, w.TCP.PCI)
		check("MAC", unpadded(h.MAC[:]), w.TCP.MAC)
		check("VLAN", h.VLAN, w.TCP.VLAN)
		check("IP origin", h.IPOrigin, w.TCP.IPOrigin)
		check("prefix", h.Prefix, w.TCP.Prefix)
		check("metric", h.RouteMetric, w.TCP.RouteMetric)
		check("host name", h.HostName, w.TCP.HostName)
		check("flags", hexFlags(bits(true, h.DefaultRoute, h.DHCP, h.Autoconf), 2), w.TCP.Flags)
		check("segment", h.PCIeSegment, w.TCP.Segment)
		check("IAID", h.DHCPIAID, w.TCP.IAID)
		check("DUID", unpadded(h.DHCPDUID), w.TCP.DUID)
		text, err := json.Marshal(h)
		if err != nil {
			t.Fatal(err)
		}
		inJSON := anyJSON(t, text).(map[string]any)
		for key, want := range map[string]string{
			"ipaddr": w.TCP.IP, "gateway_ipaddr": w.TCP.Gateway, "primary_dns_ipaddr": w.TCP.PrimaryDNS,
			"secondary_dns_ipaddr": w.TCP.SecondaryDNS, "dhcp_server_ipaddr": w.TCP.DHCPServer,
		} {
			check(key, inJSON[key], want)
		}
	}

	check("number of discovery controllers", len(table.Discovery), len(want.Expected.Discovery))
	for i, w := range want.Expected.Discovery {
		d := table.Discovery[i]
		check("index of the DC", d.Index, w.Index)
		check("HFI of the DC", table.HFI(d.HFI).Index, w.HFI.Index)
		check("URI", d.URI, w.URI)
		check("NQN of the DC", d.NQN, w.NQN)
	}

	check("number of subsystems", len(table.Subsystems), len(want.Expected.Subsystems))
	for i, w := range want.Expected.Subsystems {
		s := table.Subsystems[i]
		check("SSNS index", s.Index, w.Index)
		check("discovery index", s.Discovery, w.Discovery.Index)
		check("number of HFIs", len(s.HFIs), len(w.HFIs))
		for j := range w.HFIs {
			check("HFI of a SSNS", s.HFIs[j], w.HFIs[j].Index)
		}
		check("transport", s.TrType.String(), w.Transport)
		check("address", s.TrAddr.String(), w.TrAddr)
		check("service", s.TrSvcID, w.TrSvcID)
		check("port", s.PortID, w.PortID)
		check("NSID", s.NSID, w.NSID)
		check("NID type", s.NIDType, w.NIDType)
		if s.NIDType != NIDNone {
			var id []byte
			if _, err := fmt.Sscanf(strings.ReplaceAll(s.NID, "-", ""), "%x", &id); err != nil {
				t.Errorf("NID %q: %v", s.NID, err)
			}
			check("NID", unpadded(id), w.NID)
		}
		check("NQN", s.NQN, w.NQN)
		check("transport flags", hexFlags(bits(false, s.HdrDigest, s.DataDigest), 4), w.TrFlags)
		check("controller ID", s.CntlID, w.CntlID)
		check("ASQSZ", s.ASQSz, w.ASQSz)
		check("root path", s.RootPath, w.RootPath)
		check("NAED", hexFlags(uint16(s.NAED), 2), w.NAED)
		check("CIPEEC", hexFlags(uint16(s.CIPEEC), 2), w.CIPEEC)
		check("CTO", s.CTO, w.CTO)
		check("NCEEC", hexFlags(uint16(s.NCEEC), 2), w.NCEEC)
		flags := bits(true, s.NonBootable, s.Security != 0, s.FromRootPath, true, s.SeparateDiscovery, s.Discovered)
		check("flags", hexFlags(flags|uint16(s.Availability)<<7, 4), w.Flags)
	}
}

// compareControllers compares with the expected ones, which are there again for
// each of their namespaces. Nor do they tell HFIs without interface apart.
func compareControllers(t *testing.T, list []Controller, want []map[string]any, digests bool) {
	t.Helper()
	var got []map[string]any
	for _, c := range list {
		m := map[string]any{
			"transport": c.Transport, "traddr": c.TrAddr, "trsvcid": c.TrSvcID, "subsysnqn": c.SubsysNQN, "host-nqn": c.HostNQN,
		}
		if c.HostIface != "" {
			m["host-iface"] = c.HostIface
		}
		if digests {
			m["hdr-digest"], m["data-digest"] = c.HdrDigest, c.DataDigest
		}
		got = append(got, m)
	}
	if diff := cmp.Diff(once(want), once(got)); diff != "" {
		t.Errorf("controllers:\n%s", diff)
	}
}

func once(list []map[string]any) (distinct []map[string]any) {
	for _, m := range list {
		if !slices.ContainsFunc(distinct, func(d map[string]any) bool { return maps.Equal(d, m) }) {
			distinct = append(distinct, m)
		}
	}
	return distinct
}
