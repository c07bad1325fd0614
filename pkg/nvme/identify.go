package nvme

import "strconv"

// IdentifySize is the size of all Identify data structures in bytes.
const IdentifySize = 4096

// CNS: which data structure Identify returns (Base "Identify CNS Values").
const (
	CNSNamespace            uint8 = 0x00
	CNSController           uint8 = 0x01
	CNSActiveNamespaces     uint8 = 0x02 // above the NSID of the command
	CNSDescriptors          uint8 = 0x03 // Namespace Identification Descriptor list
	CNSCommandSetNamespace  uint8 = 0x05
	CNSCommandSetController uint8 = 0x06
)

// Identify is an Identify command (Base "Identify command").
type Identify struct {
	CNS   uint8
	CntID uint16 // which controller, for structures that need one
	CSI   uint8  // which I/O command set, for structures of one; 0 is NVM
	NSID  uint32
}

// Command returns the command.
func (i Identify) Command() Command {
	return Command{
		Opcode: OpIdentify, Flags: FlagSGL, NSID: i.NSID, SGL: InTransport(IdentifySize),
		CDW10: uint32(i.CNS) | uint32(i.CntID)<<16,
		CDW11: uint32(i.CSI) << 24,
	}
}

// ParseIdentify reads an Identify command.
func ParseIdentify(cmd Command) Identify {
	return Identify{
		CNS:   uint8(cmd.CDW10),
		CntID: uint16(cmd.CDW10 >> 16),
		CSI:   uint8(cmd.CDW11 >> 24),
		NSID:  cmd.NSID,
	}
}

// ControllerType is CNTRLTYPE.
type ControllerType uint8

// The controller types.
const (
	ControllerUnknown   ControllerType = 0 // not reported: older than NVMe 1.4
	ControllerIO        ControllerType = 1
	ControllerDiscovery ControllerType = 2
	ControllerAdmin     ControllerType = 3
)

var controllerTypes = []string{"reserved", "io", "discovery", "admin"}

// String returns what sysfs shows in cntrltype.
func (t ControllerType) String() string { return nth(controllerTypes, t) }

// DCType is DCTYPE: the kind of a discovery controller.
type DCType uint8

// The kinds of discovery controllers.
const (
	DCTypeNone DCType = 0 // not reported, or no discovery controller
	DCTypeDDC  DCType = 1 // direct
	DCTypeCDC  DCType = 2 // centralized
)

var dcTypes = []string{"none", "ddc", "cdc"}

// String returns what sysfs shows in dctype.
func (t DCType) String() string { return nth(dcTypes, t) }

func nth[T ~uint8](names []string, v T) string {
	if int(v) < len(names) {
		return names[v]
	}
	return strconv.Itoa(int(v))
}

// Bits of fields of Identify Controller.
const (
	CMICMultiController = 1 << 1 // the subsystem can have more than one controller
	CMICANA             = 1 << 3 // ANA is reported

	CTRAttHostID128 = 1 << 0  // 128-bit host identifiers
	CTRAttTBKAS     = 1 << 6  // any traffic keeps alive
	CTRAttELBAS     = 1 << 15 // extended LBA formats

	LPAEffects  = 1 << 1 // the Commands Supported and Effects log page is there
	LPAExtended = 1 << 2 // Get Log Page takes offsets, and lengths above 16 KiB

	ONCSDSM         = 1 << 2 // Dataset Management
	ONCSWriteZeroes = 1 << 3
	ONCSTimestamp   = 1 << 6

	VWCPresent = 1 << 0 // there is a volatile write cache, which is flushed

	SGLSupported = 1 << 0
	SGLOffset    = 1 << 20 // offsets into the data of the capsule

	FCAttStatic = 1 << 0 // static controller model

	OFCSDisconnect = 1 << 0
)

// IdentifyController is the Identify Controller data structure (Base
// "Identify Controller Data Structure"), as far as fabrics need it.
type IdentifyController struct {
	VID, SSVID  uint16
	Serial      string // SN, 20 bytes
	Model       string // MN, 40 bytes
	FirmwareRev string // FR, 8 bytes
	CMIC        uint8
	MDTS        uint8 // 2^MDTS memory pages; 0 is no limit
	CntlID      uint16
	Version     uint32 // VER
	RTD3R       uint32 // µs
	RTD3E       uint32 // µs
	OAES        uint32 // AENConfig bits: the events that can be enabled
	CTRAtt      uint32 // CTRATT
	CntrlType   ControllerType
	CRDT        [3]uint16 // CRDT1 to CRDT3, × 100 ms
	OACS        uint16
	ACL, AERL   uint8 // zero's based
	FRMW        uint8
	LPA         uint8
	APSTA       uint8
	KAS         uint16 // × 100 ms; 0 is no keep alive
	ANATT       uint8  // s
	ANACAP      uint8
	ANAGrpMax   uint32
	NANAGrpID   uint32
	CQT         uint16 // ms; 0 is not reported
	SQES, CQES  uint8
	MaxCmd      uint16
	NN          uint32
	ONCS        uint16
	VWC         uint8
	SGLS        uint32
	MNAN        uint32
	SubNQN      string
	IOCCSz      uint32 // × 16 bytes, command included
	IORCSz      uint32 // × 16 bytes
	ICDOff      uint16 // × 16 bytes
	FCAtt       uint8
	MSDBD       uint8
	OFCS        uint16
	DCType      DCType
}

func (id *IdentifyController) fields(l *layout) {
	number(l, 0, &id.VID)
	number(l, 2, &id.SSVID)
	l.text(4, 20, ' ', "SN", &id.Serial)
	l.text(24, 40, ' ', "MN", &id.Model)
	l.text(64, 8, ' ', "FR", &id.FirmwareRev)
	number(l, 76, &id.CMIC)
	number(l, 77, &id.MDTS)
	number(l, 78, &id.CntlID)
	number(l, 80, &id.Version)
	number(l, 84, &id.RTD3R)
	number(l, 88, &id.RTD3E)
	number(l, 92, &id.OAES)
	number(l, 96, &id.CTRAtt)
	number(l, 111, &id.CntrlType)
	number(l, 128, &id.CRDT[0])
	number(l, 130, &id.CRDT[1])
	number(l, 132, &id.CRDT[2])
	number(l, 256, &id.OACS)
	number(l, 258, &id.ACL)
	number(l, 259, &id.AERL)
	number(l, 260, &id.FRMW)
	number(l, 261, &id.LPA)
	number(l, 265, &id.APSTA)
	number(l, 320, &id.KAS)
	number(l, 342, &id.ANATT)
	number(l, 343, &id.ANACAP)
	number(l, 344, &id.ANAGrpMax)
	number(l, 348, &id.NANAGrpID)
	number(l, 386, &id.CQT)
	number(l, 512, &id.SQES)
	number(l, 513, &id.CQES)
	number(l, 514, &id.MaxCmd)
	number(l, 516, &id.NN)
	number(l, 520, &id.ONCS)
	number(l, 525, &id.VWC)
	number(l, 536, &id.SGLS)
	number(l, 540, &id.MNAN)
	l.text(768, sizeSUBNQN, 0, "SUBNQN", &id.SubNQN)
	number(l, 1792, &id.IOCCSz)
	number(l, 1796, &id.IORCSz)
	number(l, 1800, &id.ICDOff)
	number(l, 1802, &id.FCAtt)
	number(l, 1803, &id.MSDBD)
	number(l, 1804, &id.OFCS)
	number(l, 1806, &id.DCType)
}

// DecodeIdentifyController reads the data structure.
func DecodeIdentifyController(b []byte) (IdentifyController, error) {
	var id IdentifyController
	err := decodeFields("identify controller", b, IdentifySize, id.fields)
	return id, err
}

// AppendBinary appends the data structure in its IdentifySize bytes.
func (id IdentifyController) AppendBinary(b []byte) ([]byte, error) {
	return appendFields("identify controller", b, IdentifySize, id.fields)
}
