package staf

import (
	"log/slog"
	"maps"

	"github.com/nvme-stas/stas/internal/conf"
	"github.com/nvme-stas/stas/internal/hostid"
	"github.com/nvme-stas/stas/internal/mdns"
	"github.com/nvme-stas/stas/internal/service"
	"github.com/nvme-stas/stas/internal/stasbus"
	"github.com/nvme-stas/stas/internal/tid"
)

// Decide implements [service.Decider]: a copy of the daemon decides.
func (d *Daemon) Decide(cfg *conf.Config, identity hostid.Identity) service.Decision {
	t := d.trial()
	t.cfg, t.identity = cfg, identity
	t.configured = service.Configured(cfg, tid.Discovery, identity, t.log)
	t.booted = t.fromTables()
	if t.applyMDNS(); t.zeroconf.mode == "" {
		clear(t.zeroconf.services)
	}
	w := t.decide()
	places, _ := service.Origins(cfg, identity)
	tables := maps.Collect(t.inTables())
	var decision service.Decision
	for _, id := range w.order {
		n := w.all[id]
		why := ""
		switch {
		case n.doubt != "":
			why = "it" + n.doubt
		case n.origin == originConfigured:
			why = places[id].Place + " asks for it"
		case n.origin == originNBFT:
			why = "the boot table " + tables[id] + " names it"
		case n.origin == originDiscovered && t.zeroconf.by[id] != nil:
			why = "mDNS announces it"
		case n.origin == originDiscovered:
			why = "mDNS announced it once"
		case len(n.parents) > 0:
			why = n.parents[0].String() + " refers to it"
		}
		wish := service.Wish{TID: id, Options: n.options, Why: why, Doubted: n.doubt != ""}
		if c := t.dcs[id]; c != nil && n.options != nil {
			c.options = n.options
			wish.Options = new(c.attempt())
		}
		decision.Wanted = append(decision.Wanted, wish)
	}
	for _, id := range w.known {
		if w.has(id) {
			continue
		}
		why := "nothing lists it any more"
		if no := cfg.Refuses(id, false); no != nil {
			why = no.Why
		}
		decision.Gone = append(decision.Gone, service.Gone{TID: id, Why: why})
	}
	return decision
}

// trial is a copy of the daemon that acts upon nothing, and tells nobody.
func (d *Daemon) trial() *Daemon {
	t := *d
	t.trying = true
	t.log = slog.New(slog.DiscardHandler)
	t.told = make(map[string]bool)
	t.modes = make(chan conf.MDNS, 1)
	t.dcs = make(map[tid.TID]*dc, len(d.dcs))
	for id, c := range d.dcs {
		t.dcs[id] = new(*c)
	}
	t.zeroconf.ageing = nil
	t.zeroconf.services = make(map[mdns.Key]*announcement, len(d.zeroconf.services))
	for key, a := range d.zeroconf.services {
		t.zeroconf.services[key] = new(*a)
	}
	return &t
}

var _ stasbus.Planner = (*Daemon)(nil)
