package staf

import (
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/nvme-stas/stas/internal/stasbus"
	"github.com/nvme-stas/stas/internal/stastest"
	"github.com/nvme-stas/stas/pkg/nvme"
)

// refer has a port refer to others, "2 3".
func (r *rig) refer(port, to string) {
	var all []stastest.Referral
	for svc := range strings.FieldsSeq(to) {
		r.kernel.OpenPort(number(svc), addr, svc)
		all = append(all, stastest.Referral{Addr: addr, Svc: svc})
	}
	r.kernel.OpenPort(number(port), addr, port)
	r.kernel.Refer(addr, port, all...)
}

func number(s string) int {
	n, _ := strconv.Atoi(s)
	return n
}

func (r *rig) expectControllers(what, want string) {
	r.t.Helper()
	if got := r.controllers(); got != want {
		r.t.Errorf("%s: %q, want %q", what, got, want)
	}
	if n := len(strings.Split(want, ",")); want != "" && len(r.kernel.Controllers()) > n {
		r.t.Errorf("%s: the kernel has %d controllers, %d are wanted", what, len(r.kernel.Controllers()), n)
	}
}

func TestReferrals(t *testing.T) {
	const (
		none    = "[Controllers]\n"
		viaEth0 = "[Controllers]\ncontroller=transport=tcp;traddr=10.0.0.1;trsvcid=1;host-iface=eth0\n"
	)
	for _, c := range []struct {
		name   string
		refer  map[string]string
		conf   string
		before string
		change func(*rig)
		conf2  string // reloaded if there is one
		after  string
		log    string
	}{
		{name: "chain", refer: map[string]string{"1": "2", "2": "3"}, conf: dc1, before: "1 configured, 2 referral, 3 referral",
			change: func(r *rig) { r.refer("2", "") }, after: "1 configured, 2 referral"},
		{name: "appears", conf: dc1, before: "1 configured",
			change: func(r *rig) { r.refer("1", "2") }, after: "1 configured, 2 referral"},
		{name: "itself", refer: map[string]string{"1": "1"}, conf: dc1, before: "1 configured", after: "1 configured"},
		{name: "loop", refer: map[string]string{"1": "2", "2": "3", "3": "1"}, conf: dc1, before: "1 configured, 2 referral, 3 referral",
			conf2: none, after: ""},
		// Defect 32 of nvme-stas: these kept each other alive.
		{name: "to each other only", refer: map[string]string{"1": "2", "2": "3", "3": "2"}, conf: dc1,
			before: "1 configured, 2 referral, 3 referral", change: func(r *rig) { r.refer("1", "") }, after: "1 configured"},
		{name: "two lead to it", refer: map[string]string{"1": "3", "2": "3"}, conf: dc1 + dc2, before: "1 configured, 2 configured, 3 referral",
			change: func(r *rig) { r.refer("1", "") }, after: "1 configured, 2 configured, 3 referral"},
		{name: "configured besides", refer: map[string]string{"1": "2"}, conf: dc1 + dc2, before: "1 configured, 2 configured",
			conf2: dc1, after: "1 configured, 2 referral"},
		{name: "configured later", refer: map[string]string{"1": "2"}, conf: dc1, before: "1 configured, 2 referral",
			change: func(r *rig) { r.refer("1", "") }, conf2: dc1 + dc2, after: "1 configured, 2 configured"},
		{name: "excluded", refer: map[string]string{"1": "2", "2": "3"}, conf: dc1, before: "1 configured, 2 referral, 3 referral",
			conf2: dc1 + "exclude=trsvcid=2\n", after: "1 configured", log: "which is not connected: stafd.conf:3 excludes trsvcid=2"},
		{name: "not included, perhaps", refer: map[string]string{"1": "2"}, conf: dc1, before: "1 configured, 2 referral",
			conf2: dc1 + "include=trsvcid=9\ninclude=x\n", after: "1 configured, 2 referral"},
		{name: "the parent was taken out", refer: map[string]string{"1": "2"}, conf: dc1, before: "1 configured, 2 referral",
			conf2: none, after: ""},
		{name: "the parent was misspelled", refer: map[string]string{"1": "2"}, conf: dc1, before: "1 configured, 2 referral",
			conf2: strings.ReplaceAll(dc1, "traddr", "tradr"), after: "1 configured, 2 referral"},
		{name: "the log cannot be read", refer: map[string]string{"1": "2"}, conf: dc1, before: "1 configured, 2 referral",
			change: func(r *rig) {
				r.kernel.BreakLog(addr, "1", errors.New("out of order"))
				r.refer("1", "")
			}, after: "1 configured, 2 referral"},
		{name: "an entry cannot be read", refer: map[string]string{"1": "2"}, conf: dc1, before: "1 configured, 2 referral",
			change: func(r *rig) {
				r.mangle = func(l *nvme.DiscoveryLog) { l.Bad = []error{errors.New("not text")} }
				r.refer("1", "")
			}, after: "1 configured, 2 referral"},
		{name: "the parent is down", refer: map[string]string{"1": "2"}, conf: dc1, before: "1 configured, 2 referral",
			change: func(r *rig) {
				r.kernel.ClosePort(addr, "1")
				_ = r.kernel.Delete("nvme0")
			}, after: "1 configured, 2 referral"},
		{name: "through an interface", refer: map[string]string{"1": "2"}, conf: viaEth0, before: "1 configured eth0, 2 referral eth0",
			after: "1 configured eth0, 2 referral eth0"},
		{name: "the parent is somebody else now, and unread", refer: map[string]string{"1": "2"}, conf: dc1, before: "1 configured, 2 referral",
			change: func(r *rig) { r.kernel.BreakLog(addr, "1", errors.New("out of order")) }, conf2: viaEth0,
			after: "1 configured eth0, 2 referral"},
		{name: "nonsense", refer: map[string]string{"1": "70000"}, conf: dc1, before: "1 configured", after: "1 configured",
			log: "which is not connected: the entry is not usable"},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := newRig(t)
				r.conf = c.conf
				for port, to := range c.refer {
					r.refer(port, to)
				}
				r.start()
				settle()
				r.expectControllers("before", c.before)
				if c.change != nil {
					c.change(r)
				}
				if c.conf2 != "" {
					r.reconfigure(c.conf2)
				}
				time.Sleep(10 * time.Second)
				settle()
				r.expectControllers("after", c.after)
				r.stop()
				r.start()
				r.expectControllers("restarted", c.after)
				if !strings.Contains(r.log.String(), c.log) {
					t.Errorf("%q is not logged:\n%s", c.log, r.log.String())
				}
			})
		})
	}
}

// A chain is followed to its eighth referral; what was connected before it
// became too long stays.
func TestReferralDepth(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		for i := 1; i < 12; i++ {
			r.refer(fmt.Sprint(i), fmt.Sprint(i+1))
		}
		r.start()
		time.Sleep(time.Minute)
		if n := len(strings.Split(r.controllers(), ", ")); n != 1+maxDepth {
			t.Errorf("%d are connected, want %d: %s", n, 1+maxDepth, r.controllers())
		}
		if got := strings.Count(r.log.String(), "9 referrals lead to it"); got != 1 {
			t.Errorf("that it is too long is told %d times", got)
		}
		r.reconfigure(dc1 + dc2)
		if n := len(strings.Split(r.controllers(), ", ")); n != 2+maxDepth {
			t.Errorf("%d are connected, want %d: %s", n, 2+maxDepth, r.controllers())
		}
		r.reconfigure(dc1)
		if n := len(strings.Split(r.controllers(), ", ")); n != 2+maxDepth {
			t.Errorf("%d are connected after the short way has gone, want %d: %s", n, 2+maxDepth, r.controllers())
		}
	})
}

// One discovery controller cannot have the host connect to any number of them.
func TestReferralFlood(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		var all []stastest.Referral
		for i := range maxReferred + 2*maxRefused {
			all = append(all, stastest.Referral{Addr: fmt.Sprintf("10.1.%d.%d", i/250, i%250+1), Svc: "8009"})
		}
		r.kernel.Refer(addr, "1", all...)
		r.start()
		list, err := r.daemon.ListControllers(t.Context(), false)
		if err != nil || len(list) != 1+maxReferred {
			t.Errorf("%d are wanted, want %d (%v)", len(list), 1+maxReferred, err)
		}
		if n := strings.Count(r.log.String(), "no more than"); n != maxRefused {
			t.Errorf("told of %d, want %d", n, maxRefused)
		}
		r.event("NVME_AEN", "0x70f002")
		r.refer("1", "2")
		settle()
		r.expectPages("it has come to reason", "1=True: 2=True:")
	})
}

func TestReferralReport(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		r.refer("1", "2 3")
		r.refer("2", "3")
		r.conf = dc1 + "exclude=trsvcid=4\n"
		r.refer("3", "4")
		r.start()
		settle()
		rep, err := r.daemon.Report(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		got := make(map[string]string)
		origins := func(port string, all []stasbus.Origin) {
			for _, o := range all {
				got[port] += o.Kind
				if o.By != nil {
					got[port] += " by " + o.By.TrSvcID
				}
				got[port] += ";"
			}
		}
		for _, c := range rep.Controllers {
			origins(c.TrSvcID, c.Origins)
		}
		for _, c := range rep.Refused {
			origins(c.TrSvcID, c.Origins)
			got[c.TrSvcID] += c.Why
		}
		want := map[string]string{
			"1": "configured;", "2": "referral by 1;", "3": "referral by 1;referral by 2;",
			"4": "referral by 3;stafd.conf:3 excludes trsvcid=4",
		}
		for port, w := range want {
			if got[port] != w {
				t.Errorf("port %s: %q, want %q", port, got[port], w)
			}
		}
	})
}

// Of ports that return the same one is connected, and the next when it fails.
func TestDuplicateReturnInformation(t *testing.T) {
	same := nvme.NewEntryFlags(true, false, false)
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		for _, port := range []string{"2", "3", "4"} {
			r.kernel.OpenPort(number(port), addr, port)
		}
		group := []stastest.Referral{{Addr: addr, Svc: "2", Flags: same}, {Addr: addr, Svc: "3", Flags: same}, {Addr: addr, Svc: "4"}}
		r.kernel.ClosePort(addr, "2")
		r.kernel.Refer(addr, "1", group...)
		r.start()
		time.Sleep(20 * time.Second)
		settle()
		r.expectControllers("the first is down", "1 configured, 3 referral, 4 referral")
		r.kernel.OpenPort(2, addr, "2")
		time.Sleep(time.Minute)
		settle()
		r.expectControllers("the first is back", "1 configured, 3 referral, 4 referral")
		r.kernel.ClosePort(addr, "3")
		_ = r.kernel.Delete(slices.MaxFunc(r.kernel.Controllers(), byPort("3")).Name)
		time.Sleep(time.Minute)
		settle()
		r.expectControllers("the other is down", "1 configured, 2 referral, 4 referral")

		// What the one that refers returns itself, no other need return.
		r.kernel.SetDC(addr, "1", stastest.DC{Flags: same})
		r.kernel.Refer(addr, "1", group...)
		time.Sleep(time.Minute)
		settle()
		r.expectControllers("the parent is of the group", "1 configured, 4 referral")
	})
}

// Whatever is referred to, withdrawn, closed, lost, configured and restarted in
// whatever order: once all is quiet, those are connected that a chain of
// referrals leads to from what is configured.
func TestReferralsAnyOrder(t *testing.T) {
	const ports = 6
	for n := range 40 {
		seed := uint64(n)
		if n > 0 {
			seed = rand.Uint64()
		}
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				random := rand.New(rand.NewPCG(seed, 0))
				r := newRig(t)
				to := make(map[string]string) // who refers to whom
				port := func() string { return fmt.Sprint(1 + random.IntN(ports)) }
				for i := range ports {
					r.refer(fmt.Sprint(i+1), "")
				}
				conf := func() string {
					text := "[Controllers]\n"
					for range random.IntN(3) {
						text += "controller=transport=tcp;traddr=10.0.0.1;trsvcid=" + port() + "\n"
					}
					return text
				}
				r.conf = conf()
				r.start()
				for range 60 {
					p := port()
					switch random.IntN(8) {
					case 0, 1, 2:
						to[p] = ""
						for range random.IntN(3) {
							to[p] += port() + " "
						}
						r.refer(p, to[p])
					case 3:
						r.kernel.ClosePort(addr, p)
					case 4:
						for _, c := range r.kernel.Controllers() {
							if c.TrSvcID == p {
								_ = r.kernel.Delete(c.Name)
							}
						}
					case 5:
						r.reconfigure(conf())
					case 6:
						r.stop()
						r.start()
					case 7:
						r.kernel.BreakLog(addr, p, map[bool]error{true: errors.New("out of order")}[random.IntN(2) == 0])
					}
					time.Sleep(time.Duration(random.IntN(int(20 * time.Second))))
				}
				for i := range ports {
					p := fmt.Sprint(i + 1)
					r.kernel.OpenPort(i+1, addr, p)
					r.kernel.BreakLog(addr, p, nil)
				}
				time.Sleep(20 * time.Minute)
				settle()
				reached := make(map[string]bool)
				var follow func(string)
				follow = func(p string) {
					if !reached[p] {
						reached[p] = true
						for next := range strings.FieldsSeq(to[p]) {
							follow(next)
						}
					}
				}
				for line := range strings.Lines(r.conf) {
					if _, p, ok := strings.Cut(strings.TrimSpace(line), "trsvcid="); ok {
						follow(p)
					}
				}
				connected := make(map[string]bool)
				for _, c := range r.kernel.Controllers() {
					if connected[c.TrSvcID] {
						t.Errorf("port %s is connected twice", c.TrSvcID)
					}
					connected[c.TrSvcID] = true
				}
				if !maps.Equal(connected, reached) {
					t.Errorf("connected are %v, want %v; %v refer, configured is\n%s", slices.Sorted(maps.Keys(connected)), slices.Sorted(maps.Keys(reached)), to, r.conf)
				}
			})
		})
	}
}
