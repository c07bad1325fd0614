package cli

import (
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/nvme-stas/stas/internal/output"
	"github.com/nvme-stas/stas/internal/stasbus"
	"github.com/nvme-stas/stas/internal/tid"
)

// This file shows what is special about discovery controllers: who refers to
// whom, who knows this host, who has to be asked.

// branch is a row of "stafctl ls --tree".
type branch struct {
	row
	lines string // that lead to it
	above bool   // it stands above already, with what it refers to
}

var treeColumns = []output.Column[branch]{
	output.Col("DISCOVERY CONTROLLER", func(b branch) string {
		text := b.lines + address(b.Transport, b.TrAddr, b.TrSvcID)
		if b.HostIface != "" {
			text += " through " + b.HostIface
		}
		if b.above {
			text += " (see above)"
		}
		return text
	}),
	output.Col("DEVICE", func(b branch) string { return b.Device }),
	output.Col("STATE", func(b branch) string { return state(b.row) }),
	output.Col("ORIGIN", func(b branch) string { return roots(b.row) }),
	output.Col("ENTRIES", func(b branch) string { return entries(b.row) }),
	output.Col("NQN", func(b branch) string { return b.SubsysNQN }).Wide(),
}

// roots are the origins but for referrals, which the lines show.
func roots(r row) string {
	var words []string
	for _, o := range r.Origins {
		if o.Kind != stasbus.Referral {
			words = append(words, o.Kind)
		}
	}
	return strings.Join(distinct(words), ", ")
}

// printTree lists discovery controllers below those that refer to them. One
// to which several refer stands below each, its own referrals once.
func (t *tool) printTree(r stasbus.Report) error {
	children := make(map[tid.TID][]int)
	var tops []int
	have := make(map[tid.TID]bool, len(r.Controllers))
	for i := range r.Controllers {
		have[r.Controllers[i].TID()] = true
	}
	for i := range r.Controllers {
		c := &r.Controllers[i]
		top := true // until somebody refers to it, and nothing else lists it
		for _, o := range c.Origins {
			if o.Kind == stasbus.Referral && o.By != nil && have[tid.TID(*o.By)] {
				children[tid.TID(*o.By)] = append(children[tid.TID(*o.By)], i)
				top = false
			}
		}
		if top || roots(row{Controller: c}) != "" {
			tops = append(tops, i)
		}
	}
	var all []branch
	shown := make(map[int]bool)
	var show func(i int, first, rest string)
	show = func(i int, first, rest string) {
		b := branch{row{&r.Controllers[i], r.Time}, first, shown[i]}
		all = append(all, b)
		if b.above {
			return
		}
		shown[i] = true
		below := children[b.TID()]
		for n, child := range below {
			if n == len(below)-1 {
				show(child, rest+"└─ ", rest+"   ")
			} else {
				show(child, rest+"├─ ", rest+"│  ")
			}
		}
	}
	for _, i := range tops {
		show(i, "", "")
	}
	// What only each other lead to, for as long as it takes to disconnect it.
	for i := range r.Controllers {
		if !shown[i] {
			show(i, "", "")
		}
	}
	return printTable(t, treeColumns, all)
}

// registered is what became of registering this host.
func registered(r row) string {
	switch g := r.Registration; {
	case g == nil:
		return ""
	case g.State == stasbus.Registered:
		return "yes"
	case g.State == stasbus.Unsupported:
		return "no"
	default:
		return g.State
	}
}

// registration is the same as half a sentence, for who looks closely.
func registration(r row) string {
	g := r.Registration
	if g == nil {
		return ""
	}
	ago := duration(max(r.now.Sub(g.Since), 0)) + " ago"
	switch {
	case g.State == stasbus.Registered && g.SymName != "":
		return fmt.Sprintf("this host registered as %q %s", g.SymName, ago)
	case g.State == stasbus.Registered:
		return "this host registered " + ago
	case g.Failure == nil:
		return "this host is not registered"
	}
	text := fmt.Sprintf("this host is not registered, tried %s: %s", ago, g.Failure.Error)
	if !g.Failure.Next.IsZero() {
		text += "; next try " + until(g.Failure.Next, r.now)
	}
	return text
}

// milliseconds is a time as a controller tells it, "" for none.
func milliseconds(ms int64) string {
	if ms == 0 {
		return ""
	}
	return (time.Duration(ms) * time.Millisecond).String()
}

// timingColumns are what controllers say of their times.
var timingColumns = []column{
	output.Col("DEVICE", func(r row) string { return r.Device }),
	output.Col("ADDRESS", func(r row) string { return address(r.Transport, r.TrAddr, r.TrSvcID) }).Rank(1),
	output.Col("KATO", func(r row) string {
		text := strconv.FormatInt(r.Timing.KATO, 10) + "s"
		if r.Timing.KATOTooShort {
			text += " (shorter than KAS)"
		}
		return text
	}),
	output.Col("KAS", func(r row) string { return milliseconds(r.Timing.KAS) }),
	output.Col("CQT", func(r row) string { return milliseconds(r.Timing.CQT) }),
	output.Col("RTD3E", func(r row) string { return milliseconds(r.Timing.RTD3E) }),
}

// printTiming is the part of "status" about it.
func (t *tool) printTiming(r stasbus.Report) error {
	var rows []row
	for i := range r.Controllers {
		if r.Controllers[i].Timing != nil {
			rows = append(rows, row{&r.Controllers[i], r.Time})
		}
	}
	if len(rows) == 0 {
		return nil
	}
	fmt.Fprintln(t.stdout)
	return printTable(t, timingColumns, rows)
}
