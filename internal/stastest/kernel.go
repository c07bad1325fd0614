// Package stastest has what tests put in place of the world around the
// daemons: a kernel with an NVMe-oF target behind it, and a bus.
package stastest

import (
	"cmp"
	"context"
	"fmt"
	"io/fs"
	"maps"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"github.com/nvme-stas/stas/internal/registry"
	"github.com/nvme-stas/stas/internal/service"
	"github.com/nvme-stas/stas/internal/tid"
	"github.com/nvme-stas/stas/pkg/fabrics"
	"github.com/nvme-stas/stas/pkg/nvme"
	"github.com/nvme-stas/stas/pkg/nvmesysfs"
	"github.com/nvme-stas/stas/pkg/uevent"
)

// What the kernel does when it is not told otherwise (nvme/host/fabrics.h).
const (
	defaultReconnectDelay = 10
	defaultCtrlLossTMO    = 600
	connectTime           = 20 * time.Millisecond
	searchTime            = 30 * time.Millisecond // of all processes
)

// How long the kernel waits for a target that says nothing (tcp.c: TCP_SYNCNT
// 1, 10 s for ICResp; nvme_core.admin_timeout).
const (
	waitSYN    = 3 * time.Second
	waitICResp = 10 * time.Second
	waitAdmin  = 60 * time.Second
)

// Silence is what a port leaves unanswered.
type Silence int

// The kinds of silence.
const (
	Answers   Silence = iota
	BlackHole         // SYN
	Mute              // ICReq
	MuteLater         // all that comes after ICResp
)

// Kernel is a Linux kernel as far as the daemons can tell, with a target that
// its controllers connect to. Use it in a synctest bubble: its time passes in
// sleeps.
type Kernel struct {
	// connecting is nvmf_dev_mutex: one connect at a time. A channel, because
	// a bubble's time stands still while somebody waits for a mutex.
	connecting chan struct{}
	pending    atomic.Int32 // connects that run, or wait to
	closed     chan struct{}

	mu        sync.Mutex // guards the following
	ctrls     map[string]*ctrl
	ports     map[string]*port
	listeners map[*Events]bool
	networks  map[chan struct{}]bool
	owners    map[string]string   // the host's registry
	serial    uint64              // of the last controller
	used      map[string][]string // disks, and what uses them
	// Multipath makes one disk of the namespaces of a subsystem, whichever
	// controllers lead to it.
	Multipath  bool
	subsystems map[string]int // numbers
	// Looks counts how often the host was searched for what is in use.
	Looks int
	// Connects and Deletes count what the daemons asked for.
	Connects, Deletes int
	// Deleted, if set, is called for each controller that the daemons delete.
	Deleted func(nvmesysfs.Controller)
}

type ctrl struct {
	nvmesysfs.Controller
	serial         uint64
	options        fabrics.Options
	port           *port
	reconnectDelay time.Duration
	attempts       int // reconnects until the kernel gives up, negative: never
	stop           chan struct{}
}

// port is a listener of the target.
type port struct {
	id           int
	addr, svc    string
	open         bool
	silence      Silence
	genctr       uint64
	subsystems   map[string]bool
	unreadable   error // what reading the log page gives
	discoveryNQN string
	identify     func(*nvme.IdentifyController) // see SetIdentify
	dctype       nvme.DCType
	flags        nvme.EntryFlags // of the port's own entry
	referrals    []nvme.DiscoveryLogEntry
	lsp          uint8 // what the log page takes; 0: Supported Log Pages is refused
	lastLSP      uint8
	dim          error // what registering gives
	hosts        map[string]nvme.DiscoveryInformation
	managed      []nvme.DIMTask // all that it was asked
	silent       bool           // sends no AEN
	noKeepAlive  bool           // refuses connections with a KATO
}

// NewKernel returns a kernel without controllers and a target without ports.
func NewKernel() *Kernel {
	return &Kernel{
		connecting: make(chan struct{}, 1),
		closed:     make(chan struct{}),

		ctrls:     make(map[string]*ctrl),
		ports:     make(map[string]*port),
		listeners: make(map[*Events]bool),
		owners:    make(map[string]string),
		used:      make(map[string][]string),

		subsystems: make(map[string]int),
		networks:   make(map[chan struct{}]bool),
	}
}

// OpenPort makes the target listen.
func (k *Kernel) OpenPort(id int, addr, svc string) {
	k.mu.Lock()
	defer k.mu.Unlock()
	p := k.ports[addr+" "+svc]
	if p == nil {
		p = &port{
			id: id, addr: addr, svc: svc, discoveryNQN: nvme.WellKnownDiscoveryNQN,
			subsystems: make(map[string]bool), hosts: make(map[string]nvme.DiscoveryInformation),
		}
		k.ports[addr+" "+svc] = p
	}
	p.open = true
}

// ClosePort ends the listener and resets its connections.
func (k *Kernel) ClosePort(addr, svc string) {
	k.mu.Lock()
	defer k.mu.Unlock()
	p := k.ports[addr+" "+svc]
	p.open = false
	for _, c := range k.ctrls {
		if c.port == p {
			k.lose(c)
		}
	}
}

// Silence makes a port answer less than it should. What is connected stays so.
func (k *Kernel) Silence(addr, svc string, what Silence) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.ports[addr+" "+svc].silence = what
}

// Offer makes a subsystem visible through a port, or invisible.
func (k *Kernel) Offer(nqn, addr, svc string, visible bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	p := k.ports[addr+" "+svc]
	if p.subsystems[nqn] == visible {
		return
	}
	p.genctr++
	if visible {
		p.subsystems[nqn] = true
	} else {
		delete(p.subsystems, nqn)
	}
	for _, c := range k.ctrls {
		switch {
		case c.port != p || c.State != nvmesysfs.Live:
		case c.Kind == nvmesysfs.Discovery:
			k.logChanged(c)
		case c.SubsysNQN == nqn && !visible:
			k.lose(c)
		}
	}
}

// logChanged has a discovery controller tell. The caller holds the lock.
func (k *Kernel) logChanged(c *ctrl) {
	if !c.port.silent {
		k.announce("change", c.Name, "NVME_AEN=0x70f002")
	}
}

// Refer makes a port refer to the discovery controllers of others, and to no
// others than these.
func (k *Kernel) Refer(addr, svc string, to ...Referral) {
	k.mu.Lock()
	defer k.mu.Unlock()
	p := k.ports[addr+" "+svc]
	p.genctr++
	p.referrals = nil
	for _, r := range to {
		p.referrals = append(p.referrals, nvme.DiscoveryLogEntry{
			TrType: nvme.TCP, AdrFam: nvme.FamilyIPv4, SubType: nvme.Referral, CntlID: nvme.CntlIDDynamic, ASQSz: 32,
			TrAddr: r.Addr, TrSvcID: r.Svc, SubNQN: nvme.WellKnownDiscoveryNQN, EFlags: r.Flags,
		})
	}
	for _, c := range k.ctrls {
		if c.port == p && c.State == nvmesysfs.Live && c.Kind == nvmesysfs.Discovery {
			k.logChanged(c)
		}
	}
}

// Referral is where another discovery controller is.
type Referral struct {
	Addr, Svc string
	Flags     nvme.EntryFlags
}

// DC is what the discovery controller of a port is like.
type DC struct {
	Type        nvme.DCType
	Flags       nvme.EntryFlags // of its entry for itself
	LSP         uint8           // what its log page takes; 0: it does not tell
	DIM         error           // what registering gives
	Silent      bool            // it sends no AEN, and says that it does
	NoKeepAlive bool            // it refuses connections with a KATO
}

// SetDC makes the discovery controller of a port like this.
func (k *Kernel) SetDC(addr, svc string, like DC) {
	k.mu.Lock()
	defer k.mu.Unlock()
	p := k.ports[addr+" "+svc]
	p.dctype, p.flags, p.lsp, p.dim, p.silent, p.noKeepAlive = like.Type, like.Flags, like.LSP, like.DIM, like.Silent, like.NoKeepAlive
	for _, c := range k.ctrls {
		if c.port == p && c.Kind == nvmesysfs.Discovery {
			c.DCType = like.Type.String()
		}
	}
}

// Hosts are the registrations at a port by host NQN.
func (k *Kernel) Hosts(addr, svc string) map[string]nvme.DiscoveryInformation {
	k.mu.Lock()
	defer k.mu.Unlock()
	return maps.Clone(k.ports[addr+" "+svc].hosts)
}

// Managed is what a port was asked to do with registrations, in order.
func (k *Kernel) Managed(addr, svc string) []nvme.DIMTask {
	k.mu.Lock()
	defer k.mu.Unlock()
	return slices.Clone(k.ports[addr+" "+svc].managed)
}

// LastLSP are the LSP bits with which a port's log page was last read.
func (k *Kernel) LastLSP(addr, svc string) uint8 {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.ports[addr+" "+svc].lastLSP
}

// Manage implements [service.Kernel].
func (k *Kernel) Manage(_ context.Context, name string, info nvme.DiscoveryInformation, _ time.Duration) error {
	data, err := info.AppendBinary(nil)
	if err != nil {
		return err
	}
	info, err = nvme.DecodeDiscoveryInformation(info.Command(), data)
	if err != nil {
		return err
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	c, err := k.live(name)
	if err != nil {
		return err
	}
	c.port.managed = append(c.port.managed, info.Task)
	switch {
	case c.port.dim != nil:
		return c.port.dim
	case info.Task == nvme.TaskDeregister:
		delete(c.port.hosts, info.EID)
	default:
		c.port.hosts[info.EID] = info
	}
	return nil
}

// SupportedLogPages implements [service.Kernel].
func (k *Kernel) SupportedLogPages(_ context.Context, name string) ([]byte, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	c, err := k.live(name)
	if err != nil {
		return nil, err
	}
	if c.port.lsp == 0 {
		return make([]byte, nvme.SupportedLogPagesSize), nvme.StatusInvalidField
	}
	return nvme.AppendSupportedLogPages(nil, map[uint8]nvme.LogPageSupport{nvme.LogDiscovery: nvme.NewLogPageSupport(c.port.lsp)}), nil
}

// System implements [service.Kernel].
func (k *Kernel) System() (name, version string) { return "host.example", "Linux 6.12 Example 1" }

// BreakLog makes reading the log page of a port fail, or work again with nil.
func (k *Kernel) BreakLog(addr, svc string, err error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.ports[addr+" "+svc].unreadable = err
}

// lose breaks a connection: the kernel tries to get it back and gives up
// some day. There is no event. The caller holds the lock.
func (k *Kernel) lose(c *ctrl) {
	if c.State != nvmesysfs.Live {
		return
	}
	c.State, c.SrcAddr = nvmesysfs.Connecting, ""
	go k.reconnect(c, c.stop)
}

func (k *Kernel) reconnect(c *ctrl, stop <-chan struct{}) {
	for n := 0; ; n++ {
		k.mu.Lock()
		attempts, delay := c.attempts, c.reconnectDelay
		k.mu.Unlock()
		if attempts >= 0 && n >= attempts {
			break
		}
		select {
		case <-stop:
			return
		case <-time.After(delay):
		}
		k.mu.Lock()
		if k.ctrls[c.Name] != c { // removed in this moment
			k.mu.Unlock()
			return
		}
		if c.port.open && c.port.silence == Answers && c.State == nvmesysfs.Connecting {
			if c.Kind == nvmesysfs.IO && !c.port.subsystems[c.SubsysNQN] {
				// Connect Invalid Parameters with DNR: no second attempt.
				k.remove(c)
				k.mu.Unlock()
				return
			}
			c.State, c.SrcAddr = nvmesysfs.Live, sourceOf(c.TrAddr)
			if c.Kind == nvmesysfs.Discovery {
				k.announce("change", c.Name, "NVME_EVENT=rediscover")
			}
			k.announce("change", c.Name, "NVME_EVENT=connected")
			k.mu.Unlock()
			return
		}
		k.mu.Unlock()
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.ctrls[c.Name] == c {
		k.remove(c)
	}
}

// sourceOf is where a connection comes from: target and host are one here.
func sourceOf(traddr string) string { return traddr }

// remove takes a controller out. The caller holds the lock.
func (k *Kernel) remove(c *ctrl) {
	delete(k.ctrls, c.Name)
	close(c.stop)
	k.announce("remove", c.Name)
}

// Announce sends an event to all listeners.
func (k *Kernel) Announce(action, name string, vars ...string) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.announce(action, name, vars...)
}

// announce sends an event to all listeners. The caller holds the lock.
func (k *Kernel) announce(action, name string, vars ...string) {
	ev := uevent.Event{
		Action: action, Subsystem: "nvme", DevName: name,
		DevPath: "/devices/virtual/nvme-fabrics/ctl/" + name, Env: map[string]string{},
	}
	for _, v := range vars {
		for i := range v {
			if v[i] == '=' {
				ev.Env[v[:i]] = v[i+1:]
				break
			}
		}
	}
	for l := range k.listeners {
		l.put(ev)
	}
}

// Names implements [service.Kernel].
func (k *Kernel) Names() ([]string, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	return slices.Collect(maps.Keys(k.ctrls)), nil
}

// Read implements [service.Kernel].
func (k *Kernel) Read(name string) (nvmesysfs.Controller, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	c := k.ctrls[name]
	if c == nil {
		return nvmesysfs.Controller{Name: name}, fmt.Errorf("%s: %w", name, fs.ErrNotExist)
	}
	return c.Controller, nil
}

// State implements [service.Kernel].
func (k *Kernel) State(name string) (nvmesysfs.State, error) {
	c, err := k.Read(name)
	return c.State, err
}

// Adjust implements [service.Kernel].
func (k *Kernel) Adjust(name string, _, now fabrics.Options) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	c := k.ctrls[name]
	if c == nil {
		return fmt.Errorf("%s: %w", name, fs.ErrNotExist)
	}
	c.options.CtrlLossTMO, c.options.ReconnectDelay, c.options.FastIOFailTMO = now.CtrlLossTMO, now.ReconnectDelay, now.FastIOFailTMO
	c.setRetries()
	return nil
}

// Serial tells a controller from a later one of the same name; 0 is none.
func (k *Kernel) Serial(name string) uint64 {
	k.mu.Lock()
	defer k.mu.Unlock()
	if c := k.ctrls[name]; c != nil {
		return c.serial
	}
	return 0
}

// Disconnect removes a controller as somebody else on the host does.
func (k *Kernel) Disconnect(name string) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if c := k.ctrls[name]; c != nil {
		k.remove(c)
	}
}

// Attr reads an attribute of sysfs that shows a parameter of the connection.
func (k *Kernel) Attr(name, attribute string) (string, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	c := k.ctrls[name]
	if c == nil {
		return "", fmt.Errorf("%s: %w", name, fs.ErrNotExist)
	}
	number := func(p *int, def string) string {
		switch {
		case p == nil:
			return def
		case *p < 0:
			return "off"
		}
		return strconv.Itoa(*p)
	}
	values := map[string]string{
		"hostnqn": c.HostNQN, "hostid": c.HostID,
		"ctrl_loss_tmo":    number(c.options.CtrlLossTMO, strconv.Itoa(defaultCtrlLossTMO)),
		"reconnect_delay":  number(c.options.ReconnectDelay, strconv.Itoa(defaultReconnectDelay)),
		"fast_io_fail_tmo": number(c.options.FastIOFailTMO, "off"),
		"kato":             number(c.options.KeepAliveTMO, map[bool]string{true: "0", false: "5"}[c.Kind == nvmesysfs.Discovery]),
	}
	v, ok := values[attribute]
	if !ok {
		return "", fmt.Errorf("%s: attribute %s is not faked", name, attribute)
	}
	return v, nil
}

// Kind implements [service.Kernel].
func (k *Kernel) Kind(name string) (nvmesysfs.Kind, error) {
	c, err := k.Read(name)
	return c.Kind, err
}

// Namespaces implements [service.Kernel]: each I/O controller has one, of
// 1 GiB.
func (k *Kernel) Namespaces(name string) ([]nvmesysfs.Namespace, error) {
	c, err := k.Read(name)
	if err != nil || c.Kind != nvmesysfs.IO {
		return nil, nil
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	return []nvmesysfs.Namespace{{Name: k.disk(c), Size: 1 << 30, ANA: "optimized"}}, nil
}

// disk is the disk that a controller leads to. The caller holds the lock.
func (k *Kernel) disk(c nvmesysfs.Controller) string {
	if k.Multipath {
		n, ok := k.subsystems[c.SubsysNQN]
		if !ok {
			n = len(k.subsystems)
			k.subsystems[c.SubsysNQN] = n
		}
		return fmt.Sprintf("nvme%dn1", n)
	}
	return c.Name + "n1"
}

// Paths implements [service.Kernel].
func (k *Kernel) Paths(disk string) (all []nvmesysfs.Path, err error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	for _, c := range k.ctrls {
		if c.Kind == nvmesysfs.IO && k.disk(c.Controller) == disk {
			all = append(all, nvmesysfs.Path{Controller: c.Name, State: c.State, ANA: "optimized"})
		}
	}
	return all, nil
}

// SetInUse says what uses a disk, or with nothing, that nothing does.
func (k *Kernel) SetInUse(disk string, users ...string) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.used[disk] = users
}

// Held implements [service.Kernel].
func (k *Kernel) Held(disk string) (bool, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	return len(k.used[disk]) > 0, nil
}

// LookAtUse implements [service.Kernel].
func (k *Kernel) LookAtUse() service.DiskUse {
	time.Sleep(searchTime)
	k.mu.Lock()
	defer k.mu.Unlock()
	k.Looks++
	return diskUse(maps.Clone(k.used))
}

type diskUse map[string][]string

func (u diskUse) Of(disk string) ([]string, error) {
	if users := u[disk]; len(users) == 1 && users[0] == Unknown {
		return nil, fmt.Errorf("nobody can tell what uses %s", disk)
	}
	return u[disk], nil
}

// Unknown is, for [Kernel.SetInUse], that nobody knows what uses a disk.
const Unknown = "?"

// Options implements [service.Kernel].
func (k *Kernel) Options() (fabrics.OptionSet, error) {
	return fabrics.NewOptionSet("discovery", "host_iface"), nil
}

// Controllers lists all controllers by name.
func (k *Kernel) Controllers() []nvmesysfs.Controller {
	k.mu.Lock()
	defer k.mu.Unlock()
	var all []nvmesysfs.Controller
	for _, c := range k.ctrls {
		all = append(all, c.Controller)
	}
	slices.SortFunc(all, func(a, b nvmesysfs.Controller) int {
		return cmp.Or(cmp.Compare(len(a.Name), len(b.Name)), cmp.Compare(a.Name, b.Name))
	})
	return all
}

// Probe implements [service.Kernel].
func (k *Kernel) Probe(ctx context.Context, o fabrics.Options) error {
	k.mu.Lock()
	var wait time.Duration
	var errno unix.Errno
	switch p := k.ports[o.TrAddr+" "+o.TrSvcID]; {
	case p == nil, !p.open:
		errno = unix.ECONNREFUSED
	case p.silence == BlackHole:
		wait, errno = waitSYN, unix.ETIMEDOUT
	case p.silence == Mute:
		wait, errno = waitICResp, unix.EAGAIN
	}
	k.mu.Unlock()
	if errno == 0 {
		return nil
	}
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(wait):
	}
	return &fabrics.ConnectError{Options: o, Errno: errno}
}

// Connect implements [service.Kernel].
func (k *Kernel) Connect(o fabrics.Options) (string, error) {
	if (o.HostNQN == "") != (o.HostID == "") {
		return "", &fabrics.ConnectError{Options: o, Errno: unix.EINVAL}
	}
	k.pending.Add(1)
	defer k.pending.Add(-1)
	k.connecting <- struct{}{}
	defer func() { <-k.connecting }()

	k.mu.Lock()
	k.Connects++
	c, err := k.create(o)
	k.mu.Unlock()
	if err != nil {
		return "", err
	}
	select {
	case <-time.After(k.patience(c)):
	case <-k.closed:
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.ctrls[c.Name] != c {
		return "", &fabrics.ConnectError{Options: o, Errno: unix.EINTR}
	}
	if errno := k.handshake(c); errno != 0 {
		k.remove(c)
		return "", &fabrics.ConnectError{Options: o, Errno: errno}
	}
	k.announce("change", c.Name, "NVME_EVENT=connected")
	return c.Name, nil
}

// create makes the controller that a connect begins with: its identity is not
// known yet.
func (k *Kernel) create(o fabrics.Options) (*ctrl, error) {
	for _, c := range k.ctrls {
		if !o.Discovery && c.TrAddr == o.TrAddr && c.TrSvcID == o.TrSvcID && c.SubsysNQN == o.NQN &&
			c.HostNQN == o.HostNQN && c.HostIface == o.HostIface && c.HostTrAddr == o.HostTrAddr {
			return nil, &fabrics.ConnectError{Options: o, Errno: unix.EALREADY}
		}
	}
	for _, c := range k.ctrls { // nvmf_host_add
		if (c.HostNQN == o.HostNQN) != (c.HostID == o.HostID) {
			return nil, &fabrics.ConnectError{Options: o, Errno: unix.EINVAL}
		}
	}
	c := &ctrl{
		options: o,
		Controller: nvmesysfs.Controller{
			Transport: o.Transport, TrAddr: o.TrAddr, TrSvcID: o.TrSvcID,
			HostTrAddr: o.HostTrAddr, HostIface: o.HostIface,
			HostNQN: o.HostNQN, HostID: o.HostID,
			State: nvmesysfs.Connecting, CntrlType: "reserved",
		},
		port: k.ports[o.TrAddr+" "+o.TrSvcID],
		stop: make(chan struct{}),
	}
	c.setRetries()
	c.SubsysNQN = "" // not before Identify
	k.serial++
	c.serial = k.serial
	for n := 0; ; n++ {
		c.Name = "nvme" + strconv.Itoa(n)
		if k.ctrls[c.Name] == nil {
			break
		}
	}
	k.ctrls[c.Name] = c
	c.Model = o.NQN // kept until the handshake
	k.announce("add", c.Name)
	return c, nil
}

// setRetries works out how the kernel tries to get a lost connection back. The
// caller holds the lock.
func (c *ctrl) setRetries() {
	delay := or(c.options.ReconnectDelay, defaultReconnectDelay)
	c.reconnectDelay = time.Duration(delay) * time.Second
	c.attempts = (or(c.options.CtrlLossTMO, defaultCtrlLossTMO) + delay - 1) / delay
	if or(c.options.CtrlLossTMO, 0) < 0 {
		c.attempts = -1
	}
}

// patience is how long the kernel waits for the target.
func (k *Kernel) patience(c *ctrl) time.Duration {
	k.mu.Lock()
	defer k.mu.Unlock()
	if c.port == nil {
		return connectTime
	}
	return [...]time.Duration{connectTime, waitSYN, waitICResp, waitAdmin}[c.port.silence]
}

// handshake is what the target has to say.
func (k *Kernel) handshake(c *ctrl) unix.Errno {
	nqn := c.Model
	switch {
	case c.port == nil || !c.port.open:
		return unix.ECONNREFUSED
	case c.port.silence != Answers:
		return [...]unix.Errno{0, unix.ETIMEDOUT, unix.EAGAIN, unix.EIO}[c.port.silence]
	case nqn == c.port.discoveryNQN && c.port.noKeepAlive && or(c.options.KeepAliveTMO, 0) != 0:
		return unix.EIO // Connect Invalid Parameters
	case nqn == c.port.discoveryNQN:
		c.Kind, c.CntrlType, c.DCType = nvmesysfs.Discovery, "discovery", c.port.dctype.String()
	case c.port.subsystems[nqn]:
		c.Kind, c.CntrlType = nvmesysfs.IO, "io"
	default:
		return unix.EIO // Connect Invalid Parameters
	}
	c.Model, c.SubsysNQN = "Fake", nqn
	c.State, c.SrcAddr = nvmesysfs.Live, sourceOf(c.TrAddr)
	return 0
}

func or(p *int, def int) int {
	if p == nil {
		return def
	}
	return *p
}

// Delete implements [service.Kernel].
func (k *Kernel) Delete(name string) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.Deletes++
	c := k.ctrls[name]
	if c != nil && c.SubsysNQN == "" {
		return unix.EBUSY // its first connect still runs
	}
	if c != nil {
		if k.Deleted != nil {
			k.Deleted(c.Controller)
		}
		k.remove(c)
	}
	return nil
}

// Identify implements [service.Kernel].
func (k *Kernel) Identify(_ context.Context, name string) (nvme.IdentifyController, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	c, err := k.live(name)
	if err != nil {
		return nvme.IdentifyController{}, err
	}
	id := nvme.IdentifyController{Model: c.Model, SubNQN: c.SubsysNQN, KAS: 10, CntrlType: nvme.ControllerIO}
	if c.Kind == nvmesysfs.Discovery {
		id.CntrlType, id.OAES, id.DCType = nvme.ControllerDiscovery, nvme.AENConfigDiscovery, c.port.dctype
	}
	if change := c.port.identify; change != nil {
		change(&id)
	}
	return id, nil
}

// SetIdentify has a port's controllers tell something else when they are asked
// who they are.
func (k *Kernel) SetIdentify(addr, svc string, change func(*nvme.IdentifyController)) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.ports[addr+" "+svc].identify = change
}

// live returns a controller that takes commands. The caller holds the lock.
func (k *Kernel) live(name string) (*ctrl, error) {
	switch c := k.ctrls[name]; {
	case c == nil:
		return nil, unix.ENODEV
	case c.State != nvmesysfs.Live:
		return nil, unix.EAGAIN
	default:
		return c, nil
	}
}

// DiscoveryLog implements [service.Kernel].
func (k *Kernel) DiscoveryLog(_ context.Context, name string, lsp uint8) (nvme.DiscoveryLog, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	c, err := k.live(name)
	if err == nil {
		err = c.port.unreadable
	}
	if err != nil {
		return nvme.DiscoveryLog{}, err
	}
	c.port.lastLSP = lsp
	entry := nvme.DiscoveryLogEntry{
		EFlags: c.port.flags,
		TrType: nvme.TCP, AdrFam: nvme.FamilyIPv4, SubType: nvme.CurrentDiscovery,
		PortID: uint16(c.port.id), CntlID: 0xffff, ASQSz: 32,
		TrAddr: c.port.addr, TrSvcID: c.port.svc, SubNQN: c.port.discoveryNQN,
	}
	log := nvme.DiscoveryLog{GenCtr: c.port.genctr, Entries: []nvme.DiscoveryLogEntry{entry}}
	log.Entries = append(log.Entries, c.port.referrals...)
	for _, nqn := range slices.Sorted(maps.Keys(c.port.subsystems)) {
		entry.SubType, entry.SubNQN, entry.EFlags = nvme.NVMSubsystem, nqn, 0
		log.Entries = append(log.Entries, entry)
	}
	return log, nil
}

// Ifaces implements [service.Kernel].
func (k *Kernel) Ifaces() ([]tid.IfaceAddr, error) { return nil, nil }

// WatchNetwork implements [service.Kernel].
func (k *Kernel) WatchNetwork(ctx context.Context, changed func()) error {
	up := make(chan struct{}, 1)
	k.mu.Lock()
	k.networks[up] = true
	k.mu.Unlock()
	defer func() {
		k.mu.Lock()
		delete(k.networks, up)
		k.mu.Unlock()
	}()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-up:
			changed()
		}
	}
}

// Pending is the number of connects that have not ended.
func (k *Kernel) Pending() int { return int(k.pending.Load()) }

// NetworkUp tells that a link or an address has come up.
func (k *Kernel) NetworkUp() {
	k.mu.Lock()
	defer k.mu.Unlock()
	for up := range k.networks {
		select {
		case up <- struct{}{}:
		default:
		}
	}
}

// Owner implements [service.Kernel].
func (k *Kernel) Owner(name string) string {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.owners[name]
}

// SetOwner is another program that owns a controller.
func (k *Kernel) SetOwner(name, owner string) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.owners[name] = owner
}

// Own implements [service.Kernel].
func (k *Kernel) Own(name string) error {
	k.SetOwner(name, registry.Self)
	return nil
}

// Disown implements [service.Kernel].
func (k *Kernel) Disown(name string, _ uint64) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.ctrls[name] == nil {
		delete(k.owners, name)
	}
	return nil
}

// Sweep implements [service.Kernel].
func (k *Kernel) Sweep() error {
	k.mu.Lock()
	defer k.mu.Unlock()
	maps.DeleteFunc(k.owners, func(name, _ string) bool { return k.ctrls[name] == nil })
	return nil
}

// Listen implements [service.Kernel].
func (k *Kernel) Listen() (service.Events, error) {
	l := &Events{kernel: k, events: make(chan uevent.Event, 1024), overrun: make(chan struct{}, 1)}
	k.mu.Lock()
	defer k.mu.Unlock()
	k.listeners[l] = true
	return l, nil
}

// Overrun makes every listener lose the events that it has not received yet.
func (k *Kernel) Overrun() {
	k.mu.Lock()
	defer k.mu.Unlock()
	for l := range k.listeners {
		for len(l.events) > 0 {
			<-l.events
		}
		l.lose()
	}
}

// Close ends what still runs.
func (k *Kernel) Close() {
	k.mu.Lock()
	defer k.mu.Unlock()
	select {
	case <-k.closed:
	default:
		close(k.closed)
	}
	for _, c := range k.ctrls {
		k.remove(c)
	}
}

// Events is a source of uevents.
type Events struct {
	kernel  *Kernel
	events  chan uevent.Event
	overrun chan struct{}
}

func (l *Events) put(ev uevent.Event) {
	select {
	case l.events <- ev:
	default:
		l.lose()
	}
}

func (l *Events) lose() {
	select {
	case l.overrun <- struct{}{}:
	default:
	}
}

// Receive implements [service.Events].
func (l *Events) Receive(ctx context.Context) (uevent.Event, error) {
	select {
	case ev := <-l.events:
		return ev, nil
	case <-l.overrun:
		return uevent.Event{}, uevent.ErrOverrun
	case <-ctx.Done():
		return uevent.Event{}, ctx.Err()
	}
}

// Close implements [service.Events].
func (l *Events) Close() error {
	l.kernel.mu.Lock()
	defer l.kernel.mu.Unlock()
	delete(l.kernel.listeners, l)
	return nil
}
