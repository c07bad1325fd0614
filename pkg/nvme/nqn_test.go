package nvme

import (
	"strings"
	"testing"
	"time"
)

func TestCheckNQN(t *testing.T) {
	long := "nqn.2014-08.org.example:" + strings.Repeat("x", MaxNQN)
	for _, tc := range []struct {
		nqn string
		ok  bool
	}{
		{WellKnownDiscoveryNQN, true},
		{"nqn.2014-08.org.nvmexpress:uuid:427a2ee6-5386-11ec-8b8b-c85b7670fcd5", true},
		{"nqn.2014-08.org.example:größe", true},
		{long[:MaxNQN], true},
		{long[:MaxNQN+1], false},
		{"", false},
		{"NQN.2014-08.org.example:a", false},
		{"iqn.2014-08.org.example:a", false},
		{"nqn.a,hostid=b", false},
		{"nqn.a b", false},
		{"nqn.a\u00a0b", false},
		{"nqn.a\n", false},
		{"nqn.a\x00", false},
		{"nqn.a\u202eb", false}, // would reverse the rest of a log line
		{"nqn.\xff", false},
	} {
		if err := CheckNQN(tc.nqn); (err == nil) != tc.ok {
			t.Errorf("CheckNQN(%q) = %v, want ok %t", tc.nqn, err, tc.ok)
		}
	}
}

func TestAdvertisedTimeout(t *testing.T) {
	for nqn, want := range map[string]time.Duration{
		"nqn.2026-01.org.example:a":                               0,
		"nqn.2026-01.org.example:a:timeout_ms=2500":               2500 * time.Millisecond,
		"nqn.a:timeout_ms=1":                                      time.Millisecond,
		"nqn.a:timeout_ms=007":                                    7 * time.Millisecond,
		"nqn.a:timeout_ms=1:timeout_ms=2":                         2 * time.Millisecond,
		"nqn.a:timeout_ms=2147483647000":                          maxTimeout,
		"nqn.a:timeout_ms=2147483647001":                          0,
		"nqn.a:timeout_ms=99999999999999999999999999999999999999": 0,
		"nqn.a:timeout_ms=0":                                      0,
		"nqn.a:timeout_ms=":                                       0,
		"nqn.a:timeout_ms=-1":                                     0,
		"nqn.a:timeout_ms=+1":                                     0,
		"nqn.a:timeout_ms=1s":                                     0,
		"nqn.a:timeout_ms=1\x20":                                  0,
		"nqn.a:timeout_ms=0x10":                                   0,
		"nqn.a:timeout_ms=1_0":                                    0,
		"nqn.a:timeout_ms=5:b":                                    0,
		"nqn.a:TIMEOUT_MS=5":                                      0,
		"timeout_ms=5":                                            0,
		"":                                                        0,
	} {
		if got, ok := AdvertisedTimeout(nqn); got != want || ok != (want != 0) {
			t.Errorf("%q: %v, %v, want %v", nqn, got, ok, want)
		}
	}
}

func FuzzAdvertisedTimeout(f *testing.F) {
	f.Add("nqn.a:timeout_ms=2500")
	f.Add(":timeout_ms=99999999999999999999")
	f.Fuzz(func(t *testing.T, nqn string) {
		if d, ok := AdvertisedTimeout(nqn); ok != (d > 0) || d > maxTimeout || ok && !strings.Contains(nqn, timeoutSuffix) {
			t.Errorf("%q: %v, %v", nqn, d, ok)
		}
	})
}
