package nvme

import (
	"slices"
	"testing"
)

func TestCommandNames(t *testing.T) {
	for _, tc := range []struct {
		opcode uint8
		fctype FCType
		io     bool
		want   string
	}{
		{0x02, 0, false, "get-log-page"},
		{0x02, 0, true, "read"},
		{0x01, 0, true, "write"},
		{0x00, 0, true, "flush"},
		{0x08, 0, true, "write-zeroes"},
		{0x09, 0, true, "dataset-mgmt"},
		{0x06, 7, false, "identify"}, // what is no Fabrics command has no FCTYPE
		{0x08, 0, false, "abort"},
		{0x09, 0, false, "set-features"},
		{0x0a, 0, false, "get-features"},
		{0x0c, 0, false, "async-event-request"},
		{0x18, 0, false, "keep-alive"},
		{0x21, 0, false, "discovery-info-mgmt"},
		{0x7f, 0x00, false, "property-set"},
		{0x7f, 0x01, false, "connect"},
		{0x7f, 0x01, true, "connect"}, // the same on each queue
		{0x7f, 0x04, false, "property-get"},
		{0x7f, 0x05, false, "auth-send"},
		{0x7f, 0x06, true, "auth-receive"},
		{0x7f, 0x08, true, "disconnect"},
		{0x80, 0, false, "admin-0x80"},
		{0x01, 0, false, "admin-0x01"},
		{0x05, 0, true, "io-0x05"},
		{0x7f, 0x03, true, "fabrics-0x03"},
	} {
		got := CommandName(tc.opcode, tc.fctype, tc.io)
		if got != tc.want || !KnownCommand(got) {
			t.Errorf("%#x %#x %t: %q, want %q", tc.opcode, tc.fctype, tc.io, got, tc.want)
		}
		id, ok := ParseCommandName(tc.want)
		if !ok || id.Opcode != tc.opcode || CommandName(id.Opcode, id.FCType, id.IO) != tc.want {
			t.Errorf("%q: %+v, %t", tc.want, id, ok)
		}
	}
	for _, s := range []string{
		"", "Connect", "get log page", "admin-", "admin-0x", "admin-0x100", "admin-0x8", "admin-0X80", "io-0x-1",
		"admin-0x06", // it has a name
		"io-0x7f",    // a Fabrics command, which has no kind of queue
		"fabrics-0x01",
	} {
		if id, ok := ParseCommandName(s); ok {
			t.Errorf("%q: %+v", s, id)
		}
	}
	names := CommandNames()
	if len(names) != len(commandNames) || !slices.IsSorted(names) || !slices.Contains(names, "connect") {
		t.Errorf("%q", names)
	}
}

func FuzzParseCommandName(f *testing.F) {
	for _, s := range []string{"connect", "admin-0x80", "io-0x05", "fabrics-0x03", "io-0x7f"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		if id, ok := ParseCommandName(s); ok && (id.String() != s || CommandName(id.Opcode, id.FCType, id.IO) != s) {
			t.Errorf("%q is %+v, which is %q", s, id, id)
		}
	})
}
