package logpage

import (
	"errors"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/nvme-stas/stas/internal/tid"
	"github.com/nvme-stas/stas/pkg/nvme"
)

// listed is a log entry for a subsystem.
func listed(nqn string) nvme.DiscoveryLogEntry {
	return nvme.DiscoveryLogEntry{
		TrType: nvme.TCP, AdrFam: nvme.FamilyIPv4, SubType: nvme.NVMSubsystem, PortID: 1, CntlID: 0xffff, ASQSz: 32,
		EFlags: 4, TrAddr: "10.0.0.1", TrSvcID: "4420", SubNQN: nqn, TSAS: [256]byte{2},
	}
}

func TestFromNVMe(t *testing.T) {
	want := map[string]string{
		"trtype": "tcp", "adrfam": "ipv4", "subtype": "nvme", "treq": "not specified", "portid": "1", "cntlid": "65535",
		"asqsz": "32", "eflags": "4", "trsvcid": "4420", "subnqn": "nqn.a", "traddr": "10.0.0.1", "tsas": "{'sectype': 'tls13'}",
	}
	if diff := cmp.Diff(want, FromNVMe(listed("nqn.a")).Map()); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	rdma, plain := listed("nqn.a"), listed("nqn.a")
	rdma.TrType = nvme.RDMA
	plain.TSAS = [256]byte{}
	for _, e := range []nvme.DiscoveryLogEntry{rdma, plain} {
		if tsas, ok := FromNVMe(e).Map()["tsas"]; ok {
			t.Errorf("tsas of %v: %s", e.TrType, tsas)
		}
	}
}

func TestUpdate(t *testing.T) {
	placeholder := listed("nqn.nowhere")
	placeholder.TrAddr = "0.0.0.0"
	bad := []error{errors.New("not text")}
	page := func(known bool, nqns ...string) Page {
		p := Page{Known: known, GenCtr: 7, Entries: []Entry{}}
		for _, nqn := range nqns {
			p.Entries = append(p.Entries, FromNVMe(listed(nqn)))
		}
		return p
	}
	log := func(bad []error, nqns ...string) nvme.DiscoveryLog {
		l := nvme.DiscoveryLog{GenCtr: 7, Bad: bad, Entries: []nvme.DiscoveryLogEntry{placeholder}}
		for _, nqn := range nqns {
			l.Entries = append(l.Entries, listed(nqn))
		}
		return l
	}
	for _, c := range []struct {
		name   string
		before Page
		log    nvme.DiscoveryLog
		want   Page
	}{
		{"first", Page{}, log(nil, "a", "b"), page(true, "a", "b")},
		{"empty is known too", Page{}, log(nil), page(true)},
		{"listed twice", Page{}, log(nil, "a", "a"), page(true, "a")},
		{"gone", page(true, "a", "b"), log(nil, "b"), page(true, "b")},
		{"all gone", page(true, "a"), log(nil), page(true)},
		{"first with bad entries", Page{}, log(bad, "a"), page(false, "a")},
		{"nothing but bad entries", Page{}, log(bad), page(false)},
		{"bad entries prove nothing", page(true, "a", "b"), log(bad, "b", "c"), page(true, "b", "c", "a")},
		{"partial grows", page(false, "a"), log(bad, "b"), page(false, "b", "a")},
		{"partial becomes known", page(false, "a"), log(nil, "b"), page(true, "b")},
	} {
		t.Run(c.name, func(t *testing.T) {
			if diff := cmp.Diff(c.want, c.before.Update(c.log)); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

func TestIOC(t *testing.T) {
	dc := tid.TID{
		Transport: "tcp", TrAddr: "10.0.0.9", TrSvcID: "8009", SubsysNQN: nvme.WellKnownDiscoveryNQN,
		HostTrAddr: "10.0.0.5", HostIface: "eth0", HostNQN: "nqn.2026-11.test:host",
	}
	good := FromNVMe(listed("nqn.2026-11.test:a"))
	got, err := good.IOC(dc)
	want := tid.TID{
		Transport: "tcp", TrAddr: "10.0.0.1", TrSvcID: "4420", SubsysNQN: "nqn.2026-11.test:a",
		HostTrAddr: "10.0.0.5", HostIface: "eth0", HostNQN: "nqn.2026-11.test:host",
	}
	if got != want || err != nil {
		t.Errorf("got %v, %v, want %v", got, err, want)
	}
	for name, change := range map[string]func(*Entry){
		"transport": func(e *Entry) { e.TrType = "77" },
		"host name": func(e *Entry) { e.TrAddr = "storage.example" },
		"option":    func(e *Entry) { e.SubNQN += ",tls" },
		"no NQN":    func(e *Entry) { e.SubNQN = "" },
		"port":      func(e *Entry) { e.TrSvcID = "70000" },
		"family":    func(e *Entry) { e.TrAddr = "fe80::1" },
	} {
		e := good
		change(&e)
		if id, err := e.IOC(dc); err == nil {
			t.Errorf("%s: %v can be connected", name, id)
		}
	}
}

// A link-local address is on the link of its discovery controller.
func TestLinkLocal(t *testing.T) {
	for _, tt := range []struct{ dc, iface, listed, want string }{
		{"fe80::9%eth0", "", "fe80::1", "fe80::1%eth0"},
		{"fe80::9%eth0", "eth1", "FE80:0::1", "fe80::1%eth0"},
		{"2001:db8::9", "eth1", "fe80::1", "fe80::1%eth1"},
		{"2001:db8::9", "", "fe80::1", "fe80::1"},
		{"fe80::9%eth0", "", "fe80::1%eth7", "fe80::1%eth7"},
		{"fe80::9%eth0", "", "2001:db8::1", "2001:db8::1"},
		{"fe80::9%eth0", "eth0", "169.254.0.1", "169.254.0.1"},
		{"fe80::9%eth0", "eth0", "::ffff:169.254.0.1", "169.254.0.1"},
	} {
		e := FromNVMe(listed("nqn.a"))
		e.TrAddr = tt.listed
		dc := tid.TID{Transport: "tcp", TrAddr: tt.dc, HostIface: tt.iface, HostNQN: "nqn.host"}
		if id, err := e.IOC(dc); err != nil || id.TrAddr != tt.want {
			t.Errorf("%+v: %s, %v", tt, id.TrAddr, err)
		}
	}
}

func TestPlaceholder(t *testing.T) {
	for addr, want := range map[string]bool{"": true, "0.0.0.0": true, "::": true, "0:0::0": true, "::ffff:0.0.0.0": true, "10.0.0.1": false, "::1": false} {
		if got := (Entry{TrAddr: addr}).Placeholder(); got != want {
			t.Errorf("%q: %v", addr, got)
		}
	}
}
