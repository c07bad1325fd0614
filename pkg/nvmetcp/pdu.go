package nvmetcp

import (
	"encoding/binary"
	"fmt"

	"github.com/nvme-stas/stas/pkg/nvme"
)

// PDUType is the first byte of a PDU.
type PDUType uint8

// The PDU types.
const (
	ICReqType       PDUType = 0x00
	ICRespType      PDUType = 0x01
	H2CTermReqType  PDUType = 0x02
	C2HTermReqType  PDUType = 0x03
	CapsuleCmdType  PDUType = 0x04
	CapsuleRespType PDUType = 0x05
	H2CDataType     PDUType = 0x06
	C2HDataType     PDUType = 0x07
	R2TType         PDUType = 0x09
)

func (t PDUType) String() string {
	if k := kindOf(t); k != nil {
		return k.name
	}
	return fmt.Sprintf("PDU type %#02x", uint8(t))
}

// Role is the side of a connection that one is on.
type Role uint8

// The roles.
const (
	Host Role = iota
	Controller
)

// Limits of the specification.
const (
	// AdminInCapsule is how much data a command capsule of the admin queue may
	// carry, whatever Identify says (TCP "Capsules and Data Transfer").
	AdminInCapsule = 8192

	// MinMaxH2CData is the least that a controller may announce as MAXH2CDATA.
	MinMaxH2CData = 4096

	maxTermData = 128 // bytes of data in a TermReq
)

// Sizes of headers, HLEN, and of a digest.
const (
	commonSize = 8   // what all headers begin with
	icSize     = 128 // ICReq, ICResp
	cmdSize    = commonSize + nvme.CommandSize
	smallSize  = 24 // all others

	digestSize = 4
)

// Header is what all PDUs begin with.
type Header struct {
	Type  PDUType
	Flags uint8
	HLen  uint8
	PDO   uint8  // where the data begins, counted from the first byte of the PDU
	PLen  uint32 // size of the PDU with data and digests
}

// Bits of Header.Flags.
const (
	FlagHDGST   uint8 = 1 << 0 // a digest follows the header
	FlagDDGST   uint8 = 1 << 1 // a digest follows the data
	FlagLast    uint8 = 1 << 2
	FlagSuccess uint8 = 1 << 3
)

// Offsets in headers.
const (
	offType  = 0
	offFlags = 1
	offHLEN  = 2
	offPDO   = 3
	offPLEN  = 4

	offPFV     = 8 // ICReq, ICResp
	offPDA     = 10
	offDGST    = 11
	offMaximum = 12

	offFES = 8 // TermReq
	offFEI = 10

	offCCCID = 8 // data, R2T
	offTTAG  = 10
	offDATAO = 12
	offDATAL = 16
)

var le = binary.LittleEndian

func decodeHeader(b []byte) Header {
	return Header{PDUType(b[offType]), b[offFlags], b[offHLEN], b[offPDO], le.Uint32(b[offPLEN:])}
}

// PDU is a pointer to an ICReq, ICResp, TermReq, CapsuleCmd, CapsuleResp, Data
// or R2T. Those that serve both directions take theirs from the role of the
// Conn. For writing they may also be values, and there is Raw.
type PDU interface {
	encode(*encoder)
}

// ICReq is the first PDU on a connection, the host's (TCP "Initialize
// Connection Request PDU").
type ICReq struct {
	PFV          uint16 // PDU format version; when read always 0
	HPDA         uint8  // data for the host shall begin at multiples of 4*(HPDA+1) bytes
	HeaderDigest bool   // wanted
	DataDigest   bool
	MaxR2T       uint32 // how many R2Ts a command may have outstanding; 0 is one
}

// ICResp is the controller's answer to the ICReq.
type ICResp struct {
	PFV          uint16
	CPDA         uint8 // data for the controller shall begin at multiples of 4*(CPDA+1) bytes
	HeaderDigest bool  // in all that follows
	DataDigest   bool
	MaxH2CData   uint32 // how much data an H2CData may carry, in bytes
}

// TermReq ends a connection for a fatal error of the other side: H2CTermReq
// from a host, C2HTermReq from a controller.
type TermReq struct {
	FES  FES
	FEI  uint32
	Data []byte // the header in error, up to 128 bytes of it
}

// CapsuleCmd is a command, and its data if that travels in the capsule.
type CapsuleCmd struct {
	Cmd  nvme.Command
	Data []byte
}

// CapsuleResp is the completion of a command.
type CapsuleResp struct {
	Cpl nvme.Completion
}

// Data is a part of the data of a command: H2CData from a host, which answers
// an R2T, C2HData from a controller.
type Data struct {
	CID    uint16
	TTAG   uint16 // H2CData: that of the R2T
	Offset uint32 // of this part, in bytes
	Data   []byte
	Last   bool // nothing follows, for the R2T or for the command

	// Success, of a last C2HData, stands for a CapsuleResp that will not come.
	Success bool
}

// R2T (ready to transfer) asks the host for a part of the data of a command.
type R2T struct {
	CID    uint16
	TTAG   uint16 // whatever the controller likes
	Offset uint32 // in bytes
	Length uint32
}

// Raw is written as it is, to say what no other PDU can be made to say.
type Raw []byte

// kind is what there is to know of a PDU type ahead of its fields.
type kind struct {
	name   string
	from   Role
	hlen   uint8
	ic     bool                // the first PDU of its side and never a later one
	plain  bool                // has neither digests nor a PDO
	datal  bool                // says the length of its data once more, at offDATAL
	most   func(Limits) uint32 // how much data it may carry; nil for none
	decode func(h Header, head, data []byte) (PDU, error)
}

// kinds is indexed by PDU type; there is no 08h.
var kinds = [...]kind{
	ICReqType:       {name: "ICReq", from: Host, hlen: icSize, ic: true, plain: true, decode: decodeICReq},
	ICRespType:      {name: "ICResp", from: Controller, hlen: icSize, ic: true, plain: true, decode: decodeICResp},
	H2CTermReqType:  {name: "H2CTermReq", from: Host, hlen: smallSize, plain: true, most: termData, decode: decodeTermReq},
	C2HTermReqType:  {name: "C2HTermReq", from: Controller, hlen: smallSize, plain: true, most: termData, decode: decodeTermReq},
	CapsuleCmdType:  {name: "CapsuleCmd", from: Host, hlen: cmdSize, most: capsuleData, decode: decodeCapsuleCmd},
	CapsuleRespType: {name: "CapsuleResp", from: Controller, hlen: smallSize, decode: decodeCapsuleResp},
	H2CDataType:     {name: "H2CData", from: Host, hlen: smallSize, datal: true, most: pduData, decode: decodeData},
	C2HDataType:     {name: "C2HData", from: Controller, hlen: smallSize, datal: true, most: pduData, decode: decodeData},
	R2TType:         {name: "R2T", from: Controller, hlen: smallSize, decode: decodeR2T},
}

func termData(Limits) uint32      { return maxTermData }
func capsuleData(l Limits) uint32 { return l.InCapsule }
func pduData(l Limits) uint32     { return l.Data }

// kindOf returns nil for a type that does not exist.
func kindOf(t PDUType) *kind {
	if int(t) >= len(kinds) || kinds[t].decode == nil {
		return nil
	}
	return &kinds[t]
}

func (p ICReq) encode(e *encoder) {
	e.encodeIC(ICReqType, p.PFV, p.HPDA, digests{p.HeaderDigest, p.DataDigest}, p.MaxR2T)
}

func (p ICResp) encode(e *encoder) {
	e.encodeIC(ICRespType, p.PFV, p.CPDA, digests{p.HeaderDigest, p.DataDigest}, p.MaxH2CData)
}

// encodeIC lays out ICReq or ICResp, which are alike but for names.
func (e *encoder) encodeIC(t PDUType, pfv uint16, pda uint8, d digests, maximum uint32) {
	b := e.begin(t, icSize)
	le.PutUint16(b[offPFV:], pfv)
	b[offPDA] = pda
	b[offDGST] = bit(d.header, 1<<0) | bit(d.data, 1<<1)
	le.PutUint32(b[offMaximum:], maximum)
	e.end(b, nil)
}

func decodeICReq(_ Header, b, _ []byte) (PDU, error) {
	d, err := decodeIC(b)
	return &ICReq{HPDA: b[offPDA], HeaderDigest: d.header, DataDigest: d.data, MaxR2T: le.Uint32(b[offMaximum:])}, err
}

func decodeICResp(_ Header, b, _ []byte) (PDU, error) {
	d, err := decodeIC(b)
	return &ICResp{CPDA: b[offPDA], HeaderDigest: d.header, DataDigest: d.data, MaxH2CData: le.Uint32(b[offMaximum:])}, err
}

// decodeIC checks the version, on which the meaning of all other fields hangs.
func decodeIC(b []byte) (digests, error) {
	if pfv := le.Uint16(b[offPFV:]); pfv != 0 {
		return digests{}, &ProtocolError{FES: FESUnsupported, FEI: offPFV, Reason: fmt.Sprintf("PDU format version %d", pfv)}
	}
	return digests{header: b[offDGST]&(1<<0) != 0, data: b[offDGST]&(1<<1) != 0}, nil
}

func (p TermReq) encode(e *encoder) {
	b := e.begin(e.oneOf(H2CTermReqType, C2HTermReqType), smallSize)
	le.PutUint16(b[offFES:], uint16(p.FES))
	le.PutUint32(b[offFEI:], p.FEI)
	e.end(b, p.Data)
}

func decodeTermReq(_ Header, b, data []byte) (PDU, error) {
	return &TermReq{FES: FES(le.Uint16(b[offFES:])), FEI: le.Uint32(b[offFEI:]), Data: data}, nil
}

func (p CapsuleCmd) encode(e *encoder) {
	b := e.begin(CapsuleCmdType, cmdSize)
	_, _ = p.Cmd.AppendBinary(b[:commonSize]) // its size is fixed: it cannot fail
	e.end(b, p.Data)
}

func decodeCapsuleCmd(_ Header, b, data []byte) (PDU, error) {
	cmd, err := nvme.DecodeCommand(b[commonSize:])
	return &CapsuleCmd{Cmd: cmd, Data: data}, err
}

func (p CapsuleResp) encode(e *encoder) {
	b := e.begin(CapsuleRespType, smallSize)
	_, _ = p.Cpl.AppendBinary(b[:commonSize])
	e.end(b, nil)
}

func decodeCapsuleResp(_ Header, b, _ []byte) (PDU, error) {
	cpl, err := nvme.DecodeCompletion(b[commonSize:])
	return &CapsuleResp{Cpl: cpl}, err
}

func (p Data) encode(e *encoder) {
	b := e.begin(e.oneOf(H2CDataType, C2HDataType), smallSize)
	b[offFlags] = bit(p.Last, FlagLast) | bit(p.Success, FlagSuccess)
	le.PutUint16(b[offCCCID:], p.CID)
	le.PutUint16(b[offTTAG:], p.TTAG)
	le.PutUint32(b[offDATAO:], p.Offset)
	le.PutUint32(b[offDATAL:], uint32(len(p.Data)))
	e.end(b, p.Data)
}

func decodeData(h Header, b, data []byte) (PDU, error) {
	p := &Data{
		CID: le.Uint16(b[offCCCID:]), TTAG: le.Uint16(b[offTTAG:]), Offset: le.Uint32(b[offDATAO:]), Data: data,
		Last: h.Flags&FlagLast != 0, Success: h.Type == C2HDataType && h.Flags&FlagSuccess != 0,
	}
	if p.Success && !p.Last {
		return nil, invalid(offFlags, "%v with SUCCESS and without LAST", h.Type)
	}
	return p, nil
}

func (p R2T) encode(e *encoder) {
	b := e.begin(R2TType, smallSize)
	le.PutUint16(b[offCCCID:], p.CID)
	le.PutUint16(b[offTTAG:], p.TTAG)
	le.PutUint32(b[offDATAO:], p.Offset)
	le.PutUint32(b[offDATAL:], p.Length)
	e.end(b, nil)
}

func decodeR2T(_ Header, b, _ []byte) (PDU, error) {
	return &R2T{
		CID: le.Uint16(b[offCCCID:]), TTAG: le.Uint16(b[offTTAG:]),
		Offset: le.Uint32(b[offDATAO:]), Length: le.Uint32(b[offDATAL:]),
	}, nil
}

func (p Raw) encode(e *encoder) { e.put(p) }

func bit(set bool, mask uint8) uint8 {
	if set {
		return mask
	}
	return 0
}
