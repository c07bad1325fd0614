package nvme

import (
	"encoding/binary"
	"fmt"
	"math"
	"strings"
)

// An extended entry (Base "Extended Discovery Log Page Entry") begins as any
// other; then come its length and its attributes.
const (
	ExtendedEntrySize = 1032 // without attributes

	offTEL     = 1024
	offNUMEXAT = 1028

	sizeAttributeHead = 4
)

// ExtendedEntry is an entry of a Discovery log page that was read with
// LSPExtended, or of Discovery Information.
type ExtendedEntry struct {
	Entry      DiscoveryLogEntry
	Attributes []Attribute
}

// AttributeType is EXATTYPE.
type AttributeType uint16

// The extended attributes.
const (
	AttributeHostID       AttributeType = 1
	AttributeSymbolicName AttributeType = 2 // ASCII, padded with blanks: the admin label
	AttributeLabelUTF8    AttributeType = 3
)

// Attribute is an extended attribute.
type Attribute struct {
	Type  AttributeType
	Value []byte // a multiple of 4, and not nothing
}

// HostIDAttribute is the attribute that tells a host identifier.
func HostIDAttribute(id HostID) Attribute { return Attribute{AttributeHostID, id[:]} }

// maxSymbolicName is the longest symbolic name in bytes.
const maxSymbolicName = 256

// SymbolicName is the attribute that tells the name which an administrator has
// given. What is too long is cut, as it is for people only.
func SymbolicName(text string) Attribute {
	text = strings.ToValidUTF8(text[:min(len(text), maxSymbolicName)], "")
	padded := max(4, (len(text)+3)/4*4)
	return Attribute{AttributeSymbolicName, []byte(text + strings.Repeat(" ", padded-len(text)))}
}

// Text returns the value of an attribute of text, without its padding; nothing
// if there is something in it that cannot be printed.
func (a Attribute) Text() string {
	s, err := decodeText("", a.Value)
	if err != nil {
		return ""
	}
	return s
}

// Attribute returns the first attribute of a type.
func (e ExtendedEntry) Attribute(t AttributeType) (Attribute, bool) {
	for _, a := range e.Attributes {
		if a.Type == t {
			return a, true
		}
	}
	return Attribute{}, false
}

// HostID returns the host identifier among the attributes.
func (e ExtendedEntry) HostID() (HostID, bool) {
	a, ok := e.Attribute(AttributeHostID)
	if !ok || len(a.Value) != len(HostID{}) {
		return HostID{}, false
	}
	return HostID(a.Value), true
}

// SymbolicName returns the symbolic name among the attributes, "" if there is
// none.
func (e ExtendedEntry) SymbolicName() string {
	a, _ := e.Attribute(AttributeSymbolicName)
	return a.Text()
}

// DecodeExtendedEntry reads the entry at the beginning of b, and says how many
// bytes it takes: TEL.
func DecodeExtendedEntry(b []byte) (ExtendedEntry, int, error) {
	if len(b) < ExtendedEntrySize {
		return ExtendedEntry{}, 0, fmt.Errorf("extended entry: %d bytes, want %d", len(b), ExtendedEntrySize)
	}
	entry, err := DecodeLogEntry(b)
	if err != nil {
		return ExtendedEntry{}, 0, err
	}
	le := binary.LittleEndian
	tel, count := le.Uint32(b[offTEL:]), le.Uint16(b[offNUMEXAT:])
	if tel < ExtendedEntrySize || uint64(tel) > uint64(len(b)) {
		return ExtendedEntry{}, 0, fmt.Errorf("extended entry: TEL %d, and %d bytes", tel, len(b))
	}
	e := ExtendedEntry{Entry: entry}
	for rest := b[ExtendedEntrySize:tel]; len(e.Attributes) < int(count); {
		a, size, err := decodeAttribute(rest)
		if err != nil {
			return ExtendedEntry{}, 0, fmt.Errorf("extended entry: attribute %d: %w", len(e.Attributes), err)
		}
		e.Attributes = append(e.Attributes, a)
		rest = rest[size:]
	}
	return e, int(tel), nil
}

func decodeAttribute(b []byte) (Attribute, int, error) {
	if len(b) < sizeAttributeHead {
		return Attribute{}, 0, fmt.Errorf("%d bytes, want %d", len(b), sizeAttributeHead)
	}
	a := Attribute{Type: AttributeType(binary.LittleEndian.Uint16(b))}
	length := int(binary.LittleEndian.Uint16(b[2:]))
	size := sizeAttributeHead + length
	if size > len(b) {
		return Attribute{}, 0, fmt.Errorf("EXATLEN %d, and %d bytes", length, len(b)-sizeAttributeHead)
	}
	a.Value = append([]byte(nil), b[sizeAttributeHead:size]...)
	return a, size, a.check()
}

func (a Attribute) check() error {
	switch n := len(a.Value); {
	case n == 0 || n%4 != 0 || n > math.MaxUint16:
		return fmt.Errorf("EXATLEN %d is not a number of dwords", n)
	case a.Type == AttributeHostID && n != len(HostID{}):
		return fmt.Errorf("a host identifier of %d bytes", n)
	}
	return nil
}

// size returns TEL.
func (e ExtendedEntry) size() int {
	size := ExtendedEntrySize
	for _, a := range e.Attributes {
		size += sizeAttributeHead + len(a.Value)
	}
	return size
}

// AppendBinary appends the entry, as long as it is.
func (e ExtendedEntry) AppendBinary(b []byte) ([]byte, error) {
	if len(e.Attributes) > math.MaxUint16 {
		return b, fmt.Errorf("extended entry: %d attributes, %d are allowed", len(e.Attributes), math.MaxUint16)
	}
	for i, a := range e.Attributes {
		if err := a.check(); err != nil {
			return b, fmt.Errorf("extended entry: attribute %d: %w", i, err)
		}
	}
	out, err := e.Entry.AppendBinary(b)
	if err != nil {
		return b, err
	}
	le := binary.LittleEndian
	out = le.AppendUint32(out, uint32(e.size()))
	out = le.AppendUint16(out, uint16(len(e.Attributes)))
	out = append(out, 0, 0)
	for _, a := range e.Attributes {
		out = le.AppendUint16(out, uint16(a.Type))
		out = le.AppendUint16(out, uint16(len(a.Value)))
		out = append(out, a.Value...)
	}
	return out, nil
}
