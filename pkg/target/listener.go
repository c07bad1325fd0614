package target

import (
	"errors"
	"net"
	"net/netip"
	"time"
)

// listener is where hosts connect. The lock of the target guards it.
type listener struct {
	Listener
	t     *Target
	bound netip.AddrPort // where it listens or will listen again; the port is known once it has

	self      *logEntry
	referrals []*logEntry
	entries   map[*subsystem]*logEntry

	state  listenState
	socket net.Listener   // nil unless open
	hole   *blackHole     // nil unless swallowing
	again  *time.Timer    // ends a restart
	queues map[*queue]int // its connections, numbered for people
	last   int
}

// listenState is what happens to those who connect.
type listenState string

const (
	listenOpen     listenState = "open"       // they are served
	listenRefuse   listenState = "refusing"   // nobody listens: RST
	listenHole     listenState = "black hole" // nobody answers
	listenRestarts listenState = "restarting" // nobody listens for a while
)

func newListener(t *Target, l Listener) *listener {
	address, _ := parseAddress(l.Address) // checked before
	return &listener{Listener: l, t: t, bound: address, queues: make(map[*queue]int)}
}

// advertised is where log pages send hosts.
func (l *listener) advertised() netip.AddrPort {
	if l.Advertise != "" {
		address, _ := parseAddress(l.Advertise)
		return address
	}
	return l.bound
}

// open begins to listen.
func (l *listener) open() error {
	socket, err := l.t.listen("tcp", l.bound.String())
	if err != nil {
		return err
	}
	if address, err := netip.ParseAddrPort(socket.Addr().String()); err == nil && l.bound.Port() == 0 {
		l.bound = netip.AddrPortFrom(l.bound.Addr(), address.Port())
	}
	l.describe()
	l.socket, l.state = socket, listenOpen
	l.t.running.Go(func() { l.accept(socket) })
	return nil
}

// follow changes to the state that the faults ask for.
func (l *listener) follow() {
	want := l.t.faults.listening(l.Name)
	if l.state == want || l.state == listenRestarts {
		return
	}
	l.silence()
	switch want {
	case listenOpen:
		if err := l.open(); err != nil {
			l.t.log.Error("cannot listen again", "listener", l.Name, "error", err)
			l.later(time.Second)
			return
		}
	case listenHole:
		hole, err := digBlackHole(l.bound)
		if err != nil {
			// A refused connection is not a lost one, so say so.
			l.t.log.Error("no black hole, connections are refused instead", "listener", l.Name, "error", err)
		}
		l.hole = hole
		for q := range l.queues {
			q.freeze()
		}
	}
	l.state = want
	l.t.log.Info("listener", "name", l.Name, "state", want)
}

// silence stops listening, in whatever way it did.
func (l *listener) silence() {
	if l.socket != nil {
		l.socket.Close()
		l.socket = nil
	}
	if l.hole != nil {
		l.hole.fill()
		l.hole = nil
	}
	if l.again != nil {
		l.again.Stop()
		l.again = nil
	}
}

// shut stops listening and ends all connections.
func (l *listener) shut(how ending) {
	l.silence()
	l.state = listenRefuse
	for q := range l.queues {
		q.end(how)
	}
	for _, c := range l.t.controllers {
		if c.listener == l {
			c.end(how, "the listener was closed")
		}
	}
}

// restart ends all connections and comes back later.
func (l *listener) restart(pause time.Duration) {
	l.shut(abort)
	l.state = listenRestarts
	l.later(pause)
}

// later opens the listener after a while.
func (l *listener) later(pause time.Duration) {
	l.again = time.AfterFunc(pause, func() {
		_ = l.t.change(func() error {
			if l.t.listener(l.Name) == l { // it has not been removed meanwhile
				l.state, l.again = "", nil
				l.follow()
			}
			return nil
		})
	})
}

// accept serves whoever connects until the socket is closed.
func (l *listener) accept(socket net.Listener) {
	for {
		nc, err := socket.Accept()
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil {
			// Out of file descriptors, most likely; those in use may be released.
			l.t.log.Error("cannot accept", "listener", l.Name, "error", err)
			time.Sleep(100 * time.Millisecond)
			continue
		}
		l.serve(nc)
	}
}

func (l *listener) serve(nc net.Conn) {
	l.t.mu.Lock()
	defer l.t.mu.Unlock()
	if l.state != listenOpen || l.t.closed {
		abortConn(nc)
		return
	}
	q := newQueue(l, nc)
	l.last++
	l.queues[q] = l.last
	l.t.running.Go(func() {
		q.run()
		l.t.mu.Lock()
		delete(l.queues, q)
		l.t.mu.Unlock()
	})
}

// abortConn closes a connection with RST in place of FIN, as a host does whose
// target has died.
func abortConn(nc net.Conn) {
	if tcp, ok := nc.(*net.TCPConn); ok {
		_ = tcp.SetLinger(0)
	}
	nc.Close()
}
