package nvme

import (
	"errors"
	"testing"
)

func TestGetLogPage(t *testing.T) {
	for _, tc := range []struct {
		cmd  GetLogPage
		want [4]uint32
		nsid uint32
	}{
		{GetLogPage{LID: LogDiscovery, Length: 20}, [4]uint32{0x0004_0070}, 0},
		{GetLogPage{LID: LogDiscovery, LSP: LSPPortLocal, RAE: true, Offset: 1024, Length: 4096}, [4]uint32{0x03ff_8270, 0, 1024}, 0},
		{GetLogPage{LID: LogSupportedPages, Length: 1024}, [4]uint32{0x00ff_0000}, 0xffffffff},
		{GetLogPage{LID: LogDiscovery, Offset: 1<<32 + 8, Length: 1 << 20}, [4]uint32{0xffff_0070, 3, 8, 1}, 0},
	} {
		got, err := tc.cmd.Dwords()
		if err != nil || got != tc.want || tc.cmd.NSID() != tc.nsid {
			t.Errorf("%+v: %#x, nsid %#x, %v", tc.cmd, got, tc.cmd.NSID(), err)
		}
		cmd, err := tc.cmd.Command()
		if err != nil {
			t.Fatal(err)
		}
		if back, err := ParseGetLogPage(cmd); err != nil || back != tc.cmd {
			t.Errorf("%+v becomes %+v, %v", tc.cmd, back, err)
		}
	}
	for _, cmd := range []GetLogPage{
		{Length: 0}, {Length: 21}, {Length: 20, Offset: 2}, {Length: 20, LSP: 0x80},
	} {
		if got, err := cmd.Dwords(); err == nil {
			t.Errorf("%+v: %#x", cmd, got)
		}
		if got, err := cmd.Command(); err == nil {
			t.Errorf("%+v: %+v", cmd, got)
		}
	}
}

func TestGetLogPageLayout(t *testing.T) {
	g := GetLogPage{LID: LogANA, LSP: 0x2a, RAE: true, Offset: 0x1112131415161718, Length: 0x3fc00}
	cmd, err := g.Command()
	if err != nil {
		t.Fatal(err)
	}
	checkCommand(t, cmd, at{0, "\x02"}, at{4, "\xff\xff\xff\xff"}, at{32, "\x00\xfc\x03\x00"}, at{39, "\x5a"},
		at{40, "\x0c\xaa\xff\xfe"}, at{48, "\x18\x17\x16\x15\x14\x13\x12\x11"})
}

func TestParseGetLogPage(t *testing.T) {
	for _, tc := range []struct {
		cmd  Command
		want GetLogPage
		ok   bool
	}{
		{Command{}, GetLogPage{Length: 4}, true},
		{Command{CDW10: 0xffff_ff70, CDW11: 0x3ffe}, GetLogPage{LID: 0x70, LSP: 0x7f, RAE: true, Length: 0xfffc0000}, true},
		{Command{CDW10: 0xfffe_0000, CDW11: 0x3fff}, GetLogPage{Length: 0xfffffffc}, true},
		{Command{CDW10: 0xffff_0000, CDW11: 0x3fff}, GetLogPage{}, false}, // 4 GiB
		{Command{CDW10: 0xffff_0000, CDW11: 0xffff}, GetLogPage{}, false}, // all there is to say
		{Command{CDW11: 0xffff_0000}, GetLogPage{Length: 4}, true},        // LSI is not of interest
		{Command{CDW12: 6}, GetLogPage{}, false},
		{Command{CDW13: 1}, GetLogPage{Offset: 1 << 32, Length: 4}, true},
		{Command{CDW14: 1 << 23}, GetLogPage{}, false}, // offset by index
		{Command{CDW14: 0x7f}, GetLogPage{Length: 4}, true},
	} {
		got, err := ParseGetLogPage(tc.cmd)
		if got != tc.want || (err == nil) != tc.ok || err != nil && !errors.Is(err, StatusInvalidField) {
			t.Errorf("%+v: %+v, %v", tc.cmd, got, err)
		}
	}
}

func TestLogPageSupported(t *testing.T) {
	page := make([]byte, SupportedLogPagesSize)
	copy(page[4*0x70:], []byte{1, 0, 6, 0})
	if s := LogPageSupported(page, LogDiscovery); !s.Supported() || s.LSP() != LSPPortLocal|LSPAllSubsystems {
		t.Errorf("%#x", s)
	}
	if s := LogPageSupported(page[:4*0x70+3], LogDiscovery); s.Supported() {
		t.Errorf("a short page supports %#x", s)
	}
	if s := LogPageSupported(page, 0xff); s.Supported() {
		t.Errorf("the last page is %#x", s)
	}
}

func TestAppendSupportedLogPages(t *testing.T) {
	page := AppendSupportedLogPages([]byte("x"), map[uint8]LogPageSupport{
		LogSupportedPages: NewLogPageSupport(0),
		LogDiscovery:      NewLogPageSupport(LSPExtended | LSPAllSubsystems),
		0xff:              0x01020304,
	})[1:]
	sameBytes(t, page, image(1024, at{0, "\x01\x00\x00\x00"}, at{0x1c0, "\x01\x00\x05\x00"}, at{1020, "\x04\x03\x02\x01"}))
	if s := LogPageSupported(page, LogDiscovery); !s.Supported() || s.LSP() != LSPExtended|LSPAllSubsystems {
		t.Errorf("%#x", s)
	}
	if s := LogPageSupported(page, LogANA); s != 0 {
		t.Errorf("%#x", s)
	}
}
