package mdns_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/godbus/dbus/v5"

	"github.com/nvme-stas/stas/internal/mdns"
	"github.com/nvme-stas/stas/internal/stastest"
)

// patience is how long a test waits for what should happen at once.
const patience = 30 * time.Second

// avahi stands for avahi-daemon on a bus.
type avahi struct {
	t    *testing.T
	conn *dbus.Conn

	mu        sync.Mutex
	there     []announced
	last      int
	browsers  map[dbus.ObjectPath]string    // and the type
	resolvers map[dbus.ObjectPath]announced // and what for
	families  map[dbus.ObjectPath]int32
	asked     []string
	limit     int // of resolvers; 0: none
	refuse    string
}

// announced is a service, as ItemNew and Found tell.
type announced struct {
	iface, protocol int32
	name, kind      string
	ipv4, ipv6      string
	port            uint16
	txt             []string
}

const avahiName = "org.freedesktop.Avahi"

func startAvahi(t *testing.T, there ...announced) *avahi {
	t.Helper()
	conn, err := dbus.ConnectSystemBus()
	if err != nil {
		t.Fatal(err)
	}
	a := &avahi{
		t: t, conn: conn, there: there, browsers: make(map[dbus.ObjectPath]string),
		resolvers: make(map[dbus.ObjectPath]announced), families: make(map[dbus.ObjectPath]int32),
	}
	t.Cleanup(func() { conn.Close() })
	err = conn.ExportMethodTable(map[string]any{"ServiceBrowserNew": a.browse, "ServiceResolverNew": a.resolve}, "/", avahiName+".Server")
	if err == nil {
		_, err = conn.RequestName(avahiName, dbus.NameFlagDoNotQueue)
	}
	if err != nil {
		t.Fatal(err)
	}
	return a
}

// object makes a path, whose Free can be called.
func (a *avahi) object(iface string) dbus.ObjectPath {
	a.last++
	path := dbus.ObjectPath(fmt.Sprintf("/Client0/Object%d", a.last))
	free := map[string]any{"Free": func() *dbus.Error {
		a.mu.Lock()
		defer a.mu.Unlock()
		delete(a.browsers, path)
		delete(a.resolvers, path)
		return nil
	}}
	if err := a.conn.ExportMethodTable(free, path, avahiName+"."+iface); err != nil {
		a.t.Error(err)
	}
	return path
}

func (a *avahi) emit(path dbus.ObjectPath, signal string, args ...any) {
	if err := a.conn.Emit(path, avahiName+"."+signal, args...); err != nil {
		a.t.Error(err)
	}
}

func (s announced) item() []any {
	return []any{s.iface, s.protocol, s.name, s.kind, "local", uint32(4)}
}

func (a *avahi) browse(iface, protocol int32, kind, domain string, flags uint32) (dbus.ObjectPath, *dbus.Error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.asked = append(a.asked, fmt.Sprintln("browse", iface, protocol, kind, domain, flags))
	if a.refuse != "" {
		return "", dbus.NewError(a.refuse, nil)
	}
	path := a.object("ServiceBrowser")
	a.browsers[path] = kind
	// What is in the cache is told before the answer is.
	for _, s := range a.there {
		if s.kind == kind {
			a.emit(path, "ServiceBrowser.ItemNew", s.item()...)
		}
	}
	return path, nil
}

func (a *avahi) resolve(iface, protocol int32, name, kind, domain string, family int32, flags uint32) (dbus.ObjectPath, *dbus.Error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.asked = append(a.asked, fmt.Sprintln("resolve", iface, protocol, name, kind, domain, family, flags))
	if a.limit > 0 && len(a.resolvers) >= a.limit {
		return "", dbus.NewError(avahiName+".TooManyObjectsError", nil)
	}
	path := a.object("ServiceResolver")
	for _, s := range a.there {
		if s.iface == iface && s.protocol == protocol && s.name == name && s.kind == kind {
			a.resolvers[path], a.families[path] = s, family
			a.found(path, s)
		}
	}
	return path, nil
}

func (a *avahi) found(path dbus.ObjectPath, s announced) {
	address, family := s.ipv4, int32(0)
	if address == "" || a.families[path] == 1 {
		address, family = s.ipv6, 1
	}
	if address == "" {
		a.emit(path, "ServiceResolver.Failure", avahiName+".TimeoutError")
		return
	}
	text := [][]byte{}
	for _, t := range s.txt {
		text = append(text, []byte(t))
	}
	a.emit(path, "ServiceResolver.Found", s.iface, s.protocol, s.name, s.kind, "local", "array.local", family, address, s.port, text, uint32(4))
}

// add announces a service, change changes it, remove withdraws it.
func (a *avahi) add(s announced) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.there = append(a.there, s)
	for path, kind := range a.browsers {
		if kind == s.kind {
			a.emit(path, "ServiceBrowser.ItemNew", s.item()...)
		}
	}
}

func (a *avahi) change(s announced) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for path, r := range a.resolvers {
		if r.iface == s.iface && r.protocol == s.protocol && r.name == s.name && r.kind == s.kind {
			a.resolvers[path] = s
			a.found(path, s)
		}
	}
}

func (a *avahi) remove(s announced) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for path, kind := range a.browsers {
		if kind == s.kind {
			a.emit(path, "ServiceBrowser.ItemRemove", s.item()...)
		}
	}
}

// restrict makes it refuse things.
func (a *avahi) restrict(limit int, refuse string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.limit, a.refuse = limit, refuse
}

// open is how many objects it has.
func (a *avahi) open() (browsers, resolvers int) {
	a.mu.Lock()
	defer a.mu.Unlock()
	return len(a.browsers), len(a.resolvers)
}

// heard collects what a browser reports, one event in a line.
type heard struct {
	t      *testing.T
	events chan string
}

func browse(t *testing.T, b mdns.Browser) *heard {
	t.Helper()
	h := &heard{t, make(chan string, 100)}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() {
		done <- b.Browse(ctx, func(ev mdns.Event) {
			text := ev.Kind.String()
			if ev.Port != 0 {
				text += fmt.Sprintf(" %s %s %s %s %s %v %d %q", ev.Iface, ev.Family, ev.Type, ev.Instance, ev.Host, ev.Addrs, ev.Port, ev.TXT)
			}
			h.events <- text
		})
	}()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Browse ends with: %v", err)
		}
	})
	return h
}

func (h *heard) want(want ...string) {
	h.t.Helper()
	for _, w := range want {
		select {
		case got := <-h.events:
			if got != w {
				h.t.Fatalf("reported:\n%s\nwant:\n%s", got, w)
			}
		case <-time.After(patience):
			h.t.Fatalf("not reported: %s", w)
		}
	}
}

func (h *heard) nothing() {
	h.t.Helper()
	select {
	case got := <-h.events:
		h.t.Fatalf("reported: %s", got)
	default:
	}
}

var discard = slog.New(slog.DiscardHandler)

// loopback is an interface that every machine has.
func loopback(t *testing.T) int32 {
	t.Helper()
	all, err := net.Interfaces()
	if err != nil {
		t.Fatal(err)
	}
	for _, i := range all {
		if i.Flags&net.FlagLoopback != 0 {
			return int32(i.Index)
		}
	}
	t.Skip("there is no loopback interface")
	return 0
}

const (
	disc    = "_nvme-disc._tcp"
	discUDP = "_nvme-disc._udp"
)

func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(patience); !ok(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("not " + what)
		}
	}
}

func TestAvahiTellsWhatIsThere(t *testing.T) {
	stastest.NewSystemBus(t, stastest.AllowAll)
	lo := loopback(t)
	one := announced{iface: lo, name: "a.b c", kind: disc, ipv4: "192.0.2.1", port: 8009, txt: []string{"p=tcp", "nqn=x=y"}}
	six := announced{iface: lo, protocol: 1, name: "six", kind: discUDP, ipv6: "fe80::1", port: 4420}
	a := startAvahi(t, one)
	h := browse(t, mdns.Avahi{Log: discard})
	text := `lo IPv4 _nvme-disc._tcp a.b c array.local [192.0.2.1] 8009 ["p=tcp" "nqn=x=y"]`
	h.want("found", "added "+text)
	a.add(one) // once more
	a.add(six)
	h.want(`added lo IPv6 _nvme-disc._udp six array.local [fe80::1%lo] 4420 []`)
	a.mu.Lock()
	asked := slices.Clone(a.asked)
	a.mu.Unlock()
	if want := []string{
		"browse -1 -1 _nvme-disc._tcp local 2\n", "browse -1 -1 _nvme-disc._udp local 2\n",
		fmt.Sprintf("resolve %d 0 a.b c _nvme-disc._tcp local -1 2\n", lo), fmt.Sprintf("resolve %d 1 six _nvme-disc._udp local -1 2\n", lo),
	}; !slices.Equal(asked, want) {
		t.Errorf("asked %q, want %q", asked, want)
	}
	a.change(one) // found again without a change
	one.port, one.ipv4 = 4420, "192.0.2.2"
	a.change(one)
	h.want(`updated lo IPv4 _nvme-disc._tcp a.b c array.local [192.0.2.2] 4420 ["p=tcp" "nqn=x=y"]`)
	a.remove(one)
	h.want(`removed lo IPv4 _nvme-disc._tcp a.b c array.local [192.0.2.2] 4420 ["p=tcp" "nqn=x=y"]`)
	eventually(t, "freed", func() bool { _, n := a.open(); return n == 1 })
	a.remove(one)
	a.remove(six)
	h.want(`removed lo IPv6 _nvme-disc._udp six array.local [fe80::1%lo] 4420 []`)
	h.nothing()
}

// Of a host with addresses of both families, Avahi tells the first one that it
// hears, to whoever asks for any.
func TestAvahiAddressesOfBothFamilies(t *testing.T) {
	stastest.NewSystemBus(t, stastest.AllowAll)
	lo := loopback(t)
	both := announced{iface: lo, protocol: 1, name: "both", kind: disc, ipv4: "192.0.2.1", ipv6: "2001:db8::1", port: 8009}
	a := startAvahi(t, both)
	h := browse(t, mdns.Avahi{Log: discard})
	h.want(
		"found", `added lo IPv6 _nvme-disc._tcp both array.local [192.0.2.1] 8009 []`,
		`updated lo IPv6 _nvme-disc._tcp both array.local [2001:db8::1 192.0.2.1] 8009 []`,
	)
	a.remove(both)
	h.want(`removed lo IPv6 _nvme-disc._tcp both array.local [2001:db8::1 192.0.2.1] 8009 []`)
	eventually(t, "freed", func() bool { _, n := a.open(); return n == 0 })
}

// A killed Avahi says no goodbye.
func TestAvahiKilledAndStartedAgain(t *testing.T) {
	stastest.NewSystemBus(t, stastest.AllowAll)
	lo := loopback(t)
	one := announced{iface: lo, name: "one", kind: disc, ipv4: "192.0.2.1", port: 8009}
	a := startAvahi(t, one)
	h := browse(t, mdns.Avahi{Log: discard})
	added := `added lo IPv4 _nvme-disc._tcp one array.local [192.0.2.1] 8009 []`
	h.want("found", added)
	for range 3 {
		a.conn.Close()
		h.want("lost")
		a = startAvahi(t, one)
		h.want("found", added)
	}
}

// A bus that goes away and comes back is a lost source as well.
func TestAvahiBusRestarted(t *testing.T) {
	bus := stastest.NewSystemBus(t, stastest.AllowAll)
	lo := loopback(t)
	one := announced{iface: lo, name: "one", kind: disc, ipv4: "192.0.2.1", port: 8009}
	startAvahi(t, one)
	h := browse(t, mdns.Avahi{Log: discard})
	added := `added lo IPv4 _nvme-disc._tcp one array.local [192.0.2.1] 8009 []`
	h.want("found", added)
	bus.Stop()
	h.want("lost")
	bus.Start()
	startAvahi(t, one)
	h.want("found", added)
}

// Avahi gives each client so many objects. What finds no room is resolved when
// there is some.
func TestAvahiObjectLimit(t *testing.T) {
	stastest.NewSystemBus(t, stastest.AllowAll)
	lo := loopback(t)
	a := startAvahi(t)
	a.restrict(2, "")
	h := browse(t, mdns.Avahi{Log: discard})
	h.want("found")
	var all []announced
	for i := range 4 {
		all = append(all, announced{iface: lo, name: fmt.Sprint("s", i), kind: disc, ipv4: fmt.Sprint("192.0.2.", i), port: 8009})
		a.add(all[i])
	}
	text := func(i int) string {
		return fmt.Sprintf(`lo IPv4 _nvme-disc._tcp s%d array.local [192.0.2.%[1]d] 8009 []`, i)
	}
	h.want("added "+text(0), "added "+text(1))
	a.remove(all[2]) // without ever having been resolved
	a.remove(all[0])
	h.want("removed "+text(0), "added "+text(3))
}

// Signals of others than Avahi, or about what nobody asked for, are nothing.
func TestAvahiForgedSignals(t *testing.T) {
	stastest.NewSystemBus(t, stastest.AllowAll)
	lo := loopback(t)
	a := startAvahi(t)
	h := browse(t, mdns.Avahi{Log: discard})
	h.want("found")
	eventually(t, "browsing", func() bool { n, _ := a.open(); return n == 2 })
	other, err := dbus.ConnectSystemBus()
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	forged := announced{iface: lo, name: "forged", kind: disc, ipv4: "192.0.2.66", port: 8009}
	for path := range a.browsers {
		if err := other.Emit(path, avahiName+".ServiceBrowser.ItemNew", forged.item()...); err != nil {
			t.Fatal(err)
		}
		a.emit(path, "ServiceBrowser.ItemNew", "not", "an", "item")
	}
	a.emit("/Client7/ServiceBrowser7", "ServiceBrowser.ItemNew", forged.item()...)
	a.emit("/Client7/ServiceResolver7", "ServiceResolver.Failure", avahiName+".TimeoutError")
	right := announced{iface: lo, name: "right", kind: disc, ipv4: "192.0.2.1", port: 8009}
	a.add(right)
	h.want(`added lo IPv4 _nvme-disc._tcp right array.local [192.0.2.1] 8009 []`)
}

// An interface that has gone before a service on it is resolved takes nothing
// else with it.
func TestAvahiInterfaceGone(t *testing.T) {
	stastest.NewSystemBus(t, stastest.AllowAll)
	lo := loopback(t)
	gone := announced{iface: 1 << 30, name: "gone", kind: disc, ipv4: "192.0.2.1", port: 8009}
	odd := announced{iface: lo, name: "odd", kind: disc, ipv4: "no address", port: 8009}
	a := startAvahi(t, gone, odd)
	h := browse(t, mdns.Avahi{Log: discard})
	h.want("found")
	right := announced{iface: lo, name: "right", kind: disc, ipv4: "192.0.2.1", port: 8009}
	a.add(right)
	h.want(`added lo IPv4 _nvme-disc._tcp right array.local [192.0.2.1] 8009 []`)
	a.remove(gone)
	a.remove(right)
	h.want(`removed lo IPv4 _nvme-disc._tcp right array.local [192.0.2.1] 8009 []`)
}

// An Avahi that the bus can start is started.
func TestAvahiActivated(t *testing.T) {
	dir := t.TempDir()
	started := filepath.Join(dir, "started")
	service := "[D-BUS Service]\nName=" + avahiName + "\nExec=/bin/sh -c 'echo >>" + started + "'\n"
	if err := os.WriteFile(filepath.Join(dir, avahiName+".service"), []byte(service), 0o600); err != nil {
		t.Fatal(err)
	}
	stastest.NewSystemBus(t, stastest.AllowAll+"<servicedir>"+dir+"</servicedir>")
	browse(t, mdns.Avahi{Log: discard})
	eventually(t, "started", func() bool { _, err := os.Stat(started); return err == nil })
}

// still is a browser that knows one service and nothing else.
type still struct {
	name    string
	running chan int // +1, -1
}

func (s still) Browse(ctx context.Context, report func(mdns.Event)) error {
	s.running <- 1
	defer func() { s.running <- -1 }()
	report(mdns.Event{Kind: mdns.Added, Service: mdns.Service{
		Iface: "lo", Family: mdns.IPv4, Type: disc, Instance: s.name, Host: "h.local", Addrs: []netip.Addr{netip.MustParseAddr("192.0.2.9")}, Port: 8009,
	}})
	<-ctx.Done()
	return nil
}

// With nobody else to ask, the embedded browser is used, but never beside Avahi.
func TestAutoFollowsAvahi(t *testing.T) {
	stastest.NewSystemBus(t, stastest.AllowAll)
	lo := loopback(t)
	embedded := still{"embedded", make(chan int, 100)}
	h := browse(t, mdns.Auto(discard, embedded))
	instead := `added lo IPv4 _nvme-disc._tcp embedded h.local [192.0.2.9] 8009 []`
	h.want("found", instead)
	one := announced{iface: lo, name: "one", kind: disc, ipv4: "192.0.2.1", port: 8009}
	for range 2 {
		a := startAvahi(t, one)
		h.want("lost", "found", `added lo IPv4 _nvme-disc._tcp one array.local [192.0.2.1] 8009 []`)
		if n := <-embedded.running + <-embedded.running; n != 0 {
			t.Error("both browse")
		}
		a.conn.Close()
		h.want("lost", "found", instead)
	}
}

// An Avahi that refuses is as good as none.
func TestAutoAvahiRefuses(t *testing.T) {
	stastest.NewSystemBus(t, stastest.AllowAll)
	a := startAvahi(t)
	a.restrict(0, "org.freedesktop.DBus.Error.AccessDenied")
	h := browse(t, mdns.Auto(discard, still{"embedded", make(chan int, 100)}))
	h.want("found", `added lo IPv4 _nvme-disc._tcp embedded h.local [192.0.2.9] 8009 []`)
}

// Without a bus there is no Avahi either.
func TestAutoWithoutBus(t *testing.T) {
	t.Setenv("DBUS_SYSTEM_BUS_ADDRESS", "unix:path="+t.TempDir()+"/none")
	h := browse(t, mdns.Auto(discard, still{"embedded", make(chan int, 100)}))
	h.want("found", `added lo IPv4 _nvme-disc._tcp embedded h.local [192.0.2.9] 8009 []`)
}

// failing is a browser that fails at once, but for the last time.
type failing struct{ times *int }

func (f failing) Browse(ctx context.Context, _ func(mdns.Event)) error {
	if *f.times--; *f.times >= 0 {
		return errors.New("no sockets")
	}
	<-ctx.Done()
	return nil
}

func TestSteadyTriesAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		began := time.Now()
		h := browse(t, mdns.Steady(discard, failing{new(2)}))
		h.want("found", "lost", "found", "lost", "found")
		if took := time.Since(began); took < 10*time.Second || took > time.Minute {
			t.Errorf("two failures took %v", took)
		}
	})
}
