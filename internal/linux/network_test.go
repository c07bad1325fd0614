package linux

import (
	"net/netip"
	"testing"

	"github.com/nvme-stas/stas/internal/ifaces"
)

func TestCameUp(t *testing.T) {
	eth := func(name string, up bool, addrs ...string) ifaces.Iface {
		i := ifaces.Iface{Name: name, Up: up}
		for _, a := range addrs {
			i.Addrs = append(i.Addrs, netip.MustParsePrefix(a))
		}
		return i
	}
	type list = []ifaces.Iface
	for name, tt := range map[string]struct {
		before, now list
		want        bool
	}{
		"nothing":                     {list{eth("eth0", true, "10.0.0.1/8")}, list{eth("eth0", true, "10.0.0.1/8")}, false},
		"new":                         {nil, list{eth("eth0", true)}, true},
		"new, but down":               {nil, list{eth("eth0", false, "10.0.0.1/8")}, false},
		"up":                          {list{eth("eth0", false, "10.0.0.1/8")}, list{eth("eth0", true, "10.0.0.1/8")}, true},
		"down":                        {list{eth("eth0", true)}, list{eth("eth0", false)}, false},
		"gone":                        {list{eth("eth0", true)}, nil, false},
		"address":                     {list{eth("eth0", true)}, list{eth("eth0", true, "fe80::1/64")}, true},
		"address gone":                {list{eth("eth0", true, "10.0.0.1/8", "fe80::1/64")}, list{eth("eth0", true, "10.0.0.1/8")}, false},
		"address moved":               {list{eth("eth0", true, "10.0.0.1/8"), eth("eth1", true)}, list{eth("eth0", true), eth("eth1", true, "10.0.0.1/8")}, true},
		"address of one that is down": {list{eth("eth0", false)}, list{eth("eth0", false, "10.0.0.1/8")}, false},
	} {
		if got := cameUp(tt.before, tt.now); got != tt.want {
			t.Errorf("%s: %v", name, got)
		}
	}
}
