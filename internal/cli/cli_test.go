package cli

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"
	"unicode"

	"github.com/goccy/go-yaml"
	"github.com/google/go-cmp/cmp"

	"github.com/nvme-stas/stas/internal/logpage"
	"github.com/nvme-stas/stas/internal/output"
	"github.com/nvme-stas/stas/internal/stasbus"
	"github.com/nvme-stas/stas/internal/stastest"
	"github.com/nvme-stas/stas/internal/tid"
	"github.com/nvme-stas/stas/internal/version"
)

var update = flag.Bool("update", false, "write the golden files anew")

func TestMain(m *testing.M) {
	time.Local = time.UTC
	os.Exit(m.Run())
}

// old is a daemon of nvme-stas 2.x.
type old struct {
	list []stasbus.Dict // with details
	info string
	err  error
	wait chan struct{} // closed when it may answer
	tron atomic.Bool
}

func (d *old) ListControllers(_ context.Context, detailed bool) (list []stasbus.Dict, err error) {
	if d.wait != nil {
		<-d.wait
	}
	for _, c := range d.list {
		shown := stasbus.Dict{}
		for k, v := range c {
			switch k {
			case "transport", "traddr", "trsvcid", "subsysnqn", "host-traddr", "host-iface", "host-nqn", "device", "kato":
				shown[k] = v
			default:
				if detailed {
					shown[k] = v
				}
			}
		}
		list = append(list, shown)
	}
	return list, d.err
}

func (d *old) ControllerInfo(context.Context, tid.TID) (string, error) { return "{}", d.err }
func (d *old) ProcessInfo(context.Context) (string, error)             { return d.info, d.err }
func (d *old) Tron() bool                                              { return d.tron.Load() }
func (d *old) SetTron(on bool)                                         { d.tron.Store(on) }

type oldStafd struct {
	old
	pages []stasbus.LogPage
}

func (d *oldStafd) GetLogPages(_ context.Context, id tid.TID) ([]stasbus.Dict, error) {
	list := []stasbus.Dict{}
	for _, p := range d.pages {
		for _, e := range p.Entries {
			if tid.TID(p.ID) == id {
				list = append(list, e.Map())
			}
		}
	}
	return list, d.err
}

func (d *oldStafd) GetAllLogPages(_ context.Context, detailed bool) (string, error) {
	list, err := d.ListControllers(context.Background(), detailed)
	pages := []stasbus.DCPage[logpage.Entry]{}
	for i, c := range list {
		pages = append(pages, stasbus.DCPage[logpage.Entry]{DiscoveryController: c, LogPages: d.pages[i].Entries})
	}
	text, _ := json.Marshal(pages)
	return string(text), err
}

// stacd and stafd are ours.
type stacd struct {
	old
	reporter
}

type stafd struct {
	oldStafd
	reporter
}

type reporter struct{ report stasbus.Report }

func (d reporter) Report(context.Context) (stasbus.Report, error) { return d.report, nil }
func (d reporter) Controller(context.Context, tid.TID) (*stasbus.Controller, error) {
	return nil, errors.New("nobody asks for one")
}

func (d *stafd) LogPages(context.Context) ([]stasbus.LogPage, error) { return d.pages, nil }
func (d *stafd) LogPage(_ context.Context, id tid.TID) (*stasbus.LogPage, error) {
	for _, p := range d.pages {
		if tid.TID(p.ID) == id {
			return &p, nil
		}
	}
	return nil, nil
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

func call(ctl func([]string, io.Writer, io.Writer) int, args ...string) (code int, stdout, stderr string) {
	var out, err bytes.Buffer
	code = ctl(args, &out, &err)
	return code, out.String(), err.String()
}

var now = time.Date(2026, 11, 21, 11, 0, 0, 0, time.UTC)

const (
	hostNQN = "nqn.2014-08.org.nvmexpress:uuid:36ebf5a9-1df9-47b3-a6d0-e9ba32e428a2"
	dcNQN   = "nqn.2014-08.org.nvmexpress.discovery"
	example = "nqn.2014-08.org.example:"
)

func id(traddr, port, nqn, iface string) stasbus.ID {
	return stasbus.ID(tid.New(tid.TID{Transport: "tcp", TrAddr: traddr, TrSvcID: port, SubsysNQN: nqn, HostIface: iface, HostNQN: hostNQN}))
}

// host is a report without controllers.
func host(daemon string) stasbus.Report {
	return stasbus.Report{
		Version: 1, Daemon: daemon, Release: "1.2.3", Time: now, Controllers: []stasbus.Controller{}, Refused: []stasbus.Refusal{},
		Host: stasbus.Host{NQN: hostNQN, ID: "36ebf5a9-1df9-47b3-a6d0-e9ba32e428a2"},
	}
}

func processInfoText(more string) string {
	return `{"tron":false,"log-level":"INFO","hostnqn":"` + hostNQN + `","hostid":"36ebf5a9-1df9-47b3-a6d0-e9ba32e428a2","hostkey":null,"symname":"it's é"` + more + `}`
}

func details(c stasbus.Controller, more ...string) stasbus.Dict {
	d := tid.TID(c.ID).Map()
	d["device"] = c.Device
	if c.Device == "" {
		d["device"] = "nvme?"
	}
	d["connected"] = map[bool]string{true: "True", false: "None"}[c.Device != ""]
	d["connect attempts"], d["retry connect timer"] = "0", "1.0s [off]"
	if c.Connect != nil {
		d["connect attempts"], d["retry connect timer"] = fmt.Sprint(c.Connect.Attempts), "60.0s [2.431s]"
	}
	d["model"], d["serial"], d["cntrltype"], d["dctype"] = c.Model, c.Serial, c.CntrlType, c.DCType
	d["hostid"], d["hostnqn"] = "", ""
	for i := 0; i < len(more); i += 2 {
		d[more[i]] = more[i+1]
	}
	return d
}

// newStafd has a discovery controller that is well, one that cannot be
// reached, and one whose log page cannot be read.
func newStafd() *stafd {
	entry := func(sub, nqn, addr string) logpage.Entry {
		return logpage.Entry{
			TrType: "tcp", AdrFam: "ipv4", SubType: sub, TReq: "not specified", PortID: "1", CntlID: "65535", ASQSz: "32",
			EFlags: "0", TrSvcID: "4420", SubNQN: nqn, TrAddr: addr, TSAS: "{'sectype': 'none'}",
		}
	}
	d := &stafd{reporter: reporter{host("stafd")}}
	tls := entry("nvme", example+"b", "fd00::1")
	tls.TReq, tls.TSAS, tls.EFlags, tls.AdrFam = "required", "{'sectype': 'tls13'}", "4", "ipv6"
	well := id("10.0.0.1", "8009", dcNQN, "eth0")
	configured := []stasbus.Origin{{Kind: stasbus.Configured, Place: "stafd.conf:7"}}
	d.pages = []stasbus.LogPage{
		{ID: well, Device: "nvme0", Known: true, Generation: 5, Entries: []logpage.Entry{entry("nvme", example+"a", "10.0.0.1"), tls}},
		{ID: id("10.0.0.2", "8009", dcNQN, ""), Entries: []logpage.Entry{}},
		{ID: id("fd00::3", "8009", example+"dc", ""), Device: "nvme4", Entries: []logpage.Entry{entry("referral", dcNQN, "10.0.0.9")}},
	}
	d.report.Controllers = []stasbus.Controller{
		{
			ID: well, Device: "nvme0", State: "live", Wanted: true, Origins: configured, SrcAddr: "10.0.0.100", Model: "Linux", CntrlType: "discovery", DCType: "ddc",
			LogPage: &stasbus.PageState{Known: true, Generation: 5, Entries: 2},
		},
		{
			ID: d.pages[1].ID, State: "waiting", Wanted: true, Origins: configured, LogPage: &stasbus.PageState{},
			Connect: &stasbus.Failure{
				Attempts: 3, Errno: "ECONNREFUSED", Next: now.Add(12 * time.Second),
				Error: "connect: connection refused (nothing listens on 10.0.0.2 port 8009)",
				Class: "refused", Remedy: "Start the target there, or correct the address and port.",
			},
		},
		{
			ID: d.pages[2].ID, Device: "nvme4", State: "live", Wanted: true, Origins: configured, SrcAddr: "fd00::100", Model: "Linux", CntrlType: "discovery",
			LogPage: &stasbus.PageState{Generation: 2, Entries: 1, Failure: &stasbus.Failure{
				Attempts: 1, Error: "the log changes all the time", Next: now.Add(90 * time.Second),
			}},
		},
	}
	d.info = processInfoText(`,"avahi":{"services":{},"service types":[]}`)
	for i, c := range d.report.Controllers {
		d.list = append(d.list, details(c, "origin", "configured"))
		if i == 0 {
			d.list[0]["kato"] = "20"
			d.list[0]["get log page operation"] = "{'fail count': 0, 'completed': True, 'alive': True}"
		}
	}
	return d
}

// newStacd has one controller in each situation.
func newStacd() *stacd {
	d := &stacd{reporter: reporter{host("stacd")}}
	dc1, dc2 := id("10.0.0.1", "8009", dcNQN, "eth0"), id("fd00::3", "8009", example+"dc", "")
	listed := []stasbus.Origin{{Kind: stasbus.Listed, By: &dc1}, {Kind: stasbus.Listed, By: &dc2, NotConnected: true}}
	configured := stasbus.Origin{Kind: stasbus.Configured, Place: "stacd.conf:12"}
	d.report.Stafd = &stasbus.Stafd{Sources: []stasbus.Source{{ID: dc1, Known: true, Entries: 2}, {ID: dc2, Entries: 0}}}
	d.report.ReloadFailed, d.report.ReloadError = true, "stacd.conf:3: no section"
	d.report.Controllers = []stasbus.Controller{
		{
			ID: id("10.0.0.1", "4420", example+"a", "eth0"), Device: "nvme1", State: "live", Wanted: true,
			Origins: listed, SrcAddr: "10.0.0.100", Model: "Linux", Serial: "0815", CntrlType: "io",
			Namespaces: []stasbus.Namespace{{Name: "nvme1n1", Size: 1 << 40, ANA: "optimized"}, {Name: "nvme1n2", Size: 3 << 29, ANA: "inaccessible"}},
		},
		{
			ID: id("fd00::1", "4420", example+"a", ""), Device: "nvme2", State: "connecting", Wanted: true, Origins: append(listed[:1:1], configured),
			CntrlType: "io", LostSince: now.Add(-12 * time.Second), GivesUp: now.Add(588 * time.Second),
		},
		{
			ID: id("10.0.0.2", "4420", example+"b", ""), State: "waiting", Wanted: true, Origins: []stasbus.Origin{configured},
			Connect: &stasbus.Failure{
				Attempts: 17, Errno: "EIO", Next: now.Add(61 * time.Minute),
				Error: "connect: input/output error (the controller refused)",
				Class: "rejected", Remedy: "Look whether the target knows the subsystem, and allows this host's NQN.",
			},
		},
		{
			ID: id("10.0.0.3", "4420", example+"c", ""), State: "connecting", Wanted: true, Origins: []stasbus.Origin{{Kind: stasbus.Remembered}},
			Operation: &stasbus.Operation{Kind: "connect", Since: now.Add(-42 * time.Second)},
			Connect:   &stasbus.Failure{Attempts: 1, Error: "opening /dev/nvme-fabrics: no such file or directory", Errno: "ENOENT", Class: "kernel", Remedy: "Load the module: modprobe nvme-tcp.", Next: now},
		},
		{
			ID: id("10.0.0.4", "4420", example+"d", ""), Device: "nvme9", State: "deleting", Origins: []stasbus.Origin{},
			Operation: &stasbus.Operation{Kind: "disconnect", Since: now.Add(-time.Second)},
		},
	}
	inUse := stasbus.Controller{
		ID: id("10.0.0.6", "4420", example+"f", ""), Device: "nvme6", State: "live", Origins: []stasbus.Origin{}, CntrlType: "io",
		Namespaces: []stasbus.Namespace{{Name: "nvme6n1", Size: 1 << 30}},
		Withheld: &stasbus.Withheld{
			Since: now.Add(-90 * time.Minute), Why: "it is the last path to what is in use: nvme6n1 is mounted on /data",
			InUse: []string{"nvme6n1 is mounted on /data"},
		},
	}
	byDevice, byName := id("10.0.0.7", "4420", example+"g", ""), stasbus.Hold{Name: example + "h", Since: now, Until: now.Add(2 * time.Hour)}
	dropped := stasbus.Hold{Name: "nvme7", Controller: &byDevice, Since: now}
	d.report.Holds = []stasbus.Hold{dropped, byName}
	d.report.Controllers = append(
		d.report.Controllers, inUse,
		stasbus.Controller{ID: byDevice, State: "waiting", Wanted: true, Origins: listed[:1:1], Held: true, HeldBy: []stasbus.Hold{dropped}},
		stasbus.Controller{
			ID: id("10.0.0.8", "4420", example+"h", ""), Device: "nvme8", State: "live", Wanted: true, Origins: []stasbus.Origin{configured}, CntrlType: "io",
			Held: true, HeldBy: []stasbus.Hold{byName}, Booted: "NBFT",
		},
		stasbus.Controller{
			ID: id("10.0.0.9", "4420", example+"i", ""), State: "waiting", Wanted: true, Origins: listed[1:2:2],
			GivenUp: &stasbus.Failure{Attempts: 2, Error: "connect: connection refused", Errno: "ECONNREFUSED", Class: "refused"},
		},
	)
	d.report.Kept = []stasbus.Kept{{ID: id("10.0.0.1", "4420", example+"root", ""), Device: "nvme10", Why: "the boot table NBFT names it"}}
	d.report.Refused = []stasbus.Refusal{{
		ID: id("10.0.0.5", "4420", example+"e", ""), Origins: append(listed[:2:2], configured), Why: "stacd.conf:14 excludes subsysnqn=" + example + "e",
	}}
	d.info = processInfoText("")
	for i, c := range d.report.Controllers {
		d.list = append(d.list, details(c, "dlpe", "None"))
		if i == 0 {
			d.list[0]["dlpe"], d.list[0]["dlpe.eflags.ncc"] = `{'trtype': 'tcp', 'tsas': "{'sectype': 'none'}"}`, "False"
		}
	}
	d.list[3]["connect operation"] = "{'fail count': 1, 'completed': False, 'alive': True}"
	return d
}

// TestOutput compares what the tools print with the files in testdata. After
// an intended change: go test ./internal/cli -run TestOutput -update, and read
// the difference.
func TestOutput(t *testing.T) {
	stastest.NewSystemBus(t, stastest.AllowAll)
	for _, tool := range []struct {
		name     string
		ctl      func([]string, io.Writer, io.Writer) int
		names    stasbus.Names
		backends map[string]stasbus.Backend
		calls    []string
	}{
		{
			name: "stafctl", ctl: Stafctl, names: stasbus.Staf,
			backends: map[string]stasbus.Backend{
				"": newStafd(), "-2.x": &newStafd().oldStafd, "-empty": &stafd{reporter: reporter{host("stafd")}, oldStafd: oldStafd{old: old{info: "{}"}, pages: []stasbus.LogPage{}}},
			},
			calls: []string{"dlp -a 10.0.0.1 -s 8009 -f eth0", "dlp -a 10.0.0.2 -s 8009", "adlp", "adlp -d"},
		},
		{
			name: "stacctl", ctl: Stacctl, names: stasbus.Stac,
			backends: map[string]stasbus.Backend{
				"": newStacd(), "-2.x": &newStacd().old, "-empty": &stacd{reporter: reporter{host("stacd")}, old: old{info: "{}"}},
			},
			calls: []string{"explain nvme1n2 example:e", "explain nvme10"},
		},
	} {
		for kind, backend := range tool.backends {
			t.Run(tool.name+kind, func(t *testing.T) {
				serve(t, tool.names, backend)
				for _, args := range append([]string{"ls", "ls -d", "status", "explain"}, tool.calls...) {
					for _, format := range append([]string{""}, formats...) {
						name := strings.NewReplacer(" ", "_", ":", "_").Replace(tool.name + kind + "_" + args + "_" + format)
						words := strings.Fields(args)
						if format != "" {
							words = append(words, "-o", format)
						} else {
							name += "python"
						}
						if !telling(kind, args, format) {
							continue
						}
						code, out, stderr := call(tool.ctl, words...)
						if code != exitOK || stderr != "" {
							t.Errorf("%s: exit code %d, %s", name, code, stderr)
						}
						checkGolden(t, name, out, kind == "-2.x")
					}
				}
			})
		}
	}
}

// telling leaves out what would only show the same again.
func telling(kind, args, format string) bool {
	switch {
	case kind == "-empty" && strings.HasPrefix(args, "dlp"), kind != "" && format == output.YAML, kind != "" && format == output.Wide:
		return false
	case strings.HasPrefix(args, "explain"):
		return kind == "" && format != output.Wide || format == output.Table && args == "explain"
	case strings.HasSuffix(args, " -d"):
		return format == "" || format == output.Table && args == "ls -d"
	}
	return format != output.Wide || args == "ls"
}

// checkGolden compares with a file; the time of a report about an old daemon
// is that of the test.
func checkGolden(t *testing.T, name, got string, anyTime bool) {
	t.Helper()
	if anyTime {
		lines := strings.Split(got, "\n")
		for i, line := range lines {
			if before, _, ok := strings.Cut(line, `"time": `); ok {
				lines[i] = before + `"time": "…",`
			}
			if before, _, ok := strings.Cut(lines[i], `"next": `); ok {
				lines[i] = before + `"next": "…"`
			}
			if before, after, ok := strings.Cut(lines[i], " is due in 2s ("); ok {
				_, after, _ = strings.Cut(after, ")")
				lines[i] = before + " is due in 2s (…)" + after
			}
		}
		got = strings.Join(lines, "\n")
	}
	file := filepath.Join("testdata", name+".txt")
	if *update {
		if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Error(err)
	}
	if diff := cmp.Diff(string(want), got); diff != "" {
		t.Errorf("%s (-want +got):\n%s", name, diff)
	}
}

// TestFormats reads what is printed for programs.
func TestFormats(t *testing.T) {
	files, err := filepath.Glob("testdata/*")
	if err != nil || len(files) < 50 {
		t.Fatal(files, err)
	}
	var literals []string
	for _, file := range files {
		data, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		var v struct{ Version int }
		switch format := file[strings.LastIndex(file, "_")+1:]; {
		case format == "json.txt":
			if err := json.Unmarshal(data, &v); err != nil || v.Version != stasbus.ReportVersion {
				t.Errorf("%s: version %d, %v", file, v.Version, err)
			}
		case format == "yaml.txt":
			if err := yaml.Unmarshal(data, &v); err != nil || v.Version != stasbus.ReportVersion {
				t.Errorf("%s: version %d, %v", file, v.Version, err)
			}
		case format == "python.txt" && !strings.Contains(file, "explain"):
			literals = append(literals, string(data))
		}
	}
	python, err := exec.LookPath("python3")
	if err != nil {
		t.Skip("python3 is not installed")
	}
	cmd := exec.CommandContext(t.Context(), python, "-c", `
import sys, ast, pprint
for text in sys.stdin.buffer.read().decode().split("\0"):
    again = pprint.pformat(ast.literal_eval(text), width=120) + "\n"
    if again != text: sys.exit("nvme-stas 2.x prints\n" + again + "instead of\n" + text)
`)
	cmd.Stdin = strings.NewReader(strings.Join(literals, "\x00"))
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("%v\n%s", err, out)
	}
}

func TestUsage(t *testing.T) {
	for _, c := range []struct {
		args           string
		code           int
		stdout, stderr string // parts
	}{
		{"--version", exitOK, version.Product + " " + version.Version + "\n", ""},
		{"-v", exitOK, version.Product, ""},
		{"--vers ls", exitOK, version.Product, ""},
		{"--help", exitOK, "Usage:", ""},
		{"ls --help", exitOK, "--detailed", ""},
		{"", exitFailed, "Usage:", ""},
		{"lss", exitUsage, "", "stafctl --help"},
		{"ls --detaled", exitUsage, "", "--detaled"},
		{"ls extra", exitUsage, "", "extra"},
		{"ls -o xml", exitUsage, "", `only table, wide, json, yaml and python`},
		{"dlp -s 8009", exitUsage, "", `"traddr" not set`},
		{"dlp -a 10.0.0.1", exitUsage, "", `"trsvcid" not set`},
		{"dlp -a 10.0.0.1 -s 8009 -t pcie", exitUsage, "", `no transport "pcie", only tcp, rdma, fc, loop`},
		{"dlp --tr tcp", exitUsage, "", "ambiguous option: --tr could be --traddr, --transport, --trsvcid"},
		{"dlp -a", exitUsage, "", "needs an argument"},
		{"tron now", exitUsage, "", "now"},
	} {
		code, out, stderr := call(Stafctl, strings.Fields(c.args)...)
		if code != c.code || !strings.Contains(out, c.stdout) || !strings.Contains(stderr, c.stderr) ||
			(c.stdout == "") != (out == "") || (c.stderr == "") != (stderr == "") {
			t.Errorf("stafctl %s: exit code %d, %q, %q", c.args, code, out, stderr)
		}
	}
	for _, args := range []string{"dlp -a 1 -s 1", "adlp"} {
		if code, _, stderr := call(Stacctl, strings.Fields(args)...); code != exitUsage || !strings.Contains(stderr, "unknown command") {
			t.Errorf("stacctl %s: exit code %d, %q", args, code, stderr)
		}
	}
}

// The options are taken as Python's argparse takes them.
func TestOptions(t *testing.T) {
	stastest.NewSystemBus(t, stastest.AllowAll)
	serve(t, stasbus.Staf, newStafd())
	_, want, _ := call(Stafctl, "dlp", "-t", "tcp", "-a", "10.0.0.1", "-s", "8009", "-f", "eth0", "-n", dcNQN, "-q", hostNQN)
	if !strings.Contains(want, example+"b") {
		t.Fatal(want)
	}
	for _, args := range []string{
		"dlp -ttcp -a10.0.0.1 -s8009 -feth0",
		"dlp --trans=tcp --trad 10.0.0.1 --trs 8009 --host-i eth0",
		"dlp --transport tcp --traddr=10.0.0.1 --trsvcid=8009 --host-iface=eth0 --nqn " + dcNQN + " --host-nqn " + hostNQN,
		"dlp -a ::ffff:10.0.0.1 -s 08009 -f eth0",
		"dlp -a 10.0.0.1 -s 8009 -f eth0 --out python",
	} {
		if code, got, stderr := call(Stafctl, strings.Fields(args)...); code != exitOK || got != want {
			t.Errorf("stafctl %s: exit code %d, %q, %s", args, code, got, stderr)
		}
	}
	for _, args := range []string{
		"dlp -a 10.0.0.1 -s 8009", "dlp -a 10.0.0.1 -s 8009 -f eth0 -n nqn.x", "dlp -a 10.0.0.1 -s 8009 -f eth0 -q nqn.x",
		"dlp -a 10.0.0.1 -s 8009 -f eth0 -w 10.0.0.9", "dlp -a 10.0.0.1 -s 8010 -f eth0", "dlp -t rdma -a 10.0.0.1 -s 8009 -f eth0",
	} {
		if code, got, stderr := call(Stafctl, strings.Fields(args)...); code != exitOK || got != "[]\n" {
			t.Errorf("stafctl %s: exit code %d, %q, %s", args, code, got, stderr)
		}
		code, got, stderr := call(Stafctl, append(strings.Fields(args), "-o", "table")...)
		if code != exitFailed || got != "" || !strings.Contains(stderr, "stafd has no discovery controller") {
			t.Errorf("stafctl %s -o table: exit code %d, %q, %s", args, code, got, stderr)
		}
	}
}

func TestTron(t *testing.T) {
	stastest.NewSystemBus(t, stastest.AllowAll)
	backend := newStacd()
	serve(t, stasbus.Stac, backend)
	for _, c := range []struct {
		command, want string
		on            bool
	}{{"tron", "tron = True\n", true}, {"troff", "tron = False\n", false}} {
		code, out, stderr := call(Stacctl, c.command)
		if code != exitOK || out != c.want || stderr != "" || backend.tron.Load() != c.on {
			t.Errorf("%s: exit code %d, %q, %q, tracing %v", c.command, code, out, stderr, backend.tron.Load())
		}
	}
}

func TestErrors(t *testing.T) {
	const denySet = `<policy context="default"><deny send_interface="org.freedesktop.DBus.Properties" send_member="Set"/></policy>`
	const denyAll = `<policy context="default"><deny send_destination="org.nvmexpress.stac"/></policy>`
	const down = "stacctl: stacd does not run; start it with: systemctl start stacd\n"
	failing := &old{err: errors.New("out of order")}
	for _, c := range []struct {
		name, policy string
		backend      stasbus.Backend
		noBus        bool
		args, want   string
	}{
		{name: "no bus", noBus: true, args: "ls", want: "stacctl: cannot reach the system bus: "},
		{name: "not running", args: "ls", want: down},
		{name: "not running", args: "status", want: down},
		{name: "not running", args: "tron", want: down},
		{name: "not running", args: "explain nvme1", want: down},
		{name: "denied", policy: denySet, backend: &old{}, args: "tron", want: "; that is for root only\n"},
		{name: "denied", policy: denyAll, backend: &old{}, args: "ls", want: "; that is for root only\n"},
		{name: "failure", backend: failing, args: "status", want: "stacctl: stacd: process_info: out of order\n"},
		{name: "failure", backend: failing, args: "ls -o json", want: "stacctl: stacd: list_controllers: out of order\n"},
		{name: "nonsense", backend: &old{info: "nonsense"}, args: "status", want: "stacctl: process_info: invalid character"},
	} {
		t.Run(c.name+" "+c.args, func(t *testing.T) {
			bus := stastest.NewSystemBus(t, stastest.AllowAll+c.policy)
			if c.noBus {
				bus.Stop()
			}
			if c.backend != nil {
				serve(t, stasbus.Stac, c.backend)
			}
			code, out, stderr := call(Stacctl, strings.Fields(c.args)...)
			if code != exitFailed || out != "" || !strings.Contains(stderr, c.want) || strings.Count(stderr, "\n") != 1 {
				t.Errorf("exit code %d, %q, %q, want %q", code, out, stderr, c.want)
			}
		})
	}
}

func TestSilentDaemon(t *testing.T) {
	stastest.NewSystemBus(t, stastest.AllowAll)
	silent := &old{wait: make(chan struct{})}
	defer close(silent.wait)
	serve(t, stasbus.Stac, silent)
	var stderr bytes.Buffer
	tool := newStacctl(io.Discard)
	tool.timeout = 50 * time.Millisecond
	code := tool.main([]string{"ls"}, &stderr)
	want := "stacctl: stacd does not answer within 50ms; what it is doing: systemctl status stacd; if it hangs: systemctl restart stacd (connections stay)\n"
	if code != exitFailed || stderr.String() != want {
		t.Errorf("exit code %d, %q, want %q", code, stderr.String(), want)
	}
}

// What a target calls itself does not steer the terminal, break lines, or hide
// itself.
func TestHostileNames(t *testing.T) {
	const hostile = "a\x1b[2J\u009b2J\x07\r\n\t\v\f\x00\x7f\u202eb\xff\U000e0041"
	hostileID := stasbus.ID{
		Transport: hostile, TrAddr: hostile, TrSvcID: hostile, SubsysNQN: hostile, HostTrAddr: hostile, HostIface: hostile, HostNQN: hostile,
	}
	f := &stasbus.Failure{Attempts: 1, Error: hostile, Errno: hostile, Class: hostile, Remedy: hostile, Next: now}
	origins := []stasbus.Origin{{Kind: hostile}, {Kind: stasbus.Configured, Place: hostile}, {Kind: stasbus.Listed, By: &hostileID}}
	r := stasbus.Report{
		Daemon: "stafd", Time: now, ReloadFailed: true, ReloadError: hostile, Host: stasbus.Host{NQN: hostile, ID: hostile, SymName: hostile},
		Controllers: []stasbus.Controller{{
			ID: hostileID, Device: hostile, State: hostile, Wanted: true, Origins: origins, Connect: f, LogPage: &stasbus.PageState{Failure: f},
			SrcAddr: hostile, Model: hostile, Serial: hostile, CntrlType: hostile, DCType: hostile,
			Namespaces: []stasbus.Namespace{{Name: hostile, ANA: hostile}},
		}},
		Refused: []stasbus.Refusal{{ID: hostileID, Origins: origins, Why: hostile}},
	}
	pages := []stasbus.LogPage{{ID: hostileID, Entries: []logpage.Entry{{SubNQN: hostile, TrAddr: hostile, TReq: hostile, TSAS: hostile, EFlags: hostile}}}}
	d := stasbus.Dict{"model": hostile}
	for name, show := range map[string]func(*tool) error{
		"ls":      func(t *tool) error { return t.printControllers(r, true) },
		"status":  func(t *tool) error { return t.printStatus(r) },
		"explain": func(t *tool) error { all, _ := t.explanations(r, nil); return t.printExplanations(all) },
		"adlp":    func(t *tool) error { return t.printPages(pages) },
		"unknown": func(t *tool) error {
			_, unknown := t.explanations(r, []string{"x\x1b[2J"})
			_, err := io.WriteString(t.stdout, strings.Join(unknown, "\n"))
			return err
		},
		"json":   func(t *tool) error { t.output = output.JSON; return t.printData(r) },
		"yaml":   func(t *tool) error { t.output = output.YAML; return t.printData(r) },
		"python": func(t *tool) error { return t.printPython([]stasbus.Dict{d}) },
	} {
		for _, make := range []func(io.Writer) *tool{newStafctl, newStacctl} {
			var out bytes.Buffer
			tool := make(&out)
			tool.output = output.Table
			if err := show(tool); err != nil {
				t.Errorf("%s: %v", name, err)
			}
			if strings.ContainsFunc(out.String(), func(r rune) bool { return !unicode.IsPrint(r) && r != '\n' }) {
				t.Errorf("%s lets something through: %q", name, out.String())
			}
			switch name {
			case "ls":
				if got := strings.Count(out.String(), "\n"); got != 2 {
					t.Errorf("%s has %d lines: %s", name, got, out.String())
				}
			case "json", "yaml":
				var back stasbus.Report
				err := json.Unmarshal(out.Bytes(), &back)
				if name == "yaml" {
					var flat struct{ Controllers []struct{ Model string } }
					if err = yaml.Unmarshal(out.Bytes(), &flat); err == nil {
						back.Controllers = []stasbus.Controller{{Model: flat.Controllers[0].Model}}
					}
				}
				if want := strings.ToValidUTF8(hostile, "\uFFFD"); err != nil || back.Controllers[0].Model != want {
					t.Errorf("the %s says %+v, want %q, %v", name, back.Controllers, want, err)
				}
			}
		}
	}
}

func TestExplainUnknown(t *testing.T) {
	stastest.NewSystemBus(t, stastest.AllowAll)
	serve(t, stasbus.Stac, newStacd())
	code, out, stderr := call(Stacctl, "explain", "nqn.x", "nvme1", "/dev/nvme1n1")
	if code != exitFailed || strings.Count(out, "It is connected from 10.0.0.100, as nvme1.") != 2 ||
		!strings.Contains(stderr, `stacd has no controller "nqn.x". No controller= line of stacd.conf asks for it, and stafd does not answer`) {
		t.Errorf("exit code %d, %s, %s", code, out, stderr)
	}
}

func TestCompletion(t *testing.T) {
	bus := stastest.NewSystemBus(t, stastest.AllowAll)
	serve(t, stasbus.Staf, newStafd())
	for args, want := range map[string]string{
		"explain ":        "10.0.0.1 10.0.0.2 fd00::3 " + example + "dc " + dcNQN + " nvme0 nvme4",
		"dlp --traddr ":   "10.0.0.1 10.0.0.2 fd00::3",
		"dlp -n ":         example + "dc " + dcNQN,
		"dlp --host-i ":   "",
		"dlp --transp ":   "",
		"dlp -t ":         "tcp rdma fc loop",
		"dlp -f ":         "eth0",
		"ls -o ":          strings.Join(formats, " "),
		"ls --output=ta":  "",
		"dlp --host-nqn ": hostNQN,
	} {
		if want == "" {
			continue
		}
		words := strings.Split("__complete "+args, " ")
		_, out, _ := call(Stafctl, words...)
		lines := strings.Split(strings.TrimSpace(out), "\n")
		if got := strings.Join(lines[:len(lines)-1], " "); got != want || lines[len(lines)-1] != ":4" { // 4: no file names
			t.Errorf("%s: %q, want %q", args, out, want)
		}
	}
	bus.Stop()
	if _, out, _ := call(Stafctl, "__complete", "explain", ""); out != ":4\n" {
		t.Errorf("without a bus: %q", out)
	}
	for _, shell := range []string{"bash", "zsh", "fish"} {
		if code, out, stderr := call(Stacctl, "completion", shell); code != exitOK || !strings.Contains(out, "stacctl") {
			t.Errorf("%s: exit code %d, %s", shell, code, stderr)
		}
	}
}
