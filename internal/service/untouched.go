package service

import (
	"github.com/nvme-stas/stas/internal/tid"
	"github.com/nvme-stas/stas/pkg/fabrics"
)

// Untouched keeps the times of a controller that a boot table names as they
// were first: the host may run from it, and whoever booted it chose them.
// Unless a line of the configuration sets them for it: explicit. It belongs to
// the loop.
func (s *Service) Untouched(id tid.TID, o fabrics.Options, explicit bool) fabrics.Options {
	if explicit || s.boot.Booted(id) == "" {
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
