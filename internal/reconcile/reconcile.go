// Package reconcile decides what to do about controllers: it compares the
// ones that are wanted with the ones that the kernel has, and names the next
// operations. It is a plain data structure: no goroutines, no clock, no
// system calls. A daemon's loop owns an [Engine], tells it what changed, and
// carries out what [Engine.Next] returns.
//
// The contract:
//
//   - Level-triggered. A decision looks at what is wanted and at the last
//     observation of the kernel, never at the event that led to it. Repeating
//     any call changes nothing.
//   - Once nothing changes any more, what the kernel has becomes what is wanted:
//     whatever fails is tried again, until it succeeds or is no longer asked for.
//   - One operation per controller at a time. What happens meanwhile is looked
//     at when the operation's result arrives.
//   - Nothing is connected before the kernel has been observed completely once,
//     because an existing connection must be adopted and not doubled.
//   - Nothing is disconnected but by [Engine.Unwant], the caller's word that
//     there is positive evidence, and then never while another wanted controller
//     uses the same device; or by [Engine.Drop], an operator's word, once.
//   - A controller that is held is neither connected nor disconnected, but by
//     that word.
//   - Work is bounded. Each start of an operation has a cause: a call, or the end
//     of a pause. Pauses grow with each failure, and with each connection that is
//     lost soon after it was made; evidence ([Engine.Kick]) makes the next attempt
//     due and the pauses short again, but not twice within [kickPause].
//   - Connects are fair: those that never failed come first, then those that fail
//     quickly, and among them each target has its turn. Of one target only so many
//     run at a time, and one if it does not answer.
//   - Each call costs time in the controllers that it concerns; only
//     [Engine.ObserveAll], [Engine.KickAll] and [Engine.All] look at all of them.
//   - Time may jump. When it goes back, all that waits becomes due.
package reconcile

import (
	"cmp"
	"container/heap"
	"errors"
	"maps"
	"slices"
	"time"

	"github.com/nvme-stas/stas/internal/tid"
)

// OpKind is what an operation does.
type OpKind uint8

// The kinds of operation.
const (
	None       OpKind = iota
	Connect           // create the connection
	Disconnect        // delete the device
	Adjust            // bring the device in line with new parameters
	Work              // use the live device: read the log page of a discovery controller
)

func (k OpKind) String() string {
	return [...]string{"none", "connect", "disconnect", "adjust", "work"}[k]
}

// Op is an operation to carry out. The daemon reports its end with
// [Engine.Done], whatever the outcome.
type Op[P any] struct {
	Kind   OpKind
	TID    tid.TID
	Params P      // as last given to Want
	Was    P      // of Adjust: the parameters that the device has
	Device string // of all but Connect
	// Dropped says of a Disconnect that an operator asked for it ([Engine.Drop]).
	Dropped bool
	// Seen is the device as last observed. Its number may have been given to
	// another controller since, so look again before acting on it.
	Seen Observed
}

// EventKind tells what became of a controller.
type EventKind uint8

// The kinds of event.
const (
	Connected        EventKind = iota // by us
	Adopted                           // the kernel had it already
	Lost                              // the kernel removed it, or somebody else did; Down if it was broken
	ConnectFailed                     // Err, tried again later
	Disconnected                      // by us
	DisconnectFailed                  // Err, tried again later
	WorkFailed                        // Err, tried again later
	Released                          // no longer wanted, connection left alone
	OtherPath                         // what was taken over turned out to take another path
	Adjusted                          // to new parameters
	AdjustFailed                      // Err, tried again later
	Broken                            // the device is there, its connection is not; the kernel is at it
	Back                              // the kernel got it back; Down
)

// ErrLost is a connection that did not last.
var ErrLost = errors.New("it was connected, and was gone at once")

// Event reports a change to the daemon, which logs and publishes it.
type Event struct {
	Kind    EventKind
	TID     tid.TID
	Device  string
	Err     error
	Before  error         // of the failure before, if there was one in this series
	Attempt int           // of a failure: the first has number 1
	Retry   time.Duration // of a failure: time until the next attempt, 0 if there is none
	Down    time.Duration // how long the connection was broken, as far as was seen
}

// Try is an attempt that failed, or a connection that was lost (ErrLost).
type Try struct {
	Kind OpKind
	TID  tid.TID
	Err  error
	// N counts the attempts in a row since there was evidence that something
	// had changed, from 1. A connection that was lost soon counts.
	N     int
	Since time.Duration // since the first of them
	Took  time.Duration
	// Missing counts the controllers of the same target that are wanted and not
	// connected.
	Missing int
}

// Verdict is what a failed connect says of the target, and so of the others
// that are to be connected there.
type Verdict uint8

// The verdicts.
const (
	Unclear Verdict = iota // nothing
	Silent                 // it does not answer, whoever asks
	Answers                // it is there
)

// Config sets what differs between daemons.
type Config[P any] struct {
	Kind  tid.Kind // what is wanted: discovery or I/O controllers
	Limit map[OpKind]int
	// PerTarget limits the connects to one target at a time.
	PerTarget int
	// Target tells what a failed connect says of its target. Nil: nothing.
	Target func(error) Verdict
	// Backoff gives the pause after a failure.
	Backoff func(Try) time.Duration
	// Work asks for a Work operation after each time a device is taken up.
	Work bool
	// Differ tells whether a device that was connected with the parameters was
	// has to be adjusted to now. Nil: never.
	Differ func(was, now P) bool
	// Notify is called for each event, from within Engine methods. It must not
	// call back into the Engine.
	Notify func(Event)
}

// Engine holds the state of all controllers of one daemon.
type Engine[P any] struct {
	cfg      Config[P]
	ctrls    map[tid.TID]*ctrl[P]
	index    tid.Index
	ifaces   tid.Ifaces
	devices  map[string]*device[P]
	seen     map[string]uint64 // newest observation of each name, gone ones included
	complete bool              // the kernel has been observed completely

	targets  map[place]*target[P]
	connects connectQueue[P]
	queue    [Work + 1][]*ctrl[P] // ready for another operation, first in first out
	running  [Work + 1]int
	timers   timerHeap[P]
	order    uint64
	turns    uint64    // of targets
	last     time.Time // see Next
}

// kickPause is how soon evidence makes a controller due a second time.
const kickPause = time.Second

// lasting is how long a connection must be there to count as a success.
const lasting = 10 * time.Second

// RequestAllWork asks for a Work operation on every device that is in use.
func (e *Engine[P]) RequestAllWork(now time.Time) {
	for _, name := range slices.Sorted(maps.Keys(e.devices)) {
		e.RequestWork(name, now)
	}
}

// Observed is a controller as sysfs showed it.
type Observed struct {
	tid.Existing
	Live bool // can be opened and worked with
}

// SameConnection reports whether two observations under one name are of the
// same connection. The source address does not count, because it is shown
// only while the connection is up, nor does what Identify tells later.
func (o Observed) SameConnection(other Observed) bool {
	a, b := o.Existing, other.Existing
	a.SrcAddr, a.Kind, a.Leaving = b.SrcAddr, b.Kind, b.Leaving
	return a == b
}

// device is a controller that the kernel has, and who uses it.
type device[P any] struct {
	Observed
	holders []*ctrl[P]
	down    time.Time // since when it was seen not to be live, zero if it is
	// has are its parameters; told says that they are known.
	has  P
	told bool
	// ending says that it is being disconnected: nobody takes it up.
	ending bool
}

// ctrl is a controller that is wanted, or that is on its way out.
type ctrl[P any] struct {
	tid    tid.TID
	order  uint64
	target *target[P]
	member int  // its place in target.members
	misses bool // counted in target.missing
	params P
	wanted bool
	keep   bool // not wanted: leave the kernel's connection alone
	held   bool // neither connect nor disconnect
	drop   bool // disconnect once, whether wanted or held

	device  string // "" while there is none
	guessed bool   // it was adopted while it did not show which path it takes
	busy    OpKind
	started time.Time
	queued  OpKind
	wake    time.Time // when it is looked at again, zero if it need not be
	since   time.Time // when the device was taken up
	short   int       // connections in a row that did not last
	kicked  time.Time // when it was, or will be, made due for evidence

	conn   trial // connecting, or when not wanted, disconnecting
	adjust trial
	work   trial
	// workDue says that the device shall be worked on; it may become true
	// again while Work runs.
	workDue bool
}

// trial counts the attempts at one thing.
type trial struct {
	failures int           // in a row
	row      int           // in a row since there was evidence of a change
	first    time.Time     // of the row
	next     time.Time     // not before
	err      error         // of the last attempt
	took     time.Duration // the last attempt
}

// afresh makes the next attempt due, and the pauses after it short.
func (t *trial) afresh() { t.row, t.next = 0, time.Time{} }

// New returns an empty engine.
func New[P any](cfg Config[P]) *Engine[P] {
	return &Engine[P]{
		cfg:     cfg,
		ctrls:   make(map[tid.TID]*ctrl[P]),
		devices: make(map[string]*device[P]),
		seen:    make(map[string]uint64),
		targets: make(map[place]*target[P]),
	}
}

// Want says that a controller shall be connected, with these parameters. A
// device that exists is adjusted to new ones as far as that can be done.
func (e *Engine[P]) Want(id tid.TID, params P, now time.Time) {
	c := e.ctrls[id]
	if c == nil {
		e.order++
		c = &ctrl[P]{tid: id, order: e.order, workDue: e.cfg.Work}
		e.ctrls[id] = c
		e.join(c)
	}
	c.params = params
	if !c.wanted {
		c.wanted = true
		c.conn = trial{}
		e.evaluate(c, now)
	} else if e.differs(c) {
		c.adjust = trial{}
		e.evaluate(c, now)
	}
}

// differs reports whether the device of a controller has to be adjusted to its
// parameters. Of several that use one device the first has its way.
func (e *Engine[P]) differs(c *ctrl[P]) bool {
	d := e.devices[c.device]
	if d == nil || e.cfg.Differ == nil || !d.told {
		return false
	}
	for _, h := range d.holders {
		if h.wanted {
			return h == c && e.cfg.Differ(d.has, c.params)
		}
	}
	return false
}

// Unwant says that a controller is provably no longer wanted. Its connection
// is deleted, or with keep, left to itself.
func (e *Engine[P]) Unwant(id tid.TID, keep bool, now time.Time) {
	c := e.ctrls[id]
	if c == nil || !c.wanted {
		return
	}
	c.wanted = false
	c.keep = keep
	c.conn = trial{}
	name := c.device
	e.evaluate(c, now)
	e.evaluateAll(name, now) // another one may have its way now
}

// evaluateAll looks at all that use a device.
func (e *Engine[P]) evaluateAll(name string, now time.Time) {
	if d := e.devices[name]; d != nil {
		for _, c := range slices.Clone(d.holders) { // one may be released meanwhile
			e.evaluate(c, now)
		}
	}
}

// Wanted reports whether the controller is wanted.
func (e *Engine[P]) Wanted(id tid.TID) bool {
	c := e.ctrls[id]
	return c != nil && c.wanted
}

// Kick makes the next attempt at a controller due at once: something has
// changed that makes success likely. What comes within [kickPause] after a kick
// counts when that is over.
func (e *Engine[P]) Kick(id tid.TID, now time.Time) {
	if c := e.ctrls[id]; c != nil {
		e.kick(c, now)
	}
}

func (e *Engine[P]) kick(c *ctrl[P], now time.Time) {
	due := now
	switch since := now.Sub(c.kicked); {
	case since <= -kickPause: // the clock was put back
	case since < 0:
		due = c.kicked
	case since < kickPause:
		due = c.kicked.Add(kickPause)
	}
	c.kicked = due
	for _, t := range []*trial{&c.conn, &c.adjust, &c.work} {
		t.row = 0
		if t.next.After(due) {
			t.next = due
		}
	}
	e.evaluate(c, now)
}

// KickAll is Kick for every controller: something of the host has changed, a
// link or an address is up.
func (e *Engine[P]) KickAll(now time.Time) {
	for _, c := range e.inOrder() {
		e.kick(c, now)
	}
}

// Hold says that an operator wants a controller left as it is, or no longer:
// while it is held it is neither connected nor disconnected, but worked with.
// A controller that the engine does not have is not held: call it after Want.
func (e *Engine[P]) Hold(id tid.TID, held bool, now time.Time) {
	c := e.ctrls[id]
	if c == nil || c.held == held {
		return
	}
	c.held = held
	c.conn.afresh()
	e.evaluate(c, now)
}

// Drop disconnects the device of a controller once, on an operator's word:
// also one that is wanted, which then comes back unless it is held, and also
// one that is held. One that fails is not repeated. It reports whether there is
// a device.
func (e *Engine[P]) Drop(id tid.TID, now time.Time) bool {
	c := e.ctrls[id]
	if c == nil || c.device == "" {
		return false
	}
	c.drop = true
	e.evaluate(c, now)
	return true
}

// RequestWork asks for a Work operation on each controller that uses the
// device. One that is running is followed by another.
func (e *Engine[P]) RequestWork(name string, now time.Time) {
	if d := e.devices[name]; d != nil {
		for _, c := range slices.Clone(d.holders) { // one may be released meanwhile
			c.workDue = true
			c.work.afresh()
			e.evaluate(c, now)
		}
	}
}

// Users lists the controllers that use a device.
func (e *Engine[P]) Users(name string) []tid.TID {
	var all []tid.TID
	if d := e.devices[name]; d != nil {
		for _, c := range slices.Clone(d.holders) { // one may be released meanwhile
			all = append(all, c.tid)
		}
	}
	return all
}

// Seen is a device that can be used, as last observed.
func (e *Engine[P]) Seen(name string) (Observed, bool) {
	d := e.devices[name]
	if d == nil {
		return Observed{}, false
	}
	return d.Observed, true
}

// Existing is the connection that the kernel has and that serves a controller,
// whether or not that is wanted.
func (e *Engine[P]) Existing(id tid.TID) (device string, ok bool) {
	return e.index.Find(id, e.cfg.Kind, e.ifaces)
}

// Params are those that were last given to Want.
func (e *Engine[P]) Params(id tid.TID) (p P, ok bool) {
	c := e.ctrls[id]
	if c == nil {
		return p, false
	}
	return c.params, true
}

// SetIfaces tells the addresses of the host's network interfaces, which
// decide whether an existing connection takes the path that is wanted.
func (e *Engine[P]) SetIfaces(ifaces tid.Ifaces) { e.ifaces = ifaces }

// Observe takes in one controller as sysfs showed it, or nil if it is not
// there. seq is a number that was drawn before the attributes were read, from
// a counter that only grows: a slow reader never overwrites newer knowledge.
func (e *Engine[P]) Observe(name string, seq uint64, seen *Observed, now time.Time) {
	if seq <= e.seen[name] {
		return
	}
	e.seen[name] = seq
	d := e.devices[name]
	if seen == nil {
		if d == nil {
			return
		}
		e.index.Delete(name)
		delete(e.devices, name)
	} else {
		e.index.Put(name, seen.Existing)
		if d == nil {
			d = &device[P]{Observed: *seen}
			if !seen.Live {
				d.down = now
			}
			e.devices[name] = d
			return
		}
		stays := d.SameConnection(*seen) && !seen.Leaving
		d.Observed = *seen
		if stays {
			e.watchDown(name, d, now)
			e.evaluateAll(name, now)
			return
		}
	}
	holders, down := d.holders, d.downFor(now)
	d.holders, d.down, d.told, d.ending = nil, time.Time{}, false, false
	if seen != nil && !seen.Live {
		d.down = now
	}
	for _, c := range holders {
		c.device, c.guessed, c.drop = "", false, false
		if c.busy != Disconnect { // else Done tells
			e.lost(c, now)
			e.notify(Event{Kind: Lost, TID: c.tid, Device: name, Down: down})
		}
		e.evaluate(c, now)
	}
}

// watchDown follows whether the connection of a device works.
func (e *Engine[P]) watchDown(name string, d *device[P], now time.Time) {
	switch {
	case d.Live && !d.down.IsZero():
		down := d.downFor(now)
		d.down = time.Time{}
		for _, c := range slices.Clone(d.holders) { // one may be released meanwhile
			e.notify(Event{Kind: Back, TID: c.tid, Device: name, Down: down})
			e.answers(c.target, now)
		}
	case !d.Live && d.down.IsZero():
		d.down = now
		for _, c := range slices.Clone(d.holders) { // one may be released meanwhile
			e.notify(Event{Kind: Broken, TID: c.tid, Device: name})
		}
	}
}

func (d *device[P]) downFor(now time.Time) time.Duration {
	if d.down.IsZero() {
		return 0
	}
	return max(now.Sub(d.down), 1)
}

// lost plans to connect what was lost. What is lost again and again soon after
// it was connected waits longer and longer.
func (e *Engine[P]) lost(c *ctrl[P], now time.Time) {
	if now.Sub(c.since) >= lasting {
		c.short = 0
	}
	c.conn = trial{row: c.short, first: now}
	c.short++
	e.pause(&c.conn, Try{Kind: Connect, TID: c.tid, Err: ErrLost, Missing: c.target.missing + 1}, now)
}

// ObserveAll takes in all controllers, read after seq was drawn. One that is
// there but could not be read is nil, and stays what it was. Every controller
// is then looked at again, which repairs what a lost event broke.
func (e *Engine[P]) ObserveAll(seq uint64, seen map[string]*Observed, now time.Time) {
	for _, name := range slices.Sorted(maps.Keys(seen)) {
		if x := seen[name]; x != nil {
			e.Observe(name, seq, x, now)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(e.devices)) {
		if _, ok := seen[name]; !ok {
			e.Observe(name, seq, nil, now)
		}
	}
	e.complete = true
	for _, c := range e.inOrder() {
		e.verify(c)
		e.evaluate(c, now)
	}
}

// verify gives up a connection that was adopted while it was broken, now that
// it shows to be one of another path: or else that path would never be made.
func (e *Engine[P]) verify(c *ctrl[P]) {
	if !c.guessed || !c.wanted || c.busy != None || e.devices[c.device].SrcAddr == "" {
		return
	}
	name := c.device
	c.guessed = false
	if !e.index.Serves(name, c.tid, e.cfg.Kind, e.ifaces) {
		e.detach(c)
		e.notify(Event{Kind: OtherPath, TID: c.tid, Device: name})
	}
}

// Done takes in the end of an operation. For a Connect that succeeded, device
// is the new instance; what sysfs shows of it must have been observed before.
func (e *Engine[P]) Done(op Op[P], device string, err error, now time.Time) {
	c := e.ctrls[op.TID]
	if c == nil || c.busy != op.Kind {
		return // not ours; cannot happen as long as the daemon reports each end once
	}
	e.running[op.Kind]--
	c.busy = None
	took := max(now.Sub(c.started), 0)
	if op.Kind == Connect {
		defer e.ended(c, err, now)
	}
	if d := e.devices[op.Device]; d != nil && op.Kind == Disconnect {
		d.ending = false
	}
	switch {
	case op.Kind == Work:
		if err != nil {
			e.failed(&c.work, WorkFailed, c, op, err, took, now)
			c.workDue = true
		} else {
			c.work = trial{}
		}
	case op.Kind == Adjust:
		if err != nil {
			e.failed(&c.adjust, AdjustFailed, c, op, err, took, now)
			break
		}
		c.adjust = trial{}
		if d := e.devices[op.Device]; d != nil && op.Seen.SameConnection(d.Observed) {
			d.has = op.Params
		}
		e.notify(Event{Kind: Adjusted, TID: c.tid, Device: op.Device})
	case op.Kind == Connect && err == nil:
		if d := e.devices[device]; d != nil && !d.Leaving {
			d.has, d.told = op.Params, true
			e.attach(c, device, Connected, now)
		} else if c.wanted {
			e.failed(&c.conn, ConnectFailed, c, op, ErrLost, took, now)
		}
	case op.Kind == Connect:
		if c.wanted {
			e.failed(&c.conn, ConnectFailed, c, op, err, took, now)
		}
	case op.Kind == Disconnect && err == nil:
		e.detach(c)
		c.conn = trial{}
		e.notify(Event{Kind: Disconnected, TID: c.tid, Device: op.Device})
	case op.Dropped:
		c.drop = false
		e.notify(Event{Kind: DisconnectFailed, TID: c.tid, Device: op.Device, Err: err, Attempt: 1})
	case op.Kind == Disconnect:
		e.failed(&c.conn, DisconnectFailed, c, op, err, took, now)
	}
	e.evaluate(c, now)
	if op.Kind != Work {
		e.evaluateAll(device, now) // it may have other parameters now
	}
}

func (e *Engine[P]) failed(t *trial, kind EventKind, c *ctrl[P], op Op[P], err error, took time.Duration, now time.Time) {
	before := t.err
	t.failures++
	t.err, t.took = err, took
	pause := e.pause(t, Try{Kind: op.Kind, TID: c.tid, Err: err, Took: took, Missing: max(c.target.missing, 1)}, now)
	e.notify(Event{Kind: kind, TID: c.tid, Device: op.Device, Err: err, Before: before, Attempt: t.failures, Retry: pause})
}

func (e *Engine[P]) pause(t *trial, try Try, now time.Time) time.Duration {
	if t.row++; t.row == 1 || t.first.After(now) {
		t.first = now
	}
	try.N, try.Since = t.row, now.Sub(t.first)
	pause := e.cfg.Backoff(try)
	t.next = now.Add(pause)
	if now.After(e.last) {
		e.last = now // the clock may be put back before Next is called again
	}
	return pause
}

// decide names the operation that a controller needs now. If it needs one
// later, it says when.
func (e *Engine[P]) decide(c *ctrl[P], now time.Time) (kind OpKind, later time.Time) {
	due := func(k OpKind, t trial) (OpKind, time.Time) {
		if t.next.After(now) {
			return None, t.next
		}
		return k, time.Time{}
	}
	switch {
	case c.busy != None:
		return None, time.Time{}
	case c.drop && c.device != "":
		return Disconnect, time.Time{}
	case !c.wanted:
		if c.device == "" || c.keep || c.held || e.shared(c) {
			return None, time.Time{}
		}
		return due(Disconnect, c.conn)
	case c.device != "":
		if e.differs(c) {
			kind, later = due(Adjust, c.adjust)
		}
		if kind == None && c.workDue && e.devices[c.device].Live {
			adjust := later
			kind, later = due(Work, c.work)
			if kind == None && !adjust.IsZero() && adjust.Before(later) {
				later = adjust
			}
		}
		return kind, later
	case !e.complete, c.held:
		return None, time.Time{}
	}
	return due(Connect, c.conn)
}

// evaluate looks at a controller and puts it where it belongs: into the queue
// of its next operation, before a timer, or out of the engine.
func (e *Engine[P]) evaluate(c *ctrl[P], now time.Time) {
	defer c.count()
	if c.busy != None {
		return
	}
	if c.device == "" && e.complete {
		if name, ok := e.index.Find(c.tid, e.cfg.Kind, e.ifaces); ok && !e.devices[name].ending {
			e.attach(c, name, Adopted, now)
		}
	}
	kind, later := e.decide(c, now)
	if kind == None && !later.IsZero() && !later.Equal(c.wake) {
		heap.Push(&e.timers, timer[P]{later, c})
	}
	if c.wake = later; kind != None {
		c.wake = time.Time{}
	}
	switch {
	case kind != None:
		if c.queued != kind {
			c.queued = kind
			if kind == Connect {
				e.enqueue(c)
			} else {
				e.queue[kind] = append(e.queue[kind], c)
			}
		}
	case !later.IsZero():
	case !c.wanted && (e.complete || c.keep) && !e.waits(c):
		// Nothing is left to do. Before the kernel has been observed, it is not
		// known whether there is a connection to delete.
		name := c.device
		e.detach(c)
		delete(e.ctrls, c.tid)
		e.leave(c)
		if name != "" {
			e.notify(Event{Kind: Released, TID: c.tid, Device: name})
		}
	}
}

// waits reports whether a controller is still to be disconnected, once it is
// no longer held.
func (e *Engine[P]) waits(c *ctrl[P]) bool {
	return c.held && c.device != "" && !c.keep && !e.shared(c)
}

// Next returns the operations to start now, and when to call again if nothing
// else happens before (zero: not needed).
func (e *Engine[P]) Next(now time.Time) (ops []Op[P], wake time.Time) {
	if now.Before(e.last) {
		// The clock was put back: what waits would do so for too long.
		for _, c := range e.inOrder() {
			c.kicked = time.Time{}
			e.kick(c, now)
		}
	}
	e.last = now
	for len(e.timers) > 0 {
		t := e.timers[0]
		stale := !t.c.wake.Equal(t.at) || e.ctrls[t.c.tid] != t.c
		if !stale && t.at.After(now) {
			break
		}
		heap.Pop(&e.timers)
		if !stale {
			t.c.wake = time.Time{}
			e.evaluate(t.c, now)
		}
	}
	for e.running[Connect] < e.cfg.Limit[Connect] {
		c := e.dequeue()
		if c == nil {
			break
		}
		if op, ok := e.start(c, Connect, now); ok {
			c.target.running++
			ops = append(ops, op)
		}
		e.offer(c.target)
	}
	for kind := Disconnect; kind <= Work; kind++ {
		for len(e.queue[kind]) > 0 && e.running[kind] < e.cfg.Limit[kind] {
			c := e.queue[kind][0]
			e.queue[kind] = e.queue[kind][1:]
			if op, ok := e.start(c, kind, now); ok {
				ops = append(ops, op)
			}
		}
	}
	if len(e.timers) > 0 {
		wake = e.timers[0].at
	}
	return ops, wake
}

// start begins the operation that a controller has waited for, if it still
// needs it.
func (e *Engine[P]) start(c *ctrl[P], kind OpKind, now time.Time) (op Op[P], ok bool) {
	if c.queued != kind || e.ctrls[c.tid] != c {
		return op, false // it went elsewhere while it waited
	}
	c.queued = None
	if again, _ := e.decide(c, now); again != kind {
		e.evaluate(c, now)
		return op, false
	}
	c.busy, c.started = kind, now
	e.running[kind]++
	op = Op[P]{Kind: kind, TID: c.tid, Params: c.params, Device: c.device}
	switch kind {
	case Work:
		c.workDue = false
	case Adjust:
		op.Was = e.devices[c.device].has
	case Disconnect:
		op.Dropped = c.drop
		e.devices[c.device].ending = true
	}
	if d := e.devices[c.device]; d != nil {
		op.Seen = d.Observed
	}
	return op, true
}

func (e *Engine[P]) attach(c *ctrl[P], name string, how EventKind, now time.Time) {
	e.detach(c)
	c.device, c.since = name, now
	c.conn, c.adjust, c.work = trial{}, trial{}, trial{}
	c.workDue = e.cfg.Work
	d := e.devices[name]
	if !d.told {
		d.has, d.told = c.params, true // nobody knows better
	}
	c.guessed = how == Adopted && d.SrcAddr == ""
	d.holders = append(d.holders, c)
	e.notify(Event{Kind: how, TID: c.tid, Device: name})
	if !d.down.IsZero() {
		e.notify(Event{Kind: Broken, TID: c.tid, Device: name})
	}
}

func (e *Engine[P]) detach(c *ctrl[P]) {
	if d := e.devices[c.device]; d != nil {
		d.holders = slices.DeleteFunc(d.holders, func(h *ctrl[P]) bool { return h == c })
	}
	c.device, c.guessed, c.drop = "", false, false
}

// shared reports whether another controller that is wanted or held, or whose
// connection is to be kept, uses the same device.
func (e *Engine[P]) shared(c *ctrl[P]) bool {
	return slices.ContainsFunc(e.devices[c.device].holders, func(h *ctrl[P]) bool {
		return h != c && (h.wanted || h.keep || h.held)
	})
}

func (e *Engine[P]) notify(ev Event) {
	if e.cfg.Notify != nil {
		e.cfg.Notify(ev)
	}
}

// Status is what the engine knows of one controller.
type Status struct {
	TID      tid.TID
	Wanted   bool
	Held     bool      // see [Engine.Hold]
	Device   string    // "" if there is none
	Broken   time.Time // since when the device has been seen not to be live, zero if it is
	Busy     OpKind
	Started  time.Time // of the running operation
	Failures int       // failed connects in a row
	Next     time.Time // next connect attempt, zero if none is planned
	Err      error     // of the last connect
	Work     WorkStatus
}

// WorkStatus tells of a discovery controller's log page reading.
type WorkStatus struct {
	Failures int
	Next     time.Time
	Err      error
}

// Status returns what is known of a controller.
func (e *Engine[P]) Status(id tid.TID) (Status, bool) {
	c := e.ctrls[id]
	if c == nil {
		return Status{}, false
	}
	return e.status(c), true
}

// All returns all controllers in the order in which they were first wanted,
// including those that are being disconnected.
func (e *Engine[P]) All() []Status {
	all := make([]Status, 0, len(e.ctrls))
	for _, c := range e.inOrder() {
		all = append(all, e.status(c))
	}
	return all
}

// Len is the number of controllers.
func (e *Engine[P]) Len() int { return len(e.ctrls) }

func (e *Engine[P]) inOrder() []*ctrl[P] {
	all := make([]*ctrl[P], 0, len(e.ctrls))
	for _, c := range e.ctrls {
		all = append(all, c)
	}
	slices.SortFunc(all, func(a, b *ctrl[P]) int { return cmp.Compare(a.order, b.order) })
	return all
}

func (e *Engine[P]) status(c *ctrl[P]) Status {
	st := Status{
		TID: c.tid, Wanted: c.wanted, Held: c.held, Device: c.device,
		Busy: c.busy, Started: c.started,
		Failures: c.conn.failures, Next: c.conn.next, Err: c.conn.err,
		Work: WorkStatus{Failures: c.work.failures, Next: c.work.next, Err: c.work.err},
	}
	if d := e.devices[c.device]; d != nil {
		st.Broken = d.down
	}
	return st
}

// Devices calls each for every device that is in use.
func (e *Engine[P]) Devices(each func(name string)) {
	for name, d := range e.devices {
		if len(d.holders) > 0 {
			each(name)
		}
	}
}

// timer wakes a controller up. One that was set again meanwhile is recognised
// by its time and skipped.
type timer[P any] struct {
	at time.Time
	c  *ctrl[P]
}

type timerHeap[P any] []timer[P]

func (h timerHeap[P]) Len() int           { return len(h) }
func (h timerHeap[P]) Less(i, j int) bool { return h[i].at.Before(h[j].at) }
func (h timerHeap[P]) Swap(i, j int)      { h[i], h[j] = h[j], h[i] }
func (h *timerHeap[P]) Push(x any)        { *h = append(*h, x.(timer[P])) }
func (h *timerHeap[P]) Pop() any {
	old := *h
	last := old[len(old)-1]
	*h = old[:len(old)-1]
	return last
}
