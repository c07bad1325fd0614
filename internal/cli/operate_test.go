package cli

import (
	"context"
	"encoding/json"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/nvme-stas/stas/internal/stasbus"
	"github.com/nvme-stas/stas/internal/stastest"
)

// operated is a stacd that operators may order about.
type operated struct {
	*stacd
	called []any
	err    error
}

func (d *operated) Disconnect(_ context.Context, device string, force bool) (stasbus.Disconnected, error) {
	d.called = []any{device, force}
	return stasbus.Disconnected{ID: id("10.0.0.1", "4420", example+"a", ""), Device: device, Pending: force}, d.err
}

func (d *operated) Hold(_ context.Context, name string, duration time.Duration) (stasbus.Hold, error) {
	d.called = []any{name, duration}
	h := stasbus.Hold{Name: name, Since: now}
	if duration > 0 {
		h.Until = time.Now().Add(duration)
	}
	return h, d.err
}

func (d *operated) Release(_ context.Context, name string) ([]stasbus.Hold, error) {
	d.called = []any{name}
	one := id("10.0.0.1", "4420", example+"a", "")
	return []stasbus.Hold{{Name: name}, {Name: "nvme3", Controller: &one}}, d.err
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
		d.called = nil
		code, out, stderr := call(Stacctl, strings.Fields(c.args)...)
		if code != exitOK || stderr != "" || !strings.Contains(out, c.out) || !equal(d.called, c.called) {
			t.Errorf("%s: exit code %d, %q, %q, called with %v", c.args, code, out, stderr, d.called)
		}
		if strings.Contains(c.args, "json") && !json.Valid([]byte(out)) {
			t.Errorf("%s: no JSON: %s", c.args, out)
		}
	}
	d.err = errors.New("nvme3 stays connected: it is the last path to what is in use")
	for _, args := range []string{"disconnect nvme3", "hold nqn.a", "release nqn.a"} {
		if code, out, stderr := call(Stacctl, strings.Fields(args)...); code != exitFailed || out != "" || !strings.Contains(stderr, d.err.Error()) {
			t.Errorf("%s: exit code %d, %q, %q", args, code, out, stderr)
		}
	}
	for _, args := range []string{"disconnect", "disconnect a b", "hold", "hold nqn.a --for 0s", "hold nqn.a --for -1h", "hold nqn.a --for soon", "release"} {
		d.called = nil
		if code, _, stderr := call(Stacctl, strings.Fields(args)...); code != exitUsage || stderr == "" || d.called != nil {
			t.Errorf("%s: exit code %d, %q, called with %v", args, code, stderr, d.called)
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
