package stasbus_test

import (
	"context"
	"encoding/xml"
	"errors"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/godbus/dbus/v5"
	"github.com/godbus/dbus/v5/introspect"
	"github.com/google/go-cmp/cmp"

	"github.com/nvme-stas/stas/internal/daemon"
	"github.com/nvme-stas/stas/internal/logpage"
	"github.com/nvme-stas/stas/internal/stasbus"
	"github.com/nvme-stas/stas/internal/stastest"
	"github.com/nvme-stas/stas/internal/tid"
)

// patience is how long a test waits for what should happen at once.
const patience = 10 * time.Second

var dc = tid.New(tid.TID{
	Transport: "tcp", TrAddr: "10.0.0.1", TrSvcID: "8009", SubsysNQN: "nqn.2014-08.org.nvmexpress.discovery",
	HostTrAddr: "10.0.0.9", HostIface: "eth0", HostNQN: "nqn.2026-11.test:host",
})

// stacd is a daemon without log pages, stafd one with them.
type stacd struct {
	list  []stasbus.Dict
	err   error
	tron  atomic.Bool
	asked chan tid.TID // receives those that are asked for
}

func (d *stacd) ListControllers(_ context.Context, detailed bool) ([]stasbus.Dict, error) {
	if !detailed {
		return []stasbus.Dict{}, d.err
	}
	return d.list, d.err
}

func (d *stacd) ControllerInfo(_ context.Context, id tid.TID) (string, error) {
	d.asked <- id
	return `{"a":"b"}`, d.err
}
func (d *stacd) ProcessInfo(context.Context) (string, error) { return `{"tron":false}`, d.err }
func (d *stacd) Tron() bool                                  { return d.tron.Load() }
func (d *stacd) SetTron(on bool)                             { d.tron.Store(on) }

type stafd struct {
	stacd
	mu    sync.Mutex
	pages func(context.Context) (string, error)
	calls int
}

func (d *stafd) GetLogPages(_ context.Context, id tid.TID) ([]stasbus.Dict, error) {
	d.asked <- id
	return []stasbus.Dict{{"subnqn": "x"}}, d.err
}

// The daemons of nvme-stas 2.x have no more than that; ours do.
type newStacd struct {
	stacd
	report stasbus.Report
	big    bool // report is too big for the bus
}

func (d *newStacd) Report(context.Context) (stasbus.Report, error) {
	if d.big {
		r := d.report
		r.Release = strings.Repeat("x", 31<<20)
		return r, d.err
	}
	return d.report, d.err
}

func (d *newStacd) Controller(_ context.Context, id tid.TID) (*stasbus.Controller, error) {
	for _, c := range d.report.Controllers {
		if c.TID() == id {
			return &c, d.err
		}
	}
	return nil, d.err
}

func (d *newStacd) Disconnect(context.Context, string, bool) (stasbus.Disconnected, error) {
	return stasbus.Disconnected{Device: "nvme3"}, d.err
}

func (d *newStacd) Hold(_ context.Context, name string, duration time.Duration) (stasbus.Hold, error) {
	h := stasbus.Hold{Name: name, Since: time.Unix(0, 0)}
	if duration > 0 {
		h.Until = h.Since.Add(duration)
	}
	return h, d.err
}

func (d *newStacd) Release(_ context.Context, name string) ([]stasbus.Hold, error) {
	return []stasbus.Hold{{Name: name}}, d.err
}

func (d *newStacd) Plan(context.Context, string) (stasbus.Plan, error) {
	return stasbus.Plan{}, d.err
}

type newStafd struct {
	newStacd
	old   *stafd
	mu    sync.Mutex // guards the following
	told  []stasbus.LogPage
	whole bool // log_pages is not too big for the bus
	// listing is what the list is worth; restarts makes it another stafd's each
	// time.
	listing  stasbus.Listing
	restarts bool
}

func (d *newStafd) GetLogPages(ctx context.Context, id tid.TID) ([]stasbus.Dict, error) {
	return d.old.GetLogPages(ctx, id)
}

func (d *newStafd) GetAllLogPages(ctx context.Context, detailed bool) (string, error) {
	return d.old.GetAllLogPages(ctx, detailed)
}

func (d *newStafd) ListControllers(context.Context, bool) ([]stasbus.Dict, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	list := []stasbus.Dict{{"transport": "tcp", "traddr": "10.0.0.99"}} // has just gone
	for _, p := range d.told {
		list = append(list, tid.TID(p.ID).Map())
	}
	return list, d.err
}

func (d *newStafd) Browse(context.Context) (stasbus.Browse, error) { return stasbus.Browse{}, d.err }

func (d *newStafd) LogPages(context.Context) ([]stasbus.LogPage, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if !d.whole {
		return []stasbus.LogPage{{Entries: []logpage.Entry{{SubNQN: strings.Repeat("x", 31<<20)}}}}, nil
	}
	return d.told, d.err
}

func (d *newStafd) Listing(context.Context) (stasbus.Listing, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.restarts {
		d.listing.Since = d.listing.Since.Add(time.Second)
	}
	return d.listing, d.err
}

func (d *newStafd) LogPage(_ context.Context, id tid.TID) (*stasbus.LogPage, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, p := range d.told {
		if tid.TID(p.ID) == id {
			return &p, d.err
		}
	}
	return nil, d.err
}

func (d *stafd) GetAllLogPages(ctx context.Context, _ bool) (string, error) {
	d.mu.Lock()
	d.calls++
	pages := d.pages
	d.mu.Unlock()
	return pages(ctx)
}

// serve runs a server, and returns it when it owns its name. stop stops it.
func serve(t *testing.T, names stasbus.Names, backend stasbus.Backend) (server *stasbus.Server, stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	server = stasbus.NewServer(names, logger(t))
	ready, done := make(chan struct{}), make(chan error, 1)
	go func() { done <- server.Run(ctx, backend, func() { close(ready) }) }() // twice would panic
	stop = sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("the server ends with: %v", err)
		}
	})
	t.Cleanup(stop)
	select {
	case <-ready:
	case err := <-done:
		done <- nil
		t.Fatalf("the server does not start: %v", err)
	case <-time.After(patience):
		t.Fatal("the server does not get ready")
	}
	return server, stop
}

func logger(t *testing.T) *slog.Logger {
	return daemon.NewLogger(t.Output(), false, new(slog.LevelVar))
}

// dial connects a client, and the bare connection of another one.
func dial(t *testing.T, names stasbus.Names) (*stasbus.Client, *dbus.Conn) {
	t.Helper()
	client, err := stasbus.Dial(names)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { client.Close() })
	conn, err := dbus.ConnectSystemBus()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return client, conn
}

func TestClientAndServer(t *testing.T) {
	stastest.NewSystemBus(t, stastest.AllowAll)
	backend := &stafd{stacd: stacd{asked: make(chan tid.TID, 1)}, pages: func(context.Context) (string, error) {
		return `[{"discovery-controller":{"traddr":"10.0.0.1"},"log-pages":[{"subnqn":"nqn.x"}]}]`, nil
	}}
	// What sysfs shows of a target need not be text. The bus takes nothing else.
	backend.list = []stasbus.Dict{{"traddr": "10.0.0.1", "model": "a\xffb\x00c"}}
	serve(t, stasbus.Staf, backend)
	client, _ := dial(t, stasbus.Staf)
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()

	check := func(what string, got any, err error, want any) {
		t.Helper()
		if err != nil {
			t.Errorf("%s: %v", what, err)
		} else if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%s (-want +got):\n%s", what, diff)
		}
	}
	list, err := client.ListControllers(ctx, true)
	check("list_controllers, detailed", list, err, []stasbus.Dict{{"traddr": "10.0.0.1", "model": "a\uFFFDbc"}})
	list, err = client.ListControllers(ctx, false)
	check("list_controllers", list, err, []stasbus.Dict{})
	list, err = client.GetLogPages(ctx, dc)
	check("get_log_pages", list, err, []stasbus.Dict{{"subnqn": "x"}})
	check("its transport ID", receive(t, backend.asked), nil, dc)
	pages, err := client.GetAllLogPages(ctx, true)
	if err != nil || len(pages) != 1 || pages[0].DiscoveryController["traddr"] != "10.0.0.1" ||
		len(pages[0].LogPages) != 1 || pages[0].LogPages[0].SubNQN != "nqn.x" {
		t.Errorf("get_all_log_pages: %v, %v", pages, err)
	}
	info, err := client.ControllerInfo(ctx, dc)
	check("controller_info", info, err, `{"a":"b"}`)
	check("its transport ID", receive(t, backend.asked), nil, dc)
	info, err = client.ProcessInfo(ctx)
	check("process_info", info, err, `{"tron":false}`)
	for _, on := range []bool{true, false} {
		err := client.SetTron(ctx, on)
		check("setting tron", backend.tron.Load(), err, on)
		now, err := client.Tron(ctx)
		check("tron", now, err, on)
	}
}

// The interfaces, as nvme-stas 2.x has them.
var (
	idArgs = "sssssss"
	debug  = map[string]string{"process_info": "->s", "controller_info": idArgs + "->s"}
	stac   = map[string]string{"list_controllers": "b->aa{ss}"}
	staf   = map[string]string{
		"list_controllers": "b->aa{ss}", "get_log_pages": idArgs + "->aa{ss}", "get_all_log_pages": "b->s",
		"log_pages_changed": "signal ssssssss", "dc_removed": "signal ",
	}
	stacReport = map[string]string{
		"report": "->s", "controller": idArgs + "->s",
		"disconnect": "sb->s", "hold": "su->s", "release": "s->s", "plan": "s->s",
	}
	stafReport = map[string]string{"report": "->s", "controller": idArgs + "->s", "log_pages": "->s", "log_page": idArgs + "->s", "listing": "->s", "browse": "->s", "plan": "s->s"}

	props = map[string]string{"Get": "ss->v", "GetAll": "s->a{sv}", "Set": "ssv->"}
	intro = map[string]string{"Introspect": "->s"}
)

func TestInterfaces(t *testing.T) {
	stastest.NewSystemBus(t, stastest.AllowAll)
	asked := make(chan tid.TID, 8)
	controllers := stasbus.Report{Controllers: []stasbus.Controller{{ID: stasbus.ID(tronTID)}}}
	for _, d := range []struct {
		names        stasbus.Names
		backend      stasbus.Backend
		main, report map[string]string
	}{
		{stasbus.Staf, &newStafd{
			newStacd: newStacd{stacd: stacd{asked: asked}, report: controllers},
			old:      &stafd{stacd: stacd{asked: asked}, pages: func(context.Context) (string, error) { return "[]", nil }},
			whole:    true, told: []stasbus.LogPage{{ID: stasbus.ID(tronTID)}},
		}, staf, stafReport},
		{stasbus.Stac, &newStacd{stacd: stacd{asked: asked}, report: controllers}, stac, stacReport},
	} {
		t.Run(d.names.Bus, func(t *testing.T) {
			serve(t, d.names, d.backend)
			_, conn := dial(t, d.names)
			object := conn.Object(d.names.Bus, d.names.Path)
			want := map[string]map[string]string{
				d.names.Bus: d.main, d.names.Debug: debug, d.names.Report: d.report,
				"org.freedesktop.DBus.Properties": props, "org.freedesktop.DBus.Introspectable": intro,
			}
			if diff := cmp.Diff(want, introspection(t, object)); diff != "" {
				t.Errorf("introspection (-want +got):\n%s", diff)
			}
			for iface, members := range want {
				for name, signature := range members {
					in, out, isMethod := strings.Cut(signature, "->")
					if !isMethod {
						continue
					}
					args := arguments(in, d.names.Debug)
					call := object.Call(iface+"."+name, 0, args...)
					if call.Err != nil {
						t.Errorf("%s.%s(%s): %v", iface, name, in, call.Err)
					} else if got := dbus.SignatureOf(call.Body...).String(); got != out {
						t.Errorf("%s.%s returns %q, want %q", iface, name, got, out)
					}
					call = object.Call(iface+"."+name, 0, append(args, int64(0))...)
					if got := errorName(call.Err); got != "org.freedesktop.DBus.Error.InvalidArgs" {
						t.Errorf("%s.%s with an argument too many: %v", iface, name, call.Err)
					}
				}
			}
		})
	}
}

// tronTID is what the arguments of all methods that have seven name.
var tronTID = tid.New(tid.TID{
	Transport: "tron", TrAddr: "tron", TrSvcID: "tron", SubsysNQN: "tron", HostTrAddr: "tron", HostIface: "tron", HostNQN: "tron",
})

// arguments are fit for a signature, and for the properties of the interface.
func arguments(signature, debug string) (args []any) {
	for _, c := range signature {
		switch c {
		case 'b':
			args = append(args, true)
		case 'v':
			args = append(args, dbus.MakeVariant(true))
		case 's':
			args = append(args, "tron")
		case 'u':
			args = append(args, uint32(60))
		}
	}
	if len(args) > 1 && signature != idArgs {
		args[0] = debug
	}
	return args
}

// TestArgumentNames has those of nvme-stas 2.x.
func TestArgumentNames(t *testing.T) {
	stastest.NewSystemBus(t, stastest.AllowAll)
	serve(t, stasbus.Staf, &newStafd{})
	_, conn := dial(t, stasbus.Staf)
	var text string
	if err := conn.Object(stasbus.Staf.Bus, stasbus.Staf.Path).Call("org.freedesktop.DBus.Introspectable.Introspect", 0).Store(&text); err != nil {
		t.Fatal(err)
	}
	var node introspect.Node
	if err := xml.Unmarshal([]byte(text), &node); err != nil {
		t.Fatal(err)
	}
	const seven = "transport traddr trsvcid subsysnqn host_traddr host_iface host_nqn"
	want := map[string]string{
		"list_controllers": "detailed controller_list", "get_log_pages": seven + " log_pages", "get_all_log_pages": "detailed log_pages_json",
		"log_pages_changed": seven + " device", "dc_removed": "", "process_info": "info_json", "controller_info": seven + " info_json",
		"report": "report_json", "controller": seven + " controller_json", "log_pages": "log_pages_json", "log_page": seven + " log_page_json", "listing": "listing_json", "browse": "browse_json", "plan": "text plan_json",
		"tron": "readwrite", "log_level": "read",
	}
	got := make(map[string]string)
	names := func(args []introspect.Arg) string {
		var all []string
		for _, a := range args {
			all = append(all, a.Name)
		}
		return strings.Join(all, " ")
	}
	for _, i := range node.Interfaces {
		if !strings.HasPrefix(i.Name, stasbus.Staf.Bus) {
			continue
		}
		for _, m := range i.Methods {
			got[m.Name] = names(m.Args)
		}
		for _, s := range i.Signals {
			got[s.Name] = names(s.Args)
		}
		for _, p := range i.Properties {
			got[p.Name] = p.Access
		}
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

// introspection is what an object says it has.
func introspection(t *testing.T, object dbus.BusObject) map[string]map[string]string {
	t.Helper()
	var text string
	if err := object.Call("org.freedesktop.DBus.Introspectable.Introspect", 0).Store(&text); err != nil {
		t.Fatal(err)
	}
	var node introspect.Node
	if err := xml.Unmarshal([]byte(text), &node); err != nil {
		t.Fatal(err)
	}
	all := make(map[string]map[string]string)
	for _, i := range node.Interfaces {
		members := make(map[string]string)
		for _, m := range i.Methods {
			var in, out string
			for _, a := range m.Args {
				if a.Direction == "in" {
					in += a.Type
				} else {
					out += a.Type
				}
			}
			members[m.Name] = in + "->" + out
		}
		for _, s := range i.Signals {
			members[s.Name] = "signal "
			for _, a := range s.Args {
				members[s.Name] += a.Type
			}
		}
		all[i.Name] = members
	}
	return all
}

func errorName(err error) string {
	e, _ := errors.AsType[dbus.Error](err)
	return e.Name
}

func TestErrors(t *testing.T) {
	stastest.NewSystemBus(t, stastest.AllowAll)
	backend := &stacd{err: errors.New("out of order")}
	serve(t, stasbus.Stac, backend)
	_, conn := dial(t, stasbus.Stac)
	const (
		main   = "org.nvmexpress.stac"
		debug  = "org.nvmexpress.stac.debug"
		props  = "org.freedesktop.DBus.Properties"
		prefix = "org.freedesktop.DBus.Error."
	)
	for _, c := range []struct {
		name, method string
		args         []any
		want         string
	}{
		{"failure", main + ".list_controllers", []any{true}, prefix + "Failed"},
		{"of the other daemon", main + ".get_all_log_pages", []any{true}, prefix + "UnknownMethod"},
		{"no such method", debug + ".x", nil, prefix + "UnknownMethod"},
		{"no such interface", "x.y.z", nil, prefix + "UnknownInterface"},
		{"argument missing", debug + ".controller_info", []any{"tcp"}, prefix + "InvalidArgs"},
		{"argument of another type", main + ".list_controllers", []any{"yes"}, prefix + "InvalidArgs"},
		{"get unknown property", props + ".Get", []any{debug, "x"}, prefix + "UnknownProperty"},
		{"get property of another interface", props + ".Get", []any{main, "tron"}, prefix + "UnknownProperty"},
		{"set unknown property", props + ".Set", []any{debug, "x", dbus.MakeVariant(true)}, prefix + "UnknownProperty"},
		{"set read-only property", props + ".Set", []any{debug, "log_level", dbus.MakeVariant("DEBUG")}, prefix + "PropertyReadOnly"},
		{"set property to another type", props + ".Set", []any{debug, "tron", dbus.MakeVariant("yes")}, prefix + "InvalidArgs"},
	} {
		t.Run(c.name, func(t *testing.T) {
			err := conn.Object(stasbus.Stac.Bus, stasbus.Stac.Path).Call(c.method, 0, c.args...).Err
			if got := errorName(err); got != c.want {
				t.Errorf("%s (%v), want %s", got, err, c.want)
			}
			if c.want == prefix+"Failed" && !strings.Contains(err.Error(), "out of order") {
				t.Errorf("%q does not say why", err)
			}
		})
	}
	if backend.tron.Load() {
		t.Error("tracing was switched on")
	}
}

// Replies that the bus would not carry are refused, with a way out; whoever
// sends one is thrown off the system bus.
func TestTooBig(t *testing.T) {
	stastest.NewSystemBus(t, stastest.AllowAll)
	long := strings.Repeat("x", 1<<20)
	backend := &newStafd{newStacd: newStacd{big: true}, old: &stafd{pages: func(context.Context) (string, error) { return strings.Repeat(long, 31), nil }}}
	backend.report.Controllers = []stasbus.Controller{{ID: stasbus.ID(dc), State: "live"}}
	backend.told = []stasbus.LogPage{{ID: stasbus.ID(dc), Known: true}}
	serve(t, stasbus.Staf, backend)
	list := make([]stasbus.Dict, 31)
	for i := range list {
		list[i] = stasbus.Dict{"model": long}
	}
	serve(t, stasbus.Stac, &stacd{list: list})
	staf, conn := dial(t, stasbus.Staf)
	for _, c := range []struct {
		names   stasbus.Names
		method  string
		instead string
	}{
		{stasbus.Stac, stasbus.Stac.Bus + ".list_controllers", "controller_info"},
		{stasbus.Staf, stasbus.Staf.Bus + ".get_all_log_pages", "get_log_pages"},
		{stasbus.Staf, stasbus.Staf.Report + ".report", "the method controller"},
		{stasbus.Staf, stasbus.Staf.Report + ".log_pages", "the method log_page"},
	} {
		args := []any{true}
		if strings.HasPrefix(c.method, stasbus.Staf.Report) {
			args = nil
		}
		err := conn.Object(c.names.Bus, c.names.Path).Call(c.method, 0, args...).Err
		if errorName(err) != "org.freedesktop.DBus.Error.LimitsExceeded" || !strings.Contains(err.Error(), c.instead) {
			t.Errorf("%s: %v, want something about %q", c.method, err, c.instead)
		}
	}
	// The client finds the way out, and what goes on the way is not known.
	r, err := staf.Report(t.Context())
	if err != nil || len(r.Controllers) != 1 || r.Controllers[0].State != "live" {
		t.Errorf("report: %v, %v", r.Controllers, err)
	}
	pages, err := staf.LogPages(t.Context())
	if err != nil || len(pages) != 2 || pages[0].Known || pages[0].TrAddr != "10.0.0.99" || !pages[1].Known {
		t.Errorf("log_pages: %v, %v", pages, err)
	}
}

func TestUnknownController(t *testing.T) {
	stastest.NewSystemBus(t, stastest.AllowAll)
	serve(t, stasbus.Stac, &newStacd{})
	client, _ := dial(t, stasbus.Stac)
	_, err := client.Controller(t.Context(), dc)
	if errorName(err) != "org.nvmexpress.Error.UnknownController" || !strings.Contains(err.Error(), dc.TrAddr) {
		t.Errorf("%v", err)
	}
}

// A daemon of nvme-stas 2.x does not have these methods, and that can be told
// from a failure.
func TestOldDaemon(t *testing.T) {
	stastest.NewSystemBus(t, stastest.AllowAll)
	serve(t, stasbus.Stac, &stacd{})
	client, _ := dial(t, stasbus.Stac)
	if _, err := client.Report(t.Context()); !errors.Is(err, stasbus.ErrOldDaemon) {
		t.Errorf("report: %v", err)
	}
	if _, err := client.LogPages(t.Context()); !errors.Is(err, stasbus.ErrOldDaemon) {
		t.Errorf("log_pages: %v", err)
	}
}

func TestProperties(t *testing.T) {
	stastest.NewSystemBus(t, stastest.AllowAll)
	backend := &stacd{}
	serve(t, stasbus.Stac, backend)
	_, conn := dial(t, stasbus.Stac)
	for level, tron := range map[string]bool{"INFO": false, "DEBUG": true} {
		backend.SetTron(tron)
		got := map[string]dbus.Variant{}
		err := conn.Object(stasbus.Stac.Bus, stasbus.Stac.Path).
			Call("org.freedesktop.DBus.Properties.GetAll", 0, stasbus.Stac.Debug).Store(&got)
		if err != nil || len(got) != 2 || got["tron"].Value() != tron || got["log_level"].Value() != level {
			t.Errorf("%v, %v, want tron %v and log_level %s", got, err, tron, level)
		}
	}
}

func TestSignals(t *testing.T) {
	stastest.NewSystemBus(t, stastest.AllowAll)
	server, _ := serve(t, stasbus.Staf, &stafd{})
	_, conn := dial(t, stasbus.Staf)
	if err := conn.AddMatchSignal(dbus.WithMatchSender(stasbus.Staf.Bus)); err != nil {
		t.Fatal(err)
	}
	signals := make(chan *dbus.Signal, 8)
	conn.Signal(signals)
	server.LogPagesChanged(dc, "nvme7")
	server.DCRemoved()
	for _, want := range []dbus.Signal{
		{Name: "org.nvmexpress.staf.log_pages_changed", Body: []any{
			dc.Transport, dc.TrAddr, dc.TrSvcID, dc.SubsysNQN, dc.HostTrAddr, dc.HostIface, dc.HostNQN, "nvme7",
		}},
		{Name: "org.nvmexpress.staf.dc_removed"},
	} {
		got := receive(t, signals)
		if got.Name != want.Name || got.Path != stasbus.Staf.Path || len(got.Body) != len(want.Body) {
			t.Fatalf("got %v, want %v", got, want)
		}
		if diff := cmp.Diff(want.Body, got.Body); len(want.Body) > 0 && diff != "" {
			t.Errorf("%s (-want +got):\n%s", want.Name, diff)
		}
	}
}

func receive[T any](t *testing.T, ch <-chan T) T {
	t.Helper()
	select {
	case v := <-ch:
		return v
	case <-time.After(patience):
		t.Fatal("nothing comes")
		panic("unreachable")
	}
}

func TestStartFails(t *testing.T) {
	deny := `<policy context="default"><deny own="org.nvmexpress.stac"/><allow send_destination="*"/><allow receive_sender="*"/></policy>`
	for _, c := range []struct {
		name, policy string
		before       func(t *testing.T, bus *stastest.SystemBus)
		is           error
		want         string
	}{
		{
			name: "second instance", policy: stastest.AllowAll, is: stasbus.ErrNameOwned, want: "another instance",
			before: func(t *testing.T, _ *stastest.SystemBus) { serve(t, stasbus.Stac, &stacd{}) },
		},
		{name: "not allowed", policy: deny, want: "D-Bus policy"},
		{name: "no bus", policy: deny, want: "is dbus running", before: func(_ *testing.T, bus *stastest.SystemBus) { bus.Stop() }},
	} {
		t.Run(c.name, func(t *testing.T) {
			bus := stastest.NewSystemBus(t, c.policy)
			if c.before != nil {
				c.before(t, bus)
			}
			err := stasbus.NewServer(stasbus.Stac, logger(t)).Run(t.Context(), &stacd{}, func() { t.Error("ready") })
			if err == nil || c.is != nil && !errors.Is(err, c.is) || !strings.Contains(err.Error(), c.want) {
				t.Errorf("got %v, want %v and %q", err, c.is, c.want)
			}
		})
	}
}

// The server stays when the bus goes, and is found on the new one.
func TestBusRestarted(t *testing.T) {
	bus := stastest.NewSystemBus(t, stastest.AllowAll)
	serve(t, stasbus.Stac, &stacd{})
	bus.Stop()
	bus.Start()
	client, _ := dial(t, stasbus.Stac)
	for deadline := time.Now().Add(patience); ; time.Sleep(20 * time.Millisecond) {
		_, err := client.ListControllers(t.Context(), false)
		if err == nil {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("not back on the bus: %v", err)
		}
	}
}

// What is to be told while the bus is away is told when it is back.
func TestSignalsOutlastTheBus(t *testing.T) {
	bus := stastest.NewSystemBus(t, stastest.AllowAll)
	server, _ := serve(t, stasbus.Staf, &stafd{})
	bus.Stop()
	server.DCRemoved()
	server.LogPagesChanged(dc, "nvme7")
	bus.Start()
	conn, err := dbus.ConnectSystemBus()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	signals := make(chan *dbus.Signal, 8)
	conn.Signal(signals)
	if err := conn.AddMatchSignal(dbus.WithMatchInterface(stasbus.Staf.Bus)); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"dc_removed", "log_pages_changed"} {
		got := receive(t, signals)
		for strings.HasPrefix(got.Name, "org.freedesktop.DBus.") {
			got = receive(t, signals)
		}
		if got.Name != stasbus.Staf.Bus+"."+want {
			t.Errorf("got %v, want %s", got, want)
		}
	}
}

// The shipped policy lets root do everything, and others only look.
func TestShippedPolicy(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("only root can be root and somebody else")
	}
	var policy string
	for _, name := range []string{"staf", "stac"} {
		path, err := filepath.Abs("../../configs/org.nvmexpress." + name + ".conf")
		if err != nil {
			t.Fatal(err)
		}
		policy += "<include>" + path + "</include>"
	}
	// Before them, what /usr/share/dbus-1/system.conf says.
	bus := stastest.NewSystemBus(t, `<policy context="default"><allow user="*"/><deny own="*"/><deny send_type="method_call"/>
		<allow send_type="signal"/><allow send_requested_reply="true" send_type="method_return"/>
		<allow send_requested_reply="true" send_type="error"/><allow receive_type="method_call"/>
		<allow receive_type="method_return"/><allow receive_type="error"/><allow receive_type="signal"/>
		<allow send_destination="org.freedesktop.DBus" send_interface="org.freedesktop.DBus"/></policy>`+policy)
	socket := strings.TrimPrefix(bus.Address(), "unix:path=")
	for _, c := range []struct {
		path string
		mode os.FileMode
	}{{filepath.Dir(filepath.Dir(socket)), 0o755}, {filepath.Dir(socket), 0o755}, {socket, 0o777}} {
		if err := os.Chmod(c.path, c.mode); err != nil {
			t.Fatal(err)
		}
	}
	const nobody = 65534
	for _, d := range []struct {
		names   stasbus.Names
		backend stasbus.Backend
	}{{stasbus.Staf, &planner{&stafd{}}}, {stasbus.Stac, &newStacd{}}} {
		serve(t, d.names, d.backend)
		type call struct {
			call []string
			root bool
		}
		var operator []call
		if d.names.Bus == stasbus.Stac.Bus {
			operator = []call{
				{call: []string{d.names.Report + ".report"}},
				{root: true, call: []string{d.names.Report + ".disconnect", "string:nvme0", "boolean:true"}},
				{root: true, call: []string{d.names.Report + ".hold", "string:nqn.a", "uint32:5"}},
				{root: true, call: []string{d.names.Report + ".release", "string:nqn.a"}},
			}
		}
		for _, c := range append(operator, []call{
			{call: []string{d.names.Bus + ".list_controllers", "boolean:false"}},
			{call: []string{d.names.Debug + ".process_info"}},
			{call: []string{"org.freedesktop.DBus.Properties.Get", "string:" + d.names.Debug, "string:tron"}},
			{call: []string{"org.freedesktop.DBus.Introspectable.Introspect"}},
			{root: true, call: []string{"org.freedesktop.DBus.Properties.Set", "string:" + d.names.Debug, "string:tron", "variant:boolean:true"}},
			{root: true, call: []string{d.names.Report + ".plan", "string:"}},
		}...) {
			for _, uid := range []uint32{0, nobody} {
				cmd := exec.Command("dbus-send", append([]string{
					"--bus=" + bus.Address(), "--print-reply", "--dest=" + d.names.Bus, string(d.names.Path),
				}, c.call...)...)
				cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uid, Gid: uid}}
				out, err := cmd.CombinedOutput()
				if allowed := uid == 0 || !c.root; (err == nil) != allowed {
					t.Errorf("%s as user %d: %v, want allowed: %v\n%s", c.call, uid, err, allowed, out)
				}
			}
		}
	}
}
