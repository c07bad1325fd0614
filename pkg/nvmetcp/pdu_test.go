package nvmetcp

import (
	"bytes"
	"encoding/hex"
	"errors"
	"io"
	"net"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/nvme-stas/stas/pkg/nvme"
)

// memConn is a connection that reads from in and writes to out.
type memConn struct {
	net.Conn
	in     io.Reader
	out    bytes.Buffer
	writes int
}

func (m *memConn) Read(b []byte) (int, error) { return m.in.Read(b) }

func (m *memConn) Write(b []byte) (int, error) {
	m.writes++
	return m.out.Write(b)
}

var testLimits = Limits{InCapsule: AdminInCapsule, Data: 16 << 10}

// newTestConn is a Conn that reads in. Unless in begins with ICReq or ICResp
// the connection has been initialized already.
func newTestConn(role Role, d digests, in []byte) (*Conn, *memConn) {
	m := &memConn{in: bytes.NewReader(in)}
	c := NewConn(m, role, testLimits)
	c.digests = d
	c.started = len(in) > 0 && PDUType(in[0]) > ICRespType
	return c, m
}

func unhex(t testing.TB, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(strings.Join(strings.Fields(s), ""))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func zeros(n int) string { return strings.Repeat("00", n) }

var (
	both   = digests{header: true, data: true}
	onlyHD = digests{header: true}
	onlyDD = digests{data: true}
)

var (
	testCommand = nvme.Command{
		Opcode: 0x7f, Flags: 0x40, CID: 0x1234, NSID: 1,
		SGL: nvme.SGL{Length: 8, Type: 0x01}, CDW10: 0xa0b0c0d0, CDW15: 0xf1f2f3f4,
	}
	testCommandHex = "7f 40 34 12 01 00 00 00" + zeros(24) + "08 00 00 00 00 00 00 01" +
		"d0 c0 b0 a0" + zeros(16) + "f4 f3 f2 f1"
	testCompletion    = nvme.Completion{Result: 0x1122334455667788, SQHD: 0x0102, SQID: 0x0304, CID: 0x1234, Status: 0x4182}
	testCompletionHex = "88 77 66 55 44 33 22 11  02 01 04 03 34 12 04 83"
)

// The CRC32C values below were computed with another implementation.
var golden = []struct {
	name    string
	from    Role
	digests digests
	pdu     PDU
	hex     string
}{
	{
		name: "ICReq", from: Host,
		pdu: &ICReq{HPDA: 3, HeaderDigest: true, DataDigest: true, MaxR2T: 0x01020304},
		hex: "00 00 80 00 80 00 00 00  00 00 03 03 04 03 02 01" + zeros(112),
	},
	{
		name: "ICResp", from: Controller,
		pdu: &ICResp{CPDA: 1, DataDigest: true, MaxH2CData: 128 << 10},
		hex: "01 00 80 00 80 00 00 00  00 00 01 02 00 00 02 00" + zeros(112),
	},
	{
		name: "H2CTermReq", from: Host,
		pdu: &TermReq{FES: FESInvalidHeader, FEI: 0x01020304, Data: []byte{5, 0, 24, 0, 24, 0, 0, 0}},
		hex: "02 00 18 00 20 00 00 00  01 00 04 03 02 01" + zeros(10) + "05 00 18 00 18 00 00 00",
	},
	{
		name: "C2HTermReq carries no digests", from: Controller, digests: both,
		pdu: &TermReq{FES: FESHeaderDigest, FEI: 0xdeadbeef},
		hex: "03 00 18 00 18 00 00 00  03 00 ef be ad de" + zeros(10),
	},
	{
		name: "CapsuleCmd", from: Host,
		pdu: &CapsuleCmd{Cmd: testCommand},
		hex: "04 00 48 00 48 00 00 00" + testCommandHex,
	},
	{
		name: "CapsuleCmd with data", from: Host,
		pdu: &CapsuleCmd{Cmd: testCommand, Data: []byte("12345678")},
		hex: "04 00 48 48 50 00 00 00" + testCommandHex + "3132333435363738",
	},
	{
		name: "CapsuleCmd with data and digests", from: Host, digests: both,
		pdu: &CapsuleCmd{Cmd: testCommand, Data: []byte("12345678")},
		hex: "04 03 48 4c 58 00 00 00" + testCommandHex + "cf 86 e8 a1" + "3132333435363738" + "9a 80 87 60",
	},
	{
		name: "CapsuleCmd without data has one digest", from: Host, digests: both,
		pdu: &CapsuleCmd{Cmd: testCommand},
		hex: "04 01 48 00 4c 00 00 00" + testCommandHex + "25 f3 79 12",
	},
	{
		name: "CapsuleResp", from: Controller,
		pdu: &CapsuleResp{Cpl: testCompletion},
		hex: "05 00 18 00 18 00 00 00" + testCompletionHex,
	},
	{
		name: "CapsuleResp with digest", from: Controller, digests: both,
		pdu: &CapsuleResp{Cpl: testCompletion},
		hex: "05 01 18 00 1c 00 00 00" + testCompletionHex + "e2 a4 bd 02",
	},
	{
		name: "H2CData", from: Host,
		pdu: &Data{CID: 0x1234, TTAG: 0x5678, Offset: 0x01020304, Data: []byte{1, 2, 3, 4}, Last: true},
		hex: "06 04 18 18 1c 00 00 00  34 12 78 56 04 03 02 01 04 00 00 00 00 00 00 00  01 02 03 04",
	},
	{
		name: "H2CData, more to come, header digest", from: Host, digests: onlyHD,
		pdu: &Data{CID: 0x1234, TTAG: 0x5678, Data: []byte{1, 2, 3, 4}},
		hex: "06 01 18 1c 20 00 00 00  34 12 78 56 00 00 00 00 04 00 00 00 00 00 00 00  b6 bc 99 e9  01 02 03 04",
	},
	{
		name: "C2HData", from: Controller,
		pdu: &Data{CID: 0x1234, Offset: 0x01020304, Data: []byte{1, 2, 3, 4}, Last: true, Success: true},
		hex: "07 0c 18 18 1c 00 00 00  34 12 00 00 04 03 02 01 04 00 00 00 00 00 00 00  01 02 03 04",
	},
	{
		name: "C2HData, data digest", from: Controller, digests: onlyDD,
		pdu: &Data{CID: 0x1234, Data: make([]byte, 32), Last: true},
		hex: "07 06 18 18 3c 00 00 00  34 12 00 00 00 00 00 00 20 00 00 00 00 00 00 00" + zeros(32) + "aa 36 91 8a",
	},
	{
		name: "R2T", from: Controller,
		pdu: &R2T{CID: 0x1234, TTAG: 0x5678, Offset: 0x01020304, Length: 0x05060708},
		hex: "09 00 18 00 18 00 00 00  34 12 78 56 04 03 02 01 08 07 06 05 00 00 00 00",
	},
}

func other(r Role) Role { return 1 - r }

func TestGolden(t *testing.T) {
	for _, tc := range golden {
		t.Run(tc.name, func(t *testing.T) {
			want := unhex(t, tc.hex)
			c, m := newTestConn(tc.from, tc.digests, nil)
			if err := c.Write(tc.pdu); err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(hex.Dump(want), hex.Dump(m.out.Bytes())); diff != "" {
				t.Errorf("written (-want +got):\n%s", diff)
			}
			if got := c.Append([]byte("x"), tc.pdu); string(got) != "x"+string(want) {
				t.Errorf("appended % x", got)
			}
			c, _ = newTestConn(other(tc.from), tc.digests, want)
			got, err := c.Read()
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(tc.pdu, got); diff != "" {
				t.Errorf("read (-want +got):\n%s", diff)
			}
			if _, err := c.Read(); !errors.Is(err, io.EOF) {
				t.Errorf("after the PDU: %v", err)
			}
		})
	}
}

// TestCRC32C holds the digest to the vectors of RFC 3720, B.4, whose bytes are
// in the order of the wire.
func TestCRC32C(t *testing.T) {
	up := make([]byte, 32)
	for i := range up {
		up[i] = byte(i)
	}
	for _, tc := range []struct {
		name string
		data []byte
		want string
	}{
		{"zeroes", make([]byte, 32), "aa36918a"},
		{"ones", bytes.Repeat([]byte{0xff}, 32), "43aba862"},
		{"incrementing", up, "4e79dd46"},
		{"check value", []byte("123456789"), "839206e3"},
	} {
		if got := hex.EncodeToString(le.AppendUint32(nil, crc32c(tc.data))); got != tc.want {
			t.Errorf("%s: %s, want %s", tc.name, got, tc.want)
		}
	}
}

// TestFaults: what a controller says wrong on purpose arrives so on the wire.
func TestFaults(t *testing.T) {
	c, m := newTestConn(Controller, digests{}, nil)
	raw := Raw{0xff, 0xfe}
	if err := c.Write(ICResp{PFV: 0x0102, CPDA: 33, MaxH2CData: 5}, raw); err != nil {
		t.Fatal(err)
	}
	want := append(unhex(t, "01 00 80 00 80 00 00 00  02 01 21 00 05 00 00 00"+zeros(112)), raw...)
	if !bytes.Equal(m.out.Bytes(), want) {
		t.Errorf("% x", m.out.Bytes())
	}
}

func TestStrings(t *testing.T) {
	for got, want := range map[string]string{
		R2TType.String():         "R2T",
		PDUType(0x08).String():   "PDU type 0x08",
		PDUType(0xff).String():   "PDU type 0xff",
		FESSequence.String():     "PDU sequence error",
		FES(7).String():          "fatal error status 7",
		ErrDataDigest.Error():    "NVMe/TCP: the data digest is wrong",
		invalid(3, "x").Error():  "NVMe/TCP: invalid PDU header field: x",
		CapsuleCmdType.String():  "CapsuleCmd",
		CapsuleRespType.String(): "CapsuleResp",
	} {
		if got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
}
