package linux

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"os"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/nvme-stas/stas/pkg/fabrics"
	"github.com/nvme-stas/stas/pkg/initiator"
)

// The kernel itself waits no longer (drivers/nvme/host/tcp.c: TCP_SYNCNT 1, and
// the receive timeout for ICResp), so that no target is held back that it
// would get through to.
const (
	waitTCP    = 3 * time.Second
	waitICResp = 10 * time.Second
)

// Probe implements [service.Kernel]: it does in user space what a connect of
// the kernel begins with. What holds a target back is that nobody answers;
// whatever the probe itself lacks, and answers that make no sense, are for the
// kernel to judge, which takes it no time. A failure is what the connect would
// fail with.
func (k *Kernel) Probe(ctx context.Context, o fabrics.Options) error {
	if o.Transport != "tcp" {
		return nil
	}
	target, err := netip.ParseAddr(o.TrAddr)
	if err != nil {
		return nil
	}
	dialer := net.Dialer{Timeout: waitTCP, KeepAlive: -1}
	if o.HostTrAddr != "" {
		source, err := netip.ParseAddr(o.HostTrAddr)
		if err != nil {
			return nil
		}
		dialer.LocalAddr = net.TCPAddrFromAddrPort(netip.AddrPortFrom(source, 0))
	}
	if o.HostIface != "" {
		dialer.Control = func(_, _ string, c syscall.RawConn) error {
			var errno error
			if err := c.Control(func(fd uintptr) { errno = unix.BindToDevice(int(fd), o.HostIface) }); err != nil {
				return err
			}
			return os.NewSyscallError("SO_BINDTODEVICE", errno)
		}
	}
	address := net.JoinHostPort(target.String(), o.TrSvcID)
	if o.TLS {
		// ICReq comes after the handshake, which needs the kernel's keys.
		conn, err := dialer.DialContext(ctx, "tcp", address)
		if err != nil {
			return held(ctx, o, initiator.StepTCP, err)
		}
		return conn.Close()
	}
	ctx, cancel := context.WithTimeout(ctx, waitTCP+waitICResp)
	defer cancel()
	_, err = initiator.Probe(ctx, initiator.Options{
		Address: address, Dialer: dialer.DialContext,
		HeaderDigest: o.HdrDigest, DataDigest: o.DataDigest,
	})
	if step, ok := errors.AsType[*initiator.StepError](err); ok {
		return held(ctx, o, step.Step, err)
	}
	return nil
}

// held says whether a failed probe holds the target back, and with which
// number of the kernel.
func held(ctx context.Context, o fabrics.Options, step initiator.Step, err error) error {
	if errors.Is(ctx.Err(), context.Canceled) {
		return ctx.Err()
	}
	errno, _ := errors.AsType[unix.Errno](err)
	timeout, _ := errors.AsType[net.Error](err)
	switch {
	case timeout != nil && timeout.Timeout() && step == initiator.StepTCP:
		errno = unix.ETIMEDOUT
	case timeout != nil && timeout.Timeout():
		errno = unix.EAGAIN
	case errors.Is(err, initiator.ErrLost), errno == unix.EPIPE:
		errno = unix.ECONNRESET
	}
	switch errno {
	case unix.ECONNREFUSED, unix.ECONNRESET, unix.ETIMEDOUT, unix.EAGAIN, unix.EADDRNOTAVAIL, unix.ENODEV,
		unix.ENETUNREACH, unix.EHOSTUNREACH, unix.ENETDOWN, unix.EHOSTDOWN:
		return &fabrics.ConnectError{Options: o, Errno: errno}
	}
	return nil
}
