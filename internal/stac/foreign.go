package stac

import (
	"slices"
	"time"

	"github.com/nvme-stas/stas/internal/conf"
	"github.com/nvme-stas/stas/internal/reconcile"
	"github.com/nvme-stas/stas/internal/registry"
	"github.com/nvme-stas/stas/internal/service"
	"github.com/nvme-stas/stas/internal/tid"
)

// auditPause is the time between an event and the audit, and between the two
// audits that have to agree: a controller that has just appeared may be what
// somebody is about to ask for.
const auditPause = time.Second

// stranger is a controller that others connected and that nobody asks for.
type stranger struct {
	id    tid.TID
	tried bool // to remove it
}

// mayDisconnect reports whether the configuration lets go of a controller that
// is no longer wanted. What it excludes by name is not kept by any scope.
func (d *Daemon) mayDisconnect(id tid.TID) bool {
	if _, excluded := d.cfg.Excludes.Match(id); excluded {
		return true
	}
	switch d.cfg.DisconnectScope {
	case conf.NoDisconnect:
		return false
	case conf.AllConnections:
		return slices.Contains(d.cfg.DisconnectTrtypes, id.Transport)
	}
	return true
}

// scheduleAudit looks soon at what others have connected, if that is to be
// removed. Many events together make one audit.
func (d *Daemon) scheduleAudit() {
	if d.cfg == nil || d.cfg.DisconnectScope != conf.AllConnections || d.nextAudit != nil {
		return
	}
	d.nextAudit = d.After(auditPause, func() {
		d.nextAudit = nil
		d.audit()
	})
}

// certain reports whether all is known that anybody may ask for. Where nobody
// asks for anything, nothing is proven either.
func (d *Daemon) certain() bool {
	if !d.answered || d.cfg.Doubtful || d.BootTables().Unread || len(d.sources)+len(d.cfg.Controllers) == 0 {
		return false
	}
	for dc := range d.sources {
		if !d.known[dc] {
			return false
		}
	}
	return true
}

// place of a controller, however the host gets there.
func placeOf(id tid.TID) tid.TID {
	id.HostIface, id.HostTrAddr = "", ""
	return id
}

// audit looks at the connections that others made. One that nobody has asked
// for in two audits, while all was certain, is removed.
func (d *Daemon) audit() {
	if d.cfg.DisconnectScope != conf.AllConnections || !d.certain() {
		clear(d.strangers)
		return
	}
	var (
		now    = make(map[string]stranger)
		remove []string
		fresh  bool
		asked  map[tid.TID]bool // places, if there are strangers at all
	)
	for name, seen := range d.Engine().Unclaimed() {
		id := identityOf(seen)
		if asked == nil {
			asked = d.places()
		}
		// Another path to what is asked for is not what zoning took away, nor is
		// what another host NQN stands for ours to judge.
		if !slices.Contains(d.cfg.DisconnectTrtypes, id.Transport) || id.HostNQN != d.identity.NQN || asked[placeOf(id)] ||
			d.unusable[id.SubsysNQN] || d.holds.covers(id) || d.Booted(id) != "" {
			continue
		}
		s, before := d.strangers[name]
		switch {
		case !before || s.id != id:
			s = stranger{id: id}
			fresh = true
		case !s.tried:
			s.tried = true
			remove = append(remove, name)
		}
		now[name] = s
	}
	d.strangers = now
	if fresh {
		d.scheduleAudit()
	}
	if len(remove) > 0 {
		d.InBackground(func() { d.removeStrangers(remove) })
	}
}

// identityOf is the transport ID of a device that others connected.
func identityOf(seen reconcile.Observed) tid.TID {
	return tid.New(tid.TID{
		Transport: seen.Transport, TrAddr: seen.TrAddr, TrSvcID: seen.TrSvcID, SubsysNQN: seen.SubsysNQN,
		HostTrAddr: seen.HostTrAddr, HostIface: seen.HostIface, HostNQN: seen.HostNQN,
	})
}

// places are those of all controllers that are wanted.
func (d *Daemon) places() map[tid.TID]bool {
	all := make(map[tid.TID]bool, len(d.wanted))
	for id := range d.wanted {
		all[placeOf(id)] = true
	}
	return all
}

// removeStrangers disconnects what no other program of the host owns. It is
// called by a worker.
func (d *Daemon) removeStrangers(names []string) {
	owners := make(map[string]string)
	for _, name := range names {
		if owner := d.kernel.Owner(name); owner != registry.Self {
			owners[name] = owner
		}
	}
	d.Post(func() {
		if !d.certain() {
			return
		}
		unclaimed := make(map[string]bool)
		for name := range d.Engine().Unclaimed() {
			unclaimed[name] = true
		}
		for _, name := range names {
			s, ok := d.strangers[name]
			switch {
			case !ok || !unclaimed[name] || d.cfg.DisconnectScope != conf.AllConnections:
			case owners[name] != "":
				d.log.Info(s.id.String()+" is not asked for, but owned by "+owners[name]+", and left alone", "device", name)
			default:
				d.log.Info(s.id.String()+" was connected by others and nobody asks for it: disconnecting it (disconnect-scope)", "device", name)
				d.foreign[s.id] = true
				d.WantUntilNow(s.id, d.cfg, d.identity)
				d.GiveUp(s.id, false, func(id tid.TID) bool { _, ok := d.wanted[id]; return ok })
			}
		}
		d.applyHolds()
	})
}

// lookAgainAtKept goes through the controllers that a former scope kept, and
// through those that wait to be released: the scope may have changed.
func (d *Daemon) lookAgainAtKept() {
	none := func(tid.TID) bool { return false }
	if d.cfg.Doubtful || d.BootTables().Unread {
		return
	}
	for id := range d.kept {
		device, sure := d.Engine().Find(id)
		_, wanted := d.wanted[id]
		switch {
		case wanted, sure && device == "":
			delete(d.kept, id)
		case d.mayDisconnect(id) && d.Booted(id) == "":
			delete(d.kept, id)
			d.WantUntilNow(id, d.cfg, d.identity)
			d.GiveUp(id, false, none)
		}
	}
	for id := range d.withheld {
		others := d.foreign[id] && d.cfg.DisconnectScope != conf.AllConnections
		if _, wanted := d.wanted[id]; !wanted && (others || !d.mayDisconnect(id)) {
			delete(d.withheld, id)
			if !d.foreign[id] {
				d.kept[id] = true
			}
			d.WantUntilNow(id, d.cfg, d.identity)
			d.GiveUp(id, true, none)
		}
	}
}

var _ service.Policy = (*Daemon)(nil)
