package stac_test

import (
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/nvme-stas/stas/internal/stac"
	"github.com/nvme-stas/stas/internal/stasbus"
	"github.com/nvme-stas/stas/internal/stastest"
	"github.com/nvme-stas/stas/pkg/nvmesysfs"
)

// controllers are those of the report, by NQN without "nqn.".
func (r *rig) controllers() map[string]stasbus.Controller {
	r.t.Helper()
	rep, err := r.daemon.Report(r.t.Context())
	if err != nil {
		r.t.Fatal(err)
	}
	all := make(map[string]stasbus.Controller)
	for _, c := range rep.Controllers {
		all[strings.TrimPrefix(c.SubsysNQN, "nqn.")] = c
	}
	return all
}

func (r *rig) offer(nqns ...string) {
	for _, nqn := range nqns {
		r.kernel.Offer("nqn."+nqn, "10.0.0.1", "4420", true)
	}
}

// wait lets time pass, long enough for the guard to look again.
func (r *rig) wait() {
	time.Sleep(10 * time.Second)
	synctest.Wait()
}

// addresses are those of the live controllers, as the last digit says.
func (r *rig) addresses() string {
	var all []string
	for _, c := range r.kernel.Controllers() {
		if c.State == nvmesysfs.Live {
			all = append(all, strings.TrimPrefix(c.TrAddr, "10.0.0."))
		}
	}
	slices.Sort(all)
	return strings.Join(all, "")
}

func (r *rig) expectAddresses(what, want string) {
	r.t.Helper()
	if got := r.addresses(); got != want {
		r.t.Errorf("%s: connected are %q, want %q", what, got, want)
	}
}

func (r *rig) said(text string) int { return strings.Count(r.log.String(), text) }

// What is in use is not taken away by zoning: it stays, is seen to do so, and
// goes when it is released.
func TestInUse(t *testing.T) {
	for _, c := range []struct {
		name, conf string
		users      []string
		stays      bool
	}{
		{name: "free"},
		{name: "mounted", users: []string{"nvme0n1 is mounted on /data"}, stays: true},
		{name: "not known", users: []string{stastest.Unknown}, stays: true},
		{
			name: "mounted, but allowed", conf: "[I/O controller connection management]\ndisconnect-in-use=allow\n",
			users: []string{"nvme0n1 is mounted on /data"},
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := newRig(t)
				r.conf = c.conf
				r.offer("a")
				r.start()
				r.deliver([]stac.Page{dc(1, yes, "a")})
				r.kernel.SetInUse("nvme0n1", c.users...)
				r.deliver([]stac.Page{dc(1, yes)})
				if !c.stays {
					r.expectConnected("withdrawn", "")
					return
				}
				for range 10 {
					r.wait()
				}
				r.expectConnected("withdrawn", "nvme0=nqn.a")
				r.expectWanted("withdrawn", "")
				if n := r.said("is not disconnected now"); n != 1 {
					t.Errorf("said %d times:\n%s", n, r.log.String())
				}
				w := r.controllers()["a"].Withheld
				if w == nil || strings.Join(w.InUse, "") != strings.Trim(strings.Join(c.users, ""), "?") || w.Why == "" {
					t.Errorf("withheld: %+v", w)
				}
				if c.name == "mounted" && r.kernel.Looks > 2 {
					t.Errorf("the host was searched %d times for what can be seen to be mounted", r.kernel.Looks)
				}
				// Wanted again meanwhile, nothing is left of it.
				r.deliver([]stac.Page{dc(1, yes, "a")})
				if w := r.controllers()["a"].Withheld; w != nil {
					t.Errorf("wanted again: %+v", w)
				}
				r.deliver([]stac.Page{dc(1, yes)})
				r.kernel.SetInUse("nvme0n1")
				r.wait()
				r.expectConnected("released", "")
			})
		})
	}
}

// A restart does not forget that a connection waits to be released, nor that
// it is in use.
func TestInUseRestart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		r.offer("a")
		r.start()
		r.deliver([]stac.Page{dc(1, yes, "a")})
		r.kernel.SetInUse("nvme0n1", "nvme0n1 is swap")
		r.deliver([]stac.Page{dc(1, yes)})
		r.stop()
		r.start()
		r.deliver([]stac.Page{dc(1, yes)})
		r.wait()
		r.expectConnected("restarted", "nvme0=nqn.a")
		r.kernel.SetInUse("nvme0n1")
		r.wait()
		r.expectConnected("released", "")
	})
}

// Of several paths the last one stays, also if all are withdrawn at once; how
// many there are to look at, the host is searched a few times.
func TestInUsePaths(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		r.kernel.Multipath = true
		r.kernel.OpenPort(2, "10.0.0.2", "4420")
		r.kernel.OpenPort(3, "10.0.0.3", "4420")
		all := []string{"a", "a 10.0.0.2", "a 10.0.0.3"}
		for _, addr := range []string{"10.0.0.1", "10.0.0.2", "10.0.0.3"} {
			r.kernel.Offer("nqn.a", addr, "4420", true)
		}
		r.start()
		r.deliver([]stac.Page{dc(1, yes, all...)})
		r.expectAddresses("listed", "123")
		r.kernel.SetInUse("nvme0n1", "nvme0n1 is mounted on /data")
		r.deliver([]stac.Page{dc(1, yes, all[1:]...)})
		r.expectAddresses("one of three withdrawn", "23")
		r.deliver([]stac.Page{dc(1, yes)})
		r.wait()
		if n := len(r.kernel.Controllers()); n != 1 {
			t.Errorf("all withdrawn: %d paths are left", n)
		}
		r.kernel.SetInUse("nvme0n1")
		r.wait()
		r.expectConnected("released", "")
	})
}

func TestInUseBatch(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		var names []string
		for i := range 40 {
			names = append(names, string(rune('a'+i/26))+string(rune('a'+i%26)))
		}
		r.offer(names...)
		r.start()
		r.deliver([]stac.Page{dc(1, yes, names...)})
		r.wait()
		r.deliver([]stac.Page{dc(1, yes)})
		r.wait()
		r.expectConnected("withdrawn", "")
		if r.kernel.Looks > 4 {
			t.Errorf("the host was searched %d times for 40 controllers", r.kernel.Looks)
		}
	})
}

// A path that does not get through is none.
func TestInUseBrokenPath(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		r.kernel.Multipath = true
		r.kernel.OpenPort(2, "10.0.0.2", "4420")
		r.kernel.Offer("nqn.a", "10.0.0.1", "4420", true)
		r.kernel.Offer("nqn.a", "10.0.0.2", "4420", true)
		r.start()
		r.deliver([]stac.Page{dc(1, yes, "a", "a 10.0.0.2")})
		r.kernel.SetInUse("nvme0n1", "nvme0n1 is mounted on /data")
		r.kernel.ClosePort("10.0.0.2", "4420")
		r.deliver([]stac.Page{dc(1, yes, "a 10.0.0.2")})
		r.wait()
		r.expectAddresses("the other path is broken", "1")
		r.kernel.OpenPort(2, "10.0.0.2", "4420")
		for range 6 {
			r.wait()
		}
		r.expectAddresses("the other path is back", "2")
	})
}

// A daemon that is killed in the middle of disconnecting goes on with it.
func TestKilledWhileDisconnecting(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		r.offer("a", "b")
		r.start()
		r.hold("nqn.b", 0)
		r.deliver([]stac.Page{dc(1, yes, "a")})
		r.release("nqn.b")
		r.deliver([]stac.Page{dc(1, yes, "a", "b")})
		r.hold("nqn.a", 0)
		r.deliver([]stac.Page{dc(1, yes, "b")})
		r.expectConnected("withdrawn, but held", r.connected())
		r.stop()
		r.start()
		r.deliver([]stac.Page{dc(1, yes, "b")})
		r.release("nqn.a")
		r.wait()
		if got := r.connected(); strings.Contains(got, "nqn.a") || !strings.Contains(got, "nqn.b") {
			t.Errorf("released after a restart: %s", got)
		}
		r.stop()
		if strings.Contains(string(r.state), "nqn.a") {
			t.Errorf("the state still has what is gone: %s", r.state)
		}
	})
}
