// Package linux is the kernel that the daemons run on: sysfs, the device
// /dev/nvme-fabrics, admin commands, uevents and network interfaces.
package linux

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"strings"
	"time"

	"github.com/nvme-stas/stas/internal/inuse"
	"github.com/nvme-stas/stas/internal/registry"
	"github.com/nvme-stas/stas/internal/service"
	"github.com/nvme-stas/stas/internal/tid"
	"github.com/nvme-stas/stas/pkg/fabrics"
	"github.com/nvme-stas/stas/pkg/nvme"
	"github.com/nvme-stas/stas/pkg/nvmesysfs"
	"github.com/nvme-stas/stas/pkg/uevent"
)

// Kernel implements [service.Kernel].
type Kernel struct {
	*nvmesysfs.FS
	registry.Registry
	use     *inuse.Host
	fabrics fabrics.Device
	calls   fabrics.Calls
	log     *slog.Logger
}

// Open returns the running kernel. What may block for long is done by calls.
func Open(log *slog.Logger, calls fabrics.Calls) (*Kernel, error) {
	sysfs, err := nvmesysfs.NewFS("/sys")
	if err != nil {
		return nil, err
	}
	sysfs.Write = calls.Write
	return &Kernel{
		FS: sysfs, Registry: registry.Default, use: inuse.This(),
		fabrics: fabrics.Device{Calls: calls}, calls: calls, log: log,
	}, nil
}

// Available says what to do if the kernel cannot connect anything.
func Available() error {
	if _, err := os.Stat(fabrics.DefaultPath); err != nil {
		return fmt.Errorf("%s is missing, so the kernel cannot connect anything yet; load the module of the transport: modprobe nvme-tcp", fabrics.DefaultPath)
	}
	return nil
}

// Connect implements [service.Kernel].
func (k *Kernel) Connect(o fabrics.Options) (string, error) {
	instance, err := k.fabrics.Connect(o)
	if len(instance.Dropped) > 0 {
		k.log.Warn("connected without options that the kernel or the transport does not have",
			"device", instance.Name, "options", strings.Join(instance.Dropped, ","))
	}
	return instance.Name, err
}

// Options implements [service.Kernel].
func (k *Kernel) Options() (fabrics.OptionSet, error) { return k.fabrics.Probe() }

// Held implements [service.Kernel].
func (k *Kernel) Held(disk string) (bool, error) { return k.use.Held(disk) }

// LookAtUse implements [service.Kernel].
func (k *Kernel) LookAtUse() service.DiskUse { return k.use.Look() }

// Adjust implements [service.Kernel].
func (k *Kernel) Adjust(name string, was, now fabrics.Options) error {
	return k.SetTimeouts(name, timeouts(was), timeouts(now))
}

func timeouts(o fabrics.Options) nvmesysfs.Timeouts {
	return nvmesysfs.Timeouts{ReconnectDelay: o.ReconnectDelay, CtrlLoss: o.CtrlLossTMO, FastIOFail: o.FastIOFailTMO}
}

// admin has use work with a controller.
func admin[T any](k *Kernel, name string, use func(*fabrics.Admin) (T, error)) (T, error) {
	dev, err := fabrics.OpenAdmin("/dev/"+name, k.calls)
	if err != nil {
		return *new(T), err
	}
	defer dev.Close()
	return use(dev)
}

// Identify implements [service.Kernel].
func (k *Kernel) Identify(_ context.Context, name string) (nvme.IdentifyController, error) {
	return admin(k, name, (*fabrics.Admin).Identify)
}

// DiscoveryLog implements [service.Kernel].
func (k *Kernel) DiscoveryLog(ctx context.Context, name string, lsp uint8) (nvme.DiscoveryLog, error) {
	return admin(k, name, func(dev *fabrics.Admin) (nvme.DiscoveryLog, error) { return fabrics.ReadDiscoveryLog(ctx, dev, lsp) })
}

// SupportedLogPages implements [service.Kernel].
func (k *Kernel) SupportedLogPages(_ context.Context, name string) ([]byte, error) {
	page := make([]byte, nvme.SupportedLogPagesSize)
	return admin(k, name, func(dev *fabrics.Admin) ([]byte, error) {
		return page, dev.GetLogPage(nvme.LogSupportedPages, 0, false, 0, page)
	})
}

// Manage implements [service.Kernel].
func (k *Kernel) Manage(_ context.Context, name string, info nvme.DiscoveryInformation, timeout time.Duration) error {
	_, err := admin(k, name, func(dev *fabrics.Admin) (struct{}, error) { return struct{}{}, dev.Manage(info, timeout) })
	return err
}

// Ifaces implements [service.Kernel].
func (k *Kernel) Ifaces() ([]tid.IfaceAddr, error) {
	ifaces, err := net.Interfaces()
	if err != nil {
		return nil, err
	}
	var all []tid.IfaceAddr
	for _, i := range ifaces {
		addrs, err := i.Addrs()
		if err != nil {
			continue // it has just gone
		}
		for _, a := range addrs {
			if p, err := netip.ParsePrefix(a.String()); err == nil {
				all = append(all, tid.IfaceAddr{Iface: i.Name, Addr: p.Addr()})
			}
		}
	}
	return all, nil
}

// udevControl exists while udevd runs.
const udevControl = "/run/udev/control"

// Listen implements [service.Kernel]. Without udevd nobody passes events on,
// so there they are taken from the kernel itself.
func (k *Kernel) Listen() (service.Events, error) {
	if _, err := os.Stat(udevControl); err != nil {
		return uevent.ListenKernel()
	}
	return uevent.Listen()
}
