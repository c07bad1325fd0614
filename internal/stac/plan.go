package stac

import (
	"log/slog"

	"github.com/nvme-stas/stas/internal/conf"
	"github.com/nvme-stas/stas/internal/hostid"
	"github.com/nvme-stas/stas/internal/reconcile"
	"github.com/nvme-stas/stas/internal/service"
	"github.com/nvme-stas/stas/internal/stasbus"
	"github.com/nvme-stas/stas/internal/tid"
	"github.com/nvme-stas/stas/pkg/fabrics"
)

// Decide implements [service.Decider]: a copy of the daemon decides.
func (d *Daemon) Decide(cfg *conf.Config, identity hostid.Identity) service.Decision {
	t := *d
	t.log, t.told = slog.New(slog.DiscardHandler), make(map[string]bool)
	t.configure(cfg, identity)
	made := t.decide()

	// Of two paths that are to be removed, none counts on the other.
	guard := newGuard(d.kernel)
	guard.allow.Store(cfg.DisconnectInUse)
	decision := service.Decision{
		Held:  t.holds.copy().covers,
		Guard: func(op reconcile.Op[fabrics.Options]) error { return guard.admit(op.Device) },
	}
	places, _ := service.Origins(cfg, identity)
	by := t.listedBy()
	for _, id := range made.order {
		why := places[id].Place + " asks for it"
		if !made.wanted[id].configured {
			why = by[id].String() + " lists it"
		}
		o := made.options[id]
		if was, ok := t.Engine().Params(id); ok && t.ownTimes(id) == (conf.OwnTimes{}) && t.Booted(id) != "" {
			o.ReconnectDelay, o.CtrlLossTMO, o.FastIOFailTMO = was.ReconnectDelay, was.CtrlLossTMO, was.FastIOFailTMO // see Untouched
		}
		decision.Wanted = append(decision.Wanted, service.Wish{TID: id, Options: &o, Why: why})
	}
	for id, why := range made.stays {
		decision.Wanted = append(decision.Wanted, service.Wish{TID: id, Why: "it" + why, Doubted: true})
	}
	for _, g := range made.gone {
		lost := service.Gone{TID: g.id, Keep: g.booted != "" || !g.scope, Why: "nothing lists it any more"}
		if no := cfg.Refuses(g.id, false); no != nil {
			lost.Why = no.Why
		}
		switch {
		case g.booted != "":
			lost.Why += "; but " + g.booted
		case !g.scope:
			lost.Why += "; but disconnect-scope keeps it connected"
		}
		decision.Gone = append(decision.Gone, lost)
	}
	return decision
}

// listedBy has the discovery controller that lists an I/O controller, of several
// the first one.
func (d *Daemon) listedBy() map[tid.TID]tid.TID {
	by := make(map[tid.TID]tid.TID)
	for dc, entries := range d.sources {
		for i := range entries {
			if !isStorage(&entries[i]) {
				continue
			}
			if id, err := d.named(dc, &entries[i]); err == nil {
				if other, ok := by[id]; !ok || byName(dc, other) < 0 {
					by[id] = dc
				}
			}
		}
	}
	return by
}

var _ stasbus.Planner = (*Daemon)(nil)
