// Package nvmesysfs reads the NVMe controllers that the kernel shows under
// /sys/class/nvme, and deletes them there. It knows the kernel's attributes
// and their traps, and nothing of who wants a controller or why.
package nvmesysfs

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/nvme-stas/stas/pkg/nvme"
)

// classDir is the directory of all NVMe controllers, below the root of sysfs.
const classDir = "class/nvme"

// maxAttr bounds one attribute: sysfs never shows more than a page.
const maxAttr = 4096

// State is the text of a controller's "state" attribute
// (drivers/nvme/host/sysfs.c, nvme_sysfs_show_state).
type State string

// The states of a controller.
const (
	New          State = "new"
	Live         State = "live"
	Resetting    State = "resetting"
	Connecting   State = "connecting"
	Deleting     State = "deleting"
	DeletingNoIO State = "deleting (no IO)"
	Dead         State = "dead"
)

// Leaving reports whether the kernel is taking the controller away: no state
// leads back from here, and the kernel's own duplicate check ignores it.
func (s State) Leaving() bool {
	return s == Deleting || s == DeletingNoIO || s == Dead
}

// Kind tells I/O controllers from discovery controllers.
type Kind uint8

// The kinds of controller. An Unknown one has not been identified yet (its
// connect still runs) or lives on a kernel that does not say.
const (
	Unknown Kind = iota
	IO
	Discovery
	Admin
)

func (k Kind) String() string {
	return [...]string{"unknown", "io", "discovery", "admin"}[k]
}

// Controller is one NVMe controller as sysfs showed it at one moment. Fields
// that the kernel does not report (yet) are empty.
type Controller struct {
	Name      string // "nvme3"
	Transport string // "tcp", "rdma", "fc", "loop", "pcie"

	// From the attribute "address", in the spelling of whoever connected it.
	TrAddr     string
	TrSvcID    string
	HostTrAddr string
	HostIface  string
	// SrcAddr is the local address of the admin queue's socket (tcp, Linux
	// 6.1 and later); it is there only while the queue is live.
	SrcAddr string

	SubsysNQN string // empty until Identify is done
	HostNQN   string
	HostID    string
	CntlID    string
	State     State
	Kind      Kind
	CntrlType string // as reported: "io", "discovery", "admin", "reserved", ""
	DCType    string // as reported: "none", "ddc", "cdc", "reserved", ""
	Model     string
	Serial    string
}

// FS is a mounted sysfs.
type FS struct {
	root string
	// Write is what a controller is deleted with, since that may take long:
	// write(2) if nil.
	Write func(fd int, b []byte) (int, error)
}

// NewFS returns the sysfs mounted at dir, normally "/sys".
func NewFS(dir string) (*FS, error) {
	if _, err := os.Stat(dir); err != nil {
		return nil, fmt.Errorf("looking for sysfs: %w", err)
	}
	return &FS{root: dir}, nil
}

// Names lists the controllers by name, in no particular order. A host without
// any NVMe module loaded has none, which is not an error.
func (f *FS) Names() ([]string, error) {
	dir, err := os.Open(path.Join(f.root, classDir))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("listing NVMe controllers: %w", err)
	}
	defer dir.Close()
	names, err := dir.Readdirnames(-1)
	if err != nil {
		return nil, fmt.Errorf("listing NVMe controllers: %w", err)
	}
	return slices.DeleteFunc(names, func(n string) bool { return !isController(n) }), nil
}

// isController accepts "nvme" followed by digits: nothing else belongs into
// the class directory, and no other name may become part of a path.
func isController(name string) bool {
	n, ok := strings.CutPrefix(name, "nvme")
	if !ok || n == "" {
		return false
	}
	_, err := strconv.ParseUint(n, 10, 31)
	return err == nil
}

// Read reads one controller. A controller that is not there, or that went
// away while it was being read, gives an error that is [fs.ErrNotExist].
func (f *FS) Read(name string) (Controller, error) {
	c := Controller{Name: name}
	dir, err := f.openController(name)
	if err != nil {
		return c, err
	}
	defer dir.close()
	var address, state string
	for _, a := range []struct {
		name  string
		value *string
	}{
		// What becomes known by Identify comes after the state: if that was
		// "live", Identify is over.
		{"state", &state},
		{"address", &address},
		{"transport", &c.Transport},
		{"subsysnqn", &c.SubsysNQN},
		{"hostnqn", &c.HostNQN},
		{"hostid", &c.HostID},
		{"cntlid", &c.CntlID},
		{"cntrltype", &c.CntrlType},
		{"dctype", &c.DCType},
		{"model", &c.Model},
		{"serial", &c.Serial},
	} {
		*a.value, err = dir.attr(a.name)
		if err != nil && !errors.Is(err, ErrNoAttr) {
			return Controller{Name: name}, err
		}
	}
	for _, nqn := range []*string{&c.SubsysNQN, &c.HostNQN} {
		if isNone(*nqn) {
			*nqn = ""
		}
	}
	if state == "" {
		// Every kernel has "state": without it the controller has just gone.
		return Controller{Name: name}, fmt.Errorf("%s: %w", name, fs.ErrNotExist)
	}
	c.State = State(state)
	c.parseAddress(address)
	c.Kind = c.kind()
	if c.CntrlType == "" && c.Kind == IO {
		if c.Kind, err = dir.kindByQueues(c.State); err != nil {
			return Controller{Name: name}, err
		}
	}
	return c, nil
}

// kindByQueues tells the kind on kernels that do not name it (before 5.18): a
// discovery controller with a name of its own has the admin queue and no other.
// So has, for a moment, an I/O controller that is being connected.
func (d controllerDir) kindByQueues(state State) (Kind, error) {
	queues, err := d.attr("queue_count")
	switch {
	case errors.Is(err, ErrNoAttr), err == nil && queues != "1":
		return IO, nil // the usual case, by far
	case err == nil && state == Live:
		return Discovery, nil
	}
	return Unknown, err
}

// Kind tells the kind of a controller if the kernel says it plainly, and
// Unknown otherwise; [FS.Read] may know better. It costs a fraction of Read.
func (f *FS) Kind(name string) (Kind, error) {
	cntrltype, err := f.Attr(name, "cntrltype")
	if errors.Is(err, ErrNoAttr) {
		return Unknown, nil
	}
	return kindOf(cntrltype), err
}

// State reads the state of a controller, at a fraction of the cost of Read. A
// controller that is not there gives an error that is [fs.ErrNotExist].
func (f *FS) State(name string) (State, error) {
	state, err := f.Attr(name, "state")
	if errors.Is(err, ErrNoAttr) {
		err = fmt.Errorf("%s: %w", name, fs.ErrNotExist) // see Read
	}
	return State(state), err
}

// controllerDir is the open directory of one controller. What is read there is
// of one and the same controller, even if its name is given to another one
// meanwhile. It is a bare descriptor: attributes are read often, and Go's files
// would ask the poller each time about what it cannot poll.
type controllerDir struct {
	fd   int
	name string
}

func (f *FS) openController(name string) (controllerDir, error) {
	if !isController(name) {
		return controllerDir{}, fmt.Errorf("%q is not the name of an NVMe controller", name)
	}
	fd, err := ignoringEINTR(func() (int, error) {
		return unix.Open(path.Join(f.root, classDir, name), unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	})
	if absent(err) {
		return controllerDir{}, fmt.Errorf("%s: %w", name, fs.ErrNotExist)
	}
	if err != nil {
		return controllerDir{}, fmt.Errorf("opening %s: %w", name, err)
	}
	return controllerDir{fd, name}, nil
}

func (d controllerDir) close() { _ = unix.Close(d.fd) }

func (d controllerDir) open(attribute string, flags int) (int, error) {
	return ignoringEINTR(func() (int, error) {
		return unix.Openat(d.fd, attribute, flags|unix.O_CLOEXEC, 0)
	})
}

func ignoringEINTR(call func() (int, error)) (int, error) {
	for {
		n, err := call()
		if !errors.Is(err, unix.EINTR) {
			return n, err
		}
	}
}

// absent recognizes what the kernel says of things that are gone or going.
func absent(err error) bool {
	return errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ENODEV)
}

// ErrNoAttr is an attribute that cannot be had although its controller is
// there: the kernel is too old, or has nothing to tell yet.
var ErrNoAttr = errors.New("attribute not available")

// Attr reads one attribute of a controller, blanks trimmed. What the kernel
// cannot tell yet ("(efault)", see nvme.h nvmf_ctrl_subsysnqn) reads as empty.
// The error is [ErrNoAttr] if only the attribute is missing, and
// [fs.ErrNotExist] if the controller is.
func (f *FS) Attr(controller, attribute string) (string, error) {
	dir, err := f.openController(controller)
	if err != nil {
		return "", err
	}
	defer dir.close()
	return dir.attr(attribute)
}

func (d controllerDir) attr(attribute string) (string, error) {
	fd, err := d.open(attribute, unix.O_RDONLY)
	if err != nil {
		if absent(err) {
			// Either this one attribute is missing, or all of them.
			if unix.Faccessat(d.fd, "state", unix.F_OK, 0) != nil {
				return "", fmt.Errorf("%s: %w", d.name, fs.ErrNotExist)
			}
			return "", ErrNoAttr
		}
		return "", fmt.Errorf("reading %s of %s: %w", attribute, d.name, err)
	}
	defer unix.Close(fd)
	// The kernel gives the whole attribute to the first read.
	var buf [maxAttr]byte
	n, err := ignoringEINTR(func() (int, error) { return unix.Read(fd, buf[:]) })
	if err != nil {
		// A controller that is being torn down answers its readers with
		// whatever it has: the file is there, its owner is not.
		if absent(err) {
			return "", fmt.Errorf("%s: %w", d.name, fs.ErrNotExist)
		}
		return "", ErrNoAttr
	}
	v := string(bytes.TrimSpace(buf[:n]))
	if v == "(efault)" {
		return "", nil
	}
	return v, nil
}

// Namespace is one namespace as it is reached through one controller.
type Namespace struct {
	Name string // of the block device, "nvme0n1"
	Size uint64 // in bytes
	// ANA is the state of this path: "optimized", "non-optimized",
	// "inaccessible", "persistent-loss", "change"; empty if the subsystem does
	// not report it.
	ANA string
}

// sectorSize is the unit of the attribute "size" of all block devices.
const sectorSize = 512

// Namespaces lists what is reached through a controller, by number. A
// controller that is not there has none. A namespace that goes while it is
// being read is left out.
func (f *FS) Namespaces(controller string) ([]Namespace, error) {
	if !isController(controller) {
		return nil, fmt.Errorf("%q is not the name of an NVMe controller", controller)
	}
	entries, err := os.ReadDir(path.Join(f.root, classDir, controller))
	if absent(err) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("listing the namespaces of %s: %w", controller, err)
	}
	var all []Namespace
	for _, e := range entries {
		disk, ok := diskOf(e.Name())
		if !ok {
			continue
		}
		n := Namespace{Name: disk}
		size, err := f.Attr(controller, e.Name()+"/size")
		if err != nil {
			continue
		}
		sectors, _ := strconv.ParseUint(size, 10, 64-9)
		n.Size = sectors * sectorSize
		if ana, err := f.Attr(controller, e.Name()+"/ana_state"); err == nil {
			n.ANA = ana
		}
		all = append(all, n)
	}
	slices.SortFunc(all, func(a, b Namespace) int {
		return cmp.Or(cmp.Compare(len(a.Name), len(b.Name)), strings.Compare(a.Name, b.Name))
	})
	return all, nil
}

// diskOf is the block device of a directory below a controller: "nvme0n1" is
// its own, "nvme0c3n1" is the path through controller 3 to "nvme0n1"
// (drivers/nvme/host/multipath.c, nvme_mpath_set_disk_name).
func diskOf(name string) (string, bool) {
	numbers, ok := strings.CutPrefix(name, "nvme")
	if !ok {
		return "", false
	}
	front, ns, ok := strings.Cut(numbers, "n")
	subsystem, path, isPath := strings.Cut(front, "c")
	if !ok || !isNumber(ns) || !isNumber(subsystem) || isPath && !isNumber(path) {
		return "", false
	}
	return "nvme" + subsystem + "n" + ns, true
}

func isNumber(s string) bool {
	_, err := strconv.ParseUint(s, 10, 32)
	return err == nil
}

// Delete makes the kernel take a controller away, and returns when it is gone
// or somebody else has begun to do so; one that is not there is fine. A target
// that does not answer holds this up for a minute. A controller whose first
// connect still runs is busy: EBUSY.
func (f *FS) Delete(name string) error {
	dir, err := f.openController(name)
	if err != nil {
		return goneIsFine(err)
	}
	defer dir.close()
	// The attribute can be written and nothing else; opening it for reading
	// too is refused even to root.
	fd, err := dir.open("delete_controller", unix.O_WRONLY)
	if absent(err) {
		// The attribute goes first when a controller is deleted. PCIe
		// controllers never had it.
		if state, err := dir.attr("state"); err != nil || State(state).Leaving() {
			return goneIsFine(err)
		}
		return fmt.Errorf("%s cannot be deleted: %w", name, ErrNoAttr)
	}
	if err != nil {
		return fmt.Errorf("deleting %s: %w", name, err)
	}
	defer unix.Close(fd)
	write := f.Write
	if write == nil {
		write = unix.Write
	}
	if _, err := ignoringEINTR(func() (int, error) { return write(fd, []byte("1")) }); err != nil {
		return goneIsFine(fmt.Errorf("deleting %s: %w", name, err))
	}
	return nil
}

// goneIsFine forgives that a controller is not there.
func goneIsFine(err error) error {
	if absent(err) {
		return nil
	}
	return err
}

// parseAddress takes the attribute "address" apart:
// traddr=A,trsvcid=P[,host_traddr=H][,host_iface=I][,src_addr=S]
// (drivers/nvme/host/fabrics.c nvmf_get_address, tcp.c nvme_tcp_get_address).
// A PCIe controller shows a bus address without any "=", which is ignored.
func (c *Controller) parseAddress(address string) {
	for field := range strings.SplitSeq(address, ",") {
		key, value, ok := strings.Cut(strings.TrimSpace(field), "=")
		if !ok || isNone(value) {
			continue
		}
		switch key {
		case "traddr":
			c.TrAddr = value
		case "trsvcid":
			c.TrSvcID = value
		case "host_traddr":
			c.HostTrAddr = value
		case "host_iface":
			c.HostIface = value
		case "src_addr":
			c.SrcAddr = value
		}
	}
}

// isNone recognizes how kernels and tools write that there is nothing.
func isNone(value string) bool { return strings.EqualFold(value, "none") }

func kindOf(cntrltype string) Kind {
	switch cntrltype {
	case "io":
		return IO
	case "discovery":
		return Discovery
	case "admin":
		return Admin
	}
	return Unknown
}

// kind classifies by "cntrltype" (Linux 5.18), and where that does not say, by
// the well-known discovery NQN.
func (c *Controller) kind() Kind {
	switch plain := kindOf(c.CntrlType); {
	case plain != Unknown:
		return plain
	case c.SubsysNQN == nvme.WellKnownDiscoveryNQN:
		return Discovery
	case c.SubsysNQN == "":
		return Unknown
	case c.CntrlType == "" || c.State == Live:
		// The kernel is too old to say (see kindByQueues), or the controller:
		// before NVMe 1.4 none reports its type ("reserved"), and the kernel
		// accepts no such one as discovery controller with a name of its own.
		return IO
	}
	return Unknown // "reserved" until Identify is over
}
