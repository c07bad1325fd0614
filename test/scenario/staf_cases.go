package scenario

import (
	"fmt"
	"strconv"
	"time"

	"github.com/nvme-stas/stas/pkg/nvmesysfs"
)

// stafCases are about how stafd comes to its discovery controllers.
var stafCases = []Case{
	{Name: "ReferralFollowed", Run: referralFollowed},
	{Name: "ReferralsInACircle", Run: referralCircle},
	{Name: "StafdWithoutMemory", Run: stafdForgets},
	{Name: "NotPersistent", Run: notPersistent},
}

var portC = Port{ID: 4, Addr: "127.0.0.1", Svc: 8011}

// discoveryAt complains until the connected discovery controllers are those of
// the ports.
func discoveryAt(w World, ports ...Port) func() string {
	return func() string {
		want, got := map[string]bool{}, map[string]bool{}
		for _, p := range ports {
			want[strconv.Itoa(p.Svc)] = true
		}
		for _, c := range w.Controllers() {
			if c.Kind == nvmesysfs.Discovery {
				got[c.TrSvcID] = true
			}
		}
		if len(got) != len(want) || fmt.Sprint(got) != fmt.Sprint(want) {
			return fmt.Sprintf("discovery controllers are connected at %v, want %v", got, want)
		}
		return ""
	}
}

// chain has the discovery controller of each port refer to that of the next.
func chain(w World, ports ...Port) {
	for i, p := range ports {
		w.OpenPort(p)
		w.AddSubsystem(nqn(i), p)
	}
	for i := range ports[1:] {
		w.Refer(ports[i], ports[i+1])
	}
}

func referralFollowed(w World) {
	chain(w, portA, portB, portC)
	up(w, []Port{portA}, nqns(3)...)
	if complaint := discoveryAt(w, portA, portB, portC)(); complaint != "" {
		w.Error(complaint)
	}
	unchanged := instancesAre(w, instances(w))
	// While what refers is away, nothing is known of what it refers to.
	w.ClosePort(portA)
	w.Stop(Stafd)
	w.Start(Stafd)
	throughout(w, 5*time.Second, "the first is down", unchanged)
	w.OpenPort(portA)
	eventually(w, 30*time.Second, "the first is back", liveIs(w, nqns(3)...))
	w.Refer(portB)
	eventually(w, soon, "a referral is withdrawn", discoveryAt(w, portA, portB))
	eventually(w, soon, "and what it led to", liveIs(w, nqn(0), nqn(1)))
	w.Refer(portA, portC)
	eventually(w, soon, "another takes its place", discoveryAt(w, portA, portC))
	eventually(w, soon, "and what it leads to", liveIs(w, nqn(0), nqn(2)))
}

// Discovery controllers that refer to each other do not keep each other alive
// (defect 32 of nvme-stas).
func referralCircle(w World) {
	chain(w, portA, portB, portC)
	w.Refer(portC, portB, portA)
	up(w, []Port{portA}, nqns(3)...)
	throughout(w, 3*time.Second, "a circle is followed once", discoveryAt(w, portA, portB, portC))
	w.Refer(portA)
	eventually(w, soon, "nothing leads to the others", discoveryAt(w, portA))
	eventually(w, soon, "nothing lists theirs", liveIs(w, nqn(0)))
}

// A stafd without memory, with a configuration that makes no sense, knows less
// than stacd. Nothing is disconnected for that.
func stafdForgets(w World) {
	chain(w, portA, portB)
	w.OpenPort(portC)
	w.AddSubsystem(nqn(2), portC)
	up(w, []Port{portA, portC}, nqns(3)...)
	unchanged := instancesAre(w, instances(w))
	forget := func(what, conf string) {
		w.Helper()
		w.Stop(Stafd)
		w.ForgetState(Stafd)
		w.Configure(Stafd, quick+conf)
		w.Start(Stafd)
		throughout(w, 5*time.Second, what, unchanged)
	}
	forget("the configuration makes no sense", "[Controllers]\ncontroller = transport=tcp;tradr=127.0.0.1\n")
	forget("half of it makes none", stafdConf(portA)+"controller = transport=tcp;tradr=127.0.0.1\n")
	w.ClosePort(portA)
	forget("what refers to the others is away", stafdConf(portA, portC))
	w.OpenPort(portA)
	eventually(w, 90*time.Second, "it is back", liveIs(w, nqns(3)...))
	// What is taken out of a configuration that makes sense goes nevertheless.
	w.ClosePort(portA)
	forget("it is away again", stafdConf(portA, portC))
	w.Configure(Stafd, quick+stafdConf(portA))
	w.Reload(Stafd)
	eventually(w, soon, "one is taken out", func() string {
		for name, s := range instances(w) {
			if s == nqn(2) {
				return name + " is still there"
			}
		}
		return ""
	})
}

func notPersistent(w World) {
	offer(w, portA, 1)
	up(w, []Port{portA}, nqn(0))
	unchanged := instancesAre(w, instances(w))
	const off = "[Discovery controller connection management]\npersistent-connections = false\n"
	w.Configure(Stafd, quick+stafdConf(portA)+off)
	w.Reload(Stafd)
	throughout(w, 2*time.Second, "reloaded", discoveryAt(w, portA))
	w.Stop(Stafd)
	eventually(w, 5*time.Second, "stafd has ended", discoveryAt(w))
	throughout(w, 3*time.Second, "storage stays", unchanged)
	w.Start(Stafd)
	eventually(w, soon, "stafd is back", discoveryAt(w, portA))
	throughout(w, 3*time.Second, "storage stays", unchanged)
}
