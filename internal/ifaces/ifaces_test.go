package ifaces

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// fake is a kernel whose interfaces are what the test says.
type fake struct {
	mu     sync.Mutex
	lists  int
	now    []Iface
	errs   []error // of the next calls of list
	opened error
	events chan error
	closed chan struct{}
}

func (f *fake) open() error { return f.opened }
func (f *fake) close()      { close(f.closed) }

func (f *fake) wait() error {
	select {
	case err := <-f.events:
		return err
	case <-f.closed:
		return net.ErrClosed
	}
}

func (f *fake) list() ([]Iface, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.lists++
	if len(f.errs) > 0 {
		err := f.errs[0]
		f.errs = f.errs[1:]
		return nil, err
	}
	return f.now, nil
}

func (f *fake) set(now ...Iface) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.now = now
}

func newFake() *fake {
	return &fake{events: make(chan error, 1000), closed: make(chan struct{})}
}

func TestWatch(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFake()
		eth0, eth1 := Iface{Name: "eth0", Index: 2}, Iface{Name: "eth1", Index: 3}
		f.set(eth0)
		f.errs = []error{errInconsistent}
		var reports [][]Iface
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error)
		go func() { ended <- watch(ctx, f, func(list []Iface) { reports = append(reports, list) }) }()
		expect := func(what string, want ...[]Iface) {
			t.Helper()
			time.Sleep(settle)
			synctest.Wait()
			if diff := cmp.Diff(want, reports); diff != "" {
				t.Errorf("%s (-want +got):\n%s", what, diff)
			}
			reports = nil
		}
		expect("first list, at the second attempt", []Iface{eth0})

		f.events <- nil
		expect("an event without a change")

		up := eth0
		up.Up = true
		f.set(up)
		f.events <- nil
		expect("a change", []Iface{up})

		lists := f.lists
		f.set(up, eth1)
		for range 100 {
			f.events <- nil
		}
		expect("a storm", []Iface{up, eth1})
		if n := f.lists - lists; n > 2 {
			t.Errorf("a storm of events had the interfaces read %d times", n)
		}

		f.set(eth1)
		f.events <- nil
		synctest.Wait()
		if reports != nil {
			t.Errorf("reported before it had settled: %v", reports)
		}
		cancel()
		if err := <-ended; !errors.Is(err, context.Canceled) {
			t.Errorf("ended with %v", err)
		}
	})
}

func TestWatchErrors(t *testing.T) {
	broken := errors.New("broken")
	for name, prepare := range map[string]func(*fake){
		"open": func(f *fake) { f.opened = broken },
		"list": func(f *fake) { f.errs = []error{broken} },
		"wait": func(f *fake) { f.events <- broken },
	} {
		synctest.Test(t, func(t *testing.T) {
			f := newFake()
			prepare(f)
			if err := watch(t.Context(), f, func([]Iface) {}); !errors.Is(err, broken) {
				t.Errorf("%s: ended with %v", name, err)
			}
		})
	}
}

func TestCompose(t *testing.T) {
	const up = unix.IFF_UP | unix.IFF_RUNNING
	link := func(index int, name string, flags uint32, master int) netlink.LinkAttrs {
		return netlink.LinkAttrs{Index: index, Name: name, RawFlags: flags, MasterIndex: master}
	}
	address := func(index int, prefix string, flags int) netlink.Addr {
		ip, n, err := net.ParseCIDR(prefix)
		if err != nil {
			t.Fatal(err)
		}
		return netlink.Addr{IPNet: &net.IPNet{IP: ip, Mask: n.Mask}, LinkIndex: index, Flags: flags}
	}
	got := compose([]netlink.Link{
		&netlink.Vlan{LinkAttrs: link(7, "eth0.5", up|unix.IFF_MULTICAST, 5)},
		&netlink.Device{LinkAttrs: link(1, "lo", up|unix.IFF_LOOPBACK|unix.IFF_MULTICAST, 0)},
		&netlink.Device{LinkAttrs: link(2, "eth0", up|unix.IFF_MULTICAST, 0)},
		&netlink.Device{LinkAttrs: link(3, "eth1", unix.IFF_UP|unix.IFF_MULTICAST, 9)}, // no carrier; in a bridge
		&netlink.Tuntap{LinkAttrs: link(4, "tun0", up|unix.IFF_POINTOPOINT|unix.IFF_MULTICAST, 0)},
		&netlink.Vrf{LinkAttrs: link(5, "red", up, 0)},
		&netlink.Bridge{LinkAttrs: link(9, "br0", unix.IFF_MULTICAST, 0)},
	}, []netlink.Addr{
		address(1, "127.0.0.1/8", 0),
		address(2, "fe80::1/64", unix.IFA_F_PERMANENT),
		address(2, "192.0.2.1/24", unix.IFA_F_PERMANENT),
		address(2, "2001:db8::1/64", unix.IFA_F_TENTATIVE),
		address(2, "2001:db8::2/64", unix.IFA_F_TENTATIVE|unix.IFA_F_OPTIMISTIC),
		address(2, "2001:db8::3/64", unix.IFA_F_PERMANENT|unix.IFA_F_DADFAILED),
		{LinkIndex: 2},
	})
	prefixes := func(list ...string) (all []netip.Prefix) {
		for _, p := range list {
			all = append(all, netip.MustParsePrefix(p))
		}
		return all
	}
	want := []Iface{
		{Name: "lo", Index: 1, Up: true, Addrs: prefixes("127.0.0.1/8")},
		{Name: "eth0", Index: 2, Up: true, Multicast: true, Addrs: prefixes("192.0.2.1/24", "2001:db8::2/64", "fe80::1/64")},
		{Name: "eth1", Index: 3},
		{Name: "tun0", Index: 4, Up: true},
		{Name: "red", Index: 5, Up: true},
		{Name: "eth0.5", Index: 7, Up: true, Multicast: true, VRF: "red"},
		{Name: "br0", Index: 9, Multicast: true},
	}
	if diff := cmp.Diff(want, got, cmp.Comparer(func(a, b netip.Prefix) bool { return a == b })); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
	if !got[1].Has(netip.Addr.IsLinkLocalUnicast) || got[0].Has(netip.Addr.Is6) {
		t.Error("Has is wrong")
	}
}
