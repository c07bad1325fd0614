package staf

import "github.com/nvme-stas/stas/internal/tid"

// Learned implements [service.Learner]: a discovery controller takes the place
// of another one when it has told what it lists.
func (d *Daemon) Learned(id tid.TID) bool {
	c := d.dcs[id]
	return c != nil && c.Known
}
