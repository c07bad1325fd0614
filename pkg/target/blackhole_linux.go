package target

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"syscall"
	"time"
)

// blackHole is an address at which connections are neither accepted nor
// refused: a listening socket whose queue is full, so that the kernel drops
// further SYNs (Linux, tcp_conn_request). It needs no privilege.
type blackHole struct {
	fd    int
	stuff []net.Conn
}

// digBlackHole takes an address over. What comes back is useful even with an
// error: nil, which refuses.
func digBlackHole(address netip.AddrPort) (*blackHole, error) {
	domain, sa := syscall.AF_INET, syscall.Sockaddr(&syscall.SockaddrInet4{Port: int(address.Port()), Addr: address.Addr().Unmap().As4()})
	if address.Addr().Is6() {
		domain, sa = syscall.AF_INET6, &syscall.SockaddrInet6{Port: int(address.Port()), Addr: address.Addr().As16()}
	}
	fd, err := syscall.Socket(domain, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	hole := &blackHole{fd: fd}
	err = errors.Join(
		syscall.SetsockoptInt(fd, syscall.SOL_SOCKET, syscall.SO_REUSEADDR, 1),
		syscall.Bind(fd, sa),
		syscall.Listen(fd, 0),
	)
	if err != nil {
		hole.fill()
		return nil, err
	}
	// The queue of length 0 takes one or two.
	for range 8 {
		nc, err := net.DialTimeout("tcp", address.String(), 50*time.Millisecond)
		if timeout, ok := errors.AsType[net.Error](err); ok && timeout.Timeout() {
			return hole, nil
		}
		if err != nil {
			hole.fill()
			return nil, err
		}
		hole.stuff = append(hole.stuff, nc)
	}
	hole.fill()
	return nil, fmt.Errorf("%s goes on accepting connections that nobody takes", address)
}

// fill ends the black hole.
func (h *blackHole) fill() {
	syscall.Close(h.fd)
	for _, nc := range h.stuff {
		nc.Close()
	}
}
