package linux

import (
	"encoding/binary"
	"slices"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/nvme-stas/stas/internal/boot"
	"github.com/nvme-stas/stas/pkg/nbft"
)

// attr is a netlink attribute.
func attr(kind uint16, value ...byte) []byte {
	b := binary.NativeEndian.AppendUint16(nil, uint16(4+len(value)))
	b = append(binary.NativeEndian.AppendUint16(b, kind), value...)
	return append(b, make([]byte, -len(b)&3)...)
}

func text(kind uint16, s string) []byte { return attr(kind, append([]byte(s), 0)...) }

// message is a struct ifinfomsg with attributes.
func message(hardware uint16, attrs ...[]byte) []byte {
	b := binary.NativeEndian.AppendUint16([]byte{0, 0}, hardware)
	return append(append(b, make([]byte, 12)...), slices.Concat(attrs...)...)
}

func TestLink(t *testing.T) {
	mac := attr(unix.IFLA_ADDRESS, 2, 0, 0, 0, 0, 1)
	seven := binary.NativeEndian.AppendUint16(nil, 7)
	info := func(kind string, data ...[]byte) []byte {
		return attr(unix.IFLA_LINKINFO|unix.NLA_F_NESTED, append(text(unix.IFLA_INFO_KIND, kind), attr(unix.IFLA_INFO_DATA, slices.Concat(data...)...)...)...)
	}
	eth0 := text(unix.IFLA_IFNAME, "eth0")
	want := boot.Link{Name: "eth0", MAC: nbft.MAC{2, 0, 0, 0, 0, 1}}
	vlan, enslaved := want, want
	vlan.VLAN, enslaved.Enslaved = 7, true
	for _, c := range []struct {
		name string
		data []byte
		want boot.Link // zero: none
	}{
		{"plain", message(unix.ARPHRD_ETHER, eth0, attr(99, 1), mac), want},
		{"loopback", message(unix.ARPHRD_LOOPBACK, eth0, mac), want},
		{"other hardware", message(unix.ARPHRD_INFINIBAND, eth0, mac), boot.Link{}},
		{"no name", message(unix.ARPHRD_ETHER, mac), boot.Link{}},
		{"no address", message(unix.ARPHRD_ETHER, eth0), boot.Link{}},
		{"a long address", message(unix.ARPHRD_ETHER, eth0, attr(unix.IFLA_ADDRESS, 1, 2, 3, 4, 5, 6, 7)), boot.Link{}},
		{"a short address", message(unix.ARPHRD_ETHER, eth0, attr(unix.IFLA_ADDRESS, 1, 2)), boot.Link{}},
		{"VLAN", message(unix.ARPHRD_ETHER, eth0, mac, info("vlan", attr(9), attr(vlanID, seven...))), vlan},
		{"VLAN of nothing", message(unix.ARPHRD_ETHER, eth0, mac, info("vlan", attr(vlanID, 7))), want},
		{"other kind with a first attribute", message(unix.ARPHRD_ETHER, eth0, mac, info("bridge", attr(vlanID, seven...))), want},
		{"part of a bond", message(unix.ARPHRD_ETHER, eth0, mac, attr(unix.IFLA_MASTER, 9, 0, 0, 0)), enslaved},
		{"cut off", message(unix.ARPHRD_ETHER, eth0, mac, []byte{99, 0, 1, 0}), want},
		{"endless", message(unix.ARPHRD_ETHER, eth0, mac, []byte{0, 0, 0, 0, 0}), want},
		{"short", []byte{1, 2, 3}, boot.Link{}},
	} {
		got, ok := link(unix.RTM_NEWLINK, c.data)
		if ok != (c.want != boot.Link{}) || ok && got != c.want {
			t.Errorf("%s: %+v, %v, want %+v", c.name, got, ok, c.want)
		}
	}
	if l, ok := link(unix.RTM_DELLINK, message(unix.ARPHRD_ETHER, eth0, mac)); ok {
		t.Errorf("an interface that has gone: %+v", l)
	}
}

// This host has a loopback interface, as any has.
func TestLinks(t *testing.T) {
	all, err := new(Kernel).Links()
	if err != nil {
		t.Skip("netlink: ", err)
	}
	if !slices.Contains(all, boot.Link{Name: "lo"}) {
		t.Errorf("no loopback interface: %+v", all)
	}
}

func FuzzLink(f *testing.F) {
	f.Add(message(unix.ARPHRD_ETHER, text(unix.IFLA_IFNAME, "x"), attr(unix.IFLA_LINKINFO, text(unix.IFLA_INFO_KIND, "vlan")...)))
	f.Fuzz(func(_ *testing.T, data []byte) { link(unix.RTM_NEWLINK, data) })
}
