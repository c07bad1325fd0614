package mdns

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"sync"
	"time"

	"github.com/nvme-stas/stas/internal/ifaces"
)

// Embedded is the browser that needs nobody else: it speaks mDNS itself, by a
// socket for each interface and family, so that what is heard on one is never
// taken for what is on another. It runs beside avahi-daemon, too.
type Embedded struct {
	// Complain is told, each once, of what is wrong on the network and of interfaces
	// that cannot be used. It is called from the goroutine of Browse.
	Complain func(text string)

	// For tests.
	watch func(context.Context, func([]ifaces.Iface)) error
	open  func(ifaces.Iface, Family) (socket, error)
}

// NewEmbedded returns the browser of this host's interfaces.
func NewEmbedded(complain func(text string)) *Embedded {
	return &Embedded{Complain: complain, watch: ifaces.Watch, open: func(i ifaces.Iface, f Family) (socket, error) {
		return Open(i.Name, i.Index, f)
	}}
}

// socket is a Socket, or a test's.
type socket interface {
	ReadFromUDPAddrPort(buf []byte) (n int, from netip.AddrPort, err error)
	Send(packet []byte) error
	Close() error // ends reading
}

const (
	maxToldAll  = 1000        // complaints
	queueLength = 256         // packets that wait for the state machine, of all links
	reopenAfter = time.Minute // a socket that could not be opened, or broke
)

// Browse is that of Browser. The error is that of the interfaces.
func (e *Embedded) Browse(ctx context.Context, report func(Event)) error {
	ctx, cancel := context.WithCancel(ctx)
	b := &browsing{
		Embedded: e, ctx: ctx, report: report,
		links:   make(map[linkKey]*liveLink),
		told:    make(map[string]bool),
		packets: make(chan received, queueLength),
		broken:  make(chan *liveLink),
	}
	snapshots := make(chan []ifaces.Iface)
	ended := make(chan error, 1)
	b.running.Go(func() {
		ended <- e.watch(ctx, func(list []ifaces.Iface) {
			select {
			case snapshots <- list:
			case <-ctx.Done():
			}
		})
	})
	defer func() {
		cancel()
		for _, l := range b.links {
			l.socket.Close()
		}
		b.running.Wait()
	}()
	return b.run(snapshots, ended)
}

// browsing is one call of Browse. Its goroutine owns all of it.
type browsing struct {
	*Embedded
	ctx     context.Context
	report  func(Event)
	links   map[linkKey]*liveLink
	there   []ifaces.Iface
	reopen  time.Time // when sockets that could not be opened are tried again; 0: there are none
	told    map[string]bool
	packets chan received
	broken  chan *liveLink
	running sync.WaitGroup
}

// linkKey says when a link is another one. An interface that changes its name or
// VRF is: the socket belongs to the old one.
type linkKey struct {
	index     int
	name, vrf string
	family    Family
}

type liveLink struct {
	*link
	key    linkKey
	socket socket
}

type received struct {
	link   *liveLink
	from   netip.Addr
	packet []byte
}

func (b *browsing) run(snapshots <-chan []ifaces.Iface, ended <-chan error) error {
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	for {
		select {
		case b.there = <-snapshots:
			b.follow()
		case p := <-b.packets:
			b.receive(p)
		case l := <-b.broken:
			if b.links[l.key] == l {
				b.drop(l)
				b.reopen = time.Now().Add(reopenAfter)
			}
		case <-timer.C:
		case err := <-ended:
			return err
		case <-b.ctx.Done():
			return b.ctx.Err()
		}
		// Under a flood, what came at once is worked off at once.
		for range len(b.packets) {
			b.receive(<-b.packets)
		}
		timer.Reset(time.Until(b.step()))
	}
}

func (b *browsing) receive(p received) {
	if b.links[p.link.key] == p.link { // else its events have been withdrawn
		p.link.receive(time.Now(), p.from, p.packet)
	}
}

// step has all links do what is due, and returns when the next thing is.
func (b *browsing) step() time.Time {
	now := time.Now()
	if !b.reopen.IsZero() && !b.reopen.After(now) {
		b.follow()
	}
	next := now.Add(time.Hour)
	if !b.reopen.IsZero() {
		next = b.reopen
	}
	for _, l := range b.links {
		if !l.next().After(now) {
			packets, events := l.step(now)
			for _, p := range packets {
				// What is lost is asked for again; the schedule sees to it.
				if err := l.socket.Send(p); err != nil {
					b.complain(fmt.Sprintf("%s, %s: mDNS queries cannot be sent: %v", l.iface, l.family, err))
				}
			}
			for _, e := range events {
				b.report(e)
			}
		}
		if l.next().Before(next) {
			next = l.next()
		}
	}
	return next
}

// follow opens and closes sockets so that they are those of the interfaces that
// are there.
func (b *browsing) follow() {
	b.reopen = time.Time{}
	wanted := make(map[linkKey]ifaces.Iface)
	exists := make(map[int]bool)
	for _, i := range b.there {
		exists[i.Index] = true
		for _, family := range []Family{IPv4, IPv6} {
			if usable(i, family) {
				wanted[linkKey{i.Index, i.Name, i.VRF, family}] = i
			}
		}
	}
	for key, l := range b.links {
		switch _, ok := wanted[key]; {
		case ok:
		case exists[key.index]:
			b.drop(l)
		default: // with the interface went what was reachable by it
			b.close(l)
			for _, r := range l.reported {
				b.report(Event{Removed, r.Service})
			}
		}
	}
	for key, i := range wanted {
		if b.links[key] != nil {
			continue
		}
		s, err := b.open(i, key.family)
		if err != nil {
			b.reopen = time.Now().Add(reopenAfter)
			b.complain(fmt.Sprintf("%s, %s: no mDNS there: %v", key.name, key.family, err))
			continue
		}
		l := &liveLink{
			link: newLink(time.Now(), key.name, key.index, key.family, rand.New(rand.NewPCG(rand.Uint64(), rand.Uint64())), b.complain),
			key:  key, socket: s,
		}
		b.links[key] = l
		b.running.Go(func() { b.read(l) })
	}
}

// drop closes the socket of a link, of which nothing is known any more.
func (b *browsing) drop(l *liveLink) {
	b.close(l)
	if len(l.reported) > 0 {
		b.report(Event{SourceLost, Service{Iface: l.iface, Index: l.index, Family: l.family}})
	}
}

func (b *browsing) close(l *liveLink) {
	l.socket.Close()
	delete(b.links, l.key)
}

// complain tells of something once, also when the link comes anew.
func (b *browsing) complain(text string) {
	if !b.told[text] && len(b.told) < maxToldAll {
		b.told[text] = true
		b.Complain(text)
	}
}

// read reads until the socket is closed or broken.
func (b *browsing) read(l *liveLink) {
	buf := make([]byte, maxMessage)
	for {
		n, from, err := l.socket.ReadFromUDPAddrPort(buf)
		switch {
		case errors.Is(err, net.ErrClosed):
			return
		case err != nil:
			select {
			case b.broken <- l:
			case <-b.ctx.Done():
			}
			return
		case from.Port() != Port: // RFC 6762, section 6
			continue
		}
		select {
		case b.packets <- received{l, from.Addr(), append([]byte(nil), buf[:n]...)}:
		case <-b.ctx.Done():
			return
		}
	}
}
