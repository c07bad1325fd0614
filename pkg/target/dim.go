package target

import (
	"errors"
	"net/netip"
	"time"

	"github.com/nvme-stas/stas/pkg/nvme"
)

// registration is what a host has told a discovery controller about itself.
type registration struct {
	hostID       nvme.HostID
	name         string // host name, ENAME
	version      string // of its software, EVER
	symbolicName string
	from         string // address it came from
	listener     string
	at           time.Time
}

// registerHost takes what a host says of itself (Base, "Discovery Information
// Management command").
func registerHost(r *request) reply {
	d := r.c.listener.Discovery.Registration
	switch {
	case d.Off:
		return refuse(nvme.StatusInvalidOpcode)
	case d.Disabled:
		return refuse(nvme.StatusRequestedFunctionDisabled)
	case d.Locked:
		return reply{status: nvme.StatusZoningDataStructureLocked}
	}
	info, err := nvme.DecodeDiscoveryInformation(r.cmd, r.data)
	if err != nil {
		r.q.t.log.Info("registration refused", "host", r.c.hostNQN, "error", err)
		if status, ok := errors.AsType[nvme.Status](err); ok {
			return refuse(status)
		}
		return refuse(nvme.StatusInvalidDiscoveryInformation)
	}
	if info.EntityType != nvme.EntityHost {
		return refuse(nvme.StatusInvalidDiscoveryInformation)
	}
	status := nvme.Status(0)
	if err := r.q.t.change(func() error {
		status = r.q.t.register(r, info, d.Max)
		return nil
	}); err != nil {
		return refuse(nvme.StatusInternalError)
	}
	if status != 0 {
		return refuse(status)
	}
	return reply{}
}

// register changes the database of hosts.
func (t *Target) register(r *request, info nvme.DiscoveryInformation, limit int) nvme.Status {
	nqn := info.EID
	if info.Task == nvme.TaskDeregister {
		delete(t.registered, nqn)
		t.log.Info("host deregistered", "host", nqn)
		return 0
	}
	if t.registered[nqn] == nil && len(t.registered) >= limit {
		return nvme.StatusInsufficientDiscovery
	}
	// An update names what there was, then what is to be in its place.
	entry := info.Entries[len(info.Entries)-1]
	reg := &registration{
		name: info.Name, version: info.Version, listener: r.c.listener.Name, at: time.Now(),
		from: r.q.remote,
	}
	if address, err := netip.ParseAddrPort(r.q.remote); err == nil {
		reg.from = address.Addr().Unmap().String()
	}
	if entry.Entry.TrAddr != "" {
		reg.from = entry.Entry.TrAddr
	}
	for _, a := range entry.Attributes {
		switch a.Type {
		case nvme.AttributeHostID:
			reg.hostID = nvme.HostID(a.Value)
		case nvme.AttributeSymbolicName:
			reg.symbolicName = a.Text()
		}
	}
	t.registered[nqn] = reg
	t.log.Info("host registered", "host", nqn, "name", reg.name, "symbolic name", reg.symbolicName)
	return 0
}
