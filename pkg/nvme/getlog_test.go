package nvme

import "testing"

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
	}
	for _, cmd := range []GetLogPage{
		{Length: 0}, {Length: 21}, {Length: 20, Offset: 2}, {Length: 20, LSP: 0x80},
	} {
		if got, err := cmd.Dwords(); err == nil {
			t.Errorf("%+v: %#x", cmd, got)
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
