package service_test

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/nvme-stas/stas/internal/conf"
	"github.com/nvme-stas/stas/internal/hostid"
	"github.com/nvme-stas/stas/internal/reconcile"
	"github.com/nvme-stas/stas/internal/service"
	"github.com/nvme-stas/stas/internal/stasbus"
	"github.com/nvme-stas/stas/internal/tid"
	"github.com/nvme-stas/stas/pkg/fabrics"
)

// decider is a policy that wants what its configuration lists.
type decider struct {
	*policy
	last  []tid.TID
	guard map[string]error // by device
	held  string           // NQN
}

func (d *decider) Decide(cfg *conf.Config, identity hostid.Identity) (made service.Decision) {
	wanted := service.Configured(cfg, tid.IO, identity, discard)
	for id, o := range wanted {
		made.Wanted = append(made.Wanted, service.Wish{TID: id, Options: &o, Why: "listed"})
	}
	for _, id := range d.last {
		if _, ok := wanted[id]; !ok {
			made.Gone = append(made.Gone, service.Gone{TID: id, Why: "gone"})
		}
	}
	made.Guard = func(op reconcile.Op[fabrics.Options]) error { return d.guard[op.Device] }
	made.Held = func(id tid.TID) bool { return id.SubsysNQN == d.held }
	return made
}

func TestPlan(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, tid.IO, "nqn.a", "nqn.b", "nqn.c", "nqn.d", "nqn.e")
		identity := identity
		d := &decider{policy: r.policy, guard: make(map[string]error), held: "nqn.e"}
		var failed error
		r.svc = service.New(tid.IO, d, r.env(func(env *service.Env) {
			env.Candidate = func(text string) (service.Candidate, error) {
				cfg, issues, err := conf.Parse(conf.Stacd, "x", strings.NewReader("[Controllers]\n"+text))
				c := service.Candidate{Config: cfg, Identity: identity}
				for _, i := range issues {
					c.Issues = append(c.Issues, i.Problem)
				}
				return c, errors.Join(err, failed)
			}
		}))
		r.policy.engine = r.svc.Engine()
		r.start()
		// b is somebody else's connection, and nobody wants it yet.
		if _, err := r.kernel.Kernel.Connect(r.options(controller("nqn.b", "1"))); err != nil {
			t.Fatal(err)
		}
		pause(2 * time.Minute)
		for _, nqn := range []string{"nqn.a", "nqn.c", "nqn.d"} {
			d.last = append(d.last, controller(nqn, "1"))
		}
		r.want(d.last...)
		r.expect("connected", "nvme0=nqn.b:1 nvme1=nqn.a:1 nvme2=nqn.c:1 nvme3=nqn.d:1")
		lines := func(nqns ...string) (text string) {
			for _, nqn := range nqns {
				text += "controller=transport=tcp;traddr=10.0.0.1;trsvcid=1;nqn=nqn." + nqn + "\n"
			}
			return text
		}
		plan := func(text string) stasbus.Plan {
			t.Helper()
			p, err := r.svc.Plan(t.Context(), text)
			if err != nil {
				t.Fatal(err)
			}
			return p
		}
		expect := func(what, text, want string) {
			t.Helper()
			var all []string
			for _, s := range plan(text).Steps {
				all = append(all, strings.TrimSpace(s.Action+" "+strings.TrimPrefix(s.SubsysNQN, "nqn.")+" "+s.Device))
			}
			slices.Sort(all)
			if got := strings.Join(all, ", "); got != want {
				t.Errorf("%s: %s, want %s", what, got, want)
			}
		}
		expect("as it is", lines("a", "c", "d"), "adjust a nvme1, adjust c nvme2, adjust d nvme3") // with the times of the defaults
		expect("all others", lines("b", "e"), "disconnect a nvme1, disconnect c nvme2, disconnect d nvme3, hold e, take-over b nvme0")
		r.kernel.SetOwner("nvme1", "csi-driver")
		d.guard["nvme2"] = errors.New("it is mounted")
		expect("some are kept", "", "disconnect d nvme3, keep a nvme1, keep c nvme2")
		for _, s := range plan("").Steps {
			if want := map[string]string{"nvme1": "csi-driver", "nvme2": "it is mounted", "nvme3": "gone"}[s.Device]; !strings.Contains(s.Why, want) {
				t.Errorf("%s: %s", s.Device, s.Why)
			}
		}
		if p := plan("controller=transport=tcp;traddr=dc.example;nqn=nqn.a\n"); !p.Doubtful {
			t.Errorf("a host name that is not known yet: %+v", p)
		}
		identity.NQN += "0"
		p := plan(lines("a", "c", "d"))
		if got := fmt.Sprint(len(p.Steps)); got != "6" || !slices.ContainsFunc(p.Steps, func(s stasbus.Step) bool {
			return s.Action == stasbus.PlanKeep && s.Device == "nvme3" && strings.Contains(s.Why, "host NQN")
		}) {
			t.Errorf("under another host NQN: %+v", p.Steps)
		}
		failed = errors.New("no host ID")
		if p := plan(lines("a")); p.Refused != "no host ID" || len(p.Steps) != 0 {
			t.Errorf("what is refused: %+v", p)
		}
		r.expect("to plan does nothing", "nvme0=nqn.b:1 nvme1=nqn.a:1 nvme2=nqn.c:1 nvme3=nqn.d:1")
	})
}
