package scenario

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/nvme-stas/stas/internal/stasbus"
)

// planCases are about telling what a reload would do.
var planCases = []Case{
	{Name: "PlanOfStafd", Run: planOfStafd},
	{Name: "PlanOfStacd", Run: planOfStacd},
}

// steps are those of a plan, in short: the action, where, and what changes.
func steps(p stasbus.Plan) string {
	all := make([]string, 0, len(p.Steps))
	for _, s := range p.Steps {
		what := s.TrSvcID
		if !strings.HasSuffix(s.SubsysNQN, ".discovery") {
			what = s.SubsysNQN[strings.LastIndex(s.SubsysNQN, ":")+1:]
		}
		words := []string{s.Action, what}
		for _, c := range s.Changes {
			words = append(words, fmt.Sprintf("%s:%s:%s:%v", c.Parameter, c.Was, c.Becomes, c.AtOnce))
		}
		all = append(all, strings.Join(words, " "))
	}
	slices.Sort(all)
	return strings.Join(all, ", ")
}

// expectPlan compares the steps of a plan, and that telling them does nothing.
func expectPlan(w World, d Daemon, what, text, want string) stasbus.Plan {
	w.Helper()
	before := len(w.Controllers())
	p := w.Plan(d, text)
	if got := steps(p); got != want {
		w.Errorf("%s: the plan is %q, want %q", what, got, want)
	}
	for _, s := range p.Steps {
		if s.Why == "" {
			w.Errorf("%s: nothing tells why to %s %s", what, s.Action, s.TrAddr)
		}
	}
	if after := len(w.Controllers()); after != before {
		w.Errorf("%s: to plan has made %d controllers of %d", what, after, before)
	}
	return p
}

func planOfStafd(w World) {
	offer(w, portA, 1)
	w.OpenPort(portB)
	up(w, []Port{portA}, nqn(0))
	expectPlan(w, Stafd, "as it is", "", "")
	both := quick + stafdConf(portA, portB)
	expectPlan(w, Stafd, "another one", both, "connect 8010")
	expectPlan(w, Stafd, "one for another", quick+stafdConf(portB), "connect 8010, disconnect 8009")
	expectPlan(w, Stafd, "a parameter", quick+"ctrl-loss-tmo=77\nkato=31\n"+stafdConf(portA), "adjust 8009 kato:30:31:false ctrl-loss-tmo:600:77:true")
	expectPlan(w, Stafd, "refused", both+"exclude=trsvcid=8009\n", "connect 8010, disconnect 8009, refuse 8009")
	if p := expectPlan(w, Stafd, "doubtful", quick+stafdConf(portB)+"controller=tansport=tcp\n", "connect 8010, keep 8009"); !p.Doubtful || len(p.Issues) == 0 {
		w.Errorf("nothing tells of the mistake: %+v", p)
	}
	if p := expectPlan(w, Stafd, "garbage", "[Controllers\n", ""); !strings.Contains(p.Refused, "candidate:1") {
		w.Errorf("nothing tells of the garbage: %+v", p)
	}
	expectPlan(w, Stafd, "nothing", "\n", "disconnect 8009")
	w.Configure(Stafd, both)
	expectPlan(w, Stafd, "the file was changed", "", "connect 8010")
	w.Reload(Stafd)
	eventually(w, soon, "reloaded", func() string { return steps(w.Plan(Stafd, "")) })
	eventually(w, soon, "connected as planned", func() string {
		if n := len(w.Controllers()); n != 3 {
			return fmt.Sprintf("%d controllers", n)
		}
		return ""
	})
}

func planOfStacd(w World) {
	offer(w, portA, 3)
	up(w, []Port{portA}, nqns(3)...)
	expectPlan(w, Stacd, "as it is", "", "")
	excluded := stacdConf("exclude = nqn=" + nqn(1) + "\n")
	p := expectPlan(w, Stacd, "an exclusion", excluded, "disconnect subsys1")
	if len(p.Steps) == 1 && (p.Steps[0].Device == "" || !strings.Contains(p.Steps[0].Why, "candidate:4 excludes")) {
		w.Errorf("the step is %+v", p.Steps[0])
	}
	const scope = "[I/O controller connection management]\ndisconnect-scope=no-disconnect\n"
	expectPlan(w, Stacd, "a time", quick+"ctrl-loss-tmo=55\n", "adjust subsys0 ctrl-loss-tmo:600:55:true, adjust subsys1 ctrl-loss-tmo:600:55:true, adjust subsys2 ctrl-loss-tmo:600:55:true")
	expectPlan(w, Stacd, "include nothing", scope+controllersSection+"include=nqn=nqn.x*\n", "keep subsys0, keep subsys1, keep subsys2")
	w.Configure(Stacd, excluded)
	expectPlan(w, Stacd, "the file was changed", "", "disconnect subsys1")
	w.Reload(Stacd)
	eventually(w, soon, "disconnected as planned", onlyThese(w, nqn(0), nqn(2)))
	w.Sleep(time.Second)
	expectPlan(w, Stacd, "back again", stacdConf(""), "connect subsys1")
	expectPlan(w, Stacd, "carried out", "", "")
}
