package stasadm

import (
	"bytes"
	"errors"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/nvme-stas/stas/internal/hostid"
	"github.com/nvme-stas/stas/pkg/nbft"
)

// sampleTable is a table with two ways to the same namespace.
func sampleTable(t *testing.T) []byte {
	t.Helper()
	ip := netip.MustParseAddr
	table := nbft.Table{
		Header: nbft.Header{Major: 1, OEMID: "STAS", OEMTableID: "TESTNBFT"},
		Host: nbft.Host{
			NQN: nqn, NQNConfigured: true,
			ID: nbft.HostID{0x46, 0x23, 0x78, 0xf2, 0x09, 0x48, 0x4a, 0x48, 0x9a, 0x8b, 0x95, 0x2a, 0x04, 0xb5, 0x7b, 0xa4},
		},
		HFIs: []nbft.HFI{
			{
				Index: 1, TrType: nbft.TCP, PCI: 0x4000, MAC: nbft.MAC{2, 0, 0, 0, 0, 1}, VLAN: 100, IPOrigin: 3, IP: ip("192.0.2.10"), Prefix: 24,
				Gateway: ip("192.0.2.1"), PrimaryDNS: ip("192.0.2.2"), SecondaryDNS: ip("192.0.2.3"), DHCPServer: ip("192.0.2.4"), DHCP: true, DefaultRoute: true,
			},
			{Index: 2, TrType: nbft.TCP, PCI: 0x4001, MAC: nbft.MAC{2, 0, 0, 0, 0, 2}},
		},
		Discovery: []nbft.Discovery{{Index: 1, HFI: 1, Security: 1, URI: "nvme+tcp://192.0.2.20:8009/", NQN: "nqn.2014-08.org.nvmexpress.discovery"}},
		Security:  []nbft.Security{{Index: 1, InBandAuth: nbft.Required, AuthPolicy: nbft.PolicyAdmin, AuthProtocols: nbft.IDs{1}, HashesRestricted: true, HashFunctions: nbft.IDs{2, 3}}},
		Subsystems: []nbft.Subsystem{
			{
				Index: 1, HFIs: []nbft.Ref{1}, TrType: nbft.TCP, TrAddr: ip("192.0.2.30"), TrSvcID: "4420", NSID: 1,
				NIDType: nbft.NIDEUI64, NID: "0011223344556677", NQN: "nqn.2026-01.org.example:boot", Discovery: 1, Discovered: true, HdrDigest: true,
			},
			{
				Index: 2, HFIs: []nbft.Ref{2, 1}, TrType: nbft.TCP, TrAddr: ip("2001:db8::30"), TrSvcID: "4420",
				NQN: "nqn.2026-01.org.example:boot", Availability: nbft.Unavailable,
			},
		},
	}
	b, err := table.AppendBinary(nil)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

const sampleText = `@/NBFT: NBFT 1.0 by STAS TESTNBFT

Host NQN:  nqn.2014-08.org.nvmexpress:uuid:f2782346-4809-484a-9a8b-952a04b57ba4 (configured)
Host ID:   f2782346-4809-484a-9a8b-952a04b57ba4 (default of the firmware)
           462378f2-0948-4a48-9a8b-952a04b57ba4 (in the other byte order)

HFI  PCI       MAC                VLAN  ADDRESS        ORIGIN  GATEWAY    DNS                  DHCP       FLAGS
1    0:40:0.0  02:00:00:00:00:01  100   192.0.2.10/24  dhcp    192.0.2.1  192.0.2.2,192.0.2.3  192.0.2.4  default-route,dhcp
2    0:40:0.1  02:00:00:00:00:02  -     -              -       -          -                    -          -

DISCOVERY  URI                          HFI  SECURITY  NQN
1          nvme+tcp://192.0.2.20:8009/  1    1         nqn.2014-08.org.nvmexpress.discovery

NAMESPACE  ADDRESS                  HFI  DISCOVERY  NSID  NID               FLAGS                     NQN
1          tcp 192.0.2.30:4420      1    1          1     0011223344556677  discovered,header-digest  nqn.2026-01.org.example:boot
2          tcp [2001:db8::30]:4420  2,1  -          -     -                 unavailable               nqn.2026-01.org.example:boot

SECURITY  AUTHENTICATION  PROTOCOLS  HASHES  SECURE CHANNEL
1         required        1          2,3     not supported
`

const sampleJSON = `[
  {
    "filename": "@/NBFT",
    "host": {
      "nqn": "nqn.2014-08.org.nvmexpress:uuid:f2782346-4809-484a-9a8b-952a04b57ba4",
      "id": "462378f2-0948-4a48-9a8b-952a04b57ba4",
      "host_id_configured": false,
      "host_nqn_configured": true,
      "primary_admin_host_flag": "not indicated"
    },
    "subsystem": [
      {
        "index": 1,
        "hfi_indexes": [
          0
        ],
        "trtype": "tcp",
        "traddr": "192.0.2.30",
        "trsvcid": "4420",
        "subsys_port_id": 0,
        "nsid": 1,
        "nid_type": "eui64",
        "nid": "0011223344556677",
        "subsys_nqn": "nqn.2026-01.org.example:boot",
        "controller_id": 0,
        "asqsz": 0,
        "pdu_header_digest_required": true,
        "data_digest_required": false,
        "discovery_index": 0,
        "discovered": true
      },
      {
        "index": 2,
        "hfi_indexes": [
          1,
          0
        ],
        "trtype": "tcp",
        "traddr": "2001:db8::30",
        "trsvcid": "4420",
        "subsys_port_id": 0,
        "nsid": 0,
        "subsys_nqn": "nqn.2026-01.org.example:boot",
        "controller_id": 0,
        "asqsz": 0,
        "pdu_header_digest_required": false,
        "data_digest_required": false,
        "availability": "unavailable"
      }
    ],
    "hfi": [
      {
        "index": 1,
        "trtype": "tcp",
        "pcidev": "0:40:0.0",
        "mac_addr": "02:00:00:00:00:01",
        "vlan": 100,
        "ip_origin": 3,
        "ipaddr": "192.0.2.10",
        "subnet_mask_prefix": 24,
        "gateway_ipaddr": "192.0.2.1",
        "route_metric": 0,
        "primary_dns_ipaddr": "192.0.2.2",
        "secondary_dns_ipaddr": "192.0.2.3",
        "dhcp_server_ipaddr": "192.0.2.4",
        "this_hfi_is_default_route": true,
        "dhcp_override": true
      },
      {
        "index": 2,
        "trtype": "tcp",
        "pcidev": "0:40:0.1",
        "mac_addr": "02:00:00:00:00:02",
        "vlan": 0,
        "ip_origin": 0,
        "ipaddr": "::",
        "subnet_mask_prefix": 0,
        "gateway_ipaddr": "::",
        "route_metric": 0,
        "primary_dns_ipaddr": "::",
        "secondary_dns_ipaddr": "::",
        "dhcp_server_ipaddr": "",
        "this_hfi_is_default_route": false,
        "dhcp_override": false
      }
    ],
    "discovery": [
      {
        "index": 1,
        "security_index": 0,
        "hfi_index": 0,
        "uri": "nvme+tcp://192.0.2.20:8009/",
        "nqn": "nqn.2014-08.org.nvmexpress.discovery"
      }
    ],
    "security": [
      {
        "index": 1,
        "in_band_auth": "required",
        "auth_policy": "administrator",
        "secure_channel": "not supported",
        "secure_channel_policy": "none",
        "cipher_suites_restricted": false,
        "dh_groups_restricted": false,
        "hash_functions_restricted": true,
        "auth_protocols": [
          1
        ],
        "hash_functions": [
          2,
          3
        ],
        "redfish_key": false
      }
    ]
  }
]
`

func TestNBFTShow(t *testing.T) {
	good := sampleTable(t)
	empty, err := (&nbft.Table{Header: nbft.Header{Major: 1}, Host: nbft.Host{NQN: nqn, Primary: nbft.PrimarySelected}}).AppendBinary(nil)
	if err != nil {
		t.Fatal(err)
	}
	damaged := bytes.Clone(good)
	hfis := 128 + 32
	damaged[hfis] = 9   // HFI 1 is another structure
	damaged[9] -= 9 - 3 // the checksum
	const emptyText = ": NBFT 1.0 by nobody\n\nHost NQN:     " + nqn + " (default of the firmware)\nAs identity:  selected\n\n" +
		"The table names no interfaces and no controllers.\n"

	for _, tc := range []struct {
		name   string
		files  map[string][]byte
		args   string // "@" is the directory of the files
		code   int
		out    string // all that is printed, or with "…" at its end the beginning
		stderr string // a part, or nothing
	}{
		{name: "table", files: map[string][]byte{"NBFT": good}, args: "nbft show -o table", out: sampleText},
		{name: "JSON", files: map[string][]byte{"NBFT": good}, args: "nbft show -o json", out: sampleJSON},
		{name: "not a terminal", files: map[string][]byte{"NBFT": good}, args: "nbft show", out: sampleJSON},
		{name: "a file", files: map[string][]byte{"NBFT": empty, "x": good}, args: "nbft show --output=table @/x", out: "@/x: NBFT 1.0 by STAS…"},
		{
			name: "several", files: map[string][]byte{"NBFT": empty, "NBFT1": empty, "other": good}, args: "nbft show -o table",
			out: "@/NBFT" + emptyText + "\n@/NBFT1" + emptyText,
		},
		{name: "none", args: "nbft show -o json", out: "[]\n", stderr: "stasadm: this host has no NBFT (no @/NBFT*)"},
		{name: "none, table", args: "nbft show -o table", stderr: "this host has no NBFT"},
		{
			name: "damaged", files: map[string][]byte{"NBFT": damaged}, args: "nbft show -o table",
			out: "@/NBFT: NBFT 1.0…", stderr: "stasadm: @/NBFT: HFI 1: structure ID: is 9, want 3; HFI 1 is ignored\nstasadm: @/NBFT: discovery 1: HFI index",
		},
		{
			name: "damaged, JSON", files: map[string][]byte{"NBFT": damaged}, args: "nbft show -o json",
			out: "[\n  {\n    \"filename\": \"@/NBFT\"…", stderr: "HFI 1 is ignored",
		},
		{
			name: "one is none", files: map[string][]byte{"NBFT": []byte("x"), "NBFT1": empty}, args: "nbft show -o table",
			code: exitFailed, out: "@/NBFT1" + emptyText, stderr: "stasadm: @/NBFT: not a usable NBFT: it has 1 bytes",
		},
		{
			name: "two are none", files: map[string][]byte{"a": []byte("x")}, args: "nbft show -o json @/a @/b",
			code: exitFailed, out: "[]\n", stderr: "stasadm: @/a: not a usable NBFT: it has 1 bytes, and should have 128 at least\nstasadm: open @/b: no such file",
		},
		{name: "directory", args: "nbft show @", code: exitFailed, out: "[]\n", stderr: "stasadm: read @: is a directory"},
		{name: "endless", args: "nbft show /dev/zero", code: exitFailed, out: "[]\n", stderr: "stasadm: /dev/zero: larger than any boot table"},
		{name: "output", args: "nbft show -o xml", code: exitUsage, stderr: `there is no output "xml", only table and json`},
		{name: "no command", args: "nbft", code: exitFailed, out: "Look at the NVMe Boot Firmware Tables…"},
		{name: "unknown command", args: "nbft list", code: exitUsage, stderr: "unknown command"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			dir := t.TempDir()
			for name, b := range tc.files {
				if err := os.WriteFile(filepath.Join(dir, name), b, 0o400); err != nil {
					t.Fatal(err)
				}
			}
			var stdout, stderr strings.Builder
			args := strings.Fields(strings.ReplaceAll(tc.args, "@", dir))
			if code := run(args, &stdout, &stderr, hostid.Sources{}, filepath.Join(dir, "NBFT*")); code != tc.code {
				t.Errorf("exit code %d, want %d", code, tc.code)
			}
			want, isBeginning := strings.CutSuffix(tc.out, "…")
			got := strings.ReplaceAll(stdout.String(), dir, "@")
			if isBeginning {
				got = got[:min(len(got), len(want))]
			}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("printed:\n%s", diff)
			}
			if got := strings.ReplaceAll(stderr.String(), dir, "@"); !strings.Contains(got, tc.stderr) || tc.stderr == "" && got != "" {
				t.Errorf("on stderr %q, want %q", got, tc.stderr)
			}
		})
	}
}

// A full disk is a failure.
func TestNBFTShowWrite(t *testing.T) {
	var stderr strings.Builder
	code := run([]string{"nbft", "show", "-o", "json"}, full{}, &stderr, hostid.Sources{}, filepath.Join(t.TempDir(), "NBFT*"))
	if code != exitFailed || !strings.Contains(stderr.String(), "disk full") {
		t.Errorf("%d, %q", code, &stderr)
	}
}

type full struct{}

func (full) Write([]byte) (int, error) { return 0, errors.New("disk full") }
