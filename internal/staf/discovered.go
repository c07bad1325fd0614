package staf

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net/netip"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/nvme-stas/stas/internal/conf"
	"github.com/nvme-stas/stas/internal/mdns"
	"github.com/nvme-stas/stas/internal/reconcile"
	"github.com/nvme-stas/stas/internal/service"
	"github.com/nvme-stas/stas/internal/tid"
	"github.com/nvme-stas/stas/pkg/nvme"
)

// This file is the source of what is announced by mDNS (NVM Express TP 8009).

const (
	// grace is how long what was announced may take to be heard again, once
	// somebody listens. An announcer answers a first question within 120 ms (RFC
	// 6762, 6), of several others that are asked a few seconds apart.
	grace = 30 * time.Second
	// gather is how long announcements are collected, so that those that come
	// together are looked at together.
	gather = 50 * time.Millisecond
	// kickPause is how often an announcement that changes all the time may have
	// its controller tried at once.
	kickPause = time.Second
	// maxAnnounced and maxDiscovered bound what is believed of a network: how
	// many services are looked at, and how many controllers are wanted for them.
	maxAnnounced  = 8192
	maxDiscovered = 1024
)

// zeroconf is what is known by mDNS. It belongs to the loop.
type zeroconf struct {
	mode conf.MDNS // "": nobody is asked to browse
	// listening is since when there is somebody who would hear of changes; zero
	// while there is nobody.
	listening time.Time
	services  map[mdns.Key]*announcement
	// by has those of them that stand for a controller.
	by     map[tid.TID][]*announcement
	due    bool        // reconsider is about to be called
	ageing *time.Timer // calls it when a controller has aged out
}

// announcement is a service that is announced.
type announcement struct {
	mdns.Service
	since time.Time
	// lost is when it became unknown whether it still is; zero: it is.
	lost time.Time
	// changed says that it was announced anew, or that something of it changed.
	changed bool
	kicked  time.Time

	// What is made of it, see fromMDNS.
	wrong     string // why it stands for no controller
	addresses []candidate
}

// candidate is an address of a service, and the controller there.
type candidate struct {
	addr netip.Addr
	id   tid.TID // zero if there is none
	no   string  // why it is not wanted
}

// settled reports whether all that is announced has been heard by now.
func (z *zeroconf) settled(now time.Time) bool {
	return !z.listening.IsZero() && now.Sub(z.listening) >= grace
}

// browse is the task that has somebody browse.
func (d *Daemon) browse(ctx context.Context) error {
	stop := func() {}
	for {
		select {
		case <-ctx.Done():
			stop()
			return nil
		case mode := <-d.modes:
			stop()
			d.Loop().Post(ctx, func() { d.heard(mdns.Event{Kind: mdns.SourceLost}) })
			stop = d.browseBy(ctx, mode)
		}
	}
}

// browseBy has somebody browse until stop is called, which returns when nothing
// will be reported any more.
func (d *Daemon) browseBy(ctx context.Context, mode conf.MDNS) (stop func()) {
	if mode == "" {
		d.Loop().Post(ctx, func() {
			clear(d.zeroconf.services)
			d.reconsiderSoon()
		})
		return func() {}
	}
	ctx, cancel := context.WithCancel(ctx)
	done := make(chan struct{})
	go func() {
		defer close(done)
		err := d.MDNS(mode).Browse(ctx, func(ev mdns.Event) { d.Loop().Post(ctx, func() { d.heard(ev) }) })
		if err != nil && ctx.Err() == nil {
			d.log.Error("nothing is found by mDNS any more; a reload tries again", "error", err)
		}
	}()
	return func() {
		cancel()
		<-done
	}
}

// applyMDNS takes what the configuration says of browsing.
func (d *Daemon) applyMDNS() {
	mode := d.cfg.MDNS
	if !d.cfg.Zeroconf || d.MDNS == nil {
		mode = ""
	}
	// Who cannot listen tries again at a reload.
	if mode == d.zeroconf.mode && (mode == "" || !d.zeroconf.listening.IsZero()) {
		return
	}
	d.zeroconf.mode = mode
	select {
	case <-d.modes: // that has been overtaken
	default:
	}
	d.modes <- mode
}

// heard takes what a browser reports.
func (d *Daemon) heard(ev mdns.Event) {
	z := &d.zeroconf
	now := time.Now()
	key := ev.Key()
	switch ev.Kind {
	case mdns.Added, mdns.Updated:
		a := z.services[key]
		switch {
		case a == nil && len(z.services) >= maxAnnounced:
			d.tell(slog.LevelWarn, fmt.Sprintf("more than %d services are announced; the rest is not looked at", maxAnnounced))
			return
		case a == nil:
			a = &announcement{since: now}
			z.services[key] = a
		case a.lost.IsZero() && reflect.DeepEqual(a.Service, ev.Service):
			return
		}
		a.Service, a.lost, a.changed = ev.Service, time.Time{}, true
	case mdns.Removed:
		delete(z.services, key)
	case mdns.SourceLost:
		for k, a := range z.services {
			if a.lost.IsZero() && (ev.Index == 0 || k.Index == ev.Index && k.Family == ev.Family) {
				a.lost = now
			}
		}
		if ev.Index == 0 {
			z.listening = time.Time{}
		} else {
			d.after(grace, d.expire)
		}
	case mdns.SourceFound:
		z.listening = now
		for _, a := range z.services {
			if !a.lost.IsZero() {
				a.lost = now
			}
		}
		d.after(grace, d.expire)
	}
	d.reconsiderSoon()
}

// expire forgets what has been lost for so long that it has gone.
func (d *Daemon) expire() {
	z := &d.zeroconf
	if z.listening.IsZero() {
		return // nobody knows
	}
	now := time.Now()
	maps.DeleteFunc(z.services, func(_ mdns.Key, a *announcement) bool {
		return !a.lost.IsZero() && now.Sub(a.lost) >= grace
	})
	d.reconsiderSoon()
}

// after has the loop call f later.
func (d *Daemon) after(pause time.Duration, f func()) *time.Timer {
	if d.trying {
		return nil
	}
	return time.AfterFunc(pause, func() { d.Loop().Post(d.Context(), f) })
}

// reconsiderSoon has the sources looked at, once for all that happens until then.
func (d *Daemon) reconsiderSoon() {
	if !d.zeroconf.due {
		d.zeroconf.due = true
		d.after(gather, func() {
			d.zeroconf.due = false
			d.reconsider()
			d.kickChanged()
		})
	}
}

// kickChanged has controllers tried at once of which there is news.
func (d *Daemon) kickChanged() {
	now := time.Now()
	for _, a := range d.zeroconf.services {
		if !a.changed || now.Sub(a.kicked) < kickPause {
			continue
		}
		a.changed, a.kicked = false, now
		for _, c := range a.addresses {
			if st, ok := d.Engine().Status(c.id); ok && st.Failures > 0 {
				d.Engine().Kick(c.id, now)
			}
		}
	}
}

// fromMDNS returns the discovery controllers that are announced, and those that
// once were and have not aged out. Losing sight of one is no reason to
// disconnect it.
func (d *Daemon) fromMDNS() service.Wanted {
	z := &d.zeroconf
	z.by = make(map[tid.TID][]*announcement)
	wanted := make(service.Wanted)
	bare := make(map[tid.TID]bool) // wanted, without their interfaces
	where := make(map[netip.Addr][]string)
	want := func(id tid.TID) {
		wanted[id] = service.Options(id, tid.Discovery, d.cfg.ParamsFor(id), d.identity)
	}
	all := z.inOrder()
	routable := d.routable(all)
	for _, a := range all {
		d.look(a, routable[instanceOf(a)])
		for i := range a.addresses {
			c := &a.addresses[i]
			if !slices.Contains(where[c.addr], a.Iface) {
				where[c.addr] = append(where[c.addr], a.Iface)
			}
			if c.id == (tid.TID{}) || c.no != "" {
				continue
			}
			if _, have := wanted[c.id]; !have && len(wanted) >= maxDiscovered && d.dcs[c.id] == nil {
				c.no = fmt.Sprintf("no more than %d are connected for being announced", maxDiscovered)
				d.tell(slog.LevelWarn, fmt.Sprintf("%v is announced, but not connected: %s", c.id, c.no))
				continue
			}
			z.by[c.id] = append(z.by[c.id], a)
			want(c.id)
			bare[withoutIface(c.id)] = true
		}
	}
	for addr, ifaces := range where {
		if len(ifaces) > 1 {
			d.tell(slog.LevelError, fmt.Sprintf("the address %v is announced on several interfaces: %s. Each stands for a link of its own, "+
				"on which it belongs to somebody else: probably two links share an address, or interfaces of one link are not to be told apart",
				addr, strings.Join(ifaces, ", ")))
		}
	}
	now := time.Now()
	var next time.Time
	for id, c := range d.dcs {
		if _, ok := wanted[id]; ok || c.origin != originDiscovered {
			c.silent, c.forget = time.Time{}, time.Time{}
			continue
		}
		// It comes back as what it would be today.
		today := id
		today.HostNQN = d.identity.NQN
		if d.cfg.IgnoreIface {
			today.HostIface = ""
		}
		if today.Transport == tid.TCP && today.HostIface == "" && !d.cfg.IgnoreIface && bare[withoutIface(today)] {
			continue
		}
		if d.cfg.Refuses(today, false) != nil || d.aged(id, c, now) {
			continue
		}
		want(today)
		if !c.forget.IsZero() && (next.IsZero() || c.forget.Before(next)) {
			next = c.forget
		}
	}
	if z.ageing != nil {
		z.ageing.Stop()
	}
	if !next.IsZero() {
		z.ageing = d.after(max(next.Sub(now), gather), d.reconsiderSoon)
	}
	return wanted
}

func withoutIface(id tid.TID) tid.TID {
	id.HostIface = ""
	return id
}

// instanceOf tells an instance on an interface, whatever protocol it came by.
func instanceOf(a *announcement) mdns.Key {
	key := a.Key()
	key.Family = 0
	return key
}

// routable has the instances of services with an address that is good beyond
// its link, and may be used.
func (d *Daemon) routable(all []*announcement) map[mdns.Key]bool {
	yes := make(map[mdns.Key]bool)
	for _, a := range all {
		for _, addr := range a.Addrs {
			if !addr.IsLinkLocalUnicast() && d.cfg.IPFamily.Allows(addr) {
				yes[instanceOf(a)] = true
			}
		}
	}
	return yes
}

// look finds the controllers that a service stands for: one at each address,
// but for link-local ones of a service that has others.
func (d *Daemon) look(a *announcement, routable bool) {
	a.wrong, a.addresses = "", nil
	text := parseText(a.TXT)
	transport, err := transportOf(text)
	if err != nil {
		a.wrong = err.Error()
		d.tell(slog.LevelError, fmt.Sprintf("%s is announced by %v on %s, and of no use: %v", describeInstance(a.Service), a.Addrs, a.Iface, err), "txt", a.TXT)
	}
	for _, addr := range a.Addrs {
		c := candidate{addr: addr}
		if err == nil {
			c.id = d.candidate(a.Service, addr, transport, text["nqn"])
			switch no := d.cfg.Refuses(c.id, false); {
			case addr.IsLinkLocalUnicast() && routable:
				c.no = "the service has an address that is not confined to the link"
			case c.id.Validate() != nil:
				c.no = c.id.Validate().Error()
				d.tell(slog.LevelWarn, fmt.Sprintf("%s on %s cannot be connected: %s", describeInstance(a.Service), a.Iface, c.no))
			case no != nil:
				c.no = no.Why
				d.tell(slog.LevelInfo, fmt.Sprintf("%v is announced, but not connected: %s", c.id, no.Why))
			}
		}
		a.addresses = append(a.addresses, c)
	}
}

func describeInstance(s mdns.Service) string { return fmt.Sprintf("%q (%s)", s.Instance, s.Type) }

// candidate is the discovery controller at an address of a service.
func (d *Daemon) candidate(s mdns.Service, addr netip.Addr, transport, nqn string) tid.TID {
	if nqn == "" || d.KernelLacks("discovery") {
		nqn = nvme.WellKnownDiscoveryNQN // it is no other controller's
	}
	id := tid.TID{
		Transport: transport, TrAddr: addr.String(), TrSvcID: strconv.Itoa(int(s.Port)), SubsysNQN: nqn, HostNQN: d.identity.NQN,
	}
	if transport == tid.TCP && !d.cfg.IgnoreIface {
		id.HostIface = s.Iface // the link that leads there
	}
	return tid.New(id)
}

// transportOf is what the key "p" says (TP 8009).
func transportOf(text map[string]string) (string, error) {
	p, ok := text["p"]
	switch strings.ToLower(strings.TrimSpace(p)) {
	case "tcp":
		return tid.TCP, nil
	case "roce", "iwarp", "rdma":
		return tid.RDMA, nil
	}
	if !ok {
		return "", errors.New(`its TXT record does not tell the transport ("p=tcp")`)
	}
	return "", fmt.Errorf("its TXT record tells of an unknown transport (%q)", "p="+p)
}

// parseText reads a TXT record. Keys are told apart without regard to case (RFC
// 6763, 6.4). What is no "key=value" in printable characters is left out; of
// two values for one key the last one counts.
func parseText(record []string) map[string]string {
	text := make(map[string]string, len(record))
	for _, s := range record {
		key, value, ok := strings.Cut(s, "=")
		unprintable := func(r rune) bool { return !unicode.IsPrint(r) }
		if ok && key != "" && utf8.ValidString(s) && !strings.ContainsFunc(s, unprintable) {
			text[strings.ToLower(key)] = value
		}
	}
	return text
}

// aged reports whether a controller that is not announced any more is to be
// forgotten, and begins to wait for that if it is not being waited for.
func (d *Daemon) aged(id tid.TID, c *dc, now time.Time) bool {
	z := &d.zeroconf
	patience := d.cfg.ZeroconfPersistence
	st, known := d.Engine().Status(id)
	switch {
	case z.mode != "" && !z.settled(now): // it may be announced
		return false
	case st.Device != "" || patience < 0:
		c.silent, c.forget = time.Time{}, time.Time{}
		return false
	case c.forget.IsZero() && (!known || st.Failures == 0):
		return false // it has not been tried
	case c.forget.IsZero():
		c.silent, c.forget = now, now.Add(patience)
		if patience > 0 {
			d.log.Info(fmt.Sprintf("%v is not announced any more and does not answer; it is forgotten on %s", id, c.forget.Local().Format(time.DateTime)))
		}
	}
	if now.Before(c.forget) {
		return false
	}
	d.log.Warn(fmt.Sprintf("%v is forgotten: it is not announced and has not answered for %v", id, now.Sub(c.silent).Round(time.Second)))
	return true
}

// ages looks whether what became of a controller makes it age, or not.
func (d *Daemon) ages(ev reconcile.Event) {
	c := d.dcs[ev.TID]
	if c == nil || c.origin != originDiscovered || d.zeroconf.by[ev.TID] != nil {
		return
	}
	switch ev.Kind {
	case reconcile.Connected, reconcile.Adopted:
		if !c.forget.IsZero() {
			c.silent, c.forget = time.Time{}, time.Time{}
			d.reconsiderSoon() // the state file knows better
		}
	case reconcile.ConnectFailed:
		switch {
		case d.cfg.ZeroconfPersistence < 0:
			d.tell(slog.LevelInfo, fmt.Sprintf("%v is not announced any more and does not answer; it is tried for ever", ev.TID))
		case c.forget.IsZero():
			d.reconsiderSoon()
		}
	}
}
