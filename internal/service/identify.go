package service

import (
	"context"
	"fmt"
	"strconv"
	"time"

	"github.com/nvme-stas/stas/internal/reconcile"
	"github.com/nvme-stas/stas/internal/stasbus"
	"github.com/nvme-stas/stas/internal/tid"
	"github.com/nvme-stas/stas/pkg/fabrics"
	"github.com/nvme-stas/stas/pkg/nvme"
)

// kasUnit is the unit of KAS.
const kasUnit = 100 * time.Millisecond

// timing is what a controller says of its times.
type timing struct {
	stasbus.Timing
	device string
}

// Identify asks the controller of an operation who it is, and keeps what it
// says of its times for the report. It may block, so it is not for the loop;
// found is.
func (s *Service) Identify(ctx context.Context, op reconcile.Op[fabrics.Options]) (id nvme.IdentifyController, found func(), err error) {
	id, err = s.env.Kernel.Identify(ctx, op.Device)
	if err != nil {
		return id, nil, err
	}
	kato, err := s.env.Kernel.Attr(op.Device, "kato")
	if err != nil {
		kato = "" // before Linux 5.13
	}
	t := timingOf(id, kato)
	return id, func() {
		before, known := s.timing[op.TID]
		s.timing[op.TID] = timing{t, op.Device}
		if t.KATOTooShort && (!known || !before.KATOTooShort) {
			s.log.Warn(fmt.Sprintf("%s: kato is %v s, shorter than the %v ms that the controller counts in (KAS); it may take the host for lost",
				op.TID, t.KATO, t.KAS), "device", op.Device)
		}
	}, nil
}

func timingOf(id nvme.IdentifyController, kato string) stasbus.Timing {
	t := stasbus.Timing{
		KAS: int64(id.KAS) * kasUnit.Milliseconds(), CQT: int64(id.CQT),
		RTD3E: (int64(id.RTD3E) + 999) / 1000,
	}
	t.KATO, _ = strconv.ParseInt(kato, 10, 64)
	t.KATOTooShort = t.KATO > 0 && t.KATO*1000 < t.KAS
	return t
}

// timingFor is what is known of the device that a controller has.
func (s *Service) timingFor(st reconcile.Status) *stasbus.Timing {
	if t, ok := s.timing[st.TID]; ok && t.device == st.Device {
		return &t.Timing
	}
	return nil
}

// forgetTiming makes room once a controller is not looked after any more.
func (s *Service) forgetTiming(id tid.TID) { delete(s.timing, id) }
