package service_test

import (
	"maps"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/nvme-stas/stas/internal/service"
	"github.com/nvme-stas/stas/internal/tid"
	"github.com/nvme-stas/stas/pkg/nvme"
	"github.com/nvme-stas/stas/pkg/nvmesysfs"
)

// Network interfaces of the table: eth0 has two addresses of each family, eth1
// shares a link-local one with it, and eth2 has no IPv6.
var ifaces = tid.NewIfaces([]tid.IfaceAddr{
	{Iface: "eth0", Addr: netip.MustParseAddr("10.0.0.9")},
	{Iface: "eth0", Addr: netip.MustParseAddr("10.0.0.10")},
	{Iface: "eth0", Addr: netip.MustParseAddr("2001:db8::9")},
	{Iface: "eth0", Addr: netip.MustParseAddr("fe80::9")},
	{Iface: "eth1", Addr: netip.MustParseAddr("10.1.0.9")},
	{Iface: "eth1", Addr: netip.MustParseAddr("fe80::9")},
	{Iface: "eth2", Addr: netip.MustParseAddr("10.2.0.9")},
})

// pair is a candidate, and a controller as sysfs shows it.
type pair struct {
	kind      tid.Kind
	candidate map[string]string
	sysfs     map[string]string
}

// Pairs that match, for the table to change.
var (
	ioPair = pair{
		tid.IO,
		map[string]string{"transport": "tcp", "traddr": "10.0.0.1", "trsvcid": "4420", "subsysnqn": "nqn.a", "host-nqn": "nqn.host"},
		map[string]string{
			"transport": "tcp", "address": "traddr=10.0.0.1,trsvcid=4420,src_addr=10.0.0.9", "subsysnqn": "nqn.a", "hostnqn": "nqn.host",
			"state": "live", "cntrltype": "io", "dctype": "none", "queue_count": "3",
		},
	}
	dcPair = ioPair.with(
		"trsvcid=8009; subsysnqn="+nvme.WellKnownDiscoveryNQN,
		"address=traddr=10.0.0.1,trsvcid=8009,src_addr=10.0.0.9; subsysnqn="+nvme.WellKnownDiscoveryNQN+"; cntrltype=discovery; dctype=ddc; queue_count=1",
		tid.Discovery)
	rdmaPair = ioPair.with("transport=rdma", "transport=rdma; address=traddr=10.0.0.1,trsvcid=4420", tid.IO)
	fcPair   = ioPair.with(
		"transport=fc; traddr=nn-0x2000000000000001:pn-0x1000000000000001; trsvcid=; host-traddr=nn-0x2000000000000002:pn-0x1000000000000002",
		"transport=fc; address=traddr=nn-0x2000000000000001:pn-0x1000000000000001,host_traddr=nn-0x2000000000000002:pn-0x1000000000000002", tid.IO)
	loopPair = ioPair.with("transport=loop; traddr=1; trsvcid=", "transport=loop; address=traddr=1", tid.IO)
)

// with returns the pair with "name=value; name=value" changed on either side.
// The value "-" removes an attribute.
func (p pair) with(candidate, sysfs string, kind tid.Kind) pair {
	p = pair{kind, maps.Clone(p.candidate), maps.Clone(p.sysfs)}
	for fields, side := range map[string]map[string]string{candidate: p.candidate, sysfs: p.sysfs} {
		for field := range strings.SplitSeq(fields, ";") {
			if name, value, ok := strings.Cut(strings.TrimSpace(field), "="); ok {
				side[name] = value
			}
		}
	}
	maps.DeleteFunc(p.sysfs, func(_, value string) bool { return value == "-" })
	return p
}

// matches goes the whole way from the text in sysfs to the answer.
func (p pair) matches(t *testing.T) bool {
	t.Helper()
	dir := t.TempDir()
	ctrl := filepath.Join(dir, "class/nvme/nvme1")
	if err := os.MkdirAll(ctrl, 0o700); err != nil {
		t.Fatal(err)
	}
	for name, value := range p.sysfs {
		if err := os.WriteFile(filepath.Join(ctrl, name), []byte(value+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	sysfs, err := nvmesysfs.NewFS(dir)
	if err != nil {
		t.Fatal(err)
	}
	c, err := sysfs.Read("nvme1")
	if err != nil {
		t.Fatal(err)
	}
	var index tid.Index
	index.Put(c.Name, service.Observed(c).Existing)
	_, ok := index.Find(tid.New(tid.TID{
		Transport: p.candidate["transport"], TrAddr: p.candidate["traddr"], TrSvcID: p.candidate["trsvcid"],
		SubsysNQN: p.candidate["subsysnqn"], HostTrAddr: p.candidate["host-traddr"], HostIface: p.candidate["host-iface"],
		HostNQN: p.candidate["host-nqn"],
	}), p.kind, ifaces)
	return ok
}

// TestMatching is the decision table: which connections of the kernel serve
// which candidates. Defects are those of nvme-stas that ours does not have.
func TestMatching(t *testing.T) {
	const (
		yes = true
		no  = false
		wk  = "subsysnqn=" + nvme.WellKnownDiscoveryNQN
		at  = "address=traddr=10.0.0.1,trsvcid=4420"
		old = "cntrltype=-; dctype=-" // before Linux 5.18
	)
	for _, tt := range []struct {
		statement string
		base      pair
		candidate string
		sysfs     string
		want      bool
	}{
		// What is read from the kernel.
		{"none is empty", ioPair, "", at + ",host_traddr=none,host_iface=NONE,src_addr=None", yes},
		{"no port is the default one", ioPair, "trsvcid=8009", "address=traddr=10.0.0.1", yes},
		{"blanks behind the commas of old kernels", ioPair, "host-iface=eth0", "address=traddr=10.0.0.1, trsvcid=4420, host_iface=eth0", yes},
		{"no host NQN in sysfs", ioPair, "", "hostnqn=-", no},
		{"a host NQN that is none", ioPair, "host-nqn=none", "hostnqn=none", no},
		{"no subsystem NQN yet", ioPair, "", "subsysnqn=(efault); cntrltype=reserved; state=connecting", no},
		{"src_addr of a kernel since 6.1", ioPair, "host-traddr=10.0.0.10", "", no},
		{"no src_addr before 6.1", ioPair, "host-traddr=10.0.0.10", at, yes},
		{"no src_addr while reconnecting", ioPair, "host-traddr=10.0.0.10", at + "; state=connecting", yes},

		// Which controllers are considered.
		{"I/O", ioPair, "", "", yes},
		{"I/O while it resets", ioPair, "", "state=resetting", yes},
		{"I/O while it reconnects", ioPair, "", at + "; state=connecting", yes},
		{"I/O that leaves (defect 23)", ioPair, "", "state=deleting", no},
		{"I/O that leaves, dead queues (defect 23)", ioPair, "", "state=deleting (no IO)", no},
		{"I/O that is dead (defect 23)", ioPair, "", "state=dead", no},
		{"I/O, but an administrative controller", ioPair, "", "cntrltype=admin", no},
		{"I/O, but a discovery controller", ioPair, "", "cntrltype=discovery", no},
		{"I/O of a target before NVMe 1.4", ioPair, "", "cntrltype=reserved", yes},
		{"I/O of an old kernel", ioPair, "", old, yes},
		{"I/O of an old kernel without namespaces", ioPair, "", old + "; queue_count=2", yes},
		{"I/O of a very old kernel", ioPair, "", old + "; queue_count=-", yes},
		{"DC", dcPair, "", "", yes},
		{"DC that reconnects", dcPair, "", "address=traddr=10.0.0.1,trsvcid=8009; state=connecting", yes},
		{"DC, but an I/O controller", dcPair, "subsysnqn=nqn.a", "subsysnqn=nqn.a; cntrltype=io; dctype=none", no},
		{"DC of an old kernel by its NQN", dcPair, "", old, yes},
		{"DC of a target that does not tell its type", dcPair, "", "cntrltype=reserved; dctype=none", yes},
		{"DC with a name of its own on an old kernel", dcPair, "subsysnqn=nqn.dc", old + "; subsysnqn=nqn.dc", yes},
		{"DC with a name of its own on an old kernel is no I/O controller", ioPair, "", old + "; queue_count=1", no},
		{"I/O on an old kernel is no DC", dcPair, "", old + "; subsysnqn=nqn.a; queue_count=3", no},
		{"a local drive", ioPair, "", "transport=pcie; address=0000:00:04.0; hostnqn=-", no},

		// The procedure, step by step.
		{"1 transport", ioPair, "", "transport=rdma", no},
		{"1 transport, spelling", ioPair, "transport=TCP", "", yes},
		{"2 trsvcid", ioPair, "trsvcid=4421", "", no},
		{"2 trsvcid, spelling", ioPair, "trsvcid=04420", "", yes},
		{"3 host NQN", ioPair, "host-nqn=nqn.guest", "", no},
		{"3 host NQN, the other way round (defect 68)", ioPair, "", "hostnqn=nqn.boot", no},
		{"3 host NQN, case", ioPair, "host-nqn=nqn.Host", "", no},
		{"3 host NQN of a line (defect 12)", ioPair, "host-nqn=nqn.guest", "hostnqn=nqn.guest", yes},
		{"3 host NQN of a DC", dcPair, "", "hostnqn=nqn.guest", no},
		{"4 NQN", ioPair, "subsysnqn=nqn.b", "", no},
		{"4 NQN, case", ioPair, "subsysnqn=nqn.A", "", no},
		{"4 well-known NQN, connected by it, shows its own", dcPair, "", "subsysnqn=nqn.dc", yes},
		{"4 own NQN, connected by the well-known one, shows its own", dcPair, "subsysnqn=nqn.dc", "subsysnqn=nqn.dc", yes},
		{"4 own NQN, connected by the well-known one, shows that", dcPair, "subsysnqn=nqn.dc", "", no},
		{"4 own NQN, another DC", dcPair, "subsysnqn=nqn.dc", "subsysnqn=nqn.other", no},
		{"4 well-known NQN does not stand for subsystems", ioPair, wk, "", no},
		{"5 traddr", ioPair, "traddr=10.0.0.2", "", no},
		{"5 traddr, IPv4 as IPv6", ioPair, "", "address=traddr=::ffff:10.0.0.1,trsvcid=4420", yes},
		{"5 traddr, IPv4 as IPv6 in the candidate", ioPair, "traddr=::FFFF:a00:1", "", yes},
		{"5 traddr, IPv6 spelling (defect 24)", ioPair, "traddr=2001:db8::1", "address=traddr=2001:DB8:0:0::0:1,trsvcid=4420", yes},
		{"5 traddr, zone", ioPair, "traddr=fe80::1%eth0", "address=traddr=fe80::1%eth0,trsvcid=4420", yes},
		{"5 traddr, other zone", ioPair, "traddr=fe80::1%eth0", "address=traddr=fe80::1%eth1,trsvcid=4420", no},
		{"5 traddr, one zone only", ioPair, "traddr=fe80::1", "address=traddr=fe80::1%eth0,trsvcid=4420", no},
		{"5 traddr, zone that the kernel does not look at", ioPair, "traddr=2001:db8::1%eth0", "address=traddr=2001:db8::1,trsvcid=4420", yes},
		{"5 traddr, two texts (defect 21)", ioPair, "traddr=array", "address=traddr=array,trsvcid=4420", no},
		{"5 traddr rdma", rdmaPair, "traddr=10.0.0.2", "", no},
		{"5 traddr rdma, spelling", rdmaPair, "traddr=::ffff:10.0.0.1", "", yes},
		{"5 traddr rdma, two texts (defect 21)", rdmaPair, "traddr=array", "address=traddr=array,trsvcid=4420", no},
		{"5 traddr fc", fcPair, "traddr=nn-0x2000000000000001:pn-0x1000000000000009", "", no},
		{"5 traddr fc, case", fcPair, "traddr=NN-0x2000000000000001:PN-0X1000000000000001", "", yes},
		{"5 traddr fc, without 0x", fcPair, "traddr=nn-2000000000000001:pn-1000000000000001", "", yes},
		{"5 traddr loop, case", loopPair, "traddr=Port", "address=traddr=port", yes},
		{"5 traddr loop", loopPair, "traddr=2", "", no},
		{"6 tcp, nothing asked of the host", ioPair, "", at + ",host_traddr=10.0.0.9,host_iface=eth0,src_addr=10.0.0.9", yes},
		{"7 tcp, host-traddr is the source", ioPair, "host-traddr=10.0.0.9", "", yes},
		{"7 tcp, host-traddr as IPv6", ioPair, "host-traddr=::ffff:10.0.0.9", "", yes},
		{"7 tcp, host-traddr is not the source", ioPair, "host-traddr=10.0.0.10", "", no},
		{"7 tcp, host-traddr is what was asked for, not the source", ioPair, "host-traddr=10.0.0.10", at + ",host_traddr=10.0.0.10,host_iface=eth0,src_addr=10.0.0.9", no},
		{"7 tcp, host-traddr is no address (defect 22)", ioPair, "host-traddr=me", "", no},
		{"7 tcp, host-iface owns the source", ioPair, "host-iface=eth0", "", yes},
		{"7 tcp, host-iface owns the source, second address", ioPair, "host-iface=eth0", at + ",src_addr=10.0.0.10", yes},
		{"7 tcp, host-iface owns the source, IPv6 only (defect 20)", ioPair, "traddr=2001:db8::1; host-iface=eth0", "address=traddr=2001:db8::1,trsvcid=4420,src_addr=2001:db8::9", yes},
		{"7 tcp, host-iface does not own the source", ioPair, "host-iface=eth1", "", no},
		{"7 tcp, host-iface is what was asked for, not the source's", ioPair, "host-iface=eth1", at + ",host_traddr=10.0.0.9,host_iface=eth1,src_addr=10.0.0.9", no},
		{"7 tcp, asked for in the same words (the kernel makes no other)", ioPair, "host-iface=eth1", at + ",host_iface=eth1,src_addr=10.0.0.9", yes},
		{"7 tcp, nobody owns the source", ioPair, "host-iface=eth0", at + ",src_addr=10.9.9.9", no},
		{"7 tcp, both right", ioPair, "host-traddr=10.0.0.9; host-iface=eth0", "", yes},
		{"7 tcp, interface wrong", ioPair, "host-traddr=10.0.0.9; host-iface=eth1", "", no},
		{"7 tcp, address wrong", ioPair, "host-traddr=10.0.0.10; host-iface=eth0", "", no},
		{"7 tcp, link-local source, shared address, its interface", ioPair, "traddr=fe80::1%eth1; host-iface=eth1", "address=traddr=fe80::1%eth1,trsvcid=4420,src_addr=fe80::9", yes},
		{"7 tcp, link-local source, shared address, the other", ioPair, "traddr=fe80::1%eth1; host-iface=eth0", "address=traddr=fe80::1%eth1,trsvcid=4420,src_addr=fe80::9", no},
		{"7 tcp, link-local source with its zone", ioPair, "traddr=fe80::1%eth1; host-traddr=fe80::9%eth1", "address=traddr=fe80::1%eth1,trsvcid=4420,src_addr=fe80::9%eth1", yes},
		{"7 tcp, link-local source, no zone in the candidate's", ioPair, "traddr=fe80::1%eth1; host-traddr=fe80::9", "address=traddr=fe80::1%eth1,trsvcid=4420,src_addr=fe80::9", yes},
		{"7 tcp DC", dcPair, "host-iface=eth1", "", no},
		{"9 fc, host-traddr", fcPair, "host-traddr=nn-0x2000000000000003:pn-0x1000000000000003", "", no},
		{"9 fc, host-traddr, case and form", fcPair, "host-traddr=NN-2000000000000002:PN-1000000000000002", "", yes},
		{"9 fc, no host-traddr on one side", fcPair, "host-traddr=", "", no},
		{"9 fc, no host-traddr on both", fcPair, "host-traddr=", "address=traddr=nn-0x2000000000000001:pn-0x1000000000000001", yes},
		{"9 fc, host-iface", fcPair, "host-iface=eth0", "", yes},
		{"9 fc, trsvcid", fcPair, "trsvcid=4420", "", yes},
		{"10 rdma, none asked for", rdmaPair, "", at + ",host_traddr=10.0.0.9", yes},
		{"10 rdma, host-traddr", rdmaPair, "host-traddr=10.0.0.9", at + ",host_traddr=10.0.0.9", yes},
		{"10 rdma, host-traddr, IPv4 as IPv6", rdmaPair, "host-traddr=::ffff:10.0.0.9", at + ",host_traddr=10.0.0.9", yes},
		{"10 rdma, other host-traddr", rdmaPair, "host-traddr=10.0.0.9", at + ",host_traddr=10.0.0.10", no},
		{"10 rdma, host-traddr against none", rdmaPair, "host-traddr=10.0.0.9", "", no},
		{"10 rdma, two texts (defect 21)", rdmaPair, "host-traddr=me", at + ",host_traddr=me", no},
		{"10 rdma, host-iface", rdmaPair, "host-iface=eth1", "", yes},
		{"11 loop, host fields", loopPair, "host-traddr=x; host-iface=y", "", yes},

		// Step 8, tcp without source: the candidate has host-traddr and …
		{"8 … the kernel has host_traddr, equal", ioPair, "host-traddr=10.0.0.9", at + ",host_traddr=10.0.0.9", yes},
		{"8 … the kernel has host_traddr, as IPv6", ioPair, "host-traddr=10.0.0.9", at + ",host_traddr=::ffff:10.0.0.9", yes},
		{"8 … the kernel has host_traddr, other", ioPair, "host-traddr=10.0.0.9", at + ",host_traddr=10.0.0.10", no},
		{"8 … the kernel has both, the address decides", ioPair, "host-traddr=10.0.0.9", at + ",host_traddr=10.0.0.9,host_iface=eth1", yes},
		{"8 … the kernel has host_iface, its primary", ioPair, "host-traddr=10.0.0.9", at + ",host_iface=eth0", yes},
		{"8 … the kernel has host_iface, not its primary", ioPair, "host-traddr=10.0.0.10", at + ",host_iface=eth0", no},
		{"8 … the kernel has host_iface, not known", ioPair, "host-traddr=10.0.0.9", at + ",host_iface=eth9", yes},
		{"8 … the kernel has host_iface without that family", ioPair, "traddr=2001:db8::1; host-traddr=2001:db8::9", "address=traddr=2001:db8::1,trsvcid=4420,host_iface=eth2", yes},
		{"8 … the kernel has neither", ioPair, "host-traddr=10.0.0.9", at, yes},
		{"8 … the kernel's host_traddr is no address", ioPair, "host-traddr=10.0.0.9", at + ",host_traddr=me", yes},
		{"8 … it is no address (defect 22)", ioPair, "host-traddr=me", at + ",host_iface=eth0", no},

		// … host-iface and …
		{"8 … the kernel has host_iface, equal", ioPair, "host-iface=eth0", at + ",host_iface=eth0", yes},
		{"8 … the kernel has host_iface, other", ioPair, "host-iface=eth0", at + ",host_iface=eth1", no},
		{"8 … the kernel has host_iface in capitals", ioPair, "host-iface=eth0", at + ",host_iface=ETH0", no},
		{"8 … the kernel has host_traddr of the interface", ioPair, "host-iface=eth0", at + ",host_traddr=10.0.0.10", yes},
		{"8 … the kernel has host_traddr of another one", ioPair, "host-iface=eth0", at + ",host_traddr=10.1.0.9", no},
		{"8 … the kernel has host_traddr of nobody", ioPair, "host-iface=eth0", at + ",host_traddr=10.9.9.9", no},
		{"8 … the kernel has neither, host-iface", ioPair, "host-iface=eth0", at, yes},
		{"8 … the kernel's host_traddr is no address, host-iface", ioPair, "host-iface=eth0", at + ",host_traddr=me", yes},

		// … both.
		{"8 both right", ioPair, "host-traddr=10.0.0.9; host-iface=eth0", at + ",host_traddr=10.0.0.9,host_iface=eth0", yes},
		{"8 interface wrong", ioPair, "host-traddr=10.0.0.9; host-iface=eth0", at + ",host_traddr=10.0.0.9,host_iface=eth1", no},
		{"8 address wrong", ioPair, "host-traddr=10.0.0.9; host-iface=eth0", at + ",host_traddr=10.0.0.10,host_iface=eth0", no},
		{"8 on a kernel that knows src_addr, reconnecting, interface wrong", ioPair, "host-iface=eth0", at + ",host_iface=eth1; state=connecting", no},
	} {
		t.Run(tt.statement, func(t *testing.T) {
			p := tt.base.with(tt.candidate, tt.sysfs, tt.base.kind)
			if got := p.matches(t); got != tt.want {
				t.Errorf("candidate %v\nsysfs %v\nmatch %v, want %v", p.candidate, p.sysfs, got, tt.want)
			}
		})
	}
}
