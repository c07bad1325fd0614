//go:build linux

package scenario

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/nvme-stas/stas/pkg/nvme"
	"github.com/nvme-stas/stas/pkg/nvmesysfs"
	"github.com/nvme-stas/stas/pkg/target"
)

// uniqueNQN is the name of a discovery subsystem that has one of its own.
const uniqueNQN = "nqn.2026-11.org.example:discovery"

// openLab opens a target of pkg/target in this process. It is closed when the
// case ends, before the guest is cleaned up: the kernel then deletes the
// controllers without waiting for answers.
func openLab(g *Guest, config target.Config) *target.Target {
	g.Helper()
	if !kernelSince(g, 6, 5) {
		// What a host sends from two huge pages at a time arrives at a socket of
		// this machine as one piece, which no page contains: hardened_usercopy
		// panics when it is read. Since MSG_SPLICE_PAGES pieces end with pages.
		setKernel(g, "/sys/kernel/mm/transparent_hugepage/enabled", "never", "always")
	}
	lab, err := target.Open(config, target.Options{Log: slog.New(slog.NewTextHandler(g.Output(), nil))})
	if err != nil {
		g.Fatal(err)
	}
	g.Cleanup(func() {
		if g.Failed() {
			g.Logf("controllers before the target is closed:\n%s", g.describeControllers())
		}
		lab.Close()
	})
	return lab
}

// labListener makes a listener of a port; labName is what it is called.
func labListener(p Port, d target.Discovery) target.Listener {
	return target.Listener{
		Name: labName(p), PortID: uint16(p.ID), Discovery: d,
		Address: net.JoinHostPort(p.Addr, strconv.Itoa(p.Svc)),
	}
}

func labName(p Port) string { return fmt.Sprintf("port%d", p.ID) }

// labSubsystems are n subsystems with a namespace of 64 MiB.
func labSubsystems(n int) []target.Subsystem {
	var all []target.Subsystem
	for _, s := range nqns(n) {
		all = append(all, target.Subsystem{NQN: s})
	}
	return all
}

// must ends the test if something that a case does to the target failed.
func must(g *Guest, err error) {
	g.Helper()
	if err != nil {
		g.Fatal(err)
	}
}

// addFault makes the target do something wrong until end is called.
func addFault(g *Guest, lab *target.Target, f target.Fault) (end func()) {
	g.Helper()
	id, err := lab.AddFault(f)
	must(g, err)
	return func() { g.Helper(); must(g, lab.RemoveFault(id)) }
}

// strikes complains until the only fault that is on has struck.
func strikes(g *Guest, lab *target.Target) func() string {
	return func() string {
		g.Helper()
		if _, did := struck(g, lab); did == 0 {
			return "it has not struck"
		}
		return ""
	}
}

// struck returns how often the only fault that is on has been met and has
// struck.
func struck(g *Guest, lab *target.Target) (met, done int) {
	g.Helper()
	all := lab.Faults()
	if len(all) != 1 {
		g.Fatalf("%d faults are on, want 1", len(all))
	}
	return all[0].Met, all[0].Done
}

// kernelSince reports whether the kernel is of a release or a later one.
func kernelSince(g *Guest, major, minor int) bool {
	g.Helper()
	text, err := os.ReadFile("/proc/sys/kernel/osrelease")
	if err != nil {
		g.Fatal(err)
	}
	var is [2]int
	if _, err := fmt.Sscanf(string(text), "%d.%d", &is[0], &is[1]); err != nil {
		g.Fatalf("kernel release %q: %v", text, err)
	}
	return slices.Compare(is[:], []int{major, minor}) >= 0
}

// kernelAuthenticates reports whether the kernel was built with DH-HMAC-CHAP;
// if not, it takes the options all the same.
func kernelAuthenticates(g *Guest) bool {
	g.Helper()
	symbols, err := os.ReadFile("/proc/kallsyms")
	must(g, err)
	return bytes.Contains(symbols, []byte(" nvme_auth_negotiate"))
}

// kernelLog begins to listen to the kernel's log; said returns what it has
// said since.
func kernelLog(g *Guest) (said func() string) {
	g.Helper()
	fd, err := syscall.Open("/dev/kmsg", syscall.O_RDONLY|syscall.O_NONBLOCK|syscall.O_CLOEXEC, 0)
	if err != nil {
		g.Fatal(err)
	}
	g.Cleanup(func() { syscall.Close(fd) })
	if _, err := syscall.Seek(fd, 0, io.SeekEnd); err != nil {
		g.Fatal(err)
	}
	var text strings.Builder
	return func() string {
		for record := make([]byte, 8192); ; {
			n, err := syscall.Read(fd, record)
			switch {
			case errors.Is(err, syscall.EPIPE), errors.Is(err, syscall.EINTR):
				// Records were overwritten; the next one is there.
			case err != nil || n <= 0:
				return text.String()
			default:
				_, message, _ := bytes.Cut(record[:n], []byte(";"))
				text.Write(message)
			}
		}
	}
}

// setKernel sets something in the kernel until the case ends.
func setKernel(g *Guest, file, value, before string) {
	g.Helper()
	writeFile(g, file, value)
	g.Cleanup(func() { writeFile(g, file, before) })
}

// uevents are what the kernel tells user space about NVMe.
type uevents struct{ file string }

// watchUevents begins to listen.
func watchUevents(g *Guest) *uevents {
	g.Helper()
	w := &uevents{filepath.Join(g.TempDir(), "events")}
	g.Background("sh", "-c", "exec udevadm monitor --kernel --property --subsystem-match=nvme >"+w.file)
	eventually(g, soon, "udevadm monitor starts", func() string {
		text, _ := os.ReadFile(w.file) // not there before the shell has made it
		if !strings.Contains(string(text), "KERNEL - ") {
			return "no sign of it"
		}
		return ""
	})
	return w
}

// count returns how many events there were with all of these properties, each
// one written "NAME=value".
func (w *uevents) count(properties ...string) int {
	text, _ := os.ReadFile(w.file)
	n := 0
	for event := range strings.SplitSeq(string(text), "\n\n") {
		lines := strings.Split(event, "\n")
		if !slices.ContainsFunc(properties, func(p string) bool { return !slices.Contains(lines, p) }) {
			n++
		}
	}
	return n
}

// aen is the property of an event that tells of a changed discovery log.
const aen = "NVME_AEN=0x70f002"

// of returns the property that all events of a controller have.
func of(controller string) string { return "DEVPATH=/devices/virtual/nvme-fabrics/ctl/" + controller }

// aens counts those of a controller.
func (w *uevents) aens(controller string) int { return w.count(aen, of(controller)) }

// countIs complains until count is n.
func countIs(count func() int, n int) func() string {
	return func() string {
		if got := count(); got != n {
			return fmt.Sprintf("there were %d, want %d", got, n)
		}
		return ""
	}
}

// settle waits until what counts up stands still for a second.
func settle(g *Guest, count func() int) {
	g.Helper()
	last, since := count(), g.Now()
	eventually(g, soon, "no more events", func() string {
		if n := count(); n != last {
			last, since = n, g.Now()
		}
		if g.Now().Sub(since) < time.Second {
			return "there are still some"
		}
		return ""
	})
}

// attr returns an attribute of a controller as sysfs shows it, "" if it is not
// there.
func attr(g *Guest, controller, name string) string {
	text, _ := g.sysfs.Attr(controller, name)
	return text
}

// blockAttr returns an attribute of a block device.
func blockAttr(g *Guest, device, name string) string {
	g.Helper()
	text, err := os.ReadFile(filepath.Join("/sys/block", filepath.Base(device), name))
	must(g, err)
	return strings.TrimSpace(string(text))
}

// stateIs complains until a controller is in a state; "" is that it is gone.
func stateIs(g *Guest, controller string, want nvmesysfs.State) func() string {
	return func() string {
		if got := attr(g, controller, "state"); got != string(want) {
			return fmt.Sprintf("%s is %q, want %q", controller, got, want)
		}
		return ""
	}
}

// attrIs complains until an attribute of a controller is what it should be.
func attrIs(g *Guest, controller, name, want string) func() string {
	return func() string {
		if got := attr(g, controller, name); got != want {
			return fmt.Sprintf("%s of %s is %q, want %q", name, controller, got, want)
		}
		return ""
	}
}

// readLog reads the discovery log as the host of a controller sees it, which
// also tells the target that further changes are of interest.
func readLog(g *Guest, controller string) []nvme.DiscoveryLogEntry {
	g.Helper()
	out, err := exec.Command("nvme", "get-log", "/dev/"+controller,
		"--log-id=0x70", "--log-len=8192", "--raw-binary").Output()
	if err != nil {
		g.Fatalf("get-log: %v", err)
	}
	header, err := nvme.DecodeLogHeader(out)
	must(g, err)
	var all []nvme.DiscoveryLogEntry
	for i := range header.NumRec {
		e, err := nvme.DecodeLogEntry(out[nvme.LogHeaderSize+i*nvme.EntrySize:])
		must(g, err)
		all = append(all, e)
	}
	return all
}

// storageIn returns the subsystems that a log lists, sorted.
func storageIn(log []nvme.DiscoveryLogEntry) []string {
	var all []string
	for _, e := range log {
		if e.SubType == nvme.NVMSubsystem {
			all = append(all, e.SubNQN)
		}
	}
	slices.Sort(all)
	return all
}

// nvmeJSON runs nvme-cli, which prints JSON.
func nvmeJSON(g *Guest, into any, args ...string) {
	g.Helper()
	out, err := exec.Command("nvme", append(args, "--output-format=json")...).Output()
	if err != nil {
		g.Fatalf("nvme %s: %v\n%s", strings.Join(args, " "), err, out)
	}
	if err := json.Unmarshal(out, into); err != nil {
		g.Fatalf("nvme %s: %v\n%s", strings.Join(args, " "), err, out)
	}
}

// portArgs are the arguments by which nvme-cli finds a port.
func portArgs(p Port) []string {
	return []string{"--transport=tcp", "--traddr=" + p.Addr, "--trsvcid=" + strconv.Itoa(p.Svc)}
}

// runInput runs a command that reads its standard input.
func runInput(g *Guest, input, name string, args ...string) string {
	g.Helper()
	cmd := exec.Command(name, args...)
	cmd.Stdin = strings.NewReader(input)
	out, err := cmd.CombinedOutput()
	if err != nil {
		g.Fatalf("%s: %v\n%s", cmd, err, out)
	}
	return string(out)
}

// span is how long something may take: wide, because the guest's processor is
// emulated.
type span struct{ least, most time.Duration }

func (s span) complaint(took time.Duration) string {
	if took < s.least || took > s.most {
		return fmt.Sprintf("it took %v, want %v to %v", took.Round(10*time.Millisecond), s.least, s.most)
	}
	return ""
}
