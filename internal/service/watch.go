package service

import (
	"context"
	"errors"
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
	c, err := s.env.Kernel.Read(name)
	switch {
	case errors.Is(err, fs.ErrNotExist):
	case err != nil:
		o.err = err
	default:
		o.controller = new(observed(c))
	}
	return o
}

// tell reports the observation. One that failed says nothing.
func (o observation) tell(e *reconcile.Engine[fabrics.Options], now time.Time) {
	if o.err == nil {
		e.Observe(o.name, o.seq, o.controller, now)
	}
}

func observed(c nvmesysfs.Controller) reconcile.Observed {
	kind := tid.Unknown
	switch c.Kind {
	case nvmesysfs.IO:
		kind = tid.IO
	case nvmesysfs.Discovery:
		kind = tid.Discovery
	}
	return reconcile.Observed{
		Existing: tid.Existing{
			Transport: c.Transport, TrAddr: c.TrAddr, TrSvcID: c.TrSvcID,
			HostTrAddr: c.HostTrAddr, HostIface: c.HostIface, SrcAddr: c.SrcAddr,
			SubsysNQN: c.SubsysNQN, HostNQN: c.HostNQN,
			Kind: kind, Leaving: c.State.Leaving(),
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
func (s *Service) watch(ctx context.Context) {
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
			return
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
	addrs, err := s.env.Kernel.Ifaces()
	if err != nil {
		s.log.Warn("cannot list the network interfaces; paths are matched without them", "error", err)
	}
	seq := s.seq.Add(1)
	names, err := s.env.Kernel.Names()
	if err != nil {
		return err
	}
	seen := make(map[string]reconcile.Observed, len(names))
	for _, name := range names {
		c, err := s.env.Kernel.Read(name)
		switch {
		case errors.Is(err, fs.ErrNotExist):
		case err != nil:
			return err // not known is not gone
		default:
			seen[name] = observed(c)
		}
	}
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
		if ev.Subsystem != "nvme" || looked[ev.DevName] {
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
	for ctx.Err() == nil {
		source, err := s.env.Kernel.Listen()
		report()
		if err == nil {
			err = receive(ctx, source, events, report)
			_ = source.Close()
		}
		if ctx.Err() != nil {
			return
		}
		s.log.Error("no events from the kernel, only looking now and then until they are back", "error", err)
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
