package mdns

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"

	"golang.org/x/sys/unix"
)

// Port is that of mDNS.
const Port = 5353

const (
	hopLimit = 255 // RFC 6762, section 11
	// receiveBuffer in bytes: some hundred services answer one question at once, and
	// a packet takes more than a kilobyte, however short it is.
	receiveBuffer = 1 << 20
)

var (
	group4 = netip.MustParseAddr("224.0.0.251")
	group6 = netip.MustParseAddr("ff02::fb")
)

// Socket sends to the group on one interface, and gets what others send to it
// there.
type Socket struct {
	*net.UDPConn
	group netip.AddrPort
}

// Open opens the socket of an interface and a family. It is bound to the address
// of the group, not to any address as net.ListenMulticastUDP does: so it takes no
// packet away that is sent to another process on the port, avahi-daemon say, and
// none of other interfaces come in, even between its first steps.
func Open(name string, index int, family Family) (*Socket, error) {
	domain, join, group := unix.AF_INET, join4, group4
	if family == IPv6 {
		domain, join, group = unix.AF_INET6, join6, group6.WithZone(name)
	}
	fd, err := unix.Socket(domain, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return nil, os.NewSyscallError("socket", err)
	}
	file := os.NewFile(uintptr(fd), "mdns")
	defer file.Close()
	if err := errors.Join(
		os.NewSyscallError("SO_REUSEADDR", unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEADDR, 1)),
		os.NewSyscallError("SO_BINDTODEVICE", unix.BindToDevice(fd, name)),
	); err != nil {
		return nil, err
	}
	// Without CAP_NET_ADMIN it stays smaller; what is lost is asked for again.
	_ = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, receiveBuffer)
	if err := join(fd, index); err != nil {
		return nil, err
	}
	conn, err := net.FilePacketConn(file) // of a duplicate
	if err != nil {
		return nil, err
	}
	return &Socket{conn.(*net.UDPConn), netip.AddrPortFrom(group, Port)}, nil
}

// Send sends a packet to the group.
func (s *Socket) Send(packet []byte) error {
	_, err := s.WriteToUDPAddrPort(packet, s.group)
	return err
}

func join4(fd, index int) error {
	group := &unix.IPMreqn{Multiaddr: group4.As4(), Ifindex: int32(index)}
	if err := errors.Join(
		os.NewSyscallError("IP_MULTICAST_ALL", unix.SetsockoptInt(fd, unix.IPPROTO_IP, unix.IP_MULTICAST_ALL, 0)),
		os.NewSyscallError("IP_MULTICAST_TTL", unix.SetsockoptInt(fd, unix.IPPROTO_IP, unix.IP_MULTICAST_TTL, hopLimit)),
		os.NewSyscallError("IP_MULTICAST_IF", unix.SetsockoptIPMreqn(fd, unix.IPPROTO_IP, unix.IP_MULTICAST_IF, group)),
	); err != nil {
		return err
	}
	err := unix.SetsockoptIPMreqn(fd, unix.IPPROTO_IP, unix.IP_ADD_MEMBERSHIP, group)
	if errors.Is(err, unix.ENOBUFS) { // net/ipv4/igmp.c, ip_mc_join_group
		return fmt.Errorf("%w: no more multicast groups are allowed: raise the sysctl net.ipv4.igmp_max_memberships (now %d)", err, maxMemberships())
	}
	if err != nil {
		return os.NewSyscallError("IP_ADD_MEMBERSHIP", err)
	}
	return os.NewSyscallError("bind", unix.Bind(fd, &unix.SockaddrInet4{Port: Port, Addr: group4.As4()}))
}

func join6(fd, index int) error {
	// Linux before 4.20 has no IPV6_MULTICAST_ALL; the socket is bound to its device anyway.
	if err := unix.SetsockoptInt(fd, unix.IPPROTO_IPV6, unix.IPV6_MULTICAST_ALL, 0); err != nil && !errors.Is(err, unix.ENOPROTOOPT) {
		return os.NewSyscallError("IPV6_MULTICAST_ALL", err)
	}
	return errors.Join(
		os.NewSyscallError("IPV6_V6ONLY", unix.SetsockoptInt(fd, unix.IPPROTO_IPV6, unix.IPV6_V6ONLY, 1)),
		os.NewSyscallError("IPV6_MULTICAST_HOPS", unix.SetsockoptInt(fd, unix.IPPROTO_IPV6, unix.IPV6_MULTICAST_HOPS, hopLimit)),
		os.NewSyscallError("IPV6_MULTICAST_IF", unix.SetsockoptInt(fd, unix.IPPROTO_IPV6, unix.IPV6_MULTICAST_IF, index)),
		os.NewSyscallError("IPV6_JOIN_GROUP", unix.SetsockoptIPv6Mreq(fd, unix.IPPROTO_IPV6, unix.IPV6_JOIN_GROUP,
			&unix.IPv6Mreq{Multiaddr: group6.As16(), Interface: uint32(index)})),
		os.NewSyscallError("bind", unix.Bind(fd, &unix.SockaddrInet6{Port: Port, Addr: group6.As16(), ZoneId: uint32(index)})),
	)
}
