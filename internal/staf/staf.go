// Package staf is the finder: it keeps discovery controllers connected, reads
// their logs, and serves the entries on D-Bus.
package staf

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"iter"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/nvme-stas/stas/internal/conf"
	"github.com/nvme-stas/stas/internal/hostid"
	"github.com/nvme-stas/stas/internal/logpage"
	"github.com/nvme-stas/stas/internal/reconcile"
	"github.com/nvme-stas/stas/internal/service"
	"github.com/nvme-stas/stas/internal/stasbus"
	"github.com/nvme-stas/stas/internal/tid"
	"github.com/nvme-stas/stas/pkg/fabrics"
	"github.com/nvme-stas/stas/pkg/nvme"
	"github.com/nvme-stas/stas/pkg/uevent"
)

// The origins of discovery controllers. What has several has the first.
const (
	originConfigured = stasbus.Configured
	originNBFT       = stasbus.NBFT
)

// Daemon is stafd.
type Daemon struct {
	*service.Service
	kernel service.Kernel
	bus    service.Bus
	log    *slog.Logger

	// The rest belongs to the loop.

	// pages has what is known of the log of each discovery controller that is
	// wanted. Controllers come and go; their pages stay as they were last read.
	pages map[tid.TID]*page

	cfg      *conf.Config
	identity hostid.Identity
}

type page struct {
	logpage.Page
	origin string
	// announced says that the page has been read since its controller was last
	// taken up. stacd waits for that signal, whether or not anything changed.
	announced bool
}

// state is what survives a restart.
type state struct {
	Controllers []controllerState `json:"controllers"`
}

type controllerState struct {
	TID    tid.TID      `json:"tid"`
	Origin string       `json:"origin"`
	Page   logpage.Page `json:"page"`
}

// New returns stafd.
func New(env service.Env) *Daemon {
	d := &Daemon{kernel: env.Kernel, bus: env.Bus, log: env.Log, pages: make(map[tid.TID]*page)}
	d.Service = service.New(tid.Discovery, d, env)
	return d
}

// Run runs stafd until ctx ends or something fails for good.
func (d *Daemon) Run(ctx context.Context) error {
	var last state
	if d.Restore(&last) {
		for _, c := range last.Controllers {
			d.pages[c.TID] = &page{Page: c.Page, origin: c.Origin}
		}
	}
	return d.Service.Run(ctx, d)
}

// Tasks implements [service.Policy].
func (d *Daemon) Tasks() []func(context.Context) error { return nil }

// Apply implements [service.Policy].
func (d *Daemon) Apply(cfg *conf.Config, identity hostid.Identity) {
	d.cfg, d.identity = cfg, identity
	wanted := service.Configured(cfg, tid.Discovery, identity, d.log)
	booted := d.booted(cfg, identity, wanted)
	now := time.Now()
	byName := func(a, b tid.TID) int { return strings.Compare(a.String(), b.String()) }
	want := func(all service.Wanted, origin string) {
		for _, id := range slices.SortedFunc(maps.Keys(all), byName) {
			if d.pages[id] == nil {
				d.pages[id] = &page{}
			}
			d.pages[id].origin = origin
			d.Engine().Want(id, all[id], now)
		}
	}
	want(wanted, originConfigured)
	want(booted, originNBFT)
	maps.Copy(wanted, booted)
	removed := false
	for id, p := range d.pages {
		if _, ok := wanted[id]; ok {
			continue
		}
		// It may be known from before a restart only.
		d.WantUntilNow(id, cfg, identity)
		if stays := d.doubted(cfg, id, p.origin); stays != "" {
			d.log.Warn(id.String() + stays)
			continue
		}
		d.GiveUp(id, false, func(id tid.TID) bool { _, ok := wanted[id]; return ok })
		delete(d.pages, id)
		removed = true
	}
	if removed {
		d.bus.DCRemoved()
	}
	// Who reloads wants to see what there is now, even from a discovery
	// controller that tells nobody of its changes.
	d.Engine().RequestAllWork(now)
	d.save()
}

// inTables yields the discovery controllers of the boot tables, as this host
// would connect them, and which table each is in.
func (d *Daemon) inTables() iter.Seq2[tid.TID, string] {
	return func(yield func(tid.TID, string) bool) {
		for _, c := range d.BootTables().Discovery {
			id := c.ID
			id.HostNQN = cmp.Or(id.HostNQN, d.identity.NQN)
			if d.cfg.IgnoreIface {
				id.HostIface = ""
			}
			if !yield(id, c.Table) {
				return
			}
		}
	}
}

// booted returns the discovery controllers of the boot tables, without those
// that are wanted already.
func (d *Daemon) booted(cfg *conf.Config, identity hostid.Identity, already service.Wanted) service.Wanted {
	wanted := make(service.Wanted)
	for id, table := range d.inTables() {
		if _, ok := already[id]; ok {
			continue
		}
		if err := id.Validate(); err != nil {
			d.log.Warn(fmt.Sprintf("a discovery controller of the boot table %s cannot be connected: %v", table, err))
			continue
		}
		if no := cfg.Refuses(id, false); no != nil {
			d.log.Info(fmt.Sprintf("%s is in the boot table %s, but not connected: %s", id, table, no.Why))
			continue
		}
		wanted[id] = service.Options(id, tid.Discovery, cfg.ParamsFor(id), identity)
	}
	return wanted
}

// doubted says why a controller stays though nothing lists it any more, or
// nothing if it does not: not everything could be read or understood.
func (d *Daemon) doubted(cfg *conf.Config, id tid.TID, origin string) string {
	if origin != originNBFT {
		if service.Doubted(cfg, id) {
			return service.Stays
		}
		return ""
	}
	switch no := cfg.Refuses(id, false); {
	case no != nil && no.Sure:
		return ""
	case no != nil:
		return service.Stays
	case d.BootTables().Unread:
		return " stays, because the boot tables cannot be read"
	}
	return ""
}

func (d *Daemon) save() {
	s := state{Controllers: make([]controllerState, 0, len(d.pages))}
	for id, p := range d.pages {
		s.Controllers = append(s.Controllers, controllerState{id, p.origin, p.Page})
	}
	d.Save(s)
}

// Event implements [service.Policy].
func (d *Daemon) Event(ev reconcile.Event) {
	if p := d.pages[ev.TID]; p != nil && (ev.Kind == reconcile.Connected || ev.Kind == reconcile.Adopted) {
		p.announced = false
	}
}

// Work implements [service.Policy]: it reads the log page.
func (d *Daemon) Work(ctx context.Context, op reconcile.Op[fabrics.Options]) (func(), error) {
	log, err := d.kernel.DiscoveryLog(ctx, op.Device)
	return func() { d.took(op.TID, op.Device, log) }, err
}

// took takes what was read of a discovery controller's log.
func (d *Daemon) took(id tid.TID, device string, log nvme.DiscoveryLog) {
	p := d.pages[id]
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
	p := d.pages[id]
	if p == nil {
		return
	}
	info["origin"] = p.origin
	if st, ok := d.Engine().Status(id); ok && (p.announced || st.Work.Err != nil) {
		info["get log page operation"] = service.OperationText(st.Work.Failures, st.Work.Err == nil)
	}
}

// GetLogPages implements [stasbus.LogPages].
func (d *Daemon) GetLogPages(ctx context.Context, id tid.TID) ([]stasbus.Dict, error) {
	list := []stasbus.Dict{}
	err := d.Loop().Do(ctx, func() {
		if p := d.pages[id]; p != nil {
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
		if p := d.pages[id]; p != nil {
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
