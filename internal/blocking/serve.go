package blocking

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/signal"
	"runtime"
	"runtime/debug"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/nvme-stas/stas/pkg/fabrics"
)

// Arg is the argument by which a daemon's program becomes the process that
// makes its calls. It is for nobody else, and in no manual.
const Arg = "--blocking-calls"

// socketFD is the end of the socket that the process gets.
const socketFD = 3

// Main is the main program of the process. It returns when the daemon closes
// the socket, by ending too, and the process has to end then: what still runs
// is interrupted as far as the kernel allows.
func Main() error {
	// The one who starts it says when to stop.
	signal.Ignore(syscall.SIGTERM, syscall.SIGINT, syscall.SIGHUP)
	debug.SetGCPercent(25)
	runtime.GOMAXPROCS(4) // calls that do not block yet need a place each
	// As ps shows it, and systemd if it is left over. 15 bytes at most.
	_ = os.WriteFile("/proc/self/comm", []byte("stas-blocking"), 0)
	conn, err := unixConn(socketFD)
	if err != nil {
		return fmt.Errorf("%s is for the daemons themselves: %w", Arg, err)
	}
	return serve(conn, fabrics.Direct{})
}

// unixConn takes over a file descriptor.
func unixConn(fd int) (*net.UnixConn, error) {
	f := os.NewFile(uintptr(fd), "socket")
	defer f.Close()
	conn, err := net.FileConn(f)
	if err != nil {
		return nil, err
	}
	c, ok := conn.(*net.UnixConn)
	if !ok {
		conn.Close()
		return nil, errors.New("not a socket of the right kind")
	}
	return c, nil
}

// serve makes the calls that are asked for, each in a goroutine, until the
// other side is closed.
func serve(conn *net.UnixConn, calls fabrics.Calls) error {
	buf := make([]byte, maxPacket+1)
	for {
		packet, fd, err := receive(conn, buf)
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		r, err := decodeRequest(packet)
		if err == nil && fd < 0 {
			err = errGarbage
		}
		if err != nil {
			return err
		}
		r.data = append([]byte(nil), r.data...)
		go func() {
			answer := r.carryOut(calls, fd)
			_ = unix.Close(fd)
			// Who is gone needs no answer.
			_, _ = conn.Write(answer.encode(r.op))
		}()
	}
}

// receive reads one packet, and the file that came with it, or -1.
func receive(conn *net.UnixConn, buf []byte) (packet []byte, fd int, err error) {
	oob := make([]byte, unix.CmsgSpace(4))
	n, oobn, flags, _, err := conn.ReadMsgUnix(buf, oob)
	if err != nil {
		return nil, -1, err
	}
	if n == 0 {
		return nil, -1, io.EOF
	}
	fd = -1
	messages, _ := unix.ParseSocketControlMessage(oob[:oobn])
	for i := range messages {
		fds, _ := unix.ParseUnixRights(&messages[i])
		for _, other := range fds {
			_ = unix.Close(fd)
			fd = other
		}
	}
	if flags&(unix.MSG_TRUNC|unix.MSG_CTRUNC) != 0 {
		_ = unix.Close(fd)
		return nil, -1, errGarbage
	}
	return buf[:n], fd, nil
}

// carryOut makes the call.
func (r *request) carryOut(calls fabrics.Calls, fd int) reply {
	answer := reply{id: r.id}
	var err error
	switch r.op {
	case opWrite:
		answer.n, err = calls.Write(fd, r.data)
	case opRead:
		buf := make([]byte, r.want)
		answer.n, err = calls.Read(fd, buf)
		answer.data = buf[:answer.n]
	case opAdmin:
		data := r.data
		if !toController(r.cmd.Opcode) {
			data = make([]byte, r.want)
		}
		status, failed := calls.Admin(fd, &r.cmd, data)
		answer.n, answer.result, err = int(status), r.cmd.Result, failed
		if err == nil && fromController(r.cmd.Opcode) {
			answer.data = data
		}
	}
	if err != nil {
		answer.errno = unix.EIO
		if errno, ok := errors.AsType[unix.Errno](err); ok {
			answer.errno = errno
		}
	}
	return answer
}
