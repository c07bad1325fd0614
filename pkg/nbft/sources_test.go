package nbft

import (
	"fmt"
	"net/netip"
	"net/url"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestIdentity(t *testing.T) {
	const (
		inOrder = "00112233-4455-6677-8899-aabbccddeeff"
		guid    = "33221100-5544-7766-8899-aabbccddeeff"
		prefix  = "nqn.2014-08.org.nvmexpress:uuid:"
	)
	id := everything().Host.ID
	for _, tc := range []struct {
		name string
		host Host
		want Identity
	}{
		{"UUID of the NQN as a GUID", Host{NQN: prefix + guid, ID: id}, Identity{NQN: prefix + guid, IDs: []string{guid, inOrder}}},
		{"in upper case", Host{NQN: prefix + "33221100-5544-7766-8899-AABBCCDDEEFF", ID: id}, Identity{NQN: prefix + "33221100-5544-7766-8899-AABBCCDDEEFF", IDs: []string{guid, inOrder}}},
		{"UUID of the NQN in order", Host{NQN: prefix + inOrder, ID: id}, Identity{NQN: prefix + inOrder, IDs: []string{inOrder, guid}}},
		{"another NQN", Host{NQN: "nqn.x", ID: id, NQNConfigured: true, IDConfigured: true}, Identity{NQN: "nqn.x", NQNConfigured: true, IDConfigured: true, IDs: []string{inOrder, guid}}},
		{"no NQN", Host{ID: id}, Identity{IDs: []string{inOrder, guid}}},
		{"no ID", Host{NQN: "nqn.x"}, Identity{NQN: "nqn.x"}},
		{"the same in both orders", Host{ID: HostID{7, 7, 7, 7, 8, 8, 9, 9, 1, 2, 3}}, Identity{IDs: []string{"07070707-0808-0909-0102-030000000000"}}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			table := Table{Host: tc.host}
			if diff := cmp.Diff(tc.want, table.Identity()); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestControllers(t *testing.T) {
	table := everything()
	iface := func(mac MAC, vlan uint16) string {
		if mac[5] == 2 {
			return "" // not there yet
		}
		return fmt.Sprintf("eth%d.%d", mac[5], vlan)
	}
	one := func(c Controller, hfi int) Controller {
		c.Transport, c.HostNQN = "tcp", table.Host.NQN
		switch hfi {
		case 1:
			c.MAC, c.VLAN, c.HostIface = MAC{2, 0, 0, 0, 0, 1}, 100, "eth1.100"
		case 2:
			c.MAC = MAC{2, 0, 0, 0, 0, 2}
		}
		return c
	}
	dc := Controller{TrAddr: "192.0.2.20", TrSvcID: "8009", SubsysNQN: "nqn.2014-08.org.nvmexpress.discovery"}
	want := []Controller{
		one(dc, 1),
		one(Controller{TrAddr: "2001:db8::20", SubsysNQN: "nqn.2026-01.org.example:dc"}, 2),
	}
	if diff := cmp.Diff(want, table.DiscoveryControllers(iface)); diff != "" {
		t.Error(diff)
	}

	digests := Controller{TrAddr: "192.0.2.30", TrSvcID: "4420", SubsysNQN: "nqn.2026-01.org.example:boot", HdrDigest: true, DataDigest: true}
	plain := Controller{TrAddr: "192.0.2.30", TrSvcID: "4420", SubsysNQN: "nqn.2026-01.org.example:boot"}
	want = []Controller{
		one(digests, 2), one(digests, 1),
		one(Controller{TrAddr: "2001:db8::30", TrSvcID: "4420", SubsysNQN: "nqn.2026-01.org.example:boot"}, 0),
		one(plain, 1),
	}
	table.Subsystems = append(table.Subsystems, table.Subsystems[2]) // another namespace on the same path
	if diff := cmp.Diff(want, table.SubsystemControllers(iface)); diff != "" {
		t.Error(diff)
	}

	// A NQN that nobody chose is no reason to be somebody else; and an HFI
	// without MAC leads to no interface.
	table.Host.NQNConfigured, table.HFIs[0].MAC = false, MAC{}
	dc.Transport = "tcp"
	if got := table.DiscoveryControllers(iface)[0]; got != dc {
		t.Errorf("%+v, want %+v", got, dc)
	}
}

func TestEndpoint(t *testing.T) {
	for uri, want := range map[string][2]string{
		"nvme+tcp://192.0.2.1:8009/":        {"192.0.2.1", "8009"},
		"nvme+tcp://192.0.2.1":              {"192.0.2.1", ""},
		"nvme+tcp://192.0.2.1:/":            {"192.0.2.1", ""},
		"NVMe+TCP://Dc.Example:8009/":       {"dc.example", "8009"},
		"nvme+tcp://[2001:DB8::A]:4420/x":   {"2001:db8::a", "4420"},
		"nvme+tcp://[::ffff:192.0.2.1]:1/":  {"192.0.2.1", "1"},
		"nvme+tcp://[fe80::1%25eth0]:8009/": {"fe80::1%eth0", "8009"},
	} {
		if addr, port, err := endpoint(uri); err != nil || addr != want[0] || port != want[1] {
			t.Errorf("%q: %q, %q, %v; want %q", uri, addr, port, err, want)
		}
	}
	for _, uri := range []string{
		"", "192.0.2.1", "nvme+rdma://192.0.2.1/", "nvme+tcp:192.0.2.1", "nvme+tcp:///x", "nvme+tcp://:8009/",
		"nvme+tcp://192.0.2.1:0/", "nvme+tcp://192.0.2.1:65536/", "nvme+tcp://192.0.2.1:x/", "nvme+tcp://a%FFb/", "nvme+tcp://[::1/",
	} {
		if addr, port, err := endpoint(uri); err == nil {
			t.Errorf("%q: %q, %q", uri, addr, port)
		}
	}
}

func TestHFI(t *testing.T) {
	table := everything()
	for r, want := range map[Ref]int{-1: -1, 0: -1, 1: 0, 2: 1, 3: -1} {
		if got := slices.IndexFunc(table.HFIs, func(h HFI) bool { return table.HFI(r) != nil && h.Index == table.HFI(r).Index }); got != want {
			t.Errorf("reference %d leads to %d, want %d", r, got, want)
		}
	}
	if ip := table.HFIs[1].DHCPServer; ip != (netip.Addr{}) {
		t.Errorf("DHCP server %v without DHCP", ip)
	}
}

func FuzzURI(f *testing.F) {
	f.Add("nvme+tcp://user:secret@192.0.2.1:8009/a?b@c#d@e")
	f.Add("nvme+tcp://[2001:DB8::1]/")
	f.Add("//a@b")
	f.Fuzz(func(t *testing.T, uri string) {
		clean, err := stripURI(uri)
		if err != nil {
			return
		}
		u, err := url.Parse(clean)
		if err == nil && u.User != nil {
			t.Errorf("%q still has a user: %q", clean, u.User)
		}
		was, wasErr := url.Parse(uri)
		if wasErr == nil && was.User != nil && (err != nil || u.Host != was.Host) {
			t.Errorf("%q became %q, %v", uri, clean, err)
		}
		if again, err := stripURI(clean); again != clean || err != nil {
			t.Errorf("%q became %q, %v", clean, again, err)
		}
		endpoint(clean)
	})
}
