package scenario

import (
	"fmt"
	"maps"
	"time"

	"github.com/nvme-stas/stas/internal/stasbus"
	"github.com/nvme-stas/stas/pkg/nvmesysfs"
)

// Connections that break, and what becomes of them.
var lossCases = []Case{
	{Name: "SilentLoss", Run: silentLoss},
	{Name: "GivenUpByTheKernel", Run: givenUp},
}

// seen is how long a broken connection may go unnoticed; the tool needs a
// moment as well.
const seen = 2500 * time.Millisecond

// silentLoss breaks a connection, of which the kernel says nothing to anybody.
func silentLoss(w World) {
	offer(w, portA, 1)
	w.Configure(Stafd, quick+stafdConf(portA))
	w.Configure(Stacd, quick+"ctrl-loss-tmo = 60\n")
	w.Start(Stafd, Stacd)
	eventually(w, soon, "the first connection", liveIs(w, nqn(0)))
	before := instances(w)
	theOne := func() stasbus.Controller {
		w.Helper()
		r := w.Report(Stacd)
		if len(r.Controllers) != 1 {
			w.Fatalf("stacd tells of %d controllers", len(r.Controllers))
		}
		return r.Controllers[0]
	}
	if c := theOne(); !c.LostSince.IsZero() || !c.GivesUp.IsZero() {
		w.Errorf("before: %+v", c)
	}
	began := w.Now()
	w.ClosePort(portA)
	eventually(w, seen, "the loss is seen", func() string {
		if c := theOne(); c.State != string(nvmesysfs.Connecting) || c.LostSince.Before(began) || c.GivesUp.Sub(c.LostSince) != time.Minute {
			return fmt.Sprintf("it is %s, lost %v after the port was closed, given up %v later", c.State, c.LostSince.Sub(began), c.GivesUp.Sub(c.LostSince))
		}
		return ""
	})
	c := theOne()
	w.Sleep(5 * time.Second)
	if later := theOne(); !later.GivesUp.Equal(c.GivesUp) || !later.LostSince.Equal(c.LostSince) {
		w.Errorf("later: %+v, was %+v", later, c)
	}
	w.OpenPort(portA)
	eventually(w, soon, "the connection is back", func() string {
		if c := theOne(); c.State != string(nvmesysfs.Live) || !c.LostSince.IsZero() || !c.GivesUp.IsZero() {
			return fmt.Sprintf("%s, lost since %v", c.State, c.LostSince)
		}
		return ""
	})
	if got := instances(w); !maps.Equal(got, before) {
		w.Errorf("the controllers are %v, were %v", got, before)
	}
}

// givenUp has the kernel give up a connection. It is made again as soon as the
// target is there.
func givenUp(w World) {
	offer(w, portA, 2)
	w.Configure(Stafd, quick+stafdConf(portA))
	w.Configure(Stacd, quick+"ctrl-loss-tmo = 4\n")
	w.Start(Stafd, Stacd)
	eventually(w, soon, "the first connections", liveIs(w, nqns(2)...))
	for range 2 {
		w.ClosePort(portA)
		eventually(w, soon, "the kernel gives up", instancesAre(w, map[string]string{}))
		w.Sleep(20 * time.Second)
		w.OpenPort(portA)
		eventually(w, 3*time.Second, "the target is back", liveIs(w, nqns(2)...))
	}
}
