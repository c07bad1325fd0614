package nvme

import (
	"bytes"
	"testing"
)

func TestCommandLayout(t *testing.T) {
	cmd := Command{
		Opcode: 0x7f, Flags: 0x40, CID: 0x0201, NSID: 0x06050403, CDW2: 0x0a090807, CDW3: 0x0e0d0c0b,
		Metadata: 0x161514131211100f,
		SGL:      SGL{Address: 0x2726252423222120, Length: 0x2b2a2928, Type: 0x5a},
		CDW10:    0x33323130, CDW11: 0x37363534, CDW12: 0x3b3a3938,
		CDW13: 0x3f3e3d3c, CDW14: 0x43424140, CDW15: 0x47464544,
	}
	want := image(64,
		at{0, "\x7f"}, at{1, "\x40"}, at{2, "\x01\x02"}, at{4, "\x03\x04\x05\x06"},
		at{8, "\x07\x08\x09\x0a"}, at{12, "\x0b\x0c\x0d\x0e"}, at{16, "\x0f\x10\x11\x12\x13\x14\x15\x16"},
		at{24, "\x20\x21\x22\x23\x24\x25\x26\x27"}, at{32, "\x28\x29\x2a\x2b"}, at{39, "\x5a"},
		at{40, "\x30\x31\x32\x33"}, at{44, "\x34\x35\x36\x37"}, at{48, "\x38\x39\x3a\x3b"},
		at{52, "\x3c\x3d\x3e\x3f"}, at{56, "\x40\x41\x42\x43"}, at{60, "\x44\x45\x46\x47"},
	)
	checkImage(t, cmd, want)
	checkDecode(t, DecodeCommand, want, cmd)
}

func TestCompletionLayout(t *testing.T) {
	cpl := Completion{Result: 0x0807060504030201, SQHD: 0x0a09, SQID: 0x0c0b, CID: 0x0e0d, Status: 0x4182}
	want := image(16,
		at{0, "\x01\x02\x03\x04\x05\x06\x07\x08"}, at{8, "\x09\x0a"}, at{10, "\x0b\x0c"}, at{12, "\x0d\x0e"},
		at{14, "\x04\x83"}, // 4182h << 1
	)
	checkImage(t, cpl, want)
	checkDecode(t, DecodeCompletion, want, cpl)
	want[14] |= 1 // the phase tag is none of ours
	checkDecode(t, DecodeCompletion, want, cpl)
}

func TestDirection(t *testing.T) {
	for _, tc := range []struct {
		cmd     Command
		fabrics bool
		want    Direction
	}{
		{Command{Opcode: OpIdentify}, false, ToHost},
		{Command{Opcode: OpGetLogPage}, false, ToHost},
		{Command{Opcode: OpSetFeatures}, false, ToController},
		{Command{Opcode: OpGetFeatures}, false, ToHost},
		{Command{Opcode: OpKeepAlive}, false, NoData},
		{Command{Opcode: OpAsyncEventRequest}, false, NoData},
		{Command{Opcode: OpDiscoveryInfoMgmt}, false, ToController},
		{Command{Opcode: OpWrite}, false, ToController},
		{Command{Opcode: OpRead}, false, ToHost},
		{Command{Opcode: OpFlush}, false, NoData},
		{Command{Opcode: OpWriteZeroes}, false, NoData},
		{Command{Opcode: OpDSM}, false, ToController},
		{Command{Opcode: 0x03}, false, Both},
		{Connect{}.Command(), true, ToController},
		{PropertyGet(Property{}), true, NoData},
		{PropertySet(Property{}), true, NoData},
		{AuthSend(AuthParams{}), true, ToController},
		{AuthReceive(AuthParams{}), true, ToHost},
		{Disconnect(), true, NoData},
	} {
		if got := tc.cmd.Direction(); got != tc.want || tc.cmd.Fabrics() != tc.fabrics {
			t.Errorf("%+v: direction %d, want %d", tc.cmd, got, tc.want)
		}
	}
}

func FuzzDecodeCommand(f *testing.F) {
	f.Add(bytes.Repeat([]byte{0x5a}, CommandSize))
	f.Add([]byte{0x7f})
	f.Fuzz(func(t *testing.T, b []byte) {
		checkFixedPoint(t, DecodeCommand, b)
		cmd, err := DecodeCommand(b)
		if err != nil {
			return
		}
		// Whatever the bytes, the parsers take them or refuse them.
		if c, err := ParseConnect(cmd); err == nil {
			if again, err := ParseConnect(c.Command()); err != nil || again != c {
				t.Errorf("%+v is %+v, %v", c, again, err)
			}
		}
		if g, err := ParseGetLogPage(cmd); err == nil {
			c, err := g.Command()
			if err != nil {
				t.Fatalf("%+v: %v", g, err)
			}
			if again, err := ParseGetLogPage(c); err != nil || again != g {
				t.Errorf("%+v is %+v, %v", g, again, err)
			}
		}
		if p := ParseProperty(cmd); ParseProperty(PropertySet(p)) != p {
			t.Errorf("%+v", p)
		}
		if i := ParseIdentify(cmd); ParseIdentify(i.Command()) != i {
			t.Errorf("%+v", i)
		}
		if a, err := ParseAuth(cmd); err == nil {
			if again, err := ParseAuth(AuthSend(a)); err != nil || again != a {
				t.Errorf("%+v is %+v, %v", a, again, err)
			}
		}
		for _, io := range []bool{false, true} {
			name := CommandName(cmd.Opcode, cmd.FCType(), io)
			id, ok := ParseCommandName(name)
			if !ok || id.Opcode != cmd.Opcode || id.String() != name {
				t.Errorf("%q is %+v", name, id)
			}
		}
	})
}

func FuzzDecodeCompletion(f *testing.F) {
	f.Add(bytes.Repeat([]byte{0xff}, CompletionSize))
	f.Fuzz(func(t *testing.T, b []byte) { checkFixedPoint(t, DecodeCompletion, b) })
}

func BenchmarkCommand(b *testing.B) {
	raw := make([]byte, 0, CommandSize)
	b.ReportAllocs()
	for b.Loop() {
		raw, _ = Command{Opcode: OpRead, CID: 7}.AppendBinary(raw[:0])
		if cmd, err := DecodeCommand(raw); err != nil || cmd.CID != 7 {
			b.Fatal(cmd, err)
		}
	}
}
