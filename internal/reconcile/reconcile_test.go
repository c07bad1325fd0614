package reconcile

import (
	"cmp"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"testing"
	"time"

	"github.com/nvme-stas/stas/internal/tid"
)

const hostNQN = "nqn.2014-08.org.nvmexpress:uuid:36ebf5a9-1df9-47b3-a6d0-e9ba32e428a2"

func subsystem(n int) tid.TID {
	return tid.New(tid.TID{
		Transport: "tcp", TrAddr: "10.0.0.1", TrSvcID: "4420",
		SubsysNQN: fmt.Sprintf("nqn.2026-11.test:%d", n), HostNQN: hostNQN,
	})
}

func existing(id tid.TID) Observed {
	return Observed{Live: true, Existing: tid.Existing{
		Transport: id.Transport, TrAddr: id.TrAddr, TrSvcID: id.TrSvcID,
		SubsysNQN: id.SubsysNQN, HostNQN: id.HostNQN, Kind: tid.IO,
	}}
}

// sim is a kernel as simple as it gets: a map of controllers. It carries out
// an engine's operations when told to, and checks the engine's contract.
type sim struct {
	t       testing.TB
	e       *Engine[string]
	now     time.Time
	seq     uint64
	devices map[string]Observed
	running []Op[string]
	events  []Event
	// mayGo holds the devices that Unwant has given up.
	unwanted map[tid.TID]bool
}

func newSim(t testing.TB, cfg Config[string]) *sim {
	s := &sim{t: t, now: time.Unix(0, 0), devices: make(map[string]Observed), unwanted: make(map[tid.TID]bool)}
	cfg.Kind = tid.IO
	cfg.Limit = map[OpKind]int{Connect: 4, Disconnect: 8, Adjust: 8, Work: 8}
	cfg.PerTarget = cmp.Or(cfg.PerTarget, 4)
	if cfg.Backoff == nil {
		cfg.Backoff = func(t Try) time.Duration { return time.Duration(t.N) * time.Second }
	}
	cfg.Notify = func(ev Event) { s.events = append(s.events, ev) }
	s.e = New[string](cfg)
	return s
}

func (s *sim) want(id tid.TID) {
	delete(s.unwanted, id)
	s.e.Want(id, "", s.now)
}

func (s *sim) unwant(id tid.TID) {
	s.unwanted[id] = true
	s.e.Unwant(id, false, s.now)
}

// start starts the operations that are due.
func (s *sim) start() (wake time.Time) {
	ops, wake := s.e.Next(s.now)
	for _, op := range ops {
		if slices.ContainsFunc(s.running, func(o Op[string]) bool { return o.TID == op.TID }) {
			s.t.Fatalf("%v of %v although another operation runs", op.Kind, op.TID)
		}
		if op.Kind == Disconnect && !s.unwanted[op.TID] {
			s.t.Fatalf("%v is disconnected although nobody gave it up", op.TID)
		}
		s.running = append(s.running, op)
	}
	return wake
}

// finish ends a running operation.
func (s *sim) finish(i int, err error) {
	op := s.running[i]
	s.running = slices.Delete(s.running, i, i+1)
	device := op.Device
	if err == nil {
		switch op.Kind {
		case Connect:
			device = s.add(existing(op.TID))
		case Disconnect:
			if d, ok := s.devices[device]; ok && op.Seen.SameConnection(d) {
				delete(s.devices, device)
			}
		}
	}
	if device != "" {
		s.observe(device)
	}
	s.e.Done(op, device, err, s.now)
}

func (s *sim) finishAll(err error) {
	for len(s.running) > 0 {
		s.finish(0, err)
	}
}

func (s *sim) add(d Observed) string {
	for n := 0; ; n++ {
		name := "nvme" + strconv.Itoa(n)
		if _, taken := s.devices[name]; !taken {
			s.devices[name] = d
			return name
		}
	}
}

func (s *sim) observe(name string) {
	s.seq++
	if d, ok := s.devices[name]; ok {
		s.e.Observe(name, s.seq, &d, s.now)
	} else {
		s.e.Observe(name, s.seq, nil, s.now)
	}
}

func (s *sim) pass() {
	s.seq++
	seen := make(map[string]*Observed)
	for name, d := range s.devices {
		seen[name] = &d
	}
	s.e.ObserveAll(s.seq, seen, s.now)
}

// settle lets time pass until nothing is left to do.
func (s *sim) settle() {
	for range 1000 {
		wake := s.start()
		if len(s.running) > 0 {
			s.finishAll(nil)
			continue
		}
		if wake.IsZero() {
			return
		}
		s.now = wake
	}
	s.t.Fatal("the engine does not come to rest")
}

func (s *sim) kinds() (kinds []EventKind) {
	for _, ev := range s.events {
		kinds = append(kinds, ev.Kind)
	}
	s.events = nil
	return kinds
}

func (s *sim) expect(kinds ...EventKind) {
	s.t.Helper()
	if got := s.kinds(); !slices.Equal(got, kinds) {
		s.t.Errorf("events %v, want %v", got, kinds)
	}
}

func TestNothingBeforeTheFirstPass(t *testing.T) {
	s := newSim(t, Config[string]{})
	s.devices["nvme0"] = existing(subsystem(1))
	s.want(subsystem(1))
	s.want(subsystem(2))
	s.unwant(subsystem(2))
	if s.start(); len(s.running) > 0 {
		t.Fatalf("operations before the kernel was observed: %v", s.running)
	}
	s.pass()
	s.settle()
	s.expect(Adopted)
	if s.e.Len() != 1 || len(s.devices) != 1 {
		t.Errorf("%d controllers, %d devices, want one each", s.e.Len(), len(s.devices))
	}
}

func TestUnwantedBeforeTheFirstPassIsDisconnected(t *testing.T) {
	s := newSim(t, Config[string]{})
	s.devices["nvme0"] = existing(subsystem(1))
	s.want(subsystem(1))
	s.unwant(subsystem(1))
	s.pass()
	s.settle()
	s.expect(Adopted, Disconnected)
	if s.e.Len() != 0 || len(s.devices) != 0 {
		t.Errorf("%d controllers, %d devices left", s.e.Len(), len(s.devices))
	}
}

func TestRetry(t *testing.T) {
	s := newSim(t, Config[string]{})
	s.pass()
	s.want(subsystem(1))
	for n := 1; n <= 3; n++ {
		if s.start(); len(s.running) != 1 {
			t.Fatalf("attempt %d: %d operations", n, len(s.running))
		}
		s.finishAll(errors.New("refused"))
		wake := s.start()
		if want := s.now.Add(time.Duration(n) * time.Second); !wake.Equal(want) {
			t.Fatalf("after attempt %d: next at %v, want %v", n, wake, want)
		}
		s.now = wake
	}
	s.expect(ConnectFailed, ConnectFailed, ConnectFailed)
	s.settle()
	s.expect(Connected)
	if st, _ := s.e.Status(subsystem(1)); st.Failures != 0 || st.Err != nil || st.Device == "" {
		t.Errorf("status after success: %+v", st)
	}
}

func TestKickSkipsThePause(t *testing.T) {
	s := newSim(t, Config[string]{})
	s.pass()
	s.want(subsystem(1))
	s.start()
	s.finishAll(errors.New("refused"))
	s.e.Kick(subsystem(1), s.now)
	if s.start(); len(s.running) != 1 {
		t.Errorf("%d operations after a kick, want one at once", len(s.running))
	}
}

func TestLost(t *testing.T) {
	for _, how := range []string{"removed", "leaving", "replaced"} {
		t.Run(how, func(t *testing.T) {
			s := newSim(t, Config[string]{})
			s.pass()
			s.want(subsystem(1))
			s.settle()
			s.kinds()
			switch how {
			case "removed":
				delete(s.devices, "nvme0")
			case "leaving":
				d := s.devices["nvme0"]
				d.Leaving, d.Live = true, false
				s.devices["nvme0"] = d
			case "replaced":
				s.devices["nvme0"] = existing(subsystem(2))
			}
			s.observe("nvme0")
			wake := s.start()
			if len(s.running) > 0 || !wake.Equal(s.now.Add(time.Second)) {
				t.Fatalf("operations %v, wake %v, want a pause of 1 s", s.running, wake)
			}
			s.settle()
			s.expect(Lost, Connected)
		})
	}
}

func TestReconnectingIsNotLost(t *testing.T) {
	s := newSim(t, Config[string]{})
	s.devices["nvme0"] = existing(subsystem(1))
	d := s.devices["nvme0"]
	d.SrcAddr = "10.0.0.9"
	s.devices["nvme0"] = d
	s.pass()
	s.want(subsystem(1))
	d.SrcAddr, d.Live = "", false
	s.devices["nvme0"] = d
	s.observe("nvme0")
	s.pass()
	s.settle()
	s.expect(Adopted, Broken)
	s.now = s.now.Add(7 * time.Second)
	if st, _ := s.e.Status(subsystem(1)); s.now.Sub(st.Broken) != 7*time.Second {
		t.Errorf("broken since %v", st.Broken)
	}
	d.SrcAddr, d.Live = "10.0.0.9", true
	s.devices["nvme0"] = d
	s.observe("nvme0")
	s.pass()
	if down := s.events[0].Down; down != 7*time.Second {
		t.Errorf("it was broken for %v", down)
	}
	s.expect(Back)
	if st, _ := s.e.Status(subsystem(1)); !st.Broken.IsZero() {
		t.Errorf("broken since %v", st.Broken)
	}
}

func TestUnwantedWhileConnecting(t *testing.T) {
	s := newSim(t, Config[string]{})
	s.pass()
	s.want(subsystem(1))
	s.start()
	s.unwant(subsystem(1))
	if s.start(); len(s.running) != 1 {
		t.Fatalf("operations %v, want only the connect", s.running)
	}
	s.settle()
	s.expect(Connected, Disconnected)
}

func TestWantedAgainWhileDisconnecting(t *testing.T) {
	s := newSim(t, Config[string]{})
	s.pass()
	s.want(subsystem(1))
	s.settle()
	s.unwant(subsystem(1))
	s.start()
	s.want(subsystem(1))
	s.settle()
	s.expect(Connected, Disconnected, Connected)
}

func TestKeep(t *testing.T) {
	s := newSim(t, Config[string]{})
	s.pass()
	s.want(subsystem(1))
	s.settle()
	s.e.Unwant(subsystem(1), true, s.now)
	s.settle()
	s.expect(Connected, Released)
	if len(s.devices) != 1 || s.e.Len() != 0 {
		t.Errorf("%d devices, %d controllers, want 1 and 0", len(s.devices), s.e.Len())
	}
}

// Two candidates can be served by one connection, when one of them does not
// care for the interface. Giving up one must not take it from the other.
func TestSharedDevice(t *testing.T) {
	s := newSim(t, Config[string]{})
	any := subsystem(1)
	bound := any
	bound.HostIface = "eth0"
	d := existing(any)
	d.HostIface = "eth0"
	s.devices["nvme0"] = d
	s.pass()
	s.want(any)
	s.want(bound)
	s.settle()
	s.expect(Adopted, Adopted)
	s.unwant(any)
	s.settle()
	s.expect(Released)
	s.unwant(bound)
	s.settle()
	s.expect(Disconnected)
}

// Of a connection that is broken nobody can tell which path it takes, so both
// candidates take it over. When it is back, the wrong one gets its own.
func TestPathIsSeenLater(t *testing.T) {
	s := newSim(t, Config[string]{})
	s.e.SetIfaces(tid.NewIfaces([]tid.IfaceAddr{
		{Iface: "eth0", Addr: netip.MustParseAddr("10.0.0.9")}, {Iface: "eth1", Addr: netip.MustParseAddr("10.1.0.9")},
	}))
	ids := []tid.TID{subsystem(1), subsystem(1)}
	ids[0].HostIface, ids[1].HostIface = "eth0", "eth1"
	d := existing(subsystem(1)) // made by hand, without an interface
	s.devices["nvme0"] = d
	s.pass()
	s.want(ids[0])
	s.want(ids[1])
	s.settle()
	s.expect(Adopted, Adopted)
	s.pass()
	s.settle()
	s.expect() // still broken
	d.SrcAddr = "10.0.0.9"
	s.devices["nvme0"] = d
	s.pass()
	s.settle()
	s.expect(OtherPath, Connected)
	for i, want := range []string{"nvme0", "nvme1"} {
		if st, _ := s.e.Status(ids[i]); st.Device != want {
			t.Errorf("%v has %q, want %q", ids[i], st.Device, want)
		}
	}
	// What has been seen once is not doubted when it breaks again.
	d.SrcAddr = ""
	s.devices["nvme0"] = d
	s.pass()
	s.settle()
	s.expect()
}

func TestStaleObservation(t *testing.T) {
	s := newSim(t, Config[string]{})
	s.pass()
	s.want(subsystem(1))
	s.settle()
	s.kinds()
	s.e.Observe("nvme0", 1, nil, s.now) // read before it was connected
	s.settle()
	s.expect()
}

func TestUnreadableIsNotGone(t *testing.T) {
	s := newSim(t, Config[string]{})
	s.pass()
	s.want(subsystem(1))
	s.settle()
	s.seq++
	s.e.ObserveAll(s.seq, map[string]*Observed{"nvme0": nil}, s.now)
	s.settle()
	s.expect(Connected)
	s.seq++
	s.e.ObserveAll(s.seq, nil, s.now)
	s.settle()
	s.expect(Lost, Connected)
}

func TestWork(t *testing.T) {
	s := newSim(t, Config[string]{Work: true})
	d := existing(subsystem(1))
	d.Live = false
	s.devices["nvme0"] = d
	s.pass()
	s.want(subsystem(1))
	if s.start(); len(s.running) > 0 {
		t.Fatalf("%v on a device that is not live", s.running[0].Kind)
	}
	d.Live = true
	s.devices["nvme0"] = d
	s.observe("nvme0")
	s.start()
	if len(s.running) != 1 || s.running[0].Kind != Work {
		t.Fatalf("operations %v, want work", s.running)
	}
	s.e.RequestWork("nvme0", s.now) // an AEN meanwhile
	s.finishAll(nil)
	s.start()
	if len(s.running) != 1 || s.running[0].Kind != Work {
		t.Fatalf("operations %v, want work again", s.running)
	}
	s.finishAll(errors.New("time-out"))
	wake := s.start()
	if len(s.running) != 0 || wake.IsZero() {
		t.Fatalf("operations %v, wake %v, want a pause", s.running, wake)
	}
	s.unwant(subsystem(1))
	s.settle()
	s.expect(Adopted, Broken, Back, WorkFailed, Disconnected)
}

func TestLimit(t *testing.T) {
	s := newSim(t, Config[string]{})
	s.pass()
	for n := range 10 {
		s.want(subsystem(n))
	}
	s.start()
	if len(s.running) != 4 {
		t.Fatalf("%d connects at a time, want 4", len(s.running))
	}
	for i, op := range s.running {
		if op.TID != subsystem(i) {
			t.Errorf("operation %d is for %v", i, op.TID)
		}
	}
	s.settle()
	if len(s.devices) != 10 {
		t.Errorf("%d devices, want 10", len(s.devices))
	}
}

// The cost of bringing up n controllers, events included: time per controller
// must not grow with n.
func BenchmarkBringUp(b *testing.B) {
	for _, n := range []int{100, 1000, 10000} {
		b.Run(strconv.Itoa(n), func(b *testing.B) {
			for range b.N {
				s := newSim(b, Config[string]{})
				s.pass()
				for i := range n {
					s.want(subsystem(i))
				}
				for i := 0; i < n; {
					ops, _ := s.e.Next(s.now)
					for _, op := range ops {
						name := "nvme" + strconv.Itoa(i)
						i++
						s.devices[name] = existing(op.TID)
						s.observe(name)
						s.e.Done(op, name, nil, s.now)
					}
				}
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/float64(n), "ns/controller")
		})
	}
}
