package linux

import (
	"context"
	"net/netip"

	"github.com/nvme-stas/stas/internal/ifaces"
)

// WatchNetwork implements [service.Kernel].
func (k *Kernel) WatchNetwork(ctx context.Context, changed func()) error {
	var last []ifaces.Iface
	first := true
	return ifaces.Watch(ctx, func(now []ifaces.Iface) {
		if !first && cameUp(last, now) {
			changed()
		}
		last, first = now, false
	})
}

// cameUp reports whether there is an interface that is up, or an address on
// one, that was not there before.
func cameUp(before, now []ifaces.Iface) bool {
	type place struct {
		iface string
		addr  netip.Prefix
	}
	was := make(map[place]bool)
	for _, i := range before {
		if i.Up {
			was[place{iface: i.Name}] = true
			for _, a := range i.Addrs {
				was[place{i.Name, a}] = true
			}
		}
	}
	for _, i := range now {
		if !i.Up {
			continue
		}
		if !was[place{iface: i.Name}] {
			return true
		}
		for _, a := range i.Addrs {
			if !was[place{i.Name, a}] {
				return true
			}
		}
	}
	return false
}
