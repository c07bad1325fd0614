package nvme

import (
	"encoding/binary"
	"fmt"
	"math"
)

// Log page identifiers, LID.
const (
	LogSupportedPages    uint8 = 0x00
	LogError             uint8 = 0x01
	LogSMART             uint8 = 0x02
	LogChangedNamespaces uint8 = 0x04
	LogEffects           uint8 = 0x05 // Commands Supported and Effects
	LogANA               uint8 = 0x0c
	LogDiscovery         uint8 = 0x70
)

// LSPGroupsOnly is an LSP of the ANA log page: groups without their
// namespaces (RGO).
const LSPGroupsOnly uint8 = 1 << 0

// The log specific parameter, LSP, of the Discovery log page, and the flags in
// its header.
const (
	LSPExtended      uint8 = 1 << 0 // extended entries (EXTDLPE)
	LSPPortLocal     uint8 = 1 << 1 // only entries of the port asked (PLEO)
	LSPAllSubsystems uint8 = 1 << 2 // subsystems without access too (ALLSUBE)

	maxLSP = 0x7f
)

// GetLogPage is a Get Log Page command for Length bytes from Offset.
type GetLogPage struct {
	LID    uint8
	LSP    uint8
	RAE    bool // retain asynchronous event: do not count as having been read
	Offset uint64
	Length uint32
}

// NSID returns the namespace to address: none for the Discovery log, which
// targets insist on, all of them otherwise.
func (g GetLogPage) NSID() uint32 {
	if g.LID == LogDiscovery {
		return 0
	}
	return 0xffffffff
}

// Dwords returns command dwords 10 to 13. Offset and length count in bytes
// and have to be multiples of four.
func (g GetLogPage) Dwords() ([4]uint32, error) {
	switch {
	case g.LSP > maxLSP:
		return [4]uint32{}, fmt.Errorf("get log page: LSP %#x has more than 7 bits", g.LSP)
	case g.Length == 0 || g.Length%4 != 0:
		return [4]uint32{}, fmt.Errorf("get log page: %d bytes are not a number of dwords", g.Length)
	case g.Offset%4 != 0:
		return [4]uint32{}, fmt.Errorf("get log page: offset %d is not a multiple of 4", g.Offset)
	}
	numd := g.Length/4 - 1 // zero's based
	cdw10 := uint32(g.LID) | uint32(g.LSP)<<8 | numd<<16
	if g.RAE {
		cdw10 |= 1 << 15
	}
	return [4]uint32{cdw10, numd >> 16, uint32(g.Offset), uint32(g.Offset >> 32)}, nil
}

// Command returns the command.
func (g GetLogPage) Command() (Command, error) {
	dwords, err := g.Dwords()
	return Command{
		Opcode: OpGetLogPage, Flags: FlagSGL, NSID: g.NSID(), SGL: InTransport(g.Length),
		CDW10: dwords[0], CDW11: dwords[1], CDW12: dwords[2], CDW13: dwords[3],
	}, err
}

// ParseGetLogPage reads a Get Log Page command. An offset that is not one in
// whole dwords, or not one in bytes, is StatusInvalidField; so are 16 GiB.
func ParseGetLogPage(cmd Command) (GetLogPage, error) {
	const offsetType = 1 << 23 // OT in dword 14: the offset is an index
	length := (uint64(uint16(cmd.CDW11))<<16 | uint64(cmd.CDW10>>16) + 1) * 4
	g := GetLogPage{
		LID:    uint8(cmd.CDW10),
		LSP:    uint8(cmd.CDW10>>8) & maxLSP,
		RAE:    cmd.CDW10&(1<<15) != 0,
		Offset: uint64(cmd.CDW13)<<32 | uint64(cmd.CDW12),
		Length: uint32(length),
	}
	if length > math.MaxUint32 || g.Offset%4 != 0 || cmd.CDW14&offsetType != 0 {
		return GetLogPage{}, StatusInvalidField
	}
	return g, nil
}

// SupportedLogPagesSize is the size of the Supported Log Pages log page: a
// dword for each of the 256 log pages.
const SupportedLogPagesSize = 1024

// LogPageSupport is what a controller says about one of its log pages (Base
// "LID Supported and Effects Data Structure"); 0 is "not supported".
type LogPageSupport uint32

// LogPageSupported looks lid up in a Supported Log Pages log page. What a
// short page does not mention is not supported.
func LogPageSupported(page []byte, lid uint8) LogPageSupport {
	at := 4 * int(lid)
	if len(page) < at+4 {
		return 0
	}
	return LogPageSupport(binary.LittleEndian.Uint32(page[at:]))
}

// NewLogPageSupport says that a log page is supported, and which LSP bits it
// takes if it is the Discovery log page.
func NewLogPageSupport(lsp uint8) LogPageSupport { return 1 | LogPageSupport(lsp)<<16 }

// AppendSupportedLogPages appends a Supported Log Pages log page: what is said
// of each log page by LID.
func AppendSupportedLogPages(b []byte, pages map[uint8]LogPageSupport) []byte {
	var raw [SupportedLogPagesSize]byte
	for lid, support := range pages {
		binary.LittleEndian.PutUint32(raw[4*int(lid):], uint32(support))
	}
	return append(b, raw[:]...)
}

// Supported reports whether the log page can be had at all (LSUPP).
func (s LogPageSupport) Supported() bool { return s&1 != 0 }

// LSP returns which LSP bits the Discovery log page takes, if it is its entry.
func (s LogPageSupport) LSP() uint8 { return uint8(s >> 16 & 7) }
