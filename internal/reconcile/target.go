package reconcile

import (
	"container/heap"
	"slices"
	"time"

	"github.com/nvme-stas/stas/internal/tid"
)

// place is where a target is, and the way there: all but the names of who
// speaks with whom.
type place struct{ transport, traddr, trsvcid, hostTrAddr, hostIface string }

func placeOf(id tid.TID) place {
	return place{id.Transport, id.TrAddr, id.TrSvcID, id.HostTrAddr, id.HostIface}
}

// target has the controllers that are reached in one place, and the connects
// that wait there.
type target[P any] struct {
	place   place
	members []*ctrl[P]
	missing int  // members that are wanted and not connected
	running int  // connects
	silent  bool // the last one failed for a reason that concerns all
	kicked  time.Time

	// waiting are the connects to be made, by what they are expected to cost.
	waiting [costs][]*ctrl[P]
	turn    uint64 // when it had its last turn, or came
	cost    int    // of the first that waits
	index   int    // in the queue, -1 if it is not there
}

// costs is the number of kinds of connects that wait: those that never failed,
// those that fail at once, and those that take long to.
const costs = 3

// slow is what is long.
const slow = 2 * time.Second

func (c *ctrl[P]) cost() int {
	switch {
	case c.conn.failures == 0:
		return 0
	case c.conn.took < slow:
		return 1
	}
	return 2
}

// count keeps target.missing right.
func (c *ctrl[P]) count() {
	if misses := c.wanted && c.device == ""; misses != c.misses {
		c.misses = misses
		if misses {
			c.target.missing++
		} else {
			c.target.missing--
		}
	}
}

func (e *Engine[P]) join(c *ctrl[P]) {
	at := placeOf(c.tid)
	t := e.targets[at]
	if t == nil {
		e.turns++
		t = &target[P]{place: at, index: -1, turn: e.turns}
		e.targets[at] = t
	}
	c.target, c.member = t, len(t.members)
	t.members = append(t.members, c)
}

func (e *Engine[P]) leave(c *ctrl[P]) {
	t := c.target
	last := len(t.members) - 1
	t.members[c.member] = t.members[last]
	t.members[c.member].member = c.member
	t.members = slices.Delete(t.members, last, last+1)
	if last == 0 {
		delete(e.targets, t.place)
	}
}

// enqueue has a controller wait for its connect.
func (e *Engine[P]) enqueue(c *ctrl[P]) {
	n := c.cost()
	c.target.waiting[n] = append(c.target.waiting[n], c)
	e.offer(c.target)
}

// offer has a target wait for its turn, if it has something to connect and may.
func (e *Engine[P]) offer(t *target[P]) {
	room := e.cfg.PerTarget
	if t.silent {
		room = 1
	}
	first := slices.IndexFunc(t.waiting[:], func(q []*ctrl[P]) bool { return len(q) > 0 })
	if first < 0 || t.running >= room {
		return
	}
	t.cost = first
	if t.index < 0 {
		heap.Push(&e.connects, t)
	} else {
		heap.Fix(&e.connects, t.index)
	}
}

// dequeue returns the controller to be connected next, which may no longer need
// it, or nil. Its target is to be offered again.
func (e *Engine[P]) dequeue() *ctrl[P] {
	if len(e.connects) == 0 {
		return nil
	}
	t := heap.Pop(&e.connects).(*target[P])
	e.turns++
	t.turn = e.turns
	c := t.waiting[t.cost][0]
	t.waiting[t.cost] = t.waiting[t.cost][1:]
	return c
}

// ended takes in what a connect says of its target.
func (e *Engine[P]) ended(c *ctrl[P], err error, now time.Time) {
	t := c.target
	t.running--
	says := Answers
	if err != nil {
		says = Unclear
		if e.cfg.Target != nil {
			says = e.cfg.Target(err)
		}
	}
	switch says {
	case Silent:
		t.silent = true
	case Answers:
		e.answers(t, now)
	}
	e.offer(t)
}

// answers takes in that a target is there. What waits because it was not is
// tried at once.
func (e *Engine[P]) answers(t *target[P], now time.Time) {
	if !t.silent {
		return
	}
	t.silent = false
	if since := now.Sub(t.kicked); since < 0 || since >= kickPause {
		t.kicked = now
		for _, c := range t.members {
			if c.misses && c.conn.next.After(now) {
				e.kick(c, now)
			}
		}
	}
	e.offer(t)
}

// connectQueue has the targets that may connect something, by cost, and then
// by turn.
type connectQueue[P any] []*target[P]

func (q connectQueue[P]) Len() int { return len(q) }

func (q connectQueue[P]) Less(i, j int) bool {
	if q[i].cost != q[j].cost {
		return q[i].cost < q[j].cost
	}
	return q[i].turn < q[j].turn
}

func (q connectQueue[P]) Swap(i, j int) {
	q[i], q[j] = q[j], q[i]
	q[i].index, q[j].index = i, j
}

func (q *connectQueue[P]) Push(x any) {
	t := x.(*target[P])
	t.index = len(*q)
	*q = append(*q, t)
}

func (q *connectQueue[P]) Pop() any {
	old := *q
	last := old[len(old)-1]
	last.index = -1
	old[len(old)-1] = nil
	*q = old[:len(old)-1]
	return last
}
