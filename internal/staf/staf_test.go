package staf

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io/fs"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/nvme-stas/stas/internal/boot"
	"github.com/nvme-stas/stas/internal/conf"
	"github.com/nvme-stas/stas/internal/daemon"
	"github.com/nvme-stas/stas/internal/hostid"
	"github.com/nvme-stas/stas/internal/logpage"
	"github.com/nvme-stas/stas/internal/mdns"
	"github.com/nvme-stas/stas/internal/service"
	"github.com/nvme-stas/stas/internal/stasbus"
	"github.com/nvme-stas/stas/internal/stastest"
	"github.com/nvme-stas/stas/internal/tid"
	"github.com/nvme-stas/stas/pkg/nvme"
	"github.com/nvme-stas/stas/pkg/nvmesysfs"
	"github.com/nvme-stas/stas/pkg/uevent"
)

const (
	uuid = "36ebf5a9-1df9-47b3-a6d0-e9ba32e428a2"
	addr = "10.0.0.1"
	// dc1 and dc2 are the discovery controllers behind ports 1 and 2.
	dc1 = "[Controllers]\ncontroller=transport=tcp;traddr=10.0.0.1;trsvcid=1\n"
	dc2 = "controller=transport=tcp;traddr=10.0.0.1;trsvcid=2\n"
)

var identity = hostid.Identity{NQN: "nqn.2014-08.org.nvmexpress:uuid:" + uuid, ID: uuid}

func dcID(port string) tid.TID {
	return tid.New(tid.TID{
		Transport: "tcp", TrAddr: addr, TrSvcID: port, SubsysNQN: nvme.WellKnownDiscoveryNQN, HostNQN: identity.NQN,
	})
}

// rig is stafd in a synctest bubble.
type rig struct {
	t        *testing.T
	kernel   *stastest.Kernel
	conf     string
	boot     boot.Tables
	state    []byte // of the state file
	log      bytes.Buffer
	signals  []string // "PORT DEVICE" or "dc_removed", since last asked for
	mangle   func(*nvme.DiscoveryLog)
	askPages func() error // what asking for the supported log pages gives
	// noDCType hides what sysfs shows of the kind of discovery controllers.
	noDCType    bool
	deleteTakes time.Duration
	identity    hostid.Identity
	mdns        func(conf.MDNS) mdns.Browser

	daemon *Daemon
	reload chan struct{}
	stop   func()
}

func newRig(t *testing.T) *rig {
	r := &rig{t: t, kernel: stastest.NewKernel(), conf: dc1, identity: identity}
	r.kernel.OpenPort(1, addr, "1")
	r.kernel.OpenPort(2, addr, "2")
	t.Cleanup(func() {
		r.stop()
		r.kernel.Close()
		synctest.Wait()
	})
	return r
}

// [service.State].

func (r *rig) Load(state any) error {
	if r.state == nil {
		return fs.ErrNotExist
	}
	return json.Unmarshal(r.state, state)
}

func (r *rig) Save(state json.RawMessage) error { r.state = state; return nil }

// [service.Bus].

func (r *rig) Run(ctx context.Context, _ stasbus.Backend, ready func()) error {
	ready()
	<-ctx.Done()
	return nil
}

func (r *rig) LogPagesChanged(id tid.TID, device string) {
	r.signals = append(r.signals, id.TrSvcID+" "+device)
}
func (r *rig) DCRemoved() { r.signals = append(r.signals, "dc_removed") }

// target is a kernel whose logs may be mangled on their way.
type target struct {
	*stastest.Kernel
	rig *rig
}

func (k target) DiscoveryLog(ctx context.Context, name string, lsp uint8) (nvme.DiscoveryLog, error) {
	log, err := k.Kernel.DiscoveryLog(ctx, name, lsp)
	if k.rig.mangle != nil {
		k.rig.mangle(&log)
	}
	return log, err
}

func (k target) SupportedLogPages(ctx context.Context, name string) ([]byte, error) {
	if k.rig.askPages != nil {
		if err := k.rig.askPages(); err != nil {
			return nil, err
		}
	}
	return k.Kernel.SupportedLogPages(ctx, name)
}

func (k target) Read(name string) (nvmesysfs.Controller, error) {
	c, err := k.Kernel.Read(name)
	if k.rig.noDCType {
		c.DCType = ""
	}
	return c, err
}

func (k target) Delete(name string) error {
	time.Sleep(k.rig.deleteTakes)
	return k.Kernel.Delete(name)
}

func (r *rig) start() {
	log := daemon.NewLogger(&r.log, false, new(slog.LevelVar))
	r.reload = make(chan struct{})
	r.daemon = New(service.Env{
		Kernel: target{r.kernel, r}, Bus: r, State: r, Supervisor: daemon.Supervisor{Log: log},
		Config: func() (*conf.Config, error) {
			cfg, _, err := conf.Parse(conf.Stafd, "stafd.conf", strings.NewReader(r.conf))
			return cfg, err
		},
		BootTables: func() boot.Tables { return r.boot },
		Identity:   func(boot.Tables) (hostid.Identity, error) { return r.identity, nil },
		Reload:     r.reload, Log: log, Level: new(slog.LevelVar),
	})
	r.daemon.MDNS = r.mdns
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error)
	go func() { done <- r.daemon.Run(ctx) }()
	r.stop = func() {
		cancel()
		if err := <-done; err != nil {
			r.t.Errorf("stafd ended with: %v", err)
		}
		r.stop = func() {}
	}
	settle()
}

func (r *rig) reconfigure(text string) {
	r.conf = text
	r.reload <- struct{}{}
	settle()
}

func settle() {
	time.Sleep(time.Second)
	synctest.Wait()
}

func (r *rig) expectSignals(what string, want ...string) {
	r.t.Helper()
	if !slices.Equal(r.signals, want) {
		r.t.Errorf("%s: signals %q, want %q", what, r.signals, want)
	}
	r.signals = nil
}

// pages lists what is served as "PORT=KNOWN:NQN,NQN …".
func (r *rig) pages() string {
	r.t.Helper()
	text, err := r.daemon.GetAllLogPages(r.t.Context(), true)
	if err != nil {
		r.t.Fatal(err)
	}
	var all []stasbus.DCPage[logpage.Entry]
	if err := json.Unmarshal([]byte(text), &all); err != nil || all == nil || strings.Contains(text, `"log-pages":null`) {
		r.t.Fatalf("get_all_log_pages: %s, %v", text, err)
	}
	told, err := r.daemon.LogPages(r.t.Context())
	if err != nil || len(told) != len(all) {
		r.t.Fatalf("log_pages: %v, %v", told, err)
	}
	var parts []string
	for i, p := range all {
		one, err := r.daemon.LogPage(r.t.Context(), tid.TID(told[i].ID))
		if err != nil || !slices.Equal(one.Entries, p.LogPages) || !slices.Equal(told[i].Entries, p.LogPages) || one.Known != told[i].Known {
			r.t.Errorf("the methods differ: %v, %v, %v, %v", p, told[i], one, err)
		}
		var nqns []string
		for _, e := range p.LogPages {
			if e.SubType == logpage.SubNVMe {
				nqns = append(nqns, strings.TrimPrefix(e.SubNQN, "nqn."))
			}
		}
		parts = append(parts, told[i].TrSvcID+"="+stasbus.Bool(told[i].Known)+":"+strings.Join(nqns, ","))
	}
	slices.Sort(parts)
	return strings.Join(parts, " ")
}

func (r *rig) expectPages(what, want string) {
	r.t.Helper()
	if got := r.pages(); got != want {
		r.t.Errorf("%s: pages %q, want %q", what, got, want)
	}
}

func TestPages(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		r.kernel.Offer("nqn.a", addr, "1", true)
		r.kernel.ClosePort(addr, "2")
		r.conf = dc1 + dc2
		r.start()
		r.expectPages("one is down", "1=True:a 2=False:")
		r.expectSignals("one is down", "1 nvme0")

		r.kernel.Offer("nqn.b", addr, "1", true)
		settle()
		r.expectPages("added", "1=True:a,b 2=False:")
		r.expectSignals("added", "1 nvme0")

		r.kernel.BreakLog(addr, "1", errors.New("out of order"))
		r.kernel.Offer("nqn.a", addr, "1", false)
		settle()
		r.expectPages("log cannot be read", "1=True:a,b 2=False:")
		r.expectSignals("log cannot be read")
		list, err := r.daemon.ListControllers(t.Context(), true)
		if op := list[0]["get log page operation"]; err != nil || !strings.HasSuffix(op, ", 'completed': False, 'alive': True}") || strings.HasPrefix(op, "{'fail count': 0") {
			t.Errorf("nothing tells that the log cannot be read: %v, %v", list, err)
		}
		for _, id := range []tid.TID{dcID("1"), dcID("2")} {
			c, err := r.daemon.Controller(t.Context(), id)
			if err != nil {
				t.Fatal(err)
			}
			if id.TrSvcID == "1" {
				if f := c.LogPage.Failure; f == nil || f.Error != "out of order" || f.Attempts < 2 || f.Next.IsZero() || !c.LogPage.Known || c.LogPage.Entries != 3 {
					t.Errorf("nothing tells that the log cannot be read: %+v", c.LogPage)
				}
			} else if c.LogPage.Known || c.LogPage.Failure != nil || c.Connect == nil || c.Connect.Errno != "ECONNREFUSED" {
				t.Errorf("what was never read is reported as %+v, %+v", c.LogPage, c.Connect)
			}
			if len(c.Origins) != 1 || c.Origins[0].Kind != stasbus.Configured || c.Origins[0].Place == "" {
				t.Errorf("nothing tells who wants it: %v", c.Origins)
			}
		}
		r.kernel.BreakLog(addr, "1", nil)
		time.Sleep(10 * time.Second)
		settle()
		r.expectPages("log can be read again", "1=True:b 2=False:")
		r.expectSignals("log can be read again", "1 nvme0")

		r.kernel.OpenPort(2, addr, "2")
		time.Sleep(time.Minute)
		settle()
		r.expectPages("the other comes", "1=True:b 2=True:")
		r.expectSignals("the other comes", "2 nvme1")

		for id, want := range map[tid.TID]int{dcID("1"): 2, dcID("3"): 0} {
			if list, err := r.daemon.GetLogPages(t.Context(), id); err != nil || list == nil || len(list) != want {
				t.Errorf("get_log_pages of %v: %v, %v, want %d entries", id, list, err, want)
			}
		}
	})
}

// stacd waits for the signal after each time the controller was taken up,
// changed or not, and for no other.
func TestSignals(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		r.start()
		r.expectSignals("start", "1 nvme0")
		for _, c := range []struct {
			name  string
			event map[string]string
			read  bool
		}{
			{"log changed", map[string]string{"NVME_AEN": "0x70f002"}, true},
			{"other event", map[string]string{"NVME_AEN": "0x000102"}, false},
			{"nonsense", map[string]string{"NVME_AEN": "0xnonsense"}, false},
			{"connected", map[string]string{"NVME_EVENT": "connected"}, true},
			{"rediscover", map[string]string{"NVME_EVENT": "rediscover"}, true},
			{"other text", map[string]string{"NVME_EVENT": "x"}, false},
		} {
			var read atomic.Bool
			r.mangle = func(*nvme.DiscoveryLog) { read.Store(true) }
			if err := r.daemon.Loop().Do(t.Context(), func() {
				r.daemon.Changed(uevent.Event{Action: "change", Subsystem: "nvme", DevName: "nvme0", Env: c.event})
			}); err != nil {
				t.Fatal(err)
			}
			settle()
			if read.Load() != c.read {
				t.Errorf("%s: the log was read: %v", c.name, read.Load())
			}
			r.expectSignals(c.name) // the log is the same
			time.Sleep(2 * reread)  // see TestReread
			synctest.Wait()
		}
		if err := r.kernel.Delete("nvme0"); err != nil {
			t.Fatal(err)
		}
		settle()
		settle()
		r.expectSignals("connected again", "1 nvme0")
		r.stop()
		r.start()
		r.expectSignals("restarted", "1 nvme0")
	})
}

// An entry that cannot be read is no evidence that another one has gone.
// The dictionaries have the keys of nvme-stas 2.x and no others, in every state
// (defects 17 and 18 of nvme-stas are states in which listing fails).
func TestDictionaryKeys(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		r.kernel.Offer("nqn.a", addr, "1", true)
		r.kernel.ClosePort(addr, "2")
		r.conf = dc1 + dc2
		r.start()
		// Between two attempts to connect the one that refuses.
		attempt := func(d stasbus.Dict) bool { return d["connect operation"] != "" }
		for range 100 {
			list, err := r.daemon.ListControllers(t.Context(), true)
			if err != nil || !slices.ContainsFunc(list, attempt) {
				break
			}
			time.Sleep(100 * time.Millisecond)
			synctest.Wait()
		}
		id := []string{"device", "host-iface", "host-nqn", "host-traddr", "subsysnqn", "traddr", "transport", "trsvcid"}
		details := []string{
			"cntrltype", "connect attempts", "connected", "dctype", "hostid", "hostnqn", "model", "origin", "retry connect timer", "serial",
		}
		keys := func(d stasbus.Dict) string { return strings.Join(slices.Sorted(maps.Keys(d)), ", ") }
		check := func(what string, d stasbus.Dict, want ...string) {
			t.Helper()
			slices.Sort(want)
			if got := keys(d); got != strings.Join(want, ", ") {
				t.Errorf("%s has %s, want %s", what, got, strings.Join(want, ", "))
			}
		}
		for _, detailed := range []bool{false, true} {
			list, err := r.daemon.ListControllers(t.Context(), detailed)
			text, err2 := r.daemon.GetAllLogPages(t.Context(), detailed)
			var pages []stasbus.DCPage[map[string]any]
			if err := errors.Join(err, err2, json.Unmarshal([]byte(text), &pages)); err != nil || len(list) != 2 || len(pages) != 2 {
				t.Fatal(list, pages, err)
			}
			for i, d := range list {
				if d["trsvcid"] != pages[i].DiscoveryController["trsvcid"] {
					t.Error("the methods have different orders")
				}
				want := id
				if detailed {
					want = slices.Concat(id, details)
				}
				if detailed && d["trsvcid"] == "1" {
					want = append(want, "get log page operation", "get supported log page operation")
				}
				check("list_controllers", d, want...)
				check("get_all_log_pages", pages[i].DiscoveryController, want...)
			}
			for _, e := range pages[slices.IndexFunc(list, func(d stasbus.Dict) bool { return d["trsvcid"] == "1" })].LogPages {
				text := make(stasbus.Dict)
				for k, v := range e {
					text[k] = v.(string) // all are
				}
				check("an entry", text, "adrfam", "asqsz", "cntlid", "eflags", "portid", "subnqn", "subtype", "traddr", "treq", "trsvcid", "trtype")
			}
		}
		text, err := r.daemon.ProcessInfo(t.Context())
		var info map[string]any
		if err := errors.Join(err, json.Unmarshal([]byte(text), &info)); err != nil || info["avahi"] == nil {
			t.Errorf("process_info: %s, %v", text, err)
		}
	})
}

func TestBadEntries(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		r.kernel.Offer("nqn.a", addr, "1", true)
		r.mangle = func(l *nvme.DiscoveryLog) { l.Bad = []error{errors.New("SUBNQN is not text")} }
		r.start()
		r.expectPages("first reading", "1=False:a")
		if !strings.Contains(r.log.String(), "SUBNQN is not text") {
			t.Errorf("nothing tells:\n%s", r.log.String())
		}
		r.signals, r.mangle = nil, nil
		reread := func() { r.daemon.Engine().RequestWork("nvme0", time.Now()) }
		if err := r.daemon.Loop().Do(t.Context(), reread); err != nil {
			t.Fatal(err)
		}
		settle()
		r.expectPages("all can be read", "1=True:a")
		r.expectSignals("all can be read", "1 nvme0") // that these are all is news
		r.kernel.Offer("nqn.b", addr, "1", true)
		settle()
		r.mangle = func(l *nvme.DiscoveryLog) { l.Bad, l.Entries = []error{errors.New("not text")}, l.Entries[:1] }
		r.kernel.Offer("nqn.c", addr, "1", true)
		settle()
		r.expectPages("some cannot", "1=True:a,b")
	})
}

func TestReload(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		r.kernel.Offer("nqn.a", addr, "1", true)
		r.conf = dc1 + dc2
		r.start()
		r.expectPages("start", "1=True:a 2=True:")
		r.signals = nil
		for _, step := range []struct {
			name, conf string
			pages      string
			controller int // of the kernel
			signals    []string
		}{
			{"the same", dc1 + dc2, "1=True:a 2=True:", 2, nil},
			{"misspelled", dc1 + strings.Replace(dc2, "traddr", "tradr", 1), "1=True:a 2=True:", 2, nil},
			{"unreadable", "nonsense", "1=True:a 2=True:", 2, nil},
			{"one taken out", dc1, "1=True:a", 1, []string{"dc_removed"}},
			{"excluded", dc1 + "exclude=trsvcid=1\n", "", 0, []string{"dc_removed"}},
			{"back", dc1, "1=True:a", 1, []string{"1 nvme0"}},
		} {
			read := 0
			r.mangle = func(*nvme.DiscoveryLog) { read++ }
			r.reconfigure(step.conf)
			r.expectPages(step.name, step.pages)
			if again := step.conf != "nonsense" && step.controller > 0; (read > 0) != again {
				t.Errorf("%s: logs were read %d times", step.name, read)
			}
			if n := len(r.kernel.Controllers()); n != step.controller {
				t.Errorf("%s: the kernel has %d controllers, want %d", step.name, n, step.controller)
			}
			r.expectSignals(step.name, step.signals...)
		}
	})
}

// What was known before a restart is served until something else is known.
func TestRestart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		r.kernel.Offer("nqn.a", addr, "1", true)
		r.conf = dc1 + dc2
		r.start()
		r.stop()
		for _, c := range r.kernel.Controllers() {
			if err := r.kernel.Delete(c.Name); err != nil {
				t.Fatal(err)
			}
		}
		r.kernel.ClosePort(addr, "1")
		r.kernel.Offer("nqn.b", addr, "1", true)
		r.start()
		r.expectPages("the target is down", "1=True:a 2=True:")
		r.kernel.OpenPort(1, addr, "1")
		time.Sleep(time.Minute)
		settle()
		r.expectPages("the target is back", "1=True:a,b 2=True:")
		r.stop()

		// What was taken out meanwhile goes.
		r.conf, r.signals = dc1, nil
		r.start()
		r.expectPages("taken out", "1=True:a,b")
		r.expectSignals("taken out", "dc_removed", "1 nvme1")
		if n := len(r.kernel.Controllers()); n != 1 {
			t.Errorf("the kernel has %d controllers", n)
		}
	})
}

// Of a damaged state nothing is used: half a page would pass for a whole one.
func TestDamagedState(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		r.kernel.Offer("nqn.a", addr, "1", true)
		r.start()
		r.stop()
		r.kernel.ClosePort(addr, "1")
		good := string(r.state)
		r.state = []byte(strings.Replace(good, `"entries":[`, `"entries":"","x":[`, 1))
		if string(r.state) == good {
			t.Fatalf("the state is %s", good)
		}
		r.start()
		r.expectPages("damaged state", "1=False:")
		if !strings.Contains(r.log.String(), "state cannot be used") {
			t.Errorf("nothing tells:\n%s", r.log.String())
		}
	})
}

// controllers lists the wanted ones as "PORT ORIGIN [IFACE]".
func (r *rig) controllers() string {
	r.t.Helper()
	list, err := r.daemon.ListControllers(r.t.Context(), true)
	if err != nil {
		r.t.Fatal(err)
	}
	var all []string
	for _, d := range list {
		all = append(all, strings.TrimSpace(d["trsvcid"]+" "+d["origin"]+" "+d["host-iface"]))
	}
	slices.Sort(all)
	return strings.Join(all, ", ")
}

// booted are boot tables with the discovery controllers at these ports.
func booted(ids ...tid.TID) (t boot.Tables) {
	for _, id := range ids {
		t.Discovery = append(t.Discovery, boot.Controller{ID: id, Table: "NBFT"})
	}
	return t
}

func TestBootTables(t *testing.T) {
	bare, via := dcID("1"), dcID("1")
	bare.HostNQN, via.HostIface = "", "eth0"
	unread := boot.Tables{Unread: true}
	host := dcID("3")
	host.TrAddr = "dc.example"
	const none = "[Controllers]\n"
	for _, c := range []struct {
		name          string
		conf, conf2   string // before and after a reload
		boot, boot2   boot.Tables
		before, after string
		log           string
	}{
		{name: "found", conf: none, boot: booted(bare, dcID("2")), conf2: none, boot2: booted(bare), before: "1 nbft, 2 nbft", after: "1 nbft"},
		{name: "configured besides", conf: dc1, boot: booted(dcID("1"), dcID("2")), before: "1 configured, 2 nbft", conf2: none, boot2: booted(dcID("1")), after: "1 nbft"},
		{name: "configured later", conf: none, boot: booted(bare), before: "1 nbft", conf2: dc1, boot2: booted(bare), after: "1 configured"},
		{name: "unreadable", conf: none, boot: booted(bare, dcID("2")), before: "1 nbft, 2 nbft", conf2: none, boot2: unread, after: "1 nbft, 2 nbft", log: "stays, because the boot tables cannot be read"},
		{name: "a part is unreadable", conf: none, boot: booted(bare), before: "1 nbft", conf2: none, boot2: boot.Tables{Unread: true, Discovery: booted(dcID("2")).Discovery}, after: "1 nbft, 2 nbft"},
		{name: "unreadable and excluded", conf: none, boot: booted(bare, dcID("2")), before: "1 nbft, 2 nbft", conf2: none + "exclude=trsvcid=2", boot2: unread, after: "1 nbft"},
		{name: "unreadable is no reason for others to stay", conf: dc1 + dc2, boot: unread, before: "1 configured, 2 configured", conf2: dc1, boot2: unread, after: "1 configured"},
		{name: "excluded", conf: none + "exclude=trsvcid=1", boot: booted(bare, dcID("2")), before: "2 nbft", conf2: none, boot2: booted(bare, dcID("2")), after: "1 nbft, 2 nbft", log: "is in the boot table NBFT, but not connected: stafd.conf:2 excludes trsvcid=1"},
		{name: "included", conf: none + "include=trsvcid=1", boot: booted(bare, dcID("2")), before: "1 nbft", conf2: none + "include=trsvcid=1\ninclude=x", boot2: booted(bare, dcID("2")), after: "1 nbft"},
		{name: "a doubtful include", conf: none, boot: booted(bare, dcID("2")), before: "1 nbft, 2 nbft", conf2: none + "include=trsvcid=1\ninclude=x", boot2: booted(bare, dcID("2")), after: "1 nbft, 2 nbft"},
		{name: "a doubtful configuration", conf: none, boot: booted(bare), before: "1 nbft", conf2: none + "controller=x", after: ""},
		{name: "interface ignored", conf: "[Global]\nignore-iface=true\n", boot: booted(via), before: "1 nbft", conf2: none, boot2: booted(via), after: "1 nbft eth0"},
		{name: "the interface appears", conf: none, boot: booted(bare), before: "1 nbft", conf2: none, boot2: booted(via), after: "1 nbft eth0"},
		{name: "not an address", conf: none, boot: booted(host, bare), before: "1 nbft", conf2: none, boot2: booted(bare), after: "1 nbft", log: "of the boot table NBFT cannot be connected: traddr \"dc.example\""},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := newRig(t)
				r.conf, r.boot = c.conf, c.boot
				expect := func(when, want string) {
					t.Helper()
					if got := r.controllers(); got != want {
						t.Errorf("%s: %q, want %q", when, got, want)
					}
				}
				r.start()
				expect("before", c.before)
				r.boot = c.boot2
				r.reconfigure(c.conf2)
				expect("after", c.after)
				r.stop()
				r.start()
				expect("restarted", c.after)
				if !strings.Contains(r.log.String(), c.log) {
					t.Errorf("%q is not logged:\n%s", c.log, r.log.String())
				}
			})
		})
	}
}

// TestBootIdentity connects under the host NQN that the table demands.
func TestBootIdentity(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		id := dcID("1")
		id.HostNQN = "nqn.2014-08.org.nvmexpress:uuid:a0000000-0000-4000-8000-000000000001"
		r.conf, r.boot = "[Global]\nkato=7\n", booted(id)
		r.start()
		all := r.kernel.Controllers()
		if len(all) != 1 || all[0].HostNQN != id.HostNQN || all[0].HostID != "a0000000-0000-4000-8000-000000000001" {
			t.Fatalf("%+v", all)
		}
		if kato, err := r.kernel.Attr(all[0].Name, "kato"); kato != "7" {
			t.Errorf("kato %s, %v", kato, err)
		}
	})
}

// TestBootReport tells who wants a controller, and why others are not connected.
func TestBootReport(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		bare := dcID("2")
		bare.HostNQN = ""
		r.conf, r.boot = dc1+"exclude=trsvcid=3\n", booted(dcID("1"), bare, dcID("3"), dcID("3"))
		r.start()
		rep, err := r.daemon.Report(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		got := make(map[string]string)
		for _, c := range rep.Controllers {
			for _, o := range c.Origins {
				got[c.TrSvcID] += o.Kind + " " + o.Place + ";"
			}
		}
		for _, c := range rep.Refused {
			got[c.TrSvcID] += c.Origins[0].Kind + " " + c.Origins[0].Place + ": " + c.Why
		}
		want := map[string]string{"1": "configured stafd.conf:2;nbft NBFT;", "2": "nbft NBFT;", "3": "nbft NBFT: stafd.conf:3 excludes trsvcid=3"}
		if !maps.Equal(got, want) {
			t.Errorf("got %v, want %v", got, want)
		}
	})
}
