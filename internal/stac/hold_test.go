package stac_test

import (
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/nvme-stas/stas/internal/boot"
	"github.com/nvme-stas/stas/internal/stac"
	"github.com/nvme-stas/stas/internal/stasbus"
	"github.com/nvme-stas/stas/internal/tid"
	"github.com/nvme-stas/stas/pkg/fabrics"
	"github.com/nvme-stas/stas/pkg/nvmesysfs"
)

func (r *rig) hold(name string, duration time.Duration) {
	r.t.Helper()
	if _, err := r.daemon.Hold(r.t.Context(), name, duration); err != nil {
		r.t.Error(err)
	}
	r.settle()
}

func (r *rig) release(name string) {
	r.t.Helper()
	if _, err := r.daemon.Release(r.t.Context(), name); err != nil {
		r.t.Error(err)
	}
	r.settle()
}

// What an operator holds is neither connected nor disconnected, whoever asks
// for it, until it is released.
func TestHold(t *testing.T) {
	for _, name := range []string{"nqn.a", "10.0.0.1", "10.0.0.1:4420", "::ffff:10.0.0.1"} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := newRig(t)
				r.kernel.OpenPort(2, "10.0.0.2", "4420")
				r.offer("a")
				r.kernel.Offer("nqn.b", "10.0.0.2", "4420", true)
				r.start()
				r.hold(name, 0)
				r.deliver([]stac.Page{dc(1, yes, "a", "b 10.0.0.2")})
				r.wait()
				r.expectConnected("held", "nvme0=nqn.b")
				if h := r.controllers()["a"].HeldBy; len(h) != 1 || h[0].Controller != nil {
					t.Errorf("held: %+v", h)
				}
				r.stop()
				r.start()
				r.deliver([]stac.Page{dc(1, yes, "a", "b 10.0.0.2")})
				r.expectConnected("held, restarted", "nvme0=nqn.b")
				r.release(name)
				r.expectConnected("released", "nvme0=nqn.b nvme1=nqn.a")
				r.hold(name, 0)
				r.deliver([]stac.Page{dc(1, yes, "b 10.0.0.2")})
				r.wait()
				r.expectConnected("held and withdrawn", "nvme0=nqn.b nvme1=nqn.a")
				r.release(name)
				r.expectConnected("released and withdrawn", "nvme0=nqn.b")
			})
		})
	}
}

// A hold ends by itself when its time is over, also after a restart.
func TestHoldFor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		r.offer("a")
		r.start()
		r.hold("nqn.a", time.Hour)
		r.hold("nqn.b", 3*time.Hour)
		r.deliver([]stac.Page{dc(1, yes, "a")})
		time.Sleep(30 * time.Minute)
		r.stop()
		r.start()
		r.settle()
		r.expectConnected("half of the time", "")
		time.Sleep(29 * time.Minute)
		r.expectConnected("almost all of the time", "")
		time.Sleep(2 * time.Minute)
		r.settle()
		r.expectConnected("all of the time", "nvme0=nqn.a")
		rep, err := r.daemon.Report(t.Context())
		if err != nil || len(rep.Holds) != 1 || rep.Holds[0].Name != "nqn.b" || rep.Holds[0].Until.IsZero() {
			t.Errorf("%+v, %v", rep.Holds, err)
		}
		// While the daemon is away, time passes as well.
		r.stop()
		time.Sleep(3 * time.Hour)
		r.start()
		r.settle()
		if rep, err = r.daemon.Report(t.Context()); err != nil || len(rep.Holds) != 0 {
			t.Errorf("%+v, %v", rep.Holds, err)
		}
	})
}

func TestHoldNames(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		r.start()
		for _, name := range []string{"", "a", "nvme0", "10.0.0.1:", "nqn.a b", "storage.example", "10.0.0.1:99999"} {
			if _, err := r.daemon.Hold(t.Context(), name, 0); err == nil {
				t.Errorf("%q is held", name)
			}
			if _, err := r.daemon.Release(t.Context(), name); err == nil {
				t.Errorf("%q is released", name)
			}
		}
		if _, err := r.daemon.Hold(t.Context(), "nqn.a", -time.Second); err == nil {
			t.Error("held until a time that is over")
		}
		for _, name := range []string{"fe80::1%eth0", "[fe80::1%eth0]:4420", "nn-0x20000025b57a1234:pn-0x20000025b57a1235", "[::1]"} {
			r.hold(name, 0)
			r.hold(name, time.Hour) // replaces it
			r.release(name)
		}
		if rep, err := r.daemon.Report(t.Context()); err != nil || len(rep.Holds) != 0 {
			t.Errorf("%+v, %v", rep.Holds, err)
		}
	})
}

// An operator's disconnect lasts: the controller is held. It spares what is in
// use, and what the host was booted from, unless it is forced.
func TestOperatorDisconnect(t *testing.T) {
	for _, c := range []struct {
		name, device, config string
		inUse, force         bool
		err                  string
	}{
		{name: "free", device: "nvme0"},
		{name: "by its path", device: "/dev/nvme0"},
		{name: "in use", device: "nvme0", inUse: true, err: "nvme0n1 is mounted on /data; --force"},
		{name: "in use, forced", device: "nvme0", inUse: true, force: true},
		{
			name: "in use, which does not matter", device: "nvme0", inUse: true,
			config: "[I/O controller connection management]\ndisconnect-in-use=allow\n", err: "nvme0n1 is mounted",
		},
		{name: "not there", device: "nvme7", err: `no controller with the device "nvme7"`},
		{name: "nothing", err: "no controller with the device"},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := newRig(t)
				r.conf = c.config
				r.offer("a")
				r.start()
				r.deliver([]stac.Page{dc(1, yes, "a")})
				if c.inUse {
					r.kernel.SetInUse("nvme0n1", "nvme0n1 is mounted on /data")
				}
				done, err := r.daemon.Disconnect(t.Context(), c.device, c.force)
				if c.err != "" {
					if err == nil || !strings.Contains(err.Error(), c.err) {
						t.Errorf("%v, want %q", err, c.err)
					}
					r.wait()
					r.expectConnected("refused", "nvme0=nqn.a")
					if h := r.controllers()["a"].HeldBy; h != nil {
						t.Errorf("held: %+v", h)
					}
					if c.inUse {
						// Whoever has just released it need not wait.
						if _, err := r.daemon.Disconnect(t.Context(), c.device, false); err == nil {
							t.Error("disconnected while in use")
						}
						r.kernel.SetInUse("nvme0n1")
						if _, err := r.daemon.Disconnect(t.Context(), c.device, false); err != nil {
							t.Error(err)
						}
					}
					return
				}
				if err != nil || done.Device != "nvme0" || done.SubsysNQN != "nqn.a" || done.Pending {
					t.Errorf("%+v, %v", done, err)
				}
				r.expectConnected("disconnected", "")
				for range 10 {
					r.wait()
				}
				r.reconfigure(r.conf)
				r.expectConnected("disconnected and held", "")
				r.stop()
				r.start()
				r.wait()
				r.expectConnected("restarted", "")
				h := r.controllers()["a"].HeldBy
				if len(h) != 1 || h[0].Controller == nil || h[0].Name != "nvme0" {
					t.Errorf("held: %+v", h)
				}
				r.release("nqn.a")
				r.expectConnected("released", "nvme0=nqn.a")
			})
		})
	}
}

// bootedFrom has a boot table that names a subsystem.
func bootedFrom(nqn string) boot.Tables {
	id := tid.TID{Transport: "tcp", TrAddr: "10.0.0.1", TrSvcID: "4420", SubsysNQN: nqn}
	return boot.Tables{Storage: []boot.Controller{{ID: id, Table: "NBFT"}}}
}

func TestOperatorDisconnectBooted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		r.boot = bootedFrom("nqn.a")
		r.offer("a")
		r.start()
		r.deliver([]stac.Page{dc(1, yes, "a")})
		if _, err := r.daemon.Disconnect(t.Context(), "nvme0", false); err == nil || !strings.Contains(err.Error(), "the boot table") {
			t.Errorf("disconnected: %v", err)
		}
		r.expectConnected("refused", "nvme0=nqn.a")
		if _, err := r.daemon.Disconnect(t.Context(), "nvme0", true); err != nil {
			t.Error(err)
		}
		r.expectConnected("forced", "")
	})
}

const limit2 = "[I/O controller connection management]\nconnect-attempts-on-ncc=2\n"

// ncc sets or clears the flag of the first entry.
func ncc(p stac.Page, set bool) []stac.Page {
	p.LogPages[0].EFlags = map[bool]string{true: "4", false: "0"}[set]
	return []stac.Page{p}
}

func TestAttemptsOnNCC(t *testing.T) {
	for _, c := range []struct {
		name, conf string
		ncc        bool
		attempts   int // in ten minutes; 0: without limit
	}{
		{"no limit", "", true, 0},
		{"two", limit2, true, 2},
		{"one is two", strings.Replace(limit2, "2", "1", 1), true, 2},
		{"three", strings.Replace(limit2, "2", "3", 1), true, 3},
		{"not said", limit2, false, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := newRig(t)
				r.conf = c.conf
				r.start()
				r.deliver(ncc(dc(1, yes, "a"), c.ncc))
				time.Sleep(10 * time.Minute)
				synctest.Wait()
				if n := r.kernel.Connects; c.attempts > 0 && n != c.attempts || c.attempts == 0 && n < 10 {
					t.Errorf("%d attempts", n)
				}
				given := r.controllers()["a"].GivenUp
				if c.attempts == 0 {
					if given != nil {
						t.Errorf("given up: %+v", given)
					}
					return
				}
				if given == nil || given.Attempts != c.attempts || given.Error == "" {
					t.Errorf("given up: %+v", given)
				}
				list, err := r.daemon.ListControllers(t.Context(), true)
				if err != nil || len(list) != 1 || list[0]["connect attempts"] != map[int]string{2: "2", 3: "3"}[c.attempts] {
					t.Errorf("%v, %v", list, err)
				}
				// Nothing but the flag counts.
				p := ncc(dc(1, yes, "a"), true)
				p[0].LogPages[0].PortID = "7"
				r.deliver(p)
				r.wait()
				if r.kernel.Connects != c.attempts {
					t.Errorf("%d attempts after another entry", r.kernel.Connects)
				}
				r.offer("a")
				r.deliver(ncc(dc(1, yes, "a"), false))
				r.expectConnected("the flag is cleared", "nvme0=nqn.a")
				if given := r.controllers()["a"].GivenUp; given != nil {
					t.Errorf("given up: %+v", given)
				}
			})
		})
	}
}

// A reload tries again, and a connection that was lost has its attempts anew.
func TestAttemptsOnNCCAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		r.conf = limit2
		r.start()
		r.deliver(ncc(dc(1, yes, "a"), true))
		r.wait()
		r.reconfigure(r.conf)
		r.wait()
		if r.kernel.Connects != 3 {
			t.Errorf("%d attempts, want two and after a reload one", r.kernel.Connects)
		}
		r.offer("a")
		r.reconfigure(r.conf)
		r.expectConnected("reloaded", "nvme0=nqn.a")
		r.kernel.Offer("nqn.a", "10.0.0.1", "4420", false)
		for range 6 {
			r.wait()
		}
		if n := r.kernel.Connects; n != 6 {
			t.Errorf("%d attempts, want two more", n-4)
		}
		// Withdrawn, it is nobody's any more.
		r.deliver([]stac.Page{dc(1, yes)})
		r.expectWanted("withdrawn", "")
		r.offer("a")
		r.deliver(ncc(dc(1, yes, "a"), true))
		r.wait()
		r.expectConnected("listed again", "nvme0=nqn.a")
	})
}

// The flag that is cleared makes an attempt due at once, also without a limit.
func TestNCCCleared(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		r.start()
		r.deliver(ncc(dc(1, yes, "a"), true))
		time.Sleep(5 * time.Minute)
		r.offer("a")
		synctest.Wait()
		r.deliver(ncc(dc(1, yes, "a"), false))
		r.expectConnected("cleared", "nvme0=nqn.a")
	})
}

var _ stasbus.Operator = (*stac.Daemon)(nil)

const scopeAll = "[I/O controller connection management]\ndisconnect-scope=all-connections-matching-disconnect-trtypes\n"

// foreign is how somebody else connects.
func foreign(nqn string) fabrics.Options {
	return fabrics.Options{Transport: "tcp", TrAddr: "10.0.0.1", TrSvcID: "4420", NQN: nqn, HostNQN: identity.NQN, HostID: identity.ID}
}

// others connects as somebody else does.
func (r *rig) others(nqn, hostNQN string) {
	r.t.Helper()
	r.kernel.Offer(nqn, "10.0.0.1", "4420", true)
	o := foreign(nqn)
	if hostNQN != "" {
		o.HostNQN, o.HostID = hostNQN, "11111111-2222-4333-8444-555555555555"
	}
	if _, err := r.kernel.Connect(o); err != nil {
		r.t.Error(err)
	}
}

// The connections that others made are removed in the scope of all, and only
// if everybody has told that nobody wants them (defects 37 and 68 of nvme-stas).
func TestConnectionsOfOthers(t *testing.T) {
	listed := []stac.Page{dc(1, yes, "a")}
	for _, c := range []struct {
		name, conf string
		pages      []stac.Page
		hostNQN    string
		booted     bool
		unread     bool
		owner      string
		inUse      bool
		hold       string
		goes       bool
	}{
		{name: "nobody wants it", conf: scopeAll, pages: listed, goes: true},
		{name: "owned by us", conf: scopeAll, pages: listed, owner: "stas", goes: true},
		{name: "other scope", pages: listed},
		{name: "no-disconnect", conf: strings.Replace(scopeAll, "all-connections-matching-disconnect-trtypes", "no-disconnect", 1), pages: listed},
		{name: "other transport", conf: scopeAll + "disconnect-trtypes=rdma+fc\n", pages: listed},
		{name: "another host NQN", conf: scopeAll, pages: listed, hostNQN: "nqn.2026-11.org.example:initramfs"},
		{name: "booted from", conf: scopeAll, pages: listed, booted: true},
		{name: "boot tables not read", conf: scopeAll, pages: listed, unread: true},
		{name: "owned by another", conf: scopeAll, pages: listed, owner: "csi-driver"},
		{name: "held", conf: scopeAll, pages: listed, hold: "nqn.x"},
		{name: "stafd is silent", conf: scopeAll},
		{name: "a page is not known", conf: scopeAll, pages: []stac.Page{dc(1, yes, "a"), dc(2, no)}},
		{name: "no discovery controller at all", conf: scopeAll, pages: []stac.Page{}},
		{name: "doubtful configuration", conf: scopeAll + "[Controllers]\nexclude=nqm=x\ncontroler=x\n", pages: listed},
		{name: "listed", conf: scopeAll, pages: []stac.Page{dc(1, yes, "a", "x")}},
		{name: "listed by another way", conf: scopeAll, pages: []stac.Page{via("eth7", dc(1, yes, "a", "x"))}},
		{name: "listed, in words that make no sense", conf: scopeAll, pages: []stac.Page{dc(1, yes, "a", "x host.example")}},
		{name: "in use", conf: scopeAll, pages: listed, inUse: true},
		{name: "excluded", conf: scopeAll + "[Controllers]\nexclude=nqn=nqn.x\n", pages: []stac.Page{dc(1, yes, "a", "x")}, goes: true},
		{name: "not included", conf: scopeAll + "[Controllers]\ninclude=nqn=nqn.a\n", pages: []stac.Page{dc(1, yes, "a", "x")}, goes: true},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := newRig(t)
				r.conf = c.conf
				if c.booted {
					r.boot = bootedFrom("nqn.x")
				}
				r.boot.Unread = c.unread
				r.offer("a")
				r.others("nqn.x", c.hostNQN)
				r.kernel.SetOwner("nvme0", c.owner)
				if c.inUse {
					r.kernel.SetInUse("nvme0n1", "nvme0n1 is open in mysqld")
				}
				r.start()
				if c.hold != "" {
					r.hold(c.hold, 0)
				}
				if c.pages != nil {
					r.deliver(c.pages)
				}
				for range 10 {
					r.wait()
				}
				stays := false
				for _, k := range r.kernel.Controllers() {
					stays = stays || k.SubsysNQN == "nqn.x" && k.Name == "nvme0" && k.State == nvmesysfs.Live
				}
				if stays == c.goes {
					t.Errorf("it stays: %v; the log:\n%s", stays, r.log.String())
				}
				if r.kernel.Deletes > 1 {
					t.Errorf("%d deletions", r.kernel.Deletes)
				}
				if n := r.said("nqn.x"); n > 12 {
					t.Errorf("said %d times:\n%s", n, r.log.String())
				}
			})
		})
	}
}

// What appears later is noticed, and a scope that is changed looks again.
func TestConnectionsOfOthersLater(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		r.offer("a")
		r.start()
		r.deliver([]stac.Page{dc(1, yes, "a")})
		r.others("nqn.x", "")
		r.wait()
		r.expectConnected("not our business", "nvme0=nqn.a nvme1=nqn.x")
		r.reconfigure(scopeAll + "disconnect-trtypes=rdma")
		r.wait()
		r.expectConnected("another transport", "nvme0=nqn.a nvme1=nqn.x")
		r.reconfigure(scopeAll)
		r.wait()
		r.expectConnected("all", "nvme0=nqn.a")
		r.others("nqn.y", "")
		r.wait()
		r.expectConnected("one more", "nvme0=nqn.a")
	})
}

// What others made, and what is in use, is theirs again when the scope says so.
func TestConnectionsOfOthersInUse(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		r.conf = scopeAll
		r.offer("a")
		r.others("nqn.x", "")
		r.kernel.SetInUse("nvme0n1", "nvme0n1 is open in mysqld")
		r.start()
		r.deliver([]stac.Page{dc(1, yes, "a")})
		r.wait()
		if r.controllers()["x"].Withheld == nil {
			t.Errorf("nothing tells that it is in use: %+v", r.controllers())
		}
		r.reconfigure("")
		r.kernel.SetInUse("nvme0n1")
		for range 3 {
			r.wait()
		}
		r.expectConnected("the scope is ours", "nvme0=nqn.x nvme1=nqn.a")
		r.reconfigure(scopeAll)
		r.wait()
		r.expectConnected("the scope is all", "nvme1=nqn.a")
	})
}

// What a scope keeps is not forgotten: the next one may let it go. What the
// configuration excludes goes in any (defect 38 of nvme-stas).
func TestScopes(t *testing.T) {
	const none = "[I/O controller connection management]\ndisconnect-scope=no-disconnect\n"
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		r.conf = none
		r.offer("a", "b", "c")
		r.start()
		r.deliver([]stac.Page{dc(1, yes, "a", "b", "c")})
		r.deliver([]stac.Page{dc(1, yes, "c")})
		if n := len(r.kernel.Controllers()); n != 3 {
			t.Errorf("no-disconnect: %d are left", n)
		}
		r.reconfigure(none + "[Controllers]\nexclude=nqn=nqn.c")
		if n := len(r.kernel.Controllers()); n != 2 || strings.Contains(r.connected(), "nqn.c") {
			t.Errorf("excluded: %s", r.connected())
		}
		r.reconfigure(scopeAll + "disconnect-trtypes=fc\n")
		if n := len(r.kernel.Controllers()); n < 2 {
			t.Errorf("all of another transport: %s", r.connected())
		}
		r.stop()
		r.start()
		r.deliver([]stac.Page{dc(1, yes, "b")})
		r.reconfigure("")
		if got := r.connected(); !strings.Contains(got, "=nqn.b") || strings.Contains(got, "nqn.a") || strings.Contains(got, "nqn.c") {
			t.Errorf("our own: %s", got)
		}
	})
}

// What stays although nobody asks for it is in the report, with the reason.
func TestKept(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		r.boot = bootedFrom("nqn.a")
		r.conf = "[I/O controller connection management]\ndisconnect-scope=no-disconnect\n"
		r.offer("a", "b")
		r.start()
		r.deliver([]stac.Page{dc(1, yes, "a", "b")})
		r.others("nqn.x", "")
		r.deliver([]stac.Page{dc(1, yes)})
		rep, err := r.daemon.Report(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		got := make(map[string]string)
		for _, k := range rep.Kept {
			got[k.SubsysNQN] = k.Why
		}
		if len(got) != 2 || !strings.Contains(got["nqn.a"], "boot table NBFT") || got["nqn.b"] != "disconnect-scope is no-disconnect" {
			t.Errorf("kept: %v", got)
		}
	})
}
