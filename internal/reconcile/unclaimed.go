package reconcile

import (
	"iter"

	"github.com/nvme-stas/stas/internal/tid"
)

// Unclaimed yields the devices of the engine's kind that no controller of the
// engine uses: others made them, and nobody here has asked for them yet.
func (e *Engine[P]) Unclaimed() iter.Seq2[string, Observed] {
	return func(yield func(string, Observed) bool) {
		for name, d := range e.devices {
			if len(d.holders) == 0 && d.Kind == e.cfg.Kind && !d.Leaving && !yield(name, d.Observed) {
				return
			}
		}
	}
}

// Find returns the device that serves a controller, whether it is wanted or
// not. It says nothing before the kernel has been observed completely: sure is
// false then.
func (e *Engine[P]) Find(id tid.TID) (name string, sure bool) {
	name, _ = e.index.Find(id, e.cfg.Kind, e.ifaces)
	return name, e.complete
}
