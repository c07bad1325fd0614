package scenario

import (
	"fmt"
	"time"

	"github.com/nvme-stas/stas/pkg/nvme"
)

// useCases are about what may be taken away, and what may be changed of it.
var useCases = []Case{
	{Name: "ConnectionOfOthers", Run: connectionOfOthers},
	{Name: "TimesOfTheTarget", Run: timesOfTheTarget},
}

const (
	ioSection = "[I/O controller connection management]\n"
	scopeAll  = ioSection + "disconnect-scope = all-connections-matching-disconnect-trtypes\n"
)

func connectionOfOthers(w World) {
	offer(w, portA, 2)
	up(w, []Port{portA}, nqns(2)...)
	w.Stop(Stacd)
	w.ForgetState(Stacd) // now they are as if others had made them
	exclude := "[Controllers]\nexclude = nqn=" + nqn(0) + "\n"
	w.Configure(Stacd, quick+exclude)
	w.Start(Stacd)
	both := instances(w)
	throughout(w, 5*time.Second, "those of others stay", instancesAre(w, both))
	w.Configure(Stacd, quick+scopeAll+exclude)
	w.Reload(Stacd)
	eventually(w, soon, "the scope is all", liveIs(w, nqn(1)))
}

// timesAre checks ctrl_loss_tmo and reconnect_delay of a subsystem's
// controller.
func timesAre(w World, nqn, loss, delay string) func() string {
	return func() string {
		for _, c := range w.Controllers() {
			if c.SubsysNQN != nqn {
				continue
			}
			if l, d := w.Attribute(c.Name, "ctrl_loss_tmo"), w.Attribute(c.Name, "reconnect_delay"); l != loss || d != delay {
				return fmt.Sprintf("%s has ctrl_loss_tmo %s and reconnect_delay %s, want %s and %s", c.Name, l, d, loss, delay)
			}
			return ""
		}
		return "there is no controller of " + nqn
	}
}

func timesOfTheTarget(w World) {
	told := nqn(0) + ":timeout_ms=11500"
	w.OpenPort(portA)
	w.AddSubsystem(told, portA)
	w.AddSubsystem(nqn(1), portA)
	up(w, []Port{portA}, told, nqn(1))
	before := serials(w)
	eventually(w, soon, "the target has told", timesAre(w, told, "12", "2"))
	eventually(w, soon, "the target has not told", timesAre(w, nqn(1), "600", "2"))
	w.Configure(Stacd, "[Global]\nreconnect-delay = 5\nctrl-loss-tmo = 50\n[Controllers]\nsubsystem = nqn="+told+";ctrl-loss-tmo=-1\n")
	w.Reload(Stacd)
	eventually(w, soon, "reloaded, a line is about it", timesAre(w, told, "off", "5"))
	eventually(w, soon, "reloaded", timesAre(w, nqn(1), "50", "5"))
	w.Configure(Stafd, "[Global]\nreconnect-delay = 4\nctrl-loss-tmo = 80\n"+stafdConf(portA))
	w.Reload(Stafd)
	eventually(w, soon, "stafd, reloaded", timesAre(w, nvme.WellKnownDiscoveryNQN, "80", "4"))
	w.Configure(Stacd, quick)
	w.Reload(Stacd)
	eventually(w, soon, "the line is gone", timesAre(w, told, "12", "2"))
	if after := serials(w); fmt.Sprint(after) != fmt.Sprint(before) {
		w.Errorf("the controllers are %v, were %v", after, before)
	}
}

// serials tell controllers from others of the same name.
func serials(w World) map[string]uint64 {
	all := make(map[string]uint64)
	for name := range instances(w) {
		all[name] = w.Serial(name)
	}
	return all
}
