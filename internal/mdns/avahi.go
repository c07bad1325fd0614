package mdns

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"reflect"
	"slices"
	"strings"
	"time"

	"github.com/godbus/dbus/v5"
)

// Avahi's names on the system bus (avahi-daemon/org.freedesktop.Avahi.*.xml of
// its sources).
const (
	avahiName     = "org.freedesktop.Avahi"
	avahiServer   = avahiName + ".Server"
	avahiBrowser  = avahiName + ".ServiceBrowser"
	avahiResolver = avahiName + ".ServiceResolver"

	avahiTimeout  = avahiName + ".TimeoutError"
	avahiTooMany  = avahiName + ".TooManyObjectsError"
	busName       = "org.freedesktop.DBus"
	ownerChanged  = busName + ".NameOwnerChanged"
	avahiDomain   = "local"
	avahiAny      = int32(-1) // interface or protocol
	avahiIPv4     = int32(0)
	avahiIPv6     = int32(1)
	multicastOnly = uint32(2) // AVAHI_LOOKUP_USE_MULTICAST
)

const (
	// callTimeout bounds what is asked of Avahi and of the bus.
	callTimeout = 5 * time.Second
	// busRetry is the pause before a lost bus is tried again.
	busRetry = time.Second
	// activation is the pause between attempts to have the bus start Avahi.
	activation = time.Minute
	// serverRetry is the pause before an Avahi that refused is asked again.
	serverRetry = 10 * time.Second
	// maxItems bounds what is remembered of a network that floods the host.
	maxItems = 4096
)

// Avahi browses by way of avahi-daemon, which answers all programs of a host
// from one cache.
type Avahi struct {
	Log *slog.Logger
	// Otherwise browses while there is no avahi-daemon; it is a [Steady] one. Nil:
	// nobody does.
	Otherwise Browser
}

// Auto browses by way of avahi-daemon as long as it is there, or the bus can
// start it, and by embedded otherwise.
func Auto(log *slog.Logger, embedded Browser) Browser {
	return Avahi{log, Steady(log, embedded)}
}

// Browse implements [Browser]. It returns only when ctx ends: neither the bus
// nor Avahi is ever gone for good.
func (a Avahi) Browse(ctx context.Context, report func(Event)) error {
	w := &avahiWatch{Avahi: a, report: report, standIn: standIn{Browser: a.Otherwise, report: report}}
	defer w.standIn.stop()
	for {
		err := w.serve(ctx)
		w.lost()
		if ctx.Err() != nil {
			return nil
		}
		w.away(ctx, err)
		if !sleep(ctx, busRetry) {
			return nil
		}
	}
}

// avahiWatch waits for Avahi, and browses while it is there.
type avahiWatch struct {
	Avahi
	report  func(Event)
	standIn standIn
	session *session // nil while there is no Avahi
	unwatch func()   // the interfaces, while there is
	told    bool     // that there is none
}

// away is called when Avahi cannot be used.
func (w *avahiWatch) away(ctx context.Context, why error) {
	if !w.told {
		level, text := slog.LevelWarn, "nothing is found by mDNS until Avahi is there"
		if w.Otherwise != nil {
			level, text = slog.LevelInfo, "no Avahi, browsing by mDNS without it"
		}
		w.Log.Log(ctx, level, text, "reason", why)
		w.told = true
	}
	w.standIn.start(ctx)
}

// lost forgets what Avahi has told, if it was there.
func (w *avahiWatch) lost() {
	if w.session != nil {
		w.session = nil
		w.unwatch()
		w.report(Event{Kind: SourceLost})
	}
}

var errNoAvahi = errors.New("avahi-daemon does not run")

// serve is one connection's life.
func (w *avahiWatch) serve(ctx context.Context) error {
	conn, err := dbus.ConnectSystemBus(dbus.WithSignalHandler(dbus.NewSequentialSignalHandler()))
	if err != nil {
		return fmt.Errorf("cannot reach the system bus: %w", err)
	}
	defer conn.Close()
	// Listen first, ask then. The handler keeps what comes meanwhile.
	signals := make(chan *dbus.Signal, 64)
	conn.Signal(signals)
	for _, match := range [][]dbus.MatchOption{
		{dbus.WithMatchSender(busName), dbus.WithMatchInterface(busName), dbus.WithMatchMember("NameOwnerChanged"), dbus.WithMatchArg(0, avahiName)},
		{dbus.WithMatchSender(avahiName), dbus.WithMatchInterface(avahiBrowser)},
		{dbus.WithMatchSender(avahiName), dbus.WithMatchInterface(avahiResolver)},
	} {
		if err := conn.AddMatchSignalContext(ctx, match...); err != nil {
			return fmt.Errorf("cannot subscribe to Avahi: %w", err)
		}
	}
	var owner string
	if err := call(ctx, conn.BusObject(), busName+".GetNameOwner", &owner, avahiName); err != nil {
		owner = "" // NameHasNoOwner
	}
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case sig, ok := <-signals:
			switch {
			case !ok:
				return errors.New("the connection to the system bus was closed")
			case sig.Name == ownerChanged:
				var name, former string
				if dbus.Store(sig.Body, &name, &former, &owner) != nil || sig.Sender != busName {
					continue
				}
				w.lost() // what it told, it told as another process
				timer.Reset(0)
				if owner == "" {
					w.away(ctx, errNoAvahi)
					timer.Reset(activation)
				}
			case w.session != nil && sig.Sender == w.session.owner:
				if err := w.session.took(ctx, sig); err != nil {
					w.Log.Warn("Avahi fails, asking it again", "error", err)
					w.session.free()
					w.lost()
					timer.Reset(serverRetry)
				}
			}
		case <-timer.C:
			switch {
			case w.session != nil:
			case owner == "":
				w.away(ctx, errNoAvahi)
				// Whether it can be started shows when it has been.
				conn.BusObject().GoWithContext(ctx, busName+".StartServiceByName", dbus.FlagNoReplyExpected, nil, avahiName, uint32(0))
				timer.Reset(activation)
			default:
				s := newSession(conn, owner, w.Log, w.report)
				if err := s.browse(ctx); err != nil {
					w.away(ctx, err)
					timer.Reset(serverRetry)
					continue
				}
				if w.standIn.stop() {
					w.report(Event{Kind: SourceLost})
				}
				w.session, w.told = s, false
				w.unwatch = watchDeafness(ctx, w.Log)
				w.Log.Info("browsing by mDNS by way of Avahi")
				w.report(Event{Kind: SourceFound})
			}
		}
	}
}

// call calls a method with its time limit.
func call(ctx context.Context, object dbus.BusObject, method string, result any, args ...any) error {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	c := object.CallWithContext(ctx, method, dbus.FlagNoAutoStart, args...)
	if result == nil || c.Err != nil {
		return c.Err
	}
	return c.Store(result)
}

// session is what one avahi-daemon tells.
type session struct {
	conn      *dbus.Conn
	owner     string // the unique name of the avahi-daemon
	log       *slog.Logger
	report    func(Event)
	browsers  map[dbus.ObjectPath]bool
	items     map[avahiKey]*avahiItem
	resolvers map[dbus.ObjectPath]*avahiItem
	// unresolved wait for an object: Avahi gives each client 1024 of them
	// (objects-per-client-max in avahi-daemon.conf(5)).
	unresolved []*avahiItem
	told       map[string]bool // complaints that are made once
}

// avahiKey is what tells items apart, see ItemNew.
type avahiKey struct {
	iface, protocol    int32
	name, kind, domain string
}

// avahiItem is a service on an interface, over one protocol.
type avahiItem struct {
	avahiKey
	resolvers []dbus.ObjectPath
	both      bool // it has a resolver for the addresses of its own protocol, too
	found     map[dbus.ObjectPath]Service
	service   *Service // as last reported
}

func newSession(conn *dbus.Conn, owner string, log *slog.Logger, report func(Event)) *session {
	return &session{
		conn: conn, owner: owner, log: log, report: report,
		browsers: make(map[dbus.ObjectPath]bool), items: make(map[avahiKey]*avahiItem),
		resolvers: make(map[dbus.ObjectPath]*avahiItem), told: make(map[string]bool),
	}
}

func (s *session) server() dbus.BusObject { return s.conn.Object(s.owner, "/") }

// browse has Avahi look for the services.
func (s *session) browse(ctx context.Context) error {
	for _, kind := range Types {
		var path dbus.ObjectPath
		err := call(ctx, s.server(), avahiServer+".ServiceBrowserNew", &path, avahiAny, avahiAny, kind, avahiDomain, multicastOnly)
		if err != nil {
			s.free()
			return fmt.Errorf("cannot have Avahi browse: %w", err)
		}
		s.browsers[path] = true
	}
	return nil
}

// free has Avahi end what it does for the session. The answers are of no
// interest.
func (s *session) free() {
	for path := range s.browsers {
		s.drop(path, avahiBrowser)
	}
	for path := range s.resolvers {
		s.drop(path, avahiResolver)
	}
}

func (s *session) drop(path dbus.ObjectPath, iface string) {
	s.conn.Object(s.owner, path).Go(iface+".Free", dbus.FlagNoReplyExpected|dbus.FlagNoAutoStart, nil)
}

// once complains of something once in a session.
func (s *session) once(text string, args ...any) {
	if !s.told[text] {
		s.told[text] = true
		s.log.Warn(text, args...)
	}
}

// took takes a signal of Avahi. After an error the session is of no use.
func (s *session) took(ctx context.Context, sig *dbus.Signal) error {
	switch sig.Name {
	case avahiBrowser + ".ItemNew", avahiBrowser + ".ItemRemove":
		var k avahiKey
		var flags uint32
		if err := dbus.Store(sig.Body, &k.iface, &k.protocol, &k.name, &k.kind, &k.domain, &flags); err != nil || !s.browsers[sig.Path] {
			return nil
		}
		if sig.Name == avahiBrowser+".ItemRemove" {
			s.remove(ctx, k)
		} else {
			s.add(ctx, k)
		}
	case avahiBrowser + ".Failure":
		if s.browsers[sig.Path] {
			return fmt.Errorf("browsing: %v", sig.Body)
		}
	case avahiResolver + ".Found":
		if item := s.resolvers[sig.Path]; item != nil {
			s.found(ctx, item, sig)
		}
	case avahiResolver + ".Failure":
		var why string
		item := s.resolvers[sig.Path]
		// Avahi goes on after a timeout.
		if item != nil && dbus.Store(sig.Body, &why) == nil && why != avahiTimeout {
			s.log.Warn("Avahi cannot resolve a service", "name", item.name, "type", item.kind, "interface", item.iface, "error", why)
		}
	}
	return nil
}

func (s *session) add(ctx context.Context, k avahiKey) {
	switch {
	case s.items[k] != nil:
		return
	case len(s.items) >= maxItems:
		s.once("more services are announced than can make sense; the rest is not looked at", "limit", maxItems)
		return
	}
	item := &avahiItem{avahiKey: k, found: make(map[dbus.ObjectPath]Service)}
	s.items[k] = item
	s.resolve(ctx, item, avahiAny)
}

func (s *session) remove(ctx context.Context, k avahiKey) {
	item := s.items[k]
	if item == nil {
		return
	}
	delete(s.items, k)
	for _, path := range item.resolvers {
		delete(s.resolvers, path)
		// Else it fails a few seconds later, and takes the place of another one.
		_ = call(ctx, s.conn.Object(s.owner, path), avahiResolver+".Free", nil)
	}
	if item.service != nil {
		s.report(Event{Kind: Removed, Service: *item.service})
	}
	s.unresolved = slices.DeleteFunc(s.unresolved, func(other *avahiItem) bool { return other == item })
	if len(s.unresolved) > 0 {
		next := s.unresolved[0]
		s.unresolved = s.unresolved[1:]
		s.resolve(ctx, next, avahiAny)
	}
}

// resolve has Avahi look for address, port and text of a service, and tell of
// changes from then on. An object gives one address, of the family that is
// asked for.
func (s *session) resolve(ctx context.Context, item *avahiItem, family int32) {
	var path dbus.ObjectPath
	err := call(ctx, s.server(), avahiServer+".ServiceResolverNew", &path,
		item.iface, item.protocol, item.name, item.kind, item.domain, family, multicastOnly)
	if e, ok := errors.AsType[dbus.Error](err); ok && e.Name == avahiTooMany && family == avahiAny {
		s.unresolved = append(s.unresolved, item)
		s.once("Avahi has no room for more services; the rest waits, or raise objects-per-client-max in avahi-daemon.conf")
		return
	}
	if err != nil {
		s.log.Warn("Avahi does not resolve a service", "name", item.name, "type", item.kind, "interface", item.iface, "error", err)
		return
	}
	item.resolvers = append(item.resolvers, path)
	s.resolvers[path] = item
}

// found takes what a resolver has found, again whenever it changes.
func (s *session) found(ctx context.Context, item *avahiItem, sig *dbus.Signal) {
	var (
		k               avahiKey
		host, address   string
		addressProtocol int32
		port            uint16
		text            [][]byte
		flags           uint32
	)
	err := dbus.Store(sig.Body, &k.iface, &k.protocol, &k.name, &k.kind, &k.domain, &host, &addressProtocol, &address, &port, &text, &flags)
	if err != nil {
		s.once("Avahi tells of a service in a way that is not understood", "error", err)
		return
	}
	iface, err := net.InterfaceByIndex(int(item.iface))
	if err != nil {
		return // it has just gone, and so will the service
	}
	addr, err := netip.ParseAddr(address)
	if err != nil {
		s.once("Avahi tells of an address that is none", "address", address)
		return
	}
	if addr.Is6() && addr.IsLinkLocalUnicast() {
		addr = addr.WithZone(iface.Name)
	}
	service := Service{
		Iface: iface.Name, Index: int(item.iface), Family: familyOf(item.protocol),
		Type: item.kind, Instance: item.name,
		Host: strings.TrimSuffix(host, "."), Addrs: []netip.Addr{addr}, Port: port,
	}
	for _, t := range text {
		service.TXT = append(service.TXT, string(t))
	}
	item.found[sig.Path] = service
	for _, other := range item.found {
		for _, a := range other.Addrs {
			if !slices.Contains(service.Addrs, a) {
				service.Addrs = append(service.Addrs, a)
			}
		}
	}
	slices.SortFunc(service.Addrs, func(a, b netip.Addr) int {
		if a.Is4() != b.Is4() {
			if a.Is4() == (service.Family == IPv4) {
				return -1
			}
			return 1
		}
		return a.Compare(b)
	})
	switch {
	case item.service == nil:
		s.report(Event{Kind: Added, Service: service})
	case !reflect.DeepEqual(*item.service, service):
		s.report(Event{Kind: Updated, Service: service})
	}
	item.service = &service
	// Of a host with addresses of both families, the first one to be heard was
	// taken. Who is confined to one family needs the other one.
	if !item.both && familyOf(item.protocol) != familyOf(addressProtocol) {
		item.both = true
		s.resolve(ctx, item, item.protocol)
	}
}

func familyOf(protocol int32) Family {
	if protocol == avahiIPv6 {
		return IPv6
	}
	return IPv4
}

// Steady browses by b, again after a while if that fails, and says when it is
// browsed.
func Steady(log *slog.Logger, b Browser) Browser { return steady{b, log} }

type steady struct {
	Browser
	log *slog.Logger
}

// Browse implements [Browser]. It returns only when ctx ends.
func (s steady) Browse(ctx context.Context, report func(Event)) error {
	for {
		report(Event{Kind: SourceFound})
		err := s.Browser.Browse(ctx, report)
		if ctx.Err() != nil {
			return nil
		}
		s.log.Warn("browsing by mDNS has failed, trying again", "error", err)
		report(Event{Kind: SourceLost})
		if !sleep(ctx, serverRetry) {
			return nil
		}
	}
}

// standIn is a browser that is used at times.
type standIn struct {
	Browser // nil: there is none
	report  func(Event)
	cancel  context.CancelFunc // nil while it does not run
	done    chan struct{}
}

// start starts it, unless it runs.
func (s *standIn) start(ctx context.Context) {
	if s.Browser == nil || s.cancel != nil {
		return
	}
	ctx, s.cancel = context.WithCancel(ctx)
	s.done = make(chan struct{})
	go func() {
		defer close(s.done)
		_ = s.Browse(ctx, s.report) // being steady, it ends when it shall
	}()
}

// stop stops it and returns when it has ended. It reports whether it ran.
func (s *standIn) stop() bool {
	if s.cancel == nil {
		return false
	}
	s.cancel()
	<-s.done
	s.cancel = nil
	return true
}

// sleep waits, and reports false if ctx ended first.
func sleep(ctx context.Context, d time.Duration) bool {
	select {
	case <-ctx.Done():
		return false
	case <-time.After(d):
		return true
	}
}
