package boot

import (
	"errors"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/nvme-stas/stas/internal/conf"
	"github.com/nvme-stas/stas/internal/hostid"
	"github.com/nvme-stas/stas/internal/tid"
	"github.com/nvme-stas/stas/pkg/nbft"
	"github.com/nvme-stas/stas/pkg/nvme"
)

const (
	hostNQN = "nqn.2014-08.org.nvmexpress:uuid:33221100-5544-7766-8899-aabbccddeeff"
	guid    = "33221100-5544-7766-8899-aabbccddeeff"
	inOrder = "00112233-4455-6677-8899-aabbccddeeff"
	bootNQN = "nqn.2026-01.org.example:boot"
)

var (
	mac1 = nbft.MAC{2, 0, 0, 0, 0, 1}
	mac2 = nbft.MAC{2, 0, 0, 0, 0, 2}
)

// firmware is a table with a discovery controller and a boot disk behind each
// of two interfaces, the second of which is in a VLAN.
func firmware() *nbft.Table {
	ip := netip.MustParseAddr
	return &nbft.Table{
		Header: nbft.Header{Major: 1},
		Host: nbft.Host{
			NQN: hostNQN, NQNConfigured: true,
			ID: nbft.HostID{0, 0x11, 0x22, 0x33, 0x44, 0x55, 0x66, 0x77, 0x88, 0x99, 0xaa, 0xbb, 0xcc, 0xdd, 0xee, 0xff},
		},
		HFIs: []nbft.HFI{
			{Index: 1, TrType: nbft.TCP, MAC: mac1, IP: ip("192.0.2.10"), Prefix: 24},
			{Index: 2, TrType: nbft.TCP, MAC: mac2, VLAN: 7, IP: ip("192.0.2.11"), Prefix: 24},
		},
		Discovery: []nbft.Discovery{
			{Index: 1, HFI: 1, URI: "nvme+tcp://192.0.2.20:8009/", NQN: nvme.WellKnownDiscoveryNQN},
			{Index: 2, HFI: 2, URI: "nvme+tcp://[2001:DB8:0::20]/", NQN: "nqn.dc"},
		},
		Subsystems: []nbft.Subsystem{
			{Index: 1, HFIs: []nbft.Ref{1}, TrType: nbft.TCP, TrAddr: ip("192.0.2.30"), TrSvcID: "4420", NSID: 1, NQN: bootNQN},
			{Index: 2, HFIs: []nbft.Ref{1, 2}, TrType: nbft.TCP, TrAddr: ip("192.0.2.30"), TrSvcID: "4420", NSID: 2, NQN: bootNQN},
		},
	}
}

// put writes a file of the directory of tables.
func put(t *testing.T, dir, name string, content []byte) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(dir, name), content, 0o400); err != nil {
		t.Fatal(err)
	}
}

func encode(t *testing.T, table *nbft.Table) []byte {
	t.Helper()
	b, err := table.AppendBinary(nil)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func links() ([]Link, error) {
	return []Link{
		{Name: "eth0", MAC: mac1, Enslaved: true}, {Name: "bond0", MAC: mac1}, {Name: "eth1", MAC: mac2}, {Name: "eth1.7", MAC: mac2, VLAN: 7},
	}, nil
}

func dc(addr, port, nqn, iface string) Controller {
	return Controller{tid.TID{Transport: "tcp", TrAddr: addr, TrSvcID: port, SubsysNQN: nqn, HostIface: iface, HostNQN: hostNQN}, "NBFT"}
}

func TestRead(t *testing.T) {
	broken := encode(t, firmware())
	broken[100]++
	wrong := encode(t, firmware())
	// The encoder refuses what makes no sense, so put that in afterwards: a
	// discovery controller of another transport.
	wrong = []byte(strings.Replace(string(wrong), "nvme+tcp://192", "nvme+rdm://192", 1))
	var sum byte
	for _, b := range wrong {
		sum += b
	}
	wrong[9] -= sum
	both := []Controller{
		dc("192.0.2.20", "8009", nvme.WellKnownDiscoveryNQN, "bond0"), dc("2001:db8::20", "8009", "nqn.dc", "eth1.7"),
	}
	noIface := []Controller{
		dc("192.0.2.20", "8009", nvme.WellKnownDiscoveryNQN, ""), dc("2001:db8::20", "8009", "nqn.dc", ""),
	}
	for _, c := range []struct {
		name      string
		files     map[string][]byte // nil: one that cannot be read
		links     func() ([]Link, error)
		names     string
		unread    bool
		discovery []Controller
		storage   int
		issues    []string // the beginnings
	}{
		{name: "none"},
		{name: "another table", files: map[string][]byte{"APIC": []byte("x"), "XNBFT": nil}},
		{name: "one", files: map[string][]byte{"NBFT": encode(t, firmware())}, links: links, names: "NBFT", discovery: both, storage: 2},
		{name: "twice the same", files: map[string][]byte{"NBFT": encode(t, firmware()), "NBFT1": encode(t, firmware())}, links: links, names: "NBFT NBFT1", discovery: both, storage: 2},
		{name: "no such interfaces", files: map[string][]byte{"NBFT": encode(t, firmware())}, links: func() ([]Link, error) { return nil, nil }, names: "NBFT", discovery: noIface, storage: 1},
		{
			name: "unknown interfaces", files: map[string][]byte{"NBFT": encode(t, firmware())}, names: "NBFT", discovery: noIface, storage: 1,
			links: func() ([]Link, error) { return nil, errors.New("no netlink") }, issues: []string{"@: the network interfaces cannot be listed: no netlink; its"},
		},
		{
			name: "unreadable", files: map[string][]byte{"NBFT": encode(t, firmware()), "NBFT1": nil}, links: links, names: "NBFT", unread: true, discovery: both, storage: 2,
			issues: []string{"@/NBFT1: cannot be read: is a directory; what was known of it stays"},
		},
		{
			name: "broken", files: map[string][]byte{"NBFT": broken, "NBFT1": make([]byte, maxTable+1)}, links: links,
			issues: []string{"@/NBFT: not a usable NBFT: its bytes sum up to 0x1, not to 0 (checksum); nothing", "@/NBFT1: larger than any boot table; nothing of the table is used"},
		},
		{
			name: "a problem", files: map[string][]byte{"NBFT": wrong}, links: links, names: "NBFT", discovery: both[1:], storage: 2,
			issues: []string{"@/NBFT: discovery 1: URI: is not of the scheme nvme+tcp; discovery 1 is ignored"},
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := Source{Dir: filepath.Join(t.TempDir(), "tables"), Links: c.links}
			if c.files != nil {
				if err := os.Mkdir(s.Dir, 0o700); err != nil {
					t.Fatal(err)
				}
			}
			for name, content := range c.files {
				if content != nil {
					put(t, s.Dir, name, content)
				} else if err := os.Mkdir(filepath.Join(s.Dir, name), 0o700); err != nil {
					t.Fatal(err)
				}
			}
			tables, issues := s.Read()
			if got := strings.Join(tables.Names, " "); got != c.names || tables.Unread != c.unread || len(tables.Storage) != c.storage {
				t.Errorf("tables %q, unread %v, storage %v", got, tables.Unread, tables.Storage)
			}
			if diff := cmp.Diff(c.discovery, tables.Discovery); diff != "" {
				t.Error(diff)
			}
			for i, issue := range issues {
				text := strings.ReplaceAll(issue.String(), s.Dir, "@")
				if i >= len(c.issues) || !strings.HasPrefix(text, c.issues[i]) {
					t.Errorf("complaint %d: %s", i, text)
				}
				if (issue.Severity == conf.Note) != (issue.Cause == nil) {
					t.Errorf("%v is a %v", issue, issue.Severity)
				}
			}
			if len(issues) != len(c.issues) {
				t.Errorf("%d complaints, want %d", len(issues), len(c.issues))
			}
			again, issues := s.Read()
			if diff := cmp.Diff(tables, again); diff != "" || len(issues) > 0 {
				t.Errorf("read again: %s\n%v", diff, issues)
			}
		})
	}
}

// A directory that cannot be listed may hold tables.
func TestReadNoDirectory(t *testing.T) {
	dir := t.TempDir()
	put(t, dir, "file", nil)
	s := Source{Dir: filepath.Join(dir, "file")}
	tables, issues := s.Read()
	if !tables.Unread || len(issues) != 1 || !errors.Is(issues[0].Cause, syscall.ENOTDIR) {
		t.Errorf("%+v, %v", tables, issues)
	}
}

func TestBooted(t *testing.T) {
	var tables Tables
	tables.add("NBFT3", firmware(), func(nbft.MAC, uint16) string { return "eth0" })
	id := tid.TID{Transport: "tcp", TrAddr: "192.0.2.30", TrSvcID: "4420", SubsysNQN: bootNQN, HostNQN: "nqn.x", HostIface: "eth5", HostTrAddr: "192.0.2.9"}
	if got := tables.Booted(id); got != "NBFT3" {
		t.Errorf("the boot disk is of the table %q", got)
	}
	for name, change := range map[string]func(*tid.TID){
		"address":   func(id *tid.TID) { id.TrAddr = "192.0.2.31" },
		"port":      func(id *tid.TID) { id.TrSvcID = "4421" },
		"subsystem": func(id *tid.TID) { id.SubsysNQN = "nqn.y" },
		"transport": func(id *tid.TID) { id.Transport = "rdma" },
	} {
		other := id
		change(&other)
		if got := tables.Booted(other); got != "" {
			t.Errorf("another %s: %q", name, got)
		}
	}
}

func TestPairs(t *testing.T) {
	add := func(t *Tables, name string, change func(*nbft.Host)) {
		table := firmware()
		change(&table.Host)
		t.add(name, table, func(nbft.MAC, uint16) string { return "" })
	}
	same := func(*nbft.Host) {}
	live := func(nqn, id string) []hostid.Pair {
		return []hostid.Pair{{NQN: "nqn.x", ID: guid}, {NQN: nqn, ID: id, InUse: true}}
	}
	for _, c := range []struct {
		name  string
		host  []func(*nbft.Host)
		inUse []hostid.Pair
		want  string // "NQN ID TABLE, …"
	}{
		{name: "none"},
		{name: "as the NQN says", host: []func(*nbft.Host){same}, want: hostNQN + " " + guid + " 0"},
		{name: "the other spelling is in use", host: []func(*nbft.Host){same}, inUse: live(hostNQN, inOrder), want: hostNQN + " " + inOrder + " 0"},
		{name: "in use under another NQN", host: []func(*nbft.Host){same}, inUse: live("nqn.y", inOrder), want: hostNQN + " " + guid + " 0"},
		{name: "nothing of the NQN", host: []func(*nbft.Host){func(h *nbft.Host) { h.NQN = "nqn.z" }}, want: "nqn.z " + inOrder + " 0"},
		{name: "no NQN", host: []func(*nbft.Host){func(h *nbft.Host) { h.NQN, h.NQNConfigured = "", false }}},
		{name: "no ID", host: []func(*nbft.Host){func(h *nbft.Host) { h.ID = nbft.HostID{} }}},
		{name: "no ID, but one in use", host: []func(*nbft.Host){func(h *nbft.Host) { h.ID = nbft.HostID{} }}, inUse: live(hostNQN, inOrder), want: hostNQN + " " + inOrder + " 0"},
		{
			name: "the selected one first", want: "nqn.z " + inOrder + " 2, " + hostNQN + " " + guid + " 1, " + hostNQN + " " + guid + " 0",
			host: []func(*nbft.Host){
				func(h *nbft.Host) { h.Primary = nbft.PrimaryUnselected }, same,
				func(h *nbft.Host) { h.NQN, h.Primary = "nqn.z", nbft.PrimarySelected },
			},
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			var tables Tables
			for i, h := range c.host {
				add(&tables, string(rune('0'+i)), h)
			}
			var all []string
			for _, p := range tables.Pairs(c.inUse) {
				if p.InUse {
					t.Errorf("%v is in use", p)
				}
				all = append(all, p.NQN+" "+p.ID+" "+strings.TrimPrefix(p.From, "the boot table "))
			}
			if got := strings.Join(all, ", "); got != c.want {
				t.Errorf("got  %s\nwant %s", got, c.want)
			}
		})
	}
}
