package nvmetcp

import (
	"errors"
	"fmt"
	"strconv"
)

// FES (fatal error status) is the reason of a TermReq.
type FES uint16

// The reasons. FESLimit counts R2Ts when a host says it, data when a
// controller does.
const (
	FESInvalidHeader FES = 1 // FEI: offset of the field in the PDU
	FESSequence      FES = 2
	FESHeaderDigest  FES = 3 // FEI: the digest that came
	FESRange         FES = 4
	FESLimit         FES = 5
	FESUnsupported   FES = 6 // FEI: offset of the parameter in the PDU
)

var fesNames = map[FES]string{
	FESInvalidHeader: "invalid PDU header field",
	FESSequence:      "PDU sequence error",
	FESHeaderDigest:  "header digest error",
	FESRange:         "data transfer out of range",
	FESLimit:         "data transfer or R2T limit exceeded",
	FESUnsupported:   "unsupported parameter",
}

func (f FES) String() string {
	if n, ok := fesNames[f]; ok {
		return n
	}
	return "fatal error status " + strconv.Itoa(int(f))
}

// ProtocolError is a violation of the protocol by the other side. It ends the
// connection; to tell the other side is a courtesy.
type ProtocolError struct {
	FES    FES
	FEI    uint32 // fatal error information, see the FES
	Reason string // for people
	Header []byte // of the PDU in error, as far as it was read
}

func (e *ProtocolError) Error() string {
	return fmt.Sprintf("NVMe/TCP: %v: %s", e.FES, e.Reason)
}

// TermReq returns the PDU that tells the other side.
func (e *ProtocolError) TermReq() *TermReq {
	return &TermReq{FES: e.FES, FEI: e.FEI, Data: e.Header[:min(len(e.Header), maxTermData)]}
}

// ErrDataDigest is data that has changed on its way. It concerns one command
// and not the connection.
var ErrDataDigest = errors.New("NVMe/TCP: the data digest is wrong")

func invalid(offset uint32, format string, args ...any) error {
	return &ProtocolError{FES: FESInvalidHeader, FEI: offset, Reason: fmt.Sprintf(format, args...)}
}
