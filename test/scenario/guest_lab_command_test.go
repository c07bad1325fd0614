//go:build linux

package scenario

import (
	"encoding/json"
	"fmt"
	"os/exec"
	"slices"
	"strings"
	"syscall"

	"github.com/nvme-stas/stas/pkg/nvmesysfs"
)

// labUnit is stas-lab as a service, which ends with the case.
const labUnit = "stas-lab-test"

// serveLab runs "stas-lab serve", and returns when it says that it is ready.
func serveLab(g *Guest, args ...string) {
	g.Helper()
	run(g, "systemd-run", append([]string{
		"--unit=" + labUnit, "--collect", "--quiet", "--property=Type=notify", "stas-lab", "serve",
	}, args...)...)
	g.Cleanup(func() {
		if g.Failed() {
			g.Logf("stas-lab said:\n%s", run(g, "journalctl", "--output=cat", "--unit="+labUnit))
		}
		_ = exec.Command("systemctl", "stop", labUnit).Run() // unless it has ended
	})
}

func labCtl(g *Guest, args ...string) string {
	g.Helper()
	return run(g, "stas-lab", append([]string{"ctl"}, args...)...)
}

// labShow has the lab show something, and reads it.
func labShow[T any](g *Guest, what string) []T {
	g.Helper()
	var all []T
	text := labCtl(g, "show", what, "--output=json")
	if err := json.Unmarshal([]byte(text), &all); err != nil {
		g.Fatalf("show %s: %v\n%s", what, err, text)
	}
	return all
}

// The program, as somebody uses it who has read its help and nothing else.
func labProgram(g *Guest) {
	serveLab(g, "--subsystems=3", "--listen=127.0.0.1:8009", "--listen=[::1]:8009")
	names := func(all ...int) []string {
		var nqns []string
		for _, n := range all {
			nqns = append(nqns, fmt.Sprintf("nqn.2026-01.org.example:lab%d", n))
		}
		return nqns
	}
	for _, p := range []Port{portA, portV6} {
		if got := discover(g, p); !slices.Equal(got, names(1, 2, 3)) {
			g.Errorf("%s offers %v", p.Addr, got)
		}
	}
	run(g, "nvme", append([]string{"connect-all"}, portArgs(portA)...)...)
	eventually(g, soon, "nvme connect-all", liveIs(g, names(1, 2, 3)...))
	type connection struct {
		Subsystem, Listener, Host string
		Queues                    int
		Discovery                 bool
	}
	var storage []string
	for _, c := range labShow[connection](g, "connections") {
		if !c.Discovery {
			storage = append(storage, fmt.Sprint(c.Subsystem, " ", c.Listener, " ", c.Host, " ", c.Queues))
		}
	}
	var want []string
	for _, nqn := range names(1, 2, 3) {
		want = append(want, fmt.Sprint(nqn, " port1 ", readHostNQN(g), " 2"))
	}
	slices.Sort(storage)
	if !slices.Equal(storage, want) {
		g.Errorf("connected are\n%s\nwant\n%s", strings.Join(storage, "\n"), strings.Join(want, "\n"))
	}
	if table := labCtl(g, "show", "subsystems", "--output=table"); strings.Count(table, "nqn.2026-01.org.example:lab") != 3 {
		g.Errorf("show subsystems: %s", table)
	}

	dc := connectDC(g, portA)
	events := watchUevents(g)
	labCtl(g, "subsystem", "add", names(4)[0], "--size=16MiB")
	eventually(g, soon, "a subsystem was added", countIs(func() int { return events.aens(dc) }, 1))
	if got := storageIn(readLog(g, dc)); !slices.Equal(got, names(1, 2, 3, 4)) {
		g.Errorf("the log lists %v", got)
	}
	connectIOC(g, portA, names(4)[0])
	if size := strings.TrimSpace(run(g, "blockdev", "--getsize64", g.BlockDevice(names(4)[0]))); size != "16777216" {
		g.Errorf("what was added has %s bytes", size)
	}
	run(g, "nvme", "disconnect", "--nqn="+names(4)[0])

	labCtl(g, "fault", "add", "invalid-host", "subsystem="+names(4)[0])
	if _, err := tryConnect(g, portA, names(4)[0], ""); errno(err) != syscall.EIO {
		g.Errorf("with a fault on: %v", err)
	}
	if all := labShow[struct{ Done int }](g, "faults"); len(all) != 1 || all[0].Done != 1 {
		g.Errorf("the faults are %v", all)
	}
	labCtl(g, "fault", "remove", "all")
	connectIOC(g, portA, names(4)[0])

	labCtl(g, "restart", "--pause=2s")
	eventually(g, soon, "the lab is away", func() string { return stateIs(g, dc, nvmesysfs.Connecting)() + liveIs(g)() })
	eventually(g, soon, "the lab is back", allLive(g, 5))
	if out, err := exec.Command("stas-lab", "ctl", "subsystem", "remove", "nqn.2026-01.org.example:none").CombinedOutput(); err == nil {
		g.Errorf("what does not exist can be removed: %s", out)
	}
	labCtl(g, "stop")
	eventually(g, soon, "the lab has ended", func() string {
		if exec.Command("systemctl", "--quiet", "is-active", labUnit).Run() == nil {
			return "it runs"
		}
		return liveIs(g)()
	})
}

// What the lab announces, another implementation of mDNS hears.
func labAnnounced(g *Guest) {
	const nic, address = "stas-lab0", "192.0.2.1"
	run(g, "ip", "link", "add", nic, "type", "dummy")
	g.Cleanup(func() { run(g, "ip", "link", "delete", nic) })
	run(g, "ip", "address", "add", address+"/24", "dev", nic)
	run(g, "ip", "link", "set", nic, "up", "multicast", "on")
	run(g, "systemctl", "start", "avahi-daemon")
	g.Cleanup(func() { run(g, "systemctl", "stop", "avahi-daemon.service", "avahi-daemon.socket") })

	serveLab(g, "--type=cdc", "--nqn="+uniqueNQN, "--listen="+address+":8009", "--announce=a lab CDC")
	browse := func(kind string) string {
		g.Helper()
		return run(g, "avahi-browse", "--resolve", "--parsable", "--terminate", kind)
	}
	const kind, central = "_nvme-disc._tcp", "_cdc._sub._nvme-disc._tcp"
	eventually(g, soon, "the lab is heard of", func() string {
		for line := range strings.Lines(browse(kind)) {
			f := strings.Split(strings.TrimSpace(line), ";")
			// =;interface;protocol;name;type;domain;host;address;port;text
			if len(f) == 10 && f[0] == "=" && f[1] == nic && f[3] == `a\032lab\032CDC` && f[4] == kind && f[7] == address && f[8] == "8009" &&
				strings.Contains(f[9], `"p=tcp"`) && strings.Contains(f[9], `"nqn=`+uniqueNQN+`"`) {
				return ""
			}
		}
		return "avahi-browse shows:\n" + browse(kind)
	})
	eventually(g, soon, "the lab is heard of as a CDC", func() string {
		if out := browse(central); !strings.Contains(out, `a\032lab\032CDC`) {
			return "avahi-browse shows:\n" + out
		}
		return ""
	})
	if got := discover(g, Port{Addr: address, Svc: 8009}); len(got) != 1 {
		g.Errorf("where it is announced it offers %v", got)
	}
	labCtl(g, "stop")
	eventually(g, soon, "the announcement is withdrawn", func() string {
		// An answer to this machine's own question came by the loopback
		// interface, on which nobody says that it is over.
		if out := browse(kind); strings.Contains(out, ";"+nic+";") {
			return "avahi-browse shows:\n" + out
		}
		return ""
	})
}
