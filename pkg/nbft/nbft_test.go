package nbft

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"net/netip"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
)

// everything is a table in which every field has a value.
func everything() *Table {
	ip := netip.MustParseAddr
	return &Table{
		Header: Header{
			Major: 1, Minor: 1, OEMID: "STAS", OEMTableID: "TESTNBFT", OEMRevision: 2, CreatorID: 0x31415926,
			CreatorRevision: 3, DriverSignature: []byte("Fv(1)/FvFile(2)"),
		},
		Host: Host{
			NQN:          "nqn.2014-08.org.nvmexpress:uuid:33221100-5544-7766-8899-aabbccddeeff",
			ID:           HostID{0, 0x11, 0x22, 0x33, 0x44, 0x55, 0x66, 0x77, 0x88, 0x99, 0xaa, 0xbb, 0xcc, 0xdd, 0xee, 0xff},
			IDConfigured: true, NQNConfigured: true, Primary: PrimarySelected,
		},
		HFIs: []HFI{
			{
				Index: 1, TrType: TCP, PCI: 0x0001_4083, MAC: MAC{2, 0, 0, 0, 0, 1}, VLAN: 100, IPOrigin: 3,
				IP: ip("192.0.2.10"), Prefix: 24, Gateway: ip("192.0.2.1"), RouteMetric: 500,
				PrimaryDNS: ip("192.0.2.2"), SecondaryDNS: ip("192.0.2.3"), DHCPServer: ip("192.0.2.4"),
				HostName: "host.example", DefaultRoute: true, DHCP: true,
				Autoconf: true, PCIeSegment: 5, DHCPClientID: true, DHCPIAID: 0x01020304, DHCPDUID: Hex{0, 1, 2, 0xab},
			},
			{
				Index: 2, TrType: TCP, PCI: 0x18, MAC: MAC{2, 0, 0, 0, 0, 2}, IPOrigin: 1,
				IP: ip("2001:db8::10"), Prefix: 64, Gateway: ip("::"), PrimaryDNS: ip("::"), SecondaryDNS: ip("::"),
			},
		},
		Security: []Security{{
			Index: 1, InBandAuth: Required, AuthPolicy: PolicyAdmin, SecureChannel: NotRequired, ChannelPolicy: PolicyDriver,
			CiphersRestricted: true, GroupsRestricted: true, HashesRestricted: true,
			ChannelAlgorithms: IDs{2}, AuthProtocols: IDs{1}, CipherSuites: IDs{0x13, 1}, DHGroups: IDs{1, 2}, HashFunctions: IDs{3},
			RedfishKey: true, KeyPath: "https://192.0.2.5/redfish/v1/Keys/1",
		}},
		Discovery: []Discovery{
			{Index: 1, HFI: 1, Security: 1, URI: "nvme+tcp://192.0.2.20:8009/", NQN: "nqn.2014-08.org.nvmexpress.discovery"},
			{Index: 2, HFI: 2, URI: "nvme+tcp://[2001:DB8::20]/", NQN: "nqn.2026-01.org.example:dc"},
		},
		Subsystems: []Subsystem{
			{
				Index: 1, HFIs: []Ref{2, 1}, TrType: TCP, TrAddr: ip("192.0.2.30"), TrSvcID: "4420", PortID: 7, NSID: 0x01020304,
				NIDType: NIDUUID, NID: "00112233-4455-6677-8899-aabbccddeeff", NQN: "nqn.2026-01.org.example:boot",
				CntlID: 0x1042, ASQSz: 32, RootPath: "nvme+tcp://192.0.2.30:4420/x", HdrDigest: true, DataDigest: true,
				Discovery: 2, Security: 1, NonBootable: true, FromRootPath: true, SeparateDiscovery: true, Discovered: true,
				Availability: Unavailable, NAED: 1, CIPEEC: 2, CTO: 0x0304, NCEEC: 5,
			},
			{
				Index: 2, HFIs: []Ref{}, TrType: TCP, TrAddr: ip("2001:db8::30"), TrSvcID: "4420",
				NIDType: NIDEUI64, NID: "0011223344556677", NQN: "nqn.2026-01.org.example:boot",
			},
			{
				Index: 3, HFIs: []Ref{1}, TrType: TCP, TrAddr: ip("192.0.2.30"), TrSvcID: "4420", NSID: 2,
				NIDType: NIDNGUID, NID: "00112233445566778899aabbccddeeff", NQN: "nqn.2026-01.org.example:boot",
			},
		},
	}
}

func encode(t testing.TB, table *Table) []byte {
	t.Helper()
	b, err := table.AppendBinary(nil)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func decode(t testing.TB, b []byte) *Table {
	t.Helper()
	table, err := Decode(b)
	if err != nil {
		t.Fatal(err)
	}
	return table
}

// correct makes the checksum right.
func correct(b []byte) []byte {
	b[9] -= sum(b)
	return b
}

var compareIPs = cmpopts.EquateComparable(netip.Addr{})

func TestRoundTrip(t *testing.T) {
	b := encode(t, everything())
	if diff := cmp.Diff(everything(), decode(t, b), compareIPs); diff != "" {
		t.Error(diff)
	}
	if again := encode(t, decode(t, b)); !bytes.Equal(again, b) {
		t.Errorf("encoded again:\n%s", cmp.Diff(hex.Dump(b), hex.Dump(again)))
	}
}

// TestLayout checks where things are: a round trip does not notice that reader
// and writer agree on a wrong place. Offsets and bits are those of Boot.
func TestLayout(t *testing.T) {
	b := encode(t, everything())
	at32 := func(at int) int { return int(le.Uint32(b[at:])) }
	at16 := func(at int) int { return int(le.Uint16(b[at:])) }
	var (
		host  = at32(64 + 8)
		hfi   = at32(64 + 16)
		ssns  = at32(64 + 24)
		sec   = at32(64 + 32)
		disc  = at32(64 + 40)
		info  = at32(hfi + 16)
		ext   = at32(info + 110)
		sext  = at32(ssns + 60)
		text  = func(ref int) string { return hex.EncodeToString(b[at32(ref):][:at16(ref+4)+1]) }
		ascii = func(s string) string { return hex.EncodeToString([]byte(s + "\x00")) }
	)
	for _, tc := range []struct {
		name string
		at   int
		want string
	}{
		{"signature", 0, hex.EncodeToString([]byte("NBFT"))},
		{"revision", 8, "01"},
		{"OEM", 10, hex.EncodeToString([]byte("STAS\x00\x00TESTNBFT")) + "02000000" + "26594131" + "03000000"},
		{"minor revision", 50, "01"},
		{"control: ID, revision", 64, "010100"},
		{"control: length, flags", 64 + 4, "4000" + "01"},
		{"control: host length, version", 64 + 12, "2000" + "01"},
		{"control: HFI list", 64 + 20, "2000" + "01" + "02"},
		{"control: SSNS list", 64 + 28, "8000" + "01" + "03"},
		{"control: security list", 64 + 36, "4000" + "01" + "01"},
		{"control: discovery list", 64 + 44, "2000" + "01" + "02"},
		{"host: ID, flags, host ID", host, "02" + "17" + "00112233445566778899aabbccddeeff"},
		{"HFI: ID, index, flags, type", hfi, "03" + "01" + "01" + "03"},
		{"HFI 2", hfi + 32, "03" + "02" + "01" + "03"},
		{"transport info: versions, index, flags, PCI", info, "07" + "01" + "03" + "02" + "0100" + "0f" + "83400100"},
		{"transport info: MAC, VLAN, origin", info + 11, "020000000001" + "6400" + "03"},
		{"transport info: IP, prefix", info + 20, "00000000000000000000ffffc000020a" + "18"},
		{"transport info: gateway", info + 37, "00000000000000000000ffffc0000201" + "00"},
		{"transport info: metric, DNS", info + 54, "f401" + "00000000000000000000ffffc0000202" + "00000000000000000000ffffc0000203"},
		{"transport info: DHCP server", info + 88, "00000000000000000000ffffc0000204"},
		{"transport info: segment", info + 116, "05"},
		{"transport info 2: version, flags", at32(hfi+32+16) + 3, "01" + "0200" + "01"},
		{"extended info", ext, "0a" + "01" + "0100" + "03000000"},
		{"IAID", at32(ext + 8), "04030201"},
		{"DUID", at32(ext + 14), "000102ab"},
		{"SSNS: ID, index, flags, type, transport flags, discovery", ssns, "04" + "0100" + "7f01" + "03" + "0700" + "02"},
		{"SSNS: port, NSID, NID", ssns + 22, "0700" + "04030201" + "03" + "00112233445566778899aabbccddeeff"},
		{"SSNS: security, HFI", ssns + 45, "01" + "02"},
		{"SSNS: address", at32(ssns + 10), "00000000000000000000ffffc000021e"},
		{"SSNS: other HFIs", at32(ssns + 48), "0201"},
		{"SSNS 2: flags", ssns + 128 + 3, "0100"},
		{"SSNS extended info", sext, "09" + "01" + "0100" + "03000000" + "4210" + "2000"},
		{"SSNS extended info 1.1", sext + 18, "01" + "02" + "0403" + "05"},
		{"security", sec, "05" + "01" + "b50e" + "02"}, // 1, 10, 10, 01, 01, 1, 1, 1 from the lowest bit on
		{"security: channel", at32(sec + 6), "02"},
		{"security: authentication", at32(sec + 12), "01"},
		{"security: ciphers", at32(sec + 18), "1301"},
		{"security: groups", at32(sec + 24), "0102"},
		{"security: hashes", at32(sec + 30), "03"},
		{"discovery", disc, "06" + "01" + "01" + "01" + "01"},
	} {
		if got := hex.EncodeToString(b[tc.at:][:len(tc.want)/2]); got != tc.want {
			t.Errorf("%s: %s, want %s", tc.name, got, tc.want)
		}
	}
	for _, tc := range []struct {
		ref  int
		want string
	}{
		{44, "Fv(1)/FvFile(2)"},
		{host + 18, everything().Host.NQN},
		{info + 104, "host.example"},
		{ssns + 16, "4420"},
		{ssns + 54, "nqn.2026-01.org.example:boot"},
		{sext + 12, "nvme+tcp://192.0.2.30:4420/x"},
		{sec + 36, "https://192.0.2.5/redfish/v1/Keys/1"},
		{disc + 6, "nvme+tcp://192.0.2.20:8009/"},
		{disc + 12, "nqn.2014-08.org.nvmexpress.discovery"},
	} {
		if got := text(tc.ref); got != ascii(tc.want) {
			t.Errorf("text of the reference at %d: %s, want %q", tc.ref, got, tc.want)
		}
	}
	if len(b) != at32(4) || sum(b) != 0 || at32(36)+at32(40) != len(b) {
		t.Errorf("length %d, sum %d, heap of %d bytes at %d; there are %d bytes", at32(4), sum(b), at32(40), at32(36), len(b))
	}
}

// TestDecodeFails is about what is no table.
func TestDecodeFails(t *testing.T) {
	for _, tc := range []struct {
		name  string
		spoil func(b []byte) []byte
		want  string
	}{
		{"nothing", func([]byte) []byte { return nil }, "it has 0 bytes"},
		{"header only", func(b []byte) []byte { return b[:64] }, "it has 64 bytes"},
		{"signature", func(b []byte) []byte { b[3] = 'X'; return correct(b) }, `its signature is "NBFX"`},
		{"cut short", func(b []byte) []byte { return b[:len(b)-1] }, "its length is"},
		{"length too small", func(b []byte) []byte { clear(b[4:8]); return correct(b) }, "its length is 0"},
		{"checksum", func(b []byte) []byte { b[20]++; return b }, "sum up to 0x1, not to 0"},
		{"revision", func(b []byte) []byte { b[8] = 2; return correct(b) }, "its revision is 2"},
		{"heap", func(b []byte) []byte { b[40]++; return correct(b) }, "its heap, "},
		{"heap that overflows", func(b []byte) []byte { copy(b[36:], "\xff\xff\xff\xff\xff\xff\xff\xff"); return correct(b) }, "its heap, 4294967295 bytes at 0xffffffff, is not within"},
		{"control", func(b []byte) []byte { b[64] = 7; return correct(b) }, "its control structure has ID 7"},
		{"control revision", func(b []byte) []byte { b[65] = 2; return correct(b) }, "revision 2"},
		{"control length", func(b []byte) []byte { b[68] = 63; return correct(b) }, "63 bytes"},
		{"no host", func(b []byte) []byte { clear(b[72:78]); return correct(b) }, "its host descriptor of 0 bytes"},
		{"host outside", func(b []byte) []byte { le.PutUint32(b[72:], uint32(len(b)-31)); return correct(b) }, "its host descriptor of 32 bytes"},
		{"host invalid", func(b []byte) []byte { b[129] &^= 1; return correct(b) }, "its host descriptor is none, or marked as not valid"},
		{"host is none", func(b []byte) []byte { b[128] = 3; return correct(b) }, "its host descriptor is none"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			table, err := Decode(tc.spoil(encode(t, everything())))
			if err == nil || !strings.Contains(err.Error(), tc.want) || table != nil {
				t.Errorf("%v, want %q", err, tc.want)
			}
		})
	}
}

// TestProblems is about tables of which a part makes no sense: it is reported,
// and the rest is there.
func TestProblems(t *testing.T) {
	good := encode(t, everything())
	at32 := func(at int) int { return int(le.Uint32(good[at:])) }
	hfi, ssns, sec, disc := at32(64+16), at32(64+24), at32(64+32), at32(64+40)
	info, sext := at32(hfi+16), at32(ssns+60)
	ext := at32(info + 110)
	put := func(at int, v ...byte) func([]byte) []byte {
		return func(b []byte) []byte { copy(b[at:], v); return b }
	}
	bogus := []byte{0xff, 0xff, 0xff, 0xff, 1, 0} // reference to nowhere
	for _, tc := range []struct {
		name                           string
		spoil                          func(b []byte) []byte
		want                           []string // the problems, beginnings
		hfis, subsystems, dcs, secured int      // how many fewer than in everything()
		check                          func(t *Table) bool
	}{
		{name: "nothing", spoil: put(0)},
		{
			name: "OEM", spoil: put(10, 0x1b, 0xff),
			check: func(t *Table) bool { return t.Header.OEMID == "??AS" },
		},
		{
			name:  "bytes behind the table",
			spoil: func(b []byte) []byte { return append(b, 0) },
			want:  []string{"header: length: is "},
		},
		{
			name: "control not valid", spoil: put(64+6, 0),
			want: []string{"control: flags: "}, hfis: 2, subsystems: 3, dcs: 2, secured: 1,
			check: func(t *Table) bool { return t.Host.NQN == "" },
		},
		{
			name: "no host NQN", spoil: put(128+18, 0, 0, 0, 0, 0, 0), want: []string{"host: host NQN: is missing"},
		},
		{
			name: "an empty place", spoil: put(hfi+2, 0), hfis: 1,
			want:  []string{"discovery 1: HFI index: there is no 1", "SSNS 1: secondary HFI indexes: there is no HFI 1", "SSNS 3: primary HFI index: there is no 1", "SSNS 3: secondary"},
			check: func(t *Table) bool { return t.Discovery[0].HFI == 0 && t.HFI(t.Discovery[1].HFI).Index == 2 },
		},
		{
			name: "HFI of another kind", spoil: put(hfi, 4), hfis: 1,
			want: []string{"HFI 1: structure ID: is 4, want 3; HFI 1 is ignored", "discovery 1: ", "SSNS 1: ", "SSNS 3: ", "SSNS 3: "},
		},
		{
			name: "HFI of another transport", spoil: put(hfi+3, 2), hfis: 1,
			want: []string{"HFI 1: transport type: 2 is none that is known; HFI 1 is ignored", "discovery 1: ", "SSNS 1: ", "SSNS 3: ", "SSNS 3: "},
		},
		{
			name: "HFI with an index that is taken", spoil: put(hfi+33, 1), hfis: 1,
			want: []string{"HFI 2: index: 1 is not allowed, or taken; HFI 2 is ignored", "discovery 2: ", "SSNS 1: primary", "SSNS 1: secondary"},
		},
		{
			name: "transport info outside of the heap", spoil: put(hfi+16, bogus...), hfis: 1,
			want: []string{"HFI 1: transport info: 1 bytes at 0xffffffff are outside of the heap", "discovery 1: ", "SSNS 1: ", "SSNS 3: ", "SSNS 3: "},
		},
		{
			name: "transport info missing", spoil: put(hfi+20, 0, 0), hfis: 1,
			want: []string{"HFI 1: transport info: is missing", "discovery 1: ", "SSNS 1: ", "SSNS 3: ", "SSNS 3: "},
		},
		{
			name: "transport info short", spoil: put(hfi+20, 127), hfis: 1,
			want: []string{"HFI 1: transport info: has 127 bytes, want 128", "discovery 1: ", "SSNS 1: ", "SSNS 3: ", "SSNS 3: "},
		},
		{
			name: "transport info not valid", spoil: put(info+6, 0xe), hfis: 1,
			want: []string{"HFI 1: transport info: flags: ", "discovery 1: ", "SSNS 1: ", "SSNS 3: ", "SSNS 3: "},
		},
		{
			name: "host name", spoil: put(info+104, bogus...), want: []string{"HFI 1: transport info: host name: "},
			check: func(t *Table) bool { return t.HFIs[0].HostName == "" && t.HFIs[0].MAC == MAC{2, 0, 0, 0, 0, 1} },
		},
		{
			name: "of 1.0, with chance values in what was reserved", spoil: put(info+3, 1),
			check: func(t *Table) bool { return !t.HFIs[0].since11() && t.HFIs[0].HostName == "host.example" },
		},
		{
			name: "extended info of another", spoil: put(ext+2, 9), want: []string{"HFI 1: transport info: extended info: index: is of 9"},
			check: func(t *Table) bool { return !t.HFIs[0].DHCPClientID && t.HFIs[0].Autoconf },
		},
		{
			name: "no DHCP client ID", spoil: put(ext+4, 1),
			check: func(t *Table) bool { return !t.HFIs[0].DHCPClientID && t.HFIs[0].DHCPIAID == 0 },
		},
		{
			name: "extended info not valid", spoil: put(ext+4, 2),
			check: func(t *Table) bool { return !t.HFIs[0].DHCPClientID },
		},
		{
			name: "IAID", spoil: put(ext+12, 3), want: []string{"HFI 1: transport info: extended info: DHCP IAID: has 3 bytes"},
			check: func(t *Table) bool { return t.HFIs[0].DHCPIAID == 0 && len(t.HFIs[0].DHCPDUID) == 4 },
		},
		{
			name: "empty places", dcs: 2, subsystems: 3, secured: 1,
			spoil: func(b []byte) []byte {
				for _, at := range []int{disc + 1, disc + 33, ssns + 3, ssns + 131, ssns + 259, sec + 2} {
					b[at] = 0
				}
				return b
			},
		},
		{
			name: "URI missing", spoil: put(disc+10, 0, 0), want: []string{"discovery 1: URI: is missing; discovery 1 is ignored"}, dcs: 1,
			check: func(t *Table) bool { return t.Subsystems[0].Discovery == 1 && t.Discovery[0].Index == 2 },
		},
		{
			name: "URI of something else", spoil: put(at32(disc+6), []byte("http")...),
			want: []string{"discovery 1: URI: is not of the scheme nvme+tcp; discovery 1 is ignored"}, dcs: 1,
		},
		{
			name: "port of the URI", spoil: put(at32(disc+6)+22, []byte("99999")...),
			want: []string{"discovery 1: URI: has no port that is one; "}, dcs: 1,
		},
		{
			name: "URI that is none", spoil: put(at32(disc+6)+22, []byte("80x9")...),
			want: []string{"discovery 1: URI: is not a URI that can be understood"}, dcs: 1,
		},
		{
			name: "NQN of a DC missing", spoil: put(disc+32+16, 0, 0),
			check: func(t *Table) bool { return t.Discovery[1].NQN == "nqn.2014-08.org.nvmexpress.discovery" },
		},
		{
			name: "NQN of a DC that is none", spoil: put(at32(disc+12), 0x1b), dcs: 1,
			want: []string{"discovery 1: NQN: is not text that can be printed; discovery 1"},
		},
		{
			name: "no NUL behind the NQN", spoil: put(disc+16, 35), dcs: 1,
			want: []string{"discovery 1: NQN: no NUL ends it; discovery 1"},
		},
		{
			name: "security outside of the heap", spoil: put(sec+30, bogus...), want: []string{"security 1: hash functions: "},
			check: func(t *Table) bool { return t.Security[0].HashFunctions == nil && t.Security[0].KeyPath != "" },
		},
		{
			name: "security without lists", spoil: put(sec+2, 1, 0),
			check: func(t *Table) bool { return t.Security[0].HashFunctions == nil && t.Security[0].AuthProtocols == nil },
		},
		{
			name: "security that is none", spoil: put(sec, 1), secured: 1,
			want: []string{"security 1: structure ID", "discovery 1: security index: there is no 1", "SSNS 1: security index: there is no 1"},
		},
		{
			name: "security of a namespace not in use", spoil: put(ssns+3, 0x7b),
			check: func(t *Table) bool { return t.Subsystems[0].Security == 0 },
		},
		{
			name: "NQN of a subsystem missing", spoil: put(ssns+58, 0, 0), subsystems: 1,
			want: []string{"SSNS 1: NQN: is missing; SSNS 1 is ignored"},
		},
		{
			name: "address of a subsystem short", spoil: put(ssns+14, 4), subsystems: 1,
			want: []string{"SSNS 1: transport address: has 4 bytes, want 16; "},
		},
		{
			name: "address of a subsystem missing", spoil: put(ssns+14, 0), subsystems: 1,
			want: []string{"SSNS 1: transport address: has 0 bytes, want 16; "},
		},
		{
			name: "no address", spoil: put(at32(ssns+10), make([]byte, 16)...), subsystems: 1,
			want: []string{"SSNS 1: transport address: is ::; "},
		},
		{
			name: "port of a subsystem", spoil: put(at32(ssns+16), []byte("nvme")...), subsystems: 1,
			want: []string{`SSNS 1: transport service ID: "nvme" is no port; `},
		},
		{
			name: "no port", spoil: put(ssns+20, 0, 0), subsystems: 1,
			want: []string{`SSNS 1: transport service ID: "" is no port; `},
		},
		{
			name: "NID type", spoil: put(ssns+28, 4), want: []string{"SSNS 1: NID type: 4 is unknown"},
			check: func(t *Table) bool { return t.Subsystems[0].NID == "" && t.Subsystems[0].NIDType == NIDNone },
		},
		{
			name: "digests not valid", spoil: put(ssns+6, 6),
			check: func(t *Table) bool { return !t.Subsystems[0].HdrDigest && !t.Subsystems[0].DataDigest },
		},
		{
			name: "no secondary HFIs", spoil: put(ssns+52, 0, 0),
			check: func(t *Table) bool { return slices.Equal(t.Subsystems[0].HFIs, []Ref{2}) },
		},
		{
			name: "HFIs repeated, and one that is not there", spoil: put(at32(ssns+48), 9, 2),
			want:  []string{"SSNS 1: secondary HFI indexes: there is no HFI 9"},
			check: func(t *Table) bool { return slices.Equal(t.Subsystems[0].HFIs, []Ref{2}) },
		},
		{
			name: "SSNS extended info of another", spoil: put(sext+2, 2), want: []string{"SSNS 1: extended info: index: is of 2"},
			check: func(t *Table) bool { return t.Subsystems[0].CntlID == 0 },
		},
		{
			name: "SSNS extended info of 1.0", spoil: put(ssns+64, 18),
			check: func(t *Table) bool {
				s := t.Subsystems[0]
				return s.CntlID == 0x1042 && s.ASQSz == 32 && s.NAED == 0 && s.CTO == 0
			},
		},
		{
			name: "ASQSZ that nobody asked for", spoil: put(sext+4, 1),
			check: func(t *Table) bool { return t.Subsystems[0].ASQSz == 0 && t.Subsystems[0].CntlID == 0x1042 },
		},
		{
			name: "list with a small stride", spoil: put(64+20, 31), hfis: 2,
			want: []string{"control: HFI list: has entries of 31 bytes, want 32", "discovery 1", "discovery 2", "SSNS 1", "SSNS 1", "SSNS 1", "SSNS 3", "SSNS 3"},
		},
		{
			name: "list before the table", spoil: put(64+40, 127, 0, 0, 0), dcs: 2,
			want: []string{"control: discovery list: 2 entries of 32 bytes at 0x7f are not all in the table", "SSNS 1: discovery index: "},
		},
		{
			name: "list behind the table", spoil: put(64+24, 0xff, 0xff, 0xff, 0xff), subsystems: 3,
			want: []string{"control: SSNS list: 3 entries of 128 bytes at 0xffffffff are not all in the table"},
		},
		{
			name: "list that ends beyond the table", subsystems: 2,
			spoil: func(b []byte) []byte { // of three there is room for one
				list := bytes.Clone(b[ssns:][:128])
				le.PutUint32(b[64+24:], uint32(len(b)))
				b = append(append(b, list...), make([]byte, 127)...)
				le.PutUint32(b[4:], uint32(len(b)))
				return b
			},
			want: []string{"control: SSNS list: 3 entries of 128 bytes"},
		},
		{
			name: "wider stride",
			spoil: func(b []byte) []byte {
				list := len(b)
				for i := range 2 {
					b = append(append(b, b[hfi+32*i:][:32]...), 0xff, 0xff, 0xff)
				}
				le.PutUint32(b[64+16:], uint32(list))
				b[64+20] = 35
				le.PutUint32(b[4:], uint32(len(b)))
				return b
			},
			check: func(t *Table) bool { return t.HFIs[1].MAC == MAC{2, 0, 0, 0, 0, 2} },
		},
	} {
		t.Run(tc.name, func(t *testing.T) {
			table := decode(t, correct(tc.spoil(bytes.Clone(good))))
			var got []string
			for _, p := range table.Problems {
				got = append(got, p.String())
			}
			if !slices.EqualFunc(got, tc.want, strings.HasPrefix) {
				t.Errorf("problems\n got %q\nwant %q", got, tc.want)
			}
			all := everything()
			for name, n := range map[string][2]int{
				"HFIs":       {len(table.HFIs), len(all.HFIs) - tc.hfis},
				"subsystems": {len(table.Subsystems), len(all.Subsystems) - tc.subsystems},
				"discovery":  {len(table.Discovery), len(all.Discovery) - tc.dcs},
				"security":   {len(table.Security), len(all.Security) - tc.secured},
			} {
				if n[0] != n[1] {
					t.Errorf("%d %s, want %d", n[0], name, n[1])
				}
			}
			if tc.check != nil && !tc.check(table) {
				t.Errorf("decoded %+v", table)
			}
		})
	}
}

func TestEncodeRefuses(t *testing.T) {
	for _, tc := range []struct {
		spoil func(*Table)
		want  string
	}{
		{func(t *Table) { t.HFIs = make([]HFI, 256) }, "HFI list: has 256 entries"},
		{func(t *Table) { t.HFIs[1].Index = 1 }, "HFI 2: index"},
		{func(t *Table) { t.Discovery[0].HFI = 3 }, "discovery 1: HFI index: there is no 3"},
		{func(t *Table) { t.Subsystems[0].HFIs = []Ref{-1} }, "SSNS 1: secondary HFI indexes: there is no HFI -1"},
		{func(t *Table) { t.Subsystems[0].NQN = "a\n" }, "SSNS 1: NQN: is not text"},
		{func(t *Table) { t.Subsystems[0].NID = "x" }, "SSNS 1: NID: "},
		{func(t *Table) { t.Subsystems[0].TrSvcID = "0" }, "SSNS 1: transport service ID: "},
		{func(t *Table) { t.Discovery[1].URI = "" }, "discovery 2: URI: is missing"},
		{func(t *Table) { t.HFIs[0].HostName = strings.Repeat("a", 1<<16) }, "HFI 1: transport info: host name: has 65536 bytes"},
	} {
		table := everything()
		tc.spoil(table)
		if b, err := table.AppendBinary([]byte("x")); err == nil || !strings.Contains(err.Error(), tc.want) || string(b) != "x" {
			t.Errorf("%v, want %q", err, tc.want)
		}
	}
}

// TestSecrets: who put a password into a URI does not find it anywhere.
func TestSecrets(t *testing.T) {
	for _, uri := range []string{
		"nvme+tcp://user:GEHEIM@192.0.2.20:8009/",
		"nvme+tcp://user:GEHEIM@x:y@192.0.2.20:8009/",
		"nvme+tcp://user:GEHEIM@192.0.2.20:80/?a@b",
		"//user:GEHEIM@192.0.2.20:8009/",
		"nvme+tcp://user:GEHEIM@192.0.2.20:80x9/",
		"nvme+tcp://user:GEHEIM@%zz/",
		"nvme+tcp://user:GEHEIM@[::1/",
		"nvme+tcp://user:GEHEIM\x07@192.0.2.20/",
		" nvme+tcp://user:GEHEIM@192.0.2.20/",
	} {
		// A placeholder of the same length is encoded, and then replaced.
		table := everything()
		placeholder := "nvme+tcp://h/" + strings.Repeat("x", len(uri)-len("nvme+tcp://h/"))
		table.Discovery[0].URI, table.Security[0].KeyPath, table.Subsystems[0].RootPath = placeholder, placeholder, placeholder
		b := bytes.ReplaceAll(encode(t, table), []byte(placeholder), []byte(uri))
		table = decode(t, correct(b))
		text, err := json.Marshal(table)
		if err != nil {
			t.Fatal(err)
		}
		if bytes.Contains(text, []byte("GEHEIM")) || bytes.Contains(text, []byte("user")) {
			t.Errorf("%s", text)
		}
		if len(table.Security) != 1 || len(table.Subsystems) != 3 {
			t.Errorf("%q: %d security, %d subsystems", uri, len(table.Security), len(table.Subsystems))
		}
	}
}

func TestStripURI(t *testing.T) {
	for in, want := range map[string]string{
		"":                                   "",
		"plain @ text":                       "plain @ text",
		"nvme+tcp://[4321:BBBB::1]:4420/":    "nvme+tcp://[4321:BBBB::1]:4420/",
		"NVME+TCP://a:b@[4321:BBBB::1]:4420": "NVME+TCP://[4321:BBBB::1]:4420",
		"https://a@h/p?q=x@y#z@":             "https://h/p?q=x@y#z@",
		"https://h/p//x@y":                   "https://h/p//x@y",
		"a//b@c":                             "a//b@c",
	} {
		if got, err := stripURI(in); got != want || err != nil {
			t.Errorf("%q: %q, %v; want %q", in, got, err, want)
		}
	}
}

func TestJSON(t *testing.T) {
	got, err := json.Marshal(decode(t, encode(t, everything())))
	if err != nil {
		t.Fatal(err)
	}
	const want = `{
		"host": {
			"nqn": "nqn.2014-08.org.nvmexpress:uuid:33221100-5544-7766-8899-aabbccddeeff",
			"id": "00112233-4455-6677-8899-aabbccddeeff",
			"host_id_configured": true, "host_nqn_configured": true, "primary_admin_host_flag": "selected"
		},
		"subsystem": [
			{
				"index": 1, "hfi_indexes": [1, 0], "trtype": "tcp", "traddr": "192.0.2.30", "trsvcid": "4420",
				"subsys_port_id": 7, "nsid": 16909060, "nid_type": "uuid", "nid": "00112233-4455-6677-8899-aabbccddeeff",
				"subsys_nqn": "nqn.2026-01.org.example:boot", "controller_id": 4162, "asqsz": 32,
				"dhcp_root_path_string": "nvme+tcp://192.0.2.30:4420/x",
				"pdu_header_digest_required": true, "data_digest_required": true,
				"discovery_index": 1, "security_index": 0, "non_bootable": true, "dhcp_root_path_override": true,
				"separate_discovery": true, "discovered": true, "availability": "unavailable",
				"naed": 1, "cipeec": 2, "cto": 772, "nceec": 5
			},
			{
				"index": 2, "hfi_indexes": [], "trtype": "tcp", "traddr": "2001:db8::30", "trsvcid": "4420",
				"subsys_port_id": 0, "nsid": 0, "nid_type": "eui64", "nid": "0011223344556677",
				"subsys_nqn": "nqn.2026-01.org.example:boot", "controller_id": 0, "asqsz": 0,
				"pdu_header_digest_required": false, "data_digest_required": false
			},
			{
				"index": 3, "hfi_indexes": [0], "trtype": "tcp", "traddr": "192.0.2.30", "trsvcid": "4420",
				"subsys_port_id": 0, "nsid": 2, "nid_type": "nguid", "nid": "00112233445566778899aabbccddeeff",
				"subsys_nqn": "nqn.2026-01.org.example:boot", "controller_id": 0, "asqsz": 0,
				"pdu_header_digest_required": false, "data_digest_required": false
			}
		],
		"hfi": [
			{
				"index": 1, "trtype": "tcp", "pcidev": "1:40:10.3", "mac_addr": "02:00:00:00:00:01", "vlan": 100, "ip_origin": 3,
				"ipaddr": "192.0.2.10", "subnet_mask_prefix": 24, "gateway_ipaddr": "192.0.2.1", "route_metric": 500,
				"primary_dns_ipaddr": "192.0.2.2", "secondary_dns_ipaddr": "192.0.2.3", "dhcp_server_ipaddr": "192.0.2.4",
				"host_name": "host.example", "this_hfi_is_default_route": true, "dhcp_override": true,
				"address_autoconf": true, "pcie_seg_num": 5, "dhcp_client_id": true, "dhcp_iaid": 16909060, "dhcp_duid": "000102ab"
			},
			{
				"index": 2, "trtype": "tcp", "pcidev": "0:0:3.0", "mac_addr": "02:00:00:00:00:02", "vlan": 0, "ip_origin": 1,
				"ipaddr": "2001:db8::10", "subnet_mask_prefix": 64, "gateway_ipaddr": "::", "route_metric": 0,
				"primary_dns_ipaddr": "::", "secondary_dns_ipaddr": "::", "dhcp_server_ipaddr": "",
				"this_hfi_is_default_route": false, "dhcp_override": false
			}
		],
		"discovery": [
			{"index": 1, "hfi_index": 0, "security_index": 0, "uri": "nvme+tcp://192.0.2.20:8009/", "nqn": "nqn.2014-08.org.nvmexpress.discovery"},
			{"index": 2, "hfi_index": 1, "uri": "nvme+tcp://[2001:DB8::20]/", "nqn": "nqn.2026-01.org.example:dc"}
		],
		"security": [{
			"index": 1, "in_band_auth": "required", "auth_policy": "administrator",
			"secure_channel": "not required", "secure_channel_policy": "driver",
			"cipher_suites_restricted": true, "dh_groups_restricted": true, "hash_functions_restricted": true,
			"secure_channel_algorithms": [2], "auth_protocols": [1], "cipher_suites": [19, 1], "dh_groups": [1, 2], "hash_functions": [3],
			"redfish_key": true, "key_path": "https://192.0.2.5/redfish/v1/Keys/1"
		}]
	}`
	if diff := cmp.Diff(anyJSON(t, []byte(want)), anyJSON(t, got)); diff != "" {
		t.Error(diff)
	}

	// Lists of nothing are lists, and a problem has its place.
	empty := &Table{Header: Header{Major: 1}, Host: Host{Primary: 3}}
	got, err = json.Marshal(decode(t, encode(t, empty)))
	if err != nil {
		t.Fatal(err)
	}
	const nothing = `{
		"host": {"host_id_configured": false, "host_nqn_configured": false, "primary_admin_host_flag": "reserved"},
		"subsystem": [], "hfi": [], "discovery": [],
		"problems": [{"structure": "host", "field": "host NQN", "problem": "is missing", "ignored": false}]
	}`
	if diff := cmp.Diff(anyJSON(t, []byte(nothing)), anyJSON(t, got)); diff != "" {
		t.Error(diff)
	}
}

func anyJSON(t *testing.T, b []byte) (v any) {
	t.Helper()
	if err := json.Unmarshal(b, &v); err != nil {
		t.Fatalf("%v: %s", err, b)
	}
	return v
}

func TestNames(t *testing.T) {
	for _, tc := range []struct {
		got  interface{ String() string }
		want string
	}{
		{TransportType(1), "1"},
		{IPOrigin(0), ""}, {IPOrigin(3), "dhcp"}, {IPOrigin(95), "95"},
		{NIDType(9), "9"},
		{Primary(1), "unselected"},
		{Availability(1), "available"}, {Availability(3), "reserved"},
		{Requirement(0), "not supported"}, {Requirement(3), "reserved"},
		{Policy(0), "none"}, {Policy(3), "reserved"},
		{PCI(0xffffffff), "ffff:ff:1f.7"},
	} {
		if got := tc.got.String(); got != tc.want {
			t.Errorf("%T: %q, want %q", tc.got, got, tc.want)
		}
	}
}

func FuzzDecode(f *testing.F) {
	f.Add(encode(f, everything()))
	f.Add(encode(f, &Table{Header: Header{Major: 1}}))
	f.Add(bytes.Repeat([]byte{0xff}, 300))
	f.Add([]byte("NBFT"))
	f.Fuzz(func(t *testing.T, b []byte) {
		b = bytes.Clone(b) // the fuzzer's
		if len(b) >= sizeHeader+sizeControl {
			// Nothing would come of mutations that make the checksum wrong.
			copy(b, signature)
			le.PutUint32(b[offLength:], uint32(len(b)))
			b[offMajor], b[64], b[65] = 1, idControl, 1
			b = correct(b)
		}
		before := bytes.Clone(b)
		table, err := Decode(b)
		if !bytes.Equal(b, before) {
			t.Fatal("decoding changed the bytes")
		}
		if err != nil {
			return
		}
		if _, err := json.Marshal(table); err != nil {
			t.Error(err)
		}
		for _, p := range table.Problems {
			if !isText(p.String()) {
				t.Errorf("problem %q", p)
			}
		}
		for _, c := range slices.Concat(table.DiscoveryControllers(noIface), table.SubsystemControllers(noIface)) {
			if !isText(c.TrAddr+c.TrSvcID+c.SubsysNQN+c.HostNQN) || c.TrAddr == "" {
				t.Errorf("controller %+v", c)
			}
		}
		table.Identity()
		again := decode(t, encode(t, table))
		table.Problems, again.Problems = nil, nil
		if !reflect.DeepEqual(table, again) { // cmp is too slow for the fuzzer
			t.Errorf("after a round trip:\n%s", cmp.Diff(table, again, compareIPs))
		}
	})
}

func noIface(MAC, uint16) string { return "" }
