package fabrics

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"
)

// OpenError is the failure to open the device.
type OpenError struct {
	Path      string
	Transport string // wanted by the connect that failed, if it was one
	Err       error
}

func (e *OpenError) Unwrap() error { return e.Err }

func (e *OpenError) Error() string {
	return withHint(fmt.Sprintf("opening %s: %v", e.Path, e.Err), e.Hint())
}

// Hint tells in words what to do, or nothing.
func (e *OpenError) Hint() string {
	module := "nvme-fabrics"
	if _, known := transportBits[e.Transport]; known {
		module = "nvme-" + e.Transport
	}
	switch {
	case errors.Is(e.Err, unix.ENOENT), errors.Is(e.Err, unix.ENODEV), errors.Is(e.Err, unix.ENXIO):
		return "the kernel module is not loaded: modprobe " + module
	case errors.Is(e.Err, unix.EACCES), errors.Is(e.Err, unix.EPERM):
		return "only root may use this device"
	}
	return ""
}

// ConnectError is a connect that the kernel or the target refused. The kernel
// tells its reasons by number only; words are in its log.
type ConnectError struct {
	Options Options
	Errno   unix.Errno
}

// Unwrap makes errors.Is find the errno: unix.EALREADY is a duplicate.
func (e *ConnectError) Unwrap() error { return e.Errno }

func (e *ConnectError) Error() string {
	return withHint("connect: "+e.Errno.Error(), e.Hint())
}

// Hint tells in words what the number most likely means and what to do.
func (e *ConnectError) Hint() string {
	o := &e.Options
	target := o.TrAddr
	if o.TrSvcID != "" {
		target += " port " + o.TrSvcID
	}
	switch e.Errno {
	case unix.EINVAL:
		return "an option or the target's answer is not acceptable, the kernel log tells which; " +
			"a frequent reason is another connection of this host that uses the same host NQN with another host ID or the reverse"
	case unix.ENODEV:
		if o.HostIface != "" {
			return "there is no interface " + o.HostIface + ", or the controller did not get ready"
		}
		return "the controller did not get ready"
	case unix.EADDRNOTAVAIL:
		return "the source address " + o.HostTrAddr + " is not one of this host"
	case unix.ECONNREFUSED:
		return "nothing listens on " + target
	case unix.ENETUNREACH, unix.EHOSTUNREACH:
		return "there is no route to " + target
	case unix.ETIMEDOUT:
		return target + " does not answer: target down, or a firewall"
	case unix.EAGAIN:
		return target + " accepts connections but does not speak NVMe/TCP"
	case unix.ECONNRESET:
		return target + " closed the connection at once"
	case unix.EINTR:
		return "interrupted by a signal again and again"
	case unix.EIO:
		return "the controller refused, for example an unknown subsystem or a host that is not allowed, or fell silent; the kernel log has the NVMe status"
	case unix.EALREADY:
		return "already connected"
	case unix.EKEYREJECTED:
		return "authentication failed: the DH-HMAC-CHAP secret of the host or of the controller is wrong"
	case unix.ENOKEY:
		return "the target demands authentication or TLS, and there is no secret or key for it"
	case unix.EKEYREVOKED, unix.EKEYEXPIRED:
		return "the TLS key is no longer valid"
	case unix.EOPNOTSUPP:
		return "the target demands what this kernel does not offer"
	case unix.ENOMEM:
		return "out of memory"
	case unix.EBUSY:
		return "the kernel module nvme-" + o.Transport + " is being unloaded"
	case unix.EACCES, unix.EPERM:
		return "this process may not connect: root and CAP_SYS_ADMIN are needed, and a security module may object"
	}
	return ""
}

func withHint(text, hint string) string {
	if hint == "" {
		return text
	}
	return text + " (" + hint + ")"
}
