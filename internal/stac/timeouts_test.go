package stac_test

import (
	"testing"
	"testing/synctest"

	"github.com/nvme-stas/stas/internal/stac"
	"github.com/nvme-stas/stas/pkg/nvme"
)

// times are ctrl_loss_tmo, reconnect_delay and fast_io_fail_tmo of a device.
func (r *rig) times(device string) (text string) {
	r.t.Helper()
	for i, attribute := range []string{"ctrl_loss_tmo", "reconnect_delay", "fast_io_fail_tmo"} {
		value, err := r.kernel.Attr(device, attribute)
		if err != nil {
			r.t.Error(err)
		}
		if i > 0 {
			text += " "
		}
		text += value
	}
	return text
}

// A target knows best how long its outages last, and says so in its NQN, which
// goes to the kernel as it is.
func TestAdvertisedTimeouts(t *testing.T) {
	const io = "[I/O controller connection management]\n"
	for _, c := range []struct{ name, suffix, conf, want string }{
		{"nothing said", "", "", "600 10 off"},
		{"rounded up", ":timeout_ms=10001", "", "11 1 off"},
		{"several tries", ":timeout_ms=30000", "", "30 6 off"},
		{"a long time", ":timeout_ms=600000", "", "600 10 off"},
		{"a short time", ":timeout_ms=1", "", "1 1 off"},
		{"nonsense", ":timeout_ms=x", "", "600 10 off"},
		{"bounds, lower", ":timeout_ms=1000", io + "target-timeout-min=20", "20 5 off"},
		{"bounds, upper", ":timeout_ms=1000000", io + "target-timeout-max=40", "40 10 off"},
		{"bounds, as shipped", ":timeout_ms=2147483647000", "", "86400 10 off"},
		{"not honoured", ":timeout_ms=10000", io + "honor-target-timeouts=false", "600 10 off"},
		{"[Global] is for those that say nothing", ":timeout_ms=10000", "[Global]\nctrl-loss-tmo=60\nfast-io-fail-tmo=3", "10 2 3"},
		{"[Global], a delay that fits", ":timeout_ms=10000", "[Global]\nreconnect-delay=1", "10 1 off"},
		{"subsystem=", ":timeout_ms=10000", "[Controllers]\nsubsystem=nqn=nqn.a*;ctrl-loss-tmo=60", "60 10 off"},
		{"subsystem=, the delay", ":timeout_ms=10000", "[Controllers]\nsubsystem=nqn=nqn.a*;reconnect-delay=3", "10 3 off"},
		{"subsystem= of another", ":timeout_ms=10000", "[Controllers]\nsubsystem=nqn=nqn.b*;ctrl-loss-tmo=60", "10 2 off"},
		{
			"controller=", ":timeout_ms=10000",
			"[Controllers]\ncontroller=transport=tcp;traddr=10.0.0.1;trsvcid=4420;nqn=nqn.a:timeout_ms=10000;ctrl-loss-tmo=-1", "off 10 off",
		},
		{
			"controller= that does not set it", ":timeout_ms=10000",
			"[Controllers]\ncontroller=transport=tcp;traddr=10.0.0.1;trsvcid=4420;nqn=nqn.a:timeout_ms=10000;kato=9", "10 2 off",
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := newRig(t)
				r.conf = c.conf
				r.offer("a" + c.suffix)
				r.start()
				r.deliver([]stac.Page{dc(1, yes, "a"+c.suffix)})
				r.expectConnected("listed", "nvme0=nqn.a"+c.suffix)
				if got := r.times("nvme0"); got != c.want {
					t.Errorf("the times are %q, want %q", got, c.want)
				}
			})
		})
	}
}

// A reload changes the times of connections that exist, and makes none anew.
func TestAdjust(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		r.offer("a", "b")
		r.start()
		r.deliver([]stac.Page{dc(1, yes, "a", "b")})
		r.expectConnected("before", r.connected())
		connects := r.kernel.Connects
		expect := func(what, nqn, want string) {
			t.Helper()
			for _, c := range r.kernel.Controllers() {
				if c.SubsysNQN == nqn && r.times(c.Name) != want {
					t.Errorf("%s: the times of %s are %q, want %q", what, nqn, r.times(c.Name), want)
				}
			}
		}
		r.reconfigure("[Global]\nctrl-loss-tmo=30\nreconnect-delay=3\nfast-io-fail-tmo=5\n[Controllers]\nsubsystem=nqn=nqn.b;ctrl-loss-tmo=-1")
		expect("set", "nqn.a", "30 3 5")
		expect("set", "nqn.b", "off 3 5")
		r.reconfigure("")
		expect("taken out", "nqn.a", "600 10 off")
		expect("taken out", "nqn.b", "600 10 off")
		if r.kernel.Connects != connects || r.kernel.Deletes != 0 {
			t.Errorf("%d connects, %d deletions", r.kernel.Connects-connects, r.kernel.Deletes)
		}
	})
}

// What the host may run from keeps its times, unless a line is about it.
func TestAdjustBooted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		r.boot = bootedFrom("nqn.a")
		r.offer("a")
		r.start()
		r.deliver([]stac.Page{dc(1, yes, "a")})
		before := r.times("nvme0")
		r.reconfigure("[Global]\nctrl-loss-tmo=30\nreconnect-delay=3\n")
		if got := r.times("nvme0"); got != before {
			t.Errorf("[Global] made %q of %q", got, before)
		}
		r.reconfigure("[Controllers]\nsubsystem=nqn=nqn.a;ctrl-loss-tmo=77\n")
		if got := r.times("nvme0"); got != "77 10 off" {
			t.Errorf("a line of its own made %q of %q", got, before)
		}
	})
}

// What a controller says about times is shown.
func TestAdvertised(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		r.offer("a")
		r.kernel.SetIdentify("10.0.0.1", "4420", func(id *nvme.IdentifyController) {
			id.KAS, id.CQT, id.RTD3E = 100, 7000, 250000
		})
		r.start()
		r.deliver([]stac.Page{dc(1, yes, "a")})
		a := r.controllers()["a"].Timing
		if a == nil || a.KAS != 10000 || a.CQT != 7000 || a.RTD3E != 250 || !a.KATOTooShort {
			t.Errorf("times: %+v", a)
		}
	})
}
