package service

import (
	"context"
	"sync"
	"time"

	"github.com/nvme-stas/stas/internal/reconcile"
	"github.com/nvme-stas/stas/internal/tid"
	"github.com/nvme-stas/stas/pkg/fabrics"
)

// Context ends when the daemon does, for whatever reason.
func (s *Service) Context() context.Context { return s.ctx }

// Leave disconnects, after the end of Run, the devices in use that leave
// chooses. It waits no longer than within: what takes longer the kernel brings
// to an end by itself.
func (s *Service) Leave(within time.Duration, leave func(tid.TID) bool) {
	devices := make(map[string]bool)
	for _, st := range s.engine.All() {
		if st.Device == "" {
			continue
		}
		chosen, known := devices[st.Device]
		devices[st.Device] = leave(st.TID) && (chosen || !known)
	}
	var all sync.WaitGroup
	for name, leaves := range devices {
		seen, ok := s.engine.Seen(name)
		if !leaves || !ok {
			continue
		}
		all.Go(func() {
			op := reconcile.Op[fabrics.Options]{Kind: reconcile.Disconnect, Device: name, Seen: seen}
			err := s.verify(op)
			if err == nil {
				err = s.owned(name)
			}
			if err == nil {
				err = s.env.Kernel.Delete(name)
			}
			if err != nil {
				s.log.Warn("a controller stays connected", "device", name, "error", err)
				return
			}
			s.log.Info("disconnected, since the daemon ends", "device", name)
		})
	}
	done := make(chan struct{})
	go func() { all.Wait(); close(done) }()
	select {
	case <-done:
	case <-time.After(within):
		s.log.Warn("not all controllers were disconnected in time")
	}
}
