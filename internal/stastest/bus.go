package stastest

import (
	"context"
	"encoding/json"
	"sync"
	"time"

	"github.com/nvme-stas/stas/internal/stac"
	"github.com/nvme-stas/stas/internal/stasbus"
	"github.com/nvme-stas/stas/internal/tid"
)

// Bus carries stafd's object to stacd inside one process. What it carries is
// text all the same.
type Bus struct {
	mu      sync.Mutex
	staf    stafd
	changes map[chan struct{}]bool
	silent  bool
}

// answerLimit is how long an answer is waited for.
const answerLimit = 10 * time.Second

// stafd is what stacd asks.
type stafd interface {
	stasbus.LogPager
	stasbus.Lister
}

// NewBus returns an empty bus.
func NewBus() *Bus { return &Bus{changes: make(map[chan struct{}]bool)} }

// Connection is a daemon's connection to a [Bus]; it implements [service.Bus].
type Connection struct {
	Bus     *Bus
	Backend stasbus.Backend // while it is served
}

// Run implements [service.Bus].
func (c *Connection) Run(ctx context.Context, backend stasbus.Backend, ready func()) error {
	pages, isStaf := backend.(stafd)
	c.Bus.mu.Lock()
	c.Backend = backend
	if isStaf {
		c.Bus.staf = pages
	}
	c.Bus.mu.Unlock()
	c.Bus.signal()
	ready()
	<-ctx.Done()
	c.Bus.mu.Lock()
	if c.Bus.staf == pages && isStaf {
		c.Bus.staf = nil
	}
	c.Bus.mu.Unlock()
	c.Bus.signal()
	return nil
}

// LogPagesChanged implements [service.Bus].
func (c *Connection) LogPagesChanged(tid.TID, string) { c.Bus.signal() }

// DCRemoved implements [service.Bus].
func (c *Connection) DCRemoved() { c.Bus.signal() }

// Hang makes stafd not answer, as if it hung, or answer again.
func (b *Bus) Hang(silent bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.silent = silent
}

// Restart ends the bus and starts it again: nobody is on it for a while.
func (b *Bus) Restart() {
	b.mu.Lock()
	staf := b.staf
	b.staf = nil
	b.mu.Unlock()
	b.signal()
	time.Sleep(time.Second)
	b.mu.Lock()
	b.staf = staf
	b.mu.Unlock()
	b.signal()
}

func (b *Bus) signal() {
	b.mu.Lock()
	defer b.mu.Unlock()
	for ch := range b.changes {
		select {
		case ch <- struct{}{}:
		default:
		}
	}
}

// Follow implements [stac.Feed].
func (b *Bus) Follow(ctx context.Context, deliver func([]stac.Page)) {
	changed := make(chan struct{}, 1)
	b.mu.Lock()
	b.changes[changed] = true
	b.mu.Unlock()
	defer func() {
		b.mu.Lock()
		defer b.mu.Unlock()
		delete(b.changes, changed)
	}()
	for {
		deliver(b.ask(ctx))
		select {
		case <-ctx.Done():
			return
		case <-changed:
		case <-time.After(time.Minute):
		}
	}
}

// ask asks stafd for all pages; nil if it does not answer.
func (b *Bus) ask(ctx context.Context) []stac.Page {
	b.mu.Lock()
	staf, silent := b.staf, b.silent
	b.mu.Unlock()
	if staf == nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, answerLimit)
	defer cancel()
	if silent {
		<-ctx.Done()
		return nil
	}
	pages, err := stasbus.Ask(ctx, staf)
	if err != nil {
		return nil
	}
	text, err := json.Marshal(pages)
	// Not into pages: their entries are stafd's.
	var heard []stac.Page
	if err != nil || json.Unmarshal(text, &heard) != nil {
		return nil
	}
	return heard
}
