//go:build linux

package scenario

import (
	"os/exec"
	"path/filepath"
	"strings"
	"time"
)

// guestUseCases use the storage as a host does, and let operators interfere.
var guestUseCases = []Case{
	{"MountedStorageStays", func(w World) { mountedStays(w.(*Guest)) }},
	{"OperatorHolds", func(w World) { operatorHolds(w.(*Guest)) }},
}

// stacctl runs a command that may fail.
func stacctl(args ...string) (string, error) {
	out, err := exec.Command("stacctl", args...).CombinedOutput()
	return string(out), err
}

func mountedStays(g *Guest) {
	offer(g, portA, 3)
	up(g, []Port{portA}, nqns(3)...)
	disk, raw := g.BlockDevice(nqn(0)), g.BlockDevice(nqn(1))
	run(g, "mkfs.ext4", "-q", disk)
	dir := g.TempDir()
	run(g, "rm", "-f", "/run/go")
	// In a mount namespace of its own, where nobody but the kernel sees it.
	mounted := g.Background("unshare", "--mount", "sh", "-c", "mount "+disk+" "+dir+" && while [ ! -e /run/go ]; do sleep 0.1; done; umount "+dir)
	g.Cleanup(func() { run(g, "rm", "-f", "/run/go") })
	open := g.Background("sh", "-c", "exec 3<"+raw+"; while [ ! -e /run/go ]; do sleep 0.1; done")
	g.Sleep(time.Second)

	g.Configure(Stafd, quick) // nobody lists any of them any more
	g.Reload(Stafd)
	eventually(g, soon, "what is not used goes", onlyThese(g, nqn(0), nqn(1)))
	used := instances(g)
	throughout(g, 12*time.Second, "what is used stays", instancesAre(g, used))
	for _, want := range []string{filepath.Base(disk) + " is mounted on " + dir, filepath.Base(raw) + " is open in sh"} {
		if text, err := stacctl("explain"); err != nil || !strings.Contains(strings.Join(strings.Fields(text), " "), want) {
			g.Errorf("explain does not say %q: %v\n%s", want, err, text)
		}
	}
	if log := g.Journal(); !strings.Contains(log, "is not disconnected now") {
		g.Error("the journal does not tell")
	}
	g.Stop(Stacd)
	g.Start(Stacd)
	throughout(g, 5*time.Second, "also after a restart", instancesAre(g, used))
	run(g, "touch", "/run/go")
	mounted()
	open()
	eventually(g, soon, "released", liveIs(g))
}

func operatorHolds(g *Guest) {
	offer(g, portA, 2)
	up(g, []Port{portA}, nqns(2)...)
	device := ""
	for name, n := range instances(g) {
		if n == nqn(0) {
			device = name
		}
	}
	disk := g.BlockDevice(nqn(0))
	run(g, "rm", "-f", "/run/go")
	opened := g.Background("sh", "-c", "exec 3<"+disk+"; while [ ! -e /run/go ]; do sleep 0.1; done")
	g.Cleanup(func() { run(g, "rm", "-f", "/run/go") })
	g.Sleep(time.Second)
	if text, err := stacctl("disconnect", device); err == nil || !strings.Contains(text, "is open in sh") {
		g.Errorf("a device in use: %v\n%s", err, text)
	}
	run(g, "touch", "/run/go")
	opened()
	run(g, "stacctl", "disconnect", device)
	eventually(g, soon, "disconnected", liveIs(g, nqn(1)))
	g.Stop(Stacd)
	g.Start(Stacd)
	g.Reload(Stacd)
	throughout(g, 5*time.Second, "and held, over a restart", liveIs(g, nqn(1)))
	run(g, "stacctl", "release", device)
	eventually(g, soon, "released", liveIs(g, nqns(2)...))

	run(g, "stacctl", "hold", nqn(1), "--for", "15s")
	g.Configure(Stacd, quick+"[Controllers]\nexclude = nqn="+nqn(1)+"\n")
	g.Reload(Stacd)
	throughout(g, 8*time.Second, "held, though excluded", liveIs(g, nqns(2)...))
	eventually(g, soon, "the time is over", liveIs(g, nqn(0)))
	if out, err := exec.Command("runuser", "-u", "nobody", "--", "stacctl", "hold", nqn(0)).CombinedOutput(); err == nil || !strings.Contains(string(out), "root only") {
		g.Errorf("anybody may hold: %v\n%s", err, out)
	}
}
