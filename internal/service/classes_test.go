package service_test

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/sys/unix"

	"github.com/nvme-stas/stas/internal/conf"
	"github.com/nvme-stas/stas/internal/reconcile"
	"github.com/nvme-stas/stas/internal/service"
	"github.com/nvme-stas/stas/internal/stastest"
	"github.com/nvme-stas/stas/internal/tid"
	"github.com/nvme-stas/stas/pkg/fabrics"
)

// The pauses between attempts, for each class of failure: their bounds, of
// which any part may be taken.
func TestBackoff(t *testing.T) {
	const ms, s, m = time.Millisecond, time.Second, time.Minute
	connect := func(errno unix.Errno) error { return &fabrics.ConnectError{Errno: errno} }
	svc := newRig(t, tid.IO).svc
	for _, tt := range []struct {
		name    string
		err     error
		since   time.Duration
		missing int
		want    []time.Duration // of attempts 1, 2, 3…
	}{
		{"refused, at first", connect(unix.ECONNREFUSED), 0, 1, []time.Duration{900 * ms, 900 * ms}},
		{"refused, many", connect(unix.ECONNREFUSED), 0, 8, []time.Duration{s, 2 * s, 3600 * ms, 3600 * ms}},
		{"refused, very many", connect(unix.ECONNREFUSED), 0, 1000, []time.Duration{s, 2 * s, 4 * s, 8 * s, 16 * s, 32 * s, m, m}},
		{"refused, for long", connect(unix.ECONNREFUSED), 2 * m, 1, []time.Duration{s, 2 * s, 4 * s, 8 * s, 16 * s, 32 * s, m, m}},
		{"mute, at first", connect(unix.ETIMEDOUT), 0, 1, []time.Duration{900 * ms, 900 * ms}},
		{"rejected", connect(unix.EIO), 0, 1, []time.Duration{s, 2 * s, 4 * s, 8 * s, 16 * s, 32 * s, m, m}},
		{"authentication", connect(unix.EKEYREJECTED), 0, 1, []time.Duration{10 * s, 20 * s, 40 * s, m, m}},
		{"options", connect(unix.EINVAL), 0, 1, []time.Duration{5 * s, 10 * s, 20 * s, 40 * s, m, m}},
		{"lost again and again", reconcile.ErrLost, 0, 1, []time.Duration{s, 2 * s, 4 * s, 8 * s, 16 * s, 32 * s, m, m}},
		{"of no known kind", errors.New("what"), 0, 1, []time.Duration{s, 2 * s, 4 * s, 8 * s}},
	} {
		for i, most := range tt.want {
			var least, longest time.Duration = m, 0
			for range 300 {
				d := svc.Backoff(reconcile.Try{Kind: reconcile.Connect, Err: tt.err, N: i + 1, Since: tt.since, Missing: tt.missing})
				least, longest = min(least, d), max(longest, d)
			}
			if least < service.RetryLeast || longest > most || longest < most*9/10 || least > most/10+service.RetryLeast {
				t.Errorf("%s: pause %d is from %v to %v, want any up to %v", tt.name, i+1, least, longest, most)
			}
		}
		if d := svc.Backoff(reconcile.Try{Err: tt.err, N: 1 << 40, Since: time.Hour, Missing: 1 << 40}); d > service.RetryCap {
			t.Errorf("%s: pause of %v in the end", tt.name, d)
		}
	}
}

// Each error number that a connect may end with has its class and its advice.
func TestClasses(t *testing.T) {
	for _, errno := range []unix.Errno{
		unix.EINVAL, unix.ENODEV, unix.EADDRNOTAVAIL, unix.ECONNREFUSED, unix.ENETUNREACH, unix.EHOSTUNREACH, unix.ETIMEDOUT, unix.EAGAIN,
		unix.ECONNRESET, unix.EINTR, unix.EIO, unix.EALREADY, unix.EKEYREJECTED, unix.ENOKEY, unix.EKEYREVOKED, unix.ENOMEM, unix.EOPNOTSUPP,
		unix.EBUSY, unix.EADDRINUSE,
	} {
		c, remedy := service.ClassOf(fmt.Errorf("x: %w", &fabrics.ConnectError{Errno: errno}))
		if c == nil || service.ClassName(errno) == "other" || remedy == "" {
			t.Errorf("nothing is said about %v", errno)
		}
		if !slices.Contains(service.Numbers(), errno) {
			t.Errorf("%v has no class", errno)
		}
	}
	if name := service.ClassName(errors.New("x")); name != "other" {
		t.Errorf("an unknown failure is called %q", name)
	}
}

// A target that falls silent in the middle of a connect, which then holds up
// those of the whole host, is not asked again soon, whatever chance says.
func TestStalled(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, tid.IO, "nqn.a")
		r.start()
		r.kernel.Silence(addr, "1", stastest.MuteLater)
		r.want(controller("nqn.a", "1"))
		pause(time.Hour)
		if n := r.kernel.count("connect"); n < 30 || n > 40 { // 60 s each, and 30 to 60 s between them
			t.Errorf("%d attempts in an hour", n)
		}
		c, err := r.svc.Controller(t.Context(), controller("nqn.a", "1"))
		if err != nil || c.Connect == nil || c.Connect.Class != "stalled" || c.Connect.Errno != "EIO" {
			t.Errorf("%+v, %v", c.Connect, err)
		}
	})
}

// connect-retry-max bounds all pauses.
func TestRetryMax(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, tid.IO)
		r.svc = service.New(tid.IO, r.policy, r.env(func(env *service.Env) {
			env.Config = func() (*conf.Config, error) { return &conf.Config{ConnectRetryMax: 3 * time.Second}, nil }
		}))
		r.policy.engine = r.svc.Engine()
		r.start()
		id := controller("nqn.late", "9")
		r.want(id)
		pause(time.Hour)
		r.kernel.count("probe")
		pause(3 * time.Minute)
		if n := r.kernel.count("probe"); n < 60 {
			t.Errorf("%d attempts in 3 minutes, want more than one in 3 s", n)
		}
	})
}

// Who has the host ID, but not the host NQN, is named.
func TestHostIdentityConflict(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, tid.IO, "nqn.a", "nqn.b")
		r.start()
		o := r.options(controller("nqn.a", "1"))
		o.HostNQN = "nqn.other"
		if _, err := r.kernel.Kernel.Connect(o); err != nil {
			t.Fatal(err)
		}
		r.want(controller("nqn.b", "1"))
		c, err := r.svc.Controller(t.Context(), controller("nqn.b", "1"))
		if err != nil || c.Connect == nil || c.Connect.Class != "host identity" || c.Connect.Errno != "EINVAL" ||
			!strings.Contains(c.Connect.Error, "nvme0 is connected with the host NQN nqn.other") {
			t.Errorf("%+v, %v", c.Connect, err)
		}
	})
}
