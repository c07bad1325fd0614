package lab

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/nvme-stas/stas/internal/version"
	"github.com/nvme-stas/stas/pkg/initiator"
	"github.com/nvme-stas/stas/pkg/nvme"
	"github.com/nvme-stas/stas/pkg/target"
)

// stasLab runs stas-lab with words, in which "_" stands for a blank.
func stasLab(t *testing.T, stdin string, words ...string) (code int, stdout, stderr string) {
	t.Helper()
	var out, err bytes.Buffer
	code = (&tool{stdin: strings.NewReader(stdin), stdout: &out, stderr: &err}).main(words)
	return code, out.String(), err.String()
}

// open runs a lab that takes commands at the path that is returned.
func open(t *testing.T, config string) (*Lab, string) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "lab.sock")
	return Test(t, "control: "+path+"\n"+config), path
}

var (
	movingPort = regexp.MustCompile(`127\.0\.0\.1:\d+`)
	movingGen  = regexp.MustCompile(`"genctr": \d+`)
	movingTime = regexp.MustCompile(`\d\d:\d\d:\d\d|\d{4}-\d\d-\d\dT[^"]+`)
)

func still(s string) string {
	s = movingGen.ReplaceAllString(s, `"genctr": GENCTR`)
	return movingTime.ReplaceAllString(movingPort.ReplaceAllString(s, "127.0.0.1:PORT"), "TIME")
}

const testConfig = `
listeners:
- name: left
  address: 127.0.0.1:0
  discovery: {type: cdc, scope: target}
- name: right
  address: 127.0.0.1:0
  discovery: {type: none}
subsystems:
- nqn: nqn.2026-01.org.example:a
`

// TestCtl drives a lab from the first to the last command, and shows what has
// come of it.
func TestCtl(t *testing.T) {
	_, socket := open(t, testConfig)
	dir := t.TempDir()
	key := regexp.MustCompile(`DHHC-1:[^"]+`).FindString(Example)
	if err := os.WriteFile(filepath.Join(dir, "key"), []byte(key+"\nand more\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		args   string // "@" is the directory, "_" a blank
		stdin  string
		code   int
		stdout string // without the first line break
		stderr string
	}{
		{args: "show listeners", stdout: `
LISTENER  ADDRESS          STATE  DISCOVERY  NQN
left      127.0.0.1:PORT  open   cdc        nqn.2014-08.org.nvmexpress.discovery
right     127.0.0.1:PORT  open   none       -
`},
		{args: "show subsystems", stdout: `
NQN                        LISTENERS   HOSTS  NAMESPACES
nqn.2026-01.org.example:a  left,right  any    1:64MiB
`},
		{args: "show hosts", stdout: "\nThere are no hosts.\n"},
		{args: "show connections", stdout: "\nThere are no connections.\n"},
		{args: "show zones", stdout: "\nZoning is off: hosts are told of all subsystems.\n\nThere are no zones.\n"},
		{args: "show faults", stdout: "\nThere are no faults.\n"},
		{args: "show all", code: exitUsage, stderr: `stas-lab: there is no "all" to show; there are listeners, subsystems, hosts, connections, zones, faults
Try: stas-lab --help
`},

		{args: "subsystem add nqn.2026-01.org.example:b --namespaces 2 --size 1GiB --block-size 4096 --listener right --host nqn.2026-01.org.example:h1 --label storage_b --single-path --controllers 3 --queues 2"},
		{args: "subsystem add nqn.2026-01.org.example:b", code: exitFailed, stderr: "stas-lab: subsystem nqn.2026-01.org.example:b: it exists already\n"},
		{args: "subsystem add b", code: exitFailed, stderr: "stas-lab: the NQN \"b\" does not begin with \"nqn.\"\n"},
		{args: "subsystem add nqn.2026-01.org.example:c --size 1", code: exitFailed, stderr: "stas-lab: subsystem nqn.2026-01.org.example:c: namespace 1: 1 is no number of blocks of 512 bytes\n"},
		{args: "subsystem add nqn.2026-01.org.example:c --size 1MB", code: exitUsage, stderr: `stas-lab: invalid argument "1MB" for "--size" flag: "1MB" is no size; write 64MiB, 1GiB or a number of bytes
Try: stas-lab --help
`},
		{args: "subsystem add nqn.2026-01.org.example:c --listener middle", code: exitFailed,
			stderr: "stas-lab: subsystem nqn.2026-01.org.example:c: listener \"middle\": no such thing; what there is tells: stas-lab ctl show listeners\n"},
		{args: "subsystem allow nqn.2026-01.org.example:a nqn.2026-01.org.example:h1 nqn.2026-01.org.example:h2"},
		{args: "subsystem offer nqn.2026-01.org.example:a left"},
		{args: "subsystem ncc nqn.2026-01.org.example:a on"},
		{args: "subsystem ncc nqn.2026-01.org.example:a maybe", code: exitUsage, stderr: "stas-lab: \"maybe\" is neither on nor off\nTry: stas-lab --help\n"},
		{args: "namespace add nqn.2026-01.org.example:a --ana-group 2 --size 4096"},
		{args: "namespace add nqn.2026-01.org.example:a --id 7"},
		{args: "namespace remove nqn.2026-01.org.example:a 1"},
		{args: "namespace remove nqn.2026-01.org.example:a 1", code: exitFailed,
			stderr: "stas-lab: subsystem nqn.2026-01.org.example:a: namespace 1: no such thing; what there is tells: stas-lab ctl show subsystems\n"},
		{args: "ana nqn.2026-01.org.example:a inaccessible --group 2 --listener left"},
		{args: "ana nqn.2026-01.org.example:a gone", code: exitUsage,
			stderr: "stas-lab: \"gone\" is no ANA state; there are optimized, non-optimized, inaccessible, persistent-loss, change\nTry: stas-lab --help\n"},
		{args: "show subsystems", stdout: `
NQN                        LISTENERS  HOSTS                                                  NAMESPACES        NOT OPTIMIZED        NCC
nqn.2026-01.org.example:a  left       nqn.2026-01.org.example:h1,nqn.2026-01.org.example:h2  2:4KiB,7:64MiB    2@left:inaccessible  yes
nqn.2026-01.org.example:b  right      nqn.2026-01.org.example:h1                             1:1GiB,2:1GiB     -                    -
`},
		{args: "subsystem withdraw nqn.2026-01.org.example:a"},
		{args: "subsystem remove nqn.2026-01.org.example:b"},
		{args: "subsystem remove nqn.2026-01.org.example:b", code: exitFailed,
			stderr: "stas-lab: subsystem nqn.2026-01.org.example:b: no such thing; what there is tells: stas-lab ctl show subsystems\n"},
		{args: "subsystem allow nqn.2026-01.org.example:a"},
		{args: "show subsystems -o json", stdout: `
[
  {
    "nqn": "nqn.2026-01.org.example:a",
    "listeners": [],
    "hosts": [],
    "controllers": 0,
    "ncc": true,
    "namespaces": [
      {
        "id": 2,
        "size": "4KiB",
        "used": "0",
        "block-size": 512,
        "ana-group": 2,
        "ana": [],
        "uuid": "UUID"
      },
      {
        "id": 7,
        "size": "64MiB",
        "used": "0",
        "block-size": 512,
        "ana-group": 1,
        "ana": [],
        "uuid": "UUID"
      }
    ]
  }
]
`},

		{args: "zone set one --host nqn.2026-01.org.example:h1 --subsystem nqn.2026-01.org.example:a"},
		{args: "zone set two"},
		{args: "zone on"},
		{args: "zone registered on"},
		{args: "show zones", stdout: `
Zoning is on: hosts are told of what they share a zone with.
Hosts are told nothing before they have registered.

ZONE  HOSTS                       SUBSYSTEMS
one   nqn.2026-01.org.example:h1  nqn.2026-01.org.example:a
two   -                           -
`},
		{args: "zone registered off"},
		{args: "zone remove two"},
		{args: "zone remove two", code: exitFailed, stderr: "stas-lab: zone group \"two\": no such thing; what there is tells: stas-lab ctl show zones\n"},
		{args: "show zones -o json", stdout: `
{
  "enabled": true,
  "registered": false,
  "groups": [
    {
      "name": "one",
      "hosts": [
        "nqn.2026-01.org.example:h1"
      ],
      "subsystems": [
        "nqn.2026-01.org.example:a"
      ]
    }
  ]
}
`},
		{args: "zone off"},

		{args: "host set nqn.2026-01.org.example:h2 --key-file @/key --hash sha512 --group ffdhe3072"},
		{args: "host set nqn.2026-01.org.example:h3 --key-file - --ctrl-key-file @/key", stdin: key},
		{args: "host set nqn.2026-01.org.example:h4 --key-file -", stdin: "SECRET", code: exitFailed,
			stderr: "stas-lab: standard input: DH-HMAC-CHAP key: it does not begin with \"DHHC-1:\"; make a key with: nvme gen-dhchap-key\n"},
		{args: "host set nqn.2026-01.org.example:h4 --key-file - --ctrl-key-file -", code: exitUsage,
			stderr: "stas-lab: only one of the keys can come from standard input\nTry: stas-lab --help\n"},
		{args: "host set nqn.2026-01.org.example:h4 --key-file @/none", code: exitFailed, stderr: "stas-lab: open @/none: no such file or directory; make a key with: nvme gen-dhchap-key\n"},
		{args: "host set nqn.2026-01.org.example:h4 --hash md5", code: exitUsage,
			stderr: "stas-lab: invalid argument \"md5\" for \"--hash\" flag: \"md5\" is no DH-HMAC-CHAP hash function\nTry: stas-lab --help\n"},
		{args: "show hosts", stdout: `
HOST                        ZONES  KEY
nqn.2026-01.org.example:h1  one    -
nqn.2026-01.org.example:h2  -      yes
nqn.2026-01.org.example:h3  -      yes
`},
		{args: "host remove nqn.2026-01.org.example:h3"},
		{args: "host remove nqn.2026-01.org.example:h3", code: exitFailed,
			stderr: "stas-lab: host nqn.2026-01.org.example:h3: no such thing; what there is tells: stas-lab ctl show hosts\n"},
		{args: "show hosts -o json", stdout: `
[
  {
    "nqn": "nqn.2026-01.org.example:h1",
    "connections": 0,
    "authenticates": false,
    "zones": [
      "one"
    ]
  },
  {
    "nqn": "nqn.2026-01.org.example:h2",
    "connections": 0,
    "authenticates": true,
    "zones": []
  }
]
`},

		{args: "fault add status listener=left subsystem=nqn.2026-01.org.example:a host=nqn.2026-01.org.example:h1 command=get-log-page queue=admin lid=0x70 from=1024 skip=1 times=2 status=connect-invalid-host+dnr",
			stdout: "\nFault 1 is on; end it by: stas-lab ctl fault remove 1\n"},
		{args: "fault add patch offset=3 bytes=ff_ee -o json", stdout: "\n{\n  \"id\": 2\n}\n"},
		{args: "fault add restart delay=1h every=1m30s pause=250ms value=0xffffffffffffffff", stdout: "\nFault 3 is on; end it by: stas-lab ctl fault remove 3\n"},
		{args: "fault add delay", code: exitFailed, stderr: "stas-lab: fault delay: for how long? delay is missing\n"},
		{args: "fault add delay delay", code: exitUsage, stderr: "stas-lab: \"delay\" is not KEY=VALUE\nTry: stas-lab --help\n"},
		{args: "fault add delay delay=soon", code: exitUsage, stderr: "stas-lab: delay: \"soon\" is no time span; write 90s, 1m30s or 250ms\nTry: stas-lab --help\n"},
		{args: "fault add delay times=-1", code: exitUsage, stderr: "stas-lab: times: \"-1\" is no number\nTry: stas-lab --help\n"},
		{args: "fault add status lid=256", code: exitUsage, stderr: "stas-lab: lid: \"256\" is no number of 8 bits\nTry: stas-lab --help\n"},
		{args: "fault add mute count=1", code: exitUsage, stderr: `stas-lab: there is no key "count"; there are listener, subsystem, host, command, queue, lid, from, skip, times, delay, every, pause, status, offset, bytes, value
Try: stas-lab --help
`},
		{args: "fault add mute listener=middle", code: exitFailed, stderr: "stas-lab: fault mute: listener \"middle\": no such thing; what there is tells: stas-lab ctl show listeners\n"},
		{args: "show faults", stdout: `
ID  FAULT    WITH
1   status   listener=left subsystem=nqn.2026-01.org.example:a host=nqn.2026-01.org.example:h1 command=get-log-page queue=admin lid=0x70 from=0x400 skip=1 times=2 status=connect-invalid-host+dnr
2   patch    offset=3 bytes=ffee
3   restart  delay=1h0m0s every=1m30s pause=250ms value=0xffffffffffffffff
`},
		{args: "fault remove 3 2"},
		{args: "fault remove 2", code: exitFailed, stderr: "stas-lab: fault 2: no such thing; what there is tells: stas-lab ctl show faults\n"},
		{args: "fault remove some", code: exitUsage, stderr: "stas-lab: \"some\" is neither the number of a fault nor all\nTry: stas-lab --help\n"},
		{args: "show faults -o json", stdout: `
[
  {
    "id": 1,
    "do": "status",
    "listener": "left",
    "subsystem": "nqn.2026-01.org.example:a",
    "host": "nqn.2026-01.org.example:h1",
    "command": "get-log-page",
    "queue": "admin",
    "lid": 112,
    "from": 1024,
    "skip": 1,
    "times": 2,
    "status": "connect-invalid-host+dnr",
    "met": 0,
    "done": 0
  }
]
`},
		{args: "fault remove all"},
		{args: "show faults -o json", stdout: "\n[]\n"},

		{args: "aen", stdout: "\nControllers whose hosts were told: 0\n"},
		{args: "aen --event 0x40002 --listener left --host nqn.2026-01.org.example:h1 -o json", stdout: "\n{\n  \"told\": 0\n}\n"},
		{args: "aen --event soon", code: exitUsage, stderr: "stas-lab: \"soon\" is not an asynchronous event\nTry: stas-lab --help\n"},

		{args: "listener add 127.0.0.1:0 --name third --type untyped --nqn nqn.2026-01.org.example:d"},
		{args: "listener add 127.0.0.1:0 --name third", code: exitFailed, stderr: "stas-lab: listener third: it exists already\n"},
		{args: "listener add 127.0.0.1:0 --announce x", code: exitFailed, stderr: "stas-lab: a listener that is announced needs a name of its own; give it one with --name\n"},
		{args: "listener add 127.0.0.1:0 --name fourth --announce x --interface eth99", code: exitFailed, stderr: "INTERFACE"},
		{args: "listener remove right"},
		{args: "restart left --pause 1h"},
		{args: "restart middle", code: exitFailed, stderr: "stas-lab: listener \"middle\": no such thing; what there is tells: stas-lab ctl show listeners\n"},
		{args: "show listeners -o json", stdout: `
[
  {
    "name": "left",
    "address": "127.0.0.1:PORT",
    "port-id": 1,
    "state": "restarting",
    "discovery": "cdc",
    "nqn": "nqn.2014-08.org.nvmexpress.discovery",
    "connections": 0
  },
  {
    "name": "third",
    "address": "127.0.0.1:PORT",
    "port-id": 3,
    "state": "open",
    "discovery": "untyped",
    "nqn": "nqn.2026-01.org.example:d",
    "connections": 0
  }
]
`},
	} {
		words := strings.Fields("ctl -o table --control " + socket + " " + c.args)
		for i, w := range words {
			words[i] = strings.NewReplacer("_", " ", "@", dir).Replace(w)
		}
		code, stdout, stderr := stasLab(t, c.stdin, words...)
		stdout = regexp.MustCompile(`"uuid": "[0-9a-f-]{36}"`).ReplaceAllString(stdout, `"uuid": "UUID"`)
		stderr = strings.ReplaceAll(stderr, dir, "@")
		if code != c.code {
			t.Errorf("%s: exit code %d, want %d", c.args, code, c.code)
		}
		if diff := cmp.Diff(columns(strings.TrimPrefix(c.stdout, "\n")), columns(still(stdout))); diff != "" {
			t.Errorf("%s (-want +got):\n%s", c.args, diff)
		}
		if c.stderr == "INTERFACE" {
			if !strings.HasPrefix(stderr, `stas-lab: announce: there is no interface "eth99"; there are `) {
				t.Errorf("%s: %s", c.args, stderr)
			}
		} else if diff := cmp.Diff(c.stderr, stderr); diff != "" {
			t.Errorf("%s (-want +got):\n%s", c.args, diff)
		}
		if strings.Contains(stdout+stderr, "SECRET") || strings.Contains(stdout+stderr, key) {
			t.Errorf("%s tells a key", c.args)
		}
	}
}

// columns makes the width of columns one of two blanks: ports have four digits
// or five.
func columns(s string) string {
	return regexp.MustCompile(`(\S)  +`).ReplaceAllString(s, "$1  ")
}

// TestConnections: a host that has connected and registered is shown.
func TestConnections(t *testing.T) {
	lab, socket := open(t, testConfig)
	host := initiator.Options{
		Address: lab.Listeners()[0].Address, HostNQN: "nqn.2026-01.org.example:h1", HostID: nvme.HostID{1},
		KATO: 30 * time.Second,
	}
	c, err := initiator.Dial(t.Context(), host)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if _, err := c.AsyncEvents(t.Context(), 0); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct{ args, want string }{
		{"show connections", `
CNTLID  LISTENER  HOST                             FROM             KATO  AERS  ENTRIES  SINCE  SUBSYSTEM
1  left  nqn.2026-01.org.example:h1  127.0.0.1:PORT  30s  1  3  TIME  nqn.2014-08.org.nvmexpress.discovery
`},
		{"show connections -o json", `
[
  {
    "cntlid": 1,
    "host": "nqn.2026-01.org.example:h1",
    "hostid": "01000000-0000-0000-0000-000000000000",
    "from": "127.0.0.1:PORT",
    "listener": "left",
    "subsystem": "nqn.2014-08.org.nvmexpress.discovery",
    "discovery": true,
    "kato": "30s",
    "queues": 0,
    "ready": true,
    "aers": 1,
    "since": "TIME",
    "last-heard": "TIME",
    "genctr": GENCTR,
    "entries": 3
  }
]
`},
		{"show hosts", `
HOST  CONNECTIONS
nqn.2026-01.org.example:h1  1
`},
		{"aen", "\nControllers whose hosts were told: 1\n"},
	} {
		// The request that was answered is followed by the next one.
		deadline := time.Now().Add(10 * time.Second)
		for {
			_, stdout, stderr := stasLab(t, "", strings.Fields("ctl -o table --control "+socket+" "+tt.args)...)
			diff := cmp.Diff(columns(tt.want[1:]), columns(still(stdout)))
			if diff == "" && stderr == "" {
				break
			}
			if time.Now().After(deadline) {
				t.Fatalf("%s (-want +got):\n%s%s", tt.args, diff, stderr)
			}
			time.Sleep(time.Millisecond)
		}
	}
}

func TestRegistered(t *testing.T) {
	lab, socket := open(t, testConfig)
	host := initiator.Options{Address: lab.Listeners()[0].Address, HostNQN: "nqn.2026-01.org.example:h1", HostID: nvme.HostID{1}}
	c, err := initiator.Dial(t.Context(), host)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	err = c.ManageDiscovery(t.Context(), nvme.DiscoveryInformation{
		Format: nvme.EntryExtended, EntityType: nvme.EntityHost, KeyType: nvme.KeyAddress,
		EID: host.HostNQN, Name: "box", Version: "Linux", Entries: []nvme.ExtendedEntry{{
			Entry:      nvme.DiscoveryLogEntry{TrType: nvme.TCP, AdrFam: nvme.FamilyIPv4, SubNQN: host.HostNQN},
			Attributes: []nvme.Attribute{nvme.HostIDAttribute(host.HostID), nvme.SymbolicName("rack 7")},
		}},
	})
	if err != nil {
		t.Fatal(err)
	}
	want := `
HOST                        CONNECTIONS  REGISTERED  AT    NAME      SOFTWARE  ADDRESS
nqn.2026-01.org.example:h1  1            TIME        left  rack 7  Linux     127.0.0.1
`
	_, stdout, stderr := stasLab(t, "", "ctl", "-o", "table", "--control", socket, "show", "hosts")
	if diff := cmp.Diff(columns(want[1:]), columns(still(stdout))); diff != "" || stderr != "" {
		t.Errorf("(-want +got):\n%s%s", diff, stderr)
	}
}

func TestUsage(t *testing.T) {
	dir := t.TempDir()
	good, bad := filepath.Join(dir, "good.yaml"), filepath.Join(dir, "bad.yaml")
	for name, text := range map[string]string{good: Example, bad: "listener: 1\n"} {
		if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	none := filepath.Join(dir, "none.sock")
	for _, c := range []struct {
		args           string
		code           int
		stdout, stderr string // parts
	}{
		{"--version", exitOK, version.Product + " " + version.Version + "\n", ""},
		{"-v", exitOK, version.Product, ""},
		{"--help", exitOK, "Usage:", ""},
		{"ctl fault add --help", exitOK, "lid=N             only of Get Log Page for this log page", ""},
		{"", exitFailed, "Usage:", ""},
		{"ctl", exitFailed, "Usage:", ""},
		{"ctl zone", exitFailed, "Usage:", ""},
		{"srve", exitUsage, "", `unknown command "srve" for "stas-lab"`},
		{"ctl zone list", exitUsage, "", `unknown command "list" for "stas-lab ctl zone"`},
		{"ctl stop now", exitUsage, "", "stas-lab --help"},
		{"ctl show listeners -o xml", exitUsage, "", "only table and json"},
		{"example", exitOK, Example, ""},
		{"check " + good, exitOK, "good.yaml is valid: listeners 3, subsystems 2, hosts 2, zone groups 1, faults 0\n", ""},
		{"check " + bad, exitFailed, "", `bad.yaml:1: there is no key "listener" in the configuration; allowed are`},
		{"check " + filepath.Join(dir, "none"), exitFailed, "", "cannot read the configuration"},
		{"check", exitUsage, "", "arg"},
		{"serve " + bad, exitFailed, "", "bad.yaml:1: "},
		{"serve --type cdc " + good, exitUsage, "", "--type and a file exclude each other"},
		{"serve --type dc --control " + none, exitFailed, "", `the type is "dc", allowed are`},
		{"serve --log-level loud", exitUsage, "", "unknown name"},
		{"serve --listen 127.0.0.1 --control " + none, exitFailed, "", "is not ADDRESS:PORT"},
		{"ctl show listeners --control " + none, exitFailed, "", "no lab runs at " + none + "; start one: stas-lab serve"},
		{"faults -o table", exitOK, "FAULT ", ""},
		{"faults -o json", exitOK, `"name": "black-hole",`, ""},
	} {
		code, out, stderr := stasLab(t, "", strings.Fields(c.args)...)
		if code != c.code || !strings.Contains(out, c.stdout) || !strings.Contains(stderr, c.stderr) ||
			(c.stdout == "") != (out == "") || (c.stderr == "") != (stderr == "") {
			t.Errorf("stas-lab %s: exit code %d, %q, %q", c.args, code, out, stderr)
		}
	}
}

// TestFaultsOutput: all kinds are listed, in both formats.
func TestFaultsOutput(t *testing.T) {
	_, table, _ := stasLab(t, "", "faults", "-o", "table")
	_, text, _ := stasLab(t, "", "faults", "-o", "json")
	var list []map[string]string
	if err := json.Unmarshal([]byte(text), &list); err != nil || len(list) != len(target.Kinds()) {
		t.Fatal(len(list), err)
	}
	for i, k := range target.Kinds() {
		if want := map[string]string{"name": k.Name, "at": k.At, "takes": k.Takes, "about": k.About}; !reflect.DeepEqual(list[i], want) {
			t.Errorf("got %v, want %v", list[i], want)
		}
		if !regexp.MustCompile(`(?m)^` + k.Name + " +" + k.At + " .*" + regexp.QuoteMeta(k.About) + "$").MatchString(table) {
			t.Errorf("the table lacks %s", k.Name)
		}
	}
}

// TestFaultKeys: every value of a fault can be set and is shown, and nothing
// else.
func TestFaultKeys(t *testing.T) {
	var want, got []string
	for _, f := range fieldsOf(reflect.TypeFor[target.Fault]()) {
		if f.key != "do" {
			want = append(want, f.key)
		}
	}
	for _, k := range faultKeys {
		got = append(got, k.name)
	}
	if !slices.Equal(want, got) {
		t.Errorf("got %v, want %v", got, want)
	}
}

// lines collects what is printed and tells of it.
type lines struct{ more chan string }

func (l lines) Write(p []byte) (int, error) {
	l.more <- string(p)
	return len(p), nil
}

// TestServe runs a lab as the command does, until "ctl stop".
func TestServe(t *testing.T) {
	restore := slog.Default()
	t.Cleanup(func() { slog.SetDefault(restore) })
	socket := filepath.Join(t.TempDir(), "lab.sock")
	out := lines{make(chan string, 100)}
	done := make(chan int)
	go func() {
		var stderr bytes.Buffer
		tool := tool{stdout: out, stderr: &stderr}
		done <- tool.main([]string{"serve", "--listen", "127.0.0.1:0", "--listen", "127.0.0.1:0", "--subsystems", "3", "--size", "1MiB",
			"--type", "cdc", "--nqn", "nqn.2026-01.org.example:cdc", "--control", socket, "--log-level", "error"})
	}()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	var text string
	for !strings.HasSuffix(text, "\nstas-lab is ready\n") {
		select {
		case s := <-out.more:
			text += s
		case code := <-done:
			t.Fatalf("exit code %d, %s", code, text)
		case <-ctx.Done():
			t.Fatal("not ready: ", text)
		}
	}
	want := version.Product + " " + version.Version + `

LISTENER  ADDRESS  STATE  DISCOVERY  NQN
port1  127.0.0.1:PORT  open  cdc  nqn.2026-01.org.example:cdc
port2  127.0.0.1:PORT  open  cdc  nqn.2026-01.org.example:cdc

Subsystems: 3

On a host:
  nvme discover -t tcp -a 127.0.0.1 -s PORT -n nqn.2026-01.org.example:cdc
  nvme connect-all -t tcp -a 127.0.0.1 -s PORT -n nqn.2026-01.org.example:cdc

Here:
  stas-lab ctl --control SOCKET show connections
  stas-lab ctl --control SOCKET fault add reset times=1
  stas-lab ctl --control SOCKET --help

Ctrl-C or "stas-lab ctl --control SOCKET stop" ends it.
stas-lab is ready
`
	text = regexp.MustCompile(`-s \d+`).ReplaceAllString(strings.ReplaceAll(text, socket, "SOCKET"), "-s PORT")
	if diff := cmp.Diff(want, columns(still(text))); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if code, _, stderr := stasLab(t, "", "serve", "--control", socket); code != exitFailed ||
		!strings.Contains(stderr, "a lab runs already at "+socket+"; end it by: stas-lab ctl stop") {
		t.Errorf("a second lab: %d %s", code, stderr)
	}
	if code, _, stderr := stasLab(t, "", "ctl", "--control", socket, "stop"); code != exitOK || stderr != "" {
		t.Errorf("stop: %d %s", code, stderr)
	}
	select {
	case code := <-done:
		if code != exitOK {
			t.Errorf("exit code %d", code)
		}
	case <-ctx.Done():
		t.Fatal("it does not end")
	}
	if _, err := os.Stat(socket); err == nil {
		t.Error("the socket is left behind")
	}
}

// TestCompletion: kinds, keys and what there is are offered.
func TestCompletion(t *testing.T) {
	_, socket := open(t, testConfig+`
hosts: [{nqn: nqn.2026-01.org.example:h1}]
zoning: {groups: [{name: one}]}
faults: [{do: restart, delay: 1h}]
`)
	for _, c := range []struct{ args, want string }{
		{"show ", "listeners"}, {"fault add ", "black-hole\tSYNs are dropped"}, {"fault add mute ", "listener="}, {"fault remove ", "1\nall\n"},
		{"listener remove ", "left\nright\n"}, {"subsystem remove ", "nqn.2026-01.org.example:a"}, {"subsystem offer nqn.2026-01.org.example:a ", "left"},
		{"ana nqn.2026-01.org.example:a ", "inaccessible"}, {"ana --listener ", "left"}, {"zone remove ", "one"}, {"host remove ", "nqn.2026-01.org.example:h1"},
	} {
		words := strings.Split("__complete ctl --control "+socket+" "+c.args, " ")
		code, stdout, _ := stasLab(t, "", words...)
		if code != exitOK || !strings.Contains(stdout, c.want) {
			t.Errorf("%q: %d %q, want %q", c.args, code, stdout, c.want)
		}
	}
}

// TestControlSocket: whose it is, and what becomes of an old one.
func TestControlSocket(t *testing.T) {
	lab, socket := open(t, testConfig)
	info, err := os.Stat(socket)
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("%v %v", info.Mode(), err)
	}
	if _, err := Start(&Config{Control: socket}, silence); err == nil || !strings.Contains(err.Error(), "a lab runs already") {
		t.Errorf("a second lab: %v", err)
	}
	lab.Close()
	if _, err := os.Stat(socket); err == nil {
		t.Error("the socket is left behind")
	}

	// One that died leaves its socket.
	dead, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	dead.(*net.UnixListener).SetUnlinkOnClose(false)
	dead.Close()
	next, err := Start(&Config{Control: socket}, silence)
	if err != nil {
		t.Fatal(err)
	}
	next.Close()

	if err := os.WriteFile(socket, []byte("mine"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Start(&Config{Control: socket}, silence); err == nil || !strings.Contains(err.Error(), "is something else already") {
		t.Errorf("over a file: %v", err)
	}
	if text, _ := os.ReadFile(socket); string(text) != "mine" {
		t.Error("a file was removed")
	}
}

// TestControlMess: who does not speak as expected gets an error and harms
// nobody.
func TestControlMess(t *testing.T) {
	_, socket := open(t, testConfig)
	for _, c := range []struct{ call, want string }{
		{"nonsense\n", `{"error":"this is no call: invalid character 'o' in literal null (expecting 'u')"}`},
		{`{"do":"dance"}`, `{"error":"there is no call \"dance\""}`},
		{`{"do":"set-ncc","with":{"nqm":"a"}}`, `{"error":"with: json: unknown field \"nqm\""}`},
		{`{"do":"remove-fault","with":"1"}`, `{"error":"with: json: cannot unmarshal string into Go value of type int"}`},
		{`{"do":"` + strings.Repeat("a", maxCall) + `"}`, `{"error":"this is no call: unexpected EOF"}`},
		{`{"do":"faults"}`, `{"result":[]}`},
		{`{"do":"clear-faults"}`, `{}`},
	} {
		conn, err := net.Dial("unix", socket)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := fmt.Fprint(conn, c.call); err != nil {
			t.Fatal(err)
		}
		conn.SetDeadline(time.Now().Add(10 * time.Second))
		got := make([]byte, 4096)
		n, err := conn.Read(got)
		if string(got[:n]) != c.want+"\n" {
			t.Errorf("%.50q: %q %v", c.call, got[:n], err)
		}
		conn.Close()
	}
}

func TestDefaultControl(t *testing.T) {
	t.Setenv("XDG_RUNTIME_DIR", "/run/user/1")
	want := "/run/user/1/stas-lab.sock"
	if os.Geteuid() == 0 {
		want = "/run/stas-lab.sock"
	}
	if got, err := DefaultControl(); got != want || err != nil {
		t.Errorf("%s %v, want %s", got, err, want)
	}
}
