package linux

import (
	"encoding/binary"
	"iter"
	"os"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/nvme-stas/stas/internal/boot"
	"github.com/nvme-stas/stas/pkg/nbft"
)

// Links lists the Ethernet interfaces, and what is not in [net.Interface]:
// which VLAN each is of, and whether it is a part of another one.
func (k *Kernel) Links() ([]boot.Link, error) {
	answer, err := syscall.NetlinkRIB(unix.RTM_GETLINK, unix.AF_UNSPEC)
	if err != nil {
		return nil, os.NewSyscallError("netlink, RTM_GETLINK", err)
	}
	messages, err := syscall.ParseNetlinkMessage(answer)
	if err != nil {
		return nil, os.NewSyscallError("netlink, RTM_GETLINK", err)
	}
	var all []boot.Link
	for _, m := range messages {
		if l, ok := link(m.Header.Type, m.Data); ok {
			all = append(all, l)
		}
	}
	return all, nil
}

// vlanID is IFLA_VLAN_ID of linux/if_link.h.
const vlanID = 1

// link reads a message about an interface: a struct ifinfomsg and attributes.
func link(kind uint16, data []byte) (l boot.Link, ok bool) {
	if kind != unix.RTM_NEWLINK || len(data) < unix.SizeofIfInfomsg {
		return l, false
	}
	if t := binary.NativeEndian.Uint16(data[2:]); t != unix.ARPHRD_ETHER && t != unix.ARPHRD_LOOPBACK {
		return l, false
	}
	for kind, value := range attributes(data[unix.SizeofIfInfomsg:]) {
		switch kind {
		case unix.IFLA_IFNAME:
			l.Name = strings.TrimRight(string(value), "\x00")
		case unix.IFLA_ADDRESS:
			ok = copy(l.MAC[:], value) == len(nbft.MAC{}) && len(value) == len(nbft.MAC{})
		case unix.IFLA_MASTER:
			l.Enslaved = true
		case unix.IFLA_LINKINFO:
			l.VLAN = vlanOf(value)
		}
	}
	return l, ok && l.Name != ""
}

// vlanOf is the VLAN of an interface, 0 if it is of another kind.
func vlanOf(info []byte) (id uint16) {
	isVLAN := false
	for kind, value := range attributes(info) {
		switch kind {
		case unix.IFLA_INFO_KIND:
			isVLAN = strings.TrimRight(string(value), "\x00") == "vlan"
		case unix.IFLA_INFO_DATA:
			for kind, value := range attributes(value) {
				if kind == vlanID && len(value) >= 2 {
					id = binary.NativeEndian.Uint16(value)
				}
			}
		}
	}
	if !isVLAN {
		return 0
	}
	return id
}

// attributes yields the attributes of a message: of each a struct nlattr, its
// value, and bytes up to a multiple of 4.
func attributes(b []byte) iter.Seq2[uint16, []byte] {
	const align = unix.NLA_ALIGNTO - 1
	return func(yield func(uint16, []byte) bool) {
		for len(b) >= unix.SizeofNlAttr {
			size, kind := int(binary.NativeEndian.Uint16(b)), binary.NativeEndian.Uint16(b[2:])
			if size < unix.SizeofNlAttr || size > len(b) {
				return
			}
			if !yield(kind&^(unix.NLA_F_NESTED|unix.NLA_F_NET_BYTEORDER), b[unix.SizeofNlAttr:size]) {
				return
			}
			b = b[min((size+align)&^align, len(b)):]
		}
	}
}
