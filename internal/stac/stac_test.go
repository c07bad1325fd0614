package stac_test

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	gocmp "github.com/google/go-cmp/cmp"

	"github.com/nvme-stas/stas/internal/boot"
	"github.com/nvme-stas/stas/internal/conf"
	"github.com/nvme-stas/stas/internal/daemon"
	"github.com/nvme-stas/stas/internal/hostid"
	"github.com/nvme-stas/stas/internal/logpage"
	"github.com/nvme-stas/stas/internal/service"
	"github.com/nvme-stas/stas/internal/stac"
	"github.com/nvme-stas/stas/internal/stasbus"
	"github.com/nvme-stas/stas/internal/stastest"
	"github.com/nvme-stas/stas/internal/tid"
	"github.com/nvme-stas/stas/pkg/fabrics"
	"github.com/nvme-stas/stas/pkg/nvmesysfs"
)

const uuid = "36ebf5a9-1df9-47b3-a6d0-e9ba32e428a2"

var identity = hostid.Identity{NQN: "nqn.2014-08.org.nvmexpress:uuid:" + uuid, ID: uuid}

// rig is stacd in a synctest bubble.
type rig struct {
	t      *testing.T
	kernel *stastest.Kernel
	conf   string
	boot   boot.Tables
	state  []byte // of the state file
	log    bytes.Buffer

	daemon *stac.Daemon
	feed   chan []stac.Page
	reload chan struct{}
	stop   func()
	self   hostid.Identity
}

func newRig(t *testing.T) *rig {
	r := &rig{t: t, kernel: stastest.NewKernel(), self: identity}
	r.kernel.OpenPort(1, "10.0.0.1", "4420")
	t.Cleanup(func() {
		r.stop()
		r.kernel.Close()
		synctest.Wait()
	})
	return r
}

func (r *rig) Load(state any) error {
	if r.state == nil {
		return fs.ErrNotExist
	}
	return json.Unmarshal(r.state, state)
}

func (r *rig) Save(state json.RawMessage) error { r.state = state; return nil }

// Follow is stafd.
func (r *rig) Follow(ctx context.Context, deliver func([]stac.Page)) {
	for {
		select {
		case pages := <-r.feed:
			deliver(pages)
		case <-ctx.Done():
			return
		}
	}
}

func (r *rig) start() {
	log := daemon.NewLogger(&r.log, false, new(slog.LevelVar))
	r.feed, r.reload = make(chan []stac.Page), make(chan struct{})
	r.daemon = stac.New(service.Env{
		Kernel: r.kernel, Bus: &stastest.Connection{Bus: stastest.NewBus()}, State: r, Supervisor: daemon.Supervisor{Log: log},
		Config: func() (*conf.Config, error) {
			cfg, _, err := conf.Parse(conf.Stacd, "stacd.conf", strings.NewReader(r.conf))
			return cfg, err
		},
		BootTables: func() boot.Tables { return r.boot },
		Identity:   func(boot.Tables) (hostid.Identity, error) { return r.self, nil },
		Reload:     r.reload, Log: log, Level: new(slog.LevelVar),
	}, r)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error)
	go func() { done <- r.daemon.Run(ctx) }()
	r.stop = func() {
		cancel()
		if err := <-done; err != nil {
			r.t.Errorf("stacd ended with: %v", err)
		}
		r.stop = func() {}
	}
	synctest.Wait()
}

func (r *rig) deliver(pages []stac.Page) {
	r.feed <- pages
	r.settle()
}

func (r *rig) reconfigure(text string) {
	r.conf = text
	r.reload <- struct{}{}
	r.settle()
}

func (r *rig) settle() {
	time.Sleep(time.Second)
	synctest.Wait()
}

// wanted lists the controllers as "NQN ADDRESS [IFACE]", NQNs without "nqn.".
func (r *rig) wanted() string {
	list, err := r.daemon.ListControllers(r.t.Context(), false)
	if err != nil {
		r.t.Fatal(err)
	}
	var all []string
	for _, d := range list {
		all = append(all, strings.TrimSpace(strings.TrimPrefix(d["subsysnqn"], "nqn.")+" "+d["traddr"]+" "+d["host-iface"]))
	}
	slices.Sort(all)
	return strings.Join(all, ", ")
}

func (r *rig) expectWanted(what, want string) {
	r.t.Helper()
	if got := r.wanted(); got != want {
		r.t.Errorf("%s: wanted are %q, want %q", what, got, want)
	}
}

// connected lists what the kernel has.
func (r *rig) connected() string {
	var all []string
	for _, c := range r.kernel.Controllers() {
		if c.State == nvmesysfs.Live {
			all = append(all, c.Name+"="+c.SubsysNQN)
		}
	}
	return strings.Join(all, " ")
}

func (r *rig) expectConnected(what, want string) {
	r.t.Helper()
	if got := r.connected(); got != want {
		r.t.Errorf("%s: the kernel has %q, want %q", what, got, want)
	}
}

// entry is a log page entry: "NQN [ADDRESS [SUBTYPE]]".
func entry(text string) logpage.Entry {
	f := append(strings.Fields(text), "", "")
	e := logpage.Entry{
		TrType: "tcp", AdrFam: "ipv4", SubType: cmp.Or(f[2], "nvme"), TrSvcID: "4420", SubNQN: "nqn." + f[0],
		TrAddr: cmp.Or(f[1], "10.0.0.1"), EFlags: "0",
	}
	return e
}

// dc is the discovery controller with a number, whose page has the entries.
// known is what is told of the page, "" for a stafd that does not tell.
func dc(n int, known string, entries ...string) stac.Page {
	p := stac.Page{DiscoveryController: stasbus.Dict{
		"transport": "tcp", "traddr": fmt.Sprint("10.0.1.", n), "trsvcid": "8009",
		"subsysnqn": "nqn.2014-08.org.nvmexpress.discovery", "host-nqn": identity.NQN,
	}}
	if known != "" {
		p.DiscoveryController[stasbus.KnownKey] = known
	}
	for _, e := range entries {
		p.LogPages = append(p.LogPages, entry(e))
	}
	return p
}

// via gives a page's discovery controller an interface.
func via(iface string, p stac.Page) stac.Page {
	p.DiscoveryController["host-iface"] = iface
	return p
}

const (
	yes = stasbus.True
	no  = stasbus.False
)

func TestDeliver(t *testing.T) {
	type pages = []stac.Page
	const globalA = "[Controllers]\ncontroller=transport=tcp;traddr=10.0.0.1;trsvcid=4420;nqn=nqn.a\n"
	for _, c := range []struct {
		name          string
		conf          string
		before, after pages // what stafd says first and then; nil: nothing
		want          string
	}{
		{name: "nothing heard yet"},
		{name: "listed", after: pages{dc(1, yes, "a", "b")}, want: "a 10.0.0.1, b 10.0.0.1"},
		{name: "silent", before: pages{dc(1, yes, "a")}, after: nil, want: "a 10.0.0.1"},
		{name: "gone from the page", before: pages{dc(1, yes, "a", "b")}, after: pages{dc(1, yes, "b")}, want: "b 10.0.0.1"},
		{name: "gone, the last one", before: pages{dc(1, yes, "a")}, after: pages{dc(1, yes)}},
		{name: "page not known", before: pages{dc(1, yes, "a")}, after: pages{dc(1, no)}, want: "a 10.0.0.1"},
		{name: "page not known from the beginning", after: pages{dc(1, no)}},
		{name: "partial page", before: pages{dc(1, yes, "a")}, after: pages{dc(1, no, "b")}, want: "a 10.0.0.1, b 10.0.0.1"},
		{name: "partial page that is completed", before: pages{dc(1, no, "a")}, after: pages{dc(1, yes, "b")}, want: "b 10.0.0.1"},
		{name: "2.x, empty", before: pages{dc(1, "", "a")}, after: pages{dc(1, "")}, want: "a 10.0.0.1"},
		{name: "2.x, gone", before: pages{dc(1, "", "a", "b")}, after: pages{dc(1, "", "b")}, want: "b 10.0.0.1"},
		{name: "discovery controller removed", before: pages{dc(1, yes, "a"), dc(2, yes, "b")}, after: pages{dc(2, yes, "b")}, want: "b 10.0.0.1"},
		{name: "all discovery controllers removed", before: pages{dc(1, yes, "a")}, after: pages{}},
		{name: "removed, but listed by another", before: pages{dc(1, yes, "a"), dc(2, yes, "a")}, after: pages{dc(2, yes, "a")}, want: "a 10.0.0.1"},
		{name: "withdrawn by one of two", before: pages{dc(1, yes, "a"), dc(2, yes, "a")}, after: pages{dc(1, yes), dc(2, yes, "a")}, want: "a 10.0.0.1"},
		{name: "withdrawn by one, other not known", before: pages{dc(1, yes, "a"), dc(2, yes, "a")}, after: pages{dc(1, yes), dc(2, no)}, want: "a 10.0.0.1"},
		{name: "withdrawn by both", before: pages{dc(1, yes, "a"), dc(2, yes, "a")}, after: pages{dc(1, yes), dc(2, yes)}},
		{
			name: "two paths", before: pages{via("eth0", dc(1, yes, "a")), via("eth1", dc(1, yes, "a"))},
			after: pages{via("eth0", dc(1, yes)), via("eth1", dc(1, yes, "a"))}, want: "a 10.0.0.1 eth1",
		},
		{
			name: "interfaces ignored", conf: "[Global]\nignore-iface=true",
			after: pages{via("eth0", dc(1, yes, "a")), via("eth1", dc(1, yes, "a"))}, want: "a 10.0.0.1",
		},
		{
			name: "entries that cannot be connected", want: "b 10.0.0.1",
			after: pages{dc(1, yes, "a,tls", "b", "c storage.example", "d 1.2.3")},
		},
		{name: "not for us", after: pages{dc(1, yes, "a 10.0.0.1 referral", "b 10.0.0.1 discovery", "c 0.0.0.0", "d ::", "e 10.0.0.1 77")}},
		{
			name: "excluded", conf: "[Controllers]\nexclude=subsysnqn=nqn.a\nexclude=traddr=10.0.0.2",
			after: pages{dc(1, yes, "a", "b", "c 10.0.0.2")}, want: "b 10.0.0.1",
		},
		{name: "IPv4 only", conf: "[Global]\nip-family=ipv4", after: pages{dc(1, yes, "a fd00::1", "b")}, want: "b 10.0.0.1"},
		{name: "IPv6 only", conf: "[Global]\nip-family=ipv6", after: pages{dc(1, yes, "a fd00::1", "b")}, want: "a fd00::1"},
		{name: "configured", conf: globalA, after: pages{dc(1, yes, "b")}, want: "a 10.0.0.1, b 10.0.0.1"},
		{name: "configured and withdrawn", conf: globalA, before: pages{dc(1, yes, "a")}, after: pages{dc(1, yes)}, want: "a 10.0.0.1"},
		{name: "included", conf: "[Controllers]\ninclude=nqn=nqn.?;traddr=10.0.0.0/31\n", after: pages{dc(1, yes, "a", "b 10.0.0.2", "cc")}, want: "a 10.0.0.1"},
		{name: "configured, not included", conf: globalA + "include=nqn=nqn.b", after: pages{dc(1, yes, "a", "b", "c")}, want: "a 10.0.0.1, b 10.0.0.1"},
		{name: "included and excluded", conf: "[Controllers]\ninclude=nqn=*\nexclude=nqn=*a", after: pages{dc(1, yes, "a", "b")}, want: "b 10.0.0.1"},
		{name: "excluded by nothing", conf: "[Controllers]\nexclude=\n\nexclude=host-traddr=10.0.0.1\nexclude=junk", after: pages{dc(1, yes, "a")}, want: "a 10.0.0.1"},
		{name: "configured and excluded", conf: globalA + "exclude=subsysnqn=nqn.a", after: pages{dc(1, yes, "a", "b")}, want: "b 10.0.0.1"},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := newRig(t)
				r.conf = c.conf
				r.start()
				for _, p := range []pages{c.before, c.after} {
					r.deliver(p)
				}
				r.expectWanted("delivered", c.want)
				// The same again changes nothing.
				deletes := r.kernel.Deletes
				r.deliver(slices.Clone(c.after))
				r.expectWanted("delivered again", c.want)
				// A restart without stafd neither.
				r.stop()
				r.start()
				r.settle()
				r.expectWanted("restarted, stafd is silent", c.want)
				if r.kernel.Deletes != deletes {
					t.Errorf("%d deletions for nothing", r.kernel.Deletes-deletes)
				}
			})
		})
	}
}

// A stafd that does not tell its host NQN has that of the host.
func TestHostNQN(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		r.start()
		p := dc(1, yes, "a")
		delete(p.DiscoveryController, "host-nqn")
		r.deliver([]stac.Page{p})
		list, err := r.daemon.ListControllers(t.Context(), false)
		if err != nil || len(list) != 1 || list[0]["host-nqn"] != identity.NQN {
			t.Errorf("%v, %v", list, err)
		}
	})
}

// A host that is given another NQN wants its storage under the new one, and
// not to lose it under the old one.
func TestOtherHostNQN(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		r.conf = "[Controllers]\ncontroller=transport=tcp;traddr=10.0.0.1;trsvcid=4420;nqn=nqn.a\n"
		r.kernel.Offer("nqn.a", "10.0.0.1", "4420", true)
		r.start()
		r.settle()
		r.self.NQN, r.self.ID = "nqn.2026-11.org.example:other", "11111111-2222-4333-8444-555555555555"
		r.reconfigure(r.conf)
		r.stop()
		r.start()
		r.settle()
		if all := r.kernel.Controllers(); len(all) != 2 || all[0].HostNQN != identity.NQN || all[1].HostNQN != r.self.NQN {
			t.Errorf("the controllers are %+v", all)
		}
		// What is really no longer wanted goes, under the NQN that is known.
		r.reconfigure("[Global]\n")
		if all := r.kernel.Controllers(); len(all) != 1 || all[0].HostNQN != identity.NQN {
			t.Errorf("given up, the controllers are %+v", all)
		}
	})
}

// A discovery controller that comes under another identity has to be read
// under it before the storage that it listed can be gone.
func TestDiscoveryControllerUnderAnotherIdentity(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		r.kernel.Offer("nqn.a", "10.0.0.1", "4420", true)
		r.start()
		r.deliver([]stac.Page{dc(1, yes, "a")})
		connected := len(r.kernel.Controllers())
		other := func(known string, nqns ...string) stac.Page {
			p := dc(1, known, nqns...)
			p.DiscoveryController["host-nqn"] = "nqn.2026-11.org.example:other"
			return p
		}
		r.self.NQN, r.self.ID = "nqn.2026-11.org.example:other", "11111111-2222-4333-8444-555555555555"
		r.reconfigure(r.conf)
		r.deliver([]stac.Page{other(no)})
		if n := len(r.kernel.Controllers()); connected != 1 || n != 1 || r.kernel.Deletes != 0 {
			t.Errorf("not read yet: %d controllers, then %d, %d deletions", connected, n, r.kernel.Deletes)
		}
		r.deliver([]stac.Page{other(yes, "a")})
		if n := len(r.kernel.Controllers()); n != 2 || r.kernel.Deletes != 0 {
			t.Errorf("read: %d controllers, %d deletions", n, r.kernel.Deletes)
		}
		// Another place proves nothing for this one, and keeps nothing.
		r.deliver([]stac.Page{dc(2, no)})
		if r.wanted() != "" {
			t.Errorf("gone: still wanted: %s", r.wanted())
		}
	})
}

// What is wrong with a log page or a configuration is said once, not with
// each change of a page.
func TestToldOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		const config = "[Controllers]\ncontroller=transport=tcp;traddr=10.0.0.1;trsvcid=4420;nqn=nqn.x\nexclude=subsysnqn=nqn.x\nexclude=subsysnqn=nqn.b\n"
		r.conf = config
		r.start()
		expect := func(what string, n int) {
			t.Helper()
			log := r.log.String()
			for _, text := range []string{"10.0.1.1, 8009, nqn.2014-08.org.nvmexpress.discovery) cannot be connected", "nqn.b) is listed, but not", "nqn.x) is configured, but not"} {
				if got := strings.Count(log, text); got != n {
					t.Errorf("%s: %q was said %d times, want %d:\n%s", what, text, got, n, log)
				}
			}
		}
		for i := range 5 {
			r.deliver([]stac.Page{dc(1, yes, "a nowhere", "b", fmt.Sprint("c", i))})
		}
		expect("five pages", 1)
		r.reconfigure(config)
		expect("reloaded", 2)
	})
}

func TestDisconnect(t *testing.T) {
	for _, c := range []struct{ name, conf, wanted, connected string }{
		{"by default", "", "", ""},
		{"not to be disconnected", "[I/O controller connection management]\ndisconnect-scope=no-disconnect\n", "", "nvme0=nqn.a"},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := newRig(t)
				r.kernel.Offer("nqn.a", "10.0.0.1", "4420", true)
				r.conf = c.conf
				r.start()
				r.deliver([]stac.Page{dc(1, yes, "a")})
				r.expectConnected("listed", "nvme0=nqn.a")
				r.deliver([]stac.Page{dc(1, yes)})
				r.expectWanted("withdrawn", c.wanted)
				r.expectConnected("withdrawn", c.connected)
			})
		})
	}
}

// A configuration with a line that was ignored keeps what was configured. What
// a page listed it does not keep: that has provably gone.
func TestDoubtfulConfiguration(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		r.kernel.Offer("nqn.a", "10.0.0.1", "4420", true)
		r.kernel.Offer("nqn.b", "10.0.0.1", "4420", true)
		const good = "[Controllers]\ncontroller=transport=tcp;traddr=10.0.0.1;trsvcid=4420;nqn=nqn.a\n"
		r.conf = good
		r.start()
		r.deliver([]stac.Page{dc(1, yes, "b")})
		r.expectConnected("before", "nvme0=nqn.a nvme1=nqn.b")
		r.reconfigure(strings.Replace(good, "traddr", "tradr", 1))
		r.expectConnected("misspelled", "nvme0=nqn.a nvme1=nqn.b")
		r.deliver([]stac.Page{dc(1, yes)})
		r.expectConnected("misspelled, b withdrawn", "nvme0=nqn.a")
		r.stop()
		r.start()
		r.settle()
		r.expectConnected("misspelled, restarted", "nvme0=nqn.a")
		r.reconfigure("")
		r.expectConnected("taken out", "")
	})
}

// An include= line with a mistake may have been meant for anything: what is
// connected stays, and nothing is connected for it.
func TestDoubtfulInclude(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		for _, nqn := range []string{"nqn.a", "nqn.b", "nqn.c"} {
			r.kernel.Offer(nqn, "10.0.0.1", "4420", true)
		}
		r.conf = "[Controllers]\ninclude=nqn=nqn.a\ninclude=nqn=nqn.b"
		r.start()
		r.deliver([]stac.Page{dc(1, yes, "a")})
		r.deliver([]stac.Page{dc(1, yes, "a", "b", "c")})
		r.expectConnected("included", "nvme0=nqn.a nvme1=nqn.b")
		const broken = "[Controllers]\ninclude=nqn=nqn.a\ninclude=nqm=nqn.b\n"
		r.reconfigure(broken)
		r.expectConnected("misspelled", "nvme0=nqn.a nvme1=nqn.b")
		r.stop()
		r.start()
		r.settle()
		r.expectConnected("misspelled, restarted", "nvme0=nqn.a nvme1=nqn.b")
		r.reconfigure(broken + "exclude=nqn=nqn.a\n")
		r.expectConnected("one excluded", "nvme1=nqn.b")
		r.deliver([]stac.Page{dc(1, yes, "a", "c")})
		r.expectConnected("the other withdrawn", "")
		r.reconfigure("[Controllers]\ninclude=nqn=nqn.c\n")
		r.expectConnected("in order", "nvme0=nqn.c")
	})
}

// What happened while stacd was away is caught up on when stafd tells.
func TestRestart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		for _, nqn := range []string{"nqn.a", "nqn.b", "nqn.c"} {
			r.kernel.Offer(nqn, "10.0.0.1", "4420", true)
		}
		const configured = "[Controllers]\ncontroller=transport=tcp;traddr=10.0.0.1;trsvcid=4420;nqn=nqn.c\n"
		r.conf = configured
		r.start()
		r.deliver([]stac.Page{dc(1, yes, "a")})
		r.deliver([]stac.Page{dc(1, yes, "a", "b")})
		r.expectConnected("before", "nvme0=nqn.c nvme1=nqn.a nvme2=nqn.b")
		r.stop()

		r.conf = ""
		r.start()
		r.settle()
		r.expectConnected("c was taken out meanwhile", "nvme1=nqn.a nvme2=nqn.b")
		r.deliver(nil)
		r.expectConnected("stafd is silent", "nvme1=nqn.a nvme2=nqn.b")
		r.deliver([]stac.Page{dc(1, yes, "b")})
		r.expectConnected("a was withdrawn meanwhile", "nvme2=nqn.b")
	})
}

// Without memory, connections are nobody's to remove.
func TestDamagedState(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		r.kernel.Offer("nqn.a", "10.0.0.1", "4420", true)
		r.start()
		r.deliver([]stac.Page{dc(1, yes, "a")})
		r.stop()
		good := string(r.state)
		if !strings.Contains(good, `"configured":false`) {
			t.Fatalf("the state is %s", good)
		}
		r.state = []byte(strings.Replace(good, `"configured":false`, `"configured":"?"`, 1))
		r.start()
		r.settle()
		r.expectWanted("damaged state", "")
		if !strings.Contains(r.log.String(), "state cannot be used") {
			t.Errorf("nothing tells:\n%s", r.log.String())
		}
		r.deliver([]stac.Page{})
		r.expectConnected("damaged state", "nvme0=nqn.a")
		r.deliver([]stac.Page{dc(1, yes, "a")})
		r.deliver([]stac.Page{dc(1, yes)})
		r.expectConnected("known again and withdrawn", "")
	})
}

func TestInfo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		r.conf = "[Controllers]\ncontroller=transport=tcp;traddr=10.0.0.1;trsvcid=4420;nqn=nqn.z\n"
		r.start()
		p := dc(1, yes, "a", "b")
		p.LogPages[1].EFlags = "4"
		r.deliver([]stac.Page{p})
		list, err := r.daemon.ListControllers(t.Context(), true)
		if err != nil || len(list) != 3 {
			t.Fatal(list, err)
		}
		for _, d := range list {
			ncc := d["dlpe.eflags.ncc"]
			want := map[string]string{"nqn.a": "False", "nqn.b": "True", "nqn.z": "False"}[d["subsysnqn"]]
			entry := "None"
			if d["subsysnqn"] != "nqn.z" {
				entry = "{'trtype': 'tcp', 'adrfam': 'ipv4', 'traddr': '10.0.0.1', 'trsvcid': '4420', 'subnqn': '" + d["subsysnqn"] +
					"', 'subtype': 'nvme', 'treq': '', 'portid': '', 'cntlid': '', 'asqsz': '', 'eflags': '" + map[bool]string{true: "4", false: "0"}[ncc == "True"] + "'}"
			}
			if ncc != want || d["dlpe"] != entry {
				t.Errorf("%s: ncc %q, dlpe %s, want %s", d["subsysnqn"], ncc, d["dlpe"], entry)
			}
		}
	})
}

// origins is who wants a controller: a place of the configuration, or the number
// of a discovery controller.
func origins(all []stasbus.Origin) string {
	var parts []string
	for _, o := range all {
		switch o.Kind {
		case stasbus.Configured:
			parts = append(parts, o.Place)
		case stasbus.Listed:
			text := strings.TrimPrefix(o.By.TrAddr, "10.0.1.")
			if o.NotConnected {
				text += " ncc"
			}
			parts = append(parts, text)
		default:
			parts = append(parts, o.Kind)
		}
	}
	return strings.Join(parts, ", ")
}

func TestReport(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		r.conf = "[Controllers]\ncontroller=transport=tcp;traddr=10.0.0.1;trsvcid=4420;nqn=nqn.z\nexclude=nqn=nqn.x\n" +
			"controller=transport=tcp;traddr=10.0.0.1;trsvcid=4420;nqn=nqn.x\n"
		r.start()
		report := func() map[string]string {
			t.Helper()
			rep, err := r.daemon.Report(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			got := make(map[string]string)
			for _, c := range rep.Controllers {
				got[c.SubsysNQN] = origins(c.Origins)
			}
			for _, c := range rep.Refused {
				got[c.SubsysNQN] = origins(c.Origins) + " but " + c.Why
			}
			got["stafd"] = fmt.Sprint(rep.Stafd.Answers)
			for _, s := range rep.Stafd.Sources {
				got["stafd"] += fmt.Sprintf(" %s:%d", s.TrAddr, s.Entries)
			}
			return got
		}
		const excluded = " but stacd.conf:3 excludes subsysnqn=nqn.x"
		check := func(what string, want map[string]string) {
			t.Helper()
			if diff := gocmp.Diff(want, report()); diff != "" {
				t.Errorf("%s (-want +got):\n%s", what, diff)
			}
		}
		check("stafd not heard of", map[string]string{"nqn.z": "stacd.conf:2", "nqn.x": "stacd.conf:4" + excluded, "stafd": "false"})
		p := dc(2, yes, "b", "x", "z", "d 10.0.0.1 discovery", "n host.example")
		p.LogPages[0].EFlags = "4"
		r.deliver([]stac.Page{dc(1, yes, "a", "b"), p})
		check("listed", map[string]string{
			"nqn.z": "stacd.conf:2, 2", "nqn.a": "1", "nqn.b": "1, 2 ncc", "nqn.x": "stacd.conf:4, 2" + excluded,
			"nqn.n": `2 but the entry is not usable: traddr "host.example" is not an IP address`,
			"stafd": "true 10.0.1.1:2 10.0.1.2:5",
		})
		r.deliver(nil)
		if got := report(); got["stafd"] != "false 10.0.1.1:2 10.0.1.2:5" || got["nqn.a"] != "1" {
			t.Errorf("stafd is silent: %v", got)
		}
	})
}

// What a line sets is shown as nvme-stas shows it, but for keys, which it gave
// to every local user (defect 4 of nvme-stas).
func TestParametersAreShown(t *testing.T) {
	const secret = "DHHC-1:00:c2VjcmV0c2VjcmV0c2VjcmV0c2VjcmV0c2VjcmV0c2VjcmV0:"
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		r.self.Key = fabrics.NewSecret(secret)
		r.conf = "[Global]\ndata-digest=true\n[Controllers]\ncontroller=transport=tcp;traddr=10.0.0.1;trsvcid=4420;nqn=nqn.a;" +
			"kato=030;hdr-digest=TRUE;nr-io-queues=nonsense;dhchap_secret=" + secret + ";dhchap-secret=" + secret + ";dhchap-ctrl-secret=" + secret + "\n"
		r.start()
		r.settle()
		for _, detailed := range []bool{false, true} {
			list, err := r.daemon.ListControllers(t.Context(), detailed)
			if err != nil || len(list) != 1 {
				t.Fatal(list, err)
			}
			d := list[0]
			if d["kato"] != "30" || d["hdr-digest"] != "True" {
				t.Errorf("kato is %q, hdr-digest %q", d["kato"], d["hdr-digest"])
			}
			for _, key := range []string{"data-digest", "nr-io-queues", "dhchap-secret", "dhchap-ctrl-secret", "dhchap_secret"} {
				if value, ok := d[key]; ok {
					t.Errorf("%s is %q", key, value)
				}
			}
			if text := fmt.Sprint(d); strings.Contains(text, "c2Vj") {
				t.Errorf("a key is shown: %s", text)
			}
		}
		id := stasbus.ParseID(stasbus.Dict{
			"transport": "tcp", "traddr": "10.0.0.1", "trsvcid": "4420", "subsysnqn": "nqn.a", "host-nqn": identity.NQN,
		})
		info, err := r.daemon.ControllerInfo(t.Context(), id)
		process, err2 := r.daemon.ProcessInfo(t.Context())
		report, err3 := r.daemon.Report(t.Context())
		all, err4 := json.Marshal(report)
		if err := errors.Join(err, err2, err3, err4); err != nil || !strings.Contains(info, `"kato":"30"`) || !strings.Contains(process, `"hostkey":null`) {
			t.Errorf("%s %s %v", info, process, err)
		}
		if strings.Contains(info+process+string(all)+string(r.state)+r.log.String(), "c2Vj") {
			t.Errorf("a key is shown:\n%s\n%s\n%s\n%s\n%s", info, process, all, r.state, r.log.String())
		}
	})
}

// What the host may have been booted from is never disconnected, whatever the
// configuration says; but to be in a boot table makes nothing wanted.
func TestBooted(t *testing.T) {
	disk := tid.New(tid.TID{Transport: "tcp", TrAddr: "10.0.0.1", TrSvcID: "4420", SubsysNQN: "nqn.a", HostIface: "eth9", HostNQN: "nqn.firmware"})
	never := disk
	never.SubsysNQN = "nqn.c"
	table := boot.Tables{Storage: []boot.Controller{{ID: disk, Table: "NBFT"}, {ID: never, Table: "NBFT"}}}
	const (
		none  = "[Controllers]\n"
		a     = "controller=transport=tcp;traddr=10.0.0.1;trsvcid=4420;nqn=nqn.a\n"
		b     = "controller=transport=tcp;traddr=10.0.0.1;trsvcid=4420;nqn=nqn.b\n"
		scope = "[I/O controller connection management]\ndisconnect-scope=all-connections-matching-disconnect-trtypes\n"
		named = "never disconnected: the boot table NBFT names it"
	)
	for _, c := range []struct {
		name      string
		conf      string
		boot      boot.Tables
		connected string
		wanted    string
		log       string // the one line about boot tables, or none
	}{
		{name: "taken out", conf: none, boot: table, connected: "nqn.a", log: named},
		{name: "excluded", conf: none + a + b + "exclude=traddr=10.0.0.1", boot: table, connected: "nqn.a", log: named},
		{name: "whatever the scope", conf: scope, boot: table, connected: "nqn.a", log: named},
		{name: "no table", conf: none},
		{name: "unreadable", conf: none + a, boot: boot.Tables{Unread: true}, connected: "nqn.a nqn.b", wanted: "a 10.0.0.1, b 10.0.0.1", log: "b) stays, because the boot tables cannot be read"},
		{name: "unreadable, excluded", conf: none + a + "exclude=nqn=nqn.b", boot: boot.Tables{Unread: true}, connected: "nqn.a nqn.b", wanted: "a 10.0.0.1, b 10.0.0.1", log: "b) stays, because the boot tables cannot be read"},
		{name: "wanted", conf: none + a, boot: table, connected: "nqn.a", wanted: "a 10.0.0.1"},
	} {
		for _, restarted := range []bool{false, true} {
			t.Run(fmt.Sprint(c.name, " ", restarted), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					r := newRig(t)
					for _, nqn := range []string{"nqn.a", "nqn.b", "nqn.c"} {
						r.kernel.Offer(nqn, "10.0.0.1", "4420", true)
					}
					r.conf, r.boot = none+a+b, c.boot
					r.start()
					r.settle()
					if restarted {
						r.stop()
						r.conf = c.conf
						r.start()
						r.settle()
					} else {
						r.reconfigure(c.conf)
					}
					r.expectWanted("reloaded", c.wanted)
					var all []string
					for _, c := range r.kernel.Controllers() {
						all = append(all, c.SubsysNQN)
					}
					slices.Sort(all)
					if got := strings.Join(all, " "); got != c.connected {
						t.Errorf("connected are %q, want %q", got, c.connected)
					}
					if n := strings.Count(r.log.String(), "boot table"); n > 1 || (n == 1) != (c.log != "") || !strings.Contains(r.log.String(), c.log) {
						t.Errorf("%q is not all that is logged:\n%s", c.log, r.log.String())
					}
					err := r.daemon.Loop().Do(t.Context(), func() {
						if why := r.daemon.Booted(disk); (why != "") != (len(c.boot.Storage) > 0) {
							t.Errorf("the boot disk stays: %q", why)
						}
					})
					if err != nil {
						t.Error(err)
					}
				})
			})
		}
	}
}
