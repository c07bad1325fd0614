package stasbus_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/nvme-stas/stas/internal/logpage"
	"github.com/nvme-stas/stas/internal/stasbus"
	"github.com/nvme-stas/stas/internal/stastest"
)

// delivery is what a feed delivers, in short: the traddrs, or "nil".
func delivery(pages []stasbus.DCPage[logpage.Entry]) string {
	if pages == nil {
		return "nil"
	}
	addrs := []string{}
	for _, p := range pages {
		addrs = append(addrs, p.DiscoveryController["traddr"])
	}
	return fmt.Sprint(addrs)
}

// follow runs a feed until the test ends.
func follow(t *testing.T, feed stasbus.Feed) <-chan string {
	ctx, cancel := context.WithCancel(t.Context())
	deliveries, done := make(chan string, 16), make(chan struct{})
	go func() {
		defer close(done)
		feed.Follow(ctx, func(pages []stasbus.DCPage[logpage.Entry]) { deliveries <- delivery(pages) })
	}()
	t.Cleanup(func() {
		cancel()
		<-done
		for close(deliveries); len(deliveries) > 0; {
			if <-deliveries == "nil" {
				t.Error("nil was delivered besides")
			}
		}
	})
	return deliveries
}

func (d *stafd) setPages(text string, err error) {
	d.answer(func(context.Context) (string, error) { return text, err })
}

func (d *stafd) answer(pages func(context.Context) (string, error)) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.pages = pages
}

func (d *stafd) count() int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.calls
}

const (
	page1 = `[{"discovery-controller":{"traddr":"1"},"log-pages":[]}]`
	page2 = `[{"discovery-controller":{"traddr":"1"}},{"discovery-controller":{"traddr":"2"}}]`
)

func TestFeed(t *testing.T) {
	bus := stastest.NewSystemBus(t, stastest.AllowAll)
	deliveries := follow(t, stasbus.Feed{Log: logger(t)}.WithSoak(time.Millisecond))
	last := "[]"
	expect := func(what, want string) {
		t.Helper()
		got := receive(t, deliveries)
		for got == last && got != "nil" {
			got = receive(t, deliveries) // stafd may be asked twice, but told missing only once
		}
		if got != want {
			t.Fatalf("%s: %s was delivered, want %s", what, got, want)
		}
		last = got
	}
	expect("stafd is not there", "nil")

	backend := &stafd{}
	backend.setPages(page1, nil)
	server, stop := serve(t, stasbus.Staf, backend)
	expect("stafd starts", "[1]")

	backend.setPages(page2, nil)
	server.LogPagesChanged(dc, "nvme0")
	expect("log_pages_changed", "[1 2]")
	backend.setPages("[]", nil)
	server.DCRemoved()
	expect("dc_removed", "[]")

	// However often it fails, that is told once.
	for _, failure := range []func(){
		func() { backend.setPages("", errors.New("out of order")) },
		func() { backend.setPages("[{]", nil) },
		func() { backend.setPages("null", nil) },
	} {
		failure()
		for range 3 {
			before := backend.count()
			server.DCRemoved()
			for deadline := time.Now().Add(patience); backend.count() == before; time.Sleep(time.Millisecond) {
				if time.Now().After(deadline) {
					t.Fatal("stafd is not asked again")
				}
			}
		}
		expect("stafd gives errors", "nil")
		backend.setPages(page1, nil)
		server.DCRemoved()
		expect("stafd answers", "[1]")
	}

	stop()
	expect("stafd stops", "nil")
	serve(t, stasbus.Staf, backend)
	expect("stafd starts again", "[1]")

	bus.Stop()
	expect("the bus dies", "nil")
	bus.Start()
	expect("the bus is back", "[1]")
}

// A stafd that was there first is asked at once.
func TestFeedStartsLater(t *testing.T) {
	stastest.NewSystemBus(t, stastest.AllowAll)
	backend := &stafd{}
	backend.setPages(page1, nil)
	serve(t, stasbus.Staf, backend)
	if got := receive(t, follow(t, stasbus.Feed{Log: logger(t)})); got != "[1]" {
		t.Errorf("%s was delivered first", got)
	}
}

func TestFeedTimeout(t *testing.T) {
	stastest.NewSystemBus(t, stastest.AllowAll)
	backend := &stafd{}
	release := make(chan struct{})
	t.Cleanup(func() { close(release) })
	backend.answer(func(context.Context) (string, error) { <-release; return page1, nil })
	server, _ := serve(t, stasbus.Staf, backend)
	deliveries := follow(t, stasbus.Feed{Log: logger(t)}.WithTimeout(time.Second))
	if got := receive(t, deliveries); got != "nil" {
		t.Fatalf("stafd is silent, %s was delivered", got)
	}
	backend.setPages(page2, nil)
	server.DCRemoved()
	if got := receive(t, deliveries); got != "[1 2]" {
		t.Errorf("stafd answers, %s was delivered", got)
	}
}

// Our stafd tells which pages are complete; that of nvme-stas 2.x does not, and
// a page that is too big for one message comes by itself.
func TestFeedKnown(t *testing.T) {
	pages := []stasbus.LogPage{{ID: stasbus.ID(dc), Known: true, Entries: []logpage.Entry{{SubNQN: "nqn.a"}}}, {ID: stasbus.ID(tronTID)}}
	partial := stasbus.Listing{Partial: true, Gone: []stasbus.ID{stasbus.ID(tronTID), stasbus.ID(dc)}}
	old := stafd{}
	old.setPages(`[{"discovery-controller":{"traddr":"10.0.0.1"},"log-pages":[{"subnqn":"nqn.a"}]}]`, nil)
	for _, c := range []struct {
		name    string
		backend stasbus.Backend
		want    string // "ADDRESS KNOWN:ENTRIES"
	}{
		{"ours", &newStafd{told: pages, whole: true}, "10.0.0.1 True:1, tron False:0"},
		{"big", &newStafd{told: pages}, "10.0.0.99 False:0, 10.0.0.1 True:1, tron False:0"},
		{"none", &newStafd{told: []stasbus.LogPage{}, whole: true}, ""},
		{"2.x", &old, "10.0.0.1 :1"},
		{"partial", &newStafd{told: pages[:1], whole: true, listing: partial}, "10.0.0.1 True:1 partial, tron True:0 partial"},
		{"partial and empty", &newStafd{told: []stasbus.LogPage{}, whole: true, listing: stasbus.Listing{Partial: true}}, "nil"},
		{"restarted meanwhile", &newStafd{told: pages[:1], whole: true, restarts: true}, "10.0.0.1 True:1 partial"},
	} {
		t.Run(c.name, func(t *testing.T) {
			stastest.NewSystemBus(t, stastest.AllowAll)
			serve(t, stasbus.Staf, c.backend)
			ctx, cancel := context.WithCancel(t.Context())
			deliveries := make(chan string, 1)
			go stasbus.Feed{Log: logger(t)}.Follow(ctx, func(pages []stasbus.DCPage[logpage.Entry]) {
				var all []string
				for _, p := range pages {
					one := fmt.Sprintf("%s %s:%d", p.DiscoveryController["traddr"], p.DiscoveryController[stasbus.KnownKey], len(p.LogPages))
					if p.DiscoveryController[stasbus.PartialKey] == stasbus.True {
						one += " partial"
					}
					all = append(all, one)
				}
				text := strings.Join(all, ", ")
				if pages == nil {
					text = "nil"
				}
				select {
				case deliveries <- text:
				default:
				}
			})
			defer cancel()
			if got := receive(t, deliveries); got != c.want {
				t.Errorf("%q was delivered, want %q", got, c.want)
			}
		})
	}
}
