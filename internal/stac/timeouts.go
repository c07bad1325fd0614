package stac

import (
	"time"

	"github.com/nvme-stas/stas/internal/conf"
	"github.com/nvme-stas/stas/internal/tid"
	"github.com/nvme-stas/stas/pkg/fabrics"
	"github.com/nvme-stas/stas/pkg/nvme"
)

const (
	// tries is how many attempts of the kernel at least fit into the time that
	// a target asks for.
	tries = 4
	// usualDelay is the kernel's pause between two of them, in seconds.
	usualDelay = 10
)

// honor gives the options the times that a target advertises in its NQN. What a
// line about the controller sets stays; what [Global] sets is for targets that
// say nothing.
func honor(o *fabrics.Options, cfg *conf.Config, own conf.OwnTimes, nqn string) {
	outage, ok := nvme.AdvertisedTimeout(nqn)
	if !ok || !cfg.HonorTargetTimeouts || own.CtrlLossTMO {
		return
	}
	loss := int((outage + time.Second - 1) / time.Second)
	loss = max(min(loss, cfg.TargetTimeoutMax), cfg.TargetTimeoutMin)
	o.CtrlLossTMO = &loss
	if !own.ReconnectDelay {
		delay := usualDelay
		if o.ReconnectDelay != nil {
			delay = *o.ReconnectDelay
		}
		o.ReconnectDelay = new(fittingDelay(loss, delay))
	}
}

// fittingDelay is a pause, in seconds and not longer than usual, of which
// several go into a time. The kernel counts attempts, and rounds up: so the time
// is a multiple of it.
func fittingDelay(total, usual int) int {
	for delay := min(usual, total/tries); delay > 1; delay-- {
		if total%delay == 0 {
			return delay
		}
	}
	return 1
}

// ownTimes are the times that a line of the configuration sets for a controller.
func (d *Daemon) ownTimes(id tid.TID) conf.OwnTimes {
	if own, ok := d.own[id]; ok {
		return own
	}
	return d.cfg.ParamsFor(id).Own
}
