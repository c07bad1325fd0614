//go:build linux

package scenario

import (
	"fmt"
	"slices"
	"time"

	"github.com/nvme-stas/stas/pkg/nvmesysfs"
	"github.com/nvme-stas/stas/pkg/target"
)

// labOutage has half of a target away for 30 s while two subsystems are
// written to. One has no other path, and a kernel that waits for longer than
// that. The other has one, and its first path is given up and made again.
func labOutage(g *Guest) {
	const outage = 30 * time.Second
	lab := openLab(g, target.Config{
		Listeners: []target.Listener{labListener(portA, target.Discovery{}), labListener(portB, target.Discovery{})},
		Subsystems: []target.Subsystem{
			{NQN: nqn(0), Listeners: []string{labName(portA)}},
			{NQN: nqn(1), Listeners: []string{labName(portA), labName(portB)}},
		},
	})
	const patient = "[Global]\nreconnect-delay = 1\nctrl-loss-tmo = 60\n"
	g.Configure(Stafd, patient+stafdConf(portA, portB))
	g.Configure(Stacd, patient+controllersSection+"subsystem = nqn="+nqn(1)+"; ctrl-loss-tmo=5\n")
	g.Start(Stafd, Stacd)
	all := liveIs(g, nqn(0), nqn(1), nqn(1))
	eventually(g, soon, "the first connections", all)
	path := func(nqn string, p Port) (name string) {
		g.Helper()
		for _, c := range g.Controllers() {
			if c.SubsysNQN == nqn && c.TrSvcID == fmt.Sprint(p.Svc) {
				name = c.Name
			}
		}
		return name
	}
	only, first, second := path(nqn(0), portA), path(nqn(1), portA), path(nqn(1), portB)
	before := map[string]uint64{only: g.Serial(only), second: g.Serial(second)}
	disk, shared := g.BlockDevice(nqn(0)), g.BlockDevice(nqn(1))
	waited, twoPaths := fioFor(g, disk, 12*time.Second), fioFor(g, shared, 36*time.Second)
	g.Sleep(3 * time.Second)

	must(g, lab.Restart(labName(portA), outage))
	died := g.Now()
	eventually(g, soon, "half of the target dies", stateIs(g, only, nvmesysfs.Connecting))
	eventually(g, soon, "the kernel gives a path up", stateIs(g, first, ""))
	g.Logf("the path was given up after %v", g.Now().Sub(died).Round(100*time.Millisecond))
	did := pathIO(g, second)
	g.Sleep(2 * time.Second)
	if more := pathIO(g, second); more == did {
		g.Errorf("nothing is written by the other path, %d reads and writes in all", more)
	}
	g.Sleep(outage - g.Now().Sub(died))
	back := g.Now()
	eventually(g, atOnceLimit, "the target is back", stateIs(g, only, nvmesysfs.Live))
	g.Logf("the only path was back after %v", g.Now().Sub(back).Round(100*time.Millisecond))
	eventually(g, atOnceLimit, "the target is back", all)
	g.Logf("all paths were back after %v", g.Now().Sub(back).Round(100*time.Millisecond))
	waited()
	twoPaths()
	for name, serial := range before {
		if now := g.Serial(name); now != serial {
			g.Errorf("%s is another one: %d, was %d", name, now, serial)
		}
	}
	if now := []string{g.BlockDevice(nqn(0)), g.BlockDevice(nqn(1))}; !slices.Equal(now, []string{disk, shared}) {
		g.Errorf("the disks are %v, were %s and %s", now, disk, shared)
	}
}

// labRefusedForAMoment has a target come back that does not know its
// subsystems yet, and says not to ask again: the kernel obeys, the daemons ask.
func labRefusedForAMoment(g *Guest) {
	lab := openLab(g, target.Config{
		Listeners:  []target.Listener{labListener(portA, target.Discovery{})},
		Subsystems: labSubsystems(3),
	})
	up(g, []Port{portA}, nqns(3)...)
	before := (&victim{World: g}).controllers()
	end := addFault(g, lab, target.Fault{Do: "unknown-subsystem"})
	must(g, lab.Restart("", 200*time.Millisecond))
	eventually(g, soon, "the connections are lost", liveIs(g))
	eventually(g, soon, "they are refused", func() string {
		if _, n := struck(g, lab); n < 8 {
			return fmt.Sprintf("%d connects were refused, want two of each controller", n)
		}
		return ""
	})
	if obeysDNR(g) {
		eventually(g, soon, "they are removed", func() string {
			for name, c := range before {
				if g.Serial(name) == c.serial {
					return name + " is left"
				}
			}
			return ""
		})
	}
	end()
	began := g.Now()
	eventually(g, soon, "they are no longer refused", allLive(g, 4))
	g.Logf("all were back after %v", g.Now().Sub(began).Round(100*time.Millisecond))
}
