package service

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"time"

	"github.com/nvme-stas/stas/internal/reconcile"
	"github.com/nvme-stas/stas/internal/tid"
	"github.com/nvme-stas/stas/pkg/fabrics"
	"github.com/nvme-stas/stas/pkg/nvmesysfs"
	"github.com/nvme-stas/stas/pkg/uevent"
)

const (
	// listenRetry is the pause before the source of uevents is opened again.
	listenRetry = 5 * time.Second
	// passRetry is the pause after a pass that could not see everything.
	passRetry = 2 * time.Second
	// blindPasses bounds how often the first pass is put off because of a
	// controller that cannot be read, and might be one that is wanted.
	blindPasses = 5
)

// observation is one look at one controller.
type observation struct {
	name       string
	seq        uint64
	controller *reconcile.Observed // nil if it is not there
	err        error               // it could not be seen whether it is
}

// observe looks at one controller.
func (s *Service) observe(name string) observation {
	o := observation{name: name, seq: s.seq.Add(1)}
	o.controller, o.err = s.look(name)
	return o
}

// look reads one controller. One that is not there, or plainly none of those
// that this daemon looks after, is nil.
func (s *Service) look(name string) (*reconcile.Observed, error) {
	plain, err := s.env.Kernel.Kind(name)
	if err == nil && plain != nvmesysfs.Unknown && kindOf(plain) != s.kind {
		return nil, nil
	}
	var c nvmesysfs.Controller
	if err == nil {
		c, err = s.env.Kernel.Read(name)
	}
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil, nil
	case err != nil:
		return nil, err
	}
	return new(observed(c)), nil
}

// tell reports the observation. One that failed says nothing.
func (o observation) tell(e *reconcile.Engine[fabrics.Options], now time.Time) {
	if o.err == nil {
		e.Observe(o.name, o.seq, o.controller, now)
	}
}

func kindOf(k nvmesysfs.Kind) tid.Kind {
	switch k {
	case nvmesysfs.IO:
		return tid.IO
	case nvmesysfs.Discovery:
		return tid.Discovery
	}
	return tid.Unknown
}

func observed(c nvmesysfs.Controller) reconcile.Observed {
	return reconcile.Observed{
		Existing: tid.Existing{
			Transport: c.Transport, TrAddr: c.TrAddr, TrSvcID: c.TrSvcID,
			HostTrAddr: c.HostTrAddr, HostIface: c.HostIface, SrcAddr: c.SrcAddr,
			SubsysNQN: c.SubsysNQN, HostNQN: c.HostNQN,
			Kind: kindOf(c.Kind), Leaving: c.State.Leaving(),
		},
		Live: c.State == nvmesysfs.Live,
	}
}

// requestPass asks for a look at all controllers soon.
func (s *Service) requestPass() {
	select {
	case s.resync <- struct{}{}:
	default: // one is asked for already
	}
}

// watch follows the kernel: it looks at all controllers at first, when events
// were lost, and now and then, and at single ones when an event names them.
// Events are hints; what counts is what sysfs shows afterwards.
func (s *Service) watch(ctx context.Context) error {
	events := make(chan uevent.Event, 1024)
	lost := make(chan struct{}, 1)
	s.workers.Go(func() { s.listen(ctx, events, lost) })
	// listen reports readiness as a loss: then, and only then, a first pass
	// misses nothing.
	ticker := time.NewTicker(fullPass)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-lost:
			s.pass(ctx)
			s.loop.Post(ctx, s.policy.Overrun)
		case <-s.resync:
			s.pass(ctx)
		case <-ticker.C:
			s.pass(ctx)
		case ev := <-events:
			s.handle(ctx, append([]uevent.Event{ev}, drain(events)...))
		}
	}
}

// watchStates looks for connections that break, and for those that are back
// although nobody said so.
func (s *Service) watchStates(ctx context.Context) error {
	ticker := time.NewTicker(stateLook)
	defer ticker.Stop()
	last := make(map[string]nvmesysfs.State)
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-ticker.C:
		}
		var names []string
		if s.loop.Do(ctx, func() { s.engine.Devices(func(name string) { names = append(names, name) }) }) != nil {
			return nil
		}
		last = s.lookAtStates(ctx, names, last)
	}
}

// lookAtStates reads the state of each device, and everything of those whose
// state is not what it was. One that is seen for the first time counts as live:
// that it is there was seen by a look at everything.
func (s *Service) lookAtStates(ctx context.Context, names []string, last map[string]nvmesysfs.State) map[string]nvmesysfs.State {
	states := make(map[string]nvmesysfs.State, len(names))
	var seen []observation
	for _, name := range names {
		state, err := s.env.Kernel.State(name)
		if err != nil {
			continue // if it has gone, an event tells
		}
		states[name] = state
		if was, known := last[name]; was != state && (known || state != nvmesysfs.Live) {
			seen = append(seen, s.observe(name))
		}
	}
	if len(seen) > 0 {
		s.loop.Post(ctx, func() {
			for _, o := range seen {
				o.tell(s.engine, time.Now())
			}
		})
	}
	return states
}

// watchNetwork has everything tried again that waits, when a link or an address
// has come up.
func (s *Service) watchNetwork(ctx context.Context) error {
	up := make(chan struct{}, 1)
	s.workers.Go(func() {
		for ctx.Err() == nil {
			err := s.env.Kernel.WatchNetwork(ctx, func() {
				select {
				case up <- struct{}{}:
				default:
				}
			})
			if ctx.Err() != nil {
				return
			}
			s.log.Warn("the network is not watched; that a link is up again is noticed by the next attempt to connect", "error", err)
			select {
			case <-ctx.Done():
			case <-time.After(fullPass):
			}
		}
	})
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-up:
			s.log.Debug("a link or an address has come up, trying again what failed")
			s.requestPass() // addresses decide which path a connection takes
			s.loop.Post(ctx, s.retryNow)
		}
		select {
		case <-ctx.Done():
		case <-time.After(networkSettle):
		}
	}
}

func drain(events <-chan uevent.Event) (all []uevent.Event) {
	for len(all) < cap(events) {
		select {
		case ev := <-events:
			all = append(all, ev)
		default:
			return all
		}
	}
	return all
}

// pass looks at all controllers. If it cannot, it proves nothing, and another
// one follows soon.
func (s *Service) pass(ctx context.Context) {
	if err := s.lookAtAll(ctx); err != nil {
		s.log.Error("cannot look at the controllers, trying again", "error", err)
		time.AfterFunc(passRetry, s.requestPass)
	}
}

func (s *Service) lookAtAll(ctx context.Context) error {
	if err := s.env.Kernel.Sweep(); err != nil {
		s.log.Warn("cannot tidy the host's registry of controllers", "error", err)
	}
	addrs, err := s.env.Kernel.Ifaces()
	if err != nil {
		s.log.Warn("cannot list the network interfaces; paths are matched without them", "error", err)
	}
	seq := s.seq.Add(1)
	names, err := s.env.Kernel.Names()
	if err != nil {
		return err
	}
	seen := make(map[string]*reconcile.Observed, len(names))
	for _, name := range names {
		switch c, err := s.look(name); {
		case err != nil:
			if s.blind++; s.blind < blindPasses {
				return fmt.Errorf("%s: %w", name, err)
			}
			s.log.Error("cannot look at a controller; what was known of it stays", "device", name, "error", err)
			seen[name] = nil
		case c != nil:
			seen[name] = c
		}
	}
	s.blind = blindPasses
	s.loop.Post(ctx, func() {
		s.engine.SetIfaces(tid.NewIfaces(addrs))
		s.engine.ObserveAll(seq, seen, time.Now())
	})
	return nil
}

// handle looks at the controllers that a batch of events names, at each once.
func (s *Service) handle(ctx context.Context, events []uevent.Event) {
	looked := make(map[string]bool, len(events))
	var seen []observation
	for _, ev := range events {
		if ev.Subsystem == "nvme" && ev.Action == "remove" {
			if err := s.env.Kernel.Disown(ev.DevName, ev.Seqnum); err != nil {
				s.log.Warn("cannot take a controller that was removed out of the host's registry", "device", ev.DevName, "error", err)
			}
		}
		// At "add" the controller does not know yet who it is. What comes of it
		// is told by a "change", or by "remove".
		if ev.Subsystem != "nvme" || ev.Action == "add" || looked[ev.DevName] {
			continue
		}
		looked[ev.DevName] = true
		seen = append(seen, s.observe(ev.DevName))
	}
	s.loop.Post(ctx, func() {
		now := time.Now()
		for _, o := range seen {
			o.tell(s.engine, now)
		}
		for _, ev := range events {
			if ev.Subsystem == "nvme" && ev.Action == "change" {
				s.policy.Changed(ev)
			}
		}
	})
}

// listen receives events until ctx ends, and reports on lost whenever some may
// have been missed, at first when it has begun.
func (s *Service) listen(ctx context.Context, events chan<- uevent.Event, lost chan<- struct{}) {
	report := func() {
		select {
		case lost <- struct{}{}:
		default:
		}
	}
	for first := true; ctx.Err() == nil; first = false {
		source, err := s.env.Kernel.Listen()
		if err == nil || first {
			report()
		}
		if err == nil {
			err = receive(ctx, source, events, report)
			_ = source.Close()
		}
		if ctx.Err() != nil {
			return
		}
		if first {
			s.log.Error("no events from the kernel; until they are back, changes are noticed late", "error", err)
		}
		select {
		case <-ctx.Done():
		case <-time.After(listenRetry):
		}
	}
}

func receive(ctx context.Context, source Events, events chan<- uevent.Event, overrun func()) error {
	for {
		ev, err := source.Receive(ctx)
		switch {
		case errors.Is(err, uevent.ErrOverrun):
			overrun()
		case err != nil:
			return err
		default:
			select {
			case events <- ev:
			case <-ctx.Done():
				return nil
			}
		}
	}
}
