package nvme

import (
	"errors"
	"fmt"
	"math"
)

// DIMTask is TAS of a Discovery Information Management command (Base
// "Discovery Information Management command").
type DIMTask uint8

// The tasks.
const (
	TaskRegister   DIMTask = 0
	TaskDeregister DIMTask = 1
	TaskUpdate     DIMTask = 2 // of what the first entry names, by the second
)

var taskNames = []string{"register", "deregister", "update"}

func (t DIMTask) String() string { return nth(taskNames, t) }

// EntryFormat is ENTFMT: how Discovery Information describes.
type EntryFormat uint16

// The formats.
const (
	EntryBasic    EntryFormat = 1 // entries without attributes
	EntryExtended EntryFormat = 2
)

// EntityType is ETYPE: who says something of itself.
type EntityType uint16

// The entities.
const (
	EntityHost EntityType = 1
	EntityDDC  EntityType = 2
	EntityCDC  EntityType = 3
)

// KeyType is EKTYPE: which fields of an entry tell it from others.
type KeyType uint16

// The keys there are.
const (
	KeyPortID  KeyType = 0x3f
	KeyAddress KeyType = 0x5f // TRADDR in the place of PORTID; what hosts use
)

// DIMHeaderSize is the size of what precedes the entries.
const DIMHeaderSize = 1024

// DiscoveryInformation is what an entity registers with a discovery
// controller: the command and its data.
type DiscoveryInformation struct {
	Task       DIMTask // in the command, all else is data
	Format     EntryFormat
	EntityType EntityType
	PortLocal  bool // PORTLCL, of a DDC: all the entries of one port
	KeyType    KeyType
	EID        string // NQN of the entity
	Name       string // ENAME: of a host, its host name
	Version    string // EVER: of the software, 64 bytes
	Entries    []ExtendedEntry
}

// fields is the header; what depends on the entries stands beside it.
func (d *DiscoveryInformation) fields(length *uint32, count *uint64) func(*layout) {
	return func(l *layout) {
		number(l, 0, length)
		number(l, 8, count)
		number(l, 16, &d.Format)
		number(l, 18, &d.EntityType)
		l.flag(20, &d.PortLocal)
		number(l, 22, &d.KeyType)
		l.text(24, 256, 0, "EID", &d.EID)
		l.text(280, 256, 0, "ENAME", &d.Name)
		l.text(536, 64, 0, "EVER", &d.Version)
	}
}

// size returns TDL.
func (d DiscoveryInformation) size() int {
	size := DIMHeaderSize
	for _, e := range d.Entries {
		if d.Format == EntryBasic {
			size += EntrySize
		} else {
			size += e.size()
		}
	}
	return size
}

// Command returns the command for the data. Who sends it decides whether the
// data comes along.
func (d DiscoveryInformation) Command() Command {
	return Command{
		Opcode: OpDiscoveryInfoMgmt, Flags: FlagSGL, SGL: InTransport(uint32(d.size())),
		CDW10: uint32(d.Task),
	}
}

// AppendBinary appends the data, as long as it is. It does not Check.
func (d DiscoveryInformation) AppendBinary(b []byte) ([]byte, error) {
	size := d.size()
	if uint64(size) > math.MaxUint32 {
		return b, fmt.Errorf("discovery information: %d bytes", size)
	}
	length, count := uint32(size), uint64(len(d.Entries))
	out, err := appendFields("discovery information", b, DIMHeaderSize, d.fields(&length, &count))
	if err != nil {
		return b, err
	}
	for i, e := range d.Entries {
		if d.Format == EntryBasic {
			out, err = e.Entry.AppendBinary(out)
		} else {
			out, err = e.AppendBinary(out)
		}
		if err != nil {
			return b, fmt.Errorf("discovery information: entry %d: %w", i, err)
		}
	}
	return out, nil
}

// DecodeDiscoveryInformation reads a Discovery Information Management command
// and its data, and does Check. Its error wraps the [Status] that the command
// deserves.
func DecodeDiscoveryInformation(cmd Command, b []byte) (DiscoveryInformation, error) {
	d := DiscoveryInformation{Task: DIMTask(cmd.CDW10 & 0xf)}
	var length uint32
	var count uint64
	err := decodeFields("discovery information", b, DIMHeaderSize, d.fields(&length, &count))
	if err != nil {
		return DiscoveryInformation{}, fmt.Errorf("%w: %w", err, StatusInvalidField)
	}
	if length < DIMHeaderSize || uint64(length) > uint64(len(b)) {
		return DiscoveryInformation{}, wrong(StatusInvalidField, "TDL %d, and %d bytes", length, len(b))
	}
	for rest := b[DIMHeaderSize:length]; uint64(len(d.Entries)) < count; {
		e, size, err := d.Format.decode(rest)
		if err != nil {
			return DiscoveryInformation{}, wrong(StatusInvalidField, "entry %d of %d: %w", len(d.Entries), count, err)
		}
		d.Entries = append(d.Entries, e)
		rest = rest[size:]
	}
	if err := d.Check(); err != nil {
		return DiscoveryInformation{}, err
	}
	return d, nil
}

// decode reads the entry at the beginning of b, and says how many bytes it takes.
func (f EntryFormat) decode(b []byte) (ExtendedEntry, int, error) {
	switch f {
	case EntryBasic:
		e, err := DecodeLogEntry(b)
		return ExtendedEntry{Entry: e}, EntrySize, err
	case EntryExtended:
		return DecodeExtendedEntry(b)
	}
	return ExtendedEntry{}, 0, fmt.Errorf("ENTFMT %d is unknown", f)
}

// Check tells what a discovery controller has to refuse. The error wraps the
// [Status] to refuse it with.
func (d DiscoveryInformation) Check() error {
	switch {
	case d.Task > TaskUpdate:
		return wrong(StatusInvalidField, "TAS %d is unknown", d.Task)
	case d.Format != EntryBasic && d.Format != EntryExtended:
		return wrong(StatusInvalidField, "ENTFMT %d is unknown", d.Format)
	case d.EntityType < EntityHost || d.EntityType > EntityCDC:
		return wrong(StatusInvalidField, "ETYPE %d is unknown", d.EntityType)
	case d.PortLocal && d.EntityType != EntityDDC:
		return wrong(StatusInvalidField, "PORTLCL is for DDCs")
	case len(d.Entries) == 0:
		return wrong(StatusInvalidField, "there is no entry")
	case d.Task == TaskUpdate && len(d.Entries) != 2:
		return wrong(StatusInvalidField, "%d entries for an update, which is of one by another", len(d.Entries))
	}
	unnamed := 0
	for i, e := range d.Entries {
		if e.Entry.TrAddr == "" { // the address that the connection comes from
			unnamed++
		}
		if d.EntityType == EntityHost {
			if err := e.checkHost(); err != nil {
				return wrong(StatusInvalidDiscoveryInformation, "entry %d: %w", i, err)
			}
		}
	}
	if unnamed > 1 {
		return wrong(StatusInvalidField, "%d entries without TRADDR", unnamed)
	}
	if d.EntityType == EntityHost && d.KeyType != KeyAddress {
		return wrong(StatusInvalidDiscoveryInformation, "EKTYPE %#x, hosts have %#x", uint16(d.KeyType), uint16(KeyAddress))
	}
	return nil
}

// checkHost tells what is wrong with an entry that describes a host.
func (e ExtendedEntry) checkHost() error {
	switch {
	case len(e.Attributes) == 0:
		return errors.New("a host has to tell an attribute")
	case e.Entry.SubType != 0 || e.Entry.TReq != 0 || e.Entry.PortID != 0 || e.Entry.CntlID != 0 || e.Entry.ASQSz != 0:
		return errors.New("a host has no SUBTYPE, TREQ, PORTID, CNTLID or ASQSZ")
	}
	return nil
}

func wrong(status Status, format string, args ...any) error {
	return fmt.Errorf("discovery information: %w: %w", fmt.Errorf(format, args...), status)
}
