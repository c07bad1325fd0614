package nvme

import (
	"encoding/binary"
	"fmt"
)

// Sizes of the entries of queues in bytes (Base "Submission Queue Entry",
// "Completion Queue Entry").
const (
	CommandSize    = 64
	CompletionSize = 16
)

// FlagSGL in the flags of a command says that data is described by an SGL
// (PSDT 01b). Over fabrics all commands have it.
const FlagSGL uint8 = 0x40

// Command is a submission queue entry.
type Command struct {
	Opcode, Flags uint8
	CID           uint16
	NSID          uint32
	CDW2, CDW3    uint32
	Metadata      uint64
	SGL           SGL
	CDW10, CDW11  uint32
	CDW12, CDW13  uint32
	CDW14, CDW15  uint32
}

// SGL is the only SGL descriptor a command has over fabrics: where its data
// is, and how much.
type SGL struct {
	Address uint64 // for SGLInCapsule the offset in the capsule's data
	Length  uint32 // bytes
	Type    uint8
}

// The types and sub-types of an SGL descriptor.
const (
	SGLInCapsule uint8 = 0x01 // data block at an offset: the data comes along
	SGLTransport uint8 = 0x5a // transport data block: the transport moves the data
)

// InCapsule describes data that comes along with its command.
func InCapsule(length uint32) SGL { return SGL{Length: length, Type: SGLInCapsule} }

// InTransport describes data that the transport moves later; of length 0, no
// data at all.
func InTransport(length uint32) SGL { return SGL{Length: length, Type: SGLTransport} }

// DecodeCommand reads the command at the beginning of b.
func DecodeCommand(b []byte) (Command, error) {
	if len(b) < CommandSize {
		return Command{}, fmt.Errorf("command: %d bytes, want %d", len(b), CommandSize)
	}
	le := binary.LittleEndian
	return Command{
		Opcode: b[0], Flags: b[1],
		CID:  le.Uint16(b[2:]),
		NSID: le.Uint32(b[4:]),
		CDW2: le.Uint32(b[8:]), CDW3: le.Uint32(b[12:]),
		Metadata: le.Uint64(b[16:]),
		SGL:      SGL{Address: le.Uint64(b[24:]), Length: le.Uint32(b[32:]), Type: b[39]},
		CDW10:    le.Uint32(b[40:]), CDW11: le.Uint32(b[44:]),
		CDW12: le.Uint32(b[48:]), CDW13: le.Uint32(b[52:]),
		CDW14: le.Uint32(b[56:]), CDW15: le.Uint32(b[60:]),
	}, nil
}

// AppendBinary appends the command in its CommandSize bytes. It never fails.
func (c Command) AppendBinary(b []byte) ([]byte, error) {
	le := binary.LittleEndian
	b = append(b, c.Opcode, c.Flags)
	b = le.AppendUint16(b, c.CID)
	b = le.AppendUint32(b, c.NSID)
	b = le.AppendUint32(b, c.CDW2)
	b = le.AppendUint32(b, c.CDW3)
	b = le.AppendUint64(b, c.Metadata)
	b = le.AppendUint64(b, c.SGL.Address)
	b = le.AppendUint32(b, c.SGL.Length)
	b = append(b, 0, 0, 0, c.SGL.Type)
	for _, dword := range [...]uint32{c.CDW10, c.CDW11, c.CDW12, c.CDW13, c.CDW14, c.CDW15} {
		b = le.AppendUint32(b, dword)
	}
	return b, nil
}

// Fabrics reports whether the command is a Fabrics command.
func (c Command) Fabrics() bool { return c.Opcode == OpFabrics }

// FCType returns which Fabrics command it is, if it is one.
func (c Command) FCType() FCType { return FCType(c.NSID) }

// Direction is the way the data of a command takes.
type Direction uint8

// The directions, as two bits of the opcode spell them.
const (
	NoData Direction = iota
	ToController
	ToHost
	Both
)

// Direction returns the way the data takes, if there is data.
func (c Command) Direction() Direction {
	if c.Fabrics() {
		return Direction(c.FCType() & 3)
	}
	return Direction(c.Opcode & 3)
}

// Completion is a completion queue entry.
type Completion struct {
	Result uint64 // dwords 0 and 1: depends on the command
	SQHD   uint16 // how far the submission queue was consumed
	SQID   uint16
	CID    uint16 // of the command
	Status Status // 0 is success
}

// DecodeCompletion reads the completion at the beginning of b.
func DecodeCompletion(b []byte) (Completion, error) {
	if len(b) < CompletionSize {
		return Completion{}, fmt.Errorf("completion: %d bytes, want %d", len(b), CompletionSize)
	}
	le := binary.LittleEndian
	return Completion{
		Result: le.Uint64(b),
		SQHD:   le.Uint16(b[8:]),
		SQID:   le.Uint16(b[10:]),
		CID:    le.Uint16(b[12:]),
		Status: Status(le.Uint16(b[14:]) >> 1), // bit 0 is the phase tag, which fabrics do not use
	}, nil
}

// AppendBinary appends the completion in its CompletionSize bytes. It never
// fails.
func (c Completion) AppendBinary(b []byte) ([]byte, error) {
	le := binary.LittleEndian
	b = le.AppendUint64(b, c.Result)
	b = le.AppendUint16(b, c.SQHD)
	b = le.AppendUint16(b, c.SQID)
	b = le.AppendUint16(b, c.CID)
	return le.AppendUint16(b, uint16(c.Status)<<1), nil
}
