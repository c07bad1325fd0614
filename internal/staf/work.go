package staf

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/nvme-stas/stas/internal/hostid"
	"github.com/nvme-stas/stas/internal/reconcile"
	"github.com/nvme-stas/stas/internal/service"
	"github.com/nvme-stas/stas/internal/stasbus"
	"github.com/nvme-stas/stas/internal/tid"
	"github.com/nvme-stas/stas/pkg/fabrics"
	"github.com/nvme-stas/stas/pkg/nvme"
	"github.com/nvme-stas/stas/pkg/uevent"
)

// What is done with a live discovery controller: this host is registered with
// it, it is asked which log pages it has, and its log is read. All of that is
// due after each connect; the log alone whenever it may have changed.

const (
	// reread is the pause after an AEN before the log is read once more: some
	// targets tell before all of the change is there, and some drop a second
	// AEN that follows closely.
	reread = 3 * time.Second
	// safetyPoll is the pause between readings that nothing asked for, of a
	// log whose controller tells of its changes.
	safetyPoll = 10 * time.Minute
	// blindPoll is the same for a controller that tells nothing.
	blindPoll = time.Minute
)

// jittered keeps what many hosts do from falling together: ±20 %.
func jittered(d time.Duration) time.Duration { return d*4/5 + rand.N(d*2/5) }

// work is what is to be done with a discovery controller, and what came of it.
// It belongs to the loop.
type work struct {
	// All that follows a connect is due while asked is not done. begun is how
	// much of asked the last operation began with.
	asked, begun, done int
	told               int  // how much of asked it was told in, see register
	aen                bool // the log changed, by its own word
	poll               bool // it is time to read the log
	timer              *time.Timer

	lsp        uint8     // to read the log with
	pagesAsked bool      // it was asked for its log pages
	polled     bool      // see [stasbus.PageState]
	missed     int       // changes that no AEN told of
	read       time.Time // when the log was read last

	// registered says that it knows this host, perhaps from before a restart.
	registered   bool
	registration *stasbus.Registration // nil: not tried
	retryDue     bool                  // to register
	// katoless says that the next attempt to connect goes without a KATO.
	katoless bool
}

// job is what an operation has to do.
type job struct {
	all      bool // not just read the log
	asked    int
	register bool
	pleo     bool
	identity hostid.Identity
	lsp      uint8
	aen      bool
	poll     bool
}

// begin takes down what is to be done now.
func (d *Daemon) begin(id tid.TID) (j job) {
	c := d.dcs[id]
	if c == nil {
		return j // not wanted any more
	}
	j = job{
		all: c.asked != c.done, asked: c.asked, pleo: d.cfg.PLEO,
		identity: d.identity, lsp: c.lsp, aen: c.aen, poll: c.poll,
	}
	j.register = c.asked != c.told || c.retryDue
	c.begun = c.asked
	c.aen, c.poll, c.retryDue = false, false, false
	return j
}

// Work implements [service.Policy].
func (d *Daemon) Work(ctx context.Context, op reconcile.Op[fabrics.Options]) (func(), error) {
	var j job
	if err := d.Loop().Do(ctx, func() { j = d.begin(op.TID) }); err != nil {
		return nil, err
	}
	var about about
	if j.all || j.register {
		about = d.ask(ctx, op)
	}
	if j.register {
		// Before the log is read: what a CDC lists depends on who it knows.
		d.register(ctx, op, j, about.dctype)
	}
	lsp := j.lsp
	if j.all {
		var err error
		if lsp, err = d.choosePages(ctx, op, j.pleo && about.dctype != nvme.DCTypeCDC.String()); err != nil {
			return nil, err
		}
	}
	log, err := d.kernel.DiscoveryLog(ctx, op.Device, lsp)
	return func() {
		c := d.dcs[op.TID]
		if c == nil {
			return // not wanted any more
		}
		if j.all {
			c.done, c.lsp, c.pagesAsked = j.asked, lsp, j.pleo && about.dctype != nvme.DCTypeCDC.String()
			c.polled = about.silent
			if about.found != nil {
				about.found()
			}
		}
		d.took(op.TID, op.Device, log, j)
	}, err
}

// about is what a discovery controller says of itself.
type about struct {
	dctype string // in the words of sysfs
	silent bool   // it sends no AEN
	found  func() // for the loop, or nil
}

// ask asks a discovery controller about itself. What it does not answer stays
// unknown, which hinders nothing.
func (d *Daemon) ask(ctx context.Context, op reconcile.Op[fabrics.Options]) (a about) {
	if seen, err := d.kernel.Read(op.Device); err == nil {
		a.dctype = seen.DCType
	}
	id, found, err := d.Identify(ctx, op)
	if err != nil {
		d.log.Debug("a discovery controller does not say who it is", "device", op.Device, "error", err)
		return a
	}
	// Without keep alive it need not tell of changes (Base "Asynchronous Event
	// Request command", discovery controllers).
	kato, err := d.kernel.Attr(op.Device, "kato")
	a.found, a.silent = found, id.OAES&nvme.AENConfigDiscovery == 0 || err == nil && kato == "0"
	if id.CntrlType == nvme.ControllerDiscovery && id.DCType != nvme.DCTypeNone {
		a.dctype = cmp.Or(a.dctype, id.DCType.String()) // Linux before 5.18 shows none
	}
	return a
}

// choosePages finds out whether the log can be had without the entries of
// other ports (PLEO), if that is wanted.
func (d *Daemon) choosePages(ctx context.Context, op reconcile.Op[fabrics.Options], pleo bool) (lsp uint8, err error) {
	if !pleo {
		return 0, nil
	}
	page, err := d.kernel.SupportedLogPages(ctx, op.Device)
	if status, refused := errors.AsType[nvme.Status](err); refused && status.SCT() != nvme.PathRelated {
		// Nothing that was transferred counts then. Many discovery controllers
		// do not have the page, the kernel's own target among them.
		d.log.Debug("no list of supported log pages", "device", op.Device, "error", err)
		return 0, nil
	}
	if err != nil {
		return 0, err
	}
	return nvme.LogPageSupported(page, nvme.LogDiscovery).LSP() & nvme.LSPPortLocal, nil
}

// took takes what was read of a discovery controller's log.
func (d *Daemon) took(id tid.TID, device string, log nvme.DiscoveryLog, j job) {
	c := d.dcs[id]
	for _, bad := range log.Bad {
		d.log.Warn(id.String()+" lists something that makes no sense; that entry is left out", "device", device, "error", bad)
	}
	next := c.Update(log)
	changed := next.Known != c.Known || !slices.Equal(next.Entries, c.Entries)
	if changed && j.poll && !j.aen && !j.all && !c.aen && !c.polled && c.announced {
		c.missed++
		d.log.Warn(id.String()+" has changed its log page and not told", "device", device, "missed", c.missed)
	}
	c.Page, c.read = next, time.Now()
	first := !c.announced
	if changed || !c.announced {
		c.announced = true
		d.log.Info(fmt.Sprintf("%s: log page with %d entries", id, len(next.Entries)), "device", device, "genctr", next.GenCtr)
		d.bus.LogPagesChanged(id, device)
	}
	switch {
	case j.aen:
		d.wake(id, c, jittered(reread))
	case c.polled:
		d.wake(id, c, jittered(blindPoll))
	default:
		d.wake(id, c, jittered(safetyPoll))
	}
	if changed || d.grouped && first {
		d.reconsider() // it may refer to others
	}
}

// wake has the log read after a while, or sooner if the registration has to be
// tried again before.
func (d *Daemon) wake(id tid.TID, c *dc, after time.Duration) {
	if c.timer != nil {
		c.timer.Stop()
	}
	if r := c.registration; r != nil && r.Failure != nil && !r.Failure.Next.IsZero() {
		after = min(after, max(time.Until(r.Failure.Next), 0))
	}
	c.timer = time.AfterFunc(after, func() {
		d.Loop().Post(d.Context(), func() {
			st, ok := d.Engine().Status(id)
			if d.dcs[id] != c || !ok || st.Device == "" {
				return
			}
			c.poll = true
			if r := c.registration; r != nil && r.Failure != nil && !r.Failure.Next.IsZero() && !r.Failure.Next.After(time.Now()) {
				c.retryDue = true
			}
			d.Engine().RequestWork(st.Device, time.Now())
		})
	})
}

// dropped ends what is planned for a discovery controller.
func (c *dc) dropped() {
	if c.timer != nil {
		c.timer.Stop()
	}
}

// Event implements [service.Policy].
func (d *Daemon) Event(ev reconcile.Event) {
	c := d.dcs[ev.TID]
	if c == nil {
		if ev.Kind == reconcile.Disconnected || ev.Kind == reconcile.Released {
			delete(d.leaving, ev.TID)
		}
		return
	}
	d.ages(ev)
	switch ev.Kind {
	case reconcile.Connected, reconcile.Adopted:
		c.announced = false
		c.asked++
	case reconcile.ConnectFailed:
		// A controller that keeps no connection for good refuses one with keep
		// alive (Connect Invalid Parameters), of which the kernel tells no more
		// than EIO. So every other attempt goes without in the end, unless it is
		// known to keep them.
		if ev.Attempt > 1 && service.Rejected(ev.Err) && !c.explicit {
			c.katoless = !c.katoless
			d.soon(func() {
				if d.dcs[ev.TID] == c && c.options != nil {
					d.Engine().Want(ev.TID, c.attempt(), time.Now())
				}
			})
		}
		if d.grouped && ev.Attempt == 1 {
			d.soon(d.reconsider)
		}
	}
}

// attempt is how to connect next.
func (c *dc) attempt() fabrics.Options {
	o := *c.options
	if c.katoless {
		o.KeepAliveTMO = new(0)
	}
	return o
}

// soon has the loop call f, from where the engine must not be called.
func (d *Daemon) soon(f func()) {
	time.AfterFunc(0, func() { d.Loop().Post(d.Context(), f) })
}

// Changed implements [service.Policy]: a discovery controller reports that its
// log has changed, or has been reconnected and may have missed to report it.
func (d *Daemon) Changed(ev uevent.Event) {
	d.othersEvent(ev)
	if text, ok := ev.Env["NVME_AEN"]; ok {
		aen, err := nvme.ParseAEN(text)
		if err != nil {
			d.log.Warn("the kernel reports an event that makes no sense", "device", ev.DevName, "error", err)
			return
		}
		d.log.Debug("asynchronous event", "device", ev.DevName, "aen", aen)
		if aen == nvme.DiscoveryLogChanged {
			d.each(ev.DevName, func(c *dc) bool { c.aen = true; return true })
		}
	}
	switch ev.Env["NVME_EVENT"] {
	case "rediscover":
		d.each(ev.DevName, func(c *dc) bool { c.asked++; return true })
	case "connected":
		// It follows "rediscover", and it follows the daemon's own connect, whose
		// work is about to be done.
		d.each(ev.DevName, func(c *dc) bool {
			if !c.announced || c.asked != c.begun {
				return false
			}
			c.asked++
			return true
		})
	}
}

// each has work done with the controllers that use a device and that say so.
func (d *Daemon) each(device string, ask func(*dc) bool) {
	due := false
	for _, id := range d.Engine().Users(device) {
		if c := d.dcs[id]; c != nil && ask(c) {
			due = true
		}
	}
	if due {
		d.Engine().RequestWork(device, time.Now())
	}
}
