package target

import (
	"cmp"
	"errors"
	"io"
	"net"
	"slices"
	"sync"
	"time"

	"github.com/nvme-stas/stas/pkg/dhchap"
	"github.com/nvme-stas/stas/pkg/nvme"
	"github.com/nvme-stas/stas/pkg/nvmetcp"
)

const (
	// maxTransfer is the most that one command may move, 1 MiB; MDTS says so.
	maxTransfer = 1 << 20

	// maxTransfers is how many commands of a queue may have data on the way at
	// a time; others wait for their R2T. It bounds the memory of a queue.
	maxTransfers = 8

	// maxWaiting is how many commands may wait. No queue is longer.
	maxWaiting = 1024

	// maxUnsent is how many bytes may wait to be sent before no further
	// command is read.
	maxUnsent = 4 << 20

	adminQueueSize = 32
)

// ending is how a connection is ended.
type ending int

const (
	abort  ending = iota // RST, as from a host that has died
	finish               // FIN
)

// queue is a connection, which in NVMe/TCP is a queue (TCP, "Connection
// establishment"). One goroutine reads and executes; another one, which exists
// only while there is something to send, writes.
type queue struct {
	t        *Target
	listener *listener
	nc       net.Conn
	conn     *nvmetcp.Conn
	remote   string
	since    time.Time
	done     chan struct{} // closed when it is over

	// Of the reading goroutine.
	auth      *dhchap.Controller // while the host has to prove itself
	transfers map[uint16]*request
	waiting   []*request

	mu     sync.Mutex // guards what follows
	drain  sync.Cond
	id     uint16
	c      *controller // nil before Connect
	out    []packet
	unsent int
	busy   bool // somebody writes
	frozen bool // nothing is read or sent any more; the socket stays
	over   bool
}

// packet is what is sent at a time.
type packet struct {
	pdus   []nvmetcp.PDU
	size   int
	then   *ending // ends the connection
	mangle func([]byte) []byte
}

func newQueue(l *listener, nc net.Conn) *queue {
	q := &queue{
		t: l.t, listener: l, nc: nc, remote: nc.RemoteAddr().String(), since: time.Now(),
		conn: nvmetcp.NewConn(nc, nvmetcp.Controller, nvmetcp.Limits{InCapsule: max(l.InCapsule, nvmetcp.AdminInCapsule), Data: l.MaxH2CData}),
		done: make(chan struct{}),
	}
	q.drain.L = &q.mu
	return q
}

// run serves the connection until its end.
func (q *queue) run() {
	err := q.serve()
	if p, ok := errors.AsType[*nvmetcp.ProtocolError](err); ok {
		q.t.log.Info("protocol error", "host", q.remote, "error", err)
		q.send(packet{pdus: []nvmetcp.PDU{p.TermReq()}, then: new(finish)})
		<-q.done
	}
	q.end(finish)
	q.t.mu.Lock()
	c := q.controller()
	if c != nil && c.admin == q {
		delete(q.t.controllers, c.id)
	}
	q.t.mu.Unlock()
	if c != nil {
		c.leave(q, err)
	}
}

// errFrozen ends a connection that does not answer any more, once it is closed.
var errFrozen = errors.New("the connection was silent on command")

func (q *queue) serve() error {
	e := &exchange{q: q, at: atAccept}
	if q.t.faults.apply(e); e.end != nil {
		q.end(*e.end)
		return nil
	}
	if err := q.wait(); err != nil {
		return err
	}
	if err := q.initialize(); err != nil {
		return err
	}
	for {
		pdu, err := q.read()
		corrupt := errors.Is(err, nvmetcp.ErrDataDigest)
		if err != nil && !corrupt {
			return err
		}
		if err := q.wait(); err != nil {
			return err
		}
		switch p := pdu.(type) {
		case *nvmetcp.CapsuleCmd:
			err = q.capsule(p, corrupt)
		case *nvmetcp.Data:
			err = q.data(p, corrupt)
		case *nvmetcp.TermReq:
			q.t.log.Info("the host ends the connection", "host", q.remote, "fes", p.FES, "fei", p.FEI)
			return nil
		default:
			err = &nvmetcp.ProtocolError{FES: nvmetcp.FESSequence, Reason: "unexpected PDU"}
		}
		if err != nil {
			return err
		}
	}
}

// read returns the next PDU, or an error that is an end of a kind.
func (q *queue) read() (nvmetcp.PDU, error) {
	pdu, err := q.conn.Read()
	if errors.Is(err, io.EOF) || errors.Is(err, net.ErrClosed) {
		err = errGone
	}
	return pdu, err
}

// errGone is the end of a connection as it should be.
var errGone = errors.New("the host has gone")

// initialize answers ICReq (TCP, "Connection Initialization").
func (q *queue) initialize() error {
	pdu, err := q.read()
	if err != nil {
		return err
	}
	request, ok := pdu.(*nvmetcp.ICReq)
	if !ok {
		return &nvmetcp.ProtocolError{FES: nvmetcp.FESSequence, Reason: "the first PDU is not ICReq"}
	}
	if request.HPDA != 0 {
		// Data follows its header at once; Linux wants nothing else either.
		return &nvmetcp.ProtocolError{FES: nvmetcp.FESUnsupported, FEI: 10, Reason: "data is not aligned for hosts"}
	}
	e := &exchange{q: q, at: atInitialize, icresp: &nvmetcp.ICResp{
		HeaderDigest: request.HeaderDigest, DataDigest: request.DataDigest, MaxH2CData: q.listener.MaxH2CData,
	}}
	q.t.faults.apply(e)
	if e.swallow {
		if e.end != nil {
			q.end(*e.end)
		}
		return q.wait()
	}
	q.send(packet{pdus: []nvmetcp.PDU{*e.icresp}, then: e.end, mangle: e.mangle})
	q.flush()
	q.conn.SetDigests(request.HeaderDigest, request.DataDigest)
	if e.freeze {
		q.freeze()
	}
	return q.wait()
}

// capsule takes a command. Its data is in the capsule, or is asked for.
func (q *queue) capsule(p *nvmetcp.CapsuleCmd, corrupt bool) error {
	r := &request{q: q, c: q.controller(), cmd: p.Cmd}
	if r.cmd.SGL.Length > maxTransfer {
		q.answer(r, refuse(nvme.StatusSGLLengthInvalid))
		return nil
	}
	if r.cmd.Direction() != nvme.ToController || r.cmd.SGL.Length == 0 {
		q.execute(r)
		return nil
	}
	if r.cmd.SGL.Type == nvme.SGLInCapsule {
		if int(r.cmd.SGL.Length) > len(p.Data) {
			q.answer(r, refuse(nvme.StatusSGLLengthInvalid))
			return nil
		}
		if corrupt {
			q.answer(r, reply{status: nvme.StatusTransientTransportError})
			return nil
		}
		r.data = p.Data[:r.cmd.SGL.Length]
		q.execute(r)
		return nil
	}
	switch {
	case len(q.transfers) >= maxTransfers && len(q.waiting) >= maxWaiting:
		return &nvmetcp.ProtocolError{FES: nvmetcp.FESLimit, Reason: "too many commands"}
	case len(q.transfers) >= maxTransfers:
		q.waiting = append(q.waiting, r)
	default:
		return q.fetch(r)
	}
	return nil
}

// fetch asks for the data of a command, all of it by one R2T.
func (q *queue) fetch(r *request) error {
	if q.transfers[r.cmd.CID] != nil {
		return &nvmetcp.ProtocolError{FES: nvmetcp.FESSequence, Reason: "two commands of one identifier"}
	}
	if q.transfers == nil {
		q.transfers = make(map[uint16]*request)
	}
	q.transfers[r.cmd.CID] = r
	q.send(packet{pdus: []nvmetcp.PDU{nvmetcp.R2T{CID: r.cmd.CID, TTAG: r.cmd.CID, Length: r.cmd.SGL.Length}}})
	return nil
}

// data takes a part of the data that was asked for; parts come in order.
func (q *queue) data(p *nvmetcp.Data, corrupt bool) error {
	r := q.transfers[p.CID]
	if r == nil || p.TTAG != p.CID {
		return &nvmetcp.ProtocolError{FES: nvmetcp.FESSequence, Reason: "data that nobody asked for"}
	}
	length := uint64(r.cmd.SGL.Length)
	if p.Offset != uint32(len(r.data)) || uint64(p.Offset)+uint64(len(p.Data)) > length {
		return &nvmetcp.ProtocolError{FES: nvmetcp.FESRange, Reason: "data out of range"}
	}
	r.data = append(r.data, p.Data...)
	r.corrupt = r.corrupt || corrupt
	if uint64(len(r.data)) < length {
		return nil
	}
	delete(q.transfers, p.CID)
	if r.corrupt {
		q.answer(r, reply{status: nvme.StatusTransientTransportError})
	} else {
		q.execute(r)
	}
	if len(q.waiting) > 0 {
		next := q.waiting[0]
		q.waiting = slices.Delete(q.waiting, 0, 1)
		return q.fetch(next)
	}
	return nil
}

// execute executes a command that is complete, unless a fault has other ideas.
func (q *queue) execute(r *request) {
	r.c.active()
	e := &exchange{q: q, at: atCommand, request: r}
	q.t.faults.apply(e)
	switch {
	case e.swallow:
		if e.end != nil {
			q.end(*e.end)
		}
		return
	case e.reply == nil:
		e.reply = new(dispatch(r))
	}
	if e.reply.later {
		return
	}
	e.at = atReply
	q.t.faults.apply(e)
	q.deliver(e)
	q.throttle()
}

// answer sends the reply to a command without asking for faults.
func (q *queue) answer(r *request, reply reply) {
	q.deliver(&exchange{q: q, request: r, reply: &reply})
}

// deliver sends what became of a command.
func (q *queue) deliver(e *exchange) {
	cmd, p := e.request.cmd, packet{then: cmp.Or(e.end, e.reply.end), mangle: e.mangle}
	if cmd.Direction() == nvme.ToHost && cmd.SGL.Length > 0 && e.reply.status == 0 {
		// Linux takes less data than the command asks for as a fault.
		data := e.reply.data
		if size := int(cmd.SGL.Length); !e.reply.exact && len(data) != size {
			data = append(data[:min(len(data), size)], make([]byte, max(0, size-len(data)))...)
		}
		p.pdus = append(p.pdus, nvmetcp.Data{CID: cmd.CID, Data: data, Last: true})
		p.size = len(data)
	}
	sqhd := uint16(0)
	if e.reply.noFlow {
		sqhd = 0xffff
	}
	p.pdus = append(p.pdus, nvmetcp.CapsuleResp{Cpl: nvme.Completion{
		Result: e.reply.result, SQHD: sqhd, SQID: q.id, CID: cmd.CID, Status: e.reply.status,
	}})
	if e.delay > 0 {
		time.AfterFunc(e.delay, func() { q.send(p) })
		return
	}
	q.send(p)
}

// send has something sent, in order, without waiting for it.
func (q *queue) send(p packet) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.over || q.frozen {
		return
	}
	q.out = append(q.out, p)
	q.unsent += p.size
	if !q.busy {
		q.busy = true
		q.t.running.Go(q.write)
	}
}

// write sends what there is to send.
func (q *queue) write() {
	for {
		q.mu.Lock()
		out := q.out
		q.out, q.unsent = nil, 0
		if len(out) == 0 || q.over || q.frozen {
			q.busy = false
			q.drain.Broadcast()
			q.mu.Unlock()
			return
		}
		q.drain.Broadcast()
		q.mu.Unlock()
		for _, p := range out {
			if err := q.put(p); err != nil {
				q.end(abort)
			} else if p.then != nil {
				q.end(*p.then)
			}
		}
	}
}

// put writes a packet to the socket.
func (q *queue) put(p packet) error {
	if p.mangle == nil {
		return q.conn.Write(p.pdus...)
	}
	return q.conn.Write(nvmetcp.Raw(p.mangle(q.conn.Append(nil, p.pdus...))))
}

// throttle waits until the host has taken most of what was sent.
func (q *queue) throttle() {
	q.mu.Lock()
	defer q.mu.Unlock()
	for q.unsent > maxUnsent && !q.over && !q.frozen {
		q.drain.Wait()
	}
}

// flush waits until all is sent.
func (q *queue) flush() {
	q.mu.Lock()
	defer q.mu.Unlock()
	for q.busy {
		q.drain.Wait()
	}
}

// freeze makes the connection silent: nothing is read or answered any more,
// and the host is not told, as if a cable had been pulled.
func (q *queue) freeze() {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.frozen = true
	q.drain.Broadcast()
}

// wait returns at once, or after the connection has ended if it is frozen.
func (q *queue) wait() error {
	q.mu.Lock()
	frozen := q.frozen
	q.mu.Unlock()
	if !frozen {
		return nil
	}
	// Only the end of the connection is still taken notice of.
	_, _ = io.Copy(io.Discard, q.nc)
	return errFrozen
}

// end ends the connection.
func (q *queue) end(how ending) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.over {
		return
	}
	q.over = true
	q.drain.Broadcast()
	close(q.done)
	if how == abort {
		abortConn(q.nc)
	} else {
		q.nc.Close()
	}
}

func (q *queue) controller() *controller {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.c
}

// join makes the connection a queue of a controller.
func (q *queue) join(c *controller, id uint16) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.c, q.id = c, id
}
