package mdns

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"

	"github.com/nvme-stas/stas/internal/ifaces"
)

func TestDeafness(t *testing.T) {
	var list []ifaces.Iface
	for i := range 21 {
		list = append(list, ifaces.Iface{
			Name: fmt.Sprint("eth0.", i), Index: i + 1, Up: true, Multicast: true,
			Addrs: []netip.Prefix{netip.MustParsePrefix("192.0.2.1/24")},
		})
	}
	down := append([]ifaces.Iface(nil), list...)
	down[3].Up = false
	for _, c := range []struct {
		name  string
		list  []ifaces.Iface
		limit int
		want  string
	}{
		{"as many as there may be", list[:20], 20, ""},
		{"one more", list, 20, "there are 21, and it can listen on 20. Raise the sysctl net.ipv4.igmp_max_memberships"},
		{"that is down", down, 20, ""},
		{"raised", list, 40, ""},
		{"unknown", list, 0, ""},
	} {
		if got := deafness(c.list, c.limit); (got == "") != (c.want == "") || !strings.Contains(got, c.want) {
			t.Errorf("%s: %q", c.name, got)
		}
	}
}
