// Package staf is the finder: it keeps discovery controllers connected, reads
// their logs, and serves the entries on D-Bus.
package staf

import (
	"context"
	"encoding/json"
	"log/slog"
	"maps"
	"time"

	"github.com/nvme-stas/stas/internal/conf"
	"github.com/nvme-stas/stas/internal/hostid"
	"github.com/nvme-stas/stas/internal/logpage"
	"github.com/nvme-stas/stas/internal/mdns"
	"github.com/nvme-stas/stas/internal/service"
	"github.com/nvme-stas/stas/internal/stasbus"
	"github.com/nvme-stas/stas/internal/tid"
	"github.com/nvme-stas/stas/pkg/fabrics"
)

// leaveWithin bounds how long it takes to disconnect all discovery controllers
// at the end: a stop is to take 5 s.
const leaveWithin = 3 * time.Second

// Daemon is stafd.
type Daemon struct {
	*service.Service
	kernel service.Kernel
	bus    service.Bus
	log    *slog.Logger
	// MDNS returns who browses for discovery controllers, in a way that the
	// configuration asks for. It is set before Run. Nil: nobody does.
	MDNS  func(conf.MDNS) mdns.Browser
	modes chan conf.MDNS // for the task browse; "": nobody shall

	restart func(context.Context, string) error // see service.Env
	news    chan news                           // to be passed on

	// The rest belongs to the loop.

	// dcs has the discovery controllers that are wanted. Controllers come and
	// go; what is known of them stays, above all their pages as last read.
	dcs map[tid.TID]*dc

	// The sources, see reconsider.
	configured service.Wanted
	booted     service.Wanted
	discovered service.Wanted // by mDNS
	zeroconf   zeroconf

	listing  listing
	cfg      *conf.Config
	identity hostid.Identity
	// leaving are those that know this host and are about to be disconnected.
	leaving map[tid.TID]bool
	// grouped says that some discovery controllers return the same, see enough.
	grouped bool
	// refused are those that others refer to and that are not connected.
	refused []stasbus.Refusal
	// trying says that this is a copy which acts upon nothing, see Decide.
	trying bool
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
	// explicit says that it keeps connections for good (EPCSD), by what it says
	// of itself or by what others say.
	explicit bool
	options  *fabrics.Options // nil: as it was wanted before a restart
	work
	// announced says that the page has been read since its controller was last
	// taken up. stacd waits for that signal, whether or not anything changed.
	announced bool
	// silent is since when a discovered one is neither announced nor reached, and
	// forget when that is long enough; zero while it does not matter.
	silent, forget time.Time
}

// state is what survives a restart.
type state struct {
	// Complete says that it is all that should be there, see listing. What is
	// silent about it may not even be of stafd.
	Complete    bool              `json:"complete"`
	Controllers []controllerState `json:"controllers"`
}

type controllerState struct {
	TID     tid.TID   `json:"tid"`
	Origin  string    `json:"origin"`
	Parents []tid.TID `json:"parents,omitempty"`
	// Registered says that the discovery controller knows of this host.
	Registered bool         `json:"registered,omitempty"`
	Page       logpage.Page `json:"page"`
	// Of a discovered one that is neither announced nor reached.
	Silent time.Time `json:"silent,omitzero"`
	Forget time.Time `json:"forget,omitzero"`
}

// New returns stafd.
func New(env service.Env) *Daemon {
	d := &Daemon{kernel: env.Kernel, bus: env.Bus, log: env.Log, dcs: make(map[tid.TID]*dc), told: make(map[string]bool), leaving: make(map[tid.TID]bool)}
	d.restart, d.news = env.Restart, make(chan news, othersBacklog)
	d.modes = make(chan conf.MDNS, 1)
	d.zeroconf.services = make(map[mdns.Key]*announcement)
	d.Service = service.New(tid.Discovery, d, env)
	return d
}

// Run runs stafd until ctx ends or something fails for good.
func (d *Daemon) Run(ctx context.Context) error {
	var last state
	d.listing = listing{since: time.Now(), blank: true, gone: make(map[tid.TID]bool)}
	if d.Restore(&last) {
		d.listing.blank = !last.Complete
		for _, c := range last.Controllers {
			d.dcs[c.TID] = &dc{Page: c.Page, origin: c.Origin, parents: c.Parents, silent: c.Silent, forget: c.Forget, work: work{registered: c.Registered}}
		}
	}
	err := d.Service.Run(ctx, d)
	if err == nil && !d.cfg.PersistentConns {
		// As nvme-stas does. What the host was booted from stays all the same.
		booted := maps.Collect(d.inTables())
		d.Leave(leaveWithin, func(id tid.TID) bool { return d.dcs[id] != nil && booted[id] == "" })
	}
	return err
}

// Tasks implements [service.Policy].
func (d *Daemon) Tasks() []func(context.Context) error {
	return []func(context.Context) error{d.tellOthers, d.browse}
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
	// controller that tells nobody of its changes, and may have changed what
	// the host calls itself.
	for _, c := range d.dcs {
		c.asked++
	}
	d.Engine().RequestAllWork(time.Now())
}

func (d *Daemon) save() {
	s := state{Complete: !d.partial(), Controllers: make([]controllerState, 0, len(d.dcs))}
	for id, c := range d.dcs {
		s.Controllers = append(s.Controllers, controllerState{id, c.origin, c.parents, c.registered, c.Page, c.silent, c.forget})
	}
	d.Save(s)
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
	if p.pagesAsked {
		info["get supported log page operation"] = service.OperationText(0, true)
	}
	if r := p.registration; r != nil {
		failures := 0
		if r.Failure != nil && r.State == stasbus.RegFailed {
			failures = r.Failure.Attempts
		}
		info["register operation"] = service.OperationText(failures, r.State != stasbus.RegFailed)
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
