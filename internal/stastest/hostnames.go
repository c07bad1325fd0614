package stastest

import (
	"context"
	"errors"
	"net/netip"
	"sync"
	"time"
)

// HostNames stands for the name servers of the host.
type HostNames struct {
	mu             sync.Mutex // guards the following
	addrs          map[string][]netip.Addr
	delay          time.Duration
	asked          int
	running, atMax int
}

// NewHostNames returns name servers that know no name.
func NewHostNames() *HostNames { return &HostNames{addrs: make(map[string][]netip.Addr)} }

// Set gives a name its addresses; without any it is not known.
func (h *HostNames) Set(name string, addrs ...string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.addrs[name] = nil
	for _, a := range addrs {
		h.addrs[name] = append(h.addrs[name], netip.MustParseAddr(a))
	}
}

// Delay has answers take a while.
func (h *HostNames) Delay(d time.Duration) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.delay = d
}

// Asked is the number of questions so far.
func (h *HostNames) Asked() int {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.asked
}

// MostAtOnce is the number of questions that were under way at a time.
func (h *HostNames) MostAtOnce() int {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.atMax
}

// Resolve looks up a name.
func (h *HostNames) Resolve(ctx context.Context, name string) ([]netip.Addr, error) {
	h.mu.Lock()
	delay := h.delay
	h.asked++
	h.running++
	h.atMax = max(h.atMax, h.running)
	h.mu.Unlock()
	defer func() {
		h.mu.Lock()
		defer h.mu.Unlock()
		h.running--
	}()
	select {
	case <-time.After(delay):
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if len(h.addrs[name]) == 0 {
		return nil, errors.New("no such host")
	}
	return h.addrs[name], nil
}
