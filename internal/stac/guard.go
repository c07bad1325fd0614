package stac

import (
	"errors"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/nvme-stas/stas/internal/reconcile"
	"github.com/nvme-stas/stas/internal/service"
	"github.com/nvme-stas/stas/internal/tid"
	"github.com/nvme-stas/stas/pkg/fabrics"
)

const (
	// lookInterval is how long a search of all processes counts for a disk that
	// is open somewhere: there is no cheaper way to see that it no longer is.
	lookInterval = 4 * time.Second
)

// guard keeps what is in use from losing its last path. Its methods are called
// by workers.
type guard struct {
	kernel service.Kernel
	allow  atomic.Bool // the configuration wants no guard

	mu sync.Mutex // guards the following
	// leaving has the devices that may be deleted now, and so are no path any
	// more to what they lead to.
	leaving map[string]bool
	inUse   map[string]verdict // by device
	forced  map[tid.TID]bool   // by an operator, who was told
	next    *look              // not begun yet

	looking chan struct{} // room for one at a time
}

// verdict is why a device must not be deleted.
type verdict struct {
	users []string
	disks []string // that are in use
	held  bool     // exclusively, which is cheap to see
	at    time.Time
}

// look is one search of the host for what is in use, for all who ask before it
// begins.
type look struct {
	done chan struct{}
	use  service.DiskUse
}

// inUseError is that a device is the last path to what is in use, or for all
// that is known, may be.
type inUseError struct {
	users   []string
	unknown error
}

func (e *inUseError) Error() string {
	if e.unknown != nil {
		return "it cannot be seen whether it is in use: " + e.unknown.Error()
	}
	return "it is the last path to what is in use: " + strings.Join(e.users, ", ")
}

func (e *inUseError) Unwrap() error { return e.unknown }

func newGuard(kernel service.Kernel) *guard {
	return &guard{
		kernel: kernel, looking: make(chan struct{}, 1), leaving: make(map[string]bool), inUse: make(map[string]verdict), forced: make(map[tid.TID]bool),
	}
}

// Guard implements [service.Policy]: what is mounted, or in use otherwise, is
// not taken away because a zone or a configuration was changed.
func (d *Daemon) Guard(op reconcile.Op[fabrics.Options]) error {
	if op.Dropped && d.guard.isForced(op.TID) {
		return nil
	}
	return d.guard.admit(op.Device)
}

// admit lets a device be deleted, or says why not.
func (g *guard) admit(device string) error {
	if g.allow.Load() {
		return nil
	}
	last, err := g.last(device, true)
	if err != nil {
		return &inUseError{unknown: err}
	}
	if len(last) == 0 {
		return nil
	}
	users, err := g.users(device, last, false)
	if len(users) > 0 || err != nil {
		return &inUseError{users, err}
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	g.leaving[device] = true
	return nil
}

// last lists the disks to which a device is the last path. If there are none,
// and leave is set, the device is no path from now on: or else of two paths that
// are to be removed at once, each would count on the other.
func (g *guard) last(device string, leave bool) (disks []string, err error) {
	namespaces, err := g.kernel.Namespaces(device)
	if err != nil {
		return nil, err
	}
	others := make(map[string][]string, len(namespaces))
	for _, n := range namespaces {
		paths, err := g.kernel.Paths(n.Name)
		if err != nil {
			return nil, err
		}
		others[n.Name] = nil
		for _, p := range paths {
			if p.Controller != device && p.Usable() {
				others[n.Name] = append(others[n.Name], p.Controller)
			}
		}
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	for disk, paths := range others {
		if !slices.ContainsFunc(paths, func(name string) bool { return !g.leaving[name] }) {
			disks = append(disks, disk)
		}
	}
	if len(disks) == 0 && leave {
		g.leaving[device] = true
	}
	slices.Sort(disks)
	return disks, nil
}

// users says what uses disks that only this device leads to; fresh, if somebody
// waits for the answer.
func (g *guard) users(device string, disks []string, fresh bool) ([]string, error) {
	g.mu.Lock()
	before, known := g.inUse[device]
	g.mu.Unlock()
	if known && !fresh {
		// What is mounted stays so for long, and is cheap to ask for.
		for _, disk := range before.disks {
			if held, err := g.kernel.Held(disk); slices.Contains(disks, disk) && (held || err != nil) {
				return before.users, err
			}
		}
		if !before.held && time.Since(before.at) < lookInterval {
			return before.users, nil
		}
	}
	now := verdict{at: time.Now()}
	use := g.look()
	for _, disk := range disks {
		users, err := use.Of(disk)
		if err != nil {
			return nil, err
		}
		if len(users) > 0 {
			now.users = append(now.users, users...)
			now.disks = append(now.disks, disk)
			held, err := g.kernel.Held(disk)
			now.held = now.held || held && err == nil
		}
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	if len(now.users) == 0 {
		delete(g.inUse, device)
	} else {
		g.inUse[device] = now
	}
	return now.users, nil
}

// look searches the host, once for all who ask before it begins.
func (g *guard) look() service.DiskUse {
	g.mu.Lock()
	l := g.next
	mine := l == nil
	if mine {
		l = &look{done: make(chan struct{})}
		g.next = l
	}
	g.mu.Unlock()
	if mine {
		g.looking <- struct{}{}
		g.mu.Lock()
		g.next = nil // who asks from now on wants to know later news
		g.mu.Unlock()
		l.use = g.kernel.LookAtUse()
		<-g.looking
		close(l.done)
	}
	<-l.done
	return l.use
}

// forget is told what became of a device that might have been deleted.
func (g *guard) forget(device string, id tid.TID, gone bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	delete(g.leaving, device)
	delete(g.forced, id)
	if gone {
		delete(g.inUse, device)
	}
}

func (g *guard) force(id tid.TID) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.forced[id] = true
}

func (g *guard) isForced(id tid.TID) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.forced[id]
}

// withheld is a disconnect that waits until something is released.
type withheld struct {
	since time.Time
	why   *inUseError
}

// guarded takes what became of a controller, for the guard. It is called from
// within the engine.
func (d *Daemon) guarded(ev reconcile.Event) {
	switch ev.Kind {
	case reconcile.Disconnected, reconcile.Lost, reconcile.Released:
		d.guard.forget(ev.Device, ev.TID, true)
		delete(d.foreign, ev.TID)
		delete(d.withheld, ev.TID)
		if ev.Kind == reconcile.Disconnected {
			d.saveSoon()
		}
	case reconcile.DisconnectFailed:
		d.guard.forget(ev.Device, ev.TID, false)
		why, ok := errors.AsType[*inUseError](ev.Err)
		if !ok {
			delete(d.withheld, ev.TID)
			return
		}
		w, before := d.withheld[ev.TID]
		if !before {
			w.since = time.Now()
		}
		w.why = why
		d.withheld[ev.TID] = w
	}
}
