package tid

import (
	"fmt"
	"net/netip"
	"slices"
	"testing"

	"github.com/nvme-stas/stas/pkg/nvme"
)

// ifaces: eth0 has two addresses of each family, eth1 shares a link-local
// address with it.
var ifaces = NewIfaces([]IfaceAddr{
	{"eth0", netip.MustParseAddr("10.0.0.9")},
	{"eth0", netip.MustParseAddr("10.0.0.10")},
	{"eth1", netip.MustParseAddr("10.1.0.9")},
	{"eth0", netip.MustParseAddr("fe80::9")},
	{"eth0", netip.MustParseAddr("2001:db8::9")},
	{"eth1", netip.MustParseAddr("fe80::9")},
})

func TestOwner(t *testing.T) {
	for addr, want := range map[string]string{
		"10.0.0.10":        "eth0",
		"::ffff:10.1.0.9":  "eth1",
		"10.9.9.9":         "",
		"fe80::9":          "eth0", // the first one
		"fe80::9%eth1":     "eth1",
		"2001:db8::9":      "eth0",
		"2001:db8::9%eth7": "eth7",
	} {
		if got := ifaces.Owner(netip.MustParseAddr(addr)); got != want {
			t.Errorf("Owner(%s) = %q, want %q", addr, got, want)
		}
	}
	if got := (Ifaces{}).Owner(netip.MustParseAddr("10.0.0.9")); got != "" {
		t.Errorf("the zero value knows an owner: %q", got)
	}
}

// TestFind changes one thing at a time in a pair that matches.
func TestFind(t *testing.T) {
	type side struct{ addr, iface string }
	tests := []struct {
		name string
		cand func(*TID)
		kern func(*Existing)
		kind Kind
		want bool
	}{
		// What has to be equal.
		{name: "equal", want: true},
		{name: "transport", kern: func(e *Existing) { e.Transport = "rdma" }},
		{name: "pcie", kern: func(e *Existing) { e.Transport = "pcie" }},
		{name: "trsvcid", kern: func(e *Existing) { e.TrSvcID = "4421" }},
		{name: "trsvcid with zeros", kern: func(e *Existing) { e.TrSvcID = "04420" }, want: true},
		{name: "trsvcid default", cand: func(c *TID) { c.TrSvcID = "8009" }, kern: func(e *Existing) { e.TrSvcID = "" }, want: true},
		{name: "host NQN", kern: func(e *Existing) { e.HostNQN += "x" }},
		{name: "host NQN not known", kern: func(e *Existing) { e.HostNQN = "" }},
		{name: "NQN", kern: func(e *Existing) { e.SubsysNQN += "x" }},
		{name: "NQN not known", kern: func(e *Existing) { e.SubsysNQN = "" }},
		{name: "traddr", kern: func(e *Existing) { e.TrAddr = "10.0.0.2" }},
		{name: "traddr mapped", kern: func(e *Existing) { e.TrAddr = "::ffff:10.0.0.1" }, want: true},
		{
			name: "traddr spelling",
			cand: func(c *TID) { c.TrAddr = "2001:db8::1" },
			kern: func(e *Existing) { e.TrAddr = "2001:DB8:0:0:0:0:0:1" },
			want: true,
		},
		{
			name: "zones equal",
			cand: func(c *TID) { c.TrAddr = "fe80::1%eth0" },
			kern: func(e *Existing) { e.TrAddr = "fe80::1%eth0" },
			want: true,
		},
		{
			name: "zones differ",
			cand: func(c *TID) { c.TrAddr = "fe80::1%eth0" },
			kern: func(e *Existing) { e.TrAddr = "fe80::1%eth1" },
		},
		{
			name: "no addresses at all (defect 21)",
			cand: func(c *TID) { c.TrAddr = "array" },
			kern: func(e *Existing) { e.TrAddr = "array" },
		},

		// Kinds and states (defect 23).
		{name: "kind unknown", kern: func(e *Existing) { e.Kind = Unknown }},
		{name: "kind discovery for io", kern: func(e *Existing) { e.Kind = Discovery }},
		{name: "leaving", kern: func(e *Existing) { e.Leaving = true }},
		{name: "io for discovery", kind: Discovery},
		{
			name: "discovery, well-known name",
			cand: func(c *TID) { c.SubsysNQN = nvme.WellKnownDiscoveryNQN },
			kern: func(e *Existing) { e.Kind, e.SubsysNQN = Discovery, nvme.WellKnownDiscoveryNQN },
			kind: Discovery, want: true,
		},
		{
			name: "discovery, its own name",
			cand: func(c *TID) { c.SubsysNQN = nvme.WellKnownDiscoveryNQN },
			kern: func(e *Existing) { e.Kind = Discovery },
			kind: Discovery, want: true,
		},
		{
			name: "discovery, well-known does not do for its own",
			kern: func(e *Existing) { e.Kind, e.SubsysNQN = Discovery, nvme.WellKnownDiscoveryNQN },
			kind: Discovery,
		},
		{
			name: "discovery, candidate without name",
			cand: func(c *TID) { c.SubsysNQN = "" },
			kern: func(e *Existing) { e.Kind = Discovery },
			kind: Discovery,
		},
		{name: "kind unknown asked for", kern: func(e *Existing) { e.Kind = Unknown }, kind: Unknown},

		// Other transports.
		{
			name: "rdma without source",
			cand: func(c *TID) { c.Transport = "rdma" },
			kern: func(e *Existing) { e.Transport, e.HostTrAddr = "rdma", "10.0.0.9" },
			want: true,
		},
		{
			name: "rdma same source",
			cand: func(c *TID) { c.Transport, c.HostTrAddr, c.HostIface = "rdma", "10.0.0.9", "eth7" },
			kern: func(e *Existing) { e.Transport, e.HostTrAddr = "rdma", "::ffff:10.0.0.9" },
			want: true,
		},
		{
			name: "rdma other source",
			cand: func(c *TID) { c.Transport, c.HostTrAddr = "rdma", "10.0.0.9" },
			kern: func(e *Existing) { e.Transport, e.HostTrAddr = "rdma", "10.0.0.8" },
		},
		{
			name: "rdma source not known",
			cand: func(c *TID) { c.Transport, c.HostTrAddr = "rdma", "10.0.0.9" },
			kern: func(e *Existing) { e.Transport = "rdma" },
		},
		{
			name: "fc",
			cand: func(c *TID) { c.Transport, c.TrAddr, c.TrSvcID, c.HostTrAddr = "fc", "nn-0xA:pn-0xB", "", "nn-0xC" },
			kern: func(e *Existing) {
				e.Transport, e.TrAddr, e.TrSvcID, e.HostTrAddr = "fc", "nn-0xa:pn-0xb", "none", "nn-0xc"
			},
			want: true,
		},
		{
			name: "fc without source against one with",
			cand: func(c *TID) { c.Transport, c.TrAddr, c.TrSvcID = "fc", "nn-0xa:pn-0xb", "" },
			kern: func(e *Existing) { e.Transport, e.TrAddr, e.HostTrAddr = "fc", "nn-0xa:pn-0xb", "nn-0xc" },
		},
		{
			name: "loop ignores case and source",
			cand: func(c *TID) { c.Transport, c.TrAddr, c.HostIface = "loop", "Port1", "eth0" },
			kern: func(e *Existing) { e.Transport, e.TrAddr, e.HostTrAddr = "loop", "port1", "x" },
			want: true,
		},
	}

	// Host side of tcp: c is what the candidate asks for, d what the connection
	// asked for, src where it really comes from.
	for _, h := range []struct {
		c    side
		d    side
		src  string
		want bool
	}{
		{side{}, side{"10.0.0.9", "eth0"}, "10.0.0.9", true},
		{side{}, side{"10.0.0.9", "eth0"}, "", true},

		{side{"10.0.0.9", ""}, side{}, "10.0.0.9", true},
		{side{"10.0.0.9", ""}, side{}, "::ffff:10.0.0.9", true},
		{side{"10.0.0.9", ""}, side{}, "10.0.0.10", false},
		{side{"10.0.0.9", ""}, side{"10.0.0.9", "eth0"}, "10.0.0.10", false}, // truth wins over the wish
		{side{"10.0.0.9", ""}, side{"10.0.0.9", ""}, "10.0.0.10", true},      // but the kernel would make no other
		{side{"me", ""}, side{}, "10.0.0.9", false},                          // defect 22
		{side{"", "eth0"}, side{}, "10.0.0.10", true},
		{side{"", "eth0"}, side{}, "10.1.0.9", false},
		{side{"", "eth0"}, side{}, "10.9.9.9", false},          // nobody's address
		{side{"", "eth0"}, side{"", "eth0"}, "10.9.9.9", true}, // such as one of lo, with an eth0 that has none
		{side{"10.0.0.9", "eth0"}, side{}, "10.0.0.9", true},
		{side{"10.0.0.9", "eth1"}, side{}, "10.0.0.9", false},
		{side{"10.0.0.10", "eth0"}, side{}, "10.0.0.9", false},

		// Section 5.4, no source address known: old kernel, or reconnecting.
		{side{"10.0.0.9", ""}, side{"10.0.0.9", ""}, "", true},
		{side{"10.0.0.9", ""}, side{"10.0.0.9", "eth1"}, "", true},
		{side{"10.0.0.9", ""}, side{"10.0.0.10", ""}, "", false},
		{side{"10.0.0.9", ""}, side{"", "eth0"}, "", true},   // the primary
		{side{"10.0.0.10", ""}, side{"", "eth0"}, "", false}, // not the primary
		{side{"10.0.0.9", ""}, side{"", "eth1"}, "", false},
		{side{"10.0.0.9", ""}, side{"", "eth9"}, "", true}, // unknown interface
		{side{"::1", ""}, side{"", "eth1"}, "", false},     // primary of that family
		{side{"10.0.0.9", ""}, side{}, "", true},
		{side{"10.0.0.9", ""}, side{"junk", ""}, "", true}, // does not count
		{side{"me", ""}, side{"", "eth0"}, "", false},      // defect 22
		{side{"", "eth0"}, side{"", "eth0"}, "", true},
		{side{"", "eth0"}, side{"", "eth1"}, "", false},
		{side{"", "eth0"}, side{"10.0.0.10", ""}, "", true},
		{side{"", "eth0"}, side{"10.1.0.9", ""}, "", false},
		{side{"", "eth0"}, side{"10.9.9.9", ""}, "", false}, // unknown owner
		{side{"", "eth0"}, side{"junk", ""}, "", true},
		{side{"", "eth0"}, side{}, "", true},
		{side{"10.0.0.9", "eth0"}, side{"10.0.0.9", "eth0"}, "", true},
		{side{"10.0.0.9", "eth0"}, side{"10.0.0.9", "eth1"}, "", false},
		{side{"10.0.0.9", "eth0"}, side{"10.0.0.10", "eth0"}, "", false},
	} {
		tests = append(tests, struct {
			name string
			cand func(*TID)
			kern func(*Existing)
			kind Kind
			want bool
		}{
			name: fmt.Sprintf("tcp c=%v d=%v src=%s", h.c, h.d, h.src),
			cand: func(c *TID) { c.HostTrAddr, c.HostIface = h.c.addr, h.c.iface },
			kern: func(e *Existing) { e.HostTrAddr, e.HostIface, e.SrcAddr = h.d.addr, h.d.iface, h.src },
			want: h.want,
		})
	}
	// The kernel prints no zone with src_addr.
	linkLocal := func(want string) func(*TID) {
		return func(c *TID) { c.TrAddr, c.HostIface = "fe80::1%eth1", want }
	}
	onEth1 := func(e *Existing) { e.TrAddr, e.SrcAddr = "fe80::1%eth1", "fe80::9" }
	tests = append(tests, []struct {
		name string
		cand func(*TID)
		kern func(*Existing)
		kind Kind
		want bool
	}{
		{name: "link-local source, its interface", cand: linkLocal("eth1"), kern: onEth1, want: true},
		{name: "link-local source, the other", cand: linkLocal("eth0"), kern: onEth1},
		{
			name: "link-local source, zone in the candidate",
			cand: func(c *TID) { c.TrAddr, c.HostTrAddr = "fe80::1%eth1", "fe80::9%eth1" },
			kern: onEth1, want: true,
		},
	}...)

	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			c := TID{Transport: "tcp", TrAddr: "10.0.0.1", TrSvcID: "4420", SubsysNQN: subsys, HostNQN: host}
			e := Existing{Transport: "tcp", TrAddr: "10.0.0.1", TrSvcID: "4420", SubsysNQN: subsys, HostNQN: host, Kind: IO}
			if tt.cand != nil {
				tt.cand(&c)
			}
			if tt.kern != nil {
				tt.kern(&e)
			}
			kind := tt.kind
			if kind == Unknown && e.Kind != Unknown {
				kind = IO
			}
			var x Index
			x.Put("nvme1", e)
			if _, got := x.Find(New(c), kind, ifaces); got != tt.want {
				t.Errorf("candidate %v\nexisting %+v\nmatch %v, want %v", New(c), e, got, tt.want)
			}
		})
	}
}

func TestIndexChanges(t *testing.T) {
	c := New(TID{Transport: "tcp", TrAddr: "10.0.0.1", SubsysNQN: nvme.WellKnownDiscoveryNQN, HostNQN: host})
	e := Existing{Transport: "tcp", TrAddr: "10.0.0.1", TrSvcID: "8009", SubsysNQN: nvme.WellKnownDiscoveryNQN, HostNQN: host, Kind: Discovery}
	var x Index
	check := func(step string, want ...string) {
		t.Helper()
		got := slices.Collect(x.Matches(c, Discovery, ifaces))
		if !slices.Equal(got, want) {
			t.Errorf("%s: matches %v, want %v", step, got, want)
		}
		name, ok := x.Find(c, Discovery, ifaces)
		if ok != (len(want) > 0) || ok && name != want[0] {
			t.Errorf("%s: found %q %v", step, name, ok)
		}
	}
	check("empty")
	x.Delete("nvme0")
	x.Put("nvme10", e)
	x.Put("nvme9", e)
	check("two", "nvme9", "nvme10") // by number, not by text
	own := e
	own.SubsysNQN = subsys
	x.Put("nvme2", own)
	check("one with its own name", "nvme2", "nvme9", "nvme10")
	x.Put("nvme9", e)
	check("again", "nvme2", "nvme9", "nvme10")
	e.Leaving = true
	x.Put("nvme9", e)
	check("leaving", "nvme2", "nvme10")
	x.Delete("nvme2")
	x.Delete("nvme10")
	x.Delete("nvme10")
	check("none")
	if len(x.byName) != 0 || len(x.buckets) != 0 {
		t.Errorf("left behind: %v %v", x.byName, x.buckets)
	}
}

// A candidate for another path does not take over a connection whose source is
// not to be seen because it is broken.
func TestSourceWhileReconnecting(t *testing.T) {
	e := Existing{Transport: "tcp", TrAddr: "10.0.0.1", TrSvcID: "4420", SubsysNQN: subsys, HostNQN: host, Kind: IO, SrcAddr: "10.0.0.9"}
	broken := e
	broken.SrcAddr = ""
	candidate := func(iface string) TID {
		return New(TID{Transport: "tcp", TrAddr: "10.0.0.1", TrSvcID: "4420", SubsysNQN: subsys, HostNQN: host, HostIface: iface})
	}
	var x Index
	check := func(step string, ifaces Ifaces, eth0, eth1 bool) {
		t.Helper()
		for iface, want := range map[string]bool{"eth0": eth0, "eth1": eth1} {
			if _, got := x.Find(candidate(iface), IO, ifaces); got != want {
				t.Errorf("%s: %s matches: %v", step, iface, got)
			}
		}
	}
	x.Put("nvme1", e)
	check("live", ifaces, true, false)
	x.Put("nvme1", broken)
	check("reconnecting", ifaces, true, false)
	x.Put("nvme1", broken)
	check("still reconnecting", ifaces, true, false)
	check("the host has that address no longer", Ifaces{}, true, true)
	e.SrcAddr = "10.1.0.9"
	x.Put("nvme1", e)
	check("another way", ifaces, false, true)
	x.Put("nvme1", broken)
	other := broken
	other.TrSvcID = "4421"
	x.Put("nvme1", other)
	x.Put("nvme1", broken)
	check("another connection has had the number", ifaces, true, true)
	x.Put("nvme1", e)
	x.Delete("nvme1")
	x.Put("nvme1", broken)
	check("it has been away", ifaces, true, true)
}

func TestFindDoesNotAllocateOrScan(t *testing.T) {
	x, last := filled(1000)
	if n := testing.AllocsPerRun(100, func() { x.Find(last, IO, ifaces) }); n > 4 {
		t.Errorf("a look-up allocates %v times", n)
	}
	for k, b := range x.buckets {
		if len(b) != 1 {
			t.Fatalf("bucket %+v has %d controllers", k, len(b))
		}
	}
}

func BenchmarkFind(b *testing.B) {
	for _, n := range []int{10, 1_000, 100_000} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			x, last := filled(n)
			b.ReportAllocs()
			for b.Loop() {
				if _, ok := x.Find(last, IO, ifaces); !ok {
					b.Fatal("not found")
				}
			}
		})
	}
}

// filled is an index of n I/O controllers, each of its own subsystem, and a
// candidate for the last of them.
func filled(n int) (*Index, TID) {
	var x Index
	var last TID
	for i := range n {
		nqn := fmt.Sprintf("%s-%d", subsys, i)
		addr := fmt.Sprintf("10.0.%d.%d", i%16, 1+i%200) // many at each
		x.Put(fmt.Sprintf("nvme%d", i), Existing{
			Transport: "tcp", TrAddr: addr, TrSvcID: "4420", SrcAddr: "10.0.0.9",
			SubsysNQN: nqn, HostNQN: host, Kind: IO,
		})
		last = New(TID{Transport: "tcp", TrAddr: addr, TrSvcID: "4420", SubsysNQN: nqn, HostNQN: host, HostIface: "eth0"})
	}
	return &x, last
}

// Without a wish for a source, the connection without one is preferred to one
// that is bound to another candidate's, whatever their numbers.
func TestFindPrefersTheSame(t *testing.T) {
	var x Index
	at := Existing{Transport: "tcp", TrAddr: "192.0.2.1", TrSvcID: "4420", SubsysNQN: "nqn.a", HostNQN: "nqn.h", SrcAddr: "192.0.2.9", Kind: IO}
	bound := at
	bound.HostIface = "eth0"
	x.Put("nvme1", bound)
	ifaces := NewIfaces([]IfaceAddr{{Iface: "eth0", Addr: netip.MustParseAddr("192.0.2.9")}})
	plain := New(TID{Transport: "tcp", TrAddr: "192.0.2.1", TrSvcID: "4420", SubsysNQN: "nqn.a", HostNQN: "nqn.h"})
	if name, ok := x.Find(plain, IO, ifaces); name != "nvme1" || !ok {
		t.Errorf("the only one: %q, %v", name, ok)
	}
	x.Put("nvme2", at)
	if name, _ := x.Find(plain, IO, ifaces); name != "nvme2" {
		t.Errorf("of both: %q, want nvme2", name)
	}
	iface := plain
	iface.HostIface = "eth0"
	if name, _ := x.Find(iface, IO, ifaces); name != "nvme1" {
		t.Errorf("by eth0: %q, want nvme1", name)
	}
}
