package service

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"strconv"
	"time"

	"golang.org/x/sys/unix"

	"github.com/nvme-stas/stas/internal/conf"
	"github.com/nvme-stas/stas/internal/hostid"
	"github.com/nvme-stas/stas/internal/reconcile"
	"github.com/nvme-stas/stas/internal/stasbus"
	"github.com/nvme-stas/stas/internal/tid"
	"github.com/nvme-stas/stas/internal/version"
	"github.com/nvme-stas/stas/pkg/nvmesysfs"
)

// This file answers the D-Bus methods that nvme-stas does not have.

// Report implements [stasbus.Reporter].
func (s *Service) Report(ctx context.Context) (stasbus.Report, error) {
	return s.report(ctx, func() []reconcile.Status { return s.engine.All() })
}

// Controller implements [stasbus.Reporter].
func (s *Service) Controller(ctx context.Context, id tid.TID) (*stasbus.Controller, error) {
	r, err := s.report(ctx, func() []reconcile.Status {
		if st, ok := s.engine.Status(id); ok {
			return []reconcile.Status{st}
		}
		return nil
	})
	if err != nil || len(r.Controllers) == 0 {
		return nil, err
	}
	return &r.Controllers[0], nil
}

// report tells of the controllers that choose gives, in the loop.
func (s *Service) report(ctx context.Context, choose func() []reconcile.Status) (stasbus.Report, error) {
	r := stasbus.Report{
		Version: stasbus.ReportVersion, Daemon: s.daemon(), Release: version.Version, Time: time.Now(),
		Controllers: []stasbus.Controller{}, Refused: []stasbus.Refusal{},
	}
	err := s.loop.Do(ctx, func() {
		r.Host = stasbus.Host{NQN: s.identity.NQN, ID: s.identity.ID, SymName: s.identity.SymName}
		r.Tracing, r.Doubtful = s.Tron(), s.doubtful.Load()
		if why := s.failedReload.Load(); why != nil {
			r.ReloadFailed, r.ReloadError = true, *why
		}
		for _, st := range choose() {
			c := facts(st)
			if a, ok := s.connects.last(st.TID); ok {
				c.Probe = &stasbus.Probe{Time: a.probed, Took: a.probe.Seconds(), Answered: a.answered}
			}
			c.Timing = s.timingFor(st)
			r.Controllers = append(r.Controllers, c)
		}
		s.policy.AddTo(&r)
		s.addNames(&r)
	})
	if err != nil {
		return stasbus.Report{}, err // the loop may still be about to write to r
	}
	for i := range r.Controllers {
		if ctx.Err() != nil {
			return stasbus.Report{}, ctx.Err()
		}
		s.addSysfs(&r.Controllers[i])
	}
	return r, nil
}

func (s *Service) daemon() string {
	if s.kind == tid.Discovery {
		return string(conf.Stafd)
	}
	return string(conf.Stacd)
}

// facts are what the engine knows of a controller.
func facts(st reconcile.Status) stasbus.Controller {
	c := stasbus.Controller{
		ID: stasbus.ID(st.TID), Device: st.Device, State: "waiting", Wanted: st.Wanted, Origins: []stasbus.Origin{},
		Connect: failure(st.Failures, st.Err, st.Next),
	}
	c.Held = st.Held
	c.LostSince = st.Broken
	if st.Busy == reconcile.Connect {
		c.State = "connecting"
	}
	if st.Busy != reconcile.None {
		c.Operation = &stasbus.Operation{Kind: st.Busy.String(), Since: st.Started}
	}
	return c
}

// failure is nil if nothing has failed since the last success.
func failure(attempts int, err error, next time.Time) *stasbus.Failure {
	if attempts == 0 || err == nil {
		return nil
	}
	class, remedy := classOf(err)
	f := &stasbus.Failure{Attempts: attempts, Error: err.Error(), Class: class.name, Remedy: remedy, Next: next}
	if errno, ok := errors.AsType[unix.Errno](err); ok {
		f.Errno = unix.ErrnoName(errno)
	}
	return f
}

// Failure tells of the readings of a log page that failed.
func Failure(w reconcile.WorkStatus) *stasbus.Failure { return failure(w.Failures, w.Err, w.Next) }

// Ended tells of attempts at connecting after which there are no more.
func Ended(attempts int, err error) *stasbus.Failure { return failure(attempts, err, time.Time{}) }

// addSysfs adds what sysfs shows at this moment.
func (s *Service) addSysfs(c *stasbus.Controller) {
	if c.Device == "" {
		return
	}
	seen, err := s.env.Kernel.Read(c.Device)
	if err != nil {
		c.State = "unknown"
		return
	}
	c.State = string(seen.State)
	if seen.State == nvmesysfs.Live {
		c.LostSince = time.Time{}
	} else if !c.LostSince.IsZero() {
		c.GivesUp = s.givesUp(c.Device, c.LostSince)
	}
	c.SrcAddr, c.Model, c.Serial = seen.SrcAddr, seen.Model, seen.Serial
	c.CntrlType, c.DCType = seen.CntrlType, seen.DCType
	if seen.Kind != nvmesysfs.IO {
		return
	}
	list, err := s.env.Kernel.Namespaces(c.Device)
	if err != nil {
		s.log.Debug("cannot list namespaces", "device", c.Device, "error", err)
	}
	for _, n := range list {
		c.Namespaces = append(c.Namespaces, stasbus.Namespace{Name: n.Name, Size: n.Size, ANA: n.ANA})
	}
}

// givesUp is when the kernel gives up a connection that is broken, or zero if
// it never does, or does not tell. It counts attempts, of which there are as many
// as fit into ctrl_loss_tmo; those that are left unanswered take longer.
func (s *Service) givesUp(device string, since time.Time) time.Time {
	text, err := s.env.Kernel.Attr(device, "ctrl_loss_tmo")
	if err != nil {
		return time.Time{}
	}
	seconds, err := strconv.ParseInt(text, 10, 32)
	if err != nil || seconds < 0 {
		return time.Time{} // "off"
	}
	return since.Add(time.Duration(seconds) * time.Second)
}

// Origins tells where the configuration asks for controllers, and which of
// them it refuses at the same time.
func Origins(cfg *conf.Config, identity hostid.Identity) (map[tid.TID]stasbus.Origin, []stasbus.Refusal) {
	origins := make(map[tid.TID]stasbus.Origin, len(cfg.Controllers))
	var refused []stasbus.Refusal
	for _, c := range cfg.Controllers {
		origin := stasbus.Origin{Kind: stasbus.Configured, Place: fmt.Sprint(c.Place)}
		id, err := c.TID(identity.NQN, cfg.IgnoreIface)
		if err != nil {
			id = c.ID
			id.HostNQN = cmp.Or(id.HostNQN, identity.NQN)
			refused = append(refused, stasbus.Refusal{ID: stasbus.ID(id), Origins: []stasbus.Origin{origin}, Why: err.Error()})
			continue
		}
		if no := cfg.Refuses(id, true); no != nil {
			refused = append(refused, stasbus.Refusal{ID: stasbus.ID(id), Origins: []stasbus.Origin{origin}, Why: no.Why})
			continue
		}
		origins[id] = origin
	}
	return origins, refused
}
