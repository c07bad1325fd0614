package service_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/nvme-stas/stas/internal/conf"
	"github.com/nvme-stas/stas/internal/daemon"
	"github.com/nvme-stas/stas/internal/reconcile"
	"github.com/nvme-stas/stas/internal/service"
	"github.com/nvme-stas/stas/internal/stasbus"
	"github.com/nvme-stas/stas/internal/tid"
	"github.com/nvme-stas/stas/pkg/fabrics"
	"github.com/nvme-stas/stas/pkg/nvme"
)

// A number that another controller has taken over is not deleted in place of
// the one that had it.
func TestRecycledNumberIsNotDeleted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, tid.IO, "nqn.a", "nqn.b")
		r.kernel.deaf = true
		r.start()
		a, b := controller("nqn.a", "1"), controller("nqn.b", "1")
		r.want(a)
		r.expect("before", "nvme0=nqn.a:1")
		r.replace("nvme0", b)
		r.do(func() { r.svc.Engine().Unwant(a, false, time.Now()) })
		pause(time.Second)
		r.expect("the number was recycled", "nvme0=nqn.b:1")
		if last := r.policy.events[len(r.policy.events)-1]; r.svc.Engine().Len() != 0 || last.Kind != reconcile.Disconnected {
			t.Errorf("a is not forgotten, or by a failure: %v", last)
		}

		// It is another one's, and can be deleted as that.
		r.want(b)
		r.do(func() { r.svc.Engine().Unwant(b, false, time.Now()) })
		pause(time.Second)
		r.expect("b is deleted", "")
	})
}

func TestDeleteUnverified(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, tid.IO, "nqn.a")
		r.kernel.deaf = true
		r.start()
		a := controller("nqn.a", "1")
		r.want(a)
		r.kernel.on("read nvme0", func() error { return unix.EIO })
		r.do(func() { r.svc.Engine().Unwant(a, false, time.Now()) })
		pause(time.Minute)
		r.expect("sysfs cannot be read", "nvme0=nqn.a:1")
		r.kernel.on("", nil)
		pause(time.Minute)
		r.expect("it can", "")
	})
}

// The log of another controller is not taken for that of the one that had its
// number, at whatever moment it was replaced.
func TestRecycledNumberGivesNoLog(t *testing.T) {
	for _, when := range []string{"read nvme0", "log nvme0"} {
		t.Run(when, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := newRig(t, tid.Discovery, "nqn.a")
				r.kernel.OpenPort(2, addr, "2")
				r.kernel.Offer("nqn.b", addr, "2", true)
				r.kernel.deaf = true
				r.start()
				a, b := controller(nvme.WellKnownDiscoveryNQN, "1"), controller(nvme.WellKnownDiscoveryNQN, "2")
				r.want(a)
				replaced := false
				r.kernel.on(when, func() error {
					if !replaced {
						replaced = true
						r.replace("nvme0", b)
					}
					return nil
				})
				r.do(func() { r.svc.Engine().RequestWork("nvme0", time.Now()) })
				pause(10 * time.Second)
				if n := r.kernel.count("log nvme0"); !replaced || n != map[string]int{"read nvme0": 1, "log nvme0": 2}[when] {
					t.Errorf("replaced: %v, nvme0 was asked for its log %d times", replaced, n)
				}
				want := []string{"1: nqn.a", "1: nqn.a"} // of nvme0 before, of nvme1 after
				if !slices.Equal(r.policy.logs, want) {
					t.Errorf("logs %q, want %q", r.policy.logs, want)
				}
				r.expect("a is connected again", "nvme0="+nvme.WellKnownDiscoveryNQN+":2 nvme1="+nvme.WellKnownDiscoveryNQN+":1")
			})
		})
	}
}

// What cannot be looked at is not gone, and before all could be looked at,
// nothing is connected.
func TestPassThatFailsProvesNothing(t *testing.T) {
	for _, call := range []string{"names", "read nvme1"} {
		t.Run(call, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := newRig(t, tid.IO, "nqn.a", "nqn.b")
				r.kernel.deaf = true
				a, b := controller("nqn.a", "1"), controller("nqn.b", "1")
				for _, id := range []tid.TID{a, b} {
					if _, err := r.kernel.Kernel.Connect(r.options(id)); err != nil {
						t.Fatal(err)
					}
				}
				broken := func() error { return unix.EIO }
				r.kernel.on(call, broken)
				r.start()
				r.want(a)
				pause((service.BlindPasses - 2) * service.PassRetry)
				if n := r.kernel.count("connect"); n != 0 {
					t.Errorf("%d connects before the controllers are known", n)
				}
				r.kernel.on("", nil)
				pause(service.PassRetry)
				r.want(b)
				if n := r.kernel.count("connect"); n != 0 || len(r.policy.events) != 2 {
					t.Errorf("%d connects, %d events, want both adopted", n, len(r.policy.events))
				}

				r.kernel.on(call, broken)
				if call == "names" {
					if err := r.kernel.Kernel.Delete("nvme0"); err != nil {
						t.Fatal(err)
					}
				}
				pause(service.FullPass + time.Second)
				if n := r.kernel.count("connect"); n != 0 || len(r.policy.events) != 2 {
					t.Errorf("%d connects, events %v, although nothing is proven", n, r.policy.events[2:])
				}
				r.kernel.on("", nil)
				pause(service.PassRetry + 2*time.Second)
				r.expect("healed", "nvme0=nqn.a:1 nvme1=nqn.b:1")
			})
		})
	}
}

func TestReload(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, tid.IO)
		r.start()
		const good, bad = "ready: Looking after I/O controllers.",
			"ready: The last reload failed, an older configuration is in force; see the journal."
		for _, step := range []struct {
			name    string
			err     error
			applied int
			status  string
		}{
			{"start", nil, 1, good},
			{"unreadable", errors.New("no such luck"), 1, bad},
			{"still unreadable", errors.New("no such luck"), 1, bad},
			{"readable", nil, 2, good},
		} {
			if step.name != "start" {
				r.load = step.err
				r.outside.told = nil
				r.reload <- struct{}{}
				synctest.Wait()
				step.status = "reloading " + step.status
			}
			if got := strings.Join(r.outside.told, " "); got != step.status {
				t.Errorf("%s: the manager was told %q, want %q", step.name, got, step.status)
			}
			if r.policy.applied != step.applied {
				t.Errorf("%s: applied %d times, want %d", step.name, r.policy.applied, step.applied)
			}
			report, err := r.svc.Report(t.Context())
			if err != nil || report.ReloadFailed != (step.err != nil) || step.err != nil && report.ReloadError != "no such luck" {
				t.Errorf("%s: the report says %v %q, %v", step.name, report.ReloadFailed, report.ReloadError, err)
			}
		}
	})
}

// At start the command line or the file turns tracing on; a reload takes the
// file's word, whatever was said before.
func TestTracing(t *testing.T) {
	for name, c := range map[string]struct{ option, file, set, after, want, wantAfter bool }{
		"off":                 {},
		"option":              {option: true, want: true},
		"file":                {file: true, want: true, after: true, wantAfter: true},
		"both":                {option: true, file: true, want: true},
		"turned on meanwhile": {set: true},
		"reload turns it on":  {after: true, wantAfter: true},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := newRig(t, tid.IO)
				file := c.file
				r.svc = service.New(tid.IO, r.policy, r.env(func(env *service.Env) {
					env.Tron = c.option
					env.Config = func() (*conf.Config, error) { return &conf.Config{Tron: file}, nil }
				}))
				r.policy.engine = r.svc.Engine()
				r.start()
				if r.svc.Tron() != c.want {
					t.Errorf("at start it is %v", r.svc.Tron())
				}
				if c.set {
					r.svc.SetTron(true)
				}
				file = c.after
				r.reload <- struct{}{}
				synctest.Wait()
				if r.svc.Tron() != c.wantAfter {
					t.Errorf("after the reload it is %v", r.svc.Tron())
				}
			})
		})
	}
}

// What the host's exclusion list forbids is not connected as long as it does;
// what is connected stays.
func TestExcluded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, tid.IO, "nqn.a", "nqn.b")
		var forbidden atomic.Value
		forbidden.Store("nqn.a")
		r.svc = service.New(tid.IO, r.policy, r.env(func(env *service.Env) {
			env.Excluded = func(o fabrics.Options) string {
				if o.NQN == forbidden.Load() {
					return "/etc/nvme/exclusions.conf:7 excludes nqn=" + o.NQN
				}
				return ""
			}
		}))
		r.policy.engine = r.svc.Engine()
		r.start()
		r.want(controller("nqn.a", "1"), controller("nqn.b", "1"))
		pause(time.Hour)
		r.expect("one is excluded", "nvme0=nqn.b:1")
		if n := r.kernel.count("connect"); n != 1 {
			t.Errorf("%d connects", n)
		}
		r.do(func() {
			if st, _ := r.svc.Engine().Status(controller("nqn.a", "1")); st.Err == nil || !strings.Contains(st.Err.Error(), "exclusions.conf:7") {
				t.Errorf("the reason is not told: %v", st.Err)
			}
		})
		forbidden.Store("nqn.b")
		pause(time.Minute + time.Second)
		r.expect("the other is excluded", "nvme0=nqn.b:1 nvme1=nqn.a:1")
	})
}

func TestStartFails(t *testing.T) {
	cause := errors.New("out of order")
	for name, breakIt := range map[string]func(*rig){
		"configuration": func(r *rig) { r.load = cause },
		"bus":           func(r *rig) { r.outside.busErr = cause },
		"task":          func(r *rig) { r.policy.task = func(context.Context) error { return cause } },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := newRig(t, tid.IO)
				breakIt(r)
				if err := r.svc.Run(t.Context(), nil); !errors.Is(err, cause) {
					t.Errorf("ended with %v, want %v", err, cause)
				}
				synctest.Wait()
			})
		})
	}
}

// Being told to stop is no failure, whatever the reason is called
// (signal.NotifyContext gives one). What is over soon is waited for, and what
// hangs in the kernel is not, but the last state is saved.
func TestStop(t *testing.T) {
	for _, c := range []struct {
		call        string
		takes, want time.Duration
	}{
		{"connect", 300 * time.Millisecond, 200 * time.Millisecond},
		{"connect", time.Minute, time.Second},
		{"delete nvme0", time.Minute, time.Second},
		{"log nvme0", time.Minute, time.Second},
	} {
		t.Run(fmt.Sprint(c.call, " ", c.takes), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := newRig(t, tid.Discovery)
				r.kernel.on(c.call, func() error { time.Sleep(c.takes); return nil })
				r.start()
				id := controller(nvme.WellKnownDiscoveryNQN, "1")
				r.want(id)
				if c.call == "delete nvme0" {
					r.do(func() { r.svc.Engine().Unwant(id, false, time.Now()) })
				}
				r.do(func() { r.svc.Save("last") })
				if r.kernel.count(c.call) != 1 {
					t.Fatal("nothing is under way")
				}
				start := time.Now()
				r.cancel(errors.New("terminated signal received"))
				if err := <-r.done; err != nil {
					t.Errorf("ended with: %v", err)
				}
				if took := time.Since(start); took > c.want+20*time.Millisecond || took < c.want-20*time.Millisecond {
					t.Errorf("ended after %v, want %v", took, c.want)
				}
				if got := r.outside.told[len(r.outside.told)-1]; got != "stopping" {
					t.Errorf("the manager was told %q last", got)
				}
				if r.outside.saved != `"last"` {
					t.Errorf("saved is %s", r.outside.saved)
				}
			})
		})
	}
}

// What is handed over last is saved, even if it comes late.
func TestLastStateIsSaved(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, tid.IO)
		r.start()
		r.do(func() { r.svc.Save("one"); r.svc.Save("two") })
		if r.outside.saved != `"two"` {
			t.Errorf("saved is %s, want the last of several", r.outside.saved)
		}
		r.svc.Loop().Post(t.Context(), func() {
			r.cancel(nil)
			time.Sleep(time.Second) // all others have ended by now
			r.svc.Save("three")
		})
		<-r.done
		if r.outside.saved != `"three"` {
			t.Errorf("saved is %s after the end", r.outside.saved)
		}
	})
}

// After lost events everything is looked at, and every log read again.
func TestOverrun(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, tid.Discovery, "nqn.a")
		r.kernel.OpenPort(2, addr, "2")
		r.start()
		r.want(controller(nvme.WellKnownDiscoveryNQN, "1"), controller(nvme.WellKnownDiscoveryNQN, "2"))
		pause(time.Second)
		for _, call := range []string{"names", "log nvme0", "log nvme1"} {
			r.kernel.count(call)
		}
		overruns := r.policy.overruns
		r.kernel.Overrun()
		synctest.Wait()
		for _, call := range []string{"names", "log nvme0", "log nvme1"} {
			if n := r.kernel.count(call); n != 1 {
				t.Errorf("%s %d times, want once", call, n)
			}
		}
		if n := r.policy.overruns - overruns; n != 1 {
			t.Errorf("the policy was told %d times", n)
		}
	})
}

// However many events there are of one controller, it is looked at once for
// all that have gathered.
func TestBurst(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, tid.IO) // which does not look at discovery controllers by itself
		r.kernel.OpenPort(2, addr, "2")
		r.start()
		for _, port := range []string{"1", "2"} {
			o := service.Options(controller(nvme.WellKnownDiscoveryNQN, port), tid.Discovery, conf.Params{}, identity)
			if _, err := r.kernel.Kernel.Connect(o); err != nil {
				t.Fatal(err)
			}
		}
		synctest.Wait()
		release := make(chan struct{})
		r.kernel.on("kind nvme0", func() error { <-release; return nil })
		r.policy.changed = 0
		r.kernel.Offer("nqn.first", addr, "1", true)
		synctest.Wait() // the watcher looks at nvme0
		for nqn := range strings.FieldsSeq("a b c d e f g h i j k l m n o p") {
			r.kernel.Offer(nqn, addr, "1", true)
			r.kernel.Offer(nqn, addr, "2", true)
		}
		synctest.Wait()
		for _, call := range []string{"kind nvme0", "kind nvme1"} {
			r.kernel.count(call)
		}
		close(release)
		synctest.Wait()
		for _, call := range []string{"kind nvme0", "kind nvme1"} {
			if n := r.kernel.count(call); n != 1 {
				t.Errorf("%s %d times, want once", call, n)
			}
		}
		if want := 1 + 2*16; r.policy.changed != want {
			t.Errorf("the policy saw %d events, want %d", r.policy.changed, want)
		}
	})
}

// A connection that somebody else has made meanwhile is adopted.
func TestAlreadyConnected(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, tid.IO, "nqn.a")
		r.kernel.deaf = true
		r.start()
		a := controller("nqn.a", "1")
		r.kernel.on("connect", func() error {
			_, err := r.kernel.Kernel.Connect(r.options(a))
			return err
		})
		r.want(a)
		r.expect("connected", "nvme0=nqn.a:1")
		kinds := []reconcile.EventKind{}
		for _, ev := range r.policy.events {
			kinds = append(kinds, ev.Kind)
		}
		if want := []reconcile.EventKind{reconcile.ConnectFailed, reconcile.Adopted}; !slices.Equal(kinds, want) {
			t.Errorf("events %v, want %v", kinds, want)
		}
	})
}

func TestWatchdogProbe(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, tid.IO)
		r.start()
		if err := r.outside.probe(t.Context()); err != nil {
			t.Errorf("the loop runs: %v", err)
		}
		release := make(chan struct{})
		r.svc.Loop().Post(t.Context(), func() { <-release })
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		if err := r.outside.probe(ctx); err == nil {
			t.Error("the loop hangs, and the probe does not notice")
		}
		close(release)
	})
}

func TestDescribe(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, tid.IO, "nqn.a")
		r.start()
		a, b := controller("nqn.a", "1"), controller("nqn.b", "1") // b is not there
		r.want(a, b)
		list, err := r.svc.ListControllers(t.Context(), false)
		id := func(id tid.TID, device string) stasbus.Dict {
			d := id.Map()
			d["device"] = device
			return d
		}
		if err != nil || len(list) != 2 || !equal(list[0], id(a, "nvme0")) || !equal(list[1], id(b, "nvme?")) {
			t.Errorf("list_controllers(false): %v, %v", list, err)
		}
		list, err = r.svc.ListControllers(t.Context(), true)
		if err != nil || len(list) != 2 {
			t.Fatalf("list_controllers(true): %v, %v", list, err)
		}
		for i, want := range []stasbus.Dict{
			{"connected": "True", "model": "Fake", "hostid": identity.ID, "hostnqn": identity.NQN,
				"cntrltype": "io", "connect attempts": "0", "retry connect timer": "1.0s [off]"},
			{"connected": "False", "model": "", "hostid": "", "connect attempts": "1"},
		} {
			for key, value := range want {
				if got, ok := list[i][key]; got != value || !ok {
					t.Errorf("controller %d: %s is %q, want %q", i, key, got, value)
				}
			}
		}
		if !strings.HasPrefix(list[1]["retry connect timer"], "60.0s [0.") {
			t.Errorf("nothing tells when b is tried again: %v", list[1])
		}
		r.kernel.on("read nvme0", func() error { return unix.EIO })
		if list, _ = r.svc.ListControllers(t.Context(), true); list[0]["connected"] != "False" {
			t.Errorf("connected is %q, although sysfs cannot be read", list[0]["connected"])
		}

		for id, want := range map[tid.TID]string{a: "nvme0", controller("nqn.c", "1"): ""} {
			text, err := r.svc.ControllerInfo(t.Context(), id)
			var info stasbus.Dict
			if err != nil || json.Unmarshal([]byte(text), &info) != nil || info["device"] != want || want == "" && text != "{}" {
				t.Errorf("controller_info(%v): %s, %v", id, text, err)
			}
		}
	})
}

// The dictionaries have the keys of nvme-stas 2.x and no others: its tools
// print whatever they get.
func TestDictionaryKeys(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, tid.IO, "nqn.a")
		r.start()
		a, b := controller("nqn.a", "1"), controller("nqn.b", "1") // b is not there
		r.want(a, b)
		id := []string{"device", "host-iface", "host-nqn", "host-traddr", "subsysnqn", "traddr", "transport", "trsvcid"}
		info := []string{"connect attempts", "retry connect timer"}
		details := []string{"hostid", "hostnqn", "model", "serial", "dctype", "cntrltype", "connected"}
		check := func(what string, d stasbus.Dict, want ...[]string) {
			t.Helper()
			all := slices.Sorted(slices.Values(slices.Concat(want...)))
			if got := slices.Sorted(maps.Keys(d)); !slices.Equal(got, all) {
				t.Errorf("%s has %q, want %q", what, got, all)
			}
		}
		for _, detailed := range []bool{false, true} {
			list, err := r.svc.ListControllers(t.Context(), detailed)
			if err != nil || len(list) != 2 {
				t.Fatal(list, err)
			}
			for _, d := range list {
				if detailed {
					check("list_controllers(true)", d, id, info, details)
				} else {
					check("list_controllers(false)", d, id)
				}
			}
		}
		r.kernel.on("connect", func() error { time.Sleep(time.Minute); return nil })
		pause(retryEnd)
		var d stasbus.Dict
		text, err := r.svc.ControllerInfo(t.Context(), b)
		if err != nil || json.Unmarshal([]byte(text), &d) != nil {
			t.Fatal(text, err)
		}
		check("controller_info", d, id, info, []string{"connect operation"})
		if want := "{'fail count': 1, 'completed': False, 'alive': True}"; d["connect operation"] != want {
			t.Errorf("connect operation is %s, want %s", d["connect operation"], want)
		}

		r.kernel.on("delete nvme0", func() error { time.Sleep(time.Minute); return nil })
		r.do(func() { r.svc.Engine().Unwant(a, false, time.Now()) })
		text, err = r.svc.ProcessInfo(t.Context())
		var process map[string]any
		if err != nil || json.Unmarshal([]byte(text), &process) != nil {
			t.Fatal(text, err)
		}
		for key, want := range map[string]any{
			"tron": false, "log-level": "INFO", "hostnqn": identity.NQN, "hostid": identity.ID, "hostkey": nil, "symname": nil,
			"last known config file": nil, "config soak timer": "1.5s [off]", "terminator.audit timer": "30.0s [off]",
			"kernel support.TP8013": "True", "kernel support.host_iface": "True",
		} {
			if got, ok := process[key]; !ok || got != want {
				t.Errorf("process_info: %s is %v, want %v", key, got, want)
			}
			delete(process, key)
		}
		leaving := "terminator.controller." + a.String()
		if text, _ := process[leaving].(string); len(process) != 1 || !strings.HasPrefix(text, "{'connect attempts': '0', 'device': 'nvme0'") {
			t.Errorf("process_info has besides: %v, want %s", process, leaving)
		}
	})
}

// retryEnd is when the second attempt has begun for sure.
const retryEnd = 2 * time.Second

func TestReport(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, tid.IO, "nqn.a")
		r.start()
		a, b := controller("nqn.a", "1"), controller("nqn.b", "1") // b is not there
		began := time.Now()
		r.want(a, b)
		report, err := r.svc.Report(t.Context())
		if err != nil || report.Version != 1 || report.Daemon != "stacd" || report.Host.NQN != identity.NQN || report.Host.ID != identity.ID ||
			!report.Time.Equal(time.Now()) || report.Refused == nil {
			t.Errorf("report: %+v, %v", report, err)
		}
		if len(report.Controllers) != 2 {
			t.Fatal(report.Controllers)
		}
		if diff := cmp.Diff(stasbus.Controller{
			ID: stasbus.ID(a), Device: "nvme0", State: "live", Wanted: true, Origins: []stasbus.Origin{},
			SrcAddr: addr, Model: "Fake", CntrlType: "io",
			Probe:      &stasbus.Probe{Time: began, Answered: true},
			Namespaces: []stasbus.Namespace{{Name: "nvme0n1", Size: 1 << 30, ANA: "optimized"}},
		}, report.Controllers[0]); diff != "" {
			t.Errorf("connected (-want +got):\n%s", diff)
		}
		c := report.Controllers[1]
		if f := c.Connect; c.State != "waiting" || f == nil || f.Attempts != 1 || f.Errno != "EIO" || f.Class != "rejected" || f.Remedy == "" || !strings.HasPrefix(f.Error, "connect: ") || f.Next.Before(time.Now()) {
			t.Errorf("not connected: %+v, %+v", c, f)
		}
		r.kernel.on("connect", func() error { time.Sleep(time.Minute); return nil })
		pause(retryEnd)
		one, err := r.svc.Controller(t.Context(), b)
		if err != nil || one == nil || one.State != "connecting" || one.Operation == nil || one.Operation.Kind != "connect" || !one.Operation.Since.Before(time.Now()) {
			t.Errorf("while an attempt is made: %+v, %v", one, err)
		}
		if one, err := r.svc.Controller(t.Context(), controller("nqn.c", "1")); one != nil || err != nil {
			t.Errorf("unknown: %v, %v", one, err)
		}
		for what, want := range map[error]string{unix.EIO: "unknown", fs.ErrNotExist: "unknown"} {
			r.kernel.on("read nvme0", func() error { return what })
			if one, err := r.svc.Controller(t.Context(), a); err != nil || one.State != want {
				t.Errorf("sysfs says %v: %+v, %v", what, one, err)
			}
		}
		// A report that takes too long is given up.
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		r.kernel.on("read nvme0", func() error { time.Sleep(2 * time.Second); return nil })
		if _, err := r.svc.Report(ctx); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("a slow report gives %v", err)
		}
	})
}

// A timer is shown as by nvme-stas: the interval with a point, what is left of
// it without more digits than it takes.
func TestTimerText(t *testing.T) {
	now := time.Now()
	for left, want := range map[time.Duration]string{
		1344 * time.Millisecond: "60.0s [1.344s]", 30 * time.Second: "60.0s [30s]", 2500 * time.Millisecond: "60.0s [2.5s]",
		0: "60.0s [0s]", -time.Hour: "60.0s [0s]",
	} {
		if got := service.TimerText(now.Add(left), now, time.Minute); got != want {
			t.Errorf("%v: %s, want %s", left, got, want)
		}
	}
	if got := service.TimerText(time.Time{}, now, time.Minute); got != "1.0s [off]" {
		t.Errorf("no timer: %s", got)
	}
}

// What is on its way out is not shown any more.
func TestDescribeUnwanted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, tid.IO, "nqn.a")
		r.start()
		a := controller("nqn.a", "1")
		r.want(a)
		r.kernel.on("delete nvme0", func() error { time.Sleep(time.Minute); return nil })
		r.do(func() { r.svc.Engine().Unwant(a, false, time.Now()) })
		list, err := r.svc.ListControllers(t.Context(), false)
		if len(list) != 0 || list == nil || err != nil {
			t.Errorf("list_controllers: %v, %v", list, err)
		}
		if text, err := r.svc.ControllerInfo(t.Context(), a); text != "{}" || err != nil {
			t.Errorf("controller_info: %s, %v", text, err)
		}
	})
}

func equal(a, b stasbus.Dict) bool {
	x, _ := json.Marshal(a)
	y, _ := json.Marshal(b)
	return string(x) == string(y)
}

// A question that is given up does not touch what the loop may still write.
func TestDescribeGivenUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, tid.IO, "nqn.a")
		r.start()
		r.want(controller("nqn.a", "1"))
		release := make(chan struct{})
		r.svc.Loop().Post(t.Context(), func() { <-release })
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if list, err := r.svc.ListControllers(ctx, true); err == nil || list != nil {
			t.Errorf("got %v, %v", list, err)
		}
		close(release)
		synctest.Wait()
	})
}

// Of a series of failures the first is told, and the others are in "ls".
func TestFailuresAreToldOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, tid.IO)
		var journal bytes.Buffer
		r.svc = service.New(tid.IO, r.policy, r.env(func(env *service.Env) {
			env.Log = daemon.NewLogger(&journal, false, new(slog.LevelVar))
		}))
		r.policy.engine = r.svc.Engine()
		r.start()
		id := controller("nqn.late", "9")
		r.want(id)
		pause(10 * time.Minute)
		told := func() int {
			n := 0
			r.do(func() { n = strings.Count(journal.String(), id.String()) })
			return n
		}
		if failed := r.kernel.count("probe"); failed < 8 || told() != 1 {
			t.Errorf("%d attempts failed, this was told:\n%s", failed, journal.String())
		}
		r.kernel.OpenPort(9, addr, "9")
		r.kernel.Offer("nqn.late", addr, "9", true)
		pause(time.Minute)
		if told() != 2 {
			t.Errorf("it is connected, this was told:\n%s", journal.String())
		}
	})
}

// Who reloads has probably mended something: what failed is tried at once,
// however long its pause has grown.
func TestReloadTriesAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, tid.IO)
		r.start()
		id := controller("nqn.late", "9")
		r.want(id)
		pause(10 * time.Minute) // pauses are of up to a minute now
		r.kernel.OpenPort(9, addr, "9")
		r.kernel.Offer("nqn.late", addr, "9", true)
		failed := r.kernel.count("probe")
		if quick := int(service.QuickFor / service.QuickMost); failed < quick || failed > 3*quick+40 {
			t.Errorf("%d attempts in ten minutes", failed)
		}
		r.reload <- struct{}{}
		pause(time.Second)
		if n := r.kernel.count("connect"); n != 1 {
			t.Errorf("%d attempts after the reload, want one at once", n)
		}
		r.expect("reloaded", "nvme0=nqn.late:9")
	})
}
