// Package uevent receives what the kernel and udev announce about NVMe
// devices. Events are hints and may be lost; sysfs is the truth.
package uevent

import (
	"context"
	"errors"
	"fmt"
	"os"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// The multicast groups of NETLINK_KOBJECT_UEVENT (systemd, sd-device
// device-monitor: MONITOR_GROUP_KERNEL, MONITOR_GROUP_UDEV).
const (
	groupKernel = 1
	groupUdev   = 2
)

const (
	// maxMessage is larger than any message; a longer one is an overrun.
	maxMessage = 64 << 10
	// socketBuffer has room for the events of a storm while the reader is
	// busy. The default of 208 KiB is full after some hundred.
	socketBuffer = 4 << 20
)

// ErrOverrun means that events were lost. The connection goes on; the receiver
// has to look at sysfs.
var ErrOverrun = errors.New("uevents were lost")

// Event is one uevent of the subsystems "nvme" and "fc".
type Event struct {
	Action    string // "add", "change", "remove", …
	DevPath   string // below /sys
	Subsystem string
	DevName   string // below /dev: "nvme3"; empty if there is no device node
	Seqnum    uint64
	Env       map[string]string // all the variables as they came
}

// Conn receives events.
type Conn struct {
	file    *os.File
	raw     syscall.RawConn
	group   int
	closed  atomic.Bool
	skipped atomic.Uint64
	buf     [maxMessage]byte
	oob     [64]byte
}

// Listen receives events after udev has handled them. Without udevd, and
// outside the initial network namespace, there are none.
func Listen() (*Conn, error) { return listen(groupUdev) }

// ListenKernel receives the kernel's own events, which come before udev has
// applied its rules. It is meant for hosts without udevd.
func ListenKernel() (*Conn, error) { return listen(groupKernel) }

func listen(group int) (*Conn, error) {
	// A socket that does not block lives in Go's poller, where Close wakes the
	// reader.
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, unix.NETLINK_KOBJECT_UEVENT)
	if err != nil {
		return nil, fmt.Errorf("uevent socket: %w", err)
	}
	c := &Conn{file: os.NewFile(uintptr(fd), "uevents"), group: group}
	if err := setUp(fd, group); err != nil {
		c.file.Close()
		return nil, fmt.Errorf("uevent socket: %w", err)
	}
	if c.raw, err = c.file.SyscallConn(); err != nil {
		c.file.Close()
		return nil, fmt.Errorf("uevent socket: %w", err)
	}
	return c, nil
}

func setUp(fd, group int) error {
	if unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, socketBuffer) != nil {
		// Without CAP_NET_ADMIN the system's limit applies. A small buffer is
		// no reason to have none.
		_ = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUF, socketBuffer)
	}
	// All before bind, so that no message comes unfiltered or without its sender.
	if group == groupUdev {
		if err := attachFilter(fd); err != nil {
			return err
		}
	}
	if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_PASSCRED, 1); err != nil {
		return err
	}
	return unix.Bind(fd, &unix.SockaddrNetlink{Family: unix.AF_NETLINK, Groups: uint32(group)})
}

// Close ends a Receive that is waiting, which then returns [os.ErrClosed].
func (c *Conn) Close() error {
	c.closed.Store(true)
	return c.file.Close()
}

// Skipped counts the messages that were ignored because their sender was not
// the expected one or because they made no sense.
func (c *Conn) Skipped() uint64 { return c.skipped.Load() }

// Receive waits for the next event of interest. After ErrOverrun it can be
// called again; any other error is final, but for the end of ctx. Only one
// goroutine may receive at a time.
func (c *Conn) Receive(ctx context.Context) (Event, error) {
	if err := ctx.Err(); err != nil {
		return Event{}, err
	}
	interrupted := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		_ = c.file.SetReadDeadline(time.Unix(1, 0)) // fails if closed, which wakes as well
		close(interrupted)
	})
	defer func() {
		if !stop() {
			<-interrupted
			_ = c.file.SetReadDeadline(time.Time{})
		}
	}()
	for {
		message, err := c.read()
		switch {
		case c.closed.Load():
			return Event{}, os.ErrClosed
		case errors.Is(err, os.ErrDeadlineExceeded):
			return Event{}, ctx.Err()
		case errors.Is(err, unix.ENOBUFS):
			return Event{}, ErrOverrun
		case errors.Is(err, errWrongSender):
			c.skipped.Add(1)
			continue
		case errors.Is(err, ErrOverrun):
			return Event{}, err
		case err != nil:
			return Event{}, fmt.Errorf("receiving uevents: %w", err)
		}
		parse := parseUdev
		if c.group == groupKernel {
			parse = parseKernel
		}
		event, err := parse(message)
		switch {
		case err == nil:
			return event, nil
		case !errors.Is(err, errOtherSubsystem):
			c.skipped.Add(1)
		}
	}
}

var errWrongSender = errors.New("message of a wrong sender")

// read returns one message, valid until the next read.
func (c *Conn) read() ([]byte, error) {
	var n, oobn, flags int
	var from unix.Sockaddr
	var err error
	waitErr := c.raw.Read(func(fd uintptr) bool {
		for {
			n, oobn, flags, from, err = unix.Recvmsg(int(fd), c.buf[:], c.oob[:], 0)
			if err != unix.EINTR {
				return err != unix.EAGAIN
			}
		}
	})
	switch {
	case waitErr != nil:
		return nil, waitErr
	case err != nil:
		return nil, err
	case !c.trusts(from, c.oob[:oobn]):
		return nil, errWrongSender
	case flags&unix.MSG_TRUNC != 0:
		return nil, ErrOverrun
	}
	return c.buf[:n], nil
}

// trusts checks the sender: whoever has CAP_NET_ADMIN in this network
// namespace can send to both groups.
func (c *Conn) trusts(from unix.Sockaddr, oob []byte) bool {
	addr, ok := from.(*unix.SockaddrNetlink)
	if !ok || (addr.Pid == 0) != (c.group == groupKernel) {
		return false // only the kernel has port 0
	}
	messages, err := unix.ParseSocketControlMessage(oob)
	if err != nil {
		return false
	}
	for i := range messages {
		if cred, err := unix.ParseUnixCredentials(&messages[i]); err == nil {
			return cred.Uid == 0
		}
	}
	return false
}
