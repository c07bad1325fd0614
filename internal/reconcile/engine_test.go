package reconcile

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"
)

// doubling is a Backoff of 1 s, 2 s, 4 s… up to a minute.
func doubling(t Try) time.Duration { return min(time.Second<<min(t.N-1, 6), time.Minute) }

// attempts lets time pass, in which each connect ends as end says, and counts
// them. A step is what happens meanwhile, every so often.
func (s *sim) attempts(d, every time.Duration, end func(Op[string]), step func()) (n int) {
	for until := s.now.Add(d); s.now.Before(until); {
		s.start()
		for _, op := range s.running {
			end(op)
			n++
		}
		s.running = nil
		_, wake := s.e.Next(s.now) // after an end there is a pause
		next := until
		if !wake.IsZero() {
			next = wake
		}
		if every > 0 && next.After(s.now.Add(every)) {
			next = s.now.Add(every)
		}
		if !next.After(s.now) {
			next = s.now.Add(time.Millisecond)
		}
		s.now = next
		if step != nil {
			step()
		}
	}
	return n
}

func (s *sim) fails(err error) func(Op[string]) {
	return func(op Op[string]) { s.e.Done(op, "", err, s.now) }
}

// What fails again and again, in whatever way, is tried less and less often,
// and a flood of evidence does not change that much.
func TestWorkIsBounded(t *testing.T) {
	refused := errors.New("refused")
	for _, tt := range []struct {
		name        string
		every       time.Duration
		end         func(*sim, Op[string])
		step        func(*sim)
		least, most int // in ten minutes
	}{
		{name: "refused", end: func(s *sim, op Op[string]) { s.fails(refused)(op) }, least: 14, most: 17},
		{
			name: "connected, and gone at once", least: 14, most: 17,
			end: func(s *sim, op Op[string]) { s.e.Done(op, "nvme7", nil, s.now) },
		},
		{
			name: "connected, and lost soon", least: 14, most: 17,
			end: func(s *sim, op Op[string]) {
				name := s.add(existing(op.TID))
				s.observe(name)
				s.e.Done(op, name, nil, s.now)
				delete(s.devices, name)
				s.observe(name)
			},
		},
		{
			name: "kicked all the time", every: 10 * time.Millisecond, least: 590, most: 1300, // 2 in each second
			end:  func(s *sim, op Op[string]) { s.fails(refused)(op) },
			step: func(s *sim) { s.e.Kick(subsystem(1), s.now) },
		},
		{
			name: "kicked with all others all the time", every: 10 * time.Millisecond, least: 590, most: 1300,
			end:  func(s *sim, op Op[string]) { s.fails(refused)(op) },
			step: func(s *sim) { s.e.KickAll(s.now) },
		},
		{
			name: "wanted and observed all the time", every: 10 * time.Millisecond, least: 14, most: 17,
			end:  func(s *sim, op Op[string]) { s.fails(refused)(op) },
			step: func(s *sim) { s.want(subsystem(1)); s.pass() },
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := newSim(t, Config[string]{Backoff: doubling, Target: func(error) Verdict { return Silent }})
			s.pass()
			s.want(subsystem(1))
			step := func() {}
			if tt.step != nil {
				step = func() { tt.step(s) }
			}
			n := s.attempts(10*time.Minute, tt.every, func(op Op[string]) { tt.end(s, op) }, step)
			if n < tt.least || n > tt.most {
				t.Errorf("%d attempts in ten minutes, want %d to %d", n, tt.least, tt.most)
			}
		})
	}
}

// A connection that has lasted is forgiven what was before.
func TestLastingConnection(t *testing.T) {
	s := newSim(t, Config[string]{Backoff: doubling})
	s.pass()
	s.want(subsystem(1))
	for i, tt := range []struct{ lived, pause time.Duration }{
		{9 * time.Second, time.Second}, {9 * time.Second, 2 * time.Second}, {0, 4 * time.Second},
		{10 * time.Second, time.Second}, {time.Hour, time.Second}, {time.Second, 2 * time.Second},
	} {
		s.settle()
		s.now = s.now.Add(tt.lived)
		delete(s.devices, "nvme0")
		s.observe("nvme0")
		if st, _ := s.e.Status(subsystem(1)); st.Next.Sub(s.now) != tt.pause {
			t.Errorf("loss %d, after %v: pause of %v, want %v", i, tt.lived, st.Next.Sub(s.now), tt.pause)
		}
	}
}

func TestLostAtOnceIsAFailure(t *testing.T) {
	s := newSim(t, Config[string]{})
	s.pass()
	s.want(subsystem(1))
	s.start()
	s.e.Done(s.running[0], "nvme0", nil, s.now) // and sysfs does not have it
	s.running = nil
	if st, _ := s.e.Status(subsystem(1)); !errors.Is(st.Err, ErrLost) || st.Failures != 1 || !st.Next.Equal(s.now.Add(time.Second)) {
		t.Errorf("status: %+v", st)
	}
	s.expect(ConnectFailed)
}

func TestHold(t *testing.T) {
	s := newSim(t, Config[string]{Work: true})
	s.pass()
	id := subsystem(1)
	s.want(id)
	s.e.Hold(id, true, s.now)
	s.settle()
	s.expect()
	if st, _ := s.e.Status(id); !st.Held || !st.Wanted {
		t.Errorf("status: %+v", st)
	}
	s.e.Hold(id, false, s.now)
	s.settle()
	s.expect(Connected)

	s.e.Hold(id, true, s.now)
	s.e.RequestWork("nvme0", s.now)
	if s.start(); len(s.running) != 1 || s.running[0].Kind != Work {
		t.Errorf("%v while it is held, want work", s.running)
	}
	s.finishAll(nil)
	s.unwant(id)
	s.settle()
	s.pass()
	s.settle()
	if s.expect(); len(s.devices) != 1 {
		t.Error("it was held, and disconnected")
	}
	s.e.Hold(id, false, s.now)
	s.settle()
	s.expect(Disconnected)
	if s.e.Len() != 0 {
		t.Error("it is not forgotten")
	}

	// The kernel may take away what is held. It does not come back until released.
	s.want(id)
	s.settle()
	s.e.Hold(id, true, s.now)
	delete(s.devices, "nvme0")
	s.observe("nvme0")
	s.settle()
	s.expect(Connected, Lost)
	s.e.Hold(id, false, s.now)
	s.settle()
	s.expect(Connected)
}

func TestDrop(t *testing.T) {
	s := newSim(t, Config[string]{})
	s.pass()
	id := subsystem(1)
	if s.e.Drop(id, s.now) {
		t.Error("something was dropped that was never wanted")
	}
	s.want(id)
	if s.e.Drop(id, s.now) {
		t.Error("something was dropped that is not connected")
	}
	s.settle()
	s.kinds()
	drop := func(err error) {
		t.Helper()
		if !s.e.Drop(id, s.now) {
			t.Error("nothing was dropped")
		}
		ops, _ := s.e.Next(s.now)
		if len(ops) != 1 || ops[0].Kind != Disconnect || !ops[0].Dropped {
			t.Fatalf("operations %v", ops)
		}
		s.running = ops
		s.finish(0, err)
	}
	drop(errors.New("busy")) // is not repeated
	s.settle()
	s.expect(DisconnectFailed)
	if st, _ := s.e.Status(id); st.Device != "nvme0" || st.Failures != 0 {
		t.Errorf("status after a drop that failed: %+v", st)
	}
	drop(nil)
	s.settle()
	s.expect(Disconnected, Connected)
	s.e.Hold(id, true, s.now)
	drop(nil)
	s.settle()
	s.expect(Disconnected)
}

func TestAdjust(t *testing.T) {
	s := newSim(t, Config[string]{Differ: func(was, now string) bool { return was != now }})
	s.pass()
	id := subsystem(1)
	s.e.Want(id, "a", s.now)
	s.settle()
	s.e.Want(id, "a", s.now)
	s.settle()
	s.expect(Connected)
	s.e.Want(id, "b", s.now)
	s.start()
	if len(s.running) != 1 || s.running[0].Kind != Adjust || s.running[0].Was != "a" || s.running[0].Params != "b" {
		t.Fatalf("operations %+v", s.running)
	}
	s.e.Want(id, "c", s.now) // meanwhile
	s.finishAll(nil)
	s.start()
	if len(s.running) != 1 || s.running[0].Was != "b" || s.running[0].Params != "c" {
		t.Fatalf("operations %+v", s.running)
	}
	s.finishAll(errors.New("no"))
	s.settle()
	s.expect(Adjusted, AdjustFailed, Adjusted)
	s.e.Want(id, "d", s.now)
	s.e.Want(id, "c", s.now) // never mind
	s.settle()
	s.expect()

	// With which parameters a device was made that is taken over, nobody knows.
	other := subsystem(2)
	s.devices["nvme5"] = existing(other)
	s.pass()
	s.e.Want(other, "x", s.now)
	s.settle()
	s.expect(Adopted)
}

// Connects are in order of what they are expected to cost, and then each target
// has its turn; of one target only so many are made at a time, and one if it
// does not answer.
func TestFairness(t *testing.T) {
	at := func(target, n int) (id [2]int) { return [2]int{target, n} }
	name := func(op Op[string]) string {
		return strings.TrimPrefix(op.TID.TrAddr, "10.0.0.") + op.TID.SubsysNQN[len(op.TID.SubsysNQN)-1:]
	}
	silent := errors.New("silent")
	s := newSim(t, Config[string]{Target: func(err error) Verdict {
		if errors.Is(err, silent) {
			return Silent
		}
		return Answers
	}})
	s.e.cfg.Limit[Connect] = 5
	s.e.cfg.PerTarget = 2
	s.pass()
	want := func(ids ...[2]int) {
		for _, i := range ids {
			id := subsystem(i[1])
			id.TrAddr = fmt.Sprintf("10.0.0.%d", i[0])
			s.want(id)
		}
	}
	started := func(what, expect string) {
		t.Helper()
		before := len(s.running)
		s.start()
		var names []string
		for _, op := range s.running[before:] {
			names = append(names, name(op))
		}
		if got := strings.Join(names, " "); got != expect {
			t.Errorf("%s: %q are connected, want %q", what, got, expect)
		}
	}
	finish := func(n string, err error) {
		t.Helper()
		s.now = s.now.Add(time.Millisecond)
		for i, op := range s.running {
			if name(op) == n {
				s.finish(i, err)
				return
			}
		}
		t.Fatalf("%s does not run", n)
	}
	want(at(1, 1), at(1, 2), at(1, 3), at(1, 4), at(2, 1), at(2, 2), at(3, 1), at(3, 2))
	started("each target in turn", "11 21 31 12 22")
	started("as many as may", "")
	finish("11", silent)
	started("a silent target is asked by one", "32")
	finish("12", silent)
	started("and goes on", "13")
	finish("13", silent)
	finish("21", nil)
	started("one by one", "14")
	s.now = s.now.Add(time.Second) // 11, 12 and 13 are due again
	want(at(4, 1), at(4, 2), at(4, 3))
	started("those that never failed come first", "41")
	finish("22", nil)
	started("and again", "42")
	finish("14", nil) // the target is back, which helps all that wait there
	started("then the others, in turn", "11")
	finish("31", nil)
	started("and so on", "12")
	finish("32", nil)
	started("one of target 4 waits for its like", "")
	finish("41", nil)
	started("until one is done", "43")
}

// A target that answers again is evidence for all that wait there.
func TestTargetIsBack(t *testing.T) {
	silent := errors.New("silent")
	s := newSim(t, Config[string]{
		Target:  func(error) Verdict { return Silent },
		Backoff: func(t Try) time.Duration { return time.Duration(t.Missing) * time.Second },
	})
	s.pass()
	for n := range 5 {
		s.want(subsystem(n))
	}
	for range 5 {
		s.start()
		s.finishAll(silent)
	}
	s.now = s.now.Add(5 * time.Second)
	s.start()
	if len(s.running) != 1 {
		t.Fatalf("%d connects to a silent target", len(s.running))
	}
	s.finish(0, nil)
	s.start()
	if len(s.running) != 4 {
		t.Errorf("%d connects after it was back, want the other four", len(s.running))
	}
}
