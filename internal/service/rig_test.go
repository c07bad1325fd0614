package service_test

import (
	"context"
	"encoding/json"
	"io/fs"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/nvme-stas/stas/internal/boot"
	"github.com/nvme-stas/stas/internal/conf"
	"github.com/nvme-stas/stas/internal/daemon"
	"github.com/nvme-stas/stas/internal/hostid"
	"github.com/nvme-stas/stas/internal/reconcile"
	"github.com/nvme-stas/stas/internal/service"
	"github.com/nvme-stas/stas/internal/stasbus"
	"github.com/nvme-stas/stas/internal/stastest"
	"github.com/nvme-stas/stas/internal/tid"
	"github.com/nvme-stas/stas/pkg/fabrics"
	"github.com/nvme-stas/stas/pkg/nvme"
	"github.com/nvme-stas/stas/pkg/nvmesysfs"
	"github.com/nvme-stas/stas/pkg/uevent"
)

const addr = "10.0.0.1"

var identity = hostid.Identity{
	NQN: "nqn.2014-08.org.nvmexpress:uuid:36ebf5a9-1df9-47b3-a6d0-e9ba32e428a2",
	ID:  "36ebf5a9-1df9-47b3-a6d0-e9ba32e428a2",
}

func controller(nqn, port string) tid.TID {
	return tid.New(tid.TID{Transport: "tcp", TrAddr: addr, TrSvcID: port, SubsysNQN: nqn, HostNQN: identity.NQN})
}

// rig is a service in a synctest bubble, with a policy that wants what it is
// told, and a kernel that can be tampered with.
type rig struct {
	t       *testing.T
	kind    tid.Kind
	svc     *service.Service
	kernel  *kernel
	policy  *policy
	outside *outside
	reload  chan struct{}
	load    error // what reading the configuration gives
	cancel  context.CancelCauseFunc
	done    chan error
}

// newRig starts nothing yet. The target listens at port 1, which offers the
// subsystems.
func newRig(t *testing.T, kind tid.Kind, nqns ...string) *rig {
	r := &rig{
		t: t, kind: kind, policy: &policy{}, outside: &outside{}, reload: make(chan struct{}), done: make(chan error, 1),
		kernel: &kernel{Kernel: stastest.NewKernel(), calls: make(map[string]int)},
	}
	r.kernel.OpenPort(1, addr, "1")
	for _, nqn := range nqns {
		r.kernel.Offer(nqn, addr, "1", true)
	}
	r.svc = service.New(kind, r.policy, r.env(func(*service.Env) {}))
	r.policy.kernel, r.policy.engine = r.kernel, r.svc.Engine()
	return r
}

// env is what the service gets from outside, but for a change.
func (r *rig) env(change func(*service.Env)) service.Env {
	env := service.Env{
		Kernel: r.kernel, Bus: r.outside, State: r.outside, Supervisor: r.outside,
		Config:   func() (*conf.Config, error) { return &conf.Config{}, r.load },
		Identity: func(boot.Tables) (hostid.Identity, error) { return identity, nil },
		Reload:   r.reload,
		Log:      daemon.NewLogger(r.t.Output(), false, new(slog.LevelVar)),
		Level:    new(slog.LevelVar),
	}
	change(&env)
	return env
}

// start runs the service until the test ends.
func (r *rig) start() {
	var ctx context.Context
	ctx, r.cancel = context.WithCancelCause(context.Background())
	svc, done := r.svc, r.done
	go func() { done <- svc.Run(ctx, nil); close(done) }()
	r.t.Cleanup(func() {
		r.cancel(nil)
		if err := <-r.done; err != nil {
			r.t.Errorf("ended with: %v", err)
		}
		r.kernel.Close()
		pause(10 * time.Minute) // the last operation has come back from the kernel
	})
	synctest.Wait()
}

// do runs a function in the loop, and waits until nothing moves any more.
func (r *rig) do(f func()) {
	r.t.Helper()
	if err := r.svc.Loop().Do(r.t.Context(), f); err != nil {
		r.t.Fatal(err)
	}
	synctest.Wait()
}

// want makes the service want a controller, and gives it time to connect.
func (r *rig) want(ids ...tid.TID) {
	r.t.Helper()
	for _, id := range ids {
		r.do(func() { r.svc.Engine().Want(id, r.options(id), time.Now()) })
		pause(100 * time.Millisecond)
	}
}

func (r *rig) options(id tid.TID) fabrics.Options {
	return service.Options(id, r.kind, conf.Params{}, identity)
}

func pause(d time.Duration) {
	time.Sleep(d)
	synctest.Wait()
}

// expect compares the kernel's controllers, written as "nvme0=NQN:PORT …".
func (r *rig) expect(what, want string) {
	r.t.Helper()
	var all []string
	for _, c := range r.kernel.Controllers() {
		all = append(all, c.Name+"="+c.SubsysNQN+":"+c.TrSvcID)
	}
	if got := strings.Join(all, " "); got != want {
		r.t.Errorf("%s: the kernel has %q, want %q", what, got, want)
	}
}

// replace gives the number of a controller to another one.
func (r *rig) replace(name string, by tid.TID) {
	if err := r.kernel.Kernel.Delete(name); err != nil {
		r.t.Error(err)
	}
	if got, err := r.kernel.Kernel.Connect(r.options(by)); got != name || err != nil {
		r.t.Errorf("%s instead of %s: %v", got, name, err)
	}
}

// policy notes what it is told. It belongs to the loop.
type policy struct {
	kernel   service.Kernel
	engine   *reconcile.Engine[fabrics.Options]
	applied  int
	events   []reconcile.Event
	logs     []string // "PORT: NQN…" of each log that was read
	changed  int
	overruns int
	task     func(context.Context) error
	guard    error
	apply    func(*conf.Config, hostid.Identity)
}

func (p *policy) Event(ev reconcile.Event)             { p.events = append(p.events, ev) }
func (p *policy) Changed(uevent.Event)                 { p.changed++ }
func (p *policy) Info(tid.TID, bool, stasbus.Dict)     {}
func (p *policy) AddTo(*stasbus.Report)                {}
func (p *policy) Tasks() []func(context.Context) error { return []func(context.Context) error{p.run} }

func (p *policy) Apply(cfg *conf.Config, identity hostid.Identity) {
	p.applied++
	if p.apply != nil {
		p.apply(cfg, identity)
	}
}

func (p *policy) run(ctx context.Context) error {
	if p.task != nil {
		return p.task(ctx)
	}
	return nil
}

func (p *policy) Guard(reconcile.Op[fabrics.Options]) error { return p.guard }

func (p *policy) Overrun() {
	p.overruns++
	p.engine.RequestAllWork(time.Now())
}

func (p *policy) Work(ctx context.Context, op reconcile.Op[fabrics.Options]) (func(), error) {
	log, err := p.kernel.DiscoveryLog(ctx, op.Device, 0)
	return func() { p.took(op.TID, log) }, err
}

func (p *policy) took(id tid.TID, log nvme.DiscoveryLog) {
	text := id.TrSvcID + ":"
	for _, e := range log.Entries {
		if e.SubType == nvme.NVMSubsystem {
			text += " " + e.SubNQN
		}
	}
	p.logs = append(p.logs, text)
}

// outside is the bus, the service manager and the state file.
type outside struct {
	busErr error

	mu    sync.Mutex // guards the following
	told  []string   // the service manager
	probe func(context.Context) error
	saved string
}

func (o *outside) Run(ctx context.Context, _ stasbus.Backend, ready func()) error {
	if o.busErr != nil {
		return o.busErr
	}
	ready()
	<-ctx.Done()
	return nil
}

func (o *outside) LogPagesChanged(tid.TID, string) {}
func (o *outside) DCRemoved()                      {}

func (o *outside) tell(s string) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.told = append(o.told, s)
}

func (o *outside) Ready(status string) { o.tell("ready: " + status) }
func (o *outside) Reloading()          { o.tell("reloading") }
func (o *outside) Stopping()           { o.tell("stopping") }

func (o *outside) Watchdog(ctx context.Context, probe func(context.Context) error) error {
	o.mu.Lock()
	o.probe = probe
	o.mu.Unlock()
	<-ctx.Done()
	return nil
}

func (o *outside) Load(any) error { return fs.ErrNotExist }

func (o *outside) Save(state json.RawMessage) error {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.saved = string(state)
	return nil
}

// kernel counts its calls, and has a hook before each. An error of the hook is
// the call's.
type kernel struct {
	*stastest.Kernel
	deaf bool // gives no uevents

	mu    sync.Mutex // guards the following
	hook  func(call string) error
	calls map[string]int
}

func (k *kernel) before(call string) error {
	k.mu.Lock()
	k.calls[call]++
	hook := k.hook
	k.mu.Unlock()
	if hook == nil {
		return nil
	}
	return hook(call)
}

// on sets the hook for one call.
func (k *kernel) on(call string, hook func() error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.hook = func(c string) error {
		if c == call {
			return hook()
		}
		return nil
	}
}

// count is how often a call was made since it was last asked for.
func (k *kernel) count(call string) int {
	k.mu.Lock()
	defer k.mu.Unlock()
	n := k.calls[call]
	k.calls[call] = 0
	return n
}

func (k *kernel) Names() ([]string, error) {
	if err := k.before("names"); err != nil {
		return nil, err
	}
	return k.Kernel.Names()
}

func (k *kernel) Kind(name string) (nvmesysfs.Kind, error) {
	if err := k.before("kind " + name); err != nil {
		return nvmesysfs.Unknown, err
	}
	return k.Kernel.Kind(name)
}

func (k *kernel) Read(name string) (nvmesysfs.Controller, error) {
	if err := k.before("read " + name); err != nil {
		return nvmesysfs.Controller{}, err
	}
	return k.Kernel.Read(name)
}

func (k *kernel) DiscoveryLog(ctx context.Context, name string, lsp uint8) (nvme.DiscoveryLog, error) {
	if err := k.before("log " + name); err != nil {
		return nvme.DiscoveryLog{}, err
	}
	return k.Kernel.DiscoveryLog(ctx, name, lsp)
}

func (k *kernel) Probe(ctx context.Context, o fabrics.Options) error {
	if err := k.before("probe"); err != nil {
		return err
	}
	return k.Kernel.Probe(ctx, o)
}

func (k *kernel) Connect(o fabrics.Options) (string, error) {
	if err := k.before("connect"); err != nil {
		return "", err
	}
	return k.Kernel.Connect(o)
}

func (k *kernel) Delete(name string) error {
	if err := k.before("delete " + name); err != nil {
		return err
	}
	return k.Kernel.Delete(name)
}

func (k *kernel) Listen() (service.Events, error) {
	events, err := k.Kernel.Listen()
	if k.deaf {
		return deaf{events}, err
	}
	return events, err
}

// deaf is a source of events from which nothing comes.
type deaf struct{ service.Events }

func (deaf) Receive(ctx context.Context) (uevent.Event, error) {
	<-ctx.Done()
	return uevent.Event{}, ctx.Err()
}

var discard = slog.New(slog.DiscardHandler)
