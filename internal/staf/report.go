package staf

import (
	"context"
	"encoding/json"
	"slices"

	"github.com/nvme-stas/stas/internal/logpage"
	"github.com/nvme-stas/stas/internal/service"
	"github.com/nvme-stas/stas/internal/stasbus"
	"github.com/nvme-stas/stas/internal/tid"
	"github.com/nvme-stas/stas/pkg/nvme"
)

// ProcessInfo implements [stasbus.Backend].
func (d *Daemon) ProcessInfo(ctx context.Context) (string, error) {
	info, err := d.Process(ctx)
	if err != nil {
		return "", err
	}
	if err := d.Loop().Do(ctx, func() { info["avahi"] = d.avahi() }); err != nil {
		return "", err
	}
	text, err := json.Marshal(info)
	return string(text), err
}

// AddTo implements [service.Policy].
func (d *Daemon) AddTo(r *stasbus.Report) {
	configured, refused := service.Origins(d.cfg, d.identity)
	r.Refused = append(r.Refused, refused...)
	tables := make(map[tid.TID][]stasbus.Origin)
	told := func(id tid.TID) bool {
		return slices.ContainsFunc(r.Refused, func(r stasbus.Refusal) bool { return r.TID() == id })
	}
	for id, table := range d.inTables() {
		tables[id] = append(tables[id], stasbus.Origin{Kind: stasbus.NBFT, Place: table})
		if no := d.cfg.Refuses(id, false); no != nil && d.dcs[id] == nil && !told(id) {
			r.Refused = append(r.Refused, stasbus.Refusal{ID: stasbus.ID(id), Origins: tables[id], Why: no.Why})
		}
	}
	for _, refusal := range d.refused {
		if st, ok := d.Engine().Status(refusal.TID()); !ok || !st.Wanted {
			r.Refused = append(r.Refused, refusal)
		}
	}
	for i := range r.Controllers {
		c := &r.Controllers[i]
		if origin, ok := configured[c.TID()]; ok {
			c.Origins = append(c.Origins, origin)
		}
		c.Origins = append(c.Origins, tables[c.TID()]...)
		p := d.dcs[c.TID()]
		if p == nil {
			continue
		}
		c.Origins = append(c.Origins, d.announcedBy(c.TID(), p)...)
		for _, parent := range p.parents {
			c.Origins = append(c.Origins, stasbus.Origin{Kind: stasbus.Referral, By: new(stasbus.ID(parent))})
		}
		c.Registration = p.registration
		c.LogPage = &stasbus.PageState{
			Known: p.Known, Generation: p.GenCtr, Entries: len(p.Entries),
			Read: p.read, PortLocal: p.lsp&nvme.LSPPortLocal != 0, Polled: p.polled, MissedAENs: p.missed,
		}
		if st, ok := d.Engine().Status(c.TID()); ok {
			c.LogPage.Failure = service.Failure(st.Work)
		}
	}
}

// LogPages implements [stasbus.LogPager].
func (d *Daemon) LogPages(ctx context.Context) ([]stasbus.LogPage, error) {
	pages := []stasbus.LogPage{}
	err := d.Loop().Do(ctx, func() {
		for _, st := range d.Engine().All() {
			if p := d.logPage(st.TID); st.Wanted && p != nil {
				pages = append(pages, *p)
			}
		}
	})
	if err != nil {
		return nil, err // the loop may still be about to write to pages
	}
	return pages, nil
}

// LogPage implements [stasbus.LogPager].
func (d *Daemon) LogPage(ctx context.Context, id tid.TID) (*stasbus.LogPage, error) {
	var page *stasbus.LogPage
	err := d.Loop().Do(ctx, func() { page = d.logPage(id) })
	if err != nil {
		return nil, err
	}
	return page, nil
}

// logPage belongs to the loop.
func (d *Daemon) logPage(id tid.TID) *stasbus.LogPage {
	p := d.dcs[id]
	if p == nil {
		return nil
	}
	page := &stasbus.LogPage{ID: stasbus.ID(id), Known: p.Known, Generation: p.GenCtr, Entries: p.Entries}
	if p.Entries == nil {
		page.Entries = []logpage.Entry{}
	}
	if st, ok := d.Engine().Status(id); ok {
		page.Device = st.Device
	}
	return page
}
