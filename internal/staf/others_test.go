package staf

import (
	"context"
	"errors"
	"slices"
	"sync"
	"testing"
	"testing/synctest"

	"github.com/nvme-stas/stas/internal/conf"
	"github.com/nvme-stas/stas/internal/service"
	"github.com/nvme-stas/stas/internal/tid"
	"github.com/nvme-stas/stas/pkg/uevent"
)

// The names are those that systemd-escape(1) and nvme-cli's unit expect, to
// the byte.
func TestConnectUnit(t *testing.T) {
	for _, test := range []struct {
		env  map[string]string
		want string
	}{
		{nil, `nvmf-connect@--device\x3dnvme3.service`},
		{map[string]string{"NVME_HOST_IFACE": "eth0"}, `nvmf-connect@--device\x3dnvme3\x09--host-iface\x3deth0.service`},
		{
			map[string]string{"NVME_HOST_IFACE": "none", "NVME_HOST_TRADDR": "10.0.0.9", "NVME_TRADDR": "10.0.0.1"},
			`nvmf-connect@--device\x3dnvme3\x09--host-traddr\x3d10.0.0.9.service`,
		},
		{
			map[string]string{"NVME_HOST_IFACE": "bond0.100", "NVME_HOST_TRADDR": "fd00::9"},
			`nvmf-connect@--device\x3dnvme3\x09--host-traddr\x3dfd00::9\x09--host-iface\x3dbond0.100.service`,
		},
		{map[string]string{"NVME_HOST_IFACE": "None", "NVME_HOST_TRADDR": ""}, `nvmf-connect@--device\x3dnvme3.service`},
	} {
		if got := connectUnit(uevent.Event{DevName: "nvme3", Env: test.env}); got != test.want {
			t.Errorf("%v: %s, want %s", test.env, got, test.want)
		}
	}
}

// units notes the units that are restarted.
type units struct {
	mu   sync.Mutex
	all  []string
	fail error
}

func (u *units) restart(_ context.Context, unit string) error {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.all = append(u.all, unit)
	return u.fail
}

func (u *units) expect(t *testing.T, what string, want ...string) {
	t.Helper()
	settle()
	settle()
	u.mu.Lock()
	defer u.mu.Unlock()
	if !slices.Equal(u.all, want) {
		t.Errorf("%s: restarted %q, want %q", what, u.all, want)
	}
	u.all = nil
}

// What discovery controllers report that are not stafd's is passed on to
// nvme-cli; what its own report is not, nor what an I/O controller does.
func TestOthers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		var u units
		r.start()
		err := r.daemon.Loop().Do(t.Context(), func() { r.daemon.restart = u.restart })
		if err != nil {
			t.Fatal(err)
		}
		connect := func(id tid.TID, kind tid.Kind) {
			if _, err := r.kernel.Connect(service.Options(id, kind, conf.Params{}, identity)); err != nil {
				t.Fatal(err)
			}
		}
		r.kernel.Offer("nqn.b", addr, "2", true)
		io := dcID("2")
		io.SubsysNQN = "nqn.b"
		connect(dcID("2"), tid.Discovery) // nvme1
		connect(io, tid.IO)               // nvme2
		u.expect(t, "connected")
		r.kernel.Offer("nqn.a", addr, "1", true)
		u.expect(t, "stafd's own")
		r.kernel.Offer("nqn.c", addr, "2", true)
		u.expect(t, "somebody else's", `nvmf-connect@--device\x3dnvme1.service`)
		u.fail = errors.New("the unit is masked")
		r.kernel.Offer("nqn.c", addr, "2", false)
		u.expect(t, "nvme-cli's service is masked", `nvmf-connect@--device\x3dnvme1.service`)
		for text, want := range map[string][]string{
			"NVME_AEN=0x70f002": {`nvmf-connect@--device\x3dnvme1.service`}, "NVME_EVENT=rediscover": {`nvmf-connect@--device\x3dnvme1.service`},
			"NVME_EVENT=connected": nil, "NVME_AEN=0x00": nil, "NVME_AEN=rubbish": nil, "NVME_AEN=0x80f002": nil, "FC_EVENT=x": nil,
		} {
			r.kernel.Announce("change", "nvme1", text)
			u.expect(t, text, want...)
			r.kernel.Announce("change", "nvme0", text) // stafd's
			r.kernel.Announce("change", "nvme2", text) // an I/O controller
			r.kernel.Announce("change", "nvme9", text) // nobody
			r.kernel.Announce("remove", "nvme1", text)
			u.expect(t, "not for us: "+text)
		}
		// One that stafd takes over in the moment is its own.
		r.kernel.Announce("change", "nvme1", "NVME_AEN=0x70f002")
		r.reconfigure(dc1 + dc2)
		u.expect(t, "taken over")
	})
}
