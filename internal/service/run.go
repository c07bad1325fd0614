package service

import (
	"cmp"
	"context"
	"errors"
	"log/slog"
	"net/netip"
	"sync"
	"time"

	"github.com/nvme-stas/stas/internal/boot"
	"github.com/nvme-stas/stas/internal/conf"
	"github.com/nvme-stas/stas/internal/hostid"
	"github.com/nvme-stas/stas/internal/reconcile"
	"github.com/nvme-stas/stas/internal/stasbus"
	"github.com/nvme-stas/stas/internal/tid"
	"github.com/nvme-stas/stas/pkg/fabrics"
	"github.com/nvme-stas/stas/pkg/uevent"
)

// Env is all that a daemon needs from outside.
type Env struct {
	Kernel     Kernel
	Bus        Bus
	State      State
	Supervisor Supervisor
	// Config, BootTables and Identity read the daemon's configuration, the
	// tables of the host's firmware, and who the host is, for which they count,
	// too. They are called at start and at each reload. BootTables is nil for a
	// host without any.
	Config     func() (*conf.Config, error)
	BootTables func() boot.Tables
	Identity   func(boot.Tables) (hostid.Identity, error)
	// Resolve looks up a host name. Nil asks the name servers of the host.
	Resolve func(ctx context.Context, host string) ([]netip.Addr, error)
	// Tasks are to run as long as the daemon does; they begin when it has its
	// name on the bus.
	Tasks []func(context.Context) error
	// Restart has the service manager restart a unit, and does not wait until it
	// has. Nil stands for a host without one.
	Restart func(ctx context.Context, unit string) error
	// Candidate reads what a reload would read, and complains to nobody: with a
	// text in place of the main configuration file, unless it is empty.
	Candidate func(text string) (Candidate, error)
	// Excluded says what of the host's exclusion list forbids a connection, or
	// nothing. It is asked before each attempt, and may block. Nil forbids none.
	Excluded func(fabrics.Options) string
	Reload   <-chan struct{} // asks for a reload
	Log      *slog.Logger
	Level    *slog.LevelVar
	// Tron keeps tracing on, whatever the configuration says at start.
	Tron bool
}

// Candidate is a configuration that is not in force.
type Candidate struct {
	Config   *conf.Config
	Identity hostid.Identity
	Issues   []string
}

// Bus publishes a daemon.
type Bus interface {
	// Run serves the backend until ctx ends, and calls ready once it does.
	Run(ctx context.Context, backend stasbus.Backend, ready func()) error
	// The signals of stafd.
	LogPagesChanged(id tid.TID, device string)
	DCRemoved()
}

// Supervisor is told what the daemon is doing, see [daemon.Supervisor].
type Supervisor interface {
	Ready(status string)
	Reloading()
	Stopping()
	Watchdog(ctx context.Context, probe func(context.Context) error) error
}

// Policy is what makes a daemon stafd or stacd. All methods but Tasks, Work and
// Guard are called in the loop.
type Policy interface {
	// Apply takes a new configuration and identity.
	Apply(*conf.Config, hostid.Identity)
	// Event tells what became of a controller. It is called from within the
	// engine and must not call it.
	Event(reconcile.Event)
	// Work uses a live device, in a goroutine of its own, for as long as the
	// controller lets it wait. What it returns is called in the loop, if the
	// device was still the same connection afterwards.
	Work(context.Context, reconcile.Op[fabrics.Options]) (found func(), err error)
	// Guard says why a device must not be deleted now, just before that would be
	// done, in a goroutine of its own. It is asked again later.
	Guard(reconcile.Op[fabrics.Options]) error
	// Changed takes a uevent of kind "change".
	Changed(uevent.Event)
	// Overrun tells that uevents have been lost.
	Overrun()
	// Info adds what the policy knows to the description of a controller in the
	// dictionaries of nvme-stas.
	Info(id tid.TID, detailed bool, info stasbus.Dict)
	// AddTo adds what the policy knows to a report, and to its controllers.
	AddTo(*stasbus.Report)
	// Tasks are to run as long as the daemon does.
	Tasks() []func(context.Context) error
}

// Run runs the daemon until ctx ends or something fails for good. backend is
// what is served on the bus: the policy, with the service in it.
func (s *Service) Run(ctx context.Context, backend stasbus.Backend) error {
	in, err := s.load()
	if err != nil {
		return err
	}
	stop := ctx
	ctx, cancel := context.WithCancelCause(stop)
	defer cancel(nil)
	s.ctx = ctx
	s.apply(in)
	if s.env.Tron {
		s.SetTron(true)
	}

	var tasks sync.WaitGroup
	start := func(task func(context.Context) error) {
		tasks.Go(func() {
			if err := task(ctx); err != nil {
				cancel(err)
			}
		})
	}
	// Whoever owns the name on the bus is the daemon. Before, nothing is done
	// that another instance might be doing.
	up := make(chan struct{})
	start(func(ctx context.Context) error {
		return s.env.Bus.Run(ctx, backend, func() {
			s.env.Supervisor.Ready(s.status())
			close(up)
		})
	})
	start(func(ctx context.Context) error {
		return s.env.Supervisor.Watchdog(ctx, func(ctx context.Context) error {
			return s.loop.Do(ctx, func() {})
		})
	})
	for _, task := range append(append(s.policy.Tasks(), s.env.Tasks...), s.saveStates, s.reloads, s.watch, s.watchStates, s.watchNetwork) {
		start(func(ctx context.Context) error {
			select {
			case <-up:
				return task(ctx)
			case <-ctx.Done():
				return nil
			}
		})
	}
	s.workers.Go(func() {
		select {
		case <-up:
			s.askKernel()
		case <-ctx.Done():
		}
	})
	s.loop.Run(ctx)
	s.env.Supervisor.Stopping()
	tasks.Wait()
	select {
	case <-up:
		s.saveLast()
	default: // the file may be that of another instance
	}
	// Most operations are over soon, and then nobody is left in the middle of
	// one. Others wait in the kernel for a target that is silent. What comes of
	// them is found in sysfs by the next instance.
	if !within(stopWait, s.workers.Wait) {
		s.log.Info("not waiting any longer for operations that have not ended")
	}
	if err := context.Cause(ctx); !errors.Is(err, context.Cause(stop)) {
		return err
	}
	return nil // being told to stop is no failure, whatever the reason
}

// stopWait is how long a daemon that stops waits for its operations.
const stopWait = time.Second

// within reports whether f returns in time.
func within(d time.Duration, f func()) bool {
	done := make(chan struct{})
	go func() { defer close(done); f() }()
	select {
	case <-done:
		return true
	case <-time.After(d):
		return false
	}
}

// input is what is read at start and at each reload.
type input struct {
	cfg      *conf.Config
	identity hostid.Identity
	boot     boot.Tables
}

// load reads configuration, boot tables and identity.
func (s *Service) load() (in input, err error) {
	if in.cfg, err = s.env.Config(); err != nil {
		return in, err
	}
	if s.env.BootTables != nil {
		in.boot = s.env.BootTables()
	}
	in.identity, err = s.env.Identity(in.boot)
	return in, err
}

func (s *Service) apply(in input) {
	s.configured, s.identity, s.boot = in.cfg, in.identity, in.boot
	s.SetTron(in.cfg.Tron)
	s.applyNames()
}

// applyNames gives the policy the configuration, with what its host names stand
// for now.
func (s *Service) applyNames() {
	cfg := s.names.resolve(s.configured, s.identity)
	s.shown = make(map[tid.TID]map[string]string)
	for _, c := range cfg.Controllers {
		if id, err := c.TID(s.identity.NQN, cfg.IgnoreIface); err == nil && c.Shown != nil {
			s.shown[id] = c.Shown
		}
	}
	s.doubtful.Store(cfg.Doubtful)
	s.retryMost = cmp.Or(cfg.ConnectRetryMax, retryCap)
	s.policy.Apply(cfg, s.identity)
}

// reloads reads everything again when asked to. What cannot be read changes
// nothing: the last good configuration stays in force.
func (s *Service) reloads(ctx context.Context) error {
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-s.env.Reload:
		}
		s.env.Supervisor.Reloading()
		in, err := s.load()
		s.failedReload.Store(nil)
		if err != nil {
			s.failedReload.Store(new(err.Error()))
			s.log.Error("nothing was reloaded, the last good configuration stays in force", "error", err)
		} else if s.loop.Do(ctx, func() { s.apply(in); s.retryNow() }) == nil {
			s.log.Info("configuration reloaded")
		}
		s.env.Supervisor.Ready(s.status())
	}
}

// retryNow makes everything due at once that waits: who reloads has probably
// mended something.
func (s *Service) retryNow() {
	now := time.Now()
	s.names.hurry(now)
	s.engine.KickAll(now)
}

// status is one line for the service manager.
func (s *Service) status() string {
	if s.failedReload.Load() != nil {
		return "The last reload failed, an older configuration is in force; see the journal."
	}
	what := "discovery"
	if s.kind == tid.IO {
		what = "I/O"
	}
	return "Looking after " + what + " controllers."
}
