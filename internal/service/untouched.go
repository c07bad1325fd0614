package service

import (
	"github.com/nvme-stas/stas/internal/tid"
	"github.com/nvme-stas/stas/pkg/fabrics"
)

// Untouched keeps the times of a controller as they were first, if it is one
// that a boot table names, and no line of the configuration is about them: the
// host may run from it, and whoever booted it chose them. It belongs to the loop.
func (s *Service) Untouched(id tid.TID, o fabrics.Options, booted bool) fabrics.Options {
	if !booted {
		delete(s.firstTimes, id)
		return o
	}
	first, known := s.firstTimes[id]
	if !known {
		s.firstTimes[id] = o
		return o
	}
	o.ReconnectDelay, o.CtrlLossTMO, o.FastIOFailTMO = first.ReconnectDelay, first.CtrlLossTMO, first.FastIOFailTMO
	return o
}
