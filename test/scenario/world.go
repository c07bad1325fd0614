// Package scenario holds what STAS must do, as a table of cases that runs on
// two backends: a fake kernel inside the test process, with virtual time, and
// a real Linux kernel with systemd, D-Bus and nvmet in the guest of test/vm.
package scenario

import (
	"testing"
	"time"

	"github.com/nvme-stas/stas/internal/stasbus"
	"github.com/nvme-stas/stas/pkg/nbft"
	"github.com/nvme-stas/stas/pkg/nvmesysfs"
)

// Daemon names one of the two daemons.
type Daemon string

// The daemons.
const (
	Stafd Daemon = "stafd"
	Stacd Daemon = "stacd"
)

// Port is a place where the target listens. A port answers discovery too.
type Port struct {
	ID   int    // nvmet port number, and PORTID of its log page entries
	Addr string // IPv4 or IPv6 address, local to the host
	Svc  int    // TCP port
}

// World is one host with STAS installed and one target beside it. A case gets
// it clean: no controllers, no target, no daemons, no state files. All methods
// fail the test when they cannot do what they are asked.
type World interface {
	testing.TB

	// OpenPort makes the target listen; reopening a closed port brings back
	// what it offered.
	OpenPort(Port)
	// ClosePort stops the listener and breaks established connections, as if
	// the target had died. What the port offers does not change: no AEN.
	ClosePort(Port)
	// BlackHole has a port that was never opened swallow whatever is sent to it.
	BlackHole(Port)
	// AddSubsystem creates a subsystem with one namespace, visible to any host,
	// and offers it through the ports; an existing one is only offered. The
	// discovery controllers of those ports send an AEN.
	AddSubsystem(nqn string, ports ...Port)
	// RemoveSubsystem withdraws the subsystem from the ports; AEN as above.
	RemoveSubsystem(nqn string, ports ...Port)

	// Refer makes the discovery controllers of a port refer to those of others,
	// and to no more; AEN as above.
	Refer(from Port, to ...Port)

	// Configure writes the daemon's configuration file.
	Configure(d Daemon, text string)
	// Unconfigure removes the daemon's configuration file.
	Unconfigure(d Daemon)
	// DropIn writes a file in the daemon's configuration directory; an empty
	// text removes it.
	DropIn(d Daemon, name, text string)
	// Exclude writes the host's NVMe exclusion list.
	Exclude(text string)
	// HostName gives a host name its addresses; without any it is not known.
	HostName(name string, addrs ...string)
	// BootTable puts a boot table into the firmware of the host. A world whose
	// firmware has another one, or none, skips the case.
	BootTable(*nbft.Table)
	// Start starts daemons and returns when they report readiness.
	Start(...Daemon)
	// Stop stops daemons in an orderly way and returns when they have ended.
	Stop(...Daemon)
	// Reload makes the daemons read their configuration again.
	Reload(...Daemon)
	// Plan asks a daemon what a reload with another configuration would do, or
	// if the text is empty, with the present one.
	Plan(d Daemon, text string) stasbus.Plan
	// Kill ends a daemon as SIGKILL does; its supervisor starts it again.
	Kill(Daemon)

	// Hang stops a daemon as SIGSTOP does, until Wake.
	Hang(Daemon)
	Wake(Daemon)
	// RestartBus ends the message bus, by force, and starts it again.
	RestartBus()
	// Restarts is how often a daemon was started again by its supervisor since it
	// was started on request.
	Restarts(Daemon) int
	// Answer asks a daemon how it is, and tells how long that took.
	Answer(Daemon) (time.Duration, error)
	// Report is what a daemon tells of itself and its controllers.
	Report(Daemon) stasbus.Report

	// ForgetState removes the state files of daemons, which do not run; of all
	// if none is named.
	ForgetState(...Daemon)
	// State is the text of a daemon's state file, and SetState replaces it.
	State(Daemon) string
	SetState(d Daemon, text string)
	// Fresh brings the host, but not the target, into the state in which a case
	// begins.
	Fresh()

	// Controllers lists what sysfs shows, NVMe-oF controllers only.
	Controllers() []nvmesysfs.Controller
	// Serial tells a controller from a later one of the same name.
	Serial(controller string) uint64
	// Disconnect removes a controller as an operator does, by nvme-cli.
	Disconnect(controller string)
	// Attribute reads an attribute of a controller from sysfs.
	Attribute(controller, attribute string) string

	// Now and Sleep are the world's clock; virtual on the fake kernel.
	Now() time.Time
	Sleep(time.Duration)
}
