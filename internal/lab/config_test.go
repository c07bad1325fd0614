package lab

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/nvme-stas/stas/pkg/target"
)

// TestExample: the example is a valid file, also with everything in it that is
// switched off, and shows every key.
func TestExample(t *testing.T) {
	if _, err := Parse("example.yaml", []byte(Example)); err != nil {
		t.Error(err)
	}
	on := regexp.MustCompile(`(?m)#(\S)`).ReplaceAllString(Example, "$1")
	dir := t.TempDir()
	key := regexp.MustCompile(`DHHC-1:[^"]+`).FindString(Example)
	for _, name := range []string{"host3.key", "ctrl.key"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(key+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	cfg, err := Parse(filepath.Join(dir, "example.yaml"), []byte(on))
	if err != nil {
		t.Fatal(err)
	}
	if len(cfg.Hosts) != 3 || cfg.Hosts[2].Key.Reveal() != key || len(cfg.Faults) != 5 {
		t.Errorf("%d hosts, %d faults", len(cfg.Hosts), len(cfg.Faults))
	}
	d := decode("example.yaml", []byte(on), new(Config))
	seen := make(map[string]bool)
	for place := range d.lines {
		seen[regexp.MustCompile(`\[\d+\]`).ReplaceAllString(place, "[]")] = true
	}
	for _, key := range Keys() {
		if !seen[key] {
			t.Errorf("the example does not show %s", key)
		}
	}
	if len(Keys()) < 60 {
		t.Errorf("only %d keys are known: %v", len(Keys()), Keys())
	}
}

func TestDecode(t *testing.T) {
	cfg, err := Parse("lab.yaml", []byte(`
log-level: debug
listeners: [{address: "127.0.0.1:0", announce: {name: a}}]
subsystems:
- nqn: nqn.2026-01.org.example:a
  namespaces: [{size: 1GiB}, {size: 4096, block-size: 4096}]
  ana: [{state: inaccessible}]
faults:
- {do: status, status: 0x4184, lid: 0x70, delay: 5, every: 1m30s, value: 0xffffffffffffffff, bytes: 0012}
- {do: patch, bytes: 1e10, delay: 0.5}
- {do: status, status: connect-invalid-host+dnr, bytes: "de ad"}
`))
	if err != nil {
		t.Fatal(err)
	}
	f, s := cfg.Faults, cfg.Subsystems[0]
	if cfg.LogLevel != -4 || cfg.Listeners[0].Announce.Name != "a" ||
		s.Namespaces[0].Size != 1<<30 || s.Namespaces[1].Size != 4096 || s.ANA[0].State != 3 ||
		f[0].Status != 0x4184 || *f[0].LID != 0x70 || f[0].Delay != target.Duration(5e9) || f[0].Every != target.Duration(90e9) ||
		f[0].Value != 1<<64-1 || string(f[0].Bytes) != "\x00\x12" || string(f[1].Bytes) != "\x1e\x10" ||
		f[1].Delay != target.Duration(5e8) || f[2].Status != 0x4184 || string(f[2].Bytes) != "\xde\xad" {
		t.Errorf("got %+v", cfg)
	}
}

// TestMistakes: whatever is wrong is told with its line and with what is
// allowed, and a key is not told.
func TestMistakes(t *testing.T) {
	const listener = "listeners: [{name: a, address: 127.0.0.1:0}]\n"
	for _, c := range []struct{ name, text, want string }{
		{"misspelt key", "listeners:\n- name: a\n  addr: 127.0.0.1:8009\n",
			`lab.yaml:3: there is no key "addr" in listeners[0]; allowed are name, address, port-id, advertise, max-h2c-data, in-capsule, discovery, announce`},
		{"misspelt key at the top", "listener:\n- name: a\n",
			`lab.yaml:1: there is no key "listener" in the configuration; allowed are control, log-level, listeners, subsystems, hosts, zoning, faults`},
		{"several", "control: [a]\nlog-level: loud\nsubsystems:\n  nqn: a\nzoning:\n- enabled\nhosts:\n- nqn.a\n",
			`lab.yaml:1: control is to be a text
lab.yaml:2: log-level: slog: level string "loud": unknown name; allowed are debug, info, warn, error
lab.yaml:4: subsystems is to be a list, each element behind a "-"
lab.yaml:6: zoning is to have keys with values; allowed are enabled, registered, groups
lab.yaml:8: hosts[0] is to have keys with values; allowed are nqn, dhchap-key, dhchap-ctrl-key, dhchap-hash, dhchap-group, dhchap-key-file, dhchap-ctrl-key-file`},
		{"values", `
listeners: [{address: "127.0.0.1:0", port-id: 65536, discovery: {no-self: 1}}]
subsystems:
- nqn: nqn.2026-01.org.example:a
  controllers: many
  namespaces: [{size: 64MB}]
  ana: [{state: offline}]
faults:
- delay: a while
  lid: 256
  status: bad
  bytes: xy
`, `lab.yaml:2: port-id is to be a number from 0 to 65535
lab.yaml:2: no-self is to be true or false
lab.yaml:5: controllers is to be a number
lab.yaml:6: size: "64MB" is no size; write 64MiB, 1GiB or a number of bytes
lab.yaml:7: state: "offline" is no ANA state; allowed are optimized, non-optimized, inaccessible, persistent-loss, change
lab.yaml:9: delay: "a while" is no time span; write 90s, 1m30s or 250ms
lab.yaml:10: lid is to be a number from 0 to 255
lab.yaml:11: status: "bad" is no status; write a name, as connect-invalid-host, or a number, as 0x4184
lab.yaml:12: bytes: "xy" are no bytes in hexadecimal`},
		{"no YAML", "listeners: [\n", "lab.yaml:1: sequence end token ']' not found"},
		{"twice", "control: a\ncontrol: b\n", `lab.yaml:2: mapping key "control" already defined at [1:1]`},
		{"two documents", "control: a\n---\ncontrol: b\n", "lab.yaml:3: a second document begins here, one is allowed"},
		{"no mapping", "stas-lab\n", "lab.yaml:1: the configuration is to have keys with values; allowed are control, log-level, listeners, subsystems, hosts, zoning, faults"},
		{"address", "listeners:\n- address: localhost:8009\n- address: 127.0.0.1\n",
			"lab.yaml:2: listener port1: address: \"localhost\" is not an IP address\nlab.yaml:3: listener port2: address: \"127.0.0.1\" is not ADDRESS:PORT"},
		{"discovery", "listeners:\n- address: 127.0.0.1:0\n  discovery:\n    type: dcc\n",
			`lab.yaml:2: listener port1: discovery: the type is "dcc", allowed are ddc, cdc, untyped and none`},
		{"same name", "listeners:\n- {name: a, address: 127.0.0.1:0}\n- {name: a, address: 127.0.0.1:0}\n", "lab.yaml:3: listener a: it exists already"},
		{"announced twice", "listeners:\n- {address: 127.0.0.1:0, announce: {name: x}}\n- {address: 127.0.0.1:0, announce: {name: x}}\n",
			`lab.yaml:3: announce: another listener has the name "x" already`},
		{"announced without a name", "listeners:\n- address: 127.0.0.1:0\n  announce: {interface: lo}\n", "lab.yaml:3: announce: the name is missing, without which nothing is announced"},
		{"announced for nothing", "listeners:\n- {address: 127.0.0.1:0, discovery: {type: none}, announce: {name: x}}\n",
			"lab.yaml:2: announce: there is no discovery service that could be announced"},
		{"unknown listener", listener + "subsystems:\n- nqn: nqn.2026-01.org.example:a\n  listeners: [b]\n- nqn: nqn.2026-01.org.example:b\n  ana: [{listener: b, state: change}]\n",
			"lab.yaml:3: subsystem nqn.2026-01.org.example:a: listener \"b\": no such thing\nlab.yaml:6: subsystem nqn.2026-01.org.example:b: listener \"b\": no such thing"},
		{"block size", "subsystems:\n- nqn: nqn.2026-01.org.example:a\n  namespaces:\n  - block-size: 1024\n",
			"lab.yaml:2: subsystem nqn.2026-01.org.example:a: namespace 1: the block size is 1024, allowed are 512 and 4096"},
		{"host", "hosts:\n- nqn: nqn.2026-01.org.example:a\n  dhchap-hash: md5\n",
			`lab.yaml:3: dhchap-hash: "md5" is no DH-HMAC-CHAP hash function; allowed are sha256, sha384, sha512`},
		{"host twice", "hosts:\n- nqn: nqn.2026-01.org.example:a\n- nqn: nqn.2026-01.org.example:a\n", "lab.yaml:3: host nqn.2026-01.org.example:a: it exists already"},
		{"key", "hosts:\n- nqn: nqn.2026-01.org.example:a\n  dhchap-key: DHHC-1:01:SECRET\n", `lab.yaml:3: dhchap-key: DH-HMAC-CHAP key: it does not end in ":"`},
		{"key file", "hosts:\n- nqn: nqn.2026-01.org.example:a\n  dhchap-key-file: /nonexistent/key\n",
			"lab.yaml:2: dhchap-key-file: open /nonexistent/key: no such file or directory"},
		{"zone group twice", "zoning:\n  groups:\n  - name: a\n  - name: a\n", "lab.yaml:4: zone group a: it exists already"},
		{"fault", listener + "faults:\n- do: delay\n- {do: mute, listener: b}\n",
			"lab.yaml:3: fault delay: for how long? delay is missing\nlab.yaml:4: fault mute: listener \"b\": no such thing"},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, err := Parse("lab.yaml", []byte(c.text))
			if err == nil {
				t.Fatal("no complaint")
			}
			got := err.Error()
			if got != c.want {
				t.Errorf("got\n%s\nwant\n%s", got, c.want)
			}
			if strings.Contains(got, "SECRET") {
				t.Error("a key is told")
			}
		})
	}
}

func TestLoad(t *testing.T) {
	if _, err := Load(filepath.Join(t.TempDir(), "lab.yaml")); err == nil || !strings.Contains(err.Error(), "cannot read the configuration: open ") {
		t.Errorf("got %v", err)
	}
}
