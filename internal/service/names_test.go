package service_test

import (
	"context"
	"encoding/json"
	"errors"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/nvme-stas/stas/internal/conf"
	"github.com/nvme-stas/stas/internal/hostid"
	"github.com/nvme-stas/stas/internal/service"
	"github.com/nvme-stas/stas/internal/stasbus"
	"github.com/nvme-stas/stas/internal/stastest"
	"github.com/nvme-stas/stas/internal/tid"
	"github.com/nvme-stas/stas/pkg/nvmesysfs"
)

// named is a rig whose policy wants what the configuration lists.
type named struct {
	*rig
	names   *stastest.HostNames
	text    string
	cfg     *conf.Config // as the policy has it
	learned bool
	state   string
}

// applied is the state of the policy.
type applied struct{ Applied int }

// learner is a policy that takes time to learn.
type learner struct {
	*policy
	n *named
}

func (l learner) AddTo(r *stasbus.Report) {
	origins, refused := service.Origins(l.n.cfg, identity)
	r.Refused = append(r.Refused, refused...)
	for i := range r.Controllers {
		c := &r.Controllers[i]
		if o, ok := origins[c.TID()]; ok {
			c.Origins = append(c.Origins, o)
		}
	}
}

func (l learner) Learned(tid.TID) bool { return l.n.learned }

// newNamed has a target at 10.0.0.1, 10.0.0.2 and fd00::1 that offers nqn.a.
func newNamed(t *testing.T, text string) *named {
	n := &named{rig: newRig(t, tid.IO, "nqn.a"), names: stastest.NewHostNames(), text: text, learned: true}
	for _, a := range []string{"10.0.0.2", "fd00::1"} {
		n.kernel.OpenPort(2, a, "1")
		n.kernel.Offer("nqn.a", a, "1", true)
	}
	n.build()
	return n
}

// build makes another instance of the service.
func (n *named) build() {
	n.policy, n.done = &policy{kernel: n.kernel}, make(chan error, 1)
	n.svc = service.New(tid.IO, learner{n.policy, n}, n.env(func(env *service.Env) {
		env.Resolve = n.names.Resolve
		env.State = n
		env.Config = func() (*conf.Config, error) {
			cfg, _, err := conf.Parse(conf.Stacd, "stacd.conf", strings.NewReader("[Controllers]\n"+n.text))
			return cfg, err
		}
	}))
	n.policy.engine = n.svc.Engine()
	last := make(map[tid.TID]bool)
	n.policy.apply = func(cfg *conf.Config, identity hostid.Identity) {
		n.cfg = cfg
		wanted := service.Configured(cfg, tid.IO, identity, discard)
		for id, o := range wanted {
			last[id] = true
			n.svc.Engine().Want(id, o, time.Now())
		}
		for id := range last {
			if _, ok := wanted[id]; !ok && !cfg.Doubtful {
				delete(last, id)
				n.svc.Engine().Unwant(id, false, time.Now())
			}
		}
		n.svc.Save(applied{n.policy.applied})
	}
}

func (n *named) Load(state any) error {
	if n.state == "" {
		return errors.New("none")
	}
	return json.Unmarshal([]byte(n.state), state)
}
func (n *named) Save(state json.RawMessage) error { n.state = string(state); return nil }

// has compares the connections, by address.
func (n *named) has(what string, want ...string) {
	n.t.Helper()
	var got []string
	for _, c := range n.kernel.Controllers() {
		got = append(got, c.TrAddr)
	}
	slices.Sort(got)
	if !slices.Equal(got, want) {
		n.t.Errorf("%s: connected to %q, want %q", what, got, want)
	}
}

// report gives the host of each controller, and why lines are refused.
func (n *named) told() (hosts map[string]stasbus.HostName, refused []string) {
	n.t.Helper()
	r, err := n.svc.Report(n.t.Context())
	if err != nil {
		n.t.Fatal(err)
	}
	hosts = make(map[string]stasbus.HostName)
	for _, c := range r.Controllers {
		for _, o := range c.Origins {
			if o.Host != nil {
				hosts[c.TrAddr] = *o.Host
			}
		}
	}
	for _, f := range r.Refused {
		refused = append(refused, f.TrAddr+": "+f.Why)
	}
	return hosts, refused
}

const lineA = "controller=transport=tcp;traddr=dc.example;trsvcid=1;nqn=nqn.a\n"

// An answer that fails, or has never come, takes nothing away; a new one is
// used at once, and the connection to the old address is left alone until the
// kernel has given it up.
func TestHostNames(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNamed(t, lineA+"controller=transport=tcp;traddr=other.example;trsvcid=1;nqn=nqn.a\n")
		n.start()
		pause(time.Second)
		n.has("no answer yet")
		n.do(func() {
			if !n.cfg.Doubtful {
				t.Error("nothing is in doubt, though a name stands for nobody knows what")
			}
		})
		if _, why := n.told(); len(why) != 2 || !strings.Contains(why[0], "dc.example: the host name dc.example cannot be looked up: no such host") {
			t.Errorf("told: %q", why)
		}
		n.names.Set("dc.example", "fd00::1", "10.0.0.1")
		n.names.Set("other.example", "::ffff:10.0.0.1")
		pause(2 * time.Minute)
		n.has("answered", "10.0.0.1")
		n.do(func() {
			if n.cfg.Doubtful {
				t.Error("still in doubt")
			}
		})
		n.names.Set("dc.example")
		n.names.Set("other.example")
		pause(time.Hour)
		n.has("not answered any more", "10.0.0.1")
		if hosts, _ := n.told(); hosts["10.0.0.1"].Failure == nil || hosts["10.0.0.1"].Answered.IsZero() {
			t.Errorf("told: %+v", hosts)
		}
		n.names.Set("other.example", "10.0.0.2", "10.0.0.1")
		n.names.Set("dc.example", "10.0.0.2", "10.0.0.1")
		pause(time.Hour)
		n.has("the answer still has it", "10.0.0.1")
		n.names.Set("other.example", "10.0.0.2")
		n.names.Set("dc.example", "10.0.0.2")
		pause(6 * time.Minute)
		n.has("changed", "10.0.0.1", "10.0.0.2")
		if hosts, _ := n.told(); !hosts["10.0.0.1"].Former || hosts["10.0.0.2"].Former {
			t.Errorf("told: %+v", hosts)
		}
		pause(time.Hour)
		n.has("long ago", "10.0.0.1", "10.0.0.2")
		n.kernel.ClosePort(addr, "1")
		pause(5 * time.Minute)
		n.has("the kernel still tries", "10.0.0.1", "10.0.0.2")
		pause(6 * time.Minute)
		n.has("the kernel has given up", "10.0.0.2")
		n.kernel.OpenPort(1, addr, "1")
		pause(time.Hour)
		n.has("forgotten", "10.0.0.2")
	})
}

// A name whose address cannot be connected is asked for again soon, and the
// next address gets its turn. What was wanted stays so until another one
// serves.
func TestHostNameFailsOver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNamed(t, lineA)
		n.learned = false
		n.names.Set("dc.example", "10.0.0.9", "10.0.0.2")
		n.start()
		pause(nameSoonest + 10*time.Second)
		n.has("the second", "10.0.0.2")
		n.do(func() {
			if st := n.svc.Engine().All(); len(st) != 2 {
				t.Errorf("the first was given up before the second was known: %v", st)
			}
			n.learned = true
		})
		pause(time.Minute)
		n.do(func() {
			if st := n.svc.Engine().All(); len(st) != 1 {
				t.Errorf("the first is still wanted: %v", st)
			}
		})
		before := n.names.Asked()
		pause(nameRefresh / 2)
		if asked := n.names.Asked() - before; asked > 1 {
			t.Errorf("asked %d times for a name that is answered and serves", asked)
		}
	})
}

const (
	nameSoonest = 30 * time.Second
	nameRefresh = 5 * time.Minute
)

// What names stood for outlives a restart without name servers, former
// addresses included.
func TestHostNamesAfterRestart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNamed(t, lineA)
		n.names.Set("dc.example", "10.0.0.1")
		n.start()
		pause(time.Second)
		n.names.Set("dc.example", "10.0.0.2")
		n.reload <- struct{}{}
		pause(time.Second)
		n.has("before", "10.0.0.1", "10.0.0.2")
		n.cancel(nil)
		<-n.done
		synctest.Wait()
		n.names.Set("dc.example")
		n.build()
		var mine applied
		if !n.svc.Restore(&mine) || mine.Applied == 0 {
			t.Errorf("the policy has %v of %s", mine, n.state)
		}
		n.start()
		pause(time.Hour)
		n.has("after", "10.0.0.1", "10.0.0.2")
		n.do(func() {
			if n.cfg.Doubtful {
				t.Error("in doubt")
			}
		})
		n.kernel.ClosePort(addr, "1")
		pause(time.Hour)
		n.has("the former has gone", "10.0.0.2")
	})
}

// One configuration at a time: an answer to a former one changes nothing.
func TestHostNameLateAnswer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNamed(t, lineA)
		n.names.Set("dc.example", "10.0.0.1")
		n.names.Delay(8 * time.Second)
		n.start()
		pause(time.Second)
		n.text = strings.ReplaceAll(lineA, "dc.example", "10.0.0.2")
		n.reload <- struct{}{}
		pause(time.Minute)
		n.has("the line is no more", "10.0.0.2")
		n.names.Delay(time.Hour)
		n.text = lineA
		n.reload <- struct{}{}
		pause(time.Minute)
		n.has("nobody answers in time", "10.0.0.2")
		if _, why := n.told(); len(why) != 1 || !strings.Contains(why[0], "deadline") {
			t.Errorf("told: %q", why)
		}
	})
}

func TestHostNameChoice(t *testing.T) {
	const v6only = "[Global]\nip-family=ipv6\n"
	for _, test := range []struct {
		name, global, line string
		answer             []string
		want               []string
		why                string
	}{
		{name: "IPv4 first", line: lineA, answer: []string{"fd00::1", "10.0.0.2", "10.0.0.1"}, want: []string{"10.0.0.2"}},
		{name: "IPv6 only", line: lineA, answer: []string{"fd00::1"}, want: []string{"fd00::1"}},
		{name: "ip-family", global: v6only, line: lineA, answer: []string{"10.0.0.1", "fd00::1"}, want: []string{"fd00::1"}},
		{name: "ip-family, none", global: v6only, line: lineA, answer: []string{"10.0.0.1"}, why: "dc.example: the host name dc.example stands for no address that may be used: 10.0.0.1"},
		{name: "family of the source", line: strings.TrimSpace(lineA) + ";host-traddr=fd00::9\n", answer: []string{"10.0.0.1", "fd00::1"}, want: []string{"fd00::1"}},
		{name: "nothing that can be connected", line: lineA, answer: []string{"0.0.0.0", "224.0.0.1"}, why: "dc.example: the host name dc.example cannot be looked up: the name has no address"},
		{name: "excluded by name", line: lineA + "exclude=traddr=DC.example\n", answer: []string{"10.0.0.1"}, why: "dc.example: stacd.conf:3 excludes traddr=dc.example"},
		{name: "excluded by address", line: lineA + "exclude=traddr=10.0.0.1\n", answer: []string{"10.0.0.1"}, why: "10.0.0.1: stacd.conf:3 excludes traddr=10.0.0.1"},
		{name: "the same as another line", line: lineA + strings.ReplaceAll(lineA, "dc.example", "10.0.0.1"), answer: []string{"10.0.0.1"}, want: []string{"10.0.0.1"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				n := newNamed(t, test.line)
				if test.global != "" {
					n.text = test.line + test.global
				}
				n.names.Set("dc.example", test.answer...)
				n.start()
				pause(time.Second)
				n.has("connected", test.want...)
				_, why := n.told()
				if diff := cmp.Diff(test.why, strings.Join(why, "\n")); diff != "" {
					t.Errorf("told (-want +got):\n%s", diff)
				}
			})
		})
	}
}

// Many names are asked for a few at a time, each on its own.
func TestManyHostNames(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var text strings.Builder
		for i := range 50 {
			text.WriteString(strings.ReplaceAll(lineA, "dc", "dc"+string(rune('a'+i%26))+string(rune('a'+i/26))))
		}
		n := newNamed(t, text.String())
		n.names.Delay(time.Second)
		n.start()
		pause(1500 * time.Millisecond)
		if most := n.names.MostAtOnce(); most != 8 {
			t.Errorf("%d at a time", most)
		}
		pause(7 * time.Second)
		if asked := n.names.Asked(); asked < 50 {
			t.Errorf("%d names asked", asked)
		}
	})
}

func TestResolveDefault(t *testing.T) {
	env := newRig(t, tid.IO).env(func(*service.Env) {})
	addrs, err := service.ResolverOf(service.New(tid.IO, &policy{}, env))(context.Background(), "localhost")
	if err != nil || !slices.ContainsFunc(addrs, func(a netip.Addr) bool { return a.Unmap().IsLoopback() }) {
		t.Errorf("localhost is %v, %v", addrs, err)
	}
}

// Whatever name servers say and targets do, no connection is removed for it; and
// once both are well, the address that is told last is connected.
func TestHostNamesAnyOrder(t *testing.T) {
	for seed := range uint64(25) {
		synctest.Test(t, func(t *testing.T) {
			rng := rand.New(rand.NewPCG(seed, 0))
			n := newNamed(t, lineA)
			n.start()
			addrs := []string{"10.0.0.1", "10.0.0.2", "fd00::1"}
			ports := func(a string, open bool) {
				if open {
					n.kernel.OpenPort(1, a, "1")
				} else {
					n.kernel.ClosePort(a, "1")
				}
			}
			for range 40 {
				a := addrs[rng.IntN(len(addrs))]
				switch rng.IntN(5) {
				case 0:
					rng.Shuffle(len(addrs), func(i, j int) { addrs[i], addrs[j] = addrs[j], addrs[i] })
					n.names.Set("dc.example", addrs[:rng.IntN(len(addrs)+1)]...)
				case 1:
					ports(a, rng.IntN(2) == 0)
				case 2:
					n.names.Delay(time.Duration(rng.IntN(15)) * time.Second)
				case 3:
					n.reload <- struct{}{}
				default:
				}
				pause(time.Duration(rng.Int64N(int64(15 * time.Minute))))
			}
			n.names.Delay(0)
			last := addrs[rng.IntN(len(addrs))]
			n.names.Set("dc.example", last)
			for _, a := range addrs {
				ports(a, true)
			}
			pause(time.Hour)
			if n.kernel.Deletes != 0 {
				t.Errorf("seed %d: %d connections were removed", seed, n.kernel.Deletes)
			}
			if !slices.ContainsFunc(n.kernel.Controllers(), func(c nvmesysfs.Controller) bool { return c.TrAddr == last && c.State == nvmesysfs.Live }) {
				t.Errorf("seed %d: %s is not connected", seed, last)
			}
		})
	}
}
