//go:build linux

package scenario

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/nvme-stas/stas/pkg/nvme"
	"github.com/nvme-stas/stas/pkg/nvmesysfs"
	"github.com/nvme-stas/stas/pkg/target"
)

// errno is the number in an error of the system, 0 if there is none.
func errno(err error) syscall.Errno {
	number, _ := errors.AsType[syscall.Errno](err)
	return number
}

// adminTimeout is how long the kernel waits for the answer to an admin
// command in these cases, so that nobody waits for the usual 60 s.
const adminTimeout = 4 * time.Second

// shortAdminTimeout has controllers that are connected from now on wait less.
func shortAdminTimeout(g *Guest) {
	g.Helper()
	setKernel(g, "/sys/module/nvme_core/parameters/admin_timeout", fmt.Sprint(int(adminTimeout/time.Second)), "60")
}

// How long connects take that fail: nothing is waited for; the second SYN is
// not answered, after 3 s; ICResp does not come within 10 s; an admin command
// is not answered.
var (
	atOnce      = span{0, 3 * time.Second}
	aSYN        = span{2 * time.Second, 15 * time.Second}
	anICResp    = span{9 * time.Second, 25 * time.Second}
	anAdminWait = span{adminTimeout - time.Second, adminTimeout + 15*time.Second}
)

// labConnectFaults is the first half of the table of what a Linux host makes
// of a target's faults: the error number of a connect, and when it comes.
func labConnectFaults(g *Guest) {
	shortAdminTimeout(g)
	lab := openLab(g, target.Config{
		Listeners: []target.Listener{
			labListener(portA, target.Discovery{NQN: uniqueNQN}),
			labListener(portB, target.Discovery{Type: target.NoDiscovery}),
		},
		Subsystems: labSubsystems(1),
	})
	const asUnique = ",discovery"
	// Of the kernels of the guests, 6.1 looks less closely at what it gets: the
	// end of a connection is an ICResp of zeroes, and IOCCSZ is taken as it is.
	since := func(then, before syscall.Errno) syscall.Errno {
		if kernelSince(g, 6, 12) {
			return then
		}
		return before
	}
	status := func(s nvme.Status) target.Fault {
		return target.Fault{Do: "status", Command: "connect", Status: s}
	}
	for _, c := range []struct {
		fault  target.Fault
		nqn    string // the subsystem if empty
		more   string
		second bool // there is a path already
		want   syscall.Errno
		or     syscall.Errno // if it can go either way
		took   span
		says   string // in the kernel's log, where the number means many things
	}{
		{fault: target.Fault{Do: "refuse"}, want: syscall.ECONNREFUSED, took: atOnce},
		{fault: target.Fault{Do: "close"}, want: syscall.ECONNRESET, or: since(syscall.ECONNRESET, syscall.EINVAL), took: atOnce},
		{fault: target.Fault{Do: "reset"}, want: syscall.ECONNRESET, took: atOnce},
		{fault: target.Fault{Do: "close-at-icreq"}, want: since(syscall.ECONNRESET, syscall.EINVAL), took: atOnce},
		{fault: target.Fault{Do: "maxh2cdata"}, want: syscall.EINVAL, took: atOnce, says: "maxh2cdata"},
		{fault: target.Fault{Do: "pfv"}, want: syscall.EINVAL, took: atOnce, says: "pfv"},
		{fault: target.Fault{Do: "cpda"}, want: syscall.EINVAL, took: atOnce, says: "cpda"},
		{fault: target.Fault{Do: "digest-mismatch"}, want: syscall.EINVAL, took: atOnce, says: "digest"},
		{fault: target.Fault{Do: "unknown-subsystem"}, want: syscall.EIO, took: atOnce, says: "subsysnqn"},
		{fault: target.Fault{Do: "invalid-host"}, want: syscall.EIO, took: atOnce, says: "is not allowed"},
		{fault: target.Fault{Do: "busy"}, want: syscall.EIO, took: atOnce, says: "busy"},
		{fault: status(nvme.StatusConnectIncompatibleFormat.WithDNR()), want: syscall.EIO, took: atOnce, says: "Connect"},
		{fault: status(nvme.StatusConnectRestartDiscovery.WithDNR()), want: syscall.EIO, took: atOnce, says: "Connect"},
		{fault: target.Fault{Do: "busy", Queue: "io"}, want: syscall.EIO, took: atOnce},
		{fault: target.Fault{Do: "kas-zero"}, want: syscall.EINVAL, took: atOnce, says: "keep-alive"},
		{fault: target.Fault{Do: "ioccsz-small"}, want: since(syscall.EINVAL, 0), took: atOnce, says: "capsule"},
		{fault: target.Fault{Do: "cntlid-mismatch"}, want: syscall.EINVAL, took: atOnce, says: "Mismatching cntlid"},
		{fault: target.Fault{Do: "cntrltype-io"}, nqn: uniqueNQN, more: asUnique, want: syscall.EINVAL, took: atOnce, says: "not a discovery"},
		{fault: target.Fault{Do: "cntlid-reused"}, second: true, want: syscall.EINVAL, took: atOnce, says: "Duplicate cntlid"},
		{fault: target.Fault{Do: "cmic-zero"}, second: true, want: syscall.EINVAL, took: atOnce, says: "multiple controllers"},
		{fault: target.Fault{}, second: true, took: atOnce},
		{fault: target.Fault{Do: "black-hole"}, want: syscall.ETIMEDOUT, took: aSYN},
		{fault: target.Fault{Do: "mute-after-icresp"}, want: syscall.EIO, took: anAdminWait},
		{fault: target.Fault{Do: "close-after-icresp"}, want: syscall.EIO, took: anAdminWait},
		{fault: target.Fault{Do: "swallow", Command: "identify"}, want: syscall.EIO, took: anAdminWait},
		{fault: target.Fault{Do: "mute"}, want: syscall.EAGAIN, took: anICResp},
	} {
		name := strings.TrimSpace(fmt.Sprint(c.fault.Do, " ", c.fault.Command))
		if c.fault.Status != 0 {
			name += " " + c.fault.Status.Name()
		}
		if name == "" {
			name = "none"
		}
		if c.second {
			connectIOC(g, portB, nqn(0))
			c.fault.Value = uint64(lab.Connections()[0].CntlID) // of cntlid-reused
			name += ", second path"
		}
		subsystem := c.nqn
		if subsystem == "" {
			subsystem = nqn(0)
		}
		end := func() {}
		if c.fault.Do != "" {
			c.fault.Listener = labName(portA)
			end = addFault(g, lab, c.fault)
		}
		said := kernelLog(g)
		began := time.Now()
		_, err := tryConnect(g, portA, subsystem, c.more)
		took := time.Since(began)
		number := errno(err)
		if complaint := c.took.complaint(took); number != c.want && (c.or == 0 || number != c.or) || complaint != "" || err != nil && !strings.Contains(said(), c.says) {
			g.Errorf("%s: %v, want errno %d and in the log %q; %s; the kernel says:\n%s", name, err, c.want, c.says, complaint, said())
		} else {
			g.Logf("%s: %v after %v", name, err, took.Round(10*time.Millisecond))
		}
		end()
		g.deleteControllers()
	}
	// Nothing of all that lasts.
	connectIOC(g, portA, nqn(0))
	connect(g, portA, uniqueNQN, asUnique)
	eventually(g, soon, "without faults", allLive(g, 2))
}

// obeysDNR says whether the kernel looks at Do Not Retry when it decides about
// a reconnect.
func obeysDNR(g *Guest) bool {
	g.Helper()
	return kernelSince(g, 6, 9)
}

// labReconnectFaults is what becomes of controllers whose target comes back
// and says no: with Do Not Retry they are removed, without it not, and a
// target that says yes later gets them back.
func labReconnectFaults(g *Guest) {
	lab := openLab(g, target.Config{
		Listeners:  []target.Listener{labListener(portA, target.Discovery{})},
		Subsystems: labSubsystems(1),
	})
	events := watchUevents(g)
	for _, c := range []struct {
		do  string
		dnr bool
	}{
		{"unknown-subsystem", true},
		{"invalid-host", true},
		{"busy", false},
	} {
		gone := c.dnr && obeysDNR(g)
		ioc, dc := connectIOC(g, portA, nqn(0)), connectDC(g, portA)
		g.BlockDevice(nqn(0))
		connected := func(name, event string) func() int {
			return func() int { return events.count(of(name), "NVME_EVENT="+event) }
		}
		settle(g, func() int { return events.count() })
		before := [...]int{connected(ioc, "connected")(), connected(dc, "connected")(), connected(dc, "rediscover")()}
		removed := func() int {
			return events.count("ACTION=remove", of(ioc)) + events.count("ACTION=remove", of(dc))
		}
		already := removed()
		end := addFault(g, lab, target.Fault{Do: c.do})
		must(g, lab.Restart("", 200*time.Millisecond))
		refused := func() string {
			if _, n := struck(g, lab); n < 2 {
				return fmt.Sprintf("%d connects were refused, want 2", n)
			}
			return ""
		}
		eventually(g, soon, c.do+": the kernel tries again", refused)
		if gone {
			eventually(g, soon, c.do+": the controllers go", func() string { return g.describeControllers() })
			if _, n := struck(g, lab); n != 2 {
				g.Errorf("%s: %d connects were refused, want one of each controller", c.do, n)
			}
			eventually(g, soon, c.do+": they are removed", countIs(removed, already+2))
			end()
			continue
		}
		throughout(g, 3*time.Second, c.do+": the controllers stay", func() string {
			if n := len(g.Controllers()); n != 2 || len(live(g)) != 0 {
				return fmt.Sprintf("there are %d:\n%s", n, g.describeControllers())
			}
			return ""
		})
		if _, n := struck(g, lab); n < 4 {
			g.Errorf("%s: %d connects were refused, and the kernel tries no more", c.do, n)
		}
		end()
		eventually(g, soon, c.do+": they are live again", allLive(g, 2))
		want := [...]int{before[0] + 1, before[1] + 1, before[2] + 1}
		eventually(g, soon, c.do+": events", func() string {
			if got := [...]int{connected(ioc, "connected")(), connected(dc, "connected")(), connected(dc, "rediscover")()}; got != want {
				return fmt.Sprintf("connected, connected and rediscover were seen %v times, want %v", got, want)
			}
			return ""
		})
		g.deleteControllers()
	}
}

// labLiveFaults are faults that strike what is connected, or what user space
// asks it.
func labLiveFaults(g *Guest) {
	lab := openLab(g, target.Config{
		Listeners:  []target.Listener{labListener(portA, target.Discovery{})},
		Subsystems: labSubsystems(1),
	})
	events := watchUevents(g)

	// No event is asked for that is not offered.
	end := addFault(g, lab, target.Fault{Do: "oaes-zero"})
	dc := connectDC(g, portA)
	if c := lab.Connections(); len(c) != 1 || c[0].AERs != 0 {
		g.Errorf("OAES is 0: the target sees %+v", c)
	}
	end()
	must(g, lab.AddSubsystem(target.Subsystem{NQN: nqn(1)}))
	throughout(g, time.Second, "OAES is 0: events", countIs(func() int { return events.aens(dc) }, 0))
	g.deleteControllers()

	// The generation moves while the log is read: once more, but not for ever.
	end = addFault(g, lab, target.Fault{Do: "genctr-moves", Times: 3})
	if got := discover(g, portA); len(got) != 2 {
		g.Errorf("the generation moved three times: the log lists %v", got)
	}
	if met, did := struck(g, lab); did != 3 || met < 5 {
		g.Errorf("the generation moved three times: the log was read by %d commands, %d of them the header before it was still", met, did)
	}
	end()
	end = addFault(g, lab, target.Fault{Do: "genctr-moves"})
	out, err := exec.Command("nvme", append([]string{"discover"}, portArgs(portA)...)...).CombinedOutput()
	if err == nil && strings.Contains(string(out), nqn(0)) {
		g.Errorf("the generation moves all the time: nvme discover is content: %s", out)
	}
	g.Logf("the generation moves all the time: %v: %s", err, out)
	end()

	// What breaks a connection, or a command, in the middle of work: nobody who
	// reads notices.
	for _, c := range []struct {
		fault      target.Fault
		reconnects int
		says       string
	}{
		{target.Fault{Do: "drop"}, 1, "error recovery"},
		{target.Fault{Do: "drop-reset"}, 1, "error recovery"},
		{target.Fault{Do: "bad-length"}, 1, "header digest error"},
		{target.Fault{Do: "short-data", Command: "read"}, 1, "short data-in"},
		{target.Fault{Do: "wrong-cid", Command: "read"}, 1, "bad c2hdata.command_id 0xdead"},
		// The kernel repeats the command.
		{target.Fault{Do: "flip", Command: "read", Offset: 60}, 0, "data digest error"},
	} {
		ioc := connect(g, portA, nqn(0), ",hdr_digest,data_digest")
		device := g.BlockDevice(nqn(0))
		run(g, "udevadm", "settle") // nobody else reads any more
		c.fault.Queue, c.fault.Times = "io", 1
		connected := func() int { return events.count(of(ioc), "NVME_EVENT=connected") }
		eventually(g, soon, "the event of the connect", func() string {
			if connected() == 0 {
				return "there is none"
			}
			return ""
		})
		before := connected()
		end := addFault(g, lab, c.fault)
		said := kernelLog(g)
		file := filepath.Join(g.TempDir(), "read")
		run(g, "dd", "if="+device, "of="+file, "bs=64k", "count=4", "iflag=direct", "status=none")
		if data, err := os.ReadFile(file); err != nil || len(data) != 256<<10 || len(bytes.TrimLeft(data, "\x00")) != 0 {
			g.Errorf("%s: %d bytes are read that are not all zero, error %v", c.fault.Do, len(data), err)
		}
		if _, did := struck(g, lab); did != 1 || !strings.Contains(said(), c.says) {
			g.Errorf("%s has struck %d times, and the kernel does not say %q:\n%s", c.fault.Do, did, c.says, said())
		}
		end()
		eventually(g, soon, c.fault.Do, stateIs(g, ioc, nvmesysfs.Live))
		settle(g, connected)
		if got := connected() - before; got != c.reconnects {
			g.Errorf("%s: %d reconnects, want %d", c.fault.Do, got, c.reconnects)
		}
		g.deleteControllers()
		settle(g, func() int { return events.count() })
	}

	// A reset is noticed at once. Nothing is said of it before all is well. A
	// discovery controller without keep alive has one after that.
	ioc := connectIOC(g, portA, nqn(0))
	dc = connect(g, portA, nvme.WellKnownDiscoveryNQN, "")
	if complaint := attrIs(g, dc, "kato", "0")(); complaint != "" {
		g.Error(complaint)
	}
	g.BlockDevice(nqn(0))
	all := func() int { return events.count() }
	settle(g, all)
	before := all()
	must(g, lab.Restart("", 4*time.Second))
	eventually(g, 2*time.Second, "connections are reset", func() string {
		return stateIs(g, ioc, nvmesysfs.Connecting)() + stateIs(g, dc, nvmesysfs.Connecting)()
	})
	throughout(g, time.Second, "events of connections that are lost", countIs(all, before))
	counts := func() (n [3]int) {
		for i, c := range [][2]string{{ioc, "connected"}, {dc, "rediscover"}, {dc, "connected"}} {
			n[i] = events.count(of(c[0]), "NVME_EVENT="+c[1])
		}
		return n
	}
	had := counts()
	eventually(g, soon, "the target is back", allLive(g, 2))
	eventually(g, soon, "events of the target that is back", func() string {
		if got := counts(); got != [3]int{had[0] + 1, had[1] + 1, had[2] + 1} {
			return fmt.Sprintf("connected, rediscover and connected were seen %v times, before %v", got, had)
		}
		return ""
	})
	if complaint := attrIs(g, dc, "kato", "5")(); complaint != "" {
		g.Errorf("after a reconnect: %s", complaint)
	}
	g.deleteControllers()

	// Nothing tells of a silent death but keep alive.
	ioc = connect(g, portA, nqn(0), ",keep_alive_tmo=2")
	g.BlockDevice(nqn(0))
	run(g, "udevadm", "settle")
	end = addFault(g, lab, target.Fault{Do: "silent-death", Times: 1})
	eventually(g, soon, "the target dies", strikes(g, lab))
	if complaint := stateIs(g, ioc, nvmesysfs.Live)(); complaint != "" {
		g.Errorf("just after a silent death: %s", complaint)
	}
	began := time.Now()
	eventually(g, soon, "keep alive tells", func() string {
		if attr(g, ioc, "state") == string(nvmesysfs.Live) {
			return "it does not"
		}
		return ""
	})
	g.Logf("a silent death was noticed after %v", time.Since(began).Round(10*time.Millisecond))
	end()
	eventually(g, soon, "after a silent death", stateIs(g, ioc, nvmesysfs.Live))
}

// labSlowFaults are those for which the host waits as long as for an admin
// command.
func labSlowFaults(g *Guest) {
	shortAdminTimeout(g)
	lab := openLab(g, target.Config{
		Listeners:  []target.Listener{labListener(portA, target.Discovery{})},
		Subsystems: labSubsystems(1),
	})
	ioc := connectIOC(g, portA, nqn(0))
	end := addFault(g, lab, target.Fault{Do: "shutdown-mute"})
	began := time.Now()
	writeFile(g, "/sys/class/nvme/"+ioc+"/delete_controller", "1")
	if complaint := anAdminWait.complaint(time.Since(began)); complaint != "" {
		g.Errorf("a shutdown is not answered: %s", complaint)
	}
	end()
	if left := g.describeControllers(); left != "" {
		g.Errorf("a shutdown is not answered: left are\n%s", left)
	}

	dc := connectDC(g, portA)
	end = addFault(g, lab, target.Fault{Do: "log-mute", Times: 1})
	out, err := exec.Command("nvme", "discover", "--device="+dc).CombinedOutput()
	g.Logf("a log is mute in the middle: %v: %s", err, out)
	end()
	eventually(g, 30*time.Second, "after a log that was mute in the middle", stateIs(g, dc, nvmesysfs.Live))
	if got := storageIn(readLog(g, dc)); len(got) != 1 {
		g.Errorf("the log lists %v", got)
	}
}
