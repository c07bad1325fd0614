package nvme

import (
	"bytes"
	"encoding/json"
	"testing"
)

func TestANALogLayout(t *testing.T) {
	log := ANALog{ChangeCount: 0x0102030405060708, Groups: []ANAGroup{
		{ID: 0x11121314, ChangeCount: 0x2122232425262728, State: ANAInaccessible, NSIDs: []uint32{1, 0x31323334}},
		{ID: 2, State: ANAChange},
	}}
	want := image(16+32+8+32,
		at{0, "\x08\x07\x06\x05\x04\x03\x02\x01"}, at{8, "\x02\x00"},
		at{16, "\x14\x13\x12\x11"}, at{20, "\x02\x00\x00\x00"}, at{24, "\x28\x27\x26\x25\x24\x23\x22\x21"}, at{32, "\x03"},
		at{48, "\x01\x00\x00\x00"}, at{52, "\x34\x33\x32\x31"},
		at{56, "\x02\x00\x00\x00"}, at{72, "\x0f"})
	checkImage(t, log, want)
	checkDecode(t, DecodeANALog, want, log)

	checkDecode(t, DecodeANALog, make([]byte, 16), ANALog{})
	want[20+3] = 0xff // billions of namespaces
	if log, err := DecodeANALog(want); err == nil {
		t.Errorf("%+v", log)
	}
	if b, err := (ANALog{Groups: make([]ANAGroup, 65536)}).AppendBinary(nil); err == nil {
		t.Errorf("65536 groups in %d bytes", len(b))
	}
}

func TestANAState(t *testing.T) {
	for state, want := range map[ANAState]string{
		1: "optimized", 2: "non-optimized", 3: "inaccessible", 4: "persistent-loss", 15: "change",
	} {
		if got, ok := ParseANAState(want); !ok || got != state || state.String() != want {
			t.Errorf("%q is %v, %t", want, got, ok)
		}
		text, err := json.Marshal(state)
		var back ANAState
		if err != nil || string(text) != `"`+want+`"` || json.Unmarshal(text, &back) != nil || back != state {
			t.Errorf("%v: %s, %v, %v", state, text, err, back)
		}
	}
	if s := ANAState(0).String(); s != "0" {
		t.Error(s)
	}
	for _, s := range []string{"", "0", "1", "Optimized", "persistent_loss"} {
		var state ANAState
		if _, ok := ParseANAState(s); ok || state.UnmarshalText([]byte(s)) == nil {
			t.Errorf("%q is a state", s)
		}
	}
}

func FuzzDecodeANALog(f *testing.F) {
	b, err := ANALog{Groups: []ANAGroup{{ID: 1, State: ANAOptimized, NSIDs: []uint32{1, 2}}, {ID: 2}}}.AppendBinary(nil)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(b)
	f.Add(bytes.Repeat([]byte{0xff}, 100))
	f.Fuzz(func(t *testing.T, b []byte) { checkFixedPoint(t, DecodeANALog, b) })
}
