package staf

import (
	"errors"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/nvme-stas/stas/internal/stasbus"
	"github.com/nvme-stas/stas/internal/stastest"
	"github.com/nvme-stas/stas/pkg/nvme"
	"github.com/nvme-stas/stas/pkg/nvmesysfs"
	"github.com/nvme-stas/stas/pkg/uevent"
)

// byPort sorts the controllers of a port behind all others.
func byPort(port string) func(a, b nvmesysfs.Controller) int {
	at := func(c nvmesysfs.Controller) int {
		if c.TrSvcID == port {
			return 1
		}
		return 0
	}
	return func(a, b nvmesysfs.Controller) int { return at(a) - at(b) }
}

// reads counts how often the log of the only discovery controller is read.
func (r *rig) reads() func() int {
	var n atomic.Int64
	r.mangle = func(*nvme.DiscoveryLog) { n.Add(1) }
	return func() int {
		synctest.Wait()
		return int(n.Swap(0))
	}
}

// one is what is reported of the discovery controller behind port 1.
func (r *rig) one() stasbus.Controller {
	r.t.Helper()
	c, err := r.daemon.Controller(r.t.Context(), dcID("1"))
	if err != nil || c == nil {
		r.t.Fatal(c, err)
	}
	return *c
}

func (r *rig) event(env ...string) {
	r.t.Helper()
	ev := uevent.Event{Action: "change", Subsystem: "nvme", DevName: "nvme0", Env: map[string]string{}}
	for i := 0; i < len(env); i += 2 {
		ev.Env[env[i]] = env[i+1]
	}
	if err := r.daemon.Loop().Do(r.t.Context(), func() { r.daemon.Changed(ev) }); err != nil {
		r.t.Fatal(err)
	}
}

// A log is read once more a while after an AEN, and now and then anyway.
func TestReread(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		reads := r.reads()
		r.start()
		if n := reads(); n < 1 || n > 2 {
			t.Errorf("read %d times at first", n)
		}
		time.Sleep(safetyPoll * 6 / 5)
		if n := reads(); n != 1 {
			t.Errorf("read %d times while nothing happened, want 1", n)
		}
		// A burst of AENs: at once, and once more a while after the last.
		for range 5 {
			r.event("NVME_AEN", "0x70f002")
			time.Sleep(100 * time.Millisecond)
		}
		if n := reads(); n < 1 || n > 5 {
			t.Errorf("read %d times for 5 AENs", n)
		}
		time.Sleep(reread * 6 / 5)
		if n := reads(); n != 1 {
			t.Errorf("read %d times a while after the AENs, want 1", n)
		}
		// The kernel tells of a reconnect by two events.
		r.event("NVME_EVENT", "rediscover")
		r.event("NVME_EVENT", "connected")
		time.Sleep(time.Second)
		if n := reads(); n < 1 || n > 2 {
			t.Errorf("read %d times for one reconnect", n)
		}
	})
}

// Changes that no AEN tells of are found, and counted.
func TestMissedAENs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		r.start()
		r.kernel.SetDC(addr, "1", stastest.DC{Silent: true})
		r.kernel.Offer("nqn.a", addr, "1", true)
		settle()
		r.expectPages("nobody has told", "1=True:")
		time.Sleep(safetyPoll * 6 / 5)
		settle()
		r.expectPages("found by itself", "1=True:a")
		if p := r.one().LogPage; p.MissedAENs != 1 || p.Polled {
			t.Errorf("reported: %+v", p)
		}
		r.kernel.SetDC(addr, "1", stastest.DC{})
		r.kernel.Offer("nqn.b", addr, "1", true)
		time.Sleep(time.Hour)
		settle()
		r.expectPages("it tells again", "1=True:a,b")
		if p := r.one().LogPage; p.MissedAENs != 1 {
			t.Errorf("what was told counts as missed: %+v", p)
		}
	})
}

// A discovery controller that sends no AEN is asked often.
func TestPolled(t *testing.T) {
	for _, c := range []struct {
		name string
		conf string
		make func(*rig)
	}{
		{"no AEN", dc1, func(r *rig) {
			r.kernel.SetIdentify(addr, "1", func(id *nvme.IdentifyController) { id.OAES = 0 })
		}},
		{"no keep alive", "[Global]\nkato=0\n" + dc1, func(*rig) {}},
		{"keep alive refused", dc1, func(r *rig) { r.kernel.SetDC(addr, "1", stastest.DC{NoKeepAlive: true, Silent: true}) }},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := newRig(t)
				c.make(r)
				r.conf = c.conf
				r.start()
				time.Sleep(5 * time.Second)
				settle()
				r.kernel.SetDC(addr, "1", stastest.DC{Silent: true})
				r.kernel.Offer("nqn.a", addr, "1", true)
				time.Sleep(blindPoll * 6 / 5)
				settle()
				r.expectPages("asked", "1=True:a")
				if p := r.one().LogPage; !p.Polled || p.MissedAENs != 0 {
					t.Errorf("reported: %+v", p)
				}
			})
		})
	}
}

// A discovery controller that says that it keeps connections for good is not
// asked for one that does not.
func TestExplicitPersistence(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		r.kernel.SetDC(addr, "1", stastest.DC{Flags: nvme.NewEntryFlags(false, true, false)})
		r.start()
		r.kernel.SetDC(addr, "1", stastest.DC{NoKeepAlive: true})
		if err := r.kernel.Delete("nvme0"); err != nil {
			t.Fatal(err)
		}
		time.Sleep(5 * time.Minute)
		settle()
		if c := r.one(); c.Device != "" || c.Connect == nil {
			t.Errorf("it is connected without keep alive: %+v", c)
		}
	})
}

func TestPortLocal(t *testing.T) {
	const off = "[Global]\npleo=disabled\n"
	for _, c := range []struct {
		name string
		conf string
		dc   stastest.DC
		lsp  uint8
	}{
		{"offered", dc1, stastest.DC{LSP: nvme.LSPPortLocal | nvme.LSPExtended}, nvme.LSPPortLocal},
		{"not offered", dc1, stastest.DC{LSP: nvme.LSPExtended}, 0},
		{"refused", dc1, stastest.DC{}, 0}, // defect 42 of nvme-stas
		{"disabled", off + dc1, stastest.DC{LSP: nvme.LSPPortLocal}, 0},
		{"direct", dc1, stastest.DC{Type: nvme.DCTypeDDC, LSP: nvme.LSPPortLocal}, nvme.LSPPortLocal},
		{"central", dc1, stastest.DC{Type: nvme.DCTypeCDC, LSP: nvme.LSPPortLocal}, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := newRig(t)
				r.conf = c.conf
				r.kernel.SetDC(addr, "1", c.dc)
				r.start()
				if got := r.kernel.LastLSP(addr, "1"); got != c.lsp || r.one().LogPage.PortLocal != (c.lsp != 0) {
					t.Errorf("read with LSP %d, want %d; %+v", got, c.lsp, r.one().LogPage)
				}
				r.event("NVME_AEN", "0x70f002")
				settle()
				if got := r.kernel.LastLSP(addr, "1"); got != c.lsp {
					t.Errorf("after an AEN read with LSP %d, want %d", got, c.lsp)
				}
			})
		})
	}
}

// What was going to tell of the log pages is tried again as the log is.
func TestSupportedLogPagesFail(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		r.kernel.SetDC(addr, "1", stastest.DC{LSP: nvme.LSPPortLocal})
		var healed atomic.Bool
		r.askPages = func() error {
			if !healed.Load() {
				return nvme.StatusHostPathError
			}
			return nil
		}
		r.start()
		r.expectPages("the connection broke", "1=False:")
		healed.Store(true)
		time.Sleep(10 * time.Second)
		settle()
		r.expectPages("tried again", "1=True:")
		if got := r.kernel.LastLSP(addr, "1"); got != nvme.LSPPortLocal {
			t.Errorf("read with LSP %d", got)
		}
	})
}

func TestRegistration(t *testing.T) {
	for _, kind := range []nvme.DCType{nvme.DCTypeNone, nvme.DCTypeDDC, nvme.DCTypeCDC} {
		t.Run(kind.String(), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := newRig(t)
				r.identity.SymName = "rack 1"
				r.kernel.SetDC(addr, "1", stastest.DC{Type: kind})
				var known atomic.Int64
				r.mangle = func(*nvme.DiscoveryLog) { known.CompareAndSwap(0, int64(len(r.kernel.Managed(addr, "1")))) }
				r.start()
				if kind == nvme.DCTypeNone {
					if got := r.kernel.Managed(addr, "1"); len(got) > 0 || r.one().Registration != nil {
						t.Errorf("asked %v", got)
					}
					return
				}
				if n := known.Load(); n != 1 {
					t.Errorf("%d registrations before the log was read, want 1", n)
				}
				info := r.kernel.Hosts(addr, "1")[identity.NQN]
				e := info.Entries[0]
				id, _ := e.HostID()
				if info.EntityType != nvme.EntityHost || info.Name != "host.example" || info.Version != "Linux 6.12 Example 1" ||
					e.Entry.TrType != nvme.TCP || e.Entry.AdrFam != nvme.FamilyIPv4 || e.Entry.TrAddr != "" || e.Entry.SubNQN != identity.NQN ||
					id.String() != uuid || e.SymbolicName() != "rack 1" {
					t.Errorf("registered is %+v", info)
				}
				if reg := r.one().Registration; reg == nil || reg.State != stasbus.Registered || reg.SymName != "rack 1" || reg.Since.IsZero() {
					t.Errorf("reported: %+v", reg)
				}
				dict := stasbus.Dict{}
				if err := r.daemon.Loop().Do(t.Context(), func() { r.daemon.Info(dcID("1"), true, dict) }); err != nil {
					t.Fatal(err)
				}
				if dict["register operation"] != "{'fail count': 0, 'completed': True, 'alive': True}" {
					t.Errorf("register operation: %s", dict["register operation"])
				}

				// A reload tells what the host is called now; so does a reconnect.
				r.identity.SymName = "rack 2"
				r.reconfigure(dc1)
				if got := r.kernel.Hosts(addr, "1")[identity.NQN].Entries[0].SymbolicName(); got != "rack 2" {
					t.Errorf("after a reload the host is called %q", got)
				}
				before := len(r.kernel.Managed(addr, "1"))
				r.event("NVME_EVENT", "rediscover")
				settle()
				if n := len(r.kernel.Managed(addr, "1")); n != before+1 {
					t.Errorf("%d registrations after a reconnect", n-before)
				}
				r.event("NVME_AEN", "0x70f002")
				settle()
				if n := len(r.kernel.Managed(addr, "1")); n != before+1 {
					t.Errorf("registered for an AEN")
				}

				// It is not taken back at the end, but when the discovery controller
				// is taken out of the configuration.
				r.stop()
				r.start()
				if slices.Contains(r.kernel.Managed(addr, "1"), nvme.TaskDeregister) {
					t.Error("deregistered for a restart")
				}
				r.reconfigure("[Controllers]\n")
				if hosts := r.kernel.Hosts(addr, "1"); len(hosts) > 0 || len(r.kernel.Controllers()) > 0 {
					t.Errorf("still registered: %v; %d controllers", hosts, len(r.kernel.Controllers()))
				}
			})
		})
	}
}

func TestRegistrationFails(t *testing.T) {
	for _, c := range []struct {
		name  string
		err   error
		state string
		again bool
	}{
		{"no such command", nvme.StatusInvalidOpcode.WithDNR(), stasbus.Unsupported, false},
		{"refused", nvme.StatusInvalidDiscoveryInformation, stasbus.RegRefused, false},
		{"busy", nvme.StatusZoningDataStructureLocked, stasbus.RegFailed, true},
		{"no answer", errors.New("input/output error"), stasbus.RegFailed, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := newRig(t)
				r.kernel.Offer("nqn.a", addr, "1", true)
				r.kernel.SetDC(addr, "1", stastest.DC{Type: nvme.DCTypeDDC, DIM: c.err})
				r.start()
				r.expectPages("the log is read all the same", "1=True:a")
				reg := r.one().Registration
				if reg == nil || reg.State != c.state || reg.Failure == nil || reg.Failure.Next.IsZero() == c.again {
					t.Fatalf("reported: %+v", reg)
				}
				before := len(r.kernel.Managed(addr, "1"))
				time.Sleep(time.Minute)
				settle()
				// After 5, 10, 20 s …
				if n := len(r.kernel.Managed(addr, "1")) - before; c.again && (n < 2 || n > 3) || !c.again && n != 0 {
					t.Errorf("tried %d times in a minute", n)
				}
				if n := strings.Count(r.log.String(), "this host is not registered"); n != 1 {
					t.Errorf("told %d times", n)
				}
				r.kernel.SetDC(addr, "1", stastest.DC{Type: nvme.DCTypeDDC})
				time.Sleep(10 * time.Minute)
				settle()
				if reg := r.one().Registration; c.again && (reg.State != stasbus.Registered || reg.Failure != nil) {
					t.Errorf("reported: %+v", reg)
				}
			})
		})
	}
}

// A log that cannot be read is no reason to register again and again.
func TestRegistrationOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		r.kernel.SetDC(addr, "1", stastest.DC{Type: nvme.DCTypeCDC})
		r.kernel.BreakLog(addr, "1", errors.New("out of order"))
		r.start()
		time.Sleep(5 * time.Minute)
		settle()
		if n := len(r.kernel.Managed(addr, "1")); n != 1 {
			t.Errorf("registered %d times", n)
		}
	})
}

// A kernel that does not show the type of a discovery controller is no hindrance.
func TestRegistrationOldKernel(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		r.kernel.SetIdentify(addr, "1", func(id *nvme.IdentifyController) { id.DCType = nvme.DCTypeCDC })
		r.noDCType = true
		r.start()
		if len(r.kernel.Hosts(addr, "1")) != 1 {
			t.Error("not registered")
		}
	})
}

func TestNotPersistent(t *testing.T) {
	const off = "[Discovery controller connection management]\npersistent-connections=false\n"
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		r.kernel.SetDC(addr, "1", stastest.DC{Type: nvme.DCTypeDDC})
		r.conf, r.boot = dc1+off, booted(dcID("2"))
		r.start()
		if n := len(r.kernel.Controllers()); n != 2 {
			t.Fatalf("%d controllers", n)
		}
		r.stop()
		if all := r.kernel.Controllers(); len(all) != 1 || all[0].TrSvcID != "2" {
			t.Errorf("after the end: %v, want what the host was booted from", all)
		}
		if got := r.kernel.Managed(addr, "1"); slices.Contains(got, nvme.TaskDeregister) {
			t.Errorf("deregistered at the end: %v", got)
		}
		r.conf = dc1
		r.start()
		r.stop()
		if n := len(r.kernel.Controllers()); n != 2 {
			t.Errorf("%d controllers after the end of a daemon that keeps them", n)
		}
	})
}

// A controller that does not answer does not hold up the end.
func TestNotPersistentMute(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		r.conf = dc1 + "[Discovery controller connection management]\npersistent-connections=false\n"
		r.start()
		r.deleteTakes = time.Minute
		began := time.Now()
		r.stop()
		if took := time.Since(began); took > 5*time.Second {
			t.Errorf("it took %v to end", took)
		}
		time.Sleep(time.Minute)
	})
}

func TestTiming(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		r.kernel.SetIdentify(addr, "1", func(id *nvme.IdentifyController) { id.KAS, id.CQT, id.RTD3E = 100, 2500, 1_500_001 })
		r.conf = "[Global]\nkato=5\n" + dc1
		r.start()
		want := stasbus.Timing{KAS: 10_000, CQT: 2500, RTD3E: 1501, KATO: 5, KATOTooShort: true}
		if got := r.one().Timing; got == nil || *got != want {
			t.Errorf("got %+v, want %+v", got, want)
		}
		r.reconfigure(r.conf)
		if n := strings.Count(r.log.String(), "kato is 5 s"); n != 1 {
			t.Errorf("that kato is too short is told %d times:\n%s", n, r.log.String())
		}
	})
}
