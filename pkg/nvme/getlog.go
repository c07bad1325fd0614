package nvme

import (
	"encoding/binary"
	"fmt"
)

// OpGetLogPage is the admin opcode of Get Log Page (Base "Get Log Page command").
const OpGetLogPage uint8 = 0x02

// Log page identifiers, LID.
const (
	LogSupportedPages uint8 = 0x00
	LogDiscovery      uint8 = 0x70
)

// The log specific parameter, LSP, of the Discovery log page.
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

// Supported reports whether the log page can be had at all (LSUPP).
func (s LogPageSupport) Supported() bool { return s&1 != 0 }

// LSP returns which LSP bits the Discovery log page takes, if it is its entry.
func (s LogPageSupport) LSP() uint8 { return uint8(s >> 16 & 7) }
