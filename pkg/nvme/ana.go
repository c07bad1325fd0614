package nvme

import (
	"encoding/binary"
	"fmt"
)

// ANAState is the asymmetric namespace access state of a group of namespaces
// (Base "Asymmetric Namespace Access States").
type ANAState uint8

// The states.
const (
	ANAOptimized      ANAState = 0x1
	ANANonOptimized   ANAState = 0x2
	ANAInaccessible   ANAState = 0x3
	ANAPersistentLoss ANAState = 0x4
	ANAChange         ANAState = 0xf
)

var anaStateNames = map[ANAState]string{
	ANAOptimized: "optimized", ANANonOptimized: "non-optimized", ANAInaccessible: "inaccessible",
	ANAPersistentLoss: "persistent-loss", ANAChange: "change",
}

var anaStates = inverse(anaStateNames)

// String returns the kernel's name of the state, or the number.
func (s ANAState) String() string { return name(anaStateNames, s) }

// ParseANAState is the inverse of String for the named states.
func ParseANAState(s string) (ANAState, bool) {
	state, ok := anaStates[s]
	return state, ok
}

// MarshalText implements [encoding.TextMarshaler] by String.
func (s ANAState) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// UnmarshalText implements [encoding.TextUnmarshaler] by ParseANAState.
func (s *ANAState) UnmarshalText(text []byte) error {
	state, ok := ParseANAState(string(text))
	if !ok {
		return fmt.Errorf("%q is no ANA state", text)
	}
	*s = state
	return nil
}

// Sizes in the ANA log page, and how many namespaces and groups follow.
const (
	anaHeaderSize = 16
	anaGroupSize  = 32

	offANAChangeCount = 0
	offANAGroups      = 8

	offGroupID          = 0
	offGroupNSIDs       = 4
	offGroupChangeCount = 8
	offGroupState       = 16
)

// ANAGroup is a group of namespaces with one state.
type ANAGroup struct {
	ID          uint32
	ChangeCount uint64
	State       ANAState
	NSIDs       []uint32 // none if the log was read with LSPGroupsOnly
}

// ANALog is the Asymmetric Namespace Access log page (LID 0Ch).
type ANALog struct {
	ChangeCount uint64
	Groups      []ANAGroup
}

// DecodeANALog reads a complete log page.
func DecodeANALog(b []byte) (ANALog, error) {
	if len(b) < anaHeaderSize {
		return ANALog{}, fmt.Errorf("ANA log: %d bytes, want %d", len(b), anaHeaderSize)
	}
	le := binary.LittleEndian
	log := ANALog{ChangeCount: le.Uint64(b[offANAChangeCount:])}
	groups := int(le.Uint16(b[offANAGroups:]))
	b = b[anaHeaderSize:]
	for i := range groups {
		if len(b) < anaGroupSize {
			return ANALog{}, fmt.Errorf("ANA log: group %d of %d is cut off", i, groups)
		}
		g := ANAGroup{
			ID:          le.Uint32(b[offGroupID:]),
			ChangeCount: le.Uint64(b[offGroupChangeCount:]),
			State:       ANAState(b[offGroupState] & 0xf),
		}
		nsids := le.Uint32(b[offGroupNSIDs:])
		b = b[anaGroupSize:]
		if uint64(nsids) > uint64(len(b)/4) {
			return ANALog{}, fmt.Errorf("ANA log: the %d namespaces of group %d are cut off", nsids, i)
		}
		for range nsids {
			g.NSIDs = append(g.NSIDs, le.Uint32(b))
			b = b[4:]
		}
		log.Groups = append(log.Groups, g)
	}
	return log, nil
}

// AppendBinary appends the log page.
func (l ANALog) AppendBinary(b []byte) ([]byte, error) {
	if len(l.Groups) > 0xffff {
		return b, fmt.Errorf("ANA log: %d groups, %d are allowed", len(l.Groups), 0xffff)
	}
	le := binary.LittleEndian
	var head [anaHeaderSize]byte
	le.PutUint64(head[offANAChangeCount:], l.ChangeCount)
	le.PutUint16(head[offANAGroups:], uint16(len(l.Groups)))
	b = append(b, head[:]...)
	for _, g := range l.Groups {
		var raw [anaGroupSize]byte
		le.PutUint32(raw[offGroupID:], g.ID)
		le.PutUint32(raw[offGroupNSIDs:], uint32(len(g.NSIDs)))
		le.PutUint64(raw[offGroupChangeCount:], g.ChangeCount)
		raw[offGroupState] = byte(g.State)
		b = append(b, raw[:]...)
		for _, id := range g.NSIDs {
			b = le.AppendUint32(b, id)
		}
	}
	return b, nil
}
