package lab

import (
	"errors"
	"fmt"
	"log/slog"
	"net"
	"slices"
	"sync"

	"github.com/nvme-stas/stas/pkg/target"
)

// Lab is a target that is announced and can be driven over a socket.
type Lab struct {
	*target.Target

	log       *slog.Logger
	announcer *announcer
	control   *server // nil without a control socket

	stopOnce, closeOnce sync.Once
	stop                chan struct{}
}

// Start starts a lab. With a path in config.Control it takes commands there.
func Start(config *Config, log *slog.Logger) (_ *Lab, err error) {
	l := &Lab{log: log, stop: make(chan struct{})}
	defer func() {
		if err != nil {
			l.Close()
		}
	}()
	listeners := slices.Clone(config.Listeners)
	for i := range listeners {
		listener := &listeners[i]
		if listener.Name == "" { // the target would call it so; who else speaks of it needs to know
			listener.Name = defaultName(i)
		}
		if err := listener.Announce.check(listener.Listener); err != nil {
			return nil, fmt.Errorf("listener %s: %w", listener.Name, err)
		}
	}
	// The socket first: a lab that runs already is to be noticed before anything
	// of this one begins.
	if config.Control != "" {
		if l.control, err = listenControl(config.Control, log); err != nil {
			return nil, err
		}
	}
	l.announcer = newAnnouncer(log)
	l.Target, err = target.Open(config.target(listeners), target.Options{Log: log, Listen: l.listen})
	if err != nil {
		return nil, err
	}
	if err := l.announcer.start(l.Target, listeners); err != nil {
		return nil, err
	}
	if l.control != nil {
		l.control.start(l)
	}
	return l, nil
}

// defaultName is the name of a listener without one.
func defaultName(i int) string { return fmt.Sprintf("port%d", i+1) }

// Close withdraws the announcements, ends all connections, and returns when
// nothing of the lab runs any more.
func (l *Lab) Close() {
	l.closeOnce.Do(func() {
		if l.control != nil {
			l.control.close()
		}
		if l.announcer != nil {
			l.announcer.close()
		}
		if l.Target != nil {
			l.Target.Close()
		}
	})
}

// Stop asks whoever runs the lab to close it.
func (l *Lab) Stop() { l.stopOnce.Do(func() { close(l.stop) }) }

// Stopped is closed when the lab is to be closed.
func (l *Lab) Stopped() <-chan struct{} { return l.stop }

// AddListener opens a listener and announces it.
func (l *Lab) AddListener(add Listener) error {
	if err := add.Announce.check(add.Listener); err != nil {
		return err
	}
	if add.Announce.Name != "" {
		if add.Name == "" {
			return errors.New("a listener that is announced needs a name of its own; give it one with --name")
		}
		if _, err := interfacesFor(add.Announce.Interface, advertised(add, add.Address).Addr()); err != nil {
			return fmt.Errorf("announce: %w", err)
		}
	}
	if err := l.Target.AddListener(add.Listener); err != nil {
		return err
	}
	if err := l.announcer.add(add); err != nil {
		l.log.Error("cannot announce: " + err.Error())
	}
	return nil
}

// ListenerInfo is a listener as it is now.
type ListenerInfo struct {
	target.ListenerInfo

	Announced string `json:"announced,omitempty"` // the name by which mDNS announces it now
}

// Listeners lists the listeners in the order in which they were added.
func (l *Lab) Listeners() []ListenerInfo {
	all := []ListenerInfo{}
	for _, info := range l.Target.Listeners() {
		all = append(all, ListenerInfo{info, l.announcer.announced(info.Name)})
	}
	return all
}

// listen opens a socket whose opening and closing the announcer hears of.
func (l *Lab) listen(network, address string) (net.Listener, error) {
	socket, err := net.Listen(network, address)
	if err != nil {
		return nil, err
	}
	l.announcer.wake()
	return heard{socket, l.announcer.wake}, nil
}

type heard struct {
	net.Listener
	wake func()
}

func (h heard) Close() error {
	defer h.wake()
	return h.Listener.Close()
}

// silence is the log of those who want none.
var silence = slog.New(slog.DiscardHandler)

// TB is what [Test] needs of a *testing.T.
type TB interface {
	Helper()
	Cleanup(func())
	Fatal(args ...any)
	Name() string
}

// Test runs a lab in the process of a test until the test ends. The
// configuration is that of a file; listeners at port 0 get a free one, which
// Listeners tells.
func Test(t TB, config string) *Lab {
	t.Helper()
	cfg, err := Parse(t.Name(), []byte(config))
	if err != nil {
		t.Fatal(err)
	}
	l, err := Start(cfg, silence)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(l.Close)
	return l
}
