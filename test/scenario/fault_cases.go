package scenario

import (
	"cmp"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"strings"
	"testing"
	"text/tabwriter"
	"time"

	"github.com/nvme-stas/stas/pkg/nvmesysfs"
)

// faultSubsystems is how many there are behind one discovery controller.
const faultSubsystems = 20

// Fault is something that befalls a host whose daemons hold
// [faultSubsystems] subsystems and their discovery controller. Whatever it is,
// no connection may end that the kernel does not end by itself, and both
// daemons answer afterwards.
type Fault struct {
	Name string
	Run  func(*victim)
	// Global is the beginning of both configurations, [quick] if empty.
	Global string
	// Kills is how often it ends a daemon. By itself none ends.
	Kills int
	// Ended says that the kernel gives the controllers up, so that others take
	// their place.
	Ended bool
}

// Faults are those that cost nvme-stas (Python) its connections or its daemons,
// and those beside them that do not.
var Faults = []Fault{
	{Name: "StafdKilled", Run: func(v *victim) { v.Kill(Stafd); v.settle() }, Kills: 1},
	{Name: "StacdKilled", Run: func(v *victim) { v.Kill(Stacd); v.settle() }, Kills: 1},
	{Name: "StafdHangsWhileStacdRestarts", Run: stafdHangs},
	{Name: "StafdStoppedStacdReloaded", Run: stafdStopped},
	{Name: "EmptyLineBetweenExclusions", Run: emptyLine},
	{Name: "StateFilesDamaged", Run: stateDamaged},
	{Name: "BusRestarted", Run: func(v *victim) { v.RestartBus(); v.settle() }},
	{Name: "TargetAwayFor30s", Run: targetAway, Global: impatient, Ended: true},
	{Name: "EightBlackHoles", Run: blackHoles},
}

// victim is the host that a fault befalls.
type victim struct {
	World
	before map[string]incarnation
	start  time.Duration // from the start of the daemons until all was live
	answer time.Duration // how long the slower of the two takes to answer then
	notes  []string      // for the table
}

func (v *victim) note(format string, args ...any) {
	v.notes = append(v.notes, fmt.Sprintf(format, args...))
}

// settle gives the daemons the time to do what they should not.
func (v *victim) settle() { v.Sleep(3 * time.Second) }

// controllers are the live controllers of the target, by name.
func (v *victim) controllers() map[string]incarnation {
	all := make(map[string]incarnation)
	for _, c := range v.Controllers() {
		if c.State == nvmesysfs.Live {
			all[c.Name] = incarnation{c.TrSvcID + " " + c.SubsysNQN, v.Serial(c.Name)}
		}
	}
	return all
}

// incarnation is one controller, and no later one.
type incarnation struct {
	of     string // service and subsystem
	serial uint64
}

// allLive waits for the discovery controller and its subsystems, and maybe
// more, and tells how long it took.
func (v *victim) allLive(within time.Duration, more int) time.Duration {
	v.Helper()
	began := v.Now()
	eventually(v, within, "all are live", func() string {
		if n, want := len(v.controllers()), 1+faultSubsystems+more; n != want {
			return fmt.Sprintf("%d controllers are live, want %d", n, want)
		}
		return ""
	})
	return v.Now().Sub(began)
}

// begin has the daemons connect everything, with their memory and the host's
// controllers wiped out before.
func (v *victim) begin(global string, ports ...Port) {
	v.Helper()
	v.Fresh()
	v.Configure(Stafd, global+stafdConf(ports...))
	v.Configure(Stacd, global)
	began := v.Now()
	v.Start(Stafd, Stacd)
	v.allLive(2*time.Minute, 0)
	v.start, v.before = v.Now().Sub(began), v.controllers()
}

// answers asks a daemon until it answers, and tells how long the answer itself
// took.
func (v *victim) answers(d Daemon) time.Duration {
	v.Helper()
	var took time.Duration
	eventually(v, soon, string(d)+" answers", func() string {
		var err error
		if took, err = v.Answer(d); err != nil {
			return err.Error()
		}
		return ""
	})
	return took
}

// prompt tells an answer that took long from the usual one.
func (v *victim) prompt(d Daemon) time.Duration {
	v.Helper()
	took := v.answers(d)
	if limit := 5*v.answer + time.Second; took > limit {
		v.Errorf("%s took %v to answer, more than %v", d, took, limit)
	}
	return took
}

// strike brings one fault about. The target is there; the line is of the table
// of what became of the host.
func strike(w World, f Fault) (line string) {
	w.Helper()
	v := &victim{World: w}
	// What the last fault has left as it was need not be made again.
	if v.before = v.controllers(); f.Global != "" || len(v.before) != 1+faultSubsystems {
		v.begin(cmp.Or(f.Global, quick), portA)
	}
	v.answer = max(v.answers(Stafd), v.answers(Stacd))
	restarts := v.Restarts(Stafd) + v.Restarts(Stacd)
	f.Run(v)
	back := v.allLive(2*time.Minute, 0)
	after := v.controllers()
	lost, renamed := 0, 0
	devices := make(map[string]string)
	for name, c := range after {
		devices[c.of] = name
	}
	for name, c := range v.before {
		if after[name] != c {
			lost++
		}
		if devices[c.of] != name {
			renamed++
		}
	}
	if !f.Ended && lost > 0 {
		w.Errorf("%d of %d controllers were lost, %d have another name:\n%v\n%v", lost, len(v.before), renamed, v.before, after)
	}
	if n := v.Restarts(Stafd) + v.Restarts(Stacd); n > restarts+f.Kills {
		w.Errorf("the daemons were started again %d times, before %d", n, restarts)
	}
	staf, stac := v.prompt(Stafd), v.prompt(Stacd)
	const ms = time.Millisecond
	return fmt.Sprintf("%s\t%d\t%d\t%v\t%v\t%v\t%s", f.Name, lost, renamed, back.Round(10*ms), staf.Round(ms), stac.Round(ms), strings.Join(v.notes, "; "))
}

const faultTable = "fault\tlost\trenamed\tall live after\tstafd answers in\tstacd answers in\t"

// RunFaults has every fault befall the host, and prints what became of it.
func RunFaults(t *testing.T, world func(t *testing.T, run func(World))) {
	table := tabwriter.NewWriter(t.Output(), 0, 8, 2, ' ', 0)
	fmt.Fprintln(table, faultTable)
	for _, f := range Faults {
		t.Run(f.Name, func(t *testing.T) {
			world(t, func(w World) { fmt.Fprintln(table, strike(w, f)) })
		})
	}
	_ = table.Flush() // to the test's output
}

func stafdHangs(v *victim) {
	v.Hang(Stafd)
	v.Stop(Stacd)
	v.Start(Stacd)
	v.Sleep(10 * time.Second)
	v.note("stacd answers in %v meanwhile", v.prompt(Stacd).Round(time.Millisecond))
	v.Reload(Stacd)
	v.settle()
	v.Wake(Stafd)
	v.settle()
}

func stafdStopped(v *victim) {
	v.Stop(Stafd)
	v.settle()
	v.Reload(Stacd)
	v.settle()
	v.Start(Stafd)
	v.settle()
}

func emptyLine(v *victim) {
	const lines = controllersSection + "exclude = traddr=192.0.2.1\n\nexclude = traddr=192.0.2.2\n"
	v.Configure(Stafd, quick+lines+controllerLine(portA))
	v.Configure(Stacd, quick+lines)
	v.Reload(Stafd, Stacd)
	v.settle()
	v.Configure(Stafd, quick+stafdConf(portA))
	v.Configure(Stacd, quick)
	v.Reload(Stafd, Stacd)
}

// damages make of a state file what it can be other than whole. The memory of
// what the daemons have connected goes with it, the connections do not.
var damages = []func(string) string{
	func(string) string { return "" },
	func(text string) string { return text[:len(text)/2] },
	func(string) string { return strings.Repeat("\x00", 4096) },
	func(string) string {
		garbage := make([]byte, 4096)
		_, _ = io.ReadFull(rand.NewChaCha8([32]byte{1}), garbage)
		return string(garbage)
	},
	func(text string) string { return strings.Replace(text, `"version":1`, `"version":1000`, 1) },
	func(string) string { return `{"version":1,"state":[1,"2"]}` },
	func(string) string { // a pickle
		return "\x80\x04\x95\x1a\x00\x00\x00\x00\x00\x00\x00}\x94\x8c\x0fcontroller_list\x94]\x94s."
	},
}

func stateDamaged(v *victim) {
	const more = "nqn.2026-11.org.example:more"
	v.AddSubsystem(more, portA)
	v.allLive(soon, 1)
	for n := 0; n < len(damages); n += 2 {
		v.Stop(Stafd, Stacd)
		for i, d := range []Daemon{Stafd, Stacd} {
			text := v.State(d)
			damaged := damages[(n+i)%len(damages)](text)
			if damaged == text {
				v.Fatalf("nothing has become of %q", text)
			}
			v.SetState(d, damaged)
		}
		v.Start(Stafd, Stacd)
		v.allLive(soon, 1)
		v.prompt(Stafd)
		v.prompt(Stacd)
		v.Sleep(time.Second)
	}
	// They are the daemons' still: what is withdrawn goes.
	v.RemoveSubsystem(more, portA)
	eventually(v, soon, "one is withdrawn", func() string {
		if n := len(v.Controllers()); n != 1+faultSubsystems {
			return fmt.Sprintf("there are %d controllers", n)
		}
		return ""
	})
}

// impatient has the kernel give up soon.
const impatient = "[Global]\nctrl-loss-tmo = 5\nreconnect-delay = 1\n"

// A target that is away for longer than the kernel has patience is connected
// again as soon as it is back.
func targetAway(v *victim) {
	v.ClosePort(portA)
	gone := v.Now()
	eventually(v, soon, "the kernel gives up", func() string {
		if n := len(v.Controllers()); n > 0 {
			return fmt.Sprintf("there are %d controllers", n)
		}
		return ""
	})
	v.note("all were gone after %v", v.Now().Sub(gone).Round(100*time.Millisecond))
	v.Sleep(30*time.Second - v.Now().Sub(gone))
	v.prompt(Stafd)
	v.prompt(Stacd)
	v.OpenPort(portA)
	began := v.Now()
	eventually(v, 2*time.Minute, "storage is back", func() string {
		if len(live(v)) == 0 {
			return "there is none"
		}
		return ""
	})
	first := v.Now().Sub(began)
	v.allLive(2*time.Minute, 0)
	all := v.Now().Sub(began)
	v.note("the first was back after %v, all after %v; at the start it took %v",
		first.Round(10*time.Millisecond), all.Round(10*time.Millisecond), v.start.Round(10*time.Millisecond))
	if limit := 3 * time.Second; first > limit || all > limit+v.start {
		v.Errorf("the first was back after %v, all after %v, want %v, and for all as much more as the start took, %v", first, all, limit, v.start)
	}
}

// Discovery controllers that do not answer cost the one that does nothing.
func blackHoles(v *victim) {
	const holes = 8
	good := []Port{portA}
	bad := []Port{portA}
	for n := range holes {
		p := Port{ID: 10 + n, Addr: "127.0.0.1", Svc: 8020 + n}
		v.BlackHole(p)
		bad = append([]Port{p}, bad...) // these are asked first
	}
	// How long it takes until all are live, and until one that is added is:
	// without black holes, and with them.
	const more = "nqn.2026-11.org.example:more"
	var all, added [2]time.Duration
	for i, ports := range [][]Port{good, bad} {
		v.begin(quick, ports...)
		v.Sleep(time.Second)
		began := v.Now()
		v.AddSubsystem(more, portA)
		v.allLive(time.Minute, 1)
		all[i], added[i] = v.start, v.Now().Sub(began)
		v.RemoveSubsystem(more, portA)
	}
	const ms = time.Millisecond
	v.note("all live after %v, %v without them; one added after %v, %v without them",
		all[1].Round(10*ms), all[0].Round(10*ms), added[1].Round(10*ms), added[0].Round(10*ms))
	// One of them in the kernel would hold up everything for 3 s.
	if all[1] > all[0]*3/2+2*time.Second {
		v.Errorf("all are live after %v, without the black holes after %v", all[1], all[0])
	}
	if added[1] > added[0]*3/2+time.Second {
		v.Errorf("one that is added is live after %v, without the black holes after %v", added[1], added[0])
	}
}

// lifeCases are what a connection may go through, beside what befalls the host.
var lifeCases = []Case{
	{Name: "DisconnectedByHand", Run: byHand},
	{Name: "WithdrawnWhileAway", Run: withdrawnWhileAway},
	{Name: "ListedAndWithdrawnQuickly", Run: quicklyWithdrawn},
	{Name: "ExclusionAtOnce", Run: excludedAtOnce},
}

// atOnceLimit is for what a daemon does without waiting for anything; longer
// than the pause that it makes after a loss.
const atOnceLimit = 6 * time.Second

// Who disconnects what is wanted gets it back; nvme-cli says nothing of why.
func byHand(w World) {
	offer(w, portA, 3)
	up(w, []Port{portA}, nqns(3)...)
	v := &victim{World: w}
	before := v.controllers()
	seen := make(map[nvmesysfs.Kind]bool)
	for _, dropped := range w.Controllers() {
		if seen[dropped.Kind] {
			continue // one of each is enough
		}
		seen[dropped.Kind] = true
		name, c := dropped.Name, before[dropped.Name]
		w.Disconnect(name)
		eventually(w, atOnceLimit, c.of+" was disconnected", func() string {
			now := v.controllers()
			if len(now) != len(before) {
				return fmt.Sprintf("there are %d controllers, want %d", len(now), len(before))
			}
			return ""
		})
		now := v.controllers()
		for other := range maps.Keys(before) {
			if (other == name) == (now[other] == before[other]) {
				w.Errorf("%s was disconnected, and %s is %v, was %v", name, other, now[other], before[other])
			}
		}
		before = now
	}
}

// What has gone from the target when it comes back is removed by the kernel at
// the first attempt, and connected again when it is listed again.
func withdrawnWhileAway(w World) {
	offer(w, portA, 2)
	up(w, []Port{portA}, nqn(0), nqn(1))
	w.ClosePort(portA)
	eventually(w, soon, "the connections are lost", liveIs(w))
	w.RemoveSubsystem(nqn(0), portA)
	w.OpenPort(portA)
	eventually(w, soon, "the target is back with one of two", onlyThese(w, nqn(1)))
	throughout(w, 2*time.Second, "the other is not there", onlyThese(w, nqn(1)))
	w.AddSubsystem(nqn(0), portA)
	eventually(w, atOnceLimit, "the other is there again", onlyThese(w, nqn(0), nqn(1)))
}

// Whatever comes and goes: what is listed in the end is connected, once.
func quicklyWithdrawn(w World) {
	offer(w, portA, 2)
	up(w, []Port{portA}, nqn(0), nqn(1))
	for n := range 6 {
		w.AddSubsystem(nqn(2), portA)
		w.Sleep(time.Duration(n) * 100 * time.Millisecond)
		w.RemoveSubsystem(nqn(2), portA)
		w.Sleep(time.Duration(5-n) * 50 * time.Millisecond)
	}
	eventually(w, soon, "withdrawn in the end", onlyThese(w, nqn(0), nqn(1)))
	throughout(w, 2*time.Second, "withdrawn in the end", onlyThese(w, nqn(0), nqn(1)))
	for range 3 {
		w.AddSubsystem(nqn(2), portA)
		w.RemoveSubsystem(nqn(2), portA)
	}
	w.AddSubsystem(nqn(2), portA)
	eventually(w, soon, "listed in the end", onlyThese(w, nqns(3)...))
	throughout(w, 2*time.Second, "listed in the end", onlyThese(w, nqns(3)...))
}

func excludedAtOnce(w World) {
	offer(w, portA, 3)
	up(w, []Port{portA}, nqns(3)...)
	w.Configure(Stacd, stacdConf("exclude = nqn="+nqn(1)+"\n"))
	w.Reload(Stacd)
	eventually(w, atOnceLimit, "it is excluded", onlyThese(w, nqn(0), nqn(2)))
	w.Configure(Stacd, quick)
	w.Reload(Stacd)
	eventually(w, atOnceLimit, "it is no longer excluded", onlyThese(w, nqns(3)...))
	if _, err := (&victim{World: w}).Answer(Stacd); err != nil {
		w.Error(err)
	}
}
