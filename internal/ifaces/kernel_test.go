package ifaces

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"syscall"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// TestKernel has more happen than a socket has room for, in a network namespace
// of its own, by another process.
func TestKernel(t *testing.T) {
	const key = "IFACES_TEST_ISOLATED"
	if os.Getenv(key) == "" {
		cmd := exec.Command(os.Args[0], "-test.run=^TestKernel$", "-test.v")
		cmd.Env = append(os.Environ(), key+"=1")
		cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWNET}
		out, err := cmd.CombinedOutput()
		if errors.Is(err, unix.EPERM) {
			t.Skip("it takes root to make a network namespace")
		}
		if t.Logf("%s", out); err != nil {
			t.Fail()
		}
		return
	}
	var k kernel
	if err := k.open(); err != nil {
		t.Fatal(err)
	}
	if err := k.socket.SetReceiveBufferSize(4096, false); err != nil {
		t.Fatal(err)
	}
	const pairs = 50
	for i := range pairs {
		if err := netlink.LinkAdd(&netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: fmt.Sprint("a", i)}, PeerName: fmt.Sprint("b", i)}); err != nil {
			t.Fatal(err)
		}
	}
	overrun := false
	for range 2 * pairs {
		_, _, err := k.socket.Receive()
		if overrun = errors.Is(err, unix.ENOBUFS); overrun {
			break
		}
	}
	if !overrun {
		t.Fatal("nothing was lost: the test tests nothing")
	}
	list, err := k.list()
	if err != nil || len(list) < 2*pairs+1 {
		t.Errorf("%d interfaces, %v", len(list), err)
	}
	// The socket goes on.
	waited := make(chan error)
	add := func(name string) {
		t.Helper()
		if err := netlink.LinkAdd(&netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: name}, PeerName: "peer-" + name}); err != nil {
			t.Fatal(err)
		}
	}
	for _, name := range []string{"c", "d"} {
		go func() { waited <- k.wait() }()
		add(name)
		select {
		case err := <-waited:
			if err != nil {
				t.Fatal(err)
			}
		case <-time.After(10 * time.Second):
			t.Fatal("no event after an overrun")
		}
	}
	if list, err = k.list(); err != nil || !slices.ContainsFunc(list, func(i Iface) bool { return i.Name == "d" }) {
		t.Errorf("%v, %v", list, err)
	}
	ended := make(chan struct{})
	go func() {
		for k.wait() == nil {
		}
		close(ended)
	}()
	k.close()
	select {
	case <-ended:
	case <-time.After(10 * time.Second):
		t.Error("wait does not end when the socket is closed")
	}
}
