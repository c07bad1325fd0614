package scenario

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/nvme-stas/stas/internal/boot"
	"github.com/nvme-stas/stas/internal/conf"
	"github.com/nvme-stas/stas/internal/daemon"
	"github.com/nvme-stas/stas/internal/exclusions"
	"github.com/nvme-stas/stas/internal/hostid"
	"github.com/nvme-stas/stas/internal/service"
	"github.com/nvme-stas/stas/internal/stac"
	"github.com/nvme-stas/stas/internal/staf"
	"github.com/nvme-stas/stas/internal/stasbus"
	"github.com/nvme-stas/stas/internal/stastest"
	"github.com/nvme-stas/stas/pkg/nbft"
	"github.com/nvme-stas/stas/pkg/nvmesysfs"
)

func TestFake(t *testing.T) {
	RunAll(t, Cases, func(t *testing.T, run func(World)) {
		synctest.Test(t, func(t *testing.T) { run(newFake(t)) })
	})
}

func TestFakeFaults(t *testing.T) {
	RunFaults(t, func(t *testing.T, run func(World)) {
		synctest.Test(t, func(t *testing.T) {
			f := newFake(t)
			offer(f, portA, faultSubsystems)
			run(f)
		})
	})
}

// fake is a [World] inside the test process. It belongs into a synctest
// bubble, where time passes as soon as nobody has anything to do.
type fake struct {
	*testing.T
	kernel  *stastest.Kernel
	bus     *stastest.Bus
	running map[Daemon]*instance
	confDir string
	states  map[Daemon]*memory
	names   *stastest.HostNames
}

// instance is one run of a daemon.
type instance struct {
	cancel context.CancelFunc
	done   chan error
	reload chan struct{}
	state  *memory
	bus    *stastest.Connection

	restarts int // by the supervisor
}

func newFake(t *testing.T) *fake {
	f := &fake{
		T: t, kernel: stastest.NewKernel(), bus: stastest.NewBus(),
		running: make(map[Daemon]*instance),
		confDir: t.TempDir(),
		names:   stastest.NewHostNames(),
	}
	f.states = make(map[Daemon]*memory)
	for _, d := range []Daemon{Stafd, Stacd} {
		f.states[d] = &memory{file: service.StateFile{Path: filepath.Join(f.confDir, string(d)+".json")}}
	}
	t.Cleanup(func() {
		for d := range f.running {
			f.Stop(d)
		}
		f.kernel.Close()
		// Let the kernel's reconnects see that they are over.
		synctest.Wait()
	})
	return f
}

func (f *fake) OpenPort(p Port)  { f.kernel.OpenPort(p.ID, p.Addr, strconv.Itoa(p.Svc)) }
func (f *fake) ClosePort(p Port) { f.kernel.ClosePort(p.Addr, strconv.Itoa(p.Svc)) }

func (f *fake) BlackHole(p Port) {
	f.OpenPort(p)
	f.kernel.Silence(p.Addr, strconv.Itoa(p.Svc), stastest.BlackHole)
}

func (f *fake) AddSubsystem(nqn string, ports ...Port) {
	for _, p := range ports {
		f.kernel.Offer(nqn, p.Addr, strconv.Itoa(p.Svc), true)
	}
}

func (f *fake) RemoveSubsystem(nqn string, ports ...Port) {
	for _, p := range ports {
		f.kernel.Offer(nqn, p.Addr, strconv.Itoa(p.Svc), false)
	}
}

func (f *fake) Refer(from Port, to ...Port) {
	var all []stastest.Referral
	for _, p := range to {
		all = append(all, stastest.Referral{Addr: p.Addr, Svc: strconv.Itoa(p.Svc)})
	}
	f.kernel.Refer(from.Addr, strconv.Itoa(from.Svc), all...)
}

func (f *fake) confFile(d Daemon) string { return filepath.Join(f.confDir, string(d)+".conf") }

func (f *fake) Configure(d Daemon, text string) {
	f.Helper()
	writeFile(f, f.confFile(d), text)
}

func (f *fake) Unconfigure(d Daemon) {
	f.Helper()
	if err := os.Remove(f.confFile(d)); err != nil {
		f.Fatal(err)
	}
}

func (f *fake) DropIn(d Daemon, name, text string) {
	f.Helper()
	dropIn(f, f.confFile(d), name, text)
}

func (f *fake) exclusionList() string { return filepath.Join(f.confDir, "exclusions.conf") }

func (f *fake) Exclude(text string) {
	f.Helper()
	writeFile(f, f.exclusionList(), text)
}

func (f *fake) HostName(name string, addrs ...string) { f.names.Set(name, addrs...) }

func (f *fake) bootTables() string { return filepath.Join(f.confDir, "tables") }

func (f *fake) BootTable(table *nbft.Table) {
	f.Helper()
	b, err := table.AppendBinary(nil)
	if err != nil {
		f.Fatal(err)
	}
	if err := os.MkdirAll(f.bootTables(), 0o755); err != nil {
		f.Fatal(err)
	}
	writeFile(f, filepath.Join(f.bootTables(), "NBFT"), string(b))
}

func (f *fake) Start(daemons ...Daemon) {
	f.Helper()
	for _, d := range daemons {
		if f.running[d] != nil {
			f.Fatalf("%s runs already", d)
		}
		f.start(d)
	}
}

func (f *fake) start(d Daemon) {
	f.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	in := &instance{
		cancel: cancel, done: make(chan error, 1), reload: make(chan struct{}, 1), state: f.states[d],
		bus: &stastest.Connection{Bus: f.bus},
	}
	ready := &supervisor{ready: make(chan struct{}, 1)}
	level := new(slog.LevelVar)
	tables := boot.Source{Dir: f.bootTables()}
	env := service.Env{
		Kernel:     f.kernel,
		Bus:        in.bus,
		State:      in.state,
		Supervisor: ready,
		Config: func() (*conf.Config, error) {
			cfg, _, err := conf.Load(conf.Daemon(d), f.confFile(d))
			return cfg, err
		},
		BootTables: func() boot.Tables {
			t, _ := tables.Read()
			return t
		},
		Identity: func(boot.Tables) (hostid.Identity, error) { return fakeIdentity, nil },
		Resolve:  f.names.Resolve,
		Candidate: func(text string) (service.Candidate, error) {
			cfg, issues, err := conf.LoadWith(conf.Daemon(d), f.confFile(d), "candidate", text)
			if text == "" {
				cfg, issues, err = conf.Load(conf.Daemon(d), f.confFile(d))
			}
			c := service.Candidate{Config: cfg, Identity: fakeIdentity}
			for _, i := range issues {
				c.Issues = append(c.Issues, i.String())
			}
			return c, err
		},
		Excluded: exclusions.New(f.exclusionList(), slog.New(slog.DiscardHandler)).Excludes,
		Reload:   in.reload,
		Log:      daemon.NewLogger(f.Output(), false, level).With("daemon", d),
		Level:    level,
	}
	run := staf.New(env).Run
	if d == Stacd {
		run = stac.New(env, f.bus).Run
	}
	go func() { in.done <- run(ctx) }()
	select {
	case <-ready.ready:
	case err := <-in.done:
		f.Fatalf("%s does not start: %v", d, err)
	}
	f.running[d] = in
}

const fakeUUID = "36ebf5a9-1df9-47b3-a6d0-e9ba32e428a2"

var fakeIdentity = hostid.Identity{NQN: "nqn.2014-08.org.nvmexpress:uuid:" + fakeUUID, ID: fakeUUID}

func (f *fake) Plan(d Daemon, text string) stasbus.Plan {
	f.Helper()
	p, err := f.running[d].bus.Backend.(stasbus.Planner).Plan(context.Background(), text)
	if err != nil {
		f.Fatal(err)
	}
	return p
}

func (f *fake) Stop(daemons ...Daemon) {
	f.Helper()
	for _, d := range daemons {
		in := f.running[d]
		delete(f.running, d)
		in.cancel()
		if err := <-in.done; err != nil {
			f.Errorf("%s ended with: %v", d, err)
		}
	}
}

func (f *fake) Reload(daemons ...Daemon) {
	for _, d := range daemons {
		f.running[d].reload <- struct{}{}
	}
	synctest.Wait()
}

// Kill lets the daemon save nothing more. Operations that are in the kernel
// end, as they do when a process is killed.
func (f *fake) Kill(d Daemon) {
	f.Helper()
	in := f.running[d]
	f.states[d] = in.state.freeze()
	f.Stop(d)
	f.start(d)
	f.running[d].restarts = in.restarts + 1
}

func (f *fake) Restarts(d Daemon) int { return f.running[d].restarts }

// Hang silences stafd on the bus; whatever else it does, goes on.
func (f *fake) Hang(d Daemon) { f.hang(d, true) }
func (f *fake) Wake(d Daemon) { f.hang(d, false) }

func (f *fake) hang(d Daemon, silent bool) {
	f.Helper()
	if d != Stafd {
		f.Fatalf("%s cannot hang here", d)
	}
	f.bus.Hang(silent)
}

func (f *fake) RestartBus() { f.bus.Restart() }

func (f *fake) Answer(d Daemon) (time.Duration, error) {
	began := time.Now()
	in := f.running[d]
	if in == nil {
		return 0, fmt.Errorf("%s does not run", d)
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	_, err := in.bus.Backend.ProcessInfo(ctx)
	return time.Since(began), err
}

func (f *fake) Report(d Daemon) stasbus.Report {
	f.Helper()
	r, err := f.running[d].bus.Backend.(stasbus.Reporter).Report(context.Background())
	if err != nil {
		f.Fatal(err)
	}
	return r
}

func (f *fake) ForgetState(daemons ...Daemon) {
	f.Helper()
	for d := range f.states {
		if len(daemons) > 0 && !slices.Contains(daemons, d) {
			continue
		}
		if err := os.Remove(f.states[d].file.Path); err != nil && !errors.Is(err, fs.ErrNotExist) {
			f.Fatal(err)
		}
	}
}

func (f *fake) State(d Daemon) string {
	f.Helper()
	text, err := os.ReadFile(f.states[d].file.Path)
	if err != nil {
		f.Fatal(err)
	}
	return string(text)
}

func (f *fake) SetState(d Daemon, text string) {
	f.Helper()
	writeFile(f, f.states[d].file.Path, text)
}

func (f *fake) Fresh() {
	f.Helper()
	for d := range f.running {
		f.Stop(d)
	}
	for _, c := range f.kernel.Controllers() {
		f.kernel.Disconnect(c.Name)
	}
	f.ForgetState()
	for _, d := range []Daemon{Stafd, Stacd} {
		f.Configure(d, "")
	}
}

func (f *fake) Serial(controller string) uint64 { return f.kernel.Serial(controller) }

func (f *fake) Disconnect(controller string) { f.kernel.Disconnect(controller) }

func (f *fake) Controllers() []nvmesysfs.Controller { return f.kernel.Controllers() }

func (f *fake) Attribute(controller, attribute string) string {
	f.Helper()
	v, err := f.kernel.Attr(controller, attribute)
	if err != nil {
		f.Fatal(err)
	}
	return v
}

func (f *fake) Now() time.Time        { return time.Now() }
func (f *fake) Sleep(d time.Duration) { time.Sleep(d) }

// supervisor waits for readiness.
type supervisor struct{ ready chan struct{} }

func (s *supervisor) Ready(string) {
	select {
	case s.ready <- struct{}{}:
	default:
	}
}

func (s *supervisor) Reloading() {}
func (s *supervisor) Stopping()  {}

func (s *supervisor) Watchdog(context.Context, func(context.Context) error) error { return nil }

// memory is a state file as one run of a daemon has it.
type memory struct {
	mu     sync.Mutex
	file   service.StateFile
	frozen bool
}

func (m *memory) Load(state any) error { return m.file.Load(state) }

func (m *memory) SetAside(why error) (string, error) { return m.file.SetAside(why) }

func (m *memory) Sweep() error { return m.file.Sweep() }

func (m *memory) Save(state json.RawMessage) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.frozen {
		return io.ErrClosedPipe
	}
	return m.file.Save(state)
}

// freeze makes the file unwritable for who has it, and returns it for the next
// run.
func (m *memory) freeze() *memory {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.frozen = true
	return &memory{file: m.file}
}
