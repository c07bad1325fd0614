package service_test

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/sys/unix"

	"github.com/nvme-stas/stas/internal/stastest"
	"github.com/nvme-stas/stas/internal/tid"
	"github.com/nvme-stas/stas/pkg/fabrics"
	"github.com/nvme-stas/stas/pkg/nvme"
)

// Whoever does not answer costs those that do nothing, and is not handed to
// the kernel.
func TestSilentTargets(t *testing.T) {
	const silent = 32
	for _, c := range []struct {
		name    string
		silence stastest.Silence
		errno   unix.Errno
	}{
		{"black holes", stastest.BlackHole, unix.ETIMEDOUT},
		{"mute", stastest.Mute, unix.EAGAIN},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := newRig(t, tid.Discovery)
				var ids []tid.TID
				for port := 100; port < 100+silent; port++ {
					r.kernel.OpenPort(port, addr, strconv.Itoa(port))
					r.kernel.Silence(addr, strconv.Itoa(port), c.silence)
					ids = append(ids, controller(nvme.WellKnownDiscoveryNQN, strconv.Itoa(port)))
				}
				ids = append(ids, controller(nvme.WellKnownDiscoveryNQN, "1"))
				r.start()
				r.do(func() {
					for _, id := range ids {
						r.svc.Engine().Want(id, r.options(id), time.Now())
					}
				})
				pause(25 * time.Millisecond)
				r.expect("beside those that are silent", "nvme0="+nvme.WellKnownDiscoveryNQN+":1")
				pause(time.Minute)
				if n := r.kernel.count("connect"); n != 1 {
					t.Errorf("%d connects reached the kernel, want 1", n)
				}
				r.do(func() {
					for _, id := range ids[:silent] {
						if st, _ := r.svc.Engine().Status(id); !errors.Is(st.Err, c.errno) {
							t.Errorf("%s: %v", id.TrSvcID, st.Err)
						}
					}
				})
				if one, err := r.svc.Controller(t.Context(), ids[0]); err != nil || one.Probe == nil || one.Probe.Took < 3 || one.Probe.Took > 10 {
					t.Errorf("%+v, %v", one.Probe, err)
				}
			})
		})
	}
}

// What falls silent later only a connect can tell. The first time that costs
// all others; from then on one of them is in the kernel at a time, and only
// when nobody else is waiting.
func TestMuteLater(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, tid.IO, "nqn.good")
		var bad []tid.TID
		for port := 100; port < 103; port++ {
			r.kernel.OpenPort(port, addr, strconv.Itoa(port))
			r.kernel.Silence(addr, strconv.Itoa(port), stastest.MuteLater)
			bad = append(bad, controller("nqn.bad", strconv.Itoa(port)))
		}
		r.start()
		r.want(bad...)
		pause(4 * time.Minute)
		began := time.Now()
		r.want(controller("nqn.good", "1"))
		for !slices.Contains(r.subsystems(), "nqn.good") {
			pause(100 * time.Millisecond)
			if time.Since(began) > 5*time.Minute {
				t.Fatal("the good one is never connected")
			}
		}
		if took := time.Since(began); took > 62*time.Second {
			t.Errorf("the good one waited for %v, and so for more than one of the others", took)
		}
	})
}

// subsystems lists those that are connected.
func (r *rig) subsystems() (nqns []string) {
	for _, c := range r.kernel.Controllers() {
		nqns = append(nqns, c.SubsysNQN)
	}
	return nqns
}

// A connect that was in the kernel when a daemon was killed is not to be
// stopped. The next instance, whose connect waits behind it, makes no second
// connection of it.
func TestNoTwins(t *testing.T) {
	for _, kind := range []tid.Kind{tid.Discovery, tid.IO} {
		t.Run(fmt.Sprint(kind), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				id := controller(nvme.WellKnownDiscoveryNQN, "1")
				if kind == tid.IO {
					id = controller("nqn.a", "1")
				}
				r := newRig(t, kind, "nqn.a")
				r.kernel.OpenPort(2, addr, "2")
				r.kernel.Silence(addr, "2", stastest.MuteLater)
				for _, o := range []fabrics.Options{r.options(controller("nqn.mute", "2")), r.options(id)} {
					go func() { _, _ = r.kernel.Kernel.Connect(o) }()
					synctest.Wait()
				}
				r.start()
				r.want(id)
				pause(2 * time.Minute)
				if got := r.subsystems(); !slices.Equal(got, []string{id.SubsysNQN}) {
					t.Errorf("connected are %v", got)
				}
				r.do(func() {
					if st, _ := r.svc.Engine().Status(id); st.Device == "" || st.Device != r.kernel.Controllers()[0].Name || st.Failures != 0 {
						t.Errorf("%+v", st)
					}
				})
			})
		})
	}
}

// A daemon that stops waits for no target.
func TestStopWhileProbing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, tid.IO)
		r.kernel.Silence(addr, "1", stastest.Mute)
		r.start()
		for n := range 100 {
			r.do(func() {
				id := controller(fmt.Sprint("nqn.", n), "1")
				r.svc.Engine().Want(id, r.options(id), time.Now())
			})
		}
		began := time.Now()
		r.cancel(nil)
		<-r.done
		if took := time.Since(began); took > time.Second {
			t.Errorf("it took %v to stop", took)
		}
	})
}
