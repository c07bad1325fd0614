// Package staf is the finder: it keeps discovery controllers connected, reads
// their logs, and serves the entries on D-Bus.
package staf

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"slices"
	"time"

	"github.com/nvme-stas/stas/internal/conf"
	"github.com/nvme-stas/stas/internal/hostid"
	"github.com/nvme-stas/stas/internal/logpage"
	"github.com/nvme-stas/stas/internal/mdns"
	"github.com/nvme-stas/stas/internal/reconcile"
	"github.com/nvme-stas/stas/internal/service"
	"github.com/nvme-stas/stas/internal/stasbus"
	"github.com/nvme-stas/stas/internal/tid"
	"github.com/nvme-stas/stas/pkg/fabrics"
	"github.com/nvme-stas/stas/pkg/nvme"
	"github.com/nvme-stas/stas/pkg/uevent"
)

// Daemon is stafd.
type Daemon struct {
	*service.Service
	kernel service.Kernel
	bus    service.Bus
	log    *slog.Logger
	// MDNS returns who browses for discovery controllers, in a way that the
	// configuration asks for. It is set before Run. Nil: nobody does.
	MDNS  func(conf.MDNS) mdns.Browser
	modes chan conf.MDNS  // for the task browse; "": nobody shall
	ctx   context.Context // of Run

	// The rest belongs to the loop.

	// dcs has the discovery controllers that are wanted. Controllers come and
	// go; what is known of them stays, above all their pages as last read.
	dcs map[tid.TID]*dc

	// The sources, see reconsider.
	configured service.Wanted
	booted     service.Wanted
	discovered service.Wanted // by mDNS
	zeroconf   zeroconf

	cfg      *conf.Config
	identity hostid.Identity
	// told has what was said of the sources, so that it is said once.
	told map[string]bool
}

// dc is a discovery controller.
type dc struct {
	logpage.Page
	// origin is the first source that lists it.
	origin string
	// parents are the discovery controllers that refer to it, in order.
	parents []tid.TID
	depth   int // referrals between it and the source that it is owed to
	// announced says that the page has been read since its controller was last
	// taken up. stacd waits for that signal, whether or not anything changed.
	announced bool
	// silent is since when a discovered one is neither announced nor reached, and
	// forget when that is long enough; zero while it does not matter.
	silent, forget time.Time
}

// state is what survives a restart.
type state struct {
	Controllers []controllerState `json:"controllers"`
}

type controllerState struct {
	TID     tid.TID      `json:"tid"`
	Origin  string       `json:"origin"`
	Parents []tid.TID    `json:"parents,omitempty"`
	Page    logpage.Page `json:"page"`
	// Of a discovered one that is neither announced nor reached.
	Silent time.Time `json:"silent,omitzero"`
	Forget time.Time `json:"forget,omitzero"`
}

// New returns stafd.
func New(env service.Env) *Daemon {
	d := &Daemon{kernel: env.Kernel, bus: env.Bus, log: env.Log, dcs: make(map[tid.TID]*dc), told: make(map[string]bool)}
	d.modes = make(chan conf.MDNS, 1)
	d.zeroconf.services = make(map[mdns.Key]*announcement)
	d.Service = service.New(tid.Discovery, d, env)
	return d
}

// Run runs stafd until ctx ends or something fails for good.
func (d *Daemon) Run(ctx context.Context) error {
	d.ctx = ctx
	var last state
	if d.Restore(&last) {
		for _, c := range last.Controllers {
			d.dcs[c.TID] = &dc{Page: c.Page, origin: c.Origin, parents: c.Parents, silent: c.Silent, forget: c.Forget}
		}
	}
	return d.Service.Run(ctx, d)
}

// Tasks implements [service.Policy].
func (d *Daemon) Tasks() []func(context.Context) error {
	return []func(context.Context) error{d.browse}
}

// Apply implements [service.Policy].
func (d *Daemon) Apply(cfg *conf.Config, identity hostid.Identity) {
	d.cfg, d.identity = cfg, identity
	clear(d.told)
	d.configured = service.Configured(cfg, tid.Discovery, identity, d.log)
	d.booted = d.fromTables()
	d.applyMDNS()
	d.reconsider()
	// Who reloads wants to see what there is now, even from a discovery
	// controller that tells nobody of its changes.
	d.Engine().RequestAllWork(time.Now())
}

func (d *Daemon) save() {
	s := state{Controllers: make([]controllerState, 0, len(d.dcs))}
	for id, c := range d.dcs {
		s.Controllers = append(s.Controllers, controllerState{id, c.origin, c.parents, c.Page, c.silent, c.forget})
	}
	d.Save(s)
}

// Event implements [service.Policy].
func (d *Daemon) Event(ev reconcile.Event) {
	if p := d.dcs[ev.TID]; p != nil && (ev.Kind == reconcile.Connected || ev.Kind == reconcile.Adopted) {
		p.announced = false
	}
	d.ages(ev)
}

// Work implements [service.Policy]: it reads the log page.
func (d *Daemon) Work(ctx context.Context, op reconcile.Op[fabrics.Options]) (func(), error) {
	log, err := d.kernel.DiscoveryLog(ctx, op.Device)
	return func() { d.took(op.TID, op.Device, log) }, err
}

// took takes what was read of a discovery controller's log.
func (d *Daemon) took(id tid.TID, device string, log nvme.DiscoveryLog) {
	p := d.dcs[id]
	if p == nil {
		return // not wanted any more
	}
	for _, bad := range log.Bad {
		d.log.Warn(id.String()+" lists something that makes no sense; that entry is left out", "device", device, "error", bad)
	}
	next := p.Update(log)
	changed := next.Known != p.Known || !slices.Equal(next.Entries, p.Entries)
	p.Page = next
	if changed || !p.announced {
		p.announced = true
		d.log.Info(fmt.Sprintf("%s: log page with %d entries", id, len(next.Entries)), "device", device, "genctr", next.GenCtr)
		d.save()
		d.bus.LogPagesChanged(id, device)
	}
	if changed {
		d.reconsider() // it may refer to others
	}
}

// Guard implements [service.Policy]: nothing depends on a discovery controller.
func (d *Daemon) Guard(reconcile.Op[fabrics.Options]) error { return nil }

// Changed implements [service.Policy]: a discovery controller reports that its
// log has changed, or has been reconnected and may have missed to report it.
func (d *Daemon) Changed(ev uevent.Event) {
	if text, ok := ev.Env["NVME_AEN"]; ok {
		aen, err := nvme.ParseAEN(text)
		if err != nil {
			d.log.Warn("the kernel reports an event that makes no sense", "device", ev.DevName, "error", err)
			return
		}
		d.log.Debug("asynchronous event", "device", ev.DevName, "aen", aen)
		if aen == nvme.DiscoveryLogChanged {
			d.Engine().RequestWork(ev.DevName, time.Now())
		}
	}
	switch ev.Env["NVME_EVENT"] {
	case "connected", "rediscover":
		d.Engine().RequestWork(ev.DevName, time.Now())
	}
}

// Overrun implements [service.Policy]: a lost event may have been about any
// log page.
func (d *Daemon) Overrun() { d.Engine().RequestAllWork(time.Now()) }

// Info implements [service.Policy].
func (d *Daemon) Info(id tid.TID, _ bool, info stasbus.Dict) {
	p := d.dcs[id]
	if p == nil {
		return
	}
	info["origin"] = p.origin
	if p.origin == originDiscovered {
		d.ageing(p, info)
	}
	if st, ok := d.Engine().Status(id); ok && (p.announced || st.Work.Err != nil) {
		info["get log page operation"] = service.OperationText(st.Work.Failures, st.Work.Err == nil)
	}
}

// GetLogPages implements [stasbus.LogPages].
func (d *Daemon) GetLogPages(ctx context.Context, id tid.TID) ([]stasbus.Dict, error) {
	list := []stasbus.Dict{}
	err := d.Loop().Do(ctx, func() {
		if p := d.dcs[id]; p != nil {
			for _, e := range p.Entries {
				list = append(list, e.Map())
			}
		}
	})
	if err != nil {
		return nil, err // the loop may still be about to write to list
	}
	return list, nil
}

// GetAllLogPages implements [stasbus.LogPages].
func (d *Daemon) GetAllLogPages(ctx context.Context, detailed bool) (string, error) {
	var entries [][]logpage.Entry
	all, err := d.Describe(ctx, detailed, func(id tid.TID) {
		var e []logpage.Entry
		if p := d.dcs[id]; p != nil {
			e = p.Entries // replaced, never changed
		}
		entries = append(entries, e)
	})
	if err != nil {
		return "", err
	}
	pages := make([]stasbus.DCPage[logpage.Entry], len(all))
	for i, c := range all {
		pages[i] = stasbus.DCPage[logpage.Entry]{DiscoveryController: c.Dict, LogPages: entries[i]}
		if entries[i] == nil {
			pages[i].LogPages = []logpage.Entry{}
		}
	}
	text, err := json.Marshal(pages)
	return string(text), err
}
