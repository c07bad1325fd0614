package stac

import (
	"maps"
	"slices"
	"strings"

	"github.com/nvme-stas/stas/internal/service"
	"github.com/nvme-stas/stas/internal/stasbus"
	"github.com/nvme-stas/stas/internal/tid"
)

// AddTo implements [service.Policy].
func (d *Daemon) AddTo(r *stasbus.Report) {
	configured, refused := service.Origins(d.cfg, d.identity)
	listed := make(map[tid.TID][]stasbus.Origin)
	unfit := make(map[tid.TID]string) // listed, but not connected: why
	stafd := &stasbus.Stafd{Answers: d.answered, Sources: []stasbus.Source{}}
	for _, dc := range slices.SortedFunc(maps.Keys(d.sources), byName) {
		entries := d.sources[dc]
		stafd.Sources = append(stafd.Sources, stasbus.Source{ID: stasbus.ID(dc), Known: d.known[dc], Entries: len(entries)})
		for i := range entries {
			e := &entries[i]
			if !isStorage(e) {
				continue
			}
			id, err := d.named(dc, e)
			listed[id] = append(listed[id], stasbus.Origin{Kind: stasbus.Listed, By: new(stasbus.ID(dc)), NotConnected: notConnected(e)})
			if _, ok := d.wanted[id]; ok || unfit[id] != "" {
				continue
			}
			_, named := d.configured[id]
			if err != nil {
				unfit[id] = "the entry is not usable: " + err.Error()
			} else if no := d.cfg.Refuses(id, named); no != nil {
				unfit[id] = no.Why
			}
		}
	}
	r.Stafd = stafd
	for _, x := range d.holds.list {
		r.Holds = append(r.Holds, d.tellHold(x))
	}
	d.addKept(r)
	for i := range r.Controllers {
		c := &r.Controllers[i]
		if origin, ok := configured[c.TID()]; ok {
			c.Origins = append(c.Origins, origin)
		}
		c.Origins = append(c.Origins, listed[c.TID()]...)
		d.addStanding(c)
		if len(c.Origins) == 0 && c.Wanted {
			c.Origins = append(c.Origins, stasbus.Origin{Kind: stasbus.Remembered})
		}
	}
	for i := range refused {
		id := refused[i].TID()
		refused[i].Origins = append(refused[i].Origins, listed[id]...)
		delete(unfit, id)
	}
	r.Refused = append(r.Refused, refused...)
	for _, id := range slices.SortedFunc(maps.Keys(unfit), byName) {
		r.Refused = append(r.Refused, stasbus.Refusal{ID: stasbus.ID(id), Origins: listed[id], Why: unfit[id]})
	}
}

// addStanding adds what keeps a controller from being connected or disconnected.
func (d *Daemon) addStanding(c *stasbus.Controller) {
	id := c.TID()
	c.Booted = d.BootTables().Booted(id)
	if w, ok := d.withheld[id]; ok && !c.Wanted {
		c.Withheld = &stasbus.Withheld{Since: w.since, Why: w.why.Error(), InUse: w.why.users}
		c.Connect = nil // of the disconnect that was put off
	}
	if p, ok := d.parked[id]; ok {
		c.GivenUp = service.Ended(p.attempts, p.err)
	}
	for _, x := range d.holds.list {
		if !d.holds.covers(id) {
			break
		}
		var one holds
		if one.set([]hold{x}); one.covers(id) {
			c.HeldBy = append(c.HeldBy, d.tellHold(x))
		}
	}
	c.Held = len(c.HeldBy) > 0 // and not for want of attempts
}

// addKept adds what stays although nobody asks for it.
func (d *Daemon) addKept(r *stasbus.Report) {
	scope := make(map[string]tid.TID)
	for id := range d.kept {
		if device, _ := d.Engine().Find(id); device != "" {
			scope[device] = id
		}
	}
	for device, seen := range d.Engine().Unclaimed() {
		k := stasbus.Kept{ID: stasbus.ID(identityOf(seen)), Device: device, Why: d.Booted(identityOf(seen))}
		if id, ok := scope[device]; ok && k.Why == "" {
			k.ID, k.Why = stasbus.ID(id), "disconnect-scope is "+string(d.cfg.DisconnectScope)
		}
		if k.Why != "" {
			r.Kept = append(r.Kept, k)
		}
	}
	slices.SortFunc(r.Kept, func(a, b stasbus.Kept) int { return strings.Compare(a.Device, b.Device) })
}
