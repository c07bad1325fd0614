package stac

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/nvme-stas/stas/internal/reconcile"
	"github.com/nvme-stas/stas/internal/stasbus"
	"github.com/nvme-stas/stas/internal/tid"
	"github.com/nvme-stas/stas/pkg/nvme"
)

// maxHolds bounds what operators may hold, so that the state file stays small.
const maxHolds = 10000

// hold is an operator's word to leave controllers as they are, neither to
// connect nor to disconnect them.
type hold struct {
	// Name is an NQN, an address with or without port, or for a controller that
	// was disconnected, its device.
	Name string `json:"name"`
	// TID is the one controller that is held.
	TID   *tid.TID  `json:"controller,omitempty"`
	Since time.Time `json:"since"`
	Until time.Time `json:"until,omitzero"` // for ever, if zero
}

// holds are all of them. What covers a controller is found without looking at
// each.
type holds struct {
	list   []hold
	byName map[string]bool
	byTID  map[tid.TID]bool
}

func (h *holds) set(list []hold) {
	h.list = list
	h.byName, h.byTID = make(map[string]bool), make(map[tid.TID]bool)
	for _, x := range list {
		if x.TID != nil {
			h.byTID[*x.TID] = true
		} else {
			h.byName[x.Name] = true
		}
	}
}

// copy is for who looks at the holds later, and elsewhere.
func (h *holds) copy() *holds {
	c := new(holds)
	c.set(h.list) // replaced, never changed
	return c
}

// covers reports whether a controller is held.
func (h *holds) covers(id tid.TID) bool {
	return len(h.list) > 0 && (h.byTID[id] || h.byName[id.SubsysNQN] || h.byName[id.TrAddr] || h.byName[net.JoinHostPort(id.TrAddr, id.TrSvcID)])
}

// holdName is the name of a hold in the spelling of transport IDs.
func holdName(text string) (string, error) {
	if addr, err := netip.ParseAddr(strings.Trim(text, "[]")); err == nil {
		return tid.CanonicalAddr(addr.String()), nil
	}
	if ap, err := netip.ParseAddrPort(text); err == nil {
		return net.JoinHostPort(tid.CanonicalAddr(ap.Addr().String()), fmt.Sprint(ap.Port())), nil
	}
	switch {
	case nvme.CheckNQN(text) == nil:
		return text, nil
	case strings.HasPrefix(text, "nn-0x"): // Fibre Channel
		return tid.CanonicalAddr(text), nil
	}
	return "", fmt.Errorf("%q is neither an NQN nor an address, with or without port", text)
}

// Hold implements [stasbus.Operator].
func (d *Daemon) Hold(ctx context.Context, name string, duration time.Duration) (h stasbus.Hold, err error) {
	if name, err = holdName(name); err != nil {
		return h, err
	}
	if duration < 0 {
		return h, fmt.Errorf("%v is no time to come", duration)
	}
	failed := d.Loop().Do(ctx, func() {
		var x hold
		if x, err = d.addHold(hold{Name: name}, duration); err == nil {
			h = d.tellHold(x)
		}
	})
	return h, cmp.Or(failed, err)
}

// addHold adds a hold, or replaces the one of the same name.
func (d *Daemon) addHold(x hold, duration time.Duration) (hold, error) {
	now := time.Now()
	x.Since = now
	if duration > 0 {
		x.Until = now.Add(duration)
	}
	list := slices.DeleteFunc(slices.Clone(d.holds.list), func(o hold) bool {
		if x.TID == nil || o.TID == nil {
			return x.TID == o.TID && o.Name == x.Name
		}
		return *o.TID == *x.TID
	})
	if len(list) >= maxHolds {
		return x, errors.New("too much is held already; see: stacctl status")
	}
	d.changeHolds(append(list, x))
	text := "until it is released"
	if duration > 0 {
		text = "until " + x.Until.Local().Format(time.DateTime)
	}
	d.log.Info(x.Name + " is held by an operator, " + text + ": neither connected nor disconnected")
	return x, nil
}

// Release implements [stasbus.Operator].
func (d *Daemon) Release(ctx context.Context, name string) (released []stasbus.Hold, err error) {
	canonical, err := holdName(name)
	if err != nil {
		canonical = name // of a device
	}
	failed := d.Loop().Do(ctx, func() {
		var only holds // what the name covers
		only.set([]hold{{Name: canonical}})
		var stay []hold
		for _, x := range d.holds.list {
			if x.Name == canonical || x.TID != nil && only.covers(*x.TID) {
				released = append(released, d.tellHold(x))
			} else {
				stay = append(stay, x)
			}
		}
		if len(released) > 0 {
			d.changeHolds(stay)
			d.log.Info(canonical + " was released by an operator")
		}
	})
	if failed != nil {
		return nil, failed
	}
	if len(released) == 0 {
		return nil, fmt.Errorf("nothing is held by the name %q; stacctl status shows what is", name)
	}
	return released, nil
}

// changeHolds puts other holds in force.
func (d *Daemon) changeHolds(list []hold) {
	d.holds.set(list)
	d.applyHolds()
	d.save()
	d.awaitExpiry()
	d.scheduleAudit()
}

// applyHolds tells the engine who is held. One that gets free is tried at once.
func (d *Daemon) applyHolds() {
	now := time.Now()
	for _, st := range d.Engine().All() {
		_, parked := d.parked[st.TID]
		d.Engine().Hold(st.TID, parked || d.holds.covers(st.TID), now)
	}
}

// awaitExpiry ends holds when their time is over.
func (d *Daemon) awaitExpiry() {
	if d.expiry != nil {
		d.expiry.Stop()
		d.expiry = nil
	}
	var first time.Time
	for _, x := range d.holds.list {
		if !x.Until.IsZero() && (first.IsZero() || x.Until.Before(first)) {
			first = x.Until
		}
	}
	if first.IsZero() {
		return
	}
	d.expiry = d.After(max(time.Until(first), 0), func() {
		now := time.Now()
		stay := slices.DeleteFunc(slices.Clone(d.holds.list), func(x hold) bool {
			over := !x.Until.IsZero() && !x.Until.After(now)
			if over {
				d.log.Info(x.Name + " is no longer held: the time that was set is over")
			}
			return over
		})
		if len(stay) < len(d.holds.list) {
			d.changeHolds(stay)
		} else {
			d.awaitExpiry() // the clock was set back
		}
	})
}

// tellHold is a hold in a report.
func (d *Daemon) tellHold(x hold) stasbus.Hold {
	h := stasbus.Hold{Name: x.Name, Since: x.Since, Until: x.Until}
	if x.TID != nil {
		h.Controller = new(stasbus.ID(*x.TID))
	}
	return h
}

// operation is what an operator waits for.
type operation chan error

// disconnectWait bounds how long an operator waits for a disconnect. One whose
// target is silent takes the kernel a minute.
const disconnectWait = 15 * time.Second

// Disconnect implements [stasbus.Operator]: it disconnects a device that stacd
// looks after, and holds its controller, which would come back at once
// otherwise.
func (d *Daemon) Disconnect(ctx context.Context, device string, force bool) (done stasbus.Disconnected, err error) {
	device = strings.TrimPrefix(device, "/dev/")
	var ids []tid.TID // those that share the device, as a rule one
	booted := ""
	failed := d.Loop().Do(ctx, func() {
		for _, st := range d.Engine().All() {
			if st.Device == device && device != "" {
				ids = append(ids, st.TID)
				booted = cmp.Or(booted, d.Booted(st.TID))
			}
		}
	})
	switch {
	case failed != nil:
		return done, failed
	case len(ids) == 0:
		return done, fmt.Errorf("stacd has no controller with the device %q; stacctl ls shows what it has, nvme disconnect -d takes any", device)
	case booted != "" && !force:
		return done, fmt.Errorf("%s stays connected: %s; --force disconnects it all the same", device, booted)
	}
	if !force {
		if err := d.guard.ask(device); err != nil {
			return done, fmt.Errorf("%s stays connected: %w; --force disconnects it all the same", device, err)
		}
	}
	id := ids[0]
	ended := make(operation, 1)
	failed = d.Loop().Do(ctx, func() {
		for i := range ids {
			if _, err = d.addHold(hold{Name: device, TID: &ids[i]}, 0); err != nil {
				return
			}
		}
		if force {
			d.guard.force(id)
		}
		d.awaited[id] = append(d.awaited[id], ended)
		if !d.Engine().Drop(id, time.Now()) {
			d.answer(id, nil) // it has just gone by itself
		}
	})
	if failed != nil || err != nil {
		return done, cmp.Or(failed, err)
	}
	done = stasbus.Disconnected{ID: stasbus.ID(id), Device: device}
	wait := time.NewTimer(disconnectWait)
	defer wait.Stop()
	select {
	case err := <-ended:
		if err != nil {
			// It stays, and so it is not to be held either.
			_ = d.Loop().Do(ctx, func() {
				d.changeHolds(slices.DeleteFunc(slices.Clone(d.holds.list), func(x hold) bool { return x.TID != nil && slices.Contains(ids, *x.TID) }))
			})
		}
		return done, err
	case <-wait.C:
		done.Pending = true // the kernel is at it
		return done, nil
	case <-ctx.Done():
		return done, ctx.Err()
	}
}

// answer tells operators what became of what they wait for.
func (d *Daemon) answer(id tid.TID, err error) {
	for _, ended := range d.awaited[id] {
		ended <- err
	}
	delete(d.awaited, id)
}

// answered tells operators of an event. It is called from within the engine.
func (d *Daemon) answerOperators(ev reconcile.Event) {
	switch ev.Kind {
	case reconcile.Disconnected, reconcile.Lost, reconcile.Released:
		d.answer(ev.TID, nil)
	case reconcile.DisconnectFailed:
		d.answer(ev.TID, ev.Err)
	}
}

// ask says why a device must not be deleted, and lets it be.
func (g *guard) ask(device string) error {
	last, err := g.last(device, false)
	var users []string
	if err == nil && len(last) > 0 {
		users, err = g.users(device, last, true)
	}
	if len(users) > 0 || err != nil {
		return &inUseError{users, err}
	}
	return nil
}

// --- attempts at what the central discovery controller does not reach

// parked is a controller that is not tried any more, because its entry says
// that it is not connected to the central discovery controller (NCC), and the
// attempts that the configuration allows are used up.
type parked struct {
	attempts int
	err      error
}

// limitAttempts takes a failed connect. It is called from within the engine.
func (d *Daemon) limitAttempts(ev reconcile.Event) {
	if ev.Kind == reconcile.ConnectFailed && d.spent(ev.TID, ev.Attempt) {
		d.After(0, func() { d.park(ev.TID, parked{ev.Attempt, ev.Err}) })
	}
}

// spent reports whether so many attempts are all that there may be.
func (d *Daemon) spent(id tid.TID, attempts int) bool {
	limit, e := d.cfg.ConnectAttemptsOnNCC, d.wanted[id].entry
	return limit > 0 && attempts >= limit && e != nil && notConnected(e)
}

func (d *Daemon) park(id tid.TID, p parked) {
	st, ok := d.Engine().Status(id)
	if !ok || !st.Wanted || st.Device != "" || !d.spent(id, p.attempts) {
		return // it has changed since
	}
	d.parked[id] = p
	d.Engine().Hold(id, true, time.Now())
	d.log.Log(context.Background(), slog.LevelWarn, fmt.Sprintf("%s is not tried any more: %d attempts failed, and the log page says that the central "+
		"discovery controller is not connected to it; it is tried again when that changes, and at a reload (connect-attempts-on-ncc)", id, p.attempts))
}

// unpark tries controllers again of which the entry has changed for the better.
func (d *Daemon) unpark(was map[tid.TID]reason) {
	now := time.Now()
	for id, p := range d.parked {
		if !d.spent(id, p.attempts) {
			delete(d.parked, id)
			d.Engine().Hold(id, d.holds.covers(id), now)
			d.Engine().Kick(id, now)
		}
	}
	for id, r := range d.wanted {
		if before := was[id].entry; before != nil && notConnected(before) && r.entry != nil && !notConnected(r.entry) {
			d.Engine().Kick(id, now)
		}
	}
}
