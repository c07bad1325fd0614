package target

import (
	"cmp"
	"time"

	"github.com/nvme-stas/stas/pkg/nvme"
)

const (
	maxAERs        = 4
	kasGranularity = 10 // ×100 ms
	rtd3e          = 5_000_000
	mdts           = 8 // 2^8 pages of 4 KiB: maxTransfer
)

// identifyData are the data structures by CNS; what is not here is refused.
var identifyData = map[uint8]func(*request) reply{
	nvme.CNSNamespace:            identifyNamespace,
	nvme.CNSController:           identifyController,
	nvme.CNSActiveNamespaces:     identifyActive,
	nvme.CNSDescriptors:          identifyDescriptors,
	nvme.CNSCommandSetController: func(*request) reply { return reply{} }, // no limits
}

// identify describes (Base, "Identify command").
func identify(r *request) reply {
	params := nvme.ParseIdentify(r.cmd)
	h := identifyData[params.CNS]
	if h == nil || r.c.sub == nil && params.CNS != nvme.CNSController {
		return refuse(nvme.StatusInvalidField)
	}
	return h(r)
}

func identifyController(r *request) reply {
	c := r.c
	id := nvme.IdentifyController{
		FirmwareRev: "lab", CntlID: c.shown, Version: version, RTD3E: rtd3e,
		ACL: 3, AERL: maxAERs - 1, LPA: nvme.LPAExtended, KAS: kasGranularity,
		SQES: 0x66, CQES: 0x44, MaxCmd: adminQueueSize, SGLS: nvme.SGLSupported | nvme.SGLOffset,
		CTRAtt: nvme.CTRAttHostID128, MDTS: mdts,
		IOCCSz: (nvme.CommandSize + c.listener.InCapsule) / 16, IORCSz: nvme.CompletionSize / 16, MSDBD: 1,
	}
	if c.sub == nil {
		describeDiscovery(c, &id)
	} else {
		describeSubsystem(c, &id)
	}
	data, err := id.AppendBinary(nil)
	if err != nil {
		c.t.log.Error("cannot describe a controller", "subsystem", c.nqn, "error", err)
		return refuse(nvme.StatusInternalError)
	}
	return reply{data: data}
}

func describeDiscovery(c *controller, id *nvme.IdentifyController) {
	d := c.listener.Discovery
	id.Serial, id.Model = serial(c.listener.Name), "STAS lab discovery"
	// A host that came by the well-known name is told the unique one.
	id.SubNQN = c.listener.discoveryNQN()
	if !d.NoAEN {
		id.OAES = nvme.AENConfigDiscovery
	}
	if d.Type != Untyped {
		id.CntrlType = nvme.ControllerDiscovery
	}
	switch d.Type {
	case DDC:
		id.DCType = nvme.DCTypeDDC
	case CDC:
		id.DCType = nvme.DCTypeCDC
	}
}

func describeSubsystem(c *controller, id *nvme.IdentifyController) {
	s := c.sub
	id.Serial = cmp.Or(s.Serial, serial(s.NQN))
	id.Model = cmp.Or(s.Model, "STAS lab")
	id.SubNQN = s.NQN
	id.CntrlType = nvme.ControllerIO
	id.NN, id.MNAN, id.MaxCmd = maxNamespaces, maxNamespaces, maxEntries
	id.ONCS = nvme.ONCSDSM | nvme.ONCSWriteZeroes
	id.VWC = nvme.VWCPresent
	id.OAES = nvme.AENConfigNamespace
	if !s.SinglePath {
		id.CMIC = nvme.CMICMultiController | nvme.CMICANA
		id.OAES |= nvme.AENConfigANA
		id.ANATT, id.ANACAP = 10, 0x1f // s; all states
		id.ANAGrpMax, id.NANAGrpID = maxANAGroups, maxANAGroups
	}
}

func identifyNamespace(r *request) reply {
	n := r.c.sub.state.Load().namespaces[r.cmd.NSID]
	if n == nil {
		if r.cmd.NSID == 0 || r.cmd.NSID > maxNamespaces {
			return refuse(nvme.StatusInvalidNamespace)
		}
		return reply{} // inactive: all zeroes
	}
	return encoded(n.identify(!r.c.sub.SinglePath).AppendBinary(nil))
}

// identifyActive lists the namespaces above the one asked for.
func identifyActive(r *request) reply {
	if r.cmd.NSID >= 0xfffffffe {
		return refuse(nvme.StatusInvalidNamespace)
	}
	var ids []uint32
	for _, id := range r.c.sub.state.Load().ids {
		if id > r.cmd.NSID {
			ids = append(ids, id)
		}
	}
	return encoded(nvme.AppendNamespaceList(nil, ids))
}

func identifyDescriptors(r *request) reply {
	n := r.c.sub.state.Load().namespaces[r.cmd.NSID]
	if n == nil {
		return refuse(nvme.StatusInvalidNamespace)
	}
	return encoded(nvme.AppendNamespaceDescriptors(nil, n.descriptors()))
}

// encoded is a reply by data that cannot be wrong: it was checked when the
// target was told of it.
func encoded(data []byte, err error) reply {
	if err != nil {
		return refuse(nvme.StatusInternalError)
	}
	return reply{data: data}
}

// keepAlive needs no more than to have come (Base, "Keep Alive command").
func keepAlive(*request) reply { return reply{} }

// abortCommand: nothing that could be aborted lasts (Base, "Abort command").
func abortCommand(*request) reply { return reply{result: 1} }

// asyncEventRequest is kept until there is an event to answer it by.
func asyncEventRequest(r *request) reply {
	c := r.c
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.aers) >= maxAERs {
		return refuse(nvme.StatusAERLimitExceeded)
	}
	c.aers = append(c.aers, &request{q: r.q, c: c, cmd: r.cmd})
	c.tell()
	return reply{later: true}
}

// features are the features that can be set, by FID: what a host sets is
// remembered or done, and returned as it is in effect.
var features = map[uint8]func(c *controller, value uint32) uint32{
	nvme.FeatureNumberOfQueues: (*controller).grantQueues,
	nvme.FeatureAsyncEvents: func(c *controller, value uint32) uint32 {
		c.aenConfig = value
		return value
	},
	nvme.FeatureKATO: func(c *controller, value uint32) uint32 {
		c.kato = time.Duration(value) * time.Millisecond
		return value
	},
	nvme.FeatureTimestamp:     func(_ *controller, value uint32) uint32 { return value },
	nvme.FeatureHostBehavior:  func(_ *controller, value uint32) uint32 { return value },
	nvme.FeatureVolatileCache: func(_ *controller, value uint32) uint32 { return value },
}

// setFeatures sets (Base, "Set Features command").
func setFeatures(r *request) reply {
	set := features[uint8(r.cmd.CDW10)]
	if set == nil {
		return refuse(nvme.StatusInvalidField)
	}
	r.c.mu.Lock()
	defer r.c.mu.Unlock()
	return reply{result: uint64(set(r.c, r.cmd.CDW11))}
}

// getFeatures gets (Base, "Get Features command").
func getFeatures(r *request) reply {
	c := r.c
	c.mu.Lock()
	defer c.mu.Unlock()
	value, ok := map[uint8]uint32{
		nvme.FeatureNumberOfQueues: nvme.QueueCount(c.granted),
		nvme.FeatureAsyncEvents:    c.aenConfig,
		nvme.FeatureKATO:           uint32(c.kato.Milliseconds()),
		nvme.FeatureVolatileCache:  1,
	}[uint8(r.cmd.CDW10)]
	if !ok {
		return refuse(nvme.StatusInvalidField)
	}
	return reply{result: uint64(value)}
}

// grantQueues grants as many I/O queues as the subsystem has, at least one.
func (c *controller) grantQueues(value uint32) uint32 {
	if c.sub == nil {
		return 0
	}
	c.granted = uint16(min(nvme.ParseQueueCount(value), c.sub.Queues))
	return nvme.QueueCount(c.granted)
}

// queues returns how many I/O queues the host may have.
func (c *controller) queues() uint16 {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.granted
}
