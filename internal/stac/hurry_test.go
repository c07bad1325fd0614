package stac_test

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/nvme-stas/stas/internal/stac"
)

// A log page that changes is a reason to try at once what it lists, and one
// that does not is none.
func TestChangedPageHurries(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		r.start()
		page := []stac.Page{dc(1, yes, "late")}
		r.deliver(page)
		time.Sleep(10 * time.Minute) // pauses are of up to a minute now
		synctest.Wait()
		before := r.kernel.Connects
		for range 20 {
			r.deliver(page)
		}
		if n := r.kernel.Connects - before; n > 10 {
			t.Errorf("%d attempts in 20 s, while the page stays as it is", n)
		}
		r.kernel.Offer("nqn.late", "10.0.0.1", "4420", true)
		r.deliver([]stac.Page{dc(1, yes, "late", "other 10.0.0.2")})
		r.expectConnected("the page has changed", "nvme0=nqn.late")
	})
}
