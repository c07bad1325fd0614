package service

import (
	"fmt"
	"log/slog"
	"net/netip"
	"time"

	"github.com/nvme-stas/stas/internal/conf"
	"github.com/nvme-stas/stas/internal/hostid"
	"github.com/nvme-stas/stas/internal/tid"
	"github.com/nvme-stas/stas/pkg/fabrics"
)

// Wanted has controllers, and how to connect each.
type Wanted map[tid.TID]fabrics.Options

// Configured returns the controllers that the configuration asks for. What
// keeps others from being among them is logged.
func Configured(cfg *conf.Config, kind tid.Kind, identity hostid.Identity, log *slog.Logger) Wanted {
	wanted := make(Wanted, len(cfg.Controllers))
	for _, c := range cfg.Controllers {
		id, err := c.TID(identity.NQN, cfg.IgnoreIface)
		if err != nil {
			log.Error("a controller= line is ignored", "error", err)
			continue
		}
		if why := Refused(cfg, id); why != "" {
			log.Info(id.String() + " is configured, but not connected: " + why)
			continue
		}
		options := Options(id, kind, c.Params, identity)
		if kind == tid.IO {
			options.DHChapSecret, options.DHChapCtrlSecret = c.DHChapSecret, c.DHChapCtrlSecret
		}
		wanted[id] = options
	}
	return wanted
}

// Refused says why the configuration forbids a controller, or nothing.
func Refused(cfg *conf.Config, id tid.TID) string {
	if rule, ok := cfg.Excludes.Match(id); ok {
		return fmt.Sprintf("line %d of the configuration excludes %s", rule.Line, rule)
	}
	if addr, err := netip.ParseAddr(id.TrAddr); err == nil && !cfg.IPFamily.Allows(addr) {
		return "ip-family forbids its address"
	}
	return ""
}

// Stays is what is said of a controller that a doubtful configuration does not
// list.
const Stays = " stays, because a line of the configuration was ignored and may have been meant for it"

// WantUntilNow makes the engine look for the connection of a controller that
// has been wanted up to now, perhaps by a former instance of the daemon, so
// that it can be kept or given up.
func (s *Service) WantUntilNow(id tid.TID, cfg *conf.Config, identity hostid.Identity) {
	if !s.engine.Wanted(id) {
		s.engine.Want(id, Options(id, s.kind, cfg.Params, identity), time.Now())
	}
}

// GiveUp tells the engine that a controller is no longer wanted. Its connection
// is removed, unless it is to be kept, or unless the same controller is wanted
// under another host NQN: who changes the identity of a host wants its storage
// under the new one, and not to lose it under the old one while it is in use.
func (s *Service) GiveUp(id tid.TID, keep bool, stillWanted func(tid.TID) bool) {
	now := id
	now.HostNQN = s.identity.NQN
	if now != id && stillWanted(now) {
		s.log.Warn(id.String()+" stays connected under the former host NQN until it is disconnected by hand or the host is rebooted", "hostnqn", id.HostNQN)
		keep = true
	}
	s.engine.Unwant(id, keep, time.Now())
}

// Options are the kernel's options for connecting a controller.
func Options(id tid.TID, kind tid.Kind, p conf.Params, identity hostid.Identity) fabrics.Options {
	iface := id.HostIface
	if id.Transport != tid.TCP {
		iface = "" // log page entries inherit it from a discovery controller on tcp
	}
	return fabrics.Options{
		Transport: id.Transport, TrAddr: id.TrAddr, TrSvcID: id.TrSvcID, NQN: id.SubsysNQN,
		HostTrAddr: id.HostTrAddr, HostIface: iface,
		HostNQN: id.HostNQN, HostID: identity.IDFor(id.HostNQN),
		Discovery:      kind == tid.Discovery,
		KeepAliveTMO:   p.KATO,
		QueueSize:      p.QueueSize,
		NrIOQueues:     p.NrIOQueues,
		NrWriteQueues:  p.NrWriteQueues,
		NrPollQueues:   p.NrPollQueues,
		ReconnectDelay: p.ReconnectDelay,
		CtrlLossTMO:    p.CtrlLossTMO,
		DisableSQFlow:  p.DisableSQFlow,
		HdrDigest:      p.HdrDigest,
		DataDigest:     p.DataDigest,
	}
}
