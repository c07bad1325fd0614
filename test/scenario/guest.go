//go:build linux

package scenario

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/nvme-stas/stas/internal/boot"
	"github.com/nvme-stas/stas/internal/exclusions"
	"github.com/nvme-stas/stas/internal/stasbus"
	"github.com/nvme-stas/stas/pkg/nbft"
	"github.com/nvme-stas/stas/pkg/nvmesysfs"
)

// InGuest reports whether the tests run in the guest of test/vm, whose kernel
// and system they may turn upside down.
func InGuest() bool { return os.Getenv("STAS_GUEST") == "1" }

// What the host half of a [Guest] works with.
const (
	configDir = "/etc/stas"
	// leaveLimit is how long controllers and daemons may take to go. A connect
	// that hangs in the kernel cannot be broken off for 60 s.
	leaveLimit = 90 * time.Second
)

// stateDirs is where the daemons keep what survives their restart.
var stateDirs = []string{"/run/stafd", "/run/stacd"}

// guestDaemons are all that may run in a guest, the peer's in one suite only.
var guestDaemons = []Daemon{Stafd, Stacd, "peer-stafd", "peer-stacd"}

// Guest is the World of the guest of test/vm: a real kernel, systemd and
// D-Bus, and the kernel's own target beside the daemons.
type Guest struct {
	testing.TB
	target *nvmet
	sysfs  *nvmesysfs.FS
	cursor string // the place in the journal where the case began
}

var _ World = (*Guest)(nil)

// NewGuest takes the guest, and cleans it up before and after the case.
func NewGuest(t testing.TB) *Guest {
	t.Helper()
	if !InGuest() {
		t.Fatal("this needs the guest of test/vm, and would disturb any other machine")
	}
	sysfs, err := nvmesysfs.NewFS("/sys")
	if err != nil {
		t.Fatal(err)
	}
	g := &Guest{TB: t, target: newNvmet(t), sysfs: sysfs}
	g.clean()
	g.cursor = g.journalCursor()
	t.Cleanup(func() {
		g.tellFailure()
		g.clean()
	})
	return g
}

// within lends the guest, with its target, to a part of the test.
func (g *Guest) within(t testing.TB) *Guest {
	t.Helper()
	part := &Guest{TB: t, target: g.target, sysfs: g.sysfs, cursor: g.journalCursor()}
	g.target.TB = t
	t.Cleanup(func() {
		g.target.TB = g.TB
		part.tellFailure()
	})
	return part
}

// tellFailure shows what there is to see after a failure.
func (g *Guest) tellFailure() {
	if g.Failed() {
		g.Logf("controllers at the end:\n%s", g.describeControllers())
		g.Logf("journal of the case:\n%s", g.Journal())
	}
}

// OpenPort implements [World].
func (g *Guest) OpenPort(p Port) { g.Helper(); g.target.openPort(p) }

// ClosePort implements [World].
func (g *Guest) ClosePort(p Port) { g.Helper(); g.target.closePort(p) }

// BlackHole implements [World].
func (g *Guest) BlackHole(p Port) { g.Helper(); g.target.blackHole(p) }

// AddSubsystem implements [World].
func (g *Guest) AddSubsystem(nqn string, ports ...Port) {
	g.Helper()
	g.target.addSubsystem(nqn, ports)
}

// Refer implements [World].
func (g *Guest) Refer(from Port, to ...Port) {
	g.Helper()
	g.target.refer(from, to)
}

// RemoveSubsystem implements [World].
func (g *Guest) RemoveSubsystem(nqn string, ports ...Port) {
	g.Helper()
	g.target.removeSubsystem(nqn, ports)
}

// Configure implements [World].
func (g *Guest) Configure(d Daemon, text string) {
	g.Helper()
	writeFile(g, filepath.Join(configDir, string(d)+".conf"), text)
}

// Unconfigure implements [World].
func (g *Guest) Unconfigure(d Daemon) {
	g.Helper()
	if err := os.Remove(filepath.Join(configDir, string(d)+".conf")); err != nil {
		g.Fatal(err)
	}
}

// DropIn implements [World].
func (g *Guest) DropIn(d Daemon, name, text string) {
	g.Helper()
	dropIn(g, filepath.Join(configDir, string(d)+".conf"), name, text)
}

// Exclude implements [World].
func (g *Guest) Exclude(text string) { g.Helper(); writeFile(g, exclusions.DefaultPath, text) }

// hostsFile has the host names of a guest, which has no name server.
const hostsFile = "/etc/hosts"

// HostName implements [World].
func (g *Guest) HostName(name string, addrs ...string) {
	g.Helper()
	text, err := os.ReadFile(hostsFile)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		g.Fatal(err)
	}
	var b strings.Builder
	for line := range strings.Lines(string(text)) {
		if !slices.Contains(strings.Fields(line), name) {
			b.WriteString(line)
		}
	}
	for _, a := range addrs {
		b.WriteString(a + " " + name + "\n")
	}
	writeFile(g, hostsFile, b.String())
	if len(addrs) > 0 {
		g.Cleanup(func() { g.HostName(name) })
	}
}

// BootTable implements [World]. The firmware has the table that QEMU was given.
func (g *Guest) BootTable(table *nbft.Table) {
	g.Helper()
	want, err := table.AppendBinary(nil)
	if err != nil {
		g.Fatal(err)
	}
	got, err := os.ReadFile(filepath.Join(boot.DefaultDir, "NBFT"))
	if errors.Is(err, fs.ErrNotExist) {
		g.Skip("the guest has no boot table; -nbft gives it one")
	}
	if err != nil || !bytes.Equal(got, want) {
		g.Fatalf("the guest has another boot table: %v\n%x\n%x", err, got, want)
	}
}

// Start implements [World]; the units are of a type that reports readiness.
func (g *Guest) Start(daemons ...Daemon) { g.Helper(); g.systemctl("start", daemons) }

// Stop implements [World].
func (g *Guest) Stop(daemons ...Daemon) { g.Helper(); g.systemctl("stop", daemons) }

// Reload implements [World].
func (g *Guest) Reload(daemons ...Daemon) { g.Helper(); g.systemctl("reload", daemons) }

// Kill implements [World], and returns when systemd has the daemon running
// again.
func (g *Guest) Kill(d Daemon) {
	g.Helper()
	before := g.MainPID(d)
	if before == 0 {
		g.Fatalf("%s does not run", d)
	}
	run(g, "systemctl", "kill", "--signal=KILL", string(d))
	deadline := time.Now().Add(leaveLimit)
	for {
		pid := g.MainPID(d)
		active := exec.Command("systemctl", "--quiet", "is-active", string(d)).Run() == nil
		if active && pid != 0 && pid != before {
			return
		}
		if time.Now().After(deadline) {
			g.Fatalf("%s was killed and has not come back after %v", d, leaveLimit)
		}
		time.Sleep(100 * time.Millisecond)
	}
}

// Hang implements [World].
func (g *Guest) Hang(d Daemon) { g.Helper(); run(g, "systemctl", "kill", "--signal=STOP", string(d)) }

// Wake implements [World].
func (g *Guest) Wake(d Daemon) { g.Helper(); run(g, "systemctl", "kill", "--signal=CONT", string(d)) }

// RestartBus implements [World]. To restart the unit is not enough: that of
// some releases lets the process run on. Its socket starts another one.
func (g *Guest) RestartBus() {
	g.Helper()
	const bus Daemon = "dbus"
	before := g.MainPID(bus)
	run(g, "systemctl", "kill", "--signal=KILL", string(bus))
	eventually(g, soon, "the bus is back", func() string {
		_ = exec.Command("busctl", "--system", "list").Run() // somebody has to call
		if pid := g.MainPID(bus); pid == 0 || pid == before {
			return fmt.Sprintf("its process is %d, and was %d", pid, before)
		}
		return ""
	})
}

// tools are the programs that ask the daemons.
var tools = map[Daemon]string{Stafd: "stafctl", Stacd: "stacctl"}

// Answer implements [World].
func (g *Guest) Answer(d Daemon) (time.Duration, error) {
	began := time.Now()
	out, err := exec.Command(tools[d], "status").CombinedOutput()
	if err != nil {
		err = fmt.Errorf("%s status: %w: %s", tools[d], err, bytes.TrimSpace(out))
	}
	return time.Since(began), err
}

// Plan implements [World].
func (g *Guest) Plan(d Daemon, text string) (p stasbus.Plan) {
	g.Helper()
	args := []string{"plan", "-o", "json"}
	if text != "" {
		file := filepath.Join(g.TempDir(), "candidate.conf")
		writeFile(g, file, text)
		args = append(args, "-f", file)
	}
	out := run(g, tools[d], args...)
	if err := json.Unmarshal([]byte(out), &p); err != nil {
		g.Fatalf("%s plan: %v\n%s", tools[d], err, out)
	}
	return p
}

// Report implements [World].
func (g *Guest) Report(d Daemon) (r stasbus.Report) {
	g.Helper()
	if err := json.Unmarshal([]byte(run(g, tools[d], "status", "--output", "json")), &r); err != nil {
		g.Fatal(err)
	}
	return r
}

// MainPID returns the process of a daemon, 0 when it does not run.
func (g *Guest) MainPID(d Daemon) int { g.Helper(); return g.property(d, "MainPID") }

// Restarts implements [World].
func (g *Guest) Restarts(d Daemon) int { g.Helper(); return g.property(d, "NRestarts") }

// property is a number that systemd knows of a unit.
func (g *Guest) property(d Daemon, name string) int {
	g.Helper()
	text := run(g, "systemctl", "show", "--property="+name, "--value", string(d))
	n, err := strconv.Atoi(strings.TrimSpace(text))
	if err != nil {
		g.Fatalf("%s of %s: %v", name, d, err)
	}
	return n
}

// ForgetState implements [World].
func (g *Guest) ForgetState(daemons ...Daemon) {
	g.Helper()
	for _, dir := range stateDirs {
		if len(daemons) > 0 && !slices.Contains(daemons, Daemon(filepath.Base(dir))) {
			continue
		}
		if err := os.RemoveAll(dir); err != nil {
			g.Error(err)
		}
	}
}

func stateFile(d Daemon) string { return filepath.Join("/run", string(d), "state.json") }

// State implements [World].
func (g *Guest) State(d Daemon) string {
	g.Helper()
	text, err := os.ReadFile(stateFile(d))
	if err != nil {
		g.Fatal(err)
	}
	return string(text)
}

// SetState implements [World].
func (g *Guest) SetState(d Daemon, text string) { g.Helper(); writeFile(g, stateFile(d), text) }

// Controllers implements [World].
func (g *Guest) Controllers() []nvmesysfs.Controller {
	g.Helper()
	names, err := g.sysfs.Names()
	if err != nil {
		g.Fatal(err)
	}
	var controllers []nvmesysfs.Controller
	for _, name := range names {
		c, err := g.sysfs.Read(name)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			g.Fatal(err)
		}
		if c.Transport != "pcie" {
			controllers = append(controllers, c)
		}
	}
	return controllers
}

// Serial implements [World]: the inode of its directory, which sysfs does not
// use again.
func (g *Guest) Serial(controller string) uint64 {
	g.Helper()
	var st syscall.Stat_t
	err := syscall.Stat("/sys/class/nvme/"+controller, &st)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		g.Fatal(err)
	}
	return st.Ino
}

// Disconnect implements [World].
func (g *Guest) Disconnect(controller string) {
	g.Helper()
	run(g, "nvme", "disconnect", "--device="+controller)
}

// Attribute implements [World].
func (g *Guest) Attribute(controller, attribute string) string {
	g.Helper()
	v, err := g.sysfs.Attr(controller, attribute)
	if err != nil {
		g.Fatal(err)
	}
	return v
}

// Now implements [World].
func (g *Guest) Now() time.Time { return time.Now() }

// Sleep implements [World].
func (g *Guest) Sleep(d time.Duration) { time.Sleep(d) }

// namespaceName is the block device of a namespace, not of a path to it.
var namespaceName = regexp.MustCompile(`^nvme\d+n\d+$`)

// BlockDevice returns the device of a connected subsystem's first namespace,
// for which it waits a little: it appears after the controller is live.
func (g *Guest) BlockDevice(nqn string) string {
	g.Helper()
	const limit = 10 * time.Second
	for deadline := time.Now().Add(limit); time.Now().Before(deadline); time.Sleep(50 * time.Millisecond) {
		if all := g.BlockDevices(nqn); len(all) > 0 {
			return all[0]
		}
	}
	g.Fatalf("%s has no block device after %v", nqn, limit)
	return ""
}

// BlockDevices returns the devices of a connected subsystem's namespaces, by
// name. They are the subsystem's, or with a single path the controller's.
func (g *Guest) BlockDevices(nqn string) []string {
	g.Helper()
	var devices []string
	for _, pattern := range []string{"nvme*n*", "nvme*/nvme*n*"} {
		found, err := filepath.Glob("/sys/class/nvme-subsystem/*/" + pattern)
		if err != nil {
			g.Fatal(err)
		}
		for _, name := range found {
			subsystem := strings.Split(name, "/")[4]
			text, err := os.ReadFile(filepath.Join("/sys/class/nvme-subsystem", subsystem, "subsysnqn"))
			device := "/dev/" + filepath.Base(name)
			if err != nil || strings.TrimSpace(string(text)) != nqn || !namespaceName.MatchString(filepath.Base(name)) {
				continue // another one, or one that is going
			}
			if _, err := os.Stat(device); err == nil {
				devices = append(devices, device)
			}
		}
	}
	slices.Sort(devices)
	return slices.Compact(devices)
}

// Background starts a command; wait returns its output when it has ended, and
// fails the test if it ended badly. The case's end ends the command.
func (g *Guest) Background(name string, args ...string) (wait func() string) {
	g.Helper()
	cmd := exec.CommandContext(g.Context(), name, args...)
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Start(); err != nil {
		g.Fatal(err)
	}
	ended := sync.OnceValue(cmd.Wait)
	g.Cleanup(func() { _ = ended() })
	return func() string {
		g.Helper()
		if err := ended(); err != nil {
			g.Fatalf("%s: %v\n%s", cmd, err, out.String())
		}
		return out.String()
	}
}

// Journal returns what the daemons, systemd about them, and the kernel logged
// since the case began; of a lot, the end.
func (g *Guest) Journal() string {
	args := []string{
		"--no-hostname", "--output=short-precise", "--lines=400",
		"--after-cursor=" + g.cursor, "_TRANSPORT=kernel",
	}
	for _, d := range guestDaemons {
		unit := string(d) + ".service"
		args = append(args, "+", "_SYSTEMD_UNIT="+unit, "+", "UNIT="+unit)
	}
	out, err := exec.Command("journalctl", args...).CombinedOutput()
	if err != nil {
		return fmt.Sprintf("%s\njournalctl: %v", out, err)
	}
	return string(out)
}

// journalCursor returns the present end of the journal.
func (g *Guest) journalCursor() string {
	g.Helper()
	out := run(g, "journalctl", "--lines=0", "--show-cursor")
	_, cursor, ok := strings.Cut(out, "-- cursor: ")
	if !ok {
		g.Fatalf("journalctl shows no cursor: %q", out)
	}
	return strings.TrimSpace(cursor)
}

// describeControllers lists the controllers for the reader of a failure.
func (g *Guest) describeControllers() string {
	var b strings.Builder
	for _, c := range g.Controllers() {
		fmt.Fprintf(&b, "%s %s %s %s %s %s\n", c.Name, c.State, c.CntrlType, c.TrAddr, c.TrSvcID, c.SubsysNQN)
	}
	return b.String()
}

// systemctl does something to daemons, and shows why it failed.
func (g *Guest) systemctl(verb string, daemons []Daemon) {
	g.Helper()
	args := []string{verb}
	for _, d := range daemons {
		args = append(args, string(d))
	}
	run(g, "systemctl", args...)
}

// clean brings the guest into the state in which a case begins.
func (g *Guest) clean() {
	g.Helper()
	g.Fresh()
	g.target.remove()
}

// Fresh implements [World].
func (g *Guest) Fresh() {
	g.Helper()
	g.endDaemons()
	g.deleteControllers()
	g.ForgetState()
	if err := os.MkdirAll(configDir, 0o755); err != nil {
		g.Fatal(err)
	}
	configs, err := filepath.Glob(configDir + "/*.conf")
	if err != nil {
		g.Fatal(err)
	}
	for _, path := range []string{configDir + "/stafd.conf.d", configDir + "/stacd.conf.d", exclusions.DefaultPath} {
		if err := os.RemoveAll(path); err != nil {
			g.Error(err)
		}
	}
	for _, c := range append(configs, configDir+"/stafd.conf", configDir+"/stacd.conf") {
		writeFile(g, c, "")
	}
}

// endDaemons stops the daemons without giving them a say. A guest in which
// none is installed has none to stop.
func (g *Guest) endDaemons() {
	g.Helper()
	for _, d := range guestDaemons {
		state := run(g, "systemctl", "show", "--property=LoadState,ActiveState", string(d))
		if !strings.Contains(state, "LoadState=loaded\n") || strings.Contains(state, "ActiveState=inactive\n") {
			continue
		}
		// With the stop already ordered, the kill brings no restart.
		run(g, "systemctl", "stop", "--no-block", string(d))
		// Fails when there is no process, which is the aim.
		_ = exec.Command("systemctl", "kill", "--signal=KILL", string(d)).Run()
		run(g, "systemctl", "stop", string(d))
		// Forgets failures and how often it was started; fails when there is
		// nothing to forget.
		_ = exec.Command("systemctl", "reset-failed", string(d)).Run()
	}
}

// deleteControllers takes all fabrics controllers away, all at a time.
func (g *Guest) deleteControllers() {
	g.Helper()
	deadline := time.Now().Add(leaveLimit)
	for {
		controllers := g.Controllers()
		if len(controllers) == 0 {
			return
		}
		if time.Now().After(deadline) {
			g.Fatalf("controllers that do not go:\n%s", g.describeControllers())
		}
		var all sync.WaitGroup
		for _, c := range controllers {
			all.Go(func() {
				// Fails while the controller connects for the first time, and
				// when it has gone in the meantime. The next pass tells.
				file := filepath.Join("/sys/class/nvme", c.Name, "delete_controller")
				_ = os.WriteFile(file, []byte("1"), 0)
			})
		}
		all.Wait()
		time.Sleep(20 * time.Millisecond)
	}
}

// run runs a command and returns its output; the test fails with it.
func run(t testing.TB, name string, args ...string) string {
	t.Helper()
	out, err := exec.Command(name, args...).CombinedOutput()
	if err != nil {
		t.Fatalf("%s %s: %v\n%s", name, strings.Join(args, " "), err, out)
	}
	return string(out)
}
