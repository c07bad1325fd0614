package startup

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/nvme-stas/stas/internal/boot"
	"github.com/nvme-stas/stas/internal/conf"
	"github.com/nvme-stas/stas/internal/hostid"
	"github.com/nvme-stas/stas/internal/service"
	"github.com/nvme-stas/stas/internal/stastest"
	"github.com/nvme-stas/stas/internal/version"
	"github.com/nvme-stas/stas/pkg/nbft"
	"github.com/nvme-stas/stas/pkg/nvmesysfs"
)

// root has all that the daemons need.
var root = host{euid: func() int { return 0 }, available: func() error { return nil }, udevRule: "/nonexistent/udev/rules.d/x.rules"}

func TestCommandLine(t *testing.T) {
	user, bare := root, root
	user.euid = func() int { return 1000 }
	bare.available = func() error { return errors.New("/dev/nvme-fabrics is missing; modprobe nvme-tcp") }
	const ran = "it runs"
	for _, c := range []struct {
		args   string
		host   host
		code   int
		stdout string // all of it, "…" for some text
		stderr string // a part
	}{
		{"--version", user, exitOK, version.Product + " " + version.Version + "\nlibnvme not used\n", ""},
		{"-v", user, exitOK, version.Product + " " + version.Version + "\nlibnvme not used\n", ""},
		{"--help", user, exitOK, "Usage: stafd […systemctl start stafd…", ""},
		{"-h", user, exitOK, "Usage: stafd […--conf-file…/etc/stas/stafd.conf…--syslog…--tron…--version…", ""},
		{"--bogus", root, exitUsage, "", "stafd: unknown flag: --bogus\n"},
		{"-f", root, exitUsage, "", "Usage: stafd ["},
		{"extra", root, exitUsage, "", `stafd: unexpected argument "extra"`},
		{"--vers", user, exitOK, version.Product + " " + version.Version + "\nlibnvme not used\n", ""},
		{"--hel", user, exitOK, "Usage: stafd […systemctl start stafd…", ""},
		{"--c f", root, exitUsage, "", "ambiguous option: --c could be --check-config, --conf-file\n"},
		{"--bogus --version", root, exitUsage, "", "--bogus"},
		{"", user, exitFailed, "", "run stafd as root, or have systemd do it: systemctl start stafd\n"},
		{"", bare, exitFailed, "", "modprobe nvme-tcp\n"},
		{"", root, exitFailed, "", "stafd ends: " + ran},
		{"--tron", root, exitFailed, "", "tron"},
		{"--restore-udev-rule", user, exitOK, "", ""},
		{"-f /x", root, exitFailed, "", ran},
	} {
		t.Run(c.args, func(t *testing.T) {
			p := stafd(c.host)
			p.run = func(_ context.Context, env service.Env) error {
				if env.Tron {
					return errors.New("tron")
				}
				return errors.New(ran)
			}
			var stdout, stderr bytes.Buffer
			code := p.main(strings.Fields(c.args), &stdout, &stderr)
			if code != c.code || !like(stdout.String(), c.stdout) || !strings.Contains(stderr.String(), c.stderr) || (stderr.Len() == 0) != (c.stderr == "") {
				t.Errorf("exit code %d, want %d\n%s\n%s", code, c.code, stdout.String(), stderr.String())
			}
		})
	}
}

// like compares a text with one in which "…" stands for any text.
func like(s, pattern string) bool {
	parts := strings.Split(pattern, "…")
	if len(parts) == 1 {
		return s == pattern
	}
	for i, part := range parts {
		_, after, ok := strings.Cut(s, part)
		if !ok || i == 0 && !strings.HasPrefix(s, part) {
			return false
		}
		s = after
	}
	return true
}

func TestNamesOfStacd(t *testing.T) {
	var stdout, stderr bytes.Buffer
	if code := Stacd([]string{"--help"}, &stdout, &stderr); code != exitOK || !like(stdout.String(), "Usage: stacd […/etc/stas/stacd.conf…systemctl start stacd…") {
		t.Errorf("exit code %d, %s", code, stdout.String())
	}
}

// What /dev/nvme-fabrics is missing for is named with its remedy, by the real check.
func TestAvailable(t *testing.T) {
	if _, err := os.Stat("/dev/nvme-fabrics"); err == nil {
		t.Skip("this host has /dev/nvme-fabrics")
	}
	if err := thisHost.available(); err == nil || !strings.Contains(err.Error(), "/dev/nvme-fabrics is missing") || !strings.Contains(err.Error(), "modprobe nvme-tcp") {
		t.Errorf("%v", err)
	}
}

// SIGHUP reloads, and SIGTERM and SIGINT end the daemons without a complaint.
func TestSignals(t *testing.T) {
	for _, daemon := range []func(host) program{stafd, stacd} {
		for _, sig := range []syscall.Signal{syscall.SIGTERM, syscall.SIGINT} {
			p := daemon(root)
			t.Run(string(p.name)+" "+sig.String(), func(t *testing.T) {
				// stacd looks for stafd on a bus that is not there.
				t.Setenv("DBUS_SYSTEM_BUS_ADDRESS", "unix:path="+filepath.Join(t.TempDir(), "none"))
				t.Setenv("RUNTIME_DIRECTORY", t.TempDir())
				file := filepath.Join(t.TempDir(), "x.conf")
				write(t, file, "[Global]\ntron=false\n")
				manager := &manager{told: make(chan string, 8)}
				run := p.run
				p.tables = t.TempDir()
				p.run = func(ctx context.Context, env service.Env) error {
					env.Kernel, env.Supervisor = stastest.NewKernel(), manager
					env.Bus = &stastest.Connection{Bus: stastest.NewBus()}
					env.Identity = func(boot.Tables) (hostid.Identity, error) {
						return hostid.Identity{NQN: "nqn.2014-08.org.nvmexpress:uuid:36ebf5a9-1df9-47b3-a6d0-e9ba32e428a2"}, nil
					}
					return run(ctx, env)
				}
				var stdout bytes.Buffer
				var stderr buffer
				code := make(chan int)
				go func() { code <- p.main([]string{"-f", file}, &stdout, &stderr) }()
				manager.expect(t, "ready")
				for _, text := range []string{"[Global]\ntorn=true\n", "[Global\n"} {
					write(t, file, text)
					kill(t, syscall.SIGHUP)
					manager.expect(t, "reloading")
					manager.expect(t, "ready")
				}
				kill(t, sig)
				manager.expect(t, "stopping")
				if c := <-code; c != exitOK {
					t.Errorf("exit code %d", c)
				}
				for _, want := range []string{
					string(p.name) + " " + version.Version + " starts", // and which one
					file + `:2: "torn"`,    // what is wrong with the first new file
					"nothing was reloaded", // for the second
				} {
					if !strings.Contains(stderr.String(), want) {
						t.Errorf("%q is not logged:\n%s", want, stderr.String())
					}
				}
				if strings.Contains(stderr.String(), " ends") || stdout.Len() > 0 {
					t.Errorf("%s\n%s", stdout.String(), stderr.String())
				}
				if _, err := os.Stat(filepath.Join(os.Getenv("RUNTIME_DIRECTORY"), "state.json")); err != nil {
					t.Errorf("no state: %v", err)
				}
			})
		}
	}
}

func write(t *testing.T, file, text string) {
	t.Helper()
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

func kill(t *testing.T, sig syscall.Signal) {
	t.Helper()
	if err := syscall.Kill(os.Getpid(), sig); err != nil {
		t.Fatal(err)
	}
}

// buffer is safe for concurrent use.
type buffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (b *buffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

func (b *buffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}

// manager is a service manager.
type manager struct{ told chan string }

func (m *manager) Ready(string) { m.told <- "ready" }
func (m *manager) Reloading()   { m.told <- "reloading" }
func (m *manager) Stopping()    { m.told <- "stopping" }

func (m *manager) Watchdog(context.Context, func(context.Context) error) error { return nil }

func (m *manager) expect(t *testing.T, want string) {
	t.Helper()
	select {
	case got := <-m.told:
		if got != want {
			t.Fatalf("the manager was told %q, want %q", got, want)
		}
	case <-time.After(10 * time.Second):
		t.Fatalf("the manager is not told %q", want)
	}
}

// Under a service manager the daemon waits for the kernel module, which is
// being loaded at the same time.
func TestWaitsForTheModule(t *testing.T) {
	t.Setenv("NOTIFY_SOCKET", "@nobody")
	synctest.Test(t, func(t *testing.T) {
		tries := 0
		h := root
		h.available = func() error {
			if tries++; tries < 10 {
				return errors.New("missing")
			}
			return nil
		}
		if err := (program{host: h}).check(); err != nil || tries != 10 {
			t.Errorf("%v after %d tries", err, tries)
		}
		h.available = func() error { return errors.New("missing") }
		began := time.Now()
		if err := (program{host: h}).check(); err == nil || time.Since(began) < moduleWait {
			t.Errorf("%v after %v", err, time.Since(began))
		}
	})
}

// TestCheckConfig says what is wrong, without being root and without touching
// anything.
func TestCheckConfig(t *testing.T) {
	user := root
	user.euid = func() int { return 1000 }
	user.available = func() error { return errors.New("/dev/nvme-fabrics is missing") }
	const (
		nqn  = "nqn.2014-08.org.nvmexpress:uuid:36ebf5a9-1df9-47b3-a6d0-e9ba32e428a2"
		uuid = "36ebf5a9-1df9-47b3-a6d0-e9ba32e428a2"
		ok   = "stafd: the configuration is in order\n"
	)
	for _, c := range []struct {
		name   string
		files  map[string]string // "@" stands for their directory
		code   int
		stdout string // all of it
		stderr string // a part
	}{
		{name: "in order", files: map[string]string{"f": "[Global]\nkato=5\n"}, stdout: ok},
		{name: "a note only", files: map[string]string{"f": "\uFEFF[Global]\nkato=5\n"}, stdout: "@/f:1: \"\\ufeff\": the file begins with a byte order mark; skipped\n" + ok},
		{
			name:  "all complaints",
			files: map[string]string{"f": "[Global]\nkato=x\nfoo=1\n", "f.d/a.conf": "[Controllers]\ncontroler=1\n", "sys.conf": "[Hosts]\n"},
			code:  exitFailed,
			stdout: `@/f:2: "kato = x": not a whole number; allowed: seconds, 0 or more; using 30
@/f:3: "foo": no such option in [Global]; line ignored
@/f.d/a.conf:2: "controler": no such option in [Controllers], did you mean "controller"?; line ignored
@/sys.conf:1: "[Hosts]": no such section, there is only [Host]; the whole section is ignored
`,
		},
		{name: "unusable", files: map[string]string{"f": "kato=5\n"}, code: exitFailed, stderr: `stafd: @/f:1: "kato=5": this stands before the first [Section]; nothing of the file is used`},
		{name: "no identity", files: map[string]string{"f": "", "hostnqn": "me"}, code: exitFailed, stderr: `stafd: @/hostnqn: the NQN "me" does not begin with "nqn."`},
		{name: "no file", code: exitFailed, stdout: "", stderr: "stafd: @/f does not exist"},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir := t.TempDir()
			for name, text := range c.files {
				path := filepath.Join(dir, name)
				if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
					t.Fatal(err)
				}
				write(t, path, text)
			}
			p := stafd(user)
			p.run = func(context.Context, service.Env) error { t.Error("it runs"); return nil }
			p.tables = filepath.Join(dir, "tables")
			p.paths = hostid.Paths{SysConf: filepath.Join(dir, "sys.conf"), NQN: filepath.Join(dir, "hostnqn"), ID: filepath.Join(dir, "hostid")}
			if c.files["hostnqn"] == "" {
				write(t, p.paths.NQN, nqn)
			}
			write(t, p.paths.ID, uuid)
			var stdout, stderr bytes.Buffer
			code := p.main([]string{"--check-config", "-f", filepath.Join(dir, "f")}, &stdout, &stderr)
			gotOut, gotErr := strings.ReplaceAll(stdout.String(), dir, "@"), strings.ReplaceAll(stderr.String(), dir, "@")
			if code != c.code || gotOut != c.stdout || !strings.Contains(gotErr, c.stderr) || (gotErr == "") != (c.stderr == "") {
				t.Errorf("exit code %d, want %d\n%s\n%s", code, c.code, gotOut, gotErr)
			}
		})
	}
}

// What only root can read is no mistake of somebody else's configuration.
func TestCheckConfigOfRootsFiles(t *testing.T) {
	issue := conf.Issue{Problem: "open /x: permission denied", Cause: &os.PathError{Op: "open", Path: "/x", Err: syscall.EACCES}}
	issue.Severity = conf.Warning
	for euid, want := range map[int]int{0: 1, 1000: 0} {
		var out bytes.Buffer
		if wrong := show(&out, []conf.Issue{issue}, euid); wrong != want || strings.Contains(out.String(), "only root can check this") != (euid != 0) {
			t.Errorf("as %d: %d mistakes\n%s", euid, wrong, &out)
		}
	}
}

// A host without files of its own is who its firmware was, in the spelling of
// the host ID that the NQN suggests.
func TestBootTables(t *testing.T) {
	const (
		uuid = "33221100-5544-7766-8899-aabbccddeeff"
		nqn  = "nqn.2014-08.org.nvmexpress:uuid:" + uuid
	)
	table := nbft.Table{
		Header: nbft.Header{Major: 1},
		Host: nbft.Host{
			NQN: nqn,
			ID:  nbft.HostID{0, 0x11, 0x22, 0x33, 0x44, 0x55, 0x66, 0x77, 0x88, 0x99, 0xaa, 0xbb, 0xcc, 0xdd, 0xee, 0xff},
		},
		Discovery: []nbft.Discovery{{Index: 1, URI: "nvme+tcp://192.0.2.1:8009/", NQN: "nqn.dc"}},
	}
	b, err := table.AppendBinary(nil)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	write(t, filepath.Join(dir, "NBFT"), string(b))
	write(t, filepath.Join(dir, "NBFT1"), "x")
	write(t, filepath.Join(dir, "stafd.conf"), "")
	p := stafd(root)
	p.tables = dir
	p.paths = hostid.Paths{SysConf: filepath.Join(dir, "sys.conf"), NQN: filepath.Join(dir, "hostnqn"), ID: filepath.Join(dir, "hostid")}
	p.run = func(_ context.Context, env service.Env) error {
		for range 2 {
			tables := env.BootTables()
			if len(tables.Discovery) != 1 || tables.Unread {
				t.Errorf("%+v", tables)
			}
			if id, err := env.Identity(tables); err != nil || id.NQN != nqn || id.ID != uuid {
				t.Errorf("%+v, %v", id, err)
			}
		}
		return nil
	}
	args := []string{"-f", filepath.Join(dir, "stafd.conf")}
	var stdout, stderr bytes.Buffer
	if code := p.main(args, &stdout, &stderr); code != exitOK {
		t.Errorf("exit code %d", code)
	}
	for text, want := range map[string]int{"boot tables of its firmware: NBFT\n": 2, "NBFT1: not a usable NBFT": 1, "the one of the boot table NBFT\n": 2} {
		if got := strings.Count(strings.ReplaceAll(stderr.String(), `"`, ""), text); got != want {
			t.Errorf("%q is logged %d times, want %d:\n%s", text, got, want, stderr.String())
		}
	}

	// To have to look into the tables is a complaint; what they are like is none.
	for _, want := range []int{exitFailed, exitOK} {
		if want == exitOK {
			write(t, p.paths.NQN, nqn)
			write(t, p.paths.ID, uuid)
		}
		stdout.Reset()
		stderr.Reset()
		if code := p.main(append(args, "--check-config"), &stdout, &stderr); code != want || !strings.Contains(stdout.String(), "NBFT1: not a usable NBFT") || stderr.Len() > 0 ||
			strings.Contains(stdout.String(), "the one of the boot table NBFT") != (want == exitFailed) {
			t.Errorf("exit code %d, want %d\n%s\n%s", code, want, &stdout, &stderr)
		}
	}
}

// systemd lists all directories of the unit, in an order of its own.
func TestRuntimeDir(t *testing.T) {
	for env, want := range map[string]string{
		"": "/run/stafd", "/x": "/x", "/run/stafd": "/run/stafd",
		"/run/nvme/registry:/run/stafd": "/run/stafd", "/run/stafd:/run/nvme/registry": "/run/stafd",
	} {
		t.Setenv("RUNTIME_DIRECTORY", env)
		if got := runtimeDir(conf.Stafd); got != want {
			t.Errorf("%q: %s, want %s", env, got, want)
		}
	}
}

// A candidate takes the place of the main file, and the files beside that one
// stay; an empty one stands for the files as they are.
func TestCandidate(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "stafd.conf")
	if err := os.Mkdir(file+".d", 0o755); err != nil {
		t.Fatal(err)
	}
	const line = "controller=transport=tcp;traddr="
	write(t, file, "[Controllers]\n"+line+"10.0.0.1\n")
	write(t, filepath.Join(file+".d", "a.conf"), "[Controllers]\n"+line+"10.0.0.2\n")
	p := stafd(root)
	sysfs, err := nvmesysfs.NewFS(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	p.paths = hostid.Paths{SysConf: filepath.Join(dir, "sys.conf")}
	write(t, p.paths.SysConf, "[Host]\nnqn=nqn.2014-08.org.nvmexpress:uuid:36ebf5a9-1df9-47b3-a6d0-e9ba32e428a2\nid=36ebf5a9-1df9-47b3-a6d0-e9ba32e428a2\n")
	for text, want := range map[string]string{
		"":                                    "10.0.0.1 10.0.0.2",
		"[Controllers]\n" + line + "10.0.0.3": "10.0.0.3 10.0.0.2",
		"\n":                                  "10.0.0.2",
		"[Controllers\n":                      "error",
		"[Controllers]\n" + line + "x y":      "10.0.0.2 and complaints",
	} {
		c, err := p.candidate(file, text, boot.Source{Dir: t.TempDir()}, sysfs)
		var got []string
		if err != nil {
			got = append(got, "error")
		} else {
			for _, x := range c.Config.Controllers {
				got = append(got, x.ID.TrAddr)
			}
			if c.Identity.NQN == "" {
				t.Errorf("%q: nobody's", text)
			}
			if len(c.Issues) > 0 {
				got = append(got, "and complaints")
			}
		}
		if strings.Join(got, " ") != want {
			t.Errorf("%q: %q, want %q; %v %q", text, got, want, err, c.Issues)
		}
	}
}
