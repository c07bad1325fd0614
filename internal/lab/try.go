package lab

import (
	"errors"
	"net"
	"sync"

	"github.com/nvme-stas/stas/pkg/target"
)

// try puts the configuration together piece by piece on a target that nobody
// can reach, so that each complaint of the target gets the line of its cause.
func (c *Config) try(d *document) {
	t, err := target.Open(target.Config{}, target.Options{Listen: listenNowhere})
	if err != nil {
		d.complain("", "%w", err)
		return
	}
	defer t.Close()
	note := func(place string, err error) {
		if err != nil {
			d.complain(place, "%w", err)
		}
	}
	known := map[string]bool{"": true}
	announced := make(map[string]bool)
	for i, l := range c.Listeners {
		if l.Name == "" {
			l.Name = defaultName(i)
		}
		known[l.Name] = true
		place := at("listeners", i)
		note(place, t.AddListener(l.Listener))
		note(place+".announce", l.Announce.check(l.Listener))
		if name := l.Announce.Name; name != "" && announced[name] {
			d.complain(place+".announce", "announce: another listener has the name %q already", name)
		}
		announced[l.Announce.Name] = true
	}
	for i, s := range c.Subsystems {
		note(at("subsystems", i), t.AddSubsystem(s))
		for j, a := range s.ANA {
			if !known[a.Listener] {
				d.complain(at(at("subsystems", i)+".ana", j), "subsystem %s: listener %q: %w", s.NQN, a.Listener, target.ErrNotFound)
			}
		}
	}
	hosts := make(map[string]bool)
	for i, h := range c.Hosts {
		note(at("hosts", i), t.SetHost(h.Host))
		if hosts[h.NQN] {
			d.complain(at("hosts", i), "host %s: %w", h.NQN, target.ErrExists)
		}
		hosts[h.NQN] = true
	}
	groups := make(map[string]bool)
	for i, g := range c.Zoning.Groups {
		note(at("zoning.groups", i), t.SetZoneGroup(g))
		if groups[g.Name] {
			d.complain(at("zoning.groups", i), "zone group %s: %w", g.Name, target.ErrExists)
		}
		groups[g.Name] = true
	}
	c.tryFaults(d, known)
}

// tryFaults tries the faults on a target that has nothing, since some of them
// would begin at once.
func (c *Config) tryFaults(d *document, listeners map[string]bool) {
	t, err := target.Open(target.Config{}, target.Options{Listen: listenNowhere})
	if err != nil {
		d.complain("", "%w", err)
		return
	}
	defer t.Close()
	for i, f := range c.Faults {
		if !listeners[f.Listener] {
			d.complain(at("faults", i), "fault %s: listener %q: %w", f.Do, f.Listener, target.ErrNotFound)
		}
		f.Listener = ""
		if _, err := t.AddFault(f); err != nil {
			d.complain(at("faults", i), "%w", err)
		}
	}
}

// nowhere is a listener that nobody can reach.
type nowhere struct {
	address net.Addr
	closed  chan struct{}
	once    sync.Once
}

func listenNowhere(_, address string) (net.Listener, error) {
	a, err := net.ResolveTCPAddr("tcp", address)
	if err != nil {
		return nil, err
	}
	return &nowhere{address: a, closed: make(chan struct{})}, nil
}

func (l *nowhere) Accept() (net.Conn, error) {
	<-l.closed
	return nil, net.ErrClosed
}

func (l *nowhere) Close() error {
	err := errors.New("closed already")
	l.once.Do(func() {
		close(l.closed)
		err = nil
	})
	return err
}

func (l *nowhere) Addr() net.Addr { return l.address }
