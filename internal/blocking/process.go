// Package blocking has a process of its own for the system calls that nobody
// can interrupt. A daemon that made them itself could not end before they do:
// a target that falls silent keeps a thread in the kernel for a minute, and a
// process with such a thread survives SIGKILL. The process is started when it
// is needed first, and ended when it has been idle for a while.
package blocking

import (
	"errors"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/nvme-stas/stas/pkg/fabrics"
	"github.com/nvme-stas/stas/pkg/nvme"
)

// idleEnd is how long a process is kept that has nothing to do. Retries of
// connects are at most a minute apart, and starting it takes some 10 ms.
const idleEnd = 20 * time.Second

// ErrDied says that a call may or may not have been made.
var ErrDied = errors.New("the process that made the call has died")

// Process implements [fabrics.Calls]. Its methods may be called from several
// goroutines; each call is made in a thread of its own.
type Process struct {
	log   *slog.Logger
	idle  time.Duration
	start func() (*net.UnixConn, *exec.Cmd, error) // run but in tests

	mu    sync.Mutex // guards the following, and what is in child
	child *child     // nil while there is none
}

// child is one run of the process.
type child struct {
	conn  *net.UnixConn
	cmd   *exec.Cmd
	last  uint32             // ID
	calls map[uint32]*pended // that have not returned
	timer *time.Timer        // ends it, when no call is pending
}

// pended is a call that has not returned.
type pended struct {
	request request
	done    chan reply // closed if there is none
}

// New returns a process that is not started yet.
func New(log *slog.Logger) *Process {
	return &Process{log: log, idle: idleEnd, start: run}
}

// Write implements [fabrics.Calls].
func (p *Process) Write(fd int, b []byte) (int, error) {
	r, err := p.call(fd, request{op: opWrite, data: b})
	return r.n, err
}

// Read implements [fabrics.Calls].
func (p *Process) Read(fd int, b []byte) (int, error) {
	r, err := p.call(fd, request{op: opRead, want: min(len(b), maxData)})
	return copy(b, r.data), err
}

// Admin implements [fabrics.Calls].
func (p *Process) Admin(fd int, cmd *fabrics.AdminCmd, data []byte) (nvme.Status, error) {
	r := request{op: opAdmin, want: len(data), cmd: *cmd}
	if toController(cmd.Opcode) {
		r.data = data
	}
	answer, err := p.call(fd, r)
	if err != nil {
		return 0, err
	}
	cmd.Result = answer.result
	copy(data, answer.data)
	return nvme.Status(answer.n), nil
}

// call has a call made and waits for its return.
func (p *Process) call(fd int, r request) (reply, error) {
	if len(r.data) > maxData || r.want > maxData {
		return reply{}, errTooLong
	}
	c, pending, err := p.add(r)
	if err != nil {
		// Storage comes first, and a prompt stop after it.
		p.log.Warn("there is no process for blocking calls, so this one is made here", "error", err)
		return r.carryOut(fabrics.Direct{}, fd).outcome()
	}
	if _, _, err := c.conn.WriteMsgUnix(pending.request.encode(), unix.UnixRights(fd), nil); err != nil {
		_ = c.conn.Close() // then listen ends, and all calls with it
	}
	answer, ok := <-pending.done
	if !ok {
		return reply{}, ErrDied
	}
	return answer.outcome()
}

// outcome is a reply as its caller wants it.
func (r reply) outcome() (reply, error) {
	if r.errno != 0 {
		return r, r.errno
	}
	return r, nil
}

// add notes a call, and starts the process if there is none.
func (p *Process) add(r request) (*child, *pended, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	c := p.child
	if c == nil {
		conn, cmd, err := p.start()
		if err != nil {
			return nil, nil, err
		}
		c = &child{conn: conn, cmd: cmd, calls: make(map[uint32]*pended)}
		c.timer = time.AfterFunc(p.idle, func() { p.end(c) })
		p.child = c
		go p.listen(c)
	}
	c.timer.Stop()
	c.last++
	r.id = c.last
	pending := &pended{r, make(chan reply, 1)}
	c.calls[r.id] = pending
	return c, pending, nil
}

// end ends the process if it has nothing to do.
func (p *Process) end(c *child) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(c.calls) == 0 && p.child == c {
		p.child = nil
		_ = c.conn.Close()
	}
}

// listen hands out what the process answers, until it has ended.
func (p *Process) listen(c *child) {
	err := p.answers(c)
	_ = c.conn.Close()
	p.mu.Lock()
	wanted := p.child == c
	if wanted {
		p.child = nil
	}
	c.timer.Stop()
	lost := len(c.calls)
	for id, pending := range c.calls {
		delete(c.calls, id)
		close(pending.done)
	}
	p.mu.Unlock()
	if wanted {
		p.log.Error("the process for blocking calls has died; another one is started when it is needed", "calls", lost, "error", err)
	}
	if c.cmd != nil {
		if err := c.cmd.Wait(); err != nil {
			p.log.Debug("the process for blocking calls has failed", "error", err)
		}
	}
}

// answers hands out what the process answers.
func (p *Process) answers(c *child) error {
	buf := make([]byte, maxPacket+1)
	for {
		packet, fd, err := receive(c.conn, buf)
		_ = unix.Close(fd)
		if err != nil {
			return err
		}
		id, _ := replyID(packet)
		p.mu.Lock()
		pending := c.calls[id]
		p.mu.Unlock()
		if pending == nil {
			return errGarbage
		}
		answer, err := decodeReply(packet, &pending.request)
		if err != nil {
			return err
		}
		answer.data = append([]byte(nil), answer.data...)
		p.mu.Lock()
		delete(c.calls, id)
		if len(c.calls) == 0 {
			c.timer.Reset(p.idle)
		}
		p.mu.Unlock()
		pending.done <- answer
	}
}

// run starts this very program, even if its file was replaced meanwhile.
func run() (*net.UnixConn, *exec.Cmd, error) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, nil, os.NewSyscallError("socketpair", err)
	}
	theirs := os.NewFile(uintptr(fds[1]), "socket")
	defer theirs.Close()
	ours, err := unixConn(fds[0])
	if err != nil {
		return nil, nil, err
	}
	cmd := &exec.Cmd{
		Path: "/proc/self/exe", Args: []string{os.Args[0], Arg},
		// What it says is a panic. Of the environment it needs nothing but
		// what makes it small, least of all the socket of the service manager.
		Env: []string{"GODEBUG=" + os.Getenv("GODEBUG")}, Stderr: os.Stderr,
		ExtraFiles: []*os.File{theirs},
	}
	if err := cmd.Start(); err != nil {
		ours.Close()
		return nil, nil, err
	}
	return ours, cmd, nil
}
