//go:build linux

package scenario

import (
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/nvme-stas/stas/internal/stasbus"
	"github.com/nvme-stas/stas/pkg/nvmesysfs"
)

// mdnsCases are about discovery controllers that nobody has configured. What
// announces them is in other network namespaces, behind links of its own.
var mdnsCases = []struct {
	name string
	run  func(*Guest)
}{
	{"Avahi", func(g *Guest) { zeroTouch(g, "avahi") }},
	{"Embedded", func(g *Guest) { zeroTouch(g, "embedded") }},
	{"AvahiComesAndGoes", avahiComesAndGoes},
	{"AnnouncedBeforeItListens", announcedBeforeItListens},
	{"Excluded", announcedButExcluded},
}

// TestGuestMDNS runs the cases.
func TestGuestMDNS(t *testing.T) {
	if !InGuest() {
		t.Skip("go run ./test/vm test runs this in a guest")
	}
	for _, c := range mdnsCases {
		t.Run(c.name, func(t *testing.T) { c.run(NewGuest(t)) })
	}
}

// link is a link of this host, and another host at its other end.
type link struct {
	g     *Guest
	n     int
	nic   string // of this host
	space string // network namespace of the other one
	addr  string // of the other one
}

func newLink(g *Guest, n int) *link {
	g.Helper()
	l := &link{g: g, n: n, nic: fmt.Sprint("link", n), space: fmt.Sprint("far", n), addr: fmt.Sprintf("192.168.%d.2", 100+n)}
	run(g, "ip", "netns", "add", l.space)
	g.Cleanup(func() { run(g, "ip", "netns", "delete", l.space) })
	run(g, "ip", "link", "add", l.nic, "type", "veth", "peer", "name", "far", "netns", l.space)
	run(g, "ip", "address", "add", fmt.Sprintf("192.168.%d.1/24", 100+n), "dev", l.nic)
	run(g, "ip", "link", "set", l.nic, "up")
	run(g, "ip", "-netns", l.space, "address", "add", l.addr+"/24", "dev", "far")
	run(g, "ip", "-netns", l.space, "link", "set", "far", "up")
	run(g, "ip", "-netns", l.space, "link", "set", "lo", "up")
	return l
}

func (l *link) unit() string { return fmt.Sprint("stas-lab-", l.n) }

// announceTTL is how long what a lab announces is believed.
const announceTTL = 10 * time.Second

// serve runs a lab at the other end, with the storage nqn(n), announced under a
// name, or with an empty one, not at all.
func (l *link) serve(name string) {
	l.g.Helper()
	text := fmt.Sprintf("control: /run/%s.sock\nlisteners:\n- address: %s:8009\n  discovery: {type: cdc}\n", l.unit(), l.addr)
	if name != "" {
		text += fmt.Sprintf("  announce: {name: %q, ttl: %v}\n", name, announceTTL)
	}
	text += fmt.Sprintf("subsystems:\n- nqn: %s\n  namespaces: [{size: 16MiB}]\n", nqn(l.n))
	file := filepath.Join(l.g.TempDir(), "lab.yaml")
	writeFile(l.g, file, text)
	run(l.g, "systemd-run", "--unit="+l.unit(), "--collect", "--quiet", "--property=Type=notify", "--property=NotifyAccess=all",
		"ip", "netns", "exec", l.space, "stas-lab", "serve", file)
	l.g.Cleanup(l.stop)
}

// stop ends the lab, which says goodbye.
func (l *link) stop() {
	if l.g.Failed() {
		out, _ := exec.Command("journalctl", "--output=cat", "--unit="+l.unit()).CombinedOutput()
		l.g.Logf("%s said:\n%s", l.unit(), out)
	}
	_ = exec.Command("systemctl", "stop", l.unit()).Run() // unless it has ended
}

func startAvahiDaemon(g *Guest) {
	g.Helper()
	run(g, "systemctl", "start", "avahi-daemon")
	g.Cleanup(func() {
		if g.Failed() {
			out, _ := exec.Command("journalctl", "--output=cat", "--lines=50", "--unit=avahi-daemon").CombinedOutput()
			g.Logf("avahi-daemon said:\n%s", out)
		}
		stopAvahiDaemon(g)
	})
}

func stopAvahiDaemon(g *Guest) {
	g.Helper()
	run(g, "systemctl", "stop", "avahi-daemon.service", "avahi-daemon.socket")
}

// browsed is what stafd hears.
func browsed(g *Guest) stasbus.Browse {
	g.Helper()
	var b stasbus.Browse
	out, err := exec.Command("stafctl", "browse", "-o", "json").Output()
	if err == nil {
		err = json.Unmarshal(out, &b)
	}
	if err != nil {
		g.Fatalf("stafctl browse: %v\n%s", err, out)
	}
	return b
}

// sameAsAvahi complains of what only one of stafd and avahi-browse hears.
func sameAsAvahi(g *Guest) string {
	g.Helper()
	theirs := make(map[string]bool)
	for _, kind := range []string{"_nvme-disc._tcp", "_nvme-disc._udp"} {
		for line := range strings.Lines(run(g, "avahi-browse", "--resolve", "--parsable", "--terminate", "--no-db-lookup", kind)) {
			// =;interface;protocol;name;type;domain;host;address;port;text
			if f := strings.Split(strings.TrimSpace(line), ";"); len(f) == 10 && f[0] == "=" && f[1] != "lo" {
				theirs[strings.Join([]string{f[1], f[2], f[3], f[4], f[8]}, " ")] = true
			}
		}
	}
	ours := make(map[string]bool)
	for _, s := range browsed(g).Services {
		if s.Confirmed {
			ours[fmt.Sprint(s.Iface, " ", s.Family, " ", strings.ReplaceAll(s.Instance, " ", `\032`), " ", s.Type, " ", s.Port)] = true
		}
	}
	if !maps.Equal(ours, theirs) {
		return fmt.Sprintf("stafd hears\n%s\navahi-browse\n%s", strings.Join(slices.Sorted(maps.Keys(ours)), "\n"), strings.Join(slices.Sorted(maps.Keys(theirs)), "\n"))
	}
	return ""
}

// heardOn complains unless this is what is heard on the interfaces, as
// "interface name …" in order, whatever protocol it comes by.
func heardOn(g *Guest, want ...string) func() string {
	return func() string {
		g.Helper()
		var got []string
		for _, s := range browsed(g).Services {
			if s.Confirmed {
				got = append(got, s.Iface+" "+s.Instance)
			}
		}
		slices.Sort(got)
		if got = slices.Compact(got); !slices.Equal(got, want) {
			return fmt.Sprintf("heard is %q, want %q", got, want)
		}
		return ""
	}
}

// attributed complains of discovery controllers that are not connected through
// the interface behind which they are.
func attributed(g *Guest, links ...*link) func() string {
	return func() string {
		g.Helper()
		want := make(map[string]string)
		for _, l := range links {
			want[l.addr] = l.nic
		}
		got := make(map[string]string)
		for _, c := range g.Controllers() {
			if c.Kind == nvmesysfs.Discovery && c.State == nvmesysfs.Live {
				got[c.TrAddr] = c.HostIface
			}
		}
		if !maps.Equal(got, want) {
			return fmt.Sprintf("discovery controllers are connected through %v, want %v", got, want)
		}
		return ""
	}
}

// patient keeps the kernel trying for as long as a case lasts, at short
// intervals.
const patient = "[Global]\nreconnect-delay = 1\nctrl-loss-tmo = 600\n"

// zeroTouch goes from nothing to storage, and through what happens on links.
func zeroTouch(g *Guest, mode string) {
	one, two := newLink(g, 1), newLink(g, 2)
	startAvahiDaemon(g) // beside the embedded one, too
	one.serve("the array")
	two.serve("the array") // another one of that name
	g.Configure(Stafd, patient+"[Service Discovery]\nmdns = "+mode+"\n")
	g.Configure(Stacd, patient)
	began := g.Now()
	g.Start(Stafd, Stacd)
	eventually(g, soon, "storage that nobody has configured", liveIs(g, nqn(1), nqn(2)))
	g.Logf("connected %v after the start", g.Now().Sub(began).Round(10*time.Millisecond))
	eventually(g, soon, "attribution", attributed(g, one, two))
	same := func(what string) {
		g.Helper()
		eventually(g, soon, what, func() string { g.Helper(); return sameAsAvahi(g) })
	}
	same("side by side")
	unchanged := instancesAre(g, instances(g))

	two.stop() // goodbye
	eventually(g, soon, "goodbye", heardOn(g, one.nic+" the array"))
	same("after the goodbye")
	throughout(g, 2*time.Second, "nothing is removed", unchanged)
	two.serve("the array")
	eventually(g, soon, "it is back", liveIs(g, nqn(1), nqn(2)))
	eventually(g, soon, "it is heard again", heardOn(g, one.nic+" the array", two.nic+" the array"))
	same("back")

	// One that is killed says no goodbye. What it announced expires.
	run(g, "systemctl", "kill", "--signal=KILL", two.unit())
	killed := g.Now()
	eventually(g, announceTTL+soon, "expiry", heardOn(g, one.nic+" the array"))
	g.Logf("expired %v after it was killed", g.Now().Sub(killed).Round(100*time.Millisecond))
	same("expired")
	throughout(g, 2*time.Second, "nothing is removed", unchanged)
	two.serve("the array")
	eventually(g, soon, "it is back", liveIs(g, nqn(1), nqn(2)))

	run(g, "ip", "link", "set", one.nic, "down") // the cable is pulled
	eventually(g, soon, "the link is down", heardOn(g, two.nic+" the array"))
	throughout(g, 3*time.Second, "nothing is removed", unchanged)
	run(g, "ip", "link", "set", one.nic, "up")
	eventually(g, 2*soon, "the link is up", liveIs(g, nqn(1), nqn(2)))
	eventually(g, 2*soon, "it is heard again", heardOn(g, one.nic+" the array", two.nic+" the array"))
	same("plugged in")
	throughout(g, time.Second, "nothing was removed", unchanged)

	// A restarted stafd finds what is there, and takes nothing away.
	g.Kill(Stafd)
	throughout(g, 2*time.Second, "stafd killed", unchanged)
	eventually(g, soon, "stafd is back", func() string { g.Helper(); return sameAsAvahi(g) })

	// The other end gets another address. Who has it is another controller.
	two.stop()
	run(g, "ip", "-netns", two.space, "address", "flush", "dev", "far", "scope", "global")
	two.addr = "192.168.102.3"
	run(g, "ip", "-netns", two.space, "address", "add", two.addr+"/24", "dev", "far")
	two.serve("the array")
	eventually(g, 2*soon, "renumbered", attributed(g, one, two))
	same("renumbered")
	eventually(g, soon, "its storage", func() string {
		for _, c := range g.Controllers() {
			if c.SubsysNQN == nqn(2) && c.TrAddr == two.addr && c.State == nvmesysfs.Live {
				return ""
			}
		}
		return "not connected at its new address"
	})
}

// Whatever becomes of Avahi, nothing is lost, and all is heard again, by Avahi
// or without it.
func avahiComesAndGoes(g *Guest) {
	one := newLink(g, 1)
	one.serve("one")
	g.Configure(Stafd, patient)
	g.Configure(Stacd, patient)
	g.Start(Stafd, Stacd)
	eventually(g, soon, "without Avahi", liveIs(g, nqn(1)))
	unchanged := instancesAre(g, instances(g))
	heard := heardOn(g, one.nic+" one")
	startAvahiDaemon(g)
	for _, step := range []struct {
		name string
		do   []string
	}{
		{"killed", []string{"systemctl", "kill", "--signal=KILL", "avahi-daemon"}},
		{"stopped", []string{"systemctl", "stop", "avahi-daemon.service", "avahi-daemon.socket"}},
		{"started", []string{"systemctl", "start", "avahi-daemon"}},
		{"restarted", []string{"systemctl", "restart", "avahi-daemon"}},
	} {
		run(g, step.do[0], step.do[1:]...)
		throughout(g, 2*time.Second, "Avahi "+step.name, unchanged)
		eventually(g, soon, "Avahi "+step.name, heard)
	}
	eventually(g, soon, "side by side", func() string { g.Helper(); return sameAsAvahi(g) })
	g.Configure(Stafd, patient+"[Service Discovery]\nzeroconf = disabled\n")
	g.Reload(Stafd)
	eventually(g, soon, "switched off", heardOn(g))
	throughout(g, 3*time.Second, "switched off", unchanged)
	g.Configure(Stafd, patient)
	g.Reload(Stafd)
	eventually(g, soon, "switched on", heard)
	throughout(g, time.Second, "switched on", unchanged)
}

// avahiThere runs an avahi-daemon at the other end of a link, on a bus of its
// own, and returns what publishes by it.
func (l *link) avahiThere() (publish func(args ...string)) {
	l.g.Helper()
	dir := l.g.TempDir()
	must(l.g, os.Chmod(dir, 0o755))
	bus := "unix:path=" + dir + "/bus"
	writeFile(l.g, dir+"/bus.conf", `<!DOCTYPE busconfig PUBLIC "-//freedesktop//DTD D-Bus Bus Configuration 1.0//EN"
 "http://www.freedesktop.org/standards/dbus/1.0/busconfig.dtd">
<busconfig><type>session</type><listen>`+bus+`</listen><auth>EXTERNAL</auth>
<policy context="default"><allow own="*"/><allow send_destination="*"/><allow receive_sender="*"/></policy></busconfig>`)
	writeFile(l.g, dir+"/avahi.conf", "[server]\nhost-name=appliance\nuse-ipv6=no\n")
	script := "mount -t tmpfs tmpfs /run/avahi-daemon 2>/dev/null || { mkdir -p /run/avahi-daemon; mount -t tmpfs tmpfs /run/avahi-daemon; }\n" +
		"dbus-daemon --fork --config-file=" + dir + "/bus.conf\n" +
		"DBUS_SYSTEM_BUS_ADDRESS=" + bus + " exec avahi-daemon --no-drop-root --no-chroot --no-rlimits --file=" + dir + "/avahi.conf"
	unit := fmt.Sprint("avahi-", l.n)
	run(l.g, "systemd-run", "--unit="+unit, "--collect", "--quiet", "ip", "netns", "exec", l.space, "unshare", "--mount", "sh", "-ec", script)
	l.g.Cleanup(func() {
		if l.g.Failed() {
			out, _ := exec.Command("journalctl", "--output=cat", "--unit="+unit).CombinedOutput()
			l.g.Logf("%s said:\n%s", unit, out)
		}
		_ = exec.Command("systemctl", "stop", unit).Run()
	})
	return func(args ...string) {
		l.g.Helper()
		unit := fmt.Sprint("publish-", l.n)
		// It waits for the daemon (--no-fail).
		run(l.g, "systemd-run", append([]string{
			"--unit=" + unit, "--collect", "--quiet", "--setenv=DBUS_SYSTEM_BUS_ADDRESS=" + bus, "avahi-publish", "--no-fail",
		}, args...)...)
		l.g.Cleanup(func() { _ = exec.Command("systemctl", "stop", unit).Run() })
	}
}

// A central discovery controller that says where it is before it listens there
// is connected within a second of listening.
func announcedBeforeItListens(g *Guest) {
	one := newLink(g, 1)
	publish := one.avahiThere()
	g.Configure(Stafd, patient)
	g.Configure(Stacd, patient)
	g.Start(Stafd, Stacd)
	publish("--service", "late CDC", "_nvme-disc._tcp", "8009", "P=TCP", "NQN=")
	eventually(g, 2*soon, "announced", heardOn(g, one.nic+" late CDC"))
	g.Sleep(7 * time.Second) // some attempts fail
	if all := g.Controllers(); len(all) != 0 {
		g.Fatalf("something is connected: %v", all)
	}
	if out := run(g, "stafctl", "browse", "-o", "wide"); !strings.Contains(out, "connection refused") || !strings.Contains(out, "NQN=") {
		g.Errorf("stafctl browse shows:\n%s", out)
	}
	one.serve("")
	began := g.Now()
	connected := func() string {
		for _, c := range g.Controllers() {
			if c.Kind == nvmesysfs.Discovery && c.State == nvmesysfs.Live {
				return ""
			}
		}
		return "it is not"
	}
	for connected() != "" && g.Now().Sub(began) < soon {
		g.Sleep(10 * time.Millisecond)
	}
	// A second, and what the emulated processor takes for a connect.
	if complaint := (span{0, 2 * time.Second}).complaint(g.Now().Sub(began)); complaint != "" {
		g.Error("connected after it listens: " + complaint)
	}
	g.Logf("connected %v after it listened", g.Now().Sub(began).Round(10*time.Millisecond))
	eventually(g, soon, "its storage", liveIs(g, nqn(1)))
}

// What is announced and excluded is heard, and left alone.
func announcedButExcluded(g *Guest) {
	one, two := newLink(g, 1), newLink(g, 2)
	one.serve("one")
	two.serve("two")
	g.Configure(Stafd, patient+"[Controllers]\nexclude = host-iface="+one.nic+"\n")
	g.Configure(Stacd, patient)
	g.Start(Stafd, Stacd)
	eventually(g, soon, "what is not excluded", liveIs(g, nqn(2)))
	eventually(g, soon, "heard", heardOn(g, one.nic+" one", two.nic+" two"))
	throughout(g, 2*time.Second, "what is excluded", attributed(g, two))
	if out := run(g, "stafctl", "browse", "-o", "table"); !strings.Contains(out, "excludes host-iface="+one.nic) {
		g.Errorf("stafctl browse does not tell why:\n%s", out)
	}
}
