package mdns

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/miekg/dns"

	"github.com/nvme-stas/stas/internal/ifaces"
)

// fakeSocket is one end of a link on which one responder answers.
type fakeSocket struct {
	*sync.Mutex
	responder *responder
	incoming  chan datagram
	closed    chan struct{}
	once      sync.Once
	queries   int
}

type datagram struct {
	from   netip.AddrPort
	packet []byte
	err    error
}

func (s *fakeSocket) ReadFromUDPAddrPort(buf []byte) (int, netip.AddrPort, error) {
	select {
	case d := <-s.incoming:
		return copy(buf, d.packet), d.from, d.err
	case <-s.closed:
		return 0, netip.AddrPort{}, net.ErrClosed
	}
}

func (s *fakeSocket) Close() error { s.once.Do(func() { close(s.closed) }); return nil }

func (s *fakeSocket) Send(packet []byte) error {
	s.Lock()
	defer s.Unlock()
	s.queries++
	var q dns.Msg
	if err := q.Unpack(packet); err != nil {
		return err
	}
	r := s.responder
	if r != nil && len(q.Answer) == 0 {
		s.hear(5353, r.records("", 0, r.ttl, r.pointer)...)
	}
	return nil
}

// hear has the socket receive records.
func (s *fakeSocket) hear(port uint16, records ...dns.RR) {
	m := &dns.Msg{MsgHdr: dns.MsgHdr{Response: true}, Answer: records}
	packet, err := m.Pack()
	s.incoming <- datagram{netip.AddrPortFrom(netip.MustParseAddr("192.0.2.99"), port), packet, err}
}

// TestEmbedded: sockets follow the interfaces, and a socket that breaks or cannot
// be opened is opened again.
func TestEmbedded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var mu sync.Mutex // of what this goroutine and the browser's share
		sockets := make(map[string]*fakeSocket)
		refuse := map[string]bool{"eth1 IPv4": true}
		var told, events []string
		var now []ifaces.Iface
		change := make(chan []ifaces.Iface)
		e := NewEmbedded(func(text string) { told = append(told, text) })
		e.watch = func(ctx context.Context, report func([]ifaces.Iface)) error {
			for {
				select {
				case list := <-change:
					report(list)
				case <-ctx.Done():
					return ctx.Err()
				}
			}
		}
		e.open = func(i ifaces.Iface, f Family) (socket, error) {
			mu.Lock()
			defer mu.Unlock()
			name := fmt.Sprint(i.Name, " ", f)
			if refuse[name] {
				return nil, errors.New("no room")
			}
			s := &fakeSocket{Mutex: &mu, responder: at(i.Name, "192.0.2.1"), incoming: make(chan datagram, 100), closed: make(chan struct{})}
			sockets[name] = s
			return s, nil
		}
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error)
		go func() {
			ended <- e.Browse(ctx, func(e Event) {
				mu.Lock()
				defer mu.Unlock()
				events = append(events, fmt.Sprint(e.Kind, " ", e.Iface, " ", e.Family, " ", e.Instance))
			})
		}()
		set := func(list ...ifaces.Iface) {
			now = list
			change <- slices.Clone(now)
			time.Sleep(500 * time.Millisecond)
			synctest.Wait()
		}
		expect := func(what string, want ...string) {
			t.Helper()
			mu.Lock()
			defer mu.Unlock()
			slices.Sort(events)
			if !slices.Equal(events, want) {
				t.Errorf("%s: got %q, want %q", what, events, want)
			}
			events = nil
		}
		prefixes := []netip.Prefix{netip.MustParsePrefix("192.0.2.7/24"), netip.MustParsePrefix("fe80::7/64")}
		eth0 := ifaces.Iface{Name: "eth0", Index: 2, Up: true, Multicast: true, Addrs: prefixes}
		eth1 := ifaces.Iface{Name: "eth1", Index: 3, Up: true, Multicast: true, Addrs: prefixes[:1]}
		without := func(i ifaces.Iface, change func(*ifaces.Iface)) ifaces.Iface { change(&i); return i }

		set(eth0, ifaces.Iface{Name: "lo", Index: 1, Up: true, Addrs: prefixes},
			ifaces.Iface{Name: "eth2", Index: 4, Multicast: true, Addrs: prefixes},
			ifaces.Iface{Name: "eth3", Index: 5, Up: true, Multicast: true, Addrs: []netip.Prefix{netip.MustParsePrefix("2001:db8::1/64")}})
		expect("one that can be used", "added eth0 IPv4 eth0", "added eth0 IPv6 eth0")
		if len(sockets) != 2 {
			t.Errorf("sockets: %v", sockets)
		}

		set(eth0, eth1)
		expect("another one is refused")
		if want := []string{"eth1, IPv4: no mDNS there: no room"}; !slices.Equal(told, want) {
			t.Errorf("told %q", told)
		}
		mu.Lock()
		delete(refuse, "eth1 IPv4")
		mu.Unlock()
		time.Sleep(reopenAfter + time.Second)
		synctest.Wait()
		expect("and tried again", "added eth1 IPv4 eth1")

		set(without(eth0, func(i *ifaces.Iface) { i.Addrs = prefixes[1:] }), eth1)
		expect("no IPv4 address", "lost eth0 IPv4 ")
		set(eth0, eth1)
		expect("again", "added eth0 IPv4 eth0")
		set(without(eth0, func(i *ifaces.Iface) { i.Up = false }), eth1)
		expect("down", "lost eth0 IPv4 ", "lost eth0 IPv6 ")
		set(without(eth0, func(i *ifaces.Iface) { i.VRF = "red" }), eth1)
		expect("up, in a VRF", "added eth0 IPv4 eth0", "added eth0 IPv6 eth0")
		set(eth0, eth1)
		expect("no longer in it", "added eth0 IPv4 eth0", "added eth0 IPv6 eth0", "lost eth0 IPv4 ", "lost eth0 IPv6 ")
		set(without(eth0, func(i *ifaces.Iface) { i.Name = "lan" }), eth1)
		expect("renamed", "added lan IPv4 lan", "added lan IPv6 lan", "lost eth0 IPv4 ", "lost eth0 IPv6 ")
		set(eth1)
		expect("gone", "removed lan IPv4 lan", "removed lan IPv6 lan")

		broken := sockets["eth1 IPv4"]
		broken.incoming <- datagram{err: errors.New("broken")}
		synctest.Wait()
		expect("broken", "lost eth1 IPv4 ")
		time.Sleep(reopenAfter + time.Second)
		synctest.Wait()
		expect("mended", "added eth1 IPv4 eth1")

		s := sockets["eth1 IPv4"]
		s.hear(1024, nvme("evil").records("", 0, 120, 4500)...)
		s.incoming <- datagram{from: netip.MustParseAddrPort("192.0.2.99:5353"), packet: []byte("garbage")}
		time.Sleep(time.Second)
		synctest.Wait()
		expect("not from the port of mDNS")

		time.Sleep(24 * time.Hour)
		synctest.Wait()
		expect("a quiet day")
		mu.Lock()
		if s.queries < 24*37 || s.queries > 24*40 {
			t.Errorf("%d packets in a day", s.queries)
		}
		mu.Unlock()
		cancel()
		if err := <-ended; !errors.Is(err, context.Canceled) {
			t.Errorf("ended with %v", err)
		}
		for name, s := range sockets {
			select {
			case <-s.closed:
			default:
				t.Errorf("%s is not closed", name)
			}
		}
		if len(told) != 1 {
			t.Errorf("told %q", told)
		}
	})
}

// TestWatchFails: without the interfaces there is no browser.
func TestWatchFails(t *testing.T) {
	broken := errors.New("broken")
	e := NewEmbedded(func(string) {})
	e.watch = func(context.Context, func([]ifaces.Iface)) error { return broken }
	if err := e.Browse(t.Context(), func(Event) {}); !errors.Is(err, broken) {
		t.Errorf("ended with %v", err)
	}
}
