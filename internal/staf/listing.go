package staf

import (
	"context"
	"time"

	"github.com/nvme-stas/stas/internal/stasbus"
	"github.com/nvme-stas/stas/internal/tid"
)

// A stafd without memory knows less than the stacd beside it: not what its
// discovery controllers referred to, nor what a line of the configuration that
// makes no sense now has meant. Until it does, what is missing from its list
// proves nothing, and it says so.

// maxGone bounds what is remembered to have been given up.
const maxGone = 4096

// listing is what the list of discovery controllers is worth. It belongs to
// the loop.
type listing struct {
	since time.Time
	blank bool // started without memory, and not everything has been heard of since
	gone  map[tid.TID]bool
}

// gaveUp notes that a discovery controller is not on the list any more because
// there is evidence, and not for lack of memory.
func (l *listing) gaveUp(id tid.TID) {
	if len(l.gone) < maxGone {
		l.gone[id] = true
	}
}

// partial reports whether there may be discovery controllers that ought to be on
// the list.
func (d *Daemon) partial() bool {
	if !d.listing.blank || d.cfg.Doubtful || d.BootTables().Unread ||
		d.zeroconf.mode != "" && !d.zeroconf.settled(time.Now()) {
		return d.listing.blank
	}
	for _, c := range d.dcs {
		if !c.Known {
			return true // it may refer to others
		}
	}
	d.listing.blank = false
	return false
}

// Listing implements [stasbus.Lister].
func (d *Daemon) Listing(ctx context.Context) (stasbus.Listing, error) {
	l := stasbus.Listing{Version: stasbus.ReportVersion, Gone: []stasbus.ID{}}
	err := d.Loop().Do(ctx, func() {
		l.Since, l.Partial = d.listing.since, d.partial()
		for id := range d.listing.gone {
			l.Gone = append(l.Gone, stasbus.ID(id))
		}
	})
	if err != nil {
		return stasbus.Listing{}, err // the loop may still be about to write to l
	}
	return l, nil
}
