package nvme

import "time"

// Properties of a controller, by their offset (Base "Controller Properties").
const (
	PropCAP  uint32 = 0x00 // 8 bytes, all others 4
	PropVS   uint32 = 0x08
	PropCC   uint32 = 0x14
	PropCSTS uint32 = 0x1c
	PropCRTO uint32 = 0x68 // if CAP has CAPCRWMS
)

// Fields of CAP, controller capabilities.
const (
	CAPMaxEntriesMask = 0xffff  // MQES: entries of a queue, zero's based
	CAPContiguous     = 1 << 16 // CQR: always so over fabrics
	CAPTimeoutShift   = 24      // TO: 8 bits, × 500 ms
	CAPNVM            = 1 << 37 // CSS: the NVM command set
	CAPCommandSets    = 1 << 43 // CSS: one or more I/O command sets
	CAPNoIO           = 1 << 44 // CSS: none
	CAPCRWMS          = 1 << 59 // CRMS: ready when media is
	CAPCRIMS          = 1 << 60 // CRMS: ready before media is
)

// CAPMaxEntries returns how many entries a queue may have, by MQES.
func CAPMaxEntries(value uint64) int { return int(value&CAPMaxEntriesMask) + 1 }

// CAPTimeout returns how long enabling and disabling may take, by TO.
func CAPTimeout(value uint64) time.Duration {
	return time.Duration(uint8(value>>CAPTimeoutShift)) * 500 * time.Millisecond
}

// Fields of CC, controller configuration.
const (
	CCEnable         = 1 << 0 // EN
	CCShutdownMask   = 3 << 14
	CCShutdownNormal = 1 << 14 // SHN
	CCShutdownAbrupt = 2 << 14
	CCEntrySizes     = 4<<20 | 6<<16 // IOCQES, IOSQES: 2^4 and 2^6 bytes, the only sizes there are
)

// Fields of CSTS, controller status.
const (
	CSTSReady            = 1 << 0 // RDY
	CSTSFatal            = 1 << 1 // CFS
	CSTSShutdownMask     = 3 << 2
	CSTSShutdownOccurs   = 1 << 2 // SHST
	CSTSShutdownComplete = 2 << 2
)

// Values of VS, and of VER in Identify Controller.
const (
	Version13 = 0x00010300
	Version14 = 0x00010400
	Version20 = 0x00020000
	Version21 = 0x00020100
)

// Property is what Property Get asks for, or Property Set sets.
type Property struct {
	Offset uint32
	Wide   bool   // 8 bytes, not 4
	Value  uint64 // of Property Set
}

// PropertyGet returns the command that reads a property (Base "Property Get
// command"); the value comes in the result.
func PropertyGet(p Property) Command {
	p.Value = 0
	return p.command(FCPropertyGet)
}

// PropertySet returns the command that writes a property (Base "Property Set
// command").
func PropertySet(p Property) Command { return p.command(FCPropertySet) }

func (p Property) command(t FCType) Command {
	cmd := fabricsCommand(t, InTransport(0))
	if p.Wide {
		cmd.CDW10 = 1
	}
	cmd.CDW11 = p.Offset
	cmd.CDW12, cmd.CDW13 = uint32(p.Value), uint32(p.Value>>32)
	return cmd
}

// ParseProperty reads a Property Get or a Property Set command.
func ParseProperty(cmd Command) Property {
	return Property{
		Offset: cmd.CDW11,
		Wide:   cmd.CDW10&7 == 1,
		Value:  uint64(cmd.CDW13)<<32 | uint64(cmd.CDW12),
	}
}
