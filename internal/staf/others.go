package staf

import (
	"context"
	"strings"
	"time"

	"github.com/nvme-stas/stas/internal/tid"
	"github.com/nvme-stas/stas/pkg/nvme"
	"github.com/nvme-stas/stas/pkg/uevent"
)

// This file passes on to nvme-cli what discovery controllers report that are
// not stafd's: its udev rule would, were it not overridden.

const (
	// othersWait is the time in which a controller that stafd is connecting just
	// now shows to be its own.
	othersWait = time.Second
	// othersBacklog bounds the events that wait to be passed on.
	othersBacklog = 64
	// restartTimeout bounds what the service manager may take for one.
	restartTimeout = 10 * time.Second
)

// news is an event of a discovery controller that may not be stafd's.
type news struct {
	uevent.Event
	at time.Time
}

// othersEvent takes an event of a device that none of stafd's controllers uses.
func (d *Daemon) othersEvent(ev uevent.Event) {
	if d.restart == nil || !d.others(ev.DevName) {
		return
	}
	aen, err := nvme.ParseAEN(ev.Env["NVME_AEN"])
	if (err != nil || aen != nvme.DiscoveryLogChanged) && ev.Env["NVME_EVENT"] != "rediscover" {
		return
	}
	select {
	case d.news <- news{ev, time.Now()}:
	default:
		d.log.Warn("too many events of discovery controllers that are not stafd's", "device", ev.DevName)
	}
}

// others reports whether a device is a discovery controller that is not
// stafd's.
func (d *Daemon) others(device string) bool {
	seen, ok := d.Engine().Seen(device)
	return ok && seen.Kind != tid.IO && len(d.Engine().Users(device)) == 0
}

// tellOthers passes on what othersEvent takes, until ctx ends.
func (d *Daemon) tellOthers(ctx context.Context) error {
	for {
		select {
		case <-ctx.Done():
			return nil
		case n := <-d.news:
			select {
			case <-ctx.Done():
				return nil
			case <-time.After(time.Until(n.at.Add(othersWait))):
			}
			others := false
			if d.Loop().Do(ctx, func() { others = d.others(n.DevName) }) == nil && others {
				d.connectAll(ctx, n.Event)
			}
		}
	}
}

// connectAll has nvme-cli connect what a discovery controller lists. A restart,
// because a start would be lost on a service that still runs.
func (d *Daemon) connectAll(ctx context.Context, ev uevent.Event) {
	unit := connectUnit(ev)
	d.log.Info("a discovery controller that is not stafd's has news; nvme-cli connects what it lists", "device", ev.DevName, "unit", unit)
	ctx, cancel := context.WithTimeout(ctx, restartTimeout)
	defer cancel()
	if err := d.restart(ctx, unit); err != nil {
		d.log.Warn("cannot start nvme-cli's service", "unit", unit, "error", err)
	}
}

// connectUnit is the instance of nvme-cli's service that connects what a
// discovery controller lists. Its name carries the options of "nvme
// connect-all", with tabs between them, as systemd escapes them; dashes stay.
func connectUnit(ev uevent.Event) string {
	args := []string{"--device=" + ev.DevName}
	for _, o := range [][2]string{{"--host-traddr=", "NVME_HOST_TRADDR"}, {"--host-iface=", "NVME_HOST_IFACE"}} {
		if v := ev.Env[o[1]]; v != "" && v != "none" && v != "None" {
			args = append(args, o[0]+v)
		}
	}
	return "nvmf-connect@" + strings.ReplaceAll(strings.Join(args, `\x09`), "=", `\x3d`) + ".service"
}
