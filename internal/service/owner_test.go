package service_test

import (
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/nvme-stas/stas/internal/reconcile"
	"github.com/nvme-stas/stas/internal/tid"
)

// What is connected is noted in the host's registry, and what was removed is
// taken out, whether or not an event tells.
func TestOwner(t *testing.T) {
	for _, deaf := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			r := newRig(t, tid.IO, "nqn.a", "nqn.b")
			r.kernel.deaf = deaf
			r.start()
			// One that somebody else has connected stays nobody's.
			b := controller("nqn.b", "1")
			if _, err := r.kernel.Kernel.Connect(r.options(b)); err != nil {
				t.Fatal(err)
			}
			pause(2 * time.Minute)
			r.want(controller("nqn.a", "1"), b)
			r.expect("connected", "nvme0=nqn.b:1 nvme1=nqn.a:1")
			if a, b := r.kernel.Owner("nvme1"), r.kernel.Owner("nvme0"); a != "stas" || b != "" {
				t.Errorf("deaf %v: owners %q and %q", deaf, a, b)
			}
			r.do(func() { r.svc.Engine().Unwant(controller("nqn.a", "1"), false, time.Now()) })
			pause(2 * time.Minute)
			r.expect("disconnected", "nvme0=nqn.b:1")
			if got := r.kernel.Owner("nvme1"); got != "" {
				t.Errorf("deaf %v: nvme1 has gone and is still owned by %q", deaf, got)
			}
		})
	}
}

// What another program owns is not disconnected as long as it owns it.
func TestOwnedByAnother(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, tid.IO, "nqn.a")
		r.start()
		a := controller("nqn.a", "1")
		r.want(a)
		r.kernel.SetOwner("nvme0", "csi-driver")
		r.do(func() { r.svc.Engine().Unwant(a, false, time.Now()) })
		pause(10 * time.Minute)
		r.expect("owned by another", "nvme0=nqn.a:1")
		if !slices.ContainsFunc(r.policy.events, func(e reconcile.Event) bool { return e.Kind == reconcile.DisconnectFailed }) {
			t.Error("nobody was told")
		}
		r.kernel.SetOwner("nvme0", "")
		pause(time.Minute)
		r.expect("owned by nobody", "")
	})
}
