package target

import (
	"cmp"
	"errors"

	"github.com/nvme-stas/stas/pkg/dhchap"
	"github.com/nvme-stas/stas/pkg/nvme"
)

// invalidParameter refuses a Connect and points at the field: in the command,
// or in its data (Base, "Connect Response").
func invalidParameter(offset uint16) reply {
	return reply{
		status: nvme.StatusConnectInvalidParameters.WithDNR(),
		result: uint64(nvme.NewInvalidParameter(offset, false)),
	}
}

func invalidData(offset uint16) reply {
	return reply{
		status: nvme.StatusConnectInvalidParameters.WithDNR(),
		result: uint64(nvme.NewInvalidParameter(offset, true)),
	}
}

// hostNotAllowed refuses a host that may not connect to the subsystem.
var hostNotAllowed = reply{
	status: nvme.StatusConnectInvalidHost.WithDNR(),
	result: invalidData(nvme.ConnectDataOffHostNQN).result,
}

// connect makes a connection a queue (Base, "Connect command").
func connect(r *request) reply {
	if r.c != nil {
		return refuse(nvme.StatusCommandSequenceError)
	}
	cmd, err := nvme.ParseConnect(r.cmd)
	if err != nil {
		return refuse(nvme.StatusConnectIncompatibleFormat)
	}
	data, err := nvme.DecodeConnectData(r.data)
	switch {
	case len(r.data) < nvme.ConnectDataSize:
		return refuse(nvme.StatusSGLLengthInvalid)
	case err != nil:
		offset := nvme.ConnectDataOffSubNQN
		if field, ok := errors.AsType[*nvme.FieldError](err); ok {
			offset = field.Offset
		}
		return invalidData(uint16(offset))
	case nvme.CheckNQN(data.SubNQN) != nil:
		return invalidData(nvme.ConnectDataOffSubNQN)
	case nvme.CheckNQN(data.HostNQN) != nil || data.HostNQN == data.SubNQN:
		return invalidData(nvme.ConnectDataOffHostNQN)
	case cmd.SQSize == 0:
		return invalidParameter(nvme.ConnectOffSQSize)
	}
	var result reply
	if cmd.QID == 0 {
		result = connectAdmin(r, cmd, data)
	} else {
		result = connectIO(r, cmd, data)
	}
	result.noFlow = result.status == 0 && cmd.CAttr&nvme.CAttrDisableSQFlow != 0
	return result
}

// connectAdmin creates a controller.
func connectAdmin(r *request, cmd nvme.Connect, data nvme.ConnectData) reply {
	t, l := r.q.t, r.q.listener
	if data.CntlID != dynamicCntlID {
		return invalidData(nvme.ConnectDataOffCntlID)
	}
	c := &controller{
		t: t, listener: l, admin: r.q, since: r.q.since, kato: cmd.KATO,
		nqn: data.SubNQN, hostNQN: data.HostNQN, hostID: data.HostID,
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.closed {
		return refuse(nvme.StatusConnectControllerBusy)
	}
	switch d := l.Discovery; {
	case data.SubNQN == nvme.WellKnownDiscoveryNQN, d.NQN != "" && data.SubNQN == d.NQN:
		if d.Type == NoDiscovery {
			return invalidData(nvme.ConnectDataOffSubNQN)
		}
		if d.NoAEN && cmd.KATO != 0 {
			return invalidParameter(nvme.ConnectOffKATO)
		}
		c.view = t.viewOf(l, data.HostNQN)
	default:
		s := t.subsystems[data.SubNQN]
		if s == nil || !s.offeredOn(l.Name) {
			return invalidData(nvme.ConnectDataOffSubNQN)
		}
		if !s.admits(data.HostNQN) {
			return hostNotAllowed
		}
		if s.Controllers > 0 && t.controllersOf(s) >= s.Controllers {
			return reply{status: nvme.StatusConnectControllerBusy}
		}
		if cmd.KATO == 0 {
			return refuse(nvme.StatusKeepAliveTimeoutInvalid)
		}
		c.sub = s
	}
	var err error
	if c.id, err = t.newCntlID(); err != nil {
		return reply{status: nvme.StatusConnectControllerBusy}
	}
	c.shown = c.id
	t.controllers[c.id] = c
	r.q.join(c, 0)
	r.c = c
	c.live()
	t.log.Info("connected", "host", c.hostNQN, "from", r.q.remote, "cntlid", c.id, "subsystem", c.nqn, "kato", c.kato)
	return connected(r, c)
}

// connectIO adds a queue to a controller.
func connectIO(r *request, cmd nvme.Connect, data nvme.ConnectData) reply {
	t := r.q.t
	t.mu.Lock()
	c := t.controllerOf(data)
	t.mu.Unlock()
	if c == nil || c.sub == nil || c.listener != r.q.listener {
		return invalidData(nvme.ConnectDataOffCntlID)
	}
	switch {
	case c.nqn != data.SubNQN:
		return invalidData(nvme.ConnectDataOffSubNQN)
	case !c.ready():
		return refuse(nvme.StatusCommandSequenceError)
	case cmd.QID > c.queues():
		return invalidParameter(nvme.ConnectOffQID)
	}
	r.q.join(c, cmd.QID)
	if !c.addQueue(cmd.QID, r.q) {
		return refuse(nvme.StatusInvalidQueueID)
	}
	r.c = c
	t.mu.Lock()
	defer t.mu.Unlock()
	return connected(r, c)
}

// connected is the answer to a Connect that succeeds. The lock of the target
// is held.
func connected(r *request, c *controller) reply {
	result := nvme.NewConnectResult(c.shown, c.authenticate(r.q))
	return reply{result: uint64(result)}
}

// authenticate prepares a queue for the host to prove itself, if it has to:
// every queue on its own.
func (c *controller) authenticate(q *queue) bool {
	host, known := c.t.hosts[c.hostNQN]
	if !known || host.Key.IsZero() || c.sub == nil && !c.listener.Discovery.Authenticate {
		return false
	}
	q.auth = dhchap.NewController(host.dhchap(c.nqn))
	return true
}

// dhchap is how a controller of that name authenticates the host.
func (h Host) dhchap(nqn string) dhchap.ControllerConfig {
	return dhchap.ControllerConfig{
		HostNQN: h.NQN, SubNQN: nqn, HostKey: h.Key, ControllerKey: h.CtrlKey,
		Hashes: []dhchap.Hash{cmp.Or(h.Hash, dhchap.SHA256)},
		Groups: []dhchap.Group{h.Group},
	}
}

// authSend takes a message of the host (Base, "Authentication Send command").
func authSend(r *request) reply {
	params, err := nvme.ParseAuth(r.cmd)
	if err != nil || int(params.Length) != len(r.data) {
		return refuse(nvme.StatusInvalidField)
	}
	if r.q.auth == nil {
		return refuse(nvme.StatusCommandSequenceError)
	}
	if err := r.q.auth.Send(r.data); err != nil {
		r.q.t.log.Info("authentication failed", "host", r.c.hostNQN, "error", err)
	}
	return r.q.proven(reply{})
}

// authReceive gives the host a message (Base, "Authentication Receive command").
func authReceive(r *request) reply {
	if _, err := nvme.ParseAuth(r.cmd); err != nil {
		return refuse(nvme.StatusInvalidField)
	}
	if r.q.auth == nil {
		return refuse(nvme.StatusCommandSequenceError)
	}
	message, err := r.q.auth.Receive()
	if err != nil {
		return refuse(nvme.StatusCommandSequenceError)
	}
	if len(message) > int(r.cmd.SGL.Length) {
		return refuse(nvme.StatusSGLLengthInvalid)
	}
	return r.q.proven(reply{data: message})
}

// proven lets the host in once it is authenticated. One that is not may not
// go on; its connection ends with the answer.
func (q *queue) proven(r reply) reply {
	authenticated, over := q.auth.Done()
	switch {
	case authenticated:
		q.auth = nil
	case over:
		r.end = new(finish)
	}
	return r
}

// disconnect deletes an I/O queue (Base, "Disconnect command").
func disconnect(r *request) reply {
	if r.q.id == 0 {
		return refuse(nvme.StatusInvalidQueueType)
	}
	return reply{end: new(finish)}
}

// capabilities is CAP: what Linux wants of a target is TO (7.5 s), CSS, MQES.
const capabilities = uint64(maxEntries-1) | nvme.CAPContiguous | 15<<nvme.CAPTimeoutShift | nvme.CAPNVM

// maxEntries is the longest queue.
const maxEntries = 1024

// version is VS: 1.4 is the first with discovery controllers that keep alive
// and with controller types.
const version = nvme.Version14

// propertyGet reads a property (Base, "Property Get command").
func propertyGet(r *request) reply {
	c := r.c
	c.mu.Lock()
	defer c.mu.Unlock()
	p := nvme.ParseProperty(r.cmd)
	value, ok := map[uint32]uint64{
		nvme.PropCAP:  capabilities,
		nvme.PropVS:   version,
		nvme.PropCC:   uint64(c.cc),
		nvme.PropCSTS: uint64(c.csts),
	}[p.Offset]
	if !ok || p.Wide != (p.Offset == nvme.PropCAP) {
		return refuse(nvme.StatusInvalidField)
	}
	return reply{result: value}
}

// propertySet writes CC, the only property there is to write (Base, "Property
// Set command").
func propertySet(r *request) reply {
	p := nvme.ParseProperty(r.cmd)
	if p.Offset != nvme.PropCC || p.Wide {
		return refuse(nvme.StatusInvalidField)
	}
	c := r.c
	c.mu.Lock()
	defer c.mu.Unlock()
	c.cc = uint32(p.Value)
	c.csts &^= nvme.CSTSReady | nvme.CSTSShutdownMask
	if c.cc&nvme.CCEnable != 0 {
		c.csts |= nvme.CSTSReady
	}
	if c.cc&nvme.CCShutdownMask != 0 {
		c.csts |= nvme.CSTSShutdownComplete
	}
	return reply{}
}
