package stastest

import (
	"bufio"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

// SystemBus is a dbus-daemon that a test has for itself and that stands for
// the system bus in its process.
type SystemBus struct {
	t    testing.TB
	dir  string
	proc *exec.Cmd
}

// AllowAll is the policy of a bus on which everybody may do everything.
const AllowAll = `<policy context="default"><allow own="*"/><allow send_destination="*"/><allow receive_sender="*"/></policy>`

// NewSystemBus starts a bus with a policy, in the syntax of dbus-daemon(1). It
// ends with the test. Where there is no dbus-daemon the test is skipped, or
// with STAS_REQUIRE_ALL=1, fails.
func NewSystemBus(t testing.TB, policy string) *SystemBus {
	t.Helper()
	if _, err := exec.LookPath("dbus-daemon"); err != nil {
		if os.Getenv("STAS_REQUIRE_ALL") == "1" {
			t.Fatalf("this test needs dbus-daemon: %v", err)
		}
		t.Skipf("this test needs dbus-daemon: %v", err)
	}
	b := &SystemBus{t: t, dir: t.TempDir()}
	config := fmt.Sprintf(`<!DOCTYPE busconfig PUBLIC "-//freedesktop//DTD D-Bus Bus Configuration 1.0//EN"
 "http://www.freedesktop.org/standards/dbus/1.0/busconfig.dtd">
<busconfig><type>session</type><listen>%s</listen><auth>EXTERNAL</auth>%s</busconfig>`, b.Address(), policy)
	if err := os.WriteFile(b.config(), []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
	b.Start()
	t.Cleanup(b.Stop)
	t.Setenv("DBUS_SYSTEM_BUS_ADDRESS", b.Address())
	return b
}

func (b *SystemBus) config() string { return filepath.Join(b.dir, "bus.conf") }

// Address is where the bus listens.
func (b *SystemBus) Address() string { return "unix:path=" + filepath.Join(b.dir, "socket") }

// Start starts the bus again after Stop.
func (b *SystemBus) Start() {
	b.t.Helper()
	b.proc = exec.Command("dbus-daemon", "--nofork", "--print-address", "--config-file="+b.config())
	b.proc.Stderr = b.t.Output()
	out, err := b.proc.StdoutPipe()
	if err == nil {
		err = b.proc.Start()
	}
	if err != nil {
		b.t.Fatal(err)
	}
	if _, err := bufio.NewReader(out).ReadString('\n'); err != nil {
		b.t.Fatalf("dbus-daemon does not start: %v", err)
	}
}

// Stop kills the bus.
func (b *SystemBus) Stop() {
	_ = b.proc.Process.Kill()
	_ = b.proc.Wait()
}
