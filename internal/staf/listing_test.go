package staf

import (
	"fmt"
	"testing"
	"testing/synctest"
	"time"
)

// A list is worth less while nothing is remembered, and not all has been read.
func TestListing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		expect := func(when string, partial bool, gone string) {
			t.Helper()
			l, err := r.daemon.Listing(t.Context())
			var ports string
			for _, id := range l.Gone {
				ports += id.TrSvcID
			}
			if got := fmt.Sprint(l.Partial, " ", ports); err != nil || got != fmt.Sprint(partial, " ", gone) {
				t.Errorf("%s: %s, %v, want %v %s", when, got, err, partial, gone)
			}
		}
		r.kernel.ClosePort(addr, "2")
		r.conf = dc1 + dc2
		r.start()
		expect("one was never read", true, "")
		r.reconfigure(dc1)
		expect("that was taken out", false, "2")
		r.reconfigure(dc1 + dc2)
		expect("it is new, not forgotten", false, "")
		r.stop()
		r.start()
		expect("remembered", false, "")
		r.stop()
		// What is silent about it need not be stafd's.
		r.state = []byte(`{"wanted":[],"sources":[]}`)
		r.start()
		expect("the state of something else", true, "")
		r.kernel.OpenPort(2, addr, "2")
		time.Sleep(2 * time.Minute)
		settle()
		expect("all are read", false, "")
		r.stop()
		r.state = nil
		r.conf = dc1 + "controller=x\n"
		r.start()
		expect("a line makes no sense", true, "")
		r.reconfigure(dc1)
		expect("all lines do", false, "")
	})
}
