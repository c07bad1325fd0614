package nvmetcp

import (
	"bufio"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"net"
	"slices"
	"sync"
)

// Limits says how much data the other side may send in one PDU. A PDU that
// announces more is refused by its header.
type Limits struct {
	InCapsule uint32 // of a CapsuleCmd
	Data      uint32 // of an H2CData (MAXH2CDATA) or a C2HData
}

// Conn reads and writes PDUs. One goroutine may read while another one writes;
// several that write have to agree among themselves.
//
// A Conn that waits for the next PDU holds about a kilobyte. Memory for the
// data of a PDU comes as that data arrives, not by its announcement.
type Conn struct {
	nc      net.Conn
	r       *bufio.Reader
	role    Role
	limits  Limits
	digests digests
	started bool         // ICReq or ICResp has been read
	head    [icSize]byte // of the PDU being read
	data    *[]byte      // of the PDU last read, on loan from buffers
	err     error        // why nothing more can be read
}

const (
	readBuffer = 1024    // data in quantity goes past it
	firstRead  = 8 << 10 // bytes allocated on the word of a header
)

// buffers lends memory for the data of one PDU, from one Read to the next.
var buffers = sync.Pool{New: func() any { return new([]byte) }}

// NewConn starts on a connection on which neither side has said anything. The
// Conn owns nc from now on.
func NewConn(nc net.Conn, role Role, limits Limits) *Conn {
	return &Conn{nc: nc, r: bufio.NewReaderSize(nc, readBuffer), role: role, limits: limits}
}

// SetDigests puts digests in force for all further PDUs in both directions:
// those of the ICResp, once it was sent or received and before anything else is.
func (c *Conn) SetDigests(header, data bool) { c.digests = digests{header, data} }

// NetConn returns the connection below, for its addresses and deadlines.
func (c *Conn) NetConn() net.Conn { return c.nc }

// Close closes the connection, which ends a Read or Write under way.
func (c *Conn) Close() error { return c.nc.Close() }

// Read returns the next PDU. Its Data is valid until the next Read.
//
// A [*ProtocolError] is a violation by the other side, after which nothing
// more can be read. [ErrDataDigest] comes together with the PDU, and more can
// be read. [io.EOF] is an end between two PDUs. A deadline that passes before
// the header of a PDU is complete does no harm.
func (c *Conn) Read() (PDU, error) {
	c.release()
	if c.err != nil {
		return nil, c.err
	}
	b, err := c.peek(commonSize)
	if err != nil {
		return nil, err
	}
	h := decodeHeader(b)
	k, err := c.check(h)
	if err != nil {
		return nil, c.fail(err, b)
	}
	hdgst, ddgst := c.digests.sizes(k.plain)
	if b, err = c.peek(int(h.HLen) + int(hdgst)); err != nil {
		return nil, err
	}
	head, digest := c.head[:h.HLen], b[h.HLen:]
	copy(head, b)
	if hdgst != 0 && crc32c(head) != le.Uint32(digest) {
		return nil, c.fail(&ProtocolError{FES: FESHeaderDigest, FEI: le.Uint32(digest), Reason: "in " + k.name}, head)
	}
	start, n, err := c.extent(h, k, hdgst, ddgst)
	if err != nil {
		return nil, c.fail(err, head)
	}
	c.started = c.started || k.ic
	if _, err := c.r.Discard(start); err != nil { // header, digest and padding
		return nil, c.fail(unexpected(err), nil)
	}
	data, errDigest := c.readData(n, ddgst)
	if errDigest != nil && !errors.Is(errDigest, ErrDataDigest) {
		return nil, c.fail(errDigest, nil)
	}
	pdu, err := k.decode(h, head, data)
	if err != nil {
		return nil, c.fail(err, head)
	}
	return pdu, errDigest
}

// peek returns n bytes without taking them: after a deadline they are still
// there.
func (c *Conn) peek(n int) ([]byte, error) {
	b, err := c.r.Peek(n)
	if err != nil && len(b) > 0 {
		return nil, unexpected(err)
	}
	return b, err
}

// check looks at what a PDU may be at all, ahead of its header digest.
func (c *Conn) check(h Header) (*kind, error) {
	k := kindOf(h.Type)
	switch {
	case k == nil:
		return nil, invalid(offType, "%v does not exist", h.Type)
	case k.from == c.role:
		return nil, invalid(offType, "%v goes the other way", h.Type)
	case k.ic && c.started:
		return nil, &ProtocolError{FES: FESSequence, Reason: "a second " + k.name}
	case !k.plain && !c.started:
		return nil, &ProtocolError{FES: FESSequence, Reason: k.name + " first"}
	case h.HLen != k.hlen:
		return nil, invalid(offHLEN, "HLEN of %v is %d, not %d", h.Type, h.HLen, k.hlen)
	case !k.plain && (h.Flags&FlagHDGST != 0) != c.digests.header:
		return nil, invalid(offFlags, "the HDGST flag of %v is %t", h.Type, !c.digests.header)
	}
	return k, nil
}

// extent finds the data of the PDU whose header is in c.head: where it starts
// and how many bytes it has.
func (c *Conn) extent(h Header, k *kind, hdgst, ddgst uint32) (start int, n uint32, err error) {
	from := uint32(h.HLen) + hdgst
	switch {
	case h.PLen < from:
		return 0, 0, invalid(offPLEN, "PLEN %d of %v is less than its header", h.PLen, h.Type)
	case h.PLen > from && k.most == nil:
		return 0, 0, invalid(offPLEN, "PLEN %d of %v, which carries no data", h.PLen, h.Type)
	case h.PLen > from && k.plain: // a TermReq, which has no PDO
		n = h.PLen - from
	case h.PLen > from:
		if uint32(h.PDO) < from || h.PDO%4 != 0 || h.PLen <= uint32(h.PDO)+ddgst {
			return 0, 0, invalid(offPDO, "PDO %d of %v with HLEN %d and PLEN %d", h.PDO, h.Type, h.HLen, h.PLen)
		}
		if (h.Flags&FlagDDGST != 0) != c.digests.data {
			return 0, 0, invalid(offFlags, "the DDGST flag of %v is %t", h.Type, !c.digests.data)
		}
		from = uint32(h.PDO)
		n = h.PLen - from - ddgst
	}
	if n > 0 && n > k.most(c.limits) {
		return 0, 0, &ProtocolError{FES: c.tooMuch(), Reason: fmt.Sprintf("%v brings %d bytes, %d are allowed", h.Type, n, k.most(c.limits))}
	}
	if k.datal && n != le.Uint32(c.head[offDATAL:]) {
		return 0, 0, invalid(offDATAL, "%v says %d bytes, and has %d", h.Type, le.Uint32(c.head[offDATAL:]), n)
	}
	return int(from), n, nil
}

// tooMuch is the FES for more data than was allowed. What a controller calls
// a limit has another meaning in the mouth of a host.
func (c *Conn) tooMuch() FES {
	if c.role == Host {
		return FESRange
	}
	return FESLimit
}

// readData reads n bytes of data and the digest behind them, if there is one.
func (c *Conn) readData(n, ddgst uint32) ([]byte, error) {
	if n == 0 {
		return nil, nil
	}
	c.data = buffers.Get().(*[]byte)
	b := (*c.data)[:0]
	for len(b) < int(n) {
		b = slices.Grow(b, min(int(n)-len(b), max(len(b), firstRead)))
		part := b[len(b):min(int(n), cap(b))]
		if _, err := io.ReadFull(c.r, part); err != nil {
			return nil, unexpected(err)
		}
		b = b[:len(b)+len(part)]
	}
	*c.data = b
	if ddgst == 0 {
		return b, nil
	}
	var digest [digestSize]byte
	if _, err := io.ReadFull(c.r, digest[:]); err != nil {
		return nil, unexpected(err)
	}
	if crc32c(b) != le.Uint32(digest[:]) {
		return b, ErrDataDigest
	}
	return b, nil
}

// release gives the memory of the last PDU back.
func (c *Conn) release() {
	if c.data != nil {
		buffers.Put(c.data)
		c.data = nil
	}
}

// fail ends reading. head is what there is of the header to blame.
func (c *Conn) fail(err error, head []byte) error {
	if p, ok := errors.AsType[*ProtocolError](err); ok {
		p.Header = slices.Clone(head)
	}
	c.err = err
	return err
}

// unexpected keeps io.EOF for the end between two PDUs.
func unexpected(err error) error {
	if errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF
	}
	return err
}

// Write sends PDUs, all of them in one go. It checks nothing: what the fields
// say is sent.
func (c *Conn) Write(pdus ...PDU) error {
	e := newEncoder(c, pdus)
	defer e.release()
	if len(e.out) == 0 {
		_, err := c.nc.Write(e.b)
		return err
	}
	e.flush()
	out := e.out // will be consumed
	_, err := out.WriteTo(c.nc)
	return err
}

// Append appends the bytes that Write would send, for a caller that means to
// spoil them and to send them as [Raw].
func (c *Conn) Append(b []byte, pdus ...PDU) []byte {
	e := newEncoder(c, pdus)
	defer e.release()
	e.flush()
	for _, part := range e.out {
		b = append(b, part...)
	}
	return b
}

// encoder lays PDUs out for one write. Larger data is not copied.
type encoder struct {
	role    Role
	digests digests
	b       []byte      // headers, digests, small data
	cut     int         // b is in out up to here
	out     net.Buffers // what to write, if it is not b alone
}

const (
	copyData   = 4 << 10  // data of this size or more is not copied
	keepBuffer = 16 << 10 // encoders with more are left to the garbage collector
)

var encoders = sync.Pool{New: func() any { return new(encoder) }}

func newEncoder(c *Conn, pdus []PDU) *encoder {
	e := encoders.Get().(*encoder)
	e.role, e.digests = c.role, c.digests
	for _, p := range pdus {
		p.encode(e)
	}
	return e
}

func (e *encoder) release() {
	clear(e.out)
	e.b, e.cut, e.out = e.b[:0], 0, e.out[:0]
	if cap(e.b) <= keepBuffer {
		encoders.Put(e)
	}
}

// begin starts a PDU and returns its header, for end to complete.
func (e *encoder) begin(t PDUType, hlen uint8) []byte {
	n := len(e.b)
	e.b = slices.Grow(e.b, int(hlen))[:n+int(hlen)]
	b := e.b[n:]
	clear(b)
	b[offType], b[offHLEN] = byte(t), hlen
	return b
}

// end completes the PDU of header b: lengths, digests, data.
func (e *encoder) end(b, data []byte) {
	k := &kinds[b[offType]]
	hdgst, ddgst := e.digests.sizes(k.plain)
	plen := uint32(len(b)) + hdgst
	if hdgst != 0 {
		b[offFlags] |= FlagHDGST
	}
	if len(data) > 0 {
		if !k.plain {
			b[offPDO] = byte(plen)
		}
		plen += uint32(len(data)) + ddgst
		if ddgst != 0 {
			b[offFlags] |= FlagDDGST
		}
	}
	le.PutUint32(b[offPLEN:], plen)
	if hdgst != 0 {
		e.b = le.AppendUint32(e.b, crc32c(b))
	}
	if len(data) == 0 {
		return
	}
	e.put(data)
	if ddgst != 0 {
		e.b = le.AppendUint32(e.b, crc32c(data))
	}
}

// oneOf returns the PDU type for the direction of the connection.
func (e *encoder) oneOf(h2c, c2h PDUType) PDUType {
	if e.role == Host {
		return h2c
	}
	return c2h
}

// put adds bytes to what will be written.
func (e *encoder) put(data []byte) {
	if len(data) < copyData {
		e.b = append(e.b, data...)
		return
	}
	e.flush()
	e.out = append(e.out, data)
}

// flush moves what is in b to out. Should b move later, out keeps the old one.
func (e *encoder) flush() {
	if e.cut < len(e.b) {
		e.out = append(e.out, e.b[e.cut:])
		e.cut = len(e.b)
	}
}

// digests says which parts of PDUs are protected.
type digests struct{ header, data bool }

// sizes returns the sizes of the digests of a PDU; a plain one has none.
func (d digests) sizes(plain bool) (header, data uint32) {
	if d.header && !plain {
		header = digestSize
	}
	if d.data && !plain {
		data = digestSize
	}
	return header, data
}

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// crc32c is the digest of NVMe/TCP (TCP "Digests").
func crc32c(b []byte) uint32 { return crc32.Checksum(b, castagnoli) }
