//go:build linux

package scenario

import (
	"encoding/json"
	"fmt"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/nvme-stas/stas/pkg/nvmesysfs"
	"github.com/nvme-stas/stas/pkg/target"
)

// How long a daemon may take to stop, and to start on a guest that is busy.
const (
	toStop  = 5 * time.Second
	toStart = 20 * time.Second
)

// hang is how long the kernel waits for the answer to an admin command in the
// cases about what hangs: longer than all that happens meanwhile.
const hang = 40 * time.Second

// timely does something that has to be over soon, and logs how long it took.
func timely(g *Guest, limit time.Duration, what string, do func()) {
	g.Helper()
	began := time.Now()
	do()
	took := time.Since(began).Round(10 * time.Millisecond)
	if took > limit {
		g.Errorf("%s took %v", what, took)
	}
	g.Logf("%s: %v", what, took)
}

// deviceOf is what a daemon reports of the controller at a port.
func deviceOf(g *Guest, d Daemon, p Port) string {
	g.Helper()
	var report struct {
		Controllers []struct {
			TrSvcID string `json:"trsvcid"`
			Device  string `json:"device"`
		} `json:"controllers"`
	}
	must(g, json.Unmarshal([]byte(run(g, tools[d], "ls", "--output=json")), &report))
	for _, c := range report.Controllers {
		if c.TrSvcID == strconv.Itoa(p.Svc) {
			return c.Device
		}
	}
	return ""
}

// at lists the controllers at a port.
func at(g *Guest, p Port) (all []nvmesysfs.Controller) {
	for _, c := range g.Controllers() {
		if c.TrSvcID == strconv.Itoa(p.Svc) {
			all = append(all, c)
		}
	}
	return all
}

// oneAt complains unless there is one controller at a port, and it is live.
func oneAt(g *Guest, p Port) func() string {
	return func() string {
		if all := at(g, p); len(all) != 1 || all[0].State != nvmesysfs.Live {
			return fmt.Sprintf("there are %d:\n%s", len(all), g.describeControllers())
		}
		return ""
	}
}

// left lists the processes of a daemon's service, by their names.
func left(d Daemon) string {
	out, _ := exec.Command("sh", "-c", "for p in $(cat /sys/fs/cgroup/system.slice/"+string(d)+".service/cgroup.procs); do cat /proc/$p/comm; done").Output()
	return strings.Join(strings.Fields(string(out)), " ")
}

// labStuck stops and restarts the daemons while they hang in the kernel: in a
// connect, in reading a log page, in deleting a controller.
func labStuck(g *Guest) {
	setKernel(g, "/sys/module/nvme_core/parameters/admin_timeout", fmt.Sprint(int(hang/time.Second)), "60")
	lab := openLab(g, target.Config{
		Listeners: []target.Listener{
			labListener(portA, target.Discovery{}),
			labListener(portB, target.Discovery{}),
		},
		Subsystems: []target.Subsystem{
			{NQN: nqn(0), Listeners: []string{labName(portA)}},
			{NQN: nqn(1), Listeners: []string{labName(portA)}},
		},
	})
	g.Configure(Stafd, stafdConf(portA))
	g.Start(Stafd, Stacd)
	eventually(g, 3*soon, "storage", liveIs(g, nqns(2)...))
	before := instances(g)
	storage := func(what string) {
		g.Helper()
		if complaint := instancesAre(g, before)(); complaint != "" {
			g.Errorf("%s: %s", what, complaint)
		}
	}

	// A connect: the target says nothing after ICResp.
	inConnect := func() string {
		if all := at(g, portB); len(all) == 0 {
			return "no connect is in the kernel"
		}
		return ""
	}
	end := addFault(g, lab, target.Fault{Do: "mute-after-icresp", Listener: labName(portB)})
	g.Configure(Stafd, stafdConf(portA, portB))
	g.Reload(Stafd)
	eventually(g, soon, "stafd connects to the target that is mute", inConnect)
	timely(g, toStart, "systemctl restart stafd, in a connect", func() { run(g, "systemctl", "restart", string(Stafd)) })
	timely(g, toStop, "systemctl stop stafd, in a connect", func() { g.Stop(Stafd) })
	if inConnect() != "" {
		g.Error("the connect was over before stafd was stopped")
	}
	g.Logf("left of stafd: %q", left(Stafd))
	timely(g, toStart, "systemctl start stafd, beside the connect of the former one", func() { g.Start(Stafd) })
	timely(g, toStop, "systemctl stop stacd, beside a connect of stafd", func() { g.Stop(Stacd) })
	timely(g, toStart, "systemctl start stacd, beside a connect of stafd", func() { g.Start(Stacd) })
	timely(g, toStart, "kill stafd, in a connect", func() { g.Kill(Stafd) })
	storage("in a connect")
	end()
	eventually(g, 3*hang, "the target answers again", oneAt(g, portB))

	// The target answers late: the connect of the instance that was killed
	// succeeds while the next one waits to do the same.
	for _, d := range at(g, portB) {
		writeFile(g, "/sys/class/nvme/"+d.Name+"/delete_controller", "1")
		end = addFault(g, lab, target.Fault{Do: "delay", Command: "connect", Listener: labName(portB), Delay: target.Duration(10 * time.Second), Times: 1})
	}
	eventually(g, soon, "stafd connects to the target that is late", inConnect)
	timely(g, toStart, "kill stafd, in a connect that will succeed", func() { g.Kill(Stafd) })
	eventually(g, hang, "stafd has the connection, and it is the only one", func() string {
		if complaint := oneAt(g, portB)(); complaint != "" {
			return complaint
		}
		if has, is := deviceOf(g, Stafd, portB), at(g, portB); len(is) != 1 || has != is[0].Name {
			return fmt.Sprintf("stafd has %q:\n%s", has, g.describeControllers())
		}
		return ""
	})
	throughout(g, 2*time.Second, "there is no second one", oneAt(g, portB))
	end()
	storage("after a connect that came late")
	timely(g, toStop, "systemctl stop stafd, with nothing to wait for", func() { g.Stop(Stafd) })
	eventually(g, toStop, "stafd leaves nothing behind", func() string { return left(Stafd) })
	timely(g, toStart, "systemctl start stafd", func() { g.Start(Stafd) })

	// A log page: the command is never answered.
	end = addFault(g, lab, target.Fault{Do: "log-mute", Listener: labName(portA)})
	must(g, lab.AddSubsystem(target.Subsystem{NQN: nqn(2), Listeners: []string{labName(portA)}}))
	eventually(g, soon, "stafd reads the log", strikes(g, lab))
	timely(g, toStop, "systemctl stop stafd, in reading a log", func() { g.Stop(Stafd) })
	end()
	timely(g, toStart, "systemctl start stafd", func() { g.Start(Stafd) })
	storage("in reading a log")
	eventually(g, 3*hang, "the log is read", liveIs(g, nqns(3)...))
	before = instances(g)

	// A deletion: the shutdown is not answered.
	end = addFault(g, lab, target.Fault{Do: "shutdown-mute", Listener: labName(portA)})
	g.Configure(Stacd, "[Controllers]\nexclude = nqn="+nqn(2)+"\n")
	g.Reload(Stacd)
	eventually(g, soon, "stacd disconnects", strikes(g, lab))
	timely(g, toStart, "systemctl restart stacd, in a deletion", func() { run(g, "systemctl", "restart", string(Stacd)) })
	timely(g, toStop, "systemctl stop stacd, in a deletion", func() { g.Stop(Stacd) })
	end()
	timely(g, toStart, "systemctl start stacd", func() { g.Start(Stacd) })
	eventually(g, 3*hang, "the controller has gone", liveIs(g, nqns(2)...))
	after := instances(g)
	for name, subsystem := range after {
		if before[name] != subsystem {
			g.Errorf("the controllers are %v, were %v", after, before)
		}
	}
}

// labBlackHoles compares how soon storage is there beside eight discovery
// controllers that do not answer, and without them.
func labBlackHoles(g *Guest) {
	holes := make([]Port, 8)
	var listeners []target.Listener
	for i := range holes {
		holes[i] = Port{ID: 100 + i, Addr: "127.0.0.1", Svc: 8100 + i}
		listeners = append(listeners, labListener(holes[i], target.Discovery{}))
	}
	lab := openLab(g, target.Config{
		Listeners:  append(listeners, labListener(portA, target.Discovery{})),
		Subsystems: []target.Subsystem{{NQN: nqn(0), Listeners: []string{labName(portA)}}},
	})
	for i, p := range holes {
		what := []string{"black-hole", "mute"}[i%2]
		addFault(g, lab, target.Fault{Do: what, Listener: labName(p)})
	}
	live := func(ports ...Port) time.Duration {
		g.Helper()
		g.Configure(Stafd, stafdConf(ports...))
		began := time.Now()
		g.Start(Stafd, Stacd)
		for deadline := began.Add(time.Minute); liveIs(g, nqn(0))() != ""; time.Sleep(10 * time.Millisecond) {
			if time.Now().After(deadline) {
				g.Fatalf("never live:\n%s", g.describeControllers())
			}
		}
		took := time.Since(began)
		g.endDaemons()
		g.deleteControllers()
		g.ForgetState()
		return took
	}
	var alone, beside []time.Duration
	for range 3 {
		alone = append(alone, live(portA))
		beside = append(beside, live(slices.Concat(holes, []Port{portA})...))
	}
	slices.Sort(alone)
	slices.Sort(beside)
	g.Logf("live after %v alone, %v beside 8 that are silent", alone, beside)
	// A connect that waits for one of them in the kernel would take 3 or 10 s.
	if beside[len(beside)/2] > alone[len(alone)/2]+time.Second {
		g.Error("those that are silent cost time")
	}

	// Nor do they later: storage is back as soon as it can be.
	g.Configure(Stafd, stafdConf(slices.Concat(holes, []Port{portA})...))
	g.Start(Stafd, Stacd)
	eventually(g, soon, "live", liveIs(g, nqn(0)))
	events := watchUevents(g)
	before := events.count("ACTION=add")
	for range 3 {
		eventually(g, soon, "both controllers are live", allLive(g, 2))
		for _, c := range at(g, portA) {
			writeFile(g, "/sys/class/nvme/"+c.Name+"/delete_controller", "1")
		}
		began := time.Now()
		eventually(g, soon, "live again", liveIs(g, nqn(0)))
		g.Logf("live again after %v", time.Since(began).Round(10*time.Millisecond))
	}
	// The kernel has not been asked for any of them.
	eventually(g, soon, "both controllers are live", allLive(g, 2))
	eventually(g, soon, "controllers that the kernel has made", countIs(func() int { return events.count("ACTION=add") - before }, 6))
}
