package initiator

import (
	"context"
	"net"
	"strings"
	"sync"
	"testing"

	"github.com/nvme-stas/stas/pkg/nvme"
	"github.com/nvme-stas/stas/pkg/nvmetcp"
)

const (
	testCntlID  = 7
	testHostNQN = "nqn.2014-08.org.nvmexpress:uuid:01234567-0123-0123-0123-0123456789ab"
	testSubNQN  = "nqn.2014-08.org.example:storage"
	testBlock   = 512
	testBlocks  = 4096
	testInCaps  = 4096 // of an I/O queue
)

// answer is what the peer sends on a command; nothing to say nothing.
type answer func(*queuePeer, *nvmetcp.CapsuleCmd) []nvmetcp.PDU

// peer is a controller on the other side of pipes. It does what a well-behaved
// controller does, as far as a test does not write it another role.
type peer struct {
	t      testing.TB
	ic     nvmetcp.ICResp       // limits; digests are as wanted unless there is onIC
	onIC   func() []nvmetcp.PDU // says something else than ic
	on     map[string]answer    // by command name
	onData func(*queuePeer, *nvmetcp.Data) []nvmetcp.PDU
	spoil  func([]byte) []byte // what is sent after the ICResp

	mu    sync.Mutex
	seen  []string // commands and TermReqs, in order of arrival
	props map[uint32]uint64
	disk  []byte
	wg    sync.WaitGroup
}

func newPeer(t testing.TB) *peer {
	p := &peer{
		t:  t,
		ic: nvmetcp.ICResp{MaxH2CData: 8192},
		on: make(map[string]answer),
		props: map[uint32]uint64{
			nvme.PropCAP: 127 | nvme.CAPContiguous | 2<<nvme.CAPTimeoutShift | nvme.CAPNVM,
			nvme.PropVS:  nvme.Version21,
		},
		disk: make([]byte, testBlock*testBlocks),
	}
	t.Cleanup(p.wg.Wait) // after the hosts have closed
	return p
}

// queuePeer is the other side of one connection.
type queuePeer struct {
	*peer
	conn *nvmetcp.Conn
	io   bool
	term *nvme.Command // of the write that gets its data
	want int
	got  []byte
}

// dial is a Dialer.
func (p *peer) dial(context.Context, string, string) (net.Conn, error) {
	near, far := net.Pipe()
	p.wg.Go(func() { p.serve(far) })
	return near, nil
}

// options connect to the peer.
func (p *peer) options() Options {
	return Options{Address: "peer", Dialer: p.dial, SubNQN: testSubNQN, HostNQN: testHostNQN, HostID: nvme.HostID{1, 2, 3}}
}

// connect is Dial, and Close at the end of the test.
func (p *peer) connect(o Options) *Controller {
	p.t.Helper()
	c, err := Dial(p.t.Context(), o)
	if err != nil {
		p.t.Fatal(err)
	}
	p.t.Cleanup(c.Close)
	return c
}

func (p *peer) serve(nc net.Conn) {
	defer nc.Close()
	q := &queuePeer{peer: p, conn: nvmetcp.NewConn(nc, nvmetcp.Controller, nvmetcp.Limits{InCapsule: 8192, Data: p.ic.MaxH2CData})}
	pdu, err := q.conn.Read()
	if err != nil {
		return
	}
	req := pdu.(*nvmetcp.ICReq)
	resp := p.ic
	resp.HeaderDigest, resp.DataDigest = req.HeaderDigest, req.DataDigest
	if p.onIC != nil {
		if pdus := p.onIC(); pdus == nil || q.conn.Write(pdus...) != nil {
			return
		}
	} else if q.conn.Write(&resp) != nil {
		return
	}
	q.conn.SetDigests(req.HeaderDigest, req.DataDigest)
	for {
		pdu, err := q.conn.Read()
		if err != nil {
			return
		}
		var out []nvmetcp.PDU
		switch pdu := pdu.(type) {
		case *nvmetcp.CapsuleCmd:
			out = q.command(pdu)
		case *nvmetcp.Data:
			if p.onData != nil {
				out = p.onData(q, pdu)
			} else {
				out = q.data(pdu)
			}
		case *nvmetcp.TermReq:
			p.note("term " + pdu.FES.String())
			continue
		}
		if len(out) > 0 && q.write(out) != nil {
			return
		}
	}
}

func (q *queuePeer) write(pdus []nvmetcp.PDU) error {
	if q.spoil != nil {
		return q.conn.Write(nvmetcp.Raw(q.spoil(q.conn.Append(nil, pdus...))))
	}
	return q.conn.Write(pdus...)
}

func (p *peer) note(what string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.seen = append(p.seen, what)
}

// happened returns what has arrived since the last time.
func (p *peer) happened() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	s := strings.Join(p.seen, " ")
	p.seen = nil
	return s
}

func (q *queuePeer) command(c *nvmetcp.CapsuleCmd) []nvmetcp.PDU {
	name := nvme.CommandName(c.Cmd.Opcode, c.Cmd.FCType(), q.io)
	q.note(name)
	if a, ok := q.on[name]; ok {
		return a(q, c)
	}
	if a, ok := defaults[name]; ok {
		return a(q, c)
	}
	return []nvmetcp.PDU{done(c, 0)}
}

// done completes a command by a result.
func done(c *nvmetcp.CapsuleCmd, result uint64) nvmetcp.PDU {
	return &nvmetcp.CapsuleResp{Cpl: nvme.Completion{CID: c.Cmd.CID, Result: result}}
}

// refused completes a command by a status.
func refused(status nvme.Status, result uint64) answer {
	return func(_ *queuePeer, c *nvmetcp.CapsuleCmd) []nvmetcp.PDU {
		return []nvmetcp.PDU{&nvmetcp.CapsuleResp{Cpl: nvme.Completion{CID: c.Cmd.CID, Status: status, Result: result}}}
	}
}

func mute(*queuePeer, *nvmetcp.CapsuleCmd) []nvmetcp.PDU { return nil }

func hangUp(q *queuePeer, _ *nvmetcp.CapsuleCmd) []nvmetcp.PDU {
	q.conn.Close()
	return nil
}

// sends completes a command with data.
func sends(c *nvmetcp.CapsuleCmd, data []byte) []nvmetcp.PDU {
	padded := make([]byte, c.Cmd.SGL.Length)
	copy(padded, data)
	return []nvmetcp.PDU{&nvmetcp.Data{CID: c.Cmd.CID, Data: padded, Last: true}, done(c, 0)}
}

var defaults = map[string]answer{
	"connect": func(q *queuePeer, c *nvmetcp.CapsuleCmd) []nvmetcp.PDU {
		connect, err := nvme.ParseConnect(c.Cmd)
		if err != nil {
			q.t.Error(err)
		}
		q.io = connect.QID != 0
		return []nvmetcp.PDU{done(c, testCntlID)}
	},
	"property-get": func(q *queuePeer, c *nvmetcp.CapsuleCmd) []nvmetcp.PDU {
		return []nvmetcp.PDU{done(c, q.props[nvme.ParseProperty(c.Cmd).Offset])}
	},
	"property-set": func(q *queuePeer, c *nvmetcp.CapsuleCmd) []nvmetcp.PDU {
		p := nvme.ParseProperty(c.Cmd)
		q.props[p.Offset] = p.Value
		if p.Offset == nvme.PropCC {
			q.props[nvme.PropCSTS] = p.Value & nvme.CCEnable
			if p.Value&nvme.CCShutdownMask != 0 {
				q.props[nvme.PropCSTS] |= nvme.CSTSShutdownComplete
			}
		}
		return []nvmetcp.PDU{done(c, 0)}
	},
	"identify": func(q *queuePeer, c *nvmetcp.CapsuleCmd) []nvmetcp.PDU {
		var data []byte
		var err error
		if nvme.ParseIdentify(c.Cmd).CNS == nvme.CNSController {
			data, err = nvme.IdentifyController{CntlID: testCntlID, SubNQN: testSubNQN, IOCCSz: (nvme.CommandSize + testInCaps) / 16}.AppendBinary(nil)
		} else {
			data, err = nvme.IdentifyNamespace{NSZE: testBlocks, LBAFormats: []nvme.LBAFormat{{DataShift: 9}}}.AppendBinary(nil)
		}
		if err != nil {
			q.t.Error(err)
		}
		return sends(c, data)
	},
	"set-features": func(_ *queuePeer, c *nvmetcp.CapsuleCmd) []nvmetcp.PDU {
		_, value := nvme.ParseFeature(c.Cmd)
		return []nvmetcp.PDU{done(c, uint64(value))}
	},
	"async-event-request": mute,
	"read": func(q *queuePeer, c *nvmetcp.CapsuleCmd) []nvmetcp.PDU {
		return sends(c, q.disk[int(c.Cmd.CDW10)*testBlock:])
	},
	"write": func(q *queuePeer, c *nvmetcp.CapsuleCmd) []nvmetcp.PDU {
		if c.Cmd.SGL.Type == nvme.SGLInCapsule {
			copy(q.disk[int(c.Cmd.CDW10)*testBlock:], c.Data)
			return []nvmetcp.PDU{done(c, 0)}
		}
		q.term, q.want, q.got = new(c.Cmd), int(c.Cmd.SGL.Length), nil
		return []nvmetcp.PDU{&nvmetcp.R2T{CID: c.Cmd.CID, TTAG: 0xabcd, Length: c.Cmd.SGL.Length}}
	},
}

// data takes the data of a write, on one R2T for all of it.
func (q *queuePeer) data(d *nvmetcp.Data) []nvmetcp.PDU {
	if d.TTAG != 0xabcd || int(d.Offset) != len(q.got) {
		q.t.Errorf("data with TTAG %#x at %d, want %d", d.TTAG, d.Offset, len(q.got))
	}
	q.got = append(q.got, d.Data...)
	if d.Last != (len(q.got) == q.want) {
		q.t.Errorf("LAST is %t after %d of %d bytes", d.Last, len(q.got), q.want)
	}
	if !d.Last {
		return nil
	}
	copy(q.disk[int(q.term.CDW10)*testBlock:], q.got)
	return []nvmetcp.PDU{&nvmetcp.CapsuleResp{Cpl: nvme.Completion{CID: d.CID}}}
}
