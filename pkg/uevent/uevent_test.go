package uevent

import (
	"context"
	"errors"
	"fmt"
	"os"
	"runtime"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// inNamespace moves the test into a network namespace of its own, where it
// can send events that nobody else hears. Its thread is not used again.
func inNamespace(t *testing.T) {
	t.Helper()
	runtime.LockOSThread() // and never unlock: the thread ends with the goroutine
	if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
		t.Skipf("no network namespace of its own: %v", err)
	}
}

func mustListen(t *testing.T, listen func() (*Conn, error)) *Conn {
	t.Helper()
	c, err := listen()
	if errors.Is(err, unix.EPERM) || errors.Is(err, unix.EACCES) || errors.Is(err, unix.EPROTONOSUPPORT) {
		t.Skipf("no uevents here: %v", err)
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

// sender returns a function that sends to a group as a process of user space.
func sender(t *testing.T, group uint32) func([]byte) error {
	t.Helper()
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_KOBJECT_UEVENT)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Close(fd) })
	if err := unix.Bind(fd, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		t.Fatal(err)
	}
	return func(b []byte) error {
		return unix.Sendto(fd, b, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK, Groups: group})
	}
}

func event(n int) []byte {
	return udevMessage("ACTION=change", "DEVPATH=/devices/x", "SUBSYSTEM=nvme", fmt.Sprintf("DEVNAME=/dev/nvme%d", n), fmt.Sprintf("SEQNUM=%d", n))
}

func TestCloseWakesReceive(t *testing.T) {
	for name, listen := range map[string]func() (*Conn, error){"udev": Listen, "kernel": ListenKernel} {
		t.Run(name, func(t *testing.T) {
			c := mustListen(t, listen)
			done := make(chan error, 1)
			go func() {
				_, err := c.Receive(context.Background())
				done <- err
			}()
			time.Sleep(20 * time.Millisecond) // so that it most likely waits; it must not matter
			if err := c.Close(); err != nil {
				t.Error(err)
			}
			select {
			case err := <-done:
				if !errors.Is(err, os.ErrClosed) {
					t.Errorf("%v", err)
				}
			case <-time.After(10 * time.Second):
				t.Fatal("Receive still waits")
			}
			if _, err := c.Receive(t.Context()); !errors.Is(err, os.ErrClosed) {
				t.Errorf("after Close: %v", err)
			}
		})
	}
}

func TestReceive(t *testing.T) {
	inNamespace(t)
	c := mustListen(t, Listen)
	send := sender(t, groupUdev)

	for _, b := range [][]byte{
		[]byte("nonsense of some length"),
		udevMessage("ACTION=add", "DEVPATH=/x", "SUBSYSTEM=block"),
		event(1),
		event(2),
	} {
		if err := send(b); err != nil {
			t.Fatal(err)
		}
	}
	for _, want := range []string{"nvme1", "nvme2"} {
		e, err := c.Receive(t.Context())
		if err != nil || e.DevName != want {
			t.Errorf("%+v, %v; want %s", e, err, want)
		}
	}
	if n := c.Skipped(); n != 1 {
		t.Errorf("skipped %d, want the nonsense alone", n)
	}

	// The end of a context ends that call and no other.
	for range 3 {
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
		if e, err := c.Receive(ctx); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("%+v, %v", e, err)
		}
		cancel()
		if _, err := c.Receive(ctx); err == nil {
			t.Error("received with a context that is over")
		}
	}
	if err := send(event(3)); err != nil {
		t.Fatal(err)
	}
	if e, err := c.Receive(t.Context()); err != nil || e.DevName != "nvme3" {
		t.Errorf("%+v, %v", e, err)
	}
}

func TestTooLongMessage(t *testing.T) {
	inNamespace(t)
	c := mustListen(t, Listen)
	send := sender(t, groupUdev)
	if err := send(udevMessage("ACTION=add", "DEVPATH=/x", "SUBSYSTEM=nvme", "X="+strings.Repeat("x", maxMessage))); err != nil {
		t.Skip(err)
	}
	if err := send(event(1)); err != nil {
		t.Fatal(err)
	}
	if e, err := c.Receive(t.Context()); !errors.Is(err, ErrOverrun) {
		t.Errorf("%+v, %v", e, err)
	}
	if e, err := c.Receive(t.Context()); err != nil || e.DevName != "nvme1" {
		t.Errorf("%+v, %v", e, err)
	}
}

// Nobody but the kernel may speak in the kernel's group.
func TestForgedKernelEvent(t *testing.T) {
	inNamespace(t)
	c := mustListen(t, ListenKernel)
	send := sender(t, groupKernel)
	if err := send(kernelMessage("change@/devices/x", aen...)); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if e, err := c.Receive(ctx); !errors.Is(err, context.DeadlineExceeded) || c.Skipped() != 1 {
		t.Errorf("%+v, %v, skipped %d", e, err, c.Skipped())
	}
}

// Nobody but root may speak in udev's group.
func TestForgedUdevEvent(t *testing.T) {
	inNamespace(t)
	c := mustListen(t, Listen)
	send := sender(t, groupUdev)
	// This thread alone becomes another user that keeps CAP_NET_ADMIN.
	if err := unix.Prctl(unix.PR_SET_KEEPCAPS, 1, 0, 0, 0); err != nil {
		t.Skip(err)
	}
	var caps [2]unix.CapUserData
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	if err := unix.Capget(&header, &caps[0]); err != nil {
		t.Skip(err)
	}
	if _, _, errno := unix.RawSyscall(unix.SYS_SETRESUID, 65534, 65534, 65534); errno != 0 {
		t.Skip(errno)
	}
	caps[0].Effective = caps[0].Permitted
	if err := unix.Capset(&header, &caps[0]); err != nil {
		t.Skip(err)
	}
	if err := send(event(1)); err != nil {
		t.Skipf("the kernel does not let us: %v", err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if e, err := c.Receive(ctx); !errors.Is(err, context.DeadlineExceeded) || c.Skipped() != 1 {
		t.Errorf("%+v, %v, skipped %d", e, err, c.Skipped())
	}
}

func TestOverrun(t *testing.T) {
	inNamespace(t)
	c := mustListen(t, Listen)
	send := sender(t, groupUdev)
	conn, err := c.file.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	if err := conn.Control(func(fd uintptr) {
		err = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_RCVBUF, 8<<10)
	}); err != nil {
		t.Fatal(err)
	}
	if err != nil {
		t.Fatal(err)
	}
	const storm = 1000
	for n := range storm {
		// The sender is told that a listener is slow only if it asks for it.
		if err := send(event(n)); err != nil && !errors.Is(err, unix.ENOBUFS) {
			t.Fatal(err)
		}
	}
	received, overruns := 0, 0
	for overruns == 0 {
		switch _, err := c.Receive(t.Context()); {
		case errors.Is(err, ErrOverrun):
			overruns++
		case err != nil:
			t.Fatal(err)
		default:
			received++
		}
	}
	// Drain what is left, and hear the next one: the connection goes on.
	for {
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
		_, err := c.Receive(ctx)
		cancel()
		if errors.Is(err, context.DeadlineExceeded) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		received++
	}
	if received >= storm {
		t.Errorf("received all of %d events, and an overrun", storm)
	}
	if err := send(event(storm)); err != nil {
		t.Fatal(err)
	}
	if e, err := c.Receive(t.Context()); err != nil || e.Seqnum != storm {
		t.Errorf("%+v, %v", e, err)
	}
}
