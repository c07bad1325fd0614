package nvme

import (
	"encoding/binary"
	"fmt"
)

// IdentifyNamespace is the Identify Namespace data structure of the NVM
// command set (NVM Command Set Specification, "Identify Namespace Data
// Structure"), as far as hosts need it. That of a namespace which does not
// exist is all zeroes.
type IdentifyNamespace struct {
	NSZE, NCAP, NUSE uint64 // blocks: size, capacity, of which used
	NSFEAT           uint8
	FLBAS            uint8 // which of the formats: bits 3:0, and 6:5 above them
	NMIC             uint8 // NMICShared
	ANAGrpID         uint32
	NGUID            [16]byte
	EUI64            [8]byte
	LBAFormats       []LBAFormat // NLBAF + 1 of them, 64 at most
}

// NMICShared says that more than one controller may have the namespace.
const NMICShared uint8 = 1 << 0

// LBAFormat is a format of blocks.
type LBAFormat struct {
	MetadataSize uint16 // MS, bytes
	DataShift    uint8  // LBADS: blocks of 2^DataShift bytes
	Performance  uint8  // RP
}

const (
	offLBAF       = 128
	sizeLBAF      = 4
	maxLBAFormats = 64
)

func (id *IdentifyNamespace) fields(l *layout) {
	number(l, 0, &id.NSZE)
	number(l, 8, &id.NCAP)
	number(l, 16, &id.NUSE)
	number(l, 24, &id.NSFEAT)
	number(l, 26, &id.FLBAS)
	number(l, 30, &id.NMIC)
	number(l, 92, &id.ANAGrpID)
	l.bytes(104, id.NGUID[:])
	l.bytes(120, id.EUI64[:])

	nlbaf := uint8(max(len(id.LBAFormats), 1) - 1) // zero's based
	number(l, 25, &nlbaf)
	if nlbaf >= maxLBAFormats {
		l.fail(25, fmt.Errorf("NLBAF %d, %d are allowed", nlbaf, maxLBAFormats-1))
		return
	}
	if !l.encode {
		id.LBAFormats = make([]LBAFormat, int(nlbaf)+1)
	}
	for i := range id.LBAFormats {
		f, at := &id.LBAFormats[i], offLBAF+i*sizeLBAF
		number(l, at, &f.MetadataSize)
		number(l, at+2, &f.DataShift)
		number(l, at+3, &f.Performance)
	}
}

// DecodeIdentifyNamespace reads the data structure.
func DecodeIdentifyNamespace(b []byte) (IdentifyNamespace, error) {
	var id IdentifyNamespace
	err := decodeFields("identify namespace", b, IdentifySize, id.fields)
	return id, err
}

// AppendBinary appends the data structure in its IdentifySize bytes.
func (id IdentifyNamespace) AppendBinary(b []byte) ([]byte, error) {
	if len(id.LBAFormats) > maxLBAFormats {
		return b, fmt.Errorf("identify namespace: %d LBA formats, %d are allowed", len(id.LBAFormats), maxLBAFormats)
	}
	return appendFields("identify namespace", b, IdentifySize, id.fields)
}

// BlockSize returns the size of a block in bytes in the format in use, 0 if
// what the controller says makes no sense.
func (id IdentifyNamespace) BlockSize() uint32 {
	i := int(id.FLBAS&0xf | id.FLBAS>>1&0x30)
	if i >= len(id.LBAFormats) {
		return 0
	}
	if shift := id.LBAFormats[i].DataShift; shift >= 9 && shift < 32 {
		return 1 << shift
	}
	return 0
}

// NIDType is NIDT: by what a namespace is identified.
type NIDType uint8

// The identifiers of a namespace, with their sizes in bytes.
const (
	NIDEUI64 NIDType = 1 // 8
	NIDNGUID NIDType = 2 // 16
	NIDUUID  NIDType = 3 // 16
	NIDCSI   NIDType = 4 // 1
)

// NamespaceDescriptor is an entry of the Namespace Identification Descriptor
// list (CNS 03h).
type NamespaceDescriptor struct {
	Type NIDType
	ID   []byte
}

const sizeDescriptorHead = 4

// DecodeNamespaceDescriptors reads the list up to its end, NIDL 0 or that of b.
func DecodeNamespaceDescriptors(b []byte) ([]NamespaceDescriptor, error) {
	var list []NamespaceDescriptor
	b = b[:min(len(b), IdentifySize)]
	for len(b) >= sizeDescriptorHead && b[1] != 0 {
		end := sizeDescriptorHead + int(b[1])
		if end > len(b) {
			return nil, fmt.Errorf("namespace descriptor %d: %d bytes, %d are left", len(list), end, len(b))
		}
		list = append(list, NamespaceDescriptor{Type: NIDType(b[0]), ID: append([]byte(nil), b[sizeDescriptorHead:end]...)})
		b = b[end:]
	}
	return list, nil
}

// AppendNamespaceDescriptors appends the list in IdentifySize bytes.
func AppendNamespaceDescriptors(b []byte, list []NamespaceDescriptor) ([]byte, error) {
	raw := make([]byte, 0, IdentifySize)
	for i, d := range list {
		if len(d.ID) == 0 || len(d.ID) > 255 {
			return b, fmt.Errorf("namespace descriptor %d: an identifier of %d bytes", i, len(d.ID))
		}
		raw = append(raw, byte(d.Type), byte(len(d.ID)), 0, 0)
		raw = append(raw, d.ID...)
	}
	if len(raw) > IdentifySize {
		return b, fmt.Errorf("namespace descriptors: %d bytes, %d are allowed", len(raw), IdentifySize)
	}
	return append(b, raw[:IdentifySize]...), nil
}

// MaxNamespaceList is how many namespaces a list has room for.
const MaxNamespaceList = IdentifySize / 4

// DecodeNamespaceList reads a list of namespaces up to its end, ID 0 or that
// of b: active ones (CNS 02h), or the Changed Namespace List log page, where
// FFFFFFFFh alone stands for more than fit.
func DecodeNamespaceList(b []byte) []uint32 {
	var list []uint32
	for b = b[:min(len(b), IdentifySize)]; len(b) >= 4; b = b[4:] {
		id := binary.LittleEndian.Uint32(b)
		if id == 0 {
			break
		}
		list = append(list, id)
	}
	return list
}

// AppendNamespaceList appends a list of namespaces in IdentifySize bytes.
func AppendNamespaceList(b []byte, list []uint32) ([]byte, error) {
	if len(list) > MaxNamespaceList {
		return b, fmt.Errorf("namespace list: %d namespaces, %d are allowed", len(list), MaxNamespaceList)
	}
	raw := make([]byte, IdentifySize)
	for i, id := range list {
		if id == 0 {
			return b, fmt.Errorf("namespace list: ID %d of it is 0, which would end it", i)
		}
		binary.LittleEndian.PutUint32(raw[4*i:], id)
	}
	return append(b, raw...), nil
}
