package lab

import (
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"slices"
	"strings"
	"sync"

	"github.com/miekg/dns"

	"github.com/nvme-stas/stas/pkg/target"
)

// What discovery services are found by (NVM Express TP 8009).
const (
	serviceType = "_nvme-disc._tcp"
	cdcSubtype  = "_cdc._sub." + serviceType // by which storage finds a CDC
	domain      = "local."
)

// restarting is the state in which a listener is not announced, as the target
// names it. One that refuses or swallows connections is: the hosts are not to
// know.
const restarting = "restarting"

// announcer has mDNS tell of listeners as long as they are there. It hears
// that sockets were opened or closed, and looks at the listeners then.
type announcer struct {
	log     *slog.Logger
	target  *target.Target
	woken   chan struct{}
	done    chan struct{}
	running sync.WaitGroup

	mu     sync.Mutex // never taken while the lock of the target is held
	wanted map[string]Listener
	live   map[string]publication
}

// announcement is what is announced of a listener.
type announcement struct {
	Announce
	address netip.AddrPort
	nqn     string
	cdc     bool
}

type publication struct {
	announcement
	withdraw func()
}

func newAnnouncer(log *slog.Logger) *announcer {
	return &announcer{
		log: log, woken: make(chan struct{}, 1), done: make(chan struct{}),
		wanted: make(map[string]Listener), live: make(map[string]publication),
	}
}

// wake has the announcer look at the listeners. It does not block.
func (a *announcer) wake() {
	select {
	case a.woken <- struct{}{}:
	default:
	}
}

// start announces those listeners that are to be announced.
func (a *announcer) start(t *target.Target, listeners []Listener) error {
	a.target = t
	if err := a.add(listeners...); err != nil {
		return err
	}
	a.running.Go(func() {
		for {
			select {
			case <-a.woken:
				if err := a.follow(); err != nil {
					a.log.Error("cannot announce: " + err.Error())
				}
			case <-a.done:
				return
			}
		}
	})
	return nil
}

// add announces listeners, of which one without a name for it is not.
func (a *announcer) add(listeners ...Listener) error {
	a.mu.Lock()
	for _, l := range listeners {
		if l.Announce.Name != "" {
			a.wanted[l.Name] = l
		}
	}
	a.mu.Unlock()
	return a.follow()
}

// announced returns the name by which a listener is announced now.
func (a *announcer) announced(listener string) string {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.live[listener].Name
}

// close withdraws all announcements.
func (a *announcer) close() {
	close(a.done)
	a.running.Wait()
	for _, p := range a.live {
		p.withdraw()
	}
}

// follow announces what is there and withdraws what is not.
func (a *announcer) follow() error {
	a.mu.Lock()
	defer a.mu.Unlock()
	there := make(map[string]announcement)
	known := make(map[string]bool)
	for _, info := range a.target.Listeners() {
		known[info.Name] = true
		if l, ok := a.wanted[info.Name]; ok && info.State != restarting {
			there[info.Name] = announcementOf(l, info)
		}
	}
	for name := range a.wanted {
		if !known[name] { // it was removed; the next one of that name is another
			delete(a.wanted, name)
		}
	}
	for name, p := range a.live {
		if there[name] != p.announcement {
			p.withdraw()
			delete(a.live, name)
			a.log.Info("no longer announced", "listener", name, "name", p.Name)
		}
	}
	var wrong []error
	for name, what := range there {
		if _, ok := a.live[name]; ok {
			continue
		}
		withdraw, err := what.publish()
		if err != nil {
			wrong = append(wrong, fmt.Errorf("listener %s: announce: %w", name, err))
			continue
		}
		a.live[name] = publication{what, withdraw}
		a.log.Info("announced", "listener", name, "name", what.Name)
	}
	return errors.Join(wrong...)
}

func announcementOf(l Listener, info target.ListenerInfo) announcement {
	return announcement{l.Announce, advertised(l, info.Address), info.NQN, info.Discovery == target.CDC}
}

// advertised is where an announcement sends hosts. It is the zero value if what
// it is made of is no address, which the target refuses.
func advertised(l Listener, bound string) netip.AddrPort {
	address, err := netip.ParseAddrPort(l.Advertise)
	if err != nil {
		address, _ = netip.ParseAddrPort(bound)
	}
	return address
}

// publish has mDNS tell of a service until the function that it returns is
// called.
func (p announcement) publish() (withdraw func(), err error) {
	interfaces, err := interfacesFor(p.Interface, p.address.Addr())
	if err != nil {
		return nil, err
	}
	return publish(interfaces, p.records)
}

// interfacesFor returns the interface of a name, or without one those that have
// an address.
func interfacesFor(name string, address netip.Addr) ([]net.Interface, error) {
	all, err := net.Interfaces()
	if err != nil {
		return nil, err
	}
	var list []net.Interface
	var names []string
	for _, i := range all {
		names = append(names, i.Name)
		switch {
		case name != "" && i.Name != name:
		case name == "" && (i.Flags&net.FlagUp == 0 || !has(i, address)):
		default:
			list = append(list, i)
		}
	}
	switch {
	case len(list) > 0:
		return list, nil
	case name != "":
		return nil, fmt.Errorf("there is no interface %q; there are %s", name, strings.Join(names, ", "))
	}
	return nil, fmt.Errorf("no interface has the address %s; name one of %s", address, strings.Join(names, ", "))
}

// has reports whether an interface is one to reach an address by.
func has(i net.Interface, address netip.Addr) bool {
	if address.IsUnspecified() {
		return i.Flags&net.FlagMulticast != 0
	}
	if address.IsLoopback() {
		return i.Flags&net.FlagLoopback != 0
	}
	if zone := address.Zone(); zone != "" && zone != i.Name {
		return false
	}
	addresses, _ := addressesOf(i) // none if it has just gone
	return slices.Contains(addresses, address.WithZone(""))
}

// hostName is the name of the host in an announcement. It is not that of the
// machine, since someone else may announce that, with other addresses.
func hostName(address netip.AddrPort) string {
	name := address.Addr().WithZone("").String()
	if address.Addr().IsUnspecified() {
		name, _ = os.Hostname() // without one, "lab--8009"
	}
	name = strings.Map(func(r rune) rune {
		if r == '-' || '0' <= r && r <= '9' || 'a' <= r && r <= 'z' || 'A' <= r && r <= 'Z' {
			return r
		}
		return '-'
	}, name)
	return fmt.Sprintf("lab-%.48s-%d", name, address.Port())
}

// label writes a text as a label of a name, with dots and what cannot be printed
// escaped.
func label(text string) string {
	wire := append([]byte{byte(len(text))}, text...)
	name, _, err := dns.UnpackDomainName(append(wire, 0), 0)
	if err != nil { // too long, which was checked
		return text
	}
	return strings.TrimSuffix(name, ".")
}
