package nvme

import (
	"strings"
	"testing"
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
