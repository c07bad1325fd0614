//go:build linux

package scenario

import (
	"fmt"
	"strings"
	"time"

	"github.com/nvme-stas/stas/pkg/target"
)

// stafd registers the host with discovery controllers that take it, before it
// reads what they have for that host; it follows what they refer to, even to one
// that keeps no connection for good; and it takes leave.
func labStafd(g *Guest) {
	lab := openLab(g, target.Config{
		Listeners: []target.Listener{
			labListener(portA, target.Discovery{Type: target.CDC, Referrals: []target.Referral{{Address: fmt.Sprintf("%s:%d", portB.Addr, portB.Svc)}}}),
			labListener(portB, target.Discovery{NoAEN: true, Registration: target.Registration{Off: true}}),
		},
		Subsystems: []target.Subsystem{{NQN: nqn(0), Listeners: []string{labName(portB)}}},
	})
	const symname = "[Host]\nsymname = rack 7\n"
	sysConf := func(text string) { writeFile(g, "/etc/stas/sys.conf", text) }
	sysConf(symname)
	g.Cleanup(func() { sysConf("") })
	registered := func(name string) func() string {
		return func() string {
			all := lab.Hosts()
			if len(all) != 1 || all[0].Registered.IsZero() != (name == "-") || name != "-" && all[0].SymbolicName != name {
				return fmt.Sprintf("the target knows %+v, want %q", all, name)
			}
			return ""
		}
	}
	g.Configure(Stafd, quick+stafdConf(portA))
	g.Start(Stafd, Stacd)
	eventually(g, soon, "the host is registered", registered("rack 7"))
	h := lab.Hosts()[0]
	if h.Name != "stas-vm" || h.Address != "127.0.0.1" || h.Listener != labName(portA) || !strings.HasPrefix(h.Software, "Linux ") {
		g.Errorf("the target knows of the host: %+v", h)
	}
	eventually(g, time.Minute, "the referral is followed", discoveryAt(g, portA, portB))
	eventually(g, soon, "storage is connected", liveIs(g, nqn(0)))
	for _, c := range lab.Connections() {
		if c.Discovery && (c.KATO == 0) != (c.Listener == labName(portB)) {
			g.Errorf("the connection to %s has a KATO of %v", c.Listener, c.KATO)
		}
	}
	report := run(g, "stafctl", "ls", "--tree")
	if !strings.Contains(report, "└─") {
		g.Errorf("stafctl ls --tree shows\n%s", report)
	}
	for _, want := range []string{`"state": "registered"`, `"state": "unsupported"`, `"polled": true`} {
		eventually(g, soon, "stafctl status has "+want, func() string {
			if report := run(g, "stafctl", "status", "-o", "json"); !strings.Contains(report, want) {
				return report
			}
			return ""
		})
	}

	sysConf(strings.ReplaceAll(symname, "7", "8"))
	g.Reload(Stafd)
	eventually(g, soon, "the name has changed", registered("rack 8"))
	before := lab.Hosts()[0].Registered
	must(g, lab.Restart("", time.Second))
	eventually(g, 30*time.Second, "registered again after a restart of the target", func() string {
		if all := lab.Hosts(); len(all) != 1 || !all[0].Registered.After(before) {
			return fmt.Sprintf("the target knows %+v", all)
		}
		return ""
	})
	g.Configure(Stafd, quick+controllersSection)
	g.Reload(Stafd)
	eventually(g, soon, "no longer configured", discoveryAt(g))
	for _, h := range lab.Hosts() {
		if !h.Registered.IsZero() {
			g.Errorf("the host is still registered: %+v", h)
		}
	}
}
