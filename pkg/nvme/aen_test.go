package nvme

import "testing"

func TestParseAEN(t *testing.T) {
	for _, tc := range []struct {
		text string
		want AEN
		ok   bool
	}{
		{"0x70f002", DiscoveryLogChanged, true},
		{"0X70F002", DiscoveryLogChanged, true},
		{"70f002", DiscoveryLogChanged, true},
		{"0x0070f002", DiscoveryLogChanged, true},
		{"0", 0, true},
		{"ffffffff", 0xffffffff, true},
		{"100000000", 0, false},
		{"", 0, false},
		{"0x", 0, false},
		{"x70f002", 0, false},
		{"0x0x70f002", 0, false},
		{"-1", 0, false},
		{"+1", 0, false},
		{"7_0", 0, false},
		{" 70f002", 0, false},
		{"seven", 0, false},
	} {
		got, err := ParseAEN(tc.text)
		if got != tc.want || (err == nil) != tc.ok {
			t.Errorf("ParseAEN(%q) = %v, %v", tc.text, got, err)
		}
	}
}

func TestAENFields(t *testing.T) {
	for _, tc := range []struct {
		aen       AEN
		info, lid uint8
	}{
		{DiscoveryLogChanged, 0xf0, LogDiscovery},
		{NamespaceChanged, 0x00, LogChangedNamespaces},
		{ANAChanged, 0x03, LogANA},
	} {
		if a := tc.aen; a.Type() != AENNotice || a.Info() != tc.info || a.LogPage() != tc.lid {
			t.Errorf("%v: type %d, info %#x, log page %#x", a, a.Type(), a.Info(), a.LogPage())
		}
	}
}

func FuzzParseAEN(f *testing.F) {
	for _, s := range []string{"0x70f002", "70F002", "", "0x", "-1"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		a, err := ParseAEN(s)
		if err != nil {
			return
		}
		if b, err := ParseAEN(a.String()); err != nil || a != b {
			t.Errorf("%q is %v, which is %v, %v", s, a, b, err)
		}
	})
}
