//go:build linux

package scenario

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"text/tabwriter"
	"time"
)

// TestMeasure measures the product in the guest: "make bench". It tells
// figures and asserts none, because the guest's processor is emulated; what
// means something are the ratios within one boot.
func TestMeasure(t *testing.T) {
	if !InGuest() {
		t.Skip("make bench runs this in a guest")
	}
	w := tabwriter.NewWriter(t.Output(), 0, 8, 2, ' ', 0)
	fmt.Fprintln(w, "subsystems\tbare connects\tall live, from start\tratio\tstafd CPU\tstacd CPU\tPSS stafd + stacd\tone added, live after")
	for _, n := range []int{1, 50, 200} {
		t.Run(strconv.Itoa(n), func(t *testing.T) {
			const rounds = 3
			var bare, live, ratio, added []float64
			var last measured
			for range rounds {
				b := measureBare(t, n)
				last = measureProduct(t, n)
				bare, live = append(bare, b.Seconds()), append(live, last.live.Seconds())
				ratio = append(ratio, last.live.Seconds()/b.Seconds())
				added = append(added, last.added...)
			}
			fmt.Fprintf(w, "%d\t%s\t%s\t%s\t%.1f s\t%.1f s\t%.1f + %.1f MB\t%s\n", n,
				spread(bare), spread(live), spread(ratio),
				last.cpu[Stafd].Seconds(), last.cpu[Stacd].Seconds(),
				last.pss[Stafd]/1e6, last.pss[Stacd]/1e6, spread(added))
		})
	}
	w.Flush()
}

// spread is a median with its minimum and maximum.
func spread(v []float64) string {
	v = slices.Sorted(slices.Values(v))
	return fmt.Sprintf("%.2f (%.2f-%.2f)", v[len(v)/2], v[0], v[len(v)-1])
}

// measureBare connects n subsystems as four shells would that write to the
// kernel in turn, and nothing else.
func measureBare(t *testing.T, n int) time.Duration {
	g := NewGuest(t)
	defer g.clean()
	offer(g, portA, n)
	began := time.Now()
	work := make(chan string)
	var all sync.WaitGroup
	for range 4 {
		all.Go(func() {
			for nqn := range work {
				connectIOC(g, portA, nqn)
			}
		})
	}
	for _, s := range nqns(n) {
		work <- s
	}
	close(work)
	all.Wait()
	waitLive(g, n)
	return time.Since(began)
}

type measured struct {
	live  time.Duration
	added []float64 // seconds
	cpu   map[Daemon]time.Duration
	pss   map[Daemon]float64 // bytes
}

func measureProduct(t *testing.T, n int) measured {
	g := NewGuest(t)
	defer g.clean()
	offer(g, portA, n)
	g.Configure(Stafd, stafdConf(portA))
	began := time.Now()
	g.Start(Stafd, Stacd)
	waitLive(g, n)
	m := measured{live: time.Since(began), cpu: map[Daemon]time.Duration{}, pss: map[Daemon]float64{}}
	for _, d := range []Daemon{Stafd, Stacd} {
		m.cpu[d] = cpuTime(g, g.MainPID(d))
		m.pss[d] = pss(g, g.MainPID(d))
	}
	for i := range 3 {
		nqn := nqn(n + i)
		g.AddSubsystem(nqn) // prepared, not offered
		began := time.Now()
		g.AddSubsystem(nqn, portA)
		waitLive(g, n+i+1)
		m.added = append(m.added, time.Since(began).Seconds())
	}
	return m
}

// waitLive waits until n I/O controllers are live. It looks at each one as
// seldom as it can, so as to leave the processor to who is measured.
func waitLive(g *Guest, n int) {
	g.Helper()
	live := make(map[string]bool)
	for deadline := time.Now().Add(5 * time.Minute); ; time.Sleep(20 * time.Millisecond) {
		names, err := g.sysfs.Names()
		if err != nil {
			g.Fatal(err)
		}
		for _, name := range names {
			if _, known := live[name]; known {
				continue
			}
			state, _ := g.sysfs.Attr(name, "state")
			kind, _ := g.sysfs.Attr(name, "cntrltype")
			if state == "live" {
				live[name] = kind == "io"
			}
		}
		count := 0
		for _, io := range live {
			if io {
				count++
			}
		}
		if count >= n {
			return
		}
		if time.Now().After(deadline) {
			g.Fatalf("%d of %d controllers are live", count, n)
		}
	}
}

// cpuTime is the processor time that a process has used (proc_pid_stat(5)).
func cpuTime(g *Guest, pid int) time.Duration {
	g.Helper()
	text, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(pid), "stat"))
	if err != nil {
		g.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(text), ") ")
	fields := strings.Fields(rest)
	user, _ := strconv.Atoi(fields[11])
	system, _ := strconv.Atoi(fields[12])
	const tick = 10 * time.Millisecond // USER_HZ is 100 on every Linux
	return time.Duration(user+system) * tick
}

// pss is the memory of a process, shared pages counted in proportion, in bytes.
func pss(g *Guest, pid int) float64 {
	g.Helper()
	text, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(pid), "smaps_rollup"))
	if err != nil {
		g.Fatal(err)
	}
	for line := range strings.Lines(string(text)) {
		if value, ok := strings.CutPrefix(line, "Pss:"); ok {
			kib, err := strconv.ParseFloat(strings.TrimSuffix(strings.TrimSpace(value), " kB"), 64)
			if err != nil {
				g.Fatal(err)
			}
			return kib * 1024
		}
	}
	g.Fatalf("process %d shows no PSS", pid)
	return 0
}
