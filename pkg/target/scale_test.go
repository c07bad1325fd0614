package target

import (
	"context"
	"fmt"
	"os"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nvme-stas/stas/pkg/fabrics"
	"github.com/nvme-stas/stas/pkg/initiator"
	"github.com/nvme-stas/stas/pkg/nvme"
)

const (
	many    = 1000
	oneMore = "nqn.2026-11.org.example:one-more" // in the zone group from the start
)

// crowd is a target of many subsystems, and many hosts that are connected to
// its discovery controller over TCP and wait for events.
type crowd struct {
	*Target
	hosts  []*initiator.Controller
	events []<-chan nvme.AEN
}

func newCrowd(t testing.TB, zoned bool) *crowd {
	t.Helper()
	config := Config{Listeners: []Listener{{Address: "127.0.0.1:0", Discovery: Discovery{Type: CDC}}}}
	group := ZoneGroup{Name: "all", Subsystems: []string{oneMore}}
	for i := range many {
		s := Subsystem{NQN: fmt.Sprintf("nqn.2026-11.org.example:subsys%04d", i)}
		config.Subsystems = append(config.Subsystems, s)
		group.Subsystems = append(group.Subsystems, s.NQN)
		group.Hosts = append(group.Hosts, hostNQN(i))
	}
	if zoned {
		config.Zoning = Zoning{Enabled: true, Groups: []ZoneGroup{group}}
	}
	target, err := Open(config, Options{})
	must(t, err)
	t.Cleanup(target.Close)
	c := &crowd{target, make([]*initiator.Controller, many), make([]<-chan nvme.AEN, many)}
	errs := make([]error, many)
	var all sync.WaitGroup
	turn := make(chan struct{}, 32)
	for i := range many {
		all.Go(func() {
			turn <- struct{}{}
			defer func() { <-turn }()
			c.hosts[i], errs[i] = initiator.Dial(t.Context(), initiator.Options{
				Address: target.Listeners()[0].Address, HostNQN: hostNQN(i),
				HostID: nvme.HostID{0: 1, 14: byte(i >> 8), 15: byte(i)}, KATO: time.Minute,
			})
			if errs[i] == nil {
				c.events[i], errs[i] = c.hosts[i].AsyncEvents(t.Context(), nvme.AENConfigDiscovery)
			}
		})
	}
	all.Wait()
	for _, err := range errs {
		must(t, err)
	}
	t.Cleanup(func() {
		for _, h := range c.hosts {
			h.Close()
		}
	})
	// An event is for a request that has come.
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(10 * time.Millisecond) {
		waiting := 0
		for _, info := range target.Connections() {
			waiting += info.AERs
		}
		if waiting == many {
			return c
		}
		if time.Now().After(deadline) {
			t.Fatalf("%d of %d hosts wait for events", waiting, many)
		}
	}
}

// tell changes the log and waits until every host was told.
func (c *crowd) tell(t testing.TB, nqn string) {
	t.Helper()
	must(t, c.AddSubsystem(Subsystem{NQN: nqn}))
	timeout := time.After(time.Minute)
	for i := range c.events {
		select {
		case <-c.events[i]:
		case <-timeout:
			t.Fatalf("host %d was not told", i)
		}
	}
}

// readSome has some of the hosts read their whole log.
func (c *crowd) readSome(t testing.TB, want int) {
	t.Helper()
	var all sync.WaitGroup
	for _, h := range c.hosts[:50] {
		all.Go(func() {
			log, err := fabrics.ReadDiscoveryLog(context.Background(), h, 0)
			if err != nil || len(log.Entries) != want {
				t.Errorf("%d entries, %v", len(log.Entries), err)
			}
		})
	}
	all.Wait()
}

// TestCrowd holds a thousand subsystems and a thousand hosts, both ends of
// each connection in this process, in less than 300 MB: the peak of the
// process, all that the test itself needs included.
func TestCrowd(t *testing.T) {
	if testing.Short() {
		t.Skip("a thousand connections")
	}
	c := newCrowd(t, true)
	before := peak(t)
	c.readSome(t, many+1)
	c.tell(t, oneMore)
	t.Logf("peak memory of the process: %d MiB connected, %d MiB after 50 have read their log at the same time", before>>20, peak(t)>>20)
	if limit := 300 << 20; !raceEnabled && peak(t) > limit {
		t.Errorf("the process took %d MiB, the limit is %d MiB", peak(t)>>20, limit>>20)
	}
}

// peak returns the most memory that the process ever had, in bytes.
func peak(t testing.TB) int {
	t.Helper()
	status, err := os.ReadFile("/proc/self/status")
	if err != nil {
		t.Skip(err)
	}
	for line := range strings.Lines(string(status)) {
		if value, ok := strings.CutPrefix(line, "VmHWM:"); ok {
			kib, err := strconv.Atoi(strings.TrimSuffix(strings.TrimSpace(value), " kB"))
			must(t, err)
			return kib << 10
		}
	}
	t.Fatal("no VmHWM in /proc/self/status")
	return 0
}

// BenchmarkAEN is a change of the log until the last of a thousand hosts was
// told, and has looked at the header, so that the next change is told too.
func BenchmarkAEN(b *testing.B) {
	c := newCrowd(b, false)
	header := make([]byte, nvme.LogHeaderUsed)
	for i := 0; b.Loop(); i++ {
		c.tell(b, fmt.Sprintf("nqn.2026-11.org.example:more%d", i))
		b.StopTimer()
		for _, h := range c.hosts {
			must(b, h.GetLogPage(nvme.LogDiscovery, 0, false, 0, header))
		}
		for waiting := 0; waiting < many; {
			waiting = 0
			for _, info := range c.Connections() {
				waiting += info.AERs
			}
		}
		b.StartTimer()
	}
}

// BenchmarkRefresh is what a change costs the target, by the number of
// subsystems.
func BenchmarkRefresh(b *testing.B) {
	for _, n := range []int{100, 1000, 10000} {
		b.Run(strconv.Itoa(n), func(b *testing.B) {
			config := Config{Listeners: []Listener{{Address: address}}}
			for i := range n {
				config.Subsystems = append(config.Subsystems, Subsystem{NQN: fmt.Sprintf("nqn.2026-11.org.example:subsys%05d", i)})
			}
			target, err := Open(config, Options{Listen: new(network).listen})
			must(b, err)
			defer target.Close()
			target.viewOf(target.listeners[0], "")
			for ncc := false; b.Loop(); ncc = !ncc {
				must(b, target.SetNCC(config.Subsystems[0].NQN, ncc))
			}
		})
	}
}
