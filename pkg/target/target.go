package target

import (
	"cmp"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net"
	"slices"
	"sync"
	"time"
)

// ErrNotFound is the cause when what was named does not exist, ErrExists when
// it does already.
var (
	ErrNotFound = errors.New("no such thing")
	ErrExists   = errors.New("it exists already")
	ErrClosed   = errors.New("the target is closed")
)

// Options are what a target needs of the world. The zero value is the world.
type Options struct {
	Log *slog.Logger // nil is silence
	// Listen opens listening sockets; net.Listen if nil.
	Listen func(network, address string) (net.Listener, error)
}

// Target is an NVMe/TCP target. Its methods may be called at any time, by
// several goroutines.
type Target struct {
	log    *slog.Logger
	listen func(network, address string) (net.Listener, error)
	faults faults

	// mu guards all that follows. It is taken before the lock of a controller
	// and that of a queue, and never held while a socket is waited for.
	mu          sync.Mutex
	listeners   []*listener
	subsystems  map[string]*subsystem
	hosts       map[string]Host
	registered  map[string]*registration // by host NQN
	zoning      Zoning
	controllers map[uint16]*controller // by CNTLID
	lastCntlID  uint16
	gen         uint64 // GENCTR of the last change that any log page showed
	views       map[viewKey]*view
	audience    audience
	closed      bool

	running sync.WaitGroup
}

// Open starts a target.
func Open(config Config, options Options) (*Target, error) {
	t := &Target{
		log:         cmp.Or(options.Log, slog.New(slog.DiscardHandler)),
		listen:      options.Listen,
		subsystems:  make(map[string]*subsystem),
		hosts:       make(map[string]Host),
		registered:  make(map[string]*registration),
		controllers: make(map[uint16]*controller),
		views:       make(map[viewKey]*view),
		gen:         1,
	}
	if t.listen == nil {
		t.listen = net.Listen
	}
	if err := t.apply(config); err != nil {
		t.Close()
		return nil, err
	}
	return t, nil
}

// apply adds everything a configuration has, at a stroke.
func (t *Target) apply(config Config) error {
	return t.change(func() error {
		for _, l := range config.Listeners {
			if err := t.putListener(l); err != nil {
				return err
			}
		}
		for _, h := range config.Hosts {
			if err := t.putHost(h); err != nil {
				return err
			}
		}
		for _, s := range config.Subsystems {
			if err := t.putSubsystem(s); err != nil {
				return err
			}
		}
		if err := t.putZoning(config.Zoning); err != nil {
			return err
		}
		for _, f := range config.Faults {
			if _, err := t.putFault(f); err != nil {
				return err
			}
		}
		return nil
	})
}

// Close ends all connections and listeners, and returns when nothing of the
// target runs any more.
func (t *Target) Close() {
	t.mu.Lock()
	t.closed = true
	listeners := t.listeners
	t.listeners = nil
	t.faults.clear()
	for _, l := range listeners {
		l.shut(abort)
	}
	t.mu.Unlock()
	t.running.Wait()
}

// change runs do under the lock, then has the log pages follow and hosts be
// told.
func (t *Target) change(do func() error) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.closed {
		return ErrClosed
	}
	if err := do(); err != nil {
		return err
	}
	t.refresh()
	return nil
}

// AddListener opens a listener.
func (t *Target) AddListener(l Listener) error {
	return t.change(func() error { return t.putListener(l) })
}

func (t *Target) putListener(l Listener) error {
	for n := len(t.listeners) + 1; l.Name == ""; n++ {
		if name := fmt.Sprintf("port%d", n); t.listener(name) == nil {
			l.Name = name
		}
	}
	if t.listener(l.Name) != nil {
		return fmt.Errorf("listener %s: %w", l.Name, ErrExists)
	}
	if l.PortID == 0 {
		for _, other := range t.listeners {
			l.PortID = max(l.PortID, other.PortID)
		}
		l.PortID++
	}
	if err := l.check(); err != nil {
		return err
	}
	added := newListener(t, l)
	if err := added.open(); err != nil {
		return fmt.Errorf("listener %s: %w", l.Name, err)
	}
	t.listeners = append(t.listeners, added)
	added.follow()
	return nil
}

// RemoveListener closes a listener and its connections.
func (t *Target) RemoveListener(name string) error {
	return t.change(func() error {
		l, err := t.mustListener(name)
		if err != nil {
			return err
		}
		l.shut(abort)
		t.listeners = slices.DeleteFunc(t.listeners, func(other *listener) bool { return other == l })
		return nil
	})
}

// listener finds a listener by its name.
func (t *Target) listener(name string) *listener {
	for _, l := range t.listeners {
		if l.Name == name {
			return l
		}
	}
	return nil
}

func (t *Target) mustListener(name string) (*listener, error) {
	if l := t.listener(name); l != nil {
		return l, nil
	}
	return nil, fmt.Errorf("listener %q: %w", name, ErrNotFound)
}

// Restart ends all connections of a listener, or of all listeners if the name
// is empty, and listens again after a pause. Meanwhile connections are
// refused, as by a host whose target has died.
func (t *Target) Restart(name string, pause time.Duration) error {
	return t.change(func() error {
		which := t.listeners
		if name != "" {
			l, err := t.mustListener(name)
			if err != nil {
				return err
			}
			which = []*listener{l}
		}
		for _, l := range which {
			l.restart(pause)
		}
		return nil
	})
}

// AddSubsystem creates a subsystem and offers it.
func (t *Target) AddSubsystem(s Subsystem) error {
	return t.change(func() error { return t.putSubsystem(s) })
}

func (t *Target) putSubsystem(s Subsystem) error {
	if err := s.check(); err != nil {
		return err
	}
	for _, name := range s.Listeners {
		if _, err := t.mustListener(name); err != nil {
			return fmt.Errorf("subsystem %s: %w", s.NQN, err)
		}
	}
	if t.subsystems[s.NQN] != nil {
		return fmt.Errorf("subsystem %s: %w", s.NQN, ErrExists)
	}
	t.subsystems[s.NQN] = newSubsystem(s)
	return nil
}

// RemoveSubsystem withdraws a subsystem and destroys it with its data; its
// controllers lose their connections.
func (t *Target) RemoveSubsystem(nqn string) error {
	return t.change(func() error {
		s, err := t.subsystem(nqn)
		if err != nil {
			return err
		}
		delete(t.subsystems, nqn)
		for _, l := range t.listeners {
			delete(l.entries, s)
		}
		for _, c := range t.controllers {
			if c.sub == s {
				c.end(abort, "the subsystem was removed")
			}
		}
		return nil
	})
}

func (t *Target) subsystem(nqn string) (*subsystem, error) {
	if s := t.subsystems[nqn]; s != nil {
		return s, nil
	}
	return nil, fmt.Errorf("subsystem %s: %w", nqn, ErrNotFound)
}

// Offer shows an existing subsystem on the named listeners, on all if there
// are none, and on no other. Connections that exist are left alone.
func (t *Target) Offer(nqn string, listeners ...string) error {
	return t.change(func() error {
		s, err := t.subsystem(nqn)
		if err != nil {
			return err
		}
		for _, name := range listeners {
			if _, err := t.mustListener(name); err != nil {
				return err
			}
		}
		s.Listeners, s.withdrawn = slices.Clone(listeners), false
		return nil
	})
}

// Withdraw shows a subsystem on no listener. It keeps its data and its
// connections.
func (t *Target) Withdraw(nqn string) error {
	return t.change(func() error {
		s, err := t.subsystem(nqn)
		if err != nil {
			return err
		}
		s.withdrawn = true
		return nil
	})
}

// Allow sets which hosts may connect to a subsystem; any if there are none.
// Those that are connected stay.
func (t *Target) Allow(nqn string, hosts ...string) error {
	return t.change(func() error {
		s, err := t.subsystem(nqn)
		if err != nil {
			return err
		}
		s.Hosts = slices.Clone(hosts)
		return nil
	})
}

// SetNCC marks the entries of a subsystem as out of the CDC's reach, or not.
func (t *Target) SetNCC(nqn string, ncc bool) error {
	return t.change(func() error {
		s, err := t.subsystem(nqn)
		if err != nil {
			return err
		}
		s.NCC = ncc
		for _, l := range t.listeners {
			delete(l.entries, s)
		}
		return nil
	})
}

// AddNamespace gives a subsystem one more namespace; hosts are told.
func (t *Target) AddNamespace(nqn string, n Namespace) error {
	return t.change(func() error {
		s, err := t.subsystem(nqn)
		if err != nil {
			return err
		}
		if err := s.addNamespace(n); err != nil {
			return err
		}
		t.notifyNamespaces(s, s.state.Load().ids)
		return nil
	})
}

// RemoveNamespace takes a namespace away with its data; hosts are told.
func (t *Target) RemoveNamespace(nqn string, id uint32) error {
	return t.change(func() error {
		s, err := t.subsystem(nqn)
		if err != nil {
			return err
		}
		if err := s.removeNamespace(id); err != nil {
			return err
		}
		t.notifyNamespaces(s, []uint32{id})
		return nil
	})
}

// SetANA sets the state of a group of namespaces as the controllers of one
// listener, or of all, see it; hosts are told.
func (t *Target) SetANA(nqn string, a ANA) error {
	return t.change(func() error {
		s, err := t.subsystem(nqn)
		if err != nil {
			return err
		}
		if a.Listener != "" {
			if _, err := t.mustListener(a.Listener); err != nil {
				return err
			}
		}
		s.setANA(a)
		for _, c := range t.controllers {
			if c.sub == s {
				c.notify(eventANA)
			}
		}
		return nil
	})
}

// SetHost tells the target about a host, instead of what it knew.
func (t *Target) SetHost(h Host) error {
	return t.change(func() error { return t.putHost(h) })
}

func (t *Target) putHost(h Host) error {
	if err := h.check(); err != nil {
		return err
	}
	t.hosts[h.NQN] = h
	return nil
}

// RemoveHost forgets a host: its keys, and what it has registered.
func (t *Target) RemoveHost(nqn string) error {
	return t.change(func() error {
		_, known := t.hosts[nqn]
		if !known && t.registered[nqn] == nil {
			return fmt.Errorf("host %s: %w", nqn, ErrNotFound)
		}
		delete(t.hosts, nqn)
		delete(t.registered, nqn)
		return nil
	})
}

// SetZoning replaces all zoning.
func (t *Target) SetZoning(z Zoning) error {
	return t.change(func() error { return t.putZoning(z) })
}

func (t *Target) putZoning(z Zoning) error {
	names := make(map[string]bool)
	for _, g := range z.Groups {
		if err := g.check(); err != nil {
			return err
		}
		if names[g.Name] {
			return fmt.Errorf("zone group %s: %w", g.Name, ErrExists)
		}
		names[g.Name] = true
	}
	z.Groups = slices.Clone(z.Groups)
	t.zoning = z
	return nil
}

// SetZoneGroup adds a zone group, or replaces the one of that name.
func (t *Target) SetZoneGroup(g ZoneGroup) error {
	return t.change(func() error {
		if err := g.check(); err != nil {
			return err
		}
		for i := range t.zoning.Groups {
			if t.zoning.Groups[i].Name == g.Name {
				t.zoning.Groups[i] = g
				return nil
			}
		}
		t.zoning.Groups = append(t.zoning.Groups, g)
		return nil
	})
}

// RemoveZoneGroup removes a zone group.
func (t *Target) RemoveZoneGroup(name string) error {
	return t.change(func() error {
		before := len(t.zoning.Groups)
		t.zoning.Groups = slices.DeleteFunc(t.zoning.Groups, func(g ZoneGroup) bool { return g.Name == name })
		if len(t.zoning.Groups) == before {
			return fmt.Errorf("zone group %q: %w", name, ErrNotFound)
		}
		return nil
	})
}

// AddFault makes the target do something wrong from now on, and returns a
// number to end it by.
func (t *Target) AddFault(f Fault) (id int, err error) {
	err = t.change(func() error {
		id, err = t.putFault(f)
		return err
	})
	return id, err
}

func (t *Target) putFault(f Fault) (int, error) {
	if f.Listener != "" {
		if _, err := t.mustListener(f.Listener); err != nil {
			return 0, fmt.Errorf("fault %s: %w", f.Do, err)
		}
	}
	added, err := t.faults.add(t, f)
	if err != nil {
		return 0, err
	}
	t.followFaults()
	return added.id, nil
}

// RemoveFault ends a fault. What it did to connections stays done.
func (t *Target) RemoveFault(id int) error {
	return t.change(func() error {
		if !t.faults.remove(id) {
			return fmt.Errorf("fault %d: %w", id, ErrNotFound)
		}
		t.followFaults()
		return nil
	})
}

// ClearFaults ends all faults.
func (t *Target) ClearFaults() error {
	return t.change(func() error {
		t.faults.clear()
		t.followFaults()
		return nil
	})
}

// followFaults has the listeners refuse, swallow or accept connections.
func (t *Target) followFaults() {
	for _, l := range t.listeners {
		l.follow()
	}
}

// sortedSubsystems returns the subsystems by name.
func (t *Target) sortedSubsystems() []*subsystem {
	return slices.SortedFunc(maps.Values(t.subsystems), byName)
}

func byName(a, b *subsystem) int { return cmp.Compare(a.NQN, b.NQN) }
