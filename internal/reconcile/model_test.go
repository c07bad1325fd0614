package reconcile

import (
	"errors"
	"flag"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strconv"
	"testing"
	"time"

	"github.com/nvme-stas/stas/internal/tid"
)

var (
	modelSeed   = flag.Uint64("seed", 0, "of the first history of TestAnyOrder; 0: by the clock")
	modelEvents = flag.Int("events", 1_000_000, "that happen in TestAnyOrder")
)

// TestAnyOrder throws everything that can happen at an engine, in random
// order, and checks its contract at every step. Once the world is quiet, what
// the kernel has must be what is wanted.
func TestAnyOrder(t *testing.T) {
	seed, events := *modelSeed, *modelEvents
	if seed == 0 {
		seed = uint64(time.Now().UnixNano())
	}
	if testing.Short() {
		events = min(events, 50_000)
	}
	t.Logf("seed %d", seed)
	for ; events > 0; seed++ {
		m := newModel(t, seed)
		n := 50 + m.r.IntN(400)
		for range n {
			m.step()
		}
		m.quiet()
		events -= n
	}
}

// model is a world around an engine: a kernel with its targets, who wants
// what, and operators.
type model struct {
	t    *testing.T
	seed uint64
	r    *rand.Rand
	e    *Engine[int]
	log  []string // of what happened

	now     time.Time
	seq     uint64
	devices map[string]Observed
	params  map[string]int   // of each device
	down    map[place]bool   // targets that do not answer
	late    []func()         // observations that were made and not told yet
	running []Op[int]        // operations
	wants   map[tid.TID]int  // parameters
	gone    map[tid.TID]bool // given up, and not wanted since
	held    map[tid.TID]bool // by an operator
	drops   map[string]int   // devices that an operator wants dropped, by name
	kept    map[tid.TID]bool // given up, but not their connections
	ours    map[string]bool  // devices that were connected by the engine's word
	guard   bool             // nothing may be disconnected
	ops     int              // started
	credit  int              // operations that are accounted for
}

const modelIDs = 8

// modelID is one of the controllers: of three targets, the last of which has
// one that differs by its interface only, so that both may share a device.
func modelID(n int) tid.TID {
	id := subsystem(n)
	id.TrAddr = "10.0.0." + strconv.Itoa(n%3)
	if n == modelIDs-1 {
		id = modelID(n - 1)
		id.HostIface = "eth0"
	}
	return id
}

func newModel(t *testing.T, seed uint64) *model {
	m := &model{
		t: t, seed: seed, r: rand.New(rand.NewPCG(seed, 0)), now: time.Unix(1e6, 0),
		devices: make(map[string]Observed), params: make(map[string]int), down: make(map[place]bool),
		wants: make(map[tid.TID]int), gone: make(map[tid.TID]bool), held: make(map[tid.TID]bool),
		drops: make(map[string]int), kept: make(map[tid.TID]bool), ours: make(map[string]bool),
	}
	m.restart()
	return m
}

func (m *model) fail(format string, args ...any) {
	m.t.Helper()
	last := m.log[max(0, len(m.log)-60):]
	for _, l := range last {
		m.t.Log(l)
	}
	m.t.Fatalf("%s\nthis history again: go test ./internal/reconcile -run TestAnyOrder -events 1 -seed %d", fmt.Sprintf(format, args...), m.seed)
}

func (m *model) say(format string, args ...any) {
	m.log = append(m.log, fmt.Sprintf("%v ", m.now.Sub(time.Unix(1e6, 0)))+fmt.Sprintf(format, args...))
}

// restart begins with a new engine, as a daemon does: it knows whom it wanted,
// whom it gave up, and who is held.
func (m *model) restart() {
	for id := range m.gone {
		if m.e != nil && !m.isKnown(id) {
			delete(m.gone, id)
		}
	}
	for name := range m.params {
		m.params[name] = unknownParams
	}
	m.running, m.late = nil, nil
	clear(m.drops)
	m.e = New(Config[int]{
		Kind: tid.IO, Limit: map[OpKind]int{Connect: 4, Disconnect: 3, Adjust: 2, Work: 3}, PerTarget: 2,
		Work: m.r.IntN(2) == 0,
		Target: func(err error) Verdict {
			if errors.Is(err, errDown) {
				return Silent
			}
			return Answers
		},
		Backoff: func(t Try) time.Duration {
			if t.N < 1 || t.Since < 0 || t.Took < 0 || t.Missing < 0 {
				m.fail("this makes no sense: %+v", t)
			}
			most := min(time.Second<<min(t.N-1, 6), time.Minute)
			return minPause + time.Duration(m.r.Int64N(int64(most)))
		},
		Differ: func(was, now int) bool { return was != now },
		Notify: func(ev Event) {
			if ev.Kind == Adopted {
				m.params[ev.Device] = unknownParams
			}
		},
	})
	for n := range modelIDs {
		id := modelID(n)
		p, wanted := m.wants[id]
		if !wanted && !m.gone[id] {
			continue
		}
		m.e.Want(id, p, m.now)
		m.e.Hold(id, m.held[id], m.now)
		if !wanted {
			m.e.Unwant(id, false, m.now)
		}
	}
}

func (m *model) isKnown(id tid.TID) bool {
	_, ok := m.e.Status(id)
	return ok
}

// unknownParams are those of a device that was there before.
const unknownParams = -1

// minPause is the shortest pause between two attempts.
const minPause = 100 * time.Millisecond

var (
	errDown    = errors.New("it does not answer")
	errFailed  = errors.New("it does not work")
	errAlready = errors.New("the kernel has it")
)

func (m *model) anyID() tid.TID { return modelID(m.r.IntN(modelIDs)) }

// anyDevice is one of those that there are, in an order that does not change.
func (m *model) anyDevice() (string, bool) {
	if len(m.devices) == 0 {
		return "", false
	}
	names := slices.Sorted(maps.Keys(m.devices))
	return names[m.r.IntN(len(names))], true
}

// step lets one thing happen.
func (m *model) step() {
	id := m.anyID()
	name, some := m.anyDevice()
	switch n := m.r.IntN(100); {
	case n < 12:
		m.say("want %v", id)
		m.want(id, m.wants[id])
	case n < 17:
		m.say("unwant %v", id)
		m.unwant(id, false)
	case n < 18:
		m.say("unwant %v, keeping its connection", id)
		m.unwant(id, true)
	case n < 20:
		if p, ok := m.wants[id]; ok {
			m.say("new parameters for %v", id)
			m.want(id, p+1)
		}
	case n < 22:
		m.say("reload")
		m.credit += modelIDs
		m.e.KickAll(m.now)
	case n < 24:
		m.e.Kick(id, m.now)
		m.credit++
	case n < 26:
		m.hold(id, !m.held[id])
	case n < 27:
		if st, ok := m.e.Status(id); ok && m.e.Drop(id, m.now) {
			m.say("drop %v", id)
			m.drops[st.Device]++
			m.credit += modelIDs // who shared it connects again
		}
	case n < 28:
		m.guard = !m.guard
		m.say("guard: %v", m.guard)
	case n < 42:
		m.start()
	case n < 60:
		if len(m.running) > 0 {
			m.finish(m.r.IntN(len(m.running)))
		}
	case n < 65: // the kernel gives up, or somebody deletes it; the event may be lost
		if some {
			m.say("the kernel removes %s", name)
			m.remove(name)
			m.perhapsTell(name)
		}
	case n < 69: // a connection breaks, or comes back
		if some {
			d := m.devices[name]
			d.Live = !d.Live
			m.say("%s is live: %v", name, d.Live)
			m.devices[name] = d
			m.perhapsTell(name)
		}
	case n < 70: // the kernel has begun to take it away
		if some {
			d := m.devices[name]
			d.Live, d.Leaving = false, true
			m.say("%s is leaving", name)
			m.devices[name] = d
			m.perhapsTell(name)
		}
	case n < 73: // somebody else connects what nobody here wants, or what somebody does
		who := subsystem(100 + m.r.IntN(4))
		if m.r.IntN(2) == 0 {
			who = id
		}
		if m.exists(who) == "" {
			at := m.add(who, unknownParams)
			m.say("%s: somebody connects %v", at, who)
			m.perhapsTell(at)
		}
	case n < 75: // a number goes to another controller, and nobody says so
		if some && m.drops[name] == 0 {
			m.say("%s is another controller now", name)
			m.remove(name)
			m.devices[name] = existing(subsystem(200))
			m.perhapsTell(name)
		}
	case n < 79:
		at := placeOf(id)
		m.down[at] = !m.down[at]
		m.say("%v is down: %v", at.traddr, m.down[at])
	case n < 83: // an observation arrives late
		if len(m.late) > 0 {
			i := m.r.IntN(len(m.late))
			tell := m.late[i]
			m.late = slices.Delete(m.late, i, i+1)
			tell()
		}
	case n < 86: // events were lost
		m.say("overrun")
		m.pass()
	case n < 87:
		m.say("restart")
		m.credit += 2 * modelIDs
		m.restart()
	case n < 88:
		jump := time.Duration(m.r.Int64N(int64(2*time.Hour))) - time.Hour
		m.say("the clock jumps by %v", jump)
		m.now = m.now.Add(jump)
		m.credit += modelIDs * (2 + int(max(jump, 0)/minPause))
	default:
		d := time.Duration(m.r.Int64N(int64(4 * time.Second)))
		m.now = m.now.Add(d)
		m.credit += modelIDs * (1 + int(d/minPause))
		m.start()
	}
	m.invariants()
}

func (m *model) want(id tid.TID, p int) {
	m.wants[id] = p
	delete(m.gone, id)
	delete(m.kept, id)
	m.e.Want(id, p, m.now)
	m.e.Hold(id, m.held[id], m.now) // the engine may have forgotten it
	m.credit += 2
}

func (m *model) unwant(id tid.TID, keep bool) {
	if _, ok := m.wants[id]; !ok {
		return
	}
	delete(m.wants, id)
	if keep {
		m.kept[id] = true
	} else {
		m.gone[id] = true
	}
	m.e.Unwant(id, keep, m.now)
	m.credit += 2
}

func (m *model) hold(id tid.TID, held bool) {
	m.say("hold %v: %v", id, held)
	m.held[id] = held
	m.e.Hold(id, held, m.now)
	m.credit += 2
}

// start starts the operations that are due, and checks each.
func (m *model) start() (wake time.Time) {
	ops, wake := m.e.Next(m.now)
	for _, op := range ops {
		m.say("start %v of %v %s", op.Kind, op.TID, op.Device)
		m.ops++
		if slices.ContainsFunc(m.running, func(o Op[int]) bool { return o.TID == op.TID }) {
			m.fail("%v of %v although another operation runs", op.Kind, op.TID)
		}
		_, wanted := m.wants[op.TID]
		switch op.Kind {
		case Connect:
			if !wanted || m.held[op.TID] || !m.e.complete {
				m.fail("%v is connected: wanted %v, held %v, kernel known %v", op.TID, wanted, m.held[op.TID], m.e.complete)
			}
		case Disconnect:
			if op.Dropped {
				if m.drops[op.Device]--; m.drops[op.Device] < 0 {
					m.fail("%s of %v is dropped, and no operator said so", op.Device, op.TID)
				}
				break
			}
			if !m.gone[op.TID] || m.held[op.TID] {
				m.fail("%v is disconnected: given up %v, held %v", op.TID, m.gone[op.TID], m.held[op.TID])
			}
			for n := range modelIDs {
				other := modelID(n)
				st, ok := m.e.Status(other)
				if _, wanted := m.wants[other]; ok && other != op.TID && st.Device == op.Device && (wanted || m.held[other]) {
					m.fail("%s of %v is disconnected, which %v uses", op.Device, op.TID, other)
				}
			}
		case Adjust:
			if op.Was == op.Params {
				m.fail("%v is adjusted from %d to %d", op.TID, op.Was, op.Params)
			}
		case Work:
			if !wanted {
				m.fail("%v is worked with, and not wanted", op.TID)
			}
		}
		m.running = append(m.running, op)
	}
	for kind, limit := range m.e.cfg.Limit {
		n := 0
		for _, op := range m.running {
			if op.Kind == kind {
				n++
			}
		}
		if n > limit {
			m.fail("%d operations of kind %v at a time", n, kind)
		}
	}
	if m.ops > m.credit {
		m.fail("%d operations, and reasons for %d", m.ops, m.credit)
	}
	return wake
}

// finish ends a running operation, one way or another.
func (m *model) finish(i int) {
	op := m.running[i]
	m.running = slices.Delete(m.running, i, i+1)
	device, err := op.Device, error(nil)
	fails := m.r.IntN(3) == 0
	d, there := m.devices[device]
	same := there && op.Seen.SameConnection(d)
	switch {
	case op.Kind == Connect && m.down[placeOf(op.TID)]:
		err = errDown
	case op.Kind == Connect && m.exists(op.TID) != "":
		err = errAlready
	case op.Kind == Connect && !fails:
		device = m.add(op.TID, op.Params)
		m.ours[device] = true
		if m.r.IntN(8) == 0 {
			m.remove(device) // at once
		}
	case op.Kind == Disconnect && m.guard && !op.Dropped, fails:
		err = errFailed
	case op.Kind == Disconnect && same:
		m.remove(device)
	case op.Kind == Adjust && same:
		m.params[device] = op.Params
	case op.Kind == Adjust:
		err = errFailed
	}
	m.say("end %v of %v %s: %v", op.Kind, op.TID, device, err)
	m.end(op, device, err)
}

func (m *model) end(op Op[int], device string, err error) {
	if device != "" {
		m.tell(device)
	}
	m.e.Done(op, device, err, m.now)
	if err == nil {
		m.credit += 2 // a device to work with, or to connect again
	}
}

func (m *model) add(id tid.TID, params int) string {
	for n := 0; ; n++ {
		name := "nvme" + strconv.Itoa(n)
		if _, taken := m.devices[name]; !taken {
			d := existing(id)
			d.HostIface = id.HostIface
			m.devices[name], m.params[name] = d, params
			return name
		}
	}
}

func (m *model) remove(name string) {
	delete(m.devices, name)
	delete(m.params, name)
	delete(m.ours, name)
}

// exists is the device of a controller, as the kernel's own check for
// duplicates has it: one that is leaving does not count.
func (m *model) exists(id tid.TID) string {
	for _, name := range slices.Sorted(maps.Keys(m.devices)) {
		d := m.devices[name]
		if d.SubsysNQN == id.SubsysNQN && d.TrAddr == id.TrAddr && d.HostIface == id.HostIface && !d.Leaving {
			return name
		}
	}
	return ""
}

// look reads a device, and returns what tells the engine.
func (m *model) look(name string) func() {
	m.seq++
	seq, e := m.seq, m.e
	var seen *Observed
	if d, ok := m.devices[name]; ok {
		seen = &d
	}
	return func() {
		m.credit += 4 // there are two that may have shared it
		e.Observe(name, seq, seen, m.now)
	}
}

func (m *model) tell(name string) { m.look(name)() }

// perhapsTell has the engine hear of a device: now, late, or never.
func (m *model) perhapsTell(name string) {
	switch m.r.IntN(4) {
	case 0, 1:
		m.tell(name)
	case 2:
		m.late = append(m.late, m.look(name))
	}
}

// pass looks at all devices. Some cannot be read now and then; the daemon does
// its best that this is not so the first time.
func (m *model) pass() {
	m.seq++
	seen := make(map[string]*Observed)
	for _, name := range slices.Sorted(maps.Keys(m.devices)) {
		seen[name] = new(m.devices[name])
		if m.e.complete && m.r.IntN(20) == 0 {
			seen[name] = nil
		}
	}
	m.credit += modelIDs
	m.e.ObserveAll(m.seq, seen, m.now)
}

// quiet lets nothing happen any more but what the engine does, and looks at
// what comes of it.
func (m *model) quiet() {
	m.say("quiet")
	clear(m.down)
	m.guard = false
	for _, tell := range m.late {
		tell()
	}
	m.late = nil
	for _, name := range slices.Sorted(maps.Keys(m.devices)) {
		if d := m.devices[name]; d.Leaving {
			m.remove(name)
		} else if !d.Live {
			d.Live = true
			m.devices[name] = d
		}
	}
	whole := func() {
		m.seq++
		seen := make(map[string]*Observed)
		for name, d := range m.devices {
			seen[name] = &d
		}
		m.e.ObserveAll(m.seq, seen, m.now)
	}
	began, start := m.ops, m.now
	m.credit += 1000
	for range 2 { // the second pass finds out what the first one cannot
		whole()
		for rounds := 0; ; rounds++ {
			wake := m.start()
			m.invariants()
			if len(m.running) == 0 {
				if wake.IsZero() {
					break
				}
				m.now = wake
			}
			for len(m.running) > 0 {
				m.succeed(0)
			}
			if rounds > 300 || m.ops-began > 12*modelIDs {
				m.fail("it does not come to rest: %d operations", m.ops-began)
			}
		}
	}
	if took := m.now.Sub(start); took > 2*3*time.Minute {
		m.fail("it took %v to come to rest", took)
	}
	m.asWanted()
}

// succeed ends an operation in the best possible way.
func (m *model) succeed(i int) {
	op := m.running[i]
	m.running = slices.Delete(m.running, i, i+1)
	device, err := op.Device, error(nil)
	d, there := m.devices[device]
	same := there && op.Seen.SameConnection(d)
	switch {
	case op.Kind == Connect && m.exists(op.TID) != "":
		err = errAlready
		m.tell(m.exists(op.TID))
	case op.Kind == Connect:
		device = m.add(op.TID, op.Params)
		m.ours[device] = true
	case op.Kind == Disconnect && same:
		m.remove(device)
	case op.Kind == Adjust && same:
		m.params[device] = op.Params
	}
	m.say("end %v of %v %s: %v", op.Kind, op.TID, device, err)
	m.end(op, device, err)
}

// asWanted compares what the kernel has with what is wanted.
func (m *model) asWanted() {
	for n := range modelIDs {
		id := modelID(n)
		p, wanted := m.wants[id]
		st, known := m.e.Status(id)
		d, there := m.devices[st.Device]
		switch {
		case wanted && !known:
			m.fail("%v is wanted, and forgotten", id)
		case wanted && !m.held[id] && !there:
			m.fail("%v is wanted, and not connected", id)
		case there && (d.SubsysNQN != id.SubsysNQN || d.TrAddr != id.TrAddr):
			m.fail("%v is said to have %s, which is %+v", id, st.Device, d)
		case wanted && there && m.params[st.Device] != p && m.params[st.Device] != unknownParams && m.e.devices[st.Device].holders[0] == m.e.ctrls[id]:
			m.fail("%s of %v has parameters %d, want %d", st.Device, id, m.params[st.Device], p)
		case known && st.Busy != None:
			m.fail("%v is busy", id)
		case !wanted && known && !m.held[id]:
			m.fail("%v is not wanted, and not forgotten", id)
		}
	}
	for name, d := range m.devices {
		if !m.ours[name] {
			continue
		}
		used := false
		for n := range modelIDs {
			id := modelID(n)
			st, ok := m.e.Status(id)
			fits := d.SubsysNQN == id.SubsysNQN && d.TrAddr == id.TrAddr
			// Of two devices that would do, the other one may have been taken up.
			either := d.SubsysNQN == modelID(modelIDs-1).SubsysNQN
			used = used || ok && st.Device == name || fits && m.kept[id] || either
		}
		if !used {
			m.fail("%s is not wanted any more, and still there: %+v", name, d)
		}
	}
}

// invariants looks at how the engine keeps its books.
func (m *model) invariants() {
	missing := make(map[*target[int]]int)
	connecting := make(map[*target[int]]int)
	var running [Work + 1]int
	for id, c := range m.e.ctrls {
		if c.wanted && c.device == "" {
			missing[c.target]++
		}
		if c.busy == Connect {
			connecting[c.target]++
		}
		running[c.busy]++
		if c.target != m.e.targets[placeOf(id)] || c.target.members[c.member] != c {
			m.fail("%v is not a member of its target", id)
		}
		if c.device != "" && !slices.Contains(m.e.devices[c.device].holders, c) {
			m.fail("%v does not hold its %s", id, c.device)
		}
		switch kind, later := m.e.decide(c, m.now); {
		case c.busy != None:
		case kind != None && c.queued == None && (c.wake.IsZero() || c.wake.After(m.now)):
			m.fail("%v shall %v, and is not in a queue", id, kind)
		case kind == None && c.queued == None && !later.IsZero() && (c.wake.IsZero() || c.wake.After(later)):
			m.fail("%v shall be looked at %v, and is not before %v", id, later, c.wake)
		}
	}
	members := 0
	for at, t := range m.e.targets {
		members += len(t.members)
		if t.missing != missing[t] || t.running != connecting[t] || len(t.members) == 0 {
			m.fail("%v: %d missing, counted %d; %d connecting, counted %d", at, missing[t], t.missing, connecting[t], t.running)
		}
		if t.running > m.e.cfg.PerTarget {
			m.fail("%v: %d connects at a time", at, t.running)
		}
		queued := slices.ContainsFunc(t.members, func(c *ctrl[int]) bool { return c.queued == Connect && c.busy == None })
		room := m.e.cfg.PerTarget
		if t.silent {
			room = 1
		}
		if queued && t.index < 0 && t.running < room {
			m.fail("%v has connects that wait, and none that runs, and gets no turn", at)
		}
	}
	for i, t := range m.e.connects {
		if t.index != i {
			m.fail("%v is at %d of the queue, and believes to be at %d", t.place, i, t.index)
		}
	}
	if members != len(m.e.ctrls) {
		m.fail("%d members of targets, %d controllers", members, len(m.e.ctrls))
	}
	for kind := Connect; kind <= Work; kind++ {
		if running[kind] != m.e.running[kind] {
			m.fail("%d operations of kind %v run, counted %d", running[kind], kind, m.e.running[kind])
		}
	}
}
