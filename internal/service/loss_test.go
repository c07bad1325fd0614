package service_test

import (
	"bytes"
	"errors"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/nvme-stas/stas/internal/daemon"
	"github.com/nvme-stas/stas/internal/reconcile"
	"github.com/nvme-stas/stas/internal/service"
	"github.com/nvme-stas/stas/internal/tid"
)

// A connection that breaks is seen although nobody tells, and so is its return
// when the event is lost; each is told once.
func TestSilentLoss(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, tid.IO, "nqn.a", "nqn.b")
		r.kernel.deaf = true
		var journal bytes.Buffer
		r.svc = service.New(tid.IO, r.policy, r.env(func(env *service.Env) {
			env.Log = daemon.NewLogger(&journal, false, new(slog.LevelVar))
		}))
		r.policy.engine = r.svc.Engine()
		r.start()
		a := controller("nqn.a", "1")
		r.want(a, controller("nqn.b", "1"))
		pause(time.Minute)
		r.policy.events = nil
		r.kernel.ClosePort(addr, "1")
		pause(2 * service.StateLook)
		c, err := r.svc.Controller(t.Context(), a)
		if err != nil || c.State != "connecting" || time.Since(c.LostSince) > 2*service.StateLook || c.GivesUp.Sub(c.LostSince) != 600*time.Second {
			t.Errorf("report: %+v, %v", c, err)
		}
		pause(15 * time.Second) // a reconnect has failed
		if n := len(r.policy.events); n != 2 || r.policy.events[0].Kind != reconcile.Broken {
			t.Errorf("events %v, want that both are broken", r.policy.events)
		}
		r.kernel.OpenPort(1, addr, "1")
		pause(10 * time.Second)
		pause(2 * service.StateLook)
		if n := len(r.policy.events); n != 4 || r.policy.events[3].Kind != reconcile.Back || r.policy.events[3].Down < 15*time.Second {
			t.Errorf("events %v, want that both are back", r.policy.events)
		}
		r.do(func() {
			for _, words := range []string{" is broken, the kernel tries to get it back", " is back"} {
				if n := strings.Count(journal.String(), a.String()+words); n != 1 {
					t.Errorf("%q is told %d times", words, n)
				}
			}
		})
		if c, err := r.svc.Controller(t.Context(), a); err != nil || c.State != "live" || !c.LostSince.IsZero() || !c.GivesUp.IsZero() {
			t.Errorf("report: %+v, %v", c, err)
		}
	})
}

// While all is well, a look at the states costs one reading per device.
func TestStatesAreCheap(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, tid.IO, "nqn.a")
		r.start()
		r.want(controller("nqn.a", "1"))
		pause(5 * time.Second)
		r.kernel.count("read nvme0")
		pause(30 * time.Second)
		if n := r.kernel.count("read nvme0"); n != 0 {
			t.Errorf("the controller was read %d times in 30 s", n)
		}
	})
}

// A link that comes up makes all due that waits; a link that flaps does so
// about once a second.
func TestNetworkUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, tid.IO)
		r.start()
		id := controller("nqn.late", "9")
		r.want(id)
		pause(30 * time.Minute)
		r.kernel.count("probe")
		for range 500 {
			r.kernel.NetworkUp()
			pause(10 * time.Millisecond)
		}
		if n := r.kernel.count("probe"); n < 5 || n > 20 {
			t.Errorf("%d attempts in 5 s, while a link flaps", n)
		}
		pause(30 * time.Minute)
		r.kernel.OpenPort(9, addr, "9")
		r.kernel.Offer("nqn.late", addr, "9", true)
		r.kernel.NetworkUp()
		pause(100 * time.Millisecond)
		r.expect("the link is up", "nvme0=nqn.late:9")
	})
}

// What the policy guards is not disconnected, which is told once, until it no
// longer does.
func TestGuard(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, tid.IO, "nqn.a")
		var journal bytes.Buffer
		r.svc = service.New(tid.IO, r.policy, r.env(func(env *service.Env) {
			env.Log = daemon.NewLogger(&journal, false, new(slog.LevelVar))
		}))
		r.policy.engine = r.svc.Engine()
		r.policy.guard = errors.New("nvme0n1 is mounted on /srv")
		r.start()
		a := controller("nqn.a", "1")
		r.want(a)
		r.do(func() { r.svc.Engine().Unwant(a, false, time.Now()) })
		pause(time.Hour)
		r.expect("it is in use", "nvme0=nqn.a:1")
		if n := r.kernel.count("delete nvme0"); n != 0 {
			t.Errorf("it was to be deleted %d times", n)
		}
		c, err := r.svc.Controller(t.Context(), a)
		if err != nil || c == nil || c.Wanted || c.Connect == nil || c.Connect.Class != "held back" || c.Connect.Error != "nvme0n1 is mounted on /srv" {
			t.Errorf("report: %+v, %v", c, err)
		}
		r.do(func() {
			if n := strings.Count(journal.String(), a.String()+" is not disconnected now: nvme0n1 is mounted on /srv"); n != 1 {
				t.Errorf("told %d times:\n%s", n, journal.String())
			}
			r.policy.guard = nil
		})
		pause(10 * time.Second)
		r.expect("it is no longer in use", "")
	})
}

// After the kernel has given up, or an operator has removed a controller, it is
// connected again as soon as its target is there.
func TestBackAfterRemoval(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, tid.IO, "nqn.a")
		r.start()
		a := controller("nqn.a", "1")
		r.want(a)
		pause(time.Minute)
		r.kernel.Disconnect("nvme0")
		pause(time.Second + 100*time.Millisecond)
		r.expect("removed by hand", "nvme0=nqn.a:1")

		r.kernel.ClosePort(addr, "1")
		r.kernel.Disconnect("nvme0")
		for away := 10 * time.Second; away < 100*time.Second; away *= 2 {
			pause(away)
			r.kernel.OpenPort(1, addr, "1")
			pause(2 * time.Second)
			r.expect("the target is back", "nvme0=nqn.a:1")
			pause(time.Minute)
			r.kernel.ClosePort(addr, "1")
			r.kernel.Disconnect("nvme0")
		}
	})
}
