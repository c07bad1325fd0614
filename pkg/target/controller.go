package target

import (
	"errors"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/nvme-stas/stas/pkg/nvme"
)

// controller is the association of a host with a discovery service or a
// subsystem: an admin queue and, for storage, I/O queues.
type controller struct {
	t        *Target
	listener *listener
	sub      *subsystem // nil: a discovery controller
	id       uint16     // CNTLID
	shown    uint16     // CNTLID as the host is told, which a fault may change
	nqn      string     // by which the host has connected
	hostNQN  string
	hostID   nvme.HostID
	admin    *queue
	since    time.Time
	kato     time.Duration // 0: the connection is not persistent

	view  *view        // the log page it shows; the lock of the target guards it
	last  atomic.Int64 // Unix time in ns when the host was last heard of
	pulse *time.Timer  // looks whether the host is still there

	mu        sync.Mutex // guards what follows
	io        map[uint16]*queue
	cc        uint32
	csts      uint32
	granted   uint16 // I/O queues
	aenConfig uint32
	aers      []*request // that wait for an event
	events    [eventCount]eventState
	changed   []uint32 // namespaces, for the log page
	why       string   // the association was ended
}

// limit is how long an association may be silent before it is given up: two
// keep alive time-outs, which is what a host that counts traffic as life may
// need (Base, "Keep Alive"); the idle time-out where there is no keep alive.
func (c *controller) limit() time.Duration {
	if c.kato > 0 {
		return 2 * c.kato
	}
	return time.Duration(c.listener.Discovery.IdleTimeout)
}

// live begins to watch whether the host is still there.
func (c *controller) live() {
	c.active()
	c.mu.Lock()
	defer c.mu.Unlock()
	c.pulse = time.AfterFunc(c.limit(), c.feel)
}

// feel looks whether the host was heard of lately.
func (c *controller) feel() {
	c.mu.Lock()
	limit := c.limit()
	silent := time.Since(time.Unix(0, c.last.Load()))
	if silent < limit && c.why == "" {
		c.pulse.Reset(limit - silent)
	}
	c.mu.Unlock()
	if silent >= limit {
		c.end(finish, "nothing was heard of the host")
	}
}

// active notes that the host is there. It may be called before Connect.
func (c *controller) active() {
	if c != nil {
		c.last.Store(time.Now().UnixNano())
	}
}

// ready reports whether the host has enabled the controller.
func (c *controller) ready() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.csts&nvme.CSTSReady != 0
}

// addQueue takes an I/O queue in; false if there is one of that ID.
func (c *controller) addQueue(id uint16, q *queue) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.io[id] != nil || c.why != "" {
		return false
	}
	if c.io == nil {
		c.io = make(map[uint16]*queue)
	}
	c.io[id] = q
	return true
}

// leave is told that a queue has ended. The admin queue takes the others along.
func (c *controller) leave(q *queue, err error) {
	if c.admin == q {
		why := "the host has gone"
		if err != nil {
			why = err.Error()
		}
		c.end(finish, why)
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.io[q.id] == q {
		delete(c.io, q.id)
	}
}

// end ends all connections of the association.
func (c *controller) end(how ending, why string) {
	c.mu.Lock()
	if c.why != "" {
		c.mu.Unlock()
		return
	}
	c.why = why
	if c.pulse != nil {
		c.pulse.Stop()
	}
	queues := append([]*queue{c.admin}, queuesOf(c.io)...)
	c.mu.Unlock()
	c.t.log.Info("association ended", "host", c.hostNQN, "cntlid", c.id, "subsystem", c.nqn, "why", why)
	for _, q := range queues {
		q.end(how)
	}
}

// freeze makes all connections of the association silent.
func (c *controller) freeze() {
	c.mu.Lock()
	queues := append([]*queue{c.admin}, queuesOf(c.io)...)
	if c.pulse != nil {
		c.pulse.Stop()
	}
	c.mu.Unlock()
	for _, q := range queues {
		q.freeze()
	}
}

func queuesOf(io map[uint16]*queue) []*queue {
	var all []*queue
	for _, q := range io {
		all = append(all, q)
	}
	return all
}

// Values of CNTLID that mean something else (Base, "Connect").
const (
	dynamicCntlID = 0xffff
	lastCntlID    = 0xffef
)

var errFull = errors.New("no controller ID is free")

// newCntlID returns an ID that was not in use for as long as possible: a host
// must be able to tell its controllers apart over a quick restart.
func (t *Target) newCntlID() (uint16, error) {
	for range lastCntlID {
		t.lastCntlID++
		if t.lastCntlID > lastCntlID {
			t.lastCntlID = 1
		}
		if t.controllers[t.lastCntlID] == nil {
			return t.lastCntlID, nil
		}
	}
	return 0, errFull
}

// controllerOf finds the controller that an I/O queue is for, by what its
// Connect says. The lock of the target is held.
func (t *Target) controllerOf(data nvme.ConnectData) *controller {
	fits := func(c *controller) bool {
		return c.shown == data.CntlID && c.hostNQN == data.HostNQN && c.hostID == data.HostID
	}
	if c := t.controllers[data.CntlID]; c != nil && fits(c) {
		return c
	}
	for _, c := range t.controllers {
		if c.shown != c.id && fits(c) {
			return c
		}
	}
	return nil
}

// controllersOf counts the controllers of a subsystem.
func (t *Target) controllersOf(s *subsystem) (n int) {
	for _, c := range t.controllers {
		if c.sub == s {
			n++
		}
	}
	return n
}

// eventKind is an event that a controller tells its host about.
type eventKind int

const (
	eventNamespaces eventKind = iota
	eventANA
	eventDiscoveryLog
	eventCount
)

// eventKinds are the events with the bit of the Asynchronous Event
// Configuration feature and of OAES that stands for them.
var eventKinds = [eventCount]struct {
	aen nvme.AEN
	bit uint32
	lid uint8
}{
	eventNamespaces:   {nvme.NamespaceChanged, nvme.AENConfigNamespace, nvme.LogChangedNamespaces},
	eventANA:          {nvme.ANAChanged, nvme.AENConfigANA, nvme.LogANA},
	eventDiscoveryLog: {nvme.DiscoveryLogChanged, nvme.AENConfigDiscovery, nvme.LogDiscovery},
}

// eventState is where a host stands with a kind of event: after it was told,
// it is not told again before it has read the log page (Base, "Asynchronous
// Event Request command").
type eventState struct{ pending, masked bool }

// notify tells the host of an event as soon as it can hear it.
func (c *controller) notify(kind eventKind) {
	c.mu.Lock()
	defer c.mu.Unlock()
	enabled := c.aenConfig&eventKinds[kind].bit != 0
	// A persistent connection to a discovery controller is a wish to be told.
	enabled = enabled || kind == eventDiscoveryLog && c.kato > 0 && !c.listener.Discovery.NoAEN
	if !enabled || c.events[kind].masked {
		return
	}
	c.events[kind].pending = true
	c.tell()
}

// tell completes requests by the events that wait.
func (c *controller) tell() {
	for kind := range c.events {
		e := &c.events[kind]
		if !e.pending || len(c.aers) == 0 {
			continue
		}
		e.pending, e.masked = false, true
		c.complete(eventKinds[kind].aen)
	}
}

// complete answers the oldest request with an event.
func (c *controller) complete(aen nvme.AEN) {
	r := c.aers[0]
	c.aers = slices.Delete(c.aers, 0, 1)
	c.admin.answer(r, reply{result: uint64(aen)})
}

// force sends an event whether it is due or not; false if the host waits for
// none.
func (c *controller) force(aen nvme.AEN) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.aers) == 0 {
		return false
	}
	c.complete(aen)
	return true
}

// logRead is told that the host has read a log page, and so knows.
func (c *controller) logRead(lid uint8) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for kind := range c.events {
		if eventKinds[kind].lid == lid {
			c.events[kind] = eventState{}
		}
	}
}

// namespacesChanged notes namespaces for the log page, and tells the host.
func (c *controller) namespacesChanged(ids []uint32) {
	c.mu.Lock()
	for _, id := range ids {
		if !slices.Contains(c.changed, id) {
			c.changed = append(c.changed, id)
		}
	}
	c.mu.Unlock()
	c.notify(eventNamespaces)
}
