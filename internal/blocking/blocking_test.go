package blocking

import (
	"bytes"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/nvme-stas/stas/pkg/fabrics"
	"github.com/nvme-stas/stas/pkg/nvme"
)

// The test program is the process, too.
func TestMain(m *testing.M) {
	if len(os.Args) == 2 && os.Args[1] == Arg {
		if err := Main(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// real is a Process as the daemons have it, and tells of each of its runs.
func real(t *testing.T) (p *Process, runs chan *exec.Cmd) {
	t.Helper()
	runs = make(chan *exec.Cmd, 10)
	p = New(slog.New(slog.NewTextHandler(t.Output(), nil)))
	p.start = func() (*net.UnixConn, *exec.Cmd, error) {
		conn, cmd, err := run()
		runs <- cmd
		return conn, cmd, err
	}
	return p, runs
}

// faked is a Process whose calls are made by this one, with calls.
func faked(t *testing.T, calls fabrics.Calls) *Process {
	p := New(slog.New(slog.DiscardHandler))
	p.start = func() (*net.UnixConn, *exec.Cmd, error) {
		ours, theirs := pair(t)
		go func() {
			if err := serve(theirs, calls); err != nil {
				t.Error(err)
			}
			theirs.Close()
		}()
		return ours, nil, nil
	}
	t.Cleanup(func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		if p.child != nil {
			p.child.conn.Close()
			p.child = nil
		}
	})
	return p
}

func pair(t *testing.T) (a, b *net.UnixConn) {
	t.Helper()
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	a, err = unixConn(fds[0])
	if err != nil {
		t.Fatal(err)
	}
	b, err = unixConn(fds[1])
	if err != nil {
		t.Fatal(err)
	}
	return a, b
}

// pipe returns the ends of a pipe that blocks: reading is a call that takes as
// long as one likes.
func pipe(t *testing.T) (r, w int) {
	t.Helper()
	var fds [2]int
	if err := unix.Pipe2(fds[:], unix.O_CLOEXEC); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Close(fds[0]); unix.Close(fds[1]) })
	return fds[0], fds[1]
}

// soon fails the test if f has not returned after 10 s.
func soon(t *testing.T, what string, f func()) {
	t.Helper()
	done := make(chan struct{})
	go func() { defer close(done); f() }()
	select {
	case <-done:
	case <-time.After(10 * time.Second):
		t.Fatalf("%s: nothing happens", what)
	}
}

func TestProcess(t *testing.T) {
	p, runs := real(t)
	const stuck = 60
	r, w := pipe(t)
	results := make(chan string, stuck)
	for range stuck {
		go func() {
			b := make([]byte, 1)
			n, err := p.Read(r, b)
			results <- fmt.Sprint(n, err, string(b))
		}()
	}
	// Beside those that wait, others are made.
	file, err := unix.Open(filepath.Join(t.TempDir(), "file"), unix.O_CREAT|unix.O_RDWR, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	long := bytes.Repeat([]byte("stas"), maxData/4)
	soon(t, "write", func() {
		if n, err := p.Write(file, long); n != len(long) || err != nil {
			t.Error(n, err)
		}
	})
	got := make([]byte, len(long))
	if n, err := unix.Pread(file, got, 0); n != len(long) || err != nil || !bytes.Equal(got, long) {
		t.Error(n, err)
	}
	if n, err := p.Read(file, got); n != 0 || err != nil {
		t.Errorf("at the end of the file: %d, %v", n, err)
	}
	if n, err := p.Write(r, []byte("x")); n != 0 || err != unix.EBADF { //nolint:errorlint // the number itself
		t.Errorf("writing where one can only read: %d, %v", n, err)
	}
	if _, err := p.Admin(file, &fabrics.AdminCmd{}, nil); !errors.Is(err, unix.ENOTTY) {
		t.Errorf("ioctl of a file: %v", err)
	}
	for _, err := range []error{
		func() error { _, err := p.Write(file, make([]byte, maxData+1)); return err }(),
		func() error { _, err := p.Admin(file, &fabrics.AdminCmd{}, make([]byte, maxData+1)); return err }(),
	} {
		if !errors.Is(err, errTooLong) {
			t.Errorf("too long: %v", err)
		}
	}
	if _, err := unix.Write(w, bytes.Repeat([]byte("x"), stuck)); err != nil {
		t.Fatal(err)
	}
	soon(t, "reads", func() {
		for range stuck {
			if s := <-results; s != "1 <nil>x" {
				t.Error(s)
			}
		}
	})
	if len(runs) != 1 {
		t.Errorf("%d processes were started", len(runs))
	}
	comm, err := os.ReadFile(fmt.Sprintf("/proc/%d/comm", (<-runs).Process.Pid))
	if string(comm) != "stas-blocking\n" || err != nil {
		t.Errorf("it is called %q, %v", comm, err)
	}
}

// A process that dies takes its calls with it, and no more.
func TestCrash(t *testing.T) {
	p, runs := real(t)
	r, w := pipe(t)
	errs := make(chan error)
	go func() { _, err := p.Read(r, make([]byte, 1)); errs <- err }()
	first := <-runs
	if err := first.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	soon(t, "its call", func() {
		if err := <-errs; !errors.Is(err, ErrDied) {
			t.Error(err)
		}
	})
	if n, err := p.Write(w, []byte("x")); n != 1 || err != nil {
		t.Errorf("afterwards: %d, %v", n, err)
	}
	if second := <-runs; second.Process.Pid == first.Process.Pid {
		t.Error("the dead one has made it")
	}
}

// Without a process the daemon has to do it.
func TestNoProcess(t *testing.T) {
	p := New(slog.New(slog.DiscardHandler))
	p.start = func() (*net.UnixConn, *exec.Cmd, error) { return nil, nil, unix.EAGAIN }
	r, w := pipe(t)
	b := make([]byte, 2)
	if n, err := p.Write(w, []byte("x")); n != 1 || err != nil {
		t.Error(n, err)
	}
	if n, err := p.Read(r, b); n != 1 || err != nil || b[0] != 'x' {
		t.Error(n, err, b)
	}
	if _, err := p.Admin(r, &fabrics.AdminCmd{}, nil); !errors.Is(err, unix.ENOTTY) {
		t.Error(err)
	}
}

// It ends when the daemon does, whatever it is waiting for.
func TestDaemonDies(t *testing.T) {
	p, runs := real(t)
	r, w := pipe(t)
	answers := func() {
		t.Helper()
		if n, err := p.Write(w, []byte("x")); n != 1 || err != nil {
			t.Fatal(n, err)
		}
	}
	answers()
	cmd := <-runs
	// Signals to the daemon's process group are not meant for it.
	for _, s := range []unix.Signal{unix.SIGTERM, unix.SIGINT, unix.SIGHUP} {
		if err := unix.Kill(cmd.Process.Pid, s); err != nil {
			t.Error(err)
		}
	}
	answers()
	if _, err := unix.Read(r, make([]byte, 2)); err != nil {
		t.Fatal(err)
	}
	errs := make(chan error)
	go func() { _, err := p.Read(r, make([]byte, 1)); errs <- err }()
	soon(t, "a call", func() {
		for calls := 0; calls == 0; time.Sleep(time.Millisecond) {
			p.mu.Lock()
			calls = len(p.child.calls)
			p.mu.Unlock()
		}
	})
	p.mu.Lock()
	conn := p.child.conn
	p.mu.Unlock()
	conn.Close()
	soon(t, "its end", func() {
		<-errs
		for unix.Kill(cmd.Process.Pid, 0) == nil {
			time.Sleep(time.Millisecond)
		}
	})
}

func TestIdle(t *testing.T) {
	p, runs := real(t)
	p.idle = 10 * time.Millisecond
	_, w := pipe(t)
	for range 2 {
		soon(t, "a call and the end of the process", func() {
			if n, err := p.Write(w, []byte("x")); n != 1 || err != nil {
				t.Error(n, err)
			}
			cmd := <-runs
			for unix.Kill(cmd.Process.Pid, 0) == nil {
				time.Sleep(time.Millisecond)
			}
		})
	}
}

// memo is a kernel that notes admin commands, and knows one answer.
type memo struct {
	fabrics.Direct
	mu     sync.Mutex
	cmd    fabrics.AdminCmd
	data   []byte
	status nvme.Status
	err    error
}

func (m *memo) Admin(_ int, cmd *fabrics.AdminCmd, data []byte) (nvme.Status, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.cmd, m.data = *cmd, bytes.Clone(data)
	for i := range data {
		data[i] = 'r'
	}
	cmd.Result = 0x12345678
	return m.status, m.err
}

func TestAdmin(t *testing.T) {
	m := &memo{}
	p := faked(t, m)
	for _, c := range []struct {
		opcode  uint8
		status  nvme.Status
		err     error
		to, got string
	}{
		{opcode: 0x02, to: "\x00\x00\x00\x00", got: "rrrr"}, // controller to host
		{opcode: 0x21, to: "data", got: "data"},             // host to controller
		{opcode: 0x08, to: "\x00\x00\x00\x00", got: "data"}, // none
		{opcode: 0x03, to: "data", got: "rrrr"},             // both
		{opcode: 0x02, status: nvme.StatusInvalidField, to: "\x00\x00\x00\x00", got: "rrrr"},
		{opcode: 0x02, err: unix.EAGAIN, to: "\x00\x00\x00\x00", got: "data"},
		{opcode: 0x21, err: errors.New("no number"), to: "data", got: "data"},
	} {
		m.mu.Lock()
		m.status, m.err = c.status, c.err
		m.mu.Unlock()
		cmd := fabrics.AdminCmd{
			Opcode: c.opcode, Flags: 1, NSID: 2, CDW2: 3, CDW3: 4,
			CDW10: 10, CDW11: 11, CDW12: 12, CDW13: 13, CDW14: 14, CDW15: 15, TimeoutMS: 16,
		}
		want := cmd
		data := []byte("data")
		status, err := p.Admin(0, &cmd, data)
		m.mu.Lock()
		if m.cmd != want || string(m.data) != c.to {
			t.Errorf("%#02x: the kernel got %+v, %q", c.opcode, m.cmd, m.data)
		}
		m.mu.Unlock()
		if status != c.status || string(data) != c.got || (err == nil) != (c.err == nil) || c.err == unix.EAGAIN && !errors.Is(err, unix.EAGAIN) { //nolint:errorlint // of the table
			t.Errorf("%#02x: %v, %v, %q", c.opcode, status, err, data)
		}
		if err == nil && cmd.Result != 0x12345678 {
			t.Errorf("%#02x: result %#x", c.opcode, cmd.Result)
		}
	}
}

// device is /dev/nvme-fabrics, as far as one connect.
type device struct {
	fabrics.Direct
	mu    sync.Mutex // the race detector does not see what goes through a socket
	line  string
	reads []string
	errno unix.Errno
}

func (d *device) Write(_ int, b []byte) (int, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.errno != 0 {
		return 0, d.errno
	}
	d.line = string(b)
	return len(b), nil
}

func (d *device) Read(_ int, b []byte) (int, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	n := copy(b, d.reads[0])
	d.reads = d.reads[1:]
	return n, nil
}

// A connect is the same as without the process between.
func TestConnect(t *testing.T) {
	fake := &device{reads: []string{"instance=-1,cntlid=-1,transport=%s,traddr=%s,trsvcid=%s,nqn=%s,dhchap_secret=%s\n", "instance=7,cntlid=1\n"}}
	d := fabrics.Device{Path: "/dev/null", Calls: faked(t, fake)}
	o := fabrics.Options{
		Transport: "tcp", TrAddr: "192.0.2.1", TrSvcID: "4420", NQN: "nqn.a",
		DHChapSecret: fabrics.NewSecret("DHHC-1:00:ia6zGodOr4SEG0Zzaw398rpY0wqipUWj4jWjUh4HWUz6aQ2n:"),
	}
	in, err := d.Connect(o)
	fake.mu.Lock()
	if err != nil || in.Name != "nvme7" || !strings.Contains(fake.line, o.DHChapSecret.Reveal()) {
		t.Errorf("%+v, %v", in, err)
	}
	fake.errno = unix.EALREADY
	fake.mu.Unlock()
	_, err = d.Connect(o)
	if refused, ok := errors.AsType[*fabrics.ConnectError](err); !ok || refused.Errno != unix.EALREADY {
		t.Errorf("%v", err)
	}
}

// What the process says and makes no sense ends it.
func TestGarbage(t *testing.T) {
	for _, answer := range []string{"x", strings.Repeat("x", headerSize), strings.Repeat("\x00", maxPacket), "\x01\x00\x00\x00\x00\x00\x00\x00\xff\x00\x00\x00"} {
		p := New(slog.New(slog.DiscardHandler))
		p.start = func() (*net.UnixConn, *exec.Cmd, error) {
			ours, theirs := pair(t)
			go func() {
				_, fd, _ := receive(theirs, make([]byte, maxPacket))
				_ = unix.Close(fd)
				_, _ = theirs.Write([]byte(answer))
				_, _, err := receive(theirs, make([]byte, maxPacket))
				if err == nil {
					t.Error("it is asked again")
				}
				theirs.Close()
			}()
			return ours, nil, nil
		}
		_, w := pipe(t)
		soon(t, "the call", func() {
			if _, err := p.Write(w, []byte("x")); !errors.Is(err, ErrDied) {
				t.Errorf("%.20q: %v", answer, err)
			}
		})
	}
}

// What the daemon says and makes no sense ends it, too.
func TestServeGarbage(t *testing.T) {
	for _, packet := range []string{"x", strings.Repeat("x", headerSize), strings.Repeat("x", maxPacket+100), "\x01\x00\x00\x00\x01\x00\x00\x00\x00\x00\x00\x00without a file"} {
		ours, theirs := pair(t)
		if _, err := ours.Write([]byte(packet)); err != nil {
			t.Fatal(err)
		}
		if err := serve(theirs, fabrics.Direct{}); err == nil {
			t.Errorf("%.20q is taken", packet)
		}
		ours.Close()
		theirs.Close()
	}
}

func FuzzRequest(f *testing.F) {
	for _, r := range []request{
		{id: 1, op: opWrite, data: []byte("transport=tcp")},
		{id: 2, op: opRead, want: 4096},
		{id: 3, op: opAdmin, want: 4, cmd: fabrics.AdminCmd{Opcode: 2}},
		{id: 4, op: opAdmin, want: 4, cmd: fabrics.AdminCmd{Opcode: 1}, data: []byte("data")},
	} {
		b := r.encode()
		f.Add(b)
		if again, err := decodeRequest(b); err != nil || !bytes.Equal(again.encode(), b) {
			f.Errorf("%+v becomes %+v, %v", r, again, err)
		}
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		r, err := decodeRequest(b)
		if err != nil {
			return
		}
		if r.want > maxData || r.want < 0 || len(r.data) > len(b) {
			t.Errorf("%+v", r)
		}
		again, err := decodeRequest(r.encode())
		if err != nil || again.id != r.id || again.op != r.op || again.want != r.want || again.cmd != r.cmd || !bytes.Equal(again.data, r.data) {
			t.Errorf("%+v becomes %+v, %v", r, again, err)
		}
	})
}

func FuzzReply(f *testing.F) {
	f.Add(byte(opWrite), byte(0), (&reply{id: 1, n: 3}).encode(opWrite))
	f.Add(byte(opRead), byte(0), (&reply{id: 1, n: 3, data: []byte("abc")}).encode(opRead))
	f.Add(byte(opAdmin), byte(2), (&reply{id: 1, result: 7, data: []byte("abcd")}).encode(opAdmin))
	f.Add(byte(opAdmin), byte(2), (&reply{id: 1, errno: unix.EINTR}).encode(opAdmin))
	f.Fuzz(func(t *testing.T, kind, opcode byte, b []byte) {
		to := request{id: 1, op: op(kind), want: 4, data: []byte("abc"), cmd: fabrics.AdminCmd{Opcode: opcode}}
		r, err := decodeReply(b, &to)
		if err != nil {
			return
		}
		if r.id != 1 || r.n < 0 || len(r.data) > to.want || to.op < opWrite || to.op > opAdmin {
			t.Errorf("%+v for %+v", r, to)
		}
		if !bytes.Equal(r.encode(to.op), b) {
			t.Errorf("%+v is not %q", r, b)
		}
	})
}

// BenchmarkWrite is what a call costs more than when it is made directly.
func BenchmarkWrite(b *testing.B) {
	null, err := unix.Open("/dev/null", unix.O_WRONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		b.Fatal(err)
	}
	defer unix.Close(null)
	line := bytes.Repeat([]byte("x"), 400)
	p := New(slog.New(slog.DiscardHandler))
	for name, calls := range map[string]fabrics.Calls{"direct": fabrics.Direct{}, "process": p} {
		b.Run(name, func(b *testing.B) {
			for b.Loop() {
				if _, err := calls.Write(null, line); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
