package daemon

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"net"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// manager is the service manager's end of NOTIFY_SOCKET.
func manager(t *testing.T) *net.UnixConn {
	t.Helper()
	path := filepath.Join(t.TempDir(), "notify")
	conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	t.Setenv("NOTIFY_SOCKET", path)
	return conn
}

// datagram is the next one, or "" if none comes in time.
func datagram(t *testing.T, conn *net.UnixConn, within time.Duration) string {
	t.Helper()
	buf := make([]byte, 4096)
	if err := conn.SetReadDeadline(time.Now().Add(within)); err != nil {
		t.Fatal(err)
	}
	n, _ := conn.Read(buf)
	return string(buf[:n])
}

func TestSupervisor(t *testing.T) {
	conn := manager(t)
	s := Supervisor{Log: NewLogger(t.Output(), false, new(slog.LevelVar))}
	for _, c := range []struct {
		name string
		send func()
		want string
	}{
		{"ready", func() { s.Ready("fine") }, `^READY=1\nSTATUS=fine$`},
		{"reloading", s.Reloading, `^RELOADING=1\nMONOTONIC_USEC=(\d+)\n?$`},
		{"stopping", s.Stopping, `^STOPPING=1$`},
	} {
		c.send()
		got := datagram(t, conn, 10*time.Second)
		m := regexp.MustCompile(c.want).FindStringSubmatch(got)
		if m == nil {
			t.Errorf("%s: %q, want %q", c.name, got, c.want)
		} else if len(m) > 1 {
			var now unix.Timespec
			if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &now); err != nil {
				t.Fatal(err)
			}
			usec, err := strconv.ParseInt(m[1], 10, 64)
			if ago := now.Nano() - usec*1000; err != nil || ago < 0 || ago > time.Minute.Nanoseconds() {
				t.Errorf("MONOTONIC_USEC is %v before now", time.Duration(ago))
			}
		}
	}
}

func TestWatchdog(t *testing.T) {
	conn := manager(t)
	t.Setenv("WATCHDOG_USEC", "15000") // a sign of life every 5 ms
	s := Supervisor{Log: NewLogger(t.Output(), false, new(slog.LevelVar))}
	ctx, cancel := context.WithCancel(t.Context())
	type answer struct{ err error }
	probes, answers := make(chan struct{}), make(chan answer)
	done := make(chan error, 1)
	go func() {
		done <- s.Watchdog(ctx, func(context.Context) error {
			probes <- struct{}{}
			return (<-answers).err
		})
	}()
	const soon, never = 10 * time.Second, 50 * time.Millisecond
	for _, step := range []struct {
		name string
		err  error
		want string
	}{
		{"answers", nil, "WATCHDOG=1"},
		{"fails", errors.New("no"), ""},
		{"answers again", nil, "WATCHDOG=1"},
	} {
		<-probes
		if got := datagram(t, conn, never); got != "" {
			t.Errorf("%s: %q while the probe hangs", step.name, got)
		}
		answers <- answer{step.err}
		within := soon
		if step.want == "" {
			within = never
		}
		if got := datagram(t, conn, within); got != step.want {
			t.Errorf("%s: %q, want %q", step.name, got, step.want)
		}
	}
	<-probes
	cancel()
	answers <- answer{context.Canceled}
	if err := <-done; err != nil {
		t.Error(err)
	}
}

func TestWatchdogSetting(t *testing.T) {
	probe := func(context.Context) error { t.Error("probed"); return nil }
	for usec, fails := range map[string]bool{"": false, "soon": true, "-1": true} {
		t.Setenv("WATCHDOG_USEC", usec)
		if err := (Supervisor{}).Watchdog(t.Context(), probe); (err != nil) != fails {
			t.Errorf("WATCHDOG_USEC=%s: %v", usec, err)
		}
	}
}

// Without a service manager nothing is sent, and nothing is complained of;
// with one that does not listen, it is told.
func TestNotListening(t *testing.T) {
	for _, c := range []struct{ socket, want string }{{"", ""}, {filepath.Join(t.TempDir(), "none"), "cannot notify"}} {
		t.Setenv("NOTIFY_SOCKET", c.socket)
		var out bytes.Buffer
		Supervisor{Log: NewLogger(&out, false, new(slog.LevelVar))}.Ready("fine")
		if (c.want == "") != (out.Len() == 0) || !strings.Contains(out.String(), c.want) {
			t.Errorf("NOTIFY_SOCKET=%s: logged %q", c.socket, out.String())
		}
	}
}
