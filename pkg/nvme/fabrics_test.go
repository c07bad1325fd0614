package nvme

import (
	"bytes"
	"encoding/json"
	"errors"
	"math"
	"testing"
	"time"
)

func checkCommand(t *testing.T, cmd Command, fields ...at) {
	t.Helper()
	checkImage(t, cmd, image(CommandSize, append(fields, at{1, "\x40"})...))
}

func TestConnectLayout(t *testing.T) {
	c := Connect{QID: 0x0201, SQSize: 0x0403, CAttr: CAttrDisableSQFlow | CAttrDiscovery, KATO: 30 * time.Second}
	checkCommand(t, c.Command(),
		at{0, "\x7f"}, at{4, "\x01"}, at{32, "\x00\x04\x00\x00"}, at{39, "\x01"},
		at{ConnectOffQID, "\x01\x02"}, at{ConnectOffSQSize, "\x03\x04"}, at{ConnectOffCAttr, "\x14"},
		at{ConnectOffKATO, "\x30\x75\x00\x00"},
	)
	if ConnectOffRecFmt != 40 || ConnectOffQID != 42 || ConnectOffSQSize != 44 || ConnectOffCAttr != 46 || ConnectOffKATO != 48 {
		t.Error("the offsets are not those of the specification")
	}
	got, err := ParseConnect(c.Command())
	if err != nil || got != c {
		t.Errorf("%+v, %v", got, err)
	}
	cmd := c.Command()
	cmd.CDW10 |= 1 // RECFMT
	if _, err := ParseConnect(cmd); !errors.Is(err, StatusConnectIncompatibleFormat) {
		t.Errorf("RECFMT 1: %v", err)
	}
}

func TestKATO(t *testing.T) {
	for _, tc := range []struct {
		kato time.Duration
		want uint32
	}{
		{0, 0}, {-time.Second, 0}, {1, 1}, {time.Millisecond, 1}, {time.Millisecond + 1, 2},
		{5 * time.Second, 5000}, {math.MaxInt64, math.MaxUint32},
	} {
		if got := (Connect{KATO: tc.kato}).Command().CDW12; got != tc.want {
			t.Errorf("%v: %d ms, want %d", tc.kato, got, tc.want)
		}
	}
}

func TestConnectDataLayout(t *testing.T) {
	d := ConnectData{
		HostID: HostID([]byte("0123456789abcdef")), CntlID: 0xfffe,
		SubNQN: "nqn.2014-08.org.example:a", HostNQN: "nqn.2014-08.org.example:host",
	}
	want := image(1024,
		at{0, "0123456789abcdef"}, at{16, "\xfe\xff"},
		at{256, "nqn.2014-08.org.example:a"}, at{512, "nqn.2014-08.org.example:host"})
	checkImage(t, d, want)
	checkDecode(t, DecodeConnectData, want, d)
}

func TestConnectResult(t *testing.T) {
	r := NewConnectResult(0x1234, true)
	if r != 0x21234 || r.CntlID() != 0x1234 || !r.ATR() || r.ASCR() {
		t.Errorf("%#x", r)
	}
	if r := NewConnectResult(0xffef, false); r != 0xffef || r.ATR() {
		t.Errorf("%#x", r)
	}
	if r := ConnectResult(1 << 18); r.ATR() || !r.ASCR() {
		t.Error("ASCR is bit 18")
	}
	if r := NewInvalidParameter(ConnectDataOffHostNQN, true); r != 0x10200 {
		t.Errorf("%#x", r)
	}
	for _, inData := range []bool{false, true} {
		offset, in := NewInvalidParameter(44, inData).InvalidParameter()
		if offset != 44 || in != inData {
			t.Errorf("%d, %t", offset, in)
		}
	}
}

func TestPropertyLayout(t *testing.T) {
	get := PropertyGet(Property{Offset: PropCAP, Wide: true, Value: 1})
	checkCommand(t, get, at{0, "\x7f"}, at{4, "\x04"}, at{39, "\x5a"}, at{40, "\x01"})
	get = PropertyGet(Property{Offset: PropCRTO})
	checkCommand(t, get, at{0, "\x7f"}, at{4, "\x04"}, at{39, "\x5a"}, at{44, "\x68\x00\x00\x00"})

	p := Property{Offset: PropCC, Value: CCEntrySizes | CCShutdownNormal | CCEnable}
	set := PropertySet(p)
	checkCommand(t, set, at{0, "\x7f"}, at{39, "\x5a"}, at{44, "\x14"}, at{48, "\x01\x40\x46\x00"}) // as Linux has it
	if got := ParseProperty(set); got != p {
		t.Errorf("%+v", got)
	}
	p = Property{Offset: 0x01020304, Wide: true, Value: 0x1122334455667788}
	checkCommand(t, PropertySet(p), at{0, "\x7f"}, at{39, "\x5a"}, at{40, "\x01"},
		at{44, "\x04\x03\x02\x01"}, at{48, "\x88\x77\x66\x55\x44\x33\x22\x11"})
	if got := ParseProperty(PropertySet(p)); got != p {
		t.Errorf("%+v", got)
	}
}

func TestProperties(t *testing.T) {
	for offset, want := range map[uint32]uint32{PropCAP: 0, PropVS: 8, PropCC: 0x14, PropCSTS: 0x1c, PropCRTO: 0x68} {
		if offset != want {
			t.Errorf("a property is at %#x, want %#x", offset, want)
		}
	}
	value := uint64(127 | CAPContiguous | 15<<CAPTimeoutShift | CAPNVM)
	if value != 0x2_0_0f01_007f || CAPMaxEntries(value) != 128 || CAPTimeout(value) != 7500*time.Millisecond {
		t.Errorf("%#x: %d entries, %v", value, CAPMaxEntries(value), CAPTimeout(value))
	}
	if CCEntrySizes != 0x460000 || CCShutdownMask != 0xc000 || CSTSShutdownComplete != 8 || CSTSReady != 1 || CSTSFatal != 2 {
		t.Error("bits of CC or CSTS are not those of the specification")
	}
}

func TestAuthLayout(t *testing.T) {
	send := AuthSend(AuthParams{Length: 0x01020304})
	checkCommand(t, send, at{0, "\x7f"}, at{4, "\x05"}, at{32, "\x04\x03\x02\x01"}, at{39, "\x01"},
		at{40, "\x00\x01\x01\xe9"}, at{44, "\x04\x03\x02\x01"})
	receive := AuthReceive(AuthParams{Length: 4096})
	checkCommand(t, receive, at{0, "\x7f"}, at{4, "\x06"}, at{32, "\x00\x10"}, at{39, "\x5a"},
		at{40, "\x00\x01\x01\xe9"}, at{44, "\x00\x10"})
	for cdw10, ok := range map[uint32]bool{
		0xe9010100: true, 0xe90101ff: true, 0xe8010100: false, 0xe9020100: false, 0xe9010200: false, 0: false,
	} {
		receive.CDW10 = cdw10
		p, err := ParseAuth(receive)
		if ok != (err == nil) || ok && p.Length != 4096 || !ok && !errors.Is(err, StatusInvalidField) {
			t.Errorf("%#x: %+v, %v", cdw10, p, err)
		}
	}
}

func TestDisconnectLayout(t *testing.T) {
	checkCommand(t, Disconnect(), at{0, "\x7f"}, at{4, "\x08"}, at{39, "\x5a"})
}

func TestHostID(t *testing.T) {
	const text = "f1e2d3c4-0001-0203-0405-060708090a0b"
	want := HostID{0xf1, 0xe2, 0xd3, 0xc4, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11} // in the order of the text
	for _, s := range []string{text, "F1E2D3C4-0001-0203-0405-060708090A0B"} {
		got, err := ParseHostID(s)
		if err != nil || got != want || got.String() != text || got.IsZero() {
			t.Errorf("%q: %v, %v", s, got, err)
		}
	}
	var read HostID
	if b, err := json.Marshal(want); err != nil || string(b) != `"`+text+`"` || json.Unmarshal(b, &read) != nil || read != want {
		t.Errorf("as JSON: %s, %v; read: %v", b, err, read)
	}
	for _, s := range []string{
		"", "f1e2d3c4000102030405060708090a0b", text[1:], text + "0", "{" + text[1:],
		"f1e2d3c4-0001-0203-0405-060708090a0g", "f1e2d3c40-001-0203-0405-060708090a0b",
	} {
		if id, err := ParseHostID(s); err == nil || !id.IsZero() {
			t.Errorf("%q: %v", s, id)
		}
	}
}

func FuzzParseHostID(f *testing.F) {
	f.Add("f1e2d3c4-0001-0203-0405-060708090a0b")
	f.Fuzz(func(t *testing.T, s string) {
		id, err := ParseHostID(s)
		if err != nil {
			return
		}
		if again, err := ParseHostID(id.String()); err != nil || again != id {
			t.Errorf("%q is %v, which is %v, %v", s, id, again, err)
		}
	})
}

func FuzzDecodeConnectData(f *testing.F) {
	b, err := ConnectData{SubNQN: WellKnownDiscoveryNQN, HostNQN: "nqn.a"}.AppendBinary(nil)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(b)
	f.Add(bytes.Repeat([]byte(" "), ConnectDataSize))
	f.Fuzz(func(t *testing.T, b []byte) { checkFixedPoint(t, DecodeConnectData, b) })
}
