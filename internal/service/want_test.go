package service_test

import (
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/nvme-stas/stas/internal/boot"
	"github.com/nvme-stas/stas/internal/conf"
	"github.com/nvme-stas/stas/internal/hostid"
	"github.com/nvme-stas/stas/internal/service"
	"github.com/nvme-stas/stas/internal/tid"
	"github.com/nvme-stas/stas/pkg/fabrics"
)

// A parameter that is forgotten on the way would silently never be sent
// (defects 8, 11 and 45 of nvme-stas).
func TestEveryParameterIsSent(t *testing.T) {
	id := controller("nqn.a", "1")
	none := service.Options(id, tid.IO, conf.Params{}, identity)
	for i := range reflect.TypeFor[conf.Params]().NumField() {
		var p conf.Params
		field := reflect.ValueOf(&p).Elem().Field(i)
		switch v := field.Addr().Interface().(type) {
		case *bool:
			*v = true
		case **int:
			*v = new(0) // zero is a value
		case **int32:
			*v = new(int32(7))
		case *fabrics.Secret:
			*v = fabrics.NewSecret("DHHC-1:00:x:")
		case *conf.OwnTimes:
			continue // who set them, which is not for the kernel
		default:
			t.Fatalf("no value for %T", v)
		}
		if o := service.Options(id, tid.IO, p, identity); o.String() == none.String() {
			t.Errorf("%s makes no difference", reflect.TypeFor[conf.Params]().Field(i).Name)
		}
	}
}

// TestKeys says which key is used for whom.
func TestKeys(t *testing.T) {
	system, other := fabrics.NewSecret("DHHC-1:00:system:"), fabrics.NewSecret("DHHC-1:00:other:")
	self := identity
	self.Key = system
	guest := controller("nqn.a", "1")
	guest.HostNQN = "nqn.guest"
	for _, tt := range []struct {
		name string
		id   tid.TID
		kind tid.Kind
		own  fabrics.Secret
		want fabrics.Secret
	}{
		{"of the system", controller("nqn.a", "1"), tid.IO, fabrics.Secret{}, system},
		{"of the system, discovery", controller("nqn.a", "1"), tid.Discovery, fabrics.Secret{}, system},
		{"of its own", controller("nqn.a", "1"), tid.IO, other, other},
		{"under another host NQN", guest, tid.IO, fabrics.Secret{}, fabrics.Secret{}},
		{"of its own, under another host NQN", guest, tid.Discovery, other, other},
	} {
		o := service.Options(tt.id, tt.kind, conf.Params{DHChapSecret: tt.own, DHChapCtrlSecret: tt.own}, self)
		if o.DHChapSecret != tt.want || o.DHChapCtrlSecret != tt.own {
			t.Errorf("the key %s is not used", tt.name)
		}
		if text := fmt.Sprintf("%v %+v %#v", o, o, self); strings.Contains(text, "system:") || strings.Contains(text, "other:") {
			t.Errorf("a key is shown: %s", text)
		}
	}
}

// TestConfigured takes controllers of every transport from a file (defect 10 of
// nvme-stas), and those that the rules allow.
func TestConfigured(t *testing.T) {
	file := filepath.Join(t.TempDir(), "stacd.conf")
	const text = `[Controllers]
controller = transport=tcp; traddr=10.0.0.1; trsvcid=4420; nqn=nqn.a=b; host-nqn=nqn.guest; kato=0
controller = transport=rdma; traddr=2001:db8::1; nqn=nqn.b; host-traddr=2001:db8::2
controller = transport=fc; traddr=nn-0x1:pn-0x2; host-traddr=nn-0x3:pn-0x4; nqn=nqn.c
controller = transport=loop; traddr=1; nqn=nqn.d
controller = transport=tcp; traddr=10.0.0.2; nqn=nqn.e
exclude = nqn=nqn.e
include = nqn=nqn.f
`
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	cfg, issues, err := conf.Load(conf.Stacd, file)
	if err != nil || issues != nil {
		t.Fatal(err, issues)
	}
	guest := "hostnqn=nqn.guest,hostid=" + identity.IDFor("nqn.guest")
	host := "hostnqn=" + identity.NQN + ",hostid=" + identity.ID
	want := map[string]string{
		"nqn.a=b": "nqn=nqn.a=b,transport=tcp,traddr=10.0.0.1,trsvcid=4420," + guest + ",keep_alive_tmo=0,ctrl_loss_tmo=600",
		"nqn.b":   "nqn=nqn.b,transport=rdma,traddr=2001:db8::1,host_traddr=2001:db8::2,trsvcid=4420," + host + ",ctrl_loss_tmo=600",
		"nqn.c":   "nqn=nqn.c,transport=fc,traddr=nn-0x1:pn-0x2,host_traddr=nn-0x3:pn-0x4," + host + ",ctrl_loss_tmo=600",
		"nqn.d":   "nqn=nqn.d,transport=loop,traddr=1," + host + ",ctrl_loss_tmo=600",
	}
	got := service.Configured(cfg, tid.IO, identity, slog.New(slog.DiscardHandler))
	for id, o := range got {
		if o.String() != want[id.SubsysNQN] {
			t.Errorf("%s: %s, want %s", id, o, want[id.SubsysNQN])
		}
	}
	if len(got) != len(want) {
		t.Errorf("%d controllers, want %d", len(got), len(want))
	}
	if identity.IDFor("nqn.guest") == identity.ID {
		t.Error("two host NQNs with one host ID: the kernel refuses that")
	}
}

// The identity is read at start and at reload, and at no other time; one that
// cannot be read at a reload changes nothing (defects 39, 46 and 47 of
// nvme-stas).
func TestIdentityIsReadAtReload(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, tid.IO, "nqn.a")
		reads := 0
		var broken error
		r.svc = service.New(tid.IO, r.policy, r.env(func(env *service.Env) {
			env.Identity = func(boot.Tables) (hostid.Identity, error) { reads++; return identity, broken }
		}))
		r.policy.engine = r.svc.Engine()
		r.start()
		r.want(controller("nqn.a", "1"))
		for range 100 {
			if _, err := r.svc.ProcessInfo(t.Context()); err != nil {
				t.Error(err)
			}
		}
		if reads != 1 {
			t.Errorf("read %d times", reads)
		}
		broken = os.ErrNotExist
		r.reload <- struct{}{}
		pause(0)
		info, err := r.svc.ProcessInfo(t.Context())
		if reads != 2 || err != nil || r.policy.applied != 1 || !strings.Contains(info, identity.NQN) {
			t.Errorf("read %d times, applied %d times, %s, %v", reads, r.policy.applied, info, err)
		}
		if report, err := r.svc.Report(t.Context()); err != nil || !report.ReloadFailed || report.Host.NQN != identity.NQN {
			t.Errorf("the report says %+v, %v", report, err)
		}
		r.expect("nothing has changed", "nvme0=nqn.a:1")
	})
}
