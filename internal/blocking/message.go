package blocking

import (
	"encoding/binary"
	"errors"

	"golang.org/x/sys/unix"

	"github.com/nvme-stas/stas/pkg/fabrics"
)

// The two processes run the same program file, and exchange one packet for a
// call and one for its return, in the order in which calls come and return.
//
//	request:  ID op want | bytes to write, or command and data
//	reply:    ID errno n | bytes read, or result and data
//
// All numbers are 32 bits wide and little endian. An admin command has 12 of
// them, see [appendCmd].
const (
	headerSize = 3 * 4
	cmdSize    = 12 * 4
	resultSize = 4

	// maxData bounds what one call moves. Connect options take less than a
	// page, log pages are read by pages.
	maxData   = 64 << 10
	maxPacket = headerSize + cmdSize + maxData
)

type op uint32

const (
	opWrite op = iota + 1
	opRead
	opAdmin
)

// request is a call. Its file travels beside it.
type request struct {
	id   uint32
	op   op
	want int    // bytes to read, or bytes of data that an admin command moves
	data []byte // to write, or that the command takes to the controller
	cmd  fabrics.AdminCmd
}

// reply is its return.
type reply struct {
	id     uint32
	errno  unix.Errno
	n      int // bytes written, or NVMe status
	result uint32
	data   []byte // read, or brought by the command
}

var (
	errGarbage = errors.New("the packet makes no sense")
	errTooLong = errors.New("more data than one call may move")
)

var le = binary.LittleEndian

// toController tells whether a command takes data to the controller, by the
// lowest bits of its opcode (Base "Opcode", Data Transfer).
func toController(opcode uint8) bool { return opcode&1 != 0 }

// fromController tells whether it brings some.
func fromController(opcode uint8) bool { return opcode&2 != 0 }

func (r *request) encode() []byte {
	b := le.AppendUint32(nil, r.id)
	b = le.AppendUint32(b, uint32(r.op))
	b = le.AppendUint32(b, uint32(r.want))
	if r.op == opAdmin {
		b = appendCmd(b, &r.cmd)
	}
	return append(b, r.data...)
}

func decodeRequest(b []byte) (request, error) {
	if len(b) < headerSize {
		return request{}, errGarbage
	}
	r := request{id: le.Uint32(b), op: op(le.Uint32(b[4:])), want: int(le.Uint32(b[8:])), data: b[headerSize:]}
	if le.Uint32(b[8:]) > maxData {
		return request{}, errTooLong
	}
	switch {
	case r.op == opWrite && r.want == 0, r.op == opRead && len(r.data) == 0:
		return r, nil
	case r.op == opAdmin && len(r.data) >= cmdSize:
		r.cmd, r.data = decodeCmd(r.data), r.data[cmdSize:]
		if given := toController(r.cmd.Opcode); given && len(r.data) == r.want || !given && len(r.data) == 0 {
			return r, nil
		}
	}
	return request{}, errGarbage
}

func (r *reply) encode(op op) []byte {
	b := le.AppendUint32(nil, r.id)
	b = le.AppendUint32(b, uint32(r.errno))
	b = le.AppendUint32(b, uint32(r.n))
	if op == opAdmin {
		b = le.AppendUint32(b, r.result)
	}
	return append(b, r.data...)
}

// replyID is all that can be read of a reply without its request.
func replyID(b []byte) (uint32, bool) {
	if len(b) < headerSize {
		return 0, false
	}
	return le.Uint32(b), true
}

// decodeReply reads the reply to a request.
func decodeReply(b []byte, to *request) (reply, error) {
	if len(b) < headerSize {
		return reply{}, errGarbage
	}
	r := reply{id: le.Uint32(b), errno: unix.Errno(le.Uint32(b[4:])), n: int(le.Uint32(b[8:])), data: b[headerSize:]}
	if to.op == opAdmin {
		if len(r.data) < resultSize {
			return reply{}, errGarbage
		}
		r.result, r.data = le.Uint32(r.data), r.data[resultSize:]
	}
	fits := false
	switch to.op {
	case opWrite:
		fits = len(r.data) == 0 && r.n <= len(to.data)
	case opRead:
		fits = len(r.data) <= to.want && r.n == len(r.data)
	case opAdmin:
		brought := r.errno == 0 && fromController(to.cmd.Opcode)
		fits = r.n <= 0xffff && (brought && len(r.data) == to.want || !brought && len(r.data) == 0)
	}
	if r.id != to.id || r.n < 0 || !fits {
		return reply{}, errGarbage
	}
	return r, nil
}

// appendCmd encodes a command without its pointers, which make no sense in
// another process, and without its result.
func appendCmd(b []byte, c *fabrics.AdminCmd) []byte {
	for _, v := range [cmdSize / 4]uint32{
		uint32(c.Opcode), uint32(c.Flags), c.NSID, c.CDW2, c.CDW3,
		c.CDW10, c.CDW11, c.CDW12, c.CDW13, c.CDW14, c.CDW15, c.TimeoutMS,
	} {
		b = le.AppendUint32(b, v)
	}
	return b
}

func decodeCmd(b []byte) fabrics.AdminCmd {
	v := func(i int) uint32 { return le.Uint32(b[4*i:]) }
	return fabrics.AdminCmd{
		Opcode: uint8(v(0)), Flags: uint8(v(1)), NSID: v(2), CDW2: v(3), CDW3: v(4),
		CDW10: v(5), CDW11: v(6), CDW12: v(7), CDW13: v(8), CDW14: v(9), CDW15: v(10), TimeoutMS: v(11),
	}
}
