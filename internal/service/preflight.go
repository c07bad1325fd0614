package service

import (
	"cmp"
	"context"
	"slices"
	"sync"
	"time"

	"github.com/nvme-stas/stas/internal/reconcile"
	"github.com/nvme-stas/stas/internal/tid"
	"github.com/nvme-stas/stas/pkg/fabrics"
)

// The kernel makes one connect after the other (nvmf_dev_mutex), and a target
// that says nothing holds up all others, of the whole host, for as long as it
// is waited for. So each target is asked in user space first, many at a time,
// and only those that answer are handed to the kernel.
const (
	// burst is how many connects are in the kernel at a time: while it makes
	// one, the next should be waiting there, or its caller's preparation and
	// clean-up would add up.
	burst = 4
	// slowConnect is what no target takes that is well. Of those that take
	// longer no two are in the kernel, so that nobody waits for more than one.
	slowConnect = 2 * time.Second
	// twinAfter is when a connect has waited so long that somebody else may have
	// made the same connection: see withoutTwin.
	twinAfter = time.Second
	// pastKept bounds the memory of attempts: there and above, old ones go.
	pastKept = time.Hour
	pastMany = 1024
)

// connect makes a connection, if the target answers.
func (s *Service) connect(op reconcile.Op[fabrics.Options]) (device string, err error) {
	began := time.Now()
	err = s.env.Kernel.Probe(s.ctx, op.Params)
	s.connects.probed(op.TID, began, time.Now(), err == nil)
	if err != nil {
		return "", err
	}
	end, err := s.connects.begin(s.ctx, op.TID)
	if err != nil {
		return "", err
	}
	began = time.Now()
	device, err = s.env.Kernel.Connect(op.Params)
	took := time.Since(began)
	end(took, err)
	if err != nil {
		err = s.judge(op.Params, err, took)
	} else if op.Params.Discovery && took > twinAfter {
		device = s.withoutTwin(device)
	}
	return device, err
}

// withoutTwin is for a discovery controller whose connect has waited. Somebody
// else may have made the same meanwhile: above all the former instance of this
// daemon, whose connect nobody could stop. The kernel refuses the second one
// of an I/O controller (EALREADY), but not of a discovery controller. So the
// new one, which nobody uses yet, is deleted again. What stays is returned.
func (s *Service) withoutTwin(device string) string {
	names, err := s.env.Kernel.Names()
	mine := s.observe(device).controller
	if err != nil || mine == nil {
		return device
	}
	for _, name := range names {
		twin := s.observe(name).controller
		if name == device || twin == nil || !twin.Live || !twin.SameConnection(*mine) {
			continue
		}
		if err := s.env.Kernel.Delete(device); err != nil {
			s.log.Warn("this connection exists twice, and cannot be deleted", "device", device, "other", name, "error", err)
			return device
		}
		s.log.Info("somebody else has made the same connection meanwhile, which is used instead", "device", name, "deleted", device)
		return name
	}
	return device
}

// connects is the queue before the kernel. Who is expected to be done soonest
// comes first.
type connects struct {
	mu      sync.Mutex // guards the following
	running int
	slow    bool // one of those that run is expected to be slow
	waiting []*waiter
	past    map[tid.TID]attempt
	sweep   int // when past has so many, old ones go
}

// attempt is what is remembered of the last attempt at a controller.
type attempt struct {
	probed time.Time     // when the probe began
	probe  time.Duration // that it took
	// answered tells whether the target did.
	answered bool
	// failed is how long the kernel tried in vain. Success says nothing: it
	// may have come late only because others were before it.
	failed time.Duration
}

type waiter struct {
	expected time.Duration
	granted  chan struct{}
}

func newConnects() *connects {
	return &connects{past: make(map[tid.TID]attempt), sweep: pastMany}
}

func (c *connects) probed(id tid.TID, began, now time.Time, answered bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	a := c.past[id]
	a.probed, a.probe, a.answered = began, now.Sub(began), answered
	c.past[id] = a
	if len(c.past) < c.sweep {
		return
	}
	for id, a := range c.past {
		if now.Sub(a.probed) > pastKept {
			delete(c.past, id)
		}
	}
	c.sweep = max(pastMany, 2*len(c.past))
}

// last is what is remembered of the last attempt at a controller.
func (c *connects) last(id tid.TID) (attempt, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	a, ok := c.past[id]
	return a, ok
}

// Answers reports whether a target answered when it was last asked, or is
// connected.
func (s *Service) Answers(id tid.TID) bool {
	if st, ok := s.engine.Status(id); ok && st.Device != "" {
		return true
	}
	a, ok := s.connects.last(id)
	return ok && a.answered
}

// begin waits for the controller's turn. The attempt ends by calling end.
func (c *connects) begin(ctx context.Context, id tid.TID) (end func(took time.Duration, err error), err error) {
	c.mu.Lock()
	last := c.past[id]
	w := &waiter{expected: max(last.probe, last.failed), granted: make(chan struct{})}
	// After those that are expected to take as long.
	at, _ := slices.BinarySearchFunc(c.waiting, w.expected, func(other *waiter, expected time.Duration) int {
		return cmp.Or(cmp.Compare(other.expected, expected), -1)
	})
	c.waiting = slices.Insert(c.waiting, at, w)
	c.grant()
	c.mu.Unlock()

	done := func() {
		c.running--
		c.slow = c.slow && w.expected < slowConnect
		c.grant()
	}
	select {
	case <-w.granted:
	case <-ctx.Done():
		c.mu.Lock()
		defer c.mu.Unlock()
		if i := slices.Index(c.waiting, w); i >= 0 {
			c.waiting = slices.Delete(c.waiting, i, i+1)
		} else {
			done()
		}
		return nil, ctx.Err()
	}
	return func(took time.Duration, err error) {
		c.mu.Lock()
		defer c.mu.Unlock()
		if a, ok := c.past[id]; ok {
			a.failed = 0
			if err != nil {
				a.failed = took
			}
			c.past[id] = a
		}
		done()
	}, nil
}

// grant lets begin who may. The caller holds the lock.
func (c *connects) grant() {
	for len(c.waiting) > 0 && c.running < burst {
		next := c.waiting[0]
		if next.expected >= slowConnect {
			if c.slow {
				return // and those behind it are no faster
			}
			c.slow = true
		}
		c.waiting = c.waiting[1:]
		c.running++
		close(next.granted)
	}
}
