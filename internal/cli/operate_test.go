package cli

import (
	"context"
	"encoding/json"
	"errors"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nvme-stas/stas/internal/stasbus"
	"github.com/nvme-stas/stas/internal/stastest"
)

// operated is a stacd that operators may order about.
type operated struct {
	*stacd
	mu     sync.Mutex // guards the following
	called []any
	err    error
}

// takes notes the call, and answers with an error if there is to be one.
func (d *operated) takes(args ...any) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.called = args
	return d.err
}

// answers sets the error of the calls to come, and forgets those made.
func (d *operated) answers(err error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.called, d.err = nil, err
}

func (d *operated) wasCalled() []any {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.called
}

func (d *operated) Disconnect(_ context.Context, device string, force bool) (stasbus.Disconnected, error) {
	return stasbus.Disconnected{ID: id("10.0.0.1", "4420", example+"a", ""), Device: device, Pending: force}, d.takes(device, force)
}

func (d *operated) Hold(_ context.Context, name string, duration time.Duration) (stasbus.Hold, error) {
	h := stasbus.Hold{Name: name, Since: now}
	if duration > 0 {
		h.Until = time.Now().Add(duration)
	}
	return h, d.takes(name, duration)
}

func (d *operated) Release(_ context.Context, name string) ([]stasbus.Hold, error) {
	one := id("10.0.0.1", "4420", example+"a", "")
	return []stasbus.Hold{{Name: name}, {Name: "nvme3", Controller: &one}}, d.takes(name)
}

func TestOperate(t *testing.T) {
	stastest.NewSystemBus(t, stastest.AllowAll)
	d := &operated{stacd: newStacd()}
	serve(t, stasbus.Stac, d)
	for _, c := range []struct {
		args   string
		called []any
		out    string // part
	}{
		{"disconnect nvme3", []any{"nvme3", false}, "nvme3 (tcp 10.0.0.1:4420 " + example + "a) is disconnected, and held until: stacctl release nvme3\n"},
		{"disconnect --force nvme3", []any{"nvme3", true}, "is being disconnected; its target does not answer"},
		{"hold nqn.a", []any{"nqn.a", time.Duration(0)}, "nqn.a is held until it is released.\n"},
		{"hold nqn.a --for 2h", []any{"nqn.a", 2 * time.Hour}, "(in 2h00m).\n"},
		{"hold --for 1500ms 10.0.0.1", []any{"10.0.0.1", 2 * time.Second}, "10.0.0.1 is held until"},
		{"release nqn.a", []any{"nqn.a"}, "nqn.a is released.\ntcp 10.0.0.1:4420 " + example + "a (nvme3) is released.\n"},
		{"release nqn.a -o json", []any{"nqn.a"}, `"released"`},
		{"hold nqn.a -o json", []any{"nqn.a", time.Duration(0)}, `"name"`},
		{"disconnect nvme3 -o json", []any{"nvme3", false}, `"device"`},
	} {
		d.answers(nil)
		code, out, stderr := call(Stacctl, strings.Fields(c.args)...)
		if code != exitOK || stderr != "" || !strings.Contains(out, c.out) || !equal(d.wasCalled(), c.called) {
			t.Errorf("%s: exit code %d, %q, %q, called with %v", c.args, code, out, stderr, d.wasCalled())
		}
		if strings.Contains(c.args, "json") && !json.Valid([]byte(out)) {
			t.Errorf("%s: no JSON: %s", c.args, out)
		}
	}
	refused := errors.New("nvme3 stays connected: it is the last path to what is in use")
	d.answers(refused)
	for _, args := range []string{"disconnect nvme3", "hold nqn.a", "release nqn.a"} {
		if code, out, stderr := call(Stacctl, strings.Fields(args)...); code != exitFailed || out != "" || !strings.Contains(stderr, refused.Error()) {
			t.Errorf("%s: exit code %d, %q, %q", args, code, out, stderr)
		}
	}
	for _, args := range []string{"disconnect", "disconnect a b", "hold", "hold nqn.a --for 0s", "hold nqn.a --for -1h", "hold nqn.a --for soon", "release"} {
		d.answers(nil)
		if code, _, stderr := call(Stacctl, strings.Fields(args)...); code != exitUsage || stderr == "" || d.wasCalled() != nil {
			t.Errorf("%s: exit code %d, %q, called with %v", args, code, stderr, d.wasCalled())
		}
	}
	if code, _, _ := call(Stafctl, "hold", "nqn.a"); code != exitUsage {
		t.Errorf("stafctl hold: exit code %d", code)
	}
}

func equal(a, b []any) bool {
	if len(a) != len(b) {
		return false
	}
	for i := range a {
		if a[i] != b[i] {
			return false
		}
	}
	return true
}
