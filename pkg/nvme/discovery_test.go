package nvme

import (
	"bytes"
	"strings"
	"testing"
)

func testEntry() DiscoveryLogEntry {
	return DiscoveryLogEntry{
		TrType: TCP, AdrFam: FamilyIPv6, SubType: NVMSubsystem, TReq: TReqDisableSQFlow | SecureNotRequired,
		PortID: 7, CntlID: CntlIDDynamic, ASQSz: 32, EFlags: 0x0004,
		TrSvcID: "4420", SubNQN: "nqn.2014-08.org.example:a", TrAddr: "fe80::1%eth0",
		TSAS: [256]byte{2},
	}
}

func encodeEntry(t testing.TB, e DiscoveryLogEntry) []byte {
	t.Helper()
	b, err := e.AppendBinary(nil)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestHeader(t *testing.T) {
	want := DiscoveryLogHeader{GenCtr: 1<<63 + 5, NumRec: 0x0102030405060708, RecFmt: 0x1122}
	b, err := want.AppendBinary(nil)
	if err != nil || len(b) != LogHeaderSize {
		t.Fatalf("%d bytes, %v", len(b), err)
	}
	if !bytes.Equal(b[8:20], []byte{8, 7, 6, 5, 4, 3, 2, 1, 0x22, 0x11, 0, 0}) {
		t.Errorf("on the wire: % x", b[8:20])
	}
	got, err := DecodeLogHeader(b[:LogHeaderUsed])
	if err != nil || got != want {
		t.Errorf("decoded %+v, %v", got, err)
	}
	if _, err := DecodeLogHeader(b[:LogHeaderUsed-1]); err == nil {
		t.Error("a short header was decoded")
	}
}

func TestHeaderFlags(t *testing.T) {
	h := DiscoveryLogHeader{GenCtr: 1, NumRec: 2, Flags: LSPExtended | LSPAllSubsystems, Length: 0x01020304}
	want := image(1024, at{0, "\x01"}, at{8, "\x02"}, at{18, "\x05"}, at{20, "\x04\x03\x02\x01"})
	checkImage(t, h, want)
	if got, err := DecodeLogHeader(want[:24]); err != nil || got != h {
		t.Errorf("%+v, %v", got, err)
	}
	h.Length = 0 // not read, which is not reported
	if got, err := DecodeLogHeader(want[:LogHeaderUsed]); err != nil || got != h {
		t.Errorf("%+v, %v", got, err)
	}
}

func TestEntry(t *testing.T) {
	want := testEntry()
	b := encodeEntry(t, want)
	if len(b) != EntrySize {
		t.Fatalf("%d bytes", len(b))
	}
	if head := []byte{3, 2, 2, 6, 7, 0, 0xff, 0xff, 32, 0, 4, 0}; !bytes.Equal(b[:12], head) {
		t.Errorf("on the wire: % x, want % x", b[:12], head)
	}
	got, err := DecodeLogEntry(b)
	if err != nil || got != want {
		t.Errorf("decoded %+v, %v", got, err)
	}
	if got.Security() != SecurityTLS13 {
		t.Errorf("security %v", got.Security())
	}
	got.TrType = RDMA // TSAS byte 0 is the QPTYPE there
	if got.Security() != SecurityNone {
		t.Errorf("security of rdma %v", got.Security())
	}
	if _, err := DecodeLogEntry(b[:EntrySize-1]); err == nil {
		t.Error("a short entry was decoded")
	}
}

func TestEntryLayout(t *testing.T) {
	checkImage(t, testEntry(), image(1024,
		at{0, "\x03"}, at{1, "\x02"}, at{2, "\x02"}, at{3, "\x06"}, at{4, "\x07\x00"}, at{6, "\xff\xff"},
		at{8, "\x20\x00"}, at{10, "\x04\x00"}, at{32, "4420"}, at{256, "nqn.2014-08.org.example:a"},
		at{512, "fe80::1%eth0"}, at{768, "\x02"}))
}

func TestEntryText(t *testing.T) {
	for _, tc := range []struct {
		name, raw, want string
		bad             bool
	}{
		{name: "blank padded", raw: "192.0.2.1" + strings.Repeat(" ", 247), want: "192.0.2.1"},
		{name: "garbage behind the NUL", raw: "192.0.2.1\x00\xff\x01", want: "192.0.2.1"},
		{name: "blank before the NUL", raw: " 192.0.2.1 \x00", want: "192.0.2.1"},
		{name: "empty", raw: "", want: ""},
		{name: "full", raw: strings.Repeat("a", 256), want: strings.Repeat("a", 256)},
		{name: "newline", raw: "192.0.2.1\n", bad: true},
		{name: "escape", raw: "\x1b[2J", bad: true},
		{name: "C1 control", raw: "a\u009bb", bad: true},
		{name: "not UTF-8", raw: "a\xc3", bad: true},
	} {
		t.Run(tc.name, func(t *testing.T) {
			b := encodeEntry(t, testEntry())
			clear(b[offTRADDR:][:sizeTRADDR])
			copy(b[offTRADDR:][:sizeTRADDR], tc.raw)
			e, err := DecodeLogEntry(b)
			if (err != nil) != tc.bad || e.TrAddr != tc.want {
				t.Errorf("%q, %v; want %q", e.TrAddr, err, tc.want)
			}
			if err != nil && strings.ContainsAny(err.Error(), "\n\x1b") {
				t.Errorf("the error repeats the control character: %q", err)
			}
		})
	}
}

func TestEntryFC(t *testing.T) {
	e := testEntry()
	e.TrType, e.TrAddr = FC, "nn-0x1,pn-0x2"
	got, err := DecodeLogEntry(encodeEntry(t, e))
	if err != nil || got.TrAddr != "nn-0x1:pn-0x2" {
		t.Errorf("%q, %v", got.TrAddr, err)
	}
}

func TestEntryRefusesToEncode(t *testing.T) {
	for _, spoil := range []func(*DiscoveryLogEntry){
		func(e *DiscoveryLogEntry) { e.TrSvcID = strings.Repeat("1", 33) },
		func(e *DiscoveryLogEntry) { e.TrAddr = strings.Repeat("1", 257) },
		func(e *DiscoveryLogEntry) { e.SubNQN = "a\x00b" },
	} {
		e := testEntry()
		spoil(&e)
		if b, err := e.AppendBinary(nil); err == nil || len(b) != 0 {
			t.Errorf("%+v: %d bytes, %v", e, len(b), err)
		}
	}
}

func FuzzDecodeEntry(f *testing.F) {
	f.Add(encodeEntry(f, testEntry()))
	f.Add(make([]byte, EntrySize))
	f.Add(bytes.Repeat([]byte{0xff}, EntrySize))
	f.Add([]byte("short"))
	f.Fuzz(func(t *testing.T, b []byte) {
		first, err := DecodeLogEntry(b)
		if err != nil {
			return
		}
		second, err := DecodeLogEntry(encodeEntry(t, first))
		if err != nil || second != first {
			t.Errorf("decoded %+v, after a round trip %+v, %v", first, second, err)
		}
	})
}
