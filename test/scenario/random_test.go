package scenario

import (
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"slices"
	"strconv"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/nvme-stas/stas/internal/stastest"
	"github.com/nvme-stas/stas/pkg/nvmesysfs"
)

var (
	randomSeed   = flag.Uint64("seed", 0, "of the first history of TestFakeAnyOrder; 0: by the clock")
	randomEvents = flag.Int("events", 2000, "that happen in TestFakeAnyOrder")
)

// TestFakeAnyOrder has anything happen to a host and its targets, in random
// order. Whatever that is, no controller is disconnected that was never
// withdrawn; and once the world is quiet, exactly what is offered is connected.
func TestFakeAnyOrder(t *testing.T) {
	seed, events := *randomSeed, *randomEvents
	if seed == 0 {
		seed = uint64(time.Now().UnixNano())
	}
	if testing.Short() {
		events = min(events, 500)
	}
	t.Logf("seed %d", seed)
	for ; events > 0; seed++ {
		n := 0
		ok := t.Run(strconv.FormatUint(seed, 10), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) { n = anyOrder(t, seed) })
		})
		if !ok {
			t.Fatalf("this history again: go test ./test/scenario -run TestFakeAnyOrder -events 1 -seed %d", seed)
		}
		events -= max(n, 1) // none if -run names other parts
	}
}

// offered is a subsystem at a port.
type offered struct {
	nqn  string
	port Port
}

func anyOrder(t *testing.T, seed uint64) (events int) {
	r := rand.New(rand.NewPCG(seed, 0))
	f := newFake(t)
	ports := []Port{portA, portB}
	const subsystems = 4
	is := make(map[offered]bool) // offered now
	var withdrawn sync.Map       // has what was, ever
	closed := make(map[Port]bool)
	for _, p := range ports {
		f.OpenPort(p)
		for n := range subsystems {
			f.AddSubsystem(nqn(n), p)
			is[offered{nqn(n), p}] = true
		}
	}
	f.kernel.Deleted = func(c nvmesysfs.Controller) {
		for _, p := range ports {
			o := offered{c.SubsysNQN, p}
			if _, was := withdrawn.Load(o); !was && c.Kind == nvmesysfs.IO && c.TrSvcID == strconv.Itoa(p.Svc) {
				t.Errorf("%s, %s at port %d, is deleted, and was never withdrawn", c.Name, c.SubsysNQN, p.Svc)
			}
		}
	}
	both := true // ports are configured
	configure := func() {
		configured := ports
		if !both {
			configured = ports[:1]
			for n := range subsystems {
				withdrawn.Store(offered{nqn(n), portB}, true)
			}
		}
		f.Configure(Stafd, quick+stafdConf(configured...))
	}
	configure()
	f.Configure(Stacd, quick+"ctrl-loss-tmo = 10\n")
	f.Start(Stafd, Stacd)
	hangs := false
	any := func() Port { return ports[r.IntN(len(ports))] }
	// A connect that outlives the daemon that asked for it makes a connection of
	// which the next one knows nothing. If it is not wanted by then, it stays.
	abandoned := false
	leave := func(d Daemon) { abandoned = abandoned || d == Stacd && f.kernel.Pending() > 0 }
	service := func(d Daemon) bool { return f.running[d] != nil }

	events = 10 + r.IntN(60)
	for range events {
		f.Sleep([]time.Duration{0, time.Millisecond, 100 * time.Millisecond, 3 * time.Second, 30 * time.Second}[r.IntN(5)])
		p, n := any(), 2+r.IntN(subsystems-2) // the first two are never withdrawn
		o := offered{nqn(n), p}
		daemon := []Daemon{Stafd, Stacd}[r.IntN(2)]
		what := ""
		switch r.IntN(16) {
		case 0, 1:
			what = "the port is opened or closed"
			if closed[p] = !closed[p]; closed[p] {
				f.ClosePort(p)
			} else {
				f.OpenPort(p)
			}
		case 2, 3:
			what = "a subsystem comes or goes"
			if is[o] = !is[o]; is[o] {
				f.AddSubsystem(o.nqn, p)
			} else {
				withdrawn.Store(o, true)
				f.RemoveSubsystem(o.nqn, p)
			}
		case 4:
			if what = "a daemon stops or starts"; service(daemon) {
				leave(daemon)
				f.Stop(daemon)
			} else {
				f.Start(daemon)
			}
		case 5:
			if what = "a daemon is killed"; service(daemon) {
				leave(daemon)
				f.Kill(daemon)
			}
		case 6:
			if what = "a daemon is reloaded"; service(daemon) {
				f.Reload(daemon)
			}
		case 7:
			what = "stafd hangs, or no longer"
			hangs = !hangs
			f.hang(Stafd, hangs)
		case 8:
			what = "the bus is restarted"
			f.RestartBus()
		case 9:
			what = "events are lost"
			f.kernel.Overrun()
		case 10, 11:
			what = "a controller is removed by hand"
			if all := f.Controllers(); len(all) > 0 {
				f.Disconnect(all[r.IntN(len(all))].Name)
			}
		case 12:
			what = "a log cannot be read, or can"
			err := errors.New("out of order")
			if r.IntN(2) == 0 {
				err = nil
			}
			f.kernel.BreakLog(p.Addr, strconv.Itoa(p.Svc), err)
		case 13:
			what = "a port falls silent, or no longer"
			f.kernel.Silence(p.Addr, strconv.Itoa(p.Svc), []stastest.Silence{stastest.Answers, stastest.BlackHole, stastest.Mute, stastest.MuteLater}[r.IntN(4)])
		case 14:
			what = "a link comes up"
			f.kernel.NetworkUp()
		case 15:
			what = "a port is configured, or no longer"
			both = !both
			configure()
			if service(Stafd) {
				f.Reload(Stafd)
			}
		}
		t.Logf("%v: %s (%s, port %d, %s)", time.Since(began).Round(time.Millisecond), what, daemon, p.Svc, o.nqn)
	}

	t.Log("quiet")
	f.hang(Stafd, false)
	for _, p := range ports {
		f.OpenPort(p)
		f.kernel.Silence(p.Addr, strconv.Itoa(p.Svc), stastest.Answers)
		f.kernel.BreakLog(p.Addr, strconv.Itoa(p.Svc), nil)
	}
	for _, d := range []Daemon{Stafd, Stacd} {
		if !service(d) {
			f.Start(d)
		}
	}
	// A cap of the pauses, the kernel's wait for a silent target, and a pass.
	f.Sleep(4 * time.Minute)
	var want []string
	for _, p := range ports {
		for n := range subsystems {
			if is[offered{nqn(n), p}] && (both || p == portA) {
				want = append(want, fmt.Sprintf("%s %d", nqn(n), p.Svc))
			}
		}
	}
	var got []string
	for _, c := range f.Controllers() {
		if c.Kind == nvmesysfs.IO {
			if c.State != nvmesysfs.Live {
				t.Errorf("%s of %s is %s", c.Name, c.SubsysNQN, c.State)
			}
			is := c.SubsysNQN + " " + c.TrSvcID
			if !abandoned || slices.Contains(want, is) {
				got = append(got, is)
			}
		}
	}
	slices.Sort(want)
	slices.Sort(got)
	if !slices.Equal(got, want) {
		t.Errorf("connected are\n%q, want\n%q", got, want)
	}
	return events
}

// began is when each bubble's time begins.
var began = time.Date(2000, 1, 1, 0, 0, 0, 0, time.UTC)
