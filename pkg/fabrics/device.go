package fabrics

import (
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"sync"

	"golang.org/x/sys/unix"
)

// DefaultPath is where the module nvme-fabrics puts its device.
const DefaultPath = "/dev/nvme-fabrics"

// connectAttempts bounds how often a connect that a signal interrupted is
// tried again. Each try makes the kernel announce and withdraw a controller.
const connectAttempts = 5

// Device is the kernel's NVMe over Fabrics host. The kernel does one thing at
// a time there: while a connect waits for a mute target, up to a minute or
// more, every other user of the device waits too and cannot be interrupted.
// The methods may be called from several goroutines and will queue up.
type Device struct {
	Path    string // DefaultPath if empty
	Release string // of the kernel, as in uname -r; asked for if empty
	Calls   Calls  // Direct if nil

	open func(path string) (io.ReadWriteCloser, error) // openFD but in tests

	mu        sync.Mutex // guards the following
	supported *OptionSet
}

// Probe tells which options the kernel supports. Once it knows it does not
// ask again.
func (d *Device) Probe() (OptionSet, error) { return d.probe("") }

func (d *Device) probe(transport string) (OptionSet, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.supported != nil {
		return *d.supported, nil
	}
	f, err := d.openDevice(transport)
	if err != nil {
		return OptionSet{}, err
	}
	defer f.Close()
	var set OptionSet
	line, err := readReply(f)
	switch {
	case errors.Is(err, unix.EINVAL):
		// Before Linux 5.17 there is nothing to read unless one has connected.
		if set, err = d.guess(); err != nil {
			return OptionSet{}, err
		}
	case err != nil:
		return OptionSet{}, fmt.Errorf("asking the kernel for its connect options: %w", err)
	default:
		if set, err = parseOptionSet(line); err != nil {
			return OptionSet{}, err
		}
	}
	d.supported = &set
	return set, nil
}

// guess is for kernels that cannot be asked.
func (d *Device) guess() (OptionSet, error) {
	release := d.Release
	if release == "" {
		var u unix.Utsname
		if err := unix.Uname(&u); err != nil {
			return OptionSet{}, fmt.Errorf("uname: %w", err)
		}
		release = unix.ByteSliceToString(u.Release[:])
	}
	return optionsOf(release), nil
}

// Instance is a connected controller.
type Instance struct {
	Name    string   // "nvme3"
	CntlID  int      // of this connection; a reconnect may change it
	Dropped []string // options that were given and not sent, see OptionString
}

// Connect makes a controller, which takes as long as the target pleases and
// cannot be cancelled. If it fails, none is left behind. A failure of the
// kernel or the target is a *ConnectError.
func (d *Device) Connect(o Options) (Instance, error) {
	supported, err := d.probe(o.Transport)
	if err != nil {
		return Instance{}, err
	}
	line, err := o.Encode(supported)
	if err != nil {
		return Instance{}, err
	}
	// The reply belongs to the open file, and continues after whatever was
	// read from it: hence a fresh one for each connect.
	f, err := d.openDevice(o.Transport)
	if err != nil {
		return Instance{}, err
	}
	defer f.Close()
	if err := writeLine(f, line.Reveal()); err != nil {
		if errno, ok := errors.AsType[unix.Errno](err); ok {
			return Instance{}, &ConnectError{Options: o, Errno: errno}
		}
		return Instance{}, fmt.Errorf("connecting: %w", err)
	}
	reply, err := readReply(f)
	if err != nil {
		return Instance{}, fmt.Errorf("connected, but the kernel does not say as what: %w", err)
	}
	instance, err := parseInstance(reply)
	if err != nil {
		return Instance{}, err
	}
	instance.Dropped = line.Dropped
	return instance, nil
}

func (d *Device) openDevice(transport string) (io.ReadWriteCloser, error) {
	open, path := d.open, d.Path
	if open == nil {
		open = func(path string) (io.ReadWriteCloser, error) { return openFD(path, orDirect(d.Calls)) }
	}
	if path == "" {
		path = DefaultPath
	}
	f, err := open(path)
	if err != nil {
		return nil, &OpenError{Path: path, Transport: transport, Err: err}
	}
	return f, nil
}

// writeLine is one connect. A signal that hits the thread in it ends it with
// EINTR at some stages; the file is as good as new then.
func writeLine(w io.Writer, line string) error {
	for attempt := 1; ; attempt++ {
		n, err := io.WriteString(w, line)
		switch {
		case err == nil && n == len(line):
			return nil
		case err == nil:
			return io.ErrShortWrite
		case attempt == connectAttempts || !errors.Is(err, unix.EINTR):
			return err
		}
	}
}

// readReply reads the one line that the device has to say.
func readReply(r io.Reader) (string, error) {
	buf := make([]byte, 4096) // the kernel has no more than a page
	n, err := r.Read(buf)
	if err != nil {
		return "", err
	}
	return string(buf[:n]), nil
}

// parseInstance reads "instance=3,cntlid=1" (fabrics.c, __nvmf_dev_seq_show).
func parseInstance(reply string) (Instance, error) {
	instance, cntlid := -1, -1
	for field := range strings.SplitSeq(strings.TrimSuffix(reply, "\n"), ",") {
		key, value, _ := strings.Cut(field, "=")
		n, err := strconv.ParseUint(value, 10, 31)
		switch {
		case key == "instance" && err == nil:
			instance = int(n)
		case key == "cntlid" && err == nil:
			cntlid = int(n)
		}
	}
	if instance < 0 || cntlid < 0 {
		return Instance{}, fmt.Errorf("connected, but the kernel says %.80q", reply)
	}
	return Instance{Name: "nvme" + strconv.Itoa(instance), CntlID: cntlid}, nil
}

// parseOptionSet reads "instance=-1,cntlid=-1,transport=%s,…,tls"
// (fabrics.c, nvmf_dev_seq_show: Linux 5.17 and later).
func parseOptionSet(reply string) (OptionSet, error) {
	var names []string
	for field := range strings.SplitSeq(strings.TrimSuffix(reply, "\n"), ",") {
		name, _, _ := strings.Cut(field, "=")
		if name != "" && name != "instance" && name != "cntlid" {
			names = append(names, name)
		}
	}
	if !slices.Contains(names, "transport") {
		// Every kernel has it: this is something else than a list of options.
		return OptionSet{}, fmt.Errorf("not a list of connect options: %.80q", reply)
	}
	return NewOptionSet(names...), nil
}

// optionsOf returns what a kernel before 5.17 is known to support.
func optionsOf(release string) OptionSet {
	names := []string{
		"transport", "traddr", "trsvcid", "nqn", "hostnqn", "hostid", "host_traddr",
		"queue_size", "nr_io_queues", "nr_write_queues", "nr_poll_queues",
		"reconnect_delay", "ctrl_loss_tmo", "keep_alive_tmo", "fast_io_fail_tmo", "tos",
		"duplicate_connect", "disable_sqflow", "hdr_digest", "data_digest",
	}
	if atLeast(release, 5, 14) {
		names = append(names, "host_iface")
	}
	if atLeast(release, 5, 16) {
		names = append(names, "discovery")
	}
	return NewOptionSet(names...)
}

// atLeast compares the beginning of a release such as "5.15.0-203-generic".
// What cannot be read is old.
func atLeast(release string, major, minor int) bool {
	var a, b int
	if _, err := fmt.Sscanf(release, "%d.%d", &a, &b); err != nil {
		return false
	}
	return a > major || a == major && b >= minor
}
