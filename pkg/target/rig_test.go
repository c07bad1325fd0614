package target

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/nvme-stas/stas/pkg/fabrics"
	"github.com/nvme-stas/stas/pkg/initiator"
	"github.com/nvme-stas/stas/pkg/nvme"
)

// network is a network inside the process: listeners by address, connections
// that are pipes. Time in a synctest bubble passes on it.
type network struct {
	mu        sync.Mutex
	listeners map[string]*pipeListener
}

func (n *network) listen(_, address string) (net.Listener, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.listeners == nil {
		n.listeners = make(map[string]*pipeListener)
	}
	if n.listeners[address] != nil {
		return nil, errors.New("address in use")
	}
	l := &pipeListener{network: n, address: address, conns: make(chan net.Conn), done: make(chan struct{})}
	n.listeners[address] = l
	return l, nil
}

func (n *network) dial(ctx context.Context, _, address string) (net.Conn, error) {
	n.mu.Lock()
	l := n.listeners[address]
	n.mu.Unlock()
	if l == nil {
		return nil, errors.New("connection refused")
	}
	ours, theirs := net.Pipe()
	select {
	case l.conns <- theirs:
		return ours, nil
	case <-l.done:
		return nil, errors.New("connection refused")
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

type pipeListener struct {
	network *network
	address string
	conns   chan net.Conn
	done    chan struct{}
	once    sync.Once
}

func (l *pipeListener) Accept() (net.Conn, error) {
	select {
	case c := <-l.conns:
		return c, nil
	case <-l.done:
		return nil, net.ErrClosed
	}
}

func (l *pipeListener) Close() error {
	l.once.Do(func() {
		close(l.done)
		l.network.mu.Lock()
		delete(l.network.listeners, l.address)
		l.network.mu.Unlock()
	})
	return nil
}

func (l *pipeListener) Addr() net.Addr { return pipeAddr(l.address) }

type pipeAddr string

func (pipeAddr) Network() string  { return "pipe" }
func (a pipeAddr) String() string { return string(a) }

// rig is a target on a network of its own.
type rig struct {
	*Target
	network *network
}

func newRig(t testing.TB, config Config) *rig {
	t.Helper()
	n := new(network)
	log := slog.New(slog.NewTextHandler(t.Output(), nil))
	if _, fuzzing := t.(*testing.F); fuzzing {
		log = nil // it would all be kept
	}
	target, err := Open(config, Options{Listen: n.listen, Log: log})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(target.Close)
	return &rig{target, n}
}

const (
	address = "127.0.0.1:8009"
	nqnA    = "nqn.2026-11.org.example:a"
	nqnB    = "nqn.2026-11.org.example:b"
	nqnC    = "nqn.2026-11.org.example:c"
	cdcNQN  = "nqn.2026-11.org.example:cdc"
)

func hostNQN(n int) string { return fmt.Sprintf("nqn.2026-11.org.example:host%d", n) }

// host connects to a subsystem at the first listener, as host n.
func (r *rig) host(t testing.TB, n int, nqn string, edit ...func(*initiator.Options)) *initiator.Controller {
	t.Helper()
	c, err := r.dial(t, n, nqn, edit...)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func (r *rig) dial(t testing.TB, n int, nqn string, edit ...func(*initiator.Options)) (*initiator.Controller, error) {
	o := initiator.Options{
		Address: address, Dialer: r.network.dial, SubNQN: nqn, KATO: 5 * time.Second,
		HostNQN: hostNQN(n), HostID: nvme.HostID{15: byte(n), 14: byte(n >> 8), 0: 1},
	}
	for _, e := range edit {
		e(&o)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	c, err := initiator.Dial(ctx, o)
	if err == nil {
		t.Cleanup(c.Close)
	}
	return c, err
}

// readLog reads a discovery log.
func readLog(t testing.TB, c *initiator.Controller, lsp uint8) nvme.DiscoveryLog {
	t.Helper()
	log, err := fabrics.ReadDiscoveryLog(t.Context(), c, lsp)
	if err != nil {
		t.Fatal(err)
	}
	return log
}

// listed are the subsystems of a log with the port that they are on.
func listed(log nvme.DiscoveryLog) []string {
	var all []string
	for _, e := range log.Entries {
		name, _ := strings.CutPrefix(e.SubNQN, "nqn.2026-11.org.example:")
		if e.SubType != nvme.NVMSubsystem {
			name = e.SubType.String()
		}
		all = append(all, fmt.Sprintf("%s@%d", name, e.PortID))
	}
	return all
}

func equal[T any](t testing.TB, what string, got, want T) {
	t.Helper()
	if diff := cmp.Diff(want, got, cmpopts.EquateEmpty()); diff != "" {
		t.Errorf("%s (-want +got):\n%s", what, diff)
	}
}
