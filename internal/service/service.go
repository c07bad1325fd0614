// Package service is what stafd and stacd have in common: one loop that owns
// all state, the engine that decides in it, the workers that carry its
// decisions out, and the watcher that brings back what the kernel did.
package service

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"github.com/nvme-stas/stas/internal/boot"
	"github.com/nvme-stas/stas/internal/conf"
	"github.com/nvme-stas/stas/internal/daemon"
	"github.com/nvme-stas/stas/internal/hostid"
	"github.com/nvme-stas/stas/internal/reconcile"
	"github.com/nvme-stas/stas/internal/registry"
	"github.com/nvme-stas/stas/internal/tid"
	"github.com/nvme-stas/stas/pkg/fabrics"
	"github.com/nvme-stas/stas/pkg/nvme"
	"github.com/nvme-stas/stas/pkg/nvmesysfs"
	"github.com/nvme-stas/stas/pkg/uevent"
)

// Kernel is what the daemons ask of the kernel. All calls may block, some for
// a minute; none is made from the loop.
type Kernel interface {
	// Names, Kind and Read look at sysfs, see [nvmesysfs.FS].
	Names() ([]string, error)
	Kind(name string) (nvmesysfs.Kind, error)
	Read(name string) (nvmesysfs.Controller, error)
	Namespaces(name string) ([]nvmesysfs.Namespace, error)
	// Paths lists the controllers that lead to a disk, see [nvmesysfs.FS].
	Paths(disk string) ([]nvmesysfs.Path, error)
	// Held and LookAtUse tell whether disks are in use, see [inuse.Host].
	Held(disk string) (bool, error)
	LookAtUse() DiskUse
	// Probe finds out in user space whether the target of a connect answers,
	// as far as that can be found out. It fails as the connect would.
	Probe(context.Context, fabrics.Options) error
	// Connect creates a controller and returns its name.
	Connect(fabrics.Options) (name string, err error)
	// Options are those that the kernel can connect with.
	Options() (fabrics.OptionSet, error)
	// Delete removes a controller; one that is not there is no error.
	Delete(name string) error
	// State reads the state of a controller, and nothing else: it is asked for
	// often.
	State(name string) (nvmesysfs.State, error)
	// Attr reads an attribute of a controller in sysfs.
	Attr(name, attribute string) (string, error)
	// Adjust changes what can be changed of a live connection, so that it is as
	// if it had been made with now.
	Adjust(name string, was, now fabrics.Options) error
	// Identify asks a controller who it is and what it can do.
	Identify(ctx context.Context, name string) (nvme.IdentifyController, error)
	// SupportedLogPages reads which log pages a controller has; see
	// [nvme.LogPageSupported].
	SupportedLogPages(ctx context.Context, name string) ([]byte, error)
	// DiscoveryLog reads the log page of a discovery controller, with LSP bits.
	DiscoveryLog(ctx context.Context, name string, lsp uint8) (nvme.DiscoveryLog, error)
	// Manage tells a discovery controller something, or has it forget that.
	// The controller gets the time given, or the kernel's usual one with 0.
	Manage(ctx context.Context, name string, info nvme.DiscoveryInformation, timeout time.Duration) error
	// System is the host's name, and what it runs: operating system, kernel,
	// distribution.
	System() (name, version string)
	// Ifaces lists the addresses of the network interfaces.
	Ifaces() ([]tid.IfaceAddr, error)
	// Owner returns who owns a controller in the host's registry, or nothing
	// if nobody does. Own notes there that one that was just connected is ours,
	// Disown that it was removed, as the uevent with this number says. Sweep
	// looks for what was removed while nobody watched.
	Owner(name string) string
	Own(name string) error
	Disown(name string, seqnum uint64) error
	Sweep() error
	// Listen opens a source of uevents.
	Listen() (Events, error)
	// WatchNetwork calls changed after a link or an address of the host has come
	// up, until ctx ends. An error says that it cannot watch.
	WatchNetwork(ctx context.Context, changed func()) error
}

// DiskUse says what uses disks at one moment, see [inuse.Use].
type DiskUse interface {
	Of(disk string) (users []string, err error)
}

// Events is a source of uevents.
type Events interface {
	Receive(context.Context) (uevent.Event, error)
	Close() error
}

// Timing of the reconciler.
const (
	fullPass = 60 * time.Second // between looks at all controllers, events or not
	// probes bounds the targets that are being connected, of which all but a
	// few are asked first whether they are there: see preflight.go.
	probes = 64
	// stateLook is how often the states of all devices in use are looked at: of a
	// connection that breaks the kernel says nothing.
	stateLook = time.Second
	// networkSettle is how long changes of the network are gathered.
	networkSettle = time.Second
	// busyDevices bounds the operations on existing devices. Each may block
	// for a minute if its target is silent, so they must not wait for each other.
	busyDevices = 64
)

// Service runs one daemon.
type Service struct {
	env      Env
	kind     tid.Kind
	policy   Policy
	log      *slog.Logger
	loop     *daemon.Loop
	engine   *reconcile.Engine[fabrics.Options] // of the loop
	identity hostid.Identity                    // of the loop
	boot     boot.Tables                        // of the loop
	shown    map[tid.TID]map[string]string      // of the loop, see conf.Controller
	// firstTimes are what controllers of boot tables had at first; of the loop.
	firstTimes map[tid.TID]fabrics.Options
	// configured is the configuration as it was read, with host names.
	configured *conf.Config // of the loop
	names      names        // of the loop
	// retryMost is of the loop: connect-retry-max.
	retryMost time.Duration
	timing    map[tid.TID]timing // of the loop

	ctx          context.Context // of Run
	seq          atomic.Uint64   // see reconcile.Engine.Observe
	resync       chan struct{}
	blind        int // of the watcher: see blindPasses
	unsaved      chan json.RawMessage
	unusable     error                  // why the state file cannot be used
	failedReload atomic.Pointer[string] // what the last reload failed for
	doubtful     atomic.Bool            // see conf.Config
	// kernelOptions are those that the kernel can connect with, once known.
	kernelOptions atomic.Pointer[fabrics.OptionSet]
	inUse         identities
	workers       sync.WaitGroup
	connects      *connects
}

// New returns the service of a daemon that looks after controllers of a kind.
func New(kind tid.Kind, policy Policy, env Env) *Service {
	s := &Service{
		env: env, kind: kind, policy: policy, log: env.Log,
		timing:  make(map[tid.TID]timing),
		resync:  make(chan struct{}, 1),
		unsaved: make(chan json.RawMessage, 1),

		retryMost: retryCap,

		connects:   newConnects(),
		firstTimes: make(map[tid.TID]fabrics.Options),
	}
	if s.env.Resolve == nil {
		s.env.Resolve = func(ctx context.Context, host string) ([]netip.Addr, error) {
			return net.DefaultResolver.LookupNetIP(ctx, "ip", host)
		}
	}
	s.loop = daemon.NewLoop(s.step)
	s.engine = reconcile.New(reconcile.Config[fabrics.Options]{
		Kind: kind,
		Limit: map[reconcile.OpKind]int{
			reconcile.Connect: probes, reconcile.Disconnect: busyDevices, reconcile.Adjust: busyDevices, reconcile.Work: busyDevices,
		},
		PerTarget: burst,
		Target:    saysOfTarget,
		Backoff:   s.backoff,
		Work:      true,
		Differ:    differ,
		Notify:    s.notify,
	})
	return s
}

// Engine is what the policy tells its wishes. It belongs to the loop.
func (s *Service) Engine() *reconcile.Engine[fabrics.Options] { return s.engine }

// BootTables are those of the host, as last read. They belong to the loop.
func (s *Service) BootTables() boot.Tables { return s.boot }

// Loop runs what touches the state.
func (s *Service) Loop() *daemon.Loop { return s.loop }

// differ tells whether a connection has parameters that can be changed while
// it is there, and shall.
func differ(was, now fabrics.Options) bool {
	same := func(a, b *int) bool { return a == b || a != nil && b != nil && *a == *b }
	return !same(was.CtrlLossTMO, now.CtrlLossTMO) || !same(was.ReconnectDelay, now.ReconnectDelay) ||
		!same(was.FastIOFailTMO, now.FastIOFailTMO)
}

// step runs in the loop after something has happened.
func (s *Service) step() time.Time {
	now := time.Now()
	names := s.tendNames(now)
	ops, wake := s.engine.Next(now)
	for _, op := range ops {
		s.workers.Go(func() { s.carryOut(op) })
	}
	if wake.IsZero() || !names.IsZero() && names.Before(wake) {
		return names
	}
	return wake
}

// carryOut does one operation and reports its end, in a goroutine of its own.
func (s *Service) carryOut(op reconcile.Op[fabrics.Options]) {
	var (
		device = op.Device
		found  func() // by Work, for the loop
		err    error
	)
	switch op.Kind {
	case reconcile.Connect:
		if err = s.excluded(op.Params); err == nil {
			device, err = s.connect(op)
		}
		if err == nil {
			s.own(device)
		}
		if errors.Is(err, unix.EALREADY) {
			s.requestPass() // the kernel has one that we do not know of
		}
	case reconcile.Disconnect:
		if err = s.verify(op); err == nil {
			err = s.owned(device)
		}
		if err == nil {
			if no := s.policy.Guard(op); no != nil {
				err = &guardError{no}
			}
		}
		if err == nil {
			err = s.env.Kernel.Delete(device)
		}
		if errors.Is(err, errReplaced) {
			err = nil // what was to be deleted is gone
		}
	case reconcile.Adjust:
		if err = s.verify(op); err == nil {
			err = s.env.Kernel.Adjust(device, op.Was, op.Params)
		}
	case reconcile.Work:
		// Another controller may take the number over at any time. What it says
		// must not be taken for this one's, so look before and after.
		if err = s.verify(op); err == nil {
			found, err = s.policy.Work(s.ctx, op)
		}
		if err == nil {
			err = s.verify(op)
		}
	}
	seen := observation{}
	if device != "" {
		seen = s.observe(device)
	}
	if op.Kind == reconcile.Connect && err == nil && seen.err != nil {
		// It is there: not to be able to look at it must not make two of it.
		seen.controller, seen.err = new(asConnected(op.Params, s.kind)), nil
	}
	s.loop.Post(s.ctx, func() {
		now := time.Now()
		if device != "" {
			seen.tell(s.engine, now)
		}
		if found != nil && err == nil {
			found()
		}
		s.engine.Done(op, device, err, now)
	})
}

// asConnected is what sysfs shows of a controller that was connected with o.
func asConnected(o fabrics.Options, kind tid.Kind) reconcile.Observed {
	return reconcile.Observed{
		Existing: tid.Existing{
			Transport: o.Transport, TrAddr: o.TrAddr, TrSvcID: o.TrSvcID,
			HostTrAddr: o.HostTrAddr, HostIface: o.HostIface,
			SubsysNQN: o.NQN, HostNQN: o.HostNQN, Kind: kind,
		},
		Live: true,
	}
}

// excluded looks into the host's exclusion list. That guards against new
// connections only: those that exist, whoever made them, are taken over.
func (s *Service) excluded(o fabrics.Options) error {
	if s.env.Excluded == nil {
		return nil
	}
	if why := s.env.Excluded(o); why != "" {
		return excludedError(why)
	}
	return nil
}

// own notes in the host's registry that a controller is ours.
func (s *Service) own(device string) {
	if err := s.env.Kernel.Own(device); err != nil {
		s.log.Warn("cannot note in the host's registry who owns a controller; \"nvme disconnect-all\" would not spare it", "device", device, "error", err)
	}
}

// owned is an error for what belongs to somebody else: it is not ours to remove.
func (s *Service) owned(device string) error {
	if owner := s.env.Kernel.Owner(device); owner != "" && owner != registry.Self {
		return fmt.Errorf("it is owned by %q in the host's registry (/run/nvme/registry)", owner)
	}
	return nil
}

// errReplaced says that a device is not the controller it was.
var errReplaced = errors.New("the controller has gone")

// verify looks whether the device still is the controller that the operation
// is meant for.
func (s *Service) verify(op reconcile.Op[fabrics.Options]) error {
	now := s.observe(op.Device)
	switch {
	case now.err != nil:
		return now.err
	case now.controller == nil || !op.Seen.SameConnection(*now.controller):
		return errReplaced
	}
	return nil
}

// notify logs what became of a controller and hands it on.
func (s *Service) notify(ev reconcile.Event) {
	log := s.log.With()
	if ev.Device != "" {
		log = log.With("device", ev.Device)
	}
	name := ev.TID.String()
	switch ev.Kind {
	case reconcile.Connected:
		log.Info(name + " connected")
	case reconcile.Adopted:
		log.Info(name + " is connected already, taking it over")
	case reconcile.Lost:
		s.names.doubt(ev.TID, time.Now())
		if ev.Down > 0 {
			log.Warn(name+" was given up by the kernel, connecting again", "broken-for", ev.Down.Round(time.Second))
		} else {
			log.Warn(name + " was removed, connecting again")
		}
	case reconcile.Broken:
		log.Warn(name + " is broken, the kernel tries to get it back")
	case reconcile.Back:
		log.Info(name+" is back", "broken-for", ev.Down.Round(time.Second))
	case reconcile.Disconnected:
		log.Info(name + " disconnected")
	case reconcile.Released:
		log.Info(name + " is no longer wanted, its connection stays")
	case reconcile.OtherPath:
		log.Info(name + " is not what this connection, which was broken, serves; connecting it by itself")
	case reconcile.Adjusted:
		log.Info(name + " has its new parameters")
	case reconcile.ConnectFailed, reconcile.DisconnectFailed, reconcile.WorkFailed, reconcile.AdjustFailed:
		if ev.Kind == reconcile.ConnectFailed {
			s.names.doubt(ev.TID, time.Now())
		}
		s.logFailure(log, ev)
	}
	if ev.Kind == reconcile.Disconnected || ev.Kind == reconcile.Released {
		s.forgetTiming(ev.TID)
	}
	s.policy.Event(ev)
}

// logFailure tells of the first failure of a series, and of each that is of
// another class than the one before; the others are in "ls".
func (s *Service) logFailure(log *slog.Logger, ev reconcile.Event) {
	name := ev.TID.String()
	class, _ := classOf(ev.Err)
	news := ev.Attempt == 1
	if !news {
		before, _ := classOf(ev.Before)
		news = before != class
	}
	switch class {
	case excluded:
		if news {
			log.Info(name + " is not connected: " + ev.Err.Error())
		}
		return
	case heldBack:
		if news {
			log.Warn(name + " is not disconnected now: " + ev.Err.Error())
		}
		return
	}
	level := slog.LevelDebug
	if news {
		level = slog.LevelError
	}
	what := map[reconcile.EventKind]string{
		reconcile.ConnectFailed:    " cannot be connected",
		reconcile.DisconnectFailed: " cannot be disconnected",
		reconcile.WorkFailed:       " does not give its log page",
		reconcile.AdjustFailed:     " does not take its new parameters",
	}[ev.Kind]
	if ev.Retry > 0 {
		what += ", trying again"
		log = log.With("retry-in", ev.Retry.Round(100*time.Millisecond))
	}
	log.Log(s.ctx, level, name+what, "error", ev.Err, "class", class.name, "attempt", ev.Attempt)
}
