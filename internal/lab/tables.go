package lab

import (
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/nvme-stas/stas/internal/output"
	"github.com/nvme-stas/stas/pkg/nvme"
	"github.com/nvme-stas/stas/pkg/target"
)

var (
	listenerColumns = []output.Column[ListenerInfo]{
		output.Col("LISTENER", func(l ListenerInfo) string { return l.Name }),
		output.Col("ADDRESS", func(l ListenerInfo) string { return l.Address }),
		output.Col("STATE", func(l ListenerInfo) string { return l.State }),
		output.Col("CONNECTIONS", func(l ListenerInfo) string { return number(l.Connections) }),
		output.Col("DISCOVERY", func(l ListenerInfo) string { return string(l.Discovery) }),
		output.Col("ANNOUNCED", func(l ListenerInfo) string { return l.Announced }),
		output.Col("NQN", func(l ListenerInfo) string { return l.NQN }),
	}
	subsystemColumns = []output.Column[target.SubsystemInfo]{
		output.Col("NQN", func(s target.SubsystemInfo) string { return s.NQN }),
		output.Col("LISTENERS", func(s target.SubsystemInfo) string { return strings.Join(s.Listeners, ",") }),
		output.Col("HOSTS", func(s target.SubsystemInfo) string {
			if len(s.Hosts) == 0 {
				return "any"
			}
			return strings.Join(s.Hosts, ",")
		}),
		output.Col("CONTROLLERS", func(s target.SubsystemInfo) string { return number(s.Controllers) }),
		output.Col("NAMESPACES", namespaces),
		output.Col("NOT OPTIMIZED", notOptimized),
		output.Col("NCC", func(s target.SubsystemInfo) string { return yes(s.NCC) }),
	}
	hostColumns = []output.Column[target.HostInfo]{
		output.Col("HOST", func(h target.HostInfo) string { return h.NQN }),
		output.Col("CONNECTIONS", func(h target.HostInfo) string { return number(h.Connections) }),
		output.Col("REGISTERED", func(h target.HostInfo) string { return moment(h.Registered) }),
		output.Col("AT", func(h target.HostInfo) string { return h.Listener }),
		output.Col("NAME", func(h target.HostInfo) string {
			if h.SymbolicName != "" {
				return h.SymbolicName
			}
			return h.Name
		}),
		output.Col("SOFTWARE", func(h target.HostInfo) string { return h.Software }),
		output.Col("ADDRESS", func(h target.HostInfo) string { return h.Address }),
		output.Col("ZONES", func(h target.HostInfo) string { return strings.Join(h.Zones, ",") }),
		output.Col("KEY", func(h target.HostInfo) string { return yes(h.Authenticates) }),
	}
	connectionColumns = []output.Column[target.ConnectionInfo]{
		output.Col("CNTLID", func(c target.ConnectionInfo) string { return strconv.Itoa(int(c.CntlID)) }),
		output.Col("LISTENER", func(c target.ConnectionInfo) string { return c.Listener }),
		output.Col("HOST", func(c target.ConnectionInfo) string { return c.Host }),
		output.Col("FROM", func(c target.ConnectionInfo) string { return c.From }),
		output.Col("KATO", func(c target.ConnectionInfo) string {
			if c.KATO == 0 {
				return ""
			}
			return time.Duration(c.KATO).String()
		}),
		output.Col("QUEUES", func(c target.ConnectionInfo) string { return number(c.Queues) }),
		output.Col("AERS", func(c target.ConnectionInfo) string { return number(c.AERs) }),
		output.Col("ENTRIES", func(c target.ConnectionInfo) string { return number(c.Entries) }),
		output.Col("SINCE", func(c target.ConnectionInfo) string { return moment(c.Since) }),
		output.Col("SUBSYSTEM", func(c target.ConnectionInfo) string { return c.Subsystem }),
	}
	zoneColumns = []output.Column[zoneInfo]{
		output.Col("ZONE", func(z zoneInfo) string { return z.Name }),
		output.Col("HOSTS", func(z zoneInfo) string { return strings.Join(z.Hosts, ",") }),
		output.Col("SUBSYSTEMS", func(z zoneInfo) string { return strings.Join(z.Subsystems, ",") }),
	}
	faultColumns = []output.Column[target.FaultInfo]{
		output.Col("ID", func(f target.FaultInfo) string { return strconv.Itoa(f.ID) }),
		output.Col("FAULT", func(f target.FaultInfo) string { return f.Do }),
		output.Col("MET", func(f target.FaultInfo) string { return number(f.Met) }),
		output.Col("DONE", func(f target.FaultInfo) string { return number(f.Done) }),
		output.Col("WITH", func(f target.FaultInfo) string { return faultText(f.Fault) }),
	}
	kindColumns = []output.Column[target.Kind]{
		output.Col("FAULT", func(k target.Kind) string { return k.Name }),
		output.Col("AT", func(k target.Kind) string { return k.At }),
		output.Col("TAKES", func(k target.Kind) string { return k.Takes }),
		output.Col("WHAT HAPPENS", func(k target.Kind) string { return k.About }),
	}
)

// number shows a number that is worth it.
func number(n int) string {
	if n == 0 {
		return ""
	}
	return strconv.Itoa(n)
}

func yes(b bool) string {
	if b {
		return "yes"
	}
	return ""
}

// moment is the time of a day, and of which if it is not today's.
func moment(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	t = t.Local()
	if time.Since(t) < 12*time.Hour {
		return t.Format(time.TimeOnly)
	}
	return t.Format(time.DateTime)
}

func namespaces(s target.SubsystemInfo) string {
	var list []string
	for _, n := range s.Namespaces {
		list = append(list, fmt.Sprintf("%d:%s", n.ID, n.Size))
	}
	return strings.Join(list, ",")
}

// notOptimized lists the groups of namespaces, and where they are what.
func notOptimized(s target.SubsystemInfo) string {
	var list []string
	told := make(map[string]bool)
	for _, n := range s.Namespaces {
		for _, a := range n.ANA {
			text := fmt.Sprintf("%d@%s:%s", n.ANAGroup, a.Listener, a.State)
			if a.State != nvme.ANAOptimized && !told[text] {
				list = append(list, text)
				told[text] = true
			}
		}
	}
	return strings.Join(list, ",")
}

// faultText writes the values of a fault as "stas-lab ctl fault add" takes them.
func faultText(f target.Fault) string {
	var list []string
	for _, k := range faultKeys {
		if text := k.get(&f); text != "" {
			list = append(list, k.name+"="+text)
		}
	}
	return strings.Join(list, " ")
}
