package nvme

import (
	"fmt"
	"testing"
)

func TestNames(t *testing.T) {
	for _, tc := range []struct {
		value fmt.Stringer
		want  string
	}{
		{RDMA, "rdma"}, {FC, "fc"}, {TCP, "tcp"}, {Loop, "loop"}, {TransportType(0), "0"}, {TransportType(77), "77"},
		{FamilyPCI, "pci"}, {FamilyIPv4, "ipv4"}, {FamilyIPv6, "ipv6"}, {FamilyIB, "ib"}, {FamilyFC, "fc"},
		{FamilyLoop, "loop"}, {AddressFamily(9), "9"},
		{Referral, "referral"}, {NVMSubsystem, "nvme"}, {CurrentDiscovery, "discovery"}, {SubsystemType(0), "0"},
		{TReq(0), "not specified"}, {TReq(1), "required"}, {TReq(2), "not required"}, {TReq(4), "disable sqflow"},
		{TReq(3), "3"}, {TReq(5), "5"}, {TReq(255), "255"},
		{SecurityNone, "none"}, {SecurityTLS, "tls"}, {SecurityTLS13, "tls13"}, {Security(3), "3"},
		{DiscoveryLogChanged, "0x70f002"}, {AEN(0x40002), "0x040002"},
	} {
		if got := tc.value.String(); got != tc.want {
			t.Errorf("%T: %q, want %q", tc.value, got, tc.want)
		}
	}
}

func TestParseTransportType(t *testing.T) {
	for _, tt := range []TransportType{RDMA, FC, TCP, Loop} {
		if got, ok := ParseTransportType(tt.String()); !ok || got != tt {
			t.Errorf("ParseTransportType(%q) = %v, %t", tt, got, ok)
		}
	}
	for _, s := range []string{"", "TCP", "pcie", "3"} {
		if got, ok := ParseTransportType(s); ok {
			t.Errorf("ParseTransportType(%q) = %v", s, got)
		}
	}
}

func TestBits(t *testing.T) {
	if f := EntryFlags(4); !f.NCC() || f.EPCSD() || f.DUPRETINFO() {
		t.Error("EFLAGS 4 is NCC alone")
	}
	if f := EntryFlags(3); f.NCC() || !f.EPCSD() || !f.DUPRETINFO() {
		t.Error("EFLAGS 3 is EPCSD and DUPRETINFO")
	}
	for _, f := range []EntryFlags{0, 1, 2, 4, 7} {
		if got := NewEntryFlags(f.DUPRETINFO(), f.EPCSD(), f.NCC()); got != f {
			t.Errorf("EFLAGS %d becomes %d", f, got)
		}
	}
	if r := TReq(0x15); r.SecureChannel() != SecureRequired || !r.DisableSQFlow() {
		t.Error("TREQ 15h requires a secure channel and allows to disable SQ flow control")
	}
}
