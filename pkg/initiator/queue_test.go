package initiator

import (
	"bytes"
	"context"
	"errors"
	"math/rand/v2"
	"net"
	"os"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/nvme-stas/stas/pkg/nvme"
	"github.com/nvme-stas/stas/pkg/nvmetcp"
)

// connectIO gives a controller with one I/O queue.
func (p *peer) connectIO(o Options) (*Controller, *Queue, Namespace) {
	p.t.Helper()
	c := p.connect(o)
	queues, err := c.ConnectIO(p.t.Context(), 1)
	if err != nil || len(queues) != 1 {
		p.t.Fatalf("%d queues, %v", len(queues), err)
	}
	ns, err := c.Namespace(p.t.Context(), 1)
	if err != nil {
		p.t.Fatal(err)
	}
	return c, queues[0], ns
}

func noise(n int) []byte {
	rnd := rand.New(rand.NewPCG(3, 4))
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(rnd.Uint32())
	}
	return b
}

// encoder knows the bytes of what a controller says.
var encoder = nvmetcp.NewConn(nil, nvmetcp.Controller, nvmetcp.Limits{})

// TestReadWrite moves data of all sizes: in the capsule, by one H2CData, and
// by many.
func TestReadWrite(t *testing.T) {
	for _, digests := range []bool{false, true} {
		p := newPeer(t)
		o := p.options()
		o.HeaderDigest, o.DataDigest = digests, digests
		_, q, ns := p.connectIO(o)
		if want := (Namespace{ID: 1, BlockSize: testBlock, Blocks: testBlocks}); ns != want {
			t.Errorf("%+v", ns)
		}
		for _, size := range []int{512, 4096, 4608, 8192, 8704, 64 << 10, 1 << 20} {
			data := noise(size)
			if err := q.Write(t.Context(), ns, 3, data); err != nil {
				t.Fatal(err)
			}
			if !bytes.Equal(p.disk[3*testBlock:][:size], data) {
				t.Fatalf("%d bytes are not on the disk", size)
			}
			got := make([]byte, size)
			if err := q.Read(t.Context(), ns, 3, got); err != nil || !bytes.Equal(got, data) {
				t.Fatalf("%d bytes: read others, %v", size, err)
			}
		}
		if err := errors.Join(q.Flush(t.Context(), ns), q.WriteZeroes(t.Context(), ns, 0, 1<<16)); err != nil {
			t.Error(err)
		}
	}
}

// TestPieces: data may come in pieces, and be asked for in pieces.
func TestPieces(t *testing.T) {
	p := newPeer(t)
	_, q, ns := p.connectIO(p.options())
	data := noise(8192)
	for _, success := range []bool{false, true} {
		p.on["read"] = func(_ *queuePeer, c *nvmetcp.CapsuleCmd) (out []nvmetcp.PDU) {
			for at := 0; at < len(data); at += 1000 {
				end := min(at+1000, len(data))
				last := end == len(data)
				out = append(out, &nvmetcp.Data{CID: c.Cmd.CID, Offset: uint32(at), Data: data[at:end], Last: last, Success: last && success})
			}
			if !success {
				out = append(out, done(c, 0))
			}
			return out
		}
		got := make([]byte, len(data))
		if err := q.Read(t.Context(), ns, 0, got); err != nil || !bytes.Equal(got, data) {
			t.Fatalf("success flag %t: read other data, %v", success, err)
		}
	}
	var got []byte
	p.on["write"] = func(_ *queuePeer, c *nvmetcp.CapsuleCmd) []nvmetcp.PDU {
		return []nvmetcp.PDU{&nvmetcp.R2T{CID: c.Cmd.CID, TTAG: 1, Length: 1000}}
	}
	p.onData = func(_ *queuePeer, d *nvmetcp.Data) []nvmetcp.PDU {
		got = append(got, d.Data...)
		if len(got) == len(data) {
			return []nvmetcp.PDU{&nvmetcp.CapsuleResp{Cpl: nvme.Completion{CID: d.CID}}}
		}
		return []nvmetcp.PDU{&nvmetcp.R2T{CID: d.CID, TTAG: d.TTAG + 1, Offset: uint32(len(got)), Length: uint32(min(1000, len(data)-len(got)))}}
	}
	if err := q.Write(t.Context(), ns, 0, data); err != nil || !bytes.Equal(got, data) {
		t.Errorf("wrote other data, %v", err)
	}
}

// TestConcurrent has many commands under way, which complete in any order.
func TestConcurrent(t *testing.T) {
	p := newPeer(t)
	var waiting []nvmetcp.PDU
	hold := 0
	p.on["read"] = func(_ *queuePeer, c *nvmetcp.CapsuleCmd) []nvmetcp.PDU {
		waiting = append(sends(c, p.disk[int(c.Cmd.CDW10)*testBlock:]), waiting...) // the last comes first
		if hold++; hold%8 != 0 {
			return nil
		}
		out := waiting
		waiting = nil
		return out
	}
	copy(p.disk, noise(len(p.disk)))
	_, q, ns := p.connectIO(p.options())
	var wg sync.WaitGroup
	for i := range 200 {
		wg.Go(func() {
			got := make([]byte, 2*testBlock)
			if err := q.Read(t.Context(), ns, uint64(i), got); err != nil || !bytes.Equal(got, p.disk[i*testBlock:][:len(got)]) {
				t.Errorf("block %d: other data, %v", i, err)
			}
		})
	}
	wg.Wait()
}

// TestArguments are refused before anything is sent.
func TestArguments(t *testing.T) {
	p := newPeer(t)
	c, q, ns := p.connectIO(p.options())
	p.happened()
	ctx := t.Context()
	for name, err := range map[string]error{
		"half a block":    q.Read(ctx, ns, 0, make([]byte, 100)),
		"nothing":         q.Read(ctx, ns, 0, nil),
		"too much":        q.Write(ctx, ns, 0, make([]byte, 2<<20)),
		"too many blocks": q.WriteZeroes(ctx, ns, 0, 1<<16+1),
		"no namespace":    q.Read(ctx, Namespace{}, 0, make([]byte, 512)),
		"odd log":         c.GetLogPage(0x70, 0, false, 0, make([]byte, 3)),
		"data for none":   func() error { _, err := c.Do(ctx, nvme.Command{Opcode: nvme.OpKeepAlive}, make([]byte, 4)); return err }(),
		"bad information": c.ManageDiscovery(ctx, nvme.DiscoveryInformation{EID: strings.Repeat("n", 300)}),
	} {
		if err == nil {
			t.Errorf("%s: no error", name)
		}
	}
	if got := p.happened(); got != "" {
		t.Errorf("the peer got %s", got)
	}
}

// TestHostile: what a controller must not send ends the connection, and the
// controller is told why.
func TestHostile(t *testing.T) {
	reading := func(cid uint16) []nvmetcp.PDU { // 1024 bytes
		return []nvmetcp.PDU{
			&nvmetcp.Data{CID: cid, Data: make([]byte, 1024), Last: true}, &nvmetcp.CapsuleResp{Cpl: nvme.Completion{CID: cid}},
		}
	}
	for _, tc := range []struct {
		name string
		on   string // which reads 1024 bytes, or writes 32 KiB
		says func(cid uint16) []nvmetcp.PDU
		fes  nvmetcp.FES
	}{
		{"response of no command", "read", func(cid uint16) []nvmetcp.PDU {
			return []nvmetcp.PDU{&nvmetcp.CapsuleResp{Cpl: nvme.Completion{CID: cid + 1}}}
		}, nvmetcp.FESInvalidHeader},
		{"response far off", "read", func(uint16) []nvmetcp.PDU {
			return []nvmetcp.PDU{&nvmetcp.CapsuleResp{Cpl: nvme.Completion{CID: 0xffff}}}
		}, nvmetcp.FESInvalidHeader},
		{"second response", "read", func(cid uint16) []nvmetcp.PDU {
			return append(reading(cid), &nvmetcp.CapsuleResp{Cpl: nvme.Completion{CID: cid}})
		}, nvmetcp.FESInvalidHeader},
		{"data of no command", "read", func(uint16) []nvmetcp.PDU {
			return []nvmetcp.PDU{&nvmetcp.Data{CID: 0x1000, Data: make([]byte, 4)}}
		}, nvmetcp.FESInvalidHeader},
		{"data behind the completion", "read", func(cid uint16) []nvmetcp.PDU {
			return append(reading(cid), &nvmetcp.Data{CID: cid, Data: make([]byte, 4)})
		}, nvmetcp.FESInvalidHeader},
		{"too much data", "read", func(cid uint16) []nvmetcp.PDU {
			return []nvmetcp.PDU{&nvmetcp.Data{CID: cid, Data: make([]byte, 1028)}}
		}, nvmetcp.FESRange},
		{"more data than ever allowed", "read", func(cid uint16) []nvmetcp.PDU {
			whole := encoder.Append(nil, &nvmetcp.Data{CID: cid, Data: make([]byte, maxTransfer+4)})
			return []nvmetcp.PDU{nvmetcp.Raw(whole[:24])} // who would read on?
		}, nvmetcp.FESRange},
		{"data beyond the end", "read", func(cid uint16) []nvmetcp.PDU {
			return []nvmetcp.PDU{&nvmetcp.Data{CID: cid, Offset: 1024, Data: make([]byte, 4)}}
		}, nvmetcp.FESRange},
		{"data around the world", "read", func(cid uint16) []nvmetcp.PDU {
			return []nvmetcp.PDU{&nvmetcp.Data{CID: cid, Offset: 0xfffffffc, Data: make([]byte, 8)}}
		}, nvmetcp.FESRange},
		{"a gap", "read", func(cid uint16) []nvmetcp.PDU {
			return []nvmetcp.PDU{&nvmetcp.Data{CID: cid, Offset: 512, Data: make([]byte, 512)}}
		}, nvmetcp.FESRange},
		{"the same data again", "read", func(cid uint16) []nvmetcp.PDU {
			return []nvmetcp.PDU{&nvmetcp.Data{CID: cid, Data: make([]byte, 512)}, &nvmetcp.Data{CID: cid, Data: make([]byte, 512)}}
		}, nvmetcp.FESRange},
		{"data behind the last", "read", func(cid uint16) []nvmetcp.PDU {
			return []nvmetcp.PDU{&nvmetcp.Data{CID: cid, Data: make([]byte, 512), Last: true}, &nvmetcp.Data{CID: cid, Offset: 512, Data: make([]byte, 512)}}
		}, nvmetcp.FESSequence},
		{"too little data", "read", func(cid uint16) []nvmetcp.PDU {
			return []nvmetcp.PDU{&nvmetcp.Data{CID: cid, Data: make([]byte, 512), Last: true}, &nvmetcp.CapsuleResp{Cpl: nvme.Completion{CID: cid}}}
		}, nvmetcp.FESSequence},
		{"too little data and the success flag", "read", func(cid uint16) []nvmetcp.PDU {
			return []nvmetcp.PDU{&nvmetcp.Data{CID: cid, Data: make([]byte, 512), Last: true, Success: true}}
		}, nvmetcp.FESSequence},
		{"response after the success flag", "read", func(cid uint16) []nvmetcp.PDU {
			return []nvmetcp.PDU{&nvmetcp.Data{CID: cid, Data: make([]byte, 1024), Last: true, Success: true}, &nvmetcp.CapsuleResp{Cpl: nvme.Completion{CID: cid}}}
		}, nvmetcp.FESInvalidHeader},
		{"R2T for a read", "read", func(cid uint16) []nvmetcp.PDU {
			return []nvmetcp.PDU{&nvmetcp.R2T{CID: cid, Length: 512}}
		}, nvmetcp.FESSequence},
		{"R2T of no command", "read", func(uint16) []nvmetcp.PDU {
			return []nvmetcp.PDU{&nvmetcp.R2T{CID: 99, Length: 512}}
		}, nvmetcp.FESInvalidHeader},
		{"R2T for data in the capsule", "flush", func(cid uint16) []nvmetcp.PDU {
			return []nvmetcp.PDU{&nvmetcp.R2T{CID: cid, Length: 512}}
		}, nvmetcp.FESSequence},
		{"R2T for more than there is", "write", func(cid uint16) []nvmetcp.PDU {
			return []nvmetcp.PDU{&nvmetcp.R2T{CID: cid, Length: 32<<10 + 4}}
		}, nvmetcp.FESRange},
		{"R2T around the world", "write", func(cid uint16) []nvmetcp.PDU {
			return []nvmetcp.PDU{&nvmetcp.R2T{CID: cid, Offset: 0xffffffff, Length: 2}}
		}, nvmetcp.FESRange},
		{"R2T for nothing", "write", func(cid uint16) []nvmetcp.PDU {
			return []nvmetcp.PDU{&nvmetcp.R2T{CID: cid}}
		}, nvmetcp.FESRange},
		{"R2T with a gap", "write", func(cid uint16) []nvmetcp.PDU {
			return []nvmetcp.PDU{&nvmetcp.R2T{CID: cid, Offset: 4096, Length: 4096}}
		}, nvmetcp.FESRange},
		{"two R2Ts", "write", func(cid uint16) []nvmetcp.PDU {
			return []nvmetcp.PDU{&nvmetcp.R2T{CID: cid, Length: 24 << 10}, &nvmetcp.R2T{CID: cid, Offset: 24 << 10, Length: 8 << 10}}
		}, nvmetcp.FESLimit},
		{"success without the data", "write", func(cid uint16) []nvmetcp.PDU {
			return []nvmetcp.PDU{&nvmetcp.CapsuleResp{Cpl: nvme.Completion{CID: cid}}}
		}, nvmetcp.FESSequence},
		{"success before the data", "write", func(cid uint16) []nvmetcp.PDU {
			return []nvmetcp.PDU{&nvmetcp.R2T{CID: cid, Length: 32 << 10}, &nvmetcp.CapsuleResp{Cpl: nvme.Completion{CID: cid}}}
		}, nvmetcp.FESSequence},
		{"data for a write", "write", func(cid uint16) []nvmetcp.PDU {
			return []nvmetcp.PDU{&nvmetcp.Data{CID: cid, Data: make([]byte, 512)}}
		}, nvmetcp.FESRange},
		{"ICResp", "flush", func(uint16) []nvmetcp.PDU { return []nvmetcp.PDU{&nvmetcp.ICResp{}} }, nvmetcp.FESSequence},
		{"nonsense", "flush", func(uint16) []nvmetcp.PDU {
			return []nvmetcp.PDU{nvmetcp.Raw(bytes.Repeat([]byte{0xee}, 64))}
		}, nvmetcp.FESInvalidHeader},
	} {
		t.Run(tc.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				p := newPeer(t)
				c, q, ns := p.connectIO(p.options())
				p.happened()
				p.on[tc.on] = func(_ *queuePeer, c *nvmetcp.CapsuleCmd) []nvmetcp.PDU { return tc.says(c.Cmd.CID) }
				p.onData = func(*queuePeer, *nvmetcp.Data) []nvmetcp.PDU {
					<-q.Done() // before the host has sent all of it
					return nil
				}
				commands := map[string]func() error{
					"read":  func() error { return q.Read(t.Context(), ns, 0, make([]byte, 1024)) },
					"write": func() error { return q.Write(t.Context(), ns, 0, make([]byte, 32<<10)) },
					"flush": func() error { return q.Flush(t.Context(), ns) },
				}
				errCmd := commands[tc.on]()
				synctest.Wait()
				err := q.Err()
				e, ok := errors.AsType[*nvmetcp.ProtocolError](err)
				if !ok || e.FES != tc.fes {
					t.Fatalf("%v, want %v", err, tc.fes)
				}
				// The command had been completed before, or it has the same error.
				if errCmd != nil && !errors.Is(errCmd, err) {
					t.Errorf("the command ended by %v, the connection by %v", errCmd, err)
				}
				if errAfter := commands["flush"](); !errors.Is(errAfter, err) {
					t.Errorf("a command afterwards: %v", errAfter)
				}
				if got := p.happened(); !strings.HasSuffix(got, "term "+tc.fes.String()) {
					t.Errorf("the peer got %s", got)
				}
				if c.Err() != nil {
					t.Errorf("the admin queue suffers: %v", c.Err())
				}
			})
		})
	}
}

// TestErrorStatus: a refused command has moved no data, and needs not.
func TestErrorStatus(t *testing.T) {
	p := newPeer(t)
	_, q, ns := p.connectIO(p.options())
	p.on["read"] = refused(0x4002, 0)
	if err := q.Read(t.Context(), ns, 0, make([]byte, 512)); !errors.Is(err, nvme.StatusInvalidField) {
		t.Error(err)
	}
	p.on["write"] = func(_ *queuePeer, c *nvmetcp.CapsuleCmd) []nvmetcp.PDU {
		return append([]nvmetcp.PDU{&nvmetcp.R2T{CID: c.Cmd.CID, Length: 64 << 10}}, refused(0x4002, 0)(nil, c)...)
	}
	p.onData = func(*queuePeer, *nvmetcp.Data) []nvmetcp.PDU { return nil }
	if err := q.Write(t.Context(), ns, 0, make([]byte, 64<<10)); !errors.Is(err, nvme.StatusInvalidField) {
		t.Error(err)
	}
	delete(p.on, "read")
	if err := q.Read(t.Context(), ns, 0, make([]byte, 512)); err != nil {
		t.Error(err)
	}
}

// TestDataDigest: data that changed on its way fails its command alone.
func TestDataDigest(t *testing.T) {
	p := newPeer(t)
	o := p.options()
	o.HeaderDigest, o.DataDigest = true, true
	_, q, ns := p.connectIO(o)
	p.on["read"] = func(q *queuePeer, c *nvmetcp.CapsuleCmd) []nvmetcp.PDU {
		raw := q.conn.Append(nil, sends(c, noise(512))...)
		raw[28+100] ^= 1
		return []nvmetcp.PDU{nvmetcp.Raw(raw)}
	}
	buf := make([]byte, 512)
	if err := q.Read(t.Context(), ns, 0, buf); !errors.Is(err, nvmetcp.ErrDataDigest) || !bytes.Equal(buf, make([]byte, 512)) {
		t.Errorf("%v, % x", err, buf[:8])
	}
	delete(p.on, "read")
	if err := q.Read(t.Context(), ns, 0, buf); err != nil {
		t.Error(err)
	}
}

// TestOrphan: a command whose caller has gone is left in peace. Its buffer is
// not touched any more, its CID is not used before it is completed.
func TestOrphan(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPeer(t)
		o := p.options()
		o.QueueSize = 2 // one command at a time
		c := p.connect(o)
		var held *nvmetcp.CapsuleCmd
		var other *queuePeer
		p.on["get-log-page"] = func(q *queuePeer, cmd *nvmetcp.CapsuleCmd) []nvmetcp.PDU {
			held, other = cmd, q
			return nil
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		buf := make([]byte, 1024)
		if err := c.LogPage(ctx, nvme.GetLogPage{LID: nvme.LogDiscovery}, buf); !errors.Is(err, context.DeadlineExceeded) {
			t.Fatal(err)
		}
		// The one command there may be is still under way.
		ctx, cancel = context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if _, err := c.Identify(ctx); !errors.Is(err, context.DeadlineExceeded) {
			t.Fatal(err)
		}
		if got := p.happened(); !strings.HasSuffix(got, "get-log-page") {
			t.Errorf("the peer got %s", got)
		}
		synctest.Wait()
		if err := other.write(sends(held, noise(1024))); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		if !bytes.Equal(buf, make([]byte, 1024)) {
			t.Error("the buffer was written to")
		}
		if _, err := c.Identify(t.Context()); err != nil {
			t.Error(err)
		}
	})
}

// TestOrphanWrite: what nobody wants to write any more is not sent.
func TestOrphanWrite(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPeer(t)
		_, q, ns := p.connectIO(p.options())
		var held *nvmetcp.CapsuleCmd
		var other *queuePeer
		p.on["write"] = func(q *queuePeer, c *nvmetcp.CapsuleCmd) []nvmetcp.PDU {
			held, other = c, q
			return nil
		}
		p.onData = func(*queuePeer, *nvmetcp.Data) []nvmetcp.PDU {
			t.Error("data came")
			return nil
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if err := q.Write(ctx, ns, 0, make([]byte, 8192)); !errors.Is(err, context.DeadlineExceeded) {
			t.Fatal(err)
		}
		synctest.Wait()
		if err := other.write([]nvmetcp.PDU{&nvmetcp.R2T{CID: held.Cmd.CID, Length: 8192}}); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		if err := q.Flush(t.Context(), ns); err != nil {
			t.Error(err)
		}
	})
}

// TestCanceledBefore: nothing is sent for a context that is over.
func TestCanceledBefore(t *testing.T) {
	p := newPeer(t)
	c := p.connect(p.options())
	p.happened()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := c.Identify(ctx); !errors.Is(err, context.Canceled) || p.happened() != "" {
		t.Error(err)
	}
}

// TestStuckWrite: a controller that reads nothing does not hold a command
// whose time is over, and the connection is given up.
func TestStuckWrite(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPeer(t)
		c := p.connect(p.options())
		block := make(chan struct{})
		p.on["get-features"] = func(*queuePeer, *nvmetcp.CapsuleCmd) []nvmetcp.PDU {
			<-block
			return nil
		}
		go c.GetFeatures(context.Background(), nvme.FeatureKATO, nil)
		synctest.Wait()
		start := time.Now()
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
		defer cancel()
		var wg sync.WaitGroup
		wg.Go(func() { // waits for its turn
			time.Sleep(time.Second)
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			defer cancel()
			if _, err := c.Identify(ctx); !errors.Is(err, context.DeadlineExceeded) || time.Since(start) != 2*time.Second {
				t.Errorf("%v after %v", err, time.Since(start))
			}
		})
		_, err := c.Identify(ctx) // is in the middle of the write
		if took := time.Since(start); !errors.Is(err, os.ErrDeadlineExceeded) || took != 5*time.Second+writeGrace {
			t.Errorf("%v after %v", err, took)
		}
		if !errors.Is(c.Err(), os.ErrDeadlineExceeded) {
			t.Errorf("the connection ended by %v", c.Err())
		}
		wg.Wait()
		close(block)
	})
}

// TestStuckTermReq: a controller that breaks the rules and reads nothing
// is left, TermReq or not.
func TestStuckTermReq(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPeer(t)
		c := p.connect(p.options())
		block := make(chan struct{})
		p.on["get-features"] = func(q *queuePeer, _ *nvmetcp.CapsuleCmd) []nvmetcp.PDU {
			q.conn.Write(&nvmetcp.CapsuleResp{Cpl: nvme.Completion{CID: 99}})
			<-block
			return nil
		}
		start := time.Now()
		if _, err := c.GetFeatures(t.Context(), nvme.FeatureKATO, nil); err == nil || time.Since(start) != 0 {
			t.Errorf("%v after %v", err, time.Since(start))
		}
		c.Close()
		if took := time.Since(start); took != writeGrace {
			t.Errorf("closing took %v", took)
		}
		close(block)
	})
}

// FuzzPeer lets a connected controller say anything while a command of each
// kind is under way. All of them have to end with the connection.
func FuzzPeer(f *testing.F) {
	seeds := [][]nvmetcp.PDU{
		{&nvmetcp.Data{CID: 1, Data: make([]byte, 64), Last: true, Success: true}},
		{&nvmetcp.Data{CID: 1, Data: make([]byte, 64), Last: true}, &nvmetcp.CapsuleResp{Cpl: nvme.Completion{CID: 1}}},
		{&nvmetcp.R2T{CID: 2, Length: 64}, &nvmetcp.R2T{CID: 2, Offset: 64, Length: 64}},
		{&nvmetcp.CapsuleResp{Cpl: nvme.Completion{CID: 3, Status: 2}}, &nvmetcp.TermReq{FES: 1}},
	}
	for _, s := range seeds {
		f.Add(encoder.Append(nil, s...))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		near, far := net.Pipe()
		conn := nvmetcp.NewConn(near, nvmetcp.Host, nvmetcp.Limits{Data: maxTransfer})
		go func() {
			io := nvmetcp.NewConn(far, nvmetcp.Controller, nvmetcp.Limits{InCapsule: 8192, Data: 8192})
			io.Write(&nvmetcp.ICResp{})
		}()
		if _, err := conn.Read(); err != nil {
			t.Fatal(err)
		}
		q := newQueue(conn, &nvmetcp.ICResp{MaxH2CData: 4096}, 8, 32)
		go func() { // the controller hears nothing
			for sink := make([]byte, 4096); ; {
				if _, err := far.Read(sink); err != nil {
					return
				}
			}
		}()
		var wg sync.WaitGroup
		wg.Go(q.run)
		for _, cmd := range []nvme.Command{{Opcode: nvme.OpFlush}, {Opcode: nvme.OpRead}, {Opcode: nvme.OpWrite}, {Opcode: nvme.OpWrite}} {
			wg.Go(func() {
				data := make([]byte, 128)
				if cmd.Opcode == nvme.OpFlush {
					data = nil
				}
				q.do(context.Background(), cmd, data)
			})
		}
		far.Write(b)
		far.Close()
		wg.Wait()
		if q.failure() == nil {
			t.Error("the connection is over for no reason")
		}
	})
}
