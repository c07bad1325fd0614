package mdns

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/miekg/dns"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// isolated has the test run in a network namespace of its own, by another
// process. It reports whether this is that process.
func isolated(t *testing.T) bool {
	t.Helper()
	const key = "MDNS_TEST_ISOLATED"
	if os.Getenv(key) == t.Name() {
		return true
	}
	t.Parallel()
	cmd := exec.Command(os.Args[0], "-test.run=^"+t.Name()+"$", "-test.v")
	cmd.Env = append(os.Environ(), key+"="+t.Name())
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWNET}
	out, err := cmd.CombinedOutput()
	if errors.Is(err, unix.EPERM) {
		t.Skip("it takes root to make a network namespace")
	}
	t.Logf("%s", out)
	if err != nil {
		t.Fail()
	} else if strings.Contains(string(out), "--- SKIP") {
		t.SkipNow()
	}
	return false
}

// bed is what the browser sees.
type bed struct {
	*testing.T
	host netlink.NsFd
	done chan error

	mu     sync.Mutex
	events []Event
	there  map[Key]Service
	told   []string
}

func newBed(t *testing.T) *bed {
	self, err := os.Open("/proc/thread-self/ns/net")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { self.Close() })
	b := &bed{T: t, host: netlink.NsFd(self.Fd()), there: make(map[Key]Service)}
	return b
}

// browse starts the browser.
func (b *bed) browse() {
	ctx, cancel := context.WithCancel(context.Background())
	b.done = make(chan error, 1)
	e := NewEmbedded(func(text string) {
		b.mu.Lock()
		defer b.mu.Unlock()
		b.told = append(b.told, text)
	})
	go func() { b.done <- e.Browse(ctx, b.report) }()
	b.Cleanup(func() {
		cancel()
		if err := <-b.done; !errors.Is(err, context.Canceled) {
			b.Errorf("Browse ended with %v", err)
		}
	})
}

func (b *bed) report(e Event) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.events = append(b.events, e)
	switch e.Kind {
	case Added, Updated:
		b.there[e.Key()] = e.Service
	case Removed:
		delete(b.there, e.Key())
	case SourceLost:
		for k := range b.there {
			if k.Index == e.Index && k.Family == e.Family {
				delete(b.there, k)
			}
		}
	}
}

// wait waits until there is what is expected.
func (b *bed) wait(what string, within time.Duration, is func(there map[Key]Service) bool) time.Duration {
	b.Helper()
	begin := time.Now()
	for deadline := begin.Add(within); ; time.Sleep(5 * time.Millisecond) {
		b.mu.Lock()
		ok := is(b.there)
		there := fmt.Sprint(b.there)
		b.mu.Unlock()
		if ok {
			return time.Since(begin)
		}
		if time.Now().After(deadline) {
			b.Fatalf("%s: not within %v; there are %d: %.2000s, told %q", what, within, len(b.there), there, b.told)
		}
	}
}

// seen waits until exactly these "iface family instance address:port" are there.
func (b *bed) seen(what string, within time.Duration, want ...string) time.Duration {
	b.Helper()
	slices.Sort(want)
	return b.wait(what, within, func(there map[Key]Service) bool {
		var got []string
		for _, s := range there {
			got = append(got, fmt.Sprintf("%s %s %s %s:%d", s.Iface, s.Family, s.Instance, s.Addrs[0], s.Port))
		}
		slices.Sort(got)
		return slices.Equal(got, want)
	})
}

// takeEvents returns the kinds of the events since the last time.
func (b *bed) takeEvents() (kinds []string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, e := range b.events {
		kinds = append(kinds, fmt.Sprint(e.Kind, " ", e.Iface, " ", e.Instance))
	}
	b.events = nil
	return kinds
}

// must is for netlink.
func (b *bed) must(err error) {
	b.Helper()
	if err != nil {
		b.Fatal(err)
	}
}

// peer is the other end of a link of the host, in a network namespace of its own,
// where responders answer.
type peer struct {
	bed  *bed
	do   chan func()
	name string // of the link in the host

	mu      sync.Mutex
	hosts   map[string]*responder
	sockets []*Socket
	queries map[Family]int
}

// link makes a link: the host has .1 of a /24, the peer .2.
func (b *bed) link(name, net24 string) *peer {
	b.Helper()
	p := &peer{bed: b, do: make(chan func()), name: name, hosts: make(map[string]*responder), queries: make(map[Family]int)}
	ready := make(chan error)
	go func() {
		runtime.LockOSThread() // and the thread ends with the goroutine
		err := unix.Unshare(unix.CLONE_NEWNET)
		ready <- err
		for f := range p.do {
			f()
		}
	}()
	b.must(<-ready)
	b.Cleanup(func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		for _, s := range p.sockets {
			s.Close()
		}
		close(p.do)
	})
	p.in(func() error {
		return netlink.LinkAdd(&netlink.Veth{
			LinkAttrs: netlink.LinkAttrs{Name: "peer"}, PeerName: name, PeerNamespace: b.host,
		})
	})
	b.must(up(name, net24+".1/24"))
	p.in(func() error { return up("peer", net24+".2/24") })
	p.listen("peer")
	return p
}

// in does something in the namespace of the peer.
func (p *peer) in(f func() error) {
	p.bed.Helper()
	done := make(chan error)
	p.do <- func() { done <- f() }
	p.bed.must(<-done)
}

func up(name, address string) error {
	link, err := netlink.LinkByName(name)
	if err != nil {
		return err
	}
	if err := netlink.LinkSetUp(link); err != nil || address == "" {
		return err
	}
	addr, err := netlink.ParseAddr(address)
	if err != nil {
		return err
	}
	return netlink.AddrAdd(link, addr)
}

// listen has responders answer on an interface of the peer.
func (p *peer) listen(name string) {
	p.bed.Helper()
	p.in(func() error {
		i, err := net.InterfaceByName(name)
		if err != nil {
			return err
		}
		for _, family := range []Family{IPv4, IPv6} {
			s, err := Open(name, i.Index, family)
			if err != nil {
				return err
			}
			p.mu.Lock()
			p.sockets = append(p.sockets, s)
			p.mu.Unlock()
			go p.answer(s, family)
		}
		return nil
	})
}

func (p *peer) answer(s *Socket, family Family) {
	buf := make([]byte, maxMessage)
	for {
		n, err := s.Read(buf)
		if err != nil {
			return
		}
		var q dns.Msg
		if q.Unpack(buf[:n]) != nil || q.Response {
			continue
		}
		p.mu.Lock()
		p.queries[family]++
		var list []dns.RR
		for _, r := range p.hosts {
			for _, question := range q.Question {
				if got := r.records(question.Name, question.Qtype, r.ttl, r.pointer); len(got) > 0 {
					list = r.records("", 0, r.ttl, r.pointer)
				}
			}
			if list != nil {
				_ = s.Send(pack(p.bed, list...))
				list = nil
			}
		}
		p.mu.Unlock()
	}
}

// say sends records to all.
func (p *peer) say(records ...dns.RR) {
	packet := pack(p.bed, records...)
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, s := range p.sockets {
		_ = s.Send(packet) // which IPv6 refuses while its address is tentative
	}
}

// add has a service answered for and announced.
func (p *peer) add(r *responder) *responder {
	p.mu.Lock()
	p.hosts[r.instance] = r
	p.mu.Unlock()
	p.say(r.records("", 0, r.ttl, r.pointer)...)
	return r
}

// remove ends a service without a word.
func (p *peer) remove(r *responder) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.hosts, r.instance)
}

func at(name, address string) *responder {
	r := nvme(name)
	r.addrs = []string{address}
	return r
}

// TestLinks follows services and links through all that happens to them, by real
// sockets.
func TestLinks(t *testing.T) {
	if !isolated(t) {
		return
	}
	b := newBed(t)
	p0 := b.link("eth0", "10.0.0")
	b.browse()
	p0.add(at("array", "10.0.0.2"))
	b.seen("the first", 10*time.Second, "eth0 IPv4 array 10.0.0.2:8009", "eth0 IPv6 array 10.0.0.2:8009")

	// The same on a link that comes later.
	p1 := b.link("eth1", "10.0.1")
	p1.add(at("array", "10.0.1.2"))
	took := b.seen("a new link", 10*time.Second,
		"eth0 IPv4 array 10.0.0.2:8009", "eth0 IPv6 array 10.0.0.2:8009", "eth1 IPv4 array 10.0.1.2:8009", "eth1 IPv6 array 10.0.1.2:8009")
	t.Logf("seen on a new link after %v, address detection of IPv6 included", took)

	// It moves to another address and port. What was heard within the last second is
	// spared by a flush, for which it is announced twice.
	r1 := at("array", "10.0.1.77")
	r1.port = 4420
	p1.add(r1)
	time.Sleep(1100 * time.Millisecond)
	p1.add(r1)
	b.seen("renumbered", time.Second,
		"eth0 IPv4 array 10.0.0.2:8009", "eth0 IPv6 array 10.0.0.2:8009", "eth1 IPv4 array 10.0.1.77:4420", "eth1 IPv6 array 10.0.1.77:4420")

	// So does the host.
	eth1, err := netlink.LinkByName("eth1")
	b.must(err)
	old, _ := netlink.ParseAddr("10.0.1.1/24")
	b.must(netlink.AddrDel(eth1, old))
	b.wait("no IPv4 any more", 2*time.Second, func(there map[Key]Service) bool { return len(there) == 3 })
	b.must(up("eth1", "10.0.2.1/24"))
	b.seen("the host renumbered", 2*time.Second,
		"eth0 IPv4 array 10.0.0.2:8009", "eth0 IPv6 array 10.0.0.2:8009", "eth1 IPv4 array 10.0.1.77:4420", "eth1 IPv6 array 10.0.1.77:4420")

	// The cable of one is pulled.
	b.takeEvents()
	p1.in(func() error {
		link, err := netlink.LinkByName("peer")
		if err != nil {
			return err
		}
		return netlink.LinkSetDown(link)
	})
	b.seen("cable pulled", time.Second, "eth0 IPv4 array 10.0.0.2:8009", "eth0 IPv6 array 10.0.0.2:8009")
	if got, want := b.takeEvents(), []string{"lost eth1 ", "lost eth1 "}; !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
	p1.in(func() error { return up("peer", "") })
	took = b.seen("cable back", 10*time.Second,
		"eth0 IPv4 array 10.0.0.2:8009", "eth0 IPv6 array 10.0.0.2:8009", "eth1 IPv4 array 10.0.1.77:4420", "eth1 IPv6 array 10.0.1.77:4420")
	t.Logf("seen %v after the cable is back", took)

	// Another VRF: the interface loses what it had, and has it again.
	vrf := &netlink.Vrf{LinkAttrs: netlink.LinkAttrs{Name: "red"}, Table: 10}
	if err := netlink.LinkAdd(vrf); err != nil {
		t.Log("no VRF here: ", err)
	} else {
		b.must(up("red", ""))
		b.must(netlink.LinkSetMaster(eth1, vrf))
		b.wait("moved to a VRF", 2*time.Second, func(map[Key]Service) bool {
			return slices.ContainsFunc(b.events, func(e Event) bool { return e.Kind == SourceLost })
		})
		b.seen("in a VRF", 10*time.Second,
			"eth0 IPv4 array 10.0.0.2:8009", "eth0 IPv6 array 10.0.0.2:8009", "eth1 IPv4 array 10.0.1.77:4420", "eth1 IPv6 array 10.0.1.77:4420")
	}

	// Goodbye on one link is none on the other.
	b.takeEvents()
	p1.remove(r1)
	p1.say(r1.records("", 0, 0, 0)...)
	took = b.seen("goodbye", 2*time.Second, "eth0 IPv4 array 10.0.0.2:8009", "eth0 IPv6 array 10.0.0.2:8009")
	if took < 900*time.Millisecond {
		t.Errorf("a goodbye has no grace: %v", took)
	}

	// Its end without a word.
	short := at("short", "10.0.1.3")
	short.ttl, short.pointer = 3, 3
	p1.add(short)
	b.wait("a short one", time.Second, func(there map[Key]Service) bool { return len(there) == 4 })
	time.Sleep(4 * time.Second)
	b.wait("kept by asking", 0, func(there map[Key]Service) bool { return len(there) == 4 })
	p1.remove(short)
	b.seen("expired", 4*time.Second, "eth0 IPv4 array 10.0.0.2:8009", "eth0 IPv6 array 10.0.0.2:8009")

	// The interface is removed.
	b.takeEvents()
	eth0, err := netlink.LinkByName("eth0")
	b.must(err)
	b.must(netlink.LinkDel(eth0))
	b.seen("interface gone", time.Second)
	if got, want := b.takeEvents(), []string{"removed eth0 array", "removed eth0 array"}; !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
	if b.told != nil {
		t.Errorf("complaints: %q", b.told)
	}
}

// TestAttribution: the same names on two links at the same time are never taken
// for each other.
func TestAttribution(t *testing.T) {
	if !isolated(t) {
		return
	}
	const each = 500
	b := newBed(t)
	links := []*peer{b.link("eth0", "10.0.0"), b.link("eth1", "10.0.1")}
	b.browse()
	all := func(there map[Key]Service) bool { return len(there) == 4*each }
	// At first addresses of IPv6 are tentative, and nothing is heard by it; and what
	// a socket has no room for is lost.
	for range 10 {
		var both sync.WaitGroup
		for n, p := range links {
			both.Go(func() {
				for i := range each {
					p.say(at(fmt.Sprint("array", i), fmt.Sprintf("10.0.%d.%d", n, 1+i%250)).records("", 0, 120, 4500)...)
				}
			})
		}
		both.Wait()
		time.Sleep(time.Second)
		b.mu.Lock()
		done := all(b.there)
		b.mu.Unlock()
		if done {
			break
		}
	}
	b.wait("all", 10*time.Second, all)
	right := make(map[Family]int)
	for k, s := range b.there {
		link := map[string]byte{"eth0": 0, "eth1": 1}[s.Iface]
		if a := s.Addrs[0].As4(); a[2] != link || len(s.Addrs) != 1 {
			t.Errorf("%s is said to be at %v", s.Iface, s.Addrs)
		} else {
			right[k.Family]++
		}
	}
	t.Logf("%d by IPv4 and %d by IPv6 are right, of %d each", right[IPv4], right[IPv6], 2*each)
}

// TestVLANs: 40 of them, which are more than a socket may join groups.
func TestVLANs(t *testing.T) {
	if !isolated(t) {
		return
	}
	const n = 40
	b := newBed(t)
	p := b.link("eth0", "10.0.0")
	b.browse()
	vlan := func(parent string, id int, address string) error {
		link, err := netlink.LinkByName(parent)
		if err != nil {
			return err
		}
		name := fmt.Sprintf("%s.%d", parent, id)
		if err := netlink.LinkAdd(&netlink.Vlan{LinkAttrs: netlink.LinkAttrs{Name: name, ParentIndex: link.Attrs().Index}, VlanId: id}); err != nil {
			return err
		}
		return up(name, address)
	}
	for id := 1; id <= n; id++ {
		address := func(end int) string { return fmt.Sprintf("10.1.%d.%d/24", id, end) }
		if err := vlan("eth0", id, address(1)); errors.Is(err, unix.EOPNOTSUPP) { // a kernel without; links will do
			host, ours := fmt.Sprintf("eth0.%d", id), fmt.Sprintf("peer.%d", id)
			p.in(func() error {
				return netlink.LinkAdd(&netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: ours}, PeerName: host, PeerNamespace: b.host})
			})
			b.must(up(host, address(1)))
			p.in(func() error { return up(ours, address(2)) })
		} else {
			b.must(err)
			p.in(func() error { return vlan("peer", id, address(2)) })
		}
	}
	// Each VLAN has the same name, and its own address.
	for id := 1; id <= n; id++ {
		name := fmt.Sprintf("peer.%d", id)
		own := &peer{bed: b, do: p.do, name: name, hosts: make(map[string]*responder), queries: make(map[Family]int)}
		b.Cleanup(func() {
			for _, s := range own.sockets {
				s.Close()
			}
		})
		own.listen(name)
		own.add(at("array", fmt.Sprintf("10.1.%d.2", id)))
	}
	took := b.wait("all", 40*time.Second, func(there map[Key]Service) bool { return len(there) == 2*n })
	t.Logf("%d services after %v", 2*n, took)
	for _, s := range b.there {
		var id int
		if _, err := fmt.Sscanf(s.Iface, "eth0.%d", &id); err != nil || s.Addrs[0] != netip.AddrFrom4([4]byte{10, 1, byte(id), 2}) {
			t.Errorf("%s: %v", s.Iface, s.Addrs)
		}
	}
	if b.told != nil {
		t.Errorf("complaints: %q", b.told)
	}
}

// TestBesideAvahi: who asks avahi-daemon by unicast is answered by it, also while
// this browser runs.
func TestBesideAvahi(t *testing.T) {
	if _, err := exec.LookPath("avahi-daemon"); err != nil {
		t.Skip(err)
	}
	if exec.Command("avahi-daemon", "--check").Run() == nil {
		t.Skip("avahi-daemon runs, and another one cannot")
	}
	if !isolated(t) {
		return
	}
	b := newBed(t)
	p := b.link("eth0", "10.0.0")
	file := t.TempDir() + "/avahi.conf"
	b.must(os.WriteFile(file, []byte("[server]\nhost-name=beside\nenable-dbus=no\nuse-ipv6=no\n"), 0o644))
	if os.Mkdir("/run/avahi-daemon", 0o755) == nil {
		t.Cleanup(func() { os.RemoveAll("/run/avahi-daemon") })
	}
	var out strings.Builder
	cmd := exec.Command("avahi-daemon", "--no-drop-root", "--no-chroot", "--no-rlimits", "--file="+file)
	cmd.Stdout, cmd.Stderr = &out, &out
	b.must(cmd.Start())
	t.Cleanup(func() {
		_ = cmd.Process.Signal(syscall.SIGTERM)
		_ = cmd.Wait()
		if t.Failed() {
			t.Logf("avahi-daemon said:\n%s", out.String())
		}
	})
	ask := func() (answer *dns.Msg, err error) {
		p.in(func() error {
			m := new(dns.Msg)
			m.SetQuestion("beside.local.", dns.TypeA)
			answer, _, err = (&dns.Client{Timeout: time.Second}).Exchange(m, fmt.Sprint("10.0.0.1:", Port))
			return nil
		})
		return answer, err
	}
	for begin := time.Now(); ; time.Sleep(100 * time.Millisecond) {
		if _, err := ask(); err == nil {
			break
		} else if time.Since(begin) > 20*time.Second {
			t.Fatal("avahi-daemon does not answer by itself: ", err)
		}
	}
	b.browse()
	p.add(at("array", "10.0.0.2"))
	b.wait("seen", 10*time.Second, func(there map[Key]Service) bool { return len(there) == 2 })
	for i := range 20 {
		if answer, err := ask(); err != nil || len(answer.Answer) == 0 {
			t.Errorf("question %d: %v, %v", i, answer, err)
		}
	}
	b.wait("still seen", 0, func(there map[Key]Service) bool { return len(there) == 2 })
}

// TestManyInstances: 200 on one link, by both protocols.
func TestManyInstances(t *testing.T) {
	if !isolated(t) {
		return
	}
	const n = 200
	b := newBed(t)
	p := b.link("eth0", "10.0.0")
	p.mu.Lock()
	for i := range n {
		p.hosts[fmt.Sprint(i)] = at(fmt.Sprintf("array-rack-%03d-sn0012", i), fmt.Sprintf("10.0.0.%d", i+3))
	}
	p.mu.Unlock()
	b.browse()
	took := b.wait("all", 10*time.Second, func(there map[Key]Service) bool { return len(there) == 2*n })
	p.mu.Lock()
	t.Logf("%d services after %v; %d packets with questions", 2*n, took, p.queries[IPv4]+p.queries[IPv6])
	p.mu.Unlock()
	time.Sleep(4 * time.Second) // the next queries tell what is known
	b.wait("the same", 0, func(there map[Key]Service) bool { return len(there) == 2*n })
	for _, e := range b.takeEvents() {
		if !strings.HasPrefix(e, "added ") {
			t.Error(e)
		}
	}
}
