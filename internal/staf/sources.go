package staf

import (
	"cmp"
	"context"
	"fmt"
	"iter"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/nvme-stas/stas/internal/conf"
	"github.com/nvme-stas/stas/internal/logpage"
	"github.com/nvme-stas/stas/internal/service"
	"github.com/nvme-stas/stas/internal/stasbus"
	"github.com/nvme-stas/stas/internal/tid"
	"github.com/nvme-stas/stas/pkg/fabrics"
	"github.com/nvme-stas/stas/pkg/nvme"
)

// The origins of discovery controllers. What has several has the first.
const (
	originConfigured = stasbus.Configured
	originNBFT       = stasbus.NBFT
	originDiscovered = stasbus.Discovered
	originReferral   = stasbus.Referral
)

// Referrals come from whoever answers at an address, so they are bounded.
const (
	// maxDepth is how many referrals lead from one discovery controller to the
	// next (Base "Discovery Service": a host need not follow more).
	maxDepth = 8
	// maxReferred is how many discovery controllers may be wanted for no other
	// reason than that they are referred to.
	maxReferred = 1024
	// maxRefused is of how many it is told that they are not connected.
	maxRefused = 500
)

// wishes are the discovery controllers that shall be connected, in the order in
// which they are tried.
type wishes struct {
	all      map[tid.TID]*wish
	order    []tid.TID
	followed int // how many of order have had their referrals looked at
	referred int
	// unread has the places of those whose log page is not known as a whole.
	unread map[string]bool
	known  []tid.TID // those that have been wanted up to now, in order
}

type wish struct {
	// doubt is why it stays though nothing lists it.
	doubt   string
	origin  string
	parents []tid.TID
	depth   int
	// explicit says that somebody refers to it as one that keeps connections
	// for good (EPCSD).
	explicit bool
	// options are how to connect it; nil for as it was wanted before.
	options *fabrics.Options
}

func (w *wishes) has(id tid.TID) bool { return w.all[id] != nil }

func (w *wishes) add(id tid.TID, origin string, depth int) *wish {
	n := &wish{origin: origin, depth: depth}
	w.all[id] = n
	w.order = append(w.order, id)
	if origin == originReferral {
		w.referred++
	}
	return n
}

func byName(a, b tid.TID) int { return strings.Compare(a.String(), b.String()) }

// decide works out from all sources which discovery controllers are wanted. It
// tells nobody but the log, see Decide.
//
// What a source listed stays until there is evidence that it does not any more;
// see doubted for what is none.
func (d *Daemon) decide() *wishes {
	d.grouped, d.refused = false, nil
	d.discovered = d.fromMDNS()
	w := &wishes{all: make(map[tid.TID]*wish), unread: make(map[string]bool)}
	for _, source := range []struct {
		origin string
		wanted service.Wanted
	}{{originConfigured, d.configured}, {originNBFT, d.booted}, {originDiscovered, d.discovered}} {
		for _, id := range slices.SortedFunc(maps.Keys(source.wanted), byName) {
			if !w.has(id) {
				w.add(id, source.origin, 0).options = new(source.wanted[id])
			}
		}
	}
	w.known = slices.SortedFunc(maps.Keys(d.dcs), byName)
	stays := func(id tid.TID) {
		if c := d.dcs[id]; !w.has(id) {
			if why := d.doubted(w, id, c); why != "" {
				d.tell(slog.LevelWarn, id.String()+why)
				w.add(id, c.origin, c.depth).doubt = why
				if c.origin == originReferral {
					w.all[id].parents = slices.Clone(c.parents)
				}
			}
		}
	}
	// Referrals begin at what another source lists, so those that only refer to
	// each other are not reached.
	for _, id := range w.known {
		if d.dcs[id].origin != originReferral {
			stays(id)
		}
	}
	d.follow(w)
	for _, id := range w.order {
		if c := d.dcs[id]; c == nil || !c.Known {
			w.unread[place(id)] = true
		}
	}
	for _, id := range w.known {
		if d.dcs[id].origin == originReferral {
			stays(id)
		}
	}
	d.follow(w)
	return w
}

// reconsider decides, and tells the engine. It is called whenever a source has
// changed.
func (d *Daemon) reconsider() {
	w := d.decide()
	now := time.Now()
	for _, id := range w.order {
		n := w.all[id]
		if d.dcs[id] == nil {
			d.dcs[id] = &dc{work: work{registered: d.leaving[id]}}
			delete(d.leaving, id)
		}
		delete(d.listing.gone, id)
		c := d.dcs[id]
		c.origin, c.parents, c.depth = n.origin, n.parents, n.depth
		if own := d.ownEntry(id); own != nil {
			n.explicit = own.Flags().EPCSD()
		}
		c.explicit = n.explicit
		if n.options != nil {
			booted := c.origin == originNBFT && d.cfg.ParamsFor(id).Own == conf.OwnTimes{}
			c.options = new(d.Untouched(id, *n.options, booted))
			d.Engine().Want(id, c.attempt(), now)
		} else {
			d.WantUntilNow(id, d.cfg, d.identity)
		}
	}
	removed := false
	for _, id := range w.known {
		if w.has(id) {
			continue
		}
		// It may be known from before a restart only.
		d.WantUntilNow(id, d.cfg, d.identity)
		d.GiveUp(id, false, w.has)
		d.dcs[id].dropped()
		if d.dcs[id].registered {
			d.leaving[id] = true // see Guard
		}
		delete(d.dcs, id)
		d.listing.gaveUp(id)
		removed = true
	}
	if removed {
		d.bus.DCRemoved()
	}
	d.save()
}

// follow adds what the wanted discovery controllers refer to, and what that
// refers to in turn.
func (d *Daemon) follow(w *wishes) {
	for ; w.followed < len(w.order); w.followed++ {
		parent := w.order[w.followed]
		if d.dcs[parent] == nil {
			continue
		}
		depth := w.all[parent].depth + 1
		for _, r := range d.enough(parent, d.referrals(parent)) {
			n := w.all[r.id]
			if n == nil {
				// What is there already is not taken away for being one too many.
				fresh := d.dcs[r.id] == nil
				switch {
				case fresh && depth > maxDepth:
					d.refuse(r.id, parent, fmt.Sprintf("%d referrals lead to it, %d are followed", depth, maxDepth))
					continue
				case fresh && w.referred >= maxReferred:
					d.refuse(r.id, parent, fmt.Sprintf("no more than %d discovery controllers are connected for being referred to", maxReferred))
					continue
				}
				n = w.add(r.id, originReferral, depth)
				n.options = new(service.Options(r.id, tid.Discovery, d.cfg.ParamsFor(r.id), d.identity))
			}
			n.explicit = n.explicit || r.flags.EPCSD()
			if !slices.Contains(n.parents, parent) {
				n.parents = append(n.parents, parent)
			}
		}
	}
}

// refuse notes that a discovery controller is not connected although another
// one refers to it.
func (d *Daemon) refuse(id, parent tid.TID, why string) {
	if len(d.refused) >= maxRefused {
		return
	}
	d.refused = append(d.refused, stasbus.Refusal{
		ID: stasbus.ID(id), Why: why,
		Origins: []stasbus.Origin{{Kind: stasbus.Referral, By: new(stasbus.ID(parent))}},
	})
	d.tell(slog.LevelInfo, fmt.Sprintf("%s refers to %s, which is not connected: %s", parent, id, why))
}

// ref is what a discovery controller refers to.
type ref struct {
	id    tid.TID
	flags nvme.EntryFlags
}

// referrals lists the discovery controllers that one refers to and that may be
// connected.
func (d *Daemon) referrals(parent tid.TID) []ref {
	var all []ref
	have := map[tid.TID]bool{parent: true, {}: true}
	for i := range d.dcs[parent].Entries {
		e := &d.dcs[parent].Entries[i]
		id, err := d.referral(parent, e)
		if err != nil {
			d.refuse(id, parent, "the entry is not usable: "+err.Error())
			continue
		}
		if have[id] {
			continue
		}
		have[id] = true
		if no := d.cfg.Refuses(id, false); no != nil {
			d.refuse(id, parent, no.Why)
			continue
		}
		all = append(all, ref{id, e.Flags()})
	}
	return all
}

// enough leaves out what would tell the same once more: entries of one log page
// with DUPRETINFO lead to ports that all return the same (Base "Discovery Log
// Page Entry", EFLAGS). One that serves is enough; while none does, the next is
// tried when one has failed.
func (d *Daemon) enough(parent tid.TID, refs []ref) []ref {
	var group []tid.TID
	if own := d.ownEntry(parent); own != nil && own.Flags().DUPRETINFO() {
		group = append(group, parent)
	}
	for _, r := range refs {
		if r.flags.DUPRETINFO() {
			group = append(group, r.id)
		}
	}
	if len(group) < 2 {
		return refs
	}
	d.grouped = true
	chosen := make(map[tid.TID]bool)
	if i := slices.IndexFunc(group, d.serves); i >= 0 {
		chosen[group[i]] = true
	} else {
		failed := true
		for _, id := range group {
			if failed || d.dcs[id] != nil {
				chosen[id] = true
			}
			st, _ := d.Engine().Status(id)
			failed = failed && st.Failures > 0
		}
	}
	return slices.DeleteFunc(refs, func(r ref) bool { return r.flags.DUPRETINFO() && !chosen[r.id] })
}

// serves reports whether all is known of a discovery controller that is
// connected.
func (d *Daemon) serves(id tid.TID) bool {
	c := d.dcs[id]
	st, _ := d.Engine().Status(id)
	return c != nil && c.Known && c.announced && st.Device != ""
}

// ownEntry is what a discovery controller's log page has of the port that it
// was read from, nil if it has nothing.
func (d *Daemon) ownEntry(id tid.TID) *logpage.Entry {
	entries := d.dcs[id].Entries
	for i := range entries {
		e := &entries[i]
		if e.SubType != logpage.SubDiscovery {
			continue
		}
		if self, err := e.DC(id); err == nil && place(self) == place(id) {
			return e
		}
	}
	return nil
}

// referral is the discovery controller that an entry refers to, if it does.
func (d *Daemon) referral(parent tid.TID, e *logpage.Entry) (tid.TID, error) {
	if e.SubType != logpage.SubReferral || e.Placeholder() {
		return tid.TID{}, nil
	}
	parent.HostNQN = cmp.Or(parent.HostNQN, d.identity.NQN)
	id, err := e.DC(parent)
	if d.cfg.IgnoreIface {
		id.HostIface = ""
	}
	return id, err
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

// fromTables returns the discovery controllers of the boot tables, without
// those that are configured.
func (d *Daemon) fromTables() service.Wanted {
	wanted := make(service.Wanted)
	for id, table := range d.inTables() {
		if _, ok := d.configured[id]; ok {
			continue
		}
		if err := id.Validate(); err != nil {
			d.log.Warn(fmt.Sprintf("a discovery controller of the boot table %s cannot be connected: %v", table, err))
			continue
		}
		if no := d.cfg.Refuses(id, false); no != nil {
			d.log.Info(fmt.Sprintf("%s is in the boot table %s, but not connected: %s", id, table, no.Why))
			continue
		}
		wanted[id] = service.Options(id, tid.Discovery, d.cfg.ParamsFor(id), d.identity)
	}
	return wanted
}

// doubted says why a controller stays though nothing lists it any more, or
// nothing if it does not: not everything could be read or understood.
func (d *Daemon) doubted(w *wishes, id tid.TID, c *dc) string {
	if c.origin != originNBFT && c.origin != originDiscovered && c.origin != originReferral {
		if service.Doubted(d.cfg, id) {
			return service.Stays
		}
		return ""
	}
	switch no := d.cfg.Refuses(id, false); {
	case no != nil && no.Sure:
		return ""
	case no != nil:
		return service.Stays
	case c.origin == originNBFT && d.BootTables().Unread:
		return " stays, because the boot tables cannot be read"
	case c.origin == originReferral && w.doubts(c.parents):
		return " stays, because the log page that referred to it cannot be read"
	}
	return ""
}

// doubts reports whether one of the parents is wanted under another identity
// now (host NQN, interface), and has not been read under it: so it has not
// stopped referring to what it referred to.
func (w *wishes) doubts(parents []tid.TID) bool {
	return slices.ContainsFunc(parents, func(p tid.TID) bool { return !w.has(p) && w.unread[place(p)] })
}

// place is where a discovery controller is, whoever asks it.
func place(id tid.TID) string { return id.Transport + " " + id.TrAddr + " " + id.TrSvcID }

// tellOnce bounds what is remembered to have been told.
const tellOnce = 1000

// tell logs something once per configuration.
func (d *Daemon) tell(level slog.Level, message string, args ...any) {
	if !d.told[message] {
		if len(d.told) == tellOnce {
			clear(d.told) // somebody lists new nonsense all the time
		}
		d.told[message] = true
		d.log.Log(context.Background(), level, message, args...)
	}
}
