package service

import (
	"log/slog"
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
		if no := cfg.Refuses(id, true); no != nil {
			log.Info(id.String() + " is configured, but not connected: " + no.Why)
			continue
		}
		wanted[id] = Options(id, kind, c.Params, identity)
	}
	return wanted
}

// Stays is what is said of a controller that a doubtful configuration does not
// list.
const Stays = " stays, because a line of the configuration was ignored and may have been meant for it"

// Doubted reports whether a controller that the configuration does not list
// may have been meant by something of it that was ignored.
func Doubted(cfg *conf.Config, id tid.TID) bool {
	no := cfg.Refuses(id, true)
	return cfg.Doubtful && (no == nil || !no.Sure)
}

// WantUntilNow makes the engine look for the connection of a controller that
// has been wanted up to now, perhaps by a former instance of the daemon, so
// that it can be kept or given up.
func (s *Service) WantUntilNow(id tid.TID, cfg *conf.Config, identity hostid.Identity) {
	if !s.engine.Wanted(id) {
		s.engine.Want(id, Options(id, s.kind, cfg.ParamsFor(id), identity), time.Now())
	}
}

// GiveUp tells the engine that a controller is no longer wanted. Its connection
// is removed, unless it is to be kept, or unless the same controller is wanted
// under another host NQN: who changes the identity of a host wants its storage
// under the new one, and not to lose it under the old one while it is in use.
func (s *Service) GiveUp(id tid.TID, keep bool, stillWanted func(tid.TID) bool) {
	if renamed(id, s.identity, stillWanted) {
		s.log.Warn(id.String()+" stays connected under the former host NQN until it is disconnected by hand or the host is rebooted", "hostnqn", id.HostNQN)
		keep = true
	}
	s.engine.Unwant(id, keep, time.Now())
}

// renamed reports whether the controller is wanted under the host's own NQN,
// and that is another one.
func renamed(id tid.TID, identity hostid.Identity, wanted func(tid.TID) bool) bool {
	now := id
	now.HostNQN = identity.NQN
	return now != id && wanted(now)
}

// Options are the kernel's options for connecting a controller.
func Options(id tid.TID, kind tid.Kind, p conf.Params, identity hostid.Identity) fabrics.Options {
	iface := id.HostIface
	if id.Transport != tid.TCP {
		iface = "" // log page entries inherit it from a discovery controller on tcp
	}
	key := p.DHChapSecret
	if key == (fabrics.Secret{}) && id.HostNQN == identity.NQN {
		key = identity.Key
	}
	return fabrics.Options{
		Transport: id.Transport, TrAddr: id.TrAddr, TrSvcID: id.TrSvcID, NQN: id.SubsysNQN,
		HostTrAddr: id.HostTrAddr, HostIface: iface,
		HostNQN: id.HostNQN, HostID: identity.IDFor(id.HostNQN),
		Discovery:        kind == tid.Discovery,
		KeepAliveTMO:     p.KATO,
		QueueSize:        p.QueueSize,
		NrIOQueues:       p.NrIOQueues,
		NrWriteQueues:    p.NrWriteQueues,
		NrPollQueues:     p.NrPollQueues,
		ReconnectDelay:   p.ReconnectDelay,
		CtrlLossTMO:      p.CtrlLossTMO,
		FastIOFailTMO:    p.FastIOFailTMO,
		TOS:              p.TOS,
		DisableSQFlow:    p.DisableSQFlow,
		HdrDigest:        p.HdrDigest,
		DataDigest:       p.DataDigest,
		DuplicateConnect: p.DuplicateConnect,
		TLS:              p.TLS,
		Concat:           p.Concat,
		Keyring:          p.Keyring,
		TLSKey:           p.TLSKey,
		DHChapSecret:     key,
		DHChapCtrlSecret: p.DHChapCtrlSecret,
	}
}
