package nvme

import (
	"math"
	"time"
)

// FCType tells the Fabrics commands apart (Base "Fabrics Command Set").
type FCType uint8

// The Fabrics commands.
const (
	FCPropertySet FCType = 0x00
	FCConnect     FCType = 0x01
	FCPropertyGet FCType = 0x04
	FCAuthSend    FCType = 0x05
	FCAuthReceive FCType = 0x06
	FCDisconnect  FCType = 0x08
)

func (t FCType) String() string { return CommandName(OpFabrics, t, false) }

func fabricsCommand(t FCType, data SGL) Command {
	return Command{Opcode: OpFabrics, Flags: FlagSGL, NSID: uint32(t), SGL: data}
}

// Bits of CATTR in a Connect command.
const (
	CAttrDisableSQFlow uint8 = 1 << 2 // the host can do without SQ flow control
	CAttrDeleteQueues  uint8 = 1 << 3 // the host deletes I/O queues one by one, by Disconnect
	CAttrDiscovery     uint8 = 1 << 4 // a discovery controller is connecting
)

// Offsets of fields of the Connect command, to point at a wrong one.
const (
	ConnectOffRecFmt = 40
	ConnectOffQID    = 42
	ConnectOffSQSize = 44
	ConnectOffCAttr  = 46
	ConnectOffKATO   = 48
)

// Connect is a Connect command (Base "Connect command").
type Connect struct {
	QID    uint16 // 0 is the admin queue
	SQSize uint16 // zero's based
	CAttr  uint8
	KATO   time.Duration // admin queue only; milliseconds on the wire
}

// Command returns the command with ConnectDataSize bytes of data to come along.
func (c Connect) Command() Command {
	cmd := fabricsCommand(FCConnect, InCapsule(ConnectDataSize))
	cmd.CDW10 = uint32(c.QID) << 16 // RECFMT 0
	cmd.CDW11 = uint32(c.SQSize) | uint32(c.CAttr)<<16
	cmd.CDW12 = milliseconds(c.KATO)
	return cmd
}

// ParseConnect reads a Connect command. A record format other than 0 is
// StatusConnectIncompatibleFormat.
func ParseConnect(cmd Command) (Connect, error) {
	if recfmt := uint16(cmd.CDW10); recfmt != 0 {
		return Connect{}, StatusConnectIncompatibleFormat
	}
	return Connect{
		QID:    uint16(cmd.CDW10 >> 16),
		SQSize: uint16(cmd.CDW11),
		CAttr:  uint8(cmd.CDW11 >> 16),
		KATO:   time.Duration(cmd.CDW12) * time.Millisecond,
	}, nil
}

// milliseconds is a time-out on the wire. What is not 0 does not become 0,
// which would be no time-out at all.
func milliseconds(d time.Duration) uint32 {
	if d <= 0 {
		return 0
	}
	ms := (d-1)/time.Millisecond + 1
	return uint32(min(ms, math.MaxUint32))
}

// ConnectDataSize is the size of the data of a Connect command.
const ConnectDataSize = 1024

// Offsets of fields of the data of a Connect command, to point at a wrong one.
const (
	ConnectDataOffHostID  = 0
	ConnectDataOffCntlID  = 16
	ConnectDataOffSubNQN  = 256
	ConnectDataOffHostNQN = 512
)

// ConnectData is the data of a Connect command: who connects to what. The
// NQNs are printable text, and not yet checked for being NQNs.
type ConnectData struct {
	HostID  HostID
	CntlID  uint16 // CntlIDDynamic or CntlIDStatic, or the controller of an I/O queue
	SubNQN  string
	HostNQN string
}

func (d *ConnectData) fields(l *layout) {
	l.bytes(ConnectDataOffHostID, d.HostID[:])
	number(l, ConnectDataOffCntlID, &d.CntlID)
	l.text(ConnectDataOffSubNQN, sizeSUBNQN, 0, "SUBNQN", &d.SubNQN)
	l.text(ConnectDataOffHostNQN, sizeSUBNQN, 0, "HOSTNQN", &d.HostNQN)
}

// DecodeConnectData reads the data of a Connect command. A name that is not
// text is a [*FieldError], whose offset can go into the answer; what was
// decoded up to there comes with it.
func DecodeConnectData(b []byte) (ConnectData, error) {
	var d ConnectData
	err := decodeFields("connect data", b, ConnectDataSize, d.fields)
	return d, err
}

// AppendBinary appends the data in its ConnectDataSize bytes.
func (d ConnectData) AppendBinary(b []byte) ([]byte, error) {
	return appendFields("connect data", b, ConnectDataSize, d.fields)
}

// ConnectResult is dword 0 of a completed Connect (Base "Connect Response").
type ConnectResult uint32

// NewConnectResult is the result of a Connect that succeeds. If it asks for
// authentication (ATR), nothing else is accepted on the queue before.
func NewConnectResult(cntlID uint16, authenticate bool) ConnectResult {
	r := ConnectResult(cntlID)
	if authenticate {
		r |= connectATR
	}
	return r
}

// NewInvalidParameter is the result of a Connect that fails by
// StatusConnectInvalidParameters or StatusConnectInvalidHost: it points at the
// field, in the data (IATTR 1) or in the command.
func NewInvalidParameter(offset uint16, inData bool) ConnectResult {
	r := ConnectResult(offset)
	if inData {
		r |= connectIATTR
	}
	return r
}

const (
	connectIATTR ConnectResult = 1 << 16
	connectATR   ConnectResult = 1 << 17
	connectASCR  ConnectResult = 1 << 18
)

// CntlID returns the ID of the controller.
func (r ConnectResult) CntlID() uint16 { return uint16(r) }

// ATR (authentication transaction required): the host has to prove itself.
func (r ConnectResult) ATR() bool { return r&connectATR != 0 }

// ASCR (authentication and secure channel required): so it has, and then
// begins TLS with what came out of it.
func (r ConnectResult) ASCR() bool { return r&connectASCR != 0 }

// InvalidParameter returns which field a Connect was refused for.
func (r ConnectResult) InvalidParameter() (offset uint16, inData bool) {
	return uint16(r), r&connectIATTR != 0
}

// Disconnect returns the command that deletes its I/O queue (Base "Disconnect
// command").
func Disconnect() Command { return fabricsCommand(FCDisconnect, InTransport(0)) }
