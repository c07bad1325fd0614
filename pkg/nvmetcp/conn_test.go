package nvmetcp

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"reflect"
	"runtime"
	"strings"
	"testing"
	"testing/iotest"
	"testing/synctest"
	"time"

	"github.com/nvme-stas/stas/pkg/nvme"
)

// TestMalformed spoils PDUs, all of which are refused by their header.
func TestMalformed(t *testing.T) {
	cmd := func(plen string) string { return "04 00 48 48 " + plen + testCommandHex }
	for _, tc := range []struct {
		name    string
		to      Role
		digests digests
		first   bool // of the connection
		hex     string
		fes     FES
		fei     uint32
	}{
		{name: "unknown type", to: Host, hex: "08 00 18 00 18 00 00 00", fes: FESInvalidHeader, fei: 0},
		{name: "type far off", to: Host, hex: "ff 00 18 00 18 00 00 00", fes: FESInvalidHeader, fei: 0},
		{name: "own direction", to: Host, hex: "04 00 48 00 48 00 00 00", fes: FESInvalidHeader, fei: 0},
		{name: "own direction at a controller", to: Controller, hex: "05 00 18 00 18 00 00 00", fes: FESInvalidHeader, fei: 0},
		{name: "command first", to: Controller, first: true, hex: cmd("48 00 00 00"), fes: FESSequence},
		{name: "second ICReq", to: Controller, hex: "00 00 80 00 80 00 00 00" + zeros(120), fes: FESSequence},
		{name: "ICReq of another version", to: Controller, first: true, hex: "00 00 80 00 80 00 00 00 01 00" + zeros(118), fes: FESUnsupported, fei: 8},
		{name: "ICResp of another version", to: Host, first: true, hex: "01 00 80 00 80 00 00 00 00 01" + zeros(118), fes: FESUnsupported, fei: 8},
		{name: "ICReq too long", to: Controller, first: true, hex: "00 00 80 00 84 00 00 00" + zeros(124), fes: FESInvalidHeader, fei: 4},
		{name: "HLEN too small", to: Host, hex: "05 00 10 00 18 00 00 00", fes: FESInvalidHeader, fei: 2},
		{name: "HLEN 0", to: Host, hex: "05 00 00 00 18 00 00 00", fes: FESInvalidHeader, fei: 2},
		{name: "HLEN too large", to: Host, hex: "05 00 ff 00 ff 00 00 00", fes: FESInvalidHeader, fei: 2},
		{name: "PLEN 0", to: Host, hex: "05 00 18 00 00 00 00 00" + testCompletionHex, fes: FESInvalidHeader, fei: 4},
		{name: "PLEN less than HLEN", to: Host, hex: "05 00 18 00 17 00 00 00" + testCompletionHex, fes: FESInvalidHeader, fei: 4},
		{name: "response with data", to: Host, hex: "05 00 18 18 1c 00 00 00" + testCompletionHex + "01020304", fes: FESInvalidHeader, fei: 4},
		{name: "PLEN without the digest", to: Host, digests: onlyHD, hex: "05 01 18 00 18 00 00 00" + testCompletionHex + "16 7a b2 df", fes: FESInvalidHeader, fei: 4},
		{name: "PDO 0 with data", to: Controller, hex: "04 00 48 00 4c 00 00 00" + testCommandHex, fes: FESInvalidHeader, fei: 3},
		{name: "PDO in the header", to: Controller, hex: "04 00 48 44 4c 00 00 00" + testCommandHex, fes: FESInvalidHeader, fei: 3},
		{name: "PDO in the header digest", to: Controller, digests: onlyHD, hex: "04 01 48 48 54 00 00 00" + testCommandHex + "33 f8 af ab", fes: FESInvalidHeader, fei: 3},
		{name: "PDO beyond the end", to: Controller, hex: "04 00 48 50 4c 00 00 00" + testCommandHex, fes: FESInvalidHeader, fei: 3},
		{name: "PDO at the end", to: Controller, hex: "04 00 48 4c 4c 00 00 00" + testCommandHex, fes: FESInvalidHeader, fei: 3},
		{name: "PDO at the data digest", to: Controller, digests: onlyDD, hex: "04 02 48 48 4c 00 00 00" + testCommandHex, fes: FESInvalidHeader, fei: 3},
		{name: "PDO odd", to: Controller, hex: "04 00 48 49 4d 00 00 00" + testCommandHex, fes: FESInvalidHeader, fei: 3},
		{name: "too much in capsule", to: Controller, hex: cmd("4c 20 00 00"), fes: FESLimit},
		{name: "4 GiB in capsule", to: Controller, hex: cmd("ff ff ff ff"), fes: FESLimit},
		{name: "H2CData too long", to: Controller, hex: "06 00 18 18 1c 40 00 00" + zeros(8) + "04 40 00 00" + zeros(4), fes: FESLimit},
		{name: "C2HData too long", to: Host, hex: "07 00 18 18 1c 40 00 00" + zeros(8) + "04 40 00 00" + zeros(4), fes: FESRange},
		{name: "TermReq too long", to: Host, hex: "03 00 18 00 99 00 00 00" + zeros(16), fes: FESRange},
		{name: "DATAL less than PLEN", to: Host, hex: "07 00 18 18 20 00 00 00" + zeros(8) + "04 00 00 00" + zeros(4), fes: FESInvalidHeader, fei: 16},
		{name: "DATAL without data", to: Controller, hex: "06 00 18 18 18 00 00 00" + zeros(8) + "04 00 00 00" + zeros(4), fes: FESInvalidHeader, fei: 16},
		{name: "SUCCESS without LAST", to: Host, hex: "07 08 18 00 18 00 00 00" + zeros(16), fes: FESInvalidHeader, fei: 1},
		{name: "header digest missing", to: Host, digests: onlyHD, hex: "05 00 18 00 18 00 00 00" + testCompletionHex, fes: FESInvalidHeader, fei: 1},
		{name: "header digest not agreed", to: Host, hex: "05 01 18 00 1c 00 00 00" + testCompletionHex + "e2a4bd02", fes: FESInvalidHeader, fei: 1},
		{name: "header digest wrong", to: Host, digests: onlyHD, hex: "05 01 18 00 1c 00 00 00" + testCompletionHex + "e2a4bd03", fes: FESHeaderDigest, fei: 0x03bda4e2},
		{name: "data digest missing", to: Host, digests: onlyDD, hex: "07 00 18 18 20 00 00 00" + zeros(8) + "04 00 00 00" + zeros(12), fes: FESInvalidHeader, fei: 1},
		{name: "data digest not agreed", to: Host, hex: "07 02 18 18 20 00 00 00" + zeros(8) + "08 00 00 00" + zeros(12), fes: FESInvalidHeader, fei: 1},
	} {
		t.Run(tc.name, func(t *testing.T) {
			in := unhex(t, tc.hex)
			c, m := newTestConn(tc.to, tc.digests, in)
			c.started = !tc.first
			pdu, err := c.Read()
			e, ok := errors.AsType[*ProtocolError](err)
			if !ok || e.FES != tc.fes || e.FEI != tc.fei || pdu != nil {
				t.Fatalf("%+v, %#v, %v; want FES %d, FEI %#x", pdu, e, err, tc.fes, tc.fei)
			}
			if _, again := c.Read(); !errors.Is(again, err) {
				t.Errorf("read on: %v", again)
			}
			if !bytes.HasPrefix(in, e.Header) || len(e.Header) < commonSize {
				t.Errorf("header in error % x", e.Header)
			}
			// What it says of the error can be sent and understood.
			if err := c.Write(e.TermReq()); err != nil {
				t.Fatal(err)
			}
			peer, _ := newTestConn(other(tc.to), digests{}, m.out.Bytes())
			got, err := peer.Read()
			term, ok := got.(*TermReq)
			if !ok || term.FES != tc.fes || term.FEI != tc.fei || !bytes.Equal(term.Data, e.Header) {
				t.Errorf("the other side understood %+v, %v", got, err)
			}
		})
	}
}

// TestPadding: a sender may align data to more than it has to.
func TestPadding(t *testing.T) {
	c, _ := newTestConn(Host, onlyHD, unhex(t, "07 05 18 40 44 00 00 00 34 12 00 00 00 00 00 00 04 00 00 00 00 00 00 00"+
		"60 22 ab 38"+strings.Repeat("ee", 36)+"01 02 03 04"))
	pdu, err := c.Read()
	if d, ok := pdu.(*Data); !ok || err != nil || !bytes.Equal(d.Data, []byte{1, 2, 3, 4}) || d.Success {
		t.Fatalf("%+v, %v", pdu, err)
	}
}

// TestDataDigest: a wrong data digest spoils one PDU and not the connection.
func TestDataDigest(t *testing.T) {
	w, m := newTestConn(Controller, both, nil)
	if err := w.Write(&Data{CID: 1, Data: bytes.Repeat([]byte{7}, 5000)}, &Data{CID: 2, Data: make([]byte, 4)}); err != nil {
		t.Fatal(err)
	}
	wire := m.out.Bytes()
	wire[28+4000]++
	r, _ := newTestConn(Host, both, wire)
	pdu, err := r.Read()
	if d, ok := pdu.(*Data); !ok || !errors.Is(err, ErrDataDigest) || d.CID != 1 || len(d.Data) != 5000 {
		t.Fatalf("%+v, %v", pdu, err)
	}
	pdu, err = r.Read()
	if d, ok := pdu.(*Data); !ok || err != nil || d.CID != 2 {
		t.Fatalf("%+v, %v", pdu, err)
	}
}

// TestCutOff: a connection that ends within a PDU has not ended well.
func TestCutOff(t *testing.T) {
	whole := unhex(t, golden[6].hex) // with data and both digests
	for n := range len(whole) {
		c, _ := newTestConn(Controller, both, whole[:n])
		want := io.ErrUnexpectedEOF
		if n == 0 {
			want = io.EOF
		}
		c.started = true
		if pdu, err := c.Read(); !errors.Is(err, want) || pdu != nil {
			t.Fatalf("%d of %d bytes: %v, %v", n, len(whole), pdu, err)
		}
	}
}

// batch is a row of PDUs of all sizes.
func batch(n int) (pdus []PDU) {
	rnd := rand.New(rand.NewPCG(1, 2))
	for i := range n {
		data := make([]byte, 4*rnd.IntN(4<<10))
		for j := range data {
			data[j] = byte(rnd.Uint32())
		}
		pdus = append(pdus,
			&Data{CID: uint16(i), Data: data, Last: true},
			&CapsuleResp{Cpl: nvme.Completion{CID: uint16(i)}},
		)
	}
	return pdus
}

// clone copies what Read returns to keep.
func clone(p PDU) PDU {
	if d, ok := p.(*Data); ok {
		d.Data = bytes.Clone(d.Data)
	}
	return p
}

// TestStream writes PDUs in batches, of which the stream shows nothing, and
// reads them in pieces of any size.
func TestStream(t *testing.T) {
	for _, d := range []digests{{}, both} {
		pdus := batch(50)
		w, m := newTestConn(Controller, d, nil)
		for i := 0; i < len(pdus); i += 5 {
			if err := w.Write(pdus[i:min(i+5, len(pdus))]...); err != nil {
				t.Fatal(err)
			}
		}
		wire := m.out.Bytes()
		if one := w.Append(nil, pdus...); !bytes.Equal(one, wire) {
			t.Fatal("a batch differs from single PDUs")
		}
		for name, in := range map[string]io.Reader{
			"whole": bytes.NewReader(wire), "bytes": iotest.OneByteReader(bytes.NewReader(wire)), "halves": iotest.HalfReader(bytes.NewReader(wire)),
		} {
			r, rm := newTestConn(Host, d, wire)
			rm.in = in
			for i, want := range pdus {
				got, err := r.Read()
				if d, ok := want.(*Data); ok && len(d.Data) == 0 {
					d.Data = nil
				}
				if err != nil || !reflect.DeepEqual(got, want) {
					t.Fatalf("%s: PDU %d: %v, %v", name, i, got, err)
				}
			}
		}
	}
}

// TestOneWrite: small PDUs and their data go out by one system call.
func TestOneWrite(t *testing.T) {
	c, m := newTestConn(Controller, both, nil)
	if err := c.Write(&Data{Data: make([]byte, 4000)}, &CapsuleResp{}, &R2T{}); err != nil || m.writes != 1 {
		t.Errorf("%d writes, %v", m.writes, err)
	}
}

// TestClaim: what a header announces is not allocated before it comes.
func TestClaim(t *testing.T) {
	head := unhex(t, "07 00 18 18 18 00 00 04"+zeros(8)+"00 00 00 04"+zeros(4)) // 64 MiB
	c, _ := newTestConn(Host, digests{}, head)
	c.limits.Data = 64 << 20
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	if _, err := c.Read(); !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Fatal(err)
	}
	runtime.ReadMemStats(&after)
	if n := after.TotalAlloc - before.TotalAlloc; n > 1<<20 {
		t.Errorf("%d bytes were allocated", n)
	}
}

// TestDeadline: a deadline that passes while nothing or a part of a header has
// come leaves the connection as it was.
func TestDeadline(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		near, far := net.Pipe()
		c := NewConn(near, Host, testLimits)
		c.started = true
		wire := unhex(t, "05 00 18 00 18 00 00 00"+testCompletionHex)
		read := func(part []byte) (PDU, error) {
			near.SetReadDeadline(time.Now().Add(time.Second))
			go far.Write(part)
			return c.Read()
		}
		for _, part := range [][]byte{nil, wire[:5], wire[5:23]} {
			if pdu, err := read(part); !errors.Is(err, os.ErrDeadlineExceeded) {
				t.Fatalf("%v, %v", pdu, err)
			}
		}
		if pdu, err := read(wire[23:]); err != nil {
			t.Fatalf("%v, %v", pdu, err)
		}
		far.Close()
		if _, err := c.Read(); !errors.Is(err, io.EOF) {
			t.Fatal(err)
		}
	})
}

// FuzzRead holds Read to its promises for whatever comes, in both directions:
// it ends, and what it takes for a PDU can be written and read again.
func FuzzRead(f *testing.F) {
	for _, g := range golden {
		f.Add(other(g.from) == Controller, g.digests.header, g.digests.data, unhex(f, g.hex))
	}
	w, m := newTestConn(Controller, both, nil)
	w.Write(batch(2)...)
	f.Add(false, true, true, m.out.Bytes())
	f.Add(true, false, false, bytes.Repeat([]byte{0xff}, 200))
	f.Fuzz(func(t *testing.T, controller, header, data bool, in []byte) {
		role, d := Host, digests{header, data}
		if controller {
			role = Controller
		}
		c, _ := newTestConn(role, d, in)
		for {
			pdu, err := c.Read()
			if pdu == nil && err == nil {
				t.Fatal("neither a PDU nor an error")
			}
			if e, ok := errors.AsType[*ProtocolError](err); ok && (e.FES < FESInvalidHeader || e.FES > FESUnsupported) {
				t.Fatalf("FES %d", e.FES)
			}
			if err != nil && !errors.Is(err, ErrDataDigest) {
				return
			}
			first := clone(pdu)
			back, bm := newTestConn(other(role), d, nil)
			if err := back.Write(first); err != nil {
				t.Fatal(err)
			}
			again, _ := newTestConn(role, d, bm.out.Bytes())
			if second, err := again.Read(); err != nil || !reflect.DeepEqual(second, first) {
				t.Fatalf("read %+v, after a round trip %+v, %v", first, second, err)
			}
		}
	})
}

func BenchmarkStream(b *testing.B) {
	for _, d := range []digests{{}, both} {
		b.Run(fmt.Sprintf("digests=%t", d.header), func(b *testing.B) {
			data := &Data{Data: make([]byte, 16<<10)}
			w, m := newTestConn(Controller, d, nil)
			w.Write(data)
			wire := bytes.Clone(m.out.Bytes())
			r, rm := newTestConn(Host, d, wire)
			b.SetBytes(int64(len(wire)))
			b.ReportAllocs()
			for b.Loop() {
				m.out.Reset()
				w.Write(data)
				rm.in = bytes.NewReader(m.out.Bytes())
				if _, err := r.Read(); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
