package fabrics

import (
	"io"
	"runtime"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/nvme-stas/stas/pkg/nvme"
)

// Calls are the system calls that wait for a target, for a minute and more if
// it is silent. Not even SIGKILL ends them, and a process ends only after
// them: who cannot afford that has them made by another one. A file is open
// until its call has returned.
type Calls interface {
	// Write is a connect, or the deletion of a controller.
	Write(fd int, b []byte) (int, error)
	// Read is the answer to a connect, or to the question for options, which
	// has to wait while somebody else connects.
	Read(fd int, b []byte) (int, error)
	// Admin is an admin command (NVME_IOCTL_ADMIN_CMD), which moves data in
	// the direction that its opcode says, and sets cmd.Result.
	Admin(fd int, cmd *AdminCmd, data []byte) (nvme.Status, error)
}

// Direct makes the calls itself.
type Direct struct{}

func orDirect(c Calls) Calls {
	if c == nil {
		return Direct{}
	}
	return c
}

// Write implements [Calls]. It does not retry: EINTR is the caller's to judge.
func (Direct) Write(fd int, b []byte) (int, error) {
	n, err := unix.Write(fd, b)
	return max(n, 0), err
}

// Read implements [Calls].
func (Direct) Read(fd int, b []byte) (int, error) {
	for {
		n, err := unix.Read(fd, b)
		if err == unix.EINTR {
			continue
		}
		return max(n, 0), err
	}
}

// Admin implements [Calls].
func (Direct) Admin(fd int, cmd *AdminCmd, data []byte) (nvme.Status, error) {
	// The kernel finds the data by an address that the garbage collector
	// cannot see.
	var pinner runtime.Pinner
	defer pinner.Unpin()
	cmd.addr, cmd.dataLen = 0, uint32(len(data))
	if len(data) > 0 {
		p := unsafe.SliceData(data)
		pinner.Pin(p)
		cmd.addr = uint64(uintptr(unsafe.Pointer(p)))
	}
	status, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), ioctlAdmin, uintptr(unsafe.Pointer(cmd)))
	cmd.addr = 0
	if errno != 0 {
		return 0, errno
	}
	return nvme.Status(status), nil
}

// fd is a file without Go's poller, and without its way of waiting for EAGAIN
// to pass: on the device for connects EAGAIN is an answer.
type fd struct {
	n     int
	calls Calls
}

func openFD(path string, calls Calls) (io.ReadWriteCloser, error) {
	for {
		n, err := unix.Open(path, unix.O_RDWR|unix.O_CLOEXEC, 0)
		if err == nil {
			return fd{n, calls}, nil
		}
		if err != unix.EINTR {
			return nil, err
		}
	}
}

func (f fd) Write(b []byte) (int, error) { return f.calls.Write(f.n, b) }

func (f fd) Read(b []byte) (int, error) {
	n, err := f.calls.Read(f.n, b)
	if n == 0 && err == nil {
		err = io.EOF
	}
	return n, err
}

func (f fd) Close() error { return unix.Close(f.n) }
