package cli

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"strings"
	"sync/atomic"
	"testing"
	"time"
	"unicode"

	"github.com/google/go-cmp/cmp"

	"github.com/nvme-stas/stas/internal/output"
	"github.com/nvme-stas/stas/internal/stasbus"
	"github.com/nvme-stas/stas/internal/stastest"
	"github.com/nvme-stas/stas/internal/tid"
	"github.com/nvme-stas/stas/internal/version"
)

// stacd answers what it has been given; stafd has log pages as well.
type stacd struct {
	list []stasbus.Dict // without what is detailed
	info string
	err  error
	tron atomic.Bool
}

func (d *stacd) ListControllers(_ context.Context, detailed bool) (list []stasbus.Dict, err error) {
	for _, c := range d.list {
		shown := stasbus.Dict{}
		for k, v := range c {
			if detailed || k == "traddr" || k == "device" {
				shown[k] = v
			}
		}
		list = append(list, shown)
	}
	return list, d.err
}

func (d *stacd) ControllerInfo(context.Context, tid.TID) (string, error) { return "{}", d.err }
func (d *stacd) ProcessInfo(context.Context) (string, error)             { return d.info, d.err }
func (d *stacd) Tron() bool                                              { return d.tron.Load() }
func (d *stacd) SetTron(on bool)                                         { d.tron.Store(on) }

type stafd struct {
	stacd
	entries string
}

func (d *stafd) GetLogPages(context.Context, tid.TID) ([]stasbus.Dict, error) { return nil, d.err }

func (d *stafd) GetAllLogPages(_ context.Context, detailed bool) (string, error) {
	list, err := d.ListControllers(context.Background(), detailed)
	pages := []stasbus.DCPage[json.RawMessage]{}
	for _, c := range list {
		p := stasbus.DCPage[json.RawMessage]{DiscoveryController: c, LogPages: []json.RawMessage{}}
		if d.entries != "" {
			p.LogPages = append(p.LogPages, json.RawMessage(d.entries))
		}
		pages = append(pages, p)
	}
	text, _ := json.Marshal(pages)
	return string(text), err
}

// serve puts a daemon on the bus until the test ends.
func serve(t *testing.T, names stasbus.Names, backend stasbus.Backend) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	ready, done := make(chan struct{}), make(chan error)
	go func() {
		done <- stasbus.NewServer(names, slog.New(slog.DiscardHandler)).Run(ctx, backend, func() { close(ready) })
	}()
	select {
	case <-ready:
	case err := <-done:
		t.Fatal(err)
	}
	t.Cleanup(func() { cancel(); <-done })
}

const hostInfo = `{"tron":false,"log-level":"INFO","hostnqn":"nqn.host","hostid":"36eb","symname":null,"last reload failed":%v}`

// connected and waiting are a controller that is there and one that is not.
func connected() stasbus.Dict {
	return stasbus.Dict{
		"transport": "tcp", "traddr": "10.0.0.1", "trsvcid": "4420", "subsysnqn": "nqn.a", "device": "nvme0",
		"state": "live", "host-iface": "eth0", "connect attempts": "0", "retry connect timer": "1.0s [off]",
	}
}

func waiting() stasbus.Dict {
	return stasbus.Dict{
		"transport": "tcp", "traddr": "fd00::1", "trsvcid": "4420", "subsysnqn": "nqn.b", "device": "nvme?",
		"state": "", "host-iface": "", "connect attempts": "3", "retry connect timer": "60.0s [2s]", "last error": "connection refused",
	}
}

func ofDC(d stasbus.Dict, known, entries string) stasbus.Dict {
	d["origin"], d[stasbus.KnownKey], d["log-page-entries"] = "configured", known, entries
	return d
}

func TestOutput(t *testing.T) {
	stastest.NewSystemBus(t, stastest.AllowAll)
	connecting := waiting()
	connecting["connect operation"], connecting["last error"] = "{}", ""
	for _, c := range []struct {
		name string
		list []stasbus.Dict
		info string
		args string
		want string
	}{
		{
			name: "stacctl ls", args: "ls -o table", list: []stasbus.Dict{connected(), waiting(), connecting},
			want: `
DEVICE  STATE       ADDRESS             IFACE  NQN    PROBLEM
nvme0   live        tcp 10.0.0.1:4420   eth0   nqn.a  -
-       waiting     tcp [fd00::1]:4420  -      nqn.b  connection refused
-       connecting  tcp [fd00::1]:4420  -      nqn.b  -
`,
		},
		{name: "stacctl ls of nothing", args: "ls -o table", want: "\nstacd looks after no controllers.\n"},
		{name: "stacctl ls as JSON", args: "ls", list: []stasbus.Dict{connected()}, want: `
[
  {
    "device": "nvme0",
    "traddr": "10.0.0.1"
  }
]
`},
		{name: "stacctl ls as JSON, detailed", args: "ls -d -o json", list: []stasbus.Dict{waiting()}, want: `
[
  {
    "connect attempts": "3",
    "device": "nvme?",
    "host-iface": "",
    "last error": "connection refused",
    "retry connect timer": "60.0s [2s]",
    "state": "",
    "subsysnqn": "nqn.b",
    "traddr": "fd00::1",
    "transport": "tcp",
    "trsvcid": "4420"
  }
]
`},
		{name: "stacctl ls of nothing as JSON", args: "ls", want: "\n[]\n"},
		{
			name: "stacctl status", args: "status -o table", list: []stasbus.Dict{connected(), waiting()}, want: `
Host NQN:     nqn.host
Host ID:      36eb
Tracing:      false
Controllers:  2, 1 live

DEVICE  STATE    ADDRESS             IFACE  NQN    PROBLEM
nvme0   live     tcp 10.0.0.1:4420   eth0   nqn.a  -
-       waiting  tcp [fd00::1]:4420  -      nqn.b  connection refused

tcp [fd00::1]:4420: connection refused (3 failed attempts; next: 60.0s [2s])
`,
		},
		{name: "stacctl status after a failed reload", args: "status -o table", info: fmt.Sprintf(hostInfo, true), want: `
Host NQN:       nqn.host
Host ID:        36eb
Tracing:        false
Controllers:    0, 0 live
Configuration:  the last reload failed, an older one is in force; see: journalctl -u stacd

stacd looks after no controllers.
`},
		{name: "stacctl status as JSON", args: "status", list: []stasbus.Dict{{"traddr": "10.0.0.1"}}, want: `
{
  "controllers": [
    {
      "traddr": "10.0.0.1"
    }
  ],
  "hostid": "36eb",
  "hostnqn": "nqn.host",
  "last reload failed": false,
  "log-level": "INFO",
  "symname": null,
  "tron": false
}
`},
		{name: "stacctl tron", args: "tron", want: "\ntron = True\n"},
		{name: "stacctl troff", args: "troff", want: "\ntron = False\n"},
		{
			name: "stafctl ls", args: "ls -o table", list: []stasbus.Dict{ofDC(connected(), "True", "5"), ofDC(waiting(), "False", "0")},
			want: `
DEVICE  STATE    ADDRESS             IFACE  ORIGIN      ENTRIES  NQN    PROBLEM
nvme0   live     tcp 10.0.0.1:4420   eth0   configured  5        nqn.a  -
-       waiting  tcp [fd00::1]:4420  -      configured  unknown  nqn.b  connection refused
`,
		},
		{name: "stafctl status as JSON", args: "status", list: []stasbus.Dict{{"traddr": "10.0.0.1"}}, info: "{}", want: `
{
  "controllers": [
    {
      "log_pages": [
        {
          "trtype": "tcp",
          "adrfam": "",
          "subtype": "",
          "treq": "",
          "portid": "",
          "cntlid": "",
          "asqsz": "",
          "eflags": "",
          "trsvcid": "",
          "subnqn": "nqn.a",
          "traddr": "",
          "tsas": ""
        }
      ],
      "traddr": "10.0.0.1"
    }
  ]
}
`},
		{name: "stafctl status", args: "status -o table", list: []stasbus.Dict{ofDC(connected(), "True", "5")}, info: "{}", want: `
Controllers:  1, 1 live

DEVICE  STATE  ADDRESS            IFACE  ORIGIN      ENTRIES  NQN
nvme0   live   tcp 10.0.0.1:4420  eth0   configured  5        nqn.a
`},
	} {
		t.Run(c.name, func(t *testing.T) {
			backend := stacd{list: c.list, info: c.info}
			if c.info == "" {
				backend.info = fmt.Sprintf(hostInfo, false)
			}
			ctl := Stacctl
			if strings.HasPrefix(c.name, "stafctl") {
				ctl = Stafctl
				serve(t, stasbus.Staf, &stafd{stacd: stacd{list: backend.list, info: backend.info}, entries: `{"trtype":"tcp","subnqn":"nqn.a"}`})
			} else {
				serve(t, stasbus.Stac, &backend)
			}
			code, out, stderr := call(ctl, c.args)
			if code != exitOK || stderr != "" {
				t.Errorf("exit code %d, %s", code, stderr)
			}
			if diff := cmp.Diff(c.want[1:], out); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

func call(ctl func([]string, io.Writer, io.Writer) int, args string) (code int, stdout, stderr string) {
	var out, err bytes.Buffer
	code = ctl(strings.Fields(args), &out, &err)
	return code, out.String(), err.String()
}

func TestUsage(t *testing.T) {
	for _, c := range []struct {
		args           string
		code           int
		stdout, stderr string // parts
	}{
		{"--version", exitOK, version.Product + " " + version.Version + "\n", ""},
		{"-v", exitOK, version.Product, ""},
		{"--version ls", exitOK, version.Product, ""},
		{"--help", exitOK, "Usage:", ""},
		{"ls --help", exitOK, "--detailed", ""},
		{"", exitFailed, "Usage:", ""},
		{"lss", exitUsage, "", "stafctl --help"},
		{"ls --detaled", exitUsage, "", "--detaled"},
		{"ls extra", exitUsage, "", "extra"},
		{"ls -o xml", exitUsage, "", `only table and json`},
	} {
		code, out, stderr := call(Stafctl, c.args)
		if code != c.code || !strings.Contains(out, c.stdout) || !strings.Contains(stderr, c.stderr) ||
			(c.stdout == "") != (out == "") || (c.stderr == "") != (stderr == "") {
			t.Errorf("stafctl %s: exit code %d, %q, %q", c.args, code, out, stderr)
		}
	}
}

func TestErrors(t *testing.T) {
	const denySet = `<policy context="default"><deny send_interface="org.freedesktop.DBus.Properties" send_member="Set"/></policy>`
	failing := &stacd{err: fmt.Errorf("out of order")}
	for _, c := range []struct {
		name, policy string
		backend      *stacd
		noBus        bool
		args, want   string
	}{
		{name: "no bus", noBus: true, args: "ls", want: "stacctl: cannot reach the system bus: "},
		{name: "not running", args: "ls", want: "stacctl: stacd does not run; start it with: systemctl start stacd\n"},
		{name: "not running", args: "status", want: "stacctl: stacd does not run; start it with: systemctl start stacd\n"},
		{name: "not running", args: "tron", want: "stacctl: stacd does not run; start it with: systemctl start stacd\n"},
		{name: "denied", policy: denySet, backend: &stacd{}, args: "tron", want: "; that is for root only\n"},
		{name: "failure", backend: failing, args: "status", want: "stacctl: stacd: process_info: out of order\n"},
		{name: "nonsense", backend: &stacd{info: "nonsense"}, args: "status", want: "stacctl: invalid character"},
	} {
		t.Run(c.name+" "+c.args, func(t *testing.T) {
			bus := stastest.NewSystemBus(t, stastest.AllowAll+c.policy)
			if c.noBus {
				bus.Stop()
			}
			if c.backend != nil {
				serve(t, stasbus.Stac, c.backend)
			}
			code, out, stderr := call(Stacctl, c.args)
			if code != exitFailed || out != "" || !strings.Contains(stderr, c.want) || strings.Count(stderr, "\n") != 1 {
				t.Errorf("exit code %d, %q, %q, want %q", code, out, stderr, c.want)
			}
		})
	}
}

func TestTimeout(t *testing.T) {
	ctx, cancel := context.WithDeadline(t.Context(), time.Now())
	defer cancel()
	<-ctx.Done()
	got := (&tool{daemon: "stafd"}).explain(fmt.Errorf("process_info: %w", ctx.Err())).Error()
	if want := "stafd does not answer within 25s; what it is doing is in: journalctl -u stafd"; got != want {
		t.Errorf("%q, want %q", got, want)
	}
}

// What a target calls itself does not steer the terminal, break lines, or hide
// itself.
func TestHostileNames(t *testing.T) {
	const hostile = "a\x1b[2J\u009b2J\x07\r\n\t\v\f\x00\x7f\u202eb\xff\U000e0041"
	d := make(stasbus.Dict)
	for _, key := range []string{
		"transport", "traddr", "trsvcid", "subsysnqn", "device", "state", "host-iface", "origin",
		"connect attempts", "retry connect timer", "last error", "log-page-entries", "model",
	} {
		d[key] = hostile
	}
	info := map[string]any{"hostnqn": hostile, "hostid": hostile, "symname": hostile}
	for name, print := range map[string]func(*tool) error{
		"table":  func(t *tool) error { return t.printTable([]stasbus.Dict{d}) },
		"status": func(t *tool) error { return t.printStatus(info, []stasbus.Dict{d}) },
		"json":   func(t *tool) error { return output.PrintJSON(t.stdout, []stasbus.Dict{d}) },
	} {
		var out bytes.Buffer
		tool := tool{stdout: &out, columns: dcColumns}
		if err := print(&tool); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		lines := map[string]int{"table": 2, "status": 9, "json": len(d) + 4}[name]
		if got := strings.Count(out.String(), "\n"); got != lines {
			t.Errorf("%s has %d lines, want %d", name, got, lines)
		}
		if strings.ContainsFunc(out.String(), func(r rune) bool { return !unicode.IsPrint(r) && r != '\n' }) {
			t.Errorf("%s lets something through: %q", name, out.String())
		}
		if name == "json" {
			var back []stasbus.Dict
			if err := json.Unmarshal(out.Bytes(), &back); err != nil || back[0]["model"] != strings.ToValidUTF8(hostile, "\uFFFD") {
				t.Errorf("the JSON says %q, %v", back, err)
			}
		}
	}
}
