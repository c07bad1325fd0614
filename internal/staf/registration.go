package staf

import (
	"context"
	"errors"
	"log/slog"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/nvme-stas/stas/internal/hostid"
	"github.com/nvme-stas/stas/internal/reconcile"
	"github.com/nvme-stas/stas/internal/stasbus"
	"github.com/nvme-stas/stas/internal/tid"
	"github.com/nvme-stas/stas/pkg/fabrics"
	"github.com/nvme-stas/stas/pkg/nvme"
)

// entityName and entityVersion bound ENAME and EVER, in bytes.
const (
	entityName    = 256
	entityVersion = 64
)

// The pauses before a registration that failed is tried again.
const (
	registerFirst = 5 * time.Second
	registerCap   = 5 * time.Minute
)

// hostInformation is what this host tells of itself: that it is there, under
// this host NQN and ID. The address is left out: it is the one that the
// connection comes from (Base "Discovery Information Entry").
func (d *Daemon) hostInformation(id tid.TID, identity hostid.Identity) (nvme.DiscoveryInformation, error) {
	hostID, err := nvme.ParseHostID(identity.IDFor(id.HostNQN))
	if err != nil {
		return nvme.DiscoveryInformation{}, err
	}
	name, version := d.kernel.System()
	entry := nvme.ExtendedEntry{
		Entry:      nvme.DiscoveryLogEntry{TrType: transport(id), AdrFam: family(id), SubNQN: id.HostNQN},
		Attributes: []nvme.Attribute{nvme.HostIDAttribute(hostID)},
	}
	if identity.SymName != "" {
		entry.Attributes = append(entry.Attributes, nvme.SymbolicName(identity.SymName))
	}
	return nvme.DiscoveryInformation{
		Format: nvme.EntryExtended, EntityType: nvme.EntityHost, KeyType: nvme.KeyAddress,
		EID: id.HostNQN, Name: cut(name, entityName), Version: cut(version, entityVersion),
		Entries: []nvme.ExtendedEntry{entry},
	}, nil
}

// register tells a discovery controller that takes it that this host is there,
// and has the loop note what came of it.
func (d *Daemon) register(ctx context.Context, op reconcile.Op[fabrics.Options], j job, dctype string) {
	if dctype != nvme.DCTypeDDC.String() && dctype != nvme.DCTypeCDC.String() {
		return
	}
	err := errTransport
	if transport(op.TID) != 0 {
		var info nvme.DiscoveryInformation
		if info, err = d.hostInformation(op.TID, j.identity); err == nil {
			err = d.kernel.Manage(ctx, op.Device, info, 0)
		}
	}
	d.Loop().Post(ctx, func() {
		if c := d.dcs[op.TID]; c != nil {
			c.told = j.asked
			d.noteRegistration(op, c, j.identity.SymName, err)
		}
	})
}

// errTransport says that there is no form to register in.
var errTransport = errors.New("hosts register over tcp and rdma only")

// noteRegistration keeps what came of registering.
func (d *Daemon) noteRegistration(op reconcile.Op[fabrics.Options], c *dc, symname string, err error) {
	before := c.registration
	r := &stasbus.Registration{State: stasbus.Registered, Since: time.Now(), SymName: symname}
	if err == nil {
		if before == nil || before.State != r.State || before.SymName != symname {
			d.log.Info(op.TID.String()+": this host is registered", "device", op.Device, "symname", symname)
		}
		if !c.registered {
			c.registered = true
			d.save()
		}
		c.registration = r
		return
	}
	r.State, r.SymName = registrationState(err), ""
	r.Failure = &stasbus.Failure{Attempts: 1, Error: err.Error()}
	if before != nil && before.Failure != nil {
		r.Failure.Attempts += before.Failure.Attempts
	}
	if r.State == stasbus.RegFailed {
		pause := registerCap
		if n := r.Failure.Attempts; n <= 6 {
			pause = registerFirst << (n - 1)
		}
		r.Failure.Next = time.Now().Add(pause)
	}
	level := slog.LevelWarn
	if r.State == stasbus.Unsupported {
		level = slog.LevelInfo
	}
	if before == nil || before.State != r.State {
		d.log.Log(d.Context(), level, op.TID.String()+": this host is not registered; its log page is read all the same",
			"device", op.Device, "error", err)
	}
	c.registration = r
}

// refusals are final: the same again will be refused again.
var refusals = []nvme.Status{nvme.StatusInvalidField, nvme.StatusInvalidDiscoveryInformation, nvme.StatusRequestedFunctionDisabled}

// registrationState tells the refusals that will be repeated from what may
// have passed when it is tried again.
func registrationState(err error) string {
	status, refused := errors.AsType[nvme.Status](err)
	switch {
	case errors.Is(err, errTransport):
		return stasbus.Unsupported
	case !refused:
		return stasbus.RegFailed
	}
	final := func(s nvme.Status) bool { return errors.Is(status, s) }
	switch {
	case final(nvme.StatusInvalidOpcode):
		return stasbus.Unsupported // a DDC need not have the command
	case slices.ContainsFunc(refusals, final):
		return stasbus.RegRefused
	}
	return stasbus.RegFailed
}

// farewell is how long a discovery controller that is about to be disconnected
// has to take note.
const farewell = 5 * time.Second

// Guard implements [service.Policy]: nothing depends on a discovery controller.
// But one that is given up for good is told that this host will not be back, so
// that it need not wait for it to time out (TP8010, deregistration). That it
// does not listen keeps no connection up.
func (d *Daemon) Guard(op reconcile.Op[fabrics.Options]) error {
	var identity hostid.Identity
	registered := false
	err := d.Loop().Do(d.Context(), func() { registered, identity = d.leaving[op.TID], d.identity })
	if err != nil || !registered {
		return nil
	}
	info, err := d.hostInformation(op.TID, identity)
	if err == nil {
		info.Task = nvme.TaskDeregister
		err = d.kernel.Manage(d.Context(), op.Device, info, farewell)
	}
	if err != nil {
		d.log.Info(op.TID.String()+" was not told that this host leaves", "device", op.Device, "error", err)
		return nil
	}
	d.log.Info(op.TID.String()+": this host is deregistered", "device", op.Device)
	d.Loop().Post(d.Context(), func() { delete(d.leaving, op.TID) })
	return nil
}

// transport is how a host registers, 0 if it cannot.
func transport(id tid.TID) nvme.TransportType {
	if id.Transport != tid.TCP && id.Transport != tid.RDMA {
		return 0
	}
	t, _ := nvme.ParseTransportType(id.Transport)
	return t
}

func family(id tid.TID) nvme.AddressFamily {
	if addr, err := netip.ParseAddr(id.TrAddr); err == nil && addr.Is6() {
		return nvme.FamilyIPv6
	}
	return nvme.FamilyIPv4
}

// cut leaves of a text what fits.
func cut(text string, size int) string {
	return strings.TrimSpace(strings.ToValidUTF8(text[:min(len(text), size)], ""))
}
