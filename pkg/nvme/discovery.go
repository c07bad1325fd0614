package nvme

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"
)

// Sizes in the Discovery log page (Base "Discovery Log Page", LID 70h): one
// header, then the entries back to back.
const (
	LogHeaderSize = 1024
	EntrySize     = 1024

	// LogHeaderUsed is how much of the header means something; reading no more
	// spares a small target the other thousand bytes.
	LogHeaderUsed = 20
)

// Offsets in the header.
const (
	offGENCTR = 0
	offNUMREC = 8
	offRECFMT = 16
	offDLPF   = 18
	offTDLPL  = 20
)

// Offsets and sizes in an entry.
const (
	offTRTYPE  = 0
	offADRFAM  = 1
	offSUBTYPE = 2
	offTREQ    = 3
	offPORTID  = 4
	offCNTLID  = 6
	offASQSZ   = 8
	offEFLAGS  = 10
	offTRSVCID = 32
	offSUBNQN  = 256
	offTRADDR  = 512
	offTSAS    = 768

	sizeTRSVCID = 32
	sizeSUBNQN  = 256
	sizeTRADDR  = 256
	sizeTSAS    = 256
)

// Values of CNTLID in an entry that are not the ID of one controller.
const (
	CntlIDDynamic uint16 = 0xffff // the subsystem hands out controllers
	CntlIDStatic  uint16 = 0xfffe // the host may ask for any
)

// DiscoveryLogHeader is the head of a Discovery log page.
type DiscoveryLogHeader struct {
	GenCtr uint64 // moves with every change of the log
	NumRec uint64 // how many entries the controller says there are
	RecFmt uint16 // 0: the entries are those of this package
	Flags  uint8  // DLPF: by which LSP bits the log was made
	Length uint32 // TDLPL: of the log in bytes, header included; 0 is not reported
}

// DecodeLogHeader reads a header; LogHeaderUsed bytes of it are enough for all
// but the length.
func DecodeLogHeader(b []byte) (DiscoveryLogHeader, error) {
	if len(b) < LogHeaderUsed {
		return DiscoveryLogHeader{}, fmt.Errorf("discovery log header: %d bytes, want %d", len(b), LogHeaderUsed)
	}
	h := DiscoveryLogHeader{
		GenCtr: binary.LittleEndian.Uint64(b[offGENCTR:]),
		NumRec: binary.LittleEndian.Uint64(b[offNUMREC:]),
		RecFmt: binary.LittleEndian.Uint16(b[offRECFMT:]),
		Flags:  b[offDLPF],
	}
	if len(b) >= offTDLPL+4 {
		h.Length = binary.LittleEndian.Uint32(b[offTDLPL:])
	}
	return h, nil
}

// AppendBinary appends the header in its full LogHeaderSize.
func (h DiscoveryLogHeader) AppendBinary(b []byte) ([]byte, error) {
	var raw [LogHeaderSize]byte
	binary.LittleEndian.PutUint64(raw[offGENCTR:], h.GenCtr)
	binary.LittleEndian.PutUint64(raw[offNUMREC:], h.NumRec)
	binary.LittleEndian.PutUint16(raw[offRECFMT:], h.RecFmt)
	raw[offDLPF] = h.Flags
	binary.LittleEndian.PutUint32(raw[offTDLPL:], h.Length)
	return append(b, raw[:]...), nil
}

// DiscoveryLogEntry is one way to one subsystem. The texts come as the target
// wrote them, padding removed: they are safe to print, and not yet checked
// for making sense.
type DiscoveryLogEntry struct {
	TrType  TransportType
	AdrFam  AddressFamily
	SubType SubsystemType
	TReq    TReq
	PortID  uint16
	CntlID  uint16
	ASQSz   uint16
	EFlags  EntryFlags
	TrSvcID string
	SubNQN  string
	TrAddr  string
	TSAS    [sizeTSAS]byte
}

// DecodeLogEntry reads the entry at the beginning of b.
func DecodeLogEntry(b []byte) (DiscoveryLogEntry, error) {
	if len(b) < EntrySize {
		return DiscoveryLogEntry{}, fmt.Errorf("discovery log entry: %d bytes, want %d", len(b), EntrySize)
	}
	e := DiscoveryLogEntry{
		TrType:  TransportType(b[offTRTYPE]),
		AdrFam:  AddressFamily(b[offADRFAM]),
		SubType: SubsystemType(b[offSUBTYPE]),
		TReq:    TReq(b[offTREQ]),
		PortID:  binary.LittleEndian.Uint16(b[offPORTID:]),
		CntlID:  binary.LittleEndian.Uint16(b[offCNTLID:]),
		ASQSz:   binary.LittleEndian.Uint16(b[offASQSZ:]),
		EFlags:  EntryFlags(binary.LittleEndian.Uint16(b[offEFLAGS:])),
		TSAS:    [sizeTSAS]byte(b[offTSAS:]),
	}
	var errNQN, errAddr, errSvc error
	e.SubNQN, errNQN = decodeText("SUBNQN", b[offSUBNQN:][:sizeSUBNQN])
	e.TrAddr, errAddr = decodeText("TRADDR", b[offTRADDR:][:sizeTRADDR])
	e.TrSvcID, errSvc = decodeText("TRSVCID", b[offTRSVCID:][:sizeTRSVCID])
	if err := cmp.Or(errNQN, errAddr, errSvc); err != nil {
		return DiscoveryLogEntry{}, err
	}
	if e.TrType == FC {
		// FC-NVMe separates node and port name by a colon, and the kernel takes
		// nothing else; some targets send a comma.
		e.TrAddr = strings.ReplaceAll(e.TrAddr, ",", ":")
	}
	return e, nil
}

// AppendBinary appends the entry in its EntrySize bytes. Texts that are too
// long for their field or that no decoder would take are an error.
func (e DiscoveryLogEntry) AppendBinary(b []byte) ([]byte, error) {
	var raw [EntrySize]byte
	raw[offTRTYPE] = byte(e.TrType)
	raw[offADRFAM] = byte(e.AdrFam)
	raw[offSUBTYPE] = byte(e.SubType)
	raw[offTREQ] = byte(e.TReq)
	binary.LittleEndian.PutUint16(raw[offPORTID:], e.PortID)
	binary.LittleEndian.PutUint16(raw[offCNTLID:], e.CntlID)
	binary.LittleEndian.PutUint16(raw[offASQSZ:], e.ASQSz)
	binary.LittleEndian.PutUint16(raw[offEFLAGS:], uint16(e.EFlags))
	copy(raw[offTSAS:], e.TSAS[:])
	err := cmp.Or(
		encodeText(raw[offSUBNQN:][:sizeSUBNQN], "SUBNQN", e.SubNQN),
		encodeText(raw[offTRADDR:][:sizeTRADDR], "TRADDR", e.TrAddr),
		encodeText(raw[offTRSVCID:][:sizeTRSVCID], "TRSVCID", e.TrSvcID),
	)
	if err != nil {
		return b, err
	}
	return append(b, raw[:]...), nil
}

// Security returns the SECTYPE of a TCP entry; other transports have none.
func (e DiscoveryLogEntry) Security() Security {
	if e.TrType != TCP {
		return SecurityNone
	}
	return Security(e.TSAS[0])
}

// DiscoveryLog is a complete log page of one generation.
type DiscoveryLog struct {
	GenCtr  uint64
	Entries []DiscoveryLogEntry
	Bad     []error // one for each entry that could not be decoded
}

// decodeText reads a field that is padded with NULs by the book and with
// blanks by custom.
func decodeText(field string, b []byte) (string, error) {
	b, _, _ = bytes.Cut(b, []byte{0})
	s := strings.Trim(string(b), " ")
	return s, checkText(field, s)
}

func encodeText(dst []byte, field, s string) error {
	if err := checkText(field, s); err != nil {
		return err
	}
	if len(s) > len(dst) {
		return fmt.Errorf("%s has %d bytes, %d are allowed", field, len(s), len(dst))
	}
	copy(dst, s)
	return nil
}

// checkText refuses what would not survive a log line, D-Bus or a terminal.
func checkText(field, s string) error {
	if !utf8.ValidString(s) || strings.ContainsFunc(s, unicode.IsControl) {
		return fmt.Errorf("%s is not text: %q", field, s)
	}
	return nil
}
