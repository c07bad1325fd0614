//go:build linux

package scenario

import (
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/nvme-stas/stas/pkg/nvmesysfs"
)

// GuestCases are the scenarios that need the real kernel, because they use the
// storage.
var GuestCases = slices.Concat([]Case{
	{"WritesSurviveATargetRestart", func(w World) { writesSurvive(w.(*Guest)) }},
	{"DataSurvivesDaemonRestarts", func(w World) { dataSurvives(w.(*Guest)) }},
}, otherCases, guestUseCases)

// fio writes to a subsystem's namespace for half a minute and then reads
// everything back and compares.
func fio(g *Guest, device string) (wait func() string) {
	return fioFor(g, device, 30*time.Second)
}

// fioFor is fio for another time.
func fioFor(g *Guest, device string, d time.Duration) (wait func() string) {
	size := fmt.Sprintf("--size=%dM", int(d.Seconds())) // at 1 MB a second
	return g.Background("fio", "--name=verify", "--filename="+device,
		"--rw=randwrite", "--bs=4k", size, "--rate=,1M", "--direct=1",
		"--verify=crc32c", "--do_verify=1", "--verify_fatal=1")
}

func writesSurvive(g *Guest) {
	offer(g, portA, 1)
	up(g, []Port{portA}, nqn(0))
	before := instances(g)
	verified := fio(g, g.BlockDevice(nqn(0)))
	g.Sleep(3 * time.Second)
	g.ClosePort(portA)
	eventually(g, soon, "the port was closed", func() string {
		for _, c := range g.Controllers() {
			if c.State == nvmesysfs.Live {
				return c.Name + " is live"
			}
		}
		return ""
	})
	throughout(g, 8*time.Second, "the controllers stay", instancesAre(g, before))
	g.OpenPort(portA)
	eventually(g, 30*time.Second, "the target is back", liveIs(g, nqn(0)))
	verified()
	if got := instances(g); !maps.Equal(got, before) {
		g.Errorf("the controllers are %v, were %v", got, before)
	}
}

func dataSurvives(g *Guest) {
	offer(g, portA, 1)
	up(g, []Port{portA}, nqn(0))
	verified := fio(g, g.BlockDevice(nqn(0)))
	g.Kill(Stacd)
	g.Kill(Stafd)
	g.Stop(Stafd, Stacd)
	g.Start(Stacd)
	g.Reload(Stacd)
	g.Start(Stafd)
	verified()
}
