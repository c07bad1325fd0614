package scenario

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/nvme-stas/stas/pkg/nvmesysfs"
)

// Case is one scenario.
type Case struct {
	Name string
	Run  func(World)
}

// RunAll runs the cases, each in a world of its own.
func RunAll(t *testing.T, cases []Case, world func(t *testing.T, run func(World))) {
	for _, c := range cases {
		t.Run(c.Name, func(t *testing.T) { world(t, c.Run) })
	}
}

// Ports that the cases use.
var (
	portA  = Port{ID: 1, Addr: "127.0.0.1", Svc: 8009}
	portB  = Port{ID: 2, Addr: "127.0.0.1", Svc: 8010}
	portV6 = Port{ID: 3, Addr: "::1", Svc: 8009}
)

// soon is how long what should happen at once may take: the guest is slow.
const soon = 20 * time.Second

// Cases are all scenarios.
var Cases = slices.Concat([]Case{
	{Name: "FirstConnect1", Run: func(w World) { firstConnect(w, 1) }},
	{Name: "FirstConnect50", Run: func(w World) { firstConnect(w, 50) }},
	{Name: "SubsystemAddedAndRemoved", Run: addedAndRemoved},
	{Name: "TwoDiscoveryControllersOneSubsystem", Run: twoDCs},
	{Name: "DaemonsRestarted", Run: daemonsRestarted},
	{Name: "DaemonsKilled", Run: daemonsKilled},
	{Name: "TargetReopened", Run: targetReopened},
	{Name: "StafdAwayWhileStacdRestarts", Run: stafdAway},
	{Name: "RefusingDiscoveryController", Run: refusingDC},
	{Name: "ControllerTakenOutOfConfiguration", Run: takenOut},
	{Name: "BrokenConfigurationOnReload", Run: brokenReload},
	{Name: "MisspelledControllerOnReload", Run: misspelledReload},
	{Name: "ConfigurationFileMissing", Run: missingFile},
	{Name: "ExistingConnectionAdopted", Run: adopted},
	{Name: "ControllerConfiguredInStacd", Run: configuredIOC},
	{Name: "NoDisconnect", Run: noDisconnect},
}, confCases, bootCases, nameCases, planCases, lifeCases, stafCases, useCases, lossCases)

func nqn(n int) string { return fmt.Sprintf("nqn.2026-11.org.example:subsys%d", n) }

func nqns(n int) []string {
	all := make([]string, n)
	for i := range all {
		all[i] = nqn(i)
	}
	return all
}

// controllerLine is a line of stafd.conf for the discovery controller at p.
func controllerLine(p Port) string {
	return fmt.Sprintf("controller = transport=tcp;traddr=%s;trsvcid=%d\n", p.Addr, p.Svc)
}

const controllersSection = "[Controllers]\n"

func stafdConf(ports ...Port) string {
	var text strings.Builder
	text.WriteString(controllersSection)
	for _, p := range ports {
		text.WriteString(controllerLine(p))
	}
	return text.String()
}

// quick has the kernel try again often, so that cases need not wait long.
const quick = "[Global]\nreconnect-delay = 2\n"

// offer opens a port with n subsystems.
func offer(w World, p Port, n int) {
	w.OpenPort(p)
	for _, s := range nqns(n) {
		w.AddSubsystem(s, p)
	}
}

// up starts both daemons on what is configured, and waits for the subsystems.
func up(w World, ports []Port, want ...string) {
	w.Configure(Stafd, quick+stafdConf(ports...))
	w.Configure(Stacd, quick)
	w.Start(Stafd, Stacd)
	eventually(w, soon, "the first connections", liveIs(w, want...))
}

// live are the subsystems with a live I/O controller.
func live(w World) []string {
	var all []string
	for _, c := range w.Controllers() {
		if c.Kind == nvmesysfs.IO && c.State == nvmesysfs.Live {
			all = append(all, c.SubsysNQN)
		}
	}
	slices.Sort(all)
	return all
}

// instances maps the names of I/O controllers to their subsystems. An instance
// that was removed and connected again is told apart by its CNTLID in general,
// but here by not having been missed: see throughout.
func instances(w World) map[string]string {
	all := make(map[string]string)
	for _, c := range w.Controllers() {
		if c.Kind == nvmesysfs.IO {
			all[c.Name] = c.SubsysNQN
		}
	}
	return all
}

func liveIs(w World, want ...string) func() string {
	want = slices.Clone(want)
	slices.Sort(want)
	return func() string {
		if got := live(w); !slices.Equal(got, want) {
			return fmt.Sprintf("live are %d subsystems %s, want %d %s", len(got), brief(got), len(want), brief(want))
		}
		return ""
	}
}

func instancesAre(w World, want map[string]string) func() string {
	return func() string {
		if got := instances(w); !maps.Equal(got, want) {
			return fmt.Sprintf("the controllers are %v, want %v", got, want)
		}
		return ""
	}
}

func brief(s []string) string {
	if len(s) > 5 {
		return strings.Join(s[:5], " ") + " …"
	}
	return strings.Join(s, " ")
}

// eventually waits until check has nothing to complain of.
func eventually(w World, within time.Duration, what string, check func() string) {
	w.Helper()
	deadline := w.Now().Add(within)
	for {
		complaint := check()
		if complaint == "" {
			return
		}
		if w.Now().After(deadline) {
			w.Fatalf("%s: not within %v: %s", what, within, complaint)
		}
		w.Sleep(100 * time.Millisecond)
	}
}

// throughout looks all the time that check has nothing to complain of.
func throughout(w World, d time.Duration, what string, check func() string) {
	w.Helper()
	for deadline := w.Now().Add(d); w.Now().Before(deadline); w.Sleep(250 * time.Millisecond) {
		if complaint := check(); complaint != "" {
			w.Fatalf("%s: %s", what, complaint)
		}
	}
}

func firstConnect(w World, n int) {
	offer(w, portA, n)
	up(w, []Port{portA}, nqns(n)...)
	dcs := 0
	for _, c := range w.Controllers() {
		if c.Kind == nvmesysfs.Discovery {
			dcs++
		}
	}
	if dcs != 1 {
		w.Errorf("%d discovery controllers are connected, want 1", dcs)
	}
}

func addedAndRemoved(w World) {
	offer(w, portA, 2)
	up(w, []Port{portA}, nqn(0), nqn(1))
	w.AddSubsystem(nqn(2), portA)
	eventually(w, 5*time.Second, "a subsystem was added", liveIs(w, nqn(0), nqn(1), nqn(2)))
	w.RemoveSubsystem(nqn(1), portA)
	eventually(w, 10*time.Second, "a subsystem was removed", func() string {
		for name, s := range instances(w) {
			if s == nqn(1) {
				return name + " is still there"
			}
		}
		return ""
	})
	throughout(w, 5*time.Second, "the others stay", liveIs(w, nqn(0), nqn(2)))
}

func twoDCs(w World) {
	w.OpenPort(portA)
	w.OpenPort(portB)
	w.AddSubsystem(nqn(0), portA, portB)
	w.AddSubsystem(nqn(1), portA)
	w.AddSubsystem(nqn(2), portB)
	// One path through each port.
	up(w, []Port{portA, portB}, nqn(0), nqn(0), nqn(1), nqn(2))
	w.RemoveSubsystem(nqn(0), portA)
	eventually(w, 10*time.Second, "the path that is no longer offered goes", func() string {
		for _, c := range w.Controllers() {
			if c.SubsysNQN == nqn(0) && c.TrSvcID == strconv.Itoa(portA.Svc) {
				return c.Name + " is still there"
			}
		}
		return ""
	})
	throughout(w, 3*time.Second, "the other path stays", liveIs(w, nqn(0), nqn(1), nqn(2)))
}

func daemonsRestarted(w World) {
	offer(w, portA, 3)
	up(w, []Port{portA}, nqns(3)...)
	before := instances(w)
	unchanged := instancesAre(w, before)
	for _, d := range [][]Daemon{{Stafd}, {Stacd}, {Stafd, Stacd}} {
		w.Stop(d...)
		throughout(w, 2*time.Second, fmt.Sprintf("%v stopped", d), unchanged)
		w.Start(d...)
		throughout(w, 3*time.Second, fmt.Sprintf("%v started again", d), unchanged)
	}
	// They are at work again: what changes is followed.
	w.AddSubsystem(nqn(3), portA)
	eventually(w, soon, "added after the restarts", liveIs(w, nqns(4)...))
}

func daemonsKilled(w World) {
	offer(w, portA, 3)
	up(w, []Port{portA}, nqns(3)...)
	unchanged := instancesAre(w, instances(w))
	for _, d := range []Daemon{Stafd, Stacd} {
		w.Kill(d)
		throughout(w, 3*time.Second, string(d)+" killed", unchanged)
	}
	w.AddSubsystem(nqn(3), portA)
	eventually(w, soon, "added after the kills", liveIs(w, nqns(4)...))
	// stacd still knows that the connections are its own.
	w.RemoveSubsystem(nqn(0), portA)
	eventually(w, soon, "removed after the kills", liveIs(w, nqn(1), nqn(2), nqn(3)))
}

func targetReopened(w World) {
	offer(w, portA, 2)
	up(w, []Port{portA}, nqn(0), nqn(1))
	before := instances(w)
	w.ClosePort(portA)
	eventually(w, soon, "the connections are lost", liveIs(w))
	throughout(w, 5*time.Second, "the controllers stay while the kernel tries", instancesAre(w, before))
	w.OpenPort(portA)
	eventually(w, 30*time.Second, "the target is back", liveIs(w, nqn(0), nqn(1)))
	if got := instances(w); !maps.Equal(got, before) {
		w.Errorf("the controllers are %v, were %v", got, before)
	}
}

func stafdAway(w World) {
	offer(w, portA, 3)
	up(w, []Port{portA}, nqns(3)...)
	unchanged := instancesAre(w, instances(w))
	w.Stop(Stafd)
	throughout(w, 10*time.Second, "stafd is stopped", unchanged)
	w.Stop(Stacd)
	w.Start(Stacd)
	throughout(w, 20*time.Second, "stacd was restarted without stafd", unchanged)
	w.Reload(Stacd)
	throughout(w, 10*time.Second, "stacd was reloaded without stafd", unchanged)
	w.Start(Stafd)
	throughout(w, 5*time.Second, "stafd is back", unchanged)
}

func refusingDC(w World) {
	offer(w, portA, 2)
	w.Configure(Stafd, quick+stafdConf(portB, portA)) // nobody listens on portB
	w.Start(Stafd, Stacd)
	eventually(w, soon, "the good one is not held up", liveIs(w, nqn(0), nqn(1)))
	w.OpenPort(portB)
	w.AddSubsystem(nqn(2), portB)
	eventually(w, 90*time.Second, "the other one is found when it comes", liveIs(w, nqns(3)...))
}

func takenOut(w World) {
	w.OpenPort(portA)
	w.OpenPort(portB)
	w.AddSubsystem(nqn(0), portA)
	w.AddSubsystem(nqn(1), portB)
	up(w, []Port{portA, portB}, nqn(0), nqn(1))
	w.Configure(Stafd, quick+stafdConf(portA))
	w.Reload(Stafd)
	eventually(w, soon, "what only portB listed goes", func() string {
		for _, c := range w.Controllers() {
			if c.TrSvcID == strconv.Itoa(portB.Svc) {
				return c.Name + " is still connected to it"
			}
		}
		return ""
	})
	if got := live(w); !slices.Equal(got, []string{nqn(0)}) {
		w.Errorf("live are %v, want %s", got, nqn(0))
	}
}

func brokenReload(w World) {
	offer(w, portA, 2)
	up(w, []Port{portA}, nqn(0), nqn(1))
	unchanged := instancesAre(w, instances(w))
	w.Configure(Stafd, "controller = transport=tcp\n[Controllers\n")
	w.Configure(Stacd, "no section\n")
	w.Reload(Stafd, Stacd)
	throughout(w, 5*time.Second, "files that cannot be read were reloaded", unchanged)
	w.AddSubsystem(nqn(2), portA)
	eventually(w, soon, "the last good configuration is in force", liveIs(w, nqns(3)...))
}

// A typing error in a controller= line must not cost its storage.
func misspelledReload(w World) {
	offer(w, portA, 2)
	up(w, []Port{portA}, nqn(0), nqn(1))
	unchanged := instancesAre(w, instances(w))
	for _, text := range []string{
		"[Controllers]\ncontroller = transport=tcp;tradr=127.0.0.1\n",
		"[Controllers]\ncontoller = transport=tcp;traddr=127.0.0.1\n",
		"[Controler]\ncontroller = transport=tcp;traddr=127.0.0.1\n",
	} {
		w.Configure(Stafd, quick+text)
		w.Reload(Stafd)
		throughout(w, 3*time.Second, "reloaded:\n"+text, unchanged)
	}
}

// A file that is not there does not say that its controllers are not wanted.
func missingFile(w World) {
	offer(w, portA, 2)
	up(w, []Port{portA}, nqn(0), nqn(1))
	unchanged := instancesAre(w, instances(w))
	w.Unconfigure(Stafd)
	w.Reload(Stafd)
	throughout(w, 3*time.Second, "reloaded without a file", unchanged)
	w.Stop(Stafd)
	w.Start(Stafd)
	throughout(w, 3*time.Second, "restarted without a file", unchanged)
	w.Configure(Stafd, "")
	w.Reload(Stafd)
	eventually(w, soon, "reloaded with an empty file", liveIs(w))
}

// What somebody else has connected already is not connected twice.
func adopted(w World) {
	offer(w, portA, 2)
	up(w, []Port{portA}, nqn(0), nqn(1))
	all := len(w.Controllers())
	w.Stop(Stafd, Stacd)
	w.ForgetState()
	w.Start(Stafd, Stacd)
	throughout(w, 5*time.Second, "started without memory", func() string {
		if n := len(w.Controllers()); n != all {
			return fmt.Sprintf("%d controllers, want %d", n, all)
		}
		return ""
	})
	w.RemoveSubsystem(nqn(0), portA)
	eventually(w, soon, "adopted connections are followed", liveIs(w, nqn(1)))
}

func configuredIOC(w World) {
	offer(w, portA, 1)
	w.Configure(Stacd, fmt.Sprintf("%s[Controllers]\ncontroller = transport=tcp;traddr=%s;trsvcid=%d;nqn=%s\n",
		quick, portA.Addr, portA.Svc, nqn(0)))
	w.Start(Stacd) // without stafd
	eventually(w, soon, "configured in stacd", liveIs(w, nqn(0)))
	w.Configure(Stacd, quick)
	w.Reload(Stacd)
	eventually(w, soon, "taken out of stacd.conf", liveIs(w))
}

func noDisconnect(w World) {
	offer(w, portA, 1)
	w.Configure(Stafd, quick+stafdConf(portA))
	w.Configure(Stacd, quick+"[I/O controller connection management]\ndisconnect-scope = no-disconnect\n")
	w.Start(Stafd, Stacd)
	eventually(w, soon, "the first connection", liveIs(w, nqn(0)))
	before := instances(w)
	w.Configure(Stafd, quick)
	w.Reload(Stafd)
	throughout(w, 5*time.Second, "its discovery controller was taken out", instancesAre(w, before))
}
