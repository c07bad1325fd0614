package scenario

import (
	"fmt"
	"time"

	"github.com/nvme-stas/stas/pkg/nvmesysfs"
)

// confCases are about what the configuration says, beyond who is wanted.
var confCases = []Case{
	{Name: "IncludeAndExcludeOnReload", Run: includeAndExclude},
	{Name: "SubsystemParameters", Run: subsystemParameters},
	{Name: "HostNQNOfALine", Run: hostNQNOfALine},
	{Name: "DropInFiles", Run: dropIns},
	{Name: "ExclusionListOfTheHost", Run: exclusionList},
}

// stacdConf is a stacd.conf with these lines of [Controllers].
func stacdConf(lines string) string { return quick + controllersSection + lines }

// onlyThese checks that these subsystems are live, and that no other controller
// is left, not even on its way out.
func onlyThese(w World, want ...string) func() string {
	alive := liveIs(w, want...)
	return func() string {
		if all := instances(w); len(all) != len(want) {
			return fmt.Sprintf("the controllers are %v, want %v", all, want)
		}
		return alive()
	}
}

func includeAndExclude(w World) {
	offer(w, portA, 3)
	up(w, []Port{portA}, nqns(3)...)
	reload := func(lines string) {
		w.Configure(Stacd, stacdConf(lines))
		w.Reload(Stacd)
	}
	reload("include = nqn=*:subsys1; traddr=127.0.0.0/8\ninclude = nqn=" + nqn(2) + "\n")
	eventually(w, soon, "two are included", onlyThese(w, nqn(1), nqn(2)))
	unchanged := instancesAre(w, instances(w))
	reload("include = nqn=*:subsys1\ninclude = nqm=" + nqn(2) + "\n")
	throughout(w, 5*time.Second, "a rule with a mistake takes nothing away and adds nothing", unchanged)
	reload("include = nqn=*:subsys1\n")
	eventually(w, soon, "one is included", onlyThese(w, nqn(1)))
	w.AddSubsystem(nqn(3), portA)
	throughout(w, 3*time.Second, "what is added is not included", liveIs(w, nqn(1)))
	// Two rules with an empty line between (defect 2 of nvme-stas).
	reload("exclude = nqn=*:subsys0\n\nexclude =\nexclude = traddr=127.0.0.1; nqn=*:subsys?3\n")
	eventually(w, soon, "one is excluded", onlyThese(w, nqn(1), nqn(2), nqn(3)))
	reload("exclude = traddr=127.0.0.0/8\n")
	eventually(w, soon, "all are excluded", onlyThese(w))
}

// expectAttribute compares an attribute of the I/O controller of a subsystem.
func expectAttribute(w World, subsystem, attribute, want string) {
	w.Helper()
	for _, c := range w.Controllers() {
		if c.Kind != nvmesysfs.IO || c.SubsysNQN != subsystem {
			continue
		}
		if got := w.Attribute(c.Name, attribute); got != want {
			w.Errorf("%s of %s is %s, want %s", attribute, subsystem, got, want)
		}
		return
	}
	w.Errorf("%s is not connected", subsystem)
}

func subsystemParameters(w World) {
	offer(w, portA, 3)
	w.Configure(Stafd, quick+stafdConf(portA))
	w.Configure(Stacd, "[Global]\nreconnect-delay = 5\nctrl-loss-tmo = 100\n"+controllersSection+
		"subsystem = nqn=*:subsys1; ctrl-loss-tmo=-1; fast-io-fail-tmo=0\n"+
		"subsystem = traddr=127.0.0.0/8; nqn=*:subsys[12]\n"+ // no pattern of ours
		"subsystem = traddr=127.0.0.0/8; ctrl-loss-tmo=200; reconnect-delay=4\n"+
		fmt.Sprintf("controller = transport=tcp; traddr=%s; trsvcid=%d; nqn=%s; ctrl-loss-tmo=400\n", portA.Addr, portA.Svc, nqn(2)))
	w.Start(Stafd, Stacd)
	eventually(w, soon, "the first connections", liveIs(w, nqns(3)...))
	for i, want := range []map[string]string{
		{"ctrl_loss_tmo": "200", "reconnect_delay": "4", "fast_io_fail_tmo": "off"}, // by address
		{"ctrl_loss_tmo": "off", "reconnect_delay": "5", "fast_io_fail_tmo": "0"},   // by name, which is first
		{"ctrl_loss_tmo": "400", "reconnect_delay": "4", "fast_io_fail_tmo": "off"}, // by its own line
	} {
		for attribute, value := range want {
			expectAttribute(w, nqn(i), attribute, value)
		}
	}
}

// A connection under the host NQN of its line is made under it, with a host ID
// of its own, and is known again after a restart (defect 12 of nvme-stas).
func hostNQNOfALine(w World) {
	const (
		uuid  = "a0000000-0000-4000-8000-00000000beef"
		other = "nqn.2014-08.org.nvmexpress:uuid:" + uuid
	)
	offer(w, portA, 2)
	w.Configure(Stafd, quick+stafdConf(portA))
	w.Configure(Stacd, stacdConf(
		"exclude = nqn=*:subsys1; host-nqn=*:uuid:a0000000-????-*beef\n"+ // not under this one
			fmt.Sprintf("controller = transport=tcp; traddr=%s; trsvcid=%d; nqn=%s; host-nqn=%s\n", portA.Addr, portA.Svc, nqn(0), other)))
	w.Start(Stafd, Stacd)
	eventually(w, soon, "as two hosts", liveIs(w, nqn(0), nqn(0), nqn(1)))
	ids := make(map[string]string)
	for _, c := range w.Controllers() {
		if id, known := ids[c.HostNQN]; known && id != c.HostID {
			w.Errorf("%s has the host IDs %s and %s", c.HostNQN, id, c.HostID)
		}
		ids[c.HostNQN] = c.HostID
	}
	if len(ids) != 2 || ids[other] != uuid {
		w.Errorf("the host NQNs and IDs are %v", ids)
	}
	unchanged := instancesAre(w, instances(w))
	w.Stop(Stacd)
	w.Start(Stacd)
	throughout(w, 5*time.Second, "restarted", unchanged)
}

func dropIns(w World) {
	w.OpenPort(portA)
	w.OpenPort(portB)
	w.AddSubsystem(nqn(0), portA)
	w.AddSubsystem(nqn(1), portB)
	w.DropIn(Stafd, "10-a.conf", stafdConf(portA))
	w.DropIn(Stafd, "20-b.conf", "[Global]\nkato = 20\n"+stafdConf(portB))
	up(w, nil, nqn(0), nqn(1))
	for _, c := range w.Controllers() {
		if c.Kind == nvmesysfs.Discovery && w.Attribute(c.Name, "kato") != "20" {
			w.Errorf("kato of %s is %s", c.Name, w.Attribute(c.Name, "kato"))
		}
	}
	before := instances(w)
	w.DropIn(Stafd, "20-b.conf", "[Controller]\n")
	w.Reload(Stafd)
	throughout(w, 3*time.Second, "a file with a mistake takes nothing away", instancesAre(w, before))
	w.DropIn(Stafd, "20-b.conf", "text\n")
	w.Reload(Stafd)
	throughout(w, 3*time.Second, "nor does one that makes no sense", instancesAre(w, before))
	w.DropIn(Stafd, "20-b.conf", "")
	w.Reload(Stafd)
	eventually(w, soon, "a file was removed", onlyThese(w, nqn(0)))
}

func exclusionList(w World) {
	offer(w, portA, 2)
	w.Exclude("[exclusions]\nexclusion = nqn=" + nqn(0) + "\nexclusion = nqm=*\nexclusion =\n")
	up(w, []Port{portA}, nqn(1))
	throughout(w, 5*time.Second, "the other one is excluded", liveIs(w, nqn(1)))
	w.Exclude("[exclusions]\nexclusion = transport=tcp; traddr=127.0.0.2\n")
	eventually(w, 90*time.Second, "nobody is excluded", liveIs(w, nqn(0), nqn(1)))
	before := instances(w)
	w.Exclude("[exclusions]\nexclusion = transport=tcp\n")
	w.Reload(Stafd, Stacd)
	throughout(w, 5*time.Second, "connections stay", instancesAre(w, before))
	w.AddSubsystem(nqn(2), portA)
	throughout(w, 5*time.Second, "a new one is not made", instancesAre(w, before))
}
