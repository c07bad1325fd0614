//go:build linux

package scenario

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/nvme-stas/stas/pkg/nvme"
	"github.com/nvme-stas/stas/pkg/nvmesysfs"
)

// TestGuest runs all cases on the real kernel.
func TestGuest(t *testing.T) {
	if !InGuest() {
		t.Skip("go run ./test/vm test runs this in a guest")
	}
	RunAll(t, slices.Concat(Cases, GuestCases), func(t *testing.T, run func(World)) { run(NewGuest(t)) })
}

// TestGuestFaults has the faults befall one host, whose target stays the same.
func TestGuestFaults(t *testing.T) {
	if !InGuest() {
		t.Skip("go run ./test/vm test runs this in a guest")
	}
	g := NewGuest(t)
	offer(g, portA, faultSubsystems)
	RunFaults(t, func(t *testing.T, run func(World)) { run(g.within(t)) })
}

// TestGuestTarget shows that the target half of the guest does what World says
// it does, with nvme-cli in the place of the daemons.
func TestGuestTarget(t *testing.T) {
	if !InGuest() {
		t.Skip("go run ./test/vm test runs this in a guest")
	}
	portAdded := Port{ID: 4, Addr: "fd00:5741::1", Svc: 8009}

	t.Run("EmptyPort", func(t *testing.T) {
		g := NewGuest(t)
		for _, p := range []Port{portA, portV6, portAdded} {
			g.OpenPort(p)
			if got := discover(g, p); len(got) != 0 {
				t.Errorf("port %d offers %v, want nothing", p.ID, got)
			}
		}
		g.AddSubsystem(nqn(0), portV6)
		if got := discover(g, portV6); !slices.Equal(got, []string{nqn(0)}) {
			t.Errorf("after adding, it offers %v", got)
		}
	})

	t.Run("Announced", func(t *testing.T) {
		g := NewGuest(t)
		g.OpenPort(portA)
		connectDC(g, portA)
		for _, change := range []func(string, ...Port){g.AddSubsystem, g.RemoveSubsystem} {
			seen := watchAENs(g)
			change(nqn(0), portA)
			eventually(g, soon, "an AEN", seen)
			// The target says it once, until somebody has read the log.
			run(g, "nvme", "get-log", "/dev/"+g.Controllers()[0].Name, "--log-id=0x70", "--log-len=1024")
		}
	})

	t.Run("ClosedAndReopened", func(t *testing.T) {
		g := NewGuest(t)
		g.OpenPort(portA)
		g.AddSubsystem(nqn(0), portA)
		connectDC(g, portA)
		connectIOC(g, portA, nqn(0))
		states := func(want nvmesysfs.State) func() string {
			return func() string {
				all := g.Controllers()
				for _, c := range all {
					if c.State != want {
						return fmt.Sprintf("%s is %s", c.Name, c.State)
					}
				}
				if len(all) != 2 {
					return fmt.Sprintf("%d controllers", len(all))
				}
				return ""
			}
		}
		eventually(g, soon, "connected", states(nvmesysfs.Live))
		verified := fio(g, g.BlockDevice(nqn(0)))
		g.Sleep(2 * time.Second)
		g.ClosePort(portA)
		eventually(g, 2*time.Second, "the port was closed", states(nvmesysfs.Connecting))
		throughout(g, 5*time.Second, "it stays closed", states(nvmesysfs.Connecting))
		g.OpenPort(portA)
		eventually(g, soon, "the port was opened", states(nvmesysfs.Live))
		verified()
	})

	t.Run("FiftySubsystems", func(t *testing.T) {
		g := NewGuest(t)
		began := g.Now()
		g.OpenPort(portA)
		for _, s := range nqns(50) {
			g.AddSubsystem(s, portA)
		}
		t.Logf("created in %v", g.Now().Sub(began))
		if got := discover(g, portA); len(got) != 50 {
			t.Errorf("%d subsystems are offered", len(got))
		}
		began = g.Now()
		for _, s := range nqns(50) {
			connectIOC(g, portA, s)
		}
		t.Logf("connected in %v", g.Now().Sub(began))
		began = g.Now()
		g.clean()
		t.Logf("removed in %v", g.Now().Sub(began))
		for _, pattern := range []string{
			"/sys/class/nvme/*", nvmetDir + "/ports/*", nvmetDir + "/subsystems/*", namespaceDir,
		} {
			if left, _ := filepath.Glob(pattern); len(left) != 0 {
				t.Errorf("left behind: %v", left)
			}
		}
	})
}

// discover returns the subsystems that a port offers, sorted.
func discover(g *Guest, p Port) []string {
	g.Helper()
	var all []string
	for line := range strings.Lines(run(g, "nvme", append([]string{"discover"}, portArgs(p)...)...)) {
		nqn, ok := strings.CutPrefix(line, "subnqn:")
		if nqn = strings.TrimSpace(nqn); ok && !strings.Contains(nqn, "discovery") {
			all = append(all, nqn)
		}
	}
	slices.Sort(all)
	return all
}

// connect connects; the controller's name comes back.
func connect(g *Guest, p Port, nqn string, more string) string {
	g.Helper()
	name, err := tryConnect(g, p, nqn, more)
	if err != nil {
		g.Fatal(err)
	}
	return name
}

// tryConnect writes to the kernel what a connect consists of. The host is that
// of /etc/nvme unless more names another.
func tryConnect(g *Guest, p Port, nqn string, more string) (name string, err error) {
	g.Helper()
	options := fmt.Sprintf("nqn=%s,transport=tcp,traddr=%s,trsvcid=%d,reconnect_delay=1%s", nqn, p.Addr, p.Svc, more)
	for _, part := range []string{"hostnqn", "hostid"} {
		text, err := os.ReadFile("/etc/nvme/" + part)
		if err != nil {
			g.Fatal(err)
		}
		if !strings.Contains(more, ","+part+"=") {
			options += "," + part + "=" + strings.TrimSpace(string(text))
		}
	}
	f, err := os.OpenFile("/dev/nvme-fabrics", os.O_RDWR, 0)
	if err != nil {
		g.Fatal(err)
	}
	defer f.Close()
	if _, err := f.WriteString(options); err != nil {
		return "", err
	}
	answer, err := io.ReadAll(f)
	if err != nil {
		g.Fatal(err)
	}
	var instance int
	if _, err := fmt.Sscanf(string(answer), "instance=%d,", &instance); err != nil {
		g.Fatalf("the kernel answers a connect by %q: %v", answer, err)
	}
	return fmt.Sprintf("nvme%d", instance), nil
}

func connectDC(g *Guest, p Port) string {
	g.Helper()
	return connect(g, p, nvme.WellKnownDiscoveryNQN, ",keep_alive_tmo=30")
}

func connectIOC(g *Guest, p Port, nqn string) string {
	g.Helper()
	return connect(g, p, nqn, "")
}

// watchAENs begins to listen for changes of a discovery log; seen complains
// until the kernel has told of one.
func watchAENs(g *Guest) (seen func() string) {
	g.Helper()
	events := watchUevents(g)
	return func() string {
		if events.count(aen) == 0 {
			return "no " + aen
		}
		return ""
	}
}

// TestGuestUnits has systemd check the units, of which older releases know
// less, and the bus its policy.
func TestGuestUnits(t *testing.T) {
	if !InGuest() {
		t.Skip("go run ./test/vm test runs this in a guest")
	}
	out := run(t, "systemd-analyze", "verify", "--man=no", "stafd.service", "stacd.service", "stas-config.target", "stas-config@hostnqn.service")
	if strings.Contains(out, "stafd") || strings.Contains(out, "stacd") || strings.Contains(out, "stas-config") {
		t.Errorf("systemd complains:\n%s", out)
	}
	if after := run(t, "systemctl", "show", "--property=After", "stafd.service"); !strings.Contains(after, "avahi-daemon.service") {
		t.Errorf("stafd is not ordered after Avahi: %s", after)
	}
	for _, unit := range []string{"stafd.service", "stacd.service"} {
		out := run(t, "systemd-analyze", "security", "--no-pager", unit)
		lines := strings.Split(strings.TrimSpace(out), "\n")
		t.Log(lines[len(lines)-1])
	}
}
