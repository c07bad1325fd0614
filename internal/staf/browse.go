package staf

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/nvme-stas/stas/internal/mdns"
	"github.com/nvme-stas/stas/internal/service"
	"github.com/nvme-stas/stas/internal/stasbus"
	"github.com/nvme-stas/stas/internal/tid"
)

// This file tells what is announced by mDNS.

// Browse implements [stasbus.Browsing].
func (d *Daemon) Browse(ctx context.Context) (stasbus.Browse, error) {
	b := stasbus.Browse{Version: stasbus.ReportVersion, Mode: stasbus.Disabled, Services: []stasbus.Announcement{}}
	report, err := d.Report(ctx)
	if err != nil {
		return b, err
	}
	b.Time = report.Time
	controllers := make(map[tid.TID]*stasbus.Controller, len(report.Controllers))
	for i := range report.Controllers {
		controllers[report.Controllers[i].TID()] = &report.Controllers[i]
	}
	var services []stasbus.Announcement
	mode, listening := "", false
	err = d.Loop().Do(ctx, func() {
		mode, listening = string(d.zeroconf.mode), !d.zeroconf.listening.IsZero()
		for _, a := range d.zeroconf.inOrder() {
			services = append(services, a.describe(controllers))
		}
	})
	if err != nil {
		return b, err // the loop may still be about to write
	}
	b.Mode, b.Listening = cmp.Or(mode, b.Mode), listening
	b.Services = append(b.Services, services...)
	return b, nil
}

// inOrder lists what is announced, always in the same order.
func (z *zeroconf) inOrder() []*announcement {
	return slices.SortedFunc(maps.Values(z.services), func(a, b *announcement) int {
		return cmp.Or(cmp.Compare(a.Index, b.Index), strings.Compare(a.Type, b.Type), strings.Compare(a.Instance, b.Instance), cmp.Compare(a.Family, b.Family))
	})
}

func (a *announcement) describe(controllers map[tid.TID]*stasbus.Controller) stasbus.Announcement {
	s := stasbus.Announcement{
		Instance: a.Instance, Type: a.Type, Host: a.Host, Iface: a.Iface, Family: a.Family.String(), Port: a.Port,
		Since: a.since, Confirmed: a.lost.IsZero(), Wrong: a.wrong, Addresses: []stasbus.AnnouncedAddress{}, TXT: []string{},
	}
	for _, t := range a.TXT {
		s.TXT = append(s.TXT, strings.ToValidUTF8(t, "\uFFFD"))
	}
	for _, c := range a.addresses {
		address := stasbus.AnnouncedAddress{Address: c.addr.String(), Refused: c.no}
		if c.id != (tid.TID{}) {
			address.ID = new(stasbus.ID(c.id))
			address.Controller = controllers[c.id]
		}
		s.Addresses = append(s.Addresses, address)
	}
	return s
}

// announcedBy are the reasons to want a controller that mDNS knows of.
func (d *Daemon) announcedBy(id tid.TID, c *dc) []stasbus.Origin {
	var origins []stasbus.Origin
	for _, a := range d.zeroconf.by[id] {
		o := stasbus.Origin{Kind: stasbus.Discovered, Place: fmt.Sprintf("%q on %s", a.Instance, a.Iface)}
		if !slices.Contains(origins, o) {
			origins = append(origins, o)
		}
	}
	if origins == nil && c.origin == originDiscovered {
		origins = append(origins, stasbus.Origin{Kind: stasbus.Discovered, Until: c.forget})
	}
	return origins
}

// avahi is what process_info of nvme-stas tells of mDNS.
func (d *Daemon) avahi() map[string]any {
	services := make(map[string]any)
	types := []string{}
	if d.zeroconf.mode != "" {
		types = mdns.Types
	}
	for _, a := range d.zeroconf.inOrder() {
		if !a.lost.IsZero() {
			continue
		}
		fields := map[string]string{"reachable": stasbus.False}
		if len(a.addresses) > 0 && a.addresses[0].id != (tid.TID{}) {
			id := a.addresses[0].id
			fields["transport"], fields["traddr"], fields["trsvcid"] = id.Transport, id.TrAddr, strconv.Itoa(int(a.Port))
			fields["subsysnqn"], fields["host-iface"] = id.SubsysNQN, ""
			if id.Transport == tid.TCP {
				fields["host-iface"] = a.Iface
			}
			fields["reachable"] = stasbus.Bool(id.Transport == tid.RDMA || d.Answers(id))
		}
		services[fmt.Sprintf("(%s, %s, %s.local, %s)", a.Iface, a.Family, a.Instance, a.Type)] = fields
	}
	return map[string]any{"avahi wake up timer": "60.0s [off]", "service types": types, "services": services}
}

// ageing adds to the dictionary of a discovered controller how it ages.
func (d *Daemon) ageing(c *dc, info stasbus.Dict) {
	patience := d.cfg.ZeroconfPersistence
	info["unresponsive timer"], info["unresponsive time"] = "0.0s [off]", "---"
	if !c.forget.IsZero() {
		info["unresponsive timer"] = service.Countdown(c.forget.Sub(c.silent), c.forget, time.Now())
		info["unresponsive time"] = c.silent.Local().Format(time.ANSIC) // as asctime(3)
	}
	switch {
	case patience < 0:
		info["unresponsive timeout"] = "forever"
	case patience%time.Second == 0:
		info["unresponsive timeout"] = fmt.Sprintf("%d sec", patience/time.Second)
	default:
		info["unresponsive timeout"] = strconv.FormatFloat(patience.Seconds(), 'f', -1, 64) + " sec"
	}
}
