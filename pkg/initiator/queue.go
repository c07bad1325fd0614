package initiator

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/nvme-stas/stas/pkg/nvme"
	"github.com/nvme-stas/stas/pkg/nvmetcp"
)

// writeGrace is how long a write may go on that nobody wants any more, before
// the connection is given up for it: it cannot be ended within a PDU.
const writeGrace = time.Second

// queue is a connection, which in NVMe/TCP is one submission queue and its
// completion queue. One goroutine, run, takes what the controller sends. It
// never writes and never waits for anything else than the connection, so that
// a controller that itself waits to write cannot bring both to a stop. All that
// is sent is sent by the goroutine whose command it is.
type queue struct {
	conn      *nvmetcp.Conn
	inCapsule int // bytes of data that a command may carry with it
	maxH2C    int // bytes of data in an H2CData

	cids chan uint16   // the free command identifiers: no more commands than the queue takes
	turn chan struct{} // holds a value while somebody writes
	over chan struct{} // closed when err is set

	mu       sync.Mutex
	commands []*command // under way, by CID
	err      error      // why it is over
}

// command is a command under way. What is not said to be of somebody else is
// guarded by the mutex of the queue.
type command struct {
	out  []byte            // data to send on R2Ts; of the goroutine that sends
	r2ts chan *nvmetcp.R2T // to that goroutine; nil if there is nothing to send
	done chan struct{}     // closed when cpl and err are final

	in       []byte // data goes here
	size     uint32 // of in or out, in bytes
	moved    uint32 // so far received, or asked for by R2Ts
	last     bool   // the last C2HData is here
	asked    bool   // there is an R2T to be answered
	orphaned bool   // nobody waits any more, and in is not ours

	cpl nvme.Completion
	err error // of the data, whatever cpl says
}

// newQueue makes a queue of a connection that has been initialized.
func newQueue(conn *nvmetcp.Conn, ic *nvmetcp.ICResp, size uint16, inCapsule int) *queue {
	depth := size - 1 // a full queue has one empty entry
	q := &queue{
		conn: conn, inCapsule: inCapsule, maxH2C: int(min(ic.MaxH2CData, maxTransfer)),
		cids: make(chan uint16, depth), turn: make(chan struct{}, 1), over: make(chan struct{}),
		commands: make([]*command, depth),
	}
	for cid := range depth {
		q.cids <- cid
	}
	return q
}

// do executes a command and returns when it is completed, when ctx ends or when
// the connection does. A status other than success is an error too.
//
// If ctx ends first, the controller still has the command. Its CID stays in use
// until the completion comes, data is no longer touched.
func (q *queue) do(ctx context.Context, cmd nvme.Command, data []byte) (nvme.Completion, error) {
	if err := ctx.Err(); err != nil {
		return nvme.Completion{}, context.Cause(ctx)
	}
	c, pdu, err := q.prepare(cmd, data)
	if err != nil {
		return nvme.Completion{}, err
	}
	var cid uint16
	select {
	case cid = <-q.cids:
	case <-ctx.Done():
		return nvme.Completion{}, context.Cause(ctx)
	case <-q.over:
		return nvme.Completion{}, q.err
	}
	pdu.Cmd.CID = cid
	q.set(cid, c)
	if err := q.send(ctx, pdu); err != nil {
		q.set(cid, nil)
		q.cids <- cid
		return nvme.Completion{}, err
	}
	if err := q.attend(ctx, cid, c); err != nil {
		return nvme.Completion{}, err
	}
	q.cids <- cid
	switch {
	case c.err != nil:
		return c.cpl, c.err
	case c.cpl.Status != 0:
		return c.cpl, c.cpl.Status
	}
	return c.cpl, nil
}

// prepare decides which way the data takes.
func (q *queue) prepare(cmd nvme.Command, data []byte) (*command, *nvmetcp.CapsuleCmd, error) {
	c := &command{done: make(chan struct{})}
	cmd.Flags |= nvme.FlagSGL
	cmd.SGL = nvme.InTransport(uint32(len(data)))
	pdu := &nvmetcp.CapsuleCmd{}
	switch d := cmd.Direction(); {
	case len(data) == 0:
	case len(data) > maxTransfer:
		return nil, nil, fmt.Errorf("%d bytes are too much for one command, %d are allowed", len(data), maxTransfer)
	case d == nvme.ToHost:
		c.in, c.size = data, uint32(len(data))
	case d == nvme.ToController && len(data) <= q.inCapsule:
		cmd.SGL, pdu.Data = nvme.InCapsule(uint32(len(data))), data
	case d == nvme.ToController:
		c.out, c.size, c.r2ts = data, uint32(len(data)), make(chan *nvmetcp.R2T, 1)
	default:
		return nil, nil, fmt.Errorf("opcode %#02x transfers no data in one direction", cmd.Opcode)
	}
	pdu.Cmd = cmd
	return c, pdu, nil
}

// set makes c the command of cid; nil is none.
func (q *queue) set(cid uint16, c *command) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.commands[cid] = c
}

// attend sends what the controller asks for until it completes the command.
func (q *queue) attend(ctx context.Context, cid uint16, c *command) error {
	for {
		var err error
		select {
		case <-c.done:
			return nil
		case r := <-c.r2ts:
			if err = q.sendData(ctx, c, r); err == nil {
				continue
			}
		case <-ctx.Done():
			err = context.Cause(ctx)
		case <-q.over:
			err = q.err
		}
		if !q.orphan(cid, c) {
			return nil // the completion was faster
		}
		return err
	}
}

// orphan leaves a command to itself, unless it is completed.
func (q *queue) orphan(cid uint16, c *command) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.commands[cid] != c {
		return false
	}
	c.orphaned, c.in, c.out = true, nil, nil
	return true
}

// sendData sends what an R2T asks for.
func (q *queue) sendData(ctx context.Context, c *command, r *nvmetcp.R2T) error {
	for offset, end := int(r.Offset), int(r.Offset)+int(r.Length); offset < end; {
		n := min(end-offset, q.maxH2C)
		last := offset+n == end
		if last {
			// The next R2T may be here before the write returns.
			q.mu.Lock()
			c.asked = false
			q.mu.Unlock()
		}
		err := q.send(ctx, &nvmetcp.Data{
			CID: r.CID, TTAG: r.TTAG, Offset: uint32(offset), Data: c.out[offset:][:n], Last: last,
		})
		if err != nil {
			return err
		}
		offset += n
		select {
		case <-c.done: // an error, and the rest is not wanted
			return nil
		default:
		}
	}
	return nil
}

// send writes a PDU when it is its turn. An error means that the controller
// did not get it.
func (q *queue) send(ctx context.Context, pdu nvmetcp.PDU) error {
	select {
	case q.turn <- struct{}{}:
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-q.over:
		return q.err
	}
	defer func() { <-q.turn }()
	select {
	case <-q.over: // since, and maybe somebody waits for his turn to say good-bye
		return q.err
	default:
	}
	nc := q.conn.NetConn()
	late := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		_ = nc.SetWriteDeadline(time.Now().Add(writeGrace))
		close(late)
	})
	err := q.conn.Write(pdu)
	if !stop() {
		<-late
		_ = nc.SetWriteDeadline(time.Time{})
	}
	if err != nil {
		return q.end(err)
	}
	return nil
}

// run takes what the controller sends, until the connection is over.
func (q *queue) run() {
	for {
		pdu, err := q.conn.Read()
		if err == nil || errors.Is(err, nvmetcp.ErrDataDigest) {
			err = q.take(pdu, err)
		}
		if err != nil {
			_ = q.end(lost(err))
			return
		}
	}
}

// end ends the connection unless it has ended before, and returns why it is
// over. A controller that has broken the rules is told.
func (q *queue) end(err error) error {
	q.mu.Lock()
	first := q.err == nil
	if first {
		q.err = err
		close(q.over)
	}
	q.mu.Unlock()
	if !first {
		return q.err
	}
	if p, ok := errors.AsType[*nvmetcp.ProtocolError](err); ok {
		q.terminate(p)
	}
	q.conn.Close()
	return err
}

// failure returns why the connection is over, nil while it is not.
func (q *queue) failure() error {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.err
}

// terminate sends a TermReq if the controller takes it in time.
func (q *queue) terminate(p *nvmetcp.ProtocolError) {
	nc := q.conn.NetConn()
	_ = nc.SetWriteDeadline(time.Now().Add(writeGrace)) // for whoever is writing
	q.turn <- struct{}{}
	_ = nc.SetWriteDeadline(time.Now().Add(writeGrace))
	_ = q.conn.Write(p.TermReq())
	<-q.turn
}

// take deals with a PDU. An error ends the connection.
func (q *queue) take(pdu nvmetcp.PDU, spoiled error) error {
	q.mu.Lock()
	defer q.mu.Unlock()
	switch p := pdu.(type) {
	case *nvmetcp.CapsuleResp:
		return q.takeCompletion(p.Cpl)
	case *nvmetcp.Data:
		return q.takeData(p, spoiled)
	case *nvmetcp.R2T:
		return q.takeR2T(p)
	case *nvmetcp.TermReq:
		return &TerminatedError{p.FES, p.FEI}
	}
	return violation(nvmetcp.FESSequence, 0, "%T at this time", pdu)
}

// Offsets of the CID in PDUs, for a TermReq to point at.
const (
	offCIDResponse = 20
	offCIDData     = 8
)

func (q *queue) find(cid uint16, offset uint32) (*command, error) {
	if int(cid) < len(q.commands) && q.commands[cid] != nil {
		return q.commands[cid], nil
	}
	return nil, violation(nvmetcp.FESInvalidHeader, offset, "there is no command with CID %#04x", cid)
}

func (q *queue) takeCompletion(cpl nvme.Completion) error {
	c, err := q.find(cpl.CID, offCIDResponse)
	if err != nil {
		return err
	}
	if cpl.Status == 0 && (c.moved < c.size || c.asked) {
		return violation(nvmetcp.FESSequence, 0, "a command succeeded with %d of %d bytes", c.moved, c.size)
	}
	q.complete(cpl, c)
	return nil
}

func (q *queue) complete(cpl nvme.Completion, c *command) {
	q.commands[cpl.CID] = nil
	if c.orphaned {
		q.cids <- cpl.CID
		return
	}
	c.cpl = cpl
	close(c.done)
}

func (q *queue) takeData(p *nvmetcp.Data, spoiled error) error {
	c, err := q.find(p.CID, offCIDData)
	switch {
	case err != nil:
		return err
	case c.last:
		return violation(nvmetcp.FESSequence, 0, "data behind the last")
	case c.r2ts != nil || uint64(p.Offset)+uint64(len(p.Data)) > uint64(c.size):
		return violation(nvmetcp.FESRange, 0, "data at %d+%d of a command that reads %d bytes", p.Offset, len(p.Data), c.size)
	case p.Offset != c.moved:
		return violation(nvmetcp.FESRange, 0, "data at %d, %d was next", p.Offset, c.moved)
	}
	if spoiled != nil {
		c.err = spoiled
	} else if !c.orphaned {
		copy(c.in[p.Offset:], p.Data)
	}
	c.moved += uint32(len(p.Data))
	c.last = p.Last
	if p.Success {
		return q.takeCompletion(nvme.Completion{CID: p.CID})
	}
	return nil
}

func (q *queue) takeR2T(p *nvmetcp.R2T) error {
	c, err := q.find(p.CID, offCIDData)
	switch {
	case err != nil:
		return err
	case c.r2ts == nil:
		return violation(nvmetcp.FESSequence, 0, "R2T for a command that sends no data")
	case c.asked:
		return violation(nvmetcp.FESLimit, 0, "an R2T before the last one was answered")
	case p.Length == 0 || p.Offset != c.moved || uint64(p.Offset)+uint64(p.Length) > uint64(c.size):
		return violation(nvmetcp.FESRange, 0, "R2T for %d+%d, %d of %d bytes were next", p.Offset, p.Length, c.moved, c.size)
	}
	c.moved += p.Length
	c.asked = true
	if !c.orphaned {
		c.r2ts <- p // room for the only one there can be
	}
	return nil
}
